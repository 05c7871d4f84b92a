//! Calls written as Python: `name(key="value", n=3)`, one a line or in a list, with literals as values.

use super::{CALLS_MAX, ToolCall, proper_name};

/// How deep lists and dictionaries may nest.
const DEPTH_MAX: usize = 32;

/// The calls of a text that consists of calls alone.
pub(super) fn calls(text: &str) -> Option<Vec<ToolCall>> {
    let mut reader = Reader { rest: text.trim() };
    let in_list = reader.eat('[');
    let mut calls = Vec::new();
    while !reader.rest.is_empty() && calls.len() <= CALLS_MAX {
        if in_list && reader.eat(']') {
            break;
        }
        calls.push(reader.printed_call()?);
        reader.eat(',');
    }
    reader.rest.is_empty().then_some(calls)
}

struct Reader<'a> {
    /// Always without white space in front.
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn eat(&mut self, expected: char) -> bool {
        let found = self.rest.strip_prefix(expected);
        self.rest = found.map_or(self.rest, str::trim_start);
        found.is_some()
    }

    fn word(&mut self) -> Option<&'a str> {
        let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '+');
        let end = self.rest.find(|c: char| !is_part(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest.trim_start();
        (!word.is_empty()).then_some(word)
    }

    /// `print(…)` around a call is what models were shown.
    fn printed_call(&mut self) -> Option<ToolCall> {
        let Some(inside) = self.rest.strip_prefix("print(") else { return self.call() };
        self.rest = inside.trim_start();
        let call = self.call()?;
        self.eat(')').then_some(call)
    }

    fn call(&mut self) -> Option<ToolCall> {
        let name = self.word()?;
        if !self.eat('(') {
            return None;
        }
        let mut arguments = serde_json::Map::new();
        let mut text = String::from("{");
        while !self.eat(')') {
            let key = self.word()?.to_owned();
            if !self.eat('=') {
                return None;
            }
            let value = self.value(0)?;
            text.push_str(if arguments.is_empty() { "" } else { ", " });
            text.push_str(&format!("{}: {value}", serde_json::Value::from(key.as_str())));
            arguments.insert(key, serde_json::Value::Null).is_none().then_some(())?;
            self.eat(',');
        }
        text.push('}');
        Some(ToolCall { id: String::new(), name: proper_name(name)?, arguments: text })
    }

    /// A literal, as JSON.
    fn value(&mut self, depth: usize) -> Option<String> {
        match self.rest.chars().next()? {
            _ if depth > DEPTH_MAX => None,
            quote @ ('"' | '\'') => self.text(quote).map(|text| serde_json::Value::from(text).to_string()),
            '[' => self.items(']', depth, |reader, depth| reader.value(depth)).map(|all| format!("[{all}]")),
            '{' => self.items('}', depth, Reader::entry).map(|all| format!("{{{all}}}")),
            _ => match self.word()? {
                "True" | "true" => Some("true".into()),
                "False" | "false" => Some("false".into()),
                "None" | "null" => Some("null".into()),
                number => {
                    serde_json::from_str::<serde_json::Number>(number).ok().map(|number| number.to_string())
                }
            },
        }
    }

    fn items(
        &mut self,
        close: char,
        depth: usize,
        item: impl Fn(&mut Self, usize) -> Option<String>,
    ) -> Option<String> {
        self.rest = self.rest.get(1..)?.trim_start();
        let mut items = Vec::new();
        while !self.eat(close) {
            items.push(item(self, depth + 1)?);
            if !self.eat(',') && !self.rest.starts_with(close) {
                return None;
            }
        }
        Some(items.join(", "))
    }

    fn entry(&mut self, depth: usize) -> Option<String> {
        let quote = self.rest.chars().next().filter(|c| matches!(c, '"' | '\''))?;
        let key = serde_json::Value::from(self.text(quote)?);
        self.eat(':').then_some(())?;
        Some(format!("{key}: {}", self.value(depth)?))
    }

    fn text(&mut self, quote: char) -> Option<String> {
        let mut text = String::new();
        let mut letters = self.rest.char_indices().skip(1);
        while let Some((at, letter)) = letters.next() {
            match letter {
                _ if letter == quote => {
                    self.rest = self.rest[at + 1..].trim_start();
                    return Some(text);
                }
                '\\' => text.push(match letters.next()?.1 {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    other => other,
                }),
                _ => text.push(letter),
            }
        }
        None
    }
}
