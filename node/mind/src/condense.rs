//! A window that is nearly full: what is summarised, who writes the summary, and how it takes its place in the chain.
//!
//! In place of a model call the node says how many tokens each piece of the chain takes. A range is chosen from these
//! numbers, its texts are loaded, and a summary of them is asked for: of the agent's own model, or of a child task by
//! the agent that the definition names. The child works beside the task, which goes on until there is no room at all.
//! The step that brings the summary in says what it stands for: the originals stay in the journal.

use crate::compaction::{self, Piece, Plan, Rule};
use crate::draft::{Doing, Draft, Move};
use crate::journal::item;
use crate::{
    AgentDefinition, ChildOutcome, ChildPlan, Compaction, Decision, Effect, Finish, Measured, Mind, NextMove,
    Routes,
    agent::{self, Generated},
};
use context::{ChainItem, Kind, Part, Sealed, Segment, Visibility};
use std::collections::BTreeMap;
use types::{Hash, TaskState, TaskUid};

/// What whoever summarises is told.
const INSTRUCTION: &str = include_str!("compaction/instruction.md");
/// No tokenizer makes more of it.
const INSTRUCTION_TOKENS: u64 = 256;
/// Thousandths of the window up to which a task goes on while its summary is written, or after one failed.
const LAST_MARK: u32 = 950;
/// Model calls after a summary that failed before another is tried early.
const REST_TURNS: u32 = 4;
/// Why there is no summary, where nothing speaks against trying again.
pub(crate) const CUT_SHORT: &str = "CUT_SHORT";
/// Less than this part of the window is not worth a summary.
const WORTH: u64 = 32;

/// What is to be summarised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chosen {
    /// Places in the journal's chain.
    from: usize,
    count: usize,
    tokens: u64,
    window_tokens: u64,
}

/// Above so many thousandths of the window the next model call is not made, but measured.
pub(crate) fn mark(mind: &Mind, agent: &AgentDefinition) -> Option<u32> {
    let begin = agent.compaction.as_ref()?.at_milli;
    let journal = &mind.journal;
    if mind.crowded || journal.answer.is_some() {
        return None;
    }
    let late = begin.max(LAST_MARK);
    match journal.gave_up {
        _ if journal.condensing.is_some() => Some(late),
        Some(turns) if turns == journal.turns => None,
        Some(turns) if journal.turns < turns + REST_TURNS => Some(late),
        Some(_) | None => Some(begin),
    }
}

/// The chain takes more of the window than it should.
pub(crate) fn nearly_full(mind: &mut Mind, window_tokens: u64, measured: &[Measured]) -> Move {
    if mind.journal.condensing.is_some() {
        let draft = mind.draft(Decision::Waited { stage: 0 }, NextMove::WaitChildren);
        return Move::Commit(Box::new(draft));
    }
    let rules = mind.facts.definition.agent().and_then(|agent| agent.compaction.clone());
    let plan = rules.and_then(|rules| choose(mind, window_tokens, measured, &rules));
    mind.crowded = plan.is_none();
    mind.chosen = plan.map(|Plan { range, tokens, .. }| Chosen {
        from: range.start,
        count: range.len(),
        tokens,
        window_tokens,
    });
    if mind.chosen.is_some() { next(mind) } else { Move::Do(Doing::Infer) }
}

fn choose(mind: &Mind, window_tokens: u64, measured: &[Measured], rules: &Compaction) -> Option<Plan> {
    let summary_tokens = u64::from(rules.max_tokens);
    let rule = Rule {
        begin: u64::from(rules.at_milli),
        until: u64::from(rules.until_milli),
        keep_steps: u64::from(rules.keep_steps),
        summary_tokens,
        range_tokens: (window_tokens * 3 / 4).saturating_sub(summary_tokens + INSTRUCTION_TOKENS),
    };
    let pieces = pieces(mind, measured)?;
    compaction::choose(&pieces, window_tokens, &rule).filter(|plan| plan.freed * WORTH >= window_tokens)
}

/// The journal's chain in numbers. What was measured may begin with tools that are in no step yet.
fn pieces(mind: &Mind, measured: &[Measured]) -> Option<Vec<Piece>> {
    let journal = &mind.journal;
    let measured = &measured[measured.len().checked_sub(journal.chain.len())?..];
    let newest: BTreeMap<Hash, usize> =
        journal.chain.iter().enumerate().map(|(place, item)| (item.hash, place)).collect();
    let again = |(place, item): (usize, &ChainItem)| newest[&item.hash] > place;
    let repeated: Vec<&str> = journal
        .chain
        .iter()
        .enumerate()
        .filter(|(place, item)| measured[*place].kind == Kind::ToolCall && again((*place, item)))
        .map(|(_, item)| item.name.as_str())
        .collect();
    let piece = |(place, item): (usize, &ChainItem)| Piece {
        kind: measured[place].kind,
        tokens: measured[place].tokens,
        age_steps: u64::from(journal.turns.saturating_sub(journal.joined[place])),
        superseded: !item.name.is_empty() && repeated.contains(&item.name.as_str()),
        input: item.part != Part::Private || journal.asked.contains(&item.hash),
        attached: item.part == Part::Private && !item.name.is_empty(),
        barrier: place == journal.mark,
    };
    Some(journal.chain.iter().enumerate().map(piece).collect())
}

