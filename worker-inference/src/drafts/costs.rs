//! What a pass over few rows costs on this machine now, and how long a guess pays.

use std::time::Duration;

/// Rows of a pass, guessed ones included.
pub const ROWS_MAX: usize = 16;
/// What the newest measurement weighs.
const NEWEST: f64 = 0.25;
/// What is believed of one row more before it was measured: nearly nothing, so that it is tried.
const ROW_MORE: f64 = 0.04;
/// A guess must be worth this much more than none.
const MARGIN: f64 = 1.02;
/// Passes after which a measurement that nobody repeated is not believed any more.
const AGE_MAX: u64 = 1024;

/// What to run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Worth {
    /// Guessed tokens; 0 when none pays.
    pub guesses: usize,
    /// Tokens that the pass is expected to bring, the sure ones included.
    pub tokens: f64,
}

/// Seconds of a pass by its rows, as measured.
#[derive(Debug, Clone, Default)]
pub struct Costs {
    passes: u64,
    measured: [Option<Measured>; ROWS_MAX],
}

#[derive(Debug, Clone, Copy)]
struct Measured {
    seconds: f64,
    at: u64,
}

impl Costs {
    /// A pass over so many rows took so long.
    pub fn learn(&mut self, rows: usize, spent: Duration) {
        self.passes += 1;
        let Some(slot) = rows.checked_sub(1).and_then(|index| self.measured.get_mut(index)) else { return };
        let (seconds, at) = (spent.as_secs_f64(), self.passes);
        let before = slot.filter(|before| at - before.at <= AGE_MAX).map_or(seconds, |slot| slot.seconds);
        *slot = Some(Measured { seconds: before + (seconds - before) * NEWEST, at });
    }

    /// How many of the next guessed tokens to run beside `rows` others, which are expected to bring `sure` tokens.
    /// `chances` are those of one guessed token after the other, given that those before it come true.
    pub fn worth(&self, rows: usize, sure: f64, chances: impl Iterator<Item = f64>) -> Worth {
        let mut best = Worth { guesses: 0, tokens: sure };
        let Some(alone) = self.seconds(rows) else { return best };
        let mut most = sure / alone * MARGIN;
        let (mut tokens, mut chance) = (sure, 1.0);
        for (index, next) in chances.take(ROWS_MAX.saturating_sub(rows)).enumerate() {
            chance *= next;
            tokens += chance;
            let Some(seconds) = self.seconds(rows + index + 1) else { break };
            if tokens / seconds > most {
                (best, most) = (Worth { guesses: index + 1, tokens }, tokens / seconds);
            }
        }
        best
    }

    /// What a pass costs: as measured, else a little more than the nearest measured one with fewer rows.
    fn seconds(&self, rows: usize) -> Option<f64> {
        let believed = |slot: &Measured| self.passes - slot.at <= AGE_MAX;
        let fewer = (1..=rows.min(ROWS_MAX)).rev();
        let mut known =
            fewer.filter_map(|rows| Some((rows, self.measured[rows - 1].filter(|slot| believed(slot))?)));
        let (least, slot) = known.next()?;
        Some(slot.seconds * (1.0 + ROW_MORE * (rows - least) as f64))
    }
}
