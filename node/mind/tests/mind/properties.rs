//! Replay takes the same way as the first life, and no sequence of events does harm.

use crate::harness::{AGENT, Store, TEAM, facts, generated, live, outcome, uid};
use mind::{Decision, Effect, Event, Finish, Mind, NextMove, TaskFacts};
use proptest::prelude::*;
use types::{Hash, TaskState};

/// The answer of a model, for each step and call.
fn answers(script: Vec<(u32, u8)>) -> impl Fn(u64, u32, &Effect) -> Event {
    move |step, call, effect| {
        let (tokens, kind) = script[(step as usize * 5 + call as usize) % script.len()];
        let Effect::Infer { max_tokens, .. } = effect else { panic!("only model calls are answered here") };
        let text = format!("[{step}.{call}]");
        match kind {
            0..=3 => generated(&text, tokens.min(*max_tokens), Finish::Budget),
            4 => generated(&text, *max_tokens, Finish::Length),
            5 => generated(&text, tokens.min(*max_tokens), Finish::Stop),
            6 => Event::ModelFailed { reason: "BUSY".into(), message: "engine busy".into(), retriable: true },
            _ => Event::ModelFailed {
                reason: "CONTEXT_TOO_LONG".into(),
                message: "9 of 8".into(),
                retriable: false,
            },
        }
    }
}

fn same_way_from_every_step(facts: &TaskFacts, script: Vec<(u32, u8)>) {
    let answer = answers(script);
    let mut store = Store::default();
    let (seen, end) = live(&mut store, facts, &answer);
    for cut in 0..store.journal.len() {
        let mut again = store.clone();
        again.journal.truncate(cut);
        let (effects, other_end) = live(&mut again, facts, &answer);
        assert_eq!(again.journal, store.journal, "another journal after a cut at step {cut}");
        assert_eq!(other_end, end);
        assert!(seen.ends_with(&effects), "other effects after a cut at step {cut}");
    }
    let mut over = store.revive(facts, store.journal.len());
    let finished = !matches!(end, NextMove::PausedError { .. });
    assert_eq!(
        over.on(Event::Begin) == [Effect::Stop],
        finished,
        "nothing follows the end, a paused task goes on"
    );
}

fn event() -> impl Strategy<Value = Event> {
    let state = prop_oneof![
        4 => Just(TaskState::Succeeded), 1 => Just(TaskState::Failed), 1 => Just(TaskState::Running),
        1 => Just(TaskState::Cancelled)
    ];
    let finish = prop_oneof![3 => Just(Finish::Budget), 1 => Just(Finish::Stop), 1 => Just(Finish::Length)];
    prop_oneof![
        4 => Just(Event::Begin),
        6 => (any::<String>(), 0u32..400, finish).prop_map(|(text, tokens, finish)| generated(&text, tokens, finish)),
        2 => (any::<String>(), any::<bool>()).prop_map(|(reason, retriable)| Event::ModelFailed {
            message: reason.clone(), reason, retriable,
        }),
        6 => (1u64..6).prop_map(|step| Event::Committed { step }),
        4 => (0u64..4).prop_map(|count| Event::Spawned { children: (0..count).map(uid).collect() }),
        4 => proptest::collection::vec((0u64..4, state), 0..6)
            .prop_map(|all| Event::Children(all.into_iter().map(|(index, state)| outcome(uid(index), state)).collect())),
        1 => Just(Event::Loaded { segments: Vec::new() }),
        1 => prop_oneof![Just(Event::Fenced), Just(Event::BudgetRefused)],
    ]
}

