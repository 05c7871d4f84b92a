//! Random hostile input for the readers of model files and of texts: no panic, no hang, no memory by a length that
//! the input names.
//!
//! Inputs are bent copies of good ones. An input whose answer has not been seen before (another kind of error,
//! another size of what was read) joins those that are bent next, so that damage builds upon damage
//! and gets behind the first checks. `FUZZ_SECONDS` sets how long each of them runs (2); `FUZZ_SEED` sets the
//! first seed (the time where it is `time`), which a failure prints beside the file that keeps its input.

// Each test binary uses a part of what is shared.
#![allow(dead_code)]

#[path = "support/fuzz.rs"]
mod fuzz;
#[path = "support/tiny.rs"]
mod tiny;

use fuzz::Fuzz;
use tiny::File;
use worker_inference::model::gguf::{Gguf, GgufError};
use worker_inference::{Engine, EngineConfig, LoadError, Message, TextModel, last_logits};

/// A size in words that differ for other powers of two.
fn size(number: usize) -> String {
    "x".repeat(number.checked_ilog10().map_or(0, |log| log as usize + 1))
}

/// The beginning of an error, which says what kind it is; the rest names what was in the input.
fn kind(error: impl std::fmt::Display) -> String {
    error.to_string().chars().filter(char::is_ascii_lowercase).take(24).collect()
}

fn kind_of_file_error(error: &GgufError) -> String {
    match error {
        GgufError::Invalid { why, .. } => kind(why),
        GgufError::Truncated { .. } => "truncated".into(),
        GgufError::TooMany { .. } => "too many".into(),
        GgufError::Extent { .. } => "extent".into(),
        other => kind(other),
    }
}

/// The tiny model without its weights: what the reader of headers looks at.
fn headers() -> Vec<Vec<u8>> {
    let mut bare = File::tiny();
    bare.tensors.truncate(4);
    let mut odd = bare.clone();
    odd.set(
        "general.nested",
        tiny::LIST,
        [9_u32.to_le_bytes().to_vec(), 0_u64.to_le_bytes().to_vec()].concat(),
    );
    odd.set("general.alignment", tiny::U32, 64_u32.to_le_bytes().to_vec());
    let mut small = bare.clone();
    small.pairs.truncate(3);
    vec![bare.build(), odd.build(), small.build(), File::tiny().build()]
}

#[test]
fn gguf() {
    Fuzz::new("gguf", headers()).run(&|input| match Gguf::parse(input) {
        Err(error) => kind_of_file_error(&error),
        Ok(gguf) => {
            let text = TextModel::from_gguf(&gguf).err().map(kind);
            format!("{} and {}: {text:?}", size(gguf.metadata().count()), size(gguf.tensors().count()))
        }
    });
}

/// The whole way from a file to logits.
#[test]
fn model() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("model.gguf");
    let config =
        EngineConfig { threads: 1, kv_bytes: 1 << 18, low_priority: false, ..EngineConfig::default() };
    Fuzz::new("model", vec![File::tiny().build()]).run(&|input| {
        std::fs::write(&path, input).expect("writable");
        match Engine::load(&path, config.clone()) {
            Err(LoadError::File { cause, .. }) => kind_of_file_error(&cause),
            Err(LoadError::Text { cause, .. }) => kind(cause),
            Err(LoadError::Model { cause, .. }) => kind(cause),
            Err(error) => kind(error),
            Ok(mut engine) => match last_logits(&mut engine, [0; 32], &[1, 2, 3]) {
                Ok(logits) => size(logits.len()),
                Err(error) => kind(error),
            },
        }
    });
}

const TEXT_WORDS: [&str; 8] = ["<|im_end|>", "<|im_", "|>", "\u{0}", "\u{200d}", "𝕳", "１２", "\r\n\t "];

/// Texts into tokens and back: a text must come back whole. Tokens into text: any will do.
#[test]
fn tokenizer() {
    let file = File::tiny().build();
    let gguf = Gguf::parse(&file).expect("a good file");
    let model = TextModel::from_gguf(&gguf).expect("a good file");
    let corpus =
        ["hello world, 123 times over", "<|im_start|>user\n\thello<|im_end|>", "ü 漢字 🦀 e\u{301} \u{202e}"];
    let corpus = corpus.iter().map(|text| text.as_bytes().to_vec()).collect();
    Fuzz::new("tokenizer", corpus).with_words(&TEXT_WORDS).run(&|input| {
        let (text, tokenizer) = (String::from_utf8_lossy(input), &model.tokenizer);
        let ids: Vec<u32> =
            input.iter().map(|&byte| u32::from(byte) * 2 % tokenizer.vocabulary() as u32).collect();
        let decoded = size(tokenizer.decode(&ids).len());
        let plain = tokenizer.encode(&text, false).expect("the vocabulary has every byte");
        assert_eq!(tokenizer.decode(&plain), text, "the text does not come back");
        let special = tokenizer.encode(&text, true).map(|tokens| size(tokens.len())).map_err(kind);
        let message = Message::new("user", text.as_ref());
        let chat = model.encode_next(&[], &message, true).map(|tokens| size(tokens.len())).map_err(kind);
        format!("{} {special:?} {chat:?} {decoded}", size(plain.len()))
    });
}

const TEMPLATE_WORDS: [&str; 16] = [
    "{{ ",
    " }}",
    "{% ",
    " %}",
    "{% for m in messages %}",
    "{% endfor %}",
    "{% if true %}",
    "{% endif %}",
    "range(9999999)",
    "messages",
    ".content",
    "['role']",
    " | tojson",
    " * 99999999",
    "loop.index",
    "self",
];

/// Templates come from the model file, too.
#[test]
fn chat_template() {
    let corpus = [
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' }}{% endfor %}",
        "{%- set ns = namespace(a=1) -%}{% if add_generation_prompt %}{{ bos_token }}{% endif %}{{ messages[0]['content'].strip() }}",
        "{% macro f(x) %}{{ x | trim | tojson }}{% endmacro %}{% for m in messages[::-1] %}{{ f(m) }}{{ loop.index0 % 2 }}{% endfor %}",
    ];
    let corpus = corpus.iter().map(|text| text.as_bytes().to_vec()).collect();
    Fuzz::new("chat_template", corpus).with_words(&TEMPLATE_WORDS).run(&|input| {
        let template = String::from_utf8_lossy(input);
        let chat = match worker_inference::Chat::new(&template, "<s>", "</s>") {
            Ok(chat) => chat,
            Err(error) => return kind(error),
        };
        match chat.render_next(&[], &Message::new("user", "hello"), true) {
            Ok(rendered) => size(rendered.len()),
            Err(error) => kind(error),
        }
    });
}
