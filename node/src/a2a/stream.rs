//! A task as it goes on, as server-sent events: the door's watch in A2A's words.

use super::call::Refused;
use super::shapes;
use super::{A2a, At};
use crate::door::{now_ms, status};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt};
use proto::v1 as pb;
use proto::v1::task_event::Kind;
use proto::v1::task_service_server::TaskService;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::convert::Infallible;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

const WATCH_TASK: &str = "/quorate.v1.TaskService/WatchTask";
/// Updates between a task and a slow reader.
const AHEAD: usize = 64;

type Events = std::pin::Pin<Box<dyn Stream<Item = Result<pb::TaskEvent, Status>> + Send>>;

impl A2a {
    /// A place for someone who follows a task.
    pub(super) fn place(&self) -> Result<OwnedSemaphorePermit, Refused> {
        self.watches.clone().try_acquire_owned().map_err(|_| {
            Refused::from(status::error(
                Code::ResourceExhausted,
                "TOO_MANY_WATCHERS",
                "this node follows as many tasks for A2A as it may",
                "send with returnImmediately and ask by GetTask, or ask another node",
            ))
        })
    }
}

impl At {
    /// The task, and then its updates until it is over or somebody else's turn. Ends with the caller's key and with the
    /// node.
    pub(super) async fn stream(self, task: pb::Task, id: Value) -> Result<Response, Refused> {
        let place = self.a2a.place()?;
        let message = pb::WatchTaskRequest {
            project: self.place.project.clone(),
            id: task.uid.clone(),
            from_sequence: task.sequence + 1,
            no_tokens: false,
        };
        let identity = self.caller.identity(WATCH_TASK)?;
        let revoked = self.caller.revoked(&identity);
        let events = self.a2a.door.watch_task(self.caller.request(WATCH_TASK, message)?).await?.into_inner();
        let (out, told) = mpsc::channel(AHEAD);
        let stop = self.a2a.stop.clone();
        tokio::spawn(async move {
            let telling = Telling { at: self, id, out, shown: BTreeSet::new() };
            let telling = stop.run_until_cancelled(telling.run(task, events));
            match revoked {
                Some(revoked) => tokio::select! { _ = telling => (), () = revoked => () },
                None => drop(telling.await),
            }
            drop(place);
        });
        Ok(Sse::new(ReceiverStream::new(told)).keep_alive(KeepAlive::default()).into_response())
    }
}

/// One stream.
struct Telling {
    at: At,
    id: Value,
    out: mpsc::Sender<Result<Event, Infallible>>,
    /// Attempts of which text was told.
    shown: BTreeSet<(u64, String)>,
}

impl Telling {
    async fn run(mut self, task: pb::Task, events: Events) {
        if let Err(refused) = self.tell(task, events).await {
            let body = refused.body(&self.id);
            let _gone = self.out.send(Ok(Event::default().data(body.to_string()))).await;
        }
    }

    async fn tell(&mut self, task: pb::Task, mut events: Events) -> Result<(), Refused> {
        let whole = self.at.shown(&task).await?;
        let mut goes_on = self.say(json!({ "task": whole })).await && !shapes::is_at_rest(task.state());
        while goes_on {
            let Some(event) = events.next().await.transpose()? else { break };
            goes_on = match event.kind {
                Some(Kind::Token(chunk)) => self.token(&task, &chunk).await,
                Some(Kind::State(_) | Kind::Gap(_)) => self.state(&task.uid).await?,
                Some(Kind::Step(_) | Kind::Retract(_)) | None => true,
            };
        }
        Ok(())
    }

    async fn token(&mut self, task: &pb::Task, chunk: &pb::TokenChunk) -> bool {
        let first = self.shown.insert((chunk.step, chunk.attempt.clone()));
        self.say(shapes::live_update(task, chunk, first)).await
    }

    /// False when there is nothing more to tell.
    async fn state(&self, uid: &str) -> Result<bool, Refused> {
        let task = self.at.task(uid).await?;
        if let Some(result) = self.at.result(&task).await? {
            self.say(shapes::result_update(&task, &result)).await;
        }
        let told = self.say(shapes::status_update(&task, now_ms())).await;
        Ok(told && !shapes::is_at_rest(task.state()))
    }

    /// False when nobody listens any more.
    async fn say(&self, result: Value) -> bool {
        let body = json!({ "jsonrpc": "2.0", "id": self.id, "result": result });
        self.out.send(Ok(Event::default().data(body.to_string()))).await.is_ok()
    }
}
