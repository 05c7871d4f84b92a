//! From a model file's metadata to a tokenizer, checking what the file says.

use super::bpe::Bpe;
use super::special::Special;
use super::spm::{self, Spm};
use super::{Algorithm, Kind, Token, Tokenizer, TokenizerError, bytes, split};

use crate::model::gguf::{Array, Gguf, Value};

/// Vocabularies of known families stay below 300 k tokens.
const VOCABULARY_MAX: usize = 1 << 20;

/// Texts of tokens that end an answer in the known families, where the file does not say so itself.
const ENDS: [&str; 7] = [
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|end|>",
    "<end_of_turn>",
];

pub(super) fn tokenizer(gguf: &Gguf<'_>) -> Result<Tokenizer, TokenizerError> {
    let model = gguf.text("tokenizer.ggml.model")?;
    let texts = gguf.texts("tokenizer.ggml.tokens")?;
    check_size(texts)?;
    let kinds = kinds(gguf, texts.len())?;
    let id = |key: &str, default| token_id(gguf, key, default, texts.len());
    let (algorithm, adds_bos, default_bos, default_eos) = match model {
        "gpt2" => bpe(gguf, texts, &kinds)?,
        "llama" => sentencepiece(gguf, texts, &kinds)?,
        other => return Err(TokenizerError::Model(other.to_owned())),
    };
    let bos = id("tokenizer.ggml.bos_token_id", default_bos)?;
    let eos = id("tokenizer.ggml.eos_token_id", default_eos)?;
    let stated = [eos, id("tokenizer.ggml.eot_token_id", None)?, id("tokenizer.ggml.eom_token_id", None)?];
    let special = special(texts, &kinds);
    Ok(Tokenizer {
        ends: ends(&special, stated),
        tokens: texts.iter().zip(&kinds).map(|(text, kind)| Token::new(text, *kind, &algorithm)).collect(),
        adds_bos: gguf.flag_or("tokenizer.ggml.add_bos_token", adds_bos)? && bos.is_some(),
        algorithm,
        special,
        bos,
        eos,
    })
}

/// The algorithm, whether it adds BOS by itself, and the ids of BOS and EOS where the file has none.
type Read = (Algorithm, bool, Option<u32>, Option<u32>);

fn bpe(gguf: &Gguf<'_>, texts: &[&str], kinds: &[Kind]) -> Result<Read, TokenizerError> {
    let name = gguf.text("tokenizer.ggml.pre")?;
    let named = split::named(name).ok_or_else(|| TokenizerError::Rule(name.to_owned()))?;
    let bpe = Bpe::new(&named, written(texts, kinds), gguf.texts("tokenizer.ggml.merges")?)?;
    Ok((Algorithm::Bpe(Box::new(bpe)), named.adds_bos, None, None))
}

fn sentencepiece(gguf: &Gguf<'_>, texts: &[&str], kinds: &[Kind]) -> Result<Read, TokenizerError> {
    let bytes = texts.iter().zip(kinds).zip(0..).filter(|((_, kind), _)| **kind == Kind::Byte);
    let bytes = bytes.filter_map(|((text, _), id)| Some((spm::byte_of(text)?, id)));
    let unknown = token_id(gguf, "tokenizer.ggml.unknown_token_id", Some(0), texts.len())?;
    let space_prefix = gguf.flag_or("tokenizer.ggml.add_space_prefix", true)?;
    let spm = Spm::new(written(texts, kinds), bytes, scores(gguf, texts.len())?, unknown, space_prefix)?;
    Ok((Algorithm::Spm(spm), true, Some(1), Some(2)))
}

/// Entries that text may become by itself. Control tokens are not among them: merging must never write one.
/// Neither are the names of bytes: `<0x0A>` in a text is six characters.
fn written<'a>(texts: &'a [&'a str], kinds: &'a [Kind]) -> impl Iterator<Item = (&'a str, u32)> {
    let all = texts.iter().zip(kinds).zip(0..);
    let written = all.filter(|((_, kind), _)| matches!(kind, Kind::Normal | Kind::UserDefined));
    written.map(|((text, _), id)| (*text, id))
}

