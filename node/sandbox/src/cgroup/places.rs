//! Where this process may make cgroups, from what `/proc` says of itself.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    One,
    Two,
}

impl Version {
    pub(super) fn either<'a>(self, one: &'a str, two: &'a str) -> &'a str {
        match self {
            Version::One => one,
            Version::Two => two,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(self.either("cgroup v1", "cgroup v2"))
    }
}

/// The cgroups that this process is in.
#[derive(Debug, Default)]
pub(super) struct Place {
    one: BTreeMap<String, PathBuf>,
    pub(super) unified: Option<PathBuf>,
    /// Controllers that children of `unified` have.
    two: Vec<String>,
    /// Why version 2 gives no controllers, where it exists.
    why_not: Option<String>,
}

pub(super) struct Found {
    pub(super) folder: PathBuf,
    pub(super) version: Version,
}

impl Place {
    pub(super) fn look() -> Place {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let mut place = Place::parse(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"));
        if let Some(folder) = place.unified.clone() {
            match enable(&folder) {
                Ok(controllers) => place.two = controllers,
                Err(why) => place.why_not = Some(why),
            }
        }
        place
    }

    /// `mountinfo` says where the trees are mounted, `cgroup` where in each tree this process is.
    pub(super) fn parse(mountinfo: &str, cgroup: &str) -> Place {
        let mut place = Place::default();
        for line in cgroup.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(names), Some(path)) = (parts.next(), parts.next()) else { continue };
            if names.is_empty() {
                place.unified = mount(mountinfo, "cgroup2", "").map(|mount| mount.at(path));
                continue;
            }
            for name in names.split(',').filter(|name| !name.contains('=')) {
                if let Some(mount) = mount(mountinfo, "cgroup", name) {
                    place.one.insert(name.to_string(), mount.at(path));
                }
            }
        }
        place
    }

    pub(super) fn of(&self, controller: &str) -> Result<Found, String> {
        if self.two.iter().any(|name| name == controller) {
            let folder = self.unified.clone().unwrap_or_default();
            return Ok(Found { folder, version: Version::Two });
        }
        match self.one.get(controller) {
            Some(folder) => Ok(Found { folder: folder.clone(), version: Version::One }),
            None => Err(self.why_not.clone().unwrap_or_else(|| format!("no {controller} cgroup is mounted"))),
        }
    }

    /// Removes what processes left that were killed: only empty cgroups can be removed.
    pub(super) fn sweep(&self) {
        for folder in self.one.values().chain(&self.unified) {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            for entry in entries.filter(|entry| is_left(&entry.file_name().to_string_lossy())) {
                drop(fs::remove_dir(entry.path()));
            }
        }
    }
}

/// `quorate-PID-N` of a process that is gone, or that had our pid before us: we have made none yet.
fn is_left(name: &str) -> bool {
    let pid = name.strip_prefix("quorate-").and_then(|rest| rest.split('-').next());
    let pid = pid.and_then(|pid| pid.parse::<u32>().ok());
    pid.is_some_and(|pid| pid == std::process::id() || !Path::new(&format!("/proc/{pid}")).exists())
}

struct Mount<'a> {
    root: &'a str,
    point: &'a str,
}

impl Mount<'_> {
    /// A path of the tree, where it is seen through this mount.
    fn at(&self, path: &str) -> PathBuf {
        let below = path.strip_prefix(self.root).unwrap_or(path);
        Path::new(self.point).join(below.trim_start_matches('/'))
    }
}

/// The mount of a tree: of this type, and with this controller.
fn mount<'a>(mountinfo: &'a str, kind: &str, controller: &str) -> Option<Mount<'a>> {
    mountinfo.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut right = right.split(' ');
        let is_kind = right.next()? == kind;
        let has = controller.is_empty() || right.nth(1)?.split(',').any(|option| option == controller);
        let mut left = left.split(' ').skip(3);
        let (root, point) = (left.next()?, left.next()?);
        (is_kind && has).then_some(Mount { root: if root == "/" { "" } else { root }, point })
    })
}

