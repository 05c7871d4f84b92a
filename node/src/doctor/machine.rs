//! The machine: its clock, its limits, its memory, its kernel.

use super::facts::{ClusterFacts, ConfigFacts, SandboxFacts};
use super::{Facts, Finding, bytes};
use coordinator::clock::WALL_SKEW_MS;

/// A clock before this moment was never set: this program is younger.
const BEFORE_US_S: i64 = 1_767_225_600;
/// Files of the future by so much: the clock went back.
const BACK_S: i64 = 60;
/// Connections of nodes and clients, logs and segments; measured below 200 on busy nodes.
const FILES_LEAST: u64 = 512;
const FILES_GOOD: u64 = 1024;

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![clock(facts), files(facts)];
    if let Ok(config) = &facts.config {
        findings.extend(memory(facts, config));
        findings.extend(cores(facts, config));
        findings.extend(huge_pages(facts, config));
        findings.extend(sandbox(facts, config));
    }
    findings
}

fn clock(facts: &Facts) -> Finding {
    let why = "deadlines, schedules and windows of quotas follow the calendar, and certificates hold from one day to another";
    let next = "set the clock, and keep it with chrony or systemd-timesyncd (`timedatectl status` shows whether it is kept)";
    let fail = |what: String| Finding::fail("clock", what, why, next);
    if facts.now_s < BEFORE_US_S {
        return fail("this machine's clock was never set: it is before this program was made".into());
    }
    let newest_s = facts.folder.as_ref().and_then(|folder| folder.newest_s).unwrap_or(0);
    if newest_s > facts.now_s + BACK_S {
        return fail(format!(
            "files in data_dir are {} s in the future: the clock went back, or was ahead",
            newest_s - facts.now_s
        ));
    }
    if let Some(ahead_s) =
        ahead_of_leader_s(facts).filter(|ahead_s| ahead_s.unsigned_abs() * 1000 > WALL_SKEW_MS)
    {
        let way = if ahead_s > 0 { "ahead of" } else { "behind" };
        return fail(format!("this machine's clock is {} s {way} the leader's", ahead_s.abs()));
    }
    let alone = matches!(facts.cluster, ClusterFacts::Alone) && facts.tls.is_none();
    match facts.machine.clock_kept {
        Some(false) if !alone => {
            Finding::warn("clock", "no time service keeps this machine's clock", why, next)
        }
        _ => Finding::ok("clock", "the clock agrees with all that is known"),
    }
}

fn ahead_of_leader_s(facts: &Facts) -> Option<i64> {
    match &facts.cluster {
        ClusterFacts::Answered(cluster) if cluster.leader_clock_s > 0 => {
            Some(facts.now_s - cluster.leader_clock_s)
        }
        _ => None,
    }
}

fn files(facts: &Facts) -> Finding {
    let limit = facts.machine.open_files;
    let what = format!("{limit} files may be open at once");
    let why = "each connection, segment and log is one; a node that can't open another refuses clients";
    let next = format!("raise it: `ulimit -n {FILES_GOOD}`, or LimitNOFILE= in the unit");
    match limit {
        0..FILES_LEAST => Finding::fail("open files", what, why, next),
        FILES_LEAST..FILES_GOOD => Finding::warn("open files", what, why, next),
        _ => Finding::ok("open files", what),
    }
}

fn memory(facts: &Facts, config: &ConfigFacts) -> Option<Finding> {
    let have = facts.machine.memory_bytes.filter(|_| config.worker && !facts.models.is_empty())?;
    let kv = config.kv_bytes_per_model.saturating_mul(facts.models.len() as u64);
    let weights = facts.models.iter().fold(0_u64, |sum, model| sum.saturating_add(model.bytes));
    let need = kv.saturating_add(weights);
    let what = format!("models and their KV caches may take {} of {}", bytes(need), bytes(have));
    let why = "the kernel ends a process that takes more than there is, with all its tasks' warm context";
    let next = "lower engine.kv_bytes or engine.host_kv_bytes, or serve fewer models here";
    Some(match need {
        need if need > have => Finding::fail("memory", what, why, next),
        need if need > have / 5 * 4 => Finding::warn("memory", what, why, next),
        _ => Finding::ok("memory", what),
    })
}

fn cores(facts: &Facts, config: &ConfigFacts) -> Option<Finding> {
    let cores = facts.machine.cores;
    let more = config.worker && cores > 0 && config.threads as usize > cores;
    more.then(|| {
        Finding::warn(
            "cores",
            format!("engine.threads = {}, and this process may use {cores} cores", config.threads),
            "threads that wait for each other's core compute slower than fewer would",
            "set engine.threads = 0, which takes every core, or the number of cores",
        )
    })
}

fn huge_pages(facts: &Facts, config: &ConfigFacts) -> Option<Finding> {
    let word = facts.machine.huge_pages.as_deref().filter(|_| config.worker && !facts.models.is_empty())?;
    Some(match word {
        "never" => Finding::warn(
            "huge pages",
            "transparent huge pages are off",
            "weights and KV caches are read from end to end; with small pages a part of that time goes into addresses",
            "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled, and in the boot line to keep it",
        ),
        word => Finding::ok("huge pages", format!("transparent huge pages: {word}")),
    })
}

fn sandbox(facts: &Facts, config: &ConfigFacts) -> Option<Finding> {
    let requires = config.shell_requires.as_ref()?;
    let SandboxFacts { level, missing, enough } = facts.machine.sandbox.as_ref()?;
    let what = format!("the sandbox for commands is {level}, and tools.shell.require = {requires:?}");
    let why = match missing.is_empty() {
        true => "a layer did not answer".to_string(),
        false => missing.join("; "),
    };
    let next = "`quorate sandbox check` names each layer; docs/sandbox.md says what a machine needs (cgroups v2 delegated to \
                the unit, user namespaces, Landlock)";
    Some(match (*enough, level.as_str()) {
        (false, _) => Finding::fail("sandbox", what, &why, next),
        (true, "full") => Finding::ok("sandbox", what),
        (true, _) => Finding::warn("sandbox", what, &why, next),
    })
}
