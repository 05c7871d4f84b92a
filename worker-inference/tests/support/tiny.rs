//! A whole small model file, field by field, so that tests can bend any of them. The tests' own encoder.

pub(crate) const TEXT: u32 = 8;
pub(crate) const LIST: u32 = 9;
pub(crate) const U32: u32 = 4;
const F32: u32 = 6;

const HIDDEN: u64 = 32;
const FFN: u64 = 64;
const KV: u64 = 16;
const LAYERS: u32 = 2;
const Q8_0: u32 = 8;

/// A GGUF file before it is written.
#[derive(Debug, Clone)]
pub(crate) struct File {
    pub(crate) version: u32,
    /// What the header says, where it is not the truth.
    pub(crate) tensor_count: Option<u64>,
    pub(crate) pair_count: Option<u64>,
    pub(crate) pairs: Vec<Pair>,
    pub(crate) tensors: Vec<Tensor>,
    pub(crate) alignment: usize,
}

/// One metadata entry: the key, the number of its kind, the value as it is written.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    pub(crate) key: Vec<u8>,
    pub(crate) kind: u32,
    pub(crate) value: Vec<u8>,
}

#[derive(Debug, Clone)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) dimensions: Vec<u64>,
    pub(crate) type_id: u32,
    /// Where the file says that it lies, where that is not the truth.
    pub(crate) offset: Option<u64>,
    pub(crate) data: Vec<u8>,
}

pub(crate) fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

pub(crate) fn texts(texts: &[String]) -> Vec<u8> {
    let head = [&TEXT.to_le_bytes()[..], &(texts.len() as u64).to_le_bytes()].concat();
    texts.iter().fold(head, |list, entry| [list, text(entry)].concat())
}

pub(crate) fn numbers(values: &[u32]) -> Vec<u8> {
    let head = [&5_u32.to_le_bytes()[..], &(values.len() as u64).to_le_bytes()].concat();
    values.iter().fold(head, |list, value| [&list[..], &value.to_le_bytes()].concat())
}

/// The printable characters that stand for bytes, two merged tokens, and two control tokens.
pub(crate) fn vocabulary() -> Vec<String> {
    let printable = (0x21..=0x7e).chain(0xa1..=0xac).chain(0xae..=0xff).chain(0x100..=0x143);
    let mut tokens: Vec<String> = printable.filter_map(char::from_u32).map(String::from).collect();
    tokens.extend(["he", "Ġw", "<|im_end|>", "<|im_start|>"].map(String::from));
    tokens
}

impl File {
    /// A llama of two layers in Q8_0 with random weights and a window of 8,192 tokens, that runs.
    pub(crate) fn tiny() -> File {
        let tokens = vocabulary();
        let mut file = File {
            version: 3,
            tensor_count: None,
            pair_count: None,
            pairs: Vec::new(),
            tensors: Vec::new(),
            alignment: 32,
        };
        file.add_sizes();
        file.add_words(&tokens);
        file.add_tensors(tokens.len() as u64);
        file
    }

    fn add_sizes(&mut self) {
        self.set_text("general.architecture", "llama");
        let sizes = [
            ("block_count", LAYERS),
            ("context_length", 8192),
            ("embedding_length", HIDDEN as u32),
            ("feed_forward_length", FFN as u32),
            ("attention.head_count", 2),
            ("attention.head_count_kv", 1),
            ("rope.dimension_count", 16),
        ];
        sizes.iter().for_each(|(key, size)| self.set_number(&format!("llama.{key}"), *size));
        self.set("llama.attention.layer_norm_rms_epsilon", F32, 1e-5_f32.to_le_bytes().to_vec());
    }

    fn add_words(&mut self, tokens: &[String]) {
        let kinds: Vec<u32> = (0..tokens.len()).map(|at| if at + 2 < tokens.len() { 1 } else { 3 }).collect();
        self.set_text("tokenizer.ggml.model", "gpt2");
        self.set_text("tokenizer.ggml.pre", "smollm");
        self.set("tokenizer.ggml.tokens", LIST, texts(tokens));
        self.set("tokenizer.ggml.token_type", LIST, numbers(&kinds));
        self.set("tokenizer.ggml.merges", LIST, texts(&["h e".into(), "Ġ w".into()]));
        self.set_number("tokenizer.ggml.eos_token_id", tokens.len() as u32 - 2);
        let template = "{% for m in messages %}{{ '<|im_start|>' + m.role + m.content }}{% endfor %}";
        self.set_text("tokenizer.chat_template", template);
    }

