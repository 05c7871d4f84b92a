//! Slices: calls that stand for many requests of one node. What a slice holds is set aside above its project as it is
//! for one call, and its node gives it to requests without asking for each. In one entry a turn settles what was used,
//! gives back what is not needed and takes more.
//!
//! A slice belongs to one hour and one price: while requests of an earlier ones are under way it shrinks only, and its
//! node opens another one. Spare is granted where as much again is left for others, and not to who was just asked to
//! give it back. A slice that is lost counts as used up in its budgets, while rates and holdings return; its node may say
//! once, by its id, what was not used.

use crate::calls::{CallId, CallRow, Key, REMEMBERED_MS, as_task, check_life};
use crate::change::{Change, check_name, check_text, invalid, not_found};
use crate::command::{SliceTurn, Spare, Wanted};
use crate::effect::Effect;
use crate::keys::{Amounts, Budget, Window};
use crate::quota::{CLUSTER, Call, Claims, Fence, Purse, Room, bounds};
use crate::reply::{Refusal, Reply, SliceAnswer};
use crate::rows::{Price, TaskRow};
use crate::state::State;
use crate::steps::check_tokens;
use minicbor::{Decode, Encode};
use std::collections::{BTreeMap, BTreeSet};
use types::{NodeId, ProjectName, limits};

/// More than the requests of a slice can use together; keeps sums far from overflow.
const SPENT_MOST: u64 = 1 << 60;
/// Of the tasks that wait, so many are looked at for slices in their way.
const LOOKED_AT: usize = 64;

type Outcome = Result<Reply, Refusal>;

/// What a call that stands for many requests has beside what is set aside for it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SliceRow {
    /// Of its last turn.
    #[n(0)]
    pub seq: u64,
    /// Running slots, each with what a request holds beside it.
    #[n(1)]
    pub slots: u64,
    /// Requests taken from the rates above and, at its last turn, not made yet.
    #[n(2)]
    pub requests: u64,
    /// Requests since it was opened.
    #[n(3)]
    pub drawn: u64,
    /// What was settled since it was opened.
    #[n(4)]
    pub spent: Amounts,
    /// What its last turn was answered.
    #[n(5)]
    pub answer: Reply,
    /// Somebody waits for its next turn, which brings it no spare.
    #[n(6)]
    pub asked: bool,
    /// It is lost: what was settled without knowing whether it was used.
    #[n(7)]
    pub lost: Option<Amounts>,
}

impl Wanted {
    fn call(&self, price: Option<Price>) -> Call {
        Call { min_tokens: self.min_tokens, max_tokens: self.max_tokens, want: self.want, price }
    }

    /// The most that such a request is promised.
    pub fn most(&self, price: Option<Price>) -> Amounts {
        self.of(price, self.max_tokens)
    }

    /// What it is promised with so many tokens.
    pub fn of(&self, price: Option<Price>, tokens: u64) -> Amounts {
        self.call(price).cost(tokens)
    }

    fn check(&self) -> Result<(), Refusal> {
        if self.min_tokens == 0 {
            return Err(invalid("min_tokens", "is 0; a request that uses none needs no slice"));
        }
        check_tokens(self.min_tokens, self.max_tokens, &self.want)
    }
}

impl State {
    /// Slices that are not over.
    pub fn slices(&self) -> impl Iterator<Item = &CallRow> {
        self.calls.slices()
    }

    fn slices_at<'a>(&'a self, path: &'a str) -> impl Iterator<Item = &'a CallRow> {
        self.slices().filter(move |row| row.is_at(path))
    }

    /// Nodes whose slices are in the way of tasks that wait, or of somebody who waits until they say that they are not:
    /// then it says true.
    pub fn recalls(&self) -> BTreeMap<NodeId, bool> {
        let mut recalls = BTreeMap::new();
        if self.slices().next().is_none() {
            return recalls;
        }
        for path in self.short_places() {
            recalls.extend(self.slices_at(&path).map(|row| (row.node, false)));
        }
        let asked = self.slices().filter(|row| row.slice.as_deref().is_some_and(|slice| slice.asked));
        recalls.extend(asked.map(|row| (row.node, true)));
        recalls
    }

