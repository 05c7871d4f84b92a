//! Messages as templates see them, with everything from outside hidden from the tokenizer's control tokens.

use std::borrow::Cow;

use minijinja::Value;
use minijinja::value::ValueKind;

use super::guard::{Guard, STAND_IN};
use super::message::{self, Message, ToolCall, Tools};

/// Tool definitions nest as deep as JSON schemas do; the parser stops at 128 by itself.
const DEPTH_MAX: usize = 128;

/// How messages become values: hidden, and with ids of the length that the template wants.
#[derive(Debug)]
pub(super) struct Values<'a> {
    pub(super) guard: &'a Guard,
    pub(super) short_ids: bool,
}

impl Values<'_> {
    pub(super) fn messages(&self, messages: &[Message]) -> Vec<Value> {
        messages.iter().map(|message| self.message(message)).collect()
    }

    pub(super) fn message(&self, message: &Message) -> Value {
        let calls = message.tool_calls.iter().map(|call| self.call(call, self.arguments(call))).collect();
        self.fields(message, self.text(&message.content), calls)
    }

    /// The same message with a stand-in for what its author said: what a template puts behind it shows where
    /// it ends. In a message with calls the last call's arguments stand in, because templates put calls last.
    pub(super) fn stand_in(&self, message: &Message) -> Value {
        let mark = || Value::from(STAND_IN.to_string());
        let bare = Message { reasoning: None, ..message.clone() };
        let Some((last, others)) = message.tool_calls.split_last() else {
            return self.fields(&bare, mark(), Vec::new());
        };
        let mut calls: Vec<Value> = others.iter().map(|call| self.call(call, self.arguments(call))).collect();
        calls.push(self.call(last, Value::from_pairs([("stand_in", mark())])));
        self.fields(&bare, self.text(&message.content), calls)
    }

    fn fields(&self, message: &Message, content: Value, calls: Vec<Value>) -> Value {
        let mut fields = vec![("role", Value::from(message.role.as_str())), ("content", content)];
        if let Some(reasoning) = &message.reasoning {
            fields.push(("reasoning_content", self.text(reasoning)));
        }
        // Templates ask whether the key is there at all.
        if !calls.is_empty() {
            fields.push(("tool_calls", Value::from_iter(calls)));
        }
        if let Some(id) = &message.tool_call_id {
            fields.push(("tool_call_id", self.id(id)));
        }
        if let Some(name) = &message.name {
            fields.push(("name", self.text(name)));
        }
        Value::from_pairs(fields)
    }

    pub(super) fn tools(&self, tools: Option<&Tools>) -> Value {
        // Absent and empty are the same to every template, and `none` is what they test for.
        tools.filter(|tools| !tools.is_empty()).map_or(Value::from(()), |tools| self.hidden(&tools.0, 0))
    }

    fn text(&self, text: &str) -> Value {
        Value::from(self.guard.hide(text))
    }

    fn call(&self, call: &ToolCall, arguments: Value) -> Value {
        let function = Value::from_pairs([("name", self.text(&call.name)), ("arguments", arguments)]);
        Value::from_pairs([
            ("id", self.id(&call.id)),
            ("type", Value::from("function")),
            ("function", function),
        ])
    }

    /// An object where they are one: templates go through its keys.
    fn arguments(&self, call: &ToolCall) -> Value {
        match message::from_json(&call.arguments) {
            Ok(value) if value.kind() == ValueKind::Map => self.hidden(&value, 0),
            _ => self.text(&call.arguments),
        }
    }

    fn id(&self, id: &str) -> Value {
        match self.short_ids {
            true => Value::from(short_id(id).as_ref()),
            false => self.text(id),
        }
    }

    /// The same value with every text in it hidden.
    fn hidden(&self, value: &Value, depth: usize) -> Value {
        let items = || value.try_iter().into_iter().flatten();
        match value.kind() {
            _ if depth > DEPTH_MAX => Value::from(()),
            ValueKind::String => self.text(value.as_str().unwrap_or_default()),
            ValueKind::Seq => items().map(|item| self.hidden(&item, depth + 1)).collect(),
            ValueKind::Map => Value::from_pairs(items().map(|key| {
                let item = value.get_item(&key).unwrap_or_default();
                (self.guard.hide(&key.to_string()), self.hidden(&item, depth + 1))
            })),
            _ => value.clone(),
        }
    }
}

/// Nine letters and digits, as Mistral's templates insist on; an id that fits stays.
fn short_id(id: &str) -> Cow<'_, str> {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    if id.len() == 9 && id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Cow::Borrowed(id);
    }
    let hash = blake3::hash(id.as_bytes());
    let letter = |byte: &u8| char::from(LETTERS[usize::from(byte % 32)]);
    Cow::Owned(hash.as_bytes()[..9].iter().map(letter).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_nine_letters_and_always_the_same() {
        assert_eq!(short_id("abcDEF123"), "abcDEF123");
        for id in ["", "call_1", "call_2", "ünïcödé", "abc-EF123"] {
            let short = short_id(id);
            assert!(short.len() == 9 && short.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{short}");
            assert_eq!(short, short_id(id));
        }
        assert_ne!(short_id("call_1"), short_id("call_2"));
    }
}
