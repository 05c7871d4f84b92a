//! The whole state as bytes: `[format, min_reader, state hash, [table, …]]`. The hash is made again on restore and
//! compared, so a damaged or misread snapshot is never taken for the truth.

use crate::entry::{Halt, check_reader};
use crate::state::State;
use minicbor::{Decoder, Encoder};
use types::Hash;

/// The newest form of a snapshot; entries have forms of their own.
const FORMAT: u16 = 3;
const TABLES: u64 = 13;
/// Tables of form 2, which had no heads and no schedules.
const TABLES_2: u64 = 10;
/// Tables of form 1, which had neither prices nor an audit log.
const TABLES_1: u64 = 8;

impl State {
    pub fn snapshot(&self) -> Vec<u8> {
        let mut out = Encoder::new(Vec::new());
        let (finely, talks) = (self.counts_finely(), self.talks());
        let (format, reader, tables) = match (finely, talks) {
            (_, true) => (FORMAT, FORMAT, TABLES),
            (true, false) => (2, 2, TABLES_2),
            (false, false) => (1, 1, TABLES_1),
        };
        let head = (|| {
            out.array(4)?.u16(format)?.u16(reader)?.encode(self.state_hash())?.array(tables)?;
            Ok::<(), minicbor::encode::Error<std::convert::Infallible>>(())
        })();
        head.expect("encoding to memory cannot fail");
        self.meta.write(&mut out);
        self.nodes.write(&mut out);
        self.agents.write(&mut out);
        self.tasks.table().write(&mut out);
        self.tasks.write_events(&mut out);
        self.quotas.write(&mut out);
        self.models.write(&mut out);
        self.requests.table().write(&mut out);
        if finely {
            self.prices.write(&mut out);
            self.audit.write(&mut out);
        }
        if talks {
            self.heads.write(&mut out);
            self.forgotten.write(&mut out);
            self.schedules.write(&mut out);
        }
        out.into_writer()
    }

    /// Reads a snapshot. `Halt` when it is damaged or newer than this version.
    pub fn restore(bytes: &[u8]) -> Result<State, Halt> {
        check_reader("the snapshot", bytes)?;
        let (state, written) = read(bytes).map_err(|error| {
            Halt(format!(
                "the snapshot cannot be read: {error}; take the one of another node, or an older one"
            ))
        })?;
        let found = state.state_hash();
        if found != written {
            return Err(Halt(format!(
                "the snapshot's state hash is {} but its rows give {}; take the one of another node, or an older one",
                written.short(),
                found.short()
            )));
        }
        Ok(state)
    }
}

fn read(bytes: &[u8]) -> Result<(State, Hash), minicbor::decode::Error> {
    let mut from = Decoder::new(bytes);
    expect_array(&mut from, 4)?;
    let format = from.u16()?;
    from.u16()?;
    let hash: Hash = from.decode()?;
    let tables = match format {
        1 => TABLES_1,
        2 => TABLES_2,
        _ => TABLES,
    };
    expect_array(&mut from, tables)?;
    let mut state = State::new();
    state.meta.read(&mut from)?;
    state.nodes.read(&mut from)?;
    state.agents.read(&mut from)?;
    state.tasks.read(&mut from)?;
    state.tasks.read_events(&mut from)?;
    state.quotas.read(&mut from)?;
    state.models.read(&mut from)?;
    state.requests.read(&mut from)?;
    if format > 1 {
        state.prices.read(&mut from)?;
        state.audit.read(&mut from)?;
    }
    if format > 2 {
        state.heads.read(&mut from)?;
        state.forgotten.read(&mut from)?;
        state.schedules.read(&mut from)?;
    }
    state.pledges = state.pledges_of_rows();
    if from.position() != bytes.len() {
        return Err(minicbor::decode::Error::message("trailing bytes after the tables"));
    }
    Ok((state, hash))
}

fn expect_array(from: &mut Decoder<'_>, length: u64) -> Result<(), minicbor::decode::Error> {
    match from.array()? {
        Some(found) if found == length => Ok(()),
        _ => Err(minicbor::decode::Error::message(format!("expected an array of {length}"))),
    }
}
