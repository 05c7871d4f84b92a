//! The data folder: whether it is this node's, whether it can be written, how fast, and for how long.

use super::facts::{FolderFacts, IdentityFacts, SpaceFacts, SyncFacts, WriteFault};
use super::{Facts, Finding, bytes};

/// Below it a log and a snapshot side by side may not fit.
const SPACE_LEAST_BYTES: u64 = 512 << 20;
/// Where a disk is this empty, percentages say nothing.
const SPACE_PLENTY_BYTES: u64 = 20 << 30;
const FILES_LEAST: u64 = 1_000;
/// A step waits for two of these, one here and one on a keeper.
const SYNC_GOOD_US: u64 = 20_000;
/// Permission bits of everyone but the owner.
const OTHERS: u32 = 0o077;

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let Some(folder) = &facts.folder else { return Vec::new() };
    let election_ms = facts.config.as_ref().map_or(400, |config| config.election_ms);
    let mut findings = vec![data(folder), owner(folder, facts)];
    findings.extend(folder.space.map(space));
    if let Ok(sync) = &folder.writes {
        findings.push(fsync(sync, election_ms));
    }
    findings
}

fn data(folder: &FolderFacts) -> Finding {
    let path = &folder.path;
    let why = "acknowledged tasks and their context are kept there before anyone is told of them";
    let fail = |what: String, next: &str| Finding::fail("data folder", what, why, next);
    match &folder.writes {
        Err(WriteFault::NotAFolder) => {
            fail(format!("{path} is not a folder"), "set data_dir to a folder of this node's own")
        }
        Err(WriteFault::ReadOnly) => fail(
            format!("{path} is on a file system that is mounted read-only"),
            "look into the kernel's log for errors of the disk, mount it for writing again, or choose another data_dir",
        ),
        Err(WriteFault::Denied) => fail(
            format!("this user may not write into {path}"),
            "run as the user that the node runs as (`runuser -u quorate -- quorate doctor …`), or give the folder to it",
        ),
        Err(WriteFault::Full) => fail(
            format!("the disk of {path} is full"),
            "make room, or move data_dir to a larger disk while the node is stopped; nothing acknowledged is lost",
        ),
        Err(WriteFault::Sync(error)) => fail(
            format!("what is written into {path} does not become durable: {error}"),
            "replace the disk: a node on it would acknowledge what it then loses",
        ),
        Err(WriteFault::Other(error)) => {
            fail(format!("{path} cannot be used: {error}"), "correct that, or choose another data_dir")
        }
        Ok(_) => permissions(folder),
    }
}

fn permissions(folder: &FolderFacts) -> Finding {
    let path = &folder.path;
    match folder.mode {
        Some(mode) if mode & OTHERS != 0 => Finding::warn(
            "data folder",
            format!("other users of this machine may look into {path} (mode {:o})", mode & 0o777),
            "prompts, answers and files of agents are kept there in clear",
            format!("chmod 700 {path}"),
        ),
        None => Finding::ok("data folder", format!("{path} will be made at the first start")),
        Some(_) => Finding::ok("data folder", format!("{path} can be written, and by its owner alone")),
    }
}

fn owner(folder: &FolderFacts, facts: &Facts) -> Finding {
    let name = facts.config.as_ref().map_or("", |config| config.name.as_str());
    let why = "a data folder belongs to one node for life: the cluster knows its log by it";
    match &folder.identity {
        IdentityFacts::None => Finding::ok("identity", "no node has started in this folder yet"),
        IdentityFacts::Unusable(error) => Finding::fail(
            "identity",
            error.clone(),
            why,
            "see the message; change nothing in the folder by hand",
        ),
        IdentityFacts::Name(stored) if stored != name => Finding::fail(
            "identity",
            format!("the data folder belongs to node {stored:?}, and the configuration says name = {name:?}"),
            why,
            "set the name back, or give the new node an empty data_dir",
        ),
        IdentityFacts::Name(stored) => {
            let used = folder
                .used_by
                .as_ref()
                .map_or("no process uses it now".into(), |owner| format!("used by {owner}"));
            Finding::ok("identity", format!("the data folder is {stored}'s, {used}"))
        }
    }
}

fn space(space: SpaceFacts) -> Finding {
    let SpaceFacts { free_bytes, total_bytes, free_files, total_files } = space;
    let what = format!("{} of {} are free", bytes(free_bytes), bytes(total_bytes));
    let why = "a node whose disk is full stops accepting work rather than lose some";
    let next =
        "make room or grow the disk; `quorate task list` and retention decide what Quorate itself keeps";
    // Some file systems count no files: they say 0 of 0.
    if total_files > 0 && free_files < FILES_LEAST {
        return Finding::fail(
            "disk space",
            format!("the file system has room for {free_files} more files"),
            why,
            next,
        );
    }
    match free_bytes {
        0..SPACE_LEAST_BYTES => Finding::fail("disk space", what, why, next),
        SPACE_LEAST_BYTES..SPACE_PLENTY_BYTES if free_bytes < total_bytes / 10 => {
            Finding::warn("disk space", what, why, next)
        }
        _ => Finding::ok("disk space", what),
    }
}

fn fsync(sync: &SyncFacts, election_ms: u64) -> Finding {
    let median_us = sync.times_us.get(sync.times_us.len() / 2).copied().unwrap_or(0);
    let what = format!("a write is durable after {}.{:03} ms", median_us / 1000, median_us % 1000);
    let next = "look at the disk's own queue (`iostat -x 1`), move data_dir to a faster or a less busy disk";
    if sync.in_memory {
        let why = "nothing there survives the machine's next start, whatever was acknowledged";
        return Finding::warn(
            "fsync",
            "data_dir is in memory (tmpfs)",
            why,
            "set data_dir to a folder on a disk",
        );
    }
    if median_us > election_ms * 1000 / 2 {
        let why = "a leader that waits so long for its disk is taken for dead by the others";
        return Finding::fail("fsync", what, why, next);
    }
    match median_us {
        median_us if median_us > SYNC_GOOD_US => {
            Finding::warn("fsync", what, "each step of each task waits for it twice", next)
        }
        _ => Finding::ok("fsync", what),
    }
}
