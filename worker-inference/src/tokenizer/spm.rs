//! SentencePiece vocabularies: no words, but scores. Starting from single characters, the pair whose joined text
//! has the best score is joined, the leftmost first, until no pair is in the vocabulary. What is in no entry is
//! written as bytes.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};

use super::TokenizerError;

/// The character that stands for a space in entries.
pub(super) const SPACE: char = '\u{2581}';

/// Entries with their scores, and how to write bytes.
#[derive(Debug)]
pub(super) struct Spm {
    entries: HashMap<Box<str>, u32>,
    scores: Vec<f32>,
    bytes: Box<[u32; 256]>,
    /// No entry goes on behind a word into the next space, so words can be joined one by one.
    by_words: bool,
    /// Texts begin with a space, also behind special tokens.
    pub(super) space_prefix: bool,
}

/// A piece of the text that is a candidate for one token, in a doubly linked list.
#[derive(Clone, Copy)]
struct Piece {
    start: u32,
    /// 0 once it is part of the piece to its left.
    len: u32,
    previous: u32,
    next: u32,
}

const NONE: u32 = u32::MAX;

/// Two neighbours whose joined text is an entry. The greatest is joined first.
#[derive(PartialEq)]
struct Pair {
    score: f32,
    left: u32,
    right: u32,
    /// Of both when the pair was found; if it has changed since, the pair is stale.
    len: u32,
}

impl Eq for Pair {}

impl Ord for Pair {
    fn cmp(&self, other: &Pair) -> Ordering {
        self.score.total_cmp(&other.score).then(other.left.cmp(&self.left)).then(self.len.cmp(&other.len))
    }
}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Pair) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Spm {
    /// `texts` are the entries that text may become, with their ids; `bytes` are those that write one byte.
    /// A byte without a token of its own is written as the unknown token, if there is one.
    pub(super) fn new<'a>(
        texts: impl Iterator<Item = (&'a str, u32)>,
        bytes_of: impl Iterator<Item = (u8, u32)>,
        scores: Vec<f32>,
        unknown: Option<u32>,
        space_prefix: bool,
    ) -> Result<Spm, TokenizerError> {
        // Of two equal entries the last wins, as in the reference implementation.
        let entries: HashMap<Box<str>, u32> = texts.map(|(text, id)| (text.into(), id)).collect();
        let mut known = [unknown; 256];
        bytes_of.for_each(|(byte, id)| known[usize::from(byte)] = Some(id));
        let mut bytes = Box::new([0; 256]);
        for (byte, token) in known.iter().enumerate() {
            let missing = || TokenizerError::Damaged(format!("it has no token for the byte {byte:#04x}"));
            bytes[byte] = token.ok_or_else(missing)?;
        }
        // A score that is no number would be neither better nor worse than others; -0 is 0.
        let scores =
            scores.into_iter().map(|score| if score.is_nan() { f32::NEG_INFINITY } else { score + 0.0 });
        let by_words = !entries.keys().any(|entry| word_ends(entry).next().is_some());
        Ok(Spm { entries, scores: scores.collect(), bytes, by_words, space_prefix })
    }

    /// Adds the tokens of a text whose spaces are still spaces.
    pub(super) fn encode(
        &self,
        text: &str,
        with_prefix: bool,
        ids: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        let mut marked = String::with_capacity(text.len() + text.len() / 4 + 3);
        if with_prefix && self.space_prefix {
            marked.push(SPACE);
        }
        marked.extend(text.chars().map(|c| if c == ' ' { SPACE } else { c }));
        if marked.len() >= NONE as usize {
            return Err(TokenizerError::Text(format!("it has {} bytes; give less at once", marked.len())));
        }
        let mut work = Work::default();
        let mut start = 0;
        for end in word_ends(&marked).filter(|_| self.by_words) {
            self.join(&marked[start..end], &mut work, ids);
            start = end;
        }
        self.join(&marked[start..], &mut work, ids);
        Ok(())
    }

    fn join(&self, text: &str, work: &mut Work, ids: &mut Vec<u32>) {
        let Work { pieces, pairs } = work;
        characters(text, pieces);
        for left in 1..pieces.len() as u32 {
            self.consider(text, pieces, left - 1, left, pairs);
        }
        while let Some(pair) = pairs.pop() {
            let (left, right) = (pieces[pair.left as usize], pieces[pair.right as usize]);
            if left.len == 0 || right.len == 0 || left.len + right.len != pair.len {
                continue;
            }
            pieces[pair.left as usize].len = pair.len;
            pieces[pair.left as usize].next = right.next;
            pieces[pair.right as usize].len = 0;
            if let Some(behind) = pieces.get_mut(right.next as usize) {
                behind.previous = pair.left;
            }
            self.consider(text, pieces, left.previous, pair.left, pairs);
            self.consider(text, pieces, pair.left, right.next, pairs);
        }
        let whole = pieces.iter().filter(|piece| piece.len > 0);
        whole.for_each(|piece| self.write(piece.text(text), ids));
    }

    fn consider(&self, text: &str, pieces: &[Piece], left: u32, right: u32, pairs: &mut BinaryHeap<Pair>) {
        let (Some(first), Some(second)) = (pieces.get(left as usize), pieces.get(right as usize)) else {
            return;
        };
        let len = first.len + second.len;
        let joined = Piece { len, ..*first }.text(text);
        if let Some(&token) = self.entries.get(joined) {
            let score = self.scores.get(token as usize).copied().unwrap_or(0.0);
            pairs.push(Pair { score, left, right, len });
        }
    }

    fn write(&self, piece: &str, ids: &mut Vec<u32>) {
        match self.entries.get(piece) {
            Some(&token) => ids.push(token),
            None => ids.extend(piece.bytes().map(|byte| self.bytes[byte as usize])),
        }
    }
}

