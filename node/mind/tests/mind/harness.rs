//! A task to think about, a store for what the mind commits, and answers to its effects.

use context::{Kind, Segment, Visibility};
use mind::{ChildOutcome, Definition, Effect, Event, Finish, Mind, NextMove, StepRecord, TaskFacts};
use std::collections::BTreeMap;
use types::{Epoch, Hash, ProjectName, Spent, TaskState, TaskUid};

pub(crate) const AGENT: &str = "name = \"reader\"\nmodel = \"tiny\"\nsystem = \"Be brief.\"\nmax_steps = 4\n";
pub(crate) const TEAM: &str = "name = \"press\"\nbackground = \"House style.\"\n[fan_out]\nover = \"inputs\"\nagent = \"reader\"\n[then]\nagent = \"writer\"\n";

pub(crate) fn project() -> ProjectName {
    ProjectName::default()
}

pub(crate) fn tokenizer() -> Hash {
    Hash::of(b"tokenizer")
}

pub(crate) fn uid(index: u64) -> TaskUid {
    TaskUid { index, position: 0 }
}

pub(crate) fn facts(definition: &str, inputs: &[&str]) -> TaskFacts {
    let definition = Definition::parse(definition).expect("the test's definition is good");
    let input = |name: &&str| {
        let segment = Segment::new(Kind::Message, "someone", Visibility::Project, format!("text of {name}"));
        (name.to_string(), context::seal(&project(), &segment).hash)
    };
    TaskFacts {
        uid: uid(100),
        project: project(),
        agent: definition.name().to_string(),
        tree: uid(100),
        background: Vec::new(),
        inputs: inputs.iter().map(input).collect(),
        definition,
        seed: 7,
        epoch: Epoch { incarnation: 1, index: 100, position: 0 },
        inbox: Vec::new(),
    }
}

pub(crate) fn generated(text: &str, tokens: u32, finish: Finish) -> Event {
    Event::Generated {
        text: text.to_string(),
        token_ids: (0..tokens).collect(),
        tokenizer: tokenizer(),
        finish,
        spent: Spent { prompt_tokens: 10, generated_tokens: u64::from(tokens), ..Spent::default() },
        billed_tokens: 10 + u64::from(tokens),
        chain_tokens: 10 + u64::from(tokens),
        numerics: None,
        calls: None,
        route: None,
    }
}

pub(crate) fn outcome(child: TaskUid, state: TaskState) -> ChildOutcome {
    let done = state == TaskState::Succeeded;
    ChildOutcome {
        uid: child,
        agent: "reader".to_string(),
        state,
        result: done.then(|| Hash::of(child.to_string().as_bytes())),
        result_bytes: 5,
        result_name: String::new(),
        error: (state == TaskState::Failed).then(|| "CONTEXT_TOO_LONG: 900 of 512".to_string()),
    }
}

/// What the cluster keeps: segments, and the journal of committed records.
#[derive(Clone, Default)]
pub(crate) struct Store {
    pub(crate) segments: BTreeMap<Hash, Vec<u8>>,
    pub(crate) journal: Vec<Hash>,
}

impl Store {
    /// Keeps what an effect carries, and checks that every name is true.
    pub(crate) fn keep(&mut self, effect: &Effect) {
        let segments = match effect {
            Effect::Commit { segments, .. } => segments,
            Effect::Spawn { new_segments, .. } => new_segments,
            Effect::Load { .. }
            | Effect::ListTools { .. }
            | Effect::CallTool { .. }
            | Effect::CutShort
            | Effect::Infer { .. }
            | Effect::AskChildren
            | Effect::CheckResult { .. }
            | Effect::Stop => return,
        };
        for (hash, bytes) in segments {
            context::verify(&project(), *hash, bytes).expect("the mind names its segments truly");
            self.segments.insert(*hash, bytes.clone());
        }
    }

    pub(crate) fn segment(&self, hash: Hash) -> Segment {
        context::open(&project(), hash, &self.segments[&hash]).expect("what the mind stores can be opened")
    }

    pub(crate) fn record(&self, hash: Hash) -> StepRecord {
        StepRecord::open(&project(), hash, &self.segments[&hash]).expect("a record")
    }

    /// A new life after the first `steps` records.
    pub(crate) fn revive(&self, facts: &TaskFacts, steps: usize) -> Mind {
        let mut mind = Mind::new(facts.clone());
        for hash in &self.journal[..steps] {
            mind.replay(*hash, &self.record(*hash)).expect("the journal is whole");
        }
        mind
    }

    pub(crate) fn loaded(&self, hashes: &[Hash]) -> Event {
        Event::Loaded { segments: hashes.iter().map(|hash| (*hash, self.segment(*hash))).collect() }
    }
}

/// Lives a task to its end. What the world answers depends on the step and the call alone, so that a life that begins
/// at any step must take the same way.
pub(crate) fn live(
    store: &mut Store,
    facts: &TaskFacts,
    answer: &dyn Fn(u64, u32, &Effect) -> Event,
) -> (Vec<Effect>, NextMove) {
    let mut seen = Vec::new();
    loop {
        let mut mind = store.revive(facts, store.journal.len());
        let mut effects = mind.on(Event::Begin);
        let mut last = None;
        while let Some(effect) = effects.pop() {
            assert!(effects.is_empty(), "the mind asks for one thing at a time");
            store.keep(&effect);
            if !matches!(effect, Effect::Load { .. } | Effect::Stop) {
                seen.push(effect.clone());
            }
            let event = match &effect {
                Effect::Stop => break,
                Effect::Load { hashes } => store.loaded(hashes),
                Effect::Infer { step, call, .. } => answer(*step, *call, &effect),
                Effect::Spawn { step, children: plan, .. } => {
                    let children = (0..plan.len() as u64).map(|index| uid(1000 * step + index));
                    Event::Spawned { children: children.collect() }
                }
                Effect::ListTools { .. }
                | Effect::CallTool { .. }
                | Effect::CutShort
                | Effect::CheckResult { .. } => {
                    panic!("this life has no tools and no forms")
                }
                Effect::AskChildren => {
                    let all = &mind.observe().children;
                    Event::Children(all.iter().map(|child| outcome(*child, TaskState::Succeeded)).collect())
                }
                Effect::Commit { step, head, next, .. } => {
                    store.journal.push(*head);
                    last = Some(next.clone());
                    Event::Committed { step: *step }
                }
            };
            effects = mind.on(event);
        }
        match last.expect("each life commits something") {
            NextMove::Continue => panic!("a mind that continues does not stop"),
            NextMove::WaitChildren => continue,
            NextMove::GoOn { .. }
            | NextMove::WaitTool { .. }
            | NextMove::WaitInput { .. }
            | NextMove::WaitFor { .. }
            | NextMove::WaitBudget { .. } => panic!("this life has no tools"),
            end @ (NextMove::Done { .. } | NextMove::Failed { .. } | NextMove::PausedError { .. }) => {
                return (seen, end);
            }
        }
    }
}
