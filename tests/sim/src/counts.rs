//! What was done to the cluster, and what came of it. A fault that changed nothing proves nothing, so each kind is
//! counted twice: how often it was done, and how often it was effective, in the sense written beside it.

use std::collections::BTreeMap;

macro_rules! kinds {
    ($($kind:ident, $name:literal, $effective:literal;)*) => {
        /// A kind of fault. The text is when one counts as effective.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Kind { $(#[doc = $effective] $kind,)* }

        impl Kind {
            pub const ALL: &[Kind] = &[$(Kind::$kind,)*];

            pub fn name(self) -> &'static str {
                match self { $(Kind::$kind => $name,)* }
            }

            /// When one of the kind counts as effective.
            pub fn effective(self) -> &'static str {
                match self { $(Kind::$kind => $effective,)* }
            }
        }
    };
}

kinds! {
    CrashBeforePropose, "leader crash before propose", "a question waited and went down with it";
    CrashAfterPropose, "leader crash after propose", "an entry that somebody waits for was written and not committed";
    CrashBeforeReply, "leader crash after commit", "a command changed the state and nobody was told";
    CrashBeforeEffects, "leader crash before effects", "a wake-up for a worker was never sent";
    EntriesDiscarded, "uncommitted entries, discarded", "somebody waited for the entry";
    EntriesSurvived, "uncommitted entries, kept", "the next leader committed it, and nobody was answered";
    QuorumCut, "leader cut from its quorum", "another led beside it, or an entry of it was discarded";
    EffectsDropped, "all effects of an entry dropped", "one of them was a wake-up for a worker";
    SlowDisk, "slow disk", "somebody asked again while the entry waited";
    ClockJumped, "leader's wall clock an hour off", "the clock was refused when an entry was stamped";
    ClockDrift, "worker's clock fast or slow", "a lease ended at another time for it, with work at hand";
    MessageLost, "message lost", "it was no beat: the other side had to learn it in another way";
    MessageDoubled, "message doubled", "the ledger was asked the same thing twice for it";
    MessageOvertaken, "message late", "one sent later on the same link came first";
    WorkerCut, "worker cut off", "its lease ended, or something it had to hear or say was lost";
    PersonCut, "person cut off", "a question or an answer was lost";
    WorkerFrozen, "worker frozen", "its lease ended while it stood";
    StaleWakeUp, "worker woke after its lease", "something it then did was refused as fenced";
    WorkerCrashed, "worker crashed", "it was running something";
    NodeLost, "node declared lost", "a task went back to the queue, or a cancel was confirmed";
    HomeMoved, "home moved off a silent node", "others keep the chain from then on";
    NodeDrained, "node drained", "it gave a lease back at a step boundary";
    LeaseEnded, "lease ended for the worker", "a call was cut short";
    FollowerRestored, "replica restored from a snapshot", "it stood at another index before";
    RequestRepeated, "request repeated", "it was answered again, and had no second effect";
    RequestRewritten, "request id with another body", "it was refused";
    RunningCut, "running cut", "more were running than the new limit";
    TotalCut, "tokens_total cut", "more was used than the new limit";
    MinuteCut, "tokens_minute cut", "not even the smallest call was left of the minute";
    LimitRaised, "limit raised", "a task that waited for it could go on";
    BudgetRefused, "reservation refused", "the task was paused for it";
    UserPaused, "task paused by a person", "a running one lost its lease";
    Cancelled, "task cancelled by a person", "a holder or a child had to confirm";
    ModelFailed, "model failed", "the task failed or stood still for it";
}

/// How often each kind was done and was effective.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    fired: BTreeMap<Kind, u64>,
    effective: BTreeMap<Kind, u64>,
}

impl Counts {
    pub(crate) fn fired(&mut self, kind: Kind) {
        *self.fired.entry(kind).or_default() += 1;
    }

    pub(crate) fn effective(&mut self, kind: Kind) {
        *self.effective.entry(kind).or_default() += 1;
    }

    /// Both at once, where the effect is known at the time of the deed.
    pub(crate) fn count(&mut self, kind: Kind, effective: bool) {
        self.fired(kind);
        if effective {
            self.effective(kind);
        }
    }

    pub fn plus(&mut self, other: &Counts) {
        for (mine, theirs) in [(&mut self.fired, &other.fired), (&mut self.effective, &other.effective)] {
            theirs.iter().for_each(|(kind, count)| *mine.entry(*kind).or_default() += count);
        }
    }

    /// Done, and effective.
    pub fn of(&self, kind: Kind) -> (u64, u64) {
        let count = |map: &BTreeMap<Kind, u64>| map.get(&kind).copied().unwrap_or(0);
        (count(&self.fired), count(&self.effective))
    }
}
