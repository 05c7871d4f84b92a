//! Logs of OpenAI's chat API: one segment a message, so that agents of any program can be evaluated.
//!
//! The probe is the last message of a user or a tool, with whatever comes after it; a segment is every message before.
//! Unknown fields are passed over: these logs are written by others.

use super::field;
use crate::call::{Call, Flaw, Segment};
use serde_json::Value;
use std::collections::BTreeMap;

/// The agent whose log it is, when its messages have no name.
const READER: &str = "assistant";

pub(super) fn call(value: &Value, line: String) -> Result<Call, Flaw> {
    let messages = field::array(value, "messages")?;
    let mut read: Vec<Read> = Vec::with_capacity(messages.len().min(crate::call::SEGMENTS));
    for (index, message) in messages.iter().enumerate() {
        read.push(message_at(message, &format!("messages[{index}]"))?);
    }
    let asked = read.iter().rposition(|message| message.asks);
    let asked = asked
        .ok_or_else(|| Flaw::new("messages", "has no message of a user or a tool, so nothing was asked"))?;
    let probe: Vec<&str> = read[asked..].iter().map(|message| message.text.as_str()).collect();
    let probe = probe.join("\n");
    read.truncate(asked);
    Ok(Call {
        name: line,
        segments: segments(read),
        reader: READER.into(),
        probe,
        action: action(value)?,
        withheld: None,
    })
}

/// A message, understood.
struct Read {
    owner: String,
    kind: &'static str,
    text: String,
    /// A user's or a tool's.
    asks: bool,
}

fn message_at(message: &Value, at: &str) -> Result<Read, Flaw> {
    let role = field::text(message, at, "role")?;
    let kind = match role.as_str() {
        "system" | "developer" => "system",
        "user" => "message",
        "assistant" if calls(message).is_some() => "tool call",
        "assistant" => "message",
        "tool" | "function" => "tool result",
        _ => {
            let what = format!("is {role:?}; known are system, developer, user, assistant, tool, function");
            return Err(Flaw::new(format!("{at}.role"), what));
        }
    };
    let asks = matches!(role.as_str(), "user" | "tool" | "function");
    let name = message.get("name").and_then(Value::as_str).filter(|name| !name.is_empty());
    let owner = name.unwrap_or(if role == "assistant" { READER } else { &role }).to_string();
    Ok(Read { owner, kind, text: said(message, at)?, asks })
}

/// The text of a message and of the tool calls in it, which are what an agent did.
fn said(message: &Value, at: &str) -> Result<String, Flaw> {
    let mut text = content(message.get("content"), at)?;
    let called = calls(message).into_iter().flatten().enumerate();
    for (index, call) in called {
        let function = call.get("function").unwrap_or(call);
        let at = format!("{at}.tool_calls[{index}].function");
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&field::text(function, &at, "name")?);
        text.push(' ');
        text.push_str(&arguments(function));
    }
    if let Some(function) = message.get("function_call").filter(|call| call.is_object()) {
        let name = field::text(function, &format!("{at}.function_call"), "name")?;
        text =
            [text, format!("{name} {}", arguments(function))].join("\n").trim_start_matches('\n').to_string();
    }
    Ok(text)
}

fn calls(message: &Value) -> Option<&Vec<Value>> {
    message.get("tool_calls").and_then(Value::as_array).filter(|calls| !calls.is_empty())
}

fn arguments(function: &Value) -> String {
    match function.get("arguments") {
        Some(Value::String(text)) => text.clone(),
        None | Some(Value::Null) => "{}".into(),
        Some(other) => other.to_string(),
    }
}

/// A text, or a list of parts of which those with text count; a picture has none.
fn content(content: Option<&Value>, at: &str) -> Result<String, Flaw> {
    match content {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Array(parts)) => {
            let texts: Vec<&str> = parts.iter().filter_map(part).collect();
            Ok(texts.join("\n"))
        }
        Some(_) => Err(Flaw::new(format!("{at}.content"), "must be a text or a list of parts")),
    }
}

fn part(part: &Value) -> Option<&str> {
    let text = |name| part.get(name).and_then(Value::as_str);
    part.as_str().or_else(|| text("text")).or_else(|| text("refusal"))
}

/// A whole response of the API, or the message alone.
fn action(value: &Value) -> Result<String, Flaw> {
    let response = value
        .get("response")
        .ok_or_else(|| Flaw::new("response", "is missing; what came back is expected"))?;
    let (message, at) = match response.get("choices") {
        None => (response, "response"),
        Some(choices) => {
            let first = choices.get(0).and_then(|choice| choice.get("message"));
            let flaw = || Flaw::new("response.choices[0].message", "is missing");
            (first.ok_or_else(flaw)?, "response.choices[0].message")
        }
    };
    if !message.is_object() {
        return Err(Flaw::new(at, "must be an object"));
    }
    let text = said(message, at)?;
    if text.is_empty() {
        return Err(Flaw::new(at, "has neither content nor tool calls, so there is no action to score"));
    }
    Ok(text)
}

/// Ids come from contents, so the same message has the same id in every line; a repetition in one call is counted on.
fn segments(read: Vec<Read>) -> Vec<Segment> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    read.into_iter()
        .map(|message| {
            let mut segment = Segment::new("", message.owner, message.kind, message.text);
            let id = segment.hash().short();
            let times = seen.entry(id.clone()).or_insert(0);
            *times += 1;
            segment.id = if *times == 1 { id } else { format!("{id}#{times}") };
            segment
        })
        .collect()
}
