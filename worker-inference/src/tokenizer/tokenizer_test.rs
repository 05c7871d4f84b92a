use super::toy::{CONTROL, Toy, USER_DEFINED};
use super::*;

/// A vocabulary of the 256 byte characters, a few merges, and three special tokens.
fn toy() -> Tokenizer {
    let merges = ["h e", "l l", "he ll", "hell o", "Ġ w"];
    let toy = Toy::bpe("smollm", &merges).with(CONTROL, &["<|start|>", "<|im_end|>"]);
    toy.with(USER_DEFINED, &["<|sta"]).read().expect("the toy is whole").tokenizer
}

/// A SentencePiece vocabulary with a space in front of texts.
fn pieces() -> Tokenizer {
    let toy = Toy::spm(&["he", "ll", "hell", "hello", "\u{2581}w", "\u{2581}hello"]);
    toy.with(CONTROL, &["[INST]"]).with(USER_DEFINED, &["  "]).read().expect("the toy is whole").tokenizer
}

#[test]
fn merges_digits_and_bytes() {
    let tokenizer = toy();
    let words = |text: &str| -> Vec<String> {
        let ids = tokenizer.encode(text, false).expect("encodes");
        ids.iter().map(|&id| String::from_utf8_lossy(tokenizer.bytes(id)).into_owned()).collect()
    };
    assert_eq!(words("hello w"), ["hello", " w"]);
    assert_eq!(words("12"), ["1", "2"]);
    for text in ["", " ", "ü→🙂", "a\0b\r\n\t", "  two  spaces ", "x1y22"] {
        assert_eq!(tokenizer.decode(&tokenizer.encode(text, false).expect("encodes")), text);
    }
}

#[test]
fn control_tokens_only_on_demand() {
    let tokenizer = toy();
    let text = "hello<|im_end|>w";
    let trusted = tokenizer.encode(text, true).expect("encodes");
    let plain = tokenizer.encode(text, false).expect("encodes");
    assert_eq!(trusted.len(), 3);
    assert!(tokenizer.is_end(trusted[1]));
    assert!(!plain.iter().any(|&id| tokenizer.is_end(id)));
    assert_eq!(tokenizer.decode(&trusted), "hellow");
    assert_eq!(tokenizer.decode(&plain), text);
}

#[test]
fn a_control_token_may_not_touch_untrusted_text() {
    let tokenizer = toy();
    let text = "<|im_end|>x<|im_end|>";
    let ends = |untrusted: Range<usize>| {
        let ids = tokenizer.encode_guarded(text, std::slice::from_ref(&untrusted)).expect("encodes");
        ids.iter().filter(|&&id| tokenizer.is_end(id)).count()
    };
    assert_eq!(ends(10..11), 2);
    assert_eq!(ends(9..11), 1);
    assert_eq!(ends(10..12), 1);
    assert_eq!(ends(0..21), 0);
}

#[test]
fn the_longest_special_token_wins_and_user_defined_ones_are_always_found() {
    let tokenizer = toy();
    let start = tokenizer.encode("<|start|>", true).expect("encodes");
    assert_eq!(start.len(), 1);
    let piece = tokenizer.encode("<|sta", false).expect("encodes");
    assert_eq!(tokenizer.decode(&piece), "<|sta");
    assert_eq!(piece.len(), 1);
}

#[test]
fn rules_outside_the_vocabulary_are_refused() {
    for rule in ["a", "a zz", "a b", ""] {
        let mut toy = Toy::bpe("gpt-2", &[]);
        toy.merges.push(rule.into());
        let error = toy.read().expect_err("refused");
        assert!(error.to_string().contains("download"), "{error}");
    }
}

#[test]
fn unknown_models_and_rules_are_refused_by_name() {
    let mut toy = Toy::bpe("gpt-2", &[]);
    toy.pre = Some("falcon");
    let error = toy.read().expect_err("refused").to_string();
    assert!(error.contains("\"falcon\"") && error.contains("qwen2") && error.contains("tekken"), "{error}");
    toy.model = "bert";
    let error = toy.read().expect_err("refused").to_string();
    assert!(error.contains("\"bert\"") && error.contains("llama, SentencePiece"), "{error}");
}

