//! A model's text side, apart from its arithmetic: anybody may tokenise and render while the engine computes.

use crate::chat::{Chat, ChatError, Message};
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
                Some(Chat::new(template, text_of(tokenizer.bos()), text_of(tokenizer.eos()))?)
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
        let rendered = self.chat()?.next_rendered(prior, next, add_generation_prompt)?;
        Ok(self.tokenizer.encode_guarded(&rendered.text, std::slice::from_ref(&rendered.content))?)
    }

    /// The tokens that close a generated answer; see [`Chat::after_answer`].
    pub fn encode_after_answer(&self, prior: &[Message], answer: &str) -> Result<Vec<u32>, TextError> {
        let text = self.chat()?.after_answer(prior, answer)?;
        Ok(self.tokenizer.encode(&text, true)?)
    }
}
