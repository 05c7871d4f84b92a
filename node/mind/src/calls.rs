//! Tool calls as models write them, and tools as nodes describe them.
//!
//! A model that has no field of its own for calls writes them into its text: either the whole answer is one call
//! (`{"name": "files.read", "arguments": {"path": "a"}}`, or a list of them), or calls stand between `<tool_call>` and
//! `</tool_call>`. What is no call is told to the model, not thrown away.

use crate::{Policy, SaidCall, ToolRule, turn};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use types::limits;

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";

/// A call as it was said: a name with arguments, or why it is none.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Asked {
    pub(crate) name: String,
    pub(crate) arguments: Value,
    /// Empty: it can be made.
    pub(crate) wrong: String,
}

/// An answer taken apart.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Parsed {
    /// What was said beside the calls.
    pub(crate) content: String,
    pub(crate) calls: Vec<Asked>,
}

pub(crate) fn parse(text: &str) -> Parsed {
    if let Some(calls) = whole(text) {
        return Parsed { content: String::new(), calls };
    }
    let mut parsed = Parsed::default();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once(OPEN) {
        parsed.content += before;
        let (inner, after) = behind.split_once(CLOSE).unwrap_or((behind, ""));
        parsed.calls.extend(between_tags(inner));
        rest = after;
    }
    parsed.content += rest;
    if !parsed.calls.is_empty() {
        parsed.content = parsed.content.trim().to_string();
    }
    parsed
}

/// Calls that a provider said apart from the text.
pub(crate) fn said(calls: &[SaidCall]) -> Vec<Asked> {
    let one = |call: &SaidCall| match serde_json::from_str(&call.arguments) {
        Ok(arguments) => asked(call.name.clone(), arguments),
        Err(_) if call.arguments.trim().is_empty() => asked(call.name.clone(), Value::Object(Map::new())),
        Err(error) => {
            let wrong = format!("the arguments are not JSON ({error}); write them as a JSON object");
            Asked { name: call.name.clone(), arguments: Value::String(call.arguments.clone()), wrong }
        }
    };
    calls.iter().map(one).collect()
}

/// In place of a call that had to be there.
pub(crate) fn none() -> Asked {
    let wrong =
        "every answer has to be a tool call here, and this one ended before it was one; write a shorter call";
    Asked { name: String::new(), arguments: Value::Object(Map::new()), wrong: wrong.to_string() }
}

fn whole(text: &str) -> Option<Vec<Asked>> {
    let text = text.trim();
    if !text.starts_with(['{', '[']) {
        return None;
    }
    let calls = match serde_json::from_str(text).ok()? {
        Value::Array(items) => items,
        one => vec![one],
    };
    let calls: Option<Vec<Asked>> = calls.into_iter().map(object).collect();
    calls.filter(|calls| !calls.is_empty())
}

fn between_tags(inner: &str) -> Vec<Asked> {
    match whole(inner) {
        Some(calls) => calls,
        None => {
            let wrong =
                "it is no tool call; write {\"name\": \"...\", \"arguments\": {...}} between the tags";
            let arguments = Value::String(inner.trim().to_string());
            vec![Asked { name: String::new(), arguments, wrong: wrong.to_string() }]
        }
    }
}

fn object(value: Value) -> Option<Asked> {
    let Value::Object(mut fields) = value else { return None };
    let Some(Value::String(name)) = fields.remove("name") else { return None };
    let arguments = fields.remove("arguments").or_else(|| fields.remove("parameters"))?;
    // Some models write the arguments as a text that holds JSON.
    let arguments = match arguments {
        Value::String(text) => serde_json::from_str(&text).unwrap_or(Value::String(text)),
        other => other,
    };
    Some(asked(name, arguments))
}

fn asked(name: String, arguments: Value) -> Asked {
    let wrong = match &arguments {
        Value::Object(_) => String::new(),
        _ => "the arguments are no JSON object".to_string(),
    };
    Asked { name, arguments, wrong }
}

impl Asked {
    /// The form in which a call is kept, and shown to people. Keys are sorted.
    pub(crate) fn text(&self) -> String {
        sorted(&serde_json::json!({ "name": self.name, "arguments": self.arguments })).to_string()
    }
}

/// The same with the keys of every object in order: equal values are equal bytes, however this was built.
pub(crate) fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields: BTreeMap<&String, Value> =
                fields.iter().map(|(key, value)| (key, sorted(value))).collect();
            Value::Object(fields.into_iter().map(|(key, value)| (key.clone(), value)).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        plain => plain.clone(),
    }
}

/// The arguments of a call that was kept, as JSON.
pub(crate) fn arguments_of(text: &str) -> Value {
    let call: Value = serde_json::from_str(text).unwrap_or_default();
    call.get("arguments").cloned().unwrap_or_default()
}

/// What an `ask_human` call asks, from the text of the call: people are shown the question, not its form.
#[must_use]
pub fn question_of(call: &str) -> Option<String> {
    arguments_of(call).get("question")?.as_str().map(str::to_string)
}

/// What the mind needs to know of a tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tool {
    pub(crate) name: String,
    pub(crate) policy: Policy,
    pub(crate) approve: bool,
    pub(crate) timeout_ms: Option<u64>,
    pub(crate) output_bytes: Option<u64>,
}

