//! Anthropic's messages. Pure: JSON out, JSON in.
//!
//! Its form differs in what may stand where: instructions stand apart, turns alternate and begin with the user's, what
//! tools answered is part of the user's turn, ids of calls have few letters.

use crate::answer::{Finish, Reason};
use crate::endpoint::Endpoint;
use crate::gather::{Broken, Gather};
use crate::json::{at, each_at, number_at, text_at};
use crate::refusal::quoted;
use crate::request::{Message, Request, Role, Tool, ToolCall, ToolChoice};
use crate::tool_names::to_wire;
use crate::usage::Number;
use serde_json::{Map, Value, json};

/// A conversation that begins with an answer gets this in front: the form demands a user's turn.
const BEGIN: &str = "Continue.";
/// The form's highest temperature.
const HOTTEST_MILLI: u32 = 1000;

pub(crate) fn body(endpoint: &Endpoint, request: &Request) -> Value {
    let instructions = request.messages.iter().take_while(|message| message.role == Role::System);
    let (system, rest) = request.messages.split_at(instructions.count());
    let mut body = Map::new();
    let mut set = |key: &str, value: Value| drop(body.insert(key.into(), value));
    set("model", json!(endpoint.model));
    set("max_tokens", json!(request.max_tokens));
    if !system.is_empty() {
        set("system", system.iter().filter(|message| !message.text.is_empty()).map(text_block).collect());
    }
    set("messages", turns(rest));
    if let Some(milli) = request.temperature_milli {
        set("temperature", json!(f64::from(milli.min(HOTTEST_MILLI)) / 1000.0));
    }
    let stops: Vec<&String> = request.stop.iter().filter(|stop| !stop.trim().is_empty()).collect();
    if !stops.is_empty() {
        set("stop_sequences", json!(stops));
    }
    if !request.tools.is_empty() {
        set("tools", request.tools.iter().map(tool).collect());
        set("tool_choice", choice(&request.choice));
    }
    if endpoint.prompt_cache {
        set("cache_control", json!({"type": "ephemeral"}));
    }
    if endpoint.stream {
        set("stream", json!(true));
    }
    Value::Object(body)
}

fn text_block(message: &Message) -> Value {
    json!({"type": "text", "text": message.text})
}

/// Turns that alternate: neighbours of one side become one turn.
fn turns(messages: &[Message]) -> Value {
    let mut turns: Vec<(&str, Vec<Value>)> = Vec::new();
    for message in messages {
        let blocks = blocks(message);
        match turns.last_mut() {
            _ if blocks.is_empty() => (),
            Some((side, last)) if *side == side_of(message) => last.extend(blocks),
            Some(_) | None => turns.push((side_of(message), blocks)),
        }
    }
    if turns.first().is_none_or(|(side, _)| *side == "assistant") {
        turns.insert(0, ("user", vec![json!({"type": "text", "text": BEGIN})]));
    }
    turns.into_iter().map(|(side, blocks)| json!({"role": side, "content": blocks})).collect()
}

fn side_of(message: &Message) -> &'static str {
    match message.role {
        Role::Assistant => "assistant",
        // Instructions in the middle are told by the user.
        Role::User | Role::Tool | Role::System => "user",
    }
}

fn blocks(message: &Message) -> Vec<Value> {
    if message.role == Role::Tool {
        let id = wire_id(message.call_id.as_deref().unwrap_or_default());
        return vec![json!({"type": "tool_result", "tool_use_id": id, "content": message.text})];
    }
    // Empty text blocks are refused, and so are answers that end in white space.
    let answer = message.role == Role::Assistant;
    let text = if answer { message.text.trim_end() } else { &message.text };
    let text = (!text.trim().is_empty()).then(|| json!({"type": "text", "text": text}));
    text.into_iter().chain(message.calls.iter().map(call)).collect()
}

fn call(call: &ToolCall) -> Value {
    let input: Value = serde_json::from_str(&call.arguments).unwrap_or(Value::Null);
    let input = if input.is_object() { input } else { json!({}) };
    json!({"type": "tool_use", "id": wire_id(&call.id), "name": to_wire(&call.name), "input": input})
}

/// Letters, digits, `_` and `-` only.
fn wire_id(id: &str) -> String {
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-');
    let wire: String = id.chars().map(|letter| if allowed(letter) { letter } else { '_' }).collect();
    if wire.is_empty() { "_".into() } else { wire }
}

fn tool(tool: &Tool) -> Value {
    json!({"name": to_wire(&tool.name), "description": tool.description, "input_schema": tool.schema})
}

