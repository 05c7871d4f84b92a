//! Bounds of this room, each with its reason.

/// Items in one scope: vectors are compared one by one, and 100,000 of 384 floats take 150 MiB and some 20 ms.
pub const ITEMS_PER_SCOPE: usize = 100_000;
/// Vectors of one item. A long item is cut into windows; words find what lies behind the last of them.
pub const VECTORS_PER_ITEM: usize = 16;
/// Vectors of one scope.
pub const VECTORS_PER_SCOPE: usize = 4 * ITEMS_PER_SCOPE;
/// Numbers of one vector: encoders in use have 384 to 1,024.
pub const VECTOR_DIMS: usize = 4096;
/// Words of one item that enter the index: a segment of 4 MiB of prose has 700,000.
pub const WORDS_PER_ITEM: usize = 1_000_000;
/// Bytes of one word; what is longer (base64, hashes of several) is cut here.
pub const WORD_BYTES: usize = 64;
/// Words of one question.
pub const QUERY_WORDS: usize = 256;
/// Hits of one answer.
pub const HITS: usize = 100;
/// Tags of one item.
pub const TAGS: usize = 16;
/// Items that one summary replaces.
pub const REPLACED: usize = 1024;