/// Asks for the summary, once the texts are at hand.
pub(crate) fn next(mind: &Mind) -> Move {
    let Some(chosen) = &mind.chosen else { return Move::Nothing };
    let range = &mind.journal.chain[chosen.from..chosen.from + chosen.count];
    let inputs = mind.facts.inputs.iter().map(|(_, hash)| *hash);
    let wanted = range.iter().map(|item| item.hash).chain(inputs);
    let mut missing: Vec<Hash> = wanted.filter(|hash| !mind.parts.contains_key(hash)).collect();
    missing.sort_unstable();
    missing.dedup();
    match writer(mind) {
        _ if !missing.is_empty() => Move::Do(Doing::Load(missing)),
        Some(agent) => Move::Do(Doing::Spawn(vec![child(mind, chosen, agent)])),
        None => Move::Do(Doing::Summarise),
    }
}

/// The agent that writes summaries; none: the task's own model.
fn writer(mind: &Mind) -> Option<&str> {
    mind.facts.definition.agent()?.compaction.as_ref()?.agent.as_deref()
}

/// An ordinary task, behind all others of its class.
fn child(mind: &Mind, chosen: &Chosen, agent: &str) -> ChildPlan {
    let (sealed, _) = order(mind, chosen, agent);
    ChildPlan {
        agent: agent.to_string(),
        inputs: vec![(String::new(), sealed.hash)],
        background: Vec::new(),
        tokens: None,
        priority: Some(0),
        together: false,
    }
}

/// What the child is given: readable by nobody else, because it holds what only this agent may see.
fn order(mind: &Mind, chosen: &Chosen, agent: &str) -> (Sealed, Segment) {
    let text = format!("{INSTRUCTION}\n{}", material(mind, chosen));
    let mut segment = mind.segment(Kind::Message, Visibility::Agent, text);
    segment.author = agent.to_string();
    (mind.seal(&segment), segment)
}

/// Segments that the child is given.
pub(crate) fn child_inputs(mind: &Mind) -> Vec<(Hash, Vec<u8>)> {
    let (Some(chosen), Some(agent)) = (&mind.chosen, writer(mind)) else { return Vec::new() };
    let (sealed, _) = order(mind, chosen, agent);
    vec![(sealed.hash, sealed.bytes)]
}

/// The task and what happened, as one text.
fn material(mind: &Mind, chosen: &Chosen) -> String {
    let text = |hash: &Hash| mind.parts.get(hash).map_or("", |segment| segment.text.as_str());
    let inputs: Vec<&str> = mind.facts.inputs.iter().map(|(_, hash)| text(hash)).collect();
    // An eighth of the window, at four bytes a token.
    let bytes = usize::try_from(chosen.window_tokens / 2).unwrap_or(usize::MAX);
    let task = crate::draft::shortened(inputs.join("\n\n"), bytes);
    let mut material = format!("# The task\n\n{task}\n\n# What happened\n");
    for item in &mind.journal.chain[chosen.from..chosen.from + chosen.count] {
        let Some(segment) = mind.parts.get(&item.hash).filter(|segment| !segment.text.is_empty()) else {
            continue;
        };
        material += &format!("\n## {}\n\n{}\n", speaker(mind, item, segment), segment.text);
    }
    material
}

fn speaker(mind: &Mind, item: &ChainItem, segment: &Segment) -> String {
    match segment.kind {
        Kind::ToolCall => "the agent calls a tool".to_string(),
        Kind::Summary => "an earlier summary".to_string(),
        _ if !item.name.is_empty() => "the tool answers".to_string(),
        _ if segment.author == mind.facts.agent => "the agent says".to_string(),
        _ => format!("{} says", segment.author),
    }
}

/// The model call that writes the summary.
pub(crate) fn infer(mind: &Mind, call: u32) -> Effect {
    let agent = mind.facts.definition.agent().expect("only an agent's mind summarises");
    let chosen = mind.chosen.as_ref().expect("a range is chosen first");
    let instruction = Segment::new(Kind::System, mind.facts.agent.clone(), Visibility::Agent, INSTRUCTION);
    let material = mind.segment(Kind::Message, Visibility::Agent, material(mind, chosen));
    let fresh = [instruction, material].map(|segment| (mind.seal(&segment).hash, segment));
    let step = mind.journal.step + 1;
    Effect::Infer {
        step,
        call,
        model: agent.model.clone(),
        routes: (!agent.others.is_empty())
            .then(|| Routes { models: agent.models().map(str::to_string).collect(), read_by: None }),
        chain: vec![item(fresh[0].0, Part::System), item(fresh[1].0, Part::Input)],
        fresh: fresh.to_vec(),
        reader: mind.reader(),
        known_tokens: 0,
        max_tokens: agent.compaction.as_ref().map_or(1, |rules| rules.max_tokens),
        min_tokens: 0,
        temperature_milli: 0,
        seed: agent::sampling_seed(agent.seed.unwrap_or(mind.facts.seed), mind.journal.generated_tokens),
        wait_ms: agent::wait_ms(call),
        choice: crate::ToolChoice::None,
        full_at_milli: None,
        summary: true,
    }
}

