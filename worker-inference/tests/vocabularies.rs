//! Real vocabularies against the tokens that the reference implementation gives for the same texts.
//!
//! They are fetched by `make vocabularies`; without them these tests fail.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use worker_inference::model::gguf::Gguf;
use worker_inference::{ChatOptions, Message, TextModel, Tokenizer};

/// Vocabularies whose every text must give exactly the expected tokens.
const COVERED: [&str; 11] = [
    "command-r",
    "gpt-2",
    "llama-bpe",
    "llama-spm",
    "mpt",
    "phi-3",
    "qwen2",
    "qwen35",
    "refact",
    "starcoder",
    // Without expected tokens: read, and texts come back.
    "baichuan",
];

/// Vocabularies of families that we don't run, with what the refusal must name.
const REFUSED: [(&str, &str); 8] = [
    ("aquila", "tokenizer.ggml.pre"),
    ("bert-bge", "\"bert\""),
    ("deepseek-coder", "\"deepseek-coder\""),
    ("deepseek-llm", "\"deepseek-llm\""),
    ("falcon", "\"falcon\""),
    ("gemma-4", "\"gemma4\""),
    ("gpt-neox", "tokenizer.ggml.pre"),
    ("nomic-bert-moe", "\"t5\""),
];

fn folder() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/vocabularies");
    let folder = std::env::var_os("QUORATE_VOCABULARIES").map_or_else(default, PathBuf::from);
    assert!(
        folder.join("version").exists(),
        "no vocabularies in {}; run `make vocabularies`",
        folder.display()
    );
    folder
}

fn file(name: &str) -> Vec<u8> {
    let path = folder().join(format!("ggml-vocab-{name}.gguf"));
    std::fs::read(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; run `make vocabularies`", path.display()))
}

fn tokenizer(name: &str) -> Tokenizer {
    Tokenizer::from_gguf(&Gguf::parse(&file(name)).expect("a whole file")).expect("a supported vocabulary")
}

/// The texts of a vocabulary and their tokens; none where the archive has none.
fn pairs(name: &str) -> Vec<(String, Vec<u32>)> {
    let read = |end: &str| std::fs::read_to_string(folder().join(format!("ggml-vocab-{name}.gguf.{end}")));
    let (Ok(texts), Ok(tokens)) = (read("inp"), read("out")) else { return Vec::new() };
    const BETWEEN: &str = "\n__ggml_vocab_test__\n";
    let texts: Vec<&str> = texts.strip_suffix(BETWEEN).unwrap_or(&texts).split(BETWEEN).collect();
    let ids = |line: &str| line.split_whitespace().map(|id| id.parse().expect("a token id")).collect();
    let tokens: Vec<Vec<u32>> = tokens.lines().map(ids).collect();
    assert_eq!(texts.len(), tokens.len(), "{name}");
    texts.into_iter().map(str::to_owned).zip(tokens).collect()
}

#[test]
fn every_vocabulary_of_our_families_gives_the_expected_tokens() {
    let mut compared = 0;
    for name in COVERED {
        let tokenizer = tokenizer(name);
        for (text, expected) in pairs(name) {
            let ids = tokenizer.encode(&text, false).expect("encodes");
            assert_eq!(ids, expected, "{name}: {text:?}");
            assert_eq!(tokenizer.decode(&ids), text, "{name}");
            compared += 1;
        }
    }
    println!("{compared} texts of {} vocabularies", COVERED.len() - 1);
    assert!(compared >= 400, "only {compared} texts were compared");
}

#[test]
fn the_others_are_refused_by_name() {
    for (name, named) in REFUSED {
        let file = file(name);
        let error =
            Tokenizer::from_gguf(&Gguf::parse(&file).expect("a whole file")).expect_err(name).to_string();
        assert!(error.contains(named), "{name}: {error}");
    }
}

#[test]
fn no_vocabulary_is_forgotten() {
    let mut known: Vec<&str> = COVERED.into_iter().chain(REFUSED.map(|(name, _)| name)).collect();
    known.sort_unstable();
    let entries = std::fs::read_dir(folder()).expect("the folder can be read");
    let names =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a plain name"));
    let mut found: Vec<String> = names
        .filter_map(|name| Some(name.strip_prefix("ggml-vocab-")?.strip_suffix(".gguf")?.to_owned()))
        .collect();
    found.sort_unstable();
    assert_eq!(found, known);
}

/// Numbers that look random and are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }

    /// Text of all kinds: words, white space, symbols, several scripts, broken pieces of special tokens.
    fn text(&mut self, len: usize) -> String {
        const PIECES: [&str; 28] = [
            "the ",
            "Hello",
            "'s",
            "'LL",
            "1",
            "2024",
            " ",
            "  ",
            "\n",
            "\r\n",
            "\t",
            "ü",
            "日本",
            "🙂",
            "\u{301}",
            "!",
            "<|im_end|>",
            "<|",
            "|>",
            "<s>",
            "[INST]",
            "<0x0A>",
            "\0",
            "\u{a0}",
            "//",
            "aA",
            "한국어",
            "\u{10ffff}",
        ];
        let mut text = String::new();
        for _ in 0..len {
            match self.below(8) {
                0 => text.extend(char::from_u32(self.below(0x11_0000) as u32)),
                _ => text.push_str(PIECES[self.below(PIECES.len())]),
            }
        }
        text
    }
}

