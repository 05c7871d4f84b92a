//! The llama architecture: grouped-query attention, RMS norms, rotary positions, SwiGLU. The forward pass
//! reads like the paper, from top to bottom, over a batch of rows from many sequences.

mod config;

use kernels::{Activations, Cpu, KvLayout, KvPool, Matrix, Place, RopeStyle, RopeTable};

pub use config::LlamaConfig;

use super::gguf::Gguf;
use super::weights::{ModelError, Weights};

/// Rows whose logits are computed together: enough for the fast matrix path, little enough memory.
const LOGIT_ROWS: usize = 32;

/// The weights and the working memory of one model.
pub struct Llama {
    config: LlamaConfig,
    embedding: Matrix,
    layers: Vec<Layer>,
    norm: Vec<f32>,
    /// None: the embedding serves as output matrix too.
    output: Option<Matrix>,
    rope: RopeTable,
    repacked: usize,
    buffers: Buffers,
}

struct Layer {
    attention_norm: Vec<f32>,
    q: Matrix,
    k: Matrix,
    v: Matrix,
    o: Matrix,
    ffn_norm: Vec<f32>,
    gate: Matrix,
    up: Matrix,
    down: Matrix,
}

/// One step's rows: token, position and KV place of each, and which rows read which block table.
pub struct Rows<'a> {
    pub tokens: &'a [u32],
    pub positions: &'a [u32],
    pub places: &'a [Place],
    pub sequences: &'a [kernels::Sequence<'a>],
    /// Rows whose logits are wanted, ascending.
    pub wanted: &'a [usize],
}

/// Working memory for `max_rows` rows, allocated once.
struct Buffers {
    x: Vec<f32>,
    normed: Vec<f32>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    mixed: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
    delta: Vec<f32>,
    chosen: Vec<f32>,
    logits: Vec<f32>,
    activations: Activations,
}

impl Llama {
    /// Reads and repacks all weights. `window` positions and `max_rows` rows a step will be enough.
    pub fn load(gguf: &Gguf<'_>, window: usize, max_rows: usize) -> Result<Llama, ModelError> {
        let config = LlamaConfig::from_gguf(gguf)?;
        let mut weights = Weights::new(gguf);
        let embedding = weights.matrix("token_embd.weight", config.vocabulary, config.hidden)?;
        let layers = (0..config.layers)
            .map(|index| Layer::load(&mut weights, &config, index))
            .collect::<Result<Vec<Layer>, ModelError>>()?;
        let norm = weights.vector("output_norm.weight", config.hidden)?;
        let output = match weights.has("output.weight") {
            true => Some(weights.matrix("output.weight", config.vocabulary, config.hidden)?),
            false => None,
        };
        let factors = match weights.has("rope_freqs.weight") {
            true => Some(weights.vector("rope_freqs.weight", config.head_dim / 2)?),
            false => None,
        };
        weights.finish()?;
        let (style, base) = (RopeStyle::Interleaved, config.rope_base);
        let rope =
            RopeTable::new(style, config.head_dim, window.min(config.window), base, factors.as_deref());
        let (repacked, buffers) = (weights.repacked_bytes(), Buffers::new(&config, max_rows));
        Ok(Llama { config, embedding, layers, norm, output, rope, repacked, buffers })
    }

    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    /// Bytes of the weights as they lie in memory.
    pub fn repacked_bytes(&self) -> usize {
        self.repacked
    }

    /// The shape of this model's KV.
    pub fn kv_layout(&self) -> KvLayout {
        self.config.kv_layout()
    }

    /// Runs the rows through the model, stores their keys and values, and hands out the logits of the
    /// wanted rows, in order.
    ///
    /// # Panics
    /// When there are more rows than `max_rows`, or the slices disagree.
    pub fn forward(
        &mut self,
        cpu: &Cpu,
        kv: &mut KvPool,
        rows: &Rows<'_>,
        on_logits: &mut dyn FnMut(usize, &[f32]),
    ) {
        self.embed(rows.tokens);
        for index in 0..self.layers.len() {
            self.attend(cpu, kv, rows, index);
            self.feed_forward(cpu, rows.tokens.len(), index);
        }
        self.read_out(cpu, rows.wanted, on_logits);
    }

    fn embed(&mut self, tokens: &[u32]) {
        let width = self.config.hidden;
        for (row, &token) in self.buffers.x.chunks_exact_mut(width).zip(tokens) {
            self.embedding.dequantize_row(token as usize, row);
        }
    }

