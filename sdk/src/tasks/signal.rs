//! What is said to tasks, and tasks that begin again.

use super::Tasks;
use crate::client::fresh_request_id;
use crate::data::Task;
use crate::error::Error;
use crate::retry::Kind;
use proto::v1;

/// Something to be said to a task. Each is heard once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Say<'a> {
    /// Make the call.
    Approve,
    /// Don't; or, of an unknown outcome: the call failed.
    Reject,
    /// The answer to a question, or how an unknown call ended.
    Answer(&'a str),
    /// Make a call whose outcome is unknown again.
    Repeat,
    /// To a task that waits for a message; refused with `TASK_BUSY` while it is at work.
    Message(&'a str),
    /// A message that waits for its turn.
    Enqueue(&'a str),
    /// A message that stops what the task does now, and keeps it.
    Interrupt(&'a str),
    /// A message in place of what the task did since the last one.
    Rollback(&'a str),
}

impl Say<'_> {
    fn parts(&self) -> (v1::SignalKind, &str) {
        match self {
            Say::Approve => (v1::SignalKind::Approve, ""),
            Say::Reject => (v1::SignalKind::Reject, ""),
            Say::Answer(text) => (v1::SignalKind::Answer, text),
            Say::Repeat => (v1::SignalKind::Repeat, ""),
            Say::Message(text) => (v1::SignalKind::Message, text),
            Say::Enqueue(text) => (v1::SignalKind::Enqueue, text),
            Say::Interrupt(text) => (v1::SignalKind::Interrupt, text),
            Say::Rollback(text) => (v1::SignalKind::Rollback, text),
        }
    }
}

impl Tasks<'_> {
    /// Says something to a task. `ask` is the id of the open question; it may be left out where only one is open.
    /// Durable when it returns.
    pub async fn say(&self, id: &str, ask: Option<&str>, say: Say<'_>) -> Result<Task, Error> {
        let (kind, text) = say.parts();
        let message = v1::SignalTaskRequest {
            project: self.project(),
            id: id.into(),
            request_id: fresh_request_id()?,
            kind: kind.into(),
            ask: ask.unwrap_or_default().into(),
            text: text.into(),
        };
        let call = self.client.call(Kind::Repeatable, |via| {
            let message = message.clone();
            async move { via.tasks().signal_task(via.request(message)).await }
        });
        Ok(call.await?.into())
    }

    /// Lets a tool call be made.
    pub async fn approve(&self, id: &str, ask: Option<&str>) -> Result<Task, Error> {
        self.say(id, ask, Say::Approve).await
    }

    /// Does not let a tool call be made; its model hears so.
    pub async fn reject(&self, id: &str, ask: Option<&str>) -> Result<Task, Error> {
        self.say(id, ask, Say::Reject).await
    }

    /// A new task of the same revision and inputs as one that has ended.
    pub async fn retry(&self, id: &str) -> Result<Task, Error> {
        let message = v1::RetryTaskRequest {
            project: self.project(),
            id: id.into(),
            request_id: fresh_request_id()?,
            task_id: String::new(),
        };
        let call = self.client.call(Kind::Repeatable, |via| {
            let message = message.clone();
            async move { via.tasks().retry_task(via.request(message)).await }
        });
        Ok(call.await?.into())
    }

    /// A new task that goes on from a committed step of another one; from the newest where none is named.
    pub async fn fork(&self, id: &str, step: Option<u64>) -> Result<Task, Error> {
        let message = v1::ForkTaskRequest {
            project: self.project(),
            id: id.into(),
            request_id: fresh_request_id()?,
            task_id: String::new(),
            step,
        };
        let call = self.client.call(Kind::Repeatable, |via| {
            let message = message.clone();
            async move { via.tasks().fork_task(via.request(message)).await }
        });
        Ok(call.await?.into())
    }
}
