//! Outside: starts the stages, watches the time, and makes sure that nothing is left.

mod course;

use crate::cgroup::Cgroup;
use crate::ended::Ended;
use crate::report::{Level, Report};
use crate::spec::{Limits, Spec};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long the stages may take to end by themselves.
const LATE_MS: u64 = 300;

#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    #[error("the command can't be run as asked: {0}")]
    Spec(String),
    #[error("no command was run: {0}")]
    Setup(String),
    #[error(
        "no command was run: the sandbox must be {asked} and is {found} ({missing}); \
         mend that, or demand less"
    )]
    TooWeak { asked: Level, found: Level, missing: String },
    /// The command ran; its result or its files are lost.
    #[error("the outcome is unknown: {0}")]
    Lost(String),
}

/// How sandboxes are started: by re-executing a program that calls [`stage`](crate::stage) first.
#[derive(Clone, Debug)]
pub struct Sandbox {
    program: PathBuf,
    words: Vec<OsString>,
}

/// A command that runs. Dropped without `wait` it goes on to its end, unseen.
pub struct Running {
    handle: Handle,
    thread: JoinHandle<Result<Ended, SandboxError>>,
}

/// Ends a command from any thread. Also when it has not begun or has ended.
#[derive(Clone)]
pub struct Handle(Arc<Held>);

struct Held {
    killed: AtomicBool,
    control: UnixStream,
    kill_file: Option<PathBuf>,
}

impl Sandbox {
    /// Through the program that runs now, which must call [`stage`](crate::stage) first thing in `main`.
    pub fn ours() -> Self {
        Sandbox::through("/proc/self/exe")
    }

    /// Through another program that calls [`stage`](crate::stage) first thing in `main`.
    pub fn through(program: impl Into<PathBuf>) -> Self {
        Sandbox { program: program.into(), words: vec![crate::stage::VERB.into()] }
    }

    /// Starts a command and says at once how to end it.
    pub fn start(&self, spec: Spec) -> Result<Running, SandboxError> {
        spec.check()?;
        let failed = |what: &str, error: io::Error| SandboxError::Setup(format!("{what}: {error}"));
        let (ours, theirs) = UnixStream::pair().map_err(|error| failed("no socket", error))?;
        let control = ours.try_clone().map_err(|error| failed("no socket", error))?;
        let cgroup = Cgroup::make(&spec.limits);
        let held = Held { killed: AtomicBool::new(false), control, kill_file: cgroup.kill_file() };
        let handle = Handle(Arc::new(held));
        let (sandbox, inner) = (self.clone(), handle.clone());
        // One thread from start to end: the kernel ends the stages when the thread that made them ends.
        let thread = std::thread::Builder::new()
            .name("sandbox".into())
            .spawn(move || course::run(&sandbox, &spec, cgroup, (ours, theirs), &inner))
            .map_err(|error| failed("no thread", error))?;
        Ok(Running { handle, thread })
    }

    /// Starts a command and waits for its end.
    pub fn run(&self, spec: Spec) -> Result<Ended, SandboxError> {
        self.start(spec)?.wait()
    }

    /// Runs a command that does nothing, and says what held.
    pub fn probe(&self) -> Report {
        let tried = Scratch::new().map_err(|error| error.to_string()).and_then(|scratch| {
            let mut spec = Spec::shell("exit 0", &scratch.0);
            spec.limits = Limits { wall_ms: 5_000, disk_bytes: 1 << 20, ..Limits::default() };
            let ended = self.run(spec).map_err(|error| error.to_string())?;
            match ended.is_success() {
                true => Ok(ended.report),
                false => Err(format!("`exit 0` ended {:?}: {}", ended.why, crate::shown(&ended.stderr))),
            }
        });
        tried.unwrap_or_else(|why| Report { layers: Vec::new(), broken: Some(why) })
    }
}

/// An empty folder that goes with its owner.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> io::Result<Self> {
        let folder = std::env::temp_dir().join(format!("quorate-probe-{}", std::process::id()));
        match fs::create_dir(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(Scratch(folder)),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(fs::remove_dir(&self.0));
    }
}

impl Running {
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Blocks until everything has ended and the folder is written.
    pub fn wait(self) -> Result<Ended, SandboxError> {
        let lost = |_| SandboxError::Lost("its thread panicked".into());
        self.thread.join().map_err(lost)?
    }
}

impl Handle {
    /// Ends the command and all that it started. Returns at once; what was written is dropped.
    pub fn kill(&self) {
        self.0.killed.store(true, Ordering::Release);
        self.hang_up();
    }

    pub(crate) fn is_killed(&self) -> bool {
        self.0.killed.load(Ordering::Acquire)
    }

    /// Process 1 inside ends when its socket does, and the kernel ends every process with it.
    fn hang_up(&self) {
        drop(self.0.control.shutdown(Shutdown::Both));
    }

    /// Waits until the stages have buried each other. Whoever is late is killed: `outer` and with it process 1,
    /// and all of the cgroup.
    fn end(&self, mut outer: Child) {
        self.hang_up();
        let late = Instant::now() + Duration::from_millis(LATE_MS);
        while Instant::now() < late {
            match outer.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(1)),
                _ => return,
            }
        }
        if let Some(file) = &self.0.kill_file {
            drop(fs::write(file, "1"));
        }
        drop(outer.kill());
        drop(outer.wait());
    }
}
