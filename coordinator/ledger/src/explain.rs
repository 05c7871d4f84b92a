//! Why a task waits: every reason that holds it, with numbers. The reasons are an AND-set: each of them alone would
//! hold the task.
//!
//! The rule of the numbers: raise each named limit (or capacity) by `requested - available` and the task starts with
//! the next plan; raise any one of them by one less and it doesn't. To be true, the numbers count the tasks that are
//! ahead and would take their part of the raise first. That is exact for quotas, and for slots where all the able
//! nodes can run the same tasks; where models differ between nodes, or where children that start together are ahead,
//! the slots named are an upper bound.

use crate::command::Stamp;
use crate::gang::Gang;
use crate::keys::Bound;
use crate::placement::{Board, Soft, verdicts, views};
use crate::plan::Walk;
use crate::query::{Blocker, Explanation};
use crate::queue::QueueKey;
use crate::quota::{Claims, Fence, PoolBound, Purse, Room};
use crate::routing::View;
use crate::rows::TaskRow;
use crate::state::State;
use std::collections::BTreeSet;
use types::{PauseReason, TaskState, TaskUid};

/// `None` when there is no such task.
pub fn explain(state: &State, soft: &Soft, uid: TaskUid) -> Option<Explanation> {
    let row = state.task(uid)?;
    let mut explanation = Explanation {
        task: Box::new(row.clone()),
        blockers: Vec::new(),
        tasks_ahead: 0,
        nodes: Vec::new(),
        eta: None,
    };
    match row.state {
        TaskState::Pending => {
            explanation.nodes = nodes(state, soft, row);
            explanation.blockers = waits_for(state, row);
            let (ahead, blockers) = start_blockers(state, soft, row, &[]);
            explanation.tasks_ahead = ahead;
            explanation.blockers.extend(blockers);
        }
        TaskState::Paused(PauseReason::Budget) => {
            let (woken, tokens) = token_blockers(state, soft, row);
            explanation.nodes = nodes(state, soft, row);
            let (ahead, blockers) = start_blockers(state, soft, row, &woken);
            explanation.tasks_ahead = ahead;
            explanation.blockers = tokens;
            explanation.blockers.extend(blockers);
        }
        TaskState::Paused(PauseReason::User) => {
            explanation.blockers.push(standing("PAUSED_BY_USER", "someone paused it; resume it to go on"));
        }
        TaskState::Paused(PauseReason::Drain | PauseReason::Error) => {
            let why = format!("it is paused ({}); look at its error, then resume it", row.reason);
            explanation.blockers.push(standing("PAUSED_ERROR", &why));
        }
        TaskState::WaitingChild => explanation.blockers.push(waiting_children(row)),
        TaskState::Running | TaskState::WaitingTool | TaskState::WaitingInput | TaskState::Cancelling => {}
        TaskState::Succeeded | TaskState::Failed | TaskState::Cancelled | TaskState::Expired => {}
    }
    explanation.eta = eta(soft, &explanation);
    Some(explanation)
}

/// Starts come at the pace of the last ones. Only for a task that waits for its turn: when a limit or a missing engine
/// holds it nobody knows when that ends.
fn eta(soft: &Soft, explanation: &Explanation) -> Option<(u64, u64)> {
    let turn = |blocker: &Blocker| matches!(blocker.reason.as_str(), "NO_SLOT" | "TASKS_AHEAD");
    let waits = explanation.task.state == TaskState::Pending && explanation.blockers.iter().all(turn);
    let starts = &soft.starts_ms;
    let (first, last) = (*starts.first()?, *starts.last()?);
    if !waits || starts.len() < PACE_STARTS || last == first {
        return None;
    }
    // A silence longer than the mean counts as slower pace already.
    let until = soft.ledger_ms.max(last);
    let (span, count) = (until - first, starts.len() as u64);
    let before = explanation.tasks_ahead + 1;
    let wait = before.saturating_mul(span) / count;
    // The sum of n gaps spreads as the square root of n; gaps of waiting times spread about as much as their mean.
    let spread = wait / before.isqrt().max(1) + wait / count.isqrt().max(1);
    Some((wait, spread))
}

/// With fewer starts there is no pace.
const PACE_STARTS: usize = 8;

/// For each member whether it could take the task, and why not; of those that could, what they hold and run.
fn nodes(state: &State, soft: &Soft, row: &TaskRow) -> Vec<(u64, bool, String)> {
    let views = views(state, soft, row.uid);
    let view = |id: u64| views.iter().find(|view| view.node.0 == id);
    let mut nodes = verdicts(state, soft, row);
    for (id, able, why) in &mut nodes {
        if let Some(view) = view(*id).filter(|_| *able) {
            *why = seen(view);
        }
    }
    nodes
}

