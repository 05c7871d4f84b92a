//! The machine: events go to the decisions of `agent` and `team`, and their moves become effects and phases.

mod observed;

use crate::agent::{self, Generated};
use crate::calls::{self, Tool};
use crate::draft::{Doing, Draft, Move, Trouble};
use crate::journal::Journal;
use crate::opening;
use crate::{
    CALLS_PER_STEP, CallOutcome, ChildOutcome, Decision, Definition, Effect, Event, Measured, NextMove,
    ReplayError, Signal, StepRecord, condense, team, turn, typed,
};
use context::{Sealed, Segment};
pub use observed::Observed;
use std::collections::{BTreeMap, BTreeSet};
use types::{Epoch, Hash, ProjectName, TaskUid};

/// What a mind is told once, from the task's row in the ledger.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskFacts {
    pub uid: TaskUid,
    pub project: ProjectName,
    pub agent: String,
    /// The root of the task tree.
    pub tree: TaskUid,
    /// Segments shared by a team, first in the chain after the system prompt.
    pub background: Vec<Hash>,
    /// Name for people, and segment.
    pub inputs: Vec<(String, Hash)>,
    pub definition: Definition,
    /// Seed of all sampling, unless the agent names one.
    pub seed: u64,
    /// The lease under which this mind acts.
    pub epoch: Epoch,
    /// What people said so far; what the journal has is looked past.
    pub inbox: Vec<Signal>,
}

/// One task's machine. See the crate's page for how it is driven.
#[derive(Clone, Debug, PartialEq)]
pub struct Mind {
    pub(crate) facts: TaskFacts,
    pub(crate) journal: Journal,
    /// Segments that the definition itself gives: an agent's system prompt, a team's background.
    pub(crate) opening: Vec<(Sealed, Segment)>,
    /// Texts of the parts of an answer that goes on, and of the calls of a turn.
    pub(crate) parts: BTreeMap<Hash, Segment>,
    /// The tools that there are, once a node said so; in no store before the first step.
    pub(crate) tools: Option<(Sealed, Segment)>,
    known_tools: Vec<Tool>,
    inbox: BTreeMap<u64, Signal>,
    /// The journal's step when this life began: calls of later steps began in it.
    pub(crate) born: u64,
    /// Calls that are out, by their places in the turn.
    pub(crate) running: BTreeSet<u32>,
    /// How calls ended that are not in the journal yet.
    pub(crate) ended: Vec<(u32, CallOutcome)>,
    /// How often each was made in this life.
    pub(crate) attempts: BTreeMap<u32, u32>,
    /// Calls whose outcome a person has to say.
    pub(crate) unsure: BTreeSet<u32>,
    /// The task's slot is for others while its tools work.
    pub(crate) aside: bool,
    pub(crate) asked_children: bool,
    /// What is to be summarised before the next model call.
    pub(crate) chosen: Option<condense::Chosen>,
    /// The window is nearly full and nothing more can be given up: the call is made as it is.
    pub(crate) crowded: bool,
    /// The child that writes the summary was asked for in this step.
    pub(crate) asked_summary: bool,
    /// The answer that is being checked.
    pub(crate) candidate: Option<Box<typed::Candidate>>,
    /// A budget had no room for the calls that were to begin.
    short: bool,
    phase: Phase,
}

#[derive(Clone, Debug, PartialEq)]
enum Phase {
    /// Records may be replayed; nothing has begun.
    Ready,
    /// An effect is out and its answer awaited. `call` counts the repetitions.
    Doing {
        doing: Doing,
        call: u32,
    },
    /// Tools are at work; nothing else is awaited.
    UsingTools,
    Committing(Pending),
    Ended,
}

#[derive(Clone, Debug, PartialEq)]
struct Pending {
    head: Hash,
    record: Box<StepRecord>,
    parts: Vec<(Hash, Segment)>,
    next: NextMove,
    /// The step again, where it begins calls: it may have to do without them.
    begins: Option<Box<Draft>>,
}

