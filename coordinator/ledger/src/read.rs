//! Answers to queries. Reads only; what is not found is an empty answer, what is not understood a `BadQuery`.

use crate::command::RequestKey;
use crate::explain::explain;
use crate::filter::Filter;
use crate::homes::Gap;
use crate::placement::Soft;
use crate::query::{Answer, ClusterFacts, Query};
use crate::quota::{Cut, blank, preview, read_path};
use crate::rows::{AgentRow, QuotaRow, TaskRow};
use crate::state::State;
use std::ops::Bound;
use types::{ProjectName, TaskUid, limits};

impl State {
    /// `soft` is what a leader knows about the nodes; only explanations need it. Unknown tasks have no events, and
    /// are `ended`.
    pub fn answer(&self, query: &Query, soft: Option<&Soft>) -> Answer {
        match query {
            Query::Task { project, id } => Answer::Task(self.find_task(project, id).cloned().map(Box::new)),
            Query::TaskByUid { uid } => Answer::Task(self.task(*uid).cloned().map(Box::new)),
            Query::Tasks { project, filter, after, limit } => match Filter::parse(filter) {
                Ok(filter) => self.list_tasks(project, &filter, *after, *limit),
                Err(why) => Answer::BadQuery(why),
            },
            Query::Agent { project, name } => Answer::Agent(self.agent(project, name).cloned()),
            Query::Agents { project, after, limit } => self.list_agents(project, after.as_deref(), *limit),
            Query::Quota { path } => Answer::Quota(self.quota_at(path, self.now_ms(soft))),
            Query::Quotas => {
                let now_ms = self.now_ms(soft);
                Answer::Quotas(self.quotas.values().map(|row| refilled(row, now_ms)).collect())
            }
            Query::Nodes => Answer::Nodes(self.nodes().cloned().collect()),
            Query::Models => Answer::Models(self.models.values().cloned().collect()),
            Query::Events { uid, from } => self.events_answer(*uid, *from),
            Query::Children { parent } => self.children(*parent),
            Query::Cluster => Answer::Cluster(self.facts()),
            Query::Explain { project, id } => match soft {
                Some(soft) => {
                    let uid = self.find_task(project, id).map(|row| row.uid);
                    Answer::Explain(uid.and_then(|uid| explain(self, soft, uid)))
                }
                None => Answer::BadQuery("only the leader can explain; ask it".to_string()),
            },
            Query::Heads { project, prefix } => Answer::Heads(self.heads(project, prefix).cloned().collect()),
            Query::Schedules { project } => Answer::Schedules(self.schedules_of(project).cloned().collect()),
            Query::Forgotten { since_ms, after, limit } => {
                let rows = self.forgotten_since(*since_ms, after.as_ref());
                let (rows, more) = page(rows, *limit);
                Answer::Forgotten { rows, more }
            }
            Query::Kept { project, node, homed, after, limit } => {
                let (rows, more) = page(self.kept_of(project, *node, *homed, after.as_ref()), *limit);
                Answer::Kept { rows, more }
            }
            Query::Short { holder, gone, unproved, ended, after, limit } => {
                let gap = Gap { holder: *holder, gone, unproved: *unproved, ended: *ended };
                let short = self.short_of_copies(&gap, after.as_ref(), *limit);
                Answer::Short { rows: short.rows, more: short.more, short: short.count, lost: short.lost }
            }
            Query::Prices => Answer::Prices(self.prices.values().cloned().collect()),
            Query::Audit { after, subject, limit } => {
                let (rows, more) = page(self.audit_after(*after, subject).cloned(), *limit);
                Answer::Audit { rows, more }
            }
            Query::PreviewQuota { path, changes, etag, reason } => {
                let request = RequestKey::default();
                let cut = Cut { path, changes, etag: *etag, reason, request: &request };
                match preview(self, &cut, self.clock()) {
                    Ok((row, paused)) => Answer::Preview { row: Box::new(row), paused },
                    Err(refusal) => Answer::Refused(refusal),
                }
            }
        }
    }

