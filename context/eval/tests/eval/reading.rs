//! Files of recorded calls: what is read, and what an error names.

use evaluate::{Call, Form, SEGMENTS, read, shorten_probe};

fn calls(text: &str) -> Vec<Call> {
    read(text.as_bytes(), Form::Calls).expect("calls")
}

fn flaw(text: &str, form: Form) -> String {
    read(text.as_bytes(), form).expect_err("an error").to_string()
}

const GOOD: &str = r#"{"segments":[{"id":"a","owner":"w","kind":"message","text":"t"}],"reader":"r","probe":"p","action":"x"}"#;

#[test]
fn calls_are_read_and_named_by_line() {
    let calls = calls(&format!("\n{GOOD}\r\n\n{GOOD}"));
    assert_eq!(calls.iter().map(|call| call.name.as_str()).collect::<Vec<_>>(), ["2", "4"]);
    assert_eq!(calls[0].segments[0].owner, "w");
    assert_eq!(calls[0].withheld, None);
    assert_eq!(calls[0].chain(), calls[1].chain());
}

#[test]
fn empty_segments_and_any_script_are_fine() {
    let text = r#"{"segments":[{"id":"空","owner":"агент","kind":"κ","text":""},{"id":"2","owner":"و","kind":"k","text":"नमस्ते 👩‍🚀\u0000"}],"reader":"ר","probe":"؟","action":"答"}"#;
    let call = &calls(text)[0];
    assert_eq!(call.segments[0].text, "");
    assert_eq!(call.segments[1].text, "नमस्ते 👩‍🚀\0");
    let none = r#"{"segments":[],"reader":"r","probe":"p","action":"x"}"#;
    assert!(calls(none)[0].segments.is_empty());
}

