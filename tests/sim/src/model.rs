//! The model and the gateway before it, short: what a call may use is set aside first, an answer has a length that its
//! task gives, and some calls fail.

use crate::agent::{Call, Phase};
use crate::counts::Kind;
use crate::sim::{Event, Sim};
use ledger::command::Command;
use mind::{ChildOutcome, Event as Happened, Finish};
use types::{Hash, Spent, TaskUid};

/// The most that one call asks for, so that longer answers take several steps.
const PER_CALL: u64 = 30;

impl Sim {
    /// A call that the mind asked for: at once, or after the wait of a repetition.
    pub(crate) fn call_later(
        &mut self,
        worker: usize,
        uid: TaskUid,
        nth: u32,
        max_tokens: u32,
        wait_ms: u64,
    ) {
        let prompt = 3 + uid.index % 5;
        let number = self.number();
        let call = Call { number, nth, max_tokens: u64::from(max_tokens), prompt, granted: 0 };
        if wait_ms == 0 {
            return self.reserve(worker, uid, call);
        }
        let boot = self.workers[worker].boot;
        self.after(wait_ms, Event::CallBegins { worker, boot, task: uid, call });
        if let Some(agent) = self.workers[worker].agents.get_mut(&uid) {
            agent.phase = Phase::Waiting(number);
        }
    }

    pub(crate) fn call_begins(&mut self, worker: usize, boot: u64, uid: TaskUid, call: Call) {
        let it = &self.workers[worker];
        let waits = |phase: &Phase| matches!(phase, Phase::Waiting(number) if *number == call.number);
        if it.boot == boot && it.agents.get(&uid).is_some_and(|agent| waits(&agent.phase)) {
            self.reserve(worker, uid, call);
        }
    }

    fn reserve(&mut self, worker: usize, uid: TaskUid, call: Call) {
        let Some(agent) = self.workers[worker].agents.get(&uid) else { return };
        let (task, node, epoch) = (uid, self.workers[worker].node, agent.epoch);
        let step = agent.mind.observe().step + 1;
        let (min_tokens, max_tokens) = (call.prompt + 1, call.prompt + call.max_tokens.clamp(1, PER_CALL));
        let command =
            Command::Reserve { task, epoch, node, step, min_tokens, max_tokens, want: None, route: None };
        self.ask(worker, uid, command, Some(call));
    }

    /// What a call gave. One that was cut short gave a third.
    pub(crate) fn generated(&mut self, worker: usize, uid: TaskUid, call: Call, whole: bool) -> Happened {
        if whole && self.chaos && self.rng.percent(if uid.index.is_multiple_of(7) { 60 } else { 4 }) {
            return self.model_failed(uid, call);
        }
        let Some(agent) = self.workers[worker].agents.get(&uid) else { return Happened::Fenced };
        let observed = agent.mind.observe();
        // Between 8 and 71 tokens, all in all.
        let length = 8 + uid.index.wrapping_mul(0x9e37_79b9) % 64;
        let left = length.saturating_sub(observed.generated_tokens).max(1);
        let room = (call.granted - call.prompt).min(call.max_tokens);
        let asked = if whole { left } else { left.div_ceil(3) };
        let tokens = asked.min(room);
        let finish = match tokens {
            tokens if tokens == left => Finish::Stop,
            tokens if tokens == call.max_tokens => Finish::Length,
            _ => Finish::Budget,
        };
        Happened::Generated {
            text: "x".repeat(tokens as usize),
            token_ids: (0..tokens as u32).collect(),
            tokenizer: Hash::of(b"tokenizer"),
            finish,
            spent: Spent { generated_tokens: tokens, prompt_tokens: call.prompt, ..Spent::default() },
            billed_tokens: call.prompt + tokens,
            chain_tokens: observed.chain_tokens + tokens,
            numerics: None,
            calls: None,
            route: None,
        }
    }

    fn model_failed(&mut self, uid: TaskUid, call: Call) -> Happened {
        let retriable = !uid.index.is_multiple_of(5);
        let last = !retriable || call.nth + 1 >= mind::CALLS_PER_STEP;
        self.counts.count(Kind::ModelFailed, last);
        Happened::ModelFailed { reason: "SCRIPTED".into(), message: "the script says so".into(), retriable }
    }

    /// How the children of a task stand, as a linearizable read says.
    pub(crate) fn outcomes(&self, uid: TaskUid) -> Vec<ChildOutcome> {
        let truth = &self.cluster.truth;
        let children = truth.task(uid).into_iter().flat_map(|row| &row.children);
        let outcome = |row: &ledger::rows::TaskRow| ChildOutcome {
            uid: row.uid,
            agent: row.agent.to_string(),
            state: row.state,
            result: row.result,
            result_bytes: row.result_bytes,
            result_name: String::new(),
            error: row.error.as_ref().map(|error| error.reason.clone()),
        };
        children.filter_map(|child| truth.task(*child)).map(outcome).collect()
    }
}
