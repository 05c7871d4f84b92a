//! What a run is told, and what it tells.

/// A known mistake in the simulator's copy of a shell. The oracles must find each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// The leader helpfully puts the epoch in force into a commit that came with a stale one.
    AcceptStale,
    /// A worker that did not hear the answer to a commit bills the same call once more.
    BillTwice,
    /// A worker goes on when its node's lease is over.
    IgnoreLease,
    /// The leader gives a node up before its lease can be over.
    EarlyLost,
    /// Leader and worker never exchange full sets, so a lost wake-up is lost for good.
    NoFullSets,
    /// A commit without a quorum: a new leader does not have what was acknowledged.
    LoseAcked,
    /// Pausing is forgotten by the worker: it says that it stopped and goes on.
    ConfirmEarly,
}

/// How often each fault was really done. A run that tested nothing shows zeros.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    pub leader_failures: u64,
    pub entries_truncated: u64,
    pub entries_survived: u64,
    pub effects_dropped: u64,
    pub freezes: u64,
    pub worker_crashes: u64,
    pub partitions: u64,
    pub follower_restores: u64,
    pub messages_lost: u64,
    pub messages_doubled: u64,
    pub asked_again: u64,
    pub nodes_lost: u64,
    pub fenced: u64,
    pub budget_pauses: u64,
    pub user_pauses: u64,
    pub cancels: u64,
    pub lease_ends: u64,
}

impl Faults {
    pub fn plus(&mut self, other: &Faults) {
        for ((_, mine), (_, theirs)) in self.fields().into_iter().zip(other.clone().fields()) {
            *mine += *theirs;
        }
    }

    /// Names and counts, in a fixed order.
    pub fn fields(&mut self) -> [(&'static str, &mut u64); 17] {
        [
            ("leader failures", &mut self.leader_failures),
            ("entries truncated", &mut self.entries_truncated),
            ("entries survived", &mut self.entries_survived),
            ("effects dropped", &mut self.effects_dropped),
            ("freezes", &mut self.freezes),
            ("worker crashes", &mut self.worker_crashes),
            ("partitions", &mut self.partitions),
            ("follower restores", &mut self.follower_restores),
            ("messages lost", &mut self.messages_lost),
            ("messages doubled", &mut self.messages_doubled),
            ("asked again", &mut self.asked_again),
            ("nodes lost", &mut self.nodes_lost),
            ("fenced", &mut self.fenced),
            ("budget pauses", &mut self.budget_pauses),
            ("user pauses", &mut self.user_pauses),
            ("cancels", &mut self.cancels),
            ("lease ends", &mut self.lease_ends),
        ]
    }
}

/// What a run gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub seed: u64,
    /// One line an event that mattered; equal for equal seeds.
    pub trace: String,
    /// Promises that were broken; the first ends the run.
    pub broken: Option<String>,
    pub faults: Faults,
    pub tasks: usize,
    pub steps: usize,
    /// Virtual milliseconds.
    pub ended_ms: u64,
}
