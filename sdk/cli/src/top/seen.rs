//! What one look at the cluster found: plain values, for the screen and as JSON.

use crate::failure::Failure;
use crate::values::now_ms;
use futures::future::{join_all, try_join};
use quorate_sdk::data::{ClusterStatus, Limit, LimitKind, Node, Quota, Task, TaskState};
use quorate_sdk::{Class, Client, Code, Error};
use serde::Serialize;
use std::collections::BTreeMap;

/// Tasks of one state that are read; more are counted as "at least".
const READ: u32 = 200;
/// Limits used to this share are near.
const NEAR_PERCENT: u64 = 80;

#[derive(Debug, Serialize)]
pub(super) struct Seen {
    pub(super) at_ms: u64,
    pub(super) project: String,
    /// None where the caller may see one project only.
    pub(super) cluster: Option<ClusterStatus>,
    pub(super) nodes: Vec<Node>,
    pub(super) queue: Vec<Queue>,
    /// Those at work, the busiest first.
    pub(super) running: Vec<Task>,
    /// Those that stand still: paused, or waiting for a person.
    pub(super) stuck: Vec<Task>,
    pub(super) near: Vec<Near>,
    /// Generated tokens a second by node, since the look before.
    pub(super) tokens_second: BTreeMap<String, u64>,
}

/// What waits in one class.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Queue {
    pub(super) class: &'static str,
    pub(super) waiting: usize,
    /// There are more than were read.
    pub(super) more: bool,
    pub(super) oldest_ms: Option<u64>,
    /// Why the oldest waits, where it says so.
    pub(super) reason: String,
}

/// A limit that is nearly used up.
#[derive(Debug, Serialize)]
pub(super) struct Near {
    pub(super) path: String,
    pub(super) key: String,
    pub(super) percent: u64,
    pub(super) limit: Limit,
}

/// Generated tokens by node at a time.
pub(super) struct Totals {
    at_ms: u64,
    by_node: BTreeMap<String, u64>,
}

pub(super) async fn look(client: &Client) -> Result<Seen, Failure> {
    let machines = async { allowed(try_join(client.cluster().status(), client.cluster().nodes()).await) };
    let queues = join_all(Class::ALL.map(|class| waiting(client, class)));
    let working = [TaskState::Running, TaskState::WaitingTool].map(|state| in_state(client, state));
    let standing = [TaskState::Paused, TaskState::WaitingInput].map(|state| in_state(client, state));
    let quotas = client.quotas();
    let (machines, queue, running, stuck, quotas) =
        futures::join!(machines, queues, join_all(working), join_all(standing), quotas.list());
    let (cluster, nodes) = machines?.map_or((None, Vec::new()), |(cluster, nodes)| (Some(cluster), nodes));
    let mut running = flat(running)?;
    running.sort_by_key(|task| (task.class, std::cmp::Reverse(task.usage.generated_tokens)));
    let now_ms = now_ms()?;
    let queue: Vec<Vec<Task>> = queue.into_iter().collect::<Result<_, _>>()?;
    Ok(Seen {
        at_ms: now_ms,
        project: client.project().to_string(),
        cluster,
        nodes,
        queue: Class::ALL.iter().zip(&queue).map(|(class, tasks)| line(*class, tasks, now_ms)).collect(),
        running,
        stuck: flat(stuck)?,
        near: near(&quotas?),
        tokens_second: BTreeMap::new(),
    })
}

/// The machines are for those who may see every project.
fn allowed<T>(answer: Result<T, Error>) -> Result<Option<T>, Error> {
    match answer {
        Err(error) if error.code == Code::PermissionDenied => Ok(None),
        answer => answer.map(Some),
    }
}

async fn waiting(client: &Client, class: Class) -> Result<Vec<Task>, Error> {
    page(client, format!("state=PENDING AND class={}", class.name())).await
}

async fn in_state(client: &Client, state: TaskState) -> Result<Vec<Task>, Error> {
    page(client, format!("state={}", state.name())).await
}

