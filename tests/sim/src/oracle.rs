//! What is watched during a run, and what must be true at its end:
//!
//! - acknowledged is durable: tasks, steps, cancels;
//! - each step is committed once, by the holder of the lease in force, and each model call is billed once;
//! - a task is not run by two workers at the same time, as far as both may know;
//! - after CANCELLED or EXPIRED nothing of the task starts;
//! - a node is given up only after its lease, and no lease outlives its node by more than the rules say;
//! - a request that is repeated has no second effect;
//! - the ledger's own invariants, use never rises above a limit anywhere in the tree, and no rate is minted;
//! - replicas agree at every index, and every watcher sees the same events without a gap;
//! - in the end every task is final, every journal resolves, and the budget holds exactly what was billed.

use crate::agent::Phase;
use crate::counts::Kind;
use crate::moves::Moves;
use crate::people::request_of;
use crate::rates::Rates;
use crate::sim::Sim;
use ledger::command::{Command, RequestKey};
use ledger::effect::Effect;
use ledger::invariants::Watch;
use ledger::reply::{Refusal, Reply};
use ledger::rows::{Event, EventKind, QuotaRow, TaskRow};
use std::collections::{BTreeMap, BTreeSet};
use types::{Epoch, Hash, NodeId, TaskState, TaskUid};

#[derive(Default)]
pub(crate) struct Oracle {
    watch: Watch,
    rates: Rates,
    pub moves: Moves,
    tasks: BTreeMap<(String, String), TaskUid>,
    cancelled: BTreeSet<TaskUid>,
    /// Who offered a record, under which lease, and the call behind it.
    offers: BTreeMap<Hash, Offer>,
    committed: BTreeMap<(TaskUid, u64), Hash>,
    acknowledged: BTreeSet<(TaskUid, u64)>,
    billed_calls: BTreeSet<u64>,
    billed_tokens: u64,
    /// Requests that were done, with their bodies and the task they were about.
    done: BTreeMap<(String, String), (Hash, Option<TaskUid>)>,
    /// Leases that a pause took away: their holders may overlap with the next ones for a moment.
    revoked: BTreeSet<Epoch>,
    seen: BTreeMap<(TaskUid, u64), Event>,
    cursors: BTreeMap<(usize, TaskUid), u64>,
}

struct Offer {
    node: NodeId,
    epoch: Epoch,
    call: Option<u64>,
}

/// What a command is about, as it was before.
#[derive(Default)]
pub(crate) struct Before {
    pub task: Option<Box<TaskRow>>,
    pub quota: Option<QuotaRow>,
    pub queued: usize,
}

impl Before {
    pub(crate) fn etag(&self) -> Option<u64> {
        self.quota.as_ref().map(|row| row.etag)
    }
}

impl Oracle {
    pub(crate) fn offered(&mut self, head: Hash, node: NodeId, epoch: Epoch, call: Option<u64>) {
        self.offers.entry(head).or_insert(Offer { node, epoch, call });
    }

    pub(crate) fn acknowledged(&mut self, uid: TaskUid, step: u64) {
        self.acknowledged.insert((uid, step));
    }

    pub(crate) fn acknowledged_task(&mut self, request: &RequestKey, uid: TaskUid) {
        self.tasks.insert((request.author.clone(), request.request_id.clone()), uid);
    }

    pub(crate) fn acknowledged_cancel(&mut self, uid: TaskUid) {
        self.cancelled.insert(uid);
    }

    pub(crate) fn steps(&self) -> usize {
        self.committed.len()
    }

    fn committed(&mut self, before: &TaskRow, command: &Command) -> Result<(), String> {
        let Command::CommitStep { task, step, head, billed_tokens, .. } = command else { return Ok(()) };
        if before.step >= *step {
            return Ok(());
        }
        if self.committed.insert((*task, *step), *head).is_some() {
            return Err(format!("{task} committed step {step} twice"));
        }
        self.billed_tokens += billed_tokens;
        let Some(offer) = self.offers.get(head) else {
            return Err(format!("nobody offered step {step} of {task}"));
        };
        if before.epoch != Some(offer.epoch) || before.node != Some(offer.node) {
            return Err(format!(
                "{task} took step {step} from {} under the stale lease {}",
                offer.node, offer.epoch
            ));
        }
        match offer.call {
            Some(call) if !self.billed_calls.insert(call) => Err(format!("{task} billed call {call} twice")),
            Some(_) | None => Ok(()),
        }
    }
}

