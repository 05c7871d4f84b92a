//! `board.list`, `board.read` and `board.write`: what the members of a task tree tell each other.

use super::Needs;
use crate::boards::{BoardError, Boards, Change, NAME_BYTES, NOTE_BYTES, Note, Tree};
use ::tools::{Call, CancellationToken, Outcome, Policy, Tool, ToolSpec, reason};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::sync::Arc;

/// What stands before the tools' names, as a server's name does.
pub(super) const NAMED: &str = "board";

#[derive(Clone, Copy)]
enum What {
    List,
    Read,
    Write,
}

struct Board {
    spec: ToolSpec,
    what: What,
    boards: Boards,
    needs: Arc<Needs>,
}

/// All three.
pub(super) fn tools(boards: &Boards, needs: &Arc<Needs>) -> Vec<Arc<dyn Tool>> {
    let tool = |what, spec| -> Arc<dyn Tool> {
        Arc::new(Board { spec, what, boards: boards.clone(), needs: needs.clone() })
    };
    let name = json!({ "type": "string", "minLength": 1, "maxLength": NAME_BYTES });
    vec![
        tool(
            What::List,
            spec(
                "board.list",
                "Lists the notes on the board that all agents of this task share: names, versions, authors.",
                json!({}),
                &[],
            ),
        ),
        tool(
            What::Read,
            spec(
                "board.read",
                "Reads one note of the shared board, with its version.",
                json!({ "name": name }),
                &["name"],
            ),
        ),
        tool(
            What::Write,
            spec(
                "board.write",
                "Writes a note on the shared board. `version` is the version of the note that you have read; 0 for a new \
                 note. If another agent was first you are told, and nothing is changed. An empty text takes the note off.",
                json!({
                    "name": name,
                    "text": { "type": "string", "maxLength": NOTE_BYTES },
                    "version": { "type": "integer", "minimum": 0 },
                }),
                &["name", "text", "version"],
            ),
        ),
    ]
}

fn spec(name: &str, description: &str, properties: Value, required: &[&str]) -> ToolSpec {
    ToolSpec {
        name: name.to_string(),
        description: description.to_string(),
        parameters: json!({
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": false,
        }),
        policy: Policy::Idempotent,
        timeout_ms: ToolSpec::DEFAULT_TIMEOUT_MS,
        output_bytes: ToolSpec::DEFAULT_OUTPUT_BYTES.max(2 * NOTE_BYTES),
    }
}

impl Board {
    async fn answer(&self, call: &Call) -> Outcome {
        let Some((agent, root)) = self.needs.member(&call.operation) else {
            return Outcome::refused(reason::TOOL_UNAVAILABLE, "this call belongs to no task");
        };
        let tree = Tree { project: call.project.clone(), root };
        let done = match self.what {
            What::List => self.list(&tree).await,
            What::Read => self.read(&tree, &text_of(&call.arguments, "name")).await,
            What::Write => self.write(&tree, call, agent).await,
        };
        done.unwrap_or_else(told)
    }

    async fn list(&self, tree: &Tree) -> Result<Outcome, BoardError> {
        let sheet = self.boards.sheet(tree).await?;
        let notes: Vec<Value> = sheet.notes().map(|(name, note)| shown(name, note)).collect();
        Ok(Outcome::answered(Value::Array(notes).to_string()))
    }

    async fn read(&self, tree: &Tree, name: &str) -> Result<Outcome, BoardError> {
        Ok(match self.boards.read(tree, name).await? {
            None => {
                Outcome::failed(format!("there is no {name:?} on the board; board.list names what there is"))
            }
            Some((note, text)) => {
                let mut shown = shown(name, &note);
                shown["text"] = Value::String(text);
                Outcome::answered(shown.to_string())
            }
        })
    }

    async fn write(&self, tree: &Tree, call: &Call, author: String) -> Result<Outcome, BoardError> {
        let text = text_of(&call.arguments, "text");
        // The schema counts characters.
        if text.len() > NOTE_BYTES {
            let (given, most) = (text.len(), NOTE_BYTES);
            return Ok(Outcome::failed(format!("the text has {given} bytes, a note has at most {most}")));
        }
        let change = Change {
            name: text_of(&call.arguments, "name"),
            text,
            seen: call.arguments.get("version").and_then(Value::as_u64).unwrap_or_default(),
            author,
            operation: call.operation.clone(),
        };
        let version = self.boards.write(tree, &change).await?;
        Ok(Outcome::answered(json!({ "name": change.name, "version": version }).to_string()))
    }
}

fn shown(name: &str, note: &Note) -> Value {
    json!({ "name": name, "version": note.version, "author": note.author, "bytes": note.bytes })
}

fn text_of(arguments: &Value, key: &str) -> String {
    arguments.get(key).and_then(Value::as_str).unwrap_or_default().to_string()
}

/// All may be called again, so a failure is never an unknown outcome.
fn told(error: BoardError) -> Outcome {
    match error {
        BoardError::Sheet(error) => Outcome::failed(error.to_string()),
        error => Outcome::refused(reason::TOOL_UNAVAILABLE, error.to_string()),
    }
}

impl Tool for Board {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn call<'a>(&'a self, call: &'a Call, stop: CancellationToken) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let stopped = "the call was stopped; it may be made again";
            let answer = stop.run_until_cancelled(self.answer(call)).await;
            answer.unwrap_or_else(|| Outcome::unknown(reason::TOOL_STOPPED, stopped))
        })
    }
}
