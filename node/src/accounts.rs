//! The ledger's side of work without a task, such as a request to `/v1` or an evaluation: what is set aside before it
//! begins, kept while it goes on, settled when it ends.
//!
//! Requests draw from slices, parts of the quotas above their project that this node holds, so that none of them costs a log
//! entry. Below the feature level that has slices each is a call of its own, with an entry at its beginning and its end.
//!
//! Whoever goes away at any point leaves nothing behind: a beginning that nobody waits for any more is ended as soon as
//! it is heard of, and what this node can't end because it died ends by itself, at everything that was set aside.
//!
//! Read: this file (what a request asks for and gets), `slice` (what a slice decides), `purse` (a slice at work), `record`
//! (what a crash may not forget), `call`.

mod call;
mod purse;
mod record;
mod slice;
#[cfg(test)]
mod slice_test;

use crate::openai::told::Usage;
use coordinator::{Client, ClientError};
use ledger::command::{Command, Wanted};
use ledger::keys::Amounts;
use ledger::query::{Answer, Query};
use ledger::reply::{Refusal, Reply};
use ledger::rows::{CallId, Used, Want};
use purse::{Drawn, Pot, Purse};
use record::{Mark, SpendRecord};
use slice::Promise;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use sys::disk::Disk;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use types::{NodeId, ProjectName, limits};

/// What a node that died set aside is over after this time at the latest.
const LIVES: Duration = Duration::from_secs(30);
/// How often the node says which of its calls and slices go on. One command for all of them.
const RENEW: Duration = Duration::from_secs(10);
/// At the end of a node all this is settled within so long.
pub(crate) const SETTLING: Duration = Duration::from_secs(2);
/// Between two tries to settle.
const AGAIN: Duration = Duration::from_millis(500);
/// What slices of others need not comes back within this time: they were told.
const RECALLED: Duration = Duration::from_secs(4);
/// Between two looks whether it did.
const LOOK: Duration = Duration::from_millis(20);

/// Who pays, and who asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) project: ProjectName,
    pub(crate) author: String,
}

/// Why nothing was set aside.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotBegun {
    #[error("{0}")]
    Refused(Refusal),
    #[error("the ledger was not heard: {0}")]
    Unheard(ClientError),
    #[error("{0}")]
    Odd(String),
}

/// What a request may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Need {
    pub(crate) model: String,
    /// Tokens of all its prompts, none of which is known to be cached.
    pub(crate) prompt_tokens: u64,
    /// Tokens of its answers, at least and at most.
    pub(crate) least: u64,
    pub(crate) most: u64,
    pub(crate) kv_block_seconds: u64,
    /// Where it is computed, if not here.
    pub(crate) destination: Option<String>,
}

/// What is under way from this node. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Accounts(Arc<Inner>);

struct Inner {
    own: NodeId,
    client: Client,
    stop: CancellationToken,
    open: Mutex<BTreeMap<CallId, Open>>,
    purses: Mutex<Purses>,
    record: SpendRecord,
    /// The cluster's feature level has slices.
    sliced: AtomicBool,
    started: Instant,
    ended: Notify,
}

/// A call or slice that the ledger has to hear of again and again.
struct Open {
    project: ProjectName,
    stop: CancellationToken,
    renewed: Instant,
}

/// Slices at work.
#[derive(Default)]
struct Purses {
    /// The one that gives to requests.
    current: BTreeMap<Purse, Arc<Pot>>,
    all: BTreeMap<CallId, Arc<Pot>>,
}

/// What one request has set aside. Dropped without an end it used nothing.
pub(crate) struct Account {
    accounts: Accounts,
    from: Source,
    /// Of prompt and answer together.
    granted: u64,
    stop: CancellationToken,
    begun: Instant,
    ended: bool,
}

/// Where it is settled.
enum Source {
    Slice(Arc<Pot>, Promise),
    Call(ProjectName, CallId),
}

impl Accounts {
    /// Also gives back what slices of this node did not use before it died.
    pub(crate) fn start(own: NodeId, client: Client, disk: Arc<dyn Disk>) -> Accounts {
        let (record, lost) = SpendRecord::open(disk);
        let accounts = Accounts(Arc::new(Inner {
            own,
            client,
            stop: CancellationToken::new(),
            open: Mutex::default(),
            purses: Mutex::default(),
            record,
            sliced: AtomicBool::new(false),
            started: Instant::now(),
            ended: Notify::new(),
        }));
        for Mark { project, slice, spent } in lost {
            tokio::spawn(accounts.clone().refund(project, slice, spent));
        }
        tokio::spawn(accounts.clone().keep_up());
        accounts
    }

