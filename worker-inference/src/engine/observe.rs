//! Figures of a running engine, for people, metrics and tests.

use std::collections::BTreeMap;

use super::Engine;
use crate::blocks::{Eviction, OwnerBlocks};
use crate::evict::Owner;
use crate::scheduler::{Asides, Shared, Verb, VerbOutcome};
use crate::sequence::Sequence;

/// A snapshot. Totals count since the engine was loaded.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observed {
    pub waiting: usize,
    pub running: usize,
    /// Put aside until somebody lets them go on.
    pub paused: usize,
    pub blocks_total: usize,
    /// Never used, or given up.
    pub blocks_free: usize,
    /// Held by a sequence.
    pub blocks_used: usize,
    /// Kept because their content may be asked for again.
    pub blocks_idle: usize,
    pub steps: u64,
    /// Rows computed.
    pub tokens_computed: u64,
    /// Rows that were not needed, because their values were found.
    pub tokens_cached: u64,
    pub tokens_generated: u64,
    /// Guessed tokens that were run, and those of them that came true. No other figure counts the ones that did not.
    pub tokens_drafted: u64,
    pub tokens_accepted: u64,
    /// Steps whose likeliest tokens the sketch of the output matrix told.
    pub steps_sketched: u64,
    /// Of the computed ones, rows that had been computed before and were lost.
    pub tokens_recomputed: u64,
    /// What was taken over from the pool and from below it.
    pub shared: Shared,
    pub asides: Asides,
    pub verbs: BTreeMap<(Verb, VerbOutcome), u64>,
    /// Blocks of the pool by project and class.
    pub by_owner: BTreeMap<Owner, OwnerBlocks>,
    /// The tiers below the pool, when there are any.
    pub tiers: Option<crate::tiers::Observed>,
    pub evictions: BTreeMap<Eviction, u64>,
    /// Bytes of the model file.
    pub model_bytes: usize,
    /// Bytes of the weights as they lie in memory.
    pub repacked_bytes: usize,
    /// Bytes of the whole KV pool; untouched blocks take no memory.
    pub kv_bytes: usize,
    /// Bytes of one block.
    pub block_bytes: usize,
}

/// What ended sequences have cost.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) steps: u64,
    pub(super) generated: u64,
    pub(super) drafted: u64,
    pub(super) accepted: u64,
    computed: u64,
    cached: u64,
    recomputed: u64,
}

impl Totals {
    pub(super) fn add(&mut self, sequence: &Sequence) {
        self.computed += sequence.computed() as u64;
        self.cached += sequence.cached() as u64;
        self.recomputed += sequence.recomputed() as u64;
    }
}

impl Engine {
    /// Sequences that run at the same time.
    pub(crate) fn running_at_most(&self) -> usize {
        self.config.running
    }

    /// The figures now.
    pub fn observe(&self) -> Observed {
        let blocks = self.scheduler.blocks();
        let live = || self.purposes.keys().filter_map(|&id| self.scheduler.sequence(id));
        let sum = |figure: fn(&Sequence) -> usize| live().map(figure).sum::<usize>() as u64;
        Observed {
            waiting: self.scheduler.waiting(),
            running: self.scheduler.running(),
            paused: self.scheduler.paused(),
            blocks_total: blocks.total(),
            blocks_free: blocks.free(),
            blocks_used: blocks.used(),
            blocks_idle: blocks.idle(),
            steps: self.totals.steps,
            tokens_computed: self.totals.computed + sum(Sequence::computed),
            tokens_cached: self.totals.cached + sum(Sequence::cached),
            tokens_generated: self.totals.generated,
            tokens_drafted: self.totals.drafted,
            tokens_accepted: self.totals.accepted,
            steps_sketched: self.model.sketched(),
            tokens_recomputed: self.totals.recomputed + sum(Sequence::recomputed),
            shared: self.scheduler.shared(),
            asides: self.scheduler.asides(),
            verbs: self.scheduler.verbs().clone(),
            by_owner: blocks.by_owner().clone(),
            tiers: self.below.as_ref().map(|below| below.tiers.observed()),
            evictions: blocks.evictions().clone(),
            model_bytes: self.file_bytes,
            repacked_bytes: self.model.repacked_bytes(),
            kv_bytes: self.kv.bytes(),
            block_bytes: self.model.kv_layout().block_bytes(),
        }
    }
}