/// Feeds any events, keeping what is committed; a life that stops is followed by another.
fn survives(facts: &TaskFacts, events: Vec<Event>, most_turns: u32) {
    let mut store = Store::default();
    let mut mind = Mind::new(facts.clone());
    let mut open: Option<Hash> = None;
    for event in events {
        let was = mind.observe();
        let effects = mind.on(event.clone());
        assert!(effects.len() <= 1, "one thing at a time: {effects:?}");
        if mind.observe().step > was.step {
            store.journal.push(open.take().expect("only what was proposed is committed"));
        }
        for effect in &effects {
            store.keep(effect);
            match effect {
                Effect::Commit { step, head, record, segments, .. } => {
                    assert_eq!(*step, mind.observe().step + 1);
                    assert_eq!((record.n, record.prev), (*step, store.journal.last().copied()));
                    assert_eq!(segments.last().map(|(hash, _)| *hash), Some(*head), "the record comes last");
                    open = Some(*head);
                }
                Effect::Stop => mind = store.revive(facts, store.journal.len()),
                Effect::Load { hashes } => assert!(!hashes.is_empty()),
                Effect::Infer { max_tokens, min_tokens, .. } => {
                    assert!(min_tokens <= max_tokens && *max_tokens > 0)
                }
                Effect::Spawn { children, .. } => assert!(!children.is_empty()),
                Effect::AskChildren => assert!(!mind.observe().children.is_empty()),
                Effect::ListTools { .. }
                | Effect::CallTool { .. }
                | Effect::CutShort
                | Effect::CheckResult { .. } => {
                    panic!("this life has no tools and no forms")
                }
            }
        }
        assert!(mind.observe().turns <= most_turns);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn an_agent_takes_the_same_way_from_every_step(script in proptest::collection::vec((1u32..120, 0u8..8), 1..20)) {
        same_way_from_every_step(&facts(AGENT, &["a.md"]), script);
    }

    #[test]
    fn any_events_do_no_harm_to_an_agent(events in proptest::collection::vec(event(), 0..60)) {
        survives(&facts(AGENT, &["a.md", "b.md"]), events, 4);
    }

    #[test]
    fn any_events_do_no_harm_to_a_team(events in proptest::collection::vec(event(), 0..60)) {
        survives(&facts(TEAM, &["a.md", "b.md"]), events, 0);
    }
}

#[test]
fn a_team_takes_the_same_way_from_every_step() {
    for inputs in [&["a.md"][..], &["a.md", "b.md", "c.md"][..]] {
        same_way_from_every_step(&facts(TEAM, inputs), vec![(1, 5)]);
    }
}

/// The planted difference: were the budget's cuts to change the sampling or the sum, this would find it.
#[test]
fn cuts_change_neither_seed_nor_text_nor_limit() {
    let task = facts(AGENT, &["a.md"]);
    let cut = |step: u64, _: u32, _: &Effect| {
        if step < 3 { generated("ab", 2, Finish::Budget) } else { generated("c", 1, Finish::Stop) }
    };
    let mut store = Store::default();
    let (effects, end) = live(&mut store, &task, &cut);
    let calls: Vec<(u64, u32)> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Infer { seed, max_tokens, .. } => Some((*seed, *max_tokens)),
            Effect::Load { .. }
            | Effect::ListTools { .. }
            | Effect::CallTool { .. }
            | Effect::CutShort
            | Effect::Spawn { .. }
            | Effect::AskChildren
            | Effect::CheckResult { .. }
            | Effect::Commit { .. }
            | Effect::Stop => None,
        })
        .collect();
    let seed = calls[0].0;
    assert_eq!(calls, [(seed, 256), (seed, 254), (seed, 252)]);
    let NextMove::Done { result, bytes } = end else { panic!("{end:?}") };
    let segment = store.segment(result);
    assert_eq!((segment.text.as_str(), bytes), ("ababc", 5));
    assert_eq!(segment.tokens.map(|tokens| tokens.ids), Some(vec![0, 1, 0, 1, 0]));
}

#[test]
fn another_task_seed_or_an_agents_own_seed_changes_the_sampling() {
    let seed_of = |task: TaskFacts| match Mind::new(task).on(Event::Begin).pop() {
        Some(Effect::Infer { seed, .. }) => seed,
        other => panic!("{other:?}"),
    };
    let plain = facts(AGENT, &["a.md"]);
    let other = TaskFacts { seed: 8, ..plain.clone() };
    let own = facts(&format!("{AGENT}seed = 3\n"), &["a.md"]);
    let own_other = TaskFacts { seed: 8, ..own.clone() };
    assert_ne!(seed_of(plain), seed_of(other));
    assert_eq!(seed_of(own), seed_of(own_other), "the agent's seed stands in for the task's");
}

#[test]
fn replay_refuses_what_is_not_the_next_record() {
    let task = facts(AGENT, &["a.md"]);
    let mut store = Store::default();
    live(&mut store, &task, &|step, _, _| {
        if step < 2 { generated("x", 1, Finish::Budget) } else { generated("y", 1, Finish::Stop) }
    });
    let (first, second) = (store.journal[0], store.journal[1]);
    let mut mind = Mind::new(task.clone());
    assert!(mind.replay(second, &store.record(second)).is_err(), "a gap");
    mind.replay(first, &store.record(first)).unwrap();
    assert!(mind.replay(first, &store.record(first)).is_err(), "twice");
    let mut forged = store.record(second);
    forged.prev = Some(second);
    assert!(mind.replay(second, &forged).is_err(), "another past");
    let mut future = store.record(second);
    future.min_reader = 99;
    assert!(mind.replay(second, &future).is_err(), "a format from the future");
    mind.replay(second, &store.record(second)).unwrap();
    assert!(matches!(store.record(second).decision, Decision::Finished { .. }));
    let mut after = store.record(second);
    after.n = 3;
    assert!(mind.replay(second, &after).is_err(), "after the end");
    assert_eq!(mind.on(Event::Begin), [Effect::Stop]);
    assert!(mind.replay(first, &store.record(first)).is_err(), "after it began");
}
