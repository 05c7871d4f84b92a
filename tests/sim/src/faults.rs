//! What breaks, and when it is whole again.

use crate::cluster::COORDINATORS;
use crate::counts::Kind;
use crate::leader::{Doom, SILENCE_MS};
use crate::net::{Cut, Peer};
use crate::sim::{Event, Sim};

impl Sim {
    pub(crate) fn fault(&mut self) {
        if !self.chaos {
            return;
        }
        let again_ms = self.rng.between(150, 900);
        self.after(again_ms, Event::Fault);
        let worker = self.rng.below(self.workers.len());
        match self.rng.below(15) {
            0..=2 => self.doom_leader(),
            3 => self.cut_quorum(),
            4 | 5 => self.freeze(worker),
            6 | 7 => self.crash(worker),
            8 | 9 => self.cut_off(Peer::Worker(worker)),
            10 => {
                let person = self.rng.below(self.people.len());
                self.cut_off(Peer::Person(person));
            }
            11 => self.drain(worker),
            12 => self.jump_or_mend_clock(),
            _ => {
                let follower = self.rng.below(self.cluster.followers.len());
                self.restore_follower(follower);
            }
        }
    }

    /// The leader will fail the next time that an entry is where the doom says.
    fn doom_leader(&mut self) {
        let dooms = [Doom::BeforePropose, Doom::AfterPropose, Doom::BeforeReply, Doom::BeforeEffects];
        let doom = dooms[self.rng.below(dooms.len())];
        self.trace(&format!("the leader is doomed: {doom:?}"));
        if let Some(office) = &mut self.office {
            office.doom = Some(doom);
        }
    }

    fn cut_quorum(&mut self) {
        if self.deposed.is_some() {
            return;
        }
        let now_ms = self.now_ms;
        let Some(office) = self.office.as_mut().filter(|office| office.cut_since_ms.is_none()) else {
            return;
        };
        office.cut_since_ms = Some(now_ms);
        let office = office.number;
        self.trace("the leader is cut from its quorum");
        self.counts.fired(Kind::QuorumCut);
        let silence_ms = self.rng.between(SILENCE_MS, 1_300);
        self.after(silence_ms, Event::Elect);
        let until_ms = self.rng.between(400, 12_000);
        self.after(until_ms, Event::HealQuorum { office });
    }

    /// Others can hear it again. If another leads by now, it hears of that, too.
    pub(crate) fn heal_quorum(&mut self, number: u64) {
        if let Some(office) = self.office.as_mut().filter(|office| office.number == number) {
            office.cut_since_ms = None;
        }
        self.deposed.take_if(|office| office.number == number);
    }

    fn freeze(&mut self, worker: usize) {
        if self.workers[worker].frozen || !self.workers[worker].up {
            return;
        }
        self.trace(&format!("w{worker} freezes"));
        self.counts.fired(Kind::WorkerFrozen);
        self.workers[worker].frozen = true;
        let until_ms = self.rng.between(300, 9_000);
        self.after(until_ms, Event::Thaw { worker });
    }

    fn crash(&mut self, worker: usize) {
        if !self.workers[worker].up {
            return;
        }
        self.trace(&format!("w{worker} crashes"));
        self.counts.count(Kind::WorkerCrashed, !self.workers[worker].agents.is_empty());
        self.crash_worker(worker);
        let until_ms = self.rng.between(200, 5_000);
        self.after(until_ms, Event::Restart { worker });
    }

    fn cut_off(&mut self, peer: Peer) {
        if self.net.cut_off.contains_key(&peer) {
            return;
        }
        self.trace(&format!("{peer:?} is cut off"));
        self.counts.fired(cut_kind(peer));
        self.net.cut_off.insert(peer, Cut::default());
        let until_ms = self.rng.between(300, 9_000);
        self.after(until_ms, Event::Heal { peer });
    }

    pub(crate) fn heal(&mut self, peer: Peer) {
        let Some(cut) = self.net.cut_off.remove(&peer) else { return };
        let lapsed = match peer {
            Peer::Worker(worker) => self.lapsed(worker),
            Peer::Person(_) | Peer::Coordinator(_) => false,
        };
        if cut.lost > 0 || lapsed {
            self.counts.effective(cut_kind(peer));
        }
    }

    fn drain(&mut self, worker: usize) {
        if self.workers[worker].draining {
            return;
        }
        self.trace(&format!("w{worker} drains"));
        self.counts.fired(Kind::NodeDrained);
        (self.workers[worker].draining, self.workers[worker].gave_back) = (true, false);
        let until_ms = self.rng.between(500, 4_000);
        self.after(until_ms, Event::Drained { worker });
    }

    fn jump_or_mend_clock(&mut self) {
        let coordinator = self.rng.below(COORDINATORS);
        if self.jumps_ms[coordinator] == 0 {
            self.jump_clock(coordinator);
        } else {
            self.jumps_ms[coordinator] = 0;
        }
    }

    /// From here on nothing breaks any more, and everything must end.
    pub(crate) fn heal_all(&mut self) {
        self.trace("healing");
        self.chaos = false;
        (self.net.loss, self.net.doubling) = (0, 0);
        self.net.cut_off.clear();
        self.jumps_ms = [0; COORDINATORS];
        self.deposed = None;
        if let Some(office) = &mut self.office {
            (office.cut_since_ms, office.doom) = (None, None);
        }
        for worker in 0..self.workers.len() {
            self.thaw(worker);
            self.workers[worker].draining = false;
            // One that is down may never come back: the others have to do its work.
            let gone = self.gone.is_none() && self.rng.percent(50);
            if !self.workers[worker].up && gone {
                self.gone = Some(worker);
            } else if !self.workers[worker].up {
                self.start_worker(worker);
            }
        }
    }
}

fn cut_kind(peer: Peer) -> Kind {
    match peer {
        Peer::Person(_) => Kind::PersonCut,
        Peer::Worker(_) | Peer::Coordinator(_) => Kind::WorkerCut,
    }
}
