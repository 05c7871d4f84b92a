//! Why the first tasks of a queue wait. The leader explains each of them, which costs it a look at the whole queue; so only
//! the head of the queue is explained, and once for all who watch.

use super::Page;
use super::caller::with;
use super::lines::Digest;
use super::shapes::Why;
use crate::door::Identity;
use proto::v1 as pb;
use proto::v1::task_service_server::TaskService;
use std::collections::HashMap;
use tonic::Status;
use types::{ProjectName, TaskUid};

/// Tasks of a project that are explained.
const EXPLAINED: usize = 20;

/// What holds each of the first tasks.
pub(crate) type Waiting = HashMap<TaskUid, Why>;

/// Asks about the head of the queue, and about those that stand still for want of budget.
pub(crate) async fn explain_first(
    page: &Page,
    identity: &Identity,
    project: &ProjectName,
    digest: &Digest,
) -> Result<Waiting, Status> {
    let queue = digest.queue();
    let mut waiting = Waiting::new();
    for uid in queue.iter().chain(&digest.stuck()).take(EXPLAINED).map(|line| line.uid) {
        let message =
            pb::ExplainTaskRequest { project: project.to_string(), id: uid.to_string(), what_if: Vec::new() };
        match page.door.explain_task(with(identity.clone(), message)).await {
            Ok(explained) => drop(waiting.insert(uid, Why::of(&explained.into_inner()))),
            // It was deleted since the list was made.
            Err(status) if status.code() == tonic::Code::NotFound => {}
            Err(status) => return Err(status),
        }
    }
    Ok(waiting)
}
