//! The decoder: grouped-query attention, RMS norms, rotary positions, a gated feed-forward network. One forward
//! pass for all architectures, which reads from top to bottom, over a batch of rows from many sequences.
//!
//! Where architectures differ, a layer has a part or has none (`layer`), and the [`Shape`] holds the constants
//! (`shape`); which model has what is decided in one place, `architecture`.

mod architecture;
mod layer;
mod nearer;
mod read_out;
mod ropes;
mod shape;
mod watched;

use kernels::{Activations, Cpu, KvLayout, KvPool, Matrix, Pieces, Place};

pub use architecture::Architecture;
pub use nearer::Nearer;
pub use shape::{Shape, Sliding};
pub use watched::Watched;

use super::gguf::Gguf;
use super::weights::{ModelError, Weights};
use layer::Layer;
use nearer::{NearerBuffers, Seen};
use read_out::{LOGIT_ROWS, Shortcut};
use ropes::Ropes;

/// The weights and the working memory of one model.
pub struct Decoder {
    shape: Shape,
    embedding: Matrix,
    layers: Vec<Layer>,
    norm: Vec<f32>,
    /// None: the embedding serves as output matrix too.
    output: Option<Matrix>,
    shortcut: Option<Shortcut>,
    ropes: Ropes,
    repacked: usize,
    buffers: Buffers,
}

/// One step's rows: token, position and KV place of each, and which rows read which block table.
pub struct Rows<'a> {
    pub tokens: &'a [u32],
    /// Where each lies in its table: it sees what lies before.
    pub positions: &'a [u32],
    /// Where each stands in its text: how its query and key are turned. The same, but for texts put together from parts.
    pub stands: &'a [u32],
    pub places: &'a [Place],
    pub sequences: &'a [kernels::Sequence<'a>],
    /// Rows whose logits are wanted, ascending.
    pub wanted: &'a [usize],
    /// Nothing is wanted of these but which token is the likeliest.
    pub likeliest: bool,
    pub nearer: Nearer<'a>,
}

/// Working memory for `max_rows` rows, allocated once.
struct Buffers {
    x: Vec<f32>,
    normed: Vec<f32>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    mixed: Vec<f32>,
    delta: Vec<f32>,
    chosen: Vec<f32>,
    logits: Vec<f32>,
    nearer: NearerBuffers,
    activations: Activations,
    /// Of the inner width.
    inner: Activations,
    pieces: Pieces,
}

impl Decoder {
    /// Reads and repacks all weights. `window` positions and `max_rows` rows a step will be enough.
    pub fn load(gguf: &Gguf<'_>, window: usize, max_rows: usize) -> Result<Decoder, ModelError> {
        let shape = Shape::from_gguf(gguf)?;
        let mut weights = Weights::new(gguf);
        let embedding = weights.matrix("token_embd.weight", shape.vocabulary, shape.hidden)?;
        let layers = (0..shape.layers)
            .map(|index| Layer::load(&mut weights, &shape, index))
            .collect::<Result<Vec<Layer>, ModelError>>()?;
        let norm = weights.vector("output_norm.weight", shape.hidden)?;
        let output = match weights.has("output.weight") {
            true => Some(weights.matrix("output.weight", shape.vocabulary, shape.hidden)?),
            false => None,
        };
        let ropes = Ropes::load(&mut weights, &shape, window.min(shape.window))?;
        weights.finish()?;
        let (repacked, buffers) = (weights.repacked_bytes(), Buffers::new(&shape, max_rows));
        Ok(Decoder { shape, embedding, layers, norm, output, shortcut: None, ropes, repacked, buffers })
    }

    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Whether every layer looks at all tokens before one.
    pub fn sees_everything(&self) -> bool {
        self.layers.iter().all(|layer| layer.sliding.is_none())
    }

    /// Bytes of the weights as they lie in memory.
    pub fn repacked_bytes(&self) -> usize {
        self.repacked
    }

    /// The shape of this model's KV.
    pub fn kv_layout(&self) -> KvLayout {
        self.shape.kv_layout()
    }

