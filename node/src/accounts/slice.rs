//! One slice, without the world: what its requests may have at once, and what the ledger is to be told next. Time is an
//! argument, counted from any start.
//!
//! A first request costs what it costs without slices. While others follow the slice takes spare for twice as many each
//! time, at most for twice those that came since its last turn; it settles every two seconds, and is closed as soon as
//! nobody asked for a quarter of a second, so that what is idle goes back.

use super::purse::Purse;
use ledger::command::{SliceTurn, Spare, Wanted};
use ledger::keys::{Amounts, Holding};
use ledger::reply::SliceAnswer;
use ledger::rows::{CallId, Price};
use std::time::Duration;
use types::{NodeId, limits};

/// Without a request for so long it is closed.
pub(super) const IDLE: Duration = Duration::from_millis(250);
/// What was used is settled at the latest after this time.
const SETTLED_AFTER: Duration = Duration::from_secs(2);
/// Nothing spare is taken for so long after others needed it.
const SHY: Duration = Duration::from_secs(1);

/// What one request may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Promise {
    pub(super) amounts: Amounts,
    pub(super) tokens: u64,
    pub(super) price: Option<Price>,
}

/// What is to be done for a slice.
#[derive(Debug, PartialEq)]
pub(super) enum Next {
    Turn(Box<SliceTurn>),
    /// Write down that no more than this is used before the next such mark.
    Record(Amounts),
    /// Nothing before that time, or before something happens.
    Wait(Option<Duration>),
    Over,
}

/// How it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    /// It only shrinks.
    Retired,
    Over,
}

/// What the ledger last said that it holds, and what had been told then.
#[derive(Debug, Default)]
struct Held {
    amounts: Amounts,
    requests: u64,
    slots: u64,
    spent: Amounts,
    drawn: u64,
    price: Option<Price>,
    until: Duration,
}

/// How much of it is asked for.
#[derive(Debug, Default)]
struct Demand {
    /// The largest of the requests since the last turn.
    each: Wanted,
    /// Requests that the last turn took spare for.
    spare: u64,
    /// Most requests at the same time since the last turn.
    peak: u64,
}

#[derive(Debug)]
pub(super) struct Slice {
    purse: Purse,
    own: NodeId,
    id: CallId,
    stage: Stage,
    held: Held,
    sent: Option<Box<SliceTurn>>,
    seq: u64,
    spent: Amounts,
    drawn: u64,
    promised: Amounts,
    under_way: u64,
    demand: Demand,
    /// Others need what is idle here; somebody waits for an answer.
    recalled: bool,
    must_answer: bool,
    /// No more is used before the next mark; none: nothing was written down, and nothing will come back.
    marked: Option<Amounts>,
    used_at: Duration,
    /// The first use that the ledger was not told.
    unsettled_since: Option<Duration>,
    shy_until: Duration,
}

impl Slice {
    /// One that holds nothing. A frugal one never takes spare.
    pub(super) fn new(purse: Purse, own: NodeId, id: CallId, frugal: bool, now: Duration) -> Slice {
        Slice {
            purse,
            own,
            id,
            stage: Stage::Open,
            held: Held::default(),
            sent: None,
            seq: 0,
            spent: Amounts::NONE,
            drawn: 0,
            promised: Amounts::NONE,
            under_way: 0,
            demand: Demand::default(),
            recalled: false,
            must_answer: false,
            marked: None,
            used_at: now,
            unsettled_since: None,
            shy_until: if frugal { Duration::MAX } else { Duration::ZERO },
        }
    }

