//! Model files that have brought other programs down, each bent from a small good one: every one is refused with an
//! error that says what to do, or is harmless; none makes the reader panic, hang, or take memory by a length that the
//! file names.

// Each test binary uses a part of what is shared.
#![allow(dead_code)]

#[path = "support/fuzz.rs"]
mod fuzz;
#[path = "support/tiny.rs"]
mod tiny;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tiny::{File, LIST, TEXT, U32, numbers, random, text, texts};
use worker_inference::{Engine, EngineConfig, last_logits};

/// More than the engine of a tiny model takes by far, and far less than the lengths that the files name.
const MEMORY_MAX: u64 = 96 << 20;

struct Folder {
    folder: tempfile::TempDir,
}

impl Folder {
    fn new() -> Folder {
        Folder { folder: tempfile::tempdir().expect("temporary folder") }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("model.gguf")
    }

    fn load(&self, bytes: &[u8]) -> Result<Engine, String> {
        std::fs::write(self.path(), bytes).expect("writable");
        let config =
            EngineConfig { threads: 1, kv_bytes: 1 << 20, low_priority: false, ..EngineConfig::default() };
        Engine::load(self.path(), config).map_err(|error| error.to_string())
    }

    /// The error of a file that must be refused: quickly, in little memory, and with the next step.
    fn refused(&self, name: &str, bytes: &[u8]) -> String {
        let (start, before) = (Instant::now(), fuzz::most_bytes());
        let error = self.load(bytes).err().unwrap_or_else(|| panic!("{name}: the file was taken"));
        assert!(start.elapsed() < Duration::from_secs(5), "{name}: {:?}", start.elapsed());
        let grown = fuzz::most_bytes() - before;
        assert!(grown < MEMORY_MAX, "{name}: {grown} bytes for a file of {}", bytes.len());
        assert!(error.contains(';'), "{name}: what to do next is missing: {error}");
        error
    }
}

/// A good file with one thing bent.
fn bent(bend: impl FnOnce(&mut File)) -> Vec<u8> {
    let mut file = File::tiny();
    bend(&mut file);
    file.build()
}

/// Bends of the kind that a table of refusals needs: what it is called, and a word that the error must hold.
type Case = (&'static str, fn(&mut File), &'static str);

fn all_refused(cases: &[Case]) {
    let folder = Folder::new();
    for (name, bend, word) in cases {
        let error = folder.refused(name, &bent(bend));
        assert!(error.contains(word), "{name}: {word:?} is not in: {error}");
    }
}

#[test]
fn the_good_file_runs() {
    let mut engine = Folder::new().load(&File::tiny().build()).expect("a good file");
    let logits = last_logits(&mut engine, [0; 32], &[1, 2, 3]).expect("three tokens fit");
    assert!(logits.iter().all(|logit| logit.is_finite()));
}

#[test]
fn counts_and_lengths_beyond_the_file() {
    let list = |kind: u32, count: u64| [&kind.to_le_bytes()[..], &count.to_le_bytes()].concat();
    let folder = Folder::new();
    for count in [1 << 20, 1 << 33, 1 << 63, u64::MAX] {
        folder.refused("tensors", &bent(|file| file.tensor_count = Some(count)));
        folder.refused("pairs", &bent(|file| file.pair_count = Some(count)));
        folder.refused("text", &bent(|file| file.set("general.name", TEXT, count.to_le_bytes().to_vec())));
        for kind in [0, 4, 8, 9, 10, 12] {
            folder.refused("list", &bent(|file| file.set("general.list", LIST, list(kind, count))));
        }
    }
    let mut bytes = File::tiny().build();
    bytes[24..32].copy_from_slice(&u64::MAX.to_le_bytes());
    folder.refused("the first key's length", &bytes);
    // 43 bytes that made another reader hang: nothing but a header and an endless list.
    let mut short = [b"GGUF".to_vec(), 3_u32.to_le_bytes().to_vec(), 0_u64.to_le_bytes().to_vec()].concat();
    short.extend([1_u64.to_le_bytes().to_vec(), text("a"), LIST.to_le_bytes().to_vec()].concat());
    short.extend([0_u8, 0]);
    short.resize(43, 0xff);
    folder.refused("43 bytes", &short);
}

#[test]
fn sizes_that_overflow() {
    all_refused(&[
        (
            "product of dimensions",
            |file| file.tensor("token_embd.weight").dimensions = vec![1 << 32, 1 << 32, 1 << 32],
            "64 bits",
        ),
        (
            "bytes of all blocks",
            |file| file.tensor("token_embd.weight").dimensions = vec![1 << 62, 1 << 2],
            "64 bits",
        ),
        ("just below 2^63", |file| file.tensor("output_norm.weight").dimensions = vec![1 << 60], "truncated"),
        ("offset and size", |file| file.tensor("output_norm.weight").offset = Some(u64::MAX - 31), "64 bits"),
    ]);
}

