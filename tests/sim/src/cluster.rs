//! The replicated log as the ledger sees it: entries that are committed, entries of a leader that may not be, and
//! replicas that follow at their own pace or start again from a snapshot.

use crate::counts::Kind;
use crate::net::Peer;
use crate::plan::Plant;
use crate::sim::Sim;
use ledger::command::{Command, RequestKey, Stamp};
use ledger::effect::Effect;
use ledger::reply::Reply;
use ledger::{Place, State, encode_entry};
use std::collections::{BTreeMap, BTreeSet};
use types::{Hash, TaskUid};

pub(crate) const COORDINATORS: usize = 3;

/// Who asked, to be answered when the entry is committed: a peer and its message, or the leader itself.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Asker {
    Peer(Peer, u64),
    Leader,
}

/// An entry that its leader has written and not committed.
#[derive(Clone)]
pub(crate) struct Pending {
    pub stamp: Stamp,
    pub commands: Vec<(Asker, Command)>,
    pub written_ms: u64,
    pub slow: bool,
}

impl Pending {
    /// Whether somebody outside waits for it.
    pub(crate) fn is_awaited(&self) -> bool {
        self.commands.iter().any(|(asker, _)| matches!(asker, Asker::Peer(..)))
    }
}

pub(crate) struct Cluster {
    /// Committed entries with their log indexes.
    pub log: Vec<(u64, Vec<u8>)>,
    /// The state after the whole committed log: what the leader acts on.
    pub truth: State,
    /// The truth's hash after each index.
    hashes: BTreeMap<u64, Hash>,
    /// Replicas that only follow: their state and how many entries they have applied.
    pub followers: Vec<(State, usize)>,
    /// Tasks that got events, for each entry of the log.
    touched: Vec<BTreeSet<TaskUid>>,
    pub last_index: u64,
    pub commands: u64,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        Cluster {
            log: vec![],
            truth: State::new(),
            hashes: BTreeMap::new(),
            followers: vec![(State::new(), 0); COORDINATORS - 1],
            touched: vec![],
            last_index: 0,
            commands: 0,
        }
    }
}

/// What an entry did.
pub(crate) struct Done {
    pub replies: Vec<Reply>,
    pub effects: Vec<Effect>,
    /// Whether the state differs from before, clocks aside.
    pub changed: bool,
}

impl Sim {
    /// Commits one entry: from here on it is there for good.
    pub(crate) fn commit(&mut self, pending: &Pending) -> Done {
        self.cluster.last_index += 1;
        let index = self.cluster.last_index;
        let commands: Vec<Command> = pending.commands.iter().map(|(_, command)| command.clone()).collect();
        self.cluster.log.push((index, encode_entry(pending.stamp, &commands)));
        let mut done = Done { replies: vec![], effects: vec![], changed: false };
        for (position, command) in (0u32..).zip(&commands) {
            let before = self.before(command);
            let applied = self.cluster.truth.apply(Place { index, position }, pending.stamp, command);
            self.cluster.commands += 1;
            self.trace_command(index, command, &applied.reply);
            self.applied(command, &before, &applied.reply, &applied.effects, pending.written_ms);
            done.changed |= !applied.effects.is_empty();
            done.replies.push(applied.reply);
            done.effects.extend(applied.effects);
        }
        self.cluster.hashes.insert(index, self.cluster.truth.state_hash());
        let with_events = done.effects.iter().filter_map(|effect| match effect {
            Effect::Event { task, .. } => Some(*task),
            _ => None,
        });
        self.cluster.touched.push(with_events.collect());
        self.check_clock();
        if index.is_multiple_of(self.size.check_every) {
            self.check_truth();
        }
        done
    }

    fn trace_command(&mut self, index: u64, command: &Command, reply: &Reply) {
        let asked = format!("{command:?}");
        let answered = format!("{reply:?}");
        let cut = |text: &str| text.chars().take(160).collect::<String>();
        self.trace(&format!("{index} {} -> {}", cut(&asked), cut(&answered)));
    }

