//! The table. A program says CONTAINED where it was refused and ESCAPED where it was not.

use super::world::World;
use sandbox::{Ended, Report, Spec, Status, Why};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

pub(crate) struct Attempt {
    pub(crate) name: &'static str,
    pub(crate) program: &'static str,
    pub(crate) ends: Why,
    /// How it may end where the machine gives no cgroup that counts this.
    pub(crate) uncounted: Option<(&'static str, &'static [Why])>,
    pub(crate) change: fn(&mut Spec),
    pub(crate) before: fn(&World),
    /// What must be seen from outside.
    pub(crate) after: fn(&World, &Ended) -> Result<(), String>,
}

const fn attempt(name: &'static str, program: &'static str) -> Attempt {
    Attempt {
        name,
        program,
        ends: Why::Exited,
        uncounted: None,
        change: |_| {},
        before: |_| {},
        after: |_, _| Ok(()),
    }
}

impl Attempt {
    const fn ends(self, ends: Why) -> Self {
        Attempt { ends, ..self }
    }

    const fn or_uncounted(self, controller: &'static str, ends: &'static [Why]) -> Self {
        Attempt { uncounted: Some((controller, ends)), ..self }
    }

    /// How it may end, given what holds on this machine.
    pub(crate) fn ends_here(&self, report: &Report) -> Vec<Why> {
        let is_counted = |name: &str| {
            let mut layers = report.layers.iter().filter(|layer| layer.name == name && layer.enforced);
            layers.any(|layer| layer.note.starts_with("cgroup"))
        };
        match self.uncounted {
            Some((controller, ends)) if !is_counted(controller) => ends.to_vec(),
            _ => vec![self.ends],
        }
    }

    const fn with(self, change: fn(&mut Spec)) -> Self {
        Attempt { change, ..self }
    }

    const fn before(self, before: fn(&World)) -> Self {
        Attempt { before, ..self }
    }

    const fn then(self, after: fn(&World, &Ended) -> Result<(), String>) -> Self {
        Attempt { after, ..self }
    }
}

fn must(holds: bool, what: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what.to_string()) }
}

