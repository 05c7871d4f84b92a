//! Model calls that belong to no task: a project's requests, as OpenAI's API makes them. Nothing of them is journalled.
//! What one may use is set aside before it begins, with a running slot, and settled when it ends.
//!
//! Whoever makes a call names it, so that asking again has no second effect; an ended one is remembered until its time
//! is over. A call that nobody ends, because its node died, ends with its time, or with its node: everything it had set
//! aside counts as used, since nobody knows what was said.

use crate::change::{Change, check_name, check_text, invalid, not_found};
use crate::keys::{Amounts, Budget, Holding};
use crate::quota::{Call, ancestors, needs};
use crate::reply::{Refusal, Reply};
use crate::rows::{Price, SliceRow, TaskRow, Want};
use crate::slices::{self, recall_for};
use crate::state::State;
use crate::steps::{TOKENS_PER_CALL, check_tokens};
use crate::table::Table;
use minicbor::{Decode, Decoder, Encode};
use std::collections::BTreeSet;
use types::{NodeId, ProjectName, limits};

/// A lifetime that a leader's change can't use up, and one after which a dead node's calls may well be over.
const LIVES_MS: std::ops::RangeInclusive<u64> = 5_000..=300_000;
/// How long an ended call is remembered: nothing that was sent before its end can be on the way any more.
pub(crate) const REMEMBERED_MS: u64 = 2 * limits::FORWARD_MS;

type Outcome = Result<Reply, Refusal>;

/// Random; whoever makes a call chooses it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct CallId(
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub [u8; 16],
);

/// A model call without a task.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CallRow {
    #[n(0)]
    pub project: ProjectName,
    #[n(1)]
    pub call: CallId,
    #[n(2)]
    pub model: String,
    /// Who asked; a subject, never a secret.
    #[n(3)]
    pub author: String,
    /// Where it runs.
    #[n(4)]
    pub node: NodeId,
    /// What is set aside.
    #[n(5)]
    pub reserved: Amounts,
    /// The price it settles at.
    #[n(6)]
    pub price: Option<Price>,
    /// Unix milliseconds: it settles in the windows of that time.
    #[n(7)]
    pub made_ms: u64,
    /// On the ledger's clock: when it ends by itself, or is forgotten.
    #[n(8)]
    pub until_ms: u64,
    #[n(9)]
    pub ended: bool,
    /// What it holds beside a running slot, such as a connection to a provider.
    #[n(10)]
    pub needs: Vec<(Holding, u64)>,
    /// It stands for many requests.
    #[n(11)]
    pub slice: Option<Box<SliceRow>>,
}

pub(crate) type Key = (ProjectName, CallId);

impl CallRow {
    pub(crate) fn key(&self) -> Key {
        (self.project.clone(), self.call)
    }

    /// One that nobody knows but by its end.
    pub(crate) fn over(project: &ProjectName, call: CallId, until_ms: u64) -> CallRow {
        CallRow {
            project: project.clone(),
            call,
            model: String::new(),
            author: String::new(),
            node: NodeId::default(),
            reserved: Amounts::NONE,
            price: None,
            made_ms: 0,
            until_ms,
            ended: true,
            needs: vec![],
            slice: None,
        }
    }

    /// Running slots that it holds.
    pub(crate) fn slots(&self) -> u64 {
        self.slice.as_deref().map_or(u64::from(!self.ended), |slice| slice.slots)
    }

    /// It stands for many requests, and its node may still draw from it.
    fn is_open_slice(&self) -> bool {
        !self.ended && self.slice.is_some()
    }

    pub(crate) fn is_at(&self, path: &str) -> bool {
        ancestors(&self.project).iter().any(|place| place == path)
    }

    /// Lost, and not refunded yet.
    pub(crate) fn is_lost(&self) -> bool {
        self.slice.as_deref().is_some_and(|slice| slice.lost.is_some())
    }

    /// The same as a task of no agent: it stands in the same places of the quota tree and holds a running slot.
    pub(crate) fn as_task(&self) -> TaskRow {
        as_task(&self.project, &self.model, &self.needs)
    }
}