/// Gives children of `folder` the controllers that it has. A cgroup with processes of its own can't do that: if all
/// of them are us, we move into a leaf beside the commands.
fn enable(folder: &Path) -> Result<Vec<String>, String> {
    let read = |file: &str| fs::read_to_string(folder.join(file)).unwrap_or_default();
    let there = read("cgroup.controllers");
    let names: Vec<&str> =
        there.split_whitespace().filter(|name| ["memory", "pids", "cpu"].contains(name)).collect();
    if names.is_empty() {
        return Err(format!("{} has no controllers", folder.display()));
    }
    let wish: String = names.iter().map(|name| format!("+{name} ")).collect();
    let control = folder.join("cgroup.subtree_control");
    if fs::write(&control, wish.trim_end()).is_err() {
        move_to_leaf(folder)?;
        fs::write(&control, wish.trim_end()).map_err(|error| format!("{}: {error}", control.display()))?;
    }
    Ok(names.into_iter().map(String::from).collect())
}

fn move_to_leaf(folder: &Path) -> Result<(), String> {
    let said = |error: std::io::Error| format!("{}: {error}", folder.display());
    let us = std::process::id().to_string();
    let procs = fs::read_to_string(folder.join("cgroup.procs")).map_err(said)?;
    if procs.lines().any(|pid| pid != us) {
        return Err(format!(
            "{} has other processes than this node's: start it with Delegate=yes",
            folder.display()
        ));
    }
    let leaf = folder.join("quorate-node");
    fs::create_dir_all(&leaf).map_err(said)?;
    fs::write(leaf.join("cgroup.procs"), us).map_err(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
30 23 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 /box /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
33 30 0:29 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn version_one_by_controller() {
        let place = Place::parse(HYBRID, "4:memory:/box/a\n2:cpu,cpuacct:/b\n1:name=systemd:/\n0::/\n");
        let folder = |name| place.of(name).map(|found| found.folder);
        assert_eq!(folder("memory").expect("memory"), Path::new("/sys/fs/cgroup/memory/a"));
        assert_eq!(folder("cpuacct").expect("cpuacct"), Path::new("/sys/fs/cgroup/cpu,cpuacct/b"));
        assert_eq!(place.unified.as_deref(), Some(Path::new("/sys/fs/cgroup/unified")));
        assert_eq!(folder("pids").expect_err("no pids"), "no pids cgroup is mounted");
    }

    #[test]
    fn version_two_alone() {
        let place = Place::parse(
            "29 1 0:25 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
            "0::/system.slice/q.service\n",
        );
        assert_eq!(place.unified.as_deref(), Some(Path::new("/sys/fs/cgroup/system.slice/q.service")));
        let mut place = place;
        place.two = vec!["pids".into()];
        assert_eq!(place.of("pids").expect("pids").version, Version::Two);
    }

    #[test]
    fn controllers_of_version_two_are_enabled_by_a_write() {
        let folder = tempfile::tempdir().expect("folder");
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("write");
        write("cgroup.controllers", "cpuset cpu memory pids\n");
        write("cgroup.subtree_control", "");
        assert_eq!(enable(folder.path()).expect("enabled"), ["cpu", "memory", "pids"]);
        let written = fs::read_to_string(folder.path().join("cgroup.subtree_control")).expect("read");
        assert_eq!(written, "+cpu +memory +pids");
        write("cgroup.controllers", "");
        assert!(enable(folder.path()).expect_err("none").contains("no controllers"));
    }

    #[test]
    fn only_what_the_dead_left_is_swept() {
        assert!(!is_left("quorate-1-1"), "process 1 lives");
        assert!(is_left(&format!("quorate-{}-1", std::process::id())));
        assert!(!is_left("quorate-node"));
        assert!(is_left("quorate-4194999-1"));
    }
}
