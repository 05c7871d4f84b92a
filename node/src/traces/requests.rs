//! A request of OpenAI's API as spans. It is no task: it stands in its caller's trace, or is one of its own.

use super::ids::Caller;
use super::span::{Kind, Span, SpanId, Times, TraceId, Value};
use super::work::parts;
use super::{Traces, genai, now_ns};
use crate::gateway::Waits;
use std::sync::OnceLock;
use types::NodeId;

/// What is asked, and who answers.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// As the conventions name it: `chat` or `text_completion`.
    pub(crate) operation: &'static str,
    pub(crate) model: String,
    /// Who computes, as the conventions name providers.
    pub(crate) provider: &'static str,
    pub(crate) project: String,
    pub(crate) node: NodeId,
}

/// How it ended. Tokens are those that were counted, also of an answer that broke off.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ended {
    pub(crate) prompt_tokens: u64,
    pub(crate) cached_tokens: u64,
    pub(crate) generated_tokens: u64,
    /// In the line of an engine beside us.
    pub(crate) waited_ms: Option<u64>,
    pub(crate) finish: Option<&'static str>,
    /// A stable word.
    pub(crate) error: Option<&'static str>,
}

/// A request that is being answered, and will be told.
pub(crate) struct Answering {
    traces: Traces,
    asked: Asked,
    trace: TraceId,
    id: SpanId,
    parent: Option<SpanId>,
    begun_ns: u64,
    /// When everything was set aside and the model asked.
    model_ns: OnceLock<u64>,
    first_ns: OnceLock<u64>,
}

impl Traces {
    /// None where nobody listens, or the caller keeps no trace.
    pub(crate) fn request(&self, caller: Option<Caller>, asked: impl FnOnce() -> Asked) -> Option<Answering> {
        let ids = self.ids().filter(|_| caller.is_none_or(|caller| caller.sampled))?;
        let asked = asked();
        let begun_ns = now_ns();
        let names = ids.request(asked.node, begun_ns, self.number());
        Some(Answering::new(self.clone(), names, caller, asked, begun_ns))
    }
}

impl Answering {
    pub(super) fn new(
        traces: Traces,
        (own, id): (TraceId, SpanId),
        caller: Option<Caller>,
        asked: Asked,
        begun_ns: u64,
    ) -> Answering {
        Answering {
            traces,
            asked,
            trace: caller.map_or(own, |caller| caller.trace),
            id,
            parent: caller.map(|caller| caller.span),
            begun_ns,
            model_ns: OnceLock::new(),
            first_ns: OnceLock::new(),
        }
    }

    pub(crate) fn model_is_asked(&self) {
        self.model_ns.get_or_init(now_ns);
    }

    pub(crate) fn first_token(&self) {
        self.first_ns.get_or_init(now_ns);
    }

    pub(crate) fn end(self, ended: &Ended) {
        let times = Times { begun_ns: self.begun_ns, ended_ns: now_ns() };
        self.traces.send(self.spans(times, ended));
    }

    /// The request, and below it where its time went.
    pub(super) fn spans(&self, times: Times, ended: &Ended) -> Vec<Span> {
        let (first_ns, asked_ns) = (self.first_ns.get().copied(), self.model_ns.get().copied());
        let waits = Waits { asked_ns: asked_ns.unwrap_or(times.begun_ns), line_ms: ended.waited_ms };
        let parts = parts(times, first_ns, waits).into_iter().enumerate();
        let part = |(index, (name, begun_ns, ended_ns)): (usize, (&str, u64, u64))| {
            let id = SpanId((u64::from_le_bytes(self.id.0) ^ (index as u64 + 1)).to_le_bytes());
            self.span(id, Some(self.id), name.into(), Times { begun_ns, ended_ns })
        };
        std::iter::once(self.whole(times, first_ns, ended)).chain(parts.map(part)).collect()
    }

    fn whole(&self, times: Times, first_ns: Option<u64>, ended: &Ended) -> Span {
        let Asked { operation, model, provider, .. } = &self.asked;
        let first_s = first_ns.map(|first| first.saturating_sub(times.begun_ns) as f64 / 1e9);
        let counted = |tokens: u64| Some(tokens).filter(|_| ended.prompt_tokens > 0);
        let mut span = self.span(self.id, self.parent, format!("{operation} {model}"), times);
        span.kind = Kind::Server;
        span.with(genai::OPERATION, *operation)
            .with(genai::PROVIDER, *provider)
            .with(genai::REQUEST_MODEL, model.as_str())
            .with_some(genai::FINISH_REASONS, ended.finish.map(|why| Value::Texts(vec![why.to_string()])))
            .with_some(genai::FIRST_CHUNK, first_s)
            .with_some(genai::INPUT_TOKENS, counted(ended.prompt_tokens))
            .with_some(genai::CACHED_TOKENS, counted(ended.cached_tokens))
            .with_some(genai::OUTPUT_TOKENS, counted(ended.generated_tokens))
            .failed_by(ended.error)
    }

    fn span(&self, id: SpanId, parent: Option<SpanId>, name: String, times: Times) -> Span {
        Span::new(self.trace, id, parent, name, times)
            .with(genai::PROJECT, self.asked.project.as_str())
            .with(genai::NODE, self.asked.node.to_string())
    }
}
