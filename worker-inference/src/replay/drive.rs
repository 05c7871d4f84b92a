//! Calls through the real scheduler, on a clock that only its work moves.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use types::Hash;

use super::below::Shelves;
use super::seen::Seen;
use super::{ReplayError, Row, Waits};
use crate::blocks::{BLOCK_TOKENS, Blocks};
use crate::prefix::{Naming, Scope};
use crate::scheduler::{Batch, Limits, Scheduler};
use crate::sequence::{SequenceId, TreeId, Work};

/// What the engine's work takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Costs {
    /// Prompt rows a second.
    pub prefill_tokens_s: f64,
    /// Steps a second that generate; all sequences of a step generate at once.
    pub decode_steps_s: f64,
    /// Bytes a second from the tiers below into the pool.
    pub restore_bytes_s: f64,
    /// KV bytes of one block.
    pub block_bytes: u64,
}

impl Default for Costs {
    /// About SmolLM2-135M on two cores.
    fn default() -> Costs {
        Costs {
            prefill_tokens_s: 1_000.0,
            decode_steps_s: 100.0,
            restore_bytes_s: 1e9,
            block_bytes: 22 * 1024 * BLOCK_TOKENS as u64 + 8192,
        }
    }
}

impl Costs {
    /// Refuses what would stop the clock.
    pub(super) fn check(&self) -> Result<(), ReplayError> {
        let speeds = [self.prefill_tokens_s, self.decode_steps_s, self.restore_bytes_s];
        if speeds.iter().all(|speed| speed.is_finite() && *speed >= 1e-3) {
            return Ok(());
        }
        Err(ReplayError::Setting("speeds must be numbers of at least 0.001 a second".to_owned()))
    }

    /// µs that a step takes; at least one.
    fn step_us(&self, prompt_rows: usize, generates: bool, restored_blocks: u64) -> u64 {
        let prompt = prompt_rows as f64 / self.prefill_tokens_s;
        let decode = if generates { 1.0 / self.decode_steps_s } else { 0.0 };
        let restored = (restored_blocks * self.block_bytes) as f64 / self.restore_bytes_s;
        ((prompt + decode + restored) * 1e6).round().max(1.0) as u64
    }
}

/// What a call begins with.
#[derive(Debug, Clone)]
pub(super) enum Prompt {
    Given(Vec<u32>),
    /// So many tokens that no other call has.
    Unique(usize),
}

impl Prompt {
    fn tokens(&self, call: usize) -> Cow<'_, [u32]> {
        match self {
            Prompt::Given(tokens) => Cow::Borrowed(tokens),
            // The first block tells the call's number, so that nothing is shared.
            Prompt::Unique(len) => Cow::Owned(
                (0..*len)
                    .map(|place| if place % BLOCK_TOKENS == 0 { call as u32 } else { place as u32 })
                    .collect(),
            ),
        }
    }
}

/// What the model says.
#[derive(Debug, Clone)]
pub(super) enum Answer {
    Given(Vec<u32>),
    /// So many tokens, whichever.
    Any(usize),
}

impl Answer {
    pub(super) fn len(&self) -> usize {
        match self {
            Answer::Given(tokens) => tokens.len(),
            Answer::Any(len) => *len,
        }
    }

    fn token(&self, place: usize) -> Option<u32> {
        match self {
            Answer::Given(tokens) => tokens.get(place).copied(),
            Answer::Any(len) => (place < *len).then_some(0),
        }
    }
}

/// One call to the model.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) prompt: Prompt,
    pub(super) answer: Answer,
    /// The session's next call, and how many µs after this one's end it comes.
    pub(super) then: Option<(u64, usize)>,
    /// How many µs after the end of the one before it came.
    pub(super) paused_us: Option<u64>,
}

/// How it is run.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    pub(super) limits: Limits,
    pub(super) costs: Costs,
    /// Blocks of the tiers below the pool.
    pub(super) host_blocks: usize,
    pub(super) disk_blocks: usize,
    /// Tell the policy what a runtime knows: this session comes back after its tool, that one is over.
    pub(super) hints: bool,
}

