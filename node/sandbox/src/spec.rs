//! What is asked: a command, its folder, its limits.

use crate::report::Level;
use crate::supervise::SandboxError;
use std::path::{Path, PathBuf};

/// The kernel takes 128 KiB an argument; half of that leaves room for every form.
pub(crate) const COMMAND_BYTES: usize = 64 << 10;
const ENVIRONMENT_BYTES: usize = 64 << 10;
/// Less than this and no interpreter starts.
const LEAST_MEMORY_BYTES: u64 = 4 << 20;
const LEAST_DISK_BYTES: u64 = 64 << 10;

/// One command and what it may use.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The program and its arguments; looked up in `PATH` inside.
    pub command: Vec<String>,
    /// The only place that keeps what is written. The command sees its contents at `/work`, and starts there.
    /// It must exist and fit `limits.disk_bytes`.
    pub folder: PathBuf,
    pub stdin: Vec<u8>,
    /// The whole environment. Nothing of the caller's is passed on.
    pub env: Vec<(String, String)>,
    pub limits: Limits,
    /// Folders and files of the machine that the command may read and execute. They must be readable by
    /// everyone; those that are not there are left out.
    pub readable: Vec<PathBuf>,
    /// Refuse to start where less than this is enforced.
    pub require: Level,
}

/// What the command and everything it starts may use together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From the start of the command; then SIGTERM, and after `grace_ms` the end of everything.
    pub wall_ms: u64,
    pub grace_ms: u64,
    /// Thousandths of one core; 20 at least, since the kernel deals out whole milliseconds.
    pub cpu_milli: u32,
    pub memory_bytes: u64,
    pub pids: u32,
    /// All files together, in `/work`, `/tmp` and `/dev/shm`. They live in memory, beside `memory_bytes`.
    pub disk_bytes: u64,
    /// Kept of stdout and of stderr, each. More is read, counted and dropped.
    pub output_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            wall_ms: 30_000,
            grace_ms: 200,
            cpu_milli: 1000,
            memory_bytes: 512 << 20,
            pids: 64,
            disk_bytes: 256 << 20,
            output_bytes: 64 << 10,
        }
    }
}

impl Spec {
    /// `sh -c TEXT` in this folder, with a clean environment and the default limits.
    pub fn shell(text: &str, folder: &Path) -> Self {
        Spec {
            command: ["sh", "-c", text].map(String::from).to_vec(),
            folder: folder.to_path_buf(),
            stdin: Vec::new(),
            env: default_env(),
            limits: Limits::default(),
            readable: default_readable(),
            require: Level::Partial,
        }
    }

    pub(crate) fn check(&self) -> Result<(), SandboxError> {
        let bytes: usize = self.command.iter().map(|word| word.len() + 1).sum();
        let environment: usize = self.env.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
        let limits = &self.limits;
        let wrong = [
            (self.command.first().is_none_or(String::is_empty), "the command is empty".to_string()),
            (
                bytes > COMMAND_BYTES,
                format!("the command has {bytes} bytes, more than {COMMAND_BYTES}: put it into a file"),
            ),
            (self.command.iter().any(|word| word.contains('\0')), "the command holds a zero byte".into()),
            (environment > ENVIRONMENT_BYTES, format!("the environment is over {ENVIRONMENT_BYTES} bytes")),
            (self.env.iter().any(|pair| !is_variable(pair)), "a variable has no name or a zero byte".into()),
            (!self.folder.is_dir(), format!("{} is not a folder", self.folder.display())),
            (limits.wall_ms == 0, "wall_ms is 0".into()),
            (limits.cpu_milli < 20, "cpu_milli is below 20".into()),
            (limits.pids == 0, "pids is 0".into()),
            (limits.memory_bytes < LEAST_MEMORY_BYTES, "memory_bytes is below 4 MiB".into()),
            (limits.disk_bytes < LEAST_DISK_BYTES, "disk_bytes is below 64 KiB".into()),
        ];
        match wrong.into_iter().find(|(is_wrong, _)| *is_wrong) {
            Some((_, why)) => Err(SandboxError::Spec(why)),
            None => Ok(()),
        }
    }
}

fn is_variable((name, value): &(String, String)) -> bool {
    !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0')
}

fn default_env() -> Vec<(String, String)> {
    let pairs = [
        ("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"),
        ("HOME", "/work"),
        ("TMPDIR", "/tmp"),
        ("LANG", "C.UTF-8"),
        ("TERM", "dumb"),
    ];
    pairs.map(|(name, value)| (name.to_string(), value.to_string())).to_vec()
}

/// Programs, libraries, and the few files of `/etc` that programs need and that hold no secret.
pub fn default_readable() -> Vec<PathBuf> {
    let paths = [
        "/usr",
        "/bin",
        "/sbin",
        "/lib",
        "/lib32",
        "/lib64",
        "/etc/alternatives",
        "/etc/ssl/certs",
        "/etc/ca-certificates.conf",
        "/etc/ld.so.cache",
        "/etc/ld.so.conf",
        "/etc/ld.so.conf.d",
        "/etc/localtime",
        "/etc/mime.types",
        "/etc/python3",
        "/etc/python3.11",
        "/nix/store",
    ];
    paths.map(PathBuf::from).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: fn(&mut Spec)) -> String {
        let mut spec = Spec::shell("true", Path::new("/"));
        spec.check().expect("the default is right");
        change(&mut spec);
        spec.check().expect_err("refused").to_string()
    }

    #[test]
    fn wrong_specs_are_refused_with_the_reason() {
        assert!(refused(|spec| spec.command.clear()).contains("empty"));
        assert!(refused(|spec| spec.command[2] = "x".repeat(70_000)).contains("more than 65536"));
        assert!(refused(|spec| spec.command[2] = "a\0b".into()).contains("zero byte"));
        assert!(refused(|spec| spec.env.push(("A=B".into(), "1".into()))).contains("variable"));
        assert!(refused(|spec| spec.folder = "/not/here".into()).contains("/not/here is not a folder"));
        assert!(refused(|spec| spec.limits.pids = 0).contains("pids"));
        assert!(refused(|spec| spec.limits.memory_bytes = 1).contains("4 MiB"));
    }
}
