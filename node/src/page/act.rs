//! The page's three verbs: cancel, pause, resume. The table of the door has its say, and then they are for operators and
//! admins only.

use super::Page;
use super::answer::{Answer, value};
use super::caller::{Caller, may_act, with};
use super::shapes;
use crate::door::{Identity, status};
use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use proto::v1 as pb;
use proto::v1::task_service_server::TaskService;
use serde::Deserialize;
use tonic::{Code, Status};

/// `request_id` makes a repeated click one change.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Order {
    project: String,
    id: String,
    verb: Verb,
    request_id: String,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Verb {
    Cancel,
    Pause,
    Resume,
}

impl Verb {
    fn method(self) -> &'static str {
        match self {
            Verb::Cancel => "/quorate.v1.TaskService/CancelTask",
            Verb::Pause => "/quorate.v1.TaskService/PauseTask",
            Verb::Resume => "/quorate.v1.TaskService/ResumeTask",
        }
    }
}

/// Answers with the task as it is then. The body is JSON and says so, which no form of another site can.
pub(crate) async fn act(
    State(page): State<Page>,
    caller: Caller,
    order: Result<Json<Order>, JsonRejection>,
) -> Answer {
    let Json(order) = order.map_err(|why| status::invalid("body", &why.body_text()))?;
    let identity = caller.identity(order.verb.method())?;
    operator(&identity)?;
    let project = order.project.clone();
    let task = perform(&page, &identity, order).await?;
    page.forget(&identity, &project);
    value(&caller.headers, &shapes::task(&task))
}

async fn perform(page: &Page, identity: &Identity, order: Order) -> Result<pb::Task, Status> {
    let Order { project, id, verb, request_id } = order;
    let caller = identity.clone();
    let changed = match verb {
        Verb::Cancel => {
            page.door.cancel_task(with(caller, pb::CancelTaskRequest { project, id, request_id })).await
        }
        Verb::Pause => {
            page.door.pause_task(with(caller, pb::PauseTaskRequest { project, id, request_id })).await
        }
        Verb::Resume => {
            page.door.resume_task(with(caller, pb::ResumeTaskRequest { project, id, request_id })).await
        }
    };
    changed.map(tonic::Response::into_inner)
}

fn operator(identity: &Identity) -> Result<(), Status> {
    if may_act(identity) {
        return Ok(());
    }
    let why = format!("the page's verbs need the role operator, and yours is {}", identity.role.name());
    Err(status::error(Code::PermissionDenied, "ROLE_TOO_LOW", &why, "ask an admin for a key with that role"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::door::Role;

    #[test]
    fn viewers_and_submitters_only_look() {
        for (role, may) in
            [(Role::Viewer, false), (Role::Submitter, false), (Role::Operator, true), (Role::Admin, true)]
        {
            let identity = Identity::new("ci", "a", role).unwrap();
            assert_eq!(operator(&identity).is_ok(), may, "{role:?}");
        }
    }

    #[test]
    fn an_order_says_everything_and_nothing_else() {
        let order = |text: &str| serde_json::from_str::<Order>(text).is_ok();
        assert!(order(r#"{"project":"a","id":"x","verb":"pause","request_id":"r"}"#));
        assert!(!order(r#"{"project":"a","id":"x","verb":"delete","request_id":"r"}"#));
        assert!(!order(r#"{"project":"a","id":"x","verb":"pause","request_id":"r","role":"admin"}"#));
    }
}
