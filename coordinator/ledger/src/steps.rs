//! A lease's life: assign, reserve, commit, release. Whoever comes with a stale epoch is refused and counted.

use crate::change::{Change, check_name, check_text, invalid, not_found, stands_again};
use crate::command::{Next, Release, Route};
use crate::effect::Effect;
use crate::gang::starts_together;
use crate::keys::{Amounts, Budget};
use crate::quota::{Call, Short};
use crate::reply::{Refusal, Reply};
use crate::rows::{EventKind, Holder, Nodes, Role, Routed, StepRoute, TaskError, TaskRow, Want};
use crate::slices::recall_at;
use crate::stop::wrong_state;
use types::{Epoch, Hash, NodeId, PauseReason, Spent, TaskState, TaskUid, limits};

type Outcome = Result<Reply, Refusal>;

/// More tokens than any one call can use; keeps sums far from overflow.
pub(crate) const TOKENS_PER_CALL: u64 = 1 << 40;

/// The right that a node claims to have.
#[derive(Clone, Copy)]
pub(crate) struct Lease {
    pub task: TaskUid,
    pub epoch: Epoch,
    pub node: NodeId,
}

impl Lease {
    fn holder(self) -> Holder {
        Holder { node: self.node, epoch: self.epoch }
    }
}

/// What was refused because its epoch was stale.
#[derive(Clone, Copy)]
pub(crate) enum Stale {
    Commit,
    Reservation,
    Spawn,
}

impl Change<'_> {
    /// Passes when the lease is in force, also for a CANCELLING task. Counts on the node's row when it is not.
    pub(crate) fn check_lease(&mut self, lease: Lease, stale: Stale) -> Result<(), Refusal> {
        let row = self.find(lease.task)?;
        let current = row.epoch.filter(|_| !stands_again(row));
        if current == Some(lease.epoch) && row.node == Some(lease.node) {
            return Ok(());
        }
        self.made_aware(lease.task, lease.holder());
        self.state.nodes.update(&lease.node, |node| match stale {
            Stale::Commit => node.fenced.commits += 1,
            Stale::Reservation => node.fenced.reservations += 1,
            Stale::Spawn => node.fenced.spawns += 1,
        });
        Err(Refusal::Fenced { given: lease.epoch, current })
    }
}

/// Takes a running slot on every ancestor, and makes the lease with a new epoch.
pub(crate) fn assign(change: &mut Change<'_>, uid: TaskUid, node: NodeId) -> Outcome {
    let row = check_start(change, uid, node)?;
    if starts_together(row) {
        return Err(invalid("task", "starts together with its siblings, not alone".to_string()));
    }
    change.state.check_slot(row)?;
    Ok(Reply::Assigned(lease(change, uid, node, 0)))
}

/// Whether there is such a task that waits, and such a node that takes any.
pub(crate) fn check_start<'c>(
    change: &'c Change<'_>,
    uid: TaskUid,
    node: NodeId,
) -> Result<&'c TaskRow, Refusal> {
    let row = change.find(uid)?;
    if row.state != TaskState::Pending {
        return Err(wrong_state(row.state));
    }
    match change.state.node(node) {
        None => Err(not_found("node", &node.to_string())),
        Some(member) if !member.roles.contains(&Role::Worker) => {
            Err(invalid("node", format!("{node} is no worker")))
        }
        Some(_) => Ok(row),
    }
}

/// Makes the `nth` lease of a command. Positions of commands stay below the room of an entry, so no two leases have
/// one epoch.
pub(crate) fn lease(change: &mut Change<'_>, uid: TaskUid, node: NodeId, nth: u32) -> Epoch {
    let row = change.row(uid).clone();
    change.state.take_slot(&row);
    change.start_of(row.class);
    change.charge(uid);
    let epoch = Epoch {
        incarnation: change.state.incarnation(),
        index: change.place.index,
        position: change.place.position + nth * limits::BATCH_COMMANDS as u32,
    };
    change.update(uid, |row| grant(row, node, epoch));
    change.enter(uid, TaskState::Running, "");
    change.effect(Effect::Assigned { task: uid, node, epoch });
    epoch
}

fn grant(row: &mut TaskRow, node: NodeId, epoch: Epoch) {
    row.node = Some(node);
    row.epoch = Some(epoch);
    row.last_epoch = Some(epoch);
    row.home = lease_node_first(node, &row.keepers);
}

pub(crate) struct Wish<'a> {
    pub lease: Lease,
    pub step: u64,
    pub min_tokens: u64,
    pub max_tokens: u64,
    pub want: Want,
    /// The model that is to be called, where the agent names several.
    pub route: Option<&'a Route>,
}

