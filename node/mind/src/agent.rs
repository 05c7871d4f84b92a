//! What a single agent decides: call the model, go on with an answer that a budget cut, finish.

use crate::calls::{self, Asked, Parsed};
use crate::definition::AgentDefinition;
use crate::draft::{Doing, Draft, Move, Trouble};
use crate::journal::{call_id, item};
use crate::{
    Ask, AskKind, Decision, Effect, Finish, Mind, NextMove, Policy, Route, Routes, SaidCall, Signal,
    SignalKind, ToolCall, ToolChoice, condense, turn, typed,
};
use context::{ChainItem, Kind, Part, Segment, Tokens, Visibility};
use types::{Hash, Spent, limits};

/// A wait before the first repetition of a call; it doubles with each.
const FIRST_WAIT_MS: u64 = 500;

/// What a model call gave.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Generated {
    pub(crate) text: String,
    pub(crate) tokens: Tokens,
    pub(crate) finish: Finish,
    pub(crate) spent: Spent,
    pub(crate) billed_tokens: u64,
    pub(crate) chain_tokens: u64,
    pub(crate) numerics: Option<Hash>,
    pub(crate) route: Option<Route>,
    pub(crate) calls: Option<Vec<SaidCall>>,
}

/// The next move, from what is committed.
pub(crate) fn next(mind: &Mind, agent: &AgentDefinition) -> Move {
    if let Some(heard) = messages(mind) {
        return heard;
    }
    if let Some((step, answer)) = mind.journal.answered {
        let next = wait_for_message(mind, step, answer);
        return Move::Commit(Box::new(mind.draft(Decision::Rested, next)));
    }
    if let Some(trouble) = impossible(mind, agent) {
        return Move::Trouble(trouble);
    }
    if !agent.tools.is_empty() && mind.known_tools().is_empty() {
        return Move::Do(mind.journal.tools.map_or(Doing::ListTools, |tools| Doing::Load(vec![tools])));
    }
    if mind.journal.condensing.is_some() && !mind.asked_summary {
        return Move::Do(Doing::Ask);
    }
    if mind.chosen.is_some() {
        return condense::next(mind);
    }
    let parts = mind.journal.answer.iter().flat_map(|answer| answer.parts.iter().copied());
    let missing: Vec<Hash> = parts.filter(|hash| !mind.parts.contains_key(hash)).collect();
    Move::Do(if missing.is_empty() { Doing::Infer } else { Doing::Load(missing) })
}

/// Messages that came go to the end of the chain, those of a rollback in place of what was done since the last ones.
fn messages(mind: &Mind) -> Option<Move> {
    let came: Vec<&Signal> = mind.unheard().filter(|signal| signal.kind.is_message()).collect();
    let heard = mind.unheard().last()?.number;
    if came.is_empty() {
        return None;
    }
    let rollback = came.iter().any(|signal| signal.kind == SignalKind::Rollback);
    let messages: Vec<Hash> = came.iter().filter_map(|signal| signal.text).collect();
    let decision = Decision::Heard { messages: messages.clone(), rollback };
    let draft = mind.draft(decision, NextMove::GoOn { heard });
    Some(Move::Commit(Box::new(Draft { named: messages, heard: Some(heard), ..draft })))
}

/// The answer is there, and what comes next is said by somebody.
fn wait_for_message(mind: &Mind, step: u64, answer: Hash) -> NextMove {
    let ask = Ask { id: call_id(step, 0), kind: AskKind::Message, tool: String::new(), text: Some(answer) };
    NextMove::WaitInput { heard: mind.journal.heard, asks: vec![ask] }
}

fn impossible(mind: &Mind, agent: &AgentDefinition) -> Option<Trouble> {
    if mind.facts.inputs.is_empty() && mind.facts.background.is_empty() {
        let message = format!(
            "agent {:?} was given no input, so there is nothing to answer; create the task with an input",
            mind.facts.agent
        );
        return Some(Trouble::last("NO_INPUT", message));
    }
    if mind.journal.turns >= agent.max_steps {
        return Some(out_of_steps(mind, agent));
    }
    if room(mind, agent) == 0 {
        let given = mind.journal.generated_tokens;
        let message = format!(
            "the task has generated {given} tokens and its agent allows no more; raise max_tokens or limits.max_tokens_total"
        );
        return Some(Trouble::last("MAX_TOKENS", message));
    }
    None
}

