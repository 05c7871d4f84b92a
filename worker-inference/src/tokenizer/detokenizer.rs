//! Streaming text: bytes of tokens in, whole characters out.

/// Collects the bytes of one sequence's tokens and hands out text, never half a character.
#[derive(Debug, Clone, Default)]
pub struct Detokenizer {
    /// Bytes of a character that has begun and may still be completed: at most three.
    pending: Vec<u8>,
}

impl Detokenizer {
    /// Adds the bytes of the next token and returns the text that is certain now. Bytes that can't become
    /// UTF-8 any more turn into U+FFFD.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let mut text = String::new();
        let mut rest = &self.pending[..];
        while !rest.is_empty() {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
                }
                Err(error) => {
                    let (valid, broken) = rest.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(valid));
                    let Some(len) = error.error_len() else {
                        rest = broken;
                        break;
                    };
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = &broken[len..];
                }
            }
        }
        self.pending = rest.to_vec();
        text
    }

    /// Whether no character has begun that is not complete.
    pub fn is_between_characters(&self) -> bool {
        self.pending.is_empty()
    }

    /// The end of the sequence: what is left of an unfinished character, as U+FFFD.
    pub fn finish(&mut self) -> String {
        let rest = String::from_utf8_lossy(&self.pending).into_owned();
        self.pending.clear();
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_split_of_a_text_gives_the_text() {
        let text = "aü→🙂\u{10ffff}z";
        let bytes = text.as_bytes();
        for first in 0..=bytes.len() {
            for second in first..=bytes.len() {
                let mut detokenizer = Detokenizer::default();
                let parts = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                let mut got: String = parts.iter().map(|part| detokenizer.push(part)).collect();
                got.push_str(&detokenizer.finish());
                assert_eq!(got, text, "split at {first} and {second}");
            }
        }
    }

    #[test]
    fn half_a_character_waits_and_a_broken_one_is_replaced() {
        let mut detokenizer = Detokenizer::default();
        assert_eq!(detokenizer.push(&[0xf0, 0x9f]), "");
        assert_eq!(detokenizer.push(&[0x99, 0x82, b'!']), "🙂!");
        assert_eq!(detokenizer.push(&[0xff, b'a', 0xe2]), "\u{fffd}a");
        assert_eq!(detokenizer.push(b"b"), "\u{fffd}b");
        assert_eq!(detokenizer.push(&[0xc3]), "");
        assert_eq!(detokenizer.finish(), "\u{fffd}");
        assert_eq!(detokenizer.finish(), "");
    }
}
