//! Text to token ids and back, built from a model file's metadata. One instance per model, shared by threads.
//!
//! Two kinds of vocabularies are known: byte-level BPE ("gpt2": `bpe`, with the splitting rules in `split`) and
//! SentencePiece ("llama": `spm`). Others are refused by name, because a nearly right tokenizer gives silently
//! worse answers.

mod bpe;
mod bytes;
mod classes;
mod detokenizer;
mod read;
mod special;
mod split;
mod spm;

use std::ops::Range;

pub use detokenizer::Detokenizer;

use bpe::Bpe;
use special::Special;
use spm::Spm;

use crate::model::gguf::{Gguf, GgufError};

/// Why a model's tokenizer can't be used, or a text not be encoded.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    #[error(transparent)]
    File(#[from] GgufError),
    #[error(
        "tokenizer model {0:?} is not supported (only gpt2, byte-level BPE, and llama, SentencePiece); \
         use another model"
    )]
    Model(String),
    #[error("tokenizer splitting rule {0:?} is not supported (only {names}); use another model", names = split::NAMES)]
    Rule(String),
    #[error("the model file's tokenizer is damaged: {0}; download the model again")]
    Damaged(String),
    #[error("the text cannot be tokenised: {0}")]
    Text(String),
}

/// What kind of token it is, as the model file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Normal,
    /// Steers the model (`<|im_end|>`): found in text only when the caller asks, shown to nobody.
    Control,
    /// Added by the model's maker: always found in text, shown as it is.
    UserDefined,
    /// One byte of a character that has no token; never found in text.
    Byte,
}

/// A model's vocabulary and rules.
#[derive(Debug)]
pub struct Tokenizer {
    algorithm: Algorithm,
    tokens: Vec<Token>,
    special: Special,
    bos: Option<u32>,
    eos: Option<u32>,
    adds_bos: bool,
    ends: Vec<u32>,
}

#[derive(Debug)]
enum Algorithm {
    Bpe(Box<Bpe>),
    Spm(Spm),
}

#[derive(Debug)]
struct Token {
    kind: Kind,
    /// The bytes of text it stands for.
    bytes: Box<[u8]>,
}

impl Tokenizer {
    /// Builds it from the `tokenizer.ggml.*` metadata.
    pub fn from_gguf(gguf: &Gguf<'_>) -> Result<Tokenizer, TokenizerError> {
        read::tokenizer(gguf)
    }

    /// Number of token ids.
    pub fn vocabulary(&self) -> usize {
        self.tokens.len()
    }

    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// Whether a text that stands alone begins with BOS for this model.
    pub fn adds_bos(&self) -> bool {
        self.adds_bos
    }

    /// Whether generation ends at this token (EOS, end of turn, end of text).
    pub fn is_end(&self, token: u32) -> bool {
        self.ends.contains(&token)
    }

    /// The tokens at which generation ends, ascending; all are inside the vocabulary.
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// The text of a special token as the file has it (`<|im_end|>`); for templates. Empty for other ids.
    pub fn special_text(&self, token: u32) -> &str {
        self.special.iter().find(|(_, id)| *id == token).map_or("", |(text, _)| text)
    }

    /// The special token of that text.
    pub fn special(&self, text: &str) -> Option<u32> {
        self.special.id(text)
    }

    /// The texts of all control tokens.
    pub fn controls(&self) -> impl Iterator<Item = &str> {
        self.special.iter().filter(|(_, id)| self.is_control(*id)).map(|(text, _)| text)
    }

    /// Token ids of a text. With `parse_special`, control tokens written in the text are taken as such;
    /// without, they are plain text. BOS is never added here.
    pub fn encode(&self, text: &str, parse_special: bool) -> Result<Vec<u32>, TokenizerError> {
        let everything = 0..text.len();
        let untrusted = if parse_special { &[][..] } else { std::slice::from_ref(&everything) };
        self.encode_guarded(text, untrusted)
    }