    /// Sets aside what a request may use.
    ///
    /// # Errors
    /// What the ledger refuses, or that nobody leads.
    pub(crate) async fn begin(&self, caller: &Caller, need: Need) -> Result<Account, NotBegun> {
        let (accounts, caller) = (self.clone(), caller.clone());
        // On its own: whoever waits for it may go away at any time, and what begins has to be ended.
        let begun = tokio::spawn(async move {
            match accounts.has_slices().await? {
                true => accounts.draw(caller, need).await,
                false => accounts.begin_call(caller, need).await,
            }
        });
        begun
            .await
            .unwrap_or_else(|_| Err(NotBegun::Odd("reserving failed; this is a bug, report it".into())))
    }

    /// Levels only rise: what is true once stays so.
    async fn has_slices(&self) -> Result<bool, NotBegun> {
        if self.0.sliced.load(Ordering::Relaxed) {
            return Ok(true);
        }
        let (answer, ..) = self.0.client.read_stale(Query::Cluster).await.map_err(NotBegun::Unheard)?;
        let sliced = matches!(answer, Answer::Cluster(facts) if facts.feature_level >= ledger::SLICES);
        self.0.sliced.store(sliced, Ordering::Relaxed);
        Ok(sliced)
    }

    async fn draw(&self, caller: Caller, need: Need) -> Result<Account, NotBegun> {
        let wanted = need.wanted();
        let Caller { project, author } = caller;
        let purse = Purse { project, author, model: need.model, destination: need.destination };
        let mut recalled: Option<Instant> = None;
        loop {
            let pot = self.pot(&purse);
            match pot.draw(wanted, recalled.is_some()).await {
                Drawn::Granted(promise) => return Ok(self.account(pot, promise)),
                Drawn::Moved => {}
                Drawn::Not(why) => return Err(why),
                Drawn::Recalled(short) => {
                    if recalled.get_or_insert_with(Instant::now).elapsed() >= RECALLED {
                        return Err(NotBegun::Refused(short));
                    }
                    tokio::time::sleep(LOOK).await;
                }
            }
        }
    }

    fn account(&self, pot: Arc<Pot>, promise: Promise) -> Account {
        let (granted, stop) = (promise.tokens, pot.stop.child_token());
        let from = Source::Slice(pot, promise);
        Account { accounts: self.clone(), from, granted, stop, begun: Instant::now(), ended: false }
    }

    /// The slice that gives to these requests now.
    fn pot(&self, purse: &Purse) -> Arc<Pot> {
        let mut purses = self.purses();
        if let Some(pot) = purses.current.get(purse).filter(|pot| pot.is_open()) {
            return pot.clone();
        }
        let (id, stop) = self.enter(&purse.project);
        let pot = Pot::open(self, purse.clone(), id, stop);
        purses.current.insert(purse.clone(), pot.clone());
        purses.all.insert(id, pot.clone());
        pot
    }

    /// A new call or slice, renewed from now on, and what fires when it has to stop.
    fn enter(&self, project: &ProjectName) -> (CallId, CancellationToken) {
        let (id, stop) = (CallId(random()), self.0.stop.child_token());
        let open = Open { project: project.clone(), stop: stop.clone(), renewed: Instant::now() };
        self.open().insert(id, open);
        (id, stop)
    }

    /// What slices of this node hold and need not is wanted elsewhere; with `answer` somebody waits until they say so.
    pub(crate) fn recall(&self, answer: bool) {
        metrics::counter!(crate::telemetry::names::SLICE_RECALLS_TOTAL).increment(1);
        self.purses().all.values().for_each(|pot| pot.recall(answer));
    }

    /// What goes on has to stop.
    pub(crate) fn cut_off(&self) {
        self.0.stop.cancel();
        self.purses().all.values().for_each(|pot| pot.wake());
    }

    /// Resolves when nothing is under way and everything is settled.
    pub(crate) async fn all_ended(&self) {
        loop {
            let ended = self.0.ended.notified();
            if self.open().is_empty() {
                return;
            }
            ended.await;
        }
    }

