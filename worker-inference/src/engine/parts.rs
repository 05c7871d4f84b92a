//! Scores behind texts put together from parts, each of which was read by itself wherever it was first needed.
//!
//! A part is read right behind `start`, once, and its keys and values are found again by what it says, wherever it stands
//! (*position-independent caching*). In a text each part is looked at from as far as if it had been read in its place. Rows
//! that are read once more (the first `again` of each part but the first, as EPIC does) see all parts before them, and take
//! the place of those that did not.

use std::ops::Range;

use super::scoring::Scoring;
use super::{Engine, Purpose};
use crate::blocks::BlockId;
use crate::prefix::Scope;
use crate::scheduler::SubmitError;
use crate::sequence::{SequenceId, Work};

/// Tokens whose likelihood is asked for, behind parts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PartsRequest {
    /// Only requests of the same scope share what was read.
    pub scope: Scope,
    /// What every part is read behind, and stands first.
    pub start: Vec<u32>,
    /// In their order, none of them empty; every one was read behind `start` ([`Engine::submit_logits`] does that).
    pub parts: Vec<Vec<u32>>,
    /// So many tokens at the beginning of every part but the first are read once more, behind all that stands before.
    pub again: usize,
    /// Read behind all parts; at least one token.
    pub probe: Vec<u32>,
    /// What is scored; at least one token.
    pub action: Vec<u32>,
    /// Smaller is more urgent.
    pub class: u8,
}

/// What became of a [`PartsRequest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartsSubmitted {
    /// It runs; answered by [`super::Event::Scored`].
    Runs(SequenceId),
    /// The values of the part with this number are not in the pool: read it, and submit again.
    Missing(usize),
}

/// Where a sequence's rows stand, and which parts they see.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// Tokens before the first part.
    start: usize,
    placed: Vec<Placed>,
    /// Where what is behind all parts stands.
    behind: usize,
}

/// A part in a text.
#[derive(Debug)]
pub(super) struct Placed {
    /// Of the start and the part.
    pub(super) blocks: Vec<BlockId>,
    /// What is seen of them: the part without what is read once more.
    pub(super) seen: Range<usize>,
    /// So much further from the start than it was read.
    pub(super) moved: usize,
    /// The sequence's own rows that read its beginning once more.
    again: Range<usize>,
}

/// A row's place.
pub(super) struct Stand<'a> {
    pub(super) position: usize,
    pub(super) sees: &'a [Placed],
    /// Rows before this one see the same parts.
    pub(super) until: usize,
}

impl Parts {
    pub(super) fn tables(&self) -> impl Iterator<Item = &[BlockId]> {
        self.placed.iter().map(|part| &part.blocks[..])
    }

    /// The place of a row of the sequence.
    pub(super) fn stand(&self, row: usize) -> Stand<'_> {
        if row < self.start {
            return Stand { position: row, sees: &[], until: self.start };
        }
        let before = self.placed.partition_point(|part| part.again.end <= row);
        match self.placed.get(before) {
            Some(part) => Stand {
                position: self.start + part.moved + row - part.again.start,
                sees: &self.placed[..before],
                until: part.again.end,
            },
            None => Stand {
                position: self.behind + row - self.first_behind(),
                sees: &self.placed,
                until: usize::MAX,
            },
        }
    }

    /// The first row behind all parts.
    fn first_behind(&self) -> usize {
        self.placed.last().map_or(self.start, |part| part.again.end)
    }

    /// The next part, whose blocks are held, `again` tokens of which are read once more.
    fn place(&mut self, blocks: Vec<BlockId>, tokens: usize, again: usize) {
        let row = self.first_behind();
        let moved = self.behind - self.start;
        let seen = self.start + again..self.start + tokens;
        self.placed.push(Placed { blocks, seen, moved, again: row..row + again });
        self.behind += tokens;
    }
}

impl Engine {
    /// Whether the values of all these tokens are in the pool.
    pub fn knows(&self, scope: &Scope, tokens: &[u32]) -> bool {
        self.scheduler.known(scope, tokens).is_some()
    }