pub(crate) fn as_task(project: &ProjectName, model: &str, needs: &[(Holding, u64)]) -> TaskRow {
    let mut row = TaskRow { project: project.clone(), model: model.into(), ..TaskRow::empty() };
    if !needs.is_empty() {
        row.needs = Some(needs.to_vec());
    }
    row
}

/// The rows, and when they end.
#[derive(Clone, Debug)]
pub(crate) struct Calls {
    table: Table<Key, CallRow>,
    by_time: BTreeSet<(u64, Key)>,
    /// Slices that may be refunded, by when that is over.
    lost: BTreeSet<(u64, Key)>,
    /// Slices that are not over: few, and asked for at every plan.
    slices: BTreeSet<Key>,
}

impl Calls {
    pub(crate) fn new() -> Self {
        let (by_time, lost, slices) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        Calls { table: Table::new("calls"), by_time, lost, slices }
    }

    pub(crate) fn table(&self) -> &Table<Key, CallRow> {
        &self.table
    }

    pub(crate) fn read(&mut self, from: &mut Decoder<'_>) -> Result<(), minicbor::decode::Error> {
        self.table.read(from)?;
        self.by_time = self.times(|_| true);
        self.lost = self.times(CallRow::is_lost);
        self.slices = self.open_slices();
        Ok(())
    }

    pub(crate) fn is_full(&self) -> bool {
        self.table.len() as u64 >= limits::CALLS
    }

    fn times(&self, which: impl Fn(&CallRow) -> bool) -> BTreeSet<(u64, Key)> {
        self.table.values().filter(|row| which(row)).map(|row| (row.until_ms, row.key())).collect()
    }

    fn open_slices(&self) -> BTreeSet<Key> {
        self.table.values().filter(|row| row.is_open_slice()).map(CallRow::key).collect()
    }

    pub(crate) fn slices(&self) -> impl Iterator<Item = &CallRow> {
        self.slices.iter().filter_map(|key| self.table.get(key))
    }

    pub(crate) fn put(&mut self, row: CallRow) {
        self.forget(&row.key());
        self.by_time.insert((row.until_ms, row.key()));
        if row.is_lost() {
            self.lost.insert((row.until_ms, row.key()));
        }
        if row.is_open_slice() {
            self.slices.insert(row.key());
        }
        self.table.insert(row.key(), row);
    }

    /// Makes room for one more slice that is lost.
    pub(crate) fn forget_oldest_lost(&mut self) {
        if self.lost.len() >= limits::LOST_SLICES
            && let Some((_, key)) = self.lost.pop_first()
        {
            self.forget(&key);
        }
    }

    fn forget(&mut self, key: &Key) {
        if let Some(row) = self.table.remove(key) {
            self.by_time.remove(&(row.until_ms, row.key()));
            self.lost.remove(&(row.until_ms, row.key()));
            self.slices.remove(key);
        }
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        if self.by_time != self.times(|_| true) || self.lost != self.times(CallRow::is_lost) {
            return Err("the times of calls differ from their rows".into());
        }
        match self.slices == self.open_slices() {
            true => Ok(()),
            false => Err("the open slices differ from the rows of calls".into()),
        }
    }
}

impl State {
    /// Model calls without a task that are under way, by project.
    pub fn calls(&self) -> impl Iterator<Item = &CallRow> {
        self.calls.table.values().filter(|row| !row.ended)
    }

    /// Those that a node makes.
    pub fn calls_of(&self, node: NodeId) -> impl Iterator<Item = &CallRow> {
        self.calls().filter(move |row| row.node == node)
    }

    pub(crate) fn calls_at<'a>(&'a self, path: &'a str) -> impl Iterator<Item = &'a CallRow> {
        self.calls().filter(move |row| row.is_at(path))
    }

    /// Nodes that make calls at a place, by name.
    pub(crate) fn callers_at(&self, path: &str) -> Vec<String> {
        let nodes: BTreeSet<NodeId> = self.calls_at(path).map(|row| row.node).collect();
        nodes.into_iter().filter_map(|node| Some(self.node(node)?.name.clone())).collect()
    }

