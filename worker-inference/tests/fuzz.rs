//! Random hostile input for the readers of model files and of texts: no panic, no hang, no memory by a length that
//! the input names.
//!
//! Inputs are bent copies of good ones. An input whose answer has not been seen before (an error that reads
//! differently, or another size of what was read) joins those that are bent next, so that damage builds upon damage
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
use worker_inference::model::gguf::Gguf;
use worker_inference::{Engine, EngineConfig, Message, TextModel, last_logits};

fn log2(number: usize) -> u32 {
    number.checked_ilog2().unwrap_or(0)
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
        Err(error) => error.to_string(),
        Ok(gguf) => {
            let read = gguf.tensors().map(|(_, tensor)| log2(tensor.bytes.len())).max();
            let text = TextModel::from_gguf(&gguf).err().map(|error| error.to_string());
            format!("{:?} of {} and {}: {text:?}", read, gguf.metadata().count(), gguf.tensors().count())
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
            Err(error) => error.to_string(),
            Ok(mut engine) => match last_logits(&mut engine, [0; 32], &[1, 2, 3]) {
                Ok(logits) => format!("{} logits", log2(logits.len())),
                Err(error) => error.to_string(),
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
        let decoded = log2(tokenizer.decode(&ids).len());
        let plain = tokenizer.encode(&text, false).expect("the vocabulary has every byte");
        assert_eq!(tokenizer.decode(&plain), text, "the text does not come back");
        let special = tokenizer.encode(&text, true).map(|tokens| log2(tokens.len()));
        let message = Message::new("user", text.as_ref());
        let chat = model.encode_next(&[], &message, true).map(|tokens| log2(tokens.len()));
        format!("{} {special:?} {chat:?} {decoded}", log2(plain.len()))
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
            Err(error) => return error.to_string(),
        };
        match chat.render_next(&[], &Message::new("user", "hello"), true) {
            Ok(rendered) => format!("{} bytes", log2(rendered.len())),
            Err(error) => error.to_string(),
        }
    });
}