impl Sim {
    pub(crate) fn before(&self, command: &Command) -> Before {
        let truth = &self.cluster.truth;
        let task = match command {
            Command::CommitStep { task, .. }
            | Command::CancelTask { task, .. }
            | Command::PauseTask { task, .. }
            | Command::ResumeTask { task, .. } => truth.task(*task).cloned().map(Box::new),
            _ => None,
        };
        let quota = match command {
            Command::SetQuota { path, .. } => truth.quota(path),
            _ => None,
        };
        Before { task, quota, queued: truth.queue_len() }
    }

    /// Looks at every command that was applied.
    pub(crate) fn applied(
        &mut self,
        command: &Command,
        before: &Before,
        reply: &Reply,
        effects: &[Effect],
        written_ms: u64,
    ) {
        let watched = [
            match (&before.task, reply) {
                (Some(before), Reply::Done) => self.oracle.committed(before, command),
                _ => Ok(()),
            },
            self.repeated(command, before, reply),
            self.moved(effects),
            self.oracle.watch.check_use(&self.cluster.truth),
            self.no_rate_is_minted(written_ms),
            self.lost_is_lost(command),
        ];
        for broken in watched.into_iter().filter_map(Result::err) {
            self.broken(broken);
        }
        for effect in effects {
            if let Effect::Revoked { epoch, .. } = effect {
                self.oracle.revoked.insert(*epoch);
            }
        }
        self.count_command(command, before, reply, effects);
    }

    fn moved(&mut self, effects: &[Effect]) -> Result<(), String> {
        for effect in effects {
            if let Effect::Event { task, event } = effect
                && let EventKind::State { state, .. } = event.kind
            {
                self.oracle.moves.moved(*task, state)?;
            }
        }
        Ok(())
    }

    /// A node is given up only when it can't believe any more that it has its lease.
    fn lost_is_lost(&self, command: &Command) -> Result<(), String> {
        let Command::NodeLost { node } = command else { return Ok(()) };
        let Some(worker) = self.worker_of(*node).filter(|worker| self.workers[*worker].up) else {
            return Ok(());
        };
        let holds = !self.workers[worker].agents.is_empty() && self.lease_valid(worker);
        if holds { Err(format!("w{worker} is given up while its lease stands")) } else { Ok(()) }
    }

    fn no_rate_is_minted(&mut self, written_ms: u64) -> Result<(), String> {
        for path in ["cluster", "projects/a", "projects/a/b", "projects/c"] {
            if let Some(row) = self.cluster.truth.quota(path) {
                self.oracle.rates.check(&row, written_ms)?;
            }
        }
        Ok(())
    }

    /// A request that was done before: the same one changes nothing, another body is refused.
    fn repeated(&mut self, command: &Command, before: &Before, reply: &Reply) -> Result<(), String> {
        let Some(request) = request_of(command) else { return Ok(()) };
        let key = (request.author.clone(), request.request_id.clone());
        let task = if let Reply::Task(row) = reply { Some(row.uid) } else { None };
        let Some((body, about)) = self.oracle.done.get(&key) else {
            if !matches!(reply, Reply::Refused(_)) {
                self.oracle.done.insert(key, (request.body, task));
            }
            return Ok(());
        };
        if *body != request.body {
            let refused = matches!(reply, Reply::Refused(Refusal::RequestIdReused { .. }));
            self.counts.count(Kind::RequestRewritten, refused);
            return if refused {
                Ok(())
            } else {
                Err(format!("{key:?} was done with another body: {reply:?}"))
            };
        }
        let same_task = about.is_none() || *about == task;
        let after = self.before(command);
        let limits = |before: &Before| before.quota.as_ref().map(limits_of);
        let still = before.task == after.task && limits(before) == limits(&after);
        self.counts.count(Kind::RequestRepeated, still && same_task);
        match (still, same_task) {
            (false, _) => Err(format!("{key:?}, repeated, had a second effect: {reply:?}")),
            (true, false) => Err(format!("{key:?}, repeated, was answered otherwise: {reply:?}")),
            (true, true) => Ok(()),
        }
    }

