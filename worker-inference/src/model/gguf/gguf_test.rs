//! A small file is built here field by field, then damaged in every way we can think of.

use super::*;

/// Writes GGUF fields; the tests' own encoder, so that the reader is checked against something else.
#[derive(Default, Clone)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }
    pub(crate) fn u32(self, value: u32) -> Self {
        self.bytes(&value.to_le_bytes())
    }
    pub(crate) fn u64(self, value: u64) -> Self {
        self.bytes(&value.to_le_bytes())
    }
    pub(crate) fn text(self, text: &str) -> Self {
        self.u64(text.len() as u64).bytes(text.as_bytes())
    }
    pub(crate) fn header(tensors: u64, pairs: u64) -> Self {
        Writer::default().bytes(b"GGUF").u32(3).u64(tensors).u64(pairs)
    }
    pub(crate) fn tensor(self, name: &str, dimensions: &[u64], type_id: u32, offset: u64) -> Self {
        let named = self.text(name).u32(dimensions.len() as u32);
        dimensions.iter().fold(named, |writer, &dimension| writer.u64(dimension)).u32(type_id).u64(offset)
    }
    pub(crate) fn data(mut self, len: usize) -> Vec<u8> {
        self.0.resize(self.0.len().next_multiple_of(32), 0);
        self.0.extend((0..len).map(|index| index as u8));
        self.0
    }
}

fn small_file() -> Vec<u8> {
    Writer::header(2, 6)
        .text("name")
        .u32(8)
        .text("tiny")
        .text("layers")
        .u32(4)
        .u32(2)
        .text("epsilon")
        .u32(6)
        .bytes(&1e-5_f32.to_le_bytes())
        .text("flag")
        .u32(7)
        .bytes(&[1])
        .text("tokens")
        .u32(9)
        .u32(8)
        .u64(3)
        .text("a")
        .text("b")
        .text("ü")
        .text("nested")
        .u32(9)
        .u32(9)
        .u64(2)
        .u32(4)
        .u64(1)
        .u32(7)
        .u32(8)
        .u64(1)
        .text("x")
        .tensor("norm", &[8], 0, 0)
        .tensor("weight", &[32, 2], 8, 32)
        .data(32 + 2 * 34)
}

#[test]
fn reads_what_was_written() {
    let file = small_file();
    let gguf = Gguf::parse(&file).expect("a good file");
    assert_eq!(gguf.text("name"), Ok("tiny"));
    assert_eq!(gguf.number("layers"), Ok(2));
    assert_eq!(gguf.float("epsilon"), Ok(f64::from(1e-5_f32)));
    assert_eq!(gguf.flag_or("flag", false), Ok(true));
    assert_eq!(gguf.texts("tokens"), Ok(&["a", "b", "ü"][..]));
    assert_eq!(gguf.number_or("absent", 9), Ok(9));
    let weight = gguf.tensor("weight").expect("the tensor");
    assert_eq!((weight.type_id, weight.dimensions.as_slice()), (TypeId::Q8_0, &[32, 2][..]));
    assert_eq!(weight.bytes.len(), 2 * 34);
    assert_eq!(weight.bytes[0], 32);
}

#[test]
fn a_wrong_kind_and_a_missing_key_are_named() {
    let file = small_file();
    let gguf = Gguf::parse(&file).expect("a good file");
    assert_eq!(gguf.number("absent"), Err(GgufError::Missing("absent".into())));
    let error = gguf.number("name").expect_err("not a number").to_string();
    assert!(error.contains("name") && error.contains("text") && error.contains("whole number"), "{error}");
}

#[test]
fn every_truncation_is_an_error() {
    let file = small_file();
    for len in 0..file.len() {
        let error = Gguf::parse(&file[..len]).expect_err("truncated");
        assert!(!matches!(error, GgufError::Version(_)), "cut at {len}: {error}");
    }
}