impl Mind {
    pub fn new(facts: TaskFacts) -> Mind {
        let opening = opening::segments(&facts);
        let hashes = opening.iter().map(|(sealed, _)| sealed.hash).collect();
        let journal = Journal::new(opening::chain(&facts, &opening), hashes);
        let inbox = facts.inbox.iter().map(|signal| (signal.number, signal.clone())).collect();
        Mind {
            facts,
            journal,
            opening,
            parts: BTreeMap::new(),
            tools: None,
            known_tools: Vec::new(),
            inbox,
            born: 0,
            running: BTreeSet::new(),
            ended: Vec::new(),
            attempts: BTreeMap::new(),
            unsure: BTreeSet::new(),
            aside: false,
            asked_children: false,
            chosen: None,
            crowded: false,
            asked_summary: false,
            candidate: None,
            short: false,
            phase: Phase::Ready,
        }
    }

    /// Feeds a committed record, the oldest first, before `Begin`. Nothing is decided again.
    ///
    /// # Errors
    /// A record that is not the next one; the mind is unchanged.
    pub fn replay(&mut self, hash: Hash, record: &StepRecord) -> Result<(), ReplayError> {
        if self.phase != Phase::Ready {
            return Err(ReplayError::Started { step: record.n });
        }
        self.journal.check(record)?;
        self.journal.take(hash, record);
        self.born = record.n;
        Ok(())
    }

    /// What to do about an event. An event at the wrong time has no effects; after the end there is only `Stop`.
    pub fn on(&mut self, event: Event) -> Vec<Effect> {
        if self.phase == Phase::Ended {
            return vec![Effect::Stop];
        }
        match event {
            Event::Begin => self.begin(),
            Event::Loaded { segments } => self.loaded(segments),
            Event::Generated {
                text,
                token_ids,
                tokenizer,
                finish,
                spent,
                billed_tokens,
                chain_tokens,
                numerics,
                calls,
                route,
            } => {
                let tokens = context::Tokens { tokenizer, ids: token_ids };
                self.generated(Generated {
                    text,
                    tokens,
                    finish,
                    spent,
                    billed_tokens,
                    chain_tokens,
                    numerics,
                    calls,
                    route: route.map(|route| *route),
                })
            }
            Event::NearlyFull { window_tokens, pieces } => self.nearly_full(window_tokens, &pieces),
            Event::Checked { wrong } => self.checked(wrong),
            Event::Tools { specs } => self.listed(&specs),
            Event::CallEnded { step, index, outcome } => self.call_ended(step, index, outcome),
            Event::Signals(signals) => self.told(signals),
            Event::ModelFailed { reason, message, retriable } => {
                self.model_failed(Trouble { reason, message, retriable })
            }
            Event::Spawned { children } => self.spawned(children),
            Event::Children(outcomes) => self.children(outcomes),
            Event::Committed { step } => self.committed(step),
            Event::CallsRefused => self.calls_refused(),
            Event::BudgetRefused | Event::Fenced => self.stop(),
        }
    }

    /// The task's slot is for others while its tools work.
    pub fn is_aside(&self) -> bool {
        self.aside
    }

    fn begin(&mut self) -> Vec<Effect> {
        if self.phase == Phase::Ready { self.decide() } else { Vec::new() }
    }

    /// What follows from the journal alone: the same after a replay as after a commit.
    fn decide(&mut self) -> Vec<Effect> {
        if self.journal.ended {
            return self.stop();
        }
        if self.journal.turn.is_some() {
            return turn::next(self);
        }
        let next = match &self.facts.definition {
            Definition::Agent(agent) => agent::next(self, agent),
            Definition::Team(team) => team::next(self, team),
        };
        self.make(next, 0)
    }

    fn loaded(&mut self, segments: Vec<(Hash, Segment)>) -> Vec<Effect> {
        let Phase::Doing { doing: Doing::Load(wanted), .. } = &self.phase else { return Vec::new() };
        let wanted = wanted.clone();
        self.parts.extend(segments.into_iter().filter(|(hash, _)| wanted.contains(hash)));
        self.know_tools();
        match wanted.iter().find(|hash| !self.parts.contains_key(hash)) {
            None => self.decide(),
            Some(hash) => {
                let message = format!(
                    "segment {hash}, which the task needs to go on, was not found; resume the task when the node that holds it is back"
                );
                self.trouble(Trouble { reason: "SEGMENT_MISSING".to_string(), message, retriable: true })
            }
        }
    }

