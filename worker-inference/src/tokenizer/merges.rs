//! The merge rules, checked before they reach the tokenizer crate (which trusts them).

use tokenizers::models::bpe::{BPE, Merges, Vocab};

use super::TokenizerError;

/// Words up to this many bytes are remembered with their tokens; text repeats itself.
const CACHED_WORDS: usize = 50_000;

pub(super) fn build(texts: &[&str], merges: &[&str]) -> Result<BPE, TokenizerError> {
    let mut vocabulary = Vocab::default();
    for (index, text) in texts.iter().enumerate() {
        // The first of two equal entries wins, as in the reference implementation.
        vocabulary.entry((*text).to_owned()).or_insert(index as u32);
    }
    let merges = merges.iter().map(|rule| parse(rule, &vocabulary)).collect::<Result<Merges, _>>()?;
    let builder = BPE::builder().vocab_and_merges(vocabulary, merges).cache_capacity(CACHED_WORDS);
    builder.build().map_err(|error| TokenizerError::Damaged(error.to_string()))
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
