//! Our vocabulary as llguidance reads it.

use std::sync::Arc;

use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};

use super::GrammarError;
use crate::tokenizer::Tokenizer;

/// Longer tokens are no text; the trie holds 1,024 bytes.
const TOKEN_BYTES_MAX: usize = 1000;

/// The bytes of all tokens. Control tokens have none and are never allowed inside an answer.
pub(super) fn environment(tokenizer: &Tokenizer, vocabulary: usize) -> Result<TokEnv, GrammarError> {
    let ends = tokenizer.ends();
    let Some(&end) = ends.first() else {
        return Err(GrammarError::Vocabulary("it has no end token".into()));
    };
    // The trie counts tokens in 22 bits.
    if vocabulary == 0 || vocabulary > 1 << 21 || ends.iter().any(|&end| end as usize >= vocabulary) {
        return Err(GrammarError::Vocabulary(format!("it has {vocabulary} tokens")));
    }
    let words: Vec<Vec<u8>> = (0..vocabulary as u32).map(|token| word(tokenizer, token)).collect();
    let trie = TokTrie::from(&TokRxInfo::new(vocabulary as u32, end), &words).with_eos_tokens(ends);
    Ok(Arc::new(ApproximateTokEnv::new(trie)))
}

/// The text of a token. 0xFF marks control tokens for llguidance and is never part of UTF-8.
fn word(tokenizer: &Tokenizer, token: u32) -> Vec<u8> {
    match tokenizer.bytes(token) {
        bytes if bytes.len() > TOKEN_BYTES_MAX || bytes.contains(&TokTrie::SPECIAL_TOKEN_MARKER) => {
            Vec::new()
        }
        bytes => bytes.to_vec(),
    }
}
