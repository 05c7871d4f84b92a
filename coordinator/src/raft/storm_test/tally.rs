//! How often each kind of fault was done to the second tier, and how often it was effective.

use crate::raft::sim_test::Toll;
use std::collections::BTreeMap;
use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    PowerCut,
    PowerCutOfAll,
    Kill,
    Isolation,
    OneWay,
    Bridge,
    SlowSync,
    Transfer,
    Members,
    Loss,
    Doubling,
    Late,
    Overtaken,
    Snapshots,
}

impl Fault {
    /// What a round may do.
    /// What a round may do: the weather, which is counted by message, more rarely than the rest.
    pub(super) const ROUNDS: [Fault; 21] = [
        Fault::PowerCut,
        Fault::PowerCutOfAll,
        Fault::Kill,
        Fault::Isolation,
        Fault::OneWay,
        Fault::Bridge,
        Fault::SlowSync,
        Fault::Transfer,
        Fault::Members,
        Fault::PowerCut,
        Fault::PowerCutOfAll,
        Fault::Kill,
        Fault::Isolation,
        Fault::OneWay,
        Fault::Bridge,
        Fault::SlowSync,
        Fault::Transfer,
        Fault::Members,
        Fault::Loss,
        Fault::Doubling,
        Fault::Late,
    ];

    const ALL: [(Fault, &str); 14] = [
        (Fault::PowerCut, "power cut of a node (inside a change of its disk)"),
        (Fault::PowerCutOfAll, "power cut of all nodes (inside a change of a disk)"),
        (Fault::Kill, "program killed (it led)"),
        (Fault::Isolation, "leader isolated (another led at the end)"),
        (Fault::OneWay, "way closed in one direction (a message wanted to go there)"),
        (Fault::Bridge, "two voters cut, others see both (a message wanted to go there)"),
        (Fault::SlowSync, "slow disk (a client waited as long)"),
        (Fault::Transfer, "leadership handed over (the chosen one leads)"),
        (Fault::Members, "voters changed under load (they are what was asked for)"),
        (Fault::Loss, "call or reply lost (the caller had to learn it in another way)"),
        (Fault::Doubling, "call doubled (it came again, to a living node)"),
        (Fault::Late, "call or reply late (up to half a second)"),
        (Fault::Overtaken, "call overtaken (one that was made later came first)"),
        (Fault::Snapshots, "snapshot sent to a member (it came)"),
    ];
}

#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    /// Done, and effective.
    of: BTreeMap<Fault, (u64, u64)>,
}

impl Counts {
    pub(super) fn count(&mut self, fault: Fault, effective: bool) {
        // These are counted by message.
        if matches!(fault, Fault::Loss | Fault::Doubling | Fault::Late) {
            return;
        }
        let count = self.of.entry(fault).or_default();
        *count = (count.0 + 1, count.1 + u64::from(effective));
    }

    pub(super) fn wires(&mut self, toll: Toll, snapshots: u64) {
        for (fault, count) in [
            (Fault::Loss, toll.lost),
            (Fault::Doubling, toll.doubled),
            (Fault::Late, toll.late),
            (Fault::Overtaken, toll.overtaken),
            (Fault::Snapshots, snapshots),
        ] {
            self.of.insert(fault, (count, count));
        }
    }

    pub(super) fn plus(&mut self, other: &Counts) {
        for (fault, theirs) in &other.of {
            let mine = self.of.entry(*fault).or_default();
            *mine = (mine.0 + theirs.0, mine.1 + theirs.1);
        }
    }

    pub(super) fn rare(&self, least: u64) -> Vec<Fault> {
        let effective = |fault: &Fault| self.of.get(fault).map_or(0, |count| count.1);
        let all = Fault::ALL.iter().map(|(fault, _)| *fault);
        all.filter(|fault| effective(fault) < least).collect()
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>9} {:>9}  fault (effective: …)", "fired", "effective")?;
        for (fault, words) in Fault::ALL {
            let (fired, effective) = self.of.get(&fault).copied().unwrap_or_default();
            writeln!(f, "{fired:>9} {effective:>9}  {words}")?;
        }
        Ok(())
    }
}
