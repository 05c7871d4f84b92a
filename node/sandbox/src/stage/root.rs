//! The file system that the command sees: a small tmpfs with read-only pieces of the machine, and one tmpfs of the
//! permitted size for everything that is written.

use super::{INNER_ID, failed};
use crate::wire::Plan;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use std::ffi::{CString, OsStr};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Where the new root is built. Nothing below `/sys` is ever shown inside.
const NEW: &str = "/sys";
const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];
const LINKS: [(&str, &str); 4] = [
    ("dev/fd", "/proc/self/fd"),
    ("dev/stdin", "/proc/self/fd/0"),
    ("dev/stdout", "/proc/self/fd/1"),
    ("dev/stderr", "/proc/self/fd/2"),
];

/// Builds it and makes it the root. Afterwards nothing of the old one is left in this mount namespace.
pub(super) fn build(plan: &Plan) -> Result<(), String> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).map_err(failed("cannot part from the mounts outside"))?;
    tmpfs(Path::new(NEW), "size=1m,nr_inodes=512,mode=755")?;
    for readable in &plan.readable {
        show(Path::new(OsStr::from_bytes(readable)))?;
    }
    devices()?;
    own_files()?;
    room(plan.disk_bytes)?;
    processes()?;
    enter()
}

fn tmpfs(at: &Path, options: &str) -> Result<(), String> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    let options = CString::new(options).map_err(failed("tmpfs"))?;
    rustix::mount::mount("tmpfs", at, "tmpfs", flags, options.as_c_str())
        .map_err(failed("cannot mount a tmpfs"))
}

fn inside(path: &Path) -> PathBuf {
    Path::new(NEW).join(path.strip_prefix("/").unwrap_or(path))
}

/// Shows one path of the machine at the same place, read-only with everything mounted below it.
fn show(path: &Path) -> Result<(), String> {
    let what = path.display().to_string();
    let Ok(meta) = fs::symlink_metadata(path) else { return Ok(()) };
    let at = inside(path);
    let parent = at.parent().ok_or_else(|| format!("{what} can't be shown"))?;
    fs::create_dir_all(parent).map_err(failed(&what))?;
    if at.symlink_metadata().is_ok() {
        return Ok(());
    }
    if meta.is_symlink() {
        let target = fs::read_link(path).map_err(failed(&what))?;
        return std::os::unix::fs::symlink(target, at).map_err(failed(&what));
    }
    let made = if meta.is_dir() { fs::create_dir(&at) } else { fs::write(&at, "") };
    made.map_err(failed(&what))?;
    rustix::mount::mount_bind_recursive(path, &at)
        .map_err(|error| format!("{what} can't be shown inside: {error}; it must be readable by everyone"))?;
    sys::make_mount_read_only(&at, true, false)
        .map_err(|error| format!("{what} can't be made read-only: {error}; Linux 5.12 is needed"))
}

fn devices() -> Result<(), String> {
    fs::create_dir_all(inside(Path::new("/dev"))).map_err(failed("/dev"))?;
    for name in DEVICES {
        let device = Path::new("/dev").join(name);
        let at = inside(&device);
        fs::write(&at, "").map_err(failed(name))?;
        rustix::mount::mount_bind(&device, &at).map_err(failed(name))?;
        sys::make_mount_read_only(&at, false, true).map_err(failed(name))?;
    }
    for (at, target) in LINKS {
        std::os::unix::fs::symlink(target, Path::new(NEW).join(at)).map_err(failed(at))?;
    }
    Ok(())
}

/// The few files of `/etc` that programs look into, with nothing of the machine in them.
fn own_files() -> Result<(), String> {
    let etc = inside(Path::new("/etc"));
    fs::create_dir_all(&etc).map_err(failed("/etc"))?;
    let files = [
        ("passwd", format!("agent:x:{INNER_ID}:{INNER_ID}::/work:/bin/sh\n")),
        ("group", format!("agent:x:{INNER_ID}:\n")),
        ("hosts", "127.0.0.1 localhost\n::1 localhost\n".to_string()),
        ("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n".to_string()),
    ];
    for (name, text) in files {
        fs::write(etc.join(name), text).map_err(failed(name))?;
    }
    Ok(())
}

/// One tmpfs for all that is written, seen at three places: the size holds for their sum.
fn room(disk_bytes: u64) -> Result<(), String> {
    let room = inside(Path::new("/.room"));
    fs::create_dir(&room).map_err(failed("room"))?;
    let inodes = (disk_bytes / 4096).clamp(256, 200_000);
    tmpfs(&room, &format!("size={disk_bytes},nr_inodes={inodes},mode=755"))?;
    for (name, at) in [("work", "/work"), ("tmp", "/tmp"), ("shm", "/dev/shm")] {
        let (from, at) = (room.join(name), inside(Path::new(at)));
        fs::create_dir(&from).map_err(failed(name))?;
        fs::create_dir_all(&at).map_err(failed(name))?;
        rustix::mount::mount_bind(&from, &at).map_err(failed(name))?;
    }
    // Only the three places stay; this one would show them all.
    rustix::mount::unmount(&room, UnmountFlags::DETACH).map_err(failed("room"))?;
    fs::remove_dir(&room).map_err(failed("room"))
}

/// Only the processes of this namespace, and of those not process 1; nothing of the machine.
fn processes() -> Result<(), String> {
    let at = inside(Path::new("/proc"));
    fs::create_dir(&at).map_err(failed("/proc"))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("proc", &at, "proc", flags, c"subset=pid,hidepid=invisible")
        .map_err(failed("cannot mount /proc"))
}

fn enter() -> Result<(), String> {
    std::env::set_current_dir(NEW).map_err(failed("the new root"))?;
    rustix::process::pivot_root(".", ".").map_err(failed("pivot_root"))?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).map_err(failed("the old root stays"))?;
    sys::make_mount_read_only(Path::new("/"), false, false).map_err(failed("the new root"))?;
    std::env::set_current_dir("/").map_err(failed("the new root"))
}