fn check_size(texts: &[&str]) -> Result<(), TokenizerError> {
    if texts.is_empty() || texts.len() > VOCABULARY_MAX {
        let why = format!("{} tokens, expected 1 to {VOCABULARY_MAX}", texts.len());
        return Err(TokenizerError::Damaged(why));
    }
    Ok(())
}

fn kinds(gguf: &Gguf<'_>, count: usize) -> Result<Vec<Kind>, TokenizerError> {
    let numbers = match gguf.get("tokenizer.ggml.token_type") {
        None => vec![1; count],
        Some(value) => value.numbers().unwrap_or_default(),
    };
    if numbers.len() != count {
        let why = format!("{count} tokens but {} token types", numbers.len());
        return Err(TokenizerError::Damaged(why));
    }
    let kind = |number: &u64| match number {
        // 2 is "unknown": like control tokens it stands for no text.
        2 | 3 => Kind::Control,
        4 => Kind::UserDefined,
        6 => Kind::Byte,
        _ => Kind::Normal,
    };
    Ok(numbers.iter().map(kind).collect())
}

fn scores(gguf: &Gguf<'_>, count: usize) -> Result<Vec<f32>, TokenizerError> {
    const FLOAT32: u32 = 6;
    let key = "tokenizer.ggml.scores";
    let scores: Vec<f32> = match gguf.get(key) {
        Some(Value::Array(Array::Scalars { kind: FLOAT32, bytes })) => {
            bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
        }
        None => return Err(TokenizerError::Damaged(format!("{key} is missing"))),
        Some(other) => return Err(TokenizerError::Damaged(format!("{key} is {}", other.kind()))),
    };
    match scores.len() == count {
        true => Ok(scores),
        false => Err(TokenizerError::Damaged(format!("{count} tokens but {} scores", scores.len()))),
    }
}

impl Token {
    fn new(text: &str, kind: Kind, algorithm: &Algorithm) -> Token {
        let bytes = match (kind, algorithm) {
            (Kind::Control | Kind::UserDefined, _) => text.as_bytes().into(),
            (Kind::Byte, _) => {
                spm::byte_of(text).map_or_else(|| text.as_bytes().into(), |byte| [byte].into())
            }
            (Kind::Normal, Algorithm::Bpe(_)) => bytes::of_token(text),
            (Kind::Normal, Algorithm::Spm(_)) => text.replace(spm::SPACE, " ").into_bytes().into(),
        };
        Token { kind, bytes }
    }
}

fn special(texts: &[&str], kinds: &[Kind]) -> Special {
    let all = texts.iter().zip(kinds).zip(0..);
    let special = all.filter(|((_, kind), _)| matches!(kind, Kind::Control | Kind::UserDefined));
    Special::new(special.map(|((text, _), id)| ((*text).into(), id)))
}

/// The ids that end a generation: what the file says, and the well-known names of ends.
fn ends(special: &Special, stated: [Option<u32>; 3]) -> Vec<u32> {
    let named = ENDS.iter().filter_map(|name| special.id(name));
    let mut ends: Vec<u32> = stated.into_iter().flatten().chain(named).collect();
    ends.sort_unstable();
    ends.dedup();
    ends
}

fn token_id(
    gguf: &Gguf<'_>,
    key: &str,
    default: Option<u32>,
    vocabulary: usize,
) -> Result<Option<u32>, TokenizerError> {
    if gguf.get(key).is_none() {
        return Ok(default.filter(|id| (*id as usize) < vocabulary));
    }
    match gguf.number(key)? {
        id if id < vocabulary as u64 => Ok(Some(id as u32)),
        id => Err(TokenizerError::Damaged(format!("{key} is {id} of {vocabulary} tokens"))),
    }
}
