//! What the page's views ask for, each answered by the door's own handlers or from what they are made of.

use super::Page;
use super::answer::{Answer, value};
use super::caller::{Caller, may_act};
use super::lines::{Digest, Line, Order, Wanted};
use super::shapes::{self, Row, Why};
use super::waiting::explain_first;
use crate::door::Identity;
use axum::extract::{Query, State};
use proto::v1 as pb;
use proto::v1::cluster_service_server::ClusterService;
use proto::v1::quota_service_server::QuotaService;
use proto::v1::task_service_server::TaskService;
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;
use tonic::Status;
use types::ProjectName;

const STATUS: &str = "/quorate.v1.ClusterService/GetClusterStatus";
const NODES: &str = "/quorate.v1.ClusterService/ListNodes";
const TASKS: &str = "/quorate.v1.TaskService/ListTasks";
const TASK: &str = "/quorate.v1.TaskService/GetTask";
const EXPLAIN: &str = "/quorate.v1.TaskService/ExplainTask";
const QUOTAS: &str = "/quorate.v1.QuotaService/ListQuotas";

/// Rows of the queue that are sent.
const QUEUED: usize = 200;

/// A project; empty is the caller's own.
#[derive(Deserialize)]
pub(crate) struct InProject {
    #[serde(default)]
    project: String,
}

/// A task of a project, by its id or uid.
#[derive(Deserialize)]
pub(crate) struct OneTask {
    #[serde(default)]
    pub(crate) project: String,
    pub(crate) id: String,
}

/// Tasks of a project; what is not said is not asked for.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(crate) struct Tasks {
    project: String,
    text: String,
    state: String,
    roots: bool,
    order: Order,
    page: usize,
    size: usize,
}

impl From<Tasks> for Wanted {
    fn from(it: Tasks) -> Wanted {
        let Tasks { text, state, roots, order, page, size, .. } = it;
        Wanted { text, state, roots, order, page, size }
    }
}

/// Who the caller is, what they may do here, and which projects there are for them.
pub(crate) async fn me(State(page): State<Page>, caller: Caller) -> Answer {
    let identity = caller.identity(QUOTAS)?;
    let own = identity.project.clone().unwrap_or_default();
    let quotas = page.door.list_quotas(caller.request(QUOTAS, pb::ListQuotasRequest::default())?).await?;
    let paths = quotas.get_ref().quotas.iter().map(|quota| quota.path.as_str());
    value(
        &caller.headers,
        &json!({
            "subject": identity.subject, "role": identity.role.name(), "project": own.as_str(),
            "bound": identity.project.is_some(), "may_act": may_act(&identity),
            "projects": projects(own.as_str(), paths), "node": page.door.own_name(),
            "version": env!("CARGO_PKG_VERSION"),
        }),
    )
}

/// Projects that have a place in the tree of limits, and the caller's own.
fn projects<'a>(own: &'a str, paths: impl Iterator<Item = &'a str>) -> BTreeSet<&'a str> {
    let name = |path: &'a str| path.strip_prefix("projects/")?.split("/agents/").next();
    paths.filter_map(name).chain([own]).collect()
}

pub(crate) async fn cluster(State(page): State<Page>, caller: Caller) -> Answer {
    let status = caller.request(STATUS, pb::GetClusterStatusRequest {})?;
    let nodes = caller.request(NODES, pb::ListNodesRequest {})?;
    let status = page.door.get_cluster_status(status).await?.into_inner();
    let nodes = page.door.list_nodes(nodes).await?.into_inner().nodes;
    let nodes: Vec<_> = nodes.iter().map(shapes::node).collect();
    value(&caller.headers, &json!({ "cluster": shapes::cluster(&status), "nodes": nodes }))
}

pub(crate) async fn tasks(State(page): State<Page>, caller: Caller, Query(asked): Query<Tasks>) -> Answer {
    let identity = caller.identity(TASKS)?;
    let project = page.door.project_of(&identity, &asked.project)?;
    let digest = page.digest(&project).await?;
    let view = digest.view(&asked.into());
    let rows: Vec<Row<'_>> = view.lines.iter().map(|line| Row::of(line, &page.door)).collect();
    value(&caller.headers, &json!({ "counts": digest.counts(), "matched": view.matched, "tasks": rows }))
}