    /// Says again and again which calls go on. One that could not be renewed in time is over in the ledger: it stops.
    async fn keep_up(self) {
        let mut turn = tokio::time::interval(RENEW);
        turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            turn.tick().await;
            let calls: Vec<(ProjectName, CallId)> =
                self.open().iter().map(|(call, open)| (open.project.clone(), *call)).collect();
            for some in calls.chunks(limits::CALLS_AT_ONCE) {
                self.renew(some).await;
            }
            self.open()
                .values()
                .filter(|open| open.renewed.elapsed() >= LIVES)
                .for_each(|open| open.stop.cancel());
        }
    }

    async fn renew(&self, calls: &[(ProjectName, CallId)]) {
        let asked = Instant::now();
        let lives_ms = u64::try_from(LIVES.as_millis()).unwrap_or(u64::MAX);
        let command = Command::RenewCalls { node: self.0.own, calls: calls.to_vec(), lives_ms };
        match self.0.client.propose_one(command).await {
            Ok(Reply::Done) => {
                let mut open = self.open();
                for (_, call) in calls {
                    open.entry(*call).and_modify(|open| open.renewed = asked);
                }
            }
            Ok(other) => tracing::warn!(?other, "requests were not renewed"),
            Err(error) => tracing::warn!(%error, "requests were not renewed; tried again"),
        }
    }

    /// The ledger has just heard of it.
    fn renewed(&self, id: CallId) {
        self.open().entry(id).and_modify(|open| open.renewed = Instant::now());
    }

    fn close(&self, call: CallId) {
        self.open().remove(&call);
        self.0.ended.notify_waiters();
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<CallId, Open>> {
        self.0.open.lock().expect("no panic while held")
    }

    fn purses(&self) -> MutexGuard<'_, Purses> {
        self.0.purses.lock().expect("no panic while held")
    }

    /// Since this began.
    fn now(&self) -> Duration {
        self.0.started.elapsed()
    }
}

impl Need {
    fn wanted(&self) -> Wanted {
        let extra = Amounts {
            // How much of the prompt is cached is known when it was read: all but its last token may be.
            cached_tokens: self.prompt_tokens.saturating_sub(1),
            kv_block_seconds: self.kv_block_seconds,
            ..Amounts::NONE
        };
        Wanted {
            min_tokens: self.prompt_tokens + self.least,
            max_tokens: self.prompt_tokens + self.most,
            want: Want { fresh_tokens: self.prompt_tokens, known_tokens: 0, extra },
        }
    }
}

fn spent(used: Usage, kv_block_seconds: u64) -> Used {
    let known_tokens = used.cached.min(used.prompt);
    Used {
        fresh_tokens: used.prompt - known_tokens,
        known_tokens,
        generated_tokens: used.generated,
        extra: Amounts { kv_block_seconds, ..Amounts::NONE },
    }
}

impl Account {
    /// Tokens of prompt and answer that may be used.
    pub(crate) fn granted(&self) -> u64 {
        self.granted
    }

    /// Fires when the request has to stop.
    pub(crate) fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    pub(crate) fn took(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Says what was used. Of a slice the ledger hears it with the next turn; a call is settled when this comes back, or,
    /// after a while, later.
    pub(crate) async fn end(mut self, used: Usage, kv_block_seconds: u64) {
        self.ended = true;
        let used = spent(used, kv_block_seconds);
        match &self.from {
            Source::Slice(pot, promise) => pot.end(promise, used.amounts(promise.price)),
            Source::Call(project, call) => self.accounts.end_call(project.clone(), *call, used).await,
        }
    }

    /// The same where nobody knows what was used: everything.
    pub(crate) async fn lose(self, prompt_tokens: u64, kv_block_seconds: u64) {
        let generated = self.granted.saturating_sub(prompt_tokens);
        self.end(Usage { prompt: prompt_tokens, cached: 0, generated }, kv_block_seconds).await;
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        match &self.from {
            Source::Slice(pot, promise) => pot.end(promise, Amounts::NONE),
            Source::Call(project, call) => {
                let nothing = spent(Usage::default(), 0);
                tokio::spawn(self.accounts.clone().settle(project.clone(), *call, nothing));
            }
        }
    }
}

fn random() -> [u8; 16] {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the system has randomness");
    bytes
}
