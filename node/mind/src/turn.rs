//! A turn with tools: what becomes of the calls that the model made.
//!
//! Every call is in the journal before anything of it is under way. A call that may be under way when a life ends is
//! made again in the next one where its tool allows it (with the same operation id), and asked about where it doesn't.
//! Approvals, answers, children and waits are calls like all others; only who ends them differs.

use crate::calls::{self, Tool};
use crate::draft::{Doing, Draft};
use crate::journal::{Call, CallState, Turn, call_id};
use crate::{
    Ask, AskKind, CallEnd, CallOutcome, ChildOutcome, ChildPlan, Decision, Effect, How, Mind, NextMove,
    Policy, Signal, SignalKind,
};
use context::{Kind, Sealed, Visibility};
use serde_json::Value;
use types::{Hash, TaskState, TaskUid, limits};

/// Tools that the mind sees to itself.
pub(crate) const ASK_HUMAN: &str = "ask_human";
pub(crate) const SPAWN: &str = "spawn";
pub(crate) const WAIT: &str = "wait";

/// Times that a call is made in one life, where its tool allows it and its outcome stays unknown.
const TRIES: u32 = 3;
/// What a `wait` may last: a year.
const MOST_WAIT_S: u64 = 366 * 86_400;

/// What the model is told of the mind's own tools, in the form of [`calls::tools`].
pub(crate) fn own_tools() -> Vec<Value> {
    let tool = |name: &str, description: &str, properties: Value, required: &[&str]| {
        serde_json::json!({
            "name": name,
            "description": description,
            "parameters": {
                "type": "object",
                "properties": properties,
                "required": required,
                "additionalProperties": false,
            },
            "policy": Policy::Idempotent.name(),
        })
    };
    let text = |about: &str| serde_json::json!({ "type": "string", "description": about });
    vec![
        tool(
            ASK_HUMAN,
            "Ask a person a question and wait for the answer, which may take days.",
            serde_json::json!({ "question": text("The whole question.") }),
            &["question"],
        ),
        tool(
            SPAWN,
            "Give a part of the work to another agent of the project and get its result.",
            serde_json::json!({
                "agent": text("The agent's name."),
                "input": text("All that the agent needs to know: it sees nothing of this conversation."),
                "tokens": { "type": "integer", "minimum": 1, "description": "New tokens that it may use." },
            }),
            &["agent", "input"],
        ),
        tool(
            WAIT,
            "Wait before going on.",
            serde_json::json!({ "seconds": { "type": "integer", "minimum": 1, "maximum": MOST_WAIT_S } }),
            &["seconds"],
        ),
    ]
}

/// Something to be written down about the calls.
#[derive(Default)]
struct News {
    begun: Vec<u32>,
    ended: Vec<CallEnd>,
    sealed: Vec<Sealed>,
    /// Texts of others among what ended.
    named: Vec<Hash>,
    spawned: Vec<(u32, TaskUid)>,
}

impl News {
    fn is_empty(&self) -> bool {
        self.begun.is_empty() && self.ended.is_empty() && self.spawned.is_empty()
    }

    fn end(&mut self, mind: &Mind, index: u32, how: How, text: String) {
        let segment = mind.segment(Kind::ToolResult, Visibility::Agent, text);
        let sealed = mind.seal(&segment);
        self.ended.push(CallEnd { index, how, text: sealed.hash });
        self.sealed.push(sealed);
    }

    fn end_with(&mut self, index: u32, how: How, text: Hash) {
        self.ended.push(CallEnd { index, how, text });
        self.named.push(text);
    }

    /// Results that were stored by others stand behind our own in a record: the ends are put into the same order.
    fn sorted(mut self) -> News {
        let named = std::mem::take(&mut self.named);
        self.ended.sort_by_key(|end| named.contains(&end.text));
        self.named = self.ended.iter().map(|end| end.text).filter(|text| named.contains(text)).collect();
        self
    }
}

