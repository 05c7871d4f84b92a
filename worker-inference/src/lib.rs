//! A paged-KV inference engine for agents, in one process and on the CPU: tokens in, tokens out.
//!
//! It is not a server and knows no clock, no network, no async: one thread owns an [`Engine`] and calls
//! [`Engine::step`]. It never decides who may use it or who pays; that is the caller's.
//!
//! The same tokens, seed and numerics id give the same bits, whatever else runs, however a prompt is cut
//! into chunks, and whether its prefix was cached.
//!
//! Read: `sequence`, `blocks` and `prefix` (what is kept), `evict` and `tiers` (what goes, and where to),
//! `scheduler` (what runs next), `engine` (the step: schedule, run, commit), `drafts` (guesses), `sampler`, `grammar` and `stop`,
//! `model` (the file and the forward pass), then the text side
//! (`tokenizer`, `chat`, `text`) and `score`.

pub mod blocks;
pub mod chat;
pub mod drafts;
pub mod engine;
pub mod evict;
pub mod grammar;
pub mod model;
pub mod prefix;
pub mod replay;
pub mod sampler;
pub mod scheduler;
pub mod score;
pub mod sequence;
pub mod stop;
pub mod text;
pub mod tiers;
pub mod tokenizer;

pub use chat::{
    CallFormat, Chat, ChatError, ChatOptions, Message, ToolCall, Tools, text_before_calls, tool_calls,
};
pub use engine::{
    DiskKv, Engine, EngineConfig, EngineInfo, Event, FinishReason, ForkRequest, LoadError, Observed,
    PartsRequest, PartsSubmitted, Request, ScoreRequest, Speculation, TokenLogprobs, Usage,
};
pub use evict::{Eviction, Hint, Owner, Use};
pub use grammar::{Grammar, GrammarError, Grammars};
pub use prefix::Scope;
pub use sampler::Sampling;
pub use scheduler::{SubmitError, Verb, VerbOutcome};
pub use score::{
    Call, Children, ChildrenRun, Parted, Removed, ScoreError, Spent, TextScore, last_logits, perplexity,
    score, score_children, score_parts, score_removed, score_without,
};
pub use sequence::{SequenceId, TreeId};
pub use text::{Chains, TextError, TextModel};
pub use tiers::{Tiers, TiersConfig};
pub use tokenizer::{Detokenizer, Tokenizer, TokenizerError};

/// The instruction sets that this processor can run, plainest first.
pub fn kernels_here() -> Vec<String> {
    kernels::Isa::available().into_iter().map(|isa| isa.to_string()).collect()
}