    /// Runs the rows through the model, stores their keys and values, and hands out the logits of the
    /// wanted rows, in order (with `likeliest`, those that are not the largest of their row may be minus infinity).
    /// `watched` rows learn how their attention is spread.
    ///
    /// # Panics
    /// When there are more rows than `max_rows`, or the slices disagree.
    pub fn forward(
        &mut self,
        cpu: &Cpu,
        kv: &mut KvPool,
        rows: &Rows<'_>,
        watched: &mut [Watched<'_>],
        on_logits: &mut dyn FnMut(usize, &[f32]),
    ) {
        self.embed(cpu, rows.tokens);
        for index in 0..self.layers.len() {
            self.attend(cpu, kv, rows, index);
            watched.iter_mut().for_each(|watched| self.watch(cpu, kv, rows, index, watched));
            self.feed_forward(cpu, rows.tokens.len(), index);
        }
        self.read_out(cpu, rows.wanted, rows.likeliest, on_logits);
    }

    /// x = embedding(token) * scale
    fn embed(&mut self, cpu: &Cpu, tokens: &[u32]) {
        let x = &mut self.buffers.x[..tokens.len() * self.shape.hidden];
        cpu.take_rows(&self.embedding, tokens, x);
        if self.shape.embedding_scale != 1.0 {
            cpu.scale(x, self.shape.embedding_scale);
        }
    }

    /// x += norm(o(attention(rope(norm(q(norm(x)))), rope(norm(k(norm(x)))), v(norm(x))))), where the inner norms
    /// are of each head, and they, biases and the outer norm are there where the model has them.
    fn attend(&mut self, cpu: &Cpu, kv: &mut KvPool, rows: &Rows<'_>, index: usize) {
        let Decoder { shape, layers, buffers, ropes, .. } = self;
        let (layer, count) = (&layers[index], rows.tokens.len());
        let rope = ropes.of(layer);
        let x = &mut buffers.x[..count * shape.hidden];
        let normed = &mut buffers.normed[..count * shape.hidden];
        let q = &mut buffers.q[..count * shape.q_width()];
        let k = &mut buffers.k[..count * shape.kv_width()];
        let v = &mut buffers.v[..count * shape.kv_width()];
        let mixed = &mut buffers.mixed[..count * shape.q_width()];
        let delta = &mut buffers.delta[..count * shape.hidden];

        cpu.rmsnorm(x, &layer.attention_norm, shape.epsilon, normed);
        cpu.prepare(&mut buffers.activations, normed, count, &[&layer.q, &layer.k, &layer.v]);
        cpu.matmul_many(&mut [(&layer.q, q), (&layer.k, k), (&layer.v, v)], &buffers.activations);
        if let Some(bias) = &layer.biases {
            cpu.add_rows(q, &bias.q);
            cpu.add_rows(k, &bias.k);
            cpu.add_rows(v, &bias.v);
        }
        if let Some(norm) = &layer.head_norms {
            cpu.rmsnorm_in_place(q, &norm.q, shape.epsilon);
            cpu.rmsnorm_in_place(k, &norm.k, shape.epsilon);
        }
        buffers.nearer.turn(cpu, rope, &rows.nearer, q, shape.q_width());
        cpu.rope(rope, q, rows.stands);
        cpu.rope(rope, k, rows.stands);
        cpu.store_kv(kv, index, rows.places, k, v);
        let (scale, heads) = (shape.attention_scale, shape.q_width() / shape.head_dim);
        let weights = buffers.nearer.own_weights(&rows.nearer, count * heads);
        let (sequences, positions) = (rows.sequences, rows.positions);
        cpu.attention_and_weights(kv, index, sequences, positions, scale, layer.sliding, q, mixed, weights);
        let seen = Seen { kv, layer: index, scale, sliding: layer.sliding, heads };
        buffers.nearer.join(cpu, &rows.nearer, &seen, mixed);
        cpu.prepare(&mut buffers.activations, mixed, count, &[&layer.o]);
        cpu.matmul(&layer.o, &buffers.activations, delta);
        if let Some(norm) = &layer.post_attention_norm {
            cpu.rmsnorm_in_place(delta, norm, shape.epsilon);
        }
        cpu.add(x, delta);
    }

    /// Adds how the queries of a layer, which still lie where `attend` left them, spread their attention.
    fn watch(&self, cpu: &Cpu, kv: &KvPool, rows: &Rows<'_>, index: usize, watched: &mut Watched<'_>) {
        if let Some(layers) =
            Some(watched::layers(self.layers.len())).filter(|layers| layers.contains(&index))
        {
            let q = &self.buffers.q[..rows.tokens.len() * self.shape.q_width()];
            let (scale, sliding) = (self.shape.attention_scale, self.layers[index].sliding);
            let heads = self.shape.q_width() / self.shape.head_dim * layers.len();
            watched.add(heads, |sequence, segments, mass| {
                cpu.attention_mass(kv, index, sequence, rows.positions, scale, sliding, q, segments, mass);
            });
        }
    }

    /// x += norm(down(gated(gate(norm(x))) * up(norm(x)))), where the outer norm is there where the model has it.
    fn feed_forward(&mut self, cpu: &Cpu, count: usize, index: usize) {
        let Decoder { shape, layers, buffers, .. } = self;
        let layer = &layers[index];
        let x = &mut buffers.x[..count * shape.hidden];
        let normed = &mut buffers.normed[..count * shape.hidden];
        let delta = &mut buffers.delta[..count * shape.hidden];

        cpu.rmsnorm(x, &layer.ffn_norm, shape.epsilon, normed);
        cpu.prepare(&mut buffers.activations, normed, count, &[&layer.gate, &layer.up]);
        let matrices = [&layer.gate, &layer.up, &layer.down];
        cpu.gated(matrices, shape.gate, &buffers.activations, &mut buffers.inner, &mut buffers.pieces);
        cpu.matmul(&layer.down, &buffers.inner, delta);
        if let Some(norm) = &layer.post_ffn_norm {
            cpu.rmsnorm_in_place(delta, norm, shape.epsilon);
        }
        cpu.add(x, delta);
    }
}

impl Buffers {
    fn new(shape: &Shape, rows: usize) -> Buffers {
        // The read-out reuses `normed` for up to LOGIT_ROWS rows.
        let wide = rows.max(LOGIT_ROWS);
        Buffers {
            x: vec![0.0; wide * shape.hidden],
            normed: vec![0.0; wide * shape.hidden],
            q: vec![0.0; rows * shape.q_width()],
            k: vec![0.0; rows * shape.kv_width()],
            v: vec![0.0; rows * shape.kv_width()],
            mixed: vec![0.0; rows * shape.q_width()],
            delta: vec![0.0; rows * shape.hidden],
            chosen: vec![0.0; LOGIT_ROWS * shape.hidden],
            logits: vec![0.0; LOGIT_ROWS * shape.vocabulary],
            nearer: NearerBuffers::default(),
            activations: Activations::new(),
            inner: Activations::new(),
            pieces: Pieces::default(),
        }
    }
}

#[cfg(test)]
mod tests;
