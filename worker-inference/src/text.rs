//! A model's text side, apart from its arithmetic: anybody may tokenise and render while the engine computes.

mod chains;

use std::ops::Range;

pub use chains::Chains;

use crate::chat::{Chat, ChatError, ChatOptions, Message};
use crate::model::gguf::Gguf;
use crate::tokenizer::{Tokenizer, TokenizerError};

/// Tokenizer and chat template of one model. Shared behind an `Arc`; everything takes `&self`.
#[derive(Debug)]
pub struct TextModel {
    pub tokenizer: Tokenizer,
    chat: Option<Chat>,
}

/// A conversation could not be turned into tokens.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    #[error(transparent)]
    Chat(#[from] ChatError),
}

impl TextModel {
    /// Reads both from the model file. A file without a chat template is fine until someone chats.
    pub fn from_gguf(gguf: &Gguf<'_>) -> Result<TextModel, TextError> {
        let tokenizer = Tokenizer::from_gguf(gguf)?;
        let text_of = |id: Option<u32>| id.map_or("", |id| tokenizer.special_text(id));
        let chat = match gguf.get("tokenizer.chat_template") {
            None => None,
            Some(_) => {
                let template = gguf.text("tokenizer.chat_template").map_err(TokenizerError::from)?;
                let chat = Chat::new(template, text_of(tokenizer.bos()), text_of(tokenizer.eos()))?;
                Some(chat.guarding(tokenizer.controls().map(str::to_owned).collect()))
            }
        };
        Ok(TextModel { tokenizer, chat })
    }

    /// The chat template.
    pub fn chat(&self) -> Result<&Chat, ChatError> {
        self.chat.as_ref().ok_or(ChatError::Absent)
    }

    /// The tokens that one more message adds to a conversation's chain. Control tokens come only from the
    /// template: the same characters inside the message stay plain text.
    pub fn encode_next(
        &self,
        prior: &[Message],
        next: &Message,
        add_generation_prompt: bool,
    ) -> Result<Vec<u32>, TextError> {
        let next = std::slice::from_ref(next);
        self.encode_more(prior, next, &ChatOptions::default(), add_generation_prompt)
    }

    /// The tokens that some new messages add. Give the results of one answer's calls together: some templates
    /// put them into one turn.
    pub fn encode_more(
        &self,
        prior: &[Message],
        new: &[Message],
        options: &ChatOptions,
        add_generation_prompt: bool,
    ) -> Result<Vec<u32>, TextError> {
        let (rendered, behind) = self.chat()?.grown(prior, new, options, add_generation_prompt)?;
        Ok(self.tokenizer.encode_behind(&behind, &rendered.text, &rendered.guarded)?)
    }

    /// The tokens of a whole conversation, with the opening of the answer where `add_generation_prompt` says so.
    /// Control tokens come only from the template: whatever messages, tools and calls contain is plain text.
    pub fn encode_chat(
        &self,
        messages: &[Message],
        options: &ChatOptions,
        add_generation_prompt: bool,
    ) -> Result<Vec<u32>, TextError> {
        let rendered = self.chat()?.whole_rendered(messages, options, add_generation_prompt)?;
        Ok(self.tokenizer.encode_guarded(&rendered.text, &rendered.guarded)?)
    }

    /// The tokens that close a generated answer; see [`Chat::after_answer`].
    pub fn encode_after_answer(&self, prior: &[Message], _answer: &str) -> Result<Vec<u32>, TextError> {
        self.encode_closing(prior, &ChatOptions::default())
    }

    /// The tokens that close the answer generated after `prior`, whatever it is.
    pub fn encode_closing(&self, prior: &[Message], options: &ChatOptions) -> Result<Vec<u32>, TextError> {
        let text = self.chat()?.closing(prior, options)?;
        // An answer is ordinary text, so nothing begins here.
        Ok(self.tokenizer.encode_behind("answer", &text, &[])?)
    }

    /// Where generated tokens think, from the opening mark through the closing one (or the end): what an owner
    /// of the chain may drop as a segment once the turn is over, as the model's template does.
    pub fn thinking(&self, generated: &[u32]) -> Option<Range<usize>> {
        let (open, close) =
            [("<think>", "</think>"), ("[THINK]", "[/THINK]")].iter().find_map(|(open, close)| {
                Some((self.tokenizer.special(open)?, self.tokenizer.special(close)?))
            })?;
        let end = generated.iter().rposition(|&token| token == close).map(|at| at + 1);
        // Some templates write the opening mark themselves, in front of what is generated.
        let start = generated.iter().position(|&token| token == open);
        match (start, end) {
            (None, None) => None,
            (start, end) => Some(start.unwrap_or(0)..end.unwrap_or(generated.len())),
        }
    }
}

#[cfg(test)]
#[path = "text/templates_test.rs"]
mod templates_test;
