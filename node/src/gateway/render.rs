//! Messages to tokens, remembering what was rendered before.
//!
//! A chain grows at its end, so the tokens of a message are remembered under the whole prefix it stands in. What a
//! model generated is never rendered again: its exact ids are used.

use super::{ModelFailure, Prompt};
use context::{Message, Role};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use types::Hash;
use worker_inference::chat;
use worker_inference::text::{TextError, TextModel};

/// Rendered messages that are remembered: a fleet's shared prefixes and the running chains. About 1,500 tokens each
/// at the most common size makes this some tens of megabytes.
const REMEMBERED: usize = 4096;

pub(super) struct Renderer {
    text: Arc<TextModel>,
    tokenizer: Hash,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    tokens: BTreeMap<Hash, Arc<Vec<u32>>>,
    order: VecDeque<Hash>,
}

impl Renderer {
    pub(super) fn new(text: Arc<TextModel>, tokenizer: Hash) -> Self {
        Renderer { text, tokenizer, memory: Mutex::default() }
    }

    /// The conversation in tokens, with the opening of the answer, or ending inside the answer to be continued.
    /// Computes for milliseconds when much is new: call it where blocking is allowed.
    pub(super) fn prompt(&self, messages: &[Message]) -> Result<Prompt, ModelFailure> {
        let mut prompt = Prompt::default();
        let mut prior: Vec<chat::Message> = Vec::with_capacity(messages.len());
        let mut key = Hash::default();
        for (index, message) in messages.iter().enumerate() {
            let opens_answer = messages.get(index + 1).is_none_or(|next| self.continues(next));
            key = prefix_key(key, message, opens_answer);
            let tokens = self.remembered(key, || self.render(&prior, message, opens_answer))?;
            prompt.counts.push(tokens.len() as u64);
            prompt.ids.extend_from_slice(&tokens);
            prior.push(chat::Message::new(message.role.as_str(), message.text.as_str()));
        }
        Ok(prompt)
    }

    /// Whether this message is rendered as the rest of an answer whose opening stands in front of it.
    fn continues(&self, message: &Message) -> bool {
        message.role == Role::Assistant && (message.open || self.ids(message).is_some())
    }

    fn ids<'a>(&self, message: &'a Message) -> Option<&'a [u32]> {
        let tokens = message.tokens.as_ref().filter(|tokens| tokens.tokenizer == self.tokenizer)?;
        Some(&tokens.ids)
    }

    fn render(
        &self,
        prior: &[chat::Message],
        message: &Message,
        opens_answer: bool,
    ) -> Result<Vec<u32>, TextError> {
        // An answer at the very beginning has no opening in front of it; it is rendered like any message.
        if !self.continues(message) || prior.is_empty() {
            let next = chat::Message::new(message.role.as_str(), message.text.as_str());
            return self.text.encode_next(prior, &next, opens_answer && !message.open);
        }
        let mut tokens = match self.ids(message) {
            Some(ids) => ids.to_vec(),
            None => self.text.tokenizer.encode(&message.text, false)?,
        };
        while tokens.last().is_some_and(|&last| self.text.tokenizer.is_end(last)) {
            tokens.pop();
        }
        if !message.open {
            tokens.extend(self.text.encode_after_answer(prior, &message.text)?);
        }
        if !message.open && opens_answer {
            tokens.extend(self.opening(prior, message)?);
        }
        Ok(tokens)
    }

    /// What opens the next answer behind a closed one.
    fn opening(&self, prior: &[chat::Message], message: &Message) -> Result<Vec<u32>, TextError> {
        let next = chat::Message::new(message.role.as_str(), message.text.as_str());
        let with = self.text.chat()?.render_next(prior, &next, true)?;
        let without = self.text.chat()?.render_next(prior, &next, false)?;
        let opening = with.strip_prefix(without.as_str()).unwrap_or_default();
        Ok(self.text.tokenizer.encode(opening, true)?)
    }

    fn remembered(
        &self,
        key: Hash,
        render: impl FnOnce() -> Result<Vec<u32>, TextError>,
    ) -> Result<Arc<Vec<u32>>, ModelFailure> {
        if let Some(tokens) = self.memory().tokens.get(&key) {
            return Ok(tokens.clone());
        }
        let tokens = Arc::new(render().map_err(|error| {
            ModelFailure::lasting(
                "CANNOT_RENDER",
                format!("the conversation does not fit the model's template: {error}"),
            )
        })?);
        self.memory().keep(key, tokens.clone());
        Ok(tokens)
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().expect("nothing panics while it holds the memory")
    }
}

impl Memory {
    fn keep(&mut self, key: Hash, tokens: Arc<Vec<u32>>) {
        if self.tokens.insert(key, tokens).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.tokens.remove(&oldest);
        }
    }
}

fn prefix_key(before: Hash, message: &Message, opens_answer: bool) -> Hash {
    let segments: Vec<u8> = message.segments.iter().flat_map(|hash| hash.0).collect();
    let flags = [u8::from(message.open), u8::from(opens_answer)];
    Hash::of_parts(&[&before.0, message.role.as_str().as_bytes(), &segments, message.text.as_bytes(), &flags])
}
