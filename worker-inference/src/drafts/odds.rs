//! How likely a guessed token comes true, by how much before it was the same: learnt for each sequence alone.

/// Matches of at least so many tokens, with what is believed of them at first.
const CLASSES: [(usize, f64); 5] = [(0, 0.45), (5, 0.6), (8, 0.75), (12, 0.85), (20, 0.92)];
/// What one trial weighs beside all before it.
const TRIAL: f64 = 1.0 / 8.0;
/// How fast a belief that nobody tries goes back to what it was at first.
const DOUBT: f64 = 1.0 / 128.0;

/// What a sequence's guesses were worth so far.
#[derive(Debug, Clone)]
pub struct Odds {
    chances: [f64; CLASSES.len()],
}

impl Default for Odds {
    fn default() -> Odds {
        Odds { chances: CLASSES.map(|(_, chance)| chance) }
    }
}

impl Odds {
    /// The chance of the token after so many matching ones.
    pub fn chance(&self, matched: usize) -> f64 {
        self.chances[class(matched)]
    }

    /// `accepted` of `tried` guessed tokens came true, after a match of `matched`.
    pub fn learn(&mut self, matched: usize, tried: usize, accepted: usize) {
        for at in 0..tried.min(accepted + 1) {
            let came_true = if at < accepted { 1.0 } else { 0.0 };
            let chance = &mut self.chances[class(matched + at)];
            *chance += (came_true - *chance) * TRIAL;
        }
    }

    /// A guess was not tried: so that it will be some day, what is believed of it fades.
    pub fn fade(&mut self, matched: usize) {
        let class = class(matched);
        self.chances[class] += (CLASSES[class].1 - self.chances[class]) * DOUBT;
    }
}

fn class(matched: usize) -> usize {
    CLASSES.iter().rposition(|(least, _)| *least <= matched).unwrap_or(0)
}