fn out_of_steps(mind: &Mind, agent: &AgentDefinition) -> Trouble {
    let (steps, tokens) = (agent.max_steps, mind.journal.generated_tokens);
    let message = format!(
        "the answer was not finished within max_steps = {steps}: {tokens} tokens were generated before this step, \
         and the budget cut it each time; raise the agent's max_steps or the project's quota, and create the task again"
    );
    Trouble::last("MAX_STEPS", message)
}

/// Tokens that the answer may still grow by.
fn room(mind: &Mind, agent: &AgentDefinition) -> u32 {
    let of_answer = u64::from(agent.max_tokens).saturating_sub(answer_tokens(mind));
    let total = agent.limits.max_tokens_total.unwrap_or(u64::MAX);
    let of_task = total.saturating_sub(mind.journal.generated_tokens);
    u32::try_from(of_answer.min(of_task)).unwrap_or(u32::MAX)
}

fn answer_tokens(mind: &Mind) -> u64 {
    mind.journal.answer.as_ref().map_or(0, |answer| answer.generated_tokens)
}

/// The model call that the next step makes.
pub(crate) fn infer(mind: &Mind, call: u32) -> Effect {
    let agent = mind.facts.definition.agent().expect("only an agent's mind decides to infer");
    let step = mind.journal.step + 1;
    let before = mind.journal.answer.as_ref().map_or(mind.journal.generated_tokens, |answer| answer.before);
    let max_tokens = room(mind, agent);
    let least = u64::from(agent.limits.min_tokens).saturating_sub(answer_tokens(mind));
    Effect::Infer {
        step,
        call,
        model: agent.model.clone(),
        routes: routes(mind, agent),
        chain: chain(mind),
        fresh: mind.opening.iter().chain(&mind.tools).map(|(sealed, it)| (sealed.hash, it.clone())).collect(),
        reader: mind.reader(),
        known_tokens: mind.journal.chain_tokens,
        max_tokens,
        min_tokens: max_tokens.min(u32::try_from(least).unwrap_or(u32::MAX)),
        temperature_milli: agent.temperature_milli,
        seed: sampling_seed(agent.seed.unwrap_or(mind.facts.seed), before),
        wait_ms: wait_ms(call),
        choice: choice(mind, agent),
        full_at_milli: condense::mark(mind, agent),
        summary: false,
    }
}

/// The models among which the call chooses. An answer that a budget cut goes on with the model that began it.
fn routes(mind: &Mind, agent: &AgentDefinition) -> Option<Routes> {
    let read_by = mind.journal.model.clone();
    let begun = read_by.clone().filter(|_| mind.journal.answer.is_some());
    let all = || agent.models().map(str::to_string).collect();
    let models = begun.map_or_else(all, |model| vec![model]);
    (!agent.others.is_empty()).then_some(Routes { models, read_by })
}

/// How long a call waits: not at all, but for a repetition.
pub(crate) fn wait_ms(call: u32) -> u64 {
    if call == 0 { 0 } else { FIRST_WAIT_MS << (call - 1).min(16) }
}

/// The committed chain; before the first step the tools are not in it yet.
fn chain(mind: &Mind) -> Vec<ChainItem> {
    let tools = mind.tools.iter().filter(|_| mind.journal.tools.is_none());
    tools
        .map(|(sealed, _)| item(sealed.hash, Part::System))
        .chain(mind.journal.chain.iter().cloned())
        .collect()
}

/// In the last step that it may take an agent uses no tools, so that it answers.
fn choice(mind: &Mind, agent: &AgentDefinition) -> ToolChoice {
    let last = mind.journal.turns + 1 >= agent.max_steps;
    if agent.tools.is_empty() || last { ToolChoice::None } else { agent.tool_choice }
}