    /// x += o(attention(rope(q(norm(x))), rope(k(norm(x))), v(norm(x))))
    fn attend(&mut self, cpu: &Cpu, kv: &mut KvPool, rows: &Rows<'_>, index: usize) {
        let Llama { config, layers, buffers, rope, .. } = self;
        let (layer, count) = (&layers[index], rows.tokens.len());
        let (q_width, kv_width) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        let x = &mut buffers.x[..count * config.hidden];
        let normed = &mut buffers.normed[..count * config.hidden];
        let q = &mut buffers.q[..count * q_width];
        let k = &mut buffers.k[..count * kv_width];
        let v = &mut buffers.v[..count * kv_width];
        let mixed = &mut buffers.mixed[..count * q_width];
        let delta = &mut buffers.delta[..count * config.hidden];

        cpu.rmsnorm(x, &layer.attention_norm, config.epsilon, normed);
        cpu.prepare(&mut buffers.activations, normed, count, &[&layer.q, &layer.k, &layer.v]);
        cpu.matmul_many(&mut [(&layer.q, q), (&layer.k, k), (&layer.v, v)], &buffers.activations);
        cpu.rope(rope, q, rows.positions);
        cpu.rope(rope, k, rows.positions);
        cpu.store_kv(kv, index, rows.places, k, v);
        let scale = 1.0 / (config.head_dim as f32).sqrt();
        cpu.attention(kv, index, rows.sequences, rows.positions, scale, None, q, mixed);
        cpu.prepare(&mut buffers.activations, mixed, count, &[&layer.o]);
        cpu.matmul(&layer.o, &buffers.activations, delta);
        cpu.add(x, delta);
    }

    /// x += down(silu(gate(norm(x))) * up(norm(x)))
    fn feed_forward(&mut self, cpu: &Cpu, count: usize, index: usize) {
        let Llama { config, layers, buffers, .. } = self;
        let layer = &layers[index];
        let x = &mut buffers.x[..count * config.hidden];
        let normed = &mut buffers.normed[..count * config.hidden];
        let gate = &mut buffers.gate[..count * config.ffn];
        let up = &mut buffers.up[..count * config.ffn];
        let delta = &mut buffers.delta[..count * config.hidden];

        cpu.rmsnorm(x, &layer.ffn_norm, config.epsilon, normed);
        cpu.prepare(&mut buffers.activations, normed, count, &[&layer.gate, &layer.up]);
        cpu.matmul_many(&mut [(&layer.gate, gate), (&layer.up, up)], &buffers.activations);
        cpu.silu_mul(gate, up);
        cpu.prepare(&mut buffers.activations, gate, count, &[&layer.down]);
        cpu.matmul(&layer.down, &buffers.activations, delta);
        cpu.add(x, delta);
    }

    /// logits = output(norm(x)), for the wanted rows only.
    fn read_out(&mut self, cpu: &Cpu, wanted: &[usize], on_logits: &mut dyn FnMut(usize, &[f32])) {
        let Llama { config, buffers, embedding, output, norm, .. } = self;
        let output = output.as_ref().unwrap_or(embedding);
        let width = config.hidden;
        for group in wanted.chunks(LOGIT_ROWS) {
            let chosen = &mut buffers.chosen[..group.len() * width];
            for (target, &row) in chosen.chunks_exact_mut(width).zip(group) {
                target.copy_from_slice(&buffers.x[row * width..(row + 1) * width]);
            }
            let normed = &mut buffers.normed[..group.len() * width];
            let logits = &mut buffers.logits[..group.len() * config.vocabulary];
            cpu.rmsnorm(chosen, norm, config.epsilon, normed);
            cpu.prepare(&mut buffers.activations, normed, group.len(), &[output]);
            cpu.matmul(output, &buffers.activations, logits);
            let rows = logits.chunks_exact(config.vocabulary);
            group.iter().zip(rows).for_each(|(&row, logits)| on_logits(row, logits));
        }
    }
}

impl Layer {
    fn load(weights: &mut Weights<'_, '_>, config: &LlamaConfig, index: usize) -> Result<Layer, ModelError> {
        let (hidden, ffn) = (config.hidden, config.ffn);
        let (q_width, kv_width) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        let name = |part: &str| format!("blk.{index}.{part}.weight");
        Ok(Layer {
            attention_norm: weights.vector(&name("attn_norm"), hidden)?,
            q: weights.matrix(&name("attn_q"), q_width, hidden)?,
            k: weights.matrix(&name("attn_k"), kv_width, hidden)?,
            v: weights.matrix(&name("attn_v"), kv_width, hidden)?,
            o: weights.matrix(&name("attn_output"), hidden, q_width)?,
            ffn_norm: weights.vector(&name("ffn_norm"), hidden)?,
            gate: weights.matrix(&name("ffn_gate"), ffn, hidden)?,
            up: weights.matrix(&name("ffn_up"), ffn, hidden)?,
            down: weights.matrix(&name("ffn_down"), hidden, ffn)?,
        })
    }
}

impl Buffers {
    fn new(config: &LlamaConfig, rows: usize) -> Buffers {
        let (q_width, kv_width) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        // The read-out reuses `normed` for up to LOGIT_ROWS rows.
        let wide = rows.max(LOGIT_ROWS);
        Buffers {
            x: vec![0.0; wide * config.hidden],
            normed: vec![0.0; wide * config.hidden],
            q: vec![0.0; rows * q_width],
            k: vec![0.0; rows * kv_width],
            v: vec![0.0; rows * kv_width],
            mixed: vec![0.0; rows * q_width],
            gate: vec![0.0; rows * config.ffn],
            up: vec![0.0; rows * config.ffn],
            delta: vec![0.0; rows * config.hidden],
            chosen: vec![0.0; LOGIT_ROWS * config.hidden],
            logits: vec![0.0; LOGIT_ROWS * config.vocabulary],
            activations: Activations::new(),
        }
    }
}
