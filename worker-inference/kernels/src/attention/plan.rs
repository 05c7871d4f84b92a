//! Who computes what: which rows are tiled together, which of them read a cut from the same blocks, and which
//! thread takes which cuts.
//!
//! Sequences are ordered by their tables, so that those that begin with the same blocks stand next to each other.
//! Their rows, in this order, are cut into units of about [`TILE`] queries. A unit has an item for each cut that
//! its rows see; in an item, neighbouring rows whose tables agree on that cut form a run and read it together.
//! Items of all heads, in one fixed order, are shared out evenly by what they cost. Nothing here can change a
//! result: it decides only which queries are computed side by side.

use super::{CUT_BLOCKS, Sequence, TILE};
use crate::kv::{BLOCK_TOKENS, BlockRef, CUT_TOKENS};
use std::cmp::Ordering;
use std::ops::Range;

/// Reading and widening a token's key and value takes as long as computing this many queries with it.
const READ_COST: u64 = 3;

/// What of a call decides the plan, besides tables and positions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) kv_heads: usize,
    /// Query heads of a KV head.
    pub(super) group: usize,
    pub(super) window: usize,
    pub(super) threads: usize,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    /// Its number in the batch.
    pub(super) row: usize,
    pub(super) sequence: usize,
    pub(super) position: usize,
}

impl Row {
    /// The first token that the window leaves in sight.
    #[inline(always)]
    pub(super) fn horizon(&self, window: usize) -> usize {
        (self.position + 1).saturating_sub(window)
    }

    /// The tokens of a cut, counted from its beginning, that this row may see.
    fn reach(&self, cut: usize, window: usize) -> Range<usize> {
        let begin = cut * CUT_TOKENS;
        let from = self.horizon(window).saturating_sub(begin);
        from..(self.position + 1).saturating_sub(begin).min(CUT_TOKENS).max(from)
    }
}

/// One cut for the rows of a unit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item {
    pub(super) cut: usize,
    /// Bit `i`: row `i` of the unit may see some of the cut.
    active: u16,
    /// Bit `i`: row `i` reads other blocks than the row before it.
    starts: u16,
    /// Cost of the items before it.
    begin: u64,
}

impl Item {
    #[inline(always)]
    pub(super) fn is_active(&self, row: usize) -> bool {
        self.active >> row & 1 == 1
    }

    /// The active rows, in stretches that read the same blocks.
    #[inline(always)]
    pub(super) fn runs(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (mut left, goes_on) = (self.active, u32::from(self.active & !self.starts));
        std::iter::from_fn(move || {
            let start = left.trailing_zeros() as usize;
            if start == 16 {
                return None;
            }
            let end = start + 1 + (goes_on >> (start + 1)).trailing_ones() as usize;
            left &= !((1u32 << end) - 1) as u16;
            Some(start..end)
        })
    }
}

/// Some cuts of a unit for one KV head: the work of one thread.
#[derive(Debug, Clone)]
pub(super) struct Part {
    rows: Range<usize>,
    pub(super) kv_head: usize,
    /// Query heads, all of `kv_head`.
    pub(super) heads: Range<usize>,
    pub(super) items: Range<usize>,
    /// All items of the unit.
    unit: Range<usize>,
    /// Where the slots of the unit begin, if its items belong to several threads.
    slots: Option<usize>,
}

struct Unit {
    rows: Range<usize>,
    items: Range<usize>,
}

#[derive(Default)]
pub(super) struct Plan {
    order: Vec<usize>,
    rows: Vec<Row>,
    units: Vec<Unit>,
    items: Vec<Item>,
    parts: Vec<Part>,
    /// Where the parts of each thread begin.
    starts: Vec<usize>,
    slots: usize,
}

