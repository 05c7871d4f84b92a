//! What is known of a block that tells whether it will be asked for again. Few kinds, so that each is seen often.

use crate::evict::Use;

/// Levels of detail: all blocks, used once or again, how near to the end of the call, how long its answer was.
pub(super) const LEVELS: usize = 4;

const NEARS: usize = 3;
const ANSWERS: usize = 5;
/// Kinds in full detail.
pub(super) const KINDS: usize = 2 * NEARS * ANSWERS;

/// A kind in full detail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Kind(u8);

impl Kind {
    /// `is_again`: more than one call has used the block.
    pub(super) fn new(is_again: bool, call: &Use) -> Kind {
        let again = usize::from(is_again);
        Kind(((again * NEARS + near(call.after)) * ANSWERS + answer(call.answer)) as u8)
    }

    pub(super) fn all() -> impl Iterator<Item = Kind> {
        (0..KINDS as u8).map(Kind)
    }

    pub(super) fn index(self) -> usize {
        usize::from(self.0)
    }

    /// The kind's number at a level; level 0 knows one kind.
    pub(super) fn at_level(self, level: usize) -> usize {
        match level {
            0 => 0,
            1 => self.index() / (NEARS * ANSWERS),
            2 => self.index() / ANSWERS,
            _ => self.index(),
        }
    }
}

/// The end of a prompt is the part that the next call most likely changes.
fn near(after_tokens: u32) -> usize {
    match after_tokens {
        0..=255 => 0,
        256..=1535 => 1,
        _ => 2,
    }
}

/// A short answer is a tool call or a word: its reader comes back sooner than that of a long one.
fn answer(tokens: u32) -> usize {
    match tokens {
        0..=7 => 0,
        8..=31 => 1,
        32..=63 => 2,
        64..=127 => 3,
        _ => 4,
    }
}
