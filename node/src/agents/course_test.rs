//! Readable cases around a real mind: outcomes and news in, acts out.

use super::*;
use mind::{Definition, Finish, TaskFacts};
use types::{Epoch, Hash, ProjectName, Spent, TaskUid};

fn mind() -> Box<Mind> {
    let uid = TaskUid { index: 3, position: 0 };
    Box::new(Mind::new(TaskFacts {
        uid,
        project: ProjectName::default(),
        agent: "writer".into(),
        tree: uid,
        background: Vec::new(),
        inputs: vec![("q".into(), Hash::of(b"q"))],
        definition: Definition::parse("name = 'writer'\nmodel = 'm'").unwrap(),
        seed: 1,
        epoch: Epoch { incarnation: 1, index: 4, position: 0 },
        inbox: Vec::new(),
    }))
}

fn generated(finish: Finish) -> Outcome {
    Outcome::Happened(Event::Generated {
        text: "word".into(),
        token_ids: vec![1],
        tokenizer: Hash::of(b"t"),
        finish,
        spent: Spent::default(),
        billed_tokens: 1,
        chain_tokens: 9,
        numerics: None,
        calls: None,
        route: None,
    })
}

/// Acts in short words.
fn say(acts: Vec<Act>) -> Vec<String> {
    let effect = |effect: &Effect| match effect {
        Effect::Infer { step, call, .. } => format!("infer {step}/{call}"),
        Effect::Commit { step, .. } => format!("commit {step}"),
        other => format!("{other:?}"),
    };
    let word = |act: &Act| match act {
        Act::Load(id) => format!("{id}: load"),
        Act::Perform(id, it) => format!("{id}: {}", effect(it)),
        Act::Interrupt(id) => format!("interrupt {id}"),
        Act::Abandon(id) => format!("abandon {id}"),
        Act::Release(id, why) => format!("{id}: release {why:?}"),
        Act::Fail(why) => format!("fail: {why}"),
        Act::End => "end".into(),
    };
    acts.iter().map(word).collect()
}

/// A course in its first model call.
fn calling() -> Course {
    let mut course = Course::new(true);
    assert_eq!(say(course.begin()), ["1: load"]);
    assert_eq!(say(course.ended(1, Outcome::Loaded(mind()))), ["2: infer 1/0"]);
    course
}

fn committed(step: u64) -> Outcome {
    Outcome::Happened(Event::Committed { step })
}

#[test]
fn a_task_from_load_to_end() {
    let mut course = calling();
    assert_eq!(say(course.ended(2, generated(Finish::Stop))), ["3: commit 1"]);
    assert_eq!(say(course.ended(3, committed(1))), ["end"]);
    assert!(course.ended(3, committed(1)).is_empty(), "work ends once");
}

#[test]
fn without_the_nodes_lease_nothing_starts_but_a_step_is_still_offered() {
    let mut course = calling();
    course.told(Tell::Lease { valid: false });
    assert_eq!(say(course.ended(2, generated(Finish::Budget))), ["3: commit 1"]);
    assert!(course.ended(3, committed(1)).is_empty() && course.waits_for_lease());
    assert_eq!(say(course.told(Tell::Lease { valid: true })), ["4: infer 2/0"]);
}

#[test]
fn a_cancel_waits_for_the_engine_and_then_confirms() {
    let mut course = calling();
    assert_eq!(say(course.told(Tell::Cancel)), ["interrupt 2"]);
    assert_eq!(
        say(course.ended(2, generated(Finish::Budget))),
        ["3: release Stopped"],
        "nothing is committed"
    );
    assert!(course.told(Tell::Cancel).is_empty(), "it is on its way");
    assert_eq!(say(course.ended(3, Outcome::Released)), ["end"]);
}

#[test]
fn a_cancel_that_is_first_heard_as_a_refusal_is_confirmed_as_well() {
    let mut course = calling();
    assert_eq!(say(course.ended(2, Outcome::Cancelled)), ["3: release Stopped"]);
    assert!(course.told(Tell::Cancel).is_empty(), "it is on its way");
    let mut told = calling();
    told.told(Tell::Cancel);
    assert_eq!(say(told.ended(2, Outcome::Cancelled)), ["3: release Stopped"]);
    assert_eq!(say(told.ended(3, Outcome::Released)), ["end"]);
}

#[test]
fn a_cancel_drops_everything_that_is_not_a_call() {
    let mut course = Course::new(true);
    course.begin();
    assert_eq!(say(course.told(Tell::Cancel)), ["abandon 1"]);
    assert_eq!(say(course.ended(1, Outcome::Nothing)), ["2: release Stopped"]);
    let mut course = calling();
    course.ended(2, generated(Finish::Stop));
    assert_eq!(say(course.told(Tell::Cancel)), ["abandon 3"]);
    assert_eq!(say(course.ended(3, Outcome::Nothing)), ["4: release Stopped"]);
}

#[test]
fn a_revoked_agent_offers_and_believes_the_answer() {
    for (answer, then) in [(Outcome::Happened(Event::Fenced), "end"), (committed(1), "4: infer 2/0")] {
        let mut course = calling();
        assert_eq!(say(course.told(Tell::Revoke)), ["interrupt 2"]);
        assert_eq!(say(course.ended(2, generated(Finish::Budget))), ["3: commit 1", "interrupt 3"]);
        assert_eq!(say(course.ended(3, answer)), [then]);
    }
}

#[test]
fn a_revoked_agent_with_nothing_to_offer_gives_the_lease_back_in_case_it_still_has_it() {
    let mut course = calling();
    course.told(Tell::Revoke);
    assert_eq!(say(course.ended(2, Outcome::Nothing)), ["3: release Yielded"]);
    assert_eq!(say(course.ended(3, Outcome::Released)), ["end"]);
    let mut waiting = Course::new(false);
    waiting.begin();
    assert!(waiting.ended(1, Outcome::Loaded(mind())).is_empty());
    assert_eq!(say(waiting.told(Tell::Revoke)), ["2: release Yielded"]);
}

#[test]
fn a_cancel_after_a_revoke_is_still_confirmed() {
    let mut course = calling();
    course.told(Tell::Revoke);
    assert_eq!(say(course.told(Tell::Cancel)), ["interrupt 2"]);
    assert_eq!(say(course.ended(2, generated(Finish::Budget))), ["3: release Stopped"]);
}

#[test]
fn draining_stops_at_the_step_boundary_or_cuts() {
    let mut course = calling();
    assert!(course.told(Tell::Drain).is_empty());
    assert_eq!(say(course.ended(2, generated(Finish::Budget))), ["3: commit 1"]);
    assert_eq!(say(course.ended(3, committed(1))), ["4: release Yielded"]);
    let mut course = calling();
    course.told(Tell::Drain);
    assert_eq!(say(course.told(Tell::DrainNow)), ["interrupt 2"]);
    assert_eq!(say(course.ended(2, generated(Finish::Budget))), ["3: commit 1", "interrupt 3"]);
    assert_eq!(say(course.ended(3, committed(1))), ["4: release Yielded"]);
}

#[test]
fn what_cannot_be_loaded_goes_back_and_what_is_wrong_is_broken() {
    for (outcome, then) in [
        (Outcome::Unloadable, "2: release Yielded"),
        (Outcome::Corrupt("a record".into()), "2: release Broken"),
        (Outcome::Broke("a panic".into()), "fail: a panic"),
    ] {
        let mut course = Course::new(true);
        course.begin();
        assert_eq!(say(course.ended(1, outcome)), [then]);
    }
}
