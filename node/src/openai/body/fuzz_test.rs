//! Random bodies for both of OpenAI's verbs: no panic, and every refusal says what to do next.

#[path = "../../../../worker-inference/tests/support/fuzz.rs"]
mod fuzz;

use super::{Chat, Completion};

const COMPLETION: &str = r#"{"model":"m","prompt":"Say hello","max_tokens":7,"temperature":0.5,"top_p":0.9,"top_k":-1,
"min_p":0.1,"seed":3,"stop":["x","\n"],"ignore_eos":true,"logprobs":2,"stream":true,
"stream_options":{"include_usage":true},"frequency_penalty":0.5,"presence_penalty":-0.5,"n":1,"logit_bias":{},"user":"u"}"#;
const PROMPTS: &str = r#"{"prompt":[[1,2,3],[4]],"max_tokens":1,"echo":false,"suffix":"","best_of":1}"#;
const CHAT: &str = r#"{"model":"m","messages":[{"role":"system","content":"Be brief."},
{"role":"user","content":[{"type":"text","text":"hello"}]},{"role":"assistant","content":null,
"tool_calls":[{"id":"c","type":"function","function":{"name":"look","arguments":"{\"a\":1}"}}]},
{"role":"tool","tool_call_id":"c","content":"42"}],"max_completion_tokens":9,"logprobs":true,"top_logprobs":3,
"tools":[{"type":"function","function":{"name":"look","description":"d","parameters":{"type":"object",
"properties":{"a":{"type":"integer"}},"required":["a"]}}}],"tool_choice":"auto",
"response_format":{"type":"json_schema","json_schema":{"name":"s","schema":{"type":"object"},"strict":true}}}"#;

const WORDS: [&str; 24] = [
    "null",
    "true",
    "-1",
    "1e400",
    "1e-400",
    "18446744073709551616",
    "0.5",
    "{}",
    "[]",
    "[[",
    "]]",
    "\"\"",
    "{\"a\":",
    "\"max_tokens\":",
    "\"prompt\":",
    "\"messages\":[",
    "\"role\":\"user\",",
    "\"content\":",
    "\"stop\":",
    "\"n\":",
    "\\ud800",
    "\"tools\":[",
    "\"seed\":",
    ",",
];

fn corpus() -> Vec<Vec<u8>> {
    [COMPLETION, PROMPTS, CHAT].iter().map(|body| body.as_bytes().to_vec()).collect()
}

#[test]
fn http_body() {
    fuzz::Fuzz::new("http_body", corpus()).with_words(&WORDS).run(&|body| {
        let completion =
            Completion::parse(body).map(|it| it.prompts.len()).map_err(|failure| failure.message);
        let chat = Chat::parse(body).map(|it| it.messages.len()).map_err(|failure| failure.message);
        for message in [&completion, &chat].into_iter().filter_map(|parsed| parsed.as_ref().err()) {
            assert!(!message.is_empty() && message.len() < 4096, "{message}");
        }
        format!("{completion:?} {chat:?}")
    });
}
