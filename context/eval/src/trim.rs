//! How much of a chain can go while the loss stays small: the least worth first, in halves, each try scored.

use crate::judge::{LOSS_NATS, Values};
use crate::plan::{Child, Meaning};

/// The search, as a state machine: ask [`Trim::next`], score it, tell [`Trim::heard`].
#[derive(Clone, Debug)]
pub struct Trim {
    /// Places of the chain, what goes first in front.
    order: Vec<usize>,
    full: f64,
    /// Dropping this many is known to be fine…
    fine: usize,
    /// …and this many is too much, or more than there are.
    much: usize,
}

impl Trim {
    /// `full` is the log-likelihood with the whole chain.
    pub fn new(order: Vec<usize>, full: f64) -> Trim {
        let much = order.len() + 1;
        Trim { order, full, fine: 0, much }
    }

    /// What to score next; none when the answer is known.
    pub fn next(&self) -> Option<Child> {
        let open = self.much - self.fine > 1;
        open.then(|| Child::without(Meaning::Trimmed, self.order[..self.middle()].to_vec()))
    }

    /// The log-likelihood of what [`Trim::next`] said.
    pub fn heard(&mut self, log_likelihood: f64) {
        let middle = self.middle();
        if self.full - log_likelihood <= LOSS_NATS { self.fine = middle } else { self.much = middle }
    }

    /// What can go, ascending.
    pub fn dropped(&self) -> Vec<usize> {
        let mut dropped = self.order[..self.fine].to_vec();
        dropped.sort_unstable();
        dropped
    }

    fn middle(&self) -> usize {
        self.fine + (self.much - self.fine) / 2
    }
}

/// The most children that a search over so many segments asks for.
pub(crate) fn most_children(segments: usize) -> u64 {
    u64::from(usize::BITS - segments.leading_zeros())
}

/// In what order segments go. Of those that say the same the first is worth what it is worth alone, the others only what
/// is lost without them, so copies go before what they copy.
pub fn order(values: &[Values]) -> Vec<usize> {
    let worth = |at: usize| {
        let copy = values[at].with.first().is_some_and(|&first| first < at);
        if copy { values[at].necessity } else { values[at].worth() }
    };
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| worth(a).total_cmp(&worth(b)).then(b.cmp(&a)));
    order
}
