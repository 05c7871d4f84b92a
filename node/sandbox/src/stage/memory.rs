//! Where no cgroup counts memory, process 1 looks, and ends everything when it is too much.

use super::init::everyone;
use crate::wire::Summary;
use rustix::process::{Signal, WaitStatus};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const EVERY_MS: u64 = 20;

pub(super) struct Watch {
    limit_bytes: u64,
    most_bytes: AtomicU64,
    is_over: AtomicBool,
}

impl Watch {
    pub(super) fn new(limit_bytes: u64) -> Self {
        Watch { limit_bytes, most_bytes: AtomicU64::new(0), is_over: AtomicBool::new(false) }
    }

    /// Looks until the process ends.
    pub(super) fn start(self: Arc<Self>) {
        std::thread::spawn(move || {
            loop {
                self.look();
                std::thread::sleep(Duration::from_millis(EVERY_MS));
            }
        });
    }

    fn look(&self) {
        let sum = sum_bytes();
        self.most_bytes.fetch_max(sum, Ordering::Relaxed);
        if sum > self.limit_bytes {
            self.is_over.store(true, Ordering::Relaxed);
            everyone(Signal::KILL);
        }
    }

    pub(super) fn summary(&self, status: WaitStatus, cpu_ms: u64) -> Summary {
        let most = self.most_bytes.load(Ordering::Relaxed);
        Summary {
            code: status.exit_status(),
            signal: status.terminating_signal(),
            cpu_ms,
            disk_bytes: 0,
            seen_memory_bytes: (most > 0).then_some(most),
            over_memory: self.is_over.load(Ordering::Relaxed),
        }
    }
}

/// Resident bytes of every process here but this one. A page that several share counts once in all.
fn sum_bytes() -> u64 {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| *pid != 1).filter_map(resident_bytes).sum()
}

fn resident_bytes(pid: u32) -> Option<u64> {
    proportional_bytes(pid).or_else(|| {
        let text = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
        let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
        Some(pages * rustix::param::page_size() as u64)
    })
}

/// With its part of what it shares. None where the kernel does not say.
fn proportional_bytes(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}
