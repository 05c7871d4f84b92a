//! Calls of tools in generated text. Every family writes them in its own way; what does not parse stays text.
//!
//! Control tokens are not part of decoded text, so a family's marker may be missing in front of its calls.

mod growing;
mod python;

pub use growing::text_before_calls;

use minijinja::Value;

use super::message::{self, ToolCall};

/// How a family writes calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallFormat {
    /// Qwen, Hermes, SmolLM: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`, any number of them; small ones
    /// forget the marks around an answer that is nothing else.
    Hermes,
    /// Llama 3: the whole answer is `{"name": …, "parameters": {…}}`; several are separated by `;` or spaces.
    Llama3,
    /// Mistral: `[TOOL_CALLS]` and an array of calls, or `[TOOL_CALLS]name[ARGS]{…}` for each.
    Mistral,
    /// Gemma: `name(key=value)` in a `tool_code` block, or JSON as Llama's in a block or alone.
    Gemma,
}

impl CallFormat {
    /// What a model with this chat template writes; a template without tools is taken for the commonest.
    pub fn of_template(template: &str) -> CallFormat {
        let has = |text: &str| template.contains(text);
        match () {
            () if has("[TOOL_CALLS]") => CallFormat::Mistral,
            () if has("<tool_call>") => CallFormat::Hermes,
            () if has("<|start_header_id|>") => CallFormat::Llama3,
            () if has("<start_of_turn>") => CallFormat::Gemma,
            () => CallFormat::Hermes,
        }
    }
}

/// Calls that one answer may make; more are left in the text.
const CALLS_MAX: usize = 128;

/// Parts generated text into what is said and the calls that are made.
pub fn tool_calls(text: &str, format: CallFormat) -> (String, Vec<ToolCall>) {
    let found = match format {
        CallFormat::Hermes => hermes(text).or_else(|| whole_json(text)),
        CallFormat::Llama3 => whole_json(text.trim_start_matches("<|python_tag|>")),
        CallFormat::Mistral => mistral(text),
        CallFormat::Gemma => gemma(text),
    };
    match found {
        Some((content, calls)) if !calls.is_empty() && calls.len() <= CALLS_MAX => (content, calls),
        _ => (text.to_owned(), Vec::new()),
    }
}

type Parted = (String, Vec<ToolCall>);

fn hermes(text: &str) -> Option<Parted> {
    const OPEN: &str = "<tool_call>";
    const CLOSE: &str = "</tool_call>";
    let (mut content, mut calls, mut rest) = (String::new(), Vec::new(), text);
    while let Some((before, behind)) = rest.split_once(OPEN) {
        content.push_str(before);
        // An answer that ran into its end has no closing mark behind its last call.
        let (inside, after) = behind.split_once(CLOSE).unwrap_or((behind, ""));
        match message::from_json(inside.trim()).ok().and_then(|value| call(&value)) {
            Some(call) => {
                calls.push(call);
                rest = after;
            }
            None => {
                content.push_str(OPEN);
                rest = behind;
            }
        }
    }
    content.push_str(rest);
    (!calls.is_empty()).then(|| (content.trim().to_owned(), calls))
}

fn mistral(text: &str) -> Option<Parted> {
    const MARK: &str = "[TOOL_CALLS]";
    let (content, calls) = match text.split_once(MARK) {
        Some((content, calls)) => (content, calls),
        // The mark is a control token and leaves no text.
        None => text.split_at(text.find(|c: char| !c.is_whitespace()).unwrap_or(text.len())),
    };
    let calls = if calls.contains("[ARGS]") { named_arguments(calls, MARK) } else { json_calls(calls) }?;
    Some((content.trim().to_owned(), calls))
}

