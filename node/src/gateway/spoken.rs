//! Tools for models that know only text: what there is stands in the system prompt, calls and results in tags, as the
//! families do whose templates know tools (Qwen, Hermes). A model whose template knows none reads the same.

use crate::call_schema::call_schema;
use context::{Message, Role};
use serde_json::{Value, json};

const INTRODUCTION: &str =
    "You may call one or more tools. These are the tools, each with the JSON schema of its arguments:";
const RULES: &str =
    "To call a tool, write a JSON object with its name and arguments between tags, and nothing behind it:";
const EXAMPLE: &str = "<tool_call>\n{\"name\": \"the tool's name\", \"arguments\": {}}\n</tool_call>";

/// The conversation in the three roles that every template knows.
pub(super) fn spoken(messages: &[Message], tools: Option<&str>) -> Vec<Message> {
    let mut spoken: Vec<Message> = messages.iter().map(|message| plain(message.clone())).collect();
    if let Some(tools) = tools {
        introduce(&mut spoken, tools);
    }
    spoken
}

fn plain(mut message: Message) -> Message {
    match message.role {
        Role::Tool => {
            message.role = Role::User;
            message.text = format!("<tool_response>\n{}\n</tool_response>", message.text);
        }
        // With its own tokens it is never rendered from the text; without them the calls are part of it.
        Role::Assistant if !message.calls.is_empty() => {
            for call in &message.calls {
                let gap = if message.text.is_empty() { "" } else { "\n" };
                let call = format!("{{\"name\": {}, \"arguments\": {}}}", json!(call.name), call.arguments);
                message.text += &format!("{gap}<tool_call>\n{call}\n</tool_call>");
            }
        }
        Role::Assistant | Role::System | Role::User => {}
    }
    message
}

fn introduce(messages: &mut Vec<Message>, tools: &str) {
    let words = introduction(tools);
    match messages.first_mut() {
        Some(first) if first.role == Role::System => first.text = format!("{}\n\n{words}", first.text),
        Some(_) | None => messages.insert(
            0,
            Message {
                role: Role::System,
                text: words,
                tokens: None,
                open: false,
                segments: Vec::new(),
                label: "the tools".to_string(),
                calls: Vec::new(),
                answers: None,
            },
        ),
    }
}

fn introduction(tools: &str) -> String {
    let list: Vec<Value> = serde_json::from_str(tools).unwrap_or_default();
    let one = |tool: &Value| {
        let field = |name: &str| tool.get(name).cloned().unwrap_or_default();
        json!({
            "name": field("name"),
            "description": field("description"),
            "parameters": field("parameters"),
        })
        .to_string()
    };
    let lines: Vec<String> = list.iter().map(one).collect();
    format!("{INTRODUCTION}\n<tools>\n{}\n</tools>\n{RULES}\n{EXAMPLE}", lines.join("\n"))
}

/// The JSON schema of an answer that is one call of one of the tools.
pub(super) fn forced(tools: &str) -> String {
    let list: Vec<Value> = serde_json::from_str(tools).unwrap_or_default();
    let name = |tool: &Value| tool.get("name").and_then(Value::as_str).unwrap_or_default().to_string();
    call_schema(list.iter().map(|tool| (name(tool), tool.get("parameters").cloned())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use context::MessageCall;

    const TOOLS: &str = r#"[{"name":"clock","description":"Tells the time.","parameters":{"type":"object"},"policy":"idempotent"}]"#;

    fn message(role: Role, text: &str) -> Message {
        Message {
            role,
            text: text.to_string(),
            tokens: None,
            open: false,
            segments: vec![],
            label: String::new(),
            calls: vec![],
            answers: None,
        }
    }

    #[test]
    fn tools_calls_and_results_become_text() {
        let call =
            MessageCall { id: "1.0".into(), name: "clock".into(), arguments: "{\"zone\":\"UTC\"}".into() };
        let asked = Message { calls: vec![call], ..message(Role::Assistant, "I look.") };
        let said = [message(Role::User, "How late is it?"), asked, message(Role::Tool, "noon")];
        let spoken = spoken(&said, Some(TOOLS));
        let roles: Vec<Role> = spoken.iter().map(|message| message.role).collect();
        assert_eq!(roles, [Role::System, Role::User, Role::Assistant, Role::User]);
        assert!(spoken[0].text.contains("\"name\":\"clock\"") && !spoken[0].text.contains("policy"));
        assert_eq!(
            spoken[2].text,
            "I look.\n<tool_call>\n{\"name\": \"clock\", \"arguments\": {\"zone\":\"UTC\"}}\n</tool_call>"
        );
        assert_eq!(spoken[3].text, "<tool_response>\nnoon\n</tool_response>");
    }

    #[test]
    fn the_schema_of_a_call_names_the_tool() {
        let schema: Value = serde_json::from_str(&forced(TOOLS)).unwrap();
        assert_eq!(schema["properties"]["name"]["const"], "clock");
        let two = TOOLS.replace("}]", "},{\"name\":\"x\"}]");
        let schema: Value = serde_json::from_str(&forced(&two)).unwrap();
        assert_eq!(schema["anyOf"][1]["properties"]["arguments"]["type"], "object");
    }
}
