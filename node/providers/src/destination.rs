//! What all calls to one address share: how many go at a time, whether any go, how often refused ones go again.
//!
//! A thin shell around [`Limiter`], [`Breaker`] and [`RetryBudget`]: it knows the clock, the dice and who waits.

use crate::answer::{Failure, Reason};
use crate::bounds::{RETRY_AFTER_WAITED_MS, WAITING};
use crate::breaker::{Breaker, BreakerState};
use crate::endpoint::{Concurrency, Endpoint};
use crate::limiter::{Limiter, Place, Verdict};
use crate::retry::{self, Next, Random, RetryBudget};
use crate::setup::SetupError;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// All destinations of one process. Cheap to clone.
#[derive(Clone)]
pub struct Destinations {
    all: Arc<Mutex<BTreeMap<String, Arc<Destination>>>>,
    random: Arc<Mutex<Random>>,
}

/// One address that calls go to.
pub struct Destination {
    name: String,
    begun: Instant,
    inner: Mutex<Inner>,
    /// Whoever holds it is next to begin: first come, first served.
    turn: tokio::sync::Mutex<()>,
    changed: Notify,
}

struct Inner {
    limiter: Limiter,
    breaker: Breaker,
    budget: RetryBudget,
    random: Random,
    waiting: usize,
    /// How long calls take.
    mean_ms: u64,
}

/// A destination as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DestinationState {
    pub name: String,
    pub running: u32,
    pub waiting: usize,
    pub limit: u32,
    /// Where the limit began, how far it may grow, how often it fell.
    pub start: u32,
    pub most: u32,
    pub cuts: u64,
    pub breaker: BreakerState,
    /// Nobody begins for so long, because the destination said so.
    pub closed_ms: u64,
    /// How long a new call would wait, as far as one can tell.
    pub queue_ms: u64,
}

/// What a try to begin gave.
enum Entry {
    In(Place),
    /// Something must end first, or this time must pass.
    Wait(Option<u64>),
    Closed(u64),
}

impl Destinations {
    /// `seed` decides the jitter.
    pub fn new(seed: u64) -> Self {
        Destinations { all: Arc::default(), random: Arc::new(Mutex::new(Random::new(seed))) }
    }

    /// With a seed of the machine.
    pub fn random() -> Self {
        let mut seed = [0; 8];
        // Without it the jitter is the same as other processes', which is worse but works.
        let _ = getrandom::fill(&mut seed);
        Destinations::new(u64::from_le_bytes(seed))
    }

    /// The destination of an endpoint; the first endpoint's concurrency counts.
    pub(crate) fn of(&self, endpoint: &Endpoint) -> Result<Arc<Destination>, SetupError> {
        let name = endpoint.destination()?;
        let seed = locked(&self.random).draw();
        let mut all = locked(&self.all);
        let new = || Arc::new(Destination::new(name.clone(), endpoint.concurrency, seed));
        Ok(all.entry(name.clone()).or_insert_with(new).clone())
    }

    /// What the cluster leaves to this node of a destination, from now on. False: nothing goes there.
    pub fn set_ceiling(&self, name: &str, ceiling: Option<u32>) -> bool {
        let found = locked(&self.all).get(name).cloned();
        found.inspect(|destination| destination.set_ceiling(ceiling)).is_some()
    }

    /// Each as it is now, sorted by name.
    pub fn states(&self) -> Vec<DestinationState> {
        locked(&self.all).values().map(|destination| destination.state()).collect()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nothing panics while it holds a destination")
}

impl Destination {
    fn new(name: String, concurrency: Concurrency, seed: u64) -> Self {
        let inner = Inner {
            limiter: Limiter::new(concurrency.start, concurrency.most),
            breaker: Breaker::default(),
            budget: RetryBudget::default(),
            random: Random::new(seed),
            waiting: 0,
            mean_ms: 0,
        };
        let (turn, changed) = (tokio::sync::Mutex::new(()), Notify::new());
        Destination { name, begun: Instant::now(), inner: Mutex::new(inner), turn, changed }
    }

    /// Scheme, host and port.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// At most so many calls at a time from now on; None: as the limit finds by itself.
    pub fn set_ceiling(&self, ceiling: Option<u32>) {
        locked(&self.inner).limiter.set_ceiling(ceiling);
        self.changed.notify_waiters();
    }

    pub fn state(&self) -> DestinationState {
        let now = self.now_ms();
        let inner = locked(&self.inner);
        let (running, limit) = (inner.limiter.running(), inner.limiter.limit());
        let (start, most) = inner.limiter.bounds();
        let closed_ms = inner.limiter.closed_ms(now);
        let before = (running as usize + inner.waiting + 1).saturating_sub(limit as usize) as u64;
        DestinationState {
            name: self.name.clone(),
            running,
            waiting: inner.waiting,
            limit,
            start,
            most,
            cuts: inner.limiter.cuts(),
            breaker: inner.breaker.state(now),
            closed_ms,
            queue_ms: closed_ms + before * inner.mean_ms / u64::from(limit.max(1)),
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// A call is made for the first time.
    pub(crate) fn earn(&self) {
        locked(&self.inner).budget.earn();
    }

    /// What follows a failure.
    pub(crate) fn next(&self, failure: &Failure, until: Instant) -> Next {
        let left = until.saturating_duration_since(Instant::now());
        let mut inner = locked(&self.inner);
        let random = inner.random.draw();
        retry::next(failure, u64::try_from(left.as_millis()).unwrap_or(u64::MAX), random, &mut inner.budget)
    }

    /// Waits for a place, first come, first served. The caller sees to deadlines by dropping this.
    pub(crate) async fn enter(&self) -> Result<Entered<'_>, Failure> {
        let _waiting = Waiting::new(self)?;
        let _turn = self.turn.lock().await;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let wait = match self.try_enter() {
                Entry::In(place) => {
                    return Ok(Entered { destination: self, place: Some(place), begun: Instant::now() });
                }
                Entry::Closed(left_ms) => return Err(self.circuit_open(left_ms)),
                Entry::Wait(Some(ms)) if ms > RETRY_AFTER_WAITED_MS => return Err(self.closed(ms)),
                Entry::Wait(ms) => ms,
            };
            match wait {
                None => changed.await,
                Some(ms) => drop(tokio::time::timeout(Duration::from_millis(ms), changed).await),
            }
        }
    }

