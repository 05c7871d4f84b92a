//! How often processes ask the disk for durability, counted by strace from outside, in the same way for both sides.

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

pub(crate) struct Watch {
    strace: Child,
    table: tempfile::NamedTempFile,
}

impl Watch {
    /// Answers when strace has attached to every process.
    pub(crate) async fn begin(pids: &[u32]) -> anyhow::Result<Watch> {
        let table = tempfile::NamedTempFile::new()?;
        let mut command = Command::new("strace");
        command.args(["-f", "-c", "-e", "trace=fsync,fdatasync,sync_file_range,msync"]);
        command.arg("-o").arg(table.path()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        pids.iter().for_each(|pid| {
            command.args(["-p", &pid.to_string()]);
        });
        let mut strace = command.spawn().context("starting strace: install it, or leave --syncs out")?;
        let said = strace.stderr.take().context("its messages")?;
        let mut lines = BufReader::new(said).lines();
        let mut attached = 0;
        while attached < pids.len() {
            let line = lines.next_line().await?.context("strace may not attach here")?;
            attached += usize::from(line.contains("attached"));
        }
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Watch { strace, table })
    }

    /// Calls since the beginning.
    pub(crate) async fn end(mut self) -> anyhow::Result<u64> {
        let pid = self.strace.id().and_then(|pid| Pid::from_raw(pid as i32)).context("strace runs")?;
        kill_process(pid, Signal::INT)?;
        self.strace.wait().await?;
        let table = std::fs::read_to_string(self.table.path())?;
        let calls = table.lines().filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let counted = words.last().is_some_and(|last| last.contains("sync"));
            counted.then(|| words.get(3).and_then(|word| word.parse::<u64>().ok())).flatten()
        });
        Ok(calls.sum())
    }
}