    /// Where something is missing for tasks that would go on with it.
    fn short_places(&self) -> BTreeSet<String> {
        let index = self.tasks.index();
        let rows = |keys: Vec<&crate::queue::QueueKey>| -> Vec<&TaskRow> {
            keys.into_iter().filter_map(|key| self.task(key.uid)).collect()
        };
        let purse = Purse::new(self, self.clock());
        let starved = rows(index.starved.iter().take(LOOKED_AT).collect());
        let rooms = starved.into_iter().flat_map(|row| purse.rooms(row));
        let short = rooms.filter(Room::is_short).map(|room| room.path);
        let claims = Claims::new(self);
        let waiting = rows(index.queue.values().filter_map(BTreeSet::first).take(LOOKED_AT).collect());
        let fences = waiting.into_iter().flat_map(|row| claims.fences(row));
        short.chain(fences.filter(|fence: &Fence| fence.short() > 0).map(|fence| fence.path)).collect()
    }
}

/// What slices hold at a place and need not is wanted there.
pub(crate) fn recall_at(change: &mut Change<'_>, path: &str) {
    recall(change, |state| state.slices_at(path).map(|row| row.node).collect());
}

/// The same where something was refused.
pub(crate) fn recall_for(change: &mut Change<'_>, short: &Refusal) {
    if let Refusal::OverQuota { path, .. } = short {
        recall_at(change, path);
    }
}

/// What slices of a model hold has another price now.
pub(crate) fn recall_model(change: &mut Change<'_>, model: &str) {
    recall(change, |state| state.slices().filter(|row| row.model == model).map(|row| row.node).collect());
}

fn recall(change: &mut Change<'_>, whom: impl FnOnce(&State) -> BTreeSet<NodeId>) {
    for node in whom(change.state) {
        change.effect(Effect::Recall { node, answer: false });
    }
}

/// Settles, gives back, takes: all that a turn asks for, or what of it can be done.
pub(crate) fn turn(change: &mut Change<'_>, turn: &SliceTurn) -> Outcome {
    check(turn)?;
    let key = (turn.project.clone(), turn.slice);
    let known = change.state.calls.table().get(&key).cloned();
    let (row, mut slice) = match known {
        None => opened(change, turn)?,
        Some(mut row) => {
            let slice = row.slice.take().filter(|_| row.node == turn.node);
            let slice =
                slice.ok_or_else(|| invalid("slice", "the id is taken; choose another one at random"))?;
            if turn.seq == slice.seq {
                return Ok(slice.answer);
            }
            check_next(&row, &slice, turn)?;
            (row, slice)
        }
    };
    let mut at_work = AtWork { task: row.as_task(), row, slice: &mut slice };
    at_work.give_back(change, turn);
    let answer = at_work.grow(change, turn);
    let row = at_work.row;
    (slice.seq, slice.answer) = (turn.seq, Reply::Slice(Box::new(answer)));
    let answer = slice.answer.clone();
    let ended = slice.slots == 0;
    let stays_ms = if ended { REMEMBERED_MS } else { turn.lives_ms };
    let until_ms = change.state.ledger_ms().saturating_add(stays_ms);
    change.state.calls.put(CallRow { ended, until_ms, slice: Some(slice), ..row });
    change.replan();
    Ok(answer)
}

fn check(turn: &SliceTurn) -> Result<(), Refusal> {
    check_name("model", &turn.model)?;
    check_text("author", &turn.author)?;
    check_life(turn.lives_ms)?;
    crate::agents::check_needs(&turn.needs)?;
    let largest = Budget::ALL.into_iter().map(|budget| turn.spent.of(budget)).fold(turn.drawn, u64::max);
    if largest > SPENT_MOST {
        return Err(invalid("spent", format!("{largest} is more than any slice can use (2^60)")));
    }
    turn.want.as_ref().map_or(Ok(()), Wanted::check)?;
    let Some(spare) = &turn.spare else { return Ok(()) };
    spare.each.check()?;
    let (requests, slots) = (limits::SLICE_REQUESTS, limits::SLICE_SLOTS);
    match spare.requests <= requests && spare.slots <= slots {
        true => Ok(()),
        false => {
            Err(invalid("spare", format!("at most {requests} requests, {slots} of them at the same time")))
        }
    }
}

fn check_next(row: &CallRow, slice: &SliceRow, turn: &SliceTurn) -> Result<(), Refusal> {
    if row.ended {
        return Err(no_slice(turn.slice));
    }
    if turn.seq != slice.seq + 1 {
        return Err(invalid("seq", format!("is {}, next is {}", turn.seq, slice.seq + 1)));
    }
    match row.model == turn.model && row.needs == turn.needs {
        true => Ok(()),
        false => Err(invalid("slice", "has another model or other needs; open one for these")),
    }
}

fn no_slice(id: CallId) -> Refusal {
    let name: String = id.0.iter().map(|byte| format!("{byte:02x}")).collect();
    not_found("slice", &name)
}