    /// A worker starts a model call.
    pub(crate) fn started(&mut self, worker: usize, uid: TaskUid) {
        let state = self.cluster.truth.task(uid).map(|row| row.state);
        if matches!(state, None | Some(TaskState::Cancelled | TaskState::Expired)) {
            self.broken(format!("w{worker} starts something of {uid}, which is {state:?}"));
        }
        let mine = self.workers[worker].agents.get(&uid).map(|agent| agent.epoch);
        for other in (0..self.workers.len()).filter(|other| *other != worker) {
            let awake = self.workers[other].up && !self.workers[other].frozen;
            let Some(agent) = self.workers[other].agents.get(&uid).filter(|_| awake) else { continue };
            let calling = matches!(agent.phase, Phase::Calling(_)) && self.lease_valid(other);
            let revoked = |epoch: &Epoch| self.oracle.revoked.contains(epoch);
            if calling && !revoked(&agent.epoch) && !mine.as_ref().is_some_and(revoked) {
                self.broken(format!("{uid} runs on w{worker} and on w{other} at the same time"));
            }
        }
    }

    /// Followers are where people watch: a cursor for each replica and task, and no event may be missing or differ.
    pub(crate) fn watch_events(&mut self, follower: usize, tasks: &BTreeSet<TaskUid>) {
        let mut broken = None;
        let state = &self.cluster.followers[follower].0;
        for row in tasks.iter().filter_map(|uid| state.task(*uid)) {
            let cursor = self.oracle.cursors.entry((follower, row.uid)).or_insert(0);
            for event in state.events_from(row.uid, *cursor + 1) {
                let known =
                    self.oracle.seen.entry((row.uid, event.sequence)).or_insert_with(|| event.clone());
                if event.sequence != *cursor + 1 || *known != event {
                    broken =
                        Some(format!("{}: event {} after {cursor}, or another", row.uid, event.sequence));
                }
                *cursor = event.sequence;
            }
        }
        if let Some(broken) = broken {
            self.broken(broken);
        }
    }

    pub(crate) fn check_truth(&mut self) {
        if let Err(broken) = self.oracle.watch.check(&self.cluster.truth) {
            self.broken(broken);
        }
    }

    /// Everything that must be true when all tasks are final.
    pub(crate) fn check_end(&mut self) {
        self.check_truth();
        for follower in 0..self.cluster.followers.len() {
            self.follow(follower, usize::MAX / 2);
        }
        let ends = [self.end_is_right(), self.journals_resolve()];
        ends.into_iter().filter_map(Result::err).for_each(|broken| self.broken(broken));
    }

    fn journals_resolve(&self) -> Result<(), String> {
        for row in self.cluster.truth.tasks() {
            let journal = self.library.journal(&row.project, row.head);
            let records = journal.map_err(|broken| format!("{}: {broken}", row.uid))?.len() as u64;
            if records != row.step {
                return Err(format!("{} has {} steps and {records} records", row.uid, row.step));
            }
        }
        Ok(())
    }

    fn end_is_right(&self) -> Result<(), String> {
        let truth = &self.cluster.truth;
        for uid in self.oracle.tasks.values() {
            truth.task(*uid).ok_or(format!("{uid} was acknowledged and is gone"))?;
        }
        let distinct: BTreeSet<TaskUid> = self.oracle.tasks.values().copied().collect();
        if distinct.len() != self.oracle.tasks.len() {
            return Err("two requests were answered with the same task".into());
        }
        let asked = truth.tasks().filter(|row| row.origin.is_none()).count();
        if asked != self.oracle.tasks.len() {
            return Err(format!("{asked} root tasks of {} requests", self.oracle.tasks.len()));
        }
        for (uid, step) in &self.oracle.acknowledged {
            let reached = truth.task(*uid).map_or(0, |row| row.step);
            if reached < *step {
                return Err(format!("step {step} of {uid} was acknowledged and is gone, it is at {reached}"));
            }
        }
        for uid in &self.oracle.cancelled {
            let state = truth.task(*uid).map(|row| row.state);
            if !matches!(state, Some(TaskState::Cancelled | TaskState::Expired)) {
                return Err(format!("{uid} was CANCELLING and is {state:?}"));
            }
        }
        let settled = truth.quota("cluster").map_or(0, |row| row.tokens_settled);
        if settled != self.oracle.billed_tokens {
            return Err(format!("{settled} tokens settled, {} billed", self.oracle.billed_tokens));
        }
        Ok(())
    }
}

type Limits = (u64, Option<u64>, Option<u64>, Option<u64>);

/// What a change of a quota changes; the rest moves with time.
fn limits_of(row: &QuotaRow) -> Limits {
    (row.etag, row.running, row.tokens_minute, row.tokens_total)
}
