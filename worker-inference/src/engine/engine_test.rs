//! The engine on tiny random models in every weight format: what must hold whatever the weights, and what
//! a damaged file may not do.

use std::path::Path;

use super::*;
use crate::model::gguf::gguf_test::{Writer, random};
use crate::score::last_logits;

const HIDDEN: u64 = 32;
const FFN: u64 = 64;
const KV: u64 = 16;
const LAYERS: u32 = 2;

/// The printable characters that stand for bytes, two merged tokens, and two control tokens.
fn vocabulary() -> Vec<String> {
    let printable = (0x21..=0x7e).chain(0xa1..=0xac).chain(0xae..=0xff).chain(0x100..=0x143);
    let mut tokens: Vec<String> = printable.filter_map(char::from_u32).map(String::from).collect();
    tokens.extend(["he", "Ġw", "<|im_end|>", "<|im_start|>"].map(String::from));
    tokens
}

/// Bytes of `count` random small values in a format, by the number that GGUF gives it.
fn values(format: u32, count: u64, seed: &mut u64) -> Vec<u8> {
    let mut bytes = |len: u64| -> Vec<u8> { (0..len).map(|_| random(seed) as u8).collect() };
    match format {
        0 => {
            bytes(count).iter().flat_map(|&byte| ((f32::from(byte) - 127.5) / 512.0).to_le_bytes()).collect()
        }
        // Half floats from 1/32 to 1/16, of both signs.
        1 => bytes(count).iter().flat_map(|&byte| [byte, 0x28 | (byte & 0x80)]).collect(),
        // A scale of 1/128, a least value of -1/16, 32 nibbles.
        3 => (0..count / 32).flat_map(|_| [vec![0x00, 0x20, 0x00, 0xac], bytes(16)].concat()).collect(),
        // A scale of 1/1024, 32 signed bytes.
        8 => (0..count / 32).flat_map(|_| [vec![0x00, 0x14], bytes(32)].concat()).collect(),
        other => panic!("no format {other}"),
    }
}

/// A whole model file, and where its tensors' data begins.
pub(super) fn tiny_model(format: u32) -> (Vec<u8>, usize) {
    let tokens = vocabulary();
    let count = tokens.len() as u64;
    let mut shapes = vec![("token_embd.weight".to_owned(), vec![HIDDEN, count], format)];
    for layer in 0..LAYERS {
        let mut add = |part: &str, shape: &[u64], format| {
            shapes.push((format!("blk.{layer}.{part}.weight"), shape.to_vec(), format));
        };
        add("attn_norm", &[HIDDEN], 0);
        add("attn_q", &[HIDDEN, HIDDEN], format);
        add("attn_k", &[HIDDEN, KV], format);
        add("attn_v", &[HIDDEN, KV], format);
        add("attn_output", &[HIDDEN, HIDDEN], format);
        add("ffn_norm", &[HIDDEN], 0);
        add("ffn_gate", &[HIDDEN, FFN], format);
        add("ffn_up", &[HIDDEN, FFN], format);
        add("ffn_down", &[FFN, HIDDEN], format);
    }
    shapes.push(("output_norm.weight".to_owned(), vec![HIDDEN], 0));
    let mut header = metadata(&tokens, shapes.len() as u64);
    let mut seed = 5;
    let mut data: Vec<u8> = Vec::new();
    for (name, shape, format) in &shapes {
        header = header.tensor(name, shape, *format, data.len() as u64);
        data.extend(values(*format, shape.iter().product(), &mut seed));
        data.resize(data.len().next_multiple_of(32), 0);
    }
    let mut file = header.data(0);
    let start = file.len();
    file.extend(data);
    (file, start)
}

fn metadata(tokens: &[String], tensors: u64) -> Writer {
    let number = |writer: Writer, key: &str, value: u64| writer.text(key).u32(4).u32(value as u32);
    let text = |writer: Writer, key: &str, value: &str| writer.text(key).u32(8).text(value);
    let mut writer = Writer::header(tensors, 15);
    writer = text(writer, "general.architecture", "llama");
    writer = number(writer, "llama.block_count", u64::from(LAYERS));
    writer = number(writer, "llama.context_length", 512);
    writer = number(writer, "llama.embedding_length", HIDDEN);
    writer = number(writer, "llama.feed_forward_length", FFN);
    writer = number(writer, "llama.attention.head_count", 2);
    writer = number(writer, "llama.attention.head_count_kv", 1);
    writer = number(writer, "llama.rope.dimension_count", 16);
    writer = writer.text("llama.attention.layer_norm_rms_epsilon").u32(6).bytes(&1e-5_f32.to_le_bytes());
    writer = text(writer, "tokenizer.ggml.model", "gpt2");
    writer = text(writer, "tokenizer.ggml.pre", "smollm");
    writer = writer.text("tokenizer.ggml.tokens").u32(9).u32(8).u64(tokens.len() as u64);
    writer = tokens.iter().fold(writer, |writer, token| writer.text(token));
    writer = writer.text("tokenizer.ggml.token_type").u32(9).u32(5).u64(tokens.len() as u64);
    writer =
        (0..tokens.len()).fold(writer, |writer, at| writer.u32(if at + 2 < tokens.len() { 1 } else { 3 }));
    writer = writer.text("tokenizer.ggml.merges").u32(9).u32(8).u64(2).text("h e").text("Ġ w");
    text(writer, "tokenizer.chat_template", "{% for m in messages %}{{ m.role + m.content }}{% endfor %}")
}

