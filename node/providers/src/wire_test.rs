//! Both forms, written and read.

use super::*;
use crate::answer::Piece;
use crate::request::{Message, Tool, ToolCall, ToolChoice};
use crate::usage::Number;
use proptest::prelude::*;
use serde_json::json;

fn endpoint(kind: &str, more: &str) -> Endpoint {
    let text = format!(
        "name = 'm'\nkind = '{kind}'\nurl = 'https://x.example/v1'\nmodel = 'm-1'\nwindow = 9\nmax_output = 9\n{more}"
    );
    toml::from_str(&text).expect("an endpoint")
}

fn written(kind: &str, more: &str, request: &Request) -> Value {
    serde_json::from_str(&body(&endpoint(kind, more), request).expect("small")).expect("JSON")
}

/// A conversation with everything in it.
fn conversation() -> Request {
    let call = |id: &str, arguments: &str| ToolCall {
        id: id.into(),
        name: "time.now".into(),
        arguments: arguments.into(),
    };
    let calls = vec![call("t_1/2/0", "{\"zone\":\"UTC\"}"), call("t_1/2/1", "not json")];
    let schema = json!({"type": "object", "properties": {"zone": {"type": "string"}}});
    Request {
        messages: vec![
            Message::system("be brief"),
            Message::user("what time is it?"),
            Message::calling("", calls),
            Message::outcome("t_1/2/0", "12:00"),
            Message::outcome("t_1/2/1", "no such zone"),
            Message::system("hurry"),
            Message::assistant("noon \n"),
        ],
        tools: vec![Tool { name: "time.now".into(), description: "tells the time".into(), schema }],
        choice: ToolChoice::Auto,
        max_tokens: 7,
        temperature_milli: Some(1500),
        seed: Some(u64::MAX),
        stop: vec!["END".into(), "\n".into()],
        idempotency_key: "k".into(),
    }
}

#[test]
fn openai_request() {
    let calls = json!([
        {"id": "t_1/2/0", "type": "function", "function": {"name": "time__now", "arguments": "{\"zone\":\"UTC\"}"}},
        {"id": "t_1/2/1", "type": "function", "function": {"name": "time__now", "arguments": "not json"}},
    ]);
    let expected = json!({
        "model": "m-1", "max_tokens": 7, "temperature": 1.5, "seed": 0x7fff_ffff, "stop": ["END", "\n"], "stream": true,
        "stream_options": {"include_usage": true}, "tool_choice": "auto",
        "tools": [{"type": "function", "function": {"name": "time__now", "description": "tells the time",
            "parameters": {"type": "object", "properties": {"zone": {"type": "string"}}}}}],
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "what time is it?"},
            {"role": "assistant", "content": null, "tool_calls": calls},
            {"role": "tool", "tool_call_id": "t_1/2/0", "content": "12:00"},
            {"role": "tool", "tool_call_id": "t_1/2/1", "content": "no such zone"},
            {"role": "system", "content": "hurry"},
            {"role": "assistant", "content": "noon \n"},
        ],
    });
    assert_eq!(written("openai", "", &conversation()), expected);
    let plain = Request { messages: vec![Message::user("hi")], max_tokens: 1, ..Request::default() };
    let other = written("openai", "stream = false\nmax_completion_tokens = true\n", &plain);
    let messages = json!([{"role": "user", "content": "hi"}]);
    assert_eq!(other, json!({"model": "m-1", "max_completion_tokens": 1, "messages": messages}));
}

#[test]
fn anthropic_request() {
    let expected = json!({
        "model": "m-1", "max_tokens": 7, "temperature": 1.0, "stop_sequences": ["END"], "stream": true,
        "system": [{"type": "text", "text": "be brief"}], "tool_choice": {"type": "auto"},
        "tools": [{"name": "time__now", "description": "tells the time",
            "input_schema": {"type": "object", "properties": {"zone": {"type": "string"}}}}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "what time is it?"}]},
            {"role": "assistant", "content": [
                {"type": "tool_use", "id": "t_1_2_0", "name": "time__now", "input": {"zone": "UTC"}},
                {"type": "tool_use", "id": "t_1_2_1", "name": "time__now", "input": {}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "t_1_2_0", "content": "12:00"},
                {"type": "tool_result", "tool_use_id": "t_1_2_1", "content": "no such zone"},
                {"type": "text", "text": "hurry"},
            ]},
            {"role": "assistant", "content": [{"type": "text", "text": "noon"}]},
        ],
    });
    assert_eq!(written("anthropic", "", &conversation()), expected);
    let begun =
        Request { messages: vec![Message::assistant("so I said")], max_tokens: 1, ..Request::default() };
    let sides = |body: &Value| {
        body["messages"]
            .as_array()
            .expect("turns")
            .iter()
            .map(|turn| turn["role"].clone())
            .collect::<Vec<_>>()
    };
    let body = written("anthropic", "prompt_cache = true\n", &begun);
    assert_eq!(sides(&body), [json!("user"), json!("assistant")]);
    assert_eq!(body["cache_control"], json!({"type": "ephemeral"}));
}

