//! Output of a stranger: kept up to a size, and made harmless before a person or a terminal sees it.

use std::collections::VecDeque;
use std::io::Read;

/// The first half of what fits, and the last: errors are said at the end.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    cut_bytes: u64,
}

impl Kept {
    /// Reads to the end. What is beyond `limit_bytes` is dropped, so that the writer never waits for us.
    pub(crate) fn read(mut from: impl Read, limit_bytes: usize) -> Kept {
        let mut kept = Kept::default();
        let mut buffer = vec![0; 64 << 10];
        loop {
            match from.read(&mut buffer) {
                Ok(0) => return kept,
                Ok(count) => kept.push(&buffer[..count], limit_bytes),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return kept,
            }
        }
    }

    fn push(&mut self, bytes: &[u8], limit_bytes: usize) {
        let tail_bytes = limit_bytes / 2;
        let room = (limit_bytes - tail_bytes).saturating_sub(self.head.len());
        let (first, rest) = bytes.split_at(room.min(bytes.len()));
        self.head.extend_from_slice(first);
        // Of a large piece only the last bytes can stay.
        let (gone, rest) = rest.split_at(rest.len().saturating_sub(tail_bytes));
        self.tail.extend(rest);
        let over = self.tail.len().saturating_sub(tail_bytes);
        self.tail.drain(..over);
        self.cut_bytes += (gone.len() + over) as u64;
    }

    /// The bytes, with a line between the halves that says how much is missing; and how much that is.
    pub(crate) fn finish(self) -> (Vec<u8>, u64) {
        let mut bytes = self.head;
        if self.cut_bytes > 0 {
            bytes.extend_from_slice(format!("\n[{} bytes cut]\n", self.cut_bytes).as_bytes());
        }
        bytes.extend(self.tail);
        (bytes, self.cut_bytes)
    }
}

/// As text that a terminal and a log can show: line ends and tabs stay, other control characters and bytes that
/// are not UTF-8 become `\x1b`.
pub fn shown(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for part in bytes.utf8_chunks() {
        part.valid().chars().for_each(|c| push_shown(&mut text, c));
        part.invalid().iter().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
    }
    text
}

fn push_shown(text: &mut String, c: char) {
    match c {
        '\n' | '\t' => text.push(c),
        // Written from right to left, text can look like another.
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => text.extend(c.escape_unicode()),
        c if c.is_control() && u32::from(c) < 0x100 => {
            text.push_str(&format!("\\x{:02x}", u32::from(c)));
        }
        c => text.push(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(pieces: &[&str], limit_bytes: usize) -> (String, u64) {
        let mut kept = Kept::default();
        pieces.iter().for_each(|piece| kept.push(piece.as_bytes(), limit_bytes));
        let (bytes, cut) = kept.finish();
        (String::from_utf8(bytes).expect("text"), cut)
    }

    #[test]
    fn what_fits_stays_whole() {
        assert_eq!(kept(&["abc", "defg"], 7), ("abcdefg".into(), 0));
        assert_eq!(kept(&[], 7), (String::new(), 0));
    }

    #[test]
    fn beginning_and_end_stay() {
        assert_eq!(kept(&["abcdefghij"], 4), ("ab\n[6 bytes cut]\nij".into(), 6));
        assert_eq!(kept(&["a", "b", "c", "d", "e", "f"], 4), ("ab\n[2 bytes cut]\nef".into(), 2));
        assert_eq!(kept(&["abc"], 0), ("\n[3 bytes cut]\n".into(), 3));
    }

    #[test]
    fn terminals_are_not_commanded() {
        assert_eq!(shown(b"a\x1b[2Jb\r\n\tc\xff\x80"), "a\\x1b[2Jb\\x0d\n\tc\\xff\\x80");
        assert_eq!(shown("gr\u{fc}n \u{9b}1m \u{202e}".as_bytes()), "gr\u{fc}n \\x9b1m \\u{202e}");
    }
}