impl Plan {
    pub(super) fn fill(&mut self, shape: Shape, sequences: &[Sequence<'_>], positions: &[u32]) {
        // The heads of a KV head, in as few columns as fit a tile.
        let columns = shape.group.div_ceil(TILE);
        let heads = shape.group.div_ceil(columns);
        self.order_rows(sequences, positions);
        let total = self.cut_rows(shape.window, heads, sequences);
        self.share_out(shape, heads, total);
    }

    /// All rows, sequences with the same first blocks next to each other.
    fn order_rows(&mut self, sequences: &[Sequence<'_>], positions: &[u32]) {
        self.order.clear();
        self.order.extend(0..sequences.len());
        self.order
            .sort_unstable_by(|&a, &b| compare(sequences[a].blocks, sequences[b].blocks).then(a.cmp(&b)));
        self.rows.clear();
        for &sequence in &self.order {
            for row in sequences[sequence].rows.clone() {
                self.rows.push(Row { row, sequence, position: positions[row] as usize });
            }
        }
    }

    /// Units and their items. Returns the cost of all, for `heads` query heads.
    fn cut_rows(&mut self, window: usize, heads: usize, sequences: &[Sequence<'_>]) -> u64 {
        self.units.clear();
        self.items.clear();
        let (rows_a_unit, mut cost) = ((TILE / heads).max(1), 0);
        for first in (0..self.rows.len()).step_by(rows_a_unit) {
            let range = first..self.rows.len().min(first + rows_a_unit);
            let rows = &self.rows[range.clone()];
            let horizon = rows.iter().map(|row| row.horizon(window)).min().unwrap_or(0);
            let last = rows.iter().map(|row| row.position).max().unwrap_or(0);
            let begin = self.items.len();
            for cut in horizon / CUT_TOKENS..=last / CUT_TOKENS {
                let (item, item_cost) = item(cut, rows, window, heads, sequences);
                self.items.push(Item { begin: cost, ..item });
                cost += item_cost;
            }
            self.units.push(Unit { rows: range, items: begin..self.items.len() });
        }
        cost
    }

    /// An item belongs to the thread in whose share of the cost it begins.
    fn share_out(&mut self, shape: Shape, heads: usize, total: u64) {
        let Shape { kv_heads, group, threads, .. } = shape;
        let columns = group.div_ceil(heads);
        let all = total * (kv_heads * columns) as u64;
        self.parts.clear();
        self.starts.clear();
        self.starts.push(0);
        self.slots = 0;
        for column in 0..kv_heads * columns {
            let (kv_head, first) = (column / columns, column % columns * heads);
            let heads = kv_head * group + first..kv_head * group + group.min(first + heads);
            for unit in 0..self.units.len() {
                let (first, all_items) = (self.parts.len(), self.units[unit].items.clone());
                let mut items = all_items.start..all_items.start;
                while items.end < all_items.end {
                    let begin = column as u64 * total + self.items[items.end].begin;
                    while begin * threads as u64 >= self.starts.len() as u64 * all {
                        self.close(unit, kv_head, &heads, &mut items);
                        self.starts.push(self.parts.len());
                    }
                    items.end += 1;
                }
                self.close(unit, kv_head, &heads, &mut items);
                self.mark_split(first);
            }
        }
        self.starts.resize(threads + 1, self.parts.len());
    }
}

impl Plan {
    /// Makes a part of the items gathered so far.
    fn close(&mut self, unit: usize, kv_head: usize, heads: &Range<usize>, items: &mut Range<usize>) {
        let Unit { rows, items: all } = &self.units[unit];
        if items.start < items.end {
            self.parts.push(Part {
                rows: rows.clone(),
                kv_head,
                heads: heads.clone(),
                items: items.clone(),
                unit: all.clone(),
                slots: None,
            });
        }
        items.start = items.end;
    }

    /// Gives the parts of a unit slots, if there are several.
    fn mark_split(&mut self, first: usize) {
        let parts = &mut self.parts[first..];
        if parts.len() > 1 {
            parts.iter_mut().for_each(|part| part.slots = Some(self.slots));
            self.slots += parts[0].unit.len() * parts[0].queries();
        }
    }

    /// Slots that the parts of split units need.
    pub(super) fn slots(&self) -> usize {
        self.slots
    }

    pub(super) fn parts_of(&self, thread: usize) -> &[Part] {
        &self.parts[self.starts[thread]..self.starts[thread + 1]]
    }

    /// The first part of each unit whose cuts belong to several threads.
    pub(super) fn split(&self) -> impl Iterator<Item = &Part> {
        self.parts.iter().filter(|part| part.slots.is_some() && part.items.start == part.unit.start)
    }

    pub(super) fn rows(&self, part: &Part) -> &[Row] {
        &self.rows[part.rows.clone()]
    }

    pub(super) fn items(&self, part: &Part) -> &[Item] {
        &self.items[part.items.clone()]
    }
}

impl Part {
    /// One for each row and each query head.
    pub(super) fn queries(&self) -> usize {
        self.rows.len() * self.heads.len()
    }

    /// The slots of all cuts of a query, ascending, if several threads compute them.
    pub(super) fn slots_of(&self, query: usize) -> Option<Range<usize>> {
        let first = self.slots? + query * self.unit.len();
        Some(first..first + self.unit.len())
    }

    /// Which of the unit's cuts is the first of this part.
    pub(super) fn first_cut(&self) -> usize {
        self.items.start - self.unit.start
    }
}

/// An item that begins at no cost yet, and what it costs.
fn item(cut: usize, rows: &[Row], window: usize, heads: usize, sequences: &[Sequence<'_>]) -> (Item, u64) {
    let mut item = Item { cut, active: 0, starts: 0, begin: 0 };
    let mut cost = 0;
    // The row of the run that reaches furthest, and how many tokens that row sees.
    let mut longest: Option<(&Row, u64)> = None;
    for (index, row) in rows.iter().enumerate() {
        let seen = row.reach(cut, window).len() as u64;
        if seen == 0 {
            longest = None;
            continue;
        }
        item.active |= 1 << index;
        cost += seen * heads as u64;
        match longest {
            Some((other, _)) if agree(other, row, cut, sequences) => {
                if row.position > other.position {
                    longest = Some((row, seen));
                }
            }
            _ => {
                item.starts |= 1 << index;
                cost += seen * READ_COST;
                longest = Some((row, seen));
            }
        }
    }
    (item, cost)
}

/// Whether two rows find the same blocks in a cut, as far as either of them reaches.
fn agree(a: &Row, b: &Row, cut: usize, sequences: &[Sequence<'_>]) -> bool {
    if a.sequence == b.sequence {
        return true;
    }
    let end = (a.position.max(b.position) / BLOCK_TOKENS + 1).min((cut + 1) * CUT_BLOCKS);
    let blocks = cut * CUT_BLOCKS..end;
    let tables = (sequences[a.sequence].blocks.get(blocks.clone()), sequences[b.sequence].blocks.get(blocks));
    matches!(tables, (Some(a), Some(b)) if alike(a, b))
}

/// Whether tables of the same length are equal.
fn alike(a: &[BlockRef], b: &[BlockRef]) -> bool {
    // No early end: a few entries are compared faster than a branch on each is taken.
    let differences =
        a.iter().zip(b).fold(0, |all, (a, b)| all | (a.block ^ b.block) | u32::from(a.mask ^ b.mask));
    differences == 0
}

/// An order in which tables that begin with the same entries are neighbours.
fn compare(a: &[BlockRef], b: &[BlockRef]) -> Ordering {
    let cuts = a.chunks_exact(CUT_BLOCKS).zip(b.chunks_exact(CUT_BLOCKS));
    let same = cuts.take_while(|(a, b)| alike(a, b)).count() * CUT_BLOCKS;
    let key = |entry: &BlockRef| (entry.block, entry.mask);
    a[same..].iter().map(key).cmp(b[same..].iter().map(key))
}