#[test]
fn choices_of_tools() {
    for (choice, openai, anthropic) in [
        (ToolChoice::Auto, json!("auto"), json!({"type": "auto"})),
        (ToolChoice::Required, json!("required"), json!({"type": "any"})),
        (ToolChoice::Never, json!("none"), json!({"type": "none"})),
        (
            ToolChoice::Named("time.now".into()),
            json!({"type": "function", "function": {"name": "time__now"}}),
            json!({"type": "tool", "name": "time__now"}),
        ),
    ] {
        let request = Request { choice, ..conversation() };
        assert_eq!(written("openai", "", &request)["tool_choice"], openai);
        assert_eq!(written("anthropic", "", &request)["tool_choice"], anthropic);
    }
}

#[test]
fn bodies_have_one_order_of_keys() {
    let text = body(&endpoint("openai", ""), &conversation()).expect("small");
    assert!(
        text.starts_with("{\"max_tokens\":7,\"messages\":[{\"content\":\"be brief\",\"role\":\"system\"}"),
        "{text}"
    );
}

const SSE: &str = "text/event-stream; charset=utf-8";

fn names() -> ToolNames {
    ToolNames::of(&conversation().tools).expect("distinct")
}

fn heard(kind: Kind, content_type: &str, body: &str) -> Result<Option<Gathered>, Broken> {
    let mut parser = Parser::new(kind, content_type, names());
    parser.push(body.as_bytes())?;
    parser.end()
}

fn data(events: &[Value]) -> String {
    events.iter().map(|event| format!("data: {event}\n\n")).collect()
}

fn delta(delta: Value) -> Value {
    json!({"id": "c-1", "choices": [{"index": 0, "delta": delta, "finish_reason": null}]})
}

fn openai_stream() -> String {
    let call = |part: Value| delta(json!({"tool_calls": [part]}));
    let events = [
        delta(json!({"role": "assistant", "content": ""})),
        delta(json!({"reasoning_content": "hm"})),
        delta(json!({"content": "It"})),
        delta(json!({"content": " is"})),
        call(
            json!({"index": 0, "id": "a", "type": "function", "function": {"name": "time__now", "arguments": ""}}),
        ),
        call(json!({"index": 0, "function": {"arguments": "{\"zone\":"}})),
        call(json!({"index": 1, "id": "b", "function": {"name": "other"}})),
        call(json!({"index": 0, "function": {"arguments": "\"UTC\"}"}})),
        json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}),
        json!({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}}}),
    ];
    data(&events) + "data: [DONE]\n\ndata: not json, and nobody reads it\n\n"
}

fn call(id: &str, name: &str, arguments: &str) -> ToolCall {
    ToolCall { id: id.into(), name: name.into(), arguments: arguments.into() }
}

#[test]
fn openai_stream_is_read() {
    let said = heard(Kind::OpenAi, SSE, &openai_stream()).expect("right").expect("whole");
    assert_eq!((said.heard.text.as_str(), said.heard.unseen_bytes), ("It is", 2));
    assert_eq!(said.heard.calls, [call("a", "time.now", "{\"zone\":\"UTC\"}"), call("b", "other", "{}")]);
    assert_eq!((said.finish, said.provider_id.as_deref()), (Finish::Calls, Some("c-1")));
    let expected = Reported {
        prompt: Number::Is(9),
        cached: Number::Is(4),
        generated: Number::Is(5),
        ..Reported::default()
    };
    assert_eq!(said.reported, expected);
}

