//! What time does: deadlines pass, buckets fill and wake tasks, model calls that nobody renews end, request ids and old
//! finished tasks are forgotten. The
//! leader asks [`State::tick_due`] and proposes a tick only when there is something to do, so an idle cluster writes
//! nothing.

use crate::calls;
use crate::change::Change;
use crate::command::Stamp;
use crate::quota::wake;
use crate::reply::{Refusal, Reply};
use crate::state::State;
use crate::stop::DEADLINE;
use types::{TaskUid, limits};

/// Of each kind, in one tick: bounds the time one command takes. The rest is due again at once.
const PER_TICK: usize = limits::BATCH_COMMANDS;

pub(crate) fn tick(change: &mut Change<'_>) -> Result<Reply, Refusal> {
    let clock = change.state.clock();
    for uid in change.state.overdue(clock.wall_ms) {
        change.stop(uid, DEADLINE);
    }
    for uid in change.state.past_grace(clock.ledger_ms) {
        change.make_room(uid);
    }
    for uid in change.state.due(clock.wall_ms) {
        change.ready(uid, |row| row.not_before_ms = None);
    }
    calls::let_time_pass(change, clock.ledger_ms, PER_TICK);
    wake(change);
    for slot in change.state.requests.too_old(clock.ledger_ms, PER_TICK) {
        change.state.requests.forget(&slot);
    }
    for root in change.state.outlived(clock.wall_ms) {
        change.state.forget_tree(root);
    }
    Ok(Reply::Done)
}

impl State {
    /// Whether a [`Tick`](crate::command::Command::Tick) with these clocks would change anything. Costs a look at the
    /// tasks that are paused for lack of budget.
    pub fn tick_due(&self, ledger_ms: u64, wall_ms: u64) -> bool {
        !self.overdue(wall_ms).is_empty()
            || !self.past_grace(ledger_ms).is_empty()
            || !self.due(wall_ms).is_empty()
            || !self.wakes(Stamp { ledger_ms, wall_ms }).is_empty()
            || !self.requests.too_old(ledger_ms, 1).is_empty()
            || !self.outlived(wall_ms).is_empty()
            || !self.calls_over(ledger_ms, 1).is_empty()
    }

    fn overdue(&self, wall_ms: u64) -> Vec<TaskUid> {
        let passed =
            self.tasks.index().deadlines.iter().take_while(|(deadline_ms, _)| *deadline_ms <= wall_ms);
        passed.take(PER_TICK).map(|(_, uid)| *uid).collect()
    }

    /// Tasks that were asked to make room and had their grace.
    fn past_grace(&self, ledger_ms: u64) -> Vec<TaskUid> {
        let yielding = self.tasks.index().yielding.iter();
        let passed = yielding.take_while(|(by_ms, _)| *by_ms <= ledger_ms);
        passed.take(PER_TICK).map(|(_, uid)| *uid).collect()
    }

    /// Scheduled tasks whose time has come.
    fn due(&self, wall_ms: u64) -> Vec<TaskUid> {
        let due = self.tasks.index().later.iter().take_while(|(ms, _)| *ms <= wall_ms);
        due.take(PER_TICK).map(|(_, uid)| *uid).collect()
    }

    /// Root tasks that ended long ago and have nothing open below them.
    fn outlived(&self, wall_ms: u64) -> Vec<TaskUid> {
        let old = |ended_ms: u64| ended_ms.saturating_add(limits::FINISHED_MS) <= wall_ms;
        let ended = self.tasks.index().ended.iter().take_while(|(ended_ms, _)| old(*ended_ms));
        let closed = ended.filter(|(_, uid)| self.task(*uid).is_some_and(|row| row.children_open == 0));
        closed.take(PER_TICK).map(|(_, uid)| *uid).collect()
    }

    fn forget_tree(&mut self, uid: TaskUid) {
        let Some(row) = self.tasks.remove(uid) else { return };
        self.quotas.remove(&crate::quota::of_task(uid));
        for child in &row.children {
            self.forget_tree(*child);
        }
    }
}
