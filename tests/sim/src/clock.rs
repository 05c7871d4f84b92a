//! The clocks of an office. Milliseconds of the simulation are true time; every coordinator's wall clock is off by
//! something, sometimes by an hour, and a leader believes it only while the nodes it hears agree.

use crate::counts::Kind;
use crate::leader::Office;
use crate::plan::Plant;
use crate::sim::Sim;
use ledger::command::Stamp;

/// Unix milliseconds at the simulation's beginning.
pub(crate) const BEGAN_MS: u64 = 1_700_000_000_000;
/// Difference from the median of the nodes' clocks that a wall clock may have; as `coordinator::clock` has it.
const WALL_SKEW_MS: u64 = 5_000;
const HOUR_MS: i64 = 3_600_000;

impl Sim {
    pub(crate) fn true_wall_ms(&self) -> u64 {
        BEGAN_MS + self.now_ms
    }

    fn wall_of(&self, coordinator: usize) -> u64 {
        // Some tens of milliseconds apart in the best of times.
        self.true_wall_ms() + 70 * coordinator as u64
    }

    pub(crate) fn jumped_wall_of(&self, coordinator: usize) -> u64 {
        self.wall_of(coordinator).saturating_add_signed(self.jumps_ms[coordinator])
    }

    /// Somebody sets a coordinator's clock an hour forth or back.
    pub(crate) fn jump_clock(&mut self, coordinator: usize) {
        let forth = self.rng.percent(50);
        self.jumps_ms[coordinator] = if forth { HOUR_MS } else { -HOUR_MS };
        self.jumps_new[coordinator] = true;
        self.trace(&format!("the clock of c{coordinator} jumps, forth: {forth}"));
        self.counts.fired(Kind::ClockJumped);
    }

    /// Counts each jump once.
    pub(crate) fn clock_was_refused(&mut self, coordinator: usize) {
        if std::mem::take(&mut self.jumps_new[coordinator]) {
            self.counts.effective(Kind::ClockJumped);
        }
    }

    /// The stamp of an entry that is written now, and whether the leader's own wall clock was refused for it.
    pub(crate) fn stamp(&self, office: &Office) -> (Stamp, bool) {
        let since_ms = self.now_ms - office.began_ms;
        let own_ms = self.jumped_wall_of(office.who);
        let slope_ms = office.wall_base_ms + since_ms;
        let (wall_ms, refused) = match office.median_wall_ms(self.now_ms) {
            Some(median) if own_ms.abs_diff(median) <= WALL_SKEW_MS => (own_ms, false),
            Some(_) => (slope_ms, true),
            // Nobody was heard yet.
            None => (slope_ms, own_ms.abs_diff(slope_ms) > WALL_SKEW_MS),
        };
        let ledger_ms = match self.plant {
            Some(Plant::WallForLedger) => own_ms.saturating_sub(BEGAN_MS),
            _ => office.began_ledger_ms + since_ms,
        };
        (Stamp { ledger_ms, wall_ms }, refused)
    }

    /// Where a new office's wall clock starts when no node agrees with its own.
    pub(crate) fn wall_base(&self, who: usize) -> u64 {
        let committed_ms = self.cluster.truth.wall_ms();
        match self.plant {
            Some(Plant::TrustWall) => committed_ms.max(self.jumped_wall_of(who)),
            _ => committed_ms,
        }
    }

    /// Nothing in the ledger may believe that it is later than it is, but for what clocks may differ.
    pub(crate) fn check_clock(&mut self) {
        let (wall_ms, true_ms) = (self.cluster.truth.wall_ms(), self.true_wall_ms());
        if wall_ms > true_ms + WALL_SKEW_MS + 1_000 {
            self.broken(format!("the ledger's wall clock is {} ms ahead", wall_ms - true_ms));
        }
    }
}