/// The whole tree that a task stands in.
pub(crate) async fn tree(State(page): State<Page>, caller: Caller, Query(asked): Query<OneTask>) -> Answer {
    let identity = caller.identity(TASKS)?;
    let project = page.door.project_of(&identity, &asked.project)?;
    let digest = page.digest(&project).await?;
    let rows = digest.tree(&asked.id).into_iter().map(|leaf| Row::in_tree(leaf, &page.door));
    value(&caller.headers, &json!({ "tasks": rows.collect::<Vec<_>>() }))
}

/// What waits, why, and what stands still until somebody does something.
pub(crate) async fn queue(
    State(page): State<Page>,
    caller: Caller,
    Query(asked): Query<InProject>,
) -> Answer {
    let identity = caller.identity(EXPLAIN)?;
    let project = page.door.project_of(&identity, &asked.project)?;
    let digest = page.digest(&project).await?;
    let explaining = explain_first(&page, &identity, &project, &digest);
    let waiting = page.waiting.get(&project, page.door.applied(), explaining).await?;
    let (queue, stuck) = (digest.queue(), digest.stuck());
    let rows = |lines: &[&Line]| -> Vec<serde_json::Value> {
        let row =
            |line: &&Line| serde_json::to_value(Row::of(line, &page.door).because(waiting.get(&line.uid)));
        lines.iter().take(QUEUED).filter_map(|line| row(line).ok()).collect()
    };
    value(
        &caller.headers,
        &json!({
            "waiting": queue.len(), "queue": rows(&queue), "stuck_count": stuck.len(), "stuck": rows(&stuck),
            "counts": digest.counts(),
        }),
    )
}

pub(crate) async fn task(State(page): State<Page>, caller: Caller, Query(asked): Query<OneTask>) -> Answer {
    let message = pb::GetTaskRequest { project: asked.project, id: asked.id, allow_stale: false };
    let task = page.door.get_task(caller.request(TASK, message)?).await?;
    value(&caller.headers, &shapes::task(task.get_ref()))
}

pub(crate) async fn explain(
    State(page): State<Page>,
    caller: Caller,
    Query(asked): Query<OneTask>,
) -> Answer {
    let message = pb::ExplainTaskRequest { project: asked.project, id: asked.id, what_if: Vec::new() };
    let explained = page.door.explain_task(caller.request(EXPLAIN, message)?).await?;
    value(&caller.headers, &Why::of(explained.get_ref()))
}

pub(crate) async fn quotas(State(page): State<Page>, caller: Caller) -> Answer {
    let quotas = page.door.list_quotas(caller.request(QUOTAS, pb::ListQuotasRequest::default())?).await?;
    // Places of single tasks are as many as there are tasks; each is shown with its task.
    let lasting = quotas.get_ref().quotas.iter().filter(|quota| !quota.path.starts_with("tasks/"));
    value(&caller.headers, &json!({ "quotas": lasting.map(shapes::quota).collect::<Vec<_>>() }))
}

impl Page {
    /// The project's tasks in short, as this node knows them. The caller was asked about the project before.
    async fn digest(&self, project: &ProjectName) -> Result<Arc<Digest>, Status> {
        let make = async { Ok(Digest::of(&self.door.task_rows(project).await?)) };
        self.tasks.get(project, self.door.applied(), make).await
    }

    /// What a caller has just changed is to be seen in the next answer.
    pub(crate) fn forget(&self, identity: &Identity, project: &str) {
        if let Ok(project) = self.door.project_of(identity, project) {
            self.tasks.forget(&project);
            self.waiting.forget(&project);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn projects_are_those_with_a_place_and_ones_own() {
        let paths = ["cluster", "projects/a", "projects/a/agents/x", "projects/a/b", "tasks/t_1"];
        let found: Vec<&str> = projects("default", paths.into_iter()).into_iter().collect();
        assert_eq!(found, ["a", "a/b", "default"]);
    }
}
