//! The first stage, still outside: gives up root, leaves the namespaces, and starts process 1 in the new ones.

use super::{INNER_ID, failed, next, tell};
use crate::report::Layer;
use rustix::process::{DumpableBehavior, Gid, Signal, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

pub(super) fn run(control: &UnixStream, outer_id: Option<&str>) -> Result<(), String> {
    let outer_id: u32 = outer_id.and_then(|id| id.parse().ok()).ok_or("no id for the outside")?;
    sys::close_all_on_exec().map_err(failed("cannot close inherited files (Linux 5.11 is needed)"))?;
    // Without a terminal of its own nothing inside can type into one.
    let _ = rustix::process::setsid();
    wait_for_plan(control)?;
    let user = own_user(outer_id)?;
    leave_namespaces()?;
    tell(control, user)?;
    tell(control, Layer::holds("namespaces", "user, mount, pid, network, ipc, uts, cgroup"))?;
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(failed("PDEATHSIG"))?;
    keep_rights_over_exec()?;
    let stdin = OwnedFd::from(control.try_clone().map_err(failed("the socket"))?);
    let mut init = next("init").stdin(stdin).spawn().map_err(failed("process 1 can't be started"))?;
    init.wait().map_err(failed("waiting for process 1"))?;
    Ok(())
}

/// The plan stays in the socket, for process 1. That it is there says that this process is in its cgroup.
fn wait_for_plan(control: &UnixStream) -> Result<(), String> {
    use rustix::event::{PollFd, PollFlags, poll};
    let mut there = [PollFd::new(control, PollFlags::IN)];
    rustix::io::retry_on_intr(|| poll(&mut there, None)).map_err(failed("waiting for the plan")).map(drop)
}

/// A user of its own for the command, where this process may give it one.
fn own_user(id: u32) -> Result<Layer, String> {
    let name = "own user";
    if !rustix::process::geteuid().is_root() {
        return Ok(Layer::missing(name, "the node is not root: outside, commands belong to the node's user"));
    }
    let maps =
        ["/proc/self/uid_map", "/proc/self/gid_map"].map(|file| fs::read_to_string(file).unwrap_or_default());
    if !maps.iter().all(|map| knows(map, id)) {
        return Ok(Layer::missing(
            name,
            format!("the container knows no uid {id}: commands belong to its root"),
        ));
    }
    leave_root(id)?;
    Ok(Layer::holds(name, "outside, commands belong to a uid that owns nothing"))
}

/// Lines of `first inside`, `first outside`, `count`.
fn knows(map: &str, id: u32) -> bool {
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().map_while(|word| word.parse::<u64>().ok());
        let (Some(first), Some(_), Some(count)) = (numbers.next(), numbers.next(), numbers.next()) else {
            return false;
        };
        (first..first.saturating_add(count)).contains(&u64::from(id))
    })
}

/// Root becomes a user that owns nothing: whatever is reached inside in spite of all, it may not touch it. The
/// capabilities stay until the namespaces are made, because some systems let only root make them.
fn leave_root(id: u32) -> Result<(), String> {
    let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
    rustix::thread::set_keep_capabilities(true).map_err(failed("PR_SET_KEEPCAPS"))?;
    rustix::thread::set_thread_groups(&[]).map_err(failed("setgroups"))?;
    rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(failed("setresgid"))?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(failed("setresuid"))?;
    let permitted = rustix::thread::capabilities(None).map_err(failed("capget"))?.permitted;
    let sets = CapabilitySets { effective: permitted, permitted, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets).map_err(failed("capset"))?;
    // Or the maps below belong to root, who we are no longer.
    rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable).map_err(failed("PR_SET_DUMPABLE"))
}

fn leave_namespaces() -> Result<(), String> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    sys::leave_namespaces(sys::NAMESPACES).map_err(|error| {
        format!(
            "this machine gives no namespaces to us ({error}); look at user.max_user_namespaces, \
             kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns, or the seccomp \
             profile of the container"
        )
    })?;
    let write = |file: &str, text: String| fs::write(file, text).map_err(failed(file));
    write("/proc/self/setgroups", "deny".into())?;
    write("/proc/self/uid_map", format!("{INNER_ID} {} 1", uid.as_raw()))?;
    write("/proc/self/gid_map", format!("{INNER_ID} {} 1", gid.as_raw()))
}

/// Process 1 mounts, and so needs the capabilities of the new user namespace over its `exec`.
fn keep_rights_over_exec() -> Result<(), String> {
    let permitted = rustix::thread::capabilities(None).map_err(failed("capget"))?.permitted;
    let sets = CapabilitySets { effective: permitted, permitted, inheritable: permitted };
    rustix::thread::set_capabilities(None, sets).map_err(failed("capset"))?;
    for capability in permitted.iter() {
        rustix::thread::configure_capability_in_ambient_set(capability, true)
            .map_err(failed("ambient set"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::knows;

    #[test]
    fn ids_are_looked_up_in_the_map() {
        assert!(knows("         0          0 4294967295\n", 2_000_000_001));
        assert!(!knows("0 100000 65536\n", 2_000_000_001));
        assert!(knows("0 1000 1\n1 100000 65536\n", 65_536));
        assert!(!knows("", 0));
    }
}
