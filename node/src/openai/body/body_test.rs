//! Bodies, good and bad.

use super::*;
use axum::http::StatusCode;
use serde_json::{Value, json};

fn completion(body: Value) -> Result<Completion, Failure> {
    Completion::parse(body.to_string().as_bytes())
}

fn chat(mut body: Value) -> Result<Chat, Failure> {
    if body.get("messages").is_none() {
        body["messages"] = json!([{ "role": "user", "content": "hi" }]);
    }
    Chat::parse(body.to_string().as_bytes())
}

fn refused<T: std::fmt::Debug>(parsed: Result<T, Failure>, param: Option<&str>) -> String {
    let failure = parsed.expect_err("refused");
    assert_eq!((failure.status, failure.param), (StatusCode::BAD_REQUEST, param), "{failure}");
    failure.message
}

#[test]
fn prompts_come_in_four_shapes() {
    let text = |text: &str| Prompt::Text(text.into());
    let prompts = |prompt: Value| completion(json!({ "prompt": prompt })).unwrap().prompts;
    assert_eq!(prompts(json!("a")), [text("a")]);
    assert_eq!(prompts(json!(["a", "b"])), [text("a"), text("b")]);
    assert_eq!(prompts(json!([1, 2])), [Prompt::Tokens(vec![1, 2])]);
    assert_eq!(prompts(json!([[1], [2, 3]])), [Prompt::Tokens(vec![1]), Prompt::Tokens(vec![2, 3])]);
    for wrong in
        [json!([]), json!(7), json!([1, "a"]), json!([-1]), json!([[["a"]]]), json!({}), json!([1.5])]
    {
        completion(json!({ "prompt": wrong })).expect_err("refused");
    }
    refused(completion(json!({})), Some("prompt"));
    refused(completion(json!({ "prompt": vec!["a"; PROMPTS_MAX + 1] })), Some("prompt"));
}

#[test]
fn settings_have_openais_defaults() {
    let settings = completion(json!({ "prompt": "a" })).unwrap().settings;
    assert_eq!(
        (settings.sampling.temperature, settings.sampling.top_p, settings.sampling.top_k),
        (1.0, 1.0, 0)
    );
    assert_eq!((settings.max_tokens, settings.stream, settings.logprobs), (None, false, None));
    assert_eq!(settings.form, Form::Text);
    let other = completion(json!({ "prompt": "a" })).unwrap().settings;
    assert_ne!(settings.sampling.seed, other.sampling.seed, "without a seed every answer is another one");
}

#[test]
fn settings_are_read() {
    let settings = completion(json!({
        "prompt": "a", "max_tokens": 7, "temperature": 0, "top_p": 0.5, "top_k": -1, "min_p": 0.1, "seed": -3,
        "stop": "x", "ignore_eos": true, "logprobs": 2, "stream": true, "stream_options": { "include_usage": true },
        "frequency_penalty": 0.5, "presence_penalty": -0.5, "n": 1, "logit_bias": {}, "user": "somebody",
        "response_format": { "type": "json_object" }, "never_heard_of": [{ "a": null }],
    }));
    let settings = settings.unwrap().settings;
    assert_eq!((settings.max_tokens, settings.logprobs, settings.ignore_eos), (Some(7), Some(2), true));
    assert!(settings.stream && settings.include_usage);
    assert_eq!((settings.sampling.seed, settings.sampling.temperature), (-3_i64 as u64, 0.0));
    assert_eq!((settings.sampling.top_k, settings.sampling.min_p), (0, 0.1));
    assert_eq!((settings.sampling.frequency_penalty, settings.sampling.presence_penalty), (0.5, -0.5));
    assert_eq!((settings.stop, settings.form), (vec!["x".to_string()], Form::JsonObject));
    let nulls = json!({
        "prompt": "a", "max_tokens": null, "temperature": null, "stop": null, "stream": null, "seed": null,
        "stream_options": null, "response_format": null, "logit_bias": null, "n": null, "logprobs": null,
    });
    assert_eq!(completion(nulls).unwrap().settings.max_tokens, None);
}

#[test]
fn what_is_not_offered_is_refused_by_name() {
    let with = |field: &str, value: Value| {
        let mut body = json!({ "prompt": "a" });
        body[field] = value;
        completion(body)
    };
    for (field, value) in [
        ("n", json!(2)),
        ("best_of", json!(3)),
        ("echo", json!(true)),
        ("suffix", json!("x")),
        ("logit_bias", json!({ "1": 2 })),
        ("max_tokens", json!(0)),
        ("max_tokens", json!(-4)),
        ("max_tokens", json!(1_u64 << 40)),
        ("temperature", json!(-1)),
        ("top_p", json!(0)),
        ("min_p", json!(2)),
        ("frequency_penalty", json!(9)),
        ("presence_penalty", json!(-9)),
        ("logprobs", json!(21)),
        ("stop", json!(vec!["x"; 17])),
        ("stop", json!("x".repeat(2000))),
        ("response_format", json!({ "type": "yaml" })),
        ("response_format", json!({ "type": "json_schema" })),
        (
            "response_format",
            json!({ "type": "json_schema", "json_schema": { "schema": { "a": "x".repeat(70_000) } } }),
        ),
    ] {
        let message = refused(with(field, value), Some(field));
        assert!(message.len() > 20, "{field}: {message}");
    }
    for (field, value) in
        [("temperature", json!("hot")), ("stream", json!(1)), ("seed", json!(0.5)), ("stop", json!(1))]
    {
        assert!(refused(with(field, value), None).contains("line"), "{field}: it says where");
    }
}

