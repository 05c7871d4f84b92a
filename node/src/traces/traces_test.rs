//! Names, headers, and the record of a task whose node is killed.

use super::Traces;
use super::follow::Held;
use super::ids::{Caller, Ids, LABEL, Place};
use super::record;
use super::requests::{Answering, Asked, Ended};
use super::span::{Span, SpanId, Times, TraceId, Value, word};
use super::work::{Chat, Holder, ToolRun, chat, created, tool};
use crate::gateway::Waits;
use ledger::rows::{Event, EventKind, Origin, TaskRow};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use types::{ClusterId, Epoch, Hash, NodeId, Spent, TaskState, TaskUid};

const HEADER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const TIMES: Times = Times { begun_ns: 5_000_000_000, ended_ns: 7_000_000_000 };

fn uid(index: u64) -> TaskUid {
    TaskUid { index, position: 0 }
}

fn epoch(index: u64) -> Epoch {
    Epoch { incarnation: 1, index, position: 0 }
}

fn ids() -> Ids {
    Ids::of(ClusterId([7; 16]))
}

fn row() -> TaskRow {
    TaskRow {
        uid: uid(9),
        agent: "clerk".into(),
        model: "small".into(),
        created_ms: 1_000,
        ..TaskRow::empty()
    }
}

fn place() -> Place {
    ids().place(&row(), uid(9)).unwrap()
}

fn state(state: TaskState, reason: &str, lease: Option<(u64, u64)>) -> EventKind {
    let (node, epoch) = (lease.map(|(node, _)| NodeId(node)), lease.map(|(_, index)| epoch(index)));
    EventKind::State { state, reason: reason.into(), node, epoch }
}

fn step(step: u64) -> EventKind {
    let spent = Spent { prompt_tokens: 10, generated_tokens: 2, ..Spent::default() };
    EventKind::Step { step, head: Hash::of(b"head"), spent, route: None }
}

/// Two steps on one node, which is killed; two on another.
fn killed() -> Vec<EventKind> {
    vec![
        state(TaskState::Pending, "created", None),
        state(TaskState::Running, "", Some((4, 20))),
        step(1),
        step(2),
        state(TaskState::Pending, "node-lost", None),
        state(TaskState::Running, "", Some((5, 30))),
        step(3),
        step(4),
        state(TaskState::Succeeded, "", None),
    ]
}

/// All spans, as a leader makes them while the events come, of which only the newest `kept` are there.
fn told(kinds: &[EventKind], kept: usize) -> Vec<Span> {
    let mut row = row();
    let mut events: Vec<Event> = Vec::new();
    let mut spans = Vec::new();
    for (n, kind) in (1..).zip(kinds) {
        events.push(Event { sequence: n, at_ms: 1_000 + 100 * n, kind: kind.clone() });
        row.sequence = n;
        if let EventKind::State { epoch: Some(epoch), .. } = kind {
            row.last_epoch = Some(*epoch);
        }
        let from = events.len().saturating_sub(kept);
        spans.extend(record::spans(&place(), &row, &events[from..]));
    }
    spans
}

fn named<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("no span {name} in {spans:#?}"))
}

fn text(span: &Span, name: &str) -> String {
    match span.attributes.iter().find(|(key, _)| *key == name) {
        Some((_, Value::Text(text))) => text.clone(),
        other => panic!("{name} is {other:?} in {span:#?}"),
    }
}

fn orphans(spans: &[Span]) -> Vec<&Span> {
    let ids: BTreeSet<SpanId> = spans.iter().map(|span| span.id).collect();
    spans.iter().filter(|span| span.parent.is_some_and(|parent| !ids.contains(&parent))).collect()
}

#[test]
fn a_killed_node_leaves_one_whole_tree() {
    let spans = told(&killed(), 64);
    let names: Vec<&str> = spans.iter().map(|span| span.name.as_str()).collect();
    let expected = ["step 1", "step 2", "lease", "step 3", "step 4", "lease", "invoke_agent clerk"];
    assert_eq!(names, expected);
    assert_eq!(spans.iter().filter(|span| span.parent.is_none()).count(), 1);
    assert!(orphans(&spans).is_empty(), "{spans:#?}");
    let (first, second) = (&spans[2], &spans[5]);
    assert_eq!((text(first, "error.type").as_str(), first.failed), ("node-lost", true));
    assert_eq!((text(first, "quorate.node").as_str(), text(second, "quorate.node").as_str()), ("n4", "n5"));
    assert_eq!(second.links, [first.id], "the second lease goes on from the first");
    assert_eq!(named(&spans, "step 3").links, [first.id]);
    assert!(named(&spans, "step 4").links.is_empty() && named(&spans, "step 1").links.is_empty());
    assert_eq!(named(&spans, "step 2").parent, Some(first.id));
    assert_eq!(named(&spans, "step 3").parent, Some(second.id));
    let task = named(&spans, "invoke_agent clerk");
    assert_eq!((task.start_ns, task.end_ns), (1_000_000_000, 1_900_000_000));
    assert!(spans.iter().all(|span| span.start_ns <= span.end_ns));
    assert_eq!(spans, told(&killed(), 64), "the same events give the same spans");
}