/// Sets tokens aside on every ancestor or on none. Where not even the minimum is there, the task is paused durably,
/// unless another model is tried next.
pub(crate) fn reserve(change: &mut Change<'_>, wish: &Wish<'_>) -> Outcome {
    let uid = wish.lease.task;
    change.check_lease(wish.lease, Stale::Reservation)?;
    let row = change.row(uid);
    if row.state != TaskState::Running {
        return Err(wrong_state(row.state));
    }
    check_wish(row, wish)?;
    let reserved = row.reserved_tokens;
    // The same wish may come twice, and late: its first answer may be on the way, and the call begun. So what this
    // step has set aside stands as long as it suffices, whatever the budget is by now.
    if reserved >= wish.min_tokens && same_model(row, wish) {
        note_route(change, wish, true);
        return Ok(Reply::Reserved(reserved.min(wish.max_tokens)));
    }
    change.give_back_reserved(uid, Amounts::NONE);
    let row = change.row(uid);
    let model = wish.route.map_or(row.model.to_string(), |route| route.model.clone());
    let (min_tokens, max_tokens, want) = (wish.min_tokens, wish.max_tokens, wish.want);
    let call = Call { min_tokens, max_tokens, want, price: change.state.price(&model) };
    let granted = change.state.grant(row, &call);
    note_route(change, wish, granted.is_ok());
    if let Err(Short::Room(room)) = &granted {
        recall_at(change, &room.path);
    }
    match granted {
        Ok(granted) => {
            change.set_aside(uid, &call, granted);
            Ok(Reply::Reserved(granted))
        }
        Err(short) if wish.route.is_some_and(|route| route.others) => Err(short.refusal(&model)),
        Err(short) => {
            starve(change, uid, &call, &short.word());
            Err(short.refusal(&model))
        }
    }
}

/// Whether what is set aside has the price of the model that is wished for.
fn same_model(row: &TaskRow, wish: &Wish<'_>) -> bool {
    match (row.route.as_deref(), wish.route) {
        (None, None) => true,
        (Some(known), Some(wished)) => known.granted && known.model == wished.model,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

/// Writes down which model the step is for: another worker goes on with it, and a pause is about its price.
fn note_route(change: &mut Change<'_>, wish: &Wish<'_>, granted: bool) {
    let routed = wish.route.map(|route| {
        let (model, reason) = (route.model.clone(), route.reason.clone());
        Box::new(Routed {
            model,
            reason,
            epoch: wish.lease.epoch,
            step: wish.step,
            turn: route.turn,
            granted,
        })
    });
    if change.row(wish.lease.task).route != routed {
        change.update(wish.lease.task, |row| row.route = routed);
    }
}

fn check_wish(row: &TaskRow, wish: &Wish<'_>) -> Result<(), Refusal> {
    check_next_step(row, wish.step)?;
    check_tokens(wish.min_tokens, wish.max_tokens, &wish.want)?;
    wish.route.map_or(Ok(()), |route| check_route(row, wish, route))
}

fn check_route(row: &TaskRow, wish: &Wish<'_>, route: &Route) -> Result<(), Refusal> {
    check_name("model", &route.model)?;
    check_name("reason", &route.reason)?;
    let known = row.route.as_deref();
    let newer = known.filter(|known| known.epoch == wish.lease.epoch && known.step == wish.step);
    match newer.filter(|known| known.turn > route.turn) {
        // What was set aside since then is for a call that may be under way.
        Some(known) => Err(invalid("turn", format!("is {}, {} was there already", route.turn, known.turn))),
        None => Ok(()),
    }
}

/// What any model call may ask for.
pub(crate) fn check_tokens(min_tokens: u64, max_tokens: u64, want: &Want) -> Result<(), Refusal> {
    if min_tokens > max_tokens || max_tokens > TOKENS_PER_CALL {
        let why = format!("min {min_tokens} and max {max_tokens} must rise and stay below 2^40");
        return Err(invalid("tokens", why));
    }
    let Want { fresh_tokens, known_tokens, extra } = *want;
    if fresh_tokens > min_tokens {
        let why = format!("{fresh_tokens} of the prompt are more than the {min_tokens} wanted at least");
        return Err(invalid("fresh_tokens", why));
    }
    let largest = Budget::ALL.map(|budget| extra.of(budget)).into_iter().fold(known_tokens, u64::max);
    if largest > TOKENS_PER_CALL {
        return Err(invalid("amounts", format!("{largest} is more than any call can use (2^40)")));
    }
    Ok(())
}

fn check_next_step(row: &TaskRow, step: u64) -> Result<(), Refusal> {
    if step == row.step + 1 {
        Ok(())
    } else {
        Err(invalid("step", format!("is {step}, next is {}", row.step + 1)))
    }
}

fn starve(change: &mut Change<'_>, uid: TaskUid, call: &Call, why: &str) {
    change.end_lease(uid);
    change.update(uid, |row| {
        row.wanted_tokens = call.min_tokens;
        row.want = (call.want != Want::default()).then(|| Box::new(call.want));
    });
    change.enter(uid, TaskState::Paused(PauseReason::Budget), why);
}

pub(crate) struct Commit<'a> {
    pub lease: Lease,
    pub step: u64,
    pub head: Hash,
    pub home: &'a [NodeId],
    pub spent: Spent,
    pub billed_tokens: u64,
    pub next: &'a Next,
    pub extra: Amounts,
}

impl Commit<'_> {
    /// What the step used, for the budgets: the price is the one the reservation was made with.
    fn used(&self, row: &TaskRow) -> Amounts {
        let generated = self.spent.generated_tokens.min(self.billed_tokens);
        let fresh = self.billed_tokens - generated;
        let held = row.held.as_deref().copied().unwrap_or_default();
        let known = if self.billed_tokens > 0 { held.known_tokens } else { 0 };
        let tool_calls = begun(self.next);
        let own = Amounts { tokens: self.billed_tokens, cached_tokens: known, tool_calls, ..Amounts::NONE };
        own.plus(self.extra).priced(held.price, fresh, known, generated)
    }
}