#[test]
fn tensors_beyond_the_file_or_of_another_shape() {
    all_refused(&[
        ("offset beyond", |file| file.tensor("blk.0.ffn_up.weight").offset = Some(1 << 40), "truncated"),
        ("offset between", |file| file.tensor("blk.0.ffn_up.weight").offset = Some(17), "multiple"),
        ("rows beyond", |file| file.tensor("token_embd.weight").dimensions[1] = 1 << 30, "truncated"),
        (
            "fewer tokens than the vocabulary",
            |file| file.tensor("token_embd.weight").dimensions[1] = 8,
            "token_embd",
        ),
        ("turned round", |file| file.tensor("blk.0.ffn_up.weight").dimensions.reverse(), "ffn_up"),
        ("another width", |file| file.tensor("blk.1.attn_q.weight").dimensions[1] = 16, "attn_q"),
        (
            "a norm of one number",
            |file| file.tensor("blk.0.attn_norm.weight").dimensions = vec![1],
            "attn_norm",
        ),
    ]);
    let whole = File::tiny().build();
    Folder::new().refused("cut by one byte and its padding", &whole[..whole.len() - 33]);
}

#[test]
fn zeros_and_unknown_numbers() {
    all_refused(&[
        ("a dimension of 0", |file| file.tensor("output_norm.weight").dimensions = vec![0], "dimension"),
        ("no dimensions", |file| file.tensor("output_norm.weight").dimensions = vec![], "dimensions"),
        ("five dimensions", |file| file.tensor("output_norm.weight").dimensions = vec![2; 5], "dimensions"),
        ("an unknown type", |file| file.tensor("output_norm.weight").type_id = 77, "type 77"),
        ("a negative type", |file| file.tensor("output_norm.weight").type_id = -1_i32 as u32, "output_norm"),
        ("an unknown kind of value", |file| file.set("general.odd", 99, vec![0; 8]), "99"),
        ("an empty key", |file| file.set("", U32, vec![0; 4]), "empty"),
        ("an empty tensor name", |file| file.tensor("output_norm.weight").name.clear(), "empty"),
        ("a flag of 2", |file| file.set("general.odd", 7, vec![2]), "0 or 1"),
        ("version 1", |file| file.version = 1, "version 1"),
        ("version 4", |file| file.version = 4, "version 4"),
        ("big-endian", |file| file.version = 3_u32.swap_bytes(), "big-endian"),
    ]);
}

#[test]
fn alignments_that_cannot_be() {
    let folder = Folder::new();
    for alignment in [0_u32, 1, 3, 31, 33, 1 << 21, 1 << 30, u32::MAX] {
        let bytes = bent(|file| file.set_number("general.alignment", alignment));
        // An alignment of 1 is a power of two, and may be taken.
        match alignment {
            1 => drop(folder.load(&bytes)),
            _ => assert!(folder.refused("alignment", &bytes).contains("alignment"), "{alignment}"),
        }
    }
}

#[test]
fn names_twice() {
    all_refused(&[
        ("a key", |file| file.pairs.push(file.pairs[0].clone()), "twice"),
        ("a tensor", |file| file.tensors.push(file.tensors[3].clone()), "twice"),
    ]);
}

#[test]
fn sizes_of_a_model_that_cannot_be() {
    let folder = Folder::new();
    let keys = [
        "block_count",
        "context_length",
        "embedding_length",
        "feed_forward_length",
        "attention.head_count",
        "attention.head_count_kv",
        "rope.dimension_count",
    ];
    for key in keys {
        for size in [0, 513, 1 << 20, (1 << 31) - 1, 1 << 31, u32::MAX] {
            let bytes = bent(|file| file.set_number(&format!("llama.{key}"), size));
            // A longer window is no damage; everything else fits no tensor.
            if key != "context_length" || size == 0 {
                folder.refused(key, &bytes);
            } else {
                drop(folder.load(&bytes));
            }
        }
        folder.refused(
            key,
            &bent(|file| file.set(&format!("llama.{key}"), 5, (-1_i32).to_le_bytes().to_vec())),
        );
        folder.refused(key, &bent(|file| file.set_text(&format!("llama.{key}"), "two")));
        folder.refused(
            key,
            &bent(|file| file.set(&format!("llama.{key}"), 10, (1_u64 << 40).to_le_bytes().to_vec())),
        );
    }
    folder.refused("no epsilon", &bent(|file| file.remove("llama.attention.layer_norm_rms_epsilon")));
    for epsilon in [f32::NAN, f32::INFINITY, -1.0] {
        let bits = epsilon.to_le_bytes().to_vec();
        // Refused, or run with whatever comes out; never a panic.
        if let Ok(mut engine) =
            folder.load(&bent(|file| file.set("llama.attention.layer_norm_rms_epsilon", 6, bits)))
        {
            last_logits(&mut engine, [0; 32], &[1, 2, 3]).expect("three tokens fit");
        }
    }
}

