//! The making of a task: inputs and wishes, checked here against the bounds that the cluster would refuse.

use crate::client::{Client, request_id_or_fresh};
use crate::data::Task;
use crate::error::{Code, Error};
use crate::retry::Kind;
use crate::wire::class_to_wire;
use prost::Message;
use proto::v1;
use types::{Class, limits};

/// A task to be created.
///
/// ```no_run
/// # async fn example(client: quorate_sdk::Client) -> Result<(), quorate_sdk::Error> {
/// let task = client
///     .tasks()
///     .create("team")
///     .named_input("a.md", "first document")
///     .named_input("b.md", "second document")
///     .task_id("report-2026-03")
///     .label("team", "research")
///     .class(quorate_sdk::Class::Batch)
///     .send()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is created before `send`"]
pub struct CreateTask<'a> {
    client: &'a Client,
    message: v1::CreateTaskRequest,
    request_id: Option<String>,
}

impl<'a> CreateTask<'a> {
    pub(super) fn new(client: &'a Client, agent: &str) -> CreateTask<'a> {
        let message = v1::CreateTaskRequest {
            project: client.project.clone(),
            agent: agent.to_string(),
            ..Default::default()
        };
        CreateTask { client, message, request_id: None }
    }

    /// Adds a text.
    pub fn input(self, text: impl Into<String>) -> Self {
        self.named_input("", text)
    }

    /// Adds a text with a name for people, such as a file's.
    pub fn named_input(mut self, name: impl Into<String>, text: impl Into<String>) -> Self {
        self.message.inputs.push(v1::Input { name: name.into(), text: text.into() });
        self
    }

    /// The user's own key, unique in the project.
    pub fn task_id(mut self, id: impl Into<String>) -> Self {
        self.message.task_id = id.into();
        self
    }

    /// Repeating a create with the same request id gives the first answer. A fresh one is made when not set.
    pub fn request_id(mut self, id: impl Into<String>) -> Self {
        self.request_id = Some(id.into());
        self
    }

    /// Which queue it waits in; interactive when not set.
    pub fn class(mut self, class: Class) -> Self {
        self.message.class = class_to_wire(class).into();
        self
    }

    /// 0 to 9; higher runs earlier within its class. 5 when not set.
    pub fn priority(mut self, priority: u32) -> Self {
        self.message.priority = Some(priority);
        self
    }

    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.message.labels.insert(key.into(), value.into());
        self
    }

    /// The caller's span, as the W3C's `traceparent` header says it: the task and all its children go on with its trace.
    pub fn traceparent(self, header: impl Into<String>) -> Self {
        self.label("quorate.traceparent", header)
    }

    /// End of patience in Unix milliseconds: later the task is EXPIRED.
    pub fn deadline_ms(mut self, at_ms: u64) -> Self {
        self.message.deadline_ms = at_ms;
        self
    }

    /// A limit of the task and everything below it, by quota key: `tokens_total`, `micro_usd_total`, …
    pub fn limit(mut self, key: impl Into<String>, limit: u64) -> Self {
        self.message.limits.insert(key.into(), limit);
        self
    }

    /// Not before this time, Unix milliseconds.
    pub fn not_before_ms(mut self, at_ms: u64) -> Self {
        self.message.not_before_ms = at_ms;
        self
    }

    /// A task of the project that has to succeed first; where it doesn't, this one is cancelled.
    pub fn after(mut self, id: impl Into<String>) -> Self {
        self.message.after.push(id.into());
        self
    }

    /// Check everything, change nothing: the answer has no id, and its `pending` says what would hold the task now.
    pub fn validate_only(mut self) -> Self {
        self.message.validate_only = true;
        self
    }

