//! `key new`: an API key, shown once, and its entry for the file of keys.

use super::cert::identity;
use crate::keys::{self, NewKey};
use anyhow::Context;
use serde_json::json;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

pub struct NewKeyOptions {
    /// A name, or `*` for every project.
    pub project: String,
    pub role: String,
    pub subject: String,
    pub expires: Option<String>,
    /// Appended to, and made where it is not there; without it the entry is printed.
    pub file: Option<PathBuf>,
    pub json: bool,
}

pub fn key_new(options: &NewKeyOptions) -> anyhow::Result<()> {
    let identity = identity(&options.subject, &options.project, &options.role)?;
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|why| anyhow::anyhow!("the system gave no random bytes: {why}"))?;
    let made = keys::new_key(&identity, options.expires.as_deref(), random).map_err(anyhow::Error::msg)?;
    if let Some(file) = &options.file {
        append(file, &made.entry)?;
    }
    print(&made, options);
    Ok(())
}

fn append(file: &Path, entry: &str) -> anyhow::Result<()> {
    let opened = OpenOptions::new().append(true).create(true).mode(0o600).open(file);
    let mut opened = opened.with_context(|| format!("{} cannot be written", file.display()))?;
    opened.write_all(format!("\n{entry}").as_bytes())?;
    opened.sync_all()?;
    Ok(())
}

/// The key is the result: with --file it stands alone on stdout, for a script to keep.
fn print(made: &NewKey, options: &NewKeyOptions) {
    if options.json {
        say!("{}", json!({ "key": made.key, "entry": made.entry }));
        return;
    }
    say!("{}", made.key);
    match &options.file {
        Some(file) => eprintln!("its hash is in {}: send SIGHUP to the nodes that read it", file.display()),
        None => say!("\n{}", made.entry),
    }
    eprintln!(
        "the key is shown this once; use it as QUORATE_API_KEY, or keep it in a file for --api-key-file"
    );
}
