//! Whether a history of one register is linearizable: Wing and Gong's search, with a memory of where it has been.
//!
//! Some operations have no known outcome: they may have happened at any time after their call, or never. Trying each of
//! them everywhere takes for ever where a history has no order; but etags count the writes, so what was heard says where
//! most of them can stand ([`Heard`]).

use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// With an etag, only if the register still has it.
    Write {
        value: u64,
        etag: Option<u64>,
    },
    Read,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// What the register holds after the operation.
    Now { etag: u64, value: Option<u64> },
    /// Not written: the etag is another.
    Stale { current: u64 },
}

#[derive(Clone, Debug)]
pub(super) struct Operation {
    pub(super) key: u64,
    pub(super) ask: Ask,
    /// The moment of the call; moments are in order over all clients.
    pub(super) called: u64,
    /// The moment of the answer; none when the outcome is unknown.
    pub(super) answer: Option<(u64, Answer)>,
}

/// The register: how often it was written, and what it holds.
type Register = (u64, Option<u64>);

/// What an operation does to a register, if its answer allows that it happens now.
fn step(register: Register, operation: &Operation) -> Option<Register> {
    let (etag, value) = register;
    let (after, answer) = match operation.ask {
        Ask::Read => (register, Answer::Now { etag, value }),
        Ask::Write { etag: Some(wanted), .. } if wanted != etag => {
            (register, Answer::Stale { current: etag })
        }
        Ask::Write { value, .. } => {
            ((etag + 1, Some(value)), Answer::Now { etag: etag + 1, value: Some(value) })
        }
    };
    operation.answer.is_none_or(|(_, heard)| heard == answer).then_some(after)
}

/// Finds an order in which every operation happened between its call and its answer, or says where none goes on.
pub(super) fn linearizable(history: &[Operation]) -> Result<(), String> {
    let mut history = history.to_vec();
    history.sort_by_key(|operation| operation.called);
    let heard = Heard::of(&history);
    let mut search = Search { history: &history, heard, been: BTreeSet::new(), deepest: 0 };
    // The search goes as deep as the history is long, and more than a thread's stack would hold.
    if search.run() { Ok(()) } else { Err(search.complaint()) }
}

/// What the answers say of the register after each write.
#[derive(Default)]
struct Heard {
    /// Etags of writes that were answered.
    written: BTreeSet<u64>,
    /// What reads saw: the value at an etag, and each value's etag.
    values: BTreeMap<u64, Option<u64>>,
    etags: BTreeMap<u64, u64>,
}

impl Heard {
    fn of(history: &[Operation]) -> Heard {
        let mut heard = Heard::default();
        for operation in history {
            let Some((_, Answer::Now { etag, value })) = operation.answer else { continue };
            match operation.ask {
                Ask::Write { .. } => drop(heard.written.insert(etag)),
                Ask::Read => {
                    heard.values.insert(etag, value);
                    value.and_then(|value| heard.etags.insert(value, etag));
                }
            }
        }
        heard
    }
}

struct Search<'a> {
    history: &'a [Operation],
    heard: Heard,
    been: BTreeSet<(Vec<u64>, Register)>,
    deepest: usize,
}

/// A place in the search: which operations have happened, what the register holds, which one to try next.
struct Place {
    happened: Vec<u64>,
    known: usize,
    register: Register,
    candidates: Vec<usize>,
}

