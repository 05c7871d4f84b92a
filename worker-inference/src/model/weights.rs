//! From a model file's tensors to matrices: names and shapes are checked, then the values are repacked.

use std::collections::BTreeSet;

use kernels::{Arena, Format, Matrix};

use super::decoder::Architecture;
use super::gguf::{Gguf, GgufError, Tensor, TypeId};

/// Why a model file that is well formed can't be run.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error(transparent)]
    File(#[from] GgufError),
    #[error("architecture {0:?} is not supported ({known} are); use another model", known = known_architectures())]
    Architecture(String),
    #[error("the model uses {0}, which is not supported; use another model")]
    Feature(String),
    #[error(
        "{key} is {found}, expected {expected}; the model file is damaged or made for another reader, use another one"
    )]
    Shape { key: String, found: String, expected: String },
    #[error(
        "tensor {name} has format {format}, which is not supported ({} are); convert the model to one of them",
        supported()
    )]
    Format { name: String, format: String },
    #[error(
        "tensor {0} is no part of the architecture as we know it, so the answers would be wrong; use another model"
    )]
    Stranger(String),
}

/// The names of all formats that have kernels.
fn supported() -> String {
    Format::ALL.map(|format| format.to_string()).join(", ")
}

/// Hands out a file's tensors by name and remembers which were asked for.
pub struct Weights<'f, 'a> {
    gguf: &'f Gguf<'a>,
    arena: Arena,
    used: BTreeSet<String>,
    repacked: usize,
}

impl<'f, 'a> Weights<'f, 'a> {
    /// Reserves the memory for all matrices at once, on huge pages where the machine has them.
    pub fn new(gguf: &'f Gguf<'a>) -> Weights<'f, 'a> {
        let bytes = gguf.tensors().filter_map(|(_, tensor)| packed_bytes(tensor)).sum();
        let advise = |bytes: &[u8]| {
            sys::advise_huge(bytes);
        };
        Weights { gguf, arena: Arena::new(bytes, advise), used: BTreeSet::new(), repacked: 0 }
    }

    /// Bytes of all matrices handed out so far, as they lie in memory.
    pub fn repacked_bytes(&self) -> usize {
        self.repacked
    }

    /// Whether the file has a tensor of that name.
    pub fn has(&self, name: &str) -> bool {
        self.gguf.tensor(name).is_some()
    }

    /// A matrix of that many rows and columns.
    pub fn matrix(&mut self, name: &str, rows: usize, cols: usize) -> Result<Matrix, ModelError> {
        let tensor = self.tensor(name, &[cols as u64, rows as u64])?;
        let format = format(name, tensor.type_id)?;
        let matrix = Matrix::from_gguf_in(&mut self.arena, format, rows, cols, tensor.bytes);
        let matrix = matrix.map_err(|error| ModelError::Shape {
            key: name.to_owned(),
            found: error.to_string(),
            expected: format!("{rows} rows of {cols}"),
        })?;
        self.repacked += matrix.bytes();
        Ok(matrix)
    }

    /// A vector of that length, as f32.
    pub fn vector(&mut self, name: &str, len: usize) -> Result<Vec<f32>, ModelError> {
        let tensor = self.tensor(name, &[len as u64])?;
        let format = format(name, tensor.type_id)?;
        let mut values = vec![0.0; len];
        kernels::dequantize(format, tensor.bytes, &mut values);
        Ok(values)
    }

    /// Every tensor of the file must have been asked for: a forgotten one would silently change the answers.
    pub fn finish(&self) -> Result<(), ModelError> {
        let stranger = self.gguf.tensors().find(|(name, _)| !self.used.contains(*name));
        stranger.map_or(Ok(()), |(name, _)| Err(ModelError::Stranger(name.to_owned())))
    }

    fn tensor(&mut self, name: &str, dimensions: &[u64]) -> Result<&'f Tensor<'a>, ModelError> {
        let tensor = self.gguf.tensor(name).ok_or_else(|| GgufError::Missing(format!("tensor {name}")))?;
        self.used.insert(name.to_owned());
        if without_ones(&tensor.dimensions) != without_ones(dimensions) {
            return Err(ModelError::Shape {
                key: format!("the shape of tensor {name}"),
                found: format!("{:?}", tensor.dimensions),
                expected: format!("{dimensions:?}"),
            });
        }
        Ok(tensor)
    }
}

fn known_architectures() -> String {
    Architecture::ALL.map(Architecture::name).join(", ")
}

fn without_ones(dimensions: &[u64]) -> &[u64] {
    let len = dimensions.iter().rposition(|&dimension| dimension != 1).map_or(0, |last| last + 1);
    &dimensions[..len]
}

fn format(name: &str, type_id: TypeId) -> Result<Format, ModelError> {
    Format::from_ggml(type_id.0)
        .ok_or_else(|| ModelError::Format { name: name.to_owned(), format: type_id.to_string() })
}

fn packed_bytes(tensor: &Tensor<'_>) -> Option<usize> {
    let [cols, rows] = tensor.dimensions[..] else { return None };
    let format = Format::from_ggml(tensor.type_id.0)?;
    Matrix::bytes_needed(format, usize::try_from(rows).ok()?, usize::try_from(cols).ok()?)
}
