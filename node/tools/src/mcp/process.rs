//! A server that was started here: its process group, which goes when this goes, and the end of what it complained.

use crate::config::McpConfig;
use rustix::process::{Pid, Signal, kill_process_group};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::watch;

/// What of the node's environment every server gets; anything else may be a secret.
const PASSED_ON: &[&str] = &["PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "USER", "TZ"];
/// Kept of what a server writes to its standard error.
const COMPLAINT_BYTES: usize = 2048;
/// How long the last words of a server that ended are waited for.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// A process group. Dropping it kills all of the group; what left the group on its own (a daemon) is not found.
pub(super) struct Process {
    child: Child,
    group: Option<Pid>,
    complaint: Arc<Mutex<String>>,
    /// Whether nothing more will be complained.
    is_silent: watch::Receiver<bool>,
}

impl Process {
    /// Starts the command in a group of its own.
    pub(super) fn start(config: &McpConfig) -> Result<(Process, ChildStdout, ChildStdin), String> {
        let mut child = command(config).spawn().map_err(|error| format!("{}: {error}", config.command[0]))?;
        let group = child.id().and_then(|id| Pid::from_raw(id as i32));
        let (stdout, stdin) = (child.stdout.take().expect("piped"), child.stdin.take().expect("piped"));
        let complaint = Arc::default();
        let (silence, is_silent) = watch::channel(false);
        let (stderr, kept) = (child.stderr.take().expect("piped"), Arc::clone(&complaint));
        tokio::spawn(async move {
            keep_tail(stderr, kept).await;
            silence.send_replace(true);
        });
        Ok((Process { child, group, complaint, is_silent }, stdout, stdin))
    }

    pub(super) fn id(&self) -> Option<u32> {
        self.group.map(|group| group.as_raw_nonzero().get() as u32)
    }

    /// The end of what it wrote to its standard error.
    pub(super) fn complaint(&self) -> String {
        self.complaint.lock().unwrap_or_else(PoisonError::into_inner).trim().to_string()
    }

    /// The same of a server that has just ended: what it wrote may still be on its way.
    pub(super) async fn last_words(&self) -> String {
        let mut is_silent = self.is_silent.clone();
        let _ = tokio::time::timeout(LAST_WORDS, is_silent.wait_for(|is_silent| *is_silent)).await;
        self.complaint()
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
