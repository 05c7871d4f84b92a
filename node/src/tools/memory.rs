//! `memory.search` and `memory.remember`: what an agent knows from other tasks, and what it wants to know in the next.

use super::Needs;
use crate::door::now_ms;
use crate::memories::{Found, Memories, MemoryError, Place, Question, Text};
use ::memory::Scope;
use ::tools::{Call, CancellationToken, Outcome, Policy, Tool, ToolSpec, reason};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::sync::Arc;

/// What stands before the tools' names, as a server's name does.
pub(super) const NAMED: &str = "memory";
/// Hits unless asked for more, and the most.
const HITS: usize = 5;
const HITS_MAX: usize = 20;
/// Of a hit's text; the rest is in the memory.
const SHOWN_BYTES: usize = 4096;
/// What an agent may note at once: a memory is found by what it says, and one that says everything is found by nothing.
const TEXT_BYTES: usize = 32 << 10;

/// What both share.
#[derive(Clone)]
struct Desk {
    memories: Arc<Memories>,
    needs: Arc<Needs>,
}

pub(super) struct Search {
    spec: ToolSpec,
    desk: Desk,
}

pub(super) struct Remember {
    spec: ToolSpec,
    desk: Desk,
}

/// Both tools.
pub(super) fn tools(memories: &Arc<Memories>, needs: &Arc<Needs>) -> Vec<Arc<dyn Tool>> {
    let desk = Desk { memories: memories.clone(), needs: needs.clone() };
    vec![
        Arc::new(Search { spec: search_spec(), desk: desk.clone() }),
        Arc::new(Remember { spec: remember_spec(), desk }),
    ]
}

fn spec(name: &str, description: &str, parameters: Value) -> ToolSpec {
    ToolSpec {
        name: name.to_string(),
        description: description.to_string(),
        parameters,
        policy: Policy::Idempotent,
        timeout_ms: ToolSpec::DEFAULT_TIMEOUT_MS,
        output_bytes: ToolSpec::DEFAULT_OUTPUT_BYTES,
    }
}

fn search_spec() -> ToolSpec {
    spec(
        "memory.search",
        "Looks in the memory of this agent and of its project for texts about something. Answers with the best hits as a \
         JSON list.",
        json!({
            "type": "object",
            "properties": {
                "query": { "type": "string", "minLength": 1, "maxLength": 4096 },
                "k": { "type": "integer", "minimum": 1, "maximum": HITS_MAX },
            },
            "required": ["query"],
            "additionalProperties": false,
        }),
    )
}

fn remember_spec() -> ToolSpec {
    spec(
        "memory.remember",
        "Keeps a text in the memory of this agent, for its later tasks. One fact in whole sentences is found best.",
        json!({
            "type": "object",
            "properties": {
                "text": { "type": "string", "minLength": 1, "maxLength": TEXT_BYTES },
                "tags": {
                    "type": "array",
                    "items": { "type": "string", "minLength": 1, "maxLength": 64 },
                    "maxItems": 16,
                },
            },
            "required": ["text"],
            "additionalProperties": false,
        }),
    )
}

impl Desk {
    fn own(&self, call: &Call) -> Option<Place> {
        let agent = self.needs.agent(&call.operation)?;
        Some(Place { project: call.project.clone(), scope: Scope::Agent(call.project.clone(), agent) })
    }

    async fn search(&self, call: &Call) -> Result<Outcome, MemoryError> {
        let Some(own) = self.own(call) else { return Ok(nobody()) };
        let of_all = Place { project: call.project.clone(), scope: Scope::Project(call.project.clone()) };
        let asked = call.arguments.get("k").and_then(Value::as_u64).and_then(|k| usize::try_from(k).ok());
        let question = Question {
            text: text_of(&call.arguments, "query"),
            most: asked.unwrap_or(HITS).min(HITS_MAX),
            ..Question::default()
        };
        let mut hits: Vec<(Found, String)> = Vec::new();
        for place in [own, of_all] {
            let found = self.memories.search(&place, &question).await?;
            hits.extend(found.hits.into_iter().map(|hit| (hit, place.scope.to_string())));
        }
        hits.sort_by(|(a, _), (b, _)| b.hit.score.total_cmp(&a.hit.score));
        hits.truncate(question.most);
        let shown: Vec<Value> = hits.iter().map(|(hit, scope)| shown(hit, scope)).collect();
        Ok(Outcome::answered(Value::Array(shown).to_string()))
    }

    async fn remember(&self, call: &Call) -> Result<Outcome, MemoryError> {
        let Some(own) = self.own(call) else { return Ok(nobody()) };
        let agent = self.needs.agent(&call.operation).unwrap_or_default();
        let tags = call.arguments.get("tags").and_then(Value::as_array).into_iter().flatten();
        let task = call.operation.split('/').next().unwrap_or_default();
        let text = Text {
            text: text_of(&call.arguments, "text"),
            tags: tags.filter_map(Value::as_str).map(String::from).collect(),
            source: format!("tasks/{task}"),
            author: agent,
            request_id: call.operation.clone(),
            at_ms: now_ms(),
        };
        let item = self.memories.remember(&own, text).await?;
        Ok(Outcome::answered(json!({ "id": item.id.short() }).to_string()))
    }
}

fn text_of(arguments: &Value, key: &str) -> String {
    arguments.get(key).and_then(Value::as_str).unwrap_or_default().to_string()
}

fn nobody() -> Outcome {
    Outcome::refused(reason::TOOL_UNAVAILABLE, "this call belongs to no agent")
}

fn shown(found: &Found, scope: &str) -> Value {
    let text = &found.item.text;
    let mut text_shown = text[..text.floor_char_boundary(SHOWN_BYTES)].to_string();
    if text_shown.len() < text.len() {
        text_shown.push_str(" [cut]");
    }
    json!({
        "id": found.item.id.short(),
        "text": text_shown,
        "scope": scope,
        "tags": found.item.tags,
        "source": found.item.source,
        "score": (found.hit.score * 1000.0).round() / 1000.0,
    })
}

/// Both may be called again, so a failure is never an unknown outcome.
fn told(answer: Result<Outcome, MemoryError>) -> Outcome {
    answer.unwrap_or_else(|error| match error {
        MemoryError::Invalid(_) | MemoryError::Full(_) | MemoryError::Forgotten => {
            Outcome::failed(error.to_string())
        }
        error => Outcome::refused(reason::TOOL_UNAVAILABLE, error.to_string()),
    })
}

async fn unless_stopped(
    work: impl Future<Output = Result<Outcome, MemoryError>>,
    stop: CancellationToken,
) -> Outcome {
    match stop.run_until_cancelled(work).await {
        Some(answer) => told(answer),
        None => Outcome::unknown(reason::TOOL_STOPPED, "the call was stopped; it may be made again"),
    }
}

impl Tool for Search {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn call<'a>(&'a self, call: &'a Call, stop: CancellationToken) -> BoxFuture<'a, Outcome> {
        Box::pin(unless_stopped(self.desk.search(call), stop))
    }
}

impl Tool for Remember {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn call<'a>(&'a self, call: &'a Call, stop: CancellationToken) -> BoxFuture<'a, Outcome> {
        Box::pin(unless_stopped(self.desk.remember(call), stop))
    }
}
