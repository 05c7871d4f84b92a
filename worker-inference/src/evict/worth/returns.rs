//! Who comes back, counted by kind and age, and what that makes a block worth.

use super::ages::{AGES, width_ms};
use super::kinds::{KINDS, Kind, LEVELS};

/// What is believed of a kind before anything was seen: as likely at any age, so that old blocks go first.
const PRIOR: f64 = 0.06;
/// So many blocks must have been seen before a kind counts as much as the coarser kind that it belongs to.
const WEIGHT: f64 = 200.0;
/// When so many were seen at one age, all counts are halved: what was long ago matters less.
const SEEN_MAX: u32 = 1 << 17;

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    came: u32,
    /// Those that came and those that reached the next age.
    seen: u32,
}

/// Counts for every level of detail.
#[derive(Debug, Clone)]
pub(super) struct Returns {
    counts: Vec<[Count; AGES]>,
}

impl Default for Returns {
    fn default() -> Returns {
        Returns { counts: vec![[Count::default(); AGES]; LEVELS * KINDS] }
    }
}

impl Returns {
    pub(super) fn came_back(&mut self, kind: Kind, age: usize) {
        self.count(kind, age, 1);
    }

    pub(super) fn stayed_away(&mut self, kind: Kind, age: usize) {
        self.count(kind, age, 0);
    }

    fn count(&mut self, kind: Kind, age: usize, came: u32) {
        for level in 0..LEVELS {
            let count = &mut self.counts[level * KINDS + kind.at_level(level)][age];
            count.came += came;
            count.seen += 1;
        }
        if self.counts[0][age].seen >= SEEN_MAX {
            self.halve();
        }
    }

    fn halve(&mut self) {
        for count in self.counts.iter_mut().flatten() {
            count.came /= 2;
            count.seen /= 2;
        }
    }

    /// The chance to come back at each age for who has reached it. Kinds seen rarely are taken for what they
    /// are a part of.
    fn chances(&self, kind: Kind) -> [f64; AGES] {
        let mut chances = [PRIOR; AGES];
        for level in 0..LEVELS {
            let counts = &self.counts[level * KINDS + kind.at_level(level)];
            for (chance, count) in chances.iter_mut().zip(counts) {
                *chance = (f64::from(count.came) + WEIGHT * *chance) / (f64::from(count.seen) + WEIGHT);
            }
        }
        chances
    }

    /// Returns for each ms of keeping, at each age, if the block is kept until the best moment to give it up.
    pub(super) fn worths(&self, kind: Kind) -> [f64; AGES] {
        let chances = self.chances(kind);
        std::array::from_fn(|age| best_rate(&chances, age))
    }
}

/// The most returns for the time kept, over all moments at which one may stop to wait (a Gittins index).
fn best_rate(chances: &[f64; AGES], from: usize) -> f64 {
    let (mut here, mut time_ms, mut best) = (1.0, 0.0, 0.0_f64);
    for age in from..AGES {
        // Who comes back does so half way through the age.
        time_ms += here * width_ms(age) * (1.0 - chances[age] / 2.0);
        here *= 1.0 - chances[age];
        best = best.max((1.0 - here) / time_ms);
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evict::Use;

    #[test]
    fn unknown_blocks_are_worth_less_the_longer_they_rest() {
        let worths = Returns::default().worths(Kind::default());
        assert!(worths.windows(2).all(|pair| pair[0] >= pair[1] && pair[1] > 0.0), "{worths:?}");
    }

    #[test]
    fn a_kind_is_worth_what_its_like_did() {
        let mut returns = Returns::default();
        let short = Kind::new(false, &Use { answer: 3, ..Use::default() });
        let long = Kind::new(false, &Use { answer: 300, ..Use::default() });
        for _ in 0..5_000 {
            (0..8).for_each(|age| returns.stayed_away(short, age));
            (0..AGES - 1).for_each(|age| returns.stayed_away(long, age));
            returns.came_back(short, 8);
        }
        assert!(returns.worths(short)[0] > 5.0 * returns.worths(long)[0]);
        assert!(returns.worths(short)[7] > returns.worths(short)[0], "the time of return comes nearer");
        assert!(returns.worths(short)[9] < returns.worths(short)[7], "the time of return is over");
    }
}
