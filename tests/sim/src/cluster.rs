//! The replicated log as the ledger sees it: entries that are committed, entries of a leader that may not be, and
//! replicas that follow at their own pace or start again from a snapshot.

use crate::net::Peer;
use crate::plan::Plant;
use crate::sim::Sim;
use ledger::command::{Command, Stamp};
use ledger::effect::Effect;
use ledger::reply::Reply;
use ledger::{Place, State, encode_entry};
use std::collections::BTreeMap;
use types::Hash;

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
    pub last_index: u64,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        Cluster {
            log: vec![],
            truth: State::new(),
            hashes: BTreeMap::new(),
            followers: vec![(State::new(), 0); COORDINATORS - 1],
            last_index: 0,
        }
    }
}

impl Sim {
    /// Commits one entry: from here on it is there for good.
    pub(crate) fn commit(&mut self, pending: &Pending) -> (Vec<Reply>, Vec<Effect>) {
        self.cluster.last_index += 1;
        let index = self.cluster.last_index;
        let commands: Vec<Command> = pending.commands.iter().map(|(_, command)| command.clone()).collect();
        self.cluster.log.push((index, encode_entry(pending.stamp, &commands)));
        let (mut replies, mut effects) = (vec![], vec![]);
        for (position, command) in (0u32..).zip(&commands) {
            let before = self.before(command);
            let applied = self.cluster.truth.apply(Place { index, position }, pending.stamp, command);
            self.trace_command(index, command, &applied.reply);
            self.applied(command, &before, &applied.reply, &applied.effects);
            replies.push(applied.reply);
            effects.extend(applied.effects);
        }
        let hash = self.cluster.truth.state_hash();
        self.cluster.hashes.insert(index, hash);
        if index.is_multiple_of(32) {
            self.check_truth();
        }
        (replies, effects)
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
        *applied = until;
        if let Some(broken) = broken {
            self.broken(broken);
        }
        self.watch_events(follower);
    }

    /// A replica lost its state and starts from a snapshot of another; the tail of the log brings it up.
    pub(crate) fn restore_follower(&mut self, follower: usize) {
        let other = (follower + 1) % self.cluster.followers.len();
        let (state, applied) = &self.cluster.followers[other];
        match State::restore(&state.snapshot()) {
            Ok(restored) => self.cluster.followers[follower] = (restored, *applied),
            Err(halt) => self.broken(format!("a snapshot cannot be restored: {halt}")),
        }
        self.faults.follower_restores += 1;
    }

    /// What becomes of entries that a failed leader had not committed: a prefix is with enough others and will be
    /// committed by the next leader, the rest never happened. Nobody is answered either way.
    pub(crate) fn cut_pending(&mut self, pending: Vec<Pending>) {
        let cut = self.rng.below(pending.len() + 1);
        self.faults.entries_survived += cut as u64;
        self.faults.entries_truncated += (pending.len() - cut) as u64;
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
        let mut state = State::new();
        for (index, entry) in &self.cluster.log {
            state.apply_entry(*index, entry).expect("it was applied before");
        }
        self.cluster.truth = state;
    }
}
