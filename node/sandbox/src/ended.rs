//! What comes back of a command.

use crate::report::Report;
use std::path::PathBuf;

/// How a command ended and what it left.
#[derive(Debug)]
pub struct Ended {
    /// None where it was killed before it could end by itself.
    pub status: Option<Status>,
    pub why: Why,
    /// The beginning and the end of what was printed, at most `output_bytes` together; raw bytes of a
    /// stranger: see [`shown`](crate::shown).
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    /// Bytes of both that were dropped.
    pub cut_bytes: u64,
    pub used: Used,
    /// Paths that changed in the folder, relative to it.
    pub changed: Vec<PathBuf>,
    /// What was left in the folder and not copied back, with the reason.
    pub refused: Vec<(PathBuf, String)>,
    /// What was enforced on this command.
    pub report: Report,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Code(i32),
    Signal(i32),
}

/// Why it ended. The kernel's own reason comes before the exit code that followed from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    Exited,
    TimedOut,
    OutOfMemory,
    /// It failed, and was refused a process or thread before.
    TooManyProcesses,
    /// Somebody used the [`Handle`](crate::Handle). Nothing was copied back.
    Killed,
}

/// What it used, as far as the machine counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// From the first call to the last reaped process, set-up included.
    pub total_ms: u64,
    /// From the request to the moment the command could run.
    pub start_ms: u64,
    pub cpu_ms: u64,
    pub memory_peak_bytes: Option<u64>,
    /// Files at the end.
    pub disk_bytes: u64,
}

impl Ended {
    /// It ended by itself with code 0.
    pub fn is_success(&self) -> bool {
        self.why == Why::Exited && self.status == Some(Status::Code(0))
    }
}
