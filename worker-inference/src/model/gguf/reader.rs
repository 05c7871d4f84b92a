//! A cursor over bytes that refuses to run past the end and never trusts a length.

use super::GgufError;

pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes, position: 0 }
    }

    pub(super) fn position(&self) -> usize {
        self.position
    }

    pub(super) fn take(&mut self, len: usize, what: &str) -> Result<&'a [u8], GgufError> {
        let rest = &self.bytes[self.position..];
        let Some(taken) = rest.get(..len) else {
            return Err(GgufError::Truncated { what: what.to_owned(), at: self.position });
        };
        self.position += len;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], GgufError> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N, what)?);
        Ok(bytes)
    }

    pub(super) fn u32(&mut self, what: &str) -> Result<u32, GgufError> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: &str) -> Result<u64, GgufError> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A count of things that take at least `bytes_each`: refused when they can't fit into what is left.
    pub(super) fn count(&mut self, what: &str, bytes_each: usize) -> Result<usize, GgufError> {
        let at = self.position;
        let found = self.u64(what)?;
        let most = ((self.bytes.len() - self.position) / bytes_each.max(1)) as u64;
        if found > most {
            return Err(GgufError::TooMany { what: what.to_owned(), at, found, most });
        }
        Ok(found as usize)
    }

    /// A length-prefixed UTF-8 text.
    pub(super) fn text(&mut self, what: &str) -> Result<&'a str, GgufError> {
        let len = self.count(what, 1)?;
        let at = self.position;
        let bytes = self.take(len, what)?;
        std::str::from_utf8(bytes).map_err(|_| super::invalid(what, at, "the text is not UTF-8"))
    }

    /// A text that names something: not empty and not absurdly long.
    pub(super) fn name(&mut self, what: &str, most: usize) -> Result<&'a str, GgufError> {
        let at = self.position;
        let name = self.text(what)?;
        match name.len() {
            0 => Err(super::invalid(what, at, "the name is empty")),
            len if len > most => Err(super::invalid(what, at, "the name is too long")),
            _ => Ok(name),
        }
    }
}
