//! What tasks used, in sums: by project, agent, model, task or day. Read from the task rows that the ledger keeps.
//!
//! A task counts as a whole at one moment: when its last step was committed, or when it was created, before its first.

use crate::coordinator::{Coordinator, ReadError};
use ledger::State;
use ledger::rows::{EventKind, TaskRow};
use std::collections::BTreeMap;
use types::{ProjectName, Spent};

/// Lines of one report; what is beyond is in the total.
const LINES: usize = 1_000;
const DAY_MS: u64 = 86_400_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CostGroup {
    Project,
    Agent,
    Model,
    Task,
    /// Days of UTC.
    Day,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CostQuestion {
    pub group_by: CostGroup,
    /// From here on, Unix milliseconds.
    pub since_ms: u64,
    /// Before this.
    pub until_ms: u64,
    /// Only this project.
    pub project: Option<ProjectName>,
}

/// A sum. Its key is a quota path, a model, or a day as YYYY-MM-DD.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CostLine {
    pub key: String,
    pub tasks: u64,
    pub steps: u64,
    pub spent: Spent,
    /// What budgets counted.
    pub new_tokens: u64,
    pub known_tokens: u64,
    pub kv_block_seconds: u64,
    pub tool_calls: u64,
}

/// Days in order, all others the most expensive first; and the sum of everything.
pub(crate) fn report(state: &State, question: &CostQuestion) -> (Vec<CostLine>, CostLine) {
    let mut lines: BTreeMap<String, CostLine> = BTreeMap::new();
    let mut total = CostLine { key: "total".into(), ..CostLine::default() };
    let asked = |row: &&TaskRow| question.project.as_ref().is_none_or(|project| row.project == *project);
    for row in state.tasks().filter(asked) {
        let at_ms = last_step_ms(state, row);
        if at_ms < question.since_ms || at_ms >= question.until_ms {
            continue;
        }
        let key = key(row, question.group_by, at_ms);
        let line = lines.entry(key.clone()).or_insert_with(|| CostLine { key, ..CostLine::default() });
        line.add(row);
        total.add(row);
    }
    let mut lines: Vec<CostLine> = lines.into_values().collect();
    if question.group_by != CostGroup::Day {
        lines.sort_by_key(|line| std::cmp::Reverse((line.spent.micro_usd, line.new_tokens)));
    }
    lines.truncate(LINES);
    (lines, total)
}

impl CostLine {
    fn add(&mut self, row: &TaskRow) {
        let settled = row.settled.as_deref().copied().unwrap_or_default();
        self.tasks += 1;
        self.steps += row.step;
        self.spent = self.spent.plus(row.spent);
        self.new_tokens += row.settled_tokens;
        self.known_tokens += settled.cached_tokens;
        self.kv_block_seconds += settled.kv_block_seconds;
        self.tool_calls += settled.tool_calls;
    }
}

fn last_step_ms(state: &State, row: &TaskRow) -> u64 {
    let steps = state.events_from(row.uid, 0).filter(|event| matches!(event.kind, EventKind::Step { .. }));
    steps.last().map_or(row.created_ms, |event| event.at_ms)
}

fn key(row: &TaskRow, group: CostGroup, at_ms: u64) -> String {
    match group {
        CostGroup::Project => format!("projects/{}", row.project),
        CostGroup::Agent => format!("projects/{}/agents/{}", row.project, row.agent),
        CostGroup::Model => row.model.to_string(),
        CostGroup::Task => format!("tasks/{}", row.uid),
        CostGroup::Day => day(at_ms),
    }
}

/// YYYY-MM-DD in UTC: years of 400 have 146,097 days, and begin in March, so that a leap day is their last.
fn day(at_ms: u64) -> String {
    let days = at_ms / DAY_MS + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march = (5 * of_year + 2) / 153;
    let (month, later) = if march < 10 { (march + 3, 0) } else { (march - 9, 1) };
    format!("{:04}-{month:02}-{:02}", era * 400 + year + later, of_year - (153 * march + 2) / 5 + 1)
}

impl Coordinator {
    /// At the leader, from what was committed before the call.
    pub async fn cost(&self, question: &CostQuestion) -> Result<(Vec<CostLine>, CostLine), ReadError> {
        self.barrier().await?;
        Ok(report(&self.locked().state, question))
    }
}
