//! The ledger's side of work without a task, such as a request to `/v1` or an evaluation: what is set aside before it
//! begins, kept while it goes on, settled when it ends.
//!
//! Whoever goes away at any point leaves nothing behind: a beginning that nobody waits for any more is ended as soon as
//! it is heard of, and what this node can't end because it died ends by itself, at everything that was set aside.

use crate::openai::told::Usage;
use coordinator::{Client, ClientError};
use ledger::command::Command;
use ledger::keys::{Amounts, Holding};
use ledger::reply::{Refusal, Reply};
use ledger::rows::{CallId, Want};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use types::{NodeId, ProjectName, limits};

/// A call of a node that died is over after this time at the latest.
const LIVES: Duration = Duration::from_secs(30);
/// How often the node says which of its calls go on. One command for all of them.
const RENEW: Duration = Duration::from_secs(10);
/// The end of an answer waits so long for being settled; then it is settled behind its back.
pub(crate) const SETTLING: Duration = Duration::from_secs(2);
/// Between two tries to settle.
const AGAIN: Duration = Duration::from_millis(500);

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
    ended: Notify,
}

struct Open {
    project: ProjectName,
    stop: CancellationToken,
    renewed: Instant,
}

/// What one request has set aside. Dropped without an end it used nothing.
pub(crate) struct Account {
    accounts: Accounts,
    project: ProjectName,
    call: CallId,
    /// Of prompt and answer together.
    granted: u64,
    stop: CancellationToken,
    begun: Instant,
    ended: bool,
}

impl Accounts {
    pub(crate) fn start(own: NodeId, client: Client) -> Accounts {
        let (open, ended) = (Mutex::default(), Notify::new());
        let accounts = Accounts(Arc::new(Inner { own, client, stop: CancellationToken::new(), open, ended }));
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
        let begun = tokio::spawn(async move { accounts.begin_now(caller, need).await });
        begun
            .await
            .unwrap_or_else(|_| Err(NotBegun::Odd("reserving failed; this is a bug, report it".into())))
    }

    async fn begin_now(&self, caller: Caller, need: Need) -> Result<Account, NotBegun> {
        let call = CallId(random());
        let stop = self.0.stop.child_token();
        let open = Open { project: caller.project.clone(), stop: stop.clone(), renewed: Instant::now() };
        self.open().insert(call, open);
        let mut account = Account {
            accounts: self.clone(),
            project: caller.project.clone(),
            call,
            granted: 0,
            stop,
            begun: Instant::now(),
            ended: false,
        };
        let command = self.command(call, caller, need);
        // Refused or not heard: dropping the account ends what may have begun.
        match self.0.client.propose_one(command).await.map_err(NotBegun::Unheard)? {
            Reply::Reserved(granted) => {
                (account.granted, account.begun) = (granted, Instant::now());
                Ok(account)
            }
            Reply::Refused(refusal) => {
                account.forget();
                Err(NotBegun::Refused(refusal))
            }
            other => Err(NotBegun::Odd(format!("{other:?} does not answer a reservation; try again later"))),
        }
    }

    fn command(&self, call: CallId, caller: Caller, need: Need) -> Command {
        let extra = Amounts {
            // How much of the prompt is cached is known when it was read: all but its last token may be.
            cached_tokens: need.prompt_tokens.saturating_sub(1),
            kv_block_seconds: need.kv_block_seconds,
            ..Amounts::NONE
        };
        Command::BeginCall {
            call,
            project: caller.project,
            model: need.model,
            author: caller.author,
            node: self.0.own,
            min_tokens: need.prompt_tokens + need.least,
            max_tokens: need.prompt_tokens + need.most,
            want: Want { fresh_tokens: need.prompt_tokens, known_tokens: 0, extra },
            lives_ms: u64::try_from(LIVES.as_millis()).unwrap_or(u64::MAX),
            needs: need.destination.map(|to| (Holding::Connections(to), 1)).into_iter().collect(),
        }
    }

    /// What goes on has to stop.
    pub(crate) fn cut_off(&self) {
        self.0.stop.cancel();
    }

    /// Resolves when nothing is under way.
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

    /// Tells the ledger what a call used, until it has heard it or the call is over by itself.
    async fn settle(self, project: ProjectName, call: CallId, used: Usage, kv_block_seconds: u64) {
        let known_tokens = used.cached.min(used.prompt);
        let command = Command::EndCall {
            project,
            call,
            fresh_tokens: used.prompt - known_tokens,
            known_tokens,
            generated_tokens: used.generated,
            extra: Amounts { kv_block_seconds, ..Amounts::NONE },
        };
        let begun = Instant::now();
        while let Err(error) = self.0.client.propose_one(command.clone()).await {
            if begun.elapsed() >= LIVES {
                tracing::warn!(%error, "a request was not settled; it counts at what it had set aside");
                break;
            }
            tokio::time::sleep(AGAIN).await;
        }
        self.close(call);
    }

    fn close(&self, call: CallId) {
        self.open().remove(&call);
        self.0.ended.notify_waiters();
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<CallId, Open>> {
        self.0.open.lock().expect("no panic while held")
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

    /// Settles what was used. Comes back when that is done, or after a while: it is then done later.
    pub(crate) async fn end(mut self, used: Usage, kv_block_seconds: u64) {
        self.ended = true;
        let settling = self.accounts.clone().settle(self.project.clone(), self.call, used, kv_block_seconds);
        let settled = tokio::spawn(settling);
        if tokio::time::timeout(SETTLING, settled).await.is_err() {
            tracing::info!("a request is settled later: no leader answers");
        }
    }

    /// The same where nobody knows what was used: everything.
    pub(crate) async fn lose(self, prompt_tokens: u64, kv_block_seconds: u64) {
        let generated = self.granted.saturating_sub(prompt_tokens);
        self.end(Usage { prompt: prompt_tokens, cached: 0, generated }, kv_block_seconds).await;
    }

    /// Nothing was set aside.
    fn forget(&mut self) {
        self.ended = true;
        self.accounts.close(self.call);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let (accounts, project) = (self.accounts.clone(), self.project.clone());
        tokio::spawn(accounts.settle(project, self.call, Usage::default(), 0));
    }
}

fn random() -> [u8; 16] {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the system has randomness");
    bytes
}
