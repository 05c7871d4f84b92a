//! What there is outside to be reached, and how it looks afterwards.

use sandbox::Sandbox;
use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

const CANARY: &str = "canary-7f3a";

pub(crate) struct World {
    root: tempfile::TempDir,
    /// The attempt's own folder.
    pub(crate) folder: PathBuf,
    tcp: TcpListener,
    udp: UdpSocket,
    unix: UnixListener,
    hidden: UnixListener,
    victim: Child,
    hostname: String,
    nodes: usize,
}

impl World {
    pub(crate) fn new() -> World {
        let root = tempfile::Builder::new().prefix("escape-").tempdir().expect("folder");
        // Everyone may read it: only the sandbox keeps it away.
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o777)).expect("open to all");
        for (name, text) in [("other/note", "other"), ("key", "key"), ("home/.ssh/id", "ssh")] {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().expect("parent")).expect("folder");
            fs::write(path, format!("{CANARY} {text}")).expect("write");
        }
        let folder = root.path().join("own");
        fs::create_dir(&folder).expect("folder");
        let tcp = TcpListener::bind("127.0.0.1:0").expect("tcp");
        let udp = UdpSocket::bind("127.0.0.1:0").expect("udp");
        let unix = UnixListener::bind(root.path().join("socket")).expect("unix");
        let name = format!("escape-{}", std::process::id());
        let hidden =
            UnixListener::bind_addr(&SocketAddr::from_abstract_name(name).expect("name")).expect("abstract");
        tcp.set_nonblocking(true).expect("nonblocking");
        udp.set_nonblocking(true).expect("nonblocking");
        unix.set_nonblocking(true).expect("nonblocking");
        hidden.set_nonblocking(true).expect("nonblocking");
        fs::set_permissions(root.path().join("socket"), fs::Permissions::from_mode(0o777))
            .expect("open to all");
        let victim = Command::new("sleep").arg("600").spawn().expect("sleep");
        let nodes = files_of(std::process::id());
        World { folder, tcp, udp, unix, hidden, victim, hostname: hostname(), nodes, root }
    }

    pub(crate) fn sandbox(&self) -> Sandbox {
        Sandbox::through(env!("CARGO_BIN_EXE_sandbox-try"))
    }

    pub(crate) fn canary(&self) -> &'static str {
        CANARY
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Puts the names of this world into a program.
    pub(crate) fn fill(&self, program: &str) -> String {
        let address =
            |port: std::io::Result<std::net::SocketAddr>| port.expect("an address").port().to_string();
        let pairs = [
            ("@ROOT@", self.root.path().display().to_string()),
            ("@TCP@", address(self.tcp.local_addr())),
            ("@UDP@", address(self.udp.local_addr())),
            ("@NODE@", std::process::id().to_string()),
            ("@VICTIM@", self.victim.id().to_string()),
        ];
        pairs.iter().fold(numbers(program), |text, (from, to)| text.replace(from, to))
    }

    pub(crate) fn clean(&self) {
        fs::remove_dir_all(&self.folder).expect("own folder");
        fs::create_dir(&self.folder).expect("own folder");
    }

    /// Processes of our sandboxes: in another pid namespace, and of the uid that this process gives them.
    pub(crate) fn alive(&self) -> Vec<u32> {
        let own = namespace(std::process::id());
        let is_root =
            fs::metadata("/proc/self").is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0);
        let uid = format!("Uid:\t{}", 2_000_000_000 + std::process::id());
        let is_ours = |pid: &u32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            if status.contains("State:\tZ") {
                return false;
            }
            if is_root { status.contains(&uid) } else { namespace(*pid).is_some() && namespace(*pid) != own }
        };
        pids().into_iter().filter(is_ours).collect()
    }

    /// What was done to the world, if anything.
    pub(crate) fn harm(&self) -> Option<String> {
        let reached = [
            ("the TCP listener was reached", self.tcp.accept().is_ok()),
            ("the UDP socket was reached", self.udp.recv(&mut [0; 8]).is_ok()),
            ("the UNIX socket was reached", self.unix.accept().is_ok()),
            ("the abstract socket was reached", self.hidden.accept().is_ok()),
            (
                "a file was written outside",
                self.path("written").exists() || self.path("other/written").exists(),
            ),
            ("another task's file was changed", !text(&self.path("other/note")).contains(CANARY)),
            ("the host's name was changed", hostname() != self.hostname),
            ("a process of the host was stopped", !is_alive(self.victim.id())),
            ("a program was planted", Path::new("/usr/bin/planted").exists()),
            ("files of the node stay open", files_of(std::process::id()) > self.nodes + 8),
        ];
        reached.into_iter().find(|(_, is_so)| *is_so).map(|(what, _)| what.to_string())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        drop(self.victim.kill());
        drop(self.victim.wait());
    }
}

fn numbers(program: &str) -> String {
    let pairs = [
        ("ptrace", libc::SYS_ptrace),
        ("process_vm_readv", libc::SYS_process_vm_readv),
        ("mount", libc::SYS_mount),
        ("umount2", libc::SYS_umount2),
        ("pivot_root", libc::SYS_pivot_root),
        ("unshare", libc::SYS_unshare),
        ("setns", libc::SYS_setns),
        ("clone", libc::SYS_clone),
        ("clone3", libc::SYS_clone3),
        ("chroot", libc::SYS_chroot),
        ("mknodat", libc::SYS_mknodat),
        ("reboot", libc::SYS_reboot),
        ("kexec_load", libc::SYS_kexec_load),
        ("init_module", libc::SYS_init_module),
        ("finit_module", libc::SYS_finit_module),
        ("io_uring_setup", libc::SYS_io_uring_setup),
        ("bpf", libc::SYS_bpf),
        ("perf_event_open", libc::SYS_perf_event_open),
        ("keyctl", libc::SYS_keyctl),
        ("add_key", libc::SYS_add_key),
        ("request_key", libc::SYS_request_key),
        ("userfaultfd", libc::SYS_userfaultfd),
        ("clock_settime", libc::SYS_clock_settime),
        ("adjtimex", libc::SYS_adjtimex),
        ("settimeofday", libc::SYS_settimeofday),
        ("sethostname", libc::SYS_sethostname),
        ("syslog", libc::SYS_syslog),
        ("personality", libc::SYS_personality),
        ("open_by_handle_at", libc::SYS_open_by_handle_at),
        ("pidfd_getfd", libc::SYS_pidfd_getfd),
        ("open_tree", libc::SYS_open_tree),
        ("move_mount", libc::SYS_move_mount),
        ("fsopen", libc::SYS_fsopen),
        ("mount_setattr", libc::SYS_mount_setattr),
        ("swapon", libc::SYS_swapon),
        ("getpid", libc::SYS_getpid),
    ];
    pairs.iter().fold(program.to_string(), |text, (name, number)| {
        text.replace(&format!("#{name}#"), &number.to_string())
    })
}

fn hostname() -> String {
    text(Path::new("/proc/sys/kernel/hostname"))
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn namespace(pid: u32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/pid")).ok()
}

fn is_alive(pid: u32) -> bool {
    let stat = text(Path::new(&format!("/proc/{pid}/stat")));
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'T', 'X']))
}

fn pids() -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("proc").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn files_of(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}