    /// How much of a holding they hold at a place.
    pub(crate) fn held_by_calls(&self, path: &str, holding: &Holding) -> u64 {
        let of_it = |row: &CallRow| {
            let task = row.as_task();
            let each: u64 = needs(&task).filter(|(held, _)| *held == holding).map(|(_, amount)| amount).sum();
            each.saturating_mul(row.slots())
        };
        self.calls_at(path).map(of_it).sum()
    }

    /// Calls whose time is over.
    pub(crate) fn calls_over(&self, ledger_ms: u64, most: usize) -> Vec<Key> {
        let over = self.calls.by_time.iter().take_while(|(until_ms, _)| *until_ms <= ledger_ms);
        over.take(most).map(|(_, key)| key.clone()).collect()
    }
}

pub(crate) struct NewCall<'a> {
    pub call: CallId,
    pub project: &'a ProjectName,
    pub model: &'a str,
    pub author: &'a str,
    pub node: NodeId,
    pub min_tokens: u64,
    pub max_tokens: u64,
    pub want: Want,
    pub lives_ms: u64,
    pub needs: &'a [(Holding, u64)],
}

/// Takes a running slot and sets the call's cost aside at every place above the project, or does neither.
pub(crate) fn begin(change: &mut Change<'_>, new: &NewCall<'_>) -> Outcome {
    check(change, new)?;
    let key = (new.project.clone(), new.call);
    if let Some(row) = change.state.calls.table.get(&key) {
        return match row.ended || row.slice.is_some() {
            true => Err(invalid("call", "has ended; begin another one")),
            false => Ok(Reply::Reserved(row.reserved.tokens)),
        };
    }
    let task = as_task(new.project, new.model, new.needs);
    change.state.check_slot(&task).inspect_err(|short| recall_for(change, short))?;
    let price = change.state.price(new.model);
    let (min_tokens, max_tokens, want) = (new.min_tokens, new.max_tokens, new.want);
    let call = Call { min_tokens, max_tokens, want, price };
    let granted = change.state.grant(&task, &call).map_err(|short| short.refusal(new.model));
    let granted = granted.inspect_err(|short| recall_for(change, short))?;
    change.state.take_slot(&task);
    let reserved = change.lay_by(&task, &call, granted);
    change.state.calls.put(CallRow {
        project: new.project.clone(),
        call: new.call,
        model: new.model.to_string(),
        author: new.author.to_string(),
        node: new.node,
        reserved,
        price,
        made_ms: change.state.wall_ms(),
        until_ms: change.state.ledger_ms().saturating_add(new.lives_ms),
        ended: false,
        needs: new.needs.to_vec(),
        slice: None,
    });
    Ok(Reply::Reserved(granted))
}

fn check(change: &Change<'_>, new: &NewCall<'_>) -> Result<(), Refusal> {
    check_name("model", new.model)?;
    check_text("author", new.author)?;
    check_life(new.lives_ms)?;
    crate::agents::check_needs(new.needs)?;
    if change.state.node(new.node).is_none() {
        return Err(not_found("node", &new.node.to_string()));
    }
    check_tokens(new.min_tokens, new.max_tokens, &new.want)?;
    let known = change.state.calls.table.contains(&(new.project.clone(), new.call));
    if !known && change.state.calls.is_full() {
        let (path, resource) = (crate::quota::CLUSTER.to_string(), "calls".to_string());
        return Err(Refusal::OverQuota { path, resource, requested: 1, available: 0, limit: limits::CALLS });
    }
    Ok(())
}

pub(crate) fn check_life(lives_ms: u64) -> Result<(), Refusal> {
    if LIVES_MS.contains(&lives_ms) {
        return Ok(());
    }
    let (least, most) = (LIVES_MS.start(), LIVES_MS.end());
    Err(invalid("lives_ms", format!("is {lives_ms}; calls live {least} to {most} ms and are renewed")))
}

