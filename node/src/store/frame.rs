//! The frame around every value in sled: `[format u8][length u32][crc32 u32][bytes]`, so that a value that
//! sled brings back short or changed is noticed instead of believed.

const FORMAT: u8 = 1;
const HEADER: usize = 9;

/// Wraps a value.
pub(super) fn wrap(bytes: &[u8]) -> Vec<u8> {
    let mut framed = Vec::with_capacity(HEADER + bytes.len());
    framed.push(FORMAT);
    framed.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    framed.extend_from_slice(&crc32fast::hash(bytes).to_be_bytes());
    framed.extend_from_slice(bytes);
    framed
}

/// Unwraps a value; None when it is not what [`wrap`] made.
pub(super) fn unwrap(framed: &[u8]) -> Option<&[u8]> {
    let (header, bytes) = framed.split_at_checked(HEADER)?;
    let whole = header[0] == FORMAT
        && header[1..5] == (bytes.len() as u32).to_be_bytes()
        && header[5..9] == crc32fast::hash(bytes).to_be_bytes();
    whole.then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_changed_or_lost_byte_is_noticed() {
        let framed = wrap(b"value");
        assert_eq!(unwrap(&framed), Some(&b"value"[..]));
        for at in 0..framed.len() {
            let mut changed = framed.clone();
            changed[at] ^= 0x40;
            assert_eq!(unwrap(&changed), None, "byte {at}");
            assert_eq!(unwrap(&framed[..at]), None, "cut at {at}");
        }
    }
}
