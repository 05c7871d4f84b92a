//! The encoder that is here: all-MiniLM-L6-v2, a BERT of 6 layers that was trained to bring sentences of one meaning
//! together. 384 numbers for up to 256 tokens.
//!
//! Its arithmetic is the kernels' and ours (`arithmetic`): the same bits with any number of threads and on every
//! instruction set. Weights and vocabulary come in as bytes, as `safetensors` and `tokenizer.json`.

mod arithmetic;
mod layers;
mod weights;

use std::sync::Arc;

use kernels::{Cpu, Isa};
use tokenizers::Tokenizer;
use types::Hash;

use crate::encode::Encode;
use crate::limits::VECTORS_PER_ITEM;
use layers::Bert;

/// Changes when the same text would get other bits from the same weights.
const ARITHMETIC: &[u8] = b"minilm 1";
/// Tokens of a window without its two marks: what the model was made for.
const WINDOW: usize = 254;
/// Tokens from one window to the next: a sentence that one cuts is whole in the other.
const STRIDE: usize = 222;
/// Bytes of a text that are looked at: enough for all windows of an item, at 16 bytes a token.
const TEXT_BYTES: usize = VECTORS_PER_ITEM * WINDOW * 16;

/// An encoder with its weights in memory (91 MB).
pub struct MiniLm {
    tokenizer: Tokenizer,
    /// The marks around a window.
    first: u32,
    last: u32,
    bert: Bert,
    cpu: Arc<Cpu>,
    id: Hash,
}

/// Files that are not this encoder's.
#[derive(Debug, thiserror::Error)]
pub enum EncoderError {
    #[error("the encoder's weights cannot be read: {0}; install it again with `make encoder`")]
    Weights(String),
    #[error(
        "the encoder's tensor {name} has shape {found:?}, {expected:?} is wanted; only all-MiniLM-L6-v2 is known"
    )]
    Shape { name: String, expected: Vec<usize>, found: Vec<usize> },
    #[error("the encoder's vocabulary cannot be read: {0}; install it again with `make encoder`")]
    Vocabulary(String),
}

impl MiniLm {
    /// Reads `model.safetensors` and `tokenizer.json`.
    ///
    /// # Errors
    /// Damaged files, or those of another model.
    pub fn new(weights: &[u8], vocabulary: &[u8], cpu: Arc<Cpu>) -> Result<MiniLm, EncoderError> {
        let bert = Bert::read(weights)?;
        let tokenizer = read_tokenizer(vocabulary, bert.words())?;
        let mark = |name: &str| {
            let missing = || EncoderError::Vocabulary(format!("it has no {name}"));
            tokenizer.token_to_id(name).ok_or_else(missing)
        };
        let (first, last) = (mark("[CLS]")?, mark("[SEP]")?);
        let window = [WINDOW, STRIDE].map(|tokens| tokens as u64);
        let id = Hash::of_parts(&[
            ARITHMETIC,
            &Hash::of(weights).0,
            &Hash::of(vocabulary).0,
            &window[0].to_le_bytes(),
            &window[1].to_le_bytes(),
        ]);
        Ok(MiniLm { tokenizer, first, last, bert, cpu, id })
    }

    /// The same, computing on the caller's thread alone.
    ///
    /// # Errors
    /// As [`MiniLm::new`].
    pub fn on_one_thread(weights: &[u8], vocabulary: &[u8]) -> Result<MiniLm, EncoderError> {
        let isa = Isa::pick(None).expect("every processor has the plain instructions");
        MiniLm::new(weights, vocabulary, Arc::new(Cpu::new(isa, 1, |_| ())))
    }

    /// Token ids of a text without marks; those of a text's beginning where it is very long.
    pub fn tokens(&self, text: &str) -> Vec<u32> {
        let text = &text[..text.floor_char_boundary(TEXT_BYTES)];
        let encoded = self.tokenizer.encode_fast(text, false).map(|encoding| encoding.get_ids().to_vec());
        // A vocabulary with an unknown word encodes every text; that there is one was checked on reading.
        encoded.unwrap_or_default()
    }

    fn vector(&self, window: &[u32]) -> Vec<f32> {
        let ids: Vec<u32> = [&[self.first], window, &[self.last]].concat();
        self.bert.vector(&self.cpu, &ids)
    }
}

fn read_tokenizer(vocabulary: &[u8], words: usize) -> Result<Tokenizer, EncoderError> {
    let wrong = |error: tokenizers::Error| EncoderError::Vocabulary(error.to_string());
    let mut tokenizer = Tokenizer::from_bytes(vocabulary).map_err(wrong)?;
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).map_err(wrong)?;
    tokenizer.encode_fast("\u{1f9a9} \u{0}", false).map_err(wrong)?;
    let size = tokenizer.get_vocab_size(true);
    if size != words {
        return Err(EncoderError::Vocabulary(format!("it has {size} words, the weights have {words}")));
    }
    Ok(tokenizer)
}

/// Windows over `len` tokens; one, maybe empty, for a short text.
fn windows(len: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let more = len.saturating_sub(WINDOW).div_ceil(STRIDE);
    (0..=more).map(move |at| at * STRIDE..len.min(at * STRIDE + WINDOW))
}

impl Encode for MiniLm {
    fn id(&self) -> Hash {
        self.id
    }

    fn dims(&self) -> usize {
        layers::WIDTH
    }

    fn passages(&self, text: &str) -> Vec<Vec<f32>> {
        let tokens = self.tokens(text);
        windows(tokens.len()).take(VECTORS_PER_ITEM).map(|range| self.vector(&tokens[range])).collect()
    }

    fn question(&self, text: &str) -> Vec<f32> {
        let tokens = self.tokens(text);
        self.vector(&tokens[..tokens.len().min(WINDOW)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_overlap_and_cover_everything() {
        assert!(windows(0).eq(std::iter::once(0..0)));
        assert!(windows(254).eq(std::iter::once(0..254)));
        assert_eq!(windows(255).collect::<Vec<_>>(), [0..254, 222..255]);
        assert_eq!(windows(476).collect::<Vec<_>>(), [0..254, 222..476]);
        assert_eq!(windows(477).count(), 3);
    }
}