/// What the newest turn needs next.
pub(crate) fn next(mind: &mut Mind) -> Vec<Effect> {
    let Some(turn) = mind.journal.turn.clone() else { return Vec::new() };
    let open = turn.calls.iter().filter(|call| call.state != CallState::Over);
    let mut texts: Vec<Hash> = open.map(|call| call.made.text).collect();
    // The list of tools says how long each may take.
    texts.extend(mind.journal.tools.filter(|_| mind.known_tools().is_empty()));
    if let Some(load) = mind.lacking(&texts) {
        return load;
    }
    let news = news(mind, &turn);
    if !news.is_empty() {
        return write(mind, &turn, news, None);
    }
    let ready = ready(mind, &turn);
    if !ready.is_empty() {
        return if mind.aside { call(mind, &turn, &ready) } else { rest(mind, &turn) };
    }
    if !mind.running.is_empty() {
        return mind.wait_for_calls();
    }
    if let Some(plan) = brood(mind, &turn) {
        return mind.do_now(Doing::Spawn(plan));
    }
    if turn.calls.iter().any(|call| matches!(call.state, CallState::Spawned(_))) && !mind.asked_children {
        mind.asked_children = true;
        return mind.do_now(Doing::Ask);
    }
    match waits(mind, &turn) {
        Some((index, seconds)) if asks(mind, &turn, &News::default()).is_empty() => {
            let mut news = News::default();
            news.end(mind, index, How::Answered, format!("{seconds} seconds have passed"));
            write(mind, &turn, news, Some(seconds * 1000))
        }
        _ => rest(mind, &turn),
    }
}

/// What happened and is not in the journal.
fn news(mind: &mut Mind, turn: &Turn) -> News {
    let mut news = News::default();
    for (index, outcome) in std::mem::take(&mut mind.ended) {
        hear_tool(mind, turn, index, outcome, &mut news);
    }
    for (index, call) in numbered(turn) {
        if call.state != CallState::Over && !call.made.refused.is_empty() {
            news.end(mind, index, How::Refused, format!("error: {}", call.made.refused));
        }
    }
    let said: Vec<Signal> = mind.unheard().cloned().collect();
    for signal in said {
        hear_person(mind, turn, &signal, &mut news);
    }
    let stopped = mind.unheard().any(|signal| signal.kind.stops());
    if !stopped && !mind.holds_back() {
        news.begun.extend(numbered(turn).filter(|(_, call)| was_held_back(call)).map(|(index, _)| index));
    }
    if stopped && mind.running.is_empty() {
        for (index, call) in numbered(turn) {
            if call.state != CallState::Over && !news.ended.iter().any(|end| end.index == index) {
                news.end(mind, index, How::Rejected, "error: a message came in between".to_string());
            }
        }
    }
    news.sorted()
}

fn hear_tool(mind: &mut Mind, turn: &Turn, index: u32, outcome: CallOutcome, news: &mut News) {
    let Some(call) = turn.calls.get(index as usize) else { return };
    match outcome {
        CallOutcome::Answered { text, is_error: false } => news.end(mind, index, How::Answered, text),
        CallOutcome::Answered { text, is_error: true } => {
            news.end(mind, index, How::Answered, format!("error: {text}"));
        }
        CallOutcome::Refused { reason, message } => {
            news.end(mind, index, How::Refused, format!("error: {reason}: {message}"));
        }
        CallOutcome::Unknown { reason, message } if call.made.policy == Policy::Idempotent => {
            if mind.attempts.get(&index).copied().unwrap_or(0) >= TRIES {
                let text = format!("error: {reason}: {message} (it may have had an effect all the same)");
                news.end(mind, index, How::Unknown, text);
            }
        }
        CallOutcome::Unknown { .. } => {
            mind.unsure.insert(index);
        }
    }
}

