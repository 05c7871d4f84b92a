//! One loaded model on its own thread.
//!
//! The engine computes; the async runtime keeps leases. So the engine lives on a thread of its own, below the
//! runtime in priority: a busy engine never delays a beat. The thread is schedule and nothing else: take what was
//! asked, `step()` until idle, then sleep until somebody asks. A panic of the engine ends every open job with a
//! failure and the thread with it: the model is then gone from this node until the process is started again.
//!
//! Read: this file, then `real` (the one place that knows `worker_inference::Engine`); `kv` (blocks that go to another
//! node's engine), `hints` (what is known of a conversation's future).

pub mod hints;
pub mod kv;
pub mod real;
mod scores;

#[cfg(test)]
mod engine_thread_test;

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc as channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use worker_inference::{Children, Grammar, Sampling, TokenLogprobs};

/// Jobs and cancels that wait for the engine's attention; beyond, callers are told that the engine is full.
const ORDERS_WAITING: usize = 1024;

/// Between two pieces of work that an idle engine does.
const REST: Duration = Duration::from_millis(10);

/// While the engine works, its figures are shown anew so often, and when something ends: gathering them costs.
const SHOW_EVERY: Duration = Duration::from_millis(100);

/// A prompt to continue.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Job {
    pub tokens: Vec<u32>,
    /// Only jobs of one scope share cached blocks.
    pub scope: [u8; 32],
    pub max_new: u32,
    /// Neither the model's end nor a stop string ends it before so many.
    pub min_new: u32,
    pub sampling: Sampling,
    /// The answer ends before the first of these.
    pub stop: Vec<String>,
    /// Goes on after the model's own end.
    pub ignore_eos: bool,
    /// Tell each token's log-probability, and those of so many likeliest tokens beside it.
    pub logprobs: Option<u32>,
    /// Only answers that it accepts are generated.
    pub grammar: Option<Grammar>,
    /// Smaller is more urgent.
    pub class: u8,
}

/// A recorded call to be scored with parts of its context left out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scores {
    pub call: worker_inference::Call,
    /// What each child leaves out.
    pub omits: Vec<Vec<Range<usize>>>,
}

/// What becomes of a job: tokens, then one end or one refusal; of scores: all of them, or one refusal.
#[derive(Debug, Clone, PartialEq)]
pub enum JobEvent {
    Token {
        token: u32,
        text: String,
        /// When the job asked for them.
        logprobs: Option<Box<TokenLogprobs>>,
    },
    End {
        why: JobEnd,
        text: String,
        tokens: Vec<u32>,
        prompt_tokens: u64,
        cached_tokens: u64,
        /// In line, before it ran first.
        waited_ms: u64,
    },
    Scored(Box<Children>),
    /// The engine does not take the job, or lost it.
    Refused(RefusedJob),
}

/// Why a job is not run; says what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedJob {
    pub why: String,
    /// The same job may be taken later.
    pub retriable: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobEnd {
    Stop,
    Length,
    Cancelled,
}

impl JobEnd {
    /// As OpenAI's API and traces say it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            JobEnd::Stop => "stop",
            JobEnd::Length => "length",
            JobEnd::Cancelled => "cancelled",
        }
    }
}

/// A moment of the engine, for beats and metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EngineObserved {
    pub sequences: u64,
    pub kv_blocks: u64,
    pub kv_blocks_used: u64,
    pub kv_bytes: u64,
    pub weight_bytes: u64,
    pub model_bytes: u64,
    pub tokens_computed: u64,
    pub tokens_cached: u64,
    pub tokens_generated: u64,
    /// KV blocks whose content was given up, by reason.
    pub evictions: Vec<(&'static str, u64)>,
    /// Bytes of KV in use or kept, by whose they are and where.
    pub kv: Vec<KvHeld>,
    /// Bytes of KV that came back into the pool, by tier.
    pub kv_restored: Vec<(&'static str, u64)>,
    /// What was said about sequences and chains, and what became of it.
    pub verbs: Vec<(&'static str, &'static str, u64)>,
    /// Sequences that gave up their place for more urgent ones.
    pub preempted: u64,
    /// Guessed tokens that were run, and those of them that came true.
    pub tokens_drafted: u64,
    pub tokens_accepted: u64,
    /// Steps whose likeliest tokens were found without all logits.
    pub steps_sketched: u64,
    /// Rows that were computed again because their values were lost.
    pub tokens_recomputed: u64,
}

/// KV of one project and class in one tier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvHeld {
    /// The salt of the project; see [`crate::gateway::local::scope_of`].
    pub scope: [u8; 32],
    pub class: u8,
    /// `memory`, `host` or `disk`.
    pub tier: &'static str,
    pub bytes: u64,
}

