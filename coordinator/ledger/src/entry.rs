//! The log entry's form: versioned, and read strictly. What a node does not understand halts it: guessing would
//! make a replica that differs.

use crate::command::{Command, Entry, Stamp};
use types::limits;

/// The newest form this version writes: an entry is written in the oldest form that can say it.
pub const FORMAT: u16 = 7;
/// The newest form this version reads.
pub const READER: u16 = 7;
/// What every entry of this version is at least.
const LEAST: u16 = 2;

/// The node must stop: going on would make a state that differs from the other replicas'.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Halt(pub String);

/// Encodes the commands of one log entry. At most `limits::BATCH_COMMANDS` of them, else the entry would halt its
/// readers.
pub fn encode_entry(stamp: Stamp, commands: &[Command]) -> Vec<u8> {
    assert!(
        commands.len() <= limits::BATCH_COMMANDS,
        "an entry holds at most {} commands",
        limits::BATCH_COMMANDS
    );
    let form = commands.iter().map(Command::form).max().unwrap_or(LEAST);
    types::encode(&Entry { format: form, min_reader: form, stamp, commands: commands.to_vec() })
}

pub(crate) fn decode_entry(index: u64, bytes: &[u8]) -> Result<Entry, Halt> {
    check_reader(&format!("log entry {index}"), bytes)?;
    let entry: Entry = types::decode(bytes).map_err(|error| {
        Halt(format!(
            "log entry {index} cannot be read: {error}; run the version of quorate that wrote it, or newer"
        ))
    })?;
    if entry.commands.len() > limits::BATCH_COMMANDS {
        return Err(Halt(format!(
            "log entry {index} holds {} commands, at most {} are allowed; the log is damaged or from another program",
            entry.commands.len(),
            limits::BATCH_COMMANDS
        )));
    }
    Ok(entry)
}

/// Reads only `[format, min_reader, …]`, so that a newer form is named as such and not as damage.
pub(crate) fn check_reader(what: &str, bytes: &[u8]) -> Result<(), Halt> {
    let mut decoder = minicbor::Decoder::new(bytes);
    let head = (|| {
        decoder.array()?;
        Ok::<_, minicbor::decode::Error>((decoder.u16()?, decoder.u16()?))
    })();
    let (format, min_reader) =
        head.map_err(|error| Halt(format!("{what} has no readable header: {error}; the file is damaged")))?;
    if min_reader > READER {
        return Err(Halt(format!(
            "{what} has form {format} and needs a reader of form {min_reader}, this version reads up to {READER}; \
             upgrade quorate on this node"
        )));
    }
    Ok(())
}