/// The model wrote the summary, or a part of one, which is worth nothing.
pub(crate) fn summarised(mind: &Mind, answer: Generated, call: u32) -> Move {
    let generated_tokens = answer.spent.generated_tokens;
    let usable = answer.finish != Finish::Budget && !mind.wants_to_stop();
    let text = Some(answer.text.trim()).filter(|text| usable && !text.is_empty());
    let draft = match (text, &mind.chosen) {
        (Some(text), Some(chosen)) => {
            let (from, count) = (chosen.from as u32, chosen.count as u32);
            condensed(mind, from, count, chosen.tokens, text, (call, generated_tokens))
        }
        _ => gave_up(mind, if usable { "EMPTY_SUMMARY" } else { CUT_SHORT }, generated_tokens),
    };
    let Generated { spent, billed_tokens, numerics, route, .. } = answer;
    Move::Commit(Box::new(Draft { spent, billed_tokens, numerics, route, ..draft }))
}

/// The summary takes the place of what it is about.
fn condensed(mind: &Mind, from: u32, count: u32, tokens: u64, text: &str, made: (u32, u64)) -> Draft {
    let text = format!("[In place of {count} earlier messages, to save room:]\n{text}");
    let segment = mind.segment(Kind::Summary, Visibility::Agent, text);
    let sealed = mind.seal(&segment);
    let (call, generated_tokens) = made;
    let decision = Decision::Condensed {
        from,
        count,
        summary: Some(sealed.hash),
        call,
        generated_tokens,
        reason: String::new(),
    };
    let chain_tokens = mind.journal.chain_tokens.saturating_sub(tokens) + generated_tokens;
    Draft { added: vec![sealed], chain_tokens, ..mind.draft(decision, NextMove::Continue) }
}

/// There is no summary, and the task goes on as it is.
pub(crate) fn gave_up(mind: &Mind, reason: &str, generated_tokens: u64) -> Draft {
    let decision = Decision::Condensed {
        from: 0,
        count: 0,
        summary: None,
        call: 0,
        generated_tokens,
        reason: crate::draft::shortened(reason.to_string(), types::limits::NAME_BYTES),
    };
    mind.draft(decision, NextMove::Continue)
}

/// A child writes the summary; the task goes on meanwhile.
pub(crate) fn spawned(mind: &Mind, children: &[TaskUid]) -> Move {
    let (Some(chosen), [child]) = (&mind.chosen, children) else { return Move::Nothing };
    let decision = Decision::Condensing {
        from: chosen.from as u32,
        count: chosen.count as u32,
        tokens: chosen.tokens,
        child: *child,
    };
    Move::Commit(Box::new(mind.draft(decision, NextMove::Continue)))
}

/// How the child stands that writes the summary.
pub(crate) fn children(mind: &mut Mind, outcomes: &[ChildOutcome]) -> Move {
    let Some(condensing) = mind.journal.condensing.clone() else { return Move::Nothing };
    mind.asked_summary = true;
    let Some(child) = outcomes.iter().find(|child| child.uid == condensing.child) else {
        return Move::Commit(Box::new(gave_up(mind, "CHILD_UNKNOWN", 0)));
    };
    let result = child.result.filter(|_| child.state == TaskState::Succeeded);
    match result {
        Some(result) => match mind.parts.get(&result) {
            None => {
                mind.asked_summary = false;
                Move::Do(Doing::Load(vec![result]))
            }
            Some(segment) => Move::Commit(Box::new(taken(mind, &condensing, segment))),
        },
        None if child.state.is_final() => Move::Commit(Box::new(gave_up(mind, "CHILD_FAILED", 0))),
        None => Move::Do(Doing::Infer),
    }
}

fn taken(mind: &Mind, condensing: &crate::journal::Condensing, segment: &Segment) -> Draft {
    let text = segment.text.trim();
    if !context::may_see(&mind.reader(), segment) {
        return gave_up(mind, "SUMMARY_HIDDEN", 0);
    }
    if text.is_empty() {
        return gave_up(mind, "EMPTY_SUMMARY", 0);
    }
    condensed(mind, condensing.from, condensing.count, condensing.tokens, text, (0, 0))
}
