//! The engine: requests in, `step`, events out. It owns the model, the KV bytes and the compute threads;
//! what runs when is decided by `scheduler`.

mod answer;
mod config;
mod copies;
mod deliver;
mod load;
mod lower;
mod observe;
mod parts;
mod pool;
mod probe;
mod request;
mod rows;
mod scoring;
mod speculate;
mod verbs;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kernels::Cpu;

use crate::model::decoder::Decoder;
use crate::prefix::Scope;
use crate::sampler::Sampling;
use crate::scheduler::{Batch, Fork, Scheduler, SubmitError};
use crate::sequence::{SequenceId, TreeId, Work};
use crate::text::TextModel;

use answer::Answer;
pub use config::{DiskKv, EngineConfig, EngineInfo, LoadError};
use lower::{Lower, TiersBelow};
pub use observe::Observed;
use observe::Totals;
pub use parts::{PartsRequest, PartsSubmitted};
use pool::Pool;
pub use request::{Event, FinishReason, ForkRequest, Request, TokenLogprobs, Usage};
use rows::{Asked, RowBuffers};
pub use scoring::ScoreRequest;
use scoring::Scoring;
use speculate::Speculator;
pub use speculate::{Guess, Speculation};

/// Stop strings of one request: more would slow every token.
const STOPS_MAX: usize = 16;
/// How long an engine with nothing to compute waits for a block from the disk before it looks around again.
const FETCH_WAIT: Duration = Duration::from_millis(2);
/// Bytes of one stop string.
const STOP_BYTES_MAX: usize = 1024;

/// Likeliest tokens told beside each chosen one.
const LOGPROBS_MAX: usize = 20;

/// One model being run. Not shared: one thread owns it and calls `step` as long as it is not idle.
pub struct Engine {
    config: EngineConfig,
    info: EngineInfo,
    text: Arc<TextModel>,
    model: Decoder,
    cpu: Cpu,
    kv: Pool,
    scheduler: Scheduler,
    purposes: BTreeMap<SequenceId, Purpose>,
    rows: RowBuffers,
    /// Events that happened outside of a step.
    pending: Vec<Event>,
    totals: Totals,
    file_bytes: usize,
    below: Option<TiersBelow>,
    speculation: Speculator,
    started: Instant,
}

/// What a sequence is run for.
#[derive(Debug)]
enum Purpose {
    Generate(Box<Answer>),
    Score(Box<Scoring>),
    Logits,
}

impl Purpose {
    fn scoring(&self) -> Option<&Scoring> {
        match self {
            Purpose::Score(scoring) => Some(scoring),
            Purpose::Generate(_) | Purpose::Logits => None,
        }
    }

    /// Nothing matters of its logits but which is the largest.
    fn wants_the_likeliest(&self) -> bool {
        matches!(self, Purpose::Generate(answer) if answer.wants_the_likeliest())
    }
}

/// What came out of one wanted row.
enum Outcome {
    Token(Box<Chosen>),
    /// No token: the model's end, or a grammar that can't go on.
    Over(FinishReason),
    LogLikelihood(f64),
    Logits(Vec<f32>),
}

/// A generated token, which its answer has taken.
struct Chosen {
    token: u32,
    text: String,
    offset: usize,
    logprobs: Option<Box<TokenLogprobs>>,
    /// It is the last one.
    over: Option<FinishReason>,
}

impl Engine {
    #[expect(clippy::too_many_arguments, reason = "called once, by `load`, with the parts it has made")]
    fn assemble(
        config: EngineConfig,
        info: EngineInfo,
        text: Arc<TextModel>,
        model: Decoder,
        cpu: Cpu,
        kv: Pool,
        scheduler: Scheduler,
        file_bytes: usize,
        below: Option<TiersBelow>,
    ) -> Engine {
        let speculation = Speculator::new(config.speculation);
        Engine {
            config,
            info,
            text,
            model,
            cpu,
            kv,
            scheduler,
            purposes: BTreeMap::new(),
            rows: RowBuffers::default(),
            pending: Vec::new(),
            totals: Totals::default(),
            file_bytes,
            below,
            speculation,
            started: Instant::now(),
        }
    }

    pub fn info(&self) -> &EngineInfo {
        &self.info
    }

    /// The tokenizer and the chat template; usable from any thread while the engine computes.
    pub fn text(&self) -> Arc<TextModel> {
        Arc::clone(&self.text)
    }

