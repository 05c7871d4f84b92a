//! Request ids of changes by people and programs: asking again gives the first answer and has no second effect.
//!
//! The last 64 of each author in each place (`projects/NAME` or a quota path) are remembered for 24 hours of the
//! ledger's clock. An id that was forgotten is treated as new: nobody can tell it from one that never was. Creations
//! are not remembered here but in the task's own row, as long as that row exists. Refusals are not remembered: they
//! changed nothing, and the next try may succeed.

use crate::change::{Change, check_text};
use crate::command::RequestKey;
use crate::reply::{Refusal, Reply};
use crate::table::Table;
use minicbor::{Decode, Encode};
use std::collections::BTreeSet;
use types::{Hash, TaskUid, limits};

/// Author, place, running number.
pub(crate) type Slot = (String, String, u64);

#[derive(Clone, Debug)]
pub(crate) struct Requests {
    table: Table<Slot, RequestRow>,
    /// By time of remembering, for forgetting.
    by_time: BTreeSet<(u64, Slot)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct RequestRow {
    #[n(0)]
    request_id: String,
    #[n(1)]
    body: Hash,
    /// On the ledger's clock.
    #[n(2)]
    at_ms: u64,
    #[n(3)]
    memory: Memory,
}

/// What to answer again.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Memory {
    /// The task as it is by then, because a whole row for each request would be too much.
    #[n(0)]
    Task(#[n(0)] TaskUid),
    #[n(1)]
    Reply(#[n(0)] Box<Reply>),
}

impl Requests {
    pub(crate) fn new() -> Self {
        Requests { table: Table::new("requests"), by_time: BTreeSet::new() }
    }

    pub(crate) fn table(&self) -> &Table<Slot, RequestRow> {
        &self.table
    }

    pub(crate) fn read(&mut self, from: &mut minicbor::Decoder<'_>) -> Result<(), minicbor::decode::Error> {
        self.table.read(from)?;
        self.by_time = self.times();
        Ok(())
    }

    fn times(&self) -> BTreeSet<(u64, Slot)> {
        self.table.iter().map(|(slot, row)| (row.at_ms, slot.clone())).collect()
    }

    /// What must hold: the time index is exact and nobody has more than their share.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.by_time != self.times() {
            return Err("requests: the time index differs from the rows".to_string());
        }
        for (slot, _) in self.table.iter() {
            let count = self.of(&slot.0, &slot.1).count();
            if count > limits::REQUEST_IDS_PER_CLIENT {
                return Err(format!("requests: {} of {} has {count}", slot.0, slot.1));
            }
        }
        Ok(())
    }

    fn of(&self, author: &str, scope: &str) -> impl DoubleEndedIterator<Item = (&Slot, &RequestRow)> {
        let slot = |number| (author.to_string(), scope.to_string(), number);
        self.table.range(slot(0)..=slot(u64::MAX))
    }

    fn put(&mut self, slot: Slot, row: RequestRow) {
        self.by_time.insert((row.at_ms, slot.clone()));
        self.table.insert(slot, row);
    }

    pub(crate) fn forget(&mut self, slot: &Slot) {
        if let Some(row) = self.table.remove(slot) {
            self.by_time.remove(&(row.at_ms, slot.clone()));
        }
    }

    /// At most `limit` ids that are too old at that time.
    pub(crate) fn too_old(&self, ledger_ms: u64, limit: usize) -> Vec<Slot> {
        let old = self.by_time.iter().take_while(|(at_ms, _)| expired(*at_ms, ledger_ms));
        old.take(limit).map(|(_, slot)| slot.clone()).collect()
    }
}

fn expired(at_ms: u64, ledger_ms: u64) -> bool {
    at_ms.saturating_add(limits::REQUEST_ID_MS) <= ledger_ms
}

/// Refuses fields no caller may send, before anything is remembered by them.
pub(crate) fn check(request: &RequestKey) -> Result<(), Refusal> {
    check_text("author", &request.author)?;
    check_text("request_id", &request.request_id)
}

impl Change<'_> {
    /// The first answer, when this request was done before.
    pub(crate) fn recall(&self, request: &RequestKey, scope: &str) -> Result<Option<Reply>, Refusal> {
        check(request)?;
        if request.request_id.is_empty() {
            return Ok(None);
        }
        let ledger_ms = self.state.ledger_ms();
        let known = self.state.requests.of(&request.author, scope).rev();
        let Some((_, row)) = known.into_iter().find(|(_, row)| row.request_id == request.request_id) else {
            return Ok(None);
        };
        if expired(row.at_ms, ledger_ms) {
            return Ok(None);
        }
        if row.body != request.body {
            return Err(Refusal::RequestIdReused { request_id: request.request_id.clone() });
        }
        Ok(match &row.memory {
            Memory::Task(uid) => self.state.task(*uid).map(|task| Reply::Task(Box::new(task.clone()))),
            Memory::Reply(reply) => Some(reply.as_ref().clone()),
        })
    }

    pub(crate) fn remember(&mut self, request: &RequestKey, scope: &str, memory: Memory) {
        if request.request_id.is_empty() {
            return;
        }
        let at_ms = self.state.ledger_ms();
        let requests = &mut self.state.requests;
        let newest = requests.of(&request.author, scope).next_back().map_or(0, |(slot, _)| slot.2);
        let slot = (request.author.clone(), scope.to_string(), newest + 1);
        let row = RequestRow { request_id: request.request_id.clone(), body: request.body, at_ms, memory };
        requests.put(slot, row);
        if requests.of(&request.author, scope).count() > limits::REQUEST_IDS_PER_CLIENT {
            let oldest = requests.of(&request.author, scope).next().map(|(slot, _)| slot.clone());
            oldest.into_iter().for_each(|slot| requests.forget(&slot));
        }
    }
}