/// `name[ARGS]{…}`, one behind the other; newer models put an id between: `name[CALL_ID]id[ARGS]{…}`.
fn named_arguments(text: &str, mark: &str) -> Option<Vec<ToolCall>> {
    let (mut calls, mut rest) = (Vec::new(), text.trim());
    while !rest.is_empty() {
        let (head, behind) = rest.trim_start_matches(mark).split_once("[ARGS]")?;
        let (name, id) = head.split_once("[CALL_ID]").unwrap_or((head, ""));
        let (arguments, after) = first_json(behind)?;
        let arguments = serde_json::to_string(&arguments).ok()?;
        calls.push(ToolCall { id: id.trim().to_owned(), name: proper_name(name.trim())?, arguments });
        rest = after.trim();
    }
    Some(calls)
}

fn gemma(text: &str) -> Option<Parted> {
    let Some((before, fenced)) = text.split_once("```") else {
        return whole_json(text).or_else(|| Some((String::new(), python::calls(text.trim())?)));
    };
    let (block, after) = fenced.split_once("```").unwrap_or((fenced, ""));
    let (language, code) = block.split_once('\n')?;
    let calls = match language.trim() {
        "tool_code" | "python" => python::calls(code.trim())?,
        _ => json_calls(code)?,
    };
    Some((format!("{}{}", before.trim_end(), after.trim_end()).trim().to_owned(), calls))
}

/// The whole text is calls and nothing else.
fn whole_json(text: &str) -> Option<Parted> {
    json_calls(text).map(|calls| (String::new(), calls))
}

/// One or several JSON objects, or an array of them.
fn json_calls(text: &str) -> Option<Vec<ToolCall>> {
    let (mut calls, mut rest) = (Vec::new(), text.trim());
    while !rest.is_empty() && calls.len() <= CALLS_MAX {
        let (value, after) = first_json(rest)?;
        match value.kind() {
            minijinja::value::ValueKind::Seq => {
                let all: Option<Vec<ToolCall>> = value.try_iter().ok()?.map(|value| call(&value)).collect();
                calls.extend(all?);
            }
            _ => calls.push(call(&value)?),
        }
        rest = after.trim_start_matches(|c: char| c == ';' || c.is_whitespace());
    }
    Some(calls)
}

/// The JSON value at the beginning of a text, and what follows it.
fn first_json(text: &str) -> Option<(Value, &str)> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let value = values.next()?.ok()?;
    let end = values.byte_offset();
    Some((value, text.get(end..)?))
}

fn call(value: &Value) -> Option<ToolCall> {
    let field = |value: &Value, key: &str| value.get_attr(key).ok().filter(|found| !found.is_undefined());
    let function = field(value, "function").filter(|inner| inner.as_str().is_none());
    let function = function.as_ref().unwrap_or(value);
    let name = proper_name(field(function, "name")?.as_str()?)?;
    let arguments = ["arguments", "parameters", "args"].iter().find_map(|key| field(function, key));
    let id = field(value, "id").and_then(|id| id.as_str().map(str::to_owned)).unwrap_or_default();
    Some(ToolCall { id, name, arguments: arguments_text(arguments.as_ref())? })
}

/// An object as JSON; some models write it as a text that contains it.
fn arguments_text(arguments: Option<&Value>) -> Option<String> {
    let Some(arguments) = arguments else { return Some("{}".into()) };
    let parsed = arguments.as_str().map(message::from_json);
    let object = match &parsed {
        Some(parsed) => parsed.as_ref().ok()?,
        None => arguments,
    };
    let is_object = object.kind() == minijinja::value::ValueKind::Map;
    is_object.then(|| serde_json::to_string(object).ok()).flatten()
}

/// Names of tools are short words; anything else is text that happens to look like a call.
fn proper_name(name: &str) -> Option<String> {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b':' | b'/');
    let is_name = !name.is_empty() && name.len() <= 128 && name.bytes().all(is_part);
    is_name.then(|| name.to_owned())
}

#[cfg(test)]
#[path = "calls/calls_test.rs"]
mod calls_test;
