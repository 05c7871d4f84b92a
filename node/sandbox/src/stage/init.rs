//! The second stage, process 1 of the new namespaces: builds the root, starts the guard, buries the dead, and takes
//! everything with it when it ends.

use super::memory::Watch;
use super::{failed, next, receive, root, tell};
use crate::files::{self, Put, Seen};
use crate::report::Layer;
use crate::wire::{self, News, Order, Plan, Summary};
use rustix::process::{DumpableBehavior, Pid, Signal, WaitOptions, WaitStatus};
use rustix::thread::{CapabilitySet, CapabilitySets};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub(super) fn run(control: &UnixStream) -> Result<(), String> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(failed("PDEATHSIG"))?;
    let Order::Plan(plan) = receive(control)? else { return Err("the plan comes first".into()) };
    root::build(&plan)?;
    rustix::system::sethostname(b"sandbox").map_err(failed("sethostname"))?;
    tell(
        control,
        Layer::holds("file system", "a root of its own, read-only but for /work, /tmp and /dev/shm"),
    )?;
    drop_rights()?;
    tell(control, Layer::holds("disk", "one tmpfs of disk_bytes; changed files are copied back at the end"))?;
    take_folder(control, plan.disk_bytes)?;
    let work = files::open(Path::new("/work")).map_err(failed("/work"))?;
    let before = Seen::now(&work).map_err(failed("/work"))?;
    let command = guarded(control, &plan)?;
    let watch = Arc::new(Watch::new(plan.memory_bytes));
    listen(control, plan.grace_ms)?;
    if plan.watch_memory {
        watch.clone().start();
    }
    let status = bury(command)?;
    let summary = Summary { disk_bytes: used_bytes(&work), ..watch.summary(status, cpu_ms()) };
    tell(control, News::Ended(summary))?;
    let mut give = |news: News| wire::send(control, &news);
    files::changed(&work, &before, plan.disk_bytes, &mut give).map_err(failed("the changed files"))?;
    tell(control, News::Done)
}

/// Nothing after this can be done that the command could not do itself, but to be process 1.
fn drop_rights() -> Result<(), String> {
    for capability in CapabilitySet::all().iter() {
        // Newer capabilities than the kernel's are no error: it has none to drop.
        let _ = rustix::thread::remove_capability_from_bounding_set(capability);
    }
    rustix::thread::clear_ambient_capability_set().map_err(failed("ambient set"))?;
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    rustix::thread::set_capabilities(None, sets).map_err(failed("capset"))?;
    rustix::thread::set_no_new_privs(true).map_err(failed("PR_SET_NO_NEW_PRIVS"))?;
    // Its memory, files and environment are closed to those who share its uid. PDEATHSIG stays.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(failed("PR_SET_DUMPABLE"))
}

fn take_folder(control: &UnixStream, disk_bytes: u64) -> Result<(), String> {
    let mut put = Put::new(files::open(Path::new("/work")).map_err(failed("/work"))?, disk_bytes, false);
    loop {
        match receive(control)? {
            Order::Entry(entry) => drop(put.entry(entry).map_err(failed("the folder can't be copied in"))?),
            Order::FolderEnd => return Ok(()),
            _ => return Err("an order out of place".into()),
        }
    }
}

/// Starts the guard, hands it the plan and stdin, and passes on what it says, until it has become the command.
fn guarded(control: &UnixStream, plan: &Plan) -> Result<Pid, String> {
    let (ours, theirs) = UnixStream::pair().map_err(failed("a socket"))?;
    let guard = next("guard")
        .envs(plan.env.iter().cloned())
        .current_dir("/work")
        .stdin(OwnedFd::from(theirs))
        .spawn();
    let pid = Pid::from_child(&guard.map_err(failed("the guard can't be started"))?);
    let order = |order: &Order| wire::send(&ours, order).map_err(failed("the guard doesn't listen"));
    order(&Order::Plan(plan.clone()))?;
    loop {
        let stdin = receive(control)?;
        let is_end = matches!(stdin, Order::StdinEnd);
        order(&stdin)?;
        if is_end {
            break;
        }
    }
    // Its last word is that it waits, or why it does not.
    loop {
        match wire::receive(&ours).map_err(failed("the guard ended without a word"))? {
            News::Failed(why) => return Err(why),
            News::Guarded => break,
            news => tell(control, news)?,
        }
    }
    tell(control, News::Guarded)?;
    let Order::Start = receive(control)? else { return Err("an order out of place".into()) };
    order(&Order::Start)?;
    // A closed socket is the `exec` that went well.
    match wire::receive(&ours) {
        Ok(News::Failed(why)) => Err(why),
        _ => tell(control, News::Started).map(|()| pid),
    }
}

/// Ends everything when the caller is gone, and asks everything to end when the caller says so.
fn listen(control: &UnixStream, grace_ms: u64) -> Result<(), String> {
    let control = control.try_clone().map_err(failed("the socket"))?;
    let heard = move || {
        while let Ok(order) = wire::receive::<Order>(&control) {
            if matches!(order, Order::Terminate) {
                everyone(Signal::TERM);
                std::thread::sleep(Duration::from_millis(grace_ms));
                everyone(Signal::KILL);
            }
        }
        // The kernel ends every process of the namespace with process 1.
        std::process::exit(1);
    };
    std::thread::Builder::new().spawn(heard).map_err(failed("a thread")).map(drop)
}

/// Every process of the namespace but this one: `kill(-1)`.
pub(super) fn everyone(signal: Signal) {
    let _ = rustix::process::kill_process_group(Pid::INIT, signal);
}

/// Waits for the command, ends what it left, and waits for that, too.
fn bury(command: Pid) -> Result<WaitStatus, String> {
    let mut ended = None;
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == command => {
                ended = Some(status);
                everyone(Signal::KILL);
            }
            // Orphans of orphans can appear after the first signal.
            Ok(_) if ended.is_some() => everyone(Signal::KILL),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CHILD) => return ended.ok_or_else(|| "the command was never ours".into()),
            Err(error) => return Err(format!("wait: {error}")),
        }
    }
}

/// Time of all children that were waited for.
fn cpu_ms() -> u64 {
    let text = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let field =
        |index: usize| after_name.split_whitespace().nth(index).and_then(|text| text.parse::<u64>().ok());
    // cutime and cstime, in hundredths of a second on every Linux.
    (field(13).unwrap_or(0) + field(14).unwrap_or(0)) * 10
}

fn used_bytes(work: &OwnedFd) -> u64 {
    let Ok(stat) = rustix::fs::fstatvfs(work) else { return 0 };
    (stat.f_blocks - stat.f_bfree) * stat.f_frsize
}
