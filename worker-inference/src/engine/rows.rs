//! A planned batch as the model wants it: flat lists of tokens, positions, places and block tables.

use std::ops::Range;
use std::sync::Arc;

use kernels::{BlockRef, Place};

use super::parts::{Parts, Placed};
use super::scoring::Scoring;
use crate::blocks::{BLOCK_TOKENS, BlockId};
use crate::model::decoder::{Decoder, Nearer, Rows, Watched};
use crate::scheduler::{Batch, Chunk, Scheduler};
use crate::sequence::{Sequence, SequenceId};

/// Buffers that are reused from step to step.
#[derive(Debug, Default)]
pub(super) struct RowBuffers {
    tokens: Vec<u32>,
    positions: Vec<u32>,
    stands: Vec<u32>,
    places: Vec<Place>,
    wanted: Vec<usize>,
    /// For rows whose logits are wanted: whose they are.
    asked: Vec<Asked>,
    refs: Vec<BlockRef>,
    spans: Vec<Span>,
    /// Rows that look from nearer, as in [`Nearer`].
    near_rows: Vec<usize>,
    near_positions: Vec<u32>,
    near_stands: Vec<u32>,
    near_spans: Vec<Span>,
    watches: Vec<Watch>,
}

/// A row whose logits are wanted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) id: SequenceId,
    pub(super) position: usize,
    /// The token that it is run for is only guessed.
    pub(super) guess: Option<u32>,
}

/// One chunk: its rows in the batch and its block table in `refs`.
#[derive(Debug)]
struct Span {
    rows: Range<usize>,
    refs: Range<usize>,
}

/// Rows whose attention somebody wants to know, and the segments that it is told for.
#[derive(Debug)]
struct Watch {
    id: SequenceId,
    span: Span,
    segments: Arc<[Range<usize>]>,
}

