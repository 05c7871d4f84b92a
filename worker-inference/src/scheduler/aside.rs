//! Sequences that are put aside: because somebody said so, or because a more urgent one needs the room.
//!
//! What was put aside keeps its tokens and gives up its blocks. They stay in the pool as long as nobody needs the
//! room, then below it; when it goes on, it finds them, or computes them again.

use super::{Scheduler, Verb, VerbOutcome};
use crate::sequence::{Sequence, SequenceId};

/// How often sequences were put aside, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Asides {
    pub paused: u64,
    pub preempted: u64,
}

impl Scheduler {
    /// Puts a sequence aside until `resume`. It holds no blocks and no place meanwhile.
    pub fn pause(&mut self, id: SequenceId) -> VerbOutcome {
        let outcome = self.try_pause(id);
        self.verbs.count(Verb::Pause, outcome)
    }

    fn try_pause(&mut self, id: SequenceId) -> VerbOutcome {
        let Some(sequence) = self.sequences.get(&id) else { return VerbOutcome::Unknown };
        if self.paused.contains(&id) {
            return VerbOutcome::Already;
        }
        if !sequence.can_be_put_aside() {
            return VerbOutcome::Refused;
        }
        let class = sequence.class;
        self.put_aside(id);
        self.waiting.remove(&(class, id));
        self.paused.insert(id);
        self.asides.paused += 1;
        VerbOutcome::Done
    }

    /// Puts a paused sequence back in line.
    pub fn resume(&mut self, id: SequenceId) -> VerbOutcome {
        let outcome = self.try_resume(id);
        self.verbs.count(Verb::Resume, outcome)
    }

    fn try_resume(&mut self, id: SequenceId) -> VerbOutcome {
        let Some(sequence) = self.sequences.get(&id) else { return VerbOutcome::Unknown };
        if !self.paused.remove(&id) {
            return VerbOutcome::Already;
        }
        self.waiting.insert((sequence.class, id));
        self.changed = true;
        VerbOutcome::Done
    }

    /// Takes back the blocks and the place of a running sequence; it waits from now on.
    fn put_aside(&mut self, id: SequenceId) {
        self.seal_tail(id);
        let class = self.sequences[&id].class;
        if self.running.remove(&(class, id)) {
            self.promised -= self.sequences[&id].missing_blocks();
            self.waiting.insert((class, id));
        }
        let table = self.sequence_mut(id).put_aside();
        self.let_go(&table, 0, 0, 0);
        self.changed = true;
    }

    /// Puts less urgent sequences aside until `id` fits. Does nothing when even all of them would not do.
    pub(super) fn preempt_for(&mut self, id: SequenceId) -> bool {
        let class = self.sequences[&id].class;
        let mut victims = self.victims(class);
        let frees = |victim: &SequenceId| self.sequences[victim].blocks_at_most();
        let most: usize = victims.iter().map(frees).sum();
        if victims.is_empty() || self.blocks.available() + most < self.promised + self.need(id).0 {
            return false;
        }
        while !self.fits(id) {
            let Some(victim) = victims.pop() else { return false };
            self.put_aside(victim);
            self.asides.preempted += 1;
        }
        true
    }

    /// Running sequences less urgent than `class`, the best to put aside last: of the least urgent class, with
    /// least to bring back.
    fn victims(&self, class: u8) -> Vec<SequenceId> {
        let less_urgent = self.running.iter().rev().take_while(|(other, _)| *other > class);
        let known = less_urgent.map(|(_, id)| (*id, &self.sequences[id]));
        let mut victims: Vec<(SequenceId, &Sequence)> =
            known.filter(|(_, sequence)| sequence.can_be_put_aside()).collect();
        victims.sort_by_key(|(id, sequence)| (sequence.class, std::cmp::Reverse(self.price(sequence)), *id));
        victims.into_iter().map(|(id, _)| id).collect()
    }

    /// What bringing a sequence back may cost, in blocks: those that nobody else holds.
    fn price(&self, sequence: &Sequence) -> usize {
        sequence.table.iter().filter(|&&block| self.blocks.holders(block) == 1).count()
    }
}