/// Calls of tools that begin with a step.
fn begun(next: &Next) -> u64 {
    match next {
        Next::WaitTool { begun, .. } => begun.unwrap_or(0),
        _ => 0,
    }
}

/// The one place where a task moves forward. A record that is there already is answered as done, so a committer that
/// did not hear the answer may ask again.
pub(crate) fn commit(change: &mut Change<'_>, commit: &Commit<'_>) -> Outcome {
    let uid = commit.lease.task;
    if is_committed(change.find(uid)?, commit) {
        return Ok(Reply::Done);
    }
    change.check_lease(commit.lease, Stale::Commit)?;
    check_commit(change, commit)?;
    record(change, commit);
    follow(change, commit);
    Ok(Reply::Done)
}

fn is_committed(row: &TaskRow, commit: &Commit<'_>) -> bool {
    let same_record = row.step == commit.step && row.head == Some(commit.head);
    same_record && row.step > 0 && row.last_epoch == Some(commit.lease.epoch)
}

fn check_commit(change: &Change<'_>, commit: &Commit<'_>) -> Result<(), Refusal> {
    let row = change.row(commit.lease.task);
    check_next_step(row, commit.step)?;
    if !change.durable_home(commit.home)?.contains(&commit.lease.node) {
        return Err(invalid("home", "must contain the committing node"));
    }
    if commit.billed_tokens > row.reserved_tokens {
        let why = format!("{} billed of {} reserved", commit.billed_tokens, row.reserved_tokens);
        return Err(invalid("billed_tokens", why));
    }
    check_next(commit.next)?;
    match change.state.short_of_calls(row, begun(commit.next)) {
        Some(room) => Err(Short::Room(room).refusal(&row.model)),
        None => Ok(()),
    }
}

fn check_next(next: &Next) -> Result<(), Refusal> {
    match next {
        Next::WaitBudget { calls, .. } => check_calls(*calls),
        Next::Continue
        | Next::GoOn { .. }
        | Next::WaitChildren
        | Next::WaitFor { .. }
        | Next::Done { .. } => Ok(()),
        Next::WaitTool { asks, begun, .. } => {
            check_calls(begun.unwrap_or(0))?;
            crate::talk::check_asks(asks)
        }
        Next::WaitInput { asks, .. } if asks.is_empty() => {
            Err(invalid("asks", "are empty: nobody could answer"))
        }
        Next::WaitInput { asks, .. } => crate::talk::check_asks(asks),
        Next::Failed { error } | Next::PausedError { error } => check_text("error reason", &error.reason),
    }
}

fn check_calls(calls: u64) -> Result<(), Refusal> {
    match calls <= limits::CALLS_PER_TURN as u64 {
        true => Ok(()),
        false => {
            Err(invalid("calls", format!("{calls} are more than a turn has ({})", limits::CALLS_PER_TURN)))
        }
    }
}

fn record(change: &mut Change<'_>, commit: &Commit<'_>) {
    let uid = commit.lease.task;
    let used = commit.used(change.row(uid));
    let priced = change.row(uid).held.as_deref().is_some_and(|held| held.price.is_some());
    let micro_usd = if priced { used.micro_usd } else { commit.spent.micro_usd };
    change.give_back_reserved(uid, used);
    change.serve(uid, used, commit.spent.generated_tokens);
    let spent = Spent { micro_usd, ..commit.spent };
    let keepers = change.members(commit.home);
    let route = answered_by(change.row(uid), commit);
    change.update(uid, |row| {
        row.route = None;
        row.step = commit.step;
        row.head = Some(commit.head);
        row.spent = row.spent.plus(spent);
        row.home = lease_node_first(commit.lease.node, &keepers);
        row.keepers = keepers.into();
        // What it was woken for has begun.
        if used.tool_calls > 0 && row.wanted_tokens == 0 {
            row.want = None;
        }
    });
    change.emit(uid, EventKind::Step { step: commit.step, head: commit.head, spent, route });
}

