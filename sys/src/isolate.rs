//! Calls with which a process leaves the world that others see: namespaces, open files, mounts.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The kinds of namespace that one call can leave.
pub const NAMESPACES: libc::c_int = libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP;

/// Leaves these namespaces for new ones. Other flags than those of `NAMESPACES` are ignored; with
/// `CLONE_NEWUSER` the process must have one thread.
pub fn leave_namespaces(flags: libc::c_int) -> io::Result<()> {
    // SAFETY: no memory is involved, and without CLONE_FILES and CLONE_FS no thread loses sight of a file.
    answer(unsafe { libc::unshare(flags & NAMESPACES) }.into())
}

/// Every file of this process but stdin, stdout and stderr is closed by the next `exec`.
pub fn close_all_on_exec() -> io::Result<()> {
    let first: libc::c_uint = 3;
    // SAFETY: no memory is involved; the call closes nothing now, it marks.
    answer(unsafe {
        libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
    })
}

/// Makes the mount at `path` read-only, without setuid and devices: alone, or with every mount below.
/// `devices`: device files below stay usable. Needs Linux 5.12.
pub fn make_mount_read_only(path: &Path, below: bool, devices: bool) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let nodev = if devices { 0 } else { libc::MOUNT_ATTR_NODEV };
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | nodev,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let flags = if below { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: `path` ends with a zero byte and `attributes` has the size we name; both live over the call.
    answer(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    })
}

fn answer(value: libc::c_long) -> io::Result<()> {
    if value == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_opened_before_are_marked() {
        let file = std::fs::File::open("/dev/null").expect("null");
        let number = std::os::fd::AsRawFd::as_raw_fd(&file);
        // SAFETY: sets a flag of a file that is ours.
        unsafe { libc::fcntl(number, libc::F_SETFD, 0) };
        close_all_on_exec().expect("Linux 5.11");
        // SAFETY: reads a flag of a file that is ours.
        assert_eq!(unsafe { libc::fcntl(number, libc::F_GETFD) }, libc::FD_CLOEXEC);
    }

    #[test]
    fn other_flags_are_ignored() {
        leave_namespaces(libc::CLONE_FILES).expect("nothing is asked");
    }

    #[test]
    fn a_path_that_is_no_mount_is_refused() {
        let folder = tempfile::tempdir().expect("folder");
        assert!(make_mount_read_only(folder.path(), false, false).is_err());
    }
}
