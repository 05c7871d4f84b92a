//! The order in which pending tasks are looked at.
//!
//! Each task has a rank in milliseconds: when it entered the queue, plus a handicap for its class, for a low
//! priority, and for not having started yet. Lower ranks go first. So a class goes strictly before the next one among
//! tasks that arrive together, a higher priority goes first inside its class, work that was begun is finished
//! before new work is begun, and yet nobody starves: however many urgent tasks arrive later, a task is overtaken
//! only by those that came within its handicap. The rank never changes while a task waits, so the queue is a plain
//! ordered set.

use crate::rows::TaskRow;
use types::{Class, TaskUid};

/// What one class yields to the class above it: half an hour.
const CLASS_MS: u64 = 30 * 60_000;
/// What one step of priority yields: a minute. All nine stay below `FRESH_MS` and far below a class.
const PRIORITY_MS: u64 = 60_000;
/// What a task that never ran yields to tasks that did: ten minutes, more than all priorities.
const FRESH_MS: u64 = 10 * 60_000;

/// A task's place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct QueueKey {
    /// Milliseconds on the ledger's clock, with the handicaps added.
    pub rank_ms: u64,
    pub queued_ms: u64,
    pub uid: TaskUid,
}

impl QueueKey {
    pub fn of(row: &TaskRow) -> QueueKey {
        QueueKey::queued_at(row, row.queued_ms)
    }

    /// The order in which paused tasks wake: woken together, they enter the queue at the same time, so this is also
    /// the order in which they stand there.
    pub fn on_waking(row: &TaskRow) -> QueueKey {
        QueueKey::queued_at(row, 0)
    }

    /// The place the task would have, had it entered the queue at that time.
    pub fn queued_at(row: &TaskRow, queued_ms: u64) -> QueueKey {
        let fresh_ms = if row.last_epoch.is_none() { FRESH_MS } else { 0 };
        let priority_ms = 9u64.saturating_sub(u64::from(row.priority)) * PRIORITY_MS;
        let handicap_ms = class_ms(row.class) + priority_ms + fresh_ms;
        QueueKey { rank_ms: queued_ms.saturating_add(handicap_ms), queued_ms, uid: row.uid }
    }
}

/// What a class yields to the first, in milliseconds. After so long it has a share of the starts, whatever its rank.
pub(crate) fn class_ms(class: Class) -> u64 {
    match class {
        Class::System => 0,
        Class::Interactive => CLASS_MS,
        Class::Batch => 2 * CLASS_MS,
        Class::BestEffort => 3 * CLASS_MS,
    }
}
