//! One hash for everything: BLAKE3, 32 bytes. The choice of algorithm lives here and nowhere else.

use std::fmt;

/// A BLAKE3 digest: the name of a segment, a chain, a model file, a request body.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, std::hash::Hash, Default)]
pub struct Hash(pub [u8; 32]);

/// The text was not 64 hexadecimal digits.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a hash is 64 hexadecimal digits")]
pub struct ParseHashError;

impl Hash {
    /// Hashes bytes as they are.
    pub fn of(bytes: &[u8]) -> Self {
        Hash(*blake3::hash(bytes).as_bytes())
    }

    /// Hashes several parts, each preceded by its length, so that moving a border changes the hash.
    pub fn of_parts(parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Hash(*hasher.finalize().as_bytes())
    }

    /// Hashes bytes under a key that separates one use, or one project, from another.
    /// `context` must be a constant or a name, never secret.
    pub fn keyed(context: &str, bytes: &[u8]) -> Self {
        let key = blake3::derive_key("quorate v1 scope", context.as_bytes());
        Hash(*blake3::keyed_hash(&key, bytes).as_bytes())
    }

    /// Reads 64 hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self, ParseHashError> {
        let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).map_err(|_| ParseHashError)?;
        Ok(Hash(bytes.try_into().map_err(|_| ParseHashError)?))
    }

    /// The first 12 digits, for people.
    pub fn short(&self) -> String {
        data_encoding::HEXLOWER.encode(&self.0[..6])
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash({})", self.short())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trip() {
        let hash = Hash::of(b"abc");
        assert_eq!(Hash::parse(&hash.to_string()), Ok(hash));
        assert_eq!(Hash::parse("abc"), Err(ParseHashError));
    }

    #[test]
    fn borders_between_parts_matter() {
        assert_ne!(Hash::of_parts(&[b"ab", b"c"]), Hash::of_parts(&[b"a", b"bc"]));
        assert_ne!(Hash::keyed("a", b"x"), Hash::keyed("b", b"x"));
    }
}