fn hear_person(mind: &Mind, turn: &Turn, signal: &Signal, news: &mut News) {
    let of_call = |(index, _): &(u32, &Call)| call_id(turn.step, *index) == signal.ask;
    let Some((index, call)) = numbered(turn).find(of_call) else { return };
    let done = news.ended.iter().any(|end| end.index == index) || news.begun.contains(&index);
    let Some(ask) = open_ask(mind, turn, index, call).filter(|_| !done) else { return };
    match (signal.kind, ask.kind) {
        (SignalKind::Approve, AskKind::Approval) | (SignalKind::Repeat, AskKind::UnknownMayRepeat) => {
            news.begun.extend((!mind.holds_back()).then_some(index));
        }
        (SignalKind::Reject, AskKind::Approval) => {
            news.end(mind, index, How::Rejected, "error: a person did not allow this call".to_string());
        }
        (SignalKind::Reject, AskKind::Question) => {
            news.end(mind, index, How::Rejected, "error: nobody wants to answer this".to_string());
        }
        (SignalKind::Reject, AskKind::Unknown | AskKind::UnknownMayRepeat) => {
            news.end(mind, index, How::Rejected, "error: the call failed and had no effect".to_string());
        }
        (SignalKind::Answer, AskKind::Question | AskKind::Unknown | AskKind::UnknownMayRepeat) => {
            if let Some(text) = signal.text {
                news.end_with(index, How::Told, text);
            }
        }
        _ => {}
    }
}

/// Calls that may be made now: begun in this life, or in an earlier one where the tool allows it again.
fn ready(mind: &Mind, turn: &Turn) -> Vec<u32> {
    let may = |(index, call): &(u32, &Call)| {
        let CallState::Begun(step) = call.state else { return false };
        let allowed = step > mind.born || call.made.policy == Policy::Idempotent;
        allowed
            && call.made.refused.is_empty()
            && !mind.running.contains(index)
            && !mind.unsure.contains(index)
    };
    numbered(turn).filter(may).map(|(index, _)| index).collect()
}

fn call(mind: &mut Mind, turn: &Turn, ready: &[u32]) -> Vec<Effect> {
    let mut effects = Vec::new();
    for index in ready {
        let made = &turn.calls[*index as usize].made;
        let tool = mind.known_tools().iter().find(|tool| tool.name == made.tool).cloned();
        let attempt = mind.attempts.entry(*index).or_default();
        effects.push(Effect::CallTool {
            step: turn.step,
            index: *index,
            tool: made.tool.clone(),
            arguments: calls::arguments_of(&mind.parts[&made.text].text).to_string(),
            attempt: *attempt,
            timeout_ms: tool.as_ref().and_then(|tool| tool.timeout_ms),
            output_bytes: tool.as_ref().and_then(|tool| tool.output_bytes),
        });
        *attempt += 1;
        mind.running.insert(*index);
    }
    mind.calling();
    effects
}

/// Children that the calls want, all at once: the ledger knows them by the step and their order.
fn brood(mind: &Mind, turn: &Turn) -> Option<Vec<ChildPlan>> {
    let wanted =
        numbered(turn).filter(|(_, call)| call.made.tool == SPAWN && call.state == CallState::Waiting);
    let plans: Vec<ChildPlan> = wanted.filter_map(|(_, call)| child(mind, call)).collect();
    (!plans.is_empty()).then_some(plans)
}

/// What the call's child is given is the call itself: its text says who asks for what.
fn child(mind: &Mind, call: &Call) -> Option<ChildPlan> {
    let (agent, _, tokens) = spawn_arguments(mind, call)?;
    let (sealed, _) = child_input(mind, call)?;
    let inputs = vec![(String::new(), sealed.hash)];
    Some(ChildPlan { agent, inputs, background: Vec::new(), tokens, priority: None, together: false })
}

fn spawn_arguments(mind: &Mind, call: &Call) -> Option<(String, String, Option<u64>)> {
    let arguments = calls::arguments_of(&mind.parts.get(&call.made.text)?.text);
    let text = |key: &str| Some(arguments.get(key)?.as_str()?.to_string());
    Some((text("agent")?, text("input")?, arguments.get("tokens").and_then(Value::as_u64)))
}

fn child_input(mind: &Mind, call: &Call) -> Option<(Sealed, context::Segment)> {
    let (_, input, _) = spawn_arguments(mind, call)?;
    let segment = mind.segment(Kind::Message, Visibility::Task, input);
    Some((mind.seal(&segment), segment))
}

/// Segments that the children of the calls are given.
pub(crate) fn child_inputs(mind: &Mind) -> Vec<(Hash, Vec<u8>)> {
    let calls = mind.journal.turn.iter().flat_map(|turn| &turn.calls);
    let wanted = calls.filter(|call| call.made.tool == SPAWN && call.state == CallState::Waiting);
    wanted.filter_map(|call| child_input(mind, call)).map(|(sealed, _)| (sealed.hash, sealed.bytes)).collect()
}

