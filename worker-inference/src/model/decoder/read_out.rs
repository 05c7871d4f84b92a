//! From the last layer to logits.

use kernels::{Cpu, Format, Matrix, Sketch};

use super::Decoder;
use crate::model::gguf::Gguf;

/// Rows whose logits are computed together: enough for the fast matrix path, little enough memory.
pub(super) const LOGIT_ROWS: usize = 32;

/// With more rows than this the output matrix is not what everything waits for, and the rows of so many want so much of
/// it that a sketch saves nothing.
const SKETCHED_ROWS: usize = 4;

/// Read-outs that do without the sketch after it was of no use, at most.
const PAUSE_MAX: u32 = 63;

/// A sketch of the output matrix, and how useful it was lately.
pub(super) struct Shortcut {
    sketch: Sketch,
    /// Read-outs until it is tried again.
    pause: u32,
    /// The next pause, if it is of no use.
    next_pause: u32,
    /// Read-outs that it served.
    served: u64,
}

impl Shortcut {
    /// Computes the logits that may be the largest of their rows. False if all must be computed.
    fn serves(
        &mut self,
        cpu: &Cpu,
        output: &Matrix,
        input: &kernels::Activations,
        logits: &mut [f32],
    ) -> bool {
        if self.pause > 0 {
            self.pause -= 1;
            return false;
        }
        let serves = cpu.matmul_largest(output, &self.sketch, input, logits);
        if serves {
            self.served += 1;
            self.next_pause = 0;
        } else {
            self.next_pause = (2 * self.next_pause + 1).min(PAUSE_MAX);
            self.pause = self.next_pause;
        }
        serves
    }
}

impl Decoder {
    /// Sketches the output matrix where that pays, if it has `least` values, so that a likeliest token is found without
    /// reading all of it.
    ///
    /// # Panics
    /// If `gguf` is not the file that the decoder was loaded from.
    pub fn sketch_output(&mut self, gguf: &Gguf<'_>, least: usize) {
        let (name, output) = match &self.output {
            Some(output) => ("output.weight", output),
            None => ("token_embd.weight", &self.embedding),
        };
        if !Sketch::pays(output) || output.rows() * output.cols() < least {
            return;
        }
        let tensor = gguf.tensor(name).expect("the decoder was loaded from it");
        let format = Format::from_ggml(tensor.type_id.0).expect("the decoder has it as a matrix");
        let advise = |bytes: &[u8]| {
            sys::advise_huge(bytes);
        };
        let sketch = Sketch::of(format, output.rows(), output.cols(), tensor.bytes, advise)
            .expect("rows of a quantised matrix are whole blocks");
        self.repacked += sketch.bytes();
        self.shortcut = Some(Shortcut { sketch, pause: 0, next_pause: 0, served: 0 });
    }

    /// Read-outs for which the sketch was enough.
    pub fn sketched(&self) -> u64 {
        self.shortcut.as_ref().map_or(0, |shortcut| shortcut.served)
    }

    /// logits = output(norm(x)), for the wanted rows only. With `likeliest`, logits that are not their row's largest may be
    /// minus infinity.
    pub(super) fn read_out(
        &mut self,
        cpu: &Cpu,
        wanted: &[usize],
        likeliest: bool,
        on_logits: &mut dyn FnMut(usize, &[f32]),
    ) {
        let Decoder { shape, buffers, embedding, output, norm, shortcut, .. } = self;
        let output = output.as_ref().unwrap_or(embedding);
        let width = shape.hidden;
        for group in wanted.chunks(LOGIT_ROWS) {
            let chosen = &mut buffers.chosen[..group.len() * width];
            for (target, &row) in chosen.chunks_exact_mut(width).zip(group) {
                target.copy_from_slice(&buffers.x[row * width..(row + 1) * width]);
            }
            let normed = &mut buffers.normed[..group.len() * width];
            let logits = &mut buffers.logits[..group.len() * shape.vocabulary];
            cpu.rmsnorm(chosen, norm, shape.epsilon, normed);
            cpu.prepare(&mut buffers.activations, normed, group.len(), &[output]);
            let shortcut = shortcut.as_mut().filter(|_| likeliest && group.len() <= SKETCHED_ROWS);
            if !shortcut.is_some_and(|it| it.serves(cpu, output, &buffers.activations, logits)) {
                cpu.matmul(output, &buffers.activations, logits);
            }
            let rows = logits.chunks_exact(shape.vocabulary);
            group.iter().zip(rows).for_each(|(&row, logits)| on_logits(row, logits));
        }
    }
}