#[test]
fn a_long_lease_is_closed_although_its_beginning_is_forgotten() {
    let mut kinds = killed();
    kinds.splice(4..4, (3..40).map(step));
    let spans = told(&kinds, 8);
    assert!(orphans(&spans).is_empty());
    let leases: Vec<&Span> = spans.iter().filter(|span| span.name == "lease").collect();
    assert_eq!(leases.len(), 2);
    let linked = spans.iter().find(|span| span.name == "step 3" && span.parent == Some(leases[1].id));
    assert_eq!(linked.unwrap().links, [place().step(39)], "to the last step that is known");
}

#[test]
fn a_wait_for_tools_is_no_end_of_a_lease() {
    let lease = Some((4, 20));
    let kinds = [
        state(TaskState::Pending, "created", None),
        state(TaskState::Running, "", lease),
        step(1),
        state(TaskState::WaitingTool, "", lease),
        state(TaskState::Running, "", lease),
        step(2),
        state(TaskState::Cancelling, "", lease),
        state(TaskState::Cancelled, "", None),
    ];
    let spans = told(&kinds, 64);
    assert_eq!(spans.iter().filter(|span| span.name == "lease").count(), 1);
    assert!(!named(&spans, "invoke_agent clerk").failed, "who cancels has no error");
    let never = told(&[kinds[0].clone(), state(TaskState::Expired, "deadline", None)], 64);
    assert_eq!((never.len(), text(&never[0], "error.type").as_str()), (1, "EXPIRED"));
}

#[test]
fn a_lease_that_stands_again_for_a_cancel_is_told_once() {
    let lease = Some((4, 20));
    let kinds = [
        state(TaskState::Pending, "created", None),
        state(TaskState::Running, "", lease),
        step(1),
        state(TaskState::Paused(types::PauseReason::User), "user", None),
        state(TaskState::Cancelling, "", lease),
        state(TaskState::Cancelled, "", None),
    ];
    let names: Vec<String> = told(&kinds, 64).into_iter().map(|span| span.name).collect();
    assert_eq!(names, ["step 1", "lease", "invoke_agent clerk"]);
}

#[test]
fn a_callers_context_is_honoured_or_left_aside() {
    let caller = Caller::parse(HEADER).unwrap();
    assert_eq!(data_encoding::HEXLOWER.encode(&caller.trace.0), &HEADER[3..35]);
    assert_eq!(caller.to_string(), HEADER);
    let bad = [
        "",
        "00",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
    ];
    assert_eq!(bad.map(Caller::parse), [None; 8]);
    assert!(Caller::parse(&format!("01{}-more", &HEADER[2..])).is_some(), "later versions may say more");
    let labelled =
        |header: &str| TaskRow { labels: [(LABEL.into(), header.into())].into_iter().collect(), ..row() };
    let place = ids().place(&labelled(HEADER), uid(9)).unwrap();
    assert_eq!((place.trace, place.parent), (caller.trace, Some(caller.span)));
    assert!(
        ids().place(&labelled(&HEADER.replace("-01", "-00")), uid(9)).is_none(),
        "the caller keeps no trace"
    );
    let nonsense = ids().place(&labelled("nonsense"), uid(9)).unwrap();
    assert_eq!((nonsense.trace, nonsense.parent), (super::traces_test::place().trace, None));
}

#[test]
fn children_stand_below_their_parent_in_its_trace() {
    let origin = Some(Origin { parent: uid(9), step: 1, index: 0 });
    let mut child = TaskRow { uid: uid(12), ..row() };
    child.rare = ledger::rows::Seldom { origin, ..Default::default() }.into();
    let below = ids().place(&child, uid(9)).unwrap();
    assert_eq!((below.trace, below.parent), (place().trace, Some(place().span())));
    assert_ne!(below.span(), place().span());
    let other = Ids::of(ClusterId([8; 16])).place(&row(), uid(9)).unwrap();
    assert_ne!((other.trace, other.span()), (place().trace, place().span()), "uids repeat between clusters");
}