    /// The journal's list of tools, once its text is at hand.
    fn know_tools(&mut self) {
        let listed = self.journal.tools.and_then(|hash| self.parts.get(&hash));
        if let (Some(segment), Some(agent)) = (listed, self.facts.definition.agent()) {
            self.known_tools = calls::tools(&segment.text, &agent.tools);
        }
    }

    fn generated(&mut self, answer: Generated) -> Vec<Effect> {
        let (Phase::Doing { doing, call }, Definition::Agent(agent)) = (&self.phase, &self.facts.definition)
        else {
            return Vec::new();
        };
        let (doing, call, agent) = (doing.clone(), *call, agent.clone());
        let next = match doing {
            Doing::Infer => agent::answered(self, &agent, answer, call),
            Doing::Summarise => condense::summarised(self, answer, call),
            Doing::Load(_) | Doing::ListTools | Doing::Spawn(_) | Doing::Ask | Doing::Check { .. } => {
                Move::Nothing
            }
        };
        self.make(next, 0)
    }

    fn checked(&mut self, wrong: String) -> Vec<Effect> {
        let (Phase::Doing { doing: Doing::Check { .. }, .. }, Definition::Agent(agent)) =
            (&self.phase, &self.facts.definition)
        else {
            return Vec::new();
        };
        let agent = agent.clone();
        let next = typed::checked(self, &agent, wrong);
        self.make(next, 0)
    }

    fn nearly_full(&mut self, window_tokens: u64, pieces: &[Measured]) -> Vec<Effect> {
        if !matches!(self.phase, Phase::Doing { doing: Doing::Infer, .. }) {
            return Vec::new();
        }
        let next = condense::nearly_full(self, window_tokens, pieces);
        self.make(next, 0)
    }

    /// A node said which tools there are. Each rule of the agent must cover one.
    fn listed(&mut self, specs: &str) -> Vec<Effect> {
        let (Phase::Doing { doing: Doing::ListTools, .. }, Definition::Agent(agent)) =
            (&self.phase, &self.facts.definition)
        else {
            return Vec::new();
        };
        let specs = calls::with_own(specs, &agent.tools, turn::own_tools());
        let tools = calls::tools(&specs, &agent.tools);
        if let Some(rule) = agent.tools.iter().find(|rule| !tools.iter().any(|tool| rule.covers(&tool.name)))
        {
            let message = format!(
                "the agent wants the tool {:?} and this node has none of that name; correct the agent's tools, or give \
                 the nodes the tool and resume the task",
                rule.name
            );
            return self.trouble(Trouble { reason: "NO_SUCH_TOOL".to_string(), message, retriable: true });
        }
        let segment = opening::tools(&self.facts, specs);
        self.tools = Some((self.seal(&segment), segment));
        self.known_tools = tools;
        self.decide()
    }

    fn call_ended(&mut self, step: u64, index: u32, outcome: CallOutcome) -> Vec<Effect> {
        let of_turn = self.journal.turn.as_ref().is_some_and(|turn| turn.step == step);
        if !of_turn || !self.running.remove(&index) {
            return Vec::new();
        }
        self.ended.push((index, outcome));
        if self.phase == Phase::UsingTools { turn::next(self) } else { Vec::new() }
    }

    fn told(&mut self, signals: Vec<Signal>) -> Vec<Effect> {
        let before = self.inbox.len();
        self.inbox.extend(signals.into_iter().map(|signal| (signal.number, signal)));
        let stops = self.wants_to_stop();
        match &self.phase {
            Phase::UsingTools if self.inbox.len() > before => turn::next(self),
            Phase::Doing { doing: Doing::Infer | Doing::Summarise, .. } if stops => vec![Effect::CutShort],
            _ => Vec::new(),
        }
    }

    /// What was said and is in no committed step.
    pub(crate) fn unheard(&self) -> impl Iterator<Item = &Signal> {
        self.inbox.range(self.journal.heard + 1..).map(|(_, signal)| signal)
    }

    /// A message came that is not to wait for its turn.
    pub(crate) fn wants_to_stop(&self) -> bool {
        self.unheard().any(|signal| signal.kind.stops())
    }

