//! Tasks: create, look at, follow, stop.

mod create;
mod cursor;
mod list;
mod signal;
mod watch;

pub use create::CreateTask;
pub use list::ListTasks;
pub use signal::Say;
pub(crate) use watch::Trouble;
pub use watch::Watch;

use crate::client::{Client, fresh_request_id};
use crate::context::ContextReader;
use crate::data::{Explanation, Task, TaskState, WhatIf};
use crate::error::{Code, Error};
use crate::retry::Kind;
use crate::wire::what_if;
use proto::v1;

/// Everything about tasks of the client's project. Ids are task ids or uids.
#[derive(Clone, Copy, Debug)]
pub struct Tasks<'a> {
    pub(crate) client: &'a Client,
}

/// A change of one task that carries nothing but its id and a fresh request id.
macro_rules! change {
    ($(#[$doc:meta])* $name:ident, $method:ident, $message:ident) => {
        $(#[$doc])*
        pub async fn $name(&self, id: &str) -> Result<Task, Error> {
            let message = v1::$message { project: self.project(), id: id.into(), request_id: fresh_request_id()? };
            let call = self.client.call(Kind::Repeatable, |via| {
                let message = message.clone();
                async move { via.tasks().$method(via.request(message)).await }
            });
            Ok(call.await?.into())
        }
    };
}

impl<'a> Tasks<'a> {
    /// A task to be created: add inputs and wishes, then [`CreateTask::send`].
    pub fn create(&self, agent: &str) -> CreateTask<'a> {
        CreateTask::new(self.client, agent)
    }

    /// The task as it is now (linearizable).
    pub async fn get(&self, id: &str) -> Result<Task, Error> {
        self.read(id, false).await
    }

    /// The task as the asked node last saw it: quick, also without a leader, maybe old.
    pub async fn get_stale(&self, id: &str) -> Result<Task, Error> {
        self.read(id, true).await
    }

    /// Tasks of the project: filter, then take pages or all.
    pub fn list(&self) -> ListTasks<'a> {
        ListTasks::new(self.client)
    }

    /// Follows a task from its first event on; [`Watch::from`] starts later.
    pub fn watch(&self, id: &str) -> Watch {
        Watch::new(self.client.clone(), id)
    }

    change! {
        /// Returns when CANCELLING is durable. CANCELLED is the proof that nothing runs any more.
        cancel, cancel_task, CancelTaskRequest
    }
    change! {
        /// Holds the task still at once. A step that is not committed is decided again after resuming.
        pause, pause_task, PauseTaskRequest
    }
    change! {
        /// Puts a paused task back into its queue.
        resume, resume_task, ResumeTaskRequest
    }

    /// Why a task waits, with numbers.
    pub async fn explain(&self, id: &str) -> Result<Explanation, Error> {
        self.explain_if(id, &[]).await
    }

    /// Why it would wait if these limits were set. Nothing changes.
    pub async fn explain_if(&self, id: &str, limits: &[WhatIf]) -> Result<Explanation, Error> {
        let what_if = limits.iter().cloned().map(what_if).collect();
        let message = v1::ExplainTaskRequest { project: self.project(), id: id.into(), what_if };
        let call = self.client.call(Kind::Repeatable, |via| {
            let message = message.clone();
            async move { via.tasks().explain_task(via.request(message)).await }
        });
        Ok(call.await?.into())
    }

    /// Waits, however long, until nothing more will happen to the task.
    pub async fn wait(&self, id: &str) -> Result<Task, Error> {
        let mut watch = self.watch(id).without_tokens();
        while watch.next().await?.is_some() {}
        self.get(id).await
    }

    /// The text of a task that SUCCEEDED, small or large.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` with the task's own error when it ended otherwise or has not ended.
    pub async fn result(&self, task: &Task) -> Result<String, Error> {
        match (task.state, &task.result, &task.result_hash) {
            (TaskState::Succeeded, Some(text), _) => Ok(text.clone()),
            (TaskState::Succeeded, None, Some(hash)) => {
                let project = if task.project.is_empty() { self.client.project() } else { &task.project };
                ContextReader { client: self.client }.read_text_of(project, hash).await
            }
            _ => Err(no_result(task)),
        }
    }

    async fn read(&self, id: &str, allow_stale: bool) -> Result<Task, Error> {
        let message = v1::GetTaskRequest { project: self.project(), id: id.into(), allow_stale };
        let call = self.client.call(Kind::Repeatable, |via| {
            let message = message.clone();
            async move { via.tasks().get_task(via.request(message)).await }
        });
        Ok(call.await?.into())
    }

    fn project(&self) -> String {
        self.client.project.clone()
    }
}

fn no_result(task: &Task) -> Error {
    let message = format!("task {} has no result: it is {}", task.id, task.state.name());
    let next = match task.state.is_final() {
        true => "read its error, then create it again",
        false => "wait until it has SUCCEEDED, or ask why it waits with `quorate task explain`",
    };
    let error = Error::local(Code::FailedPrecondition, "NO_RESULT", message, next);
    match &task.error {
        Some(cause) => error.with_cause(cause),
        None => error,
    }
}