    fn add_tensors(&mut self, vocabulary: u64) {
        let mut seed = 5;
        let mut add = |name: String, dimensions: &[u64], type_id: u32| {
            let count = dimensions.iter().product();
            let data =
                if type_id == 0 { floats(count, &mut seed) } else { bytes_in_blocks(count, &mut seed) };
            self.tensors.push(Tensor { name, dimensions: dimensions.to_vec(), type_id, offset: None, data });
        };
        add("token_embd.weight".into(), &[HIDDEN, vocabulary], Q8_0);
        for layer in 0..LAYERS {
            let mut part = |part: &str, dimensions: &[u64], type_id| {
                add(format!("blk.{layer}.{part}.weight"), dimensions, type_id);
            };
            part("attn_norm", &[HIDDEN], 0);
            part("attn_q", &[HIDDEN, HIDDEN], Q8_0);
            part("attn_k", &[HIDDEN, KV], Q8_0);
            part("attn_v", &[HIDDEN, KV], Q8_0);
            part("attn_output", &[HIDDEN, HIDDEN], Q8_0);
            part("ffn_norm", &[HIDDEN], 0);
            part("ffn_gate", &[HIDDEN, FFN], Q8_0);
            part("ffn_up", &[HIDDEN, FFN], Q8_0);
            part("ffn_down", &[FFN, HIDDEN], Q8_0);
        }
        add("output_norm.weight".into(), &[HIDDEN], 0);
    }

    /// Writes over a metadata entry, or adds it.
    pub(crate) fn set(&mut self, key: &str, kind: u32, value: Vec<u8>) {
        match self.pairs.iter_mut().find(|pair| pair.key == key.as_bytes()) {
            Some(pair) => (pair.kind, pair.value) = (kind, value),
            None => self.pairs.push(Pair { key: key.into(), kind, value }),
        }
    }

    pub(crate) fn set_text(&mut self, key: &str, value: &str) {
        self.set(key, TEXT, text(value));
    }

    pub(crate) fn set_number(&mut self, key: &str, value: u32) {
        self.set(key, U32, value.to_le_bytes().to_vec());
    }

    pub(crate) fn remove(&mut self, key: &str) {
        self.pairs.retain(|pair| pair.key != key.as_bytes());
    }

    pub(crate) fn tensor(&mut self, name: &str) -> &mut Tensor {
        self.tensors
            .iter_mut()
            .find(|tensor| tensor.name == name)
            .unwrap_or_else(|| panic!("no tensor {name}"))
    }

    /// The bytes of the file.
    pub(crate) fn build(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(self.tensor_count.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        out.extend(self.pair_count.unwrap_or(self.pairs.len() as u64).to_le_bytes());
        for Pair { key, kind, value } in &self.pairs {
            out.extend((key.len() as u64).to_le_bytes());
            out.extend(key);
            out.extend(kind.to_le_bytes());
            out.extend(value);
        }
        let mut data = Vec::new();
        for tensor in &self.tensors {
            out.extend(text(&tensor.name));
            out.extend((tensor.dimensions.len() as u32).to_le_bytes());
            tensor.dimensions.iter().for_each(|dimension| out.extend(dimension.to_le_bytes()));
            out.extend(tensor.type_id.to_le_bytes());
            out.extend(tensor.offset.unwrap_or(data.len() as u64).to_le_bytes());
            data.extend(&tensor.data);
            data.resize(data.len().next_multiple_of(self.alignment), 0);
        }
        out.resize(out.len().next_multiple_of(self.alignment), 0);
        out.extend(data);
        out
    }
}

/// Small numbers of both signs.
fn floats(count: u64, seed: &mut u64) -> Vec<u8> {
    (0..count).flat_map(|_| ((f32::from(random(seed) as u8) - 127.5) / 512.0).to_le_bytes()).collect()
}

/// A scale of 1/1024 before every 32 signed bytes.
fn bytes_in_blocks(count: u64, seed: &mut u64) -> Vec<u8> {
    let mut block = || [vec![0x00, 0x14], (0..32).map(|_| random(seed) as u8).collect()].concat();
    (0..count / 32).flat_map(|_| block()).collect()
}

/// splitmix64.
pub(crate) fn random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*seed ^ (*seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 16
}
