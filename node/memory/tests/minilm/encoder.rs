//! The encoder against another implementation, against itself on other threads and instructions, and against files
//! that are not its own.

use std::sync::Arc;

use kernels::{Cpu, Isa};
use memory::{Encode, EncoderError, MiniLm};
use serde_json::Value;

/// Written by `../golden/make_minilm.py`: texts, with tokens and vectors of the transformers library on JAX.
fn golden() -> Vec<(String, Vec<u32>, Vec<f32>)> {
    let golden: Vec<Value> = serde_json::from_str(include_str!("../golden/minilm.json")).expect("JSON");
    let read = |it: &Value| {
        let text = it["text"].as_str().expect("a text").to_string();
        let tokens = it["tokens"].as_array().expect("tokens").iter();
        let bytes = data_encoding::BASE64.decode(it["vector"].as_str().expect("a vector").as_bytes());
        let vector =
            bytes.expect("base64").as_chunks::<4>().0.iter().map(|it| f32::from_le_bytes(*it)).collect();
        (text, tokens.map(|it| it.as_u64().expect("an id") as u32).collect(), vector)
    };
    golden.iter().map(read).collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

#[test]
fn vectors_are_those_of_another_implementation() {
    let encoder = crate::support::encoder(2);
    let mut worst: f64 = 1.0;
    for (text, tokens, vector) in golden() {
        assert_eq!(encoder.tokens(&text), tokens, "{text:?}");
        let own = encoder.question(&text);
        assert!((cosine(&own, &own) - 1.0).abs() < 1e-5);
        worst = worst.min(cosine(&own, &vector));
    }
    println!("least cosine with the reference: {worst:.9}");
    assert!(worst >= 0.999_999);
}

/// The figures of the model's own documentation.
#[test]
fn published_similarities_come_out() {
    let encoder = crate::support::encoder(2);
    let texts = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."];
    let [weather, sunny, stadium] = texts.map(|text| encoder.question(text));
    for (a, b, published) in
        [(&weather, &sunny, 0.6660), (&weather, &stadium, 0.1046), (&sunny, &stadium, 0.1411)]
    {
        assert!((cosine(a, b) - published).abs() < 1e-4, "{} for {published}", cosine(a, b));
    }
}

fn bits(encoder: &MiniLm, text: &str) -> Vec<Vec<u32>> {
    let vectors = encoder.passages(text);
    vectors.iter().map(|vector| vector.iter().map(|value| value.to_bits()).collect()).collect()
}

#[test]
fn threads_change_no_bit() {
    let text = "Deterministic arithmetic: the same bits, whoever computes them. ".repeat(40);
    let alone = bits(&crate::support::encoder(1), &text);
    assert_eq!(alone.len(), 3, "a long text has several windows");
    assert_eq!(bits(&crate::support::encoder(3), &text), alone);
}

/// A short text: the plain path takes seconds where the fast ones take milliseconds.
#[test]
fn instructions_change_no_bit() {
    let text = "The same bits, whoever computes them, on whatever machine that may be.";
    let fast = bits(&crate::support::encoder(2), text);
    for isa in Isa::available() {
        assert_eq!(bits(&crate::support::encoder_on(isa, 2), text), fast, "{isa}");
    }
}

#[test]
fn any_text_has_vectors() {
    let encoder = crate::support::encoder(2);
    for text in ["", " ", "\0\u{1}", "\u{1f9a9}", &"\u{8a18}".repeat(3000), &"x".repeat(100_000)] {
        let vectors = encoder.passages(text);
        assert!((1..=memory::limits::VECTORS_PER_ITEM).contains(&vectors.len()));
        assert!(vectors.iter().flatten().all(|value| value.is_finite()));
    }
}

#[test]
fn damaged_and_foreign_files_are_refused() {
    let [mut weights, vocabulary] = crate::support::files();
    let cpu = Arc::new(Cpu::new(Isa::pick(None).unwrap(), 1, |_| ()));
    let read = |weights: &[u8], vocabulary: &[u8]| MiniLm::new(weights, vocabulary, cpu.clone()).err();
    for cut in [0, 7, 8, 1000, weights.len() - 1] {
        assert!(matches!(read(&weights[..cut], &vocabulary), Some(EncoderError::Weights(_))), "cut at {cut}");
    }
    assert!(matches!(read(&weights, b"{}"), Some(EncoderError::Vocabulary(_))));
    let unmarked = String::from_utf8(vocabulary.clone()).unwrap().replace("[CLS]", "[XYZ]");
    assert!(matches!(read(&weights, unmarked.as_bytes()), Some(EncoderError::Vocabulary(_))));
    // The header claims more than there is.
    weights[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(matches!(read(&weights, &vocabulary), Some(EncoderError::Weights(_))));
}
