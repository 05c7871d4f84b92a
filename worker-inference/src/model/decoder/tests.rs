use super::*;
use crate::model::gguf::gguf_test::Writer;

/// One metadata entry.
enum Entry {
    Number(u32),
    Float(f32),
    Flag(bool),
    Text(&'static str),
    Flags(Vec<bool>),
}
use Entry::{Flag, Flags, Float, Number, Text};

/// A header without tensors: enough to read a shape.
fn header(architecture: &str, entries: &[(&str, Entry)]) -> Vec<u8> {
    let key = |part: &str| format!("{architecture}.{part}");
    let number = |writer: Writer, part: &str, value: u32| writer.text(&key(part)).u32(4).u32(value);
    let mut writer = Writer::header(0, 8 + entries.len() as u64);
    writer = writer.text("general.architecture").u32(8).text(architecture);
    for (part, value) in [
        ("block_count", 8),
        ("context_length", 4096),
        ("embedding_length", 640),
        ("feed_forward_length", 2048),
        ("attention.head_count", 4),
    ] {
        writer = number(writer, part, value);
    }
    writer = writer.text(&key("attention.layer_norm_rms_epsilon")).u32(6).bytes(&1e-6_f32.to_le_bytes());
    writer = writer.text("tokenizer.ggml.tokens").u32(9).u32(8).u64(2).text("a").text("b");
    for (part, entry) in entries {
        writer = writer.text(&key(part));
        writer = match entry {
            Number(value) => writer.u32(4).u32(*value),
            Float(value) => writer.u32(6).bytes(&value.to_le_bytes()),
            Flag(value) => writer.u32(7).bytes(&[u8::from(*value)]),
            Text(value) => writer.u32(8).text(value),
            Flags(values) => {
                let bytes: Vec<u8> = values.iter().map(|flag| u8::from(*flag)).collect();
                writer.u32(9).u32(7).u64(bytes.len() as u64).bytes(&bytes)
            }
        };
    }
    writer.data(0)
}

fn read(architecture: &str, entries: &[(&str, Entry)]) -> Result<Shape, ModelError> {
    Shape::from_gguf(&Gguf::parse(&header(architecture, entries)).expect("well formed"))
}

fn shape(architecture: &str, entries: &[(&str, Entry)]) -> Shape {
    read(architecture, entries).unwrap_or_else(|error| panic!("{error}"))
}

fn refused(architecture: &str, entries: &[(&str, Entry)]) -> String {
    read(architecture, entries).expect_err("must be refused").to_string()
}

#[test]
fn sizes_have_the_defaults_of_the_format() {
    for architecture in Architecture::ALL {
        let found = shape(architecture.name(), &[]);
        assert_eq!(found.architecture, architecture);
        assert_eq!((found.heads, found.kv_heads, found.head_dim), (4, 4, 160));
        assert_eq!((found.rope_base, found.rope_divisor, found.sliding), (10_000.0, 1.0, None));
        assert_eq!(found.attention_scale, 1.0 / 160_f32.sqrt());
    }
}

#[test]
fn heads_may_be_wider_than_their_share() {
    let found =
        shape("qwen3", &[("attention.key_length", Number(256)), ("attention.head_count_kv", Number(2))]);
    assert_eq!((found.q_width(), found.kv_width(), found.hidden), (1024, 512, 640));
}

#[test]
fn one_layer_in_six_of_gemma_sees_everything() {
    let found = shape("gemma3", &[("attention.sliding_window", Number(512))]);
    let windows: Vec<Option<usize>> = (0..8).map(|layer| found.sliding_of(layer)).collect();
    let near = Some(512);
    assert_eq!(windows, [near, near, near, near, near, None, near, near]);
    assert_eq!(found.sliding.as_ref().map(|sliding| sliding.rope_base), Some(10_000.0));
    assert_eq!(found.embedding_scale, 640_f32.sqrt());
}

#[test]
fn the_file_may_say_which_layers_slide() {
    let window = || ("attention.sliding_window", Number(512));
    let layers = |entry| {
        let found = shape("gemma3", &[window(), ("attention.sliding_window_pattern", entry)]);
        found.sliding.expect("it slides").layers
    };
    assert_eq!(layers(Number(2)), [true, false, true, false, true, false, true, false]);
    assert_eq!(layers(Number(1)), [false; 8]);
    let listed = vec![false, true, true, false, false, false, true, true];
    assert_eq!(layers(Flags(listed.clone())), listed);
    let short = [window(), ("attention.sliding_window_pattern", Flags(vec![true; 3]))];
    assert!(refused("gemma3", &short).contains("one for each of 8 layers"));
}

#[test]
fn only_linear_scaling_is_taken() {
    let scaled = |kind, factor| {
        read("gemma3", &[("rope.scaling.type", Text(kind)), ("rope.scaling.factor", Float(factor))])
            .map(|shape| shape.rope_divisor)
            .map_err(|error| error.to_string())
    };
    assert_eq!(scaled("linear", 8.0), Ok(8.0));
    assert_eq!(scaled("none", 8.0), Ok(1.0));
    assert!(scaled("yarn", 4.0).expect_err("refused").contains("\"yarn\""));
    assert!(scaled("longrope", 4.0).expect_err("refused").contains("\"longrope\""));
}

#[test]
fn the_largest_gemma_scales_attention_by_its_width() {
    let mut file = header("gemma3", &[("attention.key_length", Number(128))]);
    assert_eq!(Shape::from_gguf(&Gguf::parse(&file).unwrap()).unwrap().attention_scale, 1.0 / 128_f32.sqrt());
    let at = file.windows(11).position(|window| window == b"block_count").expect("there") + 11 + 4;
    file[at] = 62;
    assert_eq!(Shape::from_gguf(&Gguf::parse(&file).unwrap()).unwrap().attention_scale, 1.0 / 160_f32.sqrt());
}

#[test]
fn what_would_need_other_arithmetic_is_refused_by_name() {
    let unknown = refused("mamba", &[]);
    assert!(unknown.contains("\"mamba\"") && unknown.contains("llama, qwen2, qwen3, gemma3"), "{unknown}");
    for (architecture, part, entry, named) in [
        ("llama", "expert_count", Number(8), "experts"),
        ("llama", "attention.sliding_window", Number(4096), "sliding window"),
        ("qwen3", "pooling_type", Number(1), "pooling"),
        ("qwen2", "attention.causal", Flag(false), "later tokens"),
        ("gemma3", "final_logit_softcapping", Float(30.0), "softcapping"),
        ("gemma3", "attn_logit_softcapping", Float(50.0), "softcapping"),
    ] {
        let error = refused(architecture, &[(part, entry)]);
        assert!(error.contains(named) && error.contains(&format!("{architecture}.{part}")), "{error}");
    }
}

#[test]
fn sizes_that_cannot_be_are_refused() {
    for (part, entry) in [
        ("attention.head_count_kv", Number(3)),
        ("attention.key_length", Number(24)),
        ("attention.key_length", Number(512)),
        ("attention.value_length", Number(64)),
        ("rope.dimension_count", Number(80)),
        ("rope.freq_base", Float(0.0)),
        ("rope.freq_base", Float(f32::NAN)),
        ("rope.freq_base", Float(f32::INFINITY)),
    ] {
        let error = refused("qwen3", &[(part, entry)]);
        assert!(error.contains(&format!("qwen3.{part}")), "{error}");
    }
}
