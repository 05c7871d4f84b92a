//! A provider's key: read when needed, shown to nobody, overwritten when dropped.
//!
//! The HTTP client makes its own copy for the moment of a request; that copy is marked sensitive and lives as long as the
//! request. Keys belong into files (mode 0400, or systemd's `LoadCredential=`): a process's environment is readable by
//! whoever runs as its user.

use crate::bounds::{KEY_BYTES, KEY_TRACE_BYTES};
use std::path::PathBuf;
use zeroize::Zeroizing;

const HIDDEN: &str = "[key]";

/// Where a key comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// The first line of a file.
    File(PathBuf),
    /// An environment variable.
    Env(String),
    /// The endpoint takes no key.
    None,
}

/// A secret. It has no `Display`, and its `Debug` says nothing.
#[derive(Clone)]
pub struct Key(Zeroizing<String>);

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("cannot read the key file {path}: {cause}; check key_file and that the node's user may read it")]
    Unreadable { path: String, cause: std::io::Error },
    #[error("the environment variable {name} is not set; set it for the node, or use key_file")]
    NotSet { name: String },
    #[error("the key from {place} is not a key: {why}; write it on the first line and nothing else")]
    NotAKey { place: String, why: &'static str },
}

impl KeySource {
    /// Reads the key as it is now.
    pub fn read(&self) -> Result<Option<Key>, KeyError> {
        let (place, text) = match self {
            KeySource::None => return Ok(None),
            KeySource::File(path) => (path.display().to_string(), read_file(path)?),
            KeySource::Env(name) => (name.clone(), read_env(name)?),
        };
        Key::parse(&place, &text).map(Some)
    }
}

fn read_file(path: &std::path::Path) -> Result<Zeroizing<String>, KeyError> {
    use std::io::Read;
    let unreadable = |cause| KeyError::Unreadable { path: path.display().to_string(), cause };
    let mut text = Zeroizing::new(String::with_capacity(KEY_BYTES + 1));
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(KEY_BYTES as u64 + 1).read_to_string(&mut text).map_err(unreadable)?;
    Ok(text)
}

fn read_env(name: &str) -> Result<Zeroizing<String>, KeyError> {
    std::env::var(name).map(Zeroizing::new).map_err(|_| KeyError::NotSet { name: name.into() })
}

impl Key {
    fn parse(place: &str, text: &str) -> Result<Key, KeyError> {
        let not_a_key = |why| KeyError::NotAKey { place: place.into(), why };
        let key = text.trim();
        if key.is_empty() {
            return Err(not_a_key("it is empty"));
        }
        if text.len() > KEY_BYTES {
            return Err(not_a_key("it is too long"));
        }
        if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(not_a_key("it has characters that no key has"));
        }
        Ok(Key(Zeroizing::new(key.into())))
    }

    /// The value of an extra header, if it is long enough to be a secret.
    pub(crate) fn of_header(value: &str) -> Option<Key> {
        (value.len() >= KEY_TRACE_BYTES).then(|| Key(Zeroizing::new(value.into())))
    }

    /// The secret itself, for a request's header and nothing else.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// The text with every trace of the key hidden: it may come back in a provider's own words.
    pub(crate) fn scrub(&self, text: &str) -> String {
        let traced = KEY_TRACE_BYTES.min(self.0.len()).max(1);
        let (mut clean, mut rest) = (String::with_capacity(text.len()), text);
        while !rest.is_empty() {
            let trace = self.trace_at(rest, traced);
            if trace > 0 {
                clean.push_str(HIDDEN);
                rest = &rest[trace..];
                continue;
            }
            let next = rest.chars().next().map_or(1, char::len_utf8);
            clean.push_str(&rest[..next]);
            rest = &rest[next..];
        }
        clean
    }

    /// How many bytes at the beginning of the text are a run of the key's, at least `least`; else 0.
    fn trace_at(&self, text: &str, least: usize) -> usize {
        let (key, text) = (self.0.as_bytes(), text.as_bytes());
        let Some(head) = text.get(..least) else { return 0 };
        let starts = key.windows(least).enumerate().filter(|(_, window)| *window == head);
        let run = |at: usize| key[at..].iter().zip(text).take_while(|(a, b)| a == b).count();
        starts.map(|(at, _)| run(at)).max().unwrap_or(0)
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        Key::parse("here", text).expect("a key")
    }

    #[test]
    fn a_key_is_one_word() {
        assert_eq!(key(" sk-abc\n").expose(), "sk-abc");
        for wrong in ["", " \n", "a b", "sk-\u{fc}ber", "two\nlines"] {
            assert!(Key::parse("here", wrong).is_err(), "{wrong:?}");
        }
        assert!(Key::parse("here", &"x".repeat(KEY_BYTES + 1)).is_err());
    }

    #[test]
    fn traces_are_hidden_whole_or_in_part() {
        let key = key("sk-abcdefghijklmnop");
        assert_eq!(key.scrub("no such key: sk-abcdefghijklmnop."), "no such key: [key].");
        assert_eq!(key.scrub("it ends in ijklmnop"), "it ends in [key]");
        assert_eq!(key.scrub("sk-abcdef***mnop"), "[key]***mnop");
        assert_eq!(key.scrub("über abc"), "über abc", "three letters are chance");
        assert_eq!(Key::parse("here", "abc").expect("short").scrub("x abc y"), "x [key] y");
        assert_eq!(format!("{key:?}"), "Key(hidden)");
    }

    #[test]
    fn keys_come_from_files_and_the_environment_as_they_are_now() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        let source = KeySource::File(path.clone());
        assert!(source.read().unwrap_err().to_string().contains("check key_file"));
        for word in ["first-key", "second-key"] {
            std::fs::write(&path, format!("{word}\n")).expect("written");
            assert_eq!(source.read().expect("readable").expect("a key").expose(), word);
        }
        let missing = KeySource::Env("QUORATE_NO_SUCH_KEY".into()).read().unwrap_err().to_string();
        assert!(missing.contains("QUORATE_NO_SUCH_KEY is not set"), "{missing}");
        assert!(KeySource::None.read().expect("nothing").is_none());
    }
}
