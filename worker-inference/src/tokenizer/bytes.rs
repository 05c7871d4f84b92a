//! The byte-level alphabet: every byte has a printable character that stands for it in the vocabulary.

/// The byte behind a character of the alphabet. Printable Latin-1 characters stand for themselves; the
/// 68 others are numbered upwards from U+0100 in byte order.
fn byte_of(character: char) -> Option<u8> {
    let code = character as u32;
    match code {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => Some(code as u8),
        0x100..=0x120 => Some((code - 0x100) as u8),
        0x121..=0x142 => Some((code - 0x121 + 0x7f) as u8),
        0x143 => Some(0xad),
        _ => None,
    }
}

/// The character of each byte.
pub(super) fn alphabet() -> Box<[char; 256]> {
    let mut alphabet = Box::new(['\0'; 256]);
    for character in (0..=0x143).filter_map(char::from_u32) {
        if let Some(byte) = byte_of(character) {
            alphabet[usize::from(byte)] = character;
        }
    }
    alphabet
}

/// The bytes of a vocabulary entry. An entry with a character outside the alphabet stands for its own text.
pub(super) fn of_token(text: &str) -> Box<[u8]> {
    let bytes: Option<Vec<u8>> = text.chars().map(byte_of).collect();
    bytes.unwrap_or_else(|| text.as_bytes().to_vec()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_one_character() {
        let mut bytes: Vec<u8> = (0..=0x143).filter_map(char::from_u32).filter_map(byte_of).collect();
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=255).collect::<Vec<u8>>());
    }

    #[test]
    fn agrees_with_the_tokenizer_crate() {
        let theirs = tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet();
        let ours: Vec<char> =
            (0..=0x143).filter_map(char::from_u32).filter(|&c| byte_of(c).is_some()).collect();
        assert_eq!(ours.len(), 256);
        assert!(ours.iter().all(|character| theirs.contains(character)));
    }

    #[test]
    fn known_entries() {
        assert_eq!(&*of_token("Ġthe"), b" the");
        assert_eq!(&*of_token("Ċ"), b"\n");
        assert_eq!(&*of_token("Ã¼"), "ü".as_bytes());
        assert_eq!(&*of_token("a b"), b"a b");
    }
}
