//! The objects of an answer, as OpenAI writes them.

use super::choice::{Choice, Ending, Likelihood, News, Usage};
use super::{About, Kind};
use serde_json::{Map, Value, json};
use worker_inference::{TextModel, ToolCall};

/// A name that no other answer has.
pub(super) fn new_id(kind: Kind) -> String {
    let prefix = match kind {
        Kind::Completion => "cmpl",
        Kind::Chat => "chatcmpl",
    };
    format!("{prefix}-{}", random_hex())
}

fn random_hex() -> String {
    let mut bytes = [0; 12];
    // Without randomness names repeat themselves; nothing depends on them.
    let _ = getrandom::fill(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The whole answer of a request that is not streamed.
pub(super) fn whole(about: &About, choices: Vec<Choice>) -> Value {
    let (mut total, mut told) = (Usage::default(), Vec::new());
    for choice in choices {
        let index = choice.index;
        let (ending, usage) = choice.ending();
        add(&mut total, usage);
        told.push(match about.kind {
            Kind::Completion => text_choice(about, index, &ending.news, Some(ending.finish)),
            Kind::Chat => message_choice(about, index, &ending),
        });
    }
    let object = match about.kind {
        Kind::Completion => "text_completion",
        Kind::Chat => "chat.completion",
    };
    object_of(about, object, told, Some(usage(total)))
}

pub(super) fn add(total: &mut Usage, usage: Usage) {
    total.prompt += usage.prompt;
    total.cached += usage.cached;
    total.generated += usage.generated;
}

/// The first chunk of a streamed choice; only chats have one.
pub(super) fn opening(about: &About, index: usize) -> Option<Value> {
    let delta = json!({ "role": "assistant", "content": "" });
    (about.kind == Kind::Chat).then(|| chunk(about, vec![delta_choice(index, delta, Value::Null, None)]))
}

/// One more piece of a streamed choice.
pub(super) fn piece(about: &About, index: usize, news: &News) -> Value {
    let choice = match about.kind {
        Kind::Completion => text_choice(about, index, news, None),
        Kind::Chat => delta_choice(
            index,
            json!({ "content": news.text }),
            chat_logprobs(about, &news.likelihoods),
            None,
        ),
    };
    chunk(about, vec![choice])
}

/// The end of a streamed choice: its calls, if it has any, and why it ended.
pub(super) fn ends(about: &About, index: usize, ending: &Ending) -> Vec<Value> {
    let mut chunks = Vec::new();
    if !ending.calls.is_empty() {
        let delta = json!({ "tool_calls": tool_calls(ending, true) });
        chunks.push(chunk(about, vec![delta_choice(index, delta, Value::Null, None)]));
    }
    let last = match about.kind {
        Kind::Completion => text_choice(about, index, &News::nothing(), Some(ending.finish)),
        Kind::Chat => delta_choice(index, json!({}), Value::Null, Some(ending.finish)),
    };
    chunks.push(chunk(about, vec![last]));
    chunks
}

/// The chunk that tells what a stream cost.
pub(super) fn cost(about: &About, total: Usage) -> Value {
    object_of(about, chunk_object(about.kind), Vec::new(), Some(usage(total)))
}

fn chunk(about: &About, choices: Vec<Value>) -> Value {
    object_of(about, chunk_object(about.kind), choices, about.include_usage.then_some(Value::Null))
}

fn chunk_object(kind: Kind) -> &'static str {
    match kind {
        Kind::Completion => "text_completion",
        Kind::Chat => "chat.completion.chunk",
    }
}

fn object_of(about: &About, object: &str, choices: Vec<Value>, usage: Option<Value>) -> Value {
    let mut whole = Map::new();
    whole.insert("id".into(), json!(about.id));
    whole.insert("object".into(), json!(object));
    whole.insert("created".into(), json!(about.created));
    whole.insert("model".into(), json!(about.model));
    whole.insert("choices".into(), Value::Array(choices));
    if let Some(usage) = usage {
        whole.insert("usage".into(), usage);
    }
    Value::Object(whole)
}

fn usage(total: Usage) -> Value {
    json!({
        "prompt_tokens": total.prompt,
        "completion_tokens": total.generated,
        "total_tokens": total.prompt + total.generated,
        "prompt_tokens_details": { "cached_tokens": total.cached },
    })
}

fn text_choice(about: &About, index: usize, news: &News, finish: Option<&str>) -> Value {
    let logprobs = text_logprobs(about, &news.likelihoods);
    json!({ "index": index, "text": news.text, "logprobs": logprobs, "finish_reason": finish })
}

fn delta_choice(index: usize, delta: Value, logprobs: Value, finish: Option<&str>) -> Value {
    json!({ "index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish })
}

fn message_choice(about: &About, index: usize, ending: &Ending) -> Value {
    let content = (ending.calls.is_empty() || !ending.news.text.is_empty()).then_some(&ending.news.text);
    let mut message = json!({ "role": "assistant", "content": content, "refusal": null });
    if !ending.calls.is_empty() {
        message["tool_calls"] = tool_calls(ending, false);
    }
    let logprobs = chat_logprobs(about, &ending.news.likelihoods);
    json!({ "index": index, "message": message, "logprobs": logprobs, "finish_reason": ending.finish })
}

fn tool_calls(ending: &Ending, numbered: bool) -> Value {
    let one = |(index, call): (usize, &ToolCall)| {
        let mut told = json!({
            "id": if call.id.is_empty() { format!("call_{}", random_hex()) } else { call.id.clone() },
            "type": "function",
            "function": { "name": call.name, "arguments": call.arguments },
        });
        if numbered {
            told["index"] = json!(index);
        }
        told
    };
    ending.calls.iter().enumerate().map(one).collect()
}

/// A token as text and as bytes: half a character has no text of its own.
fn token_text(text: Option<&TextModel>, token: u32) -> (String, Vec<u8>) {
    let Some(text) = text else { return (String::new(), Vec::new()) };
    match text.tokenizer.bytes(token) {
        [] => (text.tokenizer.special_text(token).to_owned(), Vec::new()),
        bytes => (String::from_utf8_lossy(bytes).into_owned(), bytes.to_vec()),
    }
}

fn chat_logprobs(about: &About, likelihoods: &[Likelihood]) -> Value {
    if likelihoods.is_empty() {
        return Value::Null;
    }
    let one = |token: u32, logprob: f64| {
        let (text, bytes) = token_text(about.text.as_deref(), token);
        json!({ "token": text, "logprob": logprob, "bytes": bytes })
    };
    let told = likelihoods.iter().map(|likelihood| {
        let mut told = one(likelihood.token, likelihood.logprobs.chosen);
        told["top_logprobs"] =
            likelihood.logprobs.top.iter().map(|&(token, logprob)| one(token, logprob)).collect();
        told
    });
    json!({ "content": told.collect::<Vec<Value>>(), "refusal": null })
}

fn text_logprobs(about: &About, likelihoods: &[Likelihood]) -> Value {
    if likelihoods.is_empty() {
        return Value::Null;
    }
    let text = |token: u32| token_text(about.text.as_deref(), token).0;
    let top = |likelihood: &Likelihood| {
        // The likeliest comes first: of two tokens that read the same, its figure stays.
        let mut top = Map::new();
        for &(token, logprob) in &likelihood.logprobs.top {
            top.entry(text(token)).or_insert(json!(logprob));
        }
        Value::Object(top)
    };
    json!({
        "tokens": likelihoods.iter().map(|one| text(one.token)).collect::<Vec<String>>(),
        "token_logprobs": likelihoods.iter().map(|one| one.logprobs.chosen).collect::<Vec<f64>>(),
        "top_logprobs": likelihoods.iter().map(top).collect::<Vec<Value>>(),
        "text_offset": likelihoods.iter().map(|one| one.offset).collect::<Vec<usize>>(),
    })
}