/// The ledger has the children.
pub(crate) fn spawned(mind: &mut Mind, children: Vec<TaskUid>) -> Vec<Effect> {
    let Some(turn) = mind.journal.turn.clone() else { return Vec::new() };
    let wanted = numbered(&turn).filter(|(_, call)| {
        call.made.tool == SPAWN && call.state == CallState::Waiting && child(mind, call).is_some()
    });
    let spawned = wanted.map(|(index, _)| index).zip(children).collect();
    write(mind, &turn, News { spawned, ..News::default() }, None)
}

/// The children could not be started: their calls hear why.
pub(crate) fn not_spawned(mind: &mut Mind, message: &str) -> Vec<Effect> {
    let Some(turn) = mind.journal.turn.clone() else { return Vec::new() };
    let mut news = News::default();
    for (index, call) in numbered(&turn) {
        if call.made.tool == SPAWN && call.state == CallState::Waiting {
            news.end(mind, index, How::Refused, format!("error: {message}"));
        }
    }
    write(mind, &turn, news, None)
}

/// How the children stand.
pub(crate) fn children(mind: &mut Mind, outcomes: &[ChildOutcome]) -> Vec<Effect> {
    let Some(turn) = mind.journal.turn.clone() else { return Vec::new() };
    let mut news = News::default();
    for (index, call) in numbered(&turn) {
        let CallState::Spawned(uid) = call.state else { continue };
        let Some(child) = outcomes.iter().find(|child| child.uid == uid && child.state.is_final()) else {
            continue;
        };
        match (child.state, child.result) {
            (TaskState::Succeeded, Some(result)) => news.end_with(index, How::Answered, result),
            (state, _) => {
                let why = child.error.as_deref().unwrap_or("no reason was given");
                let text = format!("error: {} {uid} ended {}: {why}", child.agent, state.name());
                news.end(mind, index, How::Answered, text);
            }
        }
    }
    let news = news.sorted();
    if news.is_empty() { next(mind) } else { write(mind, &turn, news, None) }
}

/// A `wait` whose turn has come, and how long it lasts.
fn waits(mind: &Mind, turn: &Turn) -> Option<(u32, u64)> {
    let waiting = |(_, call): &(u32, &Call)| call.made.tool == WAIT && call.state == CallState::Waiting;
    let (index, call) = numbered(turn).find(waiting)?;
    let seconds = calls::arguments_of(&mind.parts.get(&call.made.text)?.text).get("seconds")?.as_u64()?;
    Some((index, seconds.clamp(1, MOST_WAIT_S)))
}

/// Questions that are open once the news are written down.
fn asks(mind: &Mind, turn: &Turn, news: &News) -> Vec<Ask> {
    let over = |index: u32| news.ended.iter().any(|end| end.index == index) || news.begun.contains(&index);
    numbered(turn)
        .filter(|(index, _)| !over(*index))
        .filter_map(|(index, call)| open_ask(mind, turn, index, call))
        .take(limits::TASK_ASKS)
        .collect()
}

fn open_ask(mind: &Mind, turn: &Turn, index: u32, call: &Call) -> Option<Ask> {
    let made = &call.made;
    let kind = match call.state {
        CallState::Waiting if made.tool == ASK_HUMAN => AskKind::Question,
        CallState::Waiting if made.approve && made.refused.is_empty() => AskKind::Approval,
        CallState::Begun(step) => {
            let lost =
                step <= mind.born && made.policy != Policy::Idempotent && !mind.running.contains(&index);
            if !lost && !mind.unsure.contains(&index) {
                return None;
            }
            if made.policy == Policy::Ask { AskKind::UnknownMayRepeat } else { AskKind::Unknown }
        }
        CallState::Waiting | CallState::Spawned(_) | CallState::Over => return None,
    };
    let id = call_id(turn.step, index);
    Some(Ask { id, kind, tool: made.tool.clone(), text: Some(made.text) })
}

