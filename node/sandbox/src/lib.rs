//! Runs one command where it can do no harm: in its own namespaces, on its own read-only root, behind Landlock
//! and seccomp, in a cgroup, without privileges and without a network. It says what the machine can't enforce.
//!
//! It is not a container runtime: no images, no network, one folder. It knows no tool, no task and no quota;
//! whoever calls it says the limits. It blocks; async callers use a thread and keep a [`Handle`].
//!
//! The command never touches the caller's folder. What is in it is copied into a tmpfs of the permitted size,
//! and what changed there is copied back when everything inside has ended. So the size holds exactly, a killed
//! command changes nothing, and no path inside leads outside.
//!
//! Three stages re-execute this program, because namespaces want one thread and a clean start: `outer` leaves the
//! namespaces, `init` is process 1 inside and builds the root, `guard` takes every right from itself and becomes
//! the command. All three speak `wire` with the caller over their stdin.
//!
//! Read: `spec` (what is asked), `ended` (what comes back), `report` (what holds), `supervise` (outside),
//! then `stage` and its files in the order in which they run; `cgroup`, `files`, `calls` as needed.

mod calls;
mod cgroup;
mod ended;
mod files;
mod output;
mod report;
mod spec;
mod stage;
mod supervise;
mod wire;

pub use ended::{Ended, Status, Used, Why};
pub use output::shown;
pub use report::{Layer, Level, Report};
pub use spec::{Limits, Spec, default_readable};
pub use stage::{VERB, stage};
pub use supervise::{Handle, Running, Sandbox, SandboxError};