    /// Whether requests get anything from it at all.
    pub(super) fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }

    /// Whether the ledger ever answered it.
    pub(super) fn was_opened(&self) -> bool {
        self.held.until > Duration::ZERO
    }

    /// Everything that may have been used since it was opened.
    pub(super) fn spent_at_most(&self) -> Amounts {
        self.spent.plus(self.promised)
    }

    fn free(&self) -> Amounts {
        self.held.amounts.less(self.spent.less(self.held.spent)).less(self.promised)
    }

    fn free_requests(&self) -> u64 {
        self.held.requests.saturating_sub(self.drawn - self.held.drawn)
    }

    fn has_free(&self) -> bool {
        let slots = self.held.slots > self.under_way;
        self.seq > 0 && (slots || self.free_requests() > 0 || !self.free().is_none())
    }

    /// Gives a request what it asks for at the most, if that is there.
    pub(super) fn draw(&mut self, wanted: &Wanted, now: Duration) -> Option<Promise> {
        let price = self.held.price;
        let amounts = wanted.most(price);
        let there = self.is_open()
            && self.sent.is_none()
            && now < self.held.until
            && self.has_room(amounts)
            && self.marked.is_none_or(|marked| self.spent_at_most().plus(amounts).less(marked).is_none());
        there.then(|| self.promise(wanted, Promise { amounts, tokens: wanted.max_tokens, price }, now))
    }

    fn has_room(&self, amounts: Amounts) -> bool {
        let fits = amounts.less(self.free()).is_none();
        fits && self.free_requests() > 0 && self.held.slots > self.under_way
    }

    fn promise(&mut self, wanted: &Wanted, promise: Promise, now: Duration) -> Promise {
        self.promised = self.promised.plus(promise.amounts);
        self.under_way += 1;
        self.drawn += 1;
        self.used_at = now;
        self.demand.peak = self.demand.peak.max(self.under_way);
        self.demand.each = larger(&self.demand.each, wanted);
        promise
    }

    /// A request is over.
    pub(super) fn end(&mut self, promise: &Promise, used: Amounts, now: Duration) {
        self.promised = self.promised.less(promise.amounts);
        self.spent = self.spent.plus(used);
        self.under_way -= 1;
        self.unsettled_since.get_or_insert(now);
        self.used_at = now;
    }

    /// What it holds and need not is wanted elsewhere.
    pub(super) fn recall(&mut self, answer: bool, now: Duration) {
        self.recalled = true;
        self.must_answer |= answer;
        self.shy_until = self.shy_until.max(now + SHY);
    }

    /// What is to be done now. The first that waits was `recalled` for before; a node that is `stopping` keeps nothing idle.
    pub(super) fn next(&mut self, waiting: &[Wanted], recalled: bool, stopping: bool, now: Duration) -> Next {
        if self.seq == 0 && waiting.is_empty() && now >= self.used_at + IDLE {
            self.stage = Stage::Over;
        }
        if self.stage == Stage::Over {
            return Next::Over;
        }
        if self.is_open() && self.seq > 0 && now >= self.held.until {
            self.retire();
        }
        if let Some(mark) = self.mark_due(waiting.first()) {
            return Next::Record(mark);
        }
        if self.is_open() && !waiting.is_empty() {
            let spare = self.spare(waiting, now);
            return self.turn(waiting.first().copied(), recalled, spare);
        }
        if self.must_answer && self.seq > 0 || self.recalled && self.has_free() {
            return self.turn(None, false, None);
        }
        let idle = self.under_way == 0;
        if idle && self.seq > 0 && (stopping || !self.is_open() || now >= self.used_at + IDLE) {
            return self.turn(None, false, None);
        }
        let settle_at = self.unsettled_since.map(|since| since + SETTLED_AFTER);
        if settle_at.is_some_and(|at| now >= at) {
            let spare = if self.is_open() { self.spare(&[], now) } else { None };
            return self.turn(None, false, spare);
        }
        let times = [
            idle.then_some(self.used_at + IDLE),
            settle_at,
            (self.is_open() && self.seq > 0).then_some(self.held.until),
        ];
        Next::Wait(times.into_iter().flatten().min())
    }

    /// From now on it shrinks only, and at once.
    fn retire(&mut self) {
        (self.stage, self.recalled) = (Stage::Retired, true);
    }

    /// A mark ahead of what is used, in steps of half of what is free. Where nothing is spare none is needed: what is
    /// promised counts in full should it be lost.
    fn mark_due(&self, first: Option<&Wanted>) -> Option<Amounts> {
        let need = first.map_or(Amounts::NONE, |wanted| wanted.most(self.held.price));
        let ahead = self.spent_at_most().plus(need);
        let due = match self.marked {
            _ if !self.is_open() => false,
            None => self.free_requests() > 0,
            Some(marked) => !ahead.less(marked).is_none(),
        };
        due.then(|| ahead.plus(self.free().half()))
    }

    /// The mark is being written: the first one holds from now on.
    pub(super) fn marking(&mut self, mark: Amounts) {
        self.marked.get_or_insert(mark);
    }

    /// The mark is durable, or will never be: then there will be no spare any more.
    pub(super) fn marked(&mut self, mark: Amounts, durable: bool) {
        if durable {
            self.marked = Some(mark);
        } else {
            self.retire();
        }
    }

    fn spare(&mut self, waiting: &[Wanted], now: Duration) -> Option<Spare> {
        let most = waiting.iter().fold(self.demand.each, |most, wanted| larger(&most, wanted));
        let (others, drawn) = (waiting.len().saturating_sub(1) as u64, self.drawn - self.held.drawn);
        let doubled = if waiting.is_empty() { self.demand.spare } else { 2 * self.demand.spare.max(1) };
        let requests = doubled.min(2 * drawn).max(others).min(limits::SLICE_REQUESTS);
        let own = self.under_way + u64::from(!waiting.is_empty());
        let slots = self.demand.peak.max(own + others).saturating_sub(own).min(limits::SLICE_SLOTS);
        self.demand = Demand { spare: requests, peak: self.under_way, ..Demand::default() };
        (now >= self.shy_until && requests + slots > 0).then_some(Spare { each: most, requests, slots })
    }

    fn turn(&mut self, want: Option<Wanted>, recalled: bool, spare: Option<Spare>) -> Next {
        self.seq += 1;
        (self.recalled, self.must_answer, self.unsettled_since) = (false, false, None);
        let turn = Box::new(SliceTurn {
            project: self.purse.project.clone(),
            slice: self.id,
            model: self.purse.model.clone(),
            author: self.purse.author.clone(),
            node: self.own,
            needs: self.purse.destination.iter().map(|to| (Holding::Connections(to.clone()), 1)).collect(),
            seq: self.seq,
            spent: self.spent,
            drawn: self.drawn,
            keep: self.promised,
            keep_slots: self.under_way,
            want,
            recalled,
            spare,
            lives_ms: u64::try_from(super::LIVES.as_millis()).unwrap_or(u64::MAX),
        });
        self.sent = Some(turn.clone());
        Next::Turn(turn)
    }

    /// The ledger's answer to its turn: what the request that waited gets.
    pub(super) fn answered(&mut self, answer: &SliceAnswer, now: Duration) -> Option<Promise> {
        let turn = self.sent.take()?;
        let (price, tokens) = (answer.price, answer.granted);
        let own = turn.want.filter(|_| tokens > 0).map(|want| (want, want.of(price, tokens)));
        let spare = turn.spare.filter(|_| answer.spare).unwrap_or_default();
        if turn.spare.is_some() && !answer.spare {
            // Twice this is half of what was too much.
            self.demand.spare /= 4;
        }
        let (own_amounts, one) = own.map_or((Amounts::NONE, 0), |(_, amounts)| (amounts, 1));
        self.held = Held {
            amounts: turn.keep.plus(own_amounts).plus(spare.each.most(price).times(spare.requests)),
            requests: one + spare.requests,
            slots: turn.keep_slots + one + spare.slots,
            spent: turn.spent,
            drawn: turn.drawn,
            price,
            until: now + Duration::from_millis(answer.closes_in_ms),
        };
        if self.held.slots == 0 {
            self.stage = Stage::Over;
        } else if answer.retired {
            self.stage = Stage::Retired;
        }
        own.map(|(want, amounts)| self.promise(&want, Promise { amounts, tokens, price }, now))
    }

    /// The ledger does not know it any more: it counts as used up there.
    pub(super) fn lose(&mut self) {
        self.sent = None;
        self.stage = Stage::Over;
    }
}

fn larger(one: &Wanted, other: &Wanted) -> Wanted {
    let mut want = one.want;
    want.fresh_tokens = want.fresh_tokens.max(other.want.fresh_tokens);
    want.known_tokens = want.known_tokens.max(other.want.known_tokens);
    want.extra = want.extra.most(other.want.extra);
    Wanted {
        min_tokens: one.min_tokens.max(other.min_tokens),
        max_tokens: one.max_tokens.max(other.max_tokens),
        want,
    }
}
