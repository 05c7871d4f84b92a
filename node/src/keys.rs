//! API keys: the file that lists who has one, by hash. The key itself is shown once, when it is made, and kept nowhere.
//!
//! A key has 256 random bits, so its hash needs neither salt nor slowness; and a lookup by hash tells a guesser's clock
//! nothing about any key.

use crate::identity::{Identity, Role};
use crate::security::now_s;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::watch;

/// What every key begins with, so that scanners for leaked secrets know one.
pub(crate) const PREFIX: &str = "qk_";
/// How often a stream looks whether its key has expired.
const EXPIRY_LOOK: Duration = Duration::from_secs(10);
const RANDOM_BYTES: usize = 32;
/// Far more than a file of keys should have; a wrong file named by mistake is not read whole.
const FILE_BYTES: u64 = 4 << 20;

#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error("the file of API keys {file} cannot be read: {cause}; `quorate key new --file` makes one")]
    Unreadable { file: PathBuf, cause: std::io::Error },
    #[error("{file}, line {line}: {why}; entries are made by `quorate key new`")]
    Malformed { file: PathBuf, line: usize, why: String },
    #[error("{file}, entry {entry}: {why}; entries are made by `quorate key new`")]
    Entry { file: PathBuf, entry: usize, why: String },
}

/// The keys in force. Cheap to clone; `reload` changes all clones.
#[derive(Clone)]
pub struct Keys {
    file: Arc<PathBuf>,
    table: Arc<RwLock<Arc<Table>>>,
    reloads: Arc<watch::Sender<()>>,
}

type Table = BTreeMap<[u8; 32], Known>;

struct Known {
    identity: Identity,
    /// Seconds since 1970.
    expires_s: Option<i64>,
}

/// Says nothing of any key, not even its hash.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({}, {} keys)", self.file.display(), self.table().len())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    #[serde(default)]
    keys: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    hash: String,
    project: String,
    role: String,
    subject: String,
    expires: Option<String>,
}

impl Keys {
    pub fn load(file: &Path) -> Result<Keys, KeysError> {
        let table = read(file)?;
        Ok(Keys {
            file: Arc::new(file.into()),
            table: Arc::new(RwLock::new(Arc::new(table))),
            reloads: Arc::new(watch::Sender::new(())),
        })
    }

    /// Reads the file again and answers how many keys it has. After an error the old keys stay in force.
    pub fn reload(&self) -> Result<usize, KeysError> {
        let table = read(&self.file)?;
        let count = table.len();
        *self.table.write().expect("no panic while held") = Arc::new(table);
        self.reloads.send_replace(());
        Ok(count)
    }

    /// Whose key this is, unless it has expired.
    pub fn who(&self, key: &str, now_s: i64) -> Option<Identity> {
        let table = self.table();
        let known = table.get(blake3::hash(key.as_bytes()).as_bytes())?;
        known.expires_s.is_none_or(|end| now_s < end).then(|| known.identity.clone())
    }

    /// Resolves when this key no longer stands for this identity: it was taken away, changed, or has expired.
    pub(crate) async fn until_revoked(self, key: String, identity: Identity) {
        let mut reloads = self.reloads.subscribe();
        while self.who(&key, now_s()).as_ref() == Some(&identity) {
            // The sender lives as long as `self`: what ends the wait is a reload, or the time to look for an expiry.
            let _ = tokio::time::timeout(EXPIRY_LOOK, reloads.changed()).await;
        }
    }

    fn table(&self) -> Arc<Table> {
        self.table.read().expect("no panic while held").clone()
    }
}

fn read(file: &Path) -> Result<Table, KeysError> {
    let unreadable = |cause| KeysError::Unreadable { file: file.into(), cause };
    let bytes = std::fs::metadata(file).map_err(unreadable)?.len();
    if bytes > FILE_BYTES {
        let cause = std::io::Error::other(format!("{bytes} bytes are too many"));
        return Err(KeysError::Unreadable { file: file.into(), cause });
    }
    let text = std::fs::read_to_string(file).map_err(unreadable)?;
    parse(file, &text)
}

fn parse(file: &Path, text: &str) -> Result<Table, KeysError> {
    let parsed: KeyFile = toml::from_str(text).map_err(|error| malformed(file, text, &error))?;
    let mut table = Table::new();
    for (index, entry) in parsed.keys.into_iter().enumerate() {
        let refuse = |why: String| KeysError::Entry { file: file.into(), entry: index + 1, why };
        let (hash, known) = checked(&entry).map_err(refuse)?;
        if table.insert(hash, known).is_some() {
            return Err(refuse("its hash is there twice".into()));
        }
    }
    Ok(table)
}

/// Someone may have put a key into the file as it is: the parser's own words would show its line.
fn malformed(file: &Path, text: &str, error: &toml::de::Error) -> KeysError {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let why = error.message().split('`').next().unwrap_or_default().trim().to_string();
    KeysError::Malformed { file: file.into(), line: before.matches('\n').count() + 1, why }
}

fn checked(entry: &Entry) -> Result<([u8; 32], Known), String> {
    let hash = blake3::Hash::from_hex(&entry.hash).map_err(|_| "`hash` is not 64 hexadecimal digits")?;
    let identity = Identity::new(&entry.subject, &entry.project, Role::parse(&entry.role)?)?;
    let expires_s = entry.expires.as_deref().map(instant).transpose()?;
    Ok((*hash.as_bytes(), Known { identity, expires_s }))
}