fn seen(view: &View) -> String {
    let prompt = view.matched_tokens + view.missing_tokens;
    let choice = if view.why_not.is_empty() { "would be chosen" } else { &view.why_not };
    format!(
        "holds {} of {prompt} tokens of the prompt, runs {} of {}; {choice}",
        view.matched_tokens, view.used, view.slots
    )
}

/// What a pending task waits for outside of the queue: its time, and other tasks.
fn waits_for(state: &State, row: &TaskRow) -> Vec<Blocker> {
    let time = row.not_before_ms.map(|ms| Blocker {
        reason: "NOT_YET".to_string(),
        resource: "time".to_string(),
        requested: ms,
        available: state.wall_ms(),
        limit: 0,
        message: format!("it is scheduled for {ms} ms after 1970 (UTC), it is {} now", state.wall_ms()),
        borrowed_by: None,
    });
    let others = row.after.iter().flatten().map(|uid| Blocker {
        resource: uid.to_string(),
        ..standing("AFTER", &format!("{uid} has to succeed first; look at it with `task explain {uid}`"))
    });
    let absent = Gang::absent(state, row).map(|other| {
        let (uid, state) = (other.uid, other.state.name());
        let why = format!("it starts together with {uid}, which is {state}; resume that one, or cancel it");
        Blocker { resource: uid.to_string(), ..standing("TOGETHER", &why) }
    });
    time.into_iter().chain(others).chain(absent).collect()
}

fn standing(reason: &str, message: &str) -> Blocker {
    Blocker {
        reason: reason.to_string(),
        resource: String::new(),
        requested: 1,
        available: 0,
        limit: 0,
        message: message.to_string(),
        borrowed_by: None,
    }
}

fn waiting_children(row: &TaskRow) -> Blocker {
    Blocker {
        reason: "WAITING_CHILDREN".to_string(),
        resource: "children".to_string(),
        requested: u64::from(row.children_open),
        available: 0,
        limit: row.children.len() as u64,
        message: format!("{} of {} children have not ended yet", row.children_open, row.children.len()),
        borrowed_by: None,
    }
}

/// A task's place in the queue, or the one it would have if it entered now.
fn place(state: &State, soft: &Soft, row: &TaskRow) -> QueueKey {
    match row.state {
        TaskState::Pending => QueueKey::of(row),
        _ => QueueKey::queued_at(row, soft.ledger_ms.max(state.ledger_ms())),
    }
}

/// What holds a task that is in the queue, or would be: the tree's holdings, nodes, engines, slots. And how many are
/// looked at before it.
///
/// A pool is raised only where it is in this task's way: what is kept for it needs nothing of a pool. Each pool that is
/// raised may let others start before it, who take of the next one, until no further pool is short.
fn start_blockers(state: &State, soft: &Soft, row: &TaskRow, woken: &[TaskUid]) -> (u64, Vec<Blocker>) {
    let mut raised = BTreeSet::new();
    loop {
        let walk = walk_past(state, soft, row, woken, raised.clone());
        let raised_before = raised.len();
        raised.extend(walk.short_pools);
        if raised.len() == raised_before {
            return (walk.looked, walk.blockers);
        }
    }
}

/// What is in a task's way once everyone before it has started who could, with its own way clear.
struct Walked {
    looked: u64,
    blockers: Vec<Blocker>,
    short_pools: Vec<PoolBound>,
}

fn walk_past(
    state: &State,
    soft: &Soft,
    row: &TaskRow,
    woken: &[TaskUid],
    raised: BTreeSet<PoolBound>,
) -> Walked {
    // With nothing in this task's way, whoever is before it takes what they would take of a raise.
    let (mut board, mut claims) = (Board::new(state, soft), Claims::new(state));
    board.lift(row);
    claims.lift(row, raised);
    let woken = woken.iter().filter_map(|uid| state.task(*uid));
    let outside = (row.state != TaskState::Pending).then_some(row);
    let entering = woken.chain(outside).map(|row| (place(state, soft, row), row)).collect();
    let mut walk = Walk::new(state, soft, board, claims, entering);
    let mut slots_taken = 0;
    walk.walk_to(row, |board, node| slots_taken += u64::from(board.able(row).any(|able| able == node)));
    let others = Gang::others(state, row);
    others.iter().for_each(|other| walk.claims.take(other));
    let mut blockers = holding_blockers(state, row, &walk.claims);
    let slots = Slots { ahead: slots_taken, together: 1 + others.len() as u64 };
    blockers.extend(node_blocker(row, &Board::new(state, soft), slots));
    Walked { looked: walk.looked, blockers, short_pools: walk.claims.short_pools(row) }
}

/// Places that go to tasks ahead, and to the task with those that start together with it.
#[derive(Clone, Copy)]
struct Slots {
    ahead: u64,
    together: u64,
}

