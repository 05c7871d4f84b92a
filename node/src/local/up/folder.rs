//! The folder of a local cluster: its plan, each node's configuration, log, data and process id.
//!
//! Whoever acts on a process does it through here: it must be one that this folder's cluster started.

use super::plan::{FORMAT, Layout};
use crate::store::DataLock;
use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const PLAN: &str = "local-cluster.json";
const FOUNDED: &str = "founded";
const CUT: &str = "cut";
/// How often an ending process is looked at.
const LOOK: Duration = Duration::from_millis(50);
const LAST_LINES: usize = 3;

pub(crate) struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Makes it where it is not there. A folder with something else in it is refused.
    pub(super) fn make(path: &Path) -> anyhow::Result<Folder> {
        fs::create_dir_all(path).with_context(|| format!("making {}", path.display()))?;
        let path = fs::canonicalize(path)?;
        let ours = |name: &std::ffi::OsStr| name == PLAN || name == "LOCK";
        let foreign = fs::read_dir(&path)?.flatten().find(|entry| !ours(&entry.file_name()));
        match foreign {
            Some(entry) if !path.join(PLAN).exists() => bail!(
                "{} is no folder of a local cluster, and not empty (there is {}); give an empty one with --folder",
                path.display(),
                entry.file_name().display()
            ),
            _ => Ok(Folder { path }),
        }
    }

    /// One in which a cluster runs now.
    pub(crate) fn of_running(path: &Path) -> anyhow::Result<(Folder, Layout)> {
        let next = "start one with `quorate cluster up --local 3`, and name its --folder here; chaos is made in such a cluster only";
        let known = fs::canonicalize(path).ok().map(|path| Folder { path });
        let layout = known.as_ref().map(Folder::layout).transpose()?.flatten();
        let (Some(folder), Some(layout)) = (known, layout) else {
            bail!("{} is no folder of `quorate cluster up`; {next}", path.display());
        };
        if DataLock::owner_of(&folder.path).is_none() {
            bail!("no local cluster runs in {}; {next}", path.display());
        }
        Ok((folder, layout))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn layout(&self) -> anyhow::Result<Option<Layout>> {
        let file = self.path.join(PLAN);
        let Ok(text) = fs::read_to_string(&file) else { return Ok(None) };
        let damaged = || {
            format!("{} is damaged; remove the folder {} to begin anew", file.display(), self.path.display())
        };
        let format =
            serde_json::from_str::<serde_json::Value>(&text).with_context(damaged)?["format"].as_u64();
        if format.is_some_and(|format| format > u64::from(FORMAT)) {
            bail!("{} was written by a newer version; use that one, or another --folder", file.display());
        }
        Ok(Some(serde_json::from_str(&text).with_context(damaged)?))
    }

    pub(super) fn keep(&self, layout: &Layout) -> anyhow::Result<()> {
        Ok(fs::write(self.path.join(PLAN), serde_json::to_string_pretty(layout)? + "\n")?)
    }

    pub(super) fn is_founded(&self) -> bool {
        self.path.join(FOUNDED).exists()
    }

    pub(super) fn founded(&self) -> anyhow::Result<()> {
        Ok(fs::write(self.path.join(FOUNDED), "")?)
    }

    pub(super) fn config(&self, node: &str) -> PathBuf {
        self.path.join(format!("{node}.toml"))
    }

    pub(super) fn write_config(&self, node: &str, text: &str) -> anyhow::Result<()> {
        Ok(fs::write(self.config(node), text)?)
    }

    pub(super) fn log(&self, node: &str) -> PathBuf {
        self.path.join(format!("{node}.log"))
    }

    /// The end of a node's log, in one line.
    pub(super) fn last_words(&self, node: &str) -> String {
        let text = fs::read_to_string(self.log(node)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(LAST_LINES).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }

    fn pid_file(&self, node: &str) -> PathBuf {
        self.path.join(format!("{node}.pid"))
    }

    pub(super) fn remember(&self, node: &str, pid: u32) -> anyhow::Result<()> {
        Ok(fs::write(self.pid_file(node), pid.to_string())?)
    }

    pub(super) fn forget(&self, node: &str) {
        let _ = fs::remove_file(self.pid_file(node));
    }

    /// A node's process, if it is still ours: ids are given again to others.
    pub(crate) fn pid(&self, node: &str) -> Option<u32> {
        let pid: u32 = fs::read_to_string(self.pid_file(node)).ok()?.trim().parse().ok()?;
        let words = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let config = self.config(node).display().to_string();
        words.split(|byte| *byte == 0).any(|word| word == config.as_bytes()).then_some(pid)
    }

    /// A signal to a node's process; its id.
    pub(crate) fn signal(&self, node: &str, signal: Signal) -> anyhow::Result<u32> {
        let pid = self.pid(node).with_context(|| {
            format!(
                "{node} does not run in {}; it is started again a few seconds after it ended",
                self.path.display()
            )
        })?;
        let target = Pid::from_raw(pid as i32).context("a process id")?;
        kill_process(target, signal).with_context(|| format!("process {pid}"))?;
        Ok(pid)
    }

    /// SIGTERM, and SIGKILL after `patience`.
    pub(super) fn end(&self, node: &str, patience: Duration) -> anyhow::Result<()> {
        self.signal(node, Signal::CONT)?;
        self.signal(node, Signal::TERM)?;
        let deadline = Instant::now() + patience;
        while self.pid(node).is_some() {
            if Instant::now() > deadline {
                self.signal(node, Signal::KILL)?;
            }
            std::thread::sleep(LOOK);
        }
        self.forget(node);
        Ok(())
    }

    /// Nodes that are cut off from all others now.
    pub(super) fn cut_off(&self) -> BTreeSet<String> {
        fs::read_to_string(self.path.join(CUT)).unwrap_or_default().lines().map(str::to_string).collect()
    }

    pub(crate) fn cut(&self, node: &str) -> anyhow::Result<()> {
        Ok(fs::write(self.path.join(CUT), format!("{node}\n"))?)
    }

    pub(crate) fn heal(&self) {
        let _ = fs::remove_file(self.path.join(CUT));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_folders_and_processes_are_not_ours() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.txt"), "precious").unwrap();
        let refused = Folder::make(dir.path()).err().unwrap().to_string();
        assert!(refused.contains("thesis.txt") && refused.contains("--folder"), "{refused}");
        let refused = Folder::of_running(dir.path()).err().unwrap().to_string();
        assert!(refused.contains("cluster up --local 3"), "{refused}");

        let empty = tempfile::tempdir().unwrap();
        let folder = Folder::make(empty.path()).unwrap();
        folder.keep(&Layout::plan(1, 1, 7400, |_| true).unwrap()).unwrap();
        let refused = Folder::of_running(empty.path()).err().unwrap().to_string();
        assert!(refused.contains("no local cluster runs"), "{refused}");
        // This test's own process has the id that the file names, and is no node of the folder.
        folder.remember("worker-1", std::process::id()).unwrap();
        assert_eq!(folder.pid("worker-1"), None);
        let refused = folder.signal("worker-1", Signal::KILL).unwrap_err().to_string();
        assert!(refused.contains("does not run"), "{refused}");
    }

    #[test]
    fn a_newer_folder_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(PLAN), "{\"format\": 2, \"machines\": []}").unwrap();
        let refused = Folder::make(dir.path()).unwrap().layout().unwrap_err().to_string();
        assert!(refused.contains("newer version"), "{refused}");
    }

    #[test]
    fn a_cut_is_seen_and_healed() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::make(dir.path()).unwrap();
        assert!(folder.cut_off().is_empty());
        folder.cut("worker-1").unwrap();
        assert!(folder.cut_off().contains("worker-1"));
        folder.heal();
        assert!(folder.cut_off().is_empty());
    }
}
