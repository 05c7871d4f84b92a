//! Values that come in several shapes. They are told apart while they are read: nothing is kept in between.

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// What an answer goes on from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prompt {
    Text(String),
    Tokens(Vec<u32>),
}

/// `"a"`, `[1, 2]`, `["a", "b"]` or `[[1, 2], [3]]`.
#[derive(Debug)]
pub(super) struct Prompts(pub(super) Vec<Prompt>);

impl<'de> Deserialize<'de> for Prompts {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(PromptsVisitor)
    }
}

struct PromptsVisitor;

impl<'de> Visitor<'de> for PromptsVisitor {
    type Value = Prompts;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, an array of texts, an array of token ids, or an array of such arrays")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Prompts, E> {
        Ok(Prompts(vec![Prompt::Text(text.to_owned())]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Prompts, A::Error> {
        let (mut prompts, mut tokens) = (Vec::new(), Vec::new());
        while let Some(item) = items.next_element::<Item>()? {
            match item {
                Item::Prompt(prompt) => prompts.push(prompt),
                Item::Token(token) => tokens.push(token),
            }
        }
        match (prompts.is_empty(), tokens.is_empty()) {
            (_, true) => Ok(Prompts(prompts)),
            (true, false) => Ok(Prompts(vec![Prompt::Tokens(tokens)])),
            (false, false) => Err(Error::custom("token ids and texts can't stand in one array")),
        }
    }
}

/// An element of an array of prompts.
enum Item {
    Prompt(Prompt),
    Token(u32),
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(ItemVisitor)
    }
}

struct ItemVisitor;

impl<'de> Visitor<'de> for ItemVisitor {
    type Value = Item;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a token id or an array of token ids")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Item, E> {
        Ok(Item::Prompt(Prompt::Text(text.to_owned())))
    }

    fn visit_u64<E: Error>(self, token: u64) -> Result<Item, E> {
        u32::try_from(token).map(Item::Token).map_err(|_| E::custom(format!("{token} is no token id")))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Item, A::Error> {
        let mut tokens = Vec::new();
        while let Some(token) = items.next_element::<u32>()? {
            tokens.push(token);
        }
        Ok(Item::Prompt(Prompt::Tokens(tokens)))
    }
}

/// `"a"` or `["a", "b"]`, as `stop` is.
#[derive(Debug, Default)]
pub(super) struct Texts(pub(super) Vec<String>);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(TextsVisitor)
    }
}

struct TextsVisitor;

impl<'de> Visitor<'de> for TextsVisitor {
    type Value = Texts;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or an array of texts")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Texts, E> {
        Ok(Texts(vec![text.to_owned()]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Texts, A::Error> {
        let mut texts = Vec::new();
        while let Some(text) = items.next_element()? {
            texts.push(text);
        }
        Ok(Texts(texts))
    }
}

/// The content of a message: a text, or parts that are all text.
#[derive(Debug, Default)]
pub(super) struct Content(pub(super) String);

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or an array of text parts")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Content, E> {
        Ok(Content(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Content, A::Error> {
        let mut text = String::new();
        while let Some(part) = items.next_element::<Part>()? {
            text.push_str(&part.0);
        }
        Ok(Content(text))
    }
}

/// `{"type": "text", "text": "…"}`.
struct Part(String);

impl<'de> Deserialize<'de> for Part {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(PartVisitor)
    }
}

struct PartVisitor;

impl<'de> Visitor<'de> for PartVisitor {
    type Value = Part;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a part such as {\"type\": \"text\", \"text\": \"…\"}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Part, A::Error> {
        let mut text = None;
        while let Some(key) = fields.next_key::<String>()? {
            match key.as_str() {
                "text" => text = Some(fields.next_value::<String>()?),
                "type" => match fields.next_value::<String>()?.as_str() {
                    "text" | "refusal" => {}
                    other => {
                        return Err(Error::custom(format!(
                            "parts of type {other:?} can't be read here, only text"
                        )));
                    }
                },
                _ => drop(fields.next_value::<IgnoredAny>()?),
            }
        }
        text.map(Part).ok_or_else(|| Error::custom("a part has no text"))
    }
}