/// Which of several models the step called; none where no call of it counts.
fn answered_by(row: &TaskRow, commit: &Commit<'_>) -> Option<Box<StepRoute>> {
    let route = row.route.as_deref().filter(|_| commit.billed_tokens > 0)?;
    Some(Box::new(StepRoute { model: route.model.clone(), reason: route.reason.clone() }))
}

pub(crate) fn lease_node_first(node: NodeId, keepers: &[NodeId]) -> Nodes {
    std::iter::once(node).chain(keepers.iter().copied().filter(|kept| *kept != node)).collect()
}

fn follow(change: &mut Change<'_>, commit: &Commit<'_>) {
    let uid = commit.lease.task;
    change.hear(uid, commit.next);
    match commit.next {
        Next::Continue | Next::GoOn { .. } => return change.go_on(uid),
        // A cancelled task keeps its lease until its holder says that nothing of it is under way.
        Next::WaitTool { .. } if change.row(uid).state == TaskState::Cancelling => return,
        Next::WaitTool { .. } => return change.step_aside(uid),
        _ => {}
    }
    // Whatever else the step says, it gives the lease back: that confirms the cancel.
    if change.row(uid).state == TaskState::Cancelling {
        return change.confirm_stop(uid);
    }
    change.end_lease(uid);
    match commit.next {
        Next::Continue | Next::GoOn { .. } | Next::WaitTool { .. } => {}
        Next::WaitInput { asks, .. } => change.wait_for_people(uid, asks),
        Next::WaitBudget { calls, .. } => wait_for_calls(change, uid, *calls),
        Next::WaitFor { ms, .. } => {
            let until_ms = change.state.wall_ms().saturating_add(*ms);
            change.update(uid, |row| row.not_before_ms = Some(until_ms));
            change.enter(uid, TaskState::Pending, "timer");
        }
        Next::WaitChildren if change.row(uid).children_open > 0 => {
            change.enter(uid, TaskState::WaitingChild, "children");
        }
        Next::WaitChildren => change.enter(uid, TaskState::Pending, "children-final"),
        Next::Done { result, bytes } => {
            change.update(uid, |row| {
                row.result = Some(*result);
                row.result_bytes = *bytes;
            });
            change.finish(uid, TaskState::Succeeded, "");
        }
        Next::Failed { error } => {
            note_error(change, uid, error);
            change.finish(uid, TaskState::Failed, &error.reason);
        }
        Next::PausedError { error } => {
            note_error(change, uid, error);
            change.enter(uid, TaskState::Paused(PauseReason::Error), &error.reason);
        }
    }
}

/// Stands still until there is room for so many calls of tools; there may be by now.
fn wait_for_calls(change: &mut Change<'_>, uid: TaskUid, calls: u64) {
    let Some(room) = change.state.short_of_calls(change.row(uid), calls) else {
        return change.enter(uid, TaskState::Pending, "budget");
    };
    let extra = Amounts { tool_calls: calls, ..Amounts::NONE };
    change.update(uid, |row| {
        row.wanted_tokens = 0;
        row.want = Some(Box::new(Want { extra, ..Want::default() }));
    });
    change.enter(uid, TaskState::Paused(PauseReason::Budget), &room.key.to_string());
}

fn note_error(change: &mut Change<'_>, uid: TaskUid, error: &TaskError) {
    change.update(uid, |row| row.error = Some(error.clone()));
}

/// The holder gives its lease back. Again, after it was taken back: done.
pub(crate) fn release(change: &mut Change<'_>, lease: Lease, why: Release) -> Outcome {
    let row = change.find(lease.task)?;
    let (current, last, state) = (row.epoch, row.last_epoch, row.state);
    let holds = current == Some(lease.epoch) && row.node == Some(lease.node);
    if !holds {
        change.made_aware(lease.task, lease.holder());
        let over = current.is_none() && last == Some(lease.epoch);
        return if over { Ok(Reply::Done) } else { Err(Refusal::Fenced { given: lease.epoch, current }) };
    }
    if state == TaskState::Cancelling {
        change.confirm_stop(lease.task);
        return Ok(Reply::Done);
    }
    change.end_lease(lease.task);
    match why {
        Release::Stopped | Release::Yielded => change.enter(lease.task, TaskState::Pending, "yielded"),
        Release::Broken => change.enter(lease.task, TaskState::Paused(PauseReason::Error), "broken"),
        Release::Stuck => change.enter(lease.task, TaskState::Paused(PauseReason::Error), "stuck"),
    }
    Ok(Reply::Done)
}
