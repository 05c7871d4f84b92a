//! The course of one command, in its own thread.

use super::{Handle, Sandbox, SandboxError};
use crate::cgroup::Cgroup;
use crate::ended::{Ended, Status, Used, Why};
use crate::files::{self, Put, TakeError};
use crate::output::Kept;
use crate::report::{Layer, Level, Report};
use crate::spec::Spec;
use crate::wire::{self, News, Order, PIECE_BYTES, Plan, Summary};
use std::ffi::OsStr;
use std::io::{self, PipeReader};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const SETUP_MS: u64 = 20_000;
/// From the end of the command to its last file.
const FILES_MS: u64 = 60_000;
/// How much later than the grace process 1 inside may say that all have ended.
const LATE_MS: u64 = 500;
/// Frames between the socket and us: with their size a bound on memory.
const FRAMES: usize = 8;
/// Above every uid that systems and containers hand out. One for each of our processes.
const OUTER_IDS: u32 = 2_000_000_000;

/// Everything of one command that must end with it.
struct Course<'a> {
    handle: &'a Handle,
    control: UnixStream,
    news: Receiver<News>,
    child: Child,
    outputs: [JoinHandle<Kept>; 2],
    report: Report,
    begun: Instant,
}

#[derive(Default)]
struct Outcome {
    summary: Option<Summary>,
    is_late: bool,
    start_ms: u64,
    changed: Vec<PathBuf>,
    refused: Vec<(PathBuf, String)>,
}

pub(super) fn run(
    sandbox: &Sandbox,
    spec: &Spec,
    cgroup: Cgroup,
    (ours, theirs): (UnixStream, UnixStream),
    handle: &Handle,
) -> Result<Ended, SandboxError> {
    let ended = match Course::begin(sandbox, spec, (ours, theirs), &cgroup, handle) {
        Ok(mut course) => {
            let outcome = course.follow(spec, &cgroup);
            course.end(outcome, &cgroup)
        }
        Err(error) => Err(setup(format!("{} can't be started: {error}", sandbox.program.display()))),
    };
    cgroup.remove();
    ended
}

impl<'a> Course<'a> {
    fn begin(
        sandbox: &Sandbox,
        spec: &Spec,
        (ours, theirs): (UnixStream, UnixStream),
        cgroup: &Cgroup,
        handle: &'a Handle,
    ) -> io::Result<Self> {
        let begun = Instant::now();
        let (stdout, out) = io::pipe()?;
        let (stderr, err) = io::pipe()?;
        let news = listen(ours.try_clone()?);
        let child = Command::new(&sandbox.program)
            .args(&sandbox.words)
            .args(["outer", &(OUTER_IDS + std::process::id()).to_string()])
            .env_clear()
            .current_dir("/")
            .stdin(OwnedFd::from(theirs))
            .stdout(out)
            .stderr(Stdio::from(err))
            .spawn()?;
        let outputs = [stdout, stderr].map(|pipe| keep(pipe, spec.limits.output_bytes));
        let report = Report { layers: cgroup.layers(), broken: None };
        Ok(Course { handle, control: ours, news, child, outputs, report, begun })
    }

    fn follow(&mut self, spec: &Spec, cgroup: &Cgroup) -> Result<Outcome, SandboxError> {
        // Until it is told the plan it starts nothing: whatever it makes is in the cgroup.
        cgroup.take_in(self.child.id()).map_err(|error| setup(format!("the cgroup: {error}")))?;
        self.prepare(spec, cgroup)?;
        self.until(|news| matches!(news, News::Guarded))?;
        self.demand(spec.require)?;
        self.order(&Order::Start)?;
        self.until(|news| matches!(news, News::Started))?;
        let mut outcome = Outcome { start_ms: self.elapsed_ms(), ..Outcome::default() };
        self.until_ended(spec, &mut outcome);
        if outcome.summary.is_some() && !self.handle.is_killed() {
            self.files(spec, &mut outcome)?;
        }
        Ok(outcome)
    }

    /// Sends the plan, the folder and stdin. A closed socket is no error here: who closed it has said why.
    fn prepare(&mut self, spec: &Spec, cgroup: &Cgroup) -> Result<(), SandboxError> {
        self.order(&Order::Plan(Plan::of(spec, cgroup.counts_memory(), cgroup.counts_pids())))?;
        let folder = files::open(&spec.folder).map_err(|error| setup(format!("the folder: {error}")))?;
        let control = &self.control;
        let sent = files::whole(&folder, spec.limits.disk_bytes, &mut |entry| {
            wire::send(control, &Order::Entry(entry))
        });
        match sent {
            Err(TakeError::Io(error)) if is_closed(&error) => return Ok(()),
            other => other.map_err(|error| setup(error.to_string()))?,
        }
        self.order(&Order::FolderEnd)?;
        for piece in spec.stdin.chunks(PIECE_BYTES) {
            self.order(&Order::Stdin(piece.to_vec()))?;
        }
        self.order(&Order::StdinEnd)
    }

    fn order(&self, order: &Order) -> Result<(), SandboxError> {
        match wire::send(&self.control, order) {
            Err(error) if !is_closed(&error) => Err(setup(format!("the stages don't listen: {error}"))),
            _ => Ok(()),
        }
    }