/// Depends on the task's seed and the tokens that it generated before the answer: neither a repetition, nor a budget that
/// cuts the answer, nor a crash that takes a step more changes what is sampled.
pub(crate) fn sampling_seed(task_seed: u64, before: u64) -> u64 {
    let hash =
        Hash::of_parts(&[b"quorate sampling seed v2", &task_seed.to_le_bytes(), &before.to_le_bytes()]);
    let [a, b, c, d, e, f, g, h, ..] = hash.0;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// What to do with an answer, or a part of one.
pub(crate) fn answered(mind: &mut Mind, agent: &AgentDefinition, answer: Generated, call: u32) -> Move {
    let generated = answer.spent.generated_tokens;
    let cut = answer.finish == Finish::Budget && u64::from(room(mind, agent)) > generated;
    let whole = whole(mind, agent, &answer);
    if let Err(error) = whole.check() {
        let message = format!("the model's answer cannot be stored: {error}; lower the agent's max_tokens");
        let draft = failed(mind, Trouble::last("ANSWER_TOO_LARGE", message), generated);
        return commit(draft, answer);
    }
    if mind.wants_to_stop() {
        return interrupted(mind, answer, call);
    }
    if cut {
        return continued(mind, agent, answer, call);
    }
    if choice(mind, agent) != ToolChoice::None {
        let parsed = match &answer.calls {
            Some(calls) => Parsed { content: answer.text.clone(), calls: calls::said(calls) },
            None => calls::parse(&whole.text),
        };
        if !parsed.calls.is_empty() {
            return asked(mind, answer, parsed, call);
        }
        if agent.tool_choice == ToolChoice::Required {
            return asked(mind, answer, Parsed { content: parsed.content, calls: vec![calls::none()] }, call);
        }
    }
    match &agent.result_schema {
        _ if agent.conversation => answered_for_now(mind, answer, whole, call),
        Some(schema) => typed::check(mind, schema, answer, whole, call),
        None => finished(mind, answer, whole, call),
    }
}

/// A message came in between: what was said stays, and the message follows.
fn interrupted(mind: &Mind, answer: Generated, call: u32) -> Move {
    let generated_tokens = answer.spent.generated_tokens;
    let sealed = mind.seal(&part(mind, &answer, false));
    let decision = Decision::Called { finish: Finish::Stop, call, generated_tokens };
    let draft = mind.draft(decision, NextMove::Continue);
    commit(Draft { added: vec![sealed], ..draft }, answer)
}

/// The model asks for tools: the calls are written down, and those that may begin at once begin with this step.
fn asked(mind: &Mind, mut answer: Generated, parsed: Parsed, call: u32) -> Move {
    let (step, finish) = (mind.journal.step + 1, answer.finish);
    let generated_tokens = answer.spent.generated_tokens;
    if mind.journal.answer.is_none() {
        answer.text = parsed.content;
    }
    let mut added = vec![mind.seal(&part(mind, &answer, false))];
    let (mut parts, mut made) = (Vec::new(), Vec::new());
    for asked in parsed.calls.iter().take(limits::CALLS_PER_TURN) {
        let segment = mind.segment(Kind::ToolCall, Visibility::Agent, asked.text());
        let sealed = mind.seal(&segment);
        made.push(tool_call(mind, asked, sealed.hash));
        parts.push((sealed.hash, segment));
        added.push(sealed);
    }
    let asks: Vec<Ask> =
        (0u32..).zip(&made).filter_map(|(index, made)| first_ask(step, index, made)).collect();
    let heard = mind.journal.heard;
    let begun = made.iter().filter(|made| made.begun).count() as u64;
    let next = if begun > 0 {
        NextMove::WaitTool { heard, asks, begun }
    } else if asks.len() == made.len() {
        NextMove::WaitInput { heard, asks }
    } else {
        NextMove::GoOn { heard }
    };
    let decision = Decision::Asked { finish, call, generated_tokens, calls: made };
    commit(Draft { added, parts, ..mind.draft(decision, next) }, answer)
}

fn tool_call(mind: &Mind, asked: &Asked, text: Hash) -> ToolCall {
    let tool = mind.known_tools().iter().find(|tool| tool.name == asked.name);
    let refused = calls::wrong(asked, mind.known_tools());
    ToolCall {
        tool: asked.name.chars().take(limits::NAME_BYTES).collect(),
        text,
        policy: tool.map_or(Policy::AtMostOnce, |tool| tool.policy),
        approve: tool.is_some_and(|tool| tool.approve),
        begun: refused.is_empty() && turn::begins(&asked.name, tool),
        refused,
    }
}

/// What a call asks of people before anything of it is under way.
fn first_ask(step: u64, index: u32, made: &ToolCall) -> Option<Ask> {
    let kind = match () {
        () if !made.refused.is_empty() || made.begun => return None,
        () if made.tool == turn::ASK_HUMAN => AskKind::Question,
        () if made.approve => AskKind::Approval,
        () => return None,
    };
    Some(Ask { id: call_id(step, index), kind, tool: made.tool.clone(), text: Some(made.text) })
}

/// The answer of a conversation: the task stays, and waits for what is said next.
fn answered_for_now(mind: &Mind, answer: Generated, whole: Segment, call: u32) -> Move {
    let generated_tokens = answer.spent.generated_tokens;
    let finish = if answer.finish == Finish::Budget { Finish::Length } else { answer.finish };
    let said = mind.seal(&whole);
    let hash = said.hash;
    let next = wait_for_message(mind, mind.journal.step + 1, hash);
    let (added, other) = match mind.journal.answer {
        None => (vec![said], Vec::new()),
        Some(_) => (vec![mind.seal(&part(mind, &answer, false))], vec![said]),
    };
    let decision = Decision::Answered { finish, call, generated_tokens, answer: hash };
    commit(Draft { added, other, ..mind.draft(decision, next) }, answer)
}

/// The whole answer as the task's result.
fn whole(mind: &Mind, agent: &AgentDefinition, last: &Generated) -> Segment {
    let parts = mind.journal.answer.iter().flat_map(|answer| &answer.parts);
    let earlier: Vec<&Segment> = parts.filter_map(|hash| mind.parts.get(hash)).collect();
    let texts = earlier.iter().map(|part| part.text.as_str()).chain([last.text.as_str()]);
    let mut result = mind.segment(Kind::Artefact, agent.visibility, texts.collect());
    let tokens = earlier.iter().map(|part| part.tokens.as_ref()).chain([Some(&last.tokens)]);
    result.tokens = joined(tokens, last.tokens.tokenizer);
    result
}

/// One list of ids; none when a part was generated with another tokenizer.
fn joined<'a>(parts: impl Iterator<Item = Option<&'a Tokens>>, tokenizer: Hash) -> Option<Tokens> {
    let mut ids = Vec::new();
    for part in parts {
        ids.extend_from_slice(&part.filter(|tokens| tokens.tokenizer == tokenizer)?.ids);
    }
    Some(Tokens { tokenizer, ids })
}