/// A slice that holds nothing yet.
fn opened(change: &Change<'_>, turn: &SliceTurn) -> Result<(CallRow, Box<SliceRow>), Refusal> {
    if turn.seq != 1 {
        return Err(no_slice(turn.slice));
    }
    if change.state.node(turn.node).is_none() {
        return Err(not_found("node", &turn.node.to_string()));
    }
    if change.state.calls.is_full() {
        let (path, resource) = (CLUSTER.to_string(), "calls".to_string());
        return Err(Refusal::OverQuota { path, resource, requested: 1, available: 0, limit: limits::CALLS });
    }
    let row = CallRow {
        model: turn.model.clone(),
        author: turn.author.clone(),
        node: turn.node,
        needs: turn.needs.clone(),
        ended: false,
        ..CallRow::over(&turn.project, turn.slice, 0)
    };
    let (spent, answer) = (Amounts::NONE, Reply::Done);
    let slice = SliceRow { seq: 0, slots: 0, requests: 0, drawn: 0, spent, answer, asked: false, lost: None };
    Ok((row, Box::new(slice)))
}

/// A slice in the middle of its turn.
struct AtWork<'a> {
    row: CallRow,
    slice: &'a mut SliceRow,
    task: TaskRow,
}

impl AtWork<'_> {
    /// Settles what was used. What is not promised goes back, where it is wanted again it is taken again.
    fn give_back(&mut self, change: &mut Change<'_>, turn: &SliceTurn) {
        let slots = turn.keep_slots.min(self.slice.slots);
        let keep = if slots == 0 { Amounts::NONE } else { turn.keep.least(self.row.reserved) };
        let (part, used) = (self.row.reserved.less(keep), turn.spent.less(self.slice.spent));
        if !part.is_none() || !used.is_none() {
            change.settle_at(&self.task, part, used, self.row.made_ms);
        }
        let made = turn.drawn.saturating_sub(self.slice.drawn);
        let unmade = self.slice.requests.saturating_sub(made);
        if unmade > 0 {
            change.pour_back(&self.task, 0, unmade);
        }
        if self.slice.slots > slots {
            change.state.free_slots(&self.task, self.slice.slots - slots);
        }
        self.row.reserved = keep;
        (self.slice.slots, self.slice.requests) = (slots, 0);
        (self.slice.spent, self.slice.drawn) =
            (self.slice.spent.plus(used), self.slice.drawn.saturating_add(made));
    }

    fn grow(&mut self, change: &mut Change<'_>, turn: &SliceTurn) -> SliceAnswer {
        let wall_ms = change.state.wall_ms();
        let (opens_ms, closes_ms) = bounds(Window::Hour, wall_ms);
        let price = change.state.price(&self.row.model);
        let closes_in_ms = closes_ms.saturating_sub(wall_ms);
        let asked = std::mem::take(&mut self.slice.asked);
        if self.slice.slots == 0 {
            (self.row.price, self.row.made_ms) = (price, wall_ms);
        }
        let retired = self.row.price != price || self.row.made_ms < opens_ms;
        let mut answer =
            SliceAnswer { price: self.row.price, closes_in_ms, retired, ..SliceAnswer::default() };
        if retired {
            return answer;
        }
        let spare = turn.spare.filter(|_| !asked).unwrap_or_default();
        answer.spare = spare.requests + spare.slots > 0 && self.take_all(change, turn.want.as_ref(), &spare);
        match &turn.want {
            Some(want) if answer.spare => answer.granted = want.max_tokens,
            Some(want) => match self.take_one(change, want) {
                Ok(granted) => answer.granted = granted,
                Err(short) => {
                    answer.recalled = self.ask_others(change, &short, turn.recalled);
                    answer.short = Some(short);
                }
            },
            None => {}
        }
        answer
    }

    /// The most that the request wants and all of the spare, or nothing. As much spare again is left for others.
    fn take_all(&mut self, change: &mut Change<'_>, want: Option<&Wanted>, spare: &Spare) -> bool {
        let price = self.row.price;
        let own = want.map_or(Amounts::NONE, |want| want.most(price));
        let more = spare.each.most(price).times(spare.requests);
        let one = u64::from(want.is_some());
        let slots = one + spare.slots;
        let fits = self.slice.slots + slots > 0
            && change.state.has_room(&self.task, own.plus(more).plus(more), one + 2 * spare.requests, price)
            && change.state.has_slots(&self.task, slots + spare.slots);
        if fits {
            self.take(change, own.plus(more), one + spare.requests, slots);
        }
        fits
    }

    /// What one request gets, as a call of its own would.
    fn take_one(&mut self, change: &mut Change<'_>, want: &Wanted) -> Result<u64, Refusal> {
        change.state.check_slot(&self.task)?;
        let call = want.call(self.row.price);
        let granted =
            change.state.grant(&self.task, &call).map_err(|short| short.refusal(&self.row.model))?;
        self.take(change, call.cost(granted), 1, 1);
        Ok(granted)
    }

    fn take(&mut self, change: &mut Change<'_>, amounts: Amounts, requests: u64, slots: u64) {
        change.state.take_slots(&self.task, slots);
        change.take_amounts(&self.task, amounts, requests);
        self.row.reserved = self.row.reserved.plus(amounts);
        self.slice.slots += slots;
        self.slice.requests += requests;
    }

    /// Asks the other slices at the place where something is missing; answers whether some have still to say what they
    /// need.
    fn ask_others(&self, change: &mut Change<'_>, short: &Refusal, asked_before: bool) -> bool {
        let Refusal::OverQuota { path, .. } = short else { return false };
        let own: Key = self.row.key();
        let others: Vec<CallRow> =
            change.state.slices_at(path).filter(|row| row.key() != own).cloned().collect();
        if asked_before {
            return others.iter().filter_map(|row| row.slice.as_deref()).any(|slice| slice.asked);
        }
        let nodes: BTreeSet<NodeId> = others.iter().map(|row| row.node).collect();
        nodes.into_iter().for_each(|node| change.effect(Effect::Recall { node, answer: true }));
        let some = !others.is_empty();
        for mut row in others {
            row.slice.iter_mut().for_each(|slice| slice.asked = true);
            change.state.calls.put(row);
        }
        some
    }
}

