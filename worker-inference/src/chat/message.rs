//! What a conversation is made of: messages, calls of tools, and what else a template may be told.

use minijinja::Value;
use serde::Deserialize;

/// Bytes of JSON that one conversation's tools may take: thousands of definitions.
const TOOLS_BYTES_MAX: usize = 4 << 20;

/// One message of a conversation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// `system`, `user`, `assistant` or `tool`.
    pub role: String,
    pub content: String,
    /// What an answer thought before it spoke. Most templates show it only for the turn that is running.
    pub reasoning: Option<String>,
    /// The tools that an answer calls.
    pub tool_calls: Vec<ToolCall>,
    /// Which call a `tool` message answers.
    pub tool_call_id: Option<String>,
    /// The tool that a `tool` message comes from; some templates need it.
    pub name: Option<String>,
}

/// One call of a tool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ToolCall {
    /// May be empty: models of most families give none.
    pub id: String,
    pub name: String,
    /// A JSON object, as text: the order of its keys is the model's.
    pub arguments: String,
}

impl Message {
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Message {
        Message { role: role.into(), content: content.into(), ..Message::default() }
    }

    /// The result of a tool.
    pub fn tool(call_id: impl Into<String>, name: impl Into<String>, content: impl Into<String>) -> Message {
        let (tool_call_id, name) = (Some(call_id.into()), Some(name.into()));
        Message { tool_call_id, name, ..Message::new("tool", content) }
    }

    /// The same with calls of tools.
    pub fn with_calls(mut self, tool_calls: Vec<ToolCall>) -> Message {
        self.tool_calls = tool_calls;
        self
    }
}

/// The definitions of tools: a JSON array of `{"type": "function", "function": {…}}`. Keys keep their order,
/// because models were trained on it.
#[derive(Debug, Clone, PartialEq)]
pub struct Tools(pub(super) Value);

impl Tools {
    /// Parses them; says what is wrong otherwise.
    pub fn from_json(json: &str) -> Result<Tools, String> {
        if json.len() > TOOLS_BYTES_MAX {
            return Err(format!("tools of {} bytes, at most {TOOLS_BYTES_MAX} are taken", json.len()));
        }
        let value = from_json(json).map_err(|error| format!("tools are not JSON: {error}"))?;
        match value.kind() {
            minijinja::value::ValueKind::Seq => Ok(Tools(value)),
            other => Err(format!("tools are {other}, expected an array of function definitions")),
        }
    }

    /// The same as JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string(&self.0).unwrap_or_default()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len().unwrap_or_default()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// JSON with the order of its keys kept.
pub(super) fn from_json(json: &str) -> Result<Value, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_str(json);
    let value = Value::deserialize(&mut reader)?;
    reader.end()?;
    Ok(value)
}

/// What else a template may be told about a conversation. It must stay the same over all turns of one
/// conversation, or its earlier tokens change and nothing of them can be reused.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ChatOptions {
    pub tools: Option<Tools>,
    /// Seconds since 1970 (UTC) that a template takes for "today". Without it, templates that can do without a
    /// date use their own default; the others refuse.
    pub now_unix_s: Option<i64>,
    /// For templates with a switch for it (`enable_thinking`): whether the model thinks before it answers.
    pub thinking: Option<bool>,
}
