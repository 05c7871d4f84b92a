//! Byte-level BPE: a text is cut into words by its family's rule, each word is written in the alphabet of bytes,
//! and the tokenizer crate merges. A byte without an entry (some vocabularies lack a few control characters) is left
//! out, as in the reference implementations.

use tokenizers::Model;
use tokenizers::models::bpe::{BPE, Merges, Vocab};

use super::split::{self, Named};
use super::{TokenizerError, bytes};

/// Words up to this many bytes are remembered with their tokens; text repeats itself.
const CACHED_WORDS: usize = 50_000;

#[derive(Debug)]
pub(super) struct Bpe {
    rule: split::Rule,
    merges: BPE,
    alphabet: Box<[char; 256]>,
}

impl Bpe {
    /// `texts` are the entries with their ids; control tokens are not among them, so that no text becomes one.
    pub(super) fn new<'a>(
        named: &Named,
        texts: impl Iterator<Item = (&'a str, u32)>,
        merges: &[&str],
    ) -> Result<Bpe, TokenizerError> {
        let mut vocabulary = Vocab::default();
        for (text, id) in texts {
            // The first of two equal entries wins, as in the reference implementation.
            vocabulary.entry(text.to_owned()).or_insert(id);
        }
        let alphabet = bytes::alphabet();
        let merges = merges.iter().map(|rule| parse(rule, &vocabulary)).collect::<Result<Merges, _>>()?;
        let builder = BPE::builder()
            .vocab_and_merges(vocabulary, merges)
            .cache_capacity(CACHED_WORDS)
            .ignore_merges(named.whole_words);
        let merges = builder.build().map_err(|error| TokenizerError::Damaged(error.to_string()))?;
        Ok(Bpe { rule: named.rule, merges, alphabet })
    }

    pub(super) fn encode(&self, text: &str, ids: &mut Vec<u32>) -> Result<(), TokenizerError> {
        let mut word_in_letters = String::new();
        let mut result = Ok(());
        split::words(self.rule, text, |word| {
            word_in_letters.clear();
            word_in_letters.extend(word.bytes().map(|byte| self.alphabet[usize::from(byte)]));
            match self.merges.tokenize(&word_in_letters) {
                Ok(tokens) => ids.extend(tokens.iter().map(|token| token.id)),
                Err(error) => result = Err(TokenizerError::Text(error.to_string())),
            }
        });
        result
    }
}

/// A rule is two vocabulary entries with a space between, and their concatenation is an entry too.
fn parse(rule: &str, vocabulary: &Vocab) -> Result<(String, String), TokenizerError> {
    let known = |text: &str| vocabulary.contains_key(text);
    match rule.split_once(' ') {
        Some((left, right)) if known(left) && known(right) && known(&format!("{left}{right}")) => {
            Ok((left.to_owned(), right.to_owned()))
        }
        _ => Err(TokenizerError::Damaged(format!("merge rule {rule:?} does not fit the vocabulary"))),
    }
}