/// Nothing to write but that the task waits.
fn rest(mind: &mut Mind, turn: &Turn) -> Vec<Effect> {
    let news = News::default();
    let next = after(mind, turn, &news);
    let draft = Draft { heard: mind.heard_now(), ..mind.draft(Decision::Rested, next) };
    mind.commit(draft)
}

fn write(mind: &mut Mind, turn: &Turn, news: News, wait_ms: Option<u64>) -> Vec<Effect> {
    let heard = mind.heard_now();
    let next = match wait_ms {
        Some(ms) => NextMove::WaitFor { heard: heard.unwrap_or(mind.journal.heard), ms },
        None => after(mind, turn, &news),
    };
    mind.unsure.retain(|index| !news.begun.contains(index));
    let News { begun, ended, sealed, named, spawned } = news;
    let draft = mind.draft(Decision::Moved { begun, ended, spawned }, next);
    mind.commit(Draft { added: sealed, named, heard, ..draft })
}

/// What the task does once the news are written down.
fn after(mind: &Mind, turn: &Turn, news: &News) -> NextMove {
    let heard = mind.heard_now().unwrap_or(mind.journal.heard);
    let over = |index: u32| news.ended.iter().any(|end| end.index == index);
    let left: Vec<(u32, &Call)> =
        numbered(turn).filter(|(index, call)| call.state != CallState::Over && !over(*index)).collect();
    let ready = ready(mind, turn);
    let works =
        |index: &u32| mind.running.contains(index) || ready.contains(index) || news.begun.contains(index);
    if left.iter().any(|(index, _)| works(index)) {
        return NextMove::WaitTool { heard, asks: asks(mind, turn, news), begun: news.begun.len() as u64 };
    }
    let child = |(index, call): &(u32, &Call)| {
        matches!(call.state, CallState::Spawned(_)) || news.spawned.iter().any(|(other, _)| other == index)
    };
    if left.iter().any(child) {
        return NextMove::WaitChildren;
    }
    let own = |(_, call): &(u32, &Call)| [SPAWN, WAIT].contains(&call.made.tool.as_str());
    if left.iter().any(own) || left.is_empty() {
        return NextMove::GoOn { heard };
    }
    NextMove::WaitInput { heard, asks: asks(mind, turn, news) }
}

fn numbered(turn: &Turn) -> impl Iterator<Item = (u32, &Call)> {
    (0u32..).zip(&turn.calls)
}

/// A call that nobody has to allow, and that has not begun: there was no room for it.
fn was_held_back(call: &Call) -> bool {
    let made = &call.made;
    call.state == CallState::Waiting && made.refused.is_empty() && !made.approve && !is_own(&made.tool)
}

/// It was made before, and a person said that it may be made again.
fn was_made(mind: &Mind, index: u32) -> bool {
    let call = mind.journal.turn.as_ref().and_then(|turn| turn.calls.get(index as usize));
    call.is_some_and(|call| matches!(call.state, CallState::Begun(_)))
}

/// A step with none of its calls begun: no budget has room for them. What people said of them is heard again later.
pub(crate) fn held_back(mind: &mut Mind, mut draft: Draft) -> Draft {
    let calls = draft.next.begun();
    match &mut draft.decision {
        Decision::Asked { calls, .. } => calls.iter_mut().for_each(|call| call.begun = false),
        Decision::Moved { begun, .. } => {
            let mut made = std::mem::take(begun);
            made.retain(|index| was_made(mind, *index));
            mind.unsure.extend(made);
        }
        _ => {}
    }
    let heard = mind.journal.heard;
    draft.heard = None;
    draft.next = match draft.next {
        NextMove::WaitTool { asks, .. } if mind.holds_back() => NextMove::WaitTool { heard, asks, begun: 0 },
        _ => NextMove::WaitBudget { heard, calls },
    };
    draft
}

/// Whether a call may begin with the step in which it was asked for.
pub(crate) fn begins(name: &str, tool: Option<&Tool>) -> bool {
    !is_own(name) && tool.is_some_and(|tool| !tool.approve)
}

fn is_own(name: &str) -> bool {
    [ASK_HUMAN, SPAWN, WAIT].contains(&name)
}
