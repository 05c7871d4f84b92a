//! Whoever turns a conversation into an answer, and the words that are exchanged with it.

use super::ModelFailure;
use context::Message;
use futures::future::BoxFuture;
use mind::{SaidCall, ToolChoice};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use types::{Class, Hash, ProjectName};

/// What a provider is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderFacts {
    /// Tokens of prompt and answer together.
    pub window: u64,
    pub tokenizer: Hash,
    /// Two answers with the same numerics id, seed and context are the same.
    pub numerics: Option<Hash>,
}

/// How a provider is doing, for choosing among several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// How long a new call would wait.
    pub queue_ms: u64,
    /// It asked not to be called for so long.
    pub closed_ms: u64,
    /// It failed so often that nobody is sent there now.
    pub broken: bool,
    /// Whether it can call tools.
    pub tools: bool,
}

impl Default for Standing {
    fn default() -> Self {
        Standing { queue_ms: 0, closed_ms: 0, broken: false, tools: true }
    }
}

/// A conversation as the model reads it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prompt {
    pub ids: Vec<u32>,
    /// Tokens of each message, for saying what takes the room.
    pub counts: Vec<u64>,
    /// Where others count: no fewer than they will, and how many they probably will.
    pub bound: u64,
    pub likely: u64,
}

impl Prompt {
    /// Tokens that the prompt has, or at the most has.
    pub fn tokens(&self) -> u64 {
        self.bound.max(self.ids.len() as u64)
    }

    /// What of a window the prompt takes, as far as that is known.
    pub(crate) fn room(&self) -> u64 {
        if self.bound > 0 { self.likely } else { self.ids.len() as u64 }
    }
}

/// A prompt to be continued.
#[derive(Debug, Clone)]
pub struct Ask {
    pub prompt: Prompt,
    pub max_new: u32,
    pub min_new: u32,
    pub temperature_milli: u32,
    pub seed: u64,
    pub project: ProjectName,
    pub class: Class,
    pub agent: String,
    pub call: u32,
    pub messages: Arc<Vec<Message>>,
    pub tools: Option<Arc<str>>,
    pub choice: ToolChoice,
    /// When it fires the provider stops, and says so with a last [`Said::End`].
    pub stop: CancellationToken,
}

/// What comes out of a provider for one ask: any number of tokens, then one end.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    /// A token; its text may be empty while a character is not complete.
    Token {
        id: u32,
        text: String,
    },
    End {
        why: EndOfSpeech,
        text: String,
        token_ids: Vec<u32>,
        prompt_tokens: u64,
        cached_tokens: u64,
        calls: Option<Vec<SaidCall>>,
        /// What a provider that counts itself says it used; else the ids are counted.
        counted: Option<Counted>,
        /// In line, before the model began; from a provider that knows.
        waited_ms: Option<u64>,
    },
    Failed(ModelFailure),
}

/// Tokens as a provider counts them, judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    pub prompt: u64,
    pub generated: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndOfSpeech {
    /// The model ended by itself.
    Stop,
    /// `max_new` tokens were said.
    Length,
    /// The ask's `stop` fired.
    Stopped,
}

/// The provider of what is computed here, as traces name it.
pub const OWN: &str = "quorate";

/// Whoever turns a conversation into an answer.
pub trait Provider: Send + Sync + 'static {
    fn facts(&self) -> ProviderFacts;
    /// Who computes, as OpenTelemetry's conventions name providers.
    fn maker(&self) -> &'static str {
        OWN
    }
    /// The host that computes, where it is not this one: its connections can be limited.
    fn destination(&self) -> Option<String> {
        None
    }
    /// How it is doing; one that says nothing is always free.
    fn standing(&self) -> Standing {
        Standing::default()
    }
    /// The conversation in tokens, ready to be continued.
    fn prompt<'a>(
        &'a self,
        messages: &'a Arc<Vec<Message>>,
        tools: Option<&'a Arc<str>>,
    ) -> BoxFuture<'a, Result<Prompt, ModelFailure>>;
    /// The prompt will be asked for in a moment. Must not block.
    fn foresee(&self, project: &ProjectName, class: Class, prompt: &Prompt) {
        let _ = (project, class, prompt);
    }
    /// Begins to answer. The receiver must never make the provider wait: it holds `max_new` pieces and the end.
    fn answer(&self, ask: Ask) -> BoxFuture<'_, Result<mpsc::Receiver<Said>, ModelFailure>>;
}
