//! From one CA to the next in three steps, each followed by copying files to every node and a reload: both are trusted,
//! everything is issued by the new one, the new one is trusted alone. Whoever did only some of the nodes when the
//! next step begins is the only one who is left out.
//!
//! `next/` in the folder is the new CA until it has issued; what it replaced goes to `before-TIME/`.

use super::certificate::{Certificate, Who};
use super::issue::{self, IssueError, show};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use time::OffsetDateTime;

/// Where a certificate in PEM form ends.
const END: &str = "-----END CERTIFICATE-----";

/// Makes the next CA, and lets `ca.crt` name both. Answers what is to be copied.
pub(crate) fn trust(folder: &Path, days: u32, now: OffsetDateTime) -> Result<Vec<PathBuf>, IssueError> {
    let next = folder.join("next");
    if next.exists() {
        return Err(not_now(
            "a change of the CA has begun",
            "`quorate cert rotate issue` is its second step",
        ));
    }
    let [own] = &cas(folder)?[..] else {
        return Err(not_now("ca.crt names two CAs", "`quorate cert rotate finish` ends the last change"));
    };
    let cluster = show(&folder.join("ca.crt"))?.into_iter().next().and_then(|ca| ca.cluster);
    let cluster =
        cluster.ok_or_else(|| not_now("ca.crt names no cluster", "make one with `quorate cert init`"))?;
    issue::ca(&next, &cluster, days, now)?;
    let both = format!("{own}{}", read(&next.join("ca.crt"))?);
    replace(&folder.join("ca.crt"), &both)?;
    Ok(vec![folder.join("ca.crt")])
}

/// Lets the next CA issue every certificate of the folder again, for as long as the old one held, and takes the old
/// CA's key out of the folder.
pub(crate) fn issue_all(folder: &Path, now: OffsetDateTime) -> Result<Vec<PathBuf>, IssueError> {
    let next = folder.join("next");
    if !next.join("ca.key").exists() {
        return Err(not_now(
            "there is no next CA",
            "`quorate cert rotate trust` makes it, and goes to every node first",
        ));
    }
    for file in certificates(folder)? {
        let name = file.file_name().unwrap_or_default();
        if !next.join(name).exists() {
            again(&next, &file, now)?;
        }
    }
    let before = folder.join(format!("before-{}", now.unix_timestamp()));
    fs::create_dir(&before).map_err(|cause| io(&before, cause))?;
    let both =
        format!("{}{}", read(&next.join("ca.crt"))?, cas(folder)?.first().cloned().unwrap_or_default());
    let made: Vec<PathBuf> = files(&next)?.into_iter().filter(|file| !is_named(file, "ca.crt")).collect();
    for file in &made {
        let name = file.file_name().unwrap_or_default();
        let (here, aside) = (folder.join(name), before.join(name));
        fs::rename(&here, &aside).and_then(|()| fs::rename(file, &here)).map_err(|cause| io(&here, cause))?;
    }
    replace(&folder.join("ca.crt"), &both)?;
    fs::remove_dir_all(&next).map_err(|cause| io(&next, cause))?;
    let made = made.iter().filter_map(|file| file.file_name()).filter(|name| *name != "ca.key");
    Ok(made.map(|name| folder.join(name)).collect())
}

/// Trusts the new CA alone.
pub(crate) fn finish(folder: &Path) -> Result<Vec<PathBuf>, IssueError> {
    if folder.join("next").exists() {
        return Err(not_now("the next CA has issued nothing yet", "`quorate cert rotate issue` comes first"));
    }
    let [new, _old] = &cas(folder)?[..] else {
        return Err(not_now(
            "ca.crt names one CA alone",
            "there is nothing to finish; `quorate cert rotate trust` begins",
        ));
    };
    replace(&folder.join("ca.crt"), new)?;
    Ok(vec![folder.join("ca.crt")])
}

/// The same again by the CA of `folder`: for the same name, addresses and time.
fn again(folder: &Path, file: &Path, now: OffsetDateTime) -> Result<(), IssueError> {
    let Some(old) = show(file)?.into_iter().next() else { return Ok(()) };
    let days = days_of(&old);
    match &old.who {
        Some(Who::Node { name, .. }) => issue::node(folder, name, &old.addresses, days, now).map(|_| ()),
        Some(Who::Client { identity, .. }) => issue::client(folder, identity, days, now).map(|_| ()),
        // Not of ours: it stays as it is.
        None => Ok(()),
    }
}

fn days_of(old: &Certificate) -> u32 {
    u32::try_from((old.not_after_s - old.not_before_s) / 86_400).unwrap_or(issue::NODE_DAYS).max(1)
}

/// Each certificate of `ca.crt`, as it stands there.
fn cas(folder: &Path) -> Result<Vec<String>, IssueError> {
    let text = read(&folder.join("ca.crt"))?;
    let parts = text.split_inclusive(END).filter(|part| part.ends_with(END));
    Ok(parts.map(|part| format!("{}\n", part.trim())).collect())
}

fn certificates(folder: &Path) -> Result<Vec<PathBuf>, IssueError> {
    let found = files(folder)?.into_iter().filter(|file| file.extension() == Some(OsStr::new("crt")));
    Ok(found.filter(|file| !is_named(file, "ca.crt")).collect())
}

fn files(folder: &Path) -> Result<Vec<PathBuf>, IssueError> {
    let entries = fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let mut files: Vec<PathBuf> =
        entries.map_err(|cause| io(folder, cause))?.into_iter().map(|entry| entry.path()).collect();
    files.retain(|path| path.is_file());
    files.sort();
    Ok(files)
}

fn is_named(file: &Path, name: &str) -> bool {
    file.file_name() == Some(OsStr::new(name))
}

fn read(file: &Path) -> Result<String, IssueError> {
    fs::read_to_string(file).map_err(|cause| io(file, cause))
}

/// All of it or nothing: whoever reads it meanwhile has the old text.
fn replace(file: &Path, text: &str) -> Result<(), IssueError> {
    let fresh = file.with_extension("crt.new");
    let _left_over = fs::remove_file(&fresh);
    issue::write(&fresh, text, 0o644)?;
    fs::rename(&fresh, file).map_err(|cause| io(file, cause))
}

fn io(file: &Path, cause: std::io::Error) -> IssueError {
    IssueError::Io { file: file.into(), cause }
}

fn not_now(why: &str, next: &str) -> IssueError {
    IssueError::Invalid { what: "the CA cannot be changed so", why: format!("{why}; {next}") }
}