/// The budget ended first: what there is becomes an open message, to be continued by the next step, if there is one.
fn continued(mind: &Mind, agent: &AgentDefinition, answer: Generated, call: u32) -> Move {
    let generated_tokens = answer.spent.generated_tokens;
    let segment = part(mind, &answer, true);
    let sealed = mind.seal(&segment);
    let parts = vec![(sealed.hash, segment)];
    if mind.journal.turns + 1 < agent.max_steps {
        let decision = Decision::Called { finish: Finish::Budget, call, generated_tokens };
        let draft = mind.draft(decision, NextMove::Continue);
        return commit(Draft { added: vec![sealed], parts, ..draft }, answer);
    }
    let draft = failed(mind, out_of_steps(mind, agent), generated_tokens);
    commit(Draft { added: vec![sealed], ..draft }, answer)
}

/// The task ends after a call that was paid for.
pub(crate) fn failed(mind: &Mind, trouble: Trouble, generated_tokens: u64) -> Draft {
    let (reason, text) = (trouble.reason, mind.seal_error(trouble.message));
    let message = text.hash;
    let decision = Decision::Failed { reason: reason.clone(), message, generated_tokens };
    let draft = mind.draft(decision, NextMove::Failed { reason, message });
    Draft { other: vec![text], ..draft }
}

/// An answer in one piece is the result and the chain's last segment; the last of several parts closes the message,
/// and the result is stored beside the chain.
pub(crate) fn finished(mind: &Mind, answer: Generated, whole: Segment, call: u32) -> Move {
    let generated_tokens = answer.spent.generated_tokens;
    // A budget that ends just where the agent's own limit does has cut nothing.
    let finish = if answer.finish == Finish::Budget { Finish::Length } else { answer.finish };
    let (result, bytes) = (mind.seal(&whole), whole.text.len() as u64);
    let hash = result.hash;
    let (added, other) = match mind.journal.answer {
        None => (vec![result], Vec::new()),
        Some(_) => (vec![mind.seal(&part(mind, &answer, false))], vec![result]),
    };
    let decision = Decision::Finished { result: hash, bytes, finish: Some(finish), call, generated_tokens };
    let draft = mind.draft(decision, NextMove::Done { result: hash, bytes });
    commit(Draft { added, other, ..draft }, answer)
}

pub(crate) fn part(mind: &Mind, answer: &Generated, open: bool) -> Segment {
    let mut segment = mind.segment(Kind::Message, Visibility::Agent, answer.text.clone());
    segment.tokens = Some(answer.tokens.clone());
    segment.open = open;
    segment
}

pub(crate) fn commit(draft: Draft, answer: Generated) -> Move {
    let Generated { spent, billed_tokens, chain_tokens, numerics, route, .. } = answer;
    Move::Commit(Box::new(Draft { spent, billed_tokens, chain_tokens, numerics, route, ..draft }))
}
