//! What breaks, and when it is whole again.

use crate::net::Peer;
use crate::sim::{Event, Sim};

impl Sim {
    pub(crate) fn fault(&mut self) {
        if !self.chaos {
            return;
        }
        let again_ms = self.rng.between(200, 1_400);
        self.after(again_ms, Event::Fault);
        let worker = self.rng.below(self.workers.len());
        match self.rng.below(7) {
            0 | 1 => self.fail_leader(),
            2 | 3 => self.freeze(worker),
            4 => self.crash(worker),
            5 => self.cut_off(worker),
            _ => {
                let follower = self.rng.below(self.cluster.followers.len());
                self.restore_follower(follower);
            }
        }
    }

    fn freeze(&mut self, worker: usize) {
        if self.workers[worker].frozen || !self.workers[worker].up {
            return;
        }
        self.trace(&format!("w{worker} freezes"));
        self.faults.freezes += 1;
        self.workers[worker].frozen = true;
        let until_ms = self.rng.between(300, 9_000);
        self.after(until_ms, Event::Thaw { worker });
    }

    fn crash(&mut self, worker: usize) {
        if !self.workers[worker].up {
            return;
        }
        self.trace(&format!("w{worker} crashes"));
        self.faults.worker_crashes += 1;
        self.crash_worker(worker);
        let until_ms = self.rng.between(200, 5_000);
        self.after(until_ms, Event::Restart { worker });
    }

    fn cut_off(&mut self, worker: usize) {
        let peer = if self.rng.percent(80) { Peer::Worker(worker) } else { Peer::Person(worker) };
        self.trace(&format!("{peer:?} is cut off"));
        self.faults.partitions += 1;
        self.net.cut_off.insert(peer);
        let until_ms = self.rng.between(300, 9_000);
        self.after(until_ms, Event::Heal { peer });
    }

    /// From here on nothing breaks any more, and everything must end.
    pub(crate) fn heal_all(&mut self) {
        self.trace("healing");
        self.chaos = false;
        (self.net.loss, self.net.doubling) = (0, 0);
        self.net.cut_off.clear();
        for worker in 0..self.workers.len() {
            self.thaw(worker);
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