pub(crate) const ATTEMPTS: &[Attempt] = &[
    // Files.
    attempt("read the shadow file", r#"denied("shadow", lambda: read("/etc/shadow"))"#),
    attempt("read another task's folder", r#"denied("other", lambda: read("@ROOT@/other/note"))"#),
    attempt("read the provider key", r#"denied("key", lambda: read("@ROOT@/key"))"#),
    attempt("read ~/.ssh", r#"denied("ssh", lambda: read("@ROOT@/home/.ssh/id"))"#),
    attempt("write outside", r#"denied("write", lambda: write("@ROOT@/written"))"#),
    attempt(
        "list the machine's home folders",
        r#"
for path in ("/home", "/var", "/opt", "/srv", "/mnt", "/boot", "/run", "@ROOT@"):
    denied(path, lambda: os.listdir(path))"#,
    ),
    attempt(
        "dots out of the folder",
        r#"
denied("dots", lambda: read("./../../../../../../@ROOT@/key"))
denied("dots", lambda: write("../../../../../@ROOT@/written"))"#,
    ),
    attempt(
        "symlink out of the folder",
        r#"
os.symlink("@ROOT@/key", "link")
os.symlink("../other/note", "relative")
denied("link", lambda: read("link"))
denied("relative", lambda: read("relative"))"#,
    )
    .then(|world, ended| {
        must(world.folder.join("link").symlink_metadata().is_err(), "the link is in the folder")?;
        must(ended.refused.len() == 2, "both links are told as refused")
    }),
    attempt(
        "write through a linked folder",
        r#"
os.symlink("@ROOT@/other", "door")
denied("door", lambda: write("door/written"))"#,
    ),
    attempt("use a symlink that was there", r#"denied("planted", lambda: read("planted"))"#)
        .before(|world| symlink(world.path("key"), world.folder.join("planted")).expect("a link")),
    attempt(
        "write through a folder that was linked",
        r#"
os.remove("planted"); os.mkdir("planted"); write("planted/written"); contained("wrote into its own copy")"#,
    )
    .before(|world| symlink(world.path("other"), world.folder.join("planted")).expect("a link")),
    attempt(
        "hard link out of the folder",
        r#"
denied("link", lambda: os.link("/usr/bin/env", "env"))
denied("link", lambda: os.link("/etc/passwd", "passwd"))"#,
    ),
    attempt(
        "leave a setuid program",
        r#"
import shutil
shutil.copy("/bin/sh", "shell"); os.chmod("shell", 0o6755); contained("copied")"#,
    )
    .with(|spec| spec.limits.disk_bytes = 16 << 20)
    .then(|world, _| {
        let mode =
            fs::metadata(world.folder.join("shell")).map_err(|error| error.to_string())?.permissions().mode();
        must(mode & 0o7000 == 0, "the copy is setuid")
    }),
    attempt(
        "leave a socket",
        r#"
s = socket.socket(socket.AF_UNIX); s.bind("sock"); contained("made")"#,
    )
    .then(|world, ended| {
        must(!world.folder.join("sock").exists() && ended.refused.len() == 1, "the socket is in the folder")
    }),
    attempt(
        "make a device",
        r#"
for kind, name in ((0o020000, "char"), (0o060000, "block")):
    call(name, #mknodat#, -100, ctypes.c_char_p(name.encode()), kind | 0o666, (1 << 8) | 1)"#,
    ),
    attempt(
        "write to the system's folders",
        r#"
for path in ("/usr/bin/planted", "/etc/planted", "/planted", "/lib/planted", "/proc/planted", "/dev/planted"):
    denied(path, lambda: write(path))
denied("remove", lambda: os.remove("/usr/bin/env"))
denied("mode", lambda: os.chmod("/usr/bin/env", 0o777))"#,
    ),
    // Other processes.
    attempt(
        "root and files of process 1",
        r#"
for path in ("/proc/1/root" + "/etc/shadow", "/proc/1/environ", "/proc/1/mem", "/proc/1/maps", "/proc/1/fd/0"):
    denied(path, lambda: read(path))
denied("cwd", lambda: os.listdir("/proc/1/cwd/"))"#,
    ),
    attempt(
        "environment and memory of the node",
        r#"
for name in ("environ", "mem", "root/etc/shadow", "cmdline"):
    denied(name, lambda: read("/proc/@NODE@/" + name))"#,
    ),
    attempt(
        "only its own processes are seen",
        r#"
seen = [int(n) for n in os.listdir("/proc") if n.isdigit()]
contained(seen) if set(seen) <= {1, 2, os.getpid()} else escaped(seen)"#,
    ),
    attempt(
        "ptrace",
        r#"
call("attach", #ptrace#, 16, 1, 0, 0)
call("seize", #ptrace#, 0x4206, 1, 0, 0)
call("traceme", #ptrace#, 0, 0, 0, 0)"#,
    ),
    attempt(
        "read another process's memory",
        r#"
call("process_vm_readv", #process_vm_readv#, 1, 0, 0, 0, 0, 0)
call("pidfd_getfd", #pidfd_getfd#, 0, 0, 0)"#,
    ),
    attempt(
        "kill a process of the host",
        r#"
denied("victim", lambda: os.kill(@VICTIM@, 9))
denied("node", lambda: os.kill(@NODE@, 9))"#,
    ),
    attempt(
        "kill process 1",
        r#"
pid = os.getppid()
for number in (9, 15, 19):
    try: os.kill(1, number)
    except OSError: pass
contained("alive") if os.getppid() == pid else escaped("process 1 is gone")"#,
    ),
    // Network.
    attempt(
        "tcp to a listener",
        r#"denied("tcp", lambda: socket.create_connection(("127.0.0.1", @TCP@), 2).send(b"x"))"#,
    ),
    attempt(
        "tcp to the metadata service",
        r#"denied("tcp", lambda: socket.create_connection(("169.254.169.254", 80), 2))"#,
    ),
    attempt(
        "tcp elsewhere",
        r#"
denied("v4", lambda: socket.create_connection(("198.51.100.7", 443), 2))
denied("v6", lambda: socket.create_connection(("2001:db8::1", 443), 2))
denied("names", lambda: socket.getaddrinfo("example.com", 443))"#,
    ),
    attempt(
        "unix socket by path",
        r#"
s = socket.socket(socket.AF_UNIX); denied("unix", lambda: [s.connect("@ROOT@/socket")])"#,
    ),
    attempt(
        "abstract unix socket",
        r#"
s = socket.socket(socket.AF_UNIX); denied("abstract", lambda: [s.connect("\0escape-@NODE@")])"#,
    ),
    attempt(
        "udp to a listener",
        r#"
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
denied("udp", lambda: s.sendto(b"x", ("127.0.0.1", @UDP@)))"#,
    ),
    attempt(
        "raw and packet sockets",
        r#"
denied("raw", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
denied("raw6", lambda: socket.socket(socket.AF_INET6, socket.SOCK_RAW, 58))
denied("packet", lambda: socket.socket(17, socket.SOCK_RAW, 0))"#,
    ),
    attempt(
        "vsock, netlink and the kernel's families",
        r#"
for family in (40, 16, 38, 15, 31, 44):
    denied(family, lambda: socket.socket(family, socket.SOCK_STREAM if family == 40 else socket.SOCK_RAW, 0))"#,
    ),
    attempt(
        "raise the loopback interface",
        r#"
import fcntl, struct
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
denied("flags", lambda: fcntl.ioctl(s, 0x8914, struct.pack("16sh14s", b"lo", 1, b"")))"#,
    ),
    // Privileges and the kernel.
    attempt(
        "become root",
        r#"
denied("setuid", lambda: os.setuid(0))
denied("setgid", lambda: os.setgid(0))
denied("setgroups", lambda: os.setgroups([0]))
escaped("root") if os.getuid() == 0 or os.geteuid() == 0 else contained(os.getuid())"#,
    ),
    attempt(
        "setuid programs",
        r#"
import subprocess
for words in (["su", "-c", "id -u"], ["mount", "-t", "tmpfs", "x", "/tmp"], ["passwd", "-d", "root"]):
    try: done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=5)
    except OSError as error: contained(error); continue
    escaped(words) if done.returncode == 0 else contained(done.stderr.strip()[:60])"#,
    ),
    attempt(
        "no rights are left",
        r#"
status = dict(line.split(":\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\t" in line)
bare = all(int(status[k], 16) == 0 for k in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"))
walls = status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"
contained("bare") if bare and walls else escaped(status)"#,
    ),
    attempt(
        "mount",
        r#"
call("mount", #mount#, 0, ctypes.c_char_p(b"/tmp"), ctypes.c_char_p(b"tmpfs"), 0, 0)
call("umount", #umount2#, ctypes.c_char_p(b"/work"), 2)
call("pivot_root", #pivot_root#, ctypes.c_char_p(b"."), ctypes.c_char_p(b"."))
call("open_tree", #open_tree#, -100, ctypes.c_char_p(b"/"), 1)
call("move_mount", #move_mount#, -100, ctypes.c_char_p(b""), -100, ctypes.c_char_p(b""), 0)
call("fsopen", #fsopen#, ctypes.c_char_p(b"tmpfs"), 0)
call("mount_setattr", #mount_setattr#, -100, ctypes.c_char_p(b"/"), 0, 0, 0)"#,
    ),
    attempt(
        "new namespaces",
        r#"
for flag in (0x10000000, 0x00020000, 0x20000000, 0x40000000, 0x08000000, 0x04000000, 0x02000000, 0x80):
    call(hex(flag), #unshare#, flag)
    call(hex(flag), #clone#, flag | 17, 0, 0, 0, 0)
call("clone3", #clone3#, 0, 0)"#,
    ),
    attempt(
        "join namespaces",
        r#"
call("setns", #setns#, 0, 0)
denied("ns", lambda: os.open("/proc/1/ns/mnt", os.O_RDONLY))"#,
    ),
    attempt("chroot", r#"call("chroot", #chroot#, ctypes.c_char_p(b"/work"))"#),
    attempt("reboot", r#"call("reboot", #reboot#, 0xfee1dead, 672274793, 0, 0)"#),
    attempt(
        "another kernel, modules",
        r#"
call("kexec", #kexec_load#, 0, 0, 0, 0)
call("init_module", #init_module#, 0, 0, 0)
call("finit_module", #finit_module#, 0, 0, 0)"#,
    ),
    attempt("io_uring", r#"call("io_uring", #io_uring_setup#, 8, ctypes.create_string_buffer(120))"#),
    attempt(
        "bpf and perf",
        r#"
call("bpf", #bpf#, 0, ctypes.create_string_buffer(128), 128)
call("perf", #perf_event_open#, ctypes.create_string_buffer(128), 0, -1, -1, 0)"#,
    ),
    attempt(
        "the kernel's keys",
        r#"
call("keyctl", #keyctl#, 0, -3, 0)
call("add_key", #add_key#, ctypes.c_char_p(b"user"), ctypes.c_char_p(b"k"), ctypes.c_char_p(b"v"), 1, -3)
call("request_key", #request_key#, ctypes.c_char_p(b"user"), ctypes.c_char_p(b"k"), 0, 0)"#,
    ),
    attempt(
        "userfaultfd",
        r#"
call("userfaultfd", #userfaultfd#, 1)
denied("device", lambda: os.open("/dev/userfaultfd", os.O_RDWR))"#,
    ),
    attempt(
        "set the clock",
        r#"
call("clock_settime", #clock_settime#, 0, ctypes.create_string_buffer(16))
call("settimeofday", #settimeofday#, ctypes.create_string_buffer(16), 0)
call("adjtimex", #adjtimex#, ctypes.create_string_buffer(256))"#,
    ),
    attempt("name the host", r#"call("sethostname", #sethostname#, ctypes.c_char_p(b"mine"), 4)"#),
    attempt(
        "open by handle",
        r#"call("handle", #open_by_handle_at#, -100, ctypes.create_string_buffer(64), 0)"#,
    ),
    attempt(
        "personality and old forms of calls",
        r#"
call("personality", #personality#, 0x0040000)
call("swapon", #swapon#, ctypes.c_char_p(b"x"), 0)
import platform
call("x32", 0x40000000 | #getpid#) if platform.machine() == "x86_64" else contained("no x32")"#,
    ),
    attempt(
        "settings of the kernel",
        r#"
for path in ("/proc/sys/kernel/hostname", "/proc/sysrq-trigger", "/sys/kernel/uevent_helper", "/sys/fs/cgroup/cgroup.procs"):
    denied(path, lambda: write(path))
denied("oom", lambda: write("/proc/self/oom_score_adj"))"#,
    ),
    attempt(
        "the kernel's log",
        r#"
call("syslog", #syslog#, 3, ctypes.create_string_buffer(64), 64)
for path in ("/dev/kmsg", "/proc/kmsg", "/proc/kallsyms", "/proc/kcore", "/proc/config.gz"):
    denied(path, lambda: read(path))"#,
    ),
    attempt(
        "devices",
        r#"
for name in ("mem", "kvm", "vda", "sda", "fuse", "net/tun", "tty", "console", "ptmx", "loop0", "vsock", "nvidia0"):
    denied(name, lambda: os.open("/dev/" + name, os.O_RDWR))"#,
    ),
    attempt(
        "type into a terminal",
        r#"
import fcntl
for number in (0, 1, 2):
    denied(number, lambda: fcntl.ioctl(number, 0x5412, b"x"))"#,
    ),
    // Limits.
    attempt(
        "fork bomb",
        r#"
made = 0
try:
    while True:
        if os.fork() == 0: time.sleep(60); os._exit(0)
        made += 1
        if made > 200: escaped(made); sys.exit(1)
except OSError as error:
    contained(f"{made}: {error}"); sys.exit(3)"#,
    )
    .ends(Why::TooManyProcesses)
    .or_uncounted("pids", &[Why::Exited])
    .then(|_, ended| {
        must(ended.status == Some(Status::Code(3)), "it was refused a process")?;
        must(String::from_utf8_lossy(&ended.stdout).contains("CONTAINED 15"), "16 processes, and no more")
    }),
    attempt(
        "fork bomb without end",
        r#"
while True:
    try: os.fork()
    except OSError: time.sleep(0.01)"#,
    )
    .ends(Why::TimedOut)
    .with(|spec| {
        spec.limits.wall_ms = 1000;
        spec.limits.cpu_milli = 300;
    }),
    attempt(
        "memory bomb",
        r#"
hold = []
while True: hold.append(bytearray(b"x" * (4 << 20)))"#,
    )
    .ends(Why::OutOfMemory)
    // Its own limit refuses the memory, and the program ends as it likes, or is seen to have too much before.
    .or_uncounted("memory", &[Why::Exited, Why::OutOfMemory])
    .then(|_, ended| must(ended.used.memory_peak_bytes < Some(112 << 20), "more than its limit")),
    attempt(
        "memory bomb of many processes",
        r#"
for _ in range(6):
    if os.fork() == 0:
        hold = bytearray(b"x" * (40 << 20)); time.sleep(2); os._exit(0)
failed = 0
for _ in range(6):
    failed += os.wait()[1] != 0
sys.exit(failed)"#,
    )
    .ends(Why::OutOfMemory),
    attempt(
        "memory in shared files",
        r#"
def fill():
    with open("/dev/shm/x", "wb") as file:
        while True: file.write(b"x" * (1 << 20))
denied("shm", fill)"#,
    ),
    attempt(
        "fill the disk",
        r#"
def fill():
    number = 0
    while True:
        with open(f"f{number}", "wb") as file: file.write(b"x" * (1 << 20))
        number += 1
denied("disk", fill)
for name in os.listdir("."): os.remove(name)"#,
    )
    .then(|world, _| must(fs::read_dir(&world.folder).map_or(9, Iterator::count) == 0, "files are left")),
    attempt(
        "files without end and without bytes",
        r#"
def fill():
    for number in range(1000000): open(f"/tmp/f{number}", "w").close()
denied("inodes", fill)"#,
    ),
    attempt(
        "sparse files",
        r#"
def grow():
    for number in range(5):
        with open(f"s{number}", "wb") as file: file.truncate(7 << 20)
    with open("large", "wb") as file: file.truncate(1 << 40)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
denied("sparse", grow)"#,
    )
    .then(|world, ended| {
        let sizes = fs::read_dir(&world.folder).expect("folder").flatten();
        let sum: u64 = sizes.filter_map(|entry| Some(entry.metadata().ok()?.len())).sum();
        must(sum <= 8 << 20 && ended.refused.len() == 4, "more than disk_bytes came back")
    }),
    attempt(
        "open files without end",
        r#"
def take():
    hold = []
    while len(hold) < 100000: hold.append(os.open("/dev/null", os.O_RDONLY))
denied("files", take)"#,
    ),
    attempt(
        "take the whole processor",
        r#"
end = time.monotonic() + 60
while time.monotonic() < end: pass"#,
    )
    .ends(Why::TimedOut)
    .with(|spec| {
        spec.limits.wall_ms = 1500;
        spec.limits.cpu_milli = 200;
    })
    .then(|_, ended| {
        // Without a cpu cgroup only its whole time is limited, and the report says so.
        let is_shared = ended.report.layers.iter().any(|layer| layer.name == "cpu" && layer.enforced);
        must(!is_shared || ended.used.cpu_ms < 1000, &format!("{} ms", ended.used.cpu_ms))
    }),
    attempt(
        "hang and ignore every signal",
        r#"
for number in range(1, 65):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
while True: time.sleep(60)"#,
    )
    .ends(Why::TimedOut)
    .with(|spec| spec.limits.wall_ms = 500),
    attempt(
        "stop everything",
        r#"
os.kill(-1, signal.SIGSTOP) if os.fork() else time.sleep(60)
os.kill(os.getpid(), signal.SIGSTOP)"#,
    )
    .ends(Why::TimedOut)
    .with(|spec| spec.limits.wall_ms = 500),
    attempt(
        "a daemon that stays",
        r#"
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for number in (1, 2, 3, 13, 15): signal.signal(number, signal.SIG_IGN)
        for number in (0, 1, 2): os.close(number)
        while True: time.sleep(60)
    os._exit(0)
os.wait()
contained("the parent ends")"#,
    ),
    attempt(
        "output without end",
        r#"
block = b"y\n" * 32768
while True: os.write(1, block)"#,
    )
    .ends(Why::TimedOut)
    .with(|spec| {
        spec.limits.wall_ms = 500;
        spec.limits.cpu_milli = 300;
    })
    .then(|_, ended| {
        must(ended.stdout.len() < 17 << 10, "more than output_bytes were kept")?;
        must(ended.cut_bytes > 0, "nothing was cut")
    }),
    attempt(
        "bytes for the terminal",
        r#"
contained("x")
os.write(1, b"\x1b]0;owned\x07\x1b[2J\xff\xfe\x9b31m")"#,
    )
    .then(|_, ended| {
        let shown = sandbox::shown(&ended.stdout);
        must(!shown.contains(['\u{1b}', '\u{7}', '\u{9b}']) && shown.contains(r"\x1b]0;owned"), &shown)
    }),
    // What the node leaves behind by itself.
    attempt(
        "environment of the node",
        r#"
leaked = {k: v for k, v in os.environ.items() if k not in ("PATH", "HOME", "TMPDIR", "LANG", "TERM", "LC_CTYPE", "PWD")}
escaped(leaked) if leaked else contained("clean")"#,
    ),
    attempt(
        "open files of the node",
        r#"
open_files = sorted(int(n) for n in os.listdir("/proc/self/fd"))
names = []
for number in open_files:
    try: names.append(os.readlink(f"/proc/self/fd/{number}"))
    except OSError: pass
strange = [n for n in names[3:] if not n.startswith("/proc/")]
escaped(names) if strange or len(open_files) > 4 else contained(names)"#,
    ),
    attempt(
        "what the root says of the machine",
        r#"
contained(sorted(os.listdir("/"))) if set(os.listdir("/")) <= {"bin", "dev", "etc", "lib", "lib32", "lib64", "libx32", "nix", "proc", "sbin", "tmp", "usr", "work"} else escaped(os.listdir("/"))
mounts = open("/proc/self/mountinfo").read()
escaped(mounts) if "@ROOT@" in mounts else contained("mounts")"#,
    ),
    attempt(
        "dump memory to a file",
        r#"
import resource
escaped("core") if resource.getrlimit(resource.RLIMIT_CORE) != (0, 0) else contained("no core files")
denied("raise", lambda: resource.setrlimit(resource.RLIMIT_CORE, (1, 1)))
denied("raise", lambda: resource.setrlimit(resource.RLIMIT_NPROC, (10000, 10000)))"#,
    ),
];
