//! OpenAI's chat completions, as OpenAI and many servers write them. Pure: JSON out, JSON in.

use crate::answer::Finish;
use crate::endpoint::Endpoint;
use crate::gather::{Broken, Gather};
use crate::json::{at, each_at, number_at, text_at};
use crate::refusal::quoted;
use crate::request::{Message, Request, Role, Tool, ToolCall, ToolChoice};
use crate::tool_names::to_wire;
use crate::usage::{Number, Reported};
use serde_json::{Map, Value, json};

/// Seeds of some servers have 32 bits with a sign.
const SEED_BITS: u64 = 0x7fff_ffff;

pub(crate) fn body(endpoint: &Endpoint, request: &Request) -> Value {
    let mut body = Map::new();
    let mut set = |key: &str, value: Value| drop(body.insert(key.into(), value));
    set("model", json!(endpoint.model));
    set("messages", request.messages.iter().map(message).collect());
    let limit = if endpoint.max_completion_tokens { "max_completion_tokens" } else { "max_tokens" };
    set(limit, json!(request.max_tokens));
    if let Some(milli) = request.temperature_milli {
        set("temperature", json!(f64::from(milli) / 1000.0));
    }
    if let Some(seed) = request.seed {
        set("seed", json!(seed & SEED_BITS));
    }
    if !request.stop.is_empty() {
        set("stop", json!(request.stop));
    }
    if !request.tools.is_empty() {
        set("tools", request.tools.iter().map(tool).collect());
        set("tool_choice", choice(&request.choice));
    }
    if endpoint.stream {
        set("stream", json!(true));
        set("stream_options", json!({"include_usage": true}));
    }
    Value::Object(body)
}

fn message(message: &Message) -> Value {
    match message.role {
        Role::System => json!({"role": "system", "content": message.text}),
        Role::User => json!({"role": "user", "content": message.text}),
        Role::Assistant if message.calls.is_empty() => json!({"role": "assistant", "content": message.text}),
        Role::Assistant => {
            let content = if message.text.is_empty() { Value::Null } else { json!(message.text) };
            let calls: Value = message.calls.iter().map(call).collect();
            json!({"role": "assistant", "content": content, "tool_calls": calls})
        }
        Role::Tool => json!({"role": "tool", "tool_call_id": message.call_id, "content": message.text}),
    }
}

fn call(call: &ToolCall) -> Value {
    let function = json!({"name": to_wire(&call.name), "arguments": call.arguments});
    json!({"id": call.id, "type": "function", "function": function})
}

fn tool(tool: &Tool) -> Value {
    let function =
        json!({"name": to_wire(&tool.name), "description": tool.description, "parameters": tool.schema});
    json!({"type": "function", "function": function})
}

fn choice(choice: &ToolChoice) -> Value {
    match choice {
        ToolChoice::Auto => json!("auto"),
        ToolChoice::Required => json!("required"),
        ToolChoice::Never => json!("none"),
        ToolChoice::Named(name) => json!({"type": "function", "function": {"name": to_wire(name)}}),
    }
}

/// One event of a stream.
pub(crate) fn event(gather: &mut Gather, data: &str) -> Result<(), Broken> {
    if data == "[DONE]" {
        gather.ended = true;
        return gather.end_calls();
    }
    let chunk: Value =
        serde_json::from_str(data).map_err(|error| Broken::new(format!("a chunk is no JSON: {error}")))?;
    about(gather, &chunk)?;
    for choice in first_choice(&chunk) {
        said(gather, &choice["delta"], Form::Part)?;
        finish(gather, choice)?;
    }
    Ok(())
}

/// A whole body.
pub(crate) fn whole(gather: &mut Gather, body: &[u8]) -> Result<(), Broken> {
    let answer: Value =
        serde_json::from_slice(body).map_err(|error| Broken::new(format!("the body is no JSON: {error}")))?;
    about(gather, &answer)?;
    let choice = first_choice(&answer).next().ok_or_else(|| Broken::new("it has no choices"))?;
    said(gather, &choice["message"], Form::Whole)?;
    finish(gather, choice)?;
    gather.ended = true;
    gather.end_calls()
}

/// Only the first of several answers was asked for.
fn first_choice(json: &Value) -> impl Iterator<Item = &Value> {
    each_at(json, &["choices"]).iter().filter(|choice| number_at(choice, &["index"]).unwrap_or(0) == 0)
}

/// Errors, id and usage.
fn about(gather: &mut Gather, json: &Value) -> Result<(), Broken> {
    if let Some(error) = at(json, &["error"]).filter(|error| !error.is_null()) {
        let words = text_at(error, &["message"]).or(error.as_str()).unwrap_or("without words");
        return Err(Broken {
            reason: crate::answer::Reason::ProviderError,
            message: format!("it told of an error in the middle: {:?}", quoted(words)),
        });
    }
    if gather.provider_id.is_none() {
        gather.provider_id = text_at(json, &["id"]).map(quoted);
    }
    if let Some(usage) = at(json, &["usage"]).filter(|usage| usage.is_object()) {
        gather.reported = Reported {
            prompt: Number::read(usage.get("prompt_tokens")),
            cached: Number::read(at(usage, &["prompt_tokens_details", "cached_tokens"])),
            cache_written: Number::Absent,
            generated: Number::read(usage.get("completion_tokens")),
        };
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Part,
    Whole,
}

/// Text, thinking and calls of a message or a part of one.
fn said(gather: &mut Gather, message: &Value, form: Form) -> Result<(), Broken> {
    for thinking in ["reasoning_content", "reasoning"] {
        gather.unseen(text_at(message, &[thinking]).unwrap_or_default());
    }
    for text in ["content", "refusal"] {
        gather.text(text_at(message, &[text]).unwrap_or_default())?;
    }
    for call in each_at(message, &["tool_calls"]) {
        let id = text_at(call, &["id"]).unwrap_or_default();
        let index = index(gather, call, id, form);
        gather.call(index, id, text_at(call, &["function", "name"]).unwrap_or_default())?;
        // Some servers write the object itself instead of its text.
        match at(call, &["function", "arguments"]) {
            Some(Value::String(part)) => gather.arguments(index, part)?,
            Some(object @ Value::Object(_)) => gather.arguments(index, &object.to_string())?,
            Some(_) | None => (),
        }
    }
    Ok(())
}

/// Parts are numbered; some servers don't, and then an id that is not known yet begins a new call.
fn index(gather: &Gather, call: &Value, id: &str, form: Form) -> u64 {
    match (number_at(call, &["index"]), form) {
        (Some(index), _) => index,
        (None, Form::Whole) => gather.calls(),
        (None, Form::Part) if id.is_empty() => gather.calls().saturating_sub(1),
        (None, Form::Part) => gather.index_of(id).unwrap_or(gather.calls()),
    }
}

fn finish(gather: &mut Gather, choice: &Value) -> Result<(), Broken> {
    let Some(word) = text_at(choice, &["finish_reason"]) else { return Ok(()) };
    gather.finish = Some(match word {
        "length" => Finish::Length,
        "tool_calls" | "function_call" => Finish::Calls,
        "content_filter" => Finish::Filtered,
        // "stop", and words of servers that nobody else knows.
        _ if gather.calls() > 0 => Finish::Calls,
        _ => Finish::Stop,
    });
    gather.end_calls()
}
