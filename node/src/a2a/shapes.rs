//! Our tasks as A2A shows them. Pure.

use proto::v1 as pb;
use proto::v1::TaskState as Ours;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The label that holds the context id that a caller gave.
pub(super) const CONTEXT: &str = "a2a_context";

/// Whether nothing can come any more.
pub(super) fn is_over(state: Ours) -> bool {
    matches!(state, Ours::Succeeded | Ours::Failed | Ours::Cancelled | Ours::Expired)
}

/// Whether a caller who waits for the task has its turn: it is over, or goes on only when somebody does something.
pub(super) fn is_at_rest(state: Ours) -> bool {
    is_over(state) || matches!(state, Ours::WaitingInput | Ours::Paused)
}

fn state(ours: Ours) -> &'static str {
    match ours {
        Ours::Unspecified => "TASK_STATE_UNSPECIFIED",
        Ours::Pending => "TASK_STATE_SUBMITTED",
        Ours::Running | Ours::WaitingTool | Ours::WaitingChild | Ours::Paused | Ours::Cancelling => {
            "TASK_STATE_WORKING"
        }
        Ours::WaitingInput => "TASK_STATE_INPUT_REQUIRED",
        Ours::Succeeded => "TASK_STATE_COMPLETED",
        Ours::Failed | Ours::Expired => "TASK_STATE_FAILED",
        Ours::Cancelled => "TASK_STATE_CANCELED",
    }
}

/// What people would want to know beside the state.
fn words(task: &pb::Task) -> Option<String> {
    match task.state() {
        Ours::WaitingInput => task.asks.first().map(asked),
        Ours::Paused => Some(format!("Paused: {}.", task.state_reason)),
        Ours::Expired => Some("Its deadline is over.".into()),
        Ours::Failed => {
            Some(if task.error.is_empty() { task.state_reason.clone() } else { task.error.clone() })
        }
        Ours::Pending => task.pending.first().map(|blocker| blocker.message.clone()),
        _ => None,
    }
}

fn asked(ask: &pb::Ask) -> String {
    match ask.kind() {
        pb::AskKind::Approval => {
            format!("May this call of {} be made? Answer \"approve\" or \"reject\". {}", ask.tool, ask.text)
        }
        pb::AskKind::Unknown | pb::AskKind::UnknownMayRepeat => {
            format!(
                "A call of {} was made and nobody knows how it ended. Say how it did. {}",
                ask.tool, ask.text
            )
        }
        _ => ask.text.clone(),
    }
}

pub(super) fn context(task: &pb::Task) -> &str {
    task.labels.get(CONTEXT).unwrap_or(&task.uid)
}

fn status(task: &pb::Task, now_ms: u64) -> Value {
    let at_ms = if task.end_time_ms > 0 { task.end_time_ms } else { now_ms };
    let mut status = json!({ "state": state(task.state()), "timestamp": timestamp(at_ms) });
    if let Some(text) = words(task) {
        // The same state of a task has the same message.
        let id = format!("{}-{}", task.uid, task.sequence);
        status["message"] = json!({ "messageId": id, "taskId": task.uid, "contextId": context(task),
            "role": "ROLE_AGENT", "parts": [{ "text": text }] });
    }
    status
}

fn timestamp(ms: u64) -> String {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000);
    at.ok().and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default()
}

fn artifact(id: &str, text: &str) -> Value {
    json!({ "artifactId": id, "name": id, "parts": [{ "text": text }] })
}

/// A whole task. `result` is there once it has succeeded.
pub(super) fn task(task: &pb::Task, result: Option<&str>, now_ms: u64) -> Value {
    let mut shown = json!({ "id": task.uid, "contextId": context(task), "status": status(task, now_ms) });
    if let Some(result) = result {
        shown["artifacts"] = json!([artifact("result", result)]);
    }
    shown
}

pub(super) fn status_update(task: &pb::Task, now_ms: u64) -> Value {
    json!({ "statusUpdate": { "taskId": task.uid, "contextId": context(task), "status": status(task, now_ms) } })
}

pub(super) fn result_update(task: &pb::Task, result: &str) -> Value {
    json!({ "artifactUpdate": { "taskId": task.uid, "contextId": context(task),
        "artifact": artifact("result", result), "append": false, "lastChunk": true } })
}

/// Text of a step that is not committed: an artifact of its own for each attempt, because it may be said again.
pub(super) fn live_update(task: &pb::Task, chunk: &pb::TokenChunk, first: bool) -> Value {
    let id = format!("live-{}-{}", chunk.step, chunk.attempt.replace('/', "-"));
    json!({ "artifactUpdate": { "taskId": task.uid, "contextId": context(task),
        "artifact": artifact(&id, &chunk.text), "append": !first, "lastChunk": false } })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_state(state: Ours) -> pb::Task {
        pb::Task { uid: "t_1".into(), state: state.into(), sequence: 4, ..Default::default() }
    }

    #[test]
    fn a_task_says_where_it_stands_and_what_it_wants() {
        let mut waits = in_state(Ours::WaitingInput);
        waits.asks.push(pb::Ask {
            kind: pb::AskKind::Approval.into(),
            tool: "mail.send".into(),
            text: "{}".into(),
            ..Default::default()
        });
        waits.labels.insert(CONTEXT.into(), "c-9".into());
        let shown = task(&waits, None, 1_000);
        assert_eq!((&shown["id"], &shown["contextId"]), (&json!("t_1"), &json!("c-9")));
        assert_eq!(shown["status"]["state"], "TASK_STATE_INPUT_REQUIRED");
        assert_eq!(shown["status"]["timestamp"], "1970-01-01T00:00:01Z");
        let text = shown["status"]["message"]["parts"][0]["text"].as_str().unwrap();
        assert!(text.contains("mail.send") && text.contains("approve"), "{text}");
        let done = task(&in_state(Ours::Succeeded), Some("42"), 0);
        assert_eq!(done["artifacts"][0]["parts"][0]["text"], "42");
        assert_eq!(
            (&done["status"]["state"], &done["contextId"]),
            (&json!("TASK_STATE_COMPLETED"), &json!("t_1"))
        );
    }

    #[test]
    fn who_waits_for_a_task_gets_its_turn() {
        for at_rest in
            [Ours::Succeeded, Ours::Failed, Ours::Cancelled, Ours::Expired, Ours::Paused, Ours::WaitingInput]
        {
            assert!(is_at_rest(at_rest), "{at_rest:?}");
        }
        for goes_on in [Ours::Pending, Ours::Running, Ours::WaitingTool, Ours::WaitingChild, Ours::Cancelling]
        {
            assert!(!is_at_rest(goes_on) && !is_over(goes_on), "{goes_on:?}");
        }
    }

    #[test]
    fn another_attempt_is_another_artifact() {
        let chunk = |attempt: &str| pb::TokenChunk {
            step: 3,
            attempt: attempt.into(),
            text: "a".into(),
            ..Default::default()
        };
        let id = |attempt: &str| {
            live_update(&in_state(Ours::Running), &chunk(attempt), true)["artifactUpdate"]["artifact"]["artifactId"].clone()
        };
        assert_eq!(id("1.2.0/0"), "live-3-1.2.0-0");
        assert_ne!(id("1.2.0/0"), id("1.2.0/1"));
    }
}
