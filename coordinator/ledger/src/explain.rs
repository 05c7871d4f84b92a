//! Why a task waits: every reason that holds it, with numbers. The reasons are an AND-set: each of them alone would
//! hold the task.
//!
//! The rule of the numbers: raise each named limit (or capacity) by `requested - available` and the task starts with
//! the next plan; raise any one of them by one less and it doesn't. To be true, the numbers count the tasks that are
//! ahead and would take their part of the raise first. That is exact for quotas, and for slots where all the able
//! nodes can run the same tasks; where models differ between nodes, the slots named are an upper bound.

use crate::placement::{Board, Soft, verdicts};
use crate::query::{Blocker, Explanation};
use crate::queue::QueueKey;
use crate::quota::{Purse, RUNNING, TOKENS_TOTAL, ancestors};
use crate::rows::TaskRow;
use crate::state::State;
use types::{PauseReason, TaskState, TaskUid};

/// `None` when there is no such task.
pub fn explain(state: &State, soft: &Soft, uid: TaskUid) -> Option<Explanation> {
    let row = state.task(uid)?;
    let mut explanation =
        Explanation { task: Box::new(row.clone()), blockers: Vec::new(), tasks_ahead: 0, nodes: Vec::new() };
    match row.state {
        TaskState::Pending => {
            explanation.nodes = verdicts(state, soft, row);
            explanation.tasks_ahead = ahead(state, soft, row, &[]).len() as u64;
            explanation.blockers = start_blockers(state, soft, row, &[]);
        }
        TaskState::Paused(PauseReason::Budget) => {
            let (woken, tokens) = token_blockers(state, soft, row);
            explanation.nodes = verdicts(state, soft, row);
            explanation.tasks_ahead = ahead(state, soft, row, &woken).len() as u64;
            explanation.blockers = tokens;
            explanation.blockers.extend(start_blockers(state, soft, row, &woken));
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
    Some(explanation)
}

fn standing(reason: &str, message: &str) -> Blocker {
    Blocker {
        reason: reason.to_string(),
        resource: String::new(),
        requested: 1,
        available: 0,
        limit: 0,
        message: message.to_string(),
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
    }
}

/// The tasks that would be looked at before this one, in queue order; `woken` ones enter the queue with it.
fn ahead<'a>(state: &'a State, soft: &Soft, row: &TaskRow, woken: &[TaskUid]) -> Vec<&'a TaskRow> {
    let place = place(soft, state, row);
    let pending = state.queue().map(|other| (QueueKey::of(other), other));
    let entering =
        woken.iter().filter_map(|uid| state.task(*uid)).map(|other| (self::place(soft, state, other), other));
    let mut before: Vec<_> = pending.chain(entering).filter(|(key, _)| *key < place).collect();
    before.sort_by_key(|(key, _)| *key);
    before.into_iter().map(|(_, other)| other).collect()
}

fn place(soft: &Soft, state: &State, row: &TaskRow) -> QueueKey {
    match row.state {
        TaskState::Pending => QueueKey::of(row),
        _ => QueueKey::queued_at(row, soft.ledger_ms.max(state.ledger_ms())),
    }
}

/// What holds a task that is in the queue, or would be: running slots of the quota tree, nodes, engines, slots.
fn start_blockers(state: &State, soft: &Soft, row: &TaskRow, woken: &[TaskUid]) -> Vec<Blocker> {
    let before = ahead(state, soft, row, woken);
    let today = Board::new(state, soft);
    let mut board = Board::new(state, soft);
    board.lift(row);
    let mut slots_taken = 0;
    for other in before {
        let Some(node) = board.best_node(other).filter(|_| board.has_slot(&other.project)) else { continue };
        slots_taken += u64::from(board.able(row).any(|able| able == node));
        board.take(other, node);
    }
    let mut blockers = running_blockers(state, row, &board);
    blockers.extend(node_blocker(row, &today, slots_taken));
    blockers
}

fn running_blockers(state: &State, row: &TaskRow, board: &Board<'_>) -> Vec<Blocker> {
    let mut blockers = Vec::new();
    for quota in ancestors(&row.project).iter().filter_map(|path| state.quotas.get(path)) {
        let Some(limit) = quota.running else { continue };
        let available = limit.saturating_sub(quota.running_used);
        // What is over the limit already has to be made up for, too.
        let requested = 1 + board.taken(&quota.path) + quota.running_used.saturating_sub(limit);
        if requested > available {
            let message = format!(
                "{} allows {limit} running tasks, {} run, {} are ahead; raise running to {}",
                quota.path,
                quota.running_used,
                board.taken(&quota.path),
                limit + requested - available
            );
            let resource = format!("{} {RUNNING}", quota.path);
            blockers.push(Blocker {
                reason: "QUOTA_RUNNING".to_string(),
                resource,
                requested,
                available,
                limit,
                message,
            });
        }
    }
    blockers
}

fn node_blocker(row: &TaskRow, board: &Board<'_>, slots_taken: u64) -> Option<Blocker> {
    let blocker = |reason: &str, resource: &str, requested, available, limit, message: String| {
        let (reason, resource) = (reason.to_string(), resource.to_string());
        Some(Blocker { reason, resource, requested, available, limit, message })
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
    let needed = slots_taken + 1;
    if free == 0 {
        let message = format!("all {all} slots of the workers that could run it are taken");
        blocker("NO_SLOT", "slots", needed, 0, all, message)
    } else if needed > free {
        let message = format!("{slots_taken} tasks are ahead for {free} free slots");
        blocker("TASKS_AHEAD", "slots", needed, free, all, message)
    } else {
        None
    }
}

/// What a task paused for lack of budget wants on top, and the tasks that would be woken before it.
fn token_blockers(state: &State, soft: &Soft, row: &TaskRow) -> (Vec<TaskUid>, Vec<Blocker>) {
    let ledger_ms = soft.ledger_ms.max(state.ledger_ms());
    let mut purse = Purse::new(state, ledger_ms);
    purse.lift(&row.project);
    let mut woken = Vec::new();
    let place = QueueKey::on_waking(row);
    for other in state.tasks.index().starved.range(..place).filter_map(|key| state.task(key.uid)) {
        if purse.fits(&other.project, other.wanted_tokens) {
            purse.take(&other.project, other.wanted_tokens);
            woken.push(other.uid);
        }
    }
    let mut blockers = Vec::new();
    for room in state.token_rooms(&row.project, ledger_ms) {
        let used =
            state.quotas.get(&room.path).map_or(0, |quota| quota.tokens_settled + quota.tokens_reserved);
        // A total that was cut below its use has to be made up for; a bucket is never below empty.
        let over = if room.resource == TOKENS_TOTAL { used.saturating_sub(room.limit) } else { 0 };
        let requested = row.wanted_tokens + purse.promised(&room.path) + over;
        if requested > room.available {
            let message = format!(
                "{} has {} of {} left, {} wanted here, {} by tasks ahead; raise {} to {}",
                room.path,
                room.available,
                room.limit,
                row.wanted_tokens,
                purse.promised(&room.path),
                room.resource,
                room.limit + requested - room.available
            );
            blockers.push(Blocker {
                reason: format!("QUOTA_{}", room.resource.to_uppercase()),
                resource: format!("{} {}", room.path, room.resource),
                requested,
                available: room.available,
                limit: room.limit,
                message,
            });
        }
    }
    (woken, blockers)
}