    /// Replicas apply some of what they have not applied yet, and must agree with the truth of that index.
    pub(crate) fn follow(&mut self, follower: usize, most: usize) {
        let (state, applied) = &mut self.cluster.followers[follower];
        let until = (*applied + most).min(self.cluster.log.len());
        let mut broken = None;
        for (index, entry) in &self.cluster.log[*applied..until] {
            if let Err(halt) = state.apply_entry(*index, entry) {
                broken = Some(format!("follower {follower} halted: {halt}"));
            } else if self.cluster.hashes.get(index) != Some(&state.state_hash()) {
                broken = Some(format!("follower {follower} differs from the leader at index {index}"));
            }
        }
        let from = std::mem::replace(applied, until);
        if let Some(broken) = broken {
            self.broken(broken);
        }
        self.watch_between(follower, from, until);
    }

    fn watch_between(&mut self, follower: usize, from: usize, until: usize) {
        let tasks = self.cluster.touched[from..until].iter().flatten().copied().collect();
        self.watch_events(follower, &tasks);
    }

    /// A replica lost its state and starts from a snapshot of another; the tail of the log brings it up.
    pub(crate) fn restore_follower(&mut self, follower: usize) {
        let other = (follower + 1) % self.cluster.followers.len();
        let stood = self.cluster.followers[follower].1;
        let (state, applied) = &self.cluster.followers[other];
        self.counts.count(Kind::FollowerRestored, stood != *applied);
        match State::restore(&state.snapshot()) {
            Ok(restored) => {
                let applied = *applied;
                self.cluster.followers[follower] = (restored, applied);
                self.watch_between(follower, stood.min(applied), applied);
            }
            Err(halt) => self.broken(format!("a snapshot cannot be restored: {halt}")),
        }
        if self.plant == Some(Plant::ForgetRequests) {
            self.forget_requests();
        }
    }

    /// What becomes of entries that a failed leader had not committed: a prefix is with enough others and will be
    /// committed by the next leader, the rest never happened. Nobody is answered either way.
    pub(crate) fn cut_pending(&mut self, pending: Vec<Pending>, most: usize) {
        let cut = self.rng.below(most.min(pending.len()) + 1);
        for (n, entry) in pending.iter().enumerate() {
            let kind = if n < cut { Kind::EntriesSurvived } else { Kind::EntriesDiscarded };
            self.counts.count(kind, entry.is_awaited());
        }
        self.survivors = pending.into_iter().take(cut).collect();
        if self.plant == Some(Plant::LoseAcked) {
            self.lose_acknowledged();
        }
    }

    /// The planted mistake: the newest entries were acknowledged while only the leader had them.
    fn lose_acknowledged(&mut self) {
        let held = self.cluster.followers.iter().map(|(_, applied)| *applied).max().unwrap_or(0);
        let Some(kept) = self.cluster.log.len().checked_sub(4).map(|kept| kept.max(held)) else { return };
        self.cluster.log.truncate(kept);
        self.cluster.touched.truncate(kept);
        self.cluster.truth = self.replayed(|command| command);
    }

    /// The planted mistake: every replica starts from a snapshot in which no request is remembered.
    fn forget_requests(&mut self) {
        let all = self.cluster.log.len();
        self.cluster.truth = self.replayed(without_request);
        let index = self.cluster.last_index;
        self.cluster.hashes.insert(index, self.cluster.truth.state_hash());
        let copy = self.cluster.truth.clone();
        self.cluster.followers.iter_mut().for_each(|follower| *follower = (copy.clone(), all));
    }

    fn replayed(&self, change: impl Fn(Command) -> Command) -> State {
        let mut state = State::new();
        for (index, entry) in &self.cluster.log {
            let entry: ledger::command::Entry = types::decode(entry).expect("it was encoded here");
            let commands: Vec<Command> = entry.commands.into_iter().map(&change).collect();
            state.apply_entry(*index, &encode_entry(entry.stamp, &commands)).expect("it was applied before");
        }
        state
    }
}

fn without_request(mut command: Command) -> Command {
    if let Command::PauseTask { request, .. }
    | Command::ResumeTask { request, .. }
    | Command::CancelTask { request, .. }
    | Command::SetQuota { request, .. } = &mut command
    {
        *request = RequestKey { request_id: String::new(), ..request.clone() };
    }
    command
}