#[test]
fn vocabularies_that_lie() {
    let folder = Folder::new();
    let refused = |name: &str, bend: &dyn Fn(&mut File)| {
        folder.refused(name, &bent(bend));
    };
    let words = tiny::vocabulary;
    // Narrower elements than are read: token types as bytes.
    let narrow = [&0_u32.to_le_bytes()[..], &4_u64.to_le_bytes(), &[1, 1, 1, 1]].concat();
    refused("types as bytes", &|file| file.set("tokenizer.ggml.token_type", LIST, narrow.clone()));
    refused("too few types", &|file| file.set("tokenizer.ggml.token_type", LIST, numbers(&[1, 1])));
    refused("no tokens", &|file| file.set("tokenizer.ggml.tokens", LIST, texts(&[])));
    refused("tokens as numbers", &|file| file.set("tokenizer.ggml.tokens", LIST, numbers(&[1, 2, 3])));
    refused("fewer tokens than rows", &|file| {
        file.set("tokenizer.ggml.tokens", LIST, texts(&words()[..200]))
    });
    let twice =
        || words().into_iter().map(|word| if word == "he" { "Ġw".into() } else { word }).collect::<Vec<_>>();
    refused("a token twice", &|file| file.set("tokenizer.ggml.tokens", LIST, texts(&twice())));
    for merge in ["", " ", "h", "h e l", "h e", "x nothing", "<|im_end|> h", "nothing nothing"] {
        let merges = texts(&[merge.to_owned(), "h e".to_owned()]);
        // Refused, or harmless: rules that never apply.
        if let Ok(engine) = folder.load(&bent(|file| file.set("tokenizer.ggml.merges", LIST, merges))) {
            engine.text().tokenizer.encode("hello where", false).expect("plain text encodes");
        }
    }
    for odd in ["<0x-1>", "<0xZZ>", "<0x>", "<0x1FF>", "", "\u{0}", "\u{10ffff}", "Ġ\u{fffd}"] {
        let mut tokens = words();
        tokens[300.min(words().len() - 6)] = odd.to_owned();
        if let Ok(engine) = folder.load(&bent(|file| file.set("tokenizer.ggml.tokens", LIST, texts(&tokens))))
        {
            let every: Vec<u32> = (0..engine.info().vocab as u32).collect();
            engine.text().tokenizer.decode(&every);
        }
    }
    for id in [u32::MAX, 1 << 31, words().len() as u32] {
        refused("an end beyond the vocabulary", &|file| file.set_number("tokenizer.ggml.eos_token_id", id));
    }
}

#[test]
fn lists_in_lists() {
    let folder = Folder::new();
    let mut deep = [&0_u32.to_le_bytes()[..], &1_u64.to_le_bytes(), &[7]].concat();
    for _ in 0..10_000 {
        deep = [&LIST.to_le_bytes()[..], &1_u64.to_le_bytes(), &deep].concat();
    }
    assert!(folder.refused("nesting", &bent(|file| file.set("general.deep", LIST, deep))).contains("nested"));
}

#[test]
fn texts_that_are_none() {
    let folder = Folder::new();
    let broken = [&2_u64.to_le_bytes()[..], &[0xff, 0xfe]].concat();
    folder.refused("a value", &bent(|file| file.set("general.name", TEXT, broken)));
    folder.refused("a key", &bent(|file| file.pairs[0].key = vec![0xc3, 0x28]));
    folder.refused("a long key", &bent(|file| file.pairs[0].key = vec![b'a'; 70_000]));
}

#[test]
fn templates_that_never_end() {
    let folder = Folder::new();
    let endless = "{% for a in range(100000) %}{% for b in range(100000) %}x{% endfor %}{% endfor %}";
    for template in [endless, "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "{{ 'x' * 1000000000 }}"] {
        let before = fuzz::most_bytes();
        let start = Instant::now();
        if let Ok(engine) = folder.load(&bent(|file| file.set_text("tokenizer.chat_template", template))) {
            let message = worker_inference::Message::new("user", "hello");
            engine.text().encode_next(&[], &message, true).err();
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{template}: {:?}", start.elapsed());
        assert!(fuzz::most_bytes() - before < MEMORY_MAX, "{template}");
    }
    folder.refused("no template at all", &bent(|file| file.set_text("tokenizer.chat_template", "{% for")));
}

#[test]
fn two_tensors_in_one_place_are_harmless() {
    let bytes = bent(|file| file.tensor("blk.1.ffn_up.weight").offset = Some(0));
    if let Ok(mut engine) = Folder::new().load(&bytes) {
        last_logits(&mut engine, [0; 32], &[1, 2, 3]).expect("three tokens fit");
    }
}

#[test]
fn every_header_byte_may_be_wrong() {
    let folder = Folder::new();
    let file = File::tiny();
    let (whole, data) =
        (file.build(), file.tensors.iter().map(|t| t.data.len().next_multiple_of(32)).sum::<usize>());
    let header = whole.len() - data;
    let mut seed = 77;
    let mut at = 0;
    while at < header {
        let mut bytes = whole.clone();
        bytes[at] = random(&mut seed) as u8;
        // Taken or refused: both are answers.
        drop(folder.load(&bytes));
        at += 1 + random(&mut seed) as usize % 45;
    }
}
