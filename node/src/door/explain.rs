//! Why a task waits, what would hold a task that is not there yet, and what another limit would change.

use super::quotas::quota_key;
use super::tasks::Order;
use super::{Identity, Membership, convert, status};
use ledger::command::{Command, RequestKey};
use ledger::query::{Answer, Explanation, Query};
use ledger::reply::Reply;
use ledger::rows::TaskRow;
use proto::v1 as pb;
use tonic::{Code, Status};
use types::{NodeId, ProjectName, TaskState, limits};

/// Limits that one question may assume.
const WHAT_IFS: usize = 16;

impl Membership {
    pub(super) async fn explain(&self, project: &ProjectName, id: &str) -> Result<Explanation, Status> {
        let query = Query::Explain { project: project.clone(), id: id.to_string() };
        match self.client.read(query).await.map_err(status::from_client)? {
            Answer::Explain(Some(explanation)) => Ok(explanation),
            _ => Err(status::not_found("task", id, "quorate task list")),
        }
    }

    /// The same as if limits were set.
    pub(super) async fn explain_if(
        &self,
        caller: &Identity,
        project: &ProjectName,
        id: &str,
        what_if: &[pb::WhatIf],
    ) -> Result<Explanation, Status> {
        if what_if.is_empty() {
            return self.explain(project, id).await;
        }
        if id.is_empty() {
            return Err(status::not_found("task", id, "quorate task list"));
        }
        for it in what_if {
            self.check_place(caller, &it.path).await?;
        }
        let commands = assumed(what_if)?;
        let supposed = self.client.suppose(&commands, project, id).await.map_err(status::from_client)?;
        let supposed = supposed.ok_or_else(too_large)?;
        let refused = supposed.replies.into_iter().find_map(|reply| match reply {
            Reply::Refused(refusal) => Some(refusal),
            _ => None,
        });
        match (refused, supposed.explanation) {
            (Some(refusal), _) => Err(status::from_refusal(refusal)),
            (None, Some(explanation)) => Ok(explanation),
            (None, None) => Err(status::not_found("task", id, "quorate task list")),
        }
    }

    /// Who borrows is told by name to those who may see them.
    pub(super) async fn explained(
        &self,
        caller: &Identity,
        mut it: Explanation,
    ) -> Result<pb::ExplainTaskResponse, Status> {
        for (path, _) in it.blockers.iter_mut().filter_map(|blocker| blocker.borrowed_by.as_mut()).flatten() {
            if !caller.may_quota(path) {
                *path = "another project".to_string();
            }
        }
        let node = |(id, eligible, reason): (u64, bool, String)| pb::NodeVerdict {
            node: self.members.name(NodeId(id)),
            eligible,
            reason,
        };
        let position = if it.task.state == TaskState::Pending { it.tasks_ahead + 1 } else { 0 };
        Ok(pb::ExplainTaskResponse {
            task: Some(self.task_message(&it.task, false).await?),
            blockers: it.blockers.into_iter().map(convert::blocker).collect(),
            tasks_ahead: it.tasks_ahead,
            nodes: it.nodes.into_iter().map(node).collect(),
            position,
            eta_ms: it.eta.map(|(wait_ms, _)| wait_ms),
            eta_error_ms: it.eta.map(|(_, error_ms)| error_ms),
        })
    }

    /// Everything the ledger would say to the order, and what would hold the task then. Its inputs are not stored, so
    /// whether stores have room for them is not known; nor what its model calls will ask for.
    pub(super) async fn dry_run(&self, order: Order) -> Result<pb::Task, Status> {
        let project = order.project.clone();
        self.members.refresh(&self.client).await;
        let home = self.members.all().into_iter().map(|row| row.id).take(limits::COPIES).collect();
        let command = order.command(home);
        let supposed = self.client.suppose(&[command], &project, "").await.map_err(status::from_client)?;
        let supposed = supposed.ok_or_else(too_large)?;
        match (supposed.replies.into_iter().next(), supposed.explanation) {
            (Some(Reply::Refused(refusal)), _) => Err(status::from_refusal(refusal)),
            (Some(Reply::Task(row)), explanation) => Ok(self.not_yet(&row, explanation)),
            _ => Err(Status::internal("the ledger answered another question")),
        }
    }

    /// A task that is not there has no id and no place in time.
    fn not_yet(&self, row: &TaskRow, explanation: Option<Explanation>) -> pb::Task {
        let blockers = explanation.map(|it| it.blockers).unwrap_or_default();
        pb::Task {
            id: row.task_id.clone().unwrap_or_default().into(),
            uid: String::new(),
            sequence: 0,
            create_time_ms: 0,
            pending: blockers.into_iter().map(convert::short_blocker).collect(),
            ..convert::task(row, &self.members)
        }
    }
}

fn assumed(what_if: &[pb::WhatIf]) -> Result<Vec<Command>, Status> {
    if what_if.len() > WHAT_IFS {
        return Err(status::invalid("what_if", &format!("{} given, at most {WHAT_IFS}", what_if.len())));
    }
    let set = |it: &pb::WhatIf| {
        Ok(Command::SetQuota {
            path: it.path.clone(),
            changes: vec![(quota_key("what_if.key", &it.key)?, it.limit)],
            etag: None,
            reason: String::new(),
            request: RequestKey::default(),
        })
    };
    what_if.iter().map(set).collect()
}

fn too_large() -> Status {
    status::error(
        Code::FailedPrecondition,
        "TOO_LARGE_TO_SUPPOSE",
        "the cluster keeps more than 10,000 tasks: the state is too large to be copied for a trial",
        "ask without what_if or validate_only; `quorate quota set --dry-run` works at any size",
    )
}
