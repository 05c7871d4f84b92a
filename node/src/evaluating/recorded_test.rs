//! Journals made by hand, and the calls that are read out of them.

use super::*;
use context::Visibility;
use mind::{Finish, Policy, ToolCall};
use types::{Epoch, Spent};

fn hash(text: &str) -> Hash {
    Hash::of(text.as_bytes())
}

fn record(n: u64, decision: Decision, added: &[&str]) -> StepRecord {
    StepRecord {
        format: 1,
        min_reader: 1,
        mind_version: 1,
        prev: None,
        n,
        epoch: Epoch::default(),
        decision,
        added: added.iter().map(|text| hash(text)).collect(),
        spent: Spent::default(),
        chain_tokens: 0,
        numerics: None,
        tools: None,
        heard: None,
        route: None,
    }
}

fn answered(answer: &str) -> Decision {
    Decision::Answered { finish: Finish::Stop, call: 0, generated_tokens: 2, answer: hash(answer) }
}

fn past(records: Vec<StepRecord>, given: &[&str], texts: &[(Kind, &str, &str)]) -> Past {
    let segment = |(kind, author, text): &(Kind, &str, &str)| {
        (hash(text), Segment::new(*kind, *author, Visibility::Task, *text))
    };
    Past {
        task: "t_1".into(),
        agent: "bert".into(),
        given: given.iter().map(|text| hash(text)).collect(),
        records,
        segments: texts.iter().map(segment).collect(),
    }
}

fn texts(call: &Call) -> Vec<&str> {
    call.segments.iter().map(|segment| segment.text.as_str()).collect()
}

#[test]
fn the_first_call_has_read_its_prompt_and_inputs_and_the_next_what_came_since() {
    let records = vec![
        record(1, answered("first"), &["be brief", "first"]),
        record(2, Decision::Heard { messages: vec![hash("and then?")], rollback: false }, &["and then?"]),
        record(3, answered("second"), &["second"]),
    ];
    let known = [
        (Kind::System, "bert", "be brief"),
        (Kind::Message, "user", "tell me"),
        (Kind::Message, "bert", "first"),
        (Kind::Message, "user", "and then?"),
        (Kind::Message, "bert", "second"),
    ];
    let calls = past(records, &["tell me"], &known).calls();
    assert_eq!(calls.iter().map(|call| call.step).collect::<Vec<_>>(), [1, 3]);
    let (first, second) = (&calls[0].call, &calls[1].call);
    assert_eq!((first.name.as_str(), first.reader.as_str()), ("t_1/1", "bert"));
    assert_eq!(texts(first), ["system: be brief\n"]);
    assert_eq!((first.probe.as_str(), first.action.as_str()), ("user: tell me\nbert: ", "first"));
    assert_eq!(texts(second), ["system: be brief\n", "user: tell me\n", "bert: first\n"]);
    assert_eq!((second.probe.as_str(), second.action.as_str()), ("user: and then?\nbert: ", "second"));
    let ids: Vec<&str> = second.segments.iter().map(|segment| segment.id.as_str()).collect();
    assert_eq!(first.segments[0].id, ids[0], "the same text has the same id in every call");
    assert!(first.check().is_ok() && second.check().is_ok());
}

#[test]
fn of_a_call_with_tools_the_arguments_are_what_was_done() {
    let call = ToolCall {
        tool: "read".into(),
        text: hash("{\"name\":\"read\"}"),
        policy: Policy::Idempotent,
        approve: false,
        begun: true,
        refused: String::new(),
    };
    let asked = Decision::Asked { finish: Finish::Stop, call: 0, generated_tokens: 5, calls: vec![call] };
    let records = vec![record(1, asked, &["I look", "{\"name\":\"read\"}"])];
    let known = [
        (Kind::Message, "", "find it"),
        (Kind::Message, "bert", "I look"),
        (Kind::ToolCall, "bert", "{\"name\":\"read\"}"),
    ];
    let calls = past(records, &["find it"], &known).calls();
    assert_eq!(calls[0].call.probe, "user: find it\nbert: I look\n");
    assert_eq!(calls[0].call.action, "{\"name\":\"read\"}");
}

#[test]
fn what_was_rolled_back_was_not_read_again() {
    let heard = |text: &str, rollback| Decision::Heard { messages: vec![hash(text)], rollback };
    let records = vec![
        record(1, answered("wrong"), &["wrong"]),
        record(2, heard("no: again", true), &["no: again"]),
        record(3, answered("right"), &["right"]),
    ];
    let known = [
        (Kind::Message, "user", "question"),
        (Kind::Message, "bert", "wrong"),
        (Kind::Message, "user", "no: again"),
        (Kind::Message, "bert", "right"),
    ];
    let calls = past(records, &["question"], &known).calls();
    assert_eq!(texts(&calls[1].call), ["user: question\n"]);
}

#[test]
fn a_long_probe_is_cut_and_its_front_judged_with_the_rest() {
    let long = "a word and another ".repeat(100);
    let known = [(Kind::Message, "user", long.as_str()), (Kind::Message, "bert", "done")];
    let calls = past(vec![record(1, answered("done"), &["done"])], &[&long], &known).calls();
    let call = &calls[0].call;
    assert!(call.probe.len() <= PROBE_BYTES && call.probe.ends_with("\nbert: "));
    assert_eq!(call.segments.last().map(|segment| segment.id.as_str()), Some("(probe)"));
    assert!(past(vec![record(1, Decision::Rested, &[])], &[&long], &known).calls().is_empty());
}

#[test]
fn an_answer_in_the_words_that_were_read_is_an_answer() {
    let known = [(Kind::Message, "bert", "seven")];
    let calls = past(vec![record(1, answered("seven"), &["seven"])], &["seven"], &known).calls();
    assert_eq!((calls.len(), calls[0].call.action.as_str()), (1, "seven"));
}
