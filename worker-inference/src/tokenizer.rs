//! Text to token ids and back, built from a model file's metadata. One instance per model, shared by threads.
//!
//! Only the byte-level BPE family ("gpt2") with the `smollm` and `gpt-2` splitting rules is known; others
//! are refused by name, because a nearly right tokenizer gives silently worse answers.

mod bytes;
mod detokenizer;
mod merges;

use std::collections::BTreeMap;
use std::ops::Range;

use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::{Model, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

pub use detokenizer::Detokenizer;

use crate::model::gguf::{Gguf, GgufError};

/// Vocabularies of known families stay below 300 k tokens.
const VOCABULARY_MAX: usize = 1 << 20;

/// Why a model's tokenizer can't be used, or a text not be encoded.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    #[error(transparent)]
    File(#[from] GgufError),
    #[error("tokenizer model {0:?} is not supported (only gpt2, the byte-level BPE); use another model")]
    Model(String),
    #[error("tokenizer splitting rule {0:?} is not supported (only smollm and gpt-2); use another model")]
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
}

/// A model's vocabulary and rules.
#[derive(Debug)]
pub struct Tokenizer {
    bpe: BPE,
    digits: Option<Digits>,
    byte_level: ByteLevel,
    tokens: Vec<Token>,
    /// Special tokens by text, longest first, so that the longest match wins.
    special: Vec<(String, u32)>,
    bos: Option<u32>,
    eos: Option<u32>,
    adds_bos: bool,
    ends: Vec<u32>,
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
        let model = gguf.text("tokenizer.ggml.model")?;
        if model != "gpt2" {
            return Err(TokenizerError::Model(model.to_owned()));
        }
        let digits = match gguf.text("tokenizer.ggml.pre")? {
            "smollm" => Some(Digits::new(true)),
            "gpt-2" => None,
            other => return Err(TokenizerError::Rule(other.to_owned())),
        };
        let texts = gguf.texts("tokenizer.ggml.tokens")?;
        let tokens = read_tokens(gguf, texts)?;
        let special = special_tokens(texts, &tokens);
        let bpe = merges::build(texts, gguf.texts("tokenizer.ggml.merges")?)?;
        let id = |key: &str| token_id(gguf, key, texts.len());
        let (bos, eos) = (id("tokenizer.ggml.bos_token_id")?, id("tokenizer.ggml.eos_token_id")?);
        let adds_bos = gguf.flag_or("tokenizer.ggml.add_bos_token", false)? && bos.is_some();
        let ends = end_tokens(&special, [eos, id("tokenizer.ggml.eot_token_id")?]);
        let byte_level = ByteLevel::new(false, false, true);
        Ok(Tokenizer { bpe, digits, byte_level, tokens, special, bos, eos, adds_bos, ends })
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

    /// The text of a token as the file has it (`<|im_end|>`); for templates. Empty for an unknown id.
    pub fn special_text(&self, token: u32) -> &str {
        self.special.iter().find(|(_, id)| *id == token).map_or("", |(text, _)| text)
    }

    /// Token ids of a text. With `parse_special`, control tokens written in the text are taken as such;
    /// without, they are plain text. BOS is never added here.
    pub fn encode(&self, text: &str, parse_special: bool) -> Result<Vec<u32>, TokenizerError> {
        let everything = 0..text.len();
        let untrusted = if parse_special { &[][..] } else { std::slice::from_ref(&everything) };
        self.encode_guarded(text, untrusted)
    }

    /// Like [`Tokenizer::encode`] with `parse_special`, except that a control token that touches one of the
    /// `untrusted` byte ranges stays plain text: nobody can write `<|im_end|>` into a message and end it.
    pub fn encode_guarded(&self, text: &str, untrusted: &[Range<usize>]) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = Vec::with_capacity(text.len() / 3);
        let mut plain_from = 0;
        let mut at = 0;
        while at < text.len() {
            match self.special_at(text, at, untrusted) {
                Some((id, len)) => {
                    self.encode_plain(&text[plain_from..at], &mut ids)?;
                    ids.push(id);
                    at += len;
                    plain_from = at;
                }
                None => at += text[at..].chars().next().map_or(1, char::len_utf8),
            }
        }
        self.encode_plain(&text[plain_from..], &mut ids)?;
        Ok(ids)
    }

    /// The text of some tokens; control tokens leave nothing, broken UTF-8 becomes U+FFFD.
    pub fn decode(&self, tokens: &[u32]) -> String {
        let mut bytes = Vec::new();
        tokens.iter().for_each(|&token| bytes.extend_from_slice(self.bytes(token)));
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The bytes that a token stands for; none for control tokens and unknown ids.
    pub fn bytes(&self, token: u32) -> &[u8] {
        match self.tokens.get(token as usize) {
            Some(Token { kind: Kind::Normal | Kind::UserDefined, bytes }) => bytes,
            _ => &[],
        }
    }

    fn special_at(&self, text: &str, at: usize, untrusted: &[Range<usize>]) -> Option<(u32, usize)> {
        let rest = &text[at..];
        let (word, id) = self.special.iter().find(|(word, _)| rest.starts_with(word.as_str()))?;
        let touches = |range: &Range<usize>| range.start < at + word.len() && at < range.end;
        let is_control = self.tokens[*id as usize].kind == Kind::Control;
        (!is_control || !untrusted.iter().any(touches)).then_some((*id, word.len()))
    }

    fn encode_plain(&self, text: &str, ids: &mut Vec<u32>) -> Result<(), TokenizerError> {
        if text.is_empty() {
            return Ok(());
        }
        let failed = |error: tokenizers::Error| TokenizerError::Text(error.to_string());
        let mut words = PreTokenizedString::from(text);
        if let Some(digits) = &self.digits {
            digits.pre_tokenize(&mut words).map_err(failed)?;
        }
        self.byte_level.pre_tokenize(&mut words).map_err(failed)?;
        for (word, _, _) in words.get_splits(OffsetReferential::Normalized, OffsetType::None) {
            ids.extend(self.bpe.tokenize(word).map_err(failed)?.iter().map(|token| token.id));
        }
        Ok(())
    }
}

fn read_tokens(gguf: &Gguf<'_>, texts: &[&str]) -> Result<Vec<Token>, TokenizerError> {
    if texts.is_empty() || texts.len() > VOCABULARY_MAX {
        let why = format!("{} tokens, expected 1 to {VOCABULARY_MAX}", texts.len());
        return Err(TokenizerError::Damaged(why));
    }
    let kinds = match gguf.get("tokenizer.ggml.token_type") {
        None => vec![1; texts.len()],
        Some(value) => value.numbers().unwrap_or_default(),
    };
    if kinds.len() != texts.len() {
        let why = format!("{} tokens but {} token types", texts.len(), kinds.len());
        return Err(TokenizerError::Damaged(why));
    }
    Ok(texts.iter().zip(kinds).map(|(text, kind)| Token::new(text, kind)).collect())
}

impl Token {
    fn new(text: &str, kind: u64) -> Token {
        let (kind, bytes) = match kind {
            // 2 is "unknown": like control tokens it stands for no text.
            2 | 3 => (Kind::Control, text.as_bytes().into()),
            4 => (Kind::UserDefined, text.as_bytes().into()),
            _ => (Kind::Normal, bytes::of_token(text)),
        };
        Token { kind, bytes }
    }
}

fn special_tokens(texts: &[&str], tokens: &[Token]) -> Vec<(String, u32)> {
    let is_special = |index: &usize| tokens[*index].kind != Kind::Normal && !texts[*index].is_empty();
    let mut special: Vec<(String, u32)> =
        (0..texts.len()).filter(is_special).map(|index| (texts[index].to_owned(), index as u32)).collect();
    special.sort_by_key(|(text, id)| (std::cmp::Reverse(text.len()), *id));
    special
}

/// The ids that end a generation: what the file says, and the well-known names of ends.
fn end_tokens(special: &[(String, u32)], stated: [Option<u32>; 2]) -> Vec<u32> {
    const NAMES: [&str; 5] = ["<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "<|end|>"];
    let named: BTreeMap<&str, u32> = special.iter().map(|(text, id)| (text.as_str(), *id)).collect();
    let mut ends: Vec<u32> = stated.into_iter().flatten().collect();
    ends.extend(NAMES.iter().filter_map(|name| named.get(name)));
    ends.sort_unstable();
    ends.dedup();
    ends
}

fn token_id(gguf: &Gguf<'_>, key: &str, vocabulary: usize) -> Result<Option<u32>, TokenizerError> {
    if gguf.get(key).is_none() {
        return Ok(None);
    }
    match gguf.number(key)? {
        id if id < vocabulary as u64 => Ok(Some(id as u32)),
        id => Err(TokenizerError::Damaged(format!("{key} is {id} of {vocabulary} tokens"))),
    }
}

#[cfg(test)]
#[path = "tokenizer/tokenizer_test.rs"]
mod tokenizer_test;
