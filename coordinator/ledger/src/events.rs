//! The events of all tasks, as bytes: they are never changed, rarely read and many. One list a task, in order, each
//! event as it is stored. For the state hash and in a snapshot each is a row of its own, by task and sequence.

use crate::rows::Event;
use crate::table::{Sum, open, row_hash};
use minicbor::{Decoder, Encoder};
use types::TaskUid;

const NAME: &str = "events";

/// One task's events. They lie beside its row.
#[derive(Clone, Debug, Default)]
pub(crate) struct List(Box<[u8]>);

/// How many events there are in all lists, and the sum of their hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Total {
    count: u64,
    pub sum: Sum,
}

/// One event as stored.
struct Stored<'a> {
    sequence: u64,
    bytes: &'a [u8],
}

impl List {
    /// Puts an event behind the others.
    pub(crate) fn push(&mut self, task: TaskUid, event: &Event, total: &mut Total) {
        let bytes = types::encode(event);
        total.add(task, &Stored { sequence: event.sequence, bytes: &bytes });
        let mut grown = std::mem::take(&mut self.0).into_vec();
        grown.reserve_exact(bytes.len());
        grown.extend(bytes);
        self.0 = grown.into_boxed_slice();
    }

    /// Forgets the events up to a sequence.
    pub(crate) fn forget(&mut self, task: TaskUid, up_to: u64, total: &mut Total) {
        let mut gone = 0;
        for event in self.stored().take_while(|event| event.sequence <= up_to) {
            total.subtract(task, &event);
            gone += event.bytes.len();
        }
        self.0 = self.0[gone..].into();
    }

    /// Those from a sequence on.
    pub(crate) fn from(&self, from: u64) -> impl Iterator<Item = Event> {
        let late = self.stored().skip_while(move |event| event.sequence < from);
        late.map(|event| types::decode(event.bytes).expect("an event reads as it was written"))
    }

    fn stored(&self) -> impl Iterator<Item = Stored<'_>> {
        stored(&self.0)
    }
}

impl Total {
    /// Counted again.
    pub(crate) fn of<'a>(lists: impl Iterator<Item = (&'a TaskUid, &'a List)>) -> Total {
        let mut total = Total::default();
        lists.for_each(|(task, list)| list.stored().for_each(|event| total.add(*task, &event)));
        total
    }

    fn add(&mut self, task: TaskUid, event: &Stored<'_>) {
        self.count += 1;
        self.sum.add(row_hash(NAME, &(task, event.sequence), event.bytes));
    }

    fn subtract(&mut self, task: TaskUid, event: &Stored<'_>) {
        self.count -= 1;
        self.sum.subtract(row_hash(NAME, &(task, event.sequence), event.bytes));
    }

    /// Writes what a [`Table`](crate::table::Table) of events writes.
    pub(crate) fn write<'a>(
        self,
        lists: impl Iterator<Item = (&'a TaskUid, &'a List)>,
        out: &mut Encoder<Vec<u8>>,
    ) {
        let written = (|| {
            out.array(2)?.str(NAME)?.array(self.count * 2)?;
            for (task, event) in lists.flat_map(|(task, list)| list.stored().map(move |event| (task, event)))
            {
                out.encode((task, event.sequence))?;
                out.writer_mut().extend_from_slice(event.bytes);
            }
            Ok::<(), minicbor::encode::Error<std::convert::Infallible>>(())
        })();
        written.expect("encoding to memory cannot fail");
    }
}

/// Reads what [`Total::write`] wrote.
pub(crate) fn read(
    from: &mut Decoder<'_>,
    mut put: impl FnMut(TaskUid, &Event) -> Option<()>,
) -> Result<(), minicbor::decode::Error> {
    for _ in 0..open(from, NAME)? {
        let (task, sequence): (TaskUid, u64) = from.decode()?;
        let event: Event = from.decode()?;
        if event.sequence != sequence || put(task, &event).is_none() {
            let why = format!("event {sequence} of {task} is of no task, or stands under another sequence");
            return Err(minicbor::decode::Error::message(why));
        }
    }
    Ok(())
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
    use std::collections::BTreeMap;
    use types::{Hash, Spent, TaskState};

    fn event(sequence: u64) -> Event {
        let kind = if sequence.is_multiple_of(2) {
            EventKind::Step { step: sequence, head: Hash::of(b"head"), spent: Spent::default(), route: None }
        } else {
            EventKind::State { state: TaskState::Pending, reason: "created".into(), node: None, epoch: None }
        };
        Event { sequence, at_ms: 1_700_000_000_000 + sequence, kind }
    }

    /// Hash and bytes are those of a table with a row for each event.
    #[test]
    fn nobody_sees_that_events_lie_together() {
        let tasks = [3, 7].map(|index| TaskUid { index, position: 0 });
        let (mut lists, mut total) = (BTreeMap::<TaskUid, List>::new(), Total::default());
        let mut table: Table<(TaskUid, u64), Event> = Table::new(NAME);
        for (sequence, task) in (1..=40).flat_map(|sequence| tasks.map(|task| (sequence, task))) {
            lists.entry(task).or_default().push(task, &event(sequence), &mut total);
            table.insert((task, sequence), event(sequence));
        }
        lists.get_mut(&tasks[0]).unwrap().forget(tasks[0], 38, &mut total);
        (1..=38).for_each(|sequence| drop(table.remove(&(tasks[0], sequence))));
        assert_eq!(lists[&tasks[0]].from(0).collect::<Vec<_>>(), [event(39), event(40)]);
        assert_eq!(lists[&tasks[1]].from(39).collect::<Vec<_>>(), [event(39), event(40)]);
        assert_eq!((total.sum, Total::of(lists.iter())), (table.sum(), total));
        let (mut ours, mut theirs) = (Encoder::new(vec![]), Encoder::new(vec![]));
        total.write(lists.iter(), &mut ours);
        table.write(&mut theirs);
        let bytes = ours.into_writer();
        assert_eq!(bytes, theirs.into_writer());
        let mut again = Total::default();
        let mut put =
            |task, event: &Event| lists.get_mut(&task).map(|list| list.push(task, event, &mut again));
        read(&mut Decoder::new(&bytes), &mut put).unwrap();
        assert_eq!(again, total);
        assert!(read(&mut Decoder::new(&bytes), |_, _| None).is_err());
    }
}
