//! A cgroup of our own for one command: version 2 where its controllers can be used, else version 1, controller by
//! controller; and for each that can't be had, why.

mod places;

use crate::report::Layer;
use crate::spec::Limits;
use places::{Place, Version};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Threads of the stages that count beside those of the command: one of `outer`, and of `init` two, or three where it
/// looks at memory.
pub(crate) const OWN_PIDS: u32 = 4;
/// Short, so that a small share still runs several times a second.
const PERIOD_US: u64 = 50_000;
const NAMES: [&str; 4] = ["memory", "pids", "cpu", "cpuacct"];
/// How long a removed cgroup may take to become empty after everything in it was killed.
const EMPTY_MS: u64 = 2_000;

/// One command's cgroup: the folder of each controller that we have.
pub(crate) struct Cgroup {
    held: BTreeMap<&'static str, Held>,
    why_not: BTreeMap<&'static str, String>,
    /// A folder of the version 2 tree, for `cgroup.kill`.
    unified: Option<PathBuf>,
}

#[derive(Clone)]
struct Held {
    folder: PathBuf,
    version: Version,
}

impl Cgroup {
    /// Makes it with these limits. What can't be made is missing, never an error.
    pub(crate) fn make(limits: &Limits) -> Cgroup {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("quorate-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let mut cgroup = Cgroup { held: BTreeMap::new(), why_not: BTreeMap::new(), unified: None };
        for controller in NAMES {
            match cgroup.hold(controller, &name, limits) {
                Ok(held) => drop(cgroup.held.insert(controller, held)),
                Err(why) => drop(cgroup.why_not.insert(controller, why)),
            }
        }
        cgroup.unified = here().unified.as_ref().and_then(|place| folder(place, &name).ok());
        cgroup
    }

    fn hold(&self, controller: &'static str, name: &str, limits: &Limits) -> Result<Held, String> {
        let place = here().of(controller)?;
        let folder = folder(&place.folder, name).map_err(|error| said(&place.folder, &error))?;
        let own = OWN_PIDS - u32::from(self.counts_memory());
        for (file, value) in settings(controller, place.version, limits, own) {
            let path = folder.join(file);
            if let Err(error) = fs::write(&path, &value) {
                // Swap can be missing from the kernel's accounting; then there is nothing to limit.
                let optional = file.contains("swap") || file.contains("memsw");
                if !optional || error.kind() != io::ErrorKind::NotFound {
                    drop(fs::remove_dir(&folder));
                    return Err(said(&path, &error));
                }
            }
        }
        Ok(Held { folder, version: place.version })
    }

    /// Everything that this process starts from now on is in, too.
    pub(crate) fn take_in(&self, pid: u32) -> io::Result<()> {
        let folders: Vec<&Path> = self.folders();
        folders.iter().try_for_each(|folder| fs::write(folder.join("cgroup.procs"), pid.to_string()))
    }

    fn folders(&self) -> Vec<&Path> {
        let mut all: Vec<&Path> = self.held.values().map(|held| held.folder.as_path()).collect();
        all.extend(self.unified.as_deref());
        all.sort_unstable();
        all.dedup();
        all
    }

    /// What the machine enforces with cgroups.
    pub(crate) fn layers(&self) -> Vec<Layer> {
        let mut layers: Vec<Layer> =
            ["memory", "cpu"].into_iter().map(|controller| self.layer(controller, controller)).collect();
        layers.push(match self.held.get("pids") {
            Some(held) => Layer::holds("pids", format!("{} and RLIMIT_NPROC", held.version)),
            None => Layer::holds("pids", "RLIMIT_NPROC, counted inside the user namespace"),
        });
        layers
    }

    fn layer(&self, controller: &str, name: &str) -> Layer {
        let instead = match controller {
            "memory" => "each process is held by RLIMIT_DATA, and their sum is looked at every 20 ms",
            _ => "only the time of each process is limited, not the share",
        };
        match self.held.get(controller) {
            Some(held) => Layer::holds(name, held.version.to_string()),
            None => Layer::missing(name, format!("{}; {instead}", self.why_not[controller])),
        }
    }

    pub(crate) fn counts_pids(&self) -> bool {
        self.held.contains_key("pids")
    }

    pub(crate) fn counts_memory(&self) -> bool {
        self.held.contains_key("memory")
    }

    pub(crate) fn memory_peak_bytes(&self) -> Option<u64> {
        let held = self.held.get("memory")?;
        let file = held.version.either("memory.max_usage_in_bytes", "memory.peak");
        number(&fs::read_to_string(held.folder.join(file)).ok()?)
    }

    pub(crate) fn cpu_ms(&self) -> Option<u64> {
        match self.held.get("cpuacct") {
            Some(held) => {
                Some(number(&fs::read_to_string(held.folder.join("cpuacct.usage")).ok()?)? / 1_000_000)
            }
            None => Some(self.count("cpu", "cpu.stat", "cpu.stat", "usage_usec")? / 1000),
        }
    }

    /// Processes that were killed because memory was over.
    pub(crate) fn out_of_memory(&self) -> u64 {
        self.count("memory", "memory.oom_control", "memory.events", "oom_kill").unwrap_or(0)
    }

    /// How often a process or thread was refused.
    pub(crate) fn too_many(&self) -> u64 {
        self.count("pids", "pids.events", "pids.events", "max").unwrap_or(0)
    }

    fn count(&self, controller: &str, v1: &str, v2: &str, key: &str) -> Option<u64> {
        let held = self.held.get(controller)?;
        let text = fs::read_to_string(held.folder.join(held.version.either(v1, v2))).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))?;
        number(line)
    }

    /// Where a `1` kills everything at once; None on kernels before 5.14 and without version 2.
    pub(crate) fn kill_file(&self) -> Option<PathBuf> {
        self.folders().into_iter().map(|folder| folder.join("cgroup.kill")).find(|file| file.exists())
    }

    /// Takes the limit of time away: who is throttled can't even die.
    pub(crate) fn let_run(&self) {
        if let Some(held) = self.held.get("cpu") {
            let (file, value) =
                (held.version.either("cpu.cfs_quota_us", "cpu.max"), held.version.either("-1", "max"));
            drop(fs::write(held.folder.join(file), value));
        }
    }

    /// Waits until everything in it has ended, and removes it.
    pub(crate) fn remove(self) {
        let end = Instant::now() + Duration::from_millis(EMPTY_MS);
        for folder in self.folders() {
            while fs::remove_dir(folder).is_err() && folder.exists() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

fn said(path: &Path, error: &io::Error) -> String {
    format!("{}: {error}", path.display())
}

fn folder(place: &Path, name: &str) -> io::Result<PathBuf> {
    let folder = place.join(name);
    fs::create_dir(&folder)?;
    Ok(folder)
}

/// The files of one controller and what goes into them, in this order.
fn settings(
    controller: &str,
    version: Version,
    limits: &Limits,
    own_pids: u32,
) -> Vec<(&'static str, String)> {
    // The command's files live in memory, and are counted with it.
    let memory = (limits.memory_bytes.saturating_add(limits.disk_bytes)).to_string();
    let pids = limits.pids.saturating_add(own_pids).to_string();
    let quota_us = (u64::from(limits.cpu_milli) * PERIOD_US / 1000).max(1000);
    match (controller, version) {
        ("memory", Version::One) => {
            vec![("memory.limit_in_bytes", memory.clone()), ("memory.memsw.limit_in_bytes", memory)]
        }
        ("memory", Version::Two) => vec![("memory.max", memory), ("memory.swap.max", "0".into())],
        ("pids", _) => vec![("pids.max", pids)],
        ("cpu", Version::One) => {
            vec![("cpu.cfs_period_us", PERIOD_US.to_string()), ("cpu.cfs_quota_us", quota_us.to_string())]
        }
        ("cpu", Version::Two) => vec![("cpu.max", format!("{quota_us} {PERIOD_US}"))],
        _ => Vec::new(),
    }
}

/// Where this process may make cgroups; looked up once, because looking can move the process to a leaf.
fn here() -> &'static Place {
    static HERE: OnceLock<Place> = OnceLock::new();
    HERE.get_or_init(|| {
        let place = Place::look();
        place.sweep();
        place
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_both_versions() {
        let limits =
            Limits { cpu_milli: 250, memory_bytes: 100, disk_bytes: 50, pids: 7, ..Limits::default() };
        assert_eq!(settings("memory", Version::One, &limits, 3)[0], ("memory.limit_in_bytes", "150".into()));
        assert_eq!(settings("memory", Version::Two, &limits, 3)[0], ("memory.max", "150".into()));
        assert_eq!(settings("pids", Version::Two, &limits, 3), [("pids.max", "10".into())]);
        assert_eq!(settings("cpu", Version::Two, &limits, 3), [("cpu.max", "12500 50000".into())]);
        assert_eq!(settings("cpu", Version::One, &limits, 3)[1], ("cpu.cfs_quota_us", "12500".into()));
    }
}
