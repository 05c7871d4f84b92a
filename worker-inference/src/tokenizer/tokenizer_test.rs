use super::*;

/// A vocabulary of the 256 byte characters, a few merges, and three special tokens.
fn toy() -> Tokenizer {
    let alphabet: Vec<String> = (0..=0x143)
        .filter_map(char::from_u32)
        .map(String::from)
        .filter(|text| bytes::of_token(text).len() == 1)
        .collect();
    let mut texts: Vec<&str> = alphabet.iter().map(String::as_str).collect();
    texts.extend(["he", "ll", "hell", "hello", "Ġw"]);
    texts.extend(["<|start|>", "<|im_end|>", "<|sta"]);
    let merges = ["h e", "l l", "he ll", "hell o", "Ġ w"];
    let kind = |index| if index + 3 < texts.len() { 1 } else { [3, 3, 4][index + 3 - texts.len()] };
    let tokens: Vec<Token> =
        texts.iter().enumerate().map(|(index, text)| Token::new(text, kind(index))).collect();
    let special = special_tokens(&texts, &tokens);
    Tokenizer {
        bpe: merges::build(&texts, &merges).expect("the toy rules fit"),
        digits: Some(Digits::new(true)),
        byte_level: ByteLevel::new(false, false, true),
        ends: end_tokens(&special, [None, None]),
        tokens,
        special,
        bos: None,
        eos: None,
        adds_bos: false,
    }
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
        let error = merges::build(&["a", "b"], &[rule]).expect_err("refused");
        assert!(error.to_string().contains("download"), "{error}");
    }
}
