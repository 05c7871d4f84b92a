//! Clock, limits, memory, kernel.

use crate::doctor::facts::{MachineFacts, SandboxFacts};
use rustix::process::{Resource, getrlimit};
use sandbox::{Level, Sandbox};
use std::fs::read_to_string;
use std::path::Path;

const HUGE_PAGES: &str = "/sys/kernel/mm/transparent_hugepage/enabled";

/// `shell`: what commands of agents need of the sandbox, where they are allowed.
pub(super) fn look(shell: Option<&str>) -> MachineFacts {
    MachineFacts {
        clock_kept: sys::clock_is_kept(),
        open_files: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
        cores: sys::allowed_cores().len(),
        memory_bytes: memory_bytes(),
        huge_pages: read_to_string(HUGE_PAGES).ok().and_then(|words| chosen(&words)),
        sandbox: shell.map(sandbox),
    }
}

/// The word in brackets of `always [madvise] never`.
fn chosen(words: &str) -> Option<String> {
    Some(words.split_once('[')?.1.split_once(']')?.0.to_string())
}

fn memory_bytes() -> Option<u64> {
    let allowed = read_to_string("/proc/self/cgroup")
        .ok()
        .and_then(|text| allowed_bytes(&text, Path::new("/sys/fs/cgroup")));
    match (sys::total_memory(), allowed) {
        (Some(total), Some(allowed)) => Some(total.min(allowed)),
        (total, allowed) => total.or(allowed),
    }
}

/// What this process's cgroup, version 2, or one above it allows.
fn allowed_bytes(own: &str, root: &Path) -> Option<u64> {
    let path = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let folder = root.join(path);
    let limits = folder.ancestors().take_while(|folder| folder.starts_with(root));
    limits.filter_map(|folder| read_to_string(folder.join("memory.max")).ok()?.trim().parse().ok()).min()
}

fn sandbox(requires: &str) -> SandboxFacts {
    let report = Sandbox::ours().probe();
    let level = report.level();
    SandboxFacts {
        level: level.name().into(),
        missing: report.missing().map(ToString::to_string).chain(report.broken.clone()).collect(),
        enough: Level::parse(requires).is_none_or(|needed| level >= needed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_in_force_is_the_one_in_brackets() {
        assert_eq!(chosen("always [madvise] never\n").as_deref(), Some("madvise"));
        assert_eq!(chosen("nothing of that form"), None);
    }

    #[test]
    fn the_tightest_cgroup_counts() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("a/b");
        std::fs::create_dir_all(&inner).unwrap();
        std::fs::write(inner.join("memory.max"), "max\n").unwrap();
        std::fs::write(root.path().join("a/memory.max"), "4096\n").unwrap();
        assert_eq!(allowed_bytes("12:cpu:/x\n0::/a/b\n", root.path()), Some(4096));
        assert_eq!(allowed_bytes("0::/\n", root.path()), None);
    }
}
