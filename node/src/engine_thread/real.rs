//! `worker_inference::Engine` behind the thread.

use super::hints::Hint;
use super::kv::Chain;
use super::scores::Runs;
use super::{EngineObserved, EngineThread, Job, JobEnd, JobEvent, KvHeld, RefusedJob, Scores, Steps};
use crate::link::EngineFacts;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use worker_inference::tiers::Tier;
use worker_inference::{
    Engine, EngineConfig, EngineInfo, Event, Eviction, FinishReason, LoadError, Observed, Request,
    SequenceId, SubmitError, TextModel, Verb, VerbOutcome,
};

/// A model that is loaded and runs on its thread.
#[derive(Clone)]
pub struct LoadedModel {
    pub name: String,
    /// Where it was loaded from.
    pub file: PathBuf,
    pub thread: EngineThread,
    pub text: Arc<TextModel>,
    pub info: EngineInfo,
}

/// A model did not get as far as its thread.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("cannot start the engine's thread: {0}; check the limits on threads of this user")]
    Thread(#[from] std::io::Error),
}

impl LoadedModel {
    /// Loads a model and starts its thread. Takes seconds and reads the whole file: call it where blocking is allowed.
    pub fn load(name: &str, file: &Path, config: EngineConfig) -> Result<LoadedModel, StartError> {
        let engine = Engine::load(file, config)?;
        let (text, info) = (engine.text(), engine.info().clone());
        let real = RealEngine { engine, texts: BTreeMap::new(), runs: Runs::default() };
        let thread = EngineThread::start(name, real)?;
        Ok(LoadedModel { name: name.into(), file: file.into(), thread, text, info })
    }

    /// Tokens of prompt and answer together that can run here: the model's window, or all KV blocks if they are fewer.
    pub fn window(&self) -> u64 {
        (self.info.window as u64).min(self.info.kv_blocks as u64 * 16)
    }

    /// What beats say about it.
    pub fn facts(&self) -> EngineFacts {
        let observed = self.thread.observe();
        EngineFacts {
            model: self.name.clone(),
            model_digest: self.info.model_digest,
            numerics_id: self.info.numerics_id,
            window: self.window(),
            kv_blocks: observed.kv_blocks,
            kv_blocks_used: observed.kv_blocks_used,
            kv_bytes: observed.kv_bytes,
            kernels: self.info.isa.clone(),
            tokens_computed: observed.tokens_computed,
            tokens_cached: observed.tokens_cached,
            tokens_generated: observed.tokens_generated,
            model_bytes: observed.model_bytes,
            weight_bytes: observed.weight_bytes,
            kv_tiers: kv_tiers(&observed.kv),
        }
    }
}

/// The sums over projects and classes, the fastest tier first; a tier without a byte is left out.
fn kv_tiers(held: &[KvHeld]) -> Vec<(&'static str, u64)> {
    let sum = |tier| held.iter().filter(|it| it.tier == tier).map(|it| it.bytes).sum();
    let tiers = ["memory", "host", "disk"].map(|tier| (tier, sum(tier)));
    tiers.into_iter().filter(|(_, bytes)| *bytes > 0).collect()
}

struct RealEngine {
    engine: Engine,
    /// The text of each open answer so far.
    texts: BTreeMap<SequenceId, String>,
    runs: Runs,
}

impl Steps for RealEngine {
    fn enter_thread(&self) {
        self.engine.enter_thread();
    }

    fn submit(&mut self, job: Job) -> Result<u64, RefusedJob> {
        let request = Request {
            tokens: job.tokens,
            scope: job.scope,
            max_new: job.max_new as usize,
            min_new: job.min_new as usize,
            sampling: job.sampling,
            stop: job.stop,
            ignore_eos: job.ignore_eos,
            logprobs: job.logprobs.map(|top| top as usize),
            grammar: job.grammar,
            class: job.class,
        };
        let id = self.engine.submit(request).map_err(refused)?;
        self.texts.insert(id, String::new());
        Ok(id.0)
    }

    fn submit_scores(&mut self, scores: Scores) -> Result<u64, RefusedJob> {
        self.runs.add(&self.engine, scores)
    }

    fn cancel(&mut self, id: u64) {
        if !self.runs.cancel(&mut self.engine, id) {
            self.engine.cancel(SequenceId(id));
        }
    }

    fn step(&mut self) -> Vec<(u64, JobEvent)> {
        self.runs.submit(&mut self.engine);
        let events = self.engine.step();
        let others: Vec<Event> = events.into_iter().filter_map(|event| self.runs.take(event)).collect();
        let told = others.into_iter().filter_map(|event| self.translate(event));
        told.collect::<Vec<_>>().into_iter().chain(self.runs.ended(&mut self.engine)).collect()
    }

    fn is_idle(&self) -> bool {
        self.engine.is_idle() && self.runs.is_empty()
    }

    fn rest(&mut self) -> bool {
        self.engine.write_behind()
    }

    fn hint(&mut self, chain: &Chain, hint: Hint) {
        let (engine, scope, tokens) = (&mut self.engine, &chain.scope, &chain.tokens);
        match hint {
            Hint::Retain { within_ms, permille } => engine.retain(scope, tokens, within_ms, permille),
            Hint::Drop { kept, ended } => engine.drop_chain(scope, tokens, kept, ended),
            Hint::Prefetch => engine.prefetch(scope, tokens),
            Hint::Pin { for_ms } => engine.pin(scope, tokens, for_ms),
        };
    }