    /// Up to where a step of a turn has heard: messages are heard between turns.
    pub(crate) fn heard_now(&self) -> Option<u64> {
        // An approval is heard when its call begins.
        if self.holds_back() {
            return None;
        }
        let message = self.unheard().find(|signal| signal.kind.is_message());
        let last = self.inbox.last_key_value().map(|(number, _)| *number)?;
        let heard = message.map_or(last, |message| message.number - 1);
        (heard > self.journal.heard).then_some(heard)
    }

    pub(crate) fn known_tools(&self) -> &[Tool] {
        &self.known_tools
    }

    /// What to do when some of these texts are not at hand.
    pub(crate) fn lacking(&mut self, hashes: &[Hash]) -> Option<Vec<Effect>> {
        let missing: Vec<Hash> =
            hashes.iter().copied().filter(|hash| !self.parts.contains_key(hash)).collect();
        (!missing.is_empty()).then(|| self.do_now(Doing::Load(missing)))
    }

    pub(crate) fn do_now(&mut self, doing: Doing) -> Vec<Effect> {
        self.make(Move::Do(doing), 0)
    }

    /// Tools are out; what comes next comes from them, or from people.
    pub(crate) fn calling(&mut self) {
        self.phase = Phase::UsingTools;
    }

    pub(crate) fn wait_for_calls(&mut self) -> Vec<Effect> {
        self.calling();
        Vec::new()
    }

    fn spawned(&mut self, children: Vec<TaskUid>) -> Vec<Effect> {
        if self.journal.turn.is_some() {
            let asked = matches!(self.phase, Phase::Doing { doing: Doing::Spawn(_), .. });
            return if asked { turn::spawned(self, children) } else { Vec::new() };
        }
        let Phase::Doing { doing: Doing::Spawn(plan), .. } = &self.phase else { return Vec::new() };
        let next = match &self.facts.definition {
            Definition::Agent(_) => condense::spawned(self, &children),
            Definition::Team(_) => team::spawned(self, plan, children),
        };
        self.make(next, 0)
    }

    fn children(&mut self, outcomes: Vec<ChildOutcome>) -> Vec<Effect> {
        if self.journal.turn.is_some() {
            let asked = matches!(self.phase, Phase::Doing { doing: Doing::Ask, .. });
            return if asked { turn::children(self, &outcomes) } else { Vec::new() };
        }
        if !matches!(self.phase, Phase::Doing { doing: Doing::Ask, .. }) {
            return Vec::new();
        }
        let next = match &self.facts.definition {
            Definition::Agent(_) => condense::children(self, &outcomes),
            Definition::Team(team) => team::children(self, team, outcomes),
        };
        self.make(next, 0)
    }

    fn make(&mut self, next: Move, call: u32) -> Vec<Effect> {
        match next {
            Move::Do(doing) => {
                let effect = self.effect(&doing, call);
                self.phase = Phase::Doing { doing, call };
                vec![effect]
            }
            Move::Commit(draft) => self.commit(*draft),
            Move::Trouble(trouble) => self.trouble(trouble),
            Move::Nothing => Vec::new(),
        }
    }

    fn model_failed(&mut self, trouble: Trouble) -> Vec<Effect> {
        match &self.phase {
            Phase::Doing { doing: Doing::Spawn(_), .. }
                if self.journal.turn.is_some() && !trouble.retriable =>
            {
                turn::not_spawned(self, &trouble.message)
            }
            // It was cut short for a message, before it said anything.
            Phase::Doing { doing: Doing::Infer | Doing::Summarise, .. } if self.wants_to_stop() => {
                self.decide()
            }
            // A task can do without a summary, for a while.
            Phase::Doing { doing: Doing::Summarise | Doing::Spawn(_), call }
                if self.chosen.is_some() && (!trouble.retriable || call + 1 >= CALLS_PER_STEP) =>
            {
                let draft = condense::gave_up(self, &trouble.reason, 0);
                self.commit(draft)
            }
            Phase::Doing { .. } => self.trouble(trouble),
            _ => Vec::new(),
        }
    }

    /// Tries again a few times, then stands still; what cannot get better by repetition fails at once.
    fn trouble(&mut self, trouble: Trouble) -> Vec<Effect> {
        let call = if let Phase::Doing { call, .. } = self.phase { call } else { 0 };
        if let Phase::Doing { doing, .. } = &self.phase
            && trouble.retriable
            && call + 1 < CALLS_PER_STEP
        {
            let again = Move::Do(doing.clone());
            return self.make(again, call + 1);
        }
        let draft = self.give_up(trouble, call + 1);
        self.commit(draft)
    }