#[test]
fn calls_have_the_names_of_the_conventions() {
    let holder = Holder { place: place(), epoch: epoch(20), node: NodeId(4) };
    let spent = Spent { prompt_tokens: 30, cached_tokens: 20, generated_tokens: 4, ..Spent::default() };
    let call = Chat {
        model: "small".into(),
        provider: "quorate",
        local: true,
        step: 3,
        call: 0,
        max_tokens: 64,
        temperature_milli: 700,
        seed: u64::MAX,
        first_ns: Some(6_000_000_000),
        waits: Waits { asked_ns: 5_100_000_000, line_ms: Some(400) },
        ended: Ok(("stop", spent)),
    };
    let run = ToolRun {
        tool: "sink.put".into(),
        operation: "t_1/3/0".into(),
        step: 3,
        index: 0,
        attempt: 1,
        error: Some("secret words, in a sentence".into()),
    };
    let mut spans = chat(&holder, TIMES, &call);
    let ms = |ns: u64| ns / 1_000_000 - 5_000;
    let parts: Vec<_> =
        spans[1..].iter().map(|span| (span.name.as_str(), ms(span.start_ns), ms(span.end_ns))).collect();
    let expected =
        [("reserve", 0, 100), ("queue", 100, 500), ("prefill", 500, 1_000), ("decode", 1_000, 2_000)];
    assert_eq!(parts, expected, "one after the other, and nothing between them");
    let by_others = Chat { waits: Waits { line_ms: None, ..call.waits }, ..call.clone() };
    spans.extend(chat(&holder, TIMES, &by_others).into_iter().skip(1));
    let failed = spans.len();
    spans.extend(chat(&holder, TIMES, &Chat { ended: Err("OVERLOADED".into()), first_ns: None, ..call }));
    spans.push(tool(&holder, TIMES, &run));
    spans.push(created(&place(), NodeId(1), TIMES));
    spans.extend(told(&killed(), 64));
    assert!(orphans(&spans).is_empty());
    assert_eq!(text(&spans[failed], "error.type"), "OVERLOADED");
    assert_eq!(text(&spans[failed + 1], "error.type"), "_OTHER", "only words are passed on");
    assert_eq!(
        spans[0]
            .attributes
            .iter()
            .find(|(name, _)| *name == "gen_ai.response.time_to_first_chunk")
            .unwrap()
            .1,
        Value::Real(1.0)
    );
    for operation in [super::genai::CHAT, super::genai::TEXT_COMPLETION] {
        spans.extend(answered(operation, None));
    }
    spans.extend(answered(super::genai::CHAT, Some("context_length_exceeded")));
    let mut lines = BTreeSet::new();
    for span in &spans {
        let mut names: Vec<&str> = span.attributes.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        lines.insert(format!("{} {:?}: {}", span.name, span.kind, names.join(" ")));
    }
    let listed: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/traces/names.golden");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&golden, &listed).unwrap();
    }
    let kept = std::fs::read_to_string(&golden).unwrap_or_default();
    assert!(kept == listed, "names in traces changed; read the difference of UPDATE=1:\n{listed}");
}

fn answered(operation: &'static str, error: Option<&'static str>) -> Vec<Span> {
    let (model, project) = ("small".to_string(), "default".to_string());
    let asked = Asked { operation, model, provider: "quorate", project, node: NodeId(4) };
    let names = ids().request(NodeId(4), 1, 0);
    let answering = Answering::new(Traces::default(), names, Caller::parse(HEADER), asked, TIMES.begun_ns);
    let ended = match error {
        Some(_) => Ended { error, ..Ended::default() },
        None => {
            answering.model_is_asked();
            answering.first_token();
            let (waited_ms, finish) = (Some(0), Some("stop"));
            Ended { prompt_tokens: 5, generated_tokens: 2, waited_ms, finish, ..Ended::default() }
        }
    };
    answering.spans(Times { ended_ns: u64::MAX, ..TIMES }, &ended)
}

#[test]
fn a_request_that_is_no_task_stands_in_its_callers_trace() {
    let spans = answered(super::genai::CHAT, None);
    let caller = Caller::parse(HEADER).unwrap();
    assert_eq!((spans[0].parent, spans[0].trace), (Some(caller.span), caller.trace));
    assert!(spans[1..].iter().all(|part| part.parent == Some(spans[0].id) && part.trace == caller.trace));
    let ids: BTreeSet<SpanId> = spans.iter().map(|span| span.id).collect();
    assert_eq!((ids.len(), spans.len()), (5, 5), "each has a name of its own");
    assert_ne!(self::ids().request(NodeId(4), 1, 0), self::ids().request(NodeId(4), 1, 1));
}

#[test]
fn only_words_stand_in_a_trace() {
    assert_eq!(
        ["NO_SUCH_TOOL", "node-lost", "tokens_total"].map(word),
        ["NO_SUCH_TOOL", "node-lost", "tokens_total"]
    );
    assert_eq!(["", "two words", "grün", &"x".repeat(65)].map(word), ["_OTHER"; 4]);
}

#[test]
fn who_does_not_lead_holds_spans_for_a_while() {
    let (mut held, now) = (Held::default(), Instant::now());
    let span = told(&killed(), 64).remove(0);
    let other = Span { trace: TraceId([1; 16]), ..span.clone() };
    held.push(vec![span], now);
    held.push(Vec::new(), now);
    held.push(vec![other.clone()], now + Duration::from_secs(8));
    held.forget(now + Duration::from_secs(11));
    assert_eq!(held.take(), [vec![other]], "what a leader before had time to send is gone");
    assert!(held.take().is_empty());
}