#[test]
fn openai_whole_is_read() {
    let message = json!({"role": "assistant", "content": null, "tool_calls": [
        {"id": "a", "type": "function", "function": {"name": "time__now", "arguments": "{}"}},
        {"id": "b", "type": "function", "function": {"name": "time__now", "arguments": {"zone": 1}}}]});
    let answer = json!({"id": "c", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": -3, "completion_tokens": "many"}});
    let said = heard(Kind::OpenAi, "application/json", &answer.to_string()).expect("right").expect("whole");
    assert_eq!(said.heard.calls, [call("a", "time.now", "{}"), call("b", "time.now", "{\"zone\":1}")]);
    assert_eq!(said.finish, Finish::Calls, "some servers say stop");
    assert_eq!((said.reported.prompt, said.reported.generated), (Number::Nonsense, Number::Nonsense));
}

#[test]
fn servers_that_do_not_number_calls_are_understood() {
    let part = |id: Value, name: Value, arguments: &str| {
        delta(json!({"tool_calls": [{"id": id, "function": {"name": name, "arguments": arguments}}]}))
    };
    let events = [
        part(json!("a"), json!("x"), "{\"a\""),
        part(json!(null), json!(null), ":1}"),
        part(json!("b"), json!("y"), "{}"),
        json!({"choices": [{"delta": {}, "finish_reason": "tool_calls"}]}),
    ];
    let said = heard(Kind::OpenAi, SSE, &data(&events)).expect("right").expect("whole, without [DONE]");
    assert_eq!(said.heard.calls, [call("a", "x", "{\"a\":1}"), call("b", "y", "{}")]);
}

fn anthropic_stream() -> String {
    let usage = json!({"input_tokens": 5, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 20, "output_tokens": 1});
    let events = [
        json!({"type": "message_start", "message": {"id": "msg-1", "usage": usage}}),
        json!({"type": "ping"}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hmm"}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "x"}}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Let me "}}),
        json!({"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "see"}}),
        json!({"type": "content_block_stop", "index": 1}),
        json!({"type": "content_block_start", "index": 2, "content_block": {"type": "tool_use", "id": "tu_1", "name": "time__now", "input": {}}}),
        json!({"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": "{\"zone\""}}),
        json!({"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": ":\"UTC\"}"}}),
        json!({"type": "content_block_stop", "index": 2}),
        json!({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 33}}),
        json!({"type": "message_stop"}),
    ];
    let named = |event: &Value| {
        format!("event: {}\r\ndata: {event}\r\n\r\n", event["type"].as_str().expect("a type"))
    };
    events.iter().map(named).collect()
}

#[test]
fn anthropic_stream_is_read() {
    let said = heard(Kind::Anthropic, SSE, &anthropic_stream()).expect("right").expect("whole");
    assert_eq!((said.heard.text.as_str(), said.heard.unseen_bytes), ("Let me see", 3));
    assert_eq!(said.heard.calls, [call("tu_1", "time.now", "{\"zone\":\"UTC\"}")]);
    assert_eq!((said.finish, said.provider_id.as_deref()), (Finish::Calls, Some("msg-1")));
    let (cached, cache_written) = (Number::Is(100), Number::Is(20));
    assert_eq!(
        said.reported,
        Reported { prompt: Number::Is(125), cached, cache_written, generated: Number::Is(33) }
    );
}

#[test]
fn anthropic_whole_is_read() {
    let answer = json!({"type": "message", "id": "m", "stop_reason": "max_tokens", "content": [
        {"type": "text", "text": "so"}, {"type": "tool_use", "id": "t", "name": "time__now", "input": {"zone": "UTC"}}],
        "usage": {"input_tokens": 3, "output_tokens": 4}});
    let said =
        heard(Kind::Anthropic, "application/json", &answer.to_string()).expect("right").expect("whole");
    assert_eq!((said.heard.text.as_str(), said.finish), ("so", Finish::Length));
    assert_eq!(said.heard.calls, [call("t", "time.now", "{\"zone\":\"UTC\"}")]);
    assert_eq!((said.reported.prompt, said.reported.generated), (Number::Is(3), Number::Is(4)));
}

