//! What a single agent decides: call the model, go on with an answer that a budget cut, finish.

use crate::definition::AgentDefinition;
use crate::draft::{Doing, Draft, Move, Trouble};
use crate::{Decision, Effect, Finish, Mind, NextMove};
use context::{Kind, Segment, Tokens, Visibility};
use types::{Hash, Spent};

/// A wait before the first repetition of a call; it doubles with each.
const FIRST_WAIT_MS: u64 = 500;

/// What a model call gave.
pub(crate) struct Generated {
    pub(crate) text: String,
    pub(crate) tokens: Tokens,
    pub(crate) finish: Finish,
    pub(crate) spent: Spent,
    pub(crate) billed_tokens: u64,
    pub(crate) chain_tokens: u64,
    pub(crate) numerics: Option<Hash>,
}

/// The next move, from what is committed.
pub(crate) fn next(mind: &Mind, agent: &AgentDefinition) -> Move {
    if let Some(trouble) = impossible(mind, agent) {
        return Move::Trouble(trouble);
    }
    let parts = mind.journal.answer.iter().flat_map(|answer| answer.parts.iter().copied());
    let missing: Vec<Hash> = parts.filter(|hash| !mind.parts.contains_key(hash)).collect();
    Move::Do(if missing.is_empty() { Doing::Infer } else { Doing::Load(missing) })
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
    let began = mind.journal.answer.as_ref().map_or(step, |answer| answer.began);
    let max_tokens = room(mind, agent);
    let least = u64::from(agent.limits.min_tokens).saturating_sub(answer_tokens(mind));
    Effect::Infer {
        step,
        call,
        model: agent.model.clone(),
        chain: mind.journal.chain.clone(),
        fresh: mind.opening.iter().map(|(sealed, segment)| (sealed.hash, segment.clone())).collect(),
        reader: mind.reader(),
        known_tokens: mind.journal.chain_tokens,
        max_tokens,
        min_tokens: max_tokens.min(u32::try_from(least).unwrap_or(u32::MAX)),
        temperature_milli: agent.temperature_milli,
        seed: sampling_seed(agent.seed.unwrap_or(mind.facts.seed), began),
        wait_ms: if call == 0 { 0 } else { FIRST_WAIT_MS << (call - 1).min(16) },
    }
}

/// Depends on the task's seed and the step in which the answer began: neither a repetition nor a budget that cuts the
/// answer changes what is sampled.
fn sampling_seed(task_seed: u64, step: u64) -> u64 {
    let hash = Hash::of_parts(&[b"quorate sampling seed v1", &task_seed.to_le_bytes(), &step.to_le_bytes()]);
    let [a, b, c, d, e, f, g, h, ..] = hash.0;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// What to do with an answer, or a part of one.
pub(crate) fn answered(mind: &Mind, agent: &AgentDefinition, answer: Generated, call: u32) -> Move {
    let generated = answer.tokens.ids.len() as u64;
    let cut = answer.finish == Finish::Budget && u64::from(room(mind, agent)) > generated;
    let whole = whole(mind, agent, &answer);
    if let Err(error) = whole.check() {
        let message = format!("the model's answer cannot be stored: {error}; lower the agent's max_tokens");
        let draft = failed(mind, Trouble::last("ANSWER_TOO_LARGE", message), generated);
        return commit(draft, answer);
    }
    if cut { continued(mind, agent, answer, call) } else { finished(mind, answer, whole, call) }
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
    let generated_tokens = answer.tokens.ids.len() as u64;
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
fn failed(mind: &Mind, trouble: Trouble, generated_tokens: u64) -> Draft {
    let (reason, text) = (trouble.reason, mind.seal_error(trouble.message));
    let message = text.hash;
    let decision = Decision::Failed { reason: reason.clone(), message, generated_tokens };
    let draft = mind.draft(decision, NextMove::Failed { reason, message });
    Draft { other: vec![text], ..draft }
}

/// An answer in one piece is the result and the chain's last segment; the last of several parts closes the message,
/// and the result is stored beside the chain.
fn finished(mind: &Mind, answer: Generated, whole: Segment, call: u32) -> Move {
    let generated_tokens = answer.tokens.ids.len() as u64;
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

fn part(mind: &Mind, answer: &Generated, open: bool) -> Segment {
    let mut segment = mind.segment(Kind::Message, Visibility::Agent, answer.text.clone());
    segment.tokens = Some(answer.tokens.clone());
    segment.open = open;
    segment
}

fn commit(draft: Draft, answer: Generated) -> Move {
    let Generated { spent, billed_tokens, chain_tokens, numerics, .. } = answer;
    Move::Commit(Box::new(Draft { spent, billed_tokens, chain_tokens, numerics, ..draft }))
}