    /// Reads layers until the news that is waited for.
    fn until(&mut self, is_awaited: fn(&News) -> bool) -> Result<(), SandboxError> {
        loop {
            let left = Duration::from_millis(SETUP_MS).saturating_sub(self.begun.elapsed());
            match self.news.recv_timeout(left) {
                Ok(News::Layer(name, enforced, note)) => {
                    self.report.layers.push(Layer { name, enforced, note })
                }
                Ok(News::Failed(why)) => return Err(setup(why)),
                Ok(news) if is_awaited(&news) => return Ok(()),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => {
                    return Err(setup(format!("not ready after {SETUP_MS} ms")));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(setup("the stages ended without a word; is memory_bytes too small?"));
                }
            }
        }
    }

    fn demand(&self, asked: Level) -> Result<(), SandboxError> {
        let found = self.report.level();
        if found >= asked {
            return Ok(());
        }
        let missing: Vec<String> = self.report.missing().map(ToString::to_string).collect();
        Err(SandboxError::TooWeak { asked, found, missing: missing.join("; ") })
    }

    /// Waits for the command; at its time asks it to end, and a grace later stops waiting.
    fn until_ended(&mut self, spec: &Spec, outcome: &mut Outcome) {
        let mut end = Instant::now() + Duration::from_millis(spec.limits.wall_ms);
        loop {
            match self.news.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(News::Ended(summary)) => return outcome.summary = Some(summary),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) if !outcome.is_late => {
                    outcome.is_late = true;
                    drop(self.order(&Order::Terminate));
                    end += Duration::from_millis(spec.limits.grace_ms + LATE_MS);
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn files(&mut self, spec: &Spec, outcome: &mut Outcome) -> Result<(), SandboxError> {
        let lost =
            |what: String| SandboxError::Lost(format!("files of the command are not copied back: {what}"));
        let open = || files::open(&spec.folder).map_err(|error| lost(error.to_string()));
        let (root, mut put) = (open()?, Put::new(open()?, spec.limits.disk_bytes, true));
        let end = Instant::now() + Duration::from_millis(FILES_MS);
        loop {
            let news = self.news.recv_timeout(end.saturating_duration_since(Instant::now()));
            let done = match news {
                Ok(_) | Err(_) if self.handle.is_killed() => return Ok(()),
                Ok(News::Changed(entry)) => put.entry(entry).map(|path| outcome.changed.extend(path)),
                Ok(News::Gone(path)) => {
                    files::remove(&root, &path).map(|()| outcome.changed.push(named(&path)))
                }
                Ok(News::Refused(path, why)) => {
                    outcome.refused.push((named(&path), why));
                    Ok(())
                }
                Ok(News::Done) => return Ok(()),
                Ok(News::Failed(why)) => return Err(lost(why)),
                Ok(_) => Ok(()),
                Err(error) => return Err(lost(error.to_string())),
            };
            done.map_err(|error| lost(error.to_string()))?;
        }
    }

    /// Ends what is left, whatever happened, and says how it was.
    fn end(self, outcome: Result<Outcome, SandboxError>, cgroup: &Cgroup) -> Result<Ended, SandboxError> {
        let elapsed = self.begun;
        cgroup.let_run();
        self.handle.end(self.child);
        // The pipes close when the last process inside is gone.
        let [stdout, stderr] = self.outputs.map(|output| output.join().unwrap_or_default().finish());
        let outcome = if self.handle.is_killed() { outcome.unwrap_or_default() } else { outcome? };
        let why = why(&outcome, cgroup, self.handle.is_killed())?;
        let summary = outcome.summary.unwrap_or_default();
        Ok(Ended {
            status: summary.signal.map(Status::Signal).or(summary.code.map(Status::Code)),
            why,
            cut_bytes: stdout.1 + stderr.1,
            stdout: stdout.0,
            stderr: stderr.0,
            used: Used {
                total_ms: millis(elapsed.elapsed()),
                start_ms: outcome.start_ms,
                cpu_ms: cgroup.cpu_ms().unwrap_or(summary.cpu_ms),
                memory_peak_bytes: cgroup.memory_peak_bytes().or(summary.seen_memory_bytes),
                disk_bytes: summary.disk_bytes,
            },
            changed: outcome.changed,
            refused: outcome.refused,
            report: self.report,
        })
    }

    fn elapsed_ms(&self) -> u64 {
        millis(self.begun.elapsed())
    }
}

fn why(outcome: &Outcome, cgroup: &Cgroup, is_killed: bool) -> Result<Why, SandboxError> {
    let summary = outcome.summary.as_ref();
    let failed = summary.is_none_or(|summary| summary.code != Some(0));
    let over_memory = cgroup.out_of_memory() > 0 || summary.is_some_and(|summary| summary.over_memory);
    if is_killed {
        Ok(Why::Killed)
    } else if outcome.is_late {
        Ok(Why::TimedOut)
    } else if failed && over_memory {
        Ok(Why::OutOfMemory)
    } else if summary.is_none() {
        Err(SandboxError::Lost("process 1 inside ended without a word".into()))
    } else if failed && cgroup.too_many() > 0 {
        Ok(Why::TooManyProcesses)
    } else {
        Ok(Why::Exited)
    }
}

fn setup(why: impl Into<String>) -> SandboxError {
    SandboxError::Setup(why.into())
}

fn named(path: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(path))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn is_closed(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

fn keep(pipe: PipeReader, limit_bytes: usize) -> JoinHandle<Kept> {
    std::thread::spawn(move || Kept::read(pipe, limit_bytes))
}

/// Reads frames in a thread of its own, so that waiting can have an end.
fn listen(control: UnixStream) -> Receiver<News> {
    let (to, news) = sync_channel(FRAMES);
    std::thread::spawn(move || {
        while let Ok(frame) = wire::receive(&control) {
            if to.send(frame).is_err() {
                return;
            }
        }
    });
    news
}
