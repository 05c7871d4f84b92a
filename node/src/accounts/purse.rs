//! A slice at work: requests draw from it, and one task of its own turns it at the ledger. Whoever can't draw at once
//! waits for the turn under way, so that a burst shares one entry.

use super::slice::{Next, Promise, Slice};
use super::{AGAIN, Accounts, LIVES, LOOK, NotBegun};
use crate::telemetry::names;
use ledger::command::{Command, SliceTurn, Wanted};
use ledger::keys::Amounts;
use ledger::reply::{Refusal, Reply, SliceAnswer};
use ledger::rows::CallId;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use types::ProjectName;

/// Whose requests share a slice.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Purse {
    pub(super) project: ProjectName,
    pub(super) author: String,
    pub(super) model: String,
    pub(super) destination: Option<String>,
}

/// What came of asking for a part of a slice.
pub(super) enum Drawn {
    Granted(Promise),
    /// The slice gives nothing any more: another one does.
    Moved,
    /// Others were asked for what they need not: worth another try.
    Recalled(Refusal),
    Not(NotBegun),
}

struct Waiter {
    wanted: Wanted,
    recalled: bool,
    tell: oneshot::Sender<Drawn>,
}

struct Inside {
    slice: Slice,
    waiting: VecDeque<Waiter>,
    /// The one that the turn under way is for.
    asking: Option<Waiter>,
    /// What it did not use comes back in another way.
    lost: bool,
}

pub(super) struct Pot {
    pub(super) purse: Purse,
    pub(super) id: CallId,
    accounts: Accounts,
    /// Its requests have to stop.
    pub(super) stop: CancellationToken,
    inside: Mutex<Inside>,
    changed: Notify,
}

impl Pot {
    pub(super) fn open(accounts: &Accounts, purse: Purse, id: CallId, stop: CancellationToken) -> Arc<Pot> {
        let frugal = accounts.0.record.is_broken();
        let slice = Slice::new(purse.clone(), accounts.0.own, id, frugal, accounts.now());
        let inside = Mutex::new(Inside { slice, waiting: VecDeque::new(), asking: None, lost: false });
        let pot =
            Arc::new(Pot { purse, id, accounts: accounts.clone(), stop, inside, changed: Notify::new() });
        tokio::spawn(pot.clone().keep());
        pot
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().expect("no panic while held")
    }

    pub(super) fn is_open(&self) -> bool {
        self.inside().slice.is_open()
    }

    /// What a request wants, at once or with the next turn.
    pub(super) async fn draw(&self, wanted: Wanted, recalled: bool) -> Drawn {
        let told = {
            let mut inside = self.inside();
            if !inside.slice.is_open() {
                return Drawn::Moved;
            }
            let at_once = match inside.waiting.is_empty() {
                true => inside.slice.draw(&wanted, self.accounts.now()),
                false => None,
            };
            if let Some(promise) = at_once {
                metrics::counter!(names::SLICE_REQUESTS_TOTAL).increment(1);
                return Drawn::Granted(promise);
            }
            let (tell, told) = oneshot::channel();
            inside.waiting.push_back(Waiter { wanted, recalled, tell });
            told
        };
        self.changed.notify_one();
        told.await.unwrap_or(Drawn::Moved)
    }

    /// A request is over.
    pub(super) fn end(&self, promise: &Promise, used: Amounts) {
        self.inside().slice.end(promise, used, self.accounts.now());
        self.changed.notify_one();
    }

    pub(super) fn recall(&self, answer: bool) {
        self.inside().slice.recall(answer, self.accounts.now());
        self.changed.notify_one();
    }

    /// Looks again at what is to be done.
    pub(super) fn wake(&self) {
        self.changed.notify_one();
    }

    /// Does what there is to do until the slice is over.
    async fn keep(self: Arc<Pot>) {
        loop {
            match self.next() {
                Next::Turn(turn) => self.turn(*turn).await,
                Next::Record(mark) => self.record(mark).await,
                Next::Wait(until) => self.wait(until).await,
                Next::Over => {
                    // Not locked while the purses are.
                    let lost = self.inside().lost;
                    return self.accounts.forget(&self, lost);
                }
            }
        }
    }

    fn next(&self) -> Next {
        let (now, stopping) = (self.accounts.now(), self.accounts.0.stop.is_cancelled());
        let mut inside = self.inside();
        inside.serve(now);
        let waiting: Vec<Wanted> = inside.waiting.iter().map(|waiter| waiter.wanted).collect();
        let recalled = inside.waiting.front().is_some_and(|waiter| waiter.recalled);
        let next = inside.slice.next(&waiting, recalled, stopping, now);
        if let Next::Turn(turn) = &next {
            inside.asking = turn.want.and_then(|_| inside.waiting.pop_front());
        }
        if !inside.slice.is_open() {
            inside.turn_away(|| Drawn::Moved);
        }
        next
    }

    async fn wait(&self, until: Option<Duration>) {
        let later = until.map_or(LIVES, |until| until.saturating_sub(self.accounts.now()));
        tokio::select! {
            () = self.changed.notified() => {}
            () = tokio::time::sleep(later) => {}
        }
    }

