//! Ids as newtypes, so that two of them cannot be swapped by mistake.

use std::fmt;
use std::sync::Arc;

/// A node's number, given by the log index of the entry that admitted it. Never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct NodeId(pub u64);

/// Made once, at `cluster init`. Every internal call carries it, so that two clusters cannot mix.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ClusterId(pub [u8; 16]);

/// The right to run a task, made when the lease is granted: later grants compare greater.
/// `incarnation` changes when a cluster is restored from a backup.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Epoch {
    pub incarnation: u32,
    pub index: u64,
    pub position: u32,
}

/// A task's permanent name, from the place of its creation in the log: `t_` + base32.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct TaskUid {
    pub index: u64,
    pub position: u32,
}

/// A tenant's name: lower-case letters, digits, `-`, and `/` between nested projects. Shared, because every task of
/// the ledger carries one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ProjectName(Arc<str>);

/// Text that is not an id of the expected kind.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
#[error("{text:?} is not {expected}")]
pub struct ParseIdError {
    pub text: String,
    pub expected: &'static str,
}

fn refuse<T>(text: &str, expected: &'static str) -> Result<T, ParseIdError> {
    Err(ParseIdError { text: text.chars().take(80).collect(), expected })
}

impl NodeId {
    pub fn parse(text: &str) -> Result<Self, ParseIdError> {
        match text.strip_prefix('n').unwrap_or(text).parse() {
            Ok(id) => Ok(NodeId(id)),
            Err(_) => refuse(text, "a node id like n7"),
        }
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

impl ClusterId {
    pub fn parse(text: &str) -> Result<Self, ParseIdError> {
        let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok();
        match bytes.and_then(|b| b.try_into().ok()) {
            Some(bytes) => Ok(ClusterId(bytes)),
            None => refuse(text, "a cluster id of 32 hexadecimal digits"),
        }
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterId({self})")
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.incarnation, self.index, self.position)
    }
}

impl Epoch {
    pub fn parse(text: &str) -> Result<Self, ParseIdError> {
        let mut parts = text.split('.');
        let mut next = || parts.next().and_then(|p| p.parse::<u64>().ok());
        match (next(), next(), next()) {
            (Some(a), Some(index), Some(c)) if a <= u32::MAX as u64 && c <= u32::MAX as u64 => {
                Ok(Epoch { incarnation: a as u32, index, position: c as u32 })
            }
            _ => refuse(text, "an epoch like 1.42.0"),
        }
    }
}

impl TaskUid {
    pub fn parse(text: &str) -> Result<Self, ParseIdError> {
        let bytes = text.strip_prefix("t_").and_then(|t| BASE32.decode(t.as_bytes()).ok());
        match bytes.and_then(|b| <[u8; 10]>::try_from(b).ok()) {
            Some(b) => Ok(TaskUid {
                index: u64::from_be_bytes(b[..8].try_into().expect("8 bytes")),
                position: u16::from_be_bytes([b[8], b[9]]) as u32,
            }),
            None => refuse(text, "a task id like t_0000000001k00000"),
        }
    }
}

impl fmt::Display for TaskUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0u8; 10];
        bytes[..8].copy_from_slice(&self.index.to_be_bytes());
        bytes[8..].copy_from_slice(&(self.position as u16).to_be_bytes());
        write!(f, "t_{}", BASE32.encode(&bytes))
    }
}

/// Base32 in the order of the digits, lower case, so that ids sort as their numbers do.
static BASE32: std::sync::LazyLock<data_encoding::Encoding> = std::sync::LazyLock::new(|| {
    let mut spec = data_encoding::Specification::new();
    spec.symbols.push_str("0123456789abcdefghijklmnopqrstuv");
    spec.encoding().expect("the alphabet has 32 symbols")
});

impl ProjectName {
    pub const DEFAULT: &'static str = "default";

    pub fn parse(text: &str) -> Result<Self, ParseIdError> {
        let good_part = |part: &str| {
            !part.is_empty()
                && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_')
        };
        if text.len() <= crate::limits::NAME_BYTES && text.split('/').all(good_part) {
            Ok(ProjectName(text.into()))
        } else {
            refuse(text, "a project name (lower-case letters, digits, -, _, and / between nested projects)")
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for ProjectName {
    fn default() -> Self {
        ProjectName(Self::DEFAULT.into())
    }
}

impl fmt::Display for ProjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip_and_sort_as_numbers() {
        let early = TaskUid { index: 9, position: 65_535 };
        let late = TaskUid { index: 300, position: 0 };
        assert_eq!(TaskUid::parse(&early.to_string()), Ok(early));
        assert!(early.to_string() < late.to_string());
        assert_eq!(NodeId::parse("n12"), Ok(NodeId(12)));
        assert!(TaskUid::parse("t_zz").is_err());
        let epoch = Epoch { incarnation: 1, index: 2, position: 3 };
        assert_eq!(Epoch::parse(&epoch.to_string()), Ok(epoch));
    }

    #[test]
    fn project_names_are_checked() {
        assert!(ProjectName::parse("research/vision").is_ok());
        for bad in ["", "a//b", "/a", "A", "a b", "a\n"] {
            assert!(ProjectName::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn stored_form_round_trips() {
        let epoch = Epoch { incarnation: 1, index: 2, position: 3 };
        assert_eq!(crate::decode::<Epoch>(&crate::encode(&epoch)).unwrap(), epoch);
        assert!(crate::decode::<Epoch>(&[0x83, 1, 2, 3, 4]).is_err(), "trailing byte");
    }
}
