//! Programs that come, answer, are slow and go.

use super::*;
use crate::agents::seams::ToolUse;
use ::tools::{CancellationToken, Outcome};
use serde_json::json;
use std::time::Duration;
use types::TaskUid;

fn project() -> ProjectName {
    ProjectName::default()
}

fn tool(name: &str) -> pb::ServedTool {
    let parameters = json!({"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}});
    pb::ServedTool { name: name.into(), parameters: parameters.to_string(), ..Default::default() }
}

fn register(name: &str) -> pb::Register {
    pb::Register { tools: vec![tool(name)], models: vec!["planner".into()] }
}

fn using(name: &str, timeout_ms: u64) -> ToolUse {
    ToolUse {
        operation: "t/1/0".into(),
        attempt: 1,
        project: project(),
        task: TaskUid::default(),
        tree: TaskUid::default(),
        agent: "clerk".into(),
        tool: name.into(),
        arguments: "{\"n\": 1}".into(),
        timeout_ms: Some(timeout_ms),
        output_bytes: None,
        needs: vec![],
    }
}

async fn asked(heard: &mut mpsc::Receiver<pb::ToolServerRequest>) -> Asked {
    heard.recv().await.and_then(|request| request.kind).expect("it is asked something")
}

async fn called(heard: &mut mpsc::Receiver<pb::ToolServerRequest>) -> pb::ServedCall {
    match asked(heard).await {
        Asked::Call(call) => call,
        other => panic!("{other:?} is no call"),
    }
}

fn result(id: u64, text: &str) -> Told {
    Told::Result(pb::ToolResult { id, text: text.into(), is_error: false })
}

#[tokio::test]
async fn a_call_waits_for_a_program_and_is_answered_by_it() {
    let (served, stop) = (Served::default(), CancellationToken::new());
    let call = using("add", 60_000);
    let program = async {
        let (place, mut heard) = served.join(&project(), &register("add")).expect("it may serve");
        let asked = called(&mut heard).await;
        assert_eq!((asked.operation.as_str(), asked.attempt, asked.agent.as_str()), ("t/1/0", 1, "clerk"));
        place.answered(asked.id, result(asked.id, "two\u{1b}[2J"));
        (place, heard)
    };
    let arguments = json!({"n": 1});
    let (outcome, gone) = tokio::join!(served.call(&call, &arguments, &stop), program);
    assert_eq!(outcome.text(), "two^[[2J", "what could move a cursor is not kept");
    drop(gone);
    assert_eq!(served.specs(&project(), "a*").len(), 1, "it is still known when its program has gone");
    assert!(served.models().is_empty(), "but a model is not");
}

#[tokio::test]
async fn a_call_that_nobody_serves_is_refused_when_its_time_is_over() {
    let (served, stop) = (Served::default(), CancellationToken::new());
    let outcome = served.call(&using("add", 20), &json!({"n": 1}), &stop).await;
    assert_eq!(outcome.reason(), Some("TOOL_UNAVAILABLE"));
    assert!(outcome.text().starts_with("no process serves add in project default"), "{}", outcome.text());
    assert!(matches!(outcome, Outcome::Refused { .. }), "nothing happened");
}

#[tokio::test]
async fn a_program_that_goes_in_the_middle_leaves_an_unknown_outcome() {
    let (served, stop) = (Served::default(), CancellationToken::new());
    let (place, mut heard) = served.join(&project(), &register("add")).expect("it may serve");
    let (call, arguments) = (using("add", 60_000), json!({"n": 1}));
    let going = async {
        called(&mut heard).await;
        drop(place);
    };
    let (outcome, ()) = tokio::join!(served.call(&call, &arguments, &stop), going);
    assert_eq!(outcome.reason(), Some("TOOL_CRASHED"));
    assert!(matches!(outcome, Outcome::Unknown { .. }));
}

#[tokio::test]
async fn a_stop_and_the_end_of_its_time_are_passed_on() {
    let served = Served::default();
    let (_place, mut heard) = served.join(&project(), &register("add")).expect("it may serve");
    let arguments = json!({"n": 1});
    for (time_ms, stops, reason) in [(60_000, true, "TOOL_STOPPED"), (20, false, "TOOL_TIMEOUT")] {
        let (call, stop) = (using("add", time_ms), CancellationToken::new());
        let program = async {
            let id = called(&mut heard).await.id;
            if stops {
                stop.cancel();
            }
            let Asked::Cancel(cancel) = asked(&mut heard).await else { panic!("it is not told to stop") };
            assert_eq!(cancel.id, id);
        };
        let (outcome, ()) = tokio::join!(served.call(&call, &arguments, &stop), program);
        assert_eq!(outcome.reason(), Some(reason));
        assert!(matches!(outcome, Outcome::Unknown { .. }));
    }
}

#[tokio::test]
async fn arguments_off_the_schema_never_reach_the_program() {
    let (served, stop) = (Served::default(), CancellationToken::new());
    let (_place, mut heard) = served.join(&project(), &register("add")).expect("it may serve");
    let outcome = served.call(&using("add", 60_000), &json!({"n": "x"}), &stop).await;
    assert_eq!(outcome.reason(), Some("INVALID_ARGUMENTS"));
    assert!(heard.try_recv().is_err());
}

#[tokio::test]
async fn what_is_beyond_the_bounds_is_refused_with_why() {
    let served = Served::default();
    let refused = |register: &pb::Register| served.join(&project(), register).err().expect("it is refused");
    assert!(refused(&register("a b")).contains("letters"));
    assert!(refused(&register("spawn")).contains("taken"));
    let twice = pb::Register { tools: vec![tool("a"), tool("a")], models: vec![] };
    assert!(refused(&twice).contains("twice"));
    let schema = pb::ServedTool { parameters: "{\"type\": 7}".into(), ..tool("a") };
    assert!(refused(&pb::Register { tools: vec![schema], models: vec![] }).contains("parameters"));
    let tools = (0..=TOOLS).map(|n| tool(&format!("t{n}"))).collect();
    assert!(refused(&pb::Register { tools, models: vec![] }).contains("at most 128"));
    let places: Vec<_> =
        (0..PROGRAMS).map(|_| served.join(&project(), &register("a")).expect("room")).collect();
    assert!(refused(&register("a")).contains("64 programs"));
    drop(places);
    assert!(served.join(&project(), &register("a")).is_ok(), "those that went make room");
}

#[tokio::test]
async fn another_projects_programs_are_not_asked() {
    let (served, stop) = (Served::default(), CancellationToken::new());
    let other = ProjectName::parse("other").expect("a name");
    let (_place, mut heard) = served.join(&other, &register("add")).expect("it may serve");
    let outcome = served.call(&using("add", 20), &json!({"n": 1}), &stop).await;
    assert_eq!(outcome.reason(), Some("TOOL_UNAVAILABLE"));
    assert!(heard.try_recv().is_err() && served.specs(&project(), "*").is_empty());
}

#[tokio::test]
async fn a_full_program_makes_others_wait_for_a_place() {
    let (served, stop) = (Served::default(), CancellationToken::new());
    let (place, mut heard) = served.join(&project(), &register("add")).expect("it may serve");
    let arguments = json!({"n": 1});
    let calls: Vec<ToolUse> = (0..=UNDER_WAY).map(|_| using("add", 60_000)).collect();
    let all = futures::future::join_all(calls.iter().map(|call| served.call(call, &arguments, &stop)));
    let program = async {
        let first = called(&mut heard).await;
        for _ in 1..UNDER_WAY {
            called(&mut heard).await;
        }
        assert!(heard.try_recv().is_err(), "the last one waits");
        place.answered(first.id, result(first.id, "done"));
        called(&mut heard).await;
        drop(place);
    };
    let (outcomes, ()) = tokio::join!(all, program);
    assert_eq!(outcomes.iter().filter(|outcome| outcome.text() == "done").count(), 1);
}

#[tokio::test]
async fn a_step_is_asked_for_and_answered() {
    let (served, stop) = (Served::default(), CancellationToken::new());
    let question = pb::ModelQuestion { model: "planner".into(), seed: 7, ..Default::default() };
    let soon = Duration::from_millis(20);
    let nobody = served.step(&project(), question.clone(), soon, &stop).await.expect_err("nobody serves it");
    assert_eq!(nobody.0, "NO_PROCESS");
    let (place, mut heard) = served.join(&project(), &register("add")).expect("it may serve");
    assert_eq!(served.models().into_iter().collect::<Vec<_>>(), ["planner"]);
    let program = async {
        let Asked::Question(asked) = asked(&mut heard).await else { panic!("it is no question") };
        assert_eq!(asked.seed, 7);
        let answer = pb::ModelAnswer { id: asked.id, text: "yes".into(), ..Default::default() };
        place.answered(asked.id, Told::Answer(answer));
    };
    let project = project();
    let (answer, ()) = tokio::join!(served.step(&project, question, soon, &stop), program);
    assert_eq!(answer.expect("it answers").expect("nothing stops it").text, "yes");
}