    /// Asks for the likelihood of an action behind parts that were read before. It runs at once or is refused, since it
    /// holds what it reads.
    ///
    /// # Errors
    /// Also for models some of whose layers look only so far back: what is far from where it was read is not told from
    /// what is near there.
    pub fn submit_parts(&mut self, request: PartsRequest) -> Result<PartsSubmitted, SubmitError> {
        self.check_parts(&request)?;
        let mut parts = Parts { start: request.start.len(), placed: Vec::new(), behind: request.start.len() };
        for (number, part) in request.parts.iter().enumerate() {
            let chain = [&request.start[..], part].concat();
            let blocks = match self.scheduler.hold_known(&request.scope, &chain) {
                Ok(Some(blocks)) => blocks,
                other => {
                    self.let_go_of(&parts);
                    return other.map(|_| PartsSubmitted::Missing(number));
                }
            };
            let again = if number == 0 { 0 } else { request.again.min(part.len()) };
            parts.place(blocks, part.len(), again);
        }
        self.start_behind(parts, request).map(PartsSubmitted::Runs)
    }

    fn check_parts(&self, request: &PartsRequest) -> Result<(), SubmitError> {
        let PartsRequest { start, parts, probe, action, .. } = request;
        let texts = [start, probe, action];
        if texts.into_iter().chain(parts).any(|tokens| tokens.is_empty()) {
            return Err(SubmitError::Empty);
        }
        if !self.model.sees_everything() {
            return Err(SubmitError::Request(
                "this model has layers that look only so far back, so parts can't be moved; take a model without, or let \
                 it read the whole text",
            ));
        }
        let prompt = texts.into_iter().chain(parts).map(Vec::len).sum::<usize>() - 1;
        let window = self.info.window;
        if prompt > window {
            return Err(SubmitError::Window { prompt, max_new: 0, window });
        }
        texts.into_iter().chain(parts).try_for_each(|tokens| self.check_tokens(tokens))
    }

    fn start_behind(&mut self, parts: Parts, request: PartsRequest) -> Result<SequenceId, SubmitError> {
        let PartsRequest { scope, start, parts: texts, probe, action, class, .. } = request;
        let again = texts.iter().zip(&parts.placed).flat_map(|(text, part)| &text[..part.again.len()]);
        let mut tokens: Vec<u32> = start.iter().chain(again).copied().collect();
        let logits_from = tokens.len() + probe.len() - 1;
        // The last token is only a target: no row needs to run for it.
        tokens.extend(probe.iter().chain(&action[..action.len() - 1]));
        let work = Work { logits_from, private_from: start.len(), class, ..self.work(tokens, scope) };
        self.scheduler.set_time(self.now_ms());
        match self.scheduler.start_holding(work) {
            Ok(id) => {
                let scoring = Scoring::behind(parts, logits_from, action);
                self.purposes.insert(id, Purpose::Score(Box::new(scoring)));
                Ok(id)
            }
            Err(error) => {
                self.let_go_of(&parts);
                Err(error)
            }
        }
    }

    /// Nothing reads these parts any more.
    pub(super) fn let_go_of(&mut self, parts: &Parts) {
        parts.tables().for_each(|blocks| self.scheduler.let_go_of(blocks));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_where_their_tokens_would_in_the_whole_text() {
        let mut parts = Parts { start: 5, placed: Vec::new(), behind: 5 };
        parts.place(Vec::new(), 10, 0);
        parts.place(Vec::new(), 3, 2);
        parts.place(Vec::new(), 20, 2);
        let told = |row| {
            let Stand { position, sees, until } = parts.stand(row);
            (position, sees.len(), until)
        };
        assert_eq!(told(4), (4, 0, 5), "the start");
        assert_eq!(
            [told(5), told(6)],
            [(15, 1, 7), (16, 1, 7)],
            "the second part's beginning sees the first"
        );
        assert_eq!([told(7), told(8)], [(18, 2, 9), (19, 2, 9)]);
        assert_eq!([told(9), told(10)], [(38, 3, usize::MAX), (39, 3, usize::MAX)], "behind all");
        let seen: Vec<_> = parts.placed.iter().map(|part| (part.seen.clone(), part.moved)).collect();
        assert_eq!(seen, [(5..15, 0), (7..8, 10), (7..25, 13)]);
    }
}