    fn list_tasks(
        &self,
        project: &ProjectName,
        filter: &Filter,
        after: Option<TaskUid>,
        limit: u32,
    ) -> Answer {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let uids = self.tasks.index().by_project.get(project).into_iter();
        let found = uids.flat_map(|uids| uids.range((from, Bound::Unbounded)));
        let found = found.filter_map(|uid| self.task(*uid)).filter(|row| filter.takes(row));
        let (rows, more) = page(found.cloned(), limit);
        Answer::Tasks { rows, more }
    }

    fn list_agents(&self, project: &ProjectName, after: Option<&str>, limit: u32) -> Answer {
        // No agent has an empty name, so the first key of a project lies before all of its agents.
        let from = Bound::Excluded((project.clone(), after.unwrap_or_default().to_string()));
        let of_project = self.agents.range((from, Bound::Unbounded)).take_while(|((p, _), _)| p == project);
        let (rows, more) = page(of_project.map(|(_, row): (_, &AgentRow)| row.clone()), limit);
        Answer::Agents { rows, more }
    }

    /// A place of the tree that nobody used yet has no limits; a malformed path is `None`.
    pub fn quota(&self, path: &str) -> Option<QuotaRow> {
        self.quota_at(path, self.ledger_ms())
    }

    fn quota_at(&self, path: &str, ledger_ms: u64) -> Option<QuotaRow> {
        read_path(path).ok()?;
        Some(self.quotas.get(&path.to_string()).map_or_else(|| blank(path), |row| refilled(row, ledger_ms)))
    }

    /// The leader knows what time it is; others know the time of the last entry. An idle cluster writes none, and its
    /// buckets fill all the same.
    fn now_ms(&self, soft: Option<&Soft>) -> u64 {
        soft.map_or(0, |soft| soft.ledger_ms).max(self.ledger_ms())
    }

    fn events_answer(&self, uid: TaskUid, from: u64) -> Answer {
        let first_kept = self.events_from(uid, 0).next().map_or(0, |event| event.sequence);
        let ended = self.task(uid).is_none_or(|row| row.state.is_final());
        Answer::Events { events: self.events_from(uid, from).collect(), first_kept, ended }
    }

    fn children(&self, parent: TaskUid) -> Answer {
        let uids = self.task(parent).map_or_else(Vec::new, |row| row.children.clone());
        let rows: Vec<TaskRow> = uids.into_iter().filter_map(|uid| self.task(uid).cloned()).collect();
        Answer::Tasks { rows, more: false }
    }

    fn facts(&self) -> ClusterFacts {
        let by_state = self.tasks.index().by_state.iter();
        let oldest_ms = self.tasks.index().queue.values().flatten().map(|key| key.queued_ms).min();
        ClusterFacts {
            cluster_id: self.cluster_id(),
            state_hash: self.state_hash(),
            applied_index: self.applied_index(),
            feature_level: self.meta().feature_level,
            tasks_by_state: by_state.map(|(name, count)| (name.to_string(), *count)).collect(),
            incarnation: self.incarnation(),
            copies: self.copies(),
            queue_age_ms: oldest_ms.map_or(0, |queued_ms| self.ledger_ms().saturating_sub(queued_ms)),
        }
    }
}

fn refilled(row: &QuotaRow, ledger_ms: u64) -> QuotaRow {
    let mut row = row.clone();
    row.refill(ledger_ms);
    row
}

/// The first `limit` rows (0: the default page), and whether there are more.
fn page<T>(mut rows: impl Iterator<Item = T>, limit: u32) -> (Vec<T>, bool) {
    let limit = if limit == 0 { limits::PAGE_SIZE } else { (limit as usize).min(limits::PAGE_SIZE_MAX) };
    let page: Vec<T> = rows.by_ref().take(limit).collect();
    (page, rows.next().is_some())
}