fn choice(choice: &ToolChoice) -> Value {
    match choice {
        ToolChoice::Auto => json!({"type": "auto"}),
        ToolChoice::Required => json!({"type": "any"}),
        ToolChoice::Never => json!({"type": "none"}),
        ToolChoice::Named(name) => json!({"type": "tool", "name": to_wire(name)}),
    }
}

/// One event of a stream. Its type stands in its data, too.
pub(crate) fn event(gather: &mut Gather, data: &str) -> Result<(), Broken> {
    let event: Value =
        serde_json::from_str(data).map_err(|error| Broken::new(format!("an event is no JSON: {error}")))?;
    let index = number_at(&event, &["index"]).unwrap_or(0);
    match text_at(&event, &["type"]).unwrap_or_default() {
        "message_start" => {
            about(gather, &event["message"]);
            Ok(())
        }
        "content_block_start" => block(gather, index, &event["content_block"], Form::Begun),
        "content_block_delta" => delta(gather, index, &event["delta"]),
        "content_block_stop" => gather.end_call(index),
        "message_delta" => {
            usage(gather, &event["usage"]);
            finish(gather, &event["delta"])
        }
        "message_stop" => {
            gather.ended = true;
            gather.end_calls()
        }
        "error" => Err(error(&event)),
        // Pings, and kinds that are added later.
        _ => Ok(()),
    }
}

/// A whole body.
pub(crate) fn whole(gather: &mut Gather, body: &[u8]) -> Result<(), Broken> {
    let answer: Value =
        serde_json::from_slice(body).map_err(|error| Broken::new(format!("the body is no JSON: {error}")))?;
    if text_at(&answer, &["type"]) == Some("error") {
        return Err(error(&answer));
    }
    if !answer["content"].is_array() {
        return Err(Broken::new("it has no content"));
    }
    about(gather, &answer);
    for (index, part) in (0..).zip(each_at(&answer, &["content"])) {
        block(gather, index, part, Form::Whole)?;
    }
    finish(gather, &answer)?;
    gather.ended = true;
    gather.end_calls()
}

fn error(event: &Value) -> Broken {
    let words = text_at(event, &["error", "message"]).unwrap_or("without words");
    let overloaded = text_at(event, &["error", "type"]) == Some("overloaded_error");
    let reason = if overloaded { Reason::Overloaded } else { Reason::ProviderError };
    Broken { reason, message: format!("it told of an error in the middle: {:?}", quoted(words)) }
}

fn about(gather: &mut Gather, message: &Value) {
    if gather.provider_id.is_none() {
        gather.provider_id = text_at(message, &["id"]).map(quoted);
    }
    usage(gather, &message["usage"]);
}

/// Input that is cached is reported beside the rest; reports grow while the answer does.
fn usage(gather: &mut Gather, usage: &Value) {
    let read = |key: &str| Number::read(usage.get(key));
    let (cached, written) = (read("cache_read_input_tokens"), read("cache_creation_input_tokens"));
    let input = read("input_tokens");
    if input != Number::Absent {
        gather.reported.prompt = input.plus(cached).plus(written);
        gather.reported.cached = cached;
        gather.reported.cache_written = written;
    }
    gather.reported.generated.update(read("output_tokens"));
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Its content comes in deltas.
    Begun,
    Whole,
}

fn block(gather: &mut Gather, index: u64, block: &Value, form: Form) -> Result<(), Broken> {
    match text_at(block, &["type"]).unwrap_or_default() {
        "text" => gather.text(text_at(block, &["text"]).unwrap_or_default()),
        "tool_use" => {
            let text = |key: &str| text_at(block, &[key]).unwrap_or_default();
            gather.call(index, text("id"), text("name"))?;
            match at(block, &["input"]) {
                Some(input) if form == Form::Whole => gather.arguments(index, &input.to_string()),
                Some(_) | None => Ok(()),
            }
        }
        _ => {
            gather.unseen(text_at(block, &["thinking"]).unwrap_or_default());
            Ok(())
        }
    }
}

fn delta(gather: &mut Gather, index: u64, delta: &Value) -> Result<(), Broken> {
    let text = |key: &str| text_at(delta, &[key]).unwrap_or_default();
    match text("type") {
        "text_delta" => gather.text(text("text")),
        "input_json_delta" => gather.arguments(index, text("partial_json")),
        "thinking_delta" => {
            gather.unseen(text("thinking"));
            Ok(())
        }
        _ => Ok(()),
    }
}

fn finish(gather: &mut Gather, message: &Value) -> Result<(), Broken> {
    let Some(word) = text_at(message, &["stop_reason"]) else { return Ok(()) };
    gather.finish = Some(match word {
        "max_tokens" | "model_context_window_exceeded" => Finish::Length,
        "tool_use" => Finish::Calls,
        "refusal" => Finish::Filtered,
        _ => Finish::Stop,
    });
    Ok(())
}
