//! Tensors out of a `safetensors` file, each with the shape that is asked for.

use kernels::{Format, Matrix};
use safetensors::{Dtype, SafeTensors};

use super::EncoderError;

pub(super) struct Weights<'a> {
    file: SafeTensors<'a>,
}

impl<'a> Weights<'a> {
    /// The file's header says where tensors lie; it is checked against the file's length here.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Weights<'a>, EncoderError> {
        let file =
            SafeTensors::deserialize(bytes).map_err(|error| EncoderError::Weights(error.to_string()))?;
        Ok(Weights { file })
    }

    fn bytes(&self, name: &str, shape: &[usize]) -> Result<&'a [u8], EncoderError> {
        let wrong = |error: String| EncoderError::Weights(format!("{name}: {error}"));
        let tensor = self.file.tensor(name).map_err(|error| wrong(error.to_string()))?;
        if tensor.dtype() != Dtype::F32 {
            return Err(wrong(format!("its numbers are {:?}, not F32", tensor.dtype())));
        }
        if tensor.shape() != shape {
            let (expected, found) = (shape.to_vec(), tensor.shape().to_vec());
            return Err(EncoderError::Shape { name: name.to_string(), expected, found });
        }
        Ok(tensor.data())
    }

    pub(super) fn floats(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, EncoderError> {
        let bytes = self.bytes(name, shape)?;
        Ok(bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }

    pub(super) fn matrix(&self, name: &str, rows: usize, cols: usize) -> Result<Matrix, EncoderError> {
        let bytes = self.bytes(name, &[rows, cols])?;
        let wrong = |error| EncoderError::Weights(format!("{name}: {error:?}"));
        Matrix::from_gguf(Format::F32, rows, cols, bytes).map_err(wrong)
    }
}