    pub(crate) fn commit(&mut self, draft: Draft) -> Vec<Effect> {
        let (record, segments) = self.record(&draft);
        let begins = draft.next.begun() > 0;
        let begins = begins.then(|| Box::new(draft.clone()));
        let (step, record) = (record.n, Box::new(record));
        let head = segments.last().expect("a record is sealed last").hash;
        let segments = segments.into_iter().map(|sealed| (sealed.hash, sealed.bytes)).collect();
        let Draft { parts, spent, billed_tokens, next, .. } = draft;
        self.phase =
            Phase::Committing(Pending { head, record: record.clone(), parts, next: next.clone(), begins });
        vec![Effect::Commit { step, head, record, segments, spent, billed_tokens, next }]
    }

    fn committed(&mut self, step: u64) -> Vec<Effect> {
        let Phase::Committing(pending) = &self.phase else { return Vec::new() };
        if pending.record.n != step {
            return Vec::new();
        }
        let pending = pending.clone();
        let had_turn = self.journal.turn.as_ref().map(|turn| turn.step);
        self.journal.take(pending.head, &pending.record);
        if self.chosen.take().is_some() || matches!(pending.record.decision, Decision::Condensed { .. }) {
            // What was summarised is not needed again.
            self.parts.clear();
        }
        (self.crowded, self.asked_summary) = (false, false);
        self.parts.extend(pending.parts);
        if self.journal.turn.as_ref().map(|turn| turn.step) != had_turn {
            self.forget_turn();
        }
        self.short &= pending.begins.is_none();
        self.aside = matches!(pending.next, NextMove::WaitTool { .. });
        match pending.next {
            NextMove::Continue | NextMove::GoOn { .. } | NextMove::WaitTool { .. } => self.decide(),
            NextMove::WaitInput { .. }
            | NextMove::WaitFor { .. }
            | NextMove::WaitBudget { .. }
            | NextMove::WaitChildren
            | NextMove::Done { .. }
            | NextMove::Failed { .. }
            | NextMove::PausedError { .. } => self.stop(),
        }
    }

    /// The step is made without beginning its calls.
    fn calls_refused(&mut self) -> Vec<Effect> {
        let Phase::Committing(Pending { begins: Some(draft), .. }) = &self.phase else { return Vec::new() };
        let draft = draft.clone();
        self.short = true;
        let draft = turn::held_back(self, *draft);
        self.commit(draft)
    }

    /// No call begins before those that are out have ended: there is no room for more.
    pub(crate) fn holds_back(&self) -> bool {
        self.short && !self.running.is_empty()
    }

    /// What this life knows of calls belongs to one turn.
    fn forget_turn(&mut self) {
        self.running.clear();
        self.ended.clear();
        self.attempts.clear();
        self.unsure.clear();
        self.asked_children = false;
    }

    fn stop(&mut self) -> Vec<Effect> {
        self.phase = Phase::Ended;
        vec![Effect::Stop]
    }

    fn effect(&self, doing: &Doing, call: u32) -> Effect {
        match doing {
            Doing::Load(hashes) => Effect::Load { hashes: hashes.clone() },
            Doing::ListTools => {
                let rules =
                    self.facts.definition.agent().map(|agent| agent.tools.as_slice()).unwrap_or_default();
                Effect::ListTools { patterns: rules.iter().map(|rule| rule.name.clone()).collect() }
            }
            Doing::Infer => agent::infer(self, call),
            Doing::Summarise => condense::infer(self, call),
            Doing::Spawn(children) => {
                let opening = self.opening.iter().map(|(sealed, _)| (sealed.hash, sealed.bytes.clone()));
                let own = turn::child_inputs(self).into_iter().chain(condense::child_inputs(self));
                let new_segments = opening.chain(own).collect();
                Effect::Spawn { step: self.journal.step + 1, children: children.clone(), new_segments }
            }
            Doing::Ask => Effect::AskChildren,
            Doing::Check { schema, text } => {
                Effect::CheckResult { schema: schema.clone(), text: text.clone() }
            }
        }
    }
}