#[test]
fn a_byte_without_a_token_is_left_out() {
    let mut toy = Toy::bpe("gpt-2", &[]);
    toy.tokens.retain(|(text, _, _)| text != "x");
    let tokenizer = toy.read().expect("a usable vocabulary").tokenizer;
    assert_eq!(tokenizer.decode(&tokenizer.encode("axb", false).expect("encodes")), "ab");
}

#[test]
fn damaged_vocabularies_are_refused() {
    let whole = Toy::spm(&["ab"]);
    let damages: [fn(&mut Toy); 4] = [
        |toy| toy.missing = 1,
        |toy| toy.tokens.clear(),
        |toy| toy.numbers.push(("tokenizer.ggml.bos_token_id", 9999)),
        |toy| toy.numbers.push(("tokenizer.ggml.unknown_token_id", u32::MAX)),
    ];
    for damage in damages {
        let mut toy = whole.clone();
        damage(&mut toy);
        assert!(toy.read().expect_err("refused").to_string().contains("download"));
    }
}

#[test]
fn sentence_pieces_begin_with_a_space_that_is_taken_away_again() {
    let tokenizer = pieces();
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.adds_bos()), (Some(1), Some(2), true));
    let encode = |text: &str| tokenizer.encode(text, true).expect("encodes");
    assert_eq!(encode("hello").len(), 1);
    assert_eq!(encode("hello[INST]hello w").len(), 4);
    for text in ["", "hello", " hello", "ü\n", "a  b", "x[INST", "   ", "<s", "<0x0A>"] {
        let ids = tokenizer.encode(text, false).expect("encodes");
        assert_eq!(tokenizer.decode(&ids), text);
    }
    let behind = |behind: &str| tokenizer.encode_behind(behind, "hello", &[]).expect("encodes");
    assert_eq!(behind("x"), tokenizer.encode("xhello", true).expect("encodes")[2..]);
    assert_eq!(behind("x[INST]"), encode("hello"));
}

#[test]
fn no_text_is_merged_into_a_control_token_or_a_byte() {
    let toy = Toy::spm(&["<s", "[I", "NS", "[INS", "T]", "<0", "x0A>"]).with(CONTROL, &["[INST]"]);
    let tokenizer = toy.read().expect("the toy is whole").tokenizer;
    for text in ["<s>", "[INST]", "<0x0A>"] {
        let ids = tokenizer.encode(text, false).expect("encodes");
        assert_eq!(tokenizer.decode(&ids), text);
    }
}

/// Numbers that look random and are the same in every run.
fn random(state: &mut u64, limit: usize) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as usize % limit
}

#[test]
fn damaged_files_give_errors_or_tokenizers_but_no_panic() {
    let template = "{{ bos_token }}{% for m in messages %}[INST]{{ m.content }}{% endfor %}";
    let merges = ["h e", "l l", "he ll", "hell o"];
    let files = [
        Toy::bpe("qwen2", &merges).with(CONTROL, &["[INST]"]).template(template).file(),
        Toy::spm(&["he", "ll", "hell", "hello"]).with(USER_DEFINED, &["[INST]"]).template(template).file(),
    ];
    let (mut state, mut usable) = (5, 0);
    for round in 0..1500 {
        let mut file = files[round % 2].clone();
        for _ in 0..=random(&mut state, 4) {
            let at = random(&mut state, file.len());
            match random(&mut state, 3) {
                0 => file[at] ^= 1 << random(&mut state, 8),
                1 => file[at] = [0, 1, 4, 0x7f, 0xff][random(&mut state, 5)],
                _ => {
                    file.truncate(at.max(32));
                    break;
                }
            }
        }
        let Ok(gguf) = Gguf::parse(&file) else { continue };
        let Ok(model) = crate::text::TextModel::from_gguf(&gguf) else { continue };
        usable += 1;
        let text: String =
            (0..40).filter_map(|_| char::from_u32(random(&mut state, 0x3000) as u32)).collect();
        for text in [text.as_str(), "hello [INST] hello", ""] {
            if let Ok(ids) = model.tokenizer.encode(text, round % 3 == 0) {
                assert!(ids.iter().all(|&id| (id as usize) < model.tokenizer.vocabulary()));
                let _shown = model.tokenizer.decode(&ids);
            }
            let _rendered = model.encode_next(&[], &crate::chat::Message::new("user", text), true);
        }
    }
    assert!(usable > 50, "only {usable} damaged files could be used at all");
}
