//! The forward pass, from top to bottom: words and positions, six layers of attention and a wide step, the mean.

use kernels::{Activations, Cpu, Matrix};

use super::EncoderError;
use super::arithmetic::{gelu, normalize, softmax};
use super::weights::Weights;
use crate::vectors::dot;

/// Numbers of a token's row, and of the vector.
pub(super) const WIDTH: usize = 384;
const LAYERS: usize = 6;
const HEADS: usize = 12;
const HEAD: usize = WIDTH / HEADS;
const WIDE: usize = 1536;
const VOCABULARY: usize = 30_522;
const POSITIONS: usize = 512;

pub(super) struct Bert {
    words: Vec<f32>,
    /// With the first token type added, the only one that a single text has.
    positions: Vec<f32>,
    norm: Norm,
    layers: Vec<Layer>,
}

struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    mixed: Linear,
    mixed_norm: Norm,
    wide: Linear,
    narrow: Linear,
    norm: Norm,
}

struct Linear {
    matrix: Matrix,
    bias: Vec<f32>,
}

struct Norm {
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl Bert {
    pub(super) fn read(bytes: &[u8]) -> Result<Bert, EncoderError> {
        let weights = Weights::read(bytes)?;
        let mut positions = weights.floats("embeddings.position_embeddings.weight", &[POSITIONS, WIDTH])?;
        let types = weights.floats("embeddings.token_type_embeddings.weight", &[2, WIDTH])?;
        positions.chunks_exact_mut(WIDTH).for_each(|row| add(row, &types[..WIDTH]));
        Ok(Bert {
            words: weights.floats("embeddings.word_embeddings.weight", &[VOCABULARY, WIDTH])?,
            positions,
            norm: Norm::read(&weights, "embeddings.LayerNorm")?,
            layers: (0..LAYERS).map(|n| Layer::read(&weights, n)).collect::<Result<_, _>>()?,
        })
    }

    /// Words of the vocabulary.
    pub(super) fn words(&self) -> usize {
        self.words.len() / WIDTH
    }

    /// The mean of all tokens' last rows, of length one. At most 512 tokens of the vocabulary.
    pub(super) fn vector(&self, cpu: &Cpu, ids: &[u32]) -> Vec<f32> {
        let mut x = self.embed(ids);
        for layer in &self.layers {
            layer.attend(cpu, &mut x);
            layer.widen(cpu, &mut x);
        }
        mean(&x)
    }

    fn embed(&self, ids: &[u32]) -> Vec<f32> {
        let mut x = Vec::with_capacity(ids.len() * WIDTH);
        for (id, position) in ids.iter().zip(self.positions.chunks_exact(WIDTH)) {
            let word = &self.words[*id as usize * WIDTH..][..WIDTH];
            x.extend(word.iter().zip(position).map(|(word, position)| word + position));
        }
        self.norm.apply(&mut x);
        x
    }
}

impl Layer {
    fn read(weights: &Weights<'_>, n: usize) -> Result<Layer, EncoderError> {
        let square = |name: &str| Linear::read(weights, &format!("encoder.layer.{n}.{name}"), WIDTH, WIDTH);
        let norm = |name: &str| Norm::read(weights, &format!("encoder.layer.{n}.{name}.LayerNorm"));
        let wide = format!("encoder.layer.{n}.intermediate.dense");
        let narrow = format!("encoder.layer.{n}.output.dense");
        Ok(Layer {
            query: square("attention.self.query")?,
            key: square("attention.self.key")?,
            value: square("attention.self.value")?,
            mixed: square("attention.output.dense")?,
            mixed_norm: norm("attention.output")?,
            wide: Linear::read(weights, &wide, WIDE, WIDTH)?,
            narrow: Linear::read(weights, &narrow, WIDTH, WIDE)?,
            norm: norm("output")?,
        })
    }

    fn attend(&self, cpu: &Cpu, x: &mut [f32]) {
        let [query, key, value] = [&self.query, &self.key, &self.value].map(|linear| linear.of(cpu, x));
        let mixed = mix(&query, &key, &value);
        add(x, &self.mixed.of(cpu, &mixed));
        self.mixed_norm.apply(x);
    }

    fn widen(&self, cpu: &Cpu, x: &mut [f32]) {
        let mut wide = self.wide.of(cpu, x);
        wide.iter_mut().for_each(|value| *value = gelu(*value));
        add(x, &self.narrow.of(cpu, &wide));
        self.norm.apply(x);
    }
}

impl Linear {
    fn read(weights: &Weights<'_>, name: &str, rows: usize, cols: usize) -> Result<Linear, EncoderError> {
        Ok(Linear {
            matrix: weights.matrix(&format!("{name}.weight"), rows, cols)?,
            bias: weights.floats(&format!("{name}.bias"), &[rows])?,
        })
    }

    /// Rows of `x` times the matrix, plus the bias.
    fn of(&self, cpu: &Cpu, x: &[f32]) -> Vec<f32> {
        let m = x.len() / self.matrix.cols();
        let (mut activations, mut out) = (Activations::new(), vec![0.0; m * self.matrix.rows()]);
        cpu.prepare(&mut activations, x, m, &[&self.matrix]);
        cpu.matmul(&self.matrix, &activations, &mut out);
        cpu.add_rows(&mut out, &self.bias);
        out
    }
}

impl Norm {
    fn read(weights: &Weights<'_>, name: &str) -> Result<Norm, EncoderError> {
        let floats = |part: &str| weights.floats(&format!("{name}.{part}"), &[WIDTH]);
        Ok(Norm { weight: floats("weight")?, bias: floats("bias")? })
    }

    fn apply(&self, x: &mut [f32]) {
        x.chunks_exact_mut(WIDTH).for_each(|row| normalize(row, &self.weight, &self.bias));
    }
}

/// Every token takes from the values of all tokens, by how well its query fits their keys; each head on its own.
fn mix(query: &[f32], key: &[f32], value: &[f32]) -> Vec<f32> {
    let tokens = query.len() / WIDTH;
    let scale = 1.0 / (HEAD as f32).sqrt();
    let (mut out, mut shares) = (vec![0.0; query.len()], vec![0.0; tokens]);
    for head in 0..HEADS {
        let of = |rows: &[f32], token: usize| -> [f32; HEAD] {
            rows[token * WIDTH + head * HEAD..][..HEAD].try_into().expect("the length of a head")
        };
        for token in 0..tokens {
            let query = of(query, token);
            for (other, share) in shares.iter_mut().enumerate() {
                *share = dot(&query, &of(key, other)) * scale;
            }
            softmax(&mut shares);
            let out = &mut out[token * WIDTH + head * HEAD..][..HEAD];
            for (other, share) in shares.iter().enumerate() {
                out.iter_mut().zip(of(value, other)).for_each(|(out, value)| *out += share * value);
            }
        }
    }
    out
}

fn add(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

fn mean(x: &[f32]) -> Vec<f32> {
    let mut mean = vec![0.0; WIDTH];
    x.chunks_exact(WIDTH).for_each(|row| add(&mut mean, row));
    // Divided by its length, it needs no division by the number of tokens.
    let length = dot(&mean, &mean).sqrt();
    mean.iter_mut().for_each(|value| *value /= length);
    mean
}