    /// Returns when the task and its inputs are durable.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` before anything is sent when a bound is exceeded. `UNKNOWN_OUTCOME` names the request id to
    /// repeat with.
    pub async fn send(self) -> Result<Task, Error> {
        let mut message = self.message;
        message.request_id = request_id_or_fresh(self.request_id)?;
        check(&message)?;
        let call = self.client.call(Kind::Repeatable, |via| {
            let message = message.clone();
            async move { via.tasks().create_task(via.request(message)).await }
        });
        Ok(call.await.map_err(|error| naming(error, &message.request_id))?.into())
    }
}

/// Whoever does not know the outcome must be able to ask again: that takes the id.
fn naming(mut error: Error, request_id: &str) -> Error {
    if error.reason == "UNKNOWN_OUTCOME" {
        error.next = Some(format!("repeat with the same request id: {request_id}"));
    }
    error
}

fn check(message: &v1::CreateTaskRequest) -> Result<(), Error> {
    let refuse =
        |reason: &str, what: String, next: &str| Err(Error::local(Code::InvalidArgument, reason, what, next));
    if message.inputs.len() > limits::TASK_INPUTS {
        let what = format!(
            "the task has {} inputs; at most {} are taken",
            message.inputs.len(),
            limits::TASK_INPUTS
        );
        return refuse("TOO_MANY_INPUTS", what, "send fewer, or several tasks");
    }
    if let Some(input) = message.inputs.iter().find(|input| input.text.len() > limits::SEGMENT_BYTES) {
        let what = too_large(&format!("the input {:?}", input.name), input.text.len(), limits::SEGMENT_BYTES);
        return refuse("REQUEST_TOO_LARGE", what, "cut it into several inputs");
    }
    if message.encoded_len() > limits::REQUEST_BYTES {
        let what = too_large("the request", message.encoded_len(), limits::REQUEST_BYTES);
        return refuse("REQUEST_TOO_LARGE", what, "send smaller inputs, or several tasks");
    }
    if message.labels.len() > limits::TASK_LABELS {
        let what = format!(
            "the task has {} labels; at most {} are taken",
            message.labels.len(),
            limits::TASK_LABELS
        );
        return refuse("TOO_MANY_LABELS", what, "send fewer labels");
    }
    if message.priority.is_some_and(|priority| priority > 9) {
        let what = format!("priority is {}, outside 0 to 9", message.priority());
        return refuse("BAD_PRIORITY", what, "give 0 (last) to 9 (first within the class)");
    }
    Ok(())
}

fn too_large(what: &str, bytes: usize, limit: usize) -> String {
    format!("{what} is {bytes} bytes; the limit is {limit} bytes ({} MiB)", limit >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut v1::CreateTaskRequest)) -> Error {
        let mut message = v1::CreateTaskRequest::default();
        change(&mut message);
        check(&message).unwrap_err()
    }

    #[test]
    fn bounds_are_named_before_anything_is_sent() {
        let input = |bytes: usize| v1::Input { name: "big.md".into(), text: "x".repeat(bytes) };
        let error = refused(|m| m.inputs.push(input(limits::SEGMENT_BYTES + 1)));
        assert_eq!(error.reason, "REQUEST_TOO_LARGE");
        assert!(error.message.contains("big.md") && error.message.contains("4 MiB"), "{}", error.message);
        let error = refused(|m| m.inputs = vec![input(limits::SEGMENT_BYTES); 2]);
        assert!(error.message.contains(&limits::REQUEST_BYTES.to_string()), "{}", error.message);
        assert_eq!(refused(|m| m.inputs = vec![input(1); limits::TASK_INPUTS + 1]).reason, "TOO_MANY_INPUTS");
        assert_eq!(refused(|m| m.priority = Some(10)).reason, "BAD_PRIORITY");
        let labels = |n: usize| (0..n).map(|i| (i.to_string(), String::new())).collect();
        assert_eq!(refused(|m| m.labels = labels(limits::TASK_LABELS + 1)).reason, "TOO_MANY_LABELS");
        assert!(check(&v1::CreateTaskRequest::default()).is_ok());
    }
}
