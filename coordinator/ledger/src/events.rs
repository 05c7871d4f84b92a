//! The events of all tasks, as bytes: they are never changed, rarely read and many. One list a task, in order, each
//! event as it is stored. For the state hash and in a snapshot each is a row of its own, by task and sequence.

use crate::rows::Event;
use crate::table::{Sum, open, row_hash};
use minicbor::{Decoder, Encoder};
use std::collections::BTreeMap;
use types::TaskUid;

const NAME: &str = "events";

#[derive(Clone, Debug, Default)]
pub(crate) struct Events {
    lists: BTreeMap<TaskUid, Box<[u8]>>,
    count: u64,
    sum: Sum,
}

/// One event as stored.
struct Stored<'a> {
    sequence: u64,
    bytes: &'a [u8],
}

impl Events {
    /// Puts an event behind the others of its task.
    pub(crate) fn push(&mut self, task: TaskUid, event: &Event) {
        let bytes = types::encode(event);
        self.sum.add(row_hash(NAME, &(task, event.sequence), &bytes));
        let list = self.lists.entry(task).or_default();
        let mut grown = std::mem::take(list).into_vec();
        grown.reserve_exact(bytes.len());
        grown.extend(bytes);
        *list = grown.into_boxed_slice();
        self.count += 1;
    }

    /// Forgets the events of a task up to a sequence.
    pub(crate) fn forget(&mut self, task: TaskUid, up_to: u64) {
        let Some(list) = self.lists.get_mut(&task) else { return };
        let mut gone = 0;
        for event in stored(list).take_while(|event| event.sequence <= up_to) {
            self.sum.subtract(row_hash(NAME, &(task, event.sequence), event.bytes));
            gone += event.bytes.len();
            self.count -= 1;
        }
        *list = list[gone..].into();
        if list.is_empty() {
            self.lists.remove(&task);
        }
    }

    /// Those from a sequence on.
    pub(crate) fn from(&self, task: TaskUid, from: u64) -> impl Iterator<Item = Event> {
        let list = self.lists.get(&task).map_or(&[][..], |list| list);
        let late = stored(list).skip_while(move |event| event.sequence < from);
        late.map(|event| types::decode(event.bytes).expect("an event reads as it was written"))
    }

    fn all(&self) -> impl Iterator<Item = (TaskUid, Stored<'_>)> {
        self.lists.iter().flat_map(|(task, list)| stored(list).map(|event| (*task, event)))
    }

    pub(crate) fn sum(&self) -> Sum {
        self.sum
    }

    /// The sum made again from every event, to check the one that was kept.
    pub(crate) fn recomputed(&self) -> Sum {
        let mut sum = Sum::default();
        self.all().for_each(|(task, event)| sum.add(row_hash(NAME, &(task, event.sequence), event.bytes)));
        sum
    }

    /// Writes what a [`Table`](crate::table::Table) of events writes.
    pub(crate) fn write(&self, out: &mut Encoder<Vec<u8>>) {
        let written = (|| {
            out.array(2)?.str(NAME)?.array(self.count * 2)?;
            for (task, event) in self.all() {
                out.encode((task, event.sequence))?;
                out.writer_mut().extend_from_slice(event.bytes);
            }
            Ok::<(), minicbor::encode::Error<std::convert::Infallible>>(())
        })();
        written.expect("encoding to memory cannot fail");
    }

    pub(crate) fn read(&mut self, from: &mut Decoder<'_>) -> Result<(), minicbor::decode::Error> {
        for _ in 0..open(from, NAME)? {
            let (task, sequence): (TaskUid, u64) = from.decode()?;
            let event: Event = from.decode()?;
            if event.sequence != sequence {
                return Err(minicbor::decode::Error::message("an event stands under another sequence"));
            }
            self.push(task, &event);
        }
        Ok(())
    }
}

/// Takes a list of events apart, without looking at more than their sequences.
fn stored(list: &[u8]) -> impl Iterator<Item = Stored<'_>> {
    let mut from = Decoder::new(list);
    std::iter::from_fn(move || {
        let start = from.position();
        (start < list.len()).then(|| {
            let sequence = skip_event(&mut from).expect("an event reads as it was written");
            Stored { sequence, bytes: &list[start..from.position()] }
        })
    })
}

fn skip_event(from: &mut Decoder<'_>) -> Result<u64, minicbor::decode::Error> {
    let fields = from.array()?.unwrap_or_default();
    let sequence = from.u64()?;
    (1..fields).try_for_each(|_| from.skip())?;
    Ok(sequence)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::EventKind;
    use crate::table::Table;
    use types::{Hash, Spent, TaskState};

    fn event(sequence: u64) -> Event {
        let kind = if sequence.is_multiple_of(2) {
            EventKind::Step { step: sequence, head: Hash::of(b"head"), spent: Spent::default() }
        } else {
            EventKind::State { state: TaskState::Pending, reason: "created".into(), node: None, epoch: None }
        };
        Event { sequence, at_ms: 1_700_000_000_000 + sequence, kind }
    }

    /// Hash and bytes are those of a table with a row for each event.
    #[test]
    fn nobody_sees_that_events_lie_together() {
        let (mut events, mut table) = (Events::default(), Table::new(NAME));
        let task = |index| TaskUid { index, position: 0 };
        for sequence in 1..=40 {
            for index in [7, 3] {
                events.push(task(index), &event(sequence));
                table.insert((task(index), sequence), event(sequence));
            }
        }
        events.forget(task(3), 38);
        (1..=38).for_each(|sequence| drop(table.remove(&(task(3), sequence))));
        assert_eq!(events.from(task(3), 0).collect::<Vec<_>>(), [event(39), event(40)]);
        assert_eq!(events.from(task(7), 39).collect::<Vec<_>>(), [event(39), event(40)]);
        assert_eq!((events.sum(), events.recomputed()), (table.sum(), table.sum()));
        let (mut ours, mut theirs) = (Encoder::new(vec![]), Encoder::new(vec![]));
        events.write(&mut ours);
        table.write(&mut theirs);
        let bytes = ours.into_writer();
        assert_eq!(bytes, theirs.into_writer());
        let mut again = Events::default();
        again.read(&mut Decoder::new(&bytes)).unwrap();
        assert_eq!((again.sum(), again.lists.len()), (events.sum(), 2));
        events.forget(task(3), u64::MAX);
        events.forget(task(7), u64::MAX);
        assert_eq!((events.count, events.sum(), events.lists.len()), (0, Sum::default(), 0));
    }
}