    async fn record(&self, mark: Amounts) {
        self.inside().slice.marking(mark);
        let durable = self.accounts.0.record.write(&self.purse.project, self.id, mark).await;
        self.inside().slice.marked(mark, durable);
    }

    /// One turn, until the ledger answers it or the slice is over there by itself.
    async fn turn(&self, turn: SliceTurn) {
        let (begun, command) = (Instant::now(), Command::TurnSlice { turn: Box::new(turn) });
        loop {
            match self.accounts.0.client.propose_one(command.clone()).await {
                Ok(reply) => {
                    if self.answered(reply) {
                        tokio::time::sleep(LOOK).await;
                    }
                    return;
                }
                Err(error) => {
                    self.inside().turn_away(|| Drawn::Not(NotBegun::Unheard(error.clone())));
                    if begun.elapsed() >= LIVES {
                        return self.lose(&error.to_string());
                    }
                }
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Whether others were asked to give back what is missing: that takes them a moment.
    fn answered(&self, reply: Reply) -> bool {
        metrics::counter!(names::SLICE_TURNS_TOTAL).increment(1);
        self.accounts.renewed(self.id);
        match reply {
            Reply::Slice(answer) => {
                let recalled = answer.recalled;
                self.inside().hear(*answer, self.accounts.now());
                return recalled;
            }
            Reply::Refused(refusal) => self.lost(refusal),
            other => {
                tracing::warn!(?other, "the ledger does not answer a turn of a slice");
                self.lost(Refusal::NotFound { what: "slice".into(), name: String::new() });
            }
        }
        false
    }

    /// It was refused when it was opened, or is over in the ledger: what was not used is told.
    fn lost(&self, refusal: Refusal) {
        let refused = {
            let mut inside = self.inside();
            let opened = inside.slice.was_opened();
            inside.asking.take().filter(|_| !opened)
        };
        if let Some(waiter) = refused {
            let _ = waiter.tell.send(Drawn::Not(NotBegun::Refused(refusal.clone())));
        }
        self.lose(&refusal.to_string());
    }

    /// In the ledger it is over or will be: at everything that it held, until this is heard.
    fn lose(&self, why: &str) {
        tracing::info!(why, "a slice of a quota was lost");
        let mut inside = self.inside();
        let spent = inside.slice.spent_at_most();
        inside.slice.lose();
        inside.lost = true;
        inside.turn_away(|| Drawn::Moved);
        tokio::spawn(self.accounts.clone().refund(self.purse.project.clone(), self.id, spent));
    }
}

impl Inside {
    /// Gives to those who wait what is there, in their order.
    fn serve(&mut self, now: Duration) {
        while let Some(first) = self.waiting.front()
            && let Some(promise) = self.slice.draw(&first.wanted, now)
        {
            metrics::counter!(names::SLICE_REQUESTS_TOTAL).increment(1);
            if let Some(waiter) = self.waiting.pop_front() {
                self.grant(waiter, promise, now);
            }
        }
    }

    /// Whoever does not wait any more used nothing.
    fn grant(&mut self, waiter: Waiter, promise: Promise, now: Duration) {
        if waiter.tell.send(Drawn::Granted(promise)).is_err() {
            self.slice.end(&promise, Amounts::NONE, now);
        }
    }

    fn hear(&mut self, answer: SliceAnswer, now: Duration) {
        let promise = self.slice.answered(&answer, now);
        match (self.asking.take(), promise) {
            (Some(waiter), Some(promise)) => self.grant(waiter, promise, now),
            (None, Some(promise)) => self.slice.end(&promise, Amounts::NONE, now),
            (Some(waiter), None) => {
                let drawn = match answer.short {
                    Some(short) if answer.recalled => Drawn::Recalled(short),
                    Some(short) => Drawn::Not(NotBegun::Refused(short)),
                    None => Drawn::Moved,
                };
                let _ = waiter.tell.send(drawn);
            }
            (None, None) => {}
        }
    }

    fn turn_away(&mut self, what: impl Fn() -> Drawn) {
        for waiter in self.asking.take().into_iter().chain(self.waiting.drain(..)) {
            let _ = waiter.tell.send(what());
        }
    }
}

impl Accounts {
    /// Says what a lost slice did not use, until it is heard. Refused: the ledger knows of nothing to give back.
    pub(super) async fn refund(self, project: ProjectName, slice: CallId, spent: Amounts) {
        let (node, record) = (self.0.own, self.0.record.clone());
        let command = Command::RefundSlice { project, slice, node, spent };
        let reply = loop {
            match self.0.client.propose_one(command.clone()).await {
                Ok(reply) => break reply,
                Err(error) => tracing::info!(%error, "a lost slice is refunded later"),
            }
            tokio::time::sleep(AGAIN).await;
        };
        if reply == Reply::Done {
            metrics::counter!(names::SLICE_REFUNDS_TOTAL).increment(1);
        }
        record.forget(slice);
    }

    fn forget(&self, pot: &Arc<Pot>, lost: bool) {
        if !lost {
            self.0.record.forget(pot.id);
        }
        let mut purses = self.purses();
        if purses.current.get(&pot.purse).is_some_and(|current| Arc::ptr_eq(current, pot)) {
            purses.current.remove(&pot.purse);
        }
        purses.all.remove(&pot.id);
        drop(purses);
        self.close(pot.id);
    }
}
