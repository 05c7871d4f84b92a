//! The third stage: takes every right from itself, and becomes the command.

use super::{failed, landlocked, receive, tell};
use crate::calls;
use crate::report::Layer;
use crate::wire::{News, Order, Plan};
use rustix::process::{Resource, Rlimit};
use std::fs::{self, File};
use std::io::{Seek, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;

const OPEN_FILES: u64 = 1024;

pub(super) fn run(control: &UnixStream) -> Result<(), String> {
    let Order::Plan(plan) = receive(control)? else { return Err("the plan comes first".into()) };
    sys::close_all_on_exec().map_err(failed("closing files"))?;
    let stdin = stdin(control)?;
    let _ = rustix::process::setsid();
    // The kernel's first choice where memory ends. Best effort: some kernels hide the file.
    drop(fs::write("/proc/self/oom_score_adj", "1000"));
    limit(&plan)?;
    check_rights()?;
    tell(control, Layer::holds("privileges", "no capability, no_new_privs, not root inside"))?;
    for layer in landlocked::restrict(&plan) {
        tell(control, layer)?;
    }
    calls::install()?;
    tell(
        control,
        Layer::holds("seccomp", format!("{} system calls allowed, the others refused", calls::count())),
    )?;
    tell(control, News::Guarded)?;
    let Order::Start = receive(control)? else { return Err("an order out of place".into()) };
    rustix::stdio::dup2_stdin(&stdin).map_err(failed("stdin"))?;
    let [program, words @ ..] = plan.command.as_slice() else { return Err("the command is empty".into()) };
    let error = Command::new(program).args(words).exec();
    Err(format!("{program} can't be run inside: {error}"))
}

/// A file in memory: the command can read it and seek in it, and nobody waits for anybody.
fn stdin(control: &UnixStream) -> Result<File, String> {
    let memory =
        rustix::fs::memfd_create("stdin", rustix::fs::MemfdFlags::CLOEXEC).map_err(failed("stdin"))?;
    let mut file = File::from(memory);
    loop {
        match receive(control)? {
            Order::Stdin(bytes) => file.write_all(&bytes).map_err(failed("stdin"))?,
            Order::StdinEnd => break,
            _ => return Err("an order out of place".into()),
        }
    }
    file.rewind().map_err(failed("stdin"))?;
    Ok(file)
}

fn limit(plan: &Plan) -> Result<(), String> {
    let mut limits = vec![
        (Resource::Core, 0),
        (Resource::Nofile, OPEN_FILES),
        (Resource::Fsize, plan.disk_bytes),
        (Resource::Nproc, u64::from(plan.pids)),
        (Resource::Cpu, plan.cpu_seconds),
        (Resource::Memlock, 64 << 10),
        (Resource::Msgqueue, 0),
        (Resource::Sigpending, 1024),
    ];
    if plan.watch_memory {
        limits.push((Resource::Data, plan.memory_bytes));
    }
    for (resource, most) in limits {
        let there = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let most = Some(most.min(there));
        rustix::process::setrlimit(resource, Rlimit { current: most, maximum: most })
            .map_err(failed("a limit"))?;
    }
    Ok(())
}

/// Process 1 took them; looked at, not believed.
fn check_rights() -> Result<(), String> {
    let sets = rustix::thread::capabilities(None).map_err(failed("capget"))?;
    let is_bare = sets.permitted.is_empty() && sets.effective.is_empty() && sets.inheritable.is_empty();
    let no_new = rustix::thread::no_new_privs().map_err(failed("PR_GET_NO_NEW_PRIVS"))?;
    let is_root = rustix::process::geteuid().is_root() || rustix::process::getuid().is_root();
    if is_bare && no_new && !is_root { Ok(()) } else { Err("privileges are left inside".into()) }
}
