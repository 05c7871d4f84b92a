//! What the ledger records of a task, as spans. Pure: the same events give the same spans, whoever reads them.
//!
//! A lease is a span from its grant to its end; a step is a span below the lease that committed it, from the event before
//! it; the task is a span from its creation to its end. What was open when a node died is closed by the record: the
//! ledger notes that the lease is over.

use super::genai;
use super::ids::Place;
use super::span::{Span, SpanId, Times, word};
use ledger::rows::{Event, EventKind, TaskRow};
use types::{Epoch, NodeId, Spent, TaskState};

/// The spans that end with the newest of these events, which are a task's last ones in their order. `row` is the task
/// as it was then.
pub(crate) fn spans(place: &Place, row: &TaskRow, events: &[Event]) -> Vec<Span> {
    let Some((event, before)) = events.split_last() else { return Vec::new() };
    match &event.kind {
        EventKind::Step { step, spent, .. } => {
            step_span(place, row, before, event.at_ms, (*step, *spent)).into_iter().collect()
        }
        EventKind::State { state, reason, epoch, .. } => {
            let now = epoch.filter(|_| !state.is_final());
            let over = lease_before(row, before, now).filter(|held| Some(*held) != now);
            let lease = over.map(|held| lease_span(place, before, held, event.at_ms, reason));
            let task = state.is_final().then(|| task_span(place, row, *state, event.at_ms));
            lease.into_iter().chain(task).collect()
        }
    }
}

/// The lease that was in force before an event. Where no event is left that says so, the newest one ever given was,
/// unless the event itself tells of one.
fn lease_before(row: &TaskRow, before: &[Event], now: Option<Epoch>) -> Option<Epoch> {
    // Only so many events are kept.
    let cut = before.first().is_some_and(|oldest| oldest.sequence > 1);
    let mut states = before.iter().rev().filter_map(lease_of);
    match (states.next(), states.next()) {
        (None, _) => row.last_epoch.filter(|_| cut && now.is_none()),
        // A lease that a pause took away stands again until a cancel is confirmed: it was told.
        (Some(Some(_)), Some(None)) if before.iter().rev().any(is_cancel) => None,
        (Some(last), _) => last,
    }
}

/// Whether a cancel is under way: nothing is granted then.
fn is_cancel(event: &Event) -> bool {
    matches!(event.kind, EventKind::State { state: TaskState::Cancelling, .. })
}

/// Where a lease was granted: the task waited just before.
fn grant(before: &[Event], held: Epoch) -> Option<usize> {
    let leases: Vec<_> = before.iter().map(lease_of).collect();
    let at = leases.windows(2).rposition(|two| two[1] == Some(Some(held)) && two[0] == Some(None));
    at.map(|at| at + 1)
}

/// The lease that an event says is in force; none for a step, which says nothing of it.
fn lease_of(event: &Event) -> Option<Option<Epoch>> {
    match &event.kind {
        EventKind::State { epoch, .. } => Some(*epoch),
        EventKind::Step { .. } => None,
    }
}

fn span(
    place: &Place,
    id: SpanId,
    parent: Option<SpanId>,
    name: String,
    (from_ms, to_ms): (u64, u64),
) -> Span {
    let ns = |ms: u64| ms.saturating_mul(1_000_000);
    let times = Times { begun_ns: ns(from_ms.min(to_ms)), ended_ns: ns(to_ms) };
    Span::new(place.trace, id, parent, name, times)
}

fn task_span(place: &Place, row: &TaskRow, state: TaskState, at_ms: u64) -> Span {
    let name = format!("{} {}", genai::INVOKE_AGENT, row.agent.as_str());
    let model = Some(row.model.as_str()).filter(|model| !model.is_empty());
    let word = row.error.as_ref().map_or(state.name(), |error| error.reason.as_str());
    let failed = matches!(state, TaskState::Failed | TaskState::Expired).then_some(word);
    span(place, place.span(), place.parent, name, (row.created_ms, at_ms))
        .with(genai::OPERATION, genai::INVOKE_AGENT)
        .with(genai::PROVIDER, "quorate")
        .with(genai::AGENT, row.agent.as_str())
        .with(genai::AGENT_VERSION, row.revision.short())
        .with(genai::CONVERSATION, row.uid.to_string())
        .with_some(genai::REQUEST_MODEL, model)
        .with(genai::INPUT_TOKENS, row.spent.prompt_tokens)
        .with(genai::OUTPUT_TOKENS, row.spent.generated_tokens)
        .with(genai::TASK, row.uid.to_string())
        .with(genai::PROJECT, row.project.as_str())
        .with(genai::STATE, state.name())
        .with(genai::STEPS, row.step)
        .failed_by(failed)
}

fn lease_span(place: &Place, before: &[Event], held: Epoch, at_ms: u64, reason: &str) -> Span {
    let granted = grant(before, held);
    let from_ms = before.get(granted.unwrap_or(0)).map_or(at_ms, |event| event.at_ms);
    let lost = (reason == "node-lost").then_some(reason);
    let mut lease = span(place, place.lease(held), Some(place.span()), "lease".into(), (from_ms, at_ms))
        .with(genai::TASK, place.task.to_string())
        .with(genai::EPOCH, held.to_string())
        .with_some(genai::NODE, node_of(before, held))
        .with_some(genai::REASON, Some(reason).filter(|reason| !reason.is_empty()).map(word))
        .failed_by(lost);
    lease.links.extend(granted.and_then(|at| former(place, &before[..at])));
    lease
}

/// None for a step of a task that never had a lease, which no ledger writes.
fn step_span(
    place: &Place,
    row: &TaskRow,
    before: &[Event],
    at_ms: u64,
    (step, spent): (u64, Spent),
) -> Option<Span> {
    let held = row.last_epoch?;
    let from_ms = before.last().map_or(at_ms, |event| event.at_ms);
    let times = (from_ms, at_ms);
    let mut span = span(place, place.step(step), Some(place.lease(held)), format!("step {step}"), times)
        .with(genai::TASK, place.task.to_string())
        .with(genai::STEP, step)
        .with(genai::EPOCH, held.to_string())
        .with_some(genai::NODE, node_of(before, held))
        .with(genai::INPUT_TOKENS, spent.prompt_tokens)
        .with(genai::OUTPUT_TOKENS, spent.generated_tokens);
    // The first step of a lease goes on from what the lease before it left.
    let first = grant(before, held).filter(|at| before[*at..].iter().all(|event| step_of(event).is_none()));
    span.links.extend(first.and_then(|at| former(place, &before[..at])));
    Some(span)
}

/// What a new lease goes on from: the lease before it, or the last committed step where no event of that is left.
fn former(place: &Place, before: &[Event]) -> Option<SpanId> {
    let lease = before.iter().rev().find_map(|event| lease_of(event).flatten());
    let step = || before.iter().rev().find_map(step_of);
    lease.map(|epoch| place.lease(epoch)).or_else(|| step().map(|step| place.step(step)))
}

fn step_of(event: &Event) -> Option<u64> {
    match event.kind {
        EventKind::Step { step, .. } => Some(step),
        EventKind::State { .. } => None,
    }
}

fn node_of(events: &[Event], held: Epoch) -> Option<String> {
    let node = events.iter().rev().find_map(|event| match &event.kind {
        EventKind::State { epoch: Some(epoch), node: Some(node), .. } if *epoch == held => Some(*node),
        _ => None,
    });
    node.map(|node: NodeId| node.to_string())
}
