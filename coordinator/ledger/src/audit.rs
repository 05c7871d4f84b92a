//! The audit log: who changed what, when and why. Written by the command that made the change, so it can't be missing.

use crate::change::Change;
use crate::rows::AuditRow;
use crate::state::State;
use types::limits;

impl Change<'_> {
    pub(crate) fn audit(&mut self, author: &str, action: &str, subject: &str, change: &str, reason: &str) {
        if !self.state.counts_finely() {
            return;
        }
        let number = self.state.audit.keys().next_back().map_or(0, |number| *number) + 1;
        let row = AuditRow {
            number,
            at_ms: self.state.wall_ms(),
            author: author.to_string(),
            action: action.to_string(),
            subject: subject.to_string(),
            change: change.to_string(),
            reason: reason.to_string(),
        };
        self.state.audit.insert(number, row);
        if let Some(old) = number.checked_sub(limits::AUDIT_ROWS as u64) {
            self.state.audit.remove(&old);
        }
    }
}

impl State {
    /// Rows after a number, about one subject or below it where one is given.
    pub fn audit_after(&self, after: u64, subject: &str) -> impl Iterator<Item = &AuditRow> {
        let rows = self.audit.range(after.saturating_add(1)..).map(|(_, row)| row);
        rows.filter(move |row| {
            let rest = row.subject.strip_prefix(subject);
            rest.is_some_and(|rest| subject.is_empty() || rest.is_empty() || rest.starts_with('/'))
        })
    }
}