    /// Gives the calling thread the priority and the core of compute thread 0. Call it once on the thread
    /// that will call `step`.
    pub fn enter_thread(&self) {
        load::settle(&self.config, 0);
    }

    /// Nothing runs, waits or is left to be told.
    pub fn is_idle(&self) -> bool {
        self.scheduler.is_idle() && self.pending.is_empty()
    }

    /// Puts a request in line.
    pub fn submit(&mut self, request: Request) -> Result<SequenceId, SubmitError> {
        check_generation(request.max_new, &request.sampling, &request.stop)?;
        if request.logprobs.is_some_and(|top| top > LOGPROBS_MAX) {
            return Err(SubmitError::Request("at most 20 log-probabilities a token are told; ask for fewer"));
        }
        let answer =
            Answer::new(request.sampling, request.stop, request.ignore_eos).at_least(request.min_new);
        let answer = answer.in_the_form_of(request.grammar).with_logprobs(request.logprobs);
        let logits_from = request.tokens.len().saturating_sub(1);
        let Request { tokens, scope, max_new, class, .. } = request;
        let work = Work { max_new, logits_from, class, ..self.work(tokens, scope) };
        self.submit_work(work, Purpose::Generate(Box::new(answer)))
    }

    /// Asks for the logits after the last token; answered by [`Event::Logits`].
    pub fn submit_logits(
        &mut self,
        scope: Scope,
        tokens: Vec<u32>,
        class: u8,
    ) -> Result<SequenceId, SubmitError> {
        let logits_from = tokens.len().saturating_sub(1);
        self.submit_work(Work { logits_from, class, ..self.work(tokens, scope) }, Purpose::Logits)
    }

    /// Starts a sequence over the beginning of another, at the cost of at most one copied block. It starts
    /// at once or is refused; its events are its own.
    pub fn fork(&mut self, parent: SequenceId, request: ForkRequest) -> Result<SequenceId, SubmitError> {
        check_generation(request.max_new, &request.sampling, &request.stop)?;
        self.check_tokens(&request.append)?;
        let ForkRequest { keep, append, max_new, class, .. } = request;
        let fork = Fork { keep, append, max_new, class };
        let id =
            self.scheduler.fork(parent, fork, &mut Lower { kv: &mut self.kv, below: self.below.as_mut() })?;
        let answer = Answer::new(request.sampling, request.stop, request.ignore_eos);
        self.purposes.insert(id, Purpose::Generate(Box::new(answer)));
        Ok(id)
    }

    /// Ends a sequence now: its blocks are free when this returns, its last event comes with the next step.
    /// False when it is unknown or has ended.
    pub fn cancel(&mut self, id: SequenceId) -> bool {
        if !self.purposes.contains_key(&id) {
            return false;
        }
        let event = self.finish(id, FinishReason::Cancelled);
        self.pending.push(event);
        true
    }

    /// Forgets every cached prefix that nobody uses, and the answers that guesses are made from.
    pub fn clear_cache(&mut self) {
        self.scheduler.clear_cache();
        self.speculation.clear();
    }

    /// Runs one batch and tells what came of it.
    pub fn step(&mut self) -> Vec<Event> {
        let mut batch = self.schedule();
        self.guess(&mut batch);
        let outcomes = self.run(&batch);
        self.commit(&batch, outcomes)
    }

    /// Writes sealed blocks to the disk tier, as far as its bandwidth goes. True when some are left: whoever has
    /// nothing else to do calls it again a little later.
    pub fn write_behind(&mut self) -> bool {
        let now_us = self.started.elapsed().as_micros() as u64;
        let Some(below) = &mut self.below else { return false };
        let (kv, scheduler) = (&self.kv, &self.scheduler);
        below.tiers.pump(now_us, |key| scheduler.block_of(key).map(|block| kv.block(block.0)));
        below.tiers.wanted() > 0
    }

