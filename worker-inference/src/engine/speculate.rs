//! Guesses, run and checked: where few sequences generate, a pass costs about as much with a few rows more.
//!
//! A guessed token is run behind the token before it. If the token that is then chosen there, in the way and with the
//! draw that it is chosen with in any case, is the guessed one, the next row's logits are known already. So answers have
//! the same bits with and without; see `scheduler::guess` for what happens to the rest.

use std::time::Duration;

use super::lower::Lower;
use super::rows::Asked;
use super::{Engine, Outcome, Purpose};
use crate::drafts::{Costs, Draft, Drafts, ROWS_MAX};
use crate::scheduler::{Batch, Chunk};
use crate::sequence::{Sequence, SequenceId};

/// With more rows than this a step is no cheap one, and nothing is guessed.
const ROWS_BEFORE: usize = 3;

/// Whether tokens are guessed and run before they are known. No answer depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Speculation {
    /// Where at most three sequences generate, as far as it pays by what passes cost here and what came true so far.
    #[default]
    Auto,
    Off,
}

impl std::str::FromStr for Speculation {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Speculation, &'static str> {
        match text {
            "auto" => Ok(Speculation::Auto),
            "off" => Ok(Speculation::Off),
            _ => Err("speculation must be auto or off"),
        }
    }
}

/// Somebody else's guesses, for tests: from the sequence's tokens to what may come next.
pub type Guess = Box<dyn FnMut(&[u32]) -> Vec<u32> + Send>;

/// Makes guesses and learns what they are worth.
pub(super) struct Speculator {
    mode: Speculation,
    drafts: Drafts,
    costs: Costs,
    /// Tried wherever there is room, instead of what is worth it.
    wild: Option<Guess>,
    step: Step,
}

/// The step that is being put together.
#[derive(Debug, Default)]
struct Step {
    rows: usize,
    /// Tokens that it is expected to bring.
    tokens: f64,
    /// Whose guesses run, and what matched before them.
    tried: Vec<(SequenceId, usize)>,
}

impl Speculator {
    pub(super) fn new(mode: Speculation) -> Speculator {
        let (drafts, costs) = (Drafts::default(), Costs::default());
        Speculator { mode, drafts, costs, wild: None, step: Step::default() }
    }

    pub(super) fn clear(&mut self) {
        self.drafts.clear();
    }

    /// The step took so long, and all its rows were of sequences that generate.
    pub(super) fn learn(&mut self, batch: &Batch, spent: Duration) {
        self.costs.learn(batch.rows() + batch.guessed(), spent);
    }

    /// Learns how good the guesses of the step were.
    pub(super) fn judge(&mut self, batch: &Batch, outcomes: &[(Asked, Outcome)]) {
        for (id, matched) in std::mem::take(&mut self.step.tried) {
            let ran = |chunk: &&Chunk| chunk.id == id;
            let tried = batch.chunks.iter().find(ran).map_or(0, |chunk| chunk.guessed.len());
            let came = |(row, _): &&(Asked, Outcome)| row.id == id && row.guess.is_some();
            let accepted = outcomes.iter().filter(came).count();
            self.drafts.odds(id).into_iter().for_each(|odds| odds.learn(matched, tried, accepted));
        }
    }

    /// A sequence has ended.
    pub(super) fn end(&mut self, id: SequenceId, sequence: &Sequence) {
        if self.mode == Speculation::Auto {
            self.drafts.end(id, sequence.scope(), sequence.tokens(), sequence.prompt());
        }
    }

    /// Begins a step. False when nothing is to be guessed in it.
    fn begin(&mut self, batch: &Batch) -> bool {
        self.step = Step { rows: batch.rows(), tokens: batch.chunks.len() as f64, tried: Vec::new() };
        let is_small = (1..=ROWS_BEFORE).contains(&self.step.rows) || self.wild.is_some();
        self.mode == Speculation::Auto && is_small
    }

    /// What to run behind a sequence's last token.
    fn guess(&mut self, id: SequenceId, sequence: &Sequence, most: usize) -> Vec<u32> {
        let most = most.min(ROWS_MAX.saturating_sub(self.step.rows));
        let guessed = match &mut self.wild {
            Some(wild) => wild(sequence.tokens()).into_iter().take(most).collect(),
            None => self.worthwhile(id, sequence, most),
        };
        self.step.rows += guessed.len();
        guessed
    }

    /// The part of a guess that pays.
    fn worthwhile(&mut self, id: SequenceId, sequence: &Sequence, most: usize) -> Vec<u32> {
        let Draft { mut tokens, matched } = self.drafts.draft(id, sequence.scope(), sequence.tokens(), most);
        let Some(odds) = self.drafts.odds(id).filter(|_| !tokens.is_empty()) else { return Vec::new() };
        let chances = (0..tokens.len()).map(|at| odds.chance(matched + at));
        let worth = self.costs.worth(self.step.rows, self.step.tokens, chances);
        tokens.truncate(worth.guesses);
        self.step.tokens = worth.tokens;
        match tokens.is_empty() {
            true => odds.fade(matched),
            false => self.step.tried.push((id, matched)),
        }
        tokens
    }
}

impl Engine {
    /// Guesses as `guess` does wherever there is room, whatever it is worth. For tests: answers stay as they are.
    #[doc(hidden)]
    pub fn guess_by(&mut self, guess: Guess) {
        self.speculation.wild = Some(guess);
    }

    /// Adds guessed tokens to a small batch.
    pub(super) fn guess(&mut self, batch: &mut Batch) {
        if !self.speculation.begin(batch) {
            return;
        }
        for chunk in 0..batch.chunks.len() {
            let id = batch.chunks[chunk].id;
            let most = self.scheduler.guesses_at_most(batch, chunk);
            let generates = matches!(self.purposes.get(&id), Some(Purpose::Generate(_)));
            let Some(sequence) = self.scheduler.sequence(id).filter(|_| generates && most > 0) else {
                continue;
            };
            let guessed = self.speculation.guess(id, sequence, most);
            self.totals.drafted += guessed.len() as u64;
            let mut bytes = Lower { kv: &mut self.kv, below: self.below.as_mut() };
            self.scheduler.guess(batch, chunk, guessed, &mut bytes);
        }
    }

    /// A row of a guessed token counts once its token has come.
    pub(super) fn count_guess(&mut self, asked: &Asked) {
        if asked.guess.is_some() {
            self.totals.accepted += 1;
            let mut bytes = Lower { kv: &mut self.kv, below: self.below.as_mut() };
            self.scheduler.ran_guess(asked.id, &mut bytes);
        }
    }
}

/// Whether a row's token has come: it is known, or it was guessed and then chosen in the row before it.
pub(super) fn has_come(asked: &Asked, before: Option<&(Asked, Outcome)>) -> bool {
    let Some(guess) = asked.guess else { return true };
    matches!(before, Some((row, Outcome::Token(chosen)))
        if row.id == asked.id
            && row.position + 1 == asked.position
            && chosen.token == guess
            && chosen.over.is_none())
}