    /// Like [`Tokenizer::encode`] with `parse_special`, except that a control token that touches one of the
    /// `untrusted` byte ranges (ascending) stays plain text: nobody can write `<|im_end|>` into a message and
    /// end it.
    pub fn encode_guarded(&self, text: &str, untrusted: &[Range<usize>]) -> Result<Vec<u32>, TokenizerError> {
        self.encode_behind("", text, untrusted)
    }

    /// Like [`Tokenizer::encode_guarded`], for text that continues `behind`. Vocabularies that put a space in
    /// front of a text do so at its beginning and after special tokens, not in the middle.
    pub fn encode_behind(
        &self,
        behind: &str,
        text: &str,
        untrusted: &[Range<usize>],
    ) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = Vec::with_capacity(text.len() / 3);
        let mut begins = behind.is_empty() || self.special.ends(behind);
        let (mut plain_from, mut at) = (0, 0);
        while at < text.len() {
            match self.special_at(text, at, untrusted) {
                Some((id, len)) => {
                    self.encode_plain(&text[plain_from..at], begins, &mut ids)?;
                    ids.push(id);
                    begins = true;
                    at += len;
                    plain_from = at;
                }
                None => at += 1,
            }
        }
        self.encode_plain(&text[plain_from..], begins, &mut ids)?;
        Ok(ids)
    }

    /// The text of some tokens; control tokens leave nothing, broken UTF-8 becomes U+FFFD. The space that
    /// encoding puts in front of a text is taken away again.
    pub fn decode(&self, tokens: &[u32]) -> String {
        let mut bytes = Vec::new();
        let mut begins = self.has_space_prefix();
        for &token in tokens {
            let piece = self.bytes(token);
            let is_prefixed = begins && self.kind(token) == Some(Kind::Normal);
            bytes.extend_from_slice(if is_prefixed {
                piece.strip_prefix(b" ").unwrap_or(piece)
            } else {
                piece
            });
            begins = self.has_space_prefix() && self.is_special(token);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The bytes that a token stands for; none for control tokens and unknown ids.
    pub fn bytes(&self, token: u32) -> &[u8] {
        match self.tokens.get(token as usize) {
            Some(Token { kind: Kind::Normal | Kind::UserDefined | Kind::Byte, bytes }) => bytes,
            _ => &[],
        }
    }

    fn kind(&self, token: u32) -> Option<Kind> {
        self.tokens.get(token as usize).map(|token| token.kind)
    }

    fn is_control(&self, token: u32) -> bool {
        self.kind(token) == Some(Kind::Control)
    }

    fn is_special(&self, token: u32) -> bool {
        matches!(self.kind(token), Some(Kind::Control | Kind::UserDefined))
    }

    fn has_space_prefix(&self) -> bool {
        matches!(&self.algorithm, Algorithm::Spm(spm) if spm.space_prefix)
    }

    fn special_at(&self, text: &str, at: usize, untrusted: &[Range<usize>]) -> Option<(u32, usize)> {
        let touches = |len: usize| {
            let first = untrusted.partition_point(|range| range.end <= at);
            untrusted.get(first).is_some_and(|range| range.start < at + len)
        };
        self.special.longest(&text.as_bytes()[at..], |id, len| !self.is_control(id) || !touches(len))
    }

    fn encode_plain(&self, text: &str, begins: bool, ids: &mut Vec<u32>) -> Result<(), TokenizerError> {
        match &self.algorithm {
            _ if text.is_empty() => Ok(()),
            Algorithm::Bpe(bpe) => bpe.encode(text, ids),
            Algorithm::Spm(spm) => spm.encode(text, begins, ids),
        }
    }
}

#[cfg(test)]
#[path = "tokenizer/tokenizer_test.rs"]
mod tokenizer_test;
#[cfg(test)]
pub(crate) mod toy;
