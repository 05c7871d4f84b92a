//! The beginning of a task's prompt as a chain of parts, each named by everything up to its end.

use crate::rows::TaskRow;
use types::Hash;

/// Sizes that the ledger does not know, in tokens: a definition's system prompt, a team's shared segment.
const DEFINITION_TOKENS: u64 = 256;
const BACKGROUND_TOKENS: u64 = 512;
/// Bytes of text in one token, on average.
const BYTES_PER_TOKEN: u64 = 4;

/// Parts in order, each with its key and the tokens up to its end. A key stands for the part and all before it, and
/// is 64 bits long: two that meet by chance cost a prompt computed twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    parts: Vec<(u64, u64)>,
}

impl Chain {
    /// Of parts named by hash, with their sizes in tokens.
    pub fn of(parts: impl IntoIterator<Item = (Hash, u64)>) -> Chain {
        let mut chain = Chain::default();
        parts.into_iter().for_each(|(hash, tokens)| chain.push(number(hash), tokens));
        chain
    }

    /// What the prompt of a task begins with: project and model, the agent's revision, what its team shares, its
    /// inputs, and what it said and heard itself. The last is named by the task, not by its newest step: it grows,
    /// and what a node has of it stays a beginning of it.
    pub fn of_task(row: &TaskRow) -> Chain {
        let scope = folded(folded(0, row.project.as_str()), &row.model);
        let mut chain = Chain { parts: Vec::with_capacity(2 + row.background.len() + row.inputs.len()) };
        chain.push(mixed(scope, number(*row.revision)), DEFINITION_TOKENS);
        row.background.iter().for_each(|hash| chain.push(number(*hash), BACKGROUND_TOKENS));
        for input in &row.inputs {
            chain.push(number(input.segment), input.bytes.div_ceil(BYTES_PER_TOKEN));
        }
        if row.step > 0 {
            let new = row.spent.prompt_tokens.saturating_sub(row.spent.cached_tokens);
            let own = new.saturating_add(row.spent.generated_tokens).saturating_sub(chain.tokens());
            chain.push(mixed(row.uid.index, u64::from(row.uid.position)), own.max(1));
        }
        chain
    }

    fn push(&mut self, key: u64, tokens: u64) {
        let (before, end) = self.parts.last().copied().unwrap_or_default();
        self.parts.push((mixed(before, key), end.saturating_add(tokens)));
    }

    pub fn tokens(&self) -> u64 {
        self.end_of(self.parts.len())
    }

    /// Tokens of the first `depth` parts.
    pub(super) fn end_of(&self, depth: usize) -> u64 {
        depth.checked_sub(1).map_or(0, |last| self.parts[last].1)
    }

    pub(super) fn key_at(&self, depth: usize) -> Option<u64> {
        self.parts.get(depth.checked_sub(1)?).map(|(key, _)| *key)
    }

    /// The key of the whole prompt.
    pub(super) fn tail(&self) -> u64 {
        self.key_at(self.parts.len()).unwrap_or(0)
    }

    /// Keys, and the tokens of each part alone.
    pub(super) fn parts(&self) -> impl DoubleEndedIterator<Item = (u64, u64)> {
        let alone = |at: usize| (self.parts[at].0, self.parts[at].1 - self.end_of(at));
        (0..self.parts.len()).map(alone)
    }

    /// How many parts from the beginning on are held. What is held is a beginning, so halving finds its end.
    pub(super) fn depth(&self, holds: impl Fn(u64) -> bool) -> usize {
        self.parts.partition_point(|(key, _)| holds(*key))
    }
}

/// Hashes are uniform already: eight bytes of one are as good as any other eight.
fn number(hash: Hash) -> u64 {
    u64::from_le_bytes(hash.0[..8].try_into().expect("a hash has 32 bytes"))
}

/// Two numbers into one, so that the order matters and near numbers come far apart.
fn mixed(before: u64, key: u64) -> u64 {
    let product = u128::from(before ^ 0x9e37_79b9_7f4a_7c15) * u128::from(key ^ 0xd6e8_feb8_6659_fd93);
    (product as u64) ^ ((product >> 64) as u64) ^ before.rotate_left(23).wrapping_add(key)
}

fn folded(before: u64, text: &str) -> u64 {
    text.bytes().fold(before, |sum, byte| mixed(sum, u64::from(byte)))
}