fn settings() -> EngineConfig {
    EngineConfig {
        kv_bytes: 1 << 18,
        threads: 1,
        step_tokens: 48,
        chunk_tokens: 48,
        running: 8,
        low_priority: false,
        ..EngineConfig::default()
    }
}

pub(super) fn load(file: &Path, change: impl FnOnce(&mut EngineConfig)) -> Engine {
    let mut config = settings();
    change(&mut config);
    Engine::load(file, config).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn an_engine_can_move_to_its_own_thread() {
    fn moves<T: Send>() {}
    moves::<Engine>();
}

#[test]
fn every_format_gives_the_same_bits_on_every_machine() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let mut answers: Vec<Vec<u32>> = Vec::new();
    for format in [0, 1, 3, 8] {
        let path = folder.path().join(format.to_string());
        std::fs::write(&path, tiny_model(format).0).expect("writable");
        let mut scalar = load(&path, |config| config.isa = Some("scalar".into()));
        let tokens = scalar.text().tokenizer.encode("hello world, 123 times over", false).expect("encodes");
        let bits = |engine: &mut Engine| -> Vec<u32> {
            let logits = last_logits(engine, [0; 32], &tokens).expect("fits");
            assert!(logits.iter().all(|logit| logit.is_finite()));
            logits.iter().map(|logit| logit.to_bits()).collect()
        };
        let expected = bits(&mut scalar);
        for isa in kernels::Isa::available() {
            for threads in [1, 2] {
                let mut engine = load(&path, |config| {
                    (config.isa, config.threads, config.chunk_tokens) = (Some(isa.to_string()), threads, 16);
                });
                assert_eq!(bits(&mut engine), expected, "format {format}, {isa}, {threads} threads");
            }
        }
        assert!(!answers.contains(&expected), "other weights, other logits");
        answers.push(expected);
    }
}

#[test]
fn a_damaged_header_is_refused_or_harmless() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("damaged");
    let (whole, data) = tiny_model(8);
    let mut seed = 11;
    let (mut refused, mut ran) = (0, 0);
    for _ in 0..1500 {
        let mut file = whole.clone();
        for _ in 0..1 + random(&mut seed) % 3 {
            let at = random(&mut seed) as usize % data;
            file[at] ^= 1 << (random(&mut seed) % 8);
        }
        std::fs::write(&path, &file).expect("writable");
        match Engine::load(&path, settings()) {
            Err(error) => {
                assert!(error.to_string().contains(';'), "what to do next is missing: {error}");
                refused += 1;
            }
            Ok(mut engine) => {
                last_logits(&mut engine, [0; 32], &[1, 2, 3]).expect("three tokens fit");
                ran += 1;
            }
        }
    }
    assert!(refused > 50 && ran > 50, "{refused} refused, {ran} ran");
}

#[test]
fn a_missing_or_foreign_tensor_is_named() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("model");
    let (whole, _) = tiny_model(0);
    let refused = |from: &[u8], to: &[u8]| {
        let at = whole.windows(from.len()).position(|window| window == from).expect("it is there");
        let mut file = whole.clone();
        file[at..at + to.len()].copy_from_slice(to);
        std::fs::write(&path, file).expect("writable");
        Engine::load(&path, settings()).err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert!(refused(b"blk.1.ffn_up", b"blk.1.ffn_xx").contains("blk.1.ffn_up"));
    assert!(refused(b"output_norm.weight", b"output_morn.weight").contains("output_norm"));
    assert!(refused(b"smollm", b"smallm").contains("smallm"));
    assert!(refused(b"gpt2", b"bert").contains("bert"));
    assert!(refused(b"{% for", b"{% fro").contains("chat template"));
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("model");
    std::fs::write(&path, tiny_model(0).0).expect("writable");
    let refused = |change: fn(&mut EngineConfig)| {
        let mut config = settings();
        change(&mut config);
        Engine::load(&path, config).err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert!(refused(|config| config.running = 40).contains("step_tokens"));
    assert!(refused(|config| config.chunk_tokens = 8).contains("chunk_tokens"));
    assert!(refused(|config| config.kv_bytes = 100).contains("kv_bytes"));
    assert!(refused(|config| config.isa = Some("mmx".into())).contains("mmx"));
    assert_eq!(refused(|_| {}), "");
}
