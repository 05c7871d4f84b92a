//! What a run is told, and what it tells.

use crate::counts::Counts;
use crate::moves::Move;
use std::collections::BTreeMap;

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
    /// All effects of an entry are dropped now and then, and leader and worker never exchange full sets: what was
    /// lost is lost for good.
    NoFullSets,
    /// A commit without a quorum: a new leader does not have what was acknowledged.
    LoseAcked,
    /// Pausing is forgotten by the worker: it says that it stopped and goes on.
    ConfirmEarly,
    /// The ledger's clock is the leader's wall clock: an hour forth mints an hour of rates.
    WallForLedger,
    /// A new leader's wall clock is believed before any node was heard.
    TrustWall,
    /// A leader that its quorum has left goes on to renew leases.
    AckWhileCut,
    /// A snapshot forgets the request ids.
    ForgetRequests,
}

impl Plant {
    /// Each, with words of which one must be in what the oracles say.
    pub const ALL: &[(Plant, &[&str])] = &[
        (Plant::AcceptStale, &["stale lease"]),
        (Plant::BillTwice, &["twice"]),
        (Plant::IgnoreLease, &["at the same time", "which is", "lease stands"]),
        (Plant::EarlyLost, &["at the same time", "which is", "lease stands"]),
        (Plant::NoFullSets, &["stuck", "at the same time", "which is"]),
        (
            Plant::LoseAcked,
            &[
                "is gone",
                "went back",
                "root tasks",
                "moved",
                "stale lease",
                "nobody offered",
                "twice",
                "went ",
                "second effect",
                "differs",
                "answered otherwise",
                "another body",
            ],
        ),
        (Plant::ConfirmEarly, &["at the same time", "which is", "lease stands"]),
        (Plant::WallForLedger, &["in the minute"]),
        (Plant::TrustWall, &["wall clock"]),
        (Plant::AckWhileCut, &["at the same time", "which is", "lease stands"]),
        (Plant::ForgetRequests, &["second effect", "answered otherwise", "another body"]),
    ];
}

/// How much happens in one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Virtual milliseconds of chaos.
    pub chaos_ms: u64,
    /// How long nothing may come forward once all is healed: many leases and failovers. However long the work
    /// itself takes.
    pub patience_ms: u64,
    /// The whole state is looked at after so many entries, which is slow; use, rates, moves and hashes always.
    pub check_every: u64,
}

impl Size {
    /// For every build: hundreds of commands a seed.
    pub const SHORT: Size = Size { chaos_ms: 15_000, patience_ms: 90_000, check_every: 64 };
    /// For the planted mistakes.
    pub const MIDDLE: Size = Size { chaos_ms: 60_000, patience_ms: 120_000, check_every: 128 };
    /// For `make sim`: thousands of commands a seed.
    pub const LONG: Size = Size { chaos_ms: 240_000, patience_ms: 240_000, check_every: 512 };
}

/// What a run gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub seed: u64,
    /// One line an event that mattered; equal for equal seeds.
    pub trace: String,
    /// The first promise that was broken; it ends the run.
    pub broken: Option<String>,
    pub counts: Counts,
    pub moves: BTreeMap<Move, u64>,
    /// Commands that the ledger applied.
    pub commands: u64,
    pub entries: u64,
    pub tasks: usize,
    pub steps: usize,
    /// Virtual milliseconds.
    pub ended_ms: u64,
}
