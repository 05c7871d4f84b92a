//! Feature levels: what `apply` does changes only at a place in the log, so that every replica changes there, whether
//! it came by a snapshot or by the log.
//!
//! Level 1 is the first version. Level 2 counts finely: at agents, in windows of the calendar, what projects were
//! served; and it keeps an audit log. It begins with the first entry of form 2. Level 3 has signals, heads and
//! schedules; it begins with the first entry of form 3, and nothing that was there before changes with it. Level 4 has
//! children that start together, and model calls without a task; it begins with the first entry of form 4, and nothing
//! that was there before changes with it. Level 5 knows who removed a node and why, and has homes that move and chains that
//! end with their task; it has no new rows. Level 6 knows calls that one of several models answers; it has no new rows.
//! Level 7 has slices: calls that stand for many requests of a node.
//!
//! Up to level 3 levels began by use. From level 4 on leaders let them begin by
//! [`RaiseLevel`](crate::command::Command::RaiseLevel) alone, when every member reads what comes then: until that, every
//! node may go back to the version before. A new cluster begins at the newest level.

use crate::change::{Change, check_text, holds_slot};
use crate::command::RequestKey;
use crate::keys::Amounts;
use crate::quota::{When, needs, of_agent};
use crate::reply::{Refusal, Reply};
use crate::requests::Memory;
use crate::state::State;

/// Entries of this form and newer are applied at level 2.
const FINE_FORMAT: u16 = 2;
const FINE: u32 = 2;
const TALKS: u32 = 3;
const CALLS: u32 = 4;
/// From here on homes move, and chains end with their task.
pub const HOMES: u32 = 5;
/// From here on nodes hold slices, so that a request without a task costs no entry of its own.
pub const SLICES: u32 = 7;
/// Levels up to this begin with the first command that needs them.
pub const BY_USE: u32 = 3;

/// The level has begun with the entry; here it is written down who wanted it.
pub(crate) fn raise(
    change: &mut Change<'_>,
    level: u32,
    reason: &str,
    request: &RequestKey,
) -> Result<Reply, Refusal> {
    check_text("reason", reason)?;
    if let Some(reply) = change.recall(request, "cluster")? {
        return Ok(reply);
    }
    // The founder's own command has no author.
    if !request.author.is_empty() {
        change.audit(&request.author, "cluster.raise-level", "cluster", &format!("level -> {level}"), reason);
    }
    change.remember(request, "cluster", Memory::Reply(Box::new(Reply::Done)));
    Ok(Reply::Done)
}

impl State {
    /// The newest form of entries that may be written now.
    pub fn form_allowed(&self) -> u16 {
        u16::try_from(self.meta().feature_level.max(BY_USE)).unwrap_or(u16::MAX)
    }

    /// Whether there may be rows that older versions do not know.
    pub(crate) fn talks(&self) -> bool {
        self.meta().feature_level >= TALKS
    }

    /// Begins the level that an entry of this form asks for, and those before it.
    pub(crate) fn begin_level(&mut self, format: u16) {
        if format >= FINE_FORMAT {
            self.count_finely();
        }
        // From the second on, levels and forms have the same numbers.
        let level = u32::from(format);
        if self.meta().feature_level < level {
            self.update_meta(|meta| meta.feature_level = level);
        }
    }

    /// Whether there may be rows of model calls.
    pub(crate) fn makes_calls(&self) -> bool {
        self.meta().feature_level >= CALLS
    }

    /// Whether every member knows the commands about homes.
    pub fn moves_homes(&self) -> bool {
        self.meta().feature_level >= HOMES
    }

    pub(crate) fn counts_finely(&self) -> bool {
        self.meta().feature_level >= FINE
    }

    /// Begins level 2: agents get a place in the tree, with what their tasks used and hold.
    fn count_finely(&mut self) {
        if self.counts_finely() {
            return;
        }
        self.update_meta(|meta| meta.feature_level = FINE);
        let at = When { wall_ms: self.wall_ms(), windows: self.windows() };
        for row in self.tasks().cloned().collect::<Vec<_>>() {
            let path = of_agent(&row.project, &row.agent);
            self.quota_row(&path);
            let tokens = |tokens| Amounts { tokens, ..Amounts::NONE };
            self.quotas.update(&path, |quota| {
                quota.inherit(tokens(row.settled_tokens), tokens(row.reserved_tokens), 0, at);
                if holds_slot(&row) {
                    needs(&row).for_each(|(holding, amount)| quota.hold(holding, amount));
                }
            });
        }
    }
}