/// The node still makes these calls. Those that are over stay so.
pub(crate) fn renew(change: &mut Change<'_>, node: NodeId, calls: &[Key], lives_ms: u64) -> Outcome {
    check_life(lives_ms)?;
    if calls.len() > limits::CALLS_AT_ONCE {
        return Err(invalid("calls", format!("{} at once, at most {}", calls.len(), limits::CALLS_AT_ONCE)));
    }
    let until_ms = change.state.ledger_ms().saturating_add(lives_ms);
    for key in calls {
        let row = change.state.calls.table.get(key).filter(|row| row.node == node && !row.ended).cloned();
        if let Some(row) = row {
            change.state.calls.put(CallRow { until_ms: row.until_ms.max(until_ms), ..row });
        }
    }
    Ok(Reply::Done)
}

/// What a call used.
#[derive(Clone, Copy)]
pub struct Used {
    pub fresh_tokens: u64,
    pub known_tokens: u64,
    pub generated_tokens: u64,
    pub extra: Amounts,
}

impl Used {
    fn check(&self) -> Result<(), Refusal> {
        let of_extra = Budget::ALL.map(|budget| self.extra.of(budget));
        let own = [self.fresh_tokens, self.known_tokens, self.generated_tokens];
        let largest = own.into_iter().chain(of_extra).max().unwrap_or(0);
        match largest <= TOKENS_PER_CALL {
            true => Ok(()),
            false => Err(invalid("amounts", format!("{largest} is more than any call can use (2^40)"))),
        }
    }

    /// With what it costs.
    pub fn amounts(&self, price: Option<Price>) -> Amounts {
        let (fresh, known, generated) = (self.fresh_tokens, self.known_tokens, self.generated_tokens);
        let own = Amounts { tokens: fresh + generated, cached_tokens: known, ..Amounts::NONE };
        own.plus(self.extra).priced(price, fresh, known, generated)
    }
}

/// Settles a call. One that is over already was settled then; one that is not there may begin no more: whoever ends it
/// did not hear whether it began.
pub(crate) fn end(change: &mut Change<'_>, project: &ProjectName, call: CallId, used: Used) -> Outcome {
    used.check()?;
    match change.state.calls.table.get(&(project.clone(), call)).cloned() {
        Some(row) if row.ended => {}
        Some(row) if row.slice.is_some() => {
            return Err(invalid("call", "is a slice; it ends by its last turn"));
        }
        Some(row) => {
            let amounts = used.amounts(row.price);
            settle(change, row, amounts);
        }
        None if change.state.calls.is_full() => {}
        None => {
            let until_ms = change.state.ledger_ms().saturating_add(REMEMBERED_MS);
            change.state.calls.put(CallRow::over(project, call, until_ms));
        }
    }
    Ok(Reply::Done)
}

fn settle(change: &mut Change<'_>, row: CallRow, used: Amounts) {
    let task = row.as_task();
    change.state.free_slot(&task);
    change.settle_at(&task, row.reserved, used, row.made_ms);
    let until_ms = change.state.ledger_ms().saturating_add(REMEMBERED_MS);
    change.state.calls.put(CallRow { reserved: Amounts::NONE, until_ms, ended: true, ..row });
    change.replan();
}

/// Everything that was set aside counts as used.
fn lose(change: &mut Change<'_>, row: CallRow) {
    if row.slice.is_some() {
        return slices::lose(change, row);
    }
    let used = row.reserved;
    settle(change, row, used);
}

/// The node is gone.
pub(crate) fn lose_all_of(change: &mut Change<'_>, node: NodeId) {
    let rows: Vec<CallRow> = change.state.calls_of(node).cloned().collect();
    rows.into_iter().for_each(|row| lose(change, row));
}

/// Ends the calls whose time is over, and forgets those that ended before.
pub(crate) fn let_time_pass(change: &mut Change<'_>, ledger_ms: u64, most: usize) {
    for key in change.state.calls_over(ledger_ms, most) {
        match change.state.calls.table.get(&key).cloned() {
            Some(row) if !row.ended => lose(change, row),
            _ => change.state.calls.forget(&key),
        }
    }
}
