//! How fast the machine is now, with this engine's threads and instructions.

use std::time::Duration;

use super::Engine;

impl Engine {
    /// The peak of int8 operations, in thousands of millions a second over all compute threads, measured for
    /// `at_least` so long. Print it beside figures: what it lacks, other programs have taken.
    pub fn peak_probe(&self, at_least: Duration) -> f64 {
        self.cpu.peak(at_least)
    }
}