#[test]
fn random_damage_never_panics() {
    let file = small_file();
    let mut seed = 1_u64;
    let mut refused = 0;
    for _ in 0..20_000 {
        let mut damaged = file.clone();
        for _ in 0..1 + random(&mut seed) % 4 {
            let at = random(&mut seed) as usize % damaged.len();
            damaged[at] = random(&mut seed) as u8;
        }
        refused += usize::from(Gguf::parse(&damaged).is_err());
    }
    assert!(refused > 1_000, "the damage must reach the checks: {refused}");
}

/// splitmix64: enough to choose bytes to damage.
pub(crate) fn random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*seed ^ (*seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 16
}

fn error_of(file: &[u8]) -> GgufError {
    Gguf::parse(file).expect_err("must be refused")
}

#[test]
fn huge_counts_are_refused_before_anything_is_allocated() {
    for (tensors, pairs) in [(u64::MAX, 0), (0, u64::MAX), (1 << 40, 1), (0, 1 << 33)] {
        let file = Writer::header(tensors, pairs).data(4096);
        assert!(matches!(error_of(&file), GgufError::TooMany { .. }));
    }
    for kind in [4_u32, 8, 9] {
        let file = Writer::header(0, 1).text("list").u32(9).u32(kind).u64(u64::MAX / 4).data(4096);
        assert!(matches!(error_of(&file), GgufError::TooMany { .. }));
    }
    let file = Writer::header(0, 1).u64(u64::MAX).data(4096);
    assert!(matches!(error_of(&file), GgufError::TooMany { .. }));
}

#[test]
fn lies_about_tensors_are_refused() {
    let refused = |dimensions: &[u64], type_id, offset| {
        error_of(&Writer::header(1, 0).tensor("t", dimensions, type_id, offset).data(64))
    };
    assert!(matches!(refused(&[1 << 20], 0, 0), GgufError::Extent { .. }));
    assert!(matches!(refused(&[8], 0, 64), GgufError::Extent { .. }));
    assert!(matches!(refused(&[8], 0, u64::MAX - 31), GgufError::Invalid { .. }));
    assert!(matches!(refused(&[u64::MAX, u64::MAX], 0, 0), GgufError::Invalid { .. }));
    assert!(matches!(refused(&[31], 8, 0), GgufError::Invalid { .. }));
    assert!(matches!(refused(&[8], 0, 7), GgufError::Invalid { .. }));
    assert!(matches!(refused(&[0], 0, 0), GgufError::Invalid { .. }));
    assert!(matches!(refused(&[], 0, 0), GgufError::Invalid { .. }));
    assert!(matches!(refused(&[1, 1, 1, 1, 1], 0, 0), GgufError::Invalid { .. }));
}

#[test]
fn names_appear_once() {
    let twice = Writer::header(0, 2).text("k").u32(4).u32(1).text("k").u32(4).u32(1).data(0);
    assert!(matches!(error_of(&twice), GgufError::Invalid { .. }));
    let twice = Writer::header(2, 0).tensor("t", &[1], 0, 0).tensor("t", &[1], 0, 0).data(64);
    assert!(matches!(error_of(&twice), GgufError::Invalid { .. }));
}

#[test]
fn deep_nesting_odd_alignment_and_other_formats_are_refused() {
    let deep = (0..64).fold(Writer::header(0, 1).text("deep").u32(9), |file, _| file.u32(9).u64(1)).data(64);
    assert!(error_of(&deep).to_string().contains("nested"));
    for alignment in [0_u32, 3, u32::MAX] {
        let file = Writer::header(0, 1).text("general.alignment").u32(4).u32(alignment).data(64);
        assert!(error_of(&file).to_string().contains("power of two"));
    }
    assert!(matches!(error_of(b"PK\x03\x04 a zip file"), GgufError::Magic { .. }));
    assert_eq!(error_of(b"GGUF\x01\0\0\0"), GgufError::Version(1));
    assert_eq!(error_of(b"GGUF\0\0\0\x03"), GgufError::BigEndian);
}

#[test]
fn an_unknown_tensor_type_is_named_but_not_sized() {
    let file = Writer::header(1, 0).tensor("t", &[256], 999, 0).data(0);
    let gguf = Gguf::parse(&file).expect("the header is fine");
    assert_eq!(gguf.tensor("t").map(|tensor| tensor.type_id.to_string()), Some("type 999".into()));
}
