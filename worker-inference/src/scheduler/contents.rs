//! Which block of the pool holds which content: by key, and by the content before it, so that a prefix is shared
//! to the token and not only to the block.

use std::collections::BTreeMap;

use super::Whole;
use crate::blocks::{BLOCK_TOKENS, BlockId};
use crate::prefix::{BlockTokens, Key, Scope};

/// Looked at for one sequence: the newest children of a content. More would slow admission.
const LOOKED_AT: usize = 64;

/// A content in the pool.
#[derive(Debug, Clone)]
pub(super) struct Content {
    pub(super) parent: Key,
    pub(super) scope: Scope,
    pub(super) class: u8,
    /// The first `len` are meant; a tail has fewer than 16.
    pub(super) tokens: BlockTokens,
    pub(super) len: usize,
    pub(super) block: BlockId,
    /// Its place among the children of its parent.
    number: u64,
}

impl Content {
    /// As the world outside sees it, when it is a whole block.
    pub(super) fn whole<'a>(&'a self, key: &'a Key, worth: u64) -> Option<Whole<'a>> {
        let Content { parent, scope, class, tokens, len, block, .. } = self;
        (*len == BLOCK_TOKENS).then_some(Whole {
            block: *block,
            key,
            parent,
            tokens,
            scope,
            class: *class,
            worth,
        })
    }

    /// # Panics
    /// For more than 16 tokens.
    pub(super) fn new(parent: Key, scope: Scope, class: u8, tokens: &[u32], block: BlockId) -> Content {
        Content { parent, scope, class, tokens: padded(tokens), len: tokens.len(), block, number: 0 }
    }
}

/// All contents of the pool that have a key.
#[derive(Debug, Clone, Default)]
pub(super) struct Contents {
    contents: BTreeMap<Key, Content>,
    children: BTreeMap<Key, BTreeMap<u64, Key>>,
    inserted: u64,
}

impl Contents {
    /// Remembers a content. False when it is already known under another block: then that one stays.
    pub(super) fn insert(&mut self, key: Key, mut content: Content) -> bool {
        if self.contents.contains_key(&key) {
            return false;
        }
        self.inserted += 1;
        content.number = self.inserted;
        self.children.entry(content.parent).or_default().insert(content.number, key);
        self.contents.insert(key, content);
        true
    }

    pub(super) fn remove(&mut self, key: &Key) -> Option<Content> {
        let content = self.contents.remove(key)?;
        if let Some(children) = self.children.get_mut(&content.parent) {
            children.remove(&content.number);
            if children.is_empty() {
                self.children.remove(&content.parent);
            }
        }
        Some(content)
    }

    /// The block that holds these 16 tokens. They are compared, so that even a colliding key can't mix up two
    /// prefixes.
    pub(super) fn find(&self, key: &Key, tokens: &BlockTokens) -> Option<BlockId> {
        let content = self.contents.get(key)?;
        (content.len == BLOCK_TOKENS && content.tokens == *tokens).then_some(content.block)
    }

    /// The block of a content, whatever its tokens are.
    pub(super) fn block_of(&self, key: &Key) -> Option<BlockId> {
        self.contents.get(key).map(|content| content.block)
    }

    /// The child of `parent` that shares most tokens with `next`, and how many; the newest among equals.
    pub(super) fn closest(&self, parent: &Key, next: &[u32]) -> Option<(BlockId, usize)> {
        let children = self.children.get(parent)?.values().rev().take(LOOKED_AT);
        let shared = children.map(|key| {
            let content = &self.contents[key];
            (content.block, common(&content.tokens[..content.len], next))
        });
        shared
            .filter(|(_, shared)| *shared > 0)
            .reduce(|best, other| if other.1 > best.1 { other } else { best })
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.contents.len()
    }
}

/// How many tokens two lists share from their start.
pub(super) fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// The first tokens as a block's, the rest 0.
fn padded(tokens: &[u32]) -> BlockTokens {
    let mut block = [0; BLOCK_TOKENS];
    block[..tokens.len()].copy_from_slice(tokens);
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(parent: u8, tokens: &[u32], block: u32) -> Content {
        Content::new(Key([parent; 32]), [0; 32], 0, tokens, BlockId(block))
    }

    #[test]
    fn the_longest_common_beginning_is_found_among_children_alone() {
        let mut contents = Contents::default();
        contents.insert(Key([1; 32]), content(9, &[1, 2, 3, 4], 1));
        contents.insert(Key([2; 32]), content(9, &[1, 2, 7], 2));
        contents.insert(Key([3; 32]), content(8, &[1, 2, 3, 4, 5], 3));
        let parent = Key([9; 32]);
        assert_eq!(contents.closest(&parent, &[1, 2, 3, 4, 5]), Some((BlockId(1), 4)));
        assert_eq!(contents.closest(&parent, &[1, 2, 7, 0, 0]), Some((BlockId(2), 3)), "padding is no token");
        assert_eq!(contents.closest(&parent, &[1, 2, 9]), Some((BlockId(2), 2)), "the newest among equals");
        assert_eq!(contents.closest(&parent, &[5]), None);
        assert_eq!(contents.remove(&Key([1; 32])).map(|content| content.block), Some(BlockId(1)));
        assert_eq!(contents.closest(&parent, &[1, 2, 3]), Some((BlockId(2), 2)));
        contents.remove(&Key([2; 32]));
        assert!(!contents.insert(Key([3; 32]), content(8, &[6], 7)), "the first one stays");
        assert_eq!(contents.find(&Key([3; 32]), &padded(&[1, 2, 3, 4, 5])), None, "a tail is no whole block");
        assert_eq!((contents.closest(&parent, &[1]), contents.len()), (None, 1));
    }
}