#[test]
fn every_text_comes_back() {
    let mut random = Random(1);
    for name in COVERED {
        let tokenizer = tokenizer(name);
        let ids = 0..tokenizer.vocabulary() as u32;
        let known: BTreeSet<u8> = ids
            .filter_map(|id| {
                tokenizer.bytes(id).first_chunk::<1>().filter(|_| tokenizer.bytes(id).len() == 1)
            })
            .map(|[byte]| *byte)
            .collect();
        for round in 0..60 {
            // The mark of a space is a space to SentencePiece; bytes without a token are left out.
            let mut text = random.text(round).replace('\u{2581}', "_");
            text.retain(|letter| letter.encode_utf8(&mut [0; 4]).bytes().all(|byte| known.contains(&byte)));
            let ids = tokenizer.encode(&text, false).expect("encodes");
            assert_eq!(tokenizer.decode(&ids), text, "{name}");
            assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocabulary()));
            assert!(!ids.iter().any(|&id| tokenizer.ends().contains(&id)), "{name}: {text:?}");
            tokenizer.encode(&text, true).expect("encodes");
        }
    }
}

#[test]
fn any_tokens_can_be_shown() {
    let mut random = Random(2);
    for name in ["gpt-2", "llama-spm", "qwen2"] {
        let tokenizer = tokenizer(name);
        let ids: Vec<u32> = (0..20_000).map(|_| random.below(200_000) as u32).collect();
        assert!(!tokenizer.decode(&ids).is_empty());
    }
}

/// Encoding takes time in proportion to the text, whatever the text is: 16 times the text takes about 16 times as
/// long. Quadratic work would take 256 times as long; a busy machine is allowed for.
#[test]
fn long_texts_are_no_hard_work() {
    const SHORT: usize = 1 << 14;
    const TIMES: usize = 16;
    let pieces = [include_str!("text.txt"), "a", " ", "\n", "日本語", "<|"];
    for name in ["gpt-2", "llama-bpe", "llama-spm"] {
        let tokenizer = tokenizer(name);
        for piece in pieces {
            let seconds = |text: &str| {
                let start = std::time::Instant::now();
                let tokens = tokenizer.encode(text, false).expect("encodes").len();
                (start.elapsed().as_secs_f64(), tokens)
            };
            let short = piece.repeat(SHORT / piece.len() + 1);
            let first = (0..3).map(|_| seconds(&short).0).fold(0.0, f64::max);
            let (all, tokens) = seconds(&short.repeat(TIMES));
            let what: String = piece.chars().take(8).collect();
            println!("{name}, {what:?}: {tokens} tokens in {all:.3} s, {:.0} tokens/s", tokens as f64 / all);
            assert!(
                all < first * (6 * TIMES) as f64 + 1.0,
                "{name}, {what:?}: {all} s, {first} s for 1/{TIMES}"
            );
        }
    }
}

/// The model that the other tests run: its own vocabulary and template.
#[test]
fn smollm2_chains_equal_the_whole_conversation() {
    let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || {
        from("QUORATE_HOME")
            .or_else(|| from("XDG_DATA_HOME").map(|data| data.join("quorate")))
            .or_else(|| from("HOME").map(|home| home.join(".local/share/quorate")))
    };
    let path =
        from("QUORATE_MODEL").or_else(|| Some(home()?.join("models/smollm2.gguf"))).expect("a home folder");
    let file = std::fs::read(&path).unwrap_or_else(|error| {
        panic!("{}: {error}; run `make model`, or set QUORATE_MODEL", path.display())
    });
    let text = TextModel::from_gguf(&Gguf::parse(&file).expect("a whole file")).expect("a supported model");
    let messages = [
        Message::new("user", "What is a block? <|im_end|>"),
        Message::new("assistant", "Sixteen tokens."),
        Message::new("user", "And a chain?"),
        Message::new("assistant", "Blocks, one behind the other."),
        Message::new("user", "Thanks 🙂\n"),
    ];
    let options = ChatOptions::default();
    let mut chain = Vec::new();
    for (index, message) in messages.iter().enumerate() {
        let prior = &messages[..index];
        if message.role == "assistant" {
            chain.extend(text.tokenizer.encode(&message.content, false).expect("encodes"));
            chain.extend(text.encode_closing(prior, &options).expect("closes"));
        } else {
            chain.extend(text.encode_next(prior, message, true).expect("renders"));
        }
    }
    assert_eq!(chain, text.encode_chat(&messages, &options, true).expect("renders"));
}