/// What the thread needs of an engine; `worker_inference::Engine` in production.
pub trait Steps: Send {
    /// Called once on the thread that will call the rest: it must give way to everything else.
    fn enter_thread(&self) {
        if let Err(error) = sys::lower_priority() {
            tracing::warn!(%error, "the engine keeps normal priority; a busy engine may delay the node's lease");
        }
    }
    /// Takes a job and gives it a number that is never used again.
    fn submit(&mut self, job: Job) -> Result<u64, RefusedJob>;
    /// Like `submit`, for scores; the numbers differ from those of jobs.
    fn submit_scores(&mut self, scores: Scores) -> Result<u64, RefusedJob> {
        let _ = scores;
        Err(RefusedJob { why: "this engine gives no scores".into(), retriable: false })
    }
    fn cancel(&mut self, id: u64);
    /// One round of computing; what it brought.
    fn step(&mut self) -> Vec<(u64, JobEvent)>;
    fn is_idle(&self) -> bool;
    /// Nothing is asked: some of the work that can wait, if there is any. True when some is left.
    fn rest(&mut self) -> bool {
        false
    }
    /// Takes note of what will become of a chain; an engine may have no use for it.
    fn hint(&mut self, chain: &kv::Chain, hint: hints::Hint) {
        let _ = (chain, hint);
    }
    /// See [`EngineThread::held`]; an engine may have no blocks that others could use.
    fn held(&self, chain: &kv::Chain) -> usize {
        let _ = chain;
        0
    }
    fn copy_out(&self, chain: &kv::Chain, from: usize, most: usize) -> Vec<Vec<u8>> {
        let _ = (chain, from, most);
        Vec::new()
    }
    fn copy_in(&mut self, chain: &kv::Chain, from: usize, blocks: &[Vec<u8>]) -> usize {
        let _ = (chain, from, blocks);
        0
    }
    fn observe(&self) -> EngineObserved;
}

/// A job in the engine.
pub struct RunningJob {
    /// Ends after the job's last event.
    pub events: mpsc::Receiver<JobEvent>,
    _cancel_when_dropped: DropGuard,
}

enum Work {
    Answer(Box<Job>),
    Score(Box<Scores>),
}

enum Order {
    Run {
        work: Work,
        events: mpsc::Sender<JobEvent>,
        stop: CancellationToken,
        place: Option<OwnedSemaphorePermit>,
    },
    /// Look whether a job was stopped.
    Look,
    Blocks(kv::Blocks),
    Hint(kv::Chain, hints::Hint),
}

/// A handle to the thread. Clones share it; it ends with the last of them.
#[derive(Clone)]
pub struct EngineThread {
    orders: channel::SyncSender<Order>,
    observed: Arc<Mutex<EngineObserved>>,
    alive: Arc<AtomicBool>,
}

impl EngineThread {
    /// Starts the thread. `name` appears in thread lists.
    pub fn start(name: &str, engine: impl Steps + 'static) -> std::io::Result<Self> {
        let (orders, inbox) = channel::sync_channel(ORDERS_WAITING);
        let observed = Arc::new(Mutex::new(engine.observe()));
        let shown = observed.clone();
        let name = format!("engine {name}");
        let alive = Arc::new(AtomicBool::new(true));
        let worker = Worker {
            engine,
            open: BTreeMap::new(),
            shown,
            shown_last: Instant::now(),
            unshown: false,
            alive: alive.clone(),
        };
        std::thread::Builder::new().name(name).spawn(move || worker.run(inbox))?;
        Ok(EngineThread { orders, observed, alive })
    }

    /// Runs a job. Its events come out of the receiver, which holds them all: the engine never waits for a reader.
    /// When `stop` fires, or the running job is dropped, it is cancelled.
    pub fn run(&self, job: Job, stop: &CancellationToken) -> Result<RunningJob, RefusedJob> {
        self.run_in_place(job, None, stop)
    }

    /// Like `run`. The `place` is given back as soon as the engine is done with the job, however slowly its events
    /// are read.
    pub fn run_in_place(
        &self,
        job: Job,
        place: Option<OwnedSemaphorePermit>,
        stop: &CancellationToken,
    ) -> Result<RunningJob, RefusedJob> {
        let events = job.max_new as usize + 2;
        self.begin(Work::Answer(Box::new(job)), events, place, stop)
    }

    /// Scores a call; the one event is what was found, or why not. Other jobs go on meanwhile.
    pub fn score(&self, scores: Scores, stop: &CancellationToken) -> Result<RunningJob, RefusedJob> {
        self.begin(Work::Score(Box::new(scores)), 1, None, stop)
    }

    fn begin(
        &self,
        work: Work,
        events: usize,
        place: Option<OwnedSemaphorePermit>,
        stop: &CancellationToken,
    ) -> Result<RunningJob, RefusedJob> {
        let (events, heard) = mpsc::channel(events);
        let stop = stop.child_token();
        self.give(Order::Run { work, events, stop: stop.clone(), place })?;
        let (orders, stopped) = (self.orders.clone(), stop.clone());
        tokio::spawn(async move {
            stopped.cancelled().await;
            // A full queue means that the engine is awake and looks at every job anyway.
            let _ = orders.try_send(Order::Look);
        });
        Ok(RunningJob { events: heard, _cancel_when_dropped: stop.drop_guard() })
    }

