//! Tools that must be called: the form of the one call that the answer is then.

use super::super::body::{Chat, Tool, ToolChoice};
use serde_json::{Value, json};

/// The schema of the answer when a tool must be called; None where the model may do as it likes.
pub(super) fn forced(asked: &Chat) -> Option<String> {
    let allowed: Vec<&Tool> = match &asked.choice {
        ToolChoice::Auto | ToolChoice::None => return None,
        ToolChoice::Required => asked.tools.iter().collect(),
        ToolChoice::Named(name) => asked.tools.iter().filter(|tool| tool.name == *name).take(1).collect(),
    };
    let calls: Vec<Value> = allowed.into_iter().map(call).collect();
    Some(match <[Value; 1]>::try_from(calls) {
        Ok([only]) => only.to_string(),
        Err(several) => json!({ "anyOf": several }).to_string(),
    })
}

/// `{"name": "…", "arguments": {…}}` for one tool.
fn call(tool: &Tool) -> Value {
    let arguments = tool.parameters.as_deref().and_then(|schema| serde_json::from_str(schema).ok());
    json!({
        "type": "object",
        "properties": {
            "name": { "const": tool.name },
            "arguments": arguments.unwrap_or_else(|| json!({ "type": "object", "properties": {} })),
        },
        "required": ["name", "arguments"],
        "additionalProperties": false,
    })
}