/// Reads a time like `2027-01-31T00:00:00Z`, or a day, which means its beginning.
pub(crate) fn instant(text: &str) -> Result<i64, String> {
    let whole = if text.contains('T') { text.to_string() } else { format!("{text}T00:00:00Z") };
    let time = OffsetDateTime::parse(&whole, &Rfc3339);
    time.map(OffsetDateTime::unix_timestamp).map_err(|_| format!("{text:?} is not like 2027-01-31T00:00:00Z"))
}

/// A key just made.
pub(crate) struct NewKey {
    /// For whoever will use it. It cannot be had again.
    pub key: String,
    /// For the file of keys.
    pub entry: String,
}

/// Makes a key out of random bytes.
pub(crate) fn new_key(
    identity: &Identity,
    expires: Option<&str>,
    random: [u8; RANDOM_BYTES],
) -> Result<NewKey, String> {
    let expires = match expires {
        Some(text) => {
            instant(text)?;
            format!("expires = \"{text}\"\n")
        }
        None => String::new(),
    };
    let key = format!("{PREFIX}{}", data_encoding::BASE32_NOPAD.encode(&random).to_lowercase());
    let entry = format!(
        "[[keys]]\nhash = \"{}\"\nproject = \"{}\"\nrole = \"{}\"\nsubject = \"{}\"\n{expires}",
        blake3::hash(key.as_bytes()).to_hex(),
        identity.project_text(),
        identity.role.name(),
        identity.subject,
    );
    Ok(NewKey { key, entry })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(project: &str, expires: Option<&str>, seed: u8) -> NewKey {
        let identity = Identity::new("ci", project, Role::Submitter).unwrap();
        new_key(&identity, expires, [seed; 32]).unwrap()
    }

    fn keys(text: &str) -> (tempfile::TempDir, Result<Keys, KeysError>) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys.toml");
        std::fs::write(&file, text).unwrap();
        let keys = Keys::load(&file);
        (folder, keys)
    }

    #[test]
    fn a_key_is_known_by_its_hash_until_it_expires() {
        let (own, late) = (made("a", None, 1), made("*", Some("2027-01-31"), 2));
        assert!(own.key.starts_with("qk_") && own.key.len() == 55, "{}", own.key);
        assert!(!own.entry.contains(&own.key[3..]));
        let (_folder, keys) = keys(&format!("{}\n{}", own.entry, late.entry));
        let keys = keys.unwrap();
        let found = keys.who(&own.key, i64::MAX).unwrap();
        assert_eq!((found.project_text(), found.role, found.subject.as_str()), ("a", Role::Submitter, "ci"));
        let end = instant("2027-01-31").unwrap();
        assert!(keys.who(&late.key, end - 1).is_some() && keys.who(&late.key, end).is_none());
        for wrong in ["", "qk_", &own.key[..54], &own.key.to_uppercase(), &made("a", None, 3).key] {
            assert!(keys.who(wrong, 0).is_none(), "{wrong}");
        }
    }

    #[test]
    fn a_reload_lets_new_keys_in_and_old_ones_out_and_a_broken_file_changes_nothing() {
        let (old, new) = (made("a", None, 1), made("a", None, 2));
        let (folder, keys) = keys(&old.entry);
        let keys = keys.unwrap();
        let other = keys.clone();
        let file = folder.path().join("keys.toml");
        std::fs::write(&file, "[[keys]]\nhash = 1").unwrap();
        assert!(keys.reload().is_err() && keys.who(&old.key, 0).is_some());
        std::fs::write(&file, &new.entry).unwrap();
        assert_eq!(keys.reload().unwrap(), 1);
        assert!(other.who(&old.key, 0).is_none() && other.who(&new.key, 0).is_some());
    }

    #[tokio::test]
    async fn whoever_waits_is_told_when_a_key_is_taken_away() {
        let (old, new) = (made("a", None, 1), made("a", None, 2));
        let (folder, keys) = keys(&old.entry);
        let keys = keys.unwrap();
        let identity = keys.who(&old.key, 0).unwrap();
        let waiting = tokio::spawn(keys.clone().until_revoked(old.key.clone(), identity));
        std::fs::write(folder.path().join("keys.toml"), format!("{}{}", old.entry, new.entry)).unwrap();
        keys.reload().unwrap();
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        std::fs::write(folder.path().join("keys.toml"), &new.entry).unwrap();
        keys.reload().unwrap();
        tokio::time::timeout(Duration::from_secs(5), waiting).await.expect("told by the reload").unwrap();
    }

    #[test]
    fn what_is_wrong_is_said_without_showing_a_key() {
        let NewKey { key, entry } = made("a", None, 1);
        for (text, says) in [
            (format!("[[keys]]\nkey = \"{key}\"\n"), "line 2"),
            (format!("[[keys]]\n{key} = 1\n"), "line 2"),
            (format!("{key}\n"), "line"),
            (entry.replace("hash = \"", &format!("hash = \"{key}")), "64 hexadecimal"),
            (entry.replace("submitter", "boss"), "viewer, submitter, operator, admin"),
            (entry.replace("\"a\"", "\"A B\""), "project name"),
            (format!("{entry}expires = \"soon\"\n"), "2027-01-31"),
            (format!("{entry}\n{entry}"), "twice"),
        ] {
            let (_folder, keys) = keys(&text);
            let said = keys.expect_err(&text).to_string();
            assert!(said.contains(says) && said.contains("quorate key new"), "{said}");
            assert!(!said.contains(&key), "{said}");
        }
        let (_folder, keys) = keys(&entry);
        assert!(!format!("{keys:?}").contains("hash"));
    }
}
