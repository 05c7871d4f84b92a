//! What this machine has and how busy it is. Every field may be absent: no driver, no `/proc` and no permission
//! are normal, never errors.
//!
//! It only reads: no setting of a machine is ever changed here, and nothing is decided.
//! Read: this file, `proc` (Linux), `gpus` (NVIDIA's library, on a thread of its own).

mod gpus;
mod proc;

use proto::v1::Device;

pub use gpus::Gpus;
pub use proc::Proc;

/// Answers with a sample of the machine. Cheap, but it may read a few small files.
pub trait Telemetry: Send + Sync {
    fn sample(&self) -> Device;
}

/// The real machine.
pub struct Machine {
    proc: Proc,
    gpus: Gpus,
}

impl Machine {
    /// Starts sampling. The first GPUs appear a moment later.
    pub fn start() -> Machine {
        Machine { proc: Proc::new("/proc"), gpus: Gpus::start() }
    }
}

impl Telemetry for Machine {
    fn sample(&self) -> Device {
        // A process that may only use some of the cores has only those.
        let allowed = u32::try_from(sys::allowed_cores().len()).ok().filter(|cores| *cores > 0);
        let device = self.proc.sample();
        Device { cpus: allowed.or(device.cpus), gpus: self.gpus.latest(), ..device }
    }
}

/// A machine that is what a test says.
pub struct Fake(pub Device);

impl Telemetry for Fake {
    fn sample(&self) -> Device {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_cores_and_memory() {
        let device = Machine::start().sample();
        assert!(device.cpus.unwrap() >= 1);
        assert!(device.memory_bytes.unwrap() > device.rss_bytes.unwrap());
        assert!(device.rss_bytes.unwrap() > 1 << 20);
    }
}