#[test]
fn what_is_said_twice_about_the_whole_counts_once() {
    let twice =
        |stream: &str| stream.split_inclusive("\n\n").map(|event| event.repeat(2)).collect::<String>();
    let said = heard(
        Kind::OpenAi,
        SSE,
        &twice(&data(&[
            delta(json!({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "x"}}]})),
            json!({"choices": [{"delta": {}, "finish_reason": "tool_calls"}]}),
            json!({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 5}}),
        ])),
    );
    let said = said.expect("right").expect("whole");
    assert_eq!(said.heard.calls, [call("a", "x", "{}")]);
    assert_eq!((said.reported.prompt, said.reported.generated), (Number::Is(9), Number::Is(5)));
}

#[test]
fn what_is_no_answer_says_why() {
    let broken =
        |kind, content_type, body: &str| heard(kind, content_type, body).expect_err("no answer").message;
    let json = "application/json";
    assert!(broken(Kind::OpenAi, json, "").contains("no JSON"));
    assert!(broken(Kind::OpenAi, json, "{\"choices\":[]}").contains("no choices"));
    assert!(broken(Kind::OpenAi, json, "{\"error\":{\"message\":\"boom\"}}").contains("boom"));
    assert!(broken(Kind::OpenAi, SSE, "data: {\"x\n\n").contains("no JSON"));
    assert!(broken(Kind::OpenAi, SSE, "data: {\"error\":\"boom\"}\n\n").contains("boom"));
    assert!(broken(Kind::Anthropic, json, "{\"type\":\"message\"}").contains("no content"));
    let overloaded =
        "data: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"later\"}}\n\n";
    let overloaded = heard(Kind::Anthropic, SSE, overloaded).expect_err("no answer");
    assert!(overloaded.reason == Reason::Overloaded && overloaded.failure("x").unknown);
    for cut in ["", "data: [DONE]\n\n", ": nothing\n\n", "data: {\"choices\":[]}\n\n"] {
        assert!(heard(Kind::OpenAi, SSE, cut).expect("no lie").is_none(), "{cut:?}");
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z_]{0,12}".prop_map(Value::from)
    ];
    let key = prop_oneof![
        Just("choices"),
        Just("delta"),
        Just("message"),
        Just("content"),
        Just("tool_calls"),
        Just("function"),
        Just("index"),
        Just("usage"),
        Just("type"),
        Just("content_block"),
        Just("finish_reason"),
        Just("error"),
        Just("arguments"),
        Just("name")
    ];
    leaf.prop_recursive(5, 40, 4, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(key.clone().prop_map(String::from), inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn a_stream_split_anywhere_gives_the_same_pieces(at in proptest::collection::vec(0usize..3000, 0..12), anthropic in any::<bool>()) {
        let (kind, stream) = if anthropic { (Kind::Anthropic, anthropic_stream()) } else { (Kind::OpenAi, openai_stream()) };
        let mut cuts: Vec<usize> = at.into_iter().map(|at| at.min(stream.len())).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let mut parser = Parser::new(kind, SSE, names());
        let mut text = String::new();
        let mut calls = Vec::new();
        for pair in cuts.windows(2) {
            parser.push(&stream.as_bytes()[pair[0]..pair[1]]).expect("right");
            for piece in parser.take_pieces() {
                match piece {
                    Piece::Text(part) => text.push_str(&part),
                    Piece::Call(call) => calls.push(call),
                }
            }
        }
        let said = parser.end().expect("right").expect("whole");
        prop_assert_eq!(text, said.heard.text);
        prop_assert_eq!(calls, said.heard.calls);
    }

    #[test]
    fn a_stream_cut_anywhere_is_never_taken_for_whole_text(at in 0usize..2000) {
        let stream = openai_stream();
        let end = stream.find("\"finish_reason\":\"tool_calls\"").expect("there");
        let at = at.min(end);
        // Where the cut is in the middle of a chunk, the chunk is not read.
        prop_assert!(heard(Kind::OpenAi, SSE, &stream[..at]).expect("no lie").is_none());
    }

    #[test]
    fn no_json_breaks_the_readers(events in proptest::collection::vec(any_json(), 1..6), anthropic in any::<bool>()) {
        let kind = if anthropic { Kind::Anthropic } else { Kind::OpenAi };
        let _ = heard(kind, SSE, &data(&events));
        let _ = heard(kind, "application/json", &events[0].to_string());
    }
}
