//! `cluster snapshot FILE`: the file has its name only when it is whole and on the disk.

use crate::failure::{self, Exit, Failure};
use crate::output::{Out, fields};
use quorate_sdk::Client;
use quorate_sdk::data;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

#[derive(clap::Args, Debug)]
pub struct Snapshot {
    /// Where to write; a file that is there already is left alone
    file: PathBuf,
    /// Go on without segments that no reachable node holds, and count them
    #[arg(long)]
    allow_missing: bool,
}

pub(super) async fn perform(it: &Snapshot, client: &Client, out: &mut Out<'_>) -> Result<Exit, Failure> {
    if it.file.exists() {
        let what = format!("{} is there already", it.file.display());
        return Err(failure::usage("FILE_EXISTS", &what, "choose another name, or move it away"));
    }
    let mut part = it.file.clone().into_os_string();
    part.push(".part");
    let part = PathBuf::from(part);
    let written = receive(it, &part, client).await;
    let summary = match written {
        Ok(summary) => summary,
        Err(failure) => {
            // What arrived is no backup; a leftover is written over by the next one.
            let _ = std::fs::remove_file(&part);
            return Err(failure);
        }
    };
    std::fs::rename(&part, &it.file)?;
    File::open(folder(&it.file))?.sync_all()?;
    out.one(&summary, in_full)?;
    out.note(&format!("next: `quorate cluster verify {}`, then keep a copy elsewhere", it.file.display()))?;
    Ok(Exit::Ok)
}

async fn receive(it: &Snapshot, part: &Path, client: &Client) -> Result<data::Snapshot, Failure> {
    let mut stream = client.cluster().snapshot(it.allow_missing).await?;
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(part)?;
    let mut bytes = 0;
    while let Some(data) = stream.next().await? {
        file.write_all(&data)?;
        bytes += data.len() as u64;
    }
    file.sync_all()?;
    match stream.summary() {
        Some(summary) if summary.bytes == bytes => Ok(summary.clone()),
        _ => Err(failure::usage("CUT_OFF", "fewer bytes arrived than were sent", "begin again")),
    }
}

fn folder(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

pub(crate) fn in_full(summary: &data::Snapshot) -> String {
    fields(&[
        ("cluster", summary.cluster_id.clone()),
        ("entry", summary.applied_index.to_string()),
        ("state hash", summary.state_hash.clone()),
        ("tasks", summary.tasks.to_string()),
        ("segments", summary.segments.to_string()),
        ("missing", summary.missing.to_string()),
        ("bytes", summary.bytes.to_string()),
    ])
}