fn holding_blockers(state: &State, row: &TaskRow, after: &Claims<'_>) -> Vec<Blocker> {
    let now = Claims::new(state).fences(row);
    let each = now.into_iter().zip(after.fences(row));
    each.filter_map(|(now, after)| holding_blocker(state, now, &after)).collect()
}

/// What is over a limit already has to be made up for, too.
fn holding_blocker(state: &State, now: Fence, after: &Fence) -> Option<Blocker> {
    let short = after.short();
    if short <= 0 {
        return None;
    }
    let available = u64::try_from(now.free.max(0)).unwrap_or(u64::MAX);
    let short = u64::try_from(short).unwrap_or(u64::MAX);
    let ahead = now.free - after.free;
    let (key, path, limit) = (now.key(), now.path, now.limit);
    let lends = matches!(now.bound, Bound::Guaranteed | Bound::Borrow);
    let borrowed_by = if lends { state.borrowers(&now.holding) } else { vec![] };
    let calls = match state.held_by_calls(&path, &now.holding) {
        0 => String::new(),
        held => format!(" {held} held by calls without a task of {},", state.callers_at(&path).join(", ")),
    };
    let message = format!(
        "{path} {key} is {limit}: {available} left,{calls} {} needed here, {ahead} by tasks ahead; raise {key} to {}",
        now.need,
        limit.saturating_add(short)
    );
    Some(Blocker {
        reason: format!("QUOTA_{}", now.holding.name().split(':').next().unwrap_or_default().to_uppercase()),
        resource: format!("{path} {key}"),
        requested: available.saturating_add(short),
        available,
        limit,
        message,
        borrowed_by: (!borrowed_by.is_empty()).then_some(borrowed_by),
    })
}

fn node_blocker(row: &TaskRow, board: &Board<'_>, slots: Slots) -> Option<Blocker> {
    let blocker = |reason: &str, resource: &str, requested, available, limit, message: String| {
        let (reason, resource) = (reason.to_string(), resource.to_string());
        Some(Blocker { reason, resource, requested, available, limit, message, borrowed_by: None })
    };
    if !board.has_workers() {
        let message = "no worker is attached; start one, or look at `node list`".to_string();
        return blocker("NO_WORKER", "workers", 1, 0, 0, message);
    }
    if board.able(row).next().is_none() {
        let message = format!("no attached worker has loaded {}; pull it on one", row.model);
        return blocker("NO_ENGINE", &row.model, 1, 0, 0, message);
    }
    let (free, all) = board.slots(row);
    let needed = slots.ahead + slots.together;
    if needed <= free {
        return None;
    }
    let together = slots.together;
    let with = if together > 1 { format!("; {together} tasks start together") } else { String::new() };
    if free == 0 {
        let message = format!("all {all} slots of the workers that could run it are taken{with}");
        blocker("NO_SLOT", "slots", needed, 0, all, message)
    } else {
        let message = format!("{} tasks are ahead for {free} free slots{with}", slots.ahead);
        blocker("TASKS_AHEAD", "slots", needed, free, all, message)
    }
}

/// What a task paused for lack of budget wants on top, and the tasks that would be woken before it.
fn token_blockers(state: &State, soft: &Soft, row: &TaskRow) -> (Vec<TaskUid>, Vec<Blocker>) {
    let clock = Stamp { ledger_ms: soft.ledger_ms.max(state.ledger_ms()), wall_ms: state.wall_ms() };
    let mut purse = Purse::new(state, clock);
    purse.lift(row);
    let mut woken = Vec::new();
    let place = QueueKey::on_waking(row);
    for other in state.tasks.index().starved.range(..place).filter_map(|key| state.task(key.uid)) {
        if purse.fits(other) {
            purse.take(other);
            woken.push(other.uid);
        }
    }
    let unpriced = purse.lacks_price(row).then(|| unpriced(row));
    let short = purse.rooms(row).into_iter().filter_map(budget_blocker);
    (woken, unpriced.into_iter().chain(short).collect())
}

fn budget_blocker(room: Room) -> Option<Blocker> {
    // A budget that was cut below its use has to be made up for; a bucket is never below empty.
    let requested = room.requested.saturating_add(room.over);
    if requested <= room.available {
        return None;
    }
    let Room { path, key, available, limit, .. } = room;
    let message = format!(
        "{path} has {available} of {limit} {key} left, {requested} wanted by this task and those ahead; raise {key} to {}",
        limit.saturating_add(requested - available)
    );
    Some(Blocker {
        reason: format!("QUOTA_{}", key.to_string().to_uppercase()),
        resource: format!("{path} {key}"),
        requested,
        available,
        limit,
        message,
        borrowed_by: None,
    })
}

fn unpriced(row: &TaskRow) -> Blocker {
    let model = row.priced_by();
    let message =
        format!("money is limited here and {model} has no price; set one with `price set`, 0 included");
    Blocker { resource: model.to_string(), ..standing("UNKNOWN_PRICE", &message) }
}