/// From the asked node's own state: a screen may be a moment late, and must cost the leader nothing.
async fn page(client: &Client, filter: String) -> Result<Vec<Task>, Error> {
    let list = client.tasks().list().filter(filter).page_size(READ).allow_stale();
    Ok(list.page(None).await?.items)
}

fn flat(pages: Vec<Result<Vec<Task>, Error>>) -> Result<Vec<Task>, Error> {
    Ok(pages.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

fn line(class: Class, tasks: &[Task], now_ms: u64) -> Queue {
    let oldest = tasks.iter().min_by_key(|task| task.create_time);
    Queue {
        class: class.name(),
        waiting: tasks.len(),
        more: tasks.len() as u32 >= READ,
        oldest_ms: oldest.map(|task| now_ms.saturating_sub(task.create_time.0)),
        reason: oldest.map(|task| task.state_reason.clone()).unwrap_or_default(),
    }
}

fn near(quotas: &[Quota]) -> Vec<Near> {
    let limits = quotas.iter().flat_map(|quota| quota.limits.iter().map(move |it| (quota, it)));
    let mut near: Vec<Near> = limits
        .filter(|(_, (_, limit))| limit.kind != LimitKind::Weight)
        .filter_map(|(quota, (key, limit))| {
            let percent = percent(limit)?;
            Some(Near { path: quota.path.clone(), key: key.clone(), percent, limit: *limit })
        })
        .filter(|near| near.percent >= NEAR_PERCENT)
        .collect();
    near.sort_by(|one, other| other.percent.cmp(&one.percent).then_with(|| one.path.cmp(&other.path)));
    near
}

/// A limit of nothing is near where something is used of it.
fn percent(limit: &Limit) -> Option<u64> {
    let used = limit.used.saturating_add(limit.reserved);
    match limit.limit? {
        0 => (used > 0).then_some(100),
        all => Some((u128::from(used) * 100 / u128::from(all)) as u64),
    }
}

impl Seen {
    pub(super) fn totals(&self) -> Totals {
        let sum = |node: &Node| node.engines.iter().map(|engine| engine.tokens_generated).sum();
        let by_node = self.nodes.iter().map(|node| (node.name.clone(), sum(node))).collect();
        Totals { at_ms: self.at_ms, by_node }
    }

    /// What every node made since.
    pub(super) fn since(&mut self, before: Option<&Totals>) {
        let Some(before) = before else { return };
        let took_ms = self.at_ms.saturating_sub(before.at_ms).max(1);
        let made = |(name, sum): (String, u64)| {
            let more = sum.saturating_sub(*before.by_node.get(&name)?);
            Some((name, more.saturating_mul(1000) / took_ms))
        };
        self.tokens_second = self.totals().by_node.into_iter().filter_map(made).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(path: &str, limits: &[(&str, Option<u64>, u64, LimitKind)]) -> Quota {
        let limit = |(key, limit, used, kind): &(&str, Option<u64>, u64, LimitKind)| {
            (key.to_string(), Limit { limit: *limit, used: *used, kind: *kind, ..Limit::default() })
        };
        Quota {
            path: path.into(),
            limits: limits.iter().map(limit).collect(),
            etag: String::new(),
            reason: String::new(),
            author: String::new(),
            update_time: None,
            would_wait: vec![],
        }
    }

    #[test]
    fn limits_that_are_nearly_used_up_come_first() {
        let quotas = [
            quota(
                "projects/a",
                &[
                    ("running", Some(10), 8, LimitKind::Holding),
                    ("tokens_day", Some(100), 79, LimitKind::Budget),
                    ("tokens_total", None, 7_000, LimitKind::Budget),
                    ("weight", Some(1), 1, LimitKind::Weight),
                ],
            ),
            quota("projects/b", &[("running", Some(0), 1, LimitKind::Holding)]),
        ];
        let found: Vec<(String, u64)> = near(&quotas)
            .into_iter()
            .map(|near| (format!("{} {}", near.path, near.key), near.percent))
            .collect();
        assert_eq!(found, [("projects/b running".into(), 100), ("projects/a running".into(), 80)]);
        assert_eq!(percent(&Limit { limit: Some(u64::MAX), used: u64::MAX, ..Limit::default() }), Some(100));
    }
}