/// The tools of a node that the agent may use, and those of the mind, sorted by name: equal lists are equal bytes.
pub(crate) fn with_own(specs: &str, rules: &[ToolRule], own: Vec<Value>) -> String {
    let mut list: Vec<Value> = serde_json::from_str(specs).unwrap_or_default();
    list.extend(own);
    let name = |spec: &Value| spec.get("name").and_then(Value::as_str).unwrap_or_default().to_string();
    list.retain(|spec| rules.iter().any(|rule| rule.covers(&name(spec))));
    list.sort_by_key(name);
    list.dedup_by_key(|spec| name(spec));
    sorted(&Value::Array(list)).to_string()
}

/// Reads the list that a node gave, under the rules of the agent: the last rule that covers a tool counts.
pub(crate) fn tools(specs: &str, rules: &[ToolRule]) -> Vec<Tool> {
    let list: Vec<Value> = serde_json::from_str(specs).unwrap_or_default();
    list.iter().filter_map(|spec| tool(spec, rules)).collect()
}

fn tool(spec: &Value, rules: &[ToolRule]) -> Option<Tool> {
    let name = spec.get("name")?.as_str()?.to_string();
    let own = spec.get("policy").and_then(Value::as_str).and_then(Policy::parse);
    let rule = rules.iter().rev().find(|rule| rule.covers(&name));
    let policy = rule.and_then(|rule| rule.policy).or(own).unwrap_or(Policy::AtMostOnce);
    Some(Tool {
        policy,
        approve: rule.is_some_and(|rule| rule.approve),
        timeout_ms: rule.and_then(|rule| rule.timeout_ms),
        output_bytes: rule.and_then(|rule| rule.output_bytes),
        name,
    })
}

/// Why a call can't be made; empty where it can.
pub(crate) fn wrong(asked: &Asked, tools: &[Tool]) -> String {
    if !asked.wrong.is_empty() {
        return asked.wrong.clone();
    }
    if tools.iter().any(|tool| tool.name == asked.name) {
        return own_wrong(asked);
    }
    let names: Vec<&str> = tools.iter().map(|tool| tool.name.as_str()).collect();
    let known = if names.is_empty() { "none".to_string() } else { names.join(", ") };
    let shown: String = asked.name.chars().take(limits::NAME_BYTES).collect();
    format!("there is no tool {shown:?} here; there are: {known}")
}

/// The mind's own tools have few arguments, and no node checks them.
fn own_wrong(asked: &Asked) -> String {
    let text = |key: &str| asked.arguments.get(key).is_some_and(Value::is_string);
    let whole = |key: &str| asked.arguments.get(key).is_some_and(Value::is_u64);
    let lacks = match asked.name.as_str() {
        turn::ASK_HUMAN if !text("question") => "question (a text)",
        turn::SPAWN if !text("agent") || !text("input") => "agent and input (texts)",
        turn::WAIT if !whole("seconds") => "seconds (a whole number)",
        _ => return String::new(),
    };
    format!("{} needs {lacks}", asked.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        parse(text).calls.into_iter().map(|call| call.text()).collect()
    }

    #[test]
    fn people_are_shown_the_question() {
        let call =
            parse("{\"name\": \"ask_human\", \"arguments\": {\"question\": \"Which one?\"}}").calls[0].text();
        assert_eq!(question_of(&call).as_deref(), Some("Which one?"));
        assert_eq!([question_of("{}"), question_of("no call")], [None, None]);
    }

    #[test]
    fn calls_are_found_alone_in_lists_and_between_tags() {
        let call = "{\"arguments\":{\"path\":\"a\"},\"name\":\"files.read\"}";
        let written = "{\"name\": \"files.read\", \"arguments\": {\"path\": \"a\"}}";
        assert_eq!(names(written), [call]);
        assert_eq!(names(&format!("[{written}, {written}]")), [call, call]);
        let tagged = format!("I look.\n<tool_call>\n{written}\n</tool_call>\n<tool_call>{written}");
        assert_eq!(names(&tagged), [call, call]);
        assert_eq!(parse(&tagged).content, "I look.");
        let as_text = "{\"name\": \"x\", \"parameters\": \"{\\\"a\\\": 1}\"}";
        assert_eq!(names(as_text), ["{\"arguments\":{\"a\":1},\"name\":\"x\"}"]);
    }

    #[test]
    fn what_is_no_call_stays_text_or_is_told() {
        for text in ["Hello.", "{\"name\": 3, \"arguments\": {}}", "[1, 2]", "{\"a\"", "[]"] {
            assert_eq!(parse(text), Parsed { content: text.to_string(), calls: vec![] }, "{text}");
        }
        let broken = parse("<tool_call>{\"name\": </tool_call> and more");
        assert!(broken.calls[0].wrong.contains("no tool call"), "{broken:?}");
        assert_eq!(broken.content, "and more");
        assert!(parse("{\"name\": \"x\", \"arguments\": [1]}").calls[0].wrong.contains("object"));
        let said = said(&[SaidCall { name: "x".into(), arguments: "{".into() }]);
        assert!(said[0].wrong.contains("not JSON"));
    }
}
