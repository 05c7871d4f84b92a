//! Messages: one that names no task begins one, one that names a task is heard by it.

use super::At;
use super::call::{CONTENT_TYPE, INVALID_PARAMS, Refused, UNSUPPORTED};
use super::shapes;
use crate::door::now_ms;
use futures::StreamExt;
use proto::v1 as pb;
use proto::v1::context_service_server::ContextService;
use proto::v1::task_service_server::TaskService;
use proto::v1::{AskKind, SignalKind};
use serde::Deserialize;
use serde_json::Value;
use tonic::Status;

const CREATE_TASK: &str = "/quorate.v1.TaskService/CreateTask";
const SIGNAL_TASK: &str = "/quorate.v1.TaskService/SignalTask";
const WATCH_TASK: &str = "/quorate.v1.TaskService/WatchTask";
const READ_SEGMENT: &str = "/quorate.v1.ContextService/ReadSegment";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Order {
    message: Message,
    #[serde(default)]
    configuration: Configuration,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Message {
    message_id: String,
    #[serde(default)]
    task_id: String,
    #[serde(default)]
    context_id: String,
    parts: Vec<Part>,
}

#[derive(Deserialize)]
struct Part {
    text: Option<String>,
    data: Option<Value>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Configuration {
    #[serde(default)]
    return_immediately: bool,
}

impl Message {
    /// Texts as they are, data as JSON; files can't be read here.
    fn text(&self) -> Result<String, Refused> {
        let part = |part: &Part| match part {
            Part { text: Some(text), .. } => Some(text.clone()),
            Part { data: Some(data), .. } => Some(data.to_string()),
            Part { text: None, data: None } => None,
        };
        let texts: Option<Vec<String>> = self.parts.iter().map(part).collect();
        match texts {
            None => Err(Refused::new(
                CONTENT_TYPE,
                "parts are texts or data here; send no file, neither as bytes nor by its address",
            )),
            Some(texts) if texts.iter().all(|text| text.trim().is_empty()) => {
                Err(Refused::new(INVALID_PARAMS, "message.parts: nothing is said; send a part with a text"))
            }
            Some(texts) => Ok(texts.join("\n\n")),
        }
    }
}

impl At {
    /// The task after the message; where the caller waits, when it is their turn again.
    pub(super) async fn send(&self, order: Order) -> Result<Value, Refused> {
        let task = self.begin(&order).await?;
        let task = if order.configuration.return_immediately { task } else { self.rest(task).await? };
        self.shown(&task).await
    }

    pub(super) async fn begin(&self, order: &Order) -> Result<pb::Task, Refused> {
        match order.message.task_id.as_str() {
            "" => self.create(&order.message).await,
            id => self.say(id, &order.message).await,
        }
    }

    /// The message's id is the request's: a message that comes twice makes one task.
    async fn create(&self, message: &Message) -> Result<pb::Task, Refused> {
        let text = message.text()?;
        let context =
            (!message.context_id.is_empty()).then(|| (shapes::CONTEXT.into(), message.context_id.clone()));
        let request = pb::CreateTaskRequest {
            project: self.place.project.clone(),
            agent: self.place.agent.clone(),
            inputs: vec![pb::Input { name: String::new(), text }],
            request_id: format!("a2a-{}", message.message_id),
            labels: context.into_iter().collect(),
            ..pb::CreateTaskRequest::default()
        };
        let task = self.a2a.door.create_task(self.caller.request(CREATE_TASK, request)?).await?;
        Ok(task.into_inner())
    }

    async fn say(&self, id: &str, message: &Message) -> Result<pb::Task, Refused> {
        let task = self.own_task(id).await?;
        if !message.context_id.is_empty() && message.context_id != shapes::context(&task) {
            return Err(Refused::new(
                INVALID_PARAMS,
                "message.contextId is not that of the task; leave it out",
            ));
        }
        if shapes::is_over(task.state()) {
            let why =
                "the task has ended and hears nothing; send the message without a task id to begin another";
            return Err(Refused::new(UNSUPPORTED, why));
        }
        let (kind, ask, text) = signal(&task, message.text()?)?;
        let request = pb::SignalTaskRequest {
            project: self.place.project.clone(),
            id: task.uid.clone(),
            request_id: format!("a2a-{}", message.message_id),
            kind: kind.into(),
            ask,
            text,
        };
        let task = self.a2a.door.signal_task(self.caller.request(SIGNAL_TASK, request)?).await?;
        Ok(task.into_inner())
    }

    /// Waits until the task is over, or waits itself for somebody. A caller who goes away ends the wait, not the task.
    async fn rest(&self, task: pb::Task) -> Result<pb::Task, Refused> {
        let _place = self.a2a.place()?;
        let message = pb::WatchTaskRequest {
            project: self.place.project.clone(),
            id: task.uid.clone(),
            from_sequence: task.sequence,
            no_tokens: true,
        };
        let mut events =
            self.a2a.door.watch_task(self.caller.request(WATCH_TASK, message)?).await?.into_inner();
        let mut now = task;
        while !shapes::is_at_rest(now.state()) {
            let next = self.a2a.stop.run_until_cancelled(events.next()).await.flatten();
            let Some(event) = next.transpose()? else { break };
            if matches!(event.kind, Some(pb::task_event::Kind::State(_) | pb::task_event::Kind::Gap(_))) {
                now = self.task(&now.uid).await?;
            }
        }
        Ok(now)
    }

    pub(super) async fn shown(&self, task: &pb::Task) -> Result<Value, Refused> {
        let result = self.result(task).await?;
        Ok(shapes::task(task, result.as_deref(), now_ms()))
    }

    /// What the task came to, once it has succeeded.
    pub(super) async fn result(&self, task: &pb::Task) -> Result<Option<String>, Refused> {
        if task.state() != pb::TaskState::Succeeded {
            return Ok(None);
        }
        if !task.result.is_empty() || task.result_hash.is_empty() {
            return Ok(Some(task.result.clone()));
        }
        let message =
            pb::ReadSegmentRequest { project: self.place.project.clone(), hash: task.result_hash.clone() };
        let mut chunks =
            self.a2a.door.read_segment(self.caller.request(READ_SEGMENT, message)?).await?.into_inner();
        let mut bytes = Vec::new();
        while let Some(chunk) = chunks.next().await {
            bytes.extend_from_slice(&chunk?.chunk);
        }
        let text = String::from_utf8(bytes).map_err(|_| Status::data_loss("a result that is no text"))?;
        Ok(Some(text))
    }
}

/// How a task is told: its open question says. The ask's id, where there is one, makes sure that it is that question.
fn signal(task: &pb::Task, text: String) -> Result<(SignalKind, String, String), Refused> {
    let Some(ask) = task.asks.first() else { return Ok((SignalKind::Enqueue, String::new(), text)) };
    let kind = match ask.kind() {
        AskKind::Approval => match text.trim() {
            "approve" => return Ok((SignalKind::Approve, ask.id.clone(), String::new())),
            "reject" => return Ok((SignalKind::Reject, ask.id.clone(), String::new())),
            _ => {
                let why = "the task asks whether a call may be made; answer \"approve\" or \"reject\"";
                return Err(Refused::new(INVALID_PARAMS, why));
            }
        },
        AskKind::NextMessage => return Ok((SignalKind::Message, String::new(), text)),
        AskKind::Question | AskKind::Unknown | AskKind::UnknownMayRepeat | AskKind::Unspecified => {
            SignalKind::Answer
        }
    };
    Ok((kind, ask.id.clone(), text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn message(parts: Value) -> Message {
        serde_json::from_value(json!({ "messageId": "m", "role": "ROLE_USER", "parts": parts })).unwrap()
    }

    #[test]
    fn texts_and_data_are_read_and_files_are_not() {
        let both = message(json!([{ "text": "Sum up." }, { "data": { "n": 1 } }]));
        assert_eq!(both.text().unwrap(), "Sum up.\n\n{\"n\":1}");
        for refused in [
            json!([{ "text": "a" }, { "url": "http://x" }]),
            json!([{ "raw": "aGk=" }]),
            json!([]),
            json!([{ "text": " " }]),
        ] {
            assert!(message(refused.clone()).text().is_err(), "{refused}");
        }
    }

    #[test]
    fn the_open_question_says_what_a_message_is() {
        let asking = |kind: AskKind| pb::Task {
            asks: vec![pb::Ask { id: "1.0".into(), kind: kind.into(), ..Default::default() }],
            ..Default::default()
        };
        let told = |kind, text: &str| signal(&asking(kind), text.into()).map(|(kind, ..)| kind).ok();
        assert_eq!(told(AskKind::Approval, " approve\n"), Some(SignalKind::Approve));
        assert_eq!(told(AskKind::Approval, "reject"), Some(SignalKind::Reject));
        assert_eq!(told(AskKind::Approval, "yes, but carefully"), None);
        assert_eq!(told(AskKind::Question, "blue"), Some(SignalKind::Answer));
        assert_eq!(told(AskKind::NextMessage, "shorter"), Some(SignalKind::Message));
        assert_eq!(
            signal(&pb::Task::default(), "more".into()).map(|(kind, ..)| kind).ok(),
            Some(SignalKind::Enqueue)
        );
    }
}
