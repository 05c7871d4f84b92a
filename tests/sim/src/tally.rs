//! What commands say about the faults behind them.

use crate::counts::Kind;
use crate::oracle::Before;
use crate::sim::Sim;
use ledger::command::{Command, Release, Stamp};
use ledger::effect::Effect;
use ledger::reply::{Refusal, Reply};
use ledger::rows::{EventKind, QuotaKey, QuotaRow};
use types::{PauseReason, TaskState};

/// What the smallest call needs.
const LEAST_MILLITOKENS: u64 = 4_000;

impl Sim {
    pub(crate) fn count_command(
        &mut self,
        command: &Command,
        before: &Before,
        reply: &Reply,
        effects: &[Effect],
    ) {
        match (command, reply) {
            (Command::NodeLost { .. }, _) => {
                self.counts.count(Kind::NodeLost, states(effects).next().is_some())
            }
            (Command::MoveHome { .. }, _) => self.counts.count(Kind::HomeMoved, *reply == Reply::Done),
            (Command::Reserve { .. }, Reply::Refused(Refusal::OverQuota { .. })) => {
                let paused = states(effects).any(|state| state == TaskState::Paused(PauseReason::Budget));
                self.counts.count(Kind::BudgetRefused, paused);
            }
            (Command::PauseTask { .. }, Reply::Task(_)) => {
                let revoked = effects.iter().any(|effect| matches!(effect, Effect::Revoked { .. }));
                self.counts.count(Kind::UserPaused, revoked);
            }
            (Command::CancelTask { .. }, Reply::Task(row)) => {
                let new = !effects.is_empty();
                self.counts.count(Kind::Cancelled, new && row.state == TaskState::Cancelling);
            }
            (Command::Release { node, why: Release::Yielded, .. }, Reply::Done) => {
                let worker = self.worker_of(*node).filter(|worker| self.workers[*worker].draining);
                if worker.is_some_and(|worker| !std::mem::replace(&mut self.workers[worker].gave_back, true))
                {
                    self.counts.effective(Kind::NodeDrained);
                }
            }
            (Command::SetQuota { changes, .. }, Reply::Quota(row)) if before.etag() != Some(row.etag) => {
                changes.iter().for_each(|(key, _)| self.count_limit(key, before, row, effects));
            }
            _ => {}
        }
    }

    fn count_limit(&mut self, key: &QuotaKey, before: &Before, row: &QuotaRow, effects: &[Effect]) {
        let old = before.quota.as_ref().and_then(|old| limit(old, key)).unwrap_or(u64::MAX);
        let new = limit(row, key).unwrap_or(u64::MAX);
        if new > old {
            let woken = states(effects).any(|state| state == TaskState::Pending);
            let held_back = *key == QuotaKey::Running && row.running_used >= old && before.queued > 0;
            return self.counts.count(Kind::LimitRaised, woken || held_back);
        }
        let used = row.tokens_settled + row.tokens_reserved;
        match key {
            QuotaKey::Running => self.counts.count(Kind::RunningCut, row.running_used > new),
            QuotaKey::TokensTotal => self.counts.count(Kind::TotalCut, used > new),
            QuotaKey::TokensMinute => {
                self.counts.count(Kind::MinuteCut, row.bucket_millitokens < LEAST_MILLITOKENS)
            }
            QuotaKey::Weight | QuotaKey::Budget(..) | QuotaKey::RequestsMinute | QuotaKey::Holding(..) => {}
        }
    }
}

fn limit(row: &QuotaRow, key: &QuotaKey) -> Option<u64> {
    // Windows are of no interest here, so neither is the time.
    row.limit_of(key, Stamp::default())
}

/// The states that tasks entered, in order.
fn states(effects: &[Effect]) -> impl Iterator<Item = TaskState> {
    effects.iter().filter_map(|effect| match effect {
        Effect::Event { event, .. } => match event.kind {
            EventKind::State { state, .. } => Some(state),
            EventKind::Step { .. } => None,
        },
        _ => None,
    })
}
