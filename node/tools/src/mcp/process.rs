//! A server that was started here: its process group, which goes when this goes, and the end of what it complained.

use crate::config::McpConfig;
use rustix::process::{Pid, Signal, kill_process_group};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// What of the node's environment every server gets; anything else may be a secret.
const PASSED_ON: &[&str] = &["PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "USER", "TZ"];
/// Kept of what a server writes to its standard error.
const COMPLAINT_BYTES: usize = 2048;

/// A process group. Dropping it kills all of the group; what left the group on its own (a daemon) is not found.
pub(super) struct Process {
    child: Child,
    group: Option<Pid>,
    complaint: Arc<Mutex<String>>,
}

impl Process {
    /// Starts the command in a group of its own.
    pub(super) fn start(config: &McpConfig) -> Result<(Process, ChildStdout, ChildStdin), String> {
        let mut child = command(config).spawn().map_err(|error| format!("{}: {error}", config.command[0]))?;
        let group = child.id().and_then(|id| Pid::from_raw(id as i32));
        let (stdout, stdin) = (child.stdout.take().expect("piped"), child.stdin.take().expect("piped"));
        let complaint = Arc::default();
        tokio::spawn(keep_tail(child.stderr.take().expect("piped"), Arc::clone(&complaint)));
        Ok((Process { child, group, complaint }, stdout, stdin))
    }

    pub(super) fn id(&self) -> Option<u32> {
        self.group.map(|group| group.as_raw_nonzero().get() as u32)
    }

    /// The end of what it wrote to its standard error.
    pub(super) fn complaint(&self) -> String {
        self.complaint.lock().unwrap_or_else(PoisonError::into_inner).trim().to_string()
    }

    pub(super) fn kill(&self) {
        // The leader is not reaped before this value is dropped, so that the number still is its own.
        if let Some(group) = self.group {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        let _ = self.child.try_wait();
    }
}

fn command(config: &McpConfig) -> Command {
    let mut command = Command::new(&config.command[0]);
    command.args(&config.command[1..]).env_clear().process_group(0).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let passed = PASSED_ON.iter().copied().chain(config.inherit_env.iter().map(String::as_str));
    command.envs(passed.filter_map(|name| Some((name, std::env::var_os(name)?))));
    command.envs(&config.env.0);
    if let Some(folder) = &config.folder {
        command.current_dir(folder);
    }
    command
}

async fn keep_tail(mut stderr: impl AsyncRead + Unpin, complaint: Arc<Mutex<String>>) {
    let mut piece = [0; 1024];
    while let Ok(read @ 1..) = stderr.read(&mut piece).await {
        let text = crate::clean(&String::from_utf8_lossy(&piece[..read]));
        let mut complaint = complaint.lock().unwrap_or_else(PoisonError::into_inner);
        complaint.push_str(&text);
        *complaint = crate::output::tail(&complaint, COMPLAINT_BYTES).to_string();
    }
}