/// The scope of all replayed calls.
pub(super) const SCOPE: Scope = [0; 32];

pub(super) fn naming() -> Naming {
    Naming::new(Hash([0; 32]))
}

/// Calls whose tokens are in memory before they run; later ones wait outside, in the same order.
pub(super) const WAITING_MAX: usize = 256;

/// Of 1000 pauses, how many end within the time that a session is kept for.
const RETURN_PERMILLE: u16 = 900;
/// That time, while few pauses have been seen, ms.
const RETURN_MS: u64 = 10_000;
const PAUSES_MIN: usize = 20;

struct Live {
    call: usize,
    due_us: u64,
    started: bool,
}

/// A run in progress.
pub(super) struct Drive<'a> {
    calls: &'a [Call],
    setup: Setup,
    scheduler: Scheduler,
    below: Shelves,
    seen: Seen,
    due: BTreeSet<(u64, usize)>,
    live: BTreeMap<SequenceId, Live>,
    now_us: u64,
    restored: u64,
    prompt_tokens: u64,
    computed: u64,
    new: u64,
    waits_ms: Vec<u64>,
    /// How long pauses took that are over, ascending.
    pauses_ms: Vec<u64>,
}

impl<'a> Drive<'a> {
    /// `due`: when calls that follow no other one arrive, µs.
    pub(super) fn new(
        calls: &'a [Call],
        due: BTreeSet<(u64, usize)>,
        setup: Setup,
        pool: Blocks,
    ) -> Drive<'a> {
        Drive {
            calls,
            scheduler: Scheduler::over(setup.limits, naming(), pool),
            below: Shelves::new(setup.host_blocks, setup.disk_blocks),
            seen: Seen::default(),
            now_us: due.first().map_or(0, |(at, _)| *at),
            due,
            live: BTreeMap::new(),
            restored: 0,
            prompt_tokens: 0,
            computed: 0,
            new: 0,
            waits_ms: Vec::new(),
            pauses_ms: Vec::new(),
            setup,
        }
    }

    /// Runs everything.
    pub(super) fn run(mut self, policy: &str) -> Result<Row, ReplayError> {
        let begun_us = self.now_us;
        loop {
            self.submit_due()?;
            if self.scheduler.is_idle() {
                let Some(&(next, _)) = self.due.first() else { break };
                self.now_us = self.now_us.max(next);
                continue;
            }
            self.step()?;
        }
        Ok(self.row(policy, begun_us))
    }

    fn submit_due(&mut self) -> Result<(), ReplayError> {
        while self.scheduler.waiting() < WAITING_MAX
            && let Some(&(due_us, number)) = self.due.first().filter(|(due_us, _)| *due_us <= self.now_us)
        {
            self.due.pop_first();
            let call = &self.calls[number];
            let prompt = call.prompt.tokens(number);
            let known = match call.prompt {
                Prompt::Given(_) => self.seen.show(&naming(), &SCOPE, &prompt),
                Prompt::Unique(_) => 0,
            };
            self.prompt_tokens += prompt.len() as u64;
            self.new += (prompt.len() - known) as u64;
            let id =
                self.scheduler.submit(work(prompt.into_owned(), call.answer.len())).map_err(|cause| {
                    ReplayError::Refused { line: format!("call {}", number + 1), why: cause.to_string() }
                })?;
            self.live.insert(id, Live { call: number, due_us, started: false });
            if let Some(paused_us) = call.paused_us {
                self.end_pause(paused_us / 1000);
            }
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), ReplayError> {
        self.scheduler.set_time(self.now_us / 1000);
        let batch = self.scheduler.plan(&mut self.below);
        if batch.is_empty() {
            let why = "nothing can run although calls wait; this is a mistake in the replay".to_owned();
            return Err(ReplayError::Setting(why));
        }
        self.count_rows(&batch);
        self.scheduler.commit(&batch, &mut self.below);
        for chunk in &batch.chunks {
            self.advance(chunk.id);
        }
        Ok(())
    }

    /// Moves the clock by what the batch takes.
    fn count_rows(&mut self, batch: &Batch) {
        let (mut prompt_rows, mut generates) = (0, false);
        for chunk in &batch.chunks {
            let prompt = self.scheduler.sequence(chunk.id).map_or(0, |sequence| sequence.prompt());
            let rows = chunk.rows.end.min(prompt).saturating_sub(chunk.rows.start);
            prompt_rows += rows;
            generates |= chunk.rows.end > prompt;
            if let Some(live) = self.live.get_mut(&chunk.id).filter(|live| !live.started) {
                live.started = true;
                self.waits_ms.push(self.now_us.saturating_sub(live.due_us) / 1000);
            }
        }
        self.computed += prompt_rows as u64;
        let restored = self.below.restored_blocks - self.restored;
        self.restored = self.below.restored_blocks;
        let step_us = self.setup.costs.step_us(prompt_rows, generates, restored);
        self.now_us = self.now_us.saturating_add(step_us);
    }

    /// The next token of the recorded answer, if all rows before it ran.
    fn advance(&mut self, id: SequenceId) {
        let Some(sequence) = self.scheduler.sequence(id) else { return };
        if sequence.pending() > 0 {
            return;
        }
        let answer = &self.calls[self.live[&id].call].answer;
        let goes_on = match answer.token(sequence.generated().len()) {
            Some(token) => self.scheduler.append(id, token),
            None => false,
        };
        if !goes_on {
            self.end(id);
        }
    }

    fn end(&mut self, id: SequenceId) {
        let (Some(live), Some(sequence)) = (self.live.remove(&id), self.scheduler.remove(id)) else { return };
        let call = &self.calls[live.call];
        if matches!(call.prompt, Prompt::Given(_)) {
            self.seen.show(&naming(), &SCOPE, sequence.tokens());
        }
        if self.setup.hints {
            self.hint(sequence.tokens(), call.then.is_some());
        }
        if let Some((gap_us, next)) = call.then {
            self.due.insert((self.now_us.saturating_add(gap_us), next));
        }
    }

    fn hint(&mut self, tokens: &[u32], goes_on: bool) {
        let now_ms = self.now_us / 1000;
        self.scheduler.set_time(now_ms);
        if goes_on {
            self.scheduler.retain(&SCOPE, tokens, now_ms + self.pause_ms(), RETURN_PERMILLE);
        } else {
            self.scheduler.drop_chain(&SCOPE, tokens, 0, true);
        }
    }

    /// How long a pause takes at most, in nine cases of ten so far.
    fn pause_ms(&self) -> u64 {
        let seen = self.pauses_ms.len();
        if seen < PAUSES_MIN { RETURN_MS } else { self.pauses_ms[seen * usize::from(RETURN_PERMILLE) / 1000] }
    }

    fn end_pause(&mut self, pause_ms: u64) {
        let place = self.pauses_ms.partition_point(|other| *other < pause_ms);
        self.pauses_ms.insert(place, pause_ms);
    }

    fn row(self, policy: &str, begun_us: u64) -> Row {
        let has_tiers = self.setup.host_blocks + self.setup.disk_blocks > 0;
        let found = self.prompt_tokens.saturating_sub(self.computed);
        let mut row = Row {
            policy: policy.to_owned(),
            blocks: self.scheduler.blocks().total(),
            tiers: if has_tiers { "host+disk" } else { "none" },
            requests: self.waits_ms.len(),
            hit: found as f64 / (self.prompt_tokens as f64).max(1.0),
            restored_bytes: self.below.restored_blocks * self.setup.costs.block_bytes,
            waits: Some(Waits::of(self.waits_ms)),
            makespan_ms: Some((self.now_us - begun_us) / 1000),
            ..Row::default()
        };
        row.set_tokens(self.computed, self.new);
        row.count_evictions(self.scheduler.blocks().evictions());
        row
    }
}

fn work(tokens: Vec<u32>, max_new: usize) -> Work {
    let logits_from = tokens.len().saturating_sub(1);
    Work {
        tokens,
        scope: SCOPE,
        max_new,
        logits_from,
        class: 1,
        tree: TreeId::ALONE,
        private_from: usize::MAX,
    }
}
