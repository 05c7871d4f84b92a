//! One task's committed steps with what each decided, cost and added to its context, and the text of single segments.

use super::Page;
use super::answer::{Answer, value};
use super::caller::Caller;
use crate::door::Piece;
use axum::extract::{Query, State};
use futures::StreamExt;
use mind::{Decision, Finish, StepRecord};
use proto::v1 as pb;
use proto::v1::context_service_server::ContextService;
use serde::Deserialize;
use serde_json::{Value, json};
use tonic::Status;

const CONTEXT: &str = "/quorate.v1.ContextService/GetContext";
const SEGMENT: &str = "/quorate.v1.ContextService/ReadSegment";
/// Text of one segment that is shown; `quorate` gives the rest.
const SHOWN_BYTES: usize = 64 << 10;

#[derive(Deserialize)]
pub(crate) struct Steps {
    #[serde(default)]
    project: String,
    id: String,
    /// Only steps after this one: the earlier ones never change.
    #[serde(default)]
    after: u64,
}

#[derive(Deserialize)]
pub(crate) struct OneSegment {
    #[serde(default)]
    project: String,
    hash: String,
}

pub(crate) async fn journal(State(page): State<Page>, caller: Caller, Query(asked): Query<Steps>) -> Answer {
    let identity = caller.identity(CONTEXT)?;
    let project = page.door.project_of(&identity, &asked.project)?;
    let journal = page.door.journal(&project, &asked.id, asked.after).await?;
    let steps: Vec<Value> = journal.steps.iter().map(|(record, pieces)| step(record, pieces)).collect();
    let given: Vec<Value> = journal.given.iter().map(piece).collect();
    value(&caller.headers, &json!({ "given": given, "steps": steps }))
}

fn step(record: &StepRecord, pieces: &[Piece]) -> Value {
    let spent = record.spent;
    json!({
        "step": record.n, "epoch": record.epoch.to_string(), "decision": decision(&record.decision),
        "prompt_tokens": spent.prompt_tokens, "cached_tokens": spent.cached_tokens,
        "generated_tokens": spent.generated_tokens, "micro_usd": spent.micro_usd,
        "chain_tokens": record.chain_tokens, "added": pieces.iter().map(piece).collect::<Vec<_>>(),
        "model": record.route.as_ref().map(|route| &route.model),
        "model_reason": record.route.as_ref().map(|route| &route.reason),
    })
}

fn piece(it: &Piece) -> Value {
    json!({ "hash": it.hash.to_string(), "kind": it.kind, "author": it.author, "bytes": it.bytes })
}

/// A word for what was decided, and what it was about.
fn decision(decision: &Decision) -> Value {
    let (word, about) = match decision {
        Decision::Called { finish, .. } => ("called the model", finished(*finish)),
        Decision::Spawned { children, .. } => ("started children", children.len().to_string()),
        Decision::Waited { .. } => ("waited for children", String::new()),
        Decision::Finished { finish, .. } => ("finished", finish.map_or(String::new(), finished)),
        Decision::Failed { reason, .. } => ("failed", reason.clone()),
        Decision::Paused { reason, .. } => ("paused", reason.clone()),
        Decision::Asked { calls, .. } => {
            let tools: Vec<&str> = calls.iter().map(|call| call.tool.as_str()).collect();
            ("asked for tools", tools.join(", "))
        }
        Decision::Moved { begun, ended, spawned } => {
            ("tools", moved(begun.len(), ended.len(), spawned.len()))
        }
        Decision::Heard { messages, rollback } => {
            let how = if *rollback { ", in place of what it did" } else { "" };
            ("heard messages", format!("{}{how}", messages.len()))
        }
        Decision::Answered { finish, .. } => ("answered", finished(*finish)),
        Decision::Rested => ("rested", String::new()),
        Decision::Condensing { count, .. } => ("lets old messages be summarised", count.to_string()),
        Decision::Condensed { count, summary: Some(_), .. } => ("summarised old messages", count.to_string()),
        Decision::Condensed { reason, .. } => ("found no summary", reason.clone()),
        Decision::OffSchema { finish, .. } => ("answered off its schema", finished(*finish)),
    };
    json!({ "word": word, "about": about })
}

fn finished(finish: Finish) -> String {
    match finish {
        Finish::Stop => String::new(),
        Finish::Length => "cut at its length".to_string(),
        Finish::Budget => "cut by its budget".to_string(),
    }
}

fn moved(begun: usize, ended: usize, spawned: usize) -> String {
    let parts = [(begun, "begun"), (ended, "ended"), (spawned, "as children")];
    let said = parts.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}"));
    said.collect::<Vec<_>>().join(", ")
}

/// Text is sent as JSON and shown as text, whatever is in it.
pub(crate) async fn segment(
    State(page): State<Page>,
    caller: Caller,
    Query(asked): Query<OneSegment>,
) -> Answer {
    let message = pb::ReadSegmentRequest { project: asked.project, hash: asked.hash };
    let mut chunks = page.door.read_segment(caller.request(SEGMENT, message)?).await?.into_inner();
    let (mut bytes, mut total) = (Vec::new(), 0);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk?;
        total = chunk.total_bytes;
        bytes.extend_from_slice(&chunk.chunk);
        if bytes.len() > SHOWN_BYTES {
            break;
        }
    }
    let text = shown(&bytes).ok_or_else(|| Status::data_loss("a segment that is no text"))?;
    value(&caller.headers, &json!({ "text": text, "total_bytes": total, "cut": text.len() as u64 != total }))
}

/// The beginning, cut between two letters.
fn shown(bytes: &[u8]) -> Option<&str> {
    let part = &bytes[..bytes.len().min(SHOWN_BYTES)];
    match std::str::from_utf8(part) {
        Ok(text) => Some(text),
        // A letter was cut in two at the end; anywhere else it is no text.
        Err(error) if part.len() - error.valid_up_to() < 4 => {
            std::str::from_utf8(&part[..error.valid_up_to()]).ok()
        }
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_between_letters() {
        let wide = "ä".repeat(SHOWN_BYTES);
        assert_eq!(shown(&wide.as_bytes()[..SHOWN_BYTES + 1]).map(str::len), Some(SHOWN_BYTES));
        let odd = format!("x{wide}");
        assert_eq!(shown(odd.as_bytes()).map(str::len), Some(SHOWN_BYTES - 1));
        assert_eq!(shown(b"\xff\xfe\xfd\xfc\xfb"), None);
    }

    #[test]
    fn what_became_of_calls_is_said_shortly() {
        assert_eq!(moved(2, 1, 0), "2 begun, 1 ended");
        assert_eq!(moved(0, 0, 0), "");
    }
}