    fn held(&self, chain: &Chain) -> usize {
        self.engine.held(&chain.scope, &chain.tokens)
    }

    fn copy_out(&self, chain: &Chain, from: usize, most: usize) -> Vec<Vec<u8>> {
        self.engine.copy_out(&chain.scope, &chain.tokens, from, most)
    }

    fn copy_in(&mut self, chain: &Chain, from: usize, blocks: &[Vec<u8>]) -> usize {
        self.engine.copy_in(&chain.scope, chain.class, &chain.tokens, from, blocks)
    }

    fn observe(&self) -> EngineObserved {
        let observed = self.engine.observe();
        EngineObserved {
            sequences: (observed.waiting + observed.running) as u64,
            kv_blocks: observed.blocks_total as u64,
            kv_blocks_used: observed.blocks_used as u64,
            kv_bytes: observed.kv_bytes as u64,
            weight_bytes: observed.repacked_bytes as u64,
            model_bytes: observed.model_bytes as u64,
            tokens_computed: observed.tokens_computed,
            tokens_cached: observed.tokens_cached,
            tokens_generated: observed.tokens_generated,
            // With a zero for what never happened: an alarm on a missing figure is silent.
            evictions: Eviction::ALL
                .map(|why| (why.name(), observed.evictions.get(&why).copied().unwrap_or(0)))
                .to_vec(),
            kv: kv_held(&observed),
            kv_restored: observed.tiers.as_ref().map_or_else(Vec::new, |tiers| {
                vec![("host", tiers.restored_host_bytes), ("disk", tiers.restored_disk_bytes)]
            }),
            verbs: verbs(&observed),
            preempted: observed.asides.preempted,
            tokens_drafted: observed.tokens_drafted,
            tokens_accepted: observed.tokens_accepted,
            steps_sketched: observed.steps_sketched,
            tokens_recomputed: observed.tokens_recomputed,
        }
    }
}

/// Also here a zero where a verb was never done.
fn verbs(observed: &Observed) -> Vec<(&'static str, &'static str, u64)> {
    let all = [Verb::Pause, Verb::Resume, Verb::Fork, Verb::Prefetch, Verb::Pin, Verb::Retain, Verb::Drop];
    let never = all.map(|verb| ((verb, VerbOutcome::Done), 0));
    let counts: BTreeMap<(Verb, VerbOutcome), u64> =
        never.into_iter().chain(observed.verbs.iter().map(|(what, count)| (*what, *count))).collect();
    counts.into_iter().map(|((verb, outcome), count)| (verb.name(), outcome.name(), count)).collect()
}

fn kv_held(observed: &Observed) -> Vec<KvHeld> {
    let block = observed.block_bytes as u64;
    let pool = observed.by_owner.iter().map(|(owner, blocks)| KvHeld {
        scope: owner.project,
        class: owner.class,
        tier: "memory",
        bytes: (blocks.held + blocks.idle) as u64 * block,
    });
    let below = observed.tiers.iter().flat_map(|tiers| &tiers.bytes);
    let below = below.map(|(&(tier, scope, class), &bytes)| {
        let tier = match tier {
            Tier::Host => "host",
            Tier::Disk => "disk",
        };
        KvHeld { scope, class, tier, bytes }
    });
    pool.chain(below).collect()
}

impl RealEngine {
    fn translate(&mut self, event: Event) -> Option<(u64, JobEvent)> {
        match event {
            Event::Token { id, token, text, logprobs, .. } => {
                self.texts.entry(id).or_default().push_str(&text);
                Some((id.0, JobEvent::Token { token, text, logprobs }))
            }
            Event::Finished { id, reason: FinishReason::Grammar, .. } => {
                self.texts.remove(&id);
                let why =
                    "the answer became too complex for its schema to be followed; make the schema simpler";
                Some((id.0, JobEvent::Refused(RefusedJob { why: why.into(), retriable: false })))
            }
            Event::Finished { id, reason, usage, tokens, rest } => {
                let text = self.texts.remove(&id).unwrap_or_default() + &rest;
                let (prompt_tokens, cached_tokens) = (usage.prompt as u64, usage.cached as u64);
                let (why, waited_ms) = (why(reason), usage.waited_ms);
                Some((id.0, JobEvent::End { why, text, tokens, prompt_tokens, cached_tokens, waited_ms }))
            }
            // Scores of a run that has ended; nobody asks this thread for logits.
            Event::Scored { .. } | Event::Logits { .. } => None,
        }
    }
}

fn why(reason: FinishReason) -> JobEnd {
    match reason {
        FinishReason::Eos | FinishReason::StopString => JobEnd::Stop,
        // A grammar that can't go on was told as a refusal.
        FinishReason::Length | FinishReason::Grammar => JobEnd::Length,
        FinishReason::Cancelled => JobEnd::Cancelled,
    }
}

fn refused(error: SubmitError) -> RefusedJob {
    RefusedJob { retriable: matches!(error, SubmitError::Busy { .. }), why: error.to_string() }
}
