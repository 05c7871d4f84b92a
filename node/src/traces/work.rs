//! What only the node that works sees, as spans: the request that made a task, its model calls, its tool calls.

use super::genai;
use super::ids::Place;
use super::span::{Kind, Span, SpanId, Times, Value};
use crate::gateway::Waits;
use types::{Epoch, NodeId, Spent};

/// Who does it: one lease of a task on one node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Holder {
    pub(crate) place: Place,
    pub(crate) epoch: Epoch,
    pub(crate) node: NodeId,
}

/// A model call that was made.
#[derive(Clone, Debug)]
pub(crate) struct Chat {
    pub(crate) model: String,
    /// Who computed, as the conventions name providers.
    pub(crate) provider: &'static str,
    /// It was computed by this very model, beside us.
    pub(crate) local: bool,
    pub(crate) step: u64,
    pub(crate) call: u32,
    pub(crate) max_tokens: u32,
    pub(crate) temperature_milli: u32,
    pub(crate) seed: u64,
    /// When its first token came.
    pub(crate) first_ns: Option<u64>,
    pub(crate) waits: Waits,
    pub(crate) ended: Result<(&'static str, Spent), String>,
}

/// A tool call that was made.
#[derive(Clone, Debug)]
pub(crate) struct ToolRun {
    pub(crate) tool: String,
    pub(crate) operation: String,
    pub(crate) step: u64,
    pub(crate) index: u32,
    pub(crate) attempt: u32,
    /// A stable word, where it did not answer.
    pub(crate) error: Option<String>,
}

/// The call, and below it, where tokens came one by one, where its time went.
pub(crate) fn chat(holder: &Holder, times: Times, chat: &Chat) -> Vec<Span> {
    let numbers = [chat.step, chat.call.into(), times.begun_ns];
    let id = holder.place.moment("chat", holder.epoch, &numbers);
    let (spent, finish) = match &chat.ended {
        Ok((finish, spent)) => (Some(*spent), Some(*finish)),
        Err(_) => (None, None),
    };
    let first_s = chat.first_ns.map(|first| first.saturating_sub(times.begun_ns) as f64 / 1e9);
    let mut span = holder.span(id, format!("{} {}", genai::CHAT, chat.model), times);
    span.kind = if chat.local { Kind::Internal } else { Kind::Client };
    let span = span
        .with(genai::OPERATION, genai::CHAT)
        .with(genai::PROVIDER, chat.provider)
        .with(genai::REQUEST_MODEL, chat.model.as_str())
        .with(genai::MAX_TOKENS, u64::from(chat.max_tokens))
        .with(genai::TEMPERATURE, f64::from(chat.temperature_milli) / 1e3)
        .with(genai::SEED, Value::Number(chat.seed.cast_signed()))
        .with_some(genai::RESPONSE_MODEL, Some(chat.model.as_str()).filter(|_| chat.local && spent.is_some()))
        .with_some(genai::FINISH_REASONS, finish.map(|finish| Value::Texts(vec![finish.to_string()])))
        .with_some(genai::FIRST_CHUNK, first_s)
        .with_some(genai::INPUT_TOKENS, spent.map(|spent| spent.prompt_tokens))
        .with_some(genai::CACHED_TOKENS, spent.map(|spent| spent.cached_tokens))
        .with_some(genai::OUTPUT_TOKENS, spent.map(|spent| spent.generated_tokens))
        .with(genai::STEP, chat.step)
        .with(genai::CALL, u64::from(chat.call))
        .failed_by(chat.ended.as_ref().err().map(String::as_str));
    let part = |(name, begun_ns, ended_ns): (&str, u64, u64)| {
        let part_id = holder.place.moment(name, holder.epoch, &numbers);
        let part = holder.span(part_id, name.into(), Times { begun_ns, ended_ns });
        let spent = spent.filter(|_| name == PREFILL);
        Span { parent: Some(id), ..part }
            .with_some(genai::INPUT_TOKENS, spent.map(|spent| spent.prompt_tokens))
            .with_some(genai::CACHED_TOKENS, spent.map(|spent| spent.cached_tokens))
    };
    let parts: Vec<Span> = parts(times, chat.first_ns, chat.waits).into_iter().map(part).collect();
    std::iter::once(span).chain(parts).collect()
}

const PREFILL: &str = "prefill";

/// Where the time of a call that gave tokens went. Of what others compute nobody knows more than when it came.
pub(super) fn parts(times: Times, first_ns: Option<u64>, waits: Waits) -> Vec<(&'static str, u64, u64)> {
    let (begun, ended) = (times.begun_ns, times.ended_ns);
    let Some(first) = first_ns else { return Vec::new() };
    let Some(line_ms) = waits.line_ms else {
        return vec![("first token", begun, first), ("decode", first, ended)];
    };
    let asked = waits.asked_ns.clamp(begun, first);
    let starts = asked.saturating_add(line_ms.saturating_mul(1_000_000)).min(first);
    vec![
        ("reserve", begun, asked),
        ("queue", asked, starts),
        (PREFILL, starts, first),
        ("decode", first, ended),
    ]
}

pub(crate) fn tool(holder: &Holder, times: Times, run: &ToolRun) -> Span {
    let numbers = [run.step, run.index.into(), run.attempt.into(), times.begun_ns];
    let id = holder.place.moment("tool", holder.epoch, &numbers);
    holder
        .span(id, format!("{} {}", genai::EXECUTE_TOOL, run.tool), times)
        .with(genai::OPERATION, genai::EXECUTE_TOOL)
        .with(genai::TOOL, run.tool.as_str())
        .with(genai::TOOL_CALL, run.operation.as_str())
        .with(genai::STEP, run.step)
        .with(genai::CALL, u64::from(run.attempt))
        .failed_by(run.error.as_deref())
}

/// The request that created a task: below the caller's span, or else below the task's.
pub(crate) fn created(place: &Place, node: NodeId, times: Times) -> Span {
    let id = place.moment("create", Epoch::default(), &[node.0, times.begun_ns]);
    let parent = Some(place.caller.unwrap_or(place.span()));
    let name = "quorate.v1.TaskService/CreateTask".into();
    let span = Span { kind: Kind::Server, ..Span::new(place.trace, id, parent, name, times) };
    span.with(genai::RPC_SYSTEM, "grpc")
        .with(genai::RPC_SERVICE, "quorate.v1.TaskService")
        .with(genai::RPC_METHOD, "CreateTask")
        .with(genai::TASK, place.task.to_string())
        .with(genai::NODE, node.to_string())
}

impl Holder {
    /// Below the lease.
    fn span(&self, id: SpanId, name: String, times: Times) -> Span {
        let parent = Some(self.place.lease(self.epoch));
        Span::new(self.place.trace, id, parent, name, times)
            .with(genai::TASK, self.place.task.to_string())
            .with(genai::EPOCH, self.epoch.to_string())
            .with(genai::NODE, self.node.to_string())
    }
}