    /// Waits until everything that is to be written to the disk tier is there.
    pub fn flush(&mut self) {
        while self.write_behind() {
            std::thread::sleep(FETCH_WAIT);
        }
        if let Some(below) = &mut self.below {
            below.tiers.flush();
        }
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Hands events back that were taken by somebody who waited for another sequence's.
    pub(crate) fn keep_events(&mut self, events: Vec<Event>) {
        self.pending.splice(0..0, events);
    }

    fn schedule(&mut self) -> Batch {
        self.scheduler.set_time(self.now_ms());
        if let Some(below) = &mut self.below {
            below.tiers.poll();
        }
        let batch = self.scheduler.plan(&mut Lower { kv: &mut self.kv, below: self.below.as_mut() });
        if let Some(below) = &mut self.below {
            below.settle();
            if batch.is_empty() && !self.scheduler.is_idle() {
                below.tiers.wait(FETCH_WAIT);
            }
        }
        batch
    }

    /// Work that wants nothing but its tokens run.
    fn work(&self, tokens: Vec<u32>, scope: Scope) -> Work {
        Work {
            tokens,
            scope,
            max_new: 0,
            logits_from: 0,
            class: 0,
            tree: TreeId::ALONE,
            private_from: usize::MAX,
        }
    }

    fn run(&mut self, batch: &Batch) -> Vec<(Asked, Outcome)> {
        let mut outcomes: Vec<(Asked, Outcome)> = Vec::new();
        if batch.is_empty() {
            return outcomes;
        }
        // One block behind those that the scheduler knows; see `RowBuffers::fill`.
        let sink = self.info.kv_blocks as u32;
        let purposes = &self.purposes;
        self.rows.fill(batch, &self.scheduler, sink, &|id| purposes.get(&id).and_then(Purpose::scoring));
        let start = Instant::now();
        let likeliest =
            self.rows.asking().all(|id| purposes.get(&id).is_some_and(Purpose::wants_the_likeliest));
        let Engine { rows, model, cpu, kv, purposes, text, .. } = self;
        let masses = rows.run(model, cpu, kv, likeliest, &mut |asked, logits| {
            if speculate::has_come(asked, outcomes.last()) {
                let purpose = purposes.get_mut(&asked.id).expect("every planned sequence has a purpose");
                outcomes.push((*asked, deliver::read(cpu, purpose, asked.position, logits, &text.tokenizer)));
            }
        });
        for (id, mass) in masses {
            if let Some(Purpose::Score(scoring)) = purposes.get_mut(&id) {
                scoring.add_mass(&mass);
            }
        }
        let spent = start.elapsed();
        if let Some(below) = &mut self.below {
            below.learn(batch.rows(), spent);
        }
        if self.rows.all_are_asked() {
            self.speculation.learn(batch, spent);
        }
        outcomes
    }

    fn commit(&mut self, batch: &Batch, outcomes: Vec<(Asked, Outcome)>) -> Vec<Event> {
        self.scheduler.commit(batch, &mut Lower { kv: &mut self.kv, below: self.below.as_mut() });
        self.write_behind();
        self.totals.steps += u64::from(!batch.is_empty());
        let mut events = std::mem::take(&mut self.pending);
        self.speculation.judge(batch, &outcomes);
        for (asked, outcome) in outcomes {
            self.count_guess(&asked);
            self.deliver(asked.id, outcome, &mut events);
        }
        let guessed = batch.chunks.iter().filter(|chunk| !chunk.guessed.is_empty());
        guessed.for_each(|chunk| self.scheduler.take_back(chunk.id));
        events
    }

    fn submit_work(&mut self, work: Work, purpose: Purpose) -> Result<SequenceId, SubmitError> {
        self.check_tokens(&work.tokens)?;
        if work.tokens.is_empty() {
            return Err(SubmitError::Empty);
        }
        self.scheduler.set_time(self.now_ms());
        let id = self.scheduler.submit(work)?;
        self.purposes.insert(id, purpose);
        Ok(id)
    }

    fn check_tokens(&self, tokens: &[u32]) -> Result<(), SubmitError> {
        let vocabulary = self.info.vocab;
        match tokens.iter().find(|&&token| token as usize >= vocabulary) {
            Some(&token) => Err(SubmitError::Token { token, vocabulary }),
            None => Ok(()),
        }
    }
}

fn check_generation(max_new: usize, sampling: &Sampling, stop: &[String]) -> Result<(), SubmitError> {
    if max_new == 0 {
        return Err(SubmitError::NothingToGenerate);
    }
    if stop.len() > STOPS_MAX || stop.iter().any(|stop| stop.len() > STOP_BYTES_MAX) {
        return Err(SubmitError::Request(
            "at most 16 stop strings of at most 1024 bytes are possible; send fewer",
        ));
    }
    sampling.check().map_err(SubmitError::Sampling)
}

#[cfg(test)]
#[path = "engine/engine_test.rs"]
mod engine_test;

#[cfg(test)]
#[path = "engine/answer_test.rs"]
mod answer_test;
#[cfg(test)]
#[path = "engine/speculate_test.rs"]
mod speculate_test;

#[cfg(test)]
#[path = "engine/score_test.rs"]
mod score_test;
