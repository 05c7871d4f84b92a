//! openraft's view of the log: its entries and votes, as changes of the write-ahead log.

use super::type_config::{
    Command, Entry, LogId, Membership, MembershipRecord, Payload, Types, Vote, entry_id, log_id, vote,
    wal_vote,
};
use crate::wal::{Change, EntryId, Wal};
use bytes::{BufMut, Bytes, BytesMut};
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::type_config::alias::LogIdOf;
use openraft::{LogState, OptionalSend, RaftLogReader};
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use tokio::sync::oneshot;

/// A body starts with its kind; numbers are never reused.
const BLANK: u8 = 0;
const COMMAND: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// Entries in one call to a follower: well below the message limit, enough to keep a disk busy.
const REPLICATE_BYTES: usize = 2 << 20;

#[derive(Clone)]
pub(super) struct LogStore {
    wal: Wal,
}

impl LogStore {
    pub(super) fn new(wal: Wal) -> Self {
        LogStore { wal }
    }

    /// Makes changes that nobody waits for: what follows in the same log makes them durable.
    fn submit_quietly(&self, change: Change) -> io::Result<()> {
        self.wal.submit(vec![change], Box::new(|_| {}))
    }

    fn read(&self, range: impl RangeBounds<u64>, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let found = self.wal.entries(range, bytes_max)?;
        found.into_iter().map(|(id, body)| decode(id, body)).collect()
    }
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        self.read(range, usize::MAX)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start..end, REPLICATE_BYTES)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.wal.summary().vote.map(vote))
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let summary = self.wal.summary();
        Ok(LogState { last_purged_log_id: summary.purged.map(log_id), last_log_id: summary.last.map(log_id) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let (durable, done) = oneshot::channel();
        let change = Change::Vote(wal_vote(vote));
        self.wal.submit(vec![change], Box::new(move |result| drop(durable.send(result))))?;
        done.await.map_err(|_| io::Error::other("the raft log stopped before the vote was durable"))?
    }

    async fn save_committed(&mut self, committed: Option<LogIdOf<Types>>) -> io::Result<()> {
        self.submit_quietly(Change::Commit(committed.map(entry_id)))
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogIdOf<Types>>> {
        Ok(self.wal.summary().committed.map(log_id))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let append =
            |entry: Entry| Change::Append { id: entry_id(entry.log_id), body: encode(&entry.payload) };
        let changes = entries.into_iter().map(append).collect();
        self.wal.submit(changes, Box::new(move |result| callback.io_completed(result)))
    }

    async fn truncate_after(&mut self, last: Option<LogIdOf<Types>>) -> io::Result<()> {
        let from = last.map_or(0, |last| last.index + 1);
        self.submit_quietly(Change::Truncate { from })
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        self.submit_quietly(Change::Purge(entry_id(log_id)))
    }
}

fn encode(payload: &Payload) -> Bytes {
    let body = |kind: u8, bytes: &[u8]| {
        let mut body = BytesMut::with_capacity(1 + bytes.len());
        body.put_u8(kind);
        body.put_slice(bytes);
        body.freeze()
    };
    match payload {
        Payload::Blank => body(BLANK, &[]),
        Payload::Normal(command) => body(COMMAND, &command.0),
        Payload::Membership(m) => body(MEMBERSHIP, &types::encode(&MembershipRecord::from(m))),
    }
}

fn decode(id: EntryId, body: Bytes) -> io::Result<Entry> {
    let unreadable =
        |why: String| io::Error::new(io::ErrorKind::InvalidData, format!("log entry {}: {why}", id.index));
    let kind = body.first().copied().ok_or_else(|| unreadable("it is empty".to_string()))?;
    let payload = match kind {
        BLANK => Payload::Blank,
        COMMAND => Payload::Normal(Command(body.slice(1..))),
        MEMBERSHIP => Payload::Membership(decode_membership(&body[1..]).map_err(unreadable)?),
        kind => return Err(unreadable(format!("its kind {kind} is unknown to this version"))),
    };
    Ok(Entry { log_id: log_id(id), payload })
}

fn decode_membership(bytes: &[u8]) -> Result<Membership, String> {
    let record: MembershipRecord = types::decode(bytes).map_err(|e| e.to_string())?;
    record.into_membership()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bodies as the first version wrote them, for ever.
    #[test]
    fn the_first_format_is_still_read() {
        let id = EntryId { term: 1, node: 2, index: 3 };
        let membership = super::super::type_config::membership(vec![[7].into()], [(7, "a:1".into())].into());
        let golden: [(Payload, &[u8]); 3] = [
            (Payload::Blank, &[0]),
            (Payload::Normal(Command(Bytes::from_static(b"xyz"))), b"\x01xyz"),
            (Payload::Membership(membership.unwrap()), b"\x02\x82\x81\x81\x07\xa1\x07\x63a:1"),
        ];
        for (payload, bytes) in golden {
            assert_eq!(encode(&payload)[..], *bytes);
            assert_eq!(decode(id, Bytes::from_static(bytes)).unwrap(), Entry { log_id: log_id(id), payload });
        }
    }

    #[test]
    fn bodies_that_make_no_sense_are_errors() {
        for bytes in [&b""[..], b"\x09", b"\x02", b"\x02\xff\xff", b"\x02\x82\x81\x81\x07\xa0"] {
            assert!(decode(EntryId { term: 1, node: 2, index: 3 }, Bytes::copy_from_slice(bytes)).is_err());
        }
    }
}