impl RowBuffers {
    /// Lays out the batch.
    ///
    /// `sink` is a block that nobody reads: the values of rows that must not be stored go there.
    /// `scoring` tells what a sequence does not see and what it wants to know.
    pub(super) fn fill<'a>(
        &mut self,
        batch: &Batch,
        scheduler: &Scheduler,
        sink: u32,
        scoring: &dyn Fn(SequenceId) -> Option<&'a Scoring>,
    ) {
        self.tokens.clear();
        self.positions.clear();
        self.stands.clear();
        self.places.clear();
        self.wanted.clear();
        self.asked.clear();
        self.refs.clear();
        self.spans.clear();
        self.near_rows.clear();
        self.near_positions.clear();
        self.near_stands.clear();
        self.near_spans.clear();
        self.watches.clear();
        for chunk in &batch.chunks {
            let sequence = scheduler.sequence(chunk.id).expect("a planned sequence exists");
            let scoring = scoring(chunk.id);
            self.add(chunk, sequence, sink, scoring.and_then(Scoring::parts));
            self.add_spans(chunk, sequence, scoring);
            scoring.into_iter().for_each(|scoring| self.watch(chunk, sequence, scoring));
        }
    }

    /// Runs the model; `on_logits` gets each wanted row, those of a sequence in order. With `likeliest`, logits that are not
    /// their row's largest may be minus infinity. Returns the attention of watched rows.
    pub(super) fn run(
        &self,
        model: &mut Decoder,
        cpu: &kernels::Cpu,
        kv: &mut kernels::KvPool,
        likeliest: bool,
        on_logits: &mut dyn FnMut(&Asked, &[f32]),
    ) -> Vec<(SequenceId, Vec<f64>)> {
        let sequence = |span: &Span| kernels::Sequence {
            blocks: &self.refs[span.refs.clone()],
            rows: span.rows.clone(),
        };
        let sequences: Vec<kernels::Sequence<'_>> = self.spans.iter().map(sequence).collect();
        let near: Vec<kernels::Sequence<'_>> = self.near_spans.iter().map(sequence).collect();
        let rows = Rows {
            tokens: &self.tokens,
            positions: &self.positions,
            stands: &self.stands,
            places: &self.places,
            sequences: &sequences,
            wanted: &self.wanted,
            likeliest,
            nearer: Nearer {
                rows: &self.near_rows,
                positions: &self.near_positions,
                stands: &self.near_stands,
                sequences: &near,
            },
        };
        let mut asked = self.asked.iter();
        let mut watched: Vec<Watched<'_>> =
            self.watches.iter().map(|watch| Watched::new(sequence(&watch.span), &watch.segments)).collect();
        model.forward(cpu, kv, &rows, &mut watched, &mut |_, logits| {
            on_logits(asked.next().expect("one for each wanted row"), logits);
        });
        self.watches.iter().map(|watch| watch.id).zip(watched.into_iter().map(Watched::shares)).collect()
    }

    fn add(&mut self, chunk: &Chunk, sequence: &Sequence, sink: u32, parts: Option<&Parts>) {
        for position in chunk.rows.clone() {
            if position >= sequence.logits_from() {
                self.ask(chunk.id, position, None);
            }
            let is_stored = position < chunk.store_from;
            let place = if is_stored { Place { block: sink, slot: 0 } } else { place(sequence, position) };
            let stand = parts.map_or(position, |parts| parts.stand(position).position);
            self.push(sequence.tokens()[position], position, stand, place);
        }
        for (position, &token) in (chunk.rows.end..).zip(&chunk.guessed) {
            self.ask(chunk.id, position, Some(token));
            self.push(token, position, position, place(sequence, position));
        }
    }

    /// The logits of the row that is pushed next are wanted.
    fn ask(&mut self, id: SequenceId, position: usize, guess: Option<u32>) {
        self.wanted.push(self.tokens.len());
        self.asked.push(Asked { id, position, guess });
    }

    fn push(&mut self, token: u32, position: usize, stand: usize, place: Place) {
        self.tokens.push(token);
        self.positions.push(position as u32);
        self.stands.push(stand as u32);
        self.places.push(place);
    }

    /// Whose rows' logits are wanted.
    pub(super) fn asking(&self) -> impl Iterator<Item = SequenceId> {
        self.asked.iter().map(|asked| asked.id)
    }

    /// Whether all rows are of sequences that go on token by token.
    pub(super) fn all_are_asked(&self) -> bool {
        self.asked.len() == self.tokens.len()
    }

    /// The chunk's block tables: one, or another wherever rows do not see the same as those before them.
    fn add_spans(&mut self, chunk: &Chunk, sequence: &Sequence, scoring: Option<&Scoring>) {
        let end = chunk.rows.end + chunk.guessed.len();
        let begin = self.tokens.len() - (end - chunk.rows.start);
        let rows =
            |from: usize, until: usize| begin + from - chunk.rows.start..begin + until - chunk.rows.start;
        let mut from = chunk.rows.start;
        while from < end {
            let until = match scoring.and_then(Scoring::parts) {
                Some(parts) => {
                    let stand = parts.stand(from);
                    let until = stand.until.min(end);
                    self.look_at_parts(rows(from, until), stand.sees);
                    self.add_span(rows(from, until), chunk, sequence, &[]);
                    until
                }
                None => {
                    let is_private = from >= sequence.private_from();
                    let until = if is_private { end } else { end.min(sequence.private_from()) };
                    let hidden = scoring.filter(|_| is_private).map_or(&[][..], |scoring| &scoring.omit);
                    self.add_span(rows(from, until), chunk, sequence, hidden);
                    until
                }
            };
            from = until;
        }
    }

    /// Watches the rows of the chunk that ask, if its sequence wants to know segments. They read the last span's
    /// table: what is left out is left out for all rows that ask.
    fn watch(&mut self, chunk: &Chunk, sequence: &Sequence, scoring: &Scoring) {
        let asking = chunk.rows.end.saturating_sub(sequence.logits_from()).min(chunk.rows.len());
        let Some(span) = self.spans.last().filter(|_| asking > 0 && !scoring.segments.is_empty()) else {
            return;
        };
        let span = Span { rows: span.rows.end - asking..span.rows.end, refs: span.refs.clone() };
        self.watches.push(Watch { id: chunk.id, span, segments: Arc::clone(&scoring.segments) });
    }

    /// Some rows that don't see the same tokens, `hidden` ascending. What stands behind the last of those they see from where
    /// they stand. What stands before one they see from nearer, as if the hidden ones had never been there.
    fn add_span(&mut self, rows: Range<usize>, chunk: &Chunk, sequence: &Sequence, hidden: &[Range<usize>]) {
        let mut between: usize = hidden.iter().map(|range| range.len()).sum();
        let mut from = 0;
        for range in hidden.iter().filter(|range| !range.is_empty()) {
            if from < range.start {
                let refs = self.add_refs(chunk, sequence, from..range.start);
                let positions = &self.positions[rows.clone()];
                self.near_positions.extend(positions.iter().map(|row| row - between as u32));
                self.look_nearer(rows.clone(), refs, between);
            }
            (from, between) = (range.end, between - range.len());
        }
        let refs = self.add_refs(chunk, sequence, from..usize::MAX);
        self.spans.push(Span { rows, refs });
    }

    /// Rows see these parts where they were read, from where that is as far as if they had been read in their places.
    fn look_at_parts(&mut self, rows: Range<usize>, parts: &[Placed]) {
        for part in parts.iter().filter(|part| !part.seen.is_empty()) {
            let refs = self.add_table(&part.blocks, part.seen.clone());
            self.near_positions.extend(rows.clone().map(|_| part.seen.end as u32 - 1));
            self.look_nearer(rows.clone(), refs, part.moved);
        }
    }

    /// A table in which only the tokens at `seen` positions are present.
    fn add_refs(&mut self, chunk: &Chunk, sequence: &Sequence, seen: Range<usize>) -> Range<usize> {
        let stored = sequence.stored().max(chunk.rows.end + chunk.guessed.len());
        self.add_table(sequence.table(), seen.start..seen.end.min(stored))
    }

    fn add_table(&mut self, blocks: &[BlockId], seen: Range<usize>) -> Range<usize> {
        let refs = self.refs.len();
        let blocks = blocks.iter().enumerate();
        self.refs.extend(blocks.map(|(index, block)| {
            let mask = in_block(&seen, index * BLOCK_TOKENS);
            BlockRef { block: block.0, mask }
        }));
        refs..self.refs.len()
    }

    /// Another look of rows, whose positions were told, at a table.
    fn look_nearer(&mut self, rows: Range<usize>, refs: Range<usize>, between: usize) {
        let begin = self.near_rows.len();
        self.near_stands.extend(self.stands[rows.clone()].iter().map(|row| row - between as u32));
        self.near_rows.extend(rows);
        self.near_spans.push(Span { rows: begin..self.near_rows.len(), refs });
    }
}

fn place(sequence: &Sequence, position: usize) -> Place {
    Place { block: sequence.table()[position / BLOCK_TOKENS].0, slot: (position % BLOCK_TOKENS) as u8 }
}

/// The mask of a block of which the first `tokens` tokens are present.
fn mask(tokens: usize) -> u16 {
    if tokens >= BLOCK_TOKENS { u16::MAX } else { (1 << tokens) - 1 }
}

/// The tokens of a range that lie in the block that begins at position `start`.
fn in_block(range: &Range<usize>, start: usize) -> u16 {
    mask(range.end.saturating_sub(start)) & !mask(range.start.saturating_sub(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_hides_its_tokens_in_every_block_that_it_touches() {
        let hidden = |range: Range<usize>, start| in_block(&range, start);
        assert_eq!(hidden(3..5, 0), 0b1_1000);
        assert_eq!(hidden(14..18, 0), 0b1100_0000_0000_0000);
        assert_eq!(hidden(14..18, 16), 0b11);
        assert_eq!(hidden(0..64, 16), 0xffff);
        assert_eq!(hidden(14..18, 32), 0);
        assert_eq!(hidden(20..20, 16), 0);
    }
}