    /// False when the engine failed: it must not be offered to anyone any more.
    pub fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Relaxed)
    }

    pub fn observe(&self) -> EngineObserved {
        self.observed.lock().expect("nothing panics while it holds the figures").clone()
    }

    fn give(&self, order: Order) -> Result<(), RefusedJob> {
        self.orders.try_send(order).map_err(|error| match error {
            channel::TrySendError::Full(_) => RefusedJob {
                why: format!("{ORDERS_WAITING} calls wait for the engine already"),
                retriable: true,
            },
            channel::TrySendError::Disconnected(_) => {
                RefusedJob { why: "the engine's thread has ended; restart the node".into(), retriable: true }
            }
        })
    }
}

struct Open {
    events: mpsc::Sender<JobEvent>,
    stop: CancellationToken,
    cancelled: bool,
    _place: Option<OwnedSemaphorePermit>,
}

struct Worker<E> {
    engine: E,
    open: BTreeMap<u64, Open>,
    shown: Arc<Mutex<EngineObserved>>,
    shown_last: Instant,
    /// Something was counted since, and no step may follow that would show it.
    unshown: bool,
    alive: Arc<AtomicBool>,
}

impl<E: Steps> Worker<E> {
    fn run(mut self, inbox: channel::Receiver<Order>) {
        self.engine.enter_thread();
        let ended = catch_unwind(AssertUnwindSafe(|| self.work(&inbox)));
        self.alive.store(false, Ordering::Relaxed);
        if ended.is_err() {
            tracing::error!("the engine panicked; its model is gone from this node until a restart");
            self.refuse_all(
                "the engine failed; the call is made again, on another node if this one is restarted",
            );
        }
    }

    fn work(&mut self, inbox: &channel::Receiver<Order>) {
        loop {
            if self.engine.is_idle() {
                match self.rest(inbox) {
                    Ok(order) => self.take(order),
                    Err(channel::RecvError) => return,
                }
            }
            loop {
                match inbox.try_recv() {
                    Ok(order) => self.take(order),
                    Err(channel::TryRecvError::Empty) => break,
                    Err(channel::TryRecvError::Disconnected) => return,
                }
            }
            self.cancel_the_stopped();
            if self.engine.is_idle() {
                continue;
            }
            let events = self.engine.step();
            // The figures first: whoever hears of an end may look at them.
            if self.shown_last.elapsed() >= SHOW_EVERY || events.iter().any(|(_, event)| is_last(event)) {
                self.show();
            }
            self.pass_on(events);
        }
    }

    /// Waits for an order. What the engine may do in idle moments is done first, a little at a time.
    fn rest(&mut self, inbox: &channel::Receiver<Order>) -> Result<Order, channel::RecvError> {
        while self.engine.rest() {
            match inbox.recv_timeout(REST) {
                Ok(order) => return Ok(order),
                Err(channel::RecvTimeoutError::Timeout) => {}
                Err(channel::RecvTimeoutError::Disconnected) => return Err(channel::RecvError),
            }
        }
        if self.unshown {
            self.show();
        }
        inbox.recv()
    }

    fn take(&mut self, order: Order) {
        let (work, events, stop, place) = match order {
            Order::Run { work, events, stop, place } => (work, events, stop, place),
            Order::Blocks(question) => return question.answer(&mut self.engine),
            Order::Hint(chain, hint) => {
                self.engine.hint(&chain, hint);
                self.unshown = true;
                return;
            }
            Order::Look => return,
        };
        let taken = match work {
            Work::Answer(job) => self.engine.submit(*job),
            Work::Score(scores) => self.engine.submit_scores(*scores),
        };
        match taken {
            Ok(id) => {
                self.open.insert(id, Open { events, stop, cancelled: false, _place: place });
            }
            Err(why) => drop(events.try_send(JobEvent::Refused(why))),
        }
    }

    fn cancel_the_stopped(&mut self) {
        for (&id, open) in &mut self.open {
            if !open.cancelled && open.stop.is_cancelled() {
                open.cancelled = true;
                self.engine.cancel(id);
            }
        }
    }

    fn pass_on(&mut self, events: Vec<(u64, JobEvent)>) {
        for (id, event) in events {
            let last = is_last(&event);
            if let Some(open) = self.open.get(&id) {
                // There is room for all; a closed channel means that nobody wants to know.
                let _ = open.events.try_send(event);
            }
            if last {
                self.open.remove(&id);
            }
        }
    }

    fn refuse_all(&mut self, why: &str) {
        for open in std::mem::take(&mut self.open).into_values() {
            let refused = RefusedJob { why: why.into(), retriable: true };
            let _ = open.events.try_send(JobEvent::Refused(refused));
        }
    }

    fn show(&mut self) {
        *self.shown.lock().expect("nothing panics while it holds the figures") = self.engine.observe();
        (self.shown_last, self.unshown) = (Instant::now(), false);
    }
}

/// Whether nothing follows for its job.
fn is_last(event: &JobEvent) -> bool {
    !matches!(event, JobEvent::Token { .. })
}