impl Piece {
    fn text(self, text: &str) -> &str {
        &text[self.start as usize..(self.start + self.len) as usize]
    }
}

/// What joining one word needs, kept for the next.
#[derive(Default)]
struct Work {
    pieces: Vec<Piece>,
    pairs: BinaryHeap<Pair>,
}

/// Where a space follows something else.
fn word_ends(text: &str) -> impl Iterator<Item = usize> {
    let mut follows_space = true;
    text.char_indices().filter_map(move |(at, character)| {
        let ends = character == SPACE && !follows_space;
        follows_space = character == SPACE;
        ends.then_some(at)
    })
}

fn characters(text: &str, into: &mut Vec<Piece>) {
    let count = text.chars().count() as u32;
    let pieces = text.char_indices().zip(0..).map(|((start, character), index)| Piece {
        start: start as u32,
        len: character.len_utf8() as u32,
        previous: if index == 0 { NONE } else { index - 1 },
        next: if index + 1 == count { NONE } else { index + 1 },
    });
    into.clear();
    into.extend(pieces);
}

/// The byte that an entry such as `<0x0A>` stands for.
pub(super) fn byte_of(entry: &str) -> Option<u8> {
    let digits = entry.strip_prefix("<0x")?.strip_suffix('>')?;
    let is_byte = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    if is_byte { u8::from_str_radix(digits, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes, then letters and joined pieces with scores.
    fn toy(entries: &[(&str, f32)], space_prefix: bool) -> Spm {
        let texts = entries.iter().zip(256..).map(|((text, _), id)| (*text, id));
        let scores = [0.0; 256].into_iter().chain(entries.iter().map(|(_, score)| *score)).collect();
        Spm::new(texts, (0..=255).zip(0..), scores, None, space_prefix).expect("a whole vocabulary")
    }

    fn encode(spm: &Spm, text: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        spm.encode(text, true, &mut ids).expect("encodes");
        ids
    }

    #[test]
    fn the_best_score_is_joined_first_and_the_leftmost_of_equals() {
        let entries = [("a", 0.0), ("b", 0.0), ("c", 0.0), ("ab", -2.0), ("bc", -1.0), ("aa", -3.0)];
        let spm = toy(&entries, false);
        assert_eq!(encode(&spm, "abc"), [256, 260]);
        assert_eq!(encode(&spm, "aaa"), [261, 256]);
        assert_eq!(encode(&spm, "ab"), [259]);
        assert_eq!(encode(&spm, ""), Vec::<u32>::new());
    }

    #[test]
    fn words_are_joined_one_by_one_where_no_entry_crosses_them() {
        let entries =
            [("a", 0.0), ("\u{2581}", 0.0), ("\u{2581}a", -1.0), ("aa", -0.5), ("\u{2581}\u{2581}", -2.0)];
        let crossing = [&entries[..], &[("a\u{2581}x", -9.0)]].concat();
        let (by_words, whole) = (toy(&entries, true), toy(&crossing, true));
        assert!(by_words.by_words && !whole.by_words);
        for text in ["", "a", "aa a", "a  aa   a", "  a ", "aaa aaaa a"] {
            assert_eq!(encode(&by_words, text), encode(&whole, text), "{text:?}");
        }
    }

    #[test]
    fn unknown_characters_are_bytes_and_spaces_are_marked() {
        let spm = toy(&[("\u{2581}", 0.0), ("x", 0.0), ("\u{2581}x", -1.0)], true);
        assert_eq!(encode(&spm, "x x"), [258, 258]);
        assert_eq!(encode(&spm, "ü"), [256, 0xc3, 0xbc]);
        assert_eq!(byte_of("<0x0A>"), Some(10));
        assert!(["<0x0>", "<0x+1>", "0x0A", "<0xüü>", "<0xGG>"].iter().all(|text| byte_of(text).is_none()));
    }

    #[test]
    fn missing_bytes_are_refused_unless_there_is_an_unknown_token() {
        let texts = || [("a", 0), ("?", 1)].into_iter();
        assert!(Spm::new(texts(), std::iter::empty(), vec![0.0, 0.0], None, false).is_err());
        let spm =
            Spm::new(texts(), std::iter::empty(), vec![f32::NAN], Some(1), false).expect("has a way out");
        assert_eq!(encode(&spm, "ab"), [0, 1]);
    }
}