    fn try_enter(&self) -> Entry {
        let now = self.now_ms();
        let mut inner = locked(&self.inner);
        if let BreakerState::Open { left_ms } = inner.breaker.state(now) {
            return Entry::Closed(left_ms);
        }
        let Some(place) = inner.limiter.begin(now) else {
            return Entry::Wait(Some(inner.limiter.closed_ms(now)).filter(|ms| *ms > 0));
        };
        match inner.breaker.admit(now) {
            Ok(()) => Entry::In(place),
            Err(left_ms) => {
                inner.limiter.end(place, Verdict::Nothing, None, now);
                Entry::Closed(left_ms)
            }
        }
    }

    fn circuit_open(&self, left_ms: u64) -> Failure {
        let message = format!(
            "{} failed many times in a row and is left alone for {left_ms} ms; the call may be made again after that, or at \
             another provider",
            self.name
        );
        Failure::passing(Reason::CircuitOpen, message).after(Some(left_ms))
    }

    fn closed(&self, ms: u64) -> Failure {
        let message = format!(
            "{} asked not to be called for {ms} ms; the call may be made again after that",
            self.name
        );
        Failure::passing(Reason::RateLimited, message).after(Some(ms))
    }

    fn leave(&self, place: Place, ended: Ended, took_ms: u64) {
        let now = self.now_ms();
        let mut inner = locked(&self.inner);
        inner.limiter.end(place, ended.load, ended.retry_after_ms, now);
        match ended.health {
            Health::Well => inner.breaker.success(),
            Health::Ill => inner.breaker.failure(now),
            Health::Unknown => inner.breaker.nothing(),
        }
        if ended.load == Verdict::Success {
            inner.mean_ms = if inner.mean_ms == 0 { took_ms } else { (inner.mean_ms * 7 + took_ms) / 8 };
        }
        drop(inner);
        self.changed.notify_waiters();
    }
}

/// Whether the destination works at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Well,
    Ill,
    Unknown,
}

/// What a call tells of its destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended {
    load: Verdict,
    health: Health,
    retry_after_ms: Option<u64>,
}

impl Ended {
    pub(crate) const WELL: Ended =
        Ended { load: Verdict::Success, health: Health::Well, retry_after_ms: None };
    const NOTHING: Ended = Ended { load: Verdict::Nothing, health: Health::Unknown, retry_after_ms: None };

    pub(crate) fn of(failure: &Failure) -> Ended {
        let (load, health) = match failure.reason {
            Reason::RateLimited => (Verdict::Overloaded, Health::Well),
            Reason::Overloaded | Reason::TimedOut => (Verdict::Overloaded, Health::Ill),
            Reason::ProviderError
            | Reason::Unreachable
            | Reason::Cut
            | Reason::BrokenAnswer
            | Reason::TooLarge => (Verdict::Nothing, Health::Ill),
            Reason::BadRequest
            | Reason::ContextTooLong
            | Reason::KeyRefused
            | Reason::Forbidden
            | Reason::NoCredit
            | Reason::NoSuchModel
            | Reason::Redirected => (Verdict::Nothing, Health::Well),
            Reason::NoKey
            | Reason::NoTools
            | Reason::DeadlineExceeded
            | Reason::CircuitOpen
            | Reason::Busy
            | Reason::Stopped
            | Reason::NotRecorded
            | Reason::CassetteBroken => (Verdict::Nothing, Health::Unknown),
        };
        Ended { load, health, retry_after_ms: failure.retry_after_ms }
    }
}

/// A place on the way to a destination; dropped without a word it tells nothing.
pub(crate) struct Entered<'a> {
    destination: &'a Destination,
    place: Option<Place>,
    begun: Instant,
}

impl Entered<'_> {
    pub(crate) fn leave(mut self, ended: Ended) {
        self.give_back(ended);
    }

    fn give_back(&mut self, ended: Ended) {
        let took_ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        if let Some(place) = self.place.take() {
            self.destination.leave(place, ended, took_ms);
        }
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.give_back(Ended::NOTHING);
    }
}

/// One who waits, counted.
struct Waiting<'a>(&'a Destination);

impl<'a> Waiting<'a> {
    fn new(destination: &'a Destination) -> Result<Self, Failure> {
        let mut inner = locked(&destination.inner);
        if inner.waiting >= WAITING {
            let message =
                format!("{WAITING} calls wait for {} already; make the call again later", destination.name);
            return Err(Failure::passing(Reason::Busy, message).after(Some(1000)));
        }
        inner.waiting += 1;
        drop(inner);
        Ok(Waiting(destination))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        locked(&self.0.inner).waiting -= 1;
    }
}

impl std::fmt::Debug for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.state())
    }
}

impl std::fmt::Debug for Destinations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.states())
    }
}
