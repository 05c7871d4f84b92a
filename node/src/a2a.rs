//! A2A 1.0 (JSON-RPC over HTTP) at every node's HTTP port: other people's agents give tasks to ours. Below
//! `/a2a/PROJECT/AGENT` there is a card, and one address that takes messages, streams, asks and cancels.
//!
//! It is the door in another dress, as the page is: an A2A task is one of our tasks, and every call goes through the
//! door's own checks and handlers. Nothing is kept here.
//!
//! Read: `call` (what is asked, and by which rules it is refused), `shapes` (tasks as A2A shows them, pure), `send`
//! (messages that begin or continue a task), `stream` (a task as it goes on), `card`.

mod call;
mod card;
mod send;
mod shapes;
mod stream;

use crate::door::{Access, Door};
use crate::page::Caller;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use call::{Call, Refused};
use proto::v1 as pb;
use proto::v1::agent_service_server::AgentService;
use proto::v1::task_service_server::TaskService;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::Code;

/// Streams and calls that wait for a task, on this node: each holds a watch of the door.
const WATCHES: usize = 256;
/// A message holds the inputs of a task.
const BODY_BYTES: usize = 16 << 20;

const GET_AGENT: &str = "/quorate.v1.AgentService/GetAgent";
const GET_TASK: &str = "/quorate.v1.TaskService/GetTask";
const CANCEL_TASK: &str = "/quorate.v1.TaskService/CancelTask";

/// What answers are made of. Cheap to clone.
#[derive(Clone)]
pub(crate) struct A2a {
    door: Door,
    access: Access,
    watches: Arc<Semaphore>,
    stop: CancellationToken,
    /// Whether the port speaks TLS.
    secure: bool,
}

/// Whose address it is.
#[derive(Clone, Deserialize)]
struct Place {
    project: String,
    agent: String,
}

/// A caller at an agent's address, with the id of their call.
struct At {
    a2a: A2a,
    caller: Caller,
    place: Place,
}

pub(crate) fn routes(door: Door, access: Access, secure: bool, stop: CancellationToken) -> Router {
    let a2a = A2a { door, access, watches: Arc::new(Semaphore::new(WATCHES)), stop, secure };
    Router::new()
        .route("/a2a/{project}/{agent}/.well-known/agent-card.json", get(card))
        .route("/a2a/{project}/{agent}", post(answer))
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .with_state(a2a)
}

impl AsRef<Access> for A2a {
    fn as_ref(&self) -> &Access {
        &self.access
    }
}

async fn card(State(a2a): State<A2a>, caller: Caller, Path(place): Path<Place>) -> Response {
    let base = card::base(&caller.headers, a2a.secure);
    let at = At { a2a, caller, place };
    match at.agent().await {
        Ok(agent) => Json(card::card(&agent, &base)).into_response(),
        Err(refused) => refused.into_response(),
    }
}

async fn answer(
    State(a2a): State<A2a>,
    caller: Caller,
    Path(place): Path<Place>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let performed = match Call::read(&headers, &body) {
        Ok(call) => perform(At { a2a, caller, place }, call).await,
        Err(refused) => Err(refused),
    };
    performed.unwrap_or_else(|refused| refused.response(&Call::id(&body)))
}

async fn perform(at: At, call: Call) -> Result<Response, Refused> {
    let id = call.id.clone();
    match call.method.as_str() {
        "SendMessage" => at.send(call.params()?).await.map(|task| told(&id, &json!({ "task": task }))),
        "SendStreamingMessage" => {
            let task = at.begin(&call.params()?).await?;
            at.stream(task, id).await
        }
        "GetTask" => {
            let task = at.own_task(&call.task_id()?).await?;
            Ok(told(&id, &at.shown(&task).await?))
        }
        "CancelTask" => {
            let task = at.cancel(&call.task_id()?).await?;
            Ok(told(&id, &at.shown(&task).await?))
        }
        "SubscribeToTask" => {
            let task = at.own_task(&call.task_id()?).await?;
            if shapes::is_over(task.state()) {
                let why = "the task has ended, nothing of it will come; get it by GetTask";
                return Err(Refused::new(call::UNSUPPORTED, why));
            }
            at.stream(task, id).await
        }
        other => Err(call::unknown(other)),
    }
}

fn told(id: &Value, result: &Value) -> Response {
    let body = json!({ "jsonrpc": "2.0", "id": id, "result": result });
    let mut response = (StatusCode::OK, body.to_string()).into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

impl At {
    /// The agent of this address.
    async fn agent(&self) -> Result<pb::Agent, Refused> {
        let Place { project, agent } = self.place.clone();
        let message = pb::GetAgentRequest { project, name: agent };
        let agent = self.a2a.door.get_agent(self.caller.request(GET_AGENT, message)?).await?;
        Ok(agent.into_inner())
    }

    async fn task(&self, id: &str) -> Result<pb::Task, Refused> {
        let project = self.place.project.clone();
        let message = pb::GetTaskRequest { project, id: id.into(), allow_stale: false };
        let task = self.a2a.door.get_task(self.caller.request(GET_TASK, message)?).await;
        task.map(tonic::Response::into_inner).map_err(|status| match status.code() {
            Code::NotFound => Refused::new(call::TASK_NOT_FOUND, status.message()),
            _ => status.into(),
        })
    }

    /// A task of this address's agent: others' are none here.
    async fn own_task(&self, id: &str) -> Result<pb::Task, Refused> {
        let task = self.task(id).await?;
        if task.agent == self.place.agent {
            return Ok(task);
        }
        Err(Refused::new(call::TASK_NOT_FOUND, &format!("there is no task {id:?} of this agent")))
    }

    async fn cancel(&self, id: &str) -> Result<pb::Task, Refused> {
        let task = self.own_task(id).await?;
        if shapes::is_over(task.state()) {
            let why = format!("the task has ended: it is {}", task.state().as_str_name());
            return Err(Refused::new(call::NOT_CANCELABLE, &why));
        }
        let message = pb::CancelTaskRequest {
            project: self.place.project.clone(),
            id: task.uid.clone(),
            request_id: format!("a2a-cancel-{}", task.uid),
        };
        let cancelled = self.a2a.door.cancel_task(self.caller.request(CANCEL_TASK, message)?).await?;
        Ok(cancelled.into_inner())
    }
}