#[test]
fn conversations_are_read() {
    let asked = chat(json!({
        "messages": [
            { "role": "developer", "content": "Be short." },
            { "role": "user", "content": [{ "type": "text", "text": "a" }, { "text": "b", "type": "text" }], "name": "u" },
            { "role": "assistant", "content": null, "tool_calls": [
                { "id": "c1", "type": "function", "function": { "name": "look", "arguments": "{}" } }
            ] },
            { "role": "tool", "content": "seen", "tool_call_id": "c1" },
        ],
        "tools": [{ "type": "function", "function": {
            "name": "look", "description": "looks", "parameters": { "type": "object" },
        } }],
        "max_tokens": 5, "max_completion_tokens": 6, "logprobs": true, "top_logprobs": 4,
    }));
    let asked = asked.unwrap();
    assert_eq!((asked.messages[0].role.as_str(), asked.messages[1].content.as_str()), ("system", "ab"));
    assert_eq!(asked.messages[2].tool_calls[0].name, "look");
    assert_eq!(asked.messages[3].tool_call_id.as_deref(), Some("c1"));
    assert_eq!((asked.settings.max_tokens, asked.settings.logprobs), (Some(6), Some(4)));
    assert_eq!((asked.choice, asked.tools[0].name.as_str()), (ToolChoice::Auto, "look"));
    assert_eq!(chat(json!({ "logprobs": true })).unwrap().settings.logprobs, Some(0));
    assert_eq!(chat(json!({ "logprobs": false })).unwrap().settings.logprobs, None);
}

#[test]
fn conversations_that_make_no_sense_are_refused() {
    let messages = |messages: Value| chat(json!({ "messages": messages }));
    refused(messages(json!([])), Some("messages"));
    refused(messages(json!([{ "role": "robot", "content": "a" }])), Some("messages"));
    refused(messages(json!([{ "role": "user", "content": null }])), Some("messages"));
    refused(messages(json!([{ "role": "assistant" }])), Some("messages"));
    refused(messages(json!([{ "content": "a" }])), None);
    let picture =
        json!([{ "role": "user", "content": [{ "type": "image_url", "image_url": { "url": "x" } }] }]);
    assert!(refused(messages(picture), None).contains("image_url"));
    refused(messages(json!(vec![json!({ "role": "user", "content": "a" }); 5000])), Some("messages"));
    refused(chat(json!({ "top_logprobs": 2 })), Some("top_logprobs"));
    refused(chat(json!({ "logprobs": true, "top_logprobs": 30 })), Some("top_logprobs"));
    refused(chat(json!({ "functions": [] })), Some("functions"));
}

#[test]
fn tools_are_checked() {
    let tool = |name: &str| json!({ "type": "function", "function": { "name": name } });
    let choice = |choice: Value| chat(json!({ "tools": [tool("a"), tool("b")], "tool_choice": choice }));
    assert_eq!(choice(json!("none")).unwrap().choice, ToolChoice::None);
    assert_eq!(choice(json!("required")).unwrap().choice, ToolChoice::Required);
    let named = |name: &str| json!({ "type": "function", "function": { "name": name } });
    assert_eq!(choice(named("b")).unwrap().choice, ToolChoice::Named("b".into()));
    refused(choice(named("c")), Some("tool_choice"));
    refused(choice(json!("perhaps")), Some("tool_choice"));
    refused(chat(json!({ "tool_choice": "required" })), Some("tool_choice"));
    refused(chat(json!({ "tools": [tool("no spaces")] })), Some("tools"));
    refused(chat(json!({ "tools": [{ "type": "web_search", "function": { "name": "a" } }] })), Some("tools"));
    refused(chat(json!({ "tools": [{}] })), Some("tools"));
    refused(chat(json!({ "tools": vec![tool("a"); 200] })), Some("tools"));
    assert_eq!(chat(json!({ "tools": [] })).unwrap().choice, ToolChoice::None);
}

#[test]
fn rubbish_is_refused_where_it_is_wrong() {
    for body in ["", "{", "null", "[]", "7", "{\"prompt\": \"a\"} x", "{\"prompt\": \"\u{0}\"}", "\u{feff}{}"]
    {
        let failure = Completion::parse(body.as_bytes()).expect_err(body);
        assert_eq!(failure.status, StatusCode::BAD_REQUEST, "{body:?}");
        Chat::parse(body.as_bytes()).expect_err(body);
    }
    Completion::parse(b"{\"prompt\": \"\xff\"}").expect_err("no UTF-8");
    let deep = format!("{{\"prompt\": {}", "[".repeat(100_000));
    Completion::parse(deep.as_bytes()).expect_err("nested without end");
    let deep = format!("{{\"prompt\": \"a\", \"unknown\": {}", "[".repeat(100_000));
    Completion::parse(deep.as_bytes()).expect_err("nested without end");
    assert!(crate::openai::check_body(true, b"{}").is_err());
}

#[test]
fn no_cut_and_no_flipped_bit_panics() {
    let whole = json!({
        "prompt": ["a", "b"], "messages": [{ "role": "user", "content": [{ "type": "text", "text": "ü" }] }],
        "tools": [{ "type": "function", "function": { "name": "a", "parameters": { "type": "object" } } }],
        "tool_choice": "auto", "response_format": { "type": "json_schema", "json_schema": { "schema": {} } },
        "stop": ["x"], "max_tokens": 3, "temperature": 0.5,
    });
    let whole = whole.to_string().into_bytes();
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut body = whole.clone();
            body[at] ^= 1 << bit;
            let _ = crate::openai::check_body(true, &body);
            let _ = crate::openai::check_body(false, &body);
        }
        let _ = crate::openai::check_body(true, &whole[..at]);
    }
    assert!(
        crate::openai::check_body(true, &whole).is_ok() && crate::openai::check_body(false, &whole).is_ok()
    );
}
