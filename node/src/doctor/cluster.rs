//! The cluster and what it shares: members, versions, models.

use super::facts::{ClusterFacts, MemberFacts, MembersFacts, ModelFacts, ModelFile};
use super::{Facts, Finding};
use std::collections::BTreeMap;

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let joins = facts.config.as_ref().is_ok_and(|config| !config.join.is_empty());
    let mut findings: Vec<Finding> = facts.models.iter().map(|it| model(it, joins)).collect();
    match &facts.cluster {
        ClusterFacts::Alone => {}
        ClusterFacts::Silent { asked, why } => findings.push(silent(asked, why)),
        ClusterFacts::Answered(cluster) => {
            findings.push(leader(cluster));
            findings.push(members(cluster));
            findings.push(versions(cluster));
            findings.push(identity(cluster));
        }
    }
    findings
}

fn model(it: &ModelFacts, joins: bool) -> Finding {
    let name = &it.name;
    let why = "tasks move between workers, and go on only with the very same weights";
    match &it.file {
        ModelFile::Absent { .. } if joins => Finding::ok(
            "model",
            format!("{name} is not here yet; the node takes it from another that has it"),
        ),
        ModelFile::Absent { looked_in } => Finding::fail(
            "model",
            format!("{name} is named in engine.models and not on this machine (looked in {looked_in})"),
            "a worker does not start without the models that it promises",
            format!("quorate model pull {name}"),
        ),
        ModelFile::Unreadable(error) => {
            Finding::fail("model", format!("{name}: {error}"), why, format!("quorate model pull {name}"))
        }
        ModelFile::There { path, digest, noted: Some(noted) } if noted != digest => Finding::fail(
            "model",
            format!(
                "{path} is not what was taken in: its digest is {}…, {}… was noted",
                short(digest),
                short(noted)
            ),
            why,
            format!("remove {path} and take it in again: `quorate model pull {name}`"),
        ),
        ModelFile::There { digest, .. }
            if it.cluster_digest.as_ref().is_some_and(|known| known != digest) =>
        {
            let known = it.cluster_digest.as_deref().unwrap_or_default();
            Finding::fail(
                "model",
                format!(
                    "the cluster knows {name} with digest {}…, here it is {}…",
                    short(known),
                    short(digest)
                ),
                why,
                "give the other weights another name, or remove the file: the node takes the cluster's",
            )
        }
        ModelFile::There { digest, .. } => Finding::ok("model", format!("{name}, digest {}…", short(digest))),
    }
}

fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

fn silent(asked: &[String], why: &str) -> Finding {
    Finding::fail(
        "cluster",
        format!("no node of the cluster answers at {} ({why})", asked.join(", ")),
        "a node without a majority of coordinators takes no work",
        "check that they run and that port 7401 is open between the nodes (`nc -z HOST 7401`); correct `join`",
    )
}

fn leader(cluster: &MembersFacts) -> Finding {
    match cluster.leader {
        true => Finding::ok("leader", "the cluster has a leader"),
        false => Finding::fail(
            "leader",
            "the cluster has no leader",
            "nothing is accepted until a majority of the coordinators can talk to each other",
            "start the coordinators that are down; if a majority is lost for good: deploy/RUNBOOK.md, Lost quorum",
        ),
    }
}

fn members(cluster: &MembersFacts) -> Finding {
    let away: Vec<&str> =
        cluster.members.iter().filter(|it| !it.attached).map(|it| it.name.as_str()).collect();
    match away.is_empty() || !cluster.leader {
        true => Finding::ok("members", format!("{} members are known", cluster.members.len())),
        false => Finding::warn(
            "members",
            format!("not attached: {}", away.join(", ")),
            "each that is away is one failure less that the cluster survives",
            "start them, or replace what is gone for good: deploy/RUNBOOK.md, Replace a lost host",
        ),
    }
}

fn versions(cluster: &MembersFacts) -> Finding {
    let mut by_version: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for MemberFacts { name, version, .. } in &cluster.members {
        by_version.entry(version).or_default().push(name);
    }
    let told: Vec<String> =
        by_version.iter().map(|(version, names)| format!("{version}: {}", names.join(", "))).collect();
    match by_version.len() {
        0..=1 => Finding::ok(
            "versions",
            format!("all nodes run {}", by_version.keys().next().unwrap_or(&"the same")),
        ),
        _ => Finding::warn(
            "versions",
            format!("nodes run different versions ({})", told.join("; ")),
            "new abilities wait for the oldest node, and two versions are meant for the hours of an upgrade",
            "finish the upgrade, or go back: deploy/RUNBOOK.md, Upgrade",
        ),
    }
}

fn identity(cluster: &MembersFacts) -> Finding {
    let why = "two nodes with one identity would answer for each other";
    match (&cluster.double, cluster.same_disk) {
        (Some(address), _) => Finding::fail(
            "membership",
            format!("another process runs as this node, at {address}"),
            why,
            "stop one of them; a copied data folder is no new node: give that one an empty data_dir and a name of its own",
        ),
        (None, Some(false)) => Finding::fail(
            "membership",
            "the cluster knows this node's name with another disk",
            why,
            "give this node another name, or bring its old disk back; a lost disk never returns under its old id",
        ),
        (None, Some(true)) => Finding::ok("membership", "the cluster knows this node by its disk"),
        (None, None) => Finding::ok("membership", "this node has not joined yet"),
    }
}