#[test]
fn errors_name_line_and_field() {
    let cases = [
        (r#""owner":"w","#, "", "segments[0].owner is missing"),
        (r#""owner":"w""#, r#""owner":"""#, "segments[0].owner is empty"),
        (r#""owner":"w""#, r#""owner":7"#, "segments[0].owner must be a text"),
        (r#""id":"a","#, "", "segments[0].id is missing"),
        (r#""text":"t""#, r#""txt":"t""#, "segments[0] has the unknown field \"txt\""),
        (r#","probe":"p""#, "", "probe is missing"),
        (r#""action":"x""#, r#""action":"""#, "action is empty"),
        (r#""reader":"r","#, "", "reader is missing"),
        (r#""segments":["#, r#""segments":[5,"#, "segments[0] must be an object"),
        (r#""text":"t""#, r#""text":"t","replaces":["q"]"#, "segments[0].replaces names \"q\""),
        (
            r#"}],"#,
            r#"},{"id":"a","owner":"w","kind":"","text":""}],"#,
            "segments[1].id repeats the id of segments[0]",
        ),
    ];
    for (old, new, expected) in cases {
        let bad = GOOD.replacen(old, new, 1);
        assert_ne!(bad, GOOD, "{old} is not in the line");
        let error = flaw(&format!("{GOOD}\n{bad}"), Form::Calls);
        assert!(error.starts_with("line 2: ") && error.contains(expected), "{error} instead of {expected}");
    }
    assert!(flaw("", Form::Calls).contains("no recorded call"));
    assert!(flaw("[1,2", Form::Calls).starts_with("line 1: not JSON"));
    assert!(flaw("\u{fffd}x", Form::OpenAi).starts_with("line 1: not JSON"));
    assert!(flaw("3", Form::Calls).contains("line 1"));
}

#[test]
fn ten_thousand_segments_are_read_and_one_more_is_not() {
    let line = |count: usize| {
        let segments: Vec<String> =
            (0..count).map(|at| format!(r#"{{"id":"{at}","owner":"w","kind":"k","text":"t"}}"#)).collect();
        format!(r#"{{"segments":[{}],"reader":"r","probe":"p","action":"x"}}"#, segments.join(","))
    };
    assert_eq!(calls(&line(SEGMENTS))[0].segments.len(), 10_000);
    let error = flaw(&line(SEGMENTS + 1), Form::Calls);
    assert!(error.contains("line 1: segments has 10001 entries, at most 10000"), "{error}");
}

#[test]
fn chat_logs_are_one_segment_a_message() {
    let log = r#"{"model":"m","messages":[
        {"role":"system","content":"Be brief."},
        {"role":"user","name":"anna","content":[{"type":"text","text":"Book"},{"type":"image_url","image_url":{}},{"type":"text","text":"a seat."}]},
        {"role":"assistant","content":null,"tool_calls":[{"id":"1","type":"function","function":{"name":"book","arguments":"{\"seat\":4}"}}]},
        {"role":"user","name":"anna","content":[{"type":"text","text":"Book\na seat."}]},
        {"role":"tool","tool_call_id":"1","content":"done"}],
        "response":{"choices":[{"message":{"role":"assistant","content":"Booked.","tool_calls":[{"function":{"name":"note","arguments":{"a":1}}}]}}]}}"#
        .replace("\n        ", "");
    let call = read(log.as_bytes(), Form::OpenAi).expect("a log").remove(0);
    let segments: Vec<(&str, &str, &str)> =
        call.segments.iter().map(|s| (s.owner.as_str(), s.kind.as_str(), s.text.as_str())).collect();
    assert_eq!(
        segments,
        [
            ("system", "system", "Be brief."),
            ("anna", "message", "Book\na seat."),
            ("assistant", "tool call", "book {\"seat\":4}"),
            ("anna", "message", "Book\na seat."),
        ]
    );
    assert_eq!(call.probe, "done");
    assert_eq!(call.action, "Booked.\nnote {\"a\":1}");
    assert_eq!(call.reader, "assistant");
    assert_eq!(call.segments[3].id, format!("{}#2", call.segments[1].id));
}

#[test]
fn errors_of_chat_logs_name_the_message() {
    let cases = [
        (r#"{"response":{}}"#, "messages is missing"),
        (r#"{"messages":[{"content":"x"}]}"#, "messages[0].role is missing"),
        (r#"{"messages":[{"role":"judge"}]}"#, "messages[0].role is \"judge\""),
        (r#"{"messages":[{"role":"user","content":5}]}"#, "messages[0].content must be"),
        (
            r#"{"messages":[{"role":"system","content":"x"}],"response":{"content":"y"}}"#,
            "messages has no message of a user",
        ),
        (r#"{"messages":[{"role":"user","content":"x"}]}"#, "response is missing"),
        (
            r#"{"messages":[{"role":"user","content":"x"}],"response":{"choices":[]}}"#,
            "response.choices[0].message is missing",
        ),
        (r#"{"messages":[{"role":"user","content":"x"}],"response":{"content":""}}"#, "response has neither"),
        (
            r#"{"messages":[{"role":"assistant","tool_calls":[{"function":{}}]}]}"#,
            "messages[0].tool_calls[0].function.name is missing",
        ),
        (r#"{"messages":[{"role":"user","content":""}],"response":{"content":"y"}}"#, "probe is empty"),
    ];
    for (line, expected) in cases {
        let error = flaw(line, Form::OpenAi);
        assert!(error.starts_with("line 1: ") && error.contains(expected), "{error} instead of {expected}");
    }
}

#[test]
fn a_long_probe_is_shortened_at_a_space_and_nothing_is_lost() {
    let mut call = calls(GOOD).remove(0);
    call.probe = "ä word ".repeat(100);
    let whole = call.probe.clone();
    shorten_probe(&mut call, 64);
    assert!(call.probe.len() <= 64 && call.probe.len() >= 48, "{}", call.probe.len());
    assert_eq!(call.segments[1].id, "(probe)");
    assert_eq!(call.segments[1].text.clone() + &call.probe, whole);
    call.check().expect("still a good call");
    let before = call.clone();
    shorten_probe(&mut call, 64);
    assert_eq!(call, before);
}