impl Search<'_> {
    fn run(&mut self) -> bool {
        let all = self.history.iter().filter(|operation| operation.answer.is_some()).count();
        let nothing = vec![0; self.history.len().div_ceil(64)];
        let mut stack = vec![self.place(nothing, 0, (0, None))];
        while let Some(place) = stack.last_mut() {
            if place.known == all {
                return true;
            }
            let Some(next) = place.candidates.pop() else {
                stack.pop();
                continue;
            };
            let operation = &self.history[next];
            let Some(register) = step(place.register, operation) else { continue };
            let mut happened = place.happened.clone();
            happened[next / 64] |= 1 << (next % 64);
            let known = place.known + usize::from(operation.answer.is_some());
            if self.been.insert((happened.clone(), register)) {
                self.deepest = self.deepest.max(known);
                let place = self.place(happened, known, register);
                stack.push(place);
            }
        }
        false
    }

    /// What may happen next: everything that was called before the first answer that is still owed. Unknown ones are
    /// tried last, because most of them never happened.
    fn place(&self, happened: Vec<u64>, known: usize, register: Register) -> Place {
        let open = |at: &usize| happened[at / 64] & (1 << (at % 64)) == 0;
        let answered = |at: usize| self.history[at].answer.map(|(moment, _)| moment);
        let first = (0..self.history.len()).filter(open).filter_map(answered).min().unwrap_or(u64::MAX);
        let may = |at: &usize| self.history[*at].called < first;
        let may: Vec<usize> = (0..self.history.len()).filter(open).filter(may).collect();
        let (mut candidates, unknown): (Vec<usize>, _) =
            may.into_iter().partition(|at| answered(*at).is_some());
        candidates.sort_by_key(|at| std::cmp::Reverse(answered(*at)));
        candidates.splice(0..0, self.fillers(unknown, register.0));
        // Popped from the end: the earliest answer first.
        Place { happened, known, register, candidates }
    }

    /// Unknown writes that may be the next one, after the write `etag`. Where nobody saw what the next one wrote, one
    /// stands for all: one that could stand nowhere else, or else the earliest called, which any later one could follow.
    fn fillers(&self, unknown: Vec<usize>, etag: u64) -> Vec<usize> {
        if self.heard.written.contains(&(etag + 1)) {
            return vec![];
        }
        let write = |at: usize| match self.history[at].ask {
            Ask::Write { value, etag: None } => Some((at, value, false)),
            Ask::Write { value, etag: Some(wanted) } => (wanted == etag).then_some((at, value, true)),
            Ask::Read => None,
        };
        let writes = unknown.into_iter().filter_map(write);
        match self.heard.values.get(&(etag + 1)) {
            Some(seen) => writes.filter(|(_, value, _)| Some(*value) == *seen).map(|(at, ..)| at).collect(),
            None => {
                let unseen = writes.filter(|(_, value, _)| !self.heard.etags.contains_key(value));
                unseen
                    .min_by_key(|(at, _, only_here)| (!only_here, *at))
                    .map(|(at, ..)| at)
                    .into_iter()
                    .collect()
            }
        }
    }

    fn complaint(&self) -> String {
        let mut answered: Vec<&Operation> =
            self.history.iter().filter(|operation| operation.answer.is_some()).collect();
        answered.sort_by_key(|operation| operation.answer.map(|(moment, _)| moment));
        let near: Vec<String> = answered
            .iter()
            .skip(self.deepest.saturating_sub(2))
            .take(5)
            .map(|operation| format!("{:?} -> {:?}", operation.ask, operation.answer))
            .collect();
        format!("no order explains more than {} answers; near {}", self.deepest, near.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(value: u64, called: u64, answered: u64, etag: u64) -> Operation {
        let answer = Some((answered, Answer::Now { etag, value: Some(value) }));
        Operation { key: 0, ask: Ask::Write { value, etag: None }, called, answer }
    }

    fn read(called: u64, answered: u64, etag: u64, value: Option<u64>) -> Operation {
        Operation { key: 0, ask: Ask::Read, called, answer: Some((answered, Answer::Now { etag, value })) }
    }

    fn unknown(value: u64, called: u64) -> Operation {
        Operation { key: 0, ask: Ask::Write { value, etag: None }, called, answer: None }
    }

    #[test]
    fn histories_that_have_an_order() {
        linearizable(&[]).unwrap();
        linearizable(&[write(1, 1, 4, 1), read(2, 3, 0, None), read(5, 6, 1, Some(1))]).unwrap();
        // An unknown one happened late, another never.
        linearizable(&[unknown(7, 1), unknown(8, 2), read(3, 4, 0, None), read(5, 6, 1, Some(7))]).unwrap();
        let late = Operation {
            ask: Ask::Write { value: 5, etag: Some(0) },
            answer: Some((6, Answer::Stale { current: 1 })),
            ..unknown(5, 5)
        };
        linearizable(&[write(1, 1, 2, 1), late]).unwrap();
    }

    /// Two answered writes of one etag after so many unknown ones that no machine tries each of them in turn.
    #[test]
    fn many_unknown_writes_are_no_long_search() {
        let mut history: Vec<Operation> = (0..60).map(|value| unknown(100 + value, value)).collect();
        history.extend([write(1, 100, 101, 40), read(102, 103, 50, Some(107)), write(2, 104, 105, 55)]);
        linearizable(&history).unwrap();
        history.push(write(3, 106, 107, 55));
        assert!(linearizable(&history).is_err());
        history.pop();
        history.push(read(106, 107, 56, Some(107)));
        assert!(linearizable(&history).is_err(), "one write, seen twice");
    }

    #[test]
    fn histories_that_have_none() {
        // A read that is older than a write answered before it.
        assert!(linearizable(&[write(1, 1, 2, 1), read(3, 4, 0, None)]).is_err());
        // Two reads that see two writes in two orders.
        let torn = [unknown(1, 1), unknown(2, 1), read(2, 3, 1, Some(1)), read(4, 5, 1, Some(2))];
        assert!(linearizable(&torn).is_err());
        // A write that was answered and is gone.
        assert!(linearizable(&[write(1, 1, 2, 1), write(2, 3, 4, 1)]).is_err());
        // A value that nobody wrote.
        assert!(linearizable(&[read(1, 2, 1, Some(9))]).is_err());
    }
}