/// Nobody will say what was used: in budgets all of it, while rates and holdings return.
pub(crate) fn lose(change: &mut Change<'_>, row: CallRow) {
    let until_ms = change.state.ledger_ms().saturating_add(limits::LOST_SLICE_MS);
    let (reserved, tokens) = (row.reserved, row.reserved.tokens);
    let row = end(change, row, reserved, until_ms);
    change.pour_back(&row.as_task(), tokens, 0);
    change.state.calls.forget_oldest_lost();
    let slice = row.slice.map(|slice| Box::new(SliceRow { lost: Some(reserved), ..*slice }));
    change.state.calls.put(CallRow { slice, ..row });
}

/// A row that is over, having used so much.
fn end(change: &mut Change<'_>, row: CallRow, used: Amounts, until_ms: u64) -> CallRow {
    let (task, slots) = (row.as_task(), row.slots());
    let requests = row.slice.as_deref().map_or(0, |slice| slice.requests);
    change.state.free_slots(&task, slots);
    change.settle_at(&task, row.reserved, used, row.made_ms);
    change.pour_back(&task, 0, requests);
    change.replan();
    let answer = Reply::Refused(no_slice(row.call));
    let over = |slice: Box<SliceRow>| {
        Box::new(SliceRow { slots: 0, requests: 0, asked: false, lost: None, answer, ..*slice })
    };
    CallRow { reserved: Amounts::NONE, ended: true, until_ms, slice: row.slice.map(over), ..row }
}

/// Gives back what a lost slice did not use. One that its node knows to be over, and the ledger not yet, ends with it.
pub(crate) fn refund(
    change: &mut Change<'_>,
    project: &ProjectName,
    id: CallId,
    node: NodeId,
    spent: Amounts,
) -> Outcome {
    let known = change.state.calls.table().get(&(project.clone(), id)).cloned();
    let row = known.ok_or_else(|| no_slice(id))?;
    let slice = row.slice.as_deref().ok_or_else(|| no_slice(id))?;
    if row.node != node {
        return Err(invalid("node", "another one held this slice, and it alone knows what was used"));
    }
    let used = spent.less(slice.spent);
    let until_ms = change.state.ledger_ms().saturating_add(REMEMBERED_MS);
    let over = match slice.lost {
        None if row.ended => return Err(no_slice(id)),
        None => {
            let used = used.least(row.reserved);
            end(change, row, used, until_ms)
        }
        Some(lost) => {
            change.unsettle_at(&as_task(project, &row.model, &row.needs), lost.less(used), row.made_ms);
            change.replan();
            let slice = row.slice.map(|slice| Box::new(SliceRow { lost: None, ..*slice }));
            CallRow { until_ms, slice, ..row }
        }
    };
    change.state.calls.put(over);
    Ok(Reply::Done)
}
