//! Who can reach the node and whom it believes: ports, certificates, API keys.

use super::facts::{CertificateFacts, ConfigFacts, KeysFacts, PortFacts, TlsFacts};
use super::{Facts, Finding};

const DAY_S: i64 = 86_400;
/// A certificate is renewed in this time before its end.
const RENEW_DAYS: i64 = 14;
const RENEW_CA_DAYS: i64 = 60;
/// Permission bits of everyone but the owner.
const OTHERS: u32 = 0o077;
/// A group may read the hashes of keys; everyone may not.
const EVERYONE: u32 = 0o007;

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = ports(facts);
    if let (Some(tls), Ok(config)) = (&facts.tls, &facts.config) {
        findings.extend(certificates(tls, config, facts.now_s));
    }
    findings.extend(facts.keys.as_ref().map(keys));
    findings
}

fn ports(facts: &Facts) -> Vec<Finding> {
    // A running node holds its own ports, and nobody else can.
    let runs = facts.folder.as_ref().is_some_and(|folder| folder.used_by.is_some());
    let taken: Vec<&PortFacts> = facts.ports.iter().filter(|port| port.taken.is_some() && !runs).collect();
    if taken.is_empty() && !facts.ports.is_empty() {
        let all: Vec<&str> = facts.ports.iter().map(|port| port.address.as_str()).collect();
        let whose = if runs { "held by this node" } else { "free" };
        return vec![Finding::ok("ports", format!("{} are {whose}", all.join(", ")))];
    }
    let fail = |port: &&PortFacts| {
        Finding::fail(
            "ports",
            format!("{} = {}: {}", port.key, port.address, port.taken.as_deref().unwrap_or_default()),
            "the node does not start where it cannot listen",
            "stop what listens there (`ss -ltnp` names it), or choose another address in the configuration",
        )
    };
    taken.iter().map(fail).collect()
}

fn certificates(tls: &TlsFacts, config: &ConfigFacts, now_s: i64) -> Vec<Finding> {
    let mut findings = vec![key_file(tls)];
    findings.extend(tls.ca.iter().filter_map(|ca| ca_end(ca, now_s)));
    match &tls.own {
        Some(own) => findings.push(own_certificate(tls, own, config, now_s)),
        None => findings.push(unusable(tls, "it cannot be read")),
    }
    findings
}

fn key_file(tls: &TlsFacts) -> Finding {
    let file = &tls.key_file;
    match tls.key_mode {
        Some(mode) if mode & OTHERS != 0 => Finding::fail(
            "key file",
            format!("others may read this node's key {file} (mode {:o})", mode & 0o777),
            "whoever has the key can be this node",
            format!("chmod 600 {file}; if others use this machine, make a new one with `quorate cert node`"),
        ),
        Some(_) => Finding::ok("key file", format!("{file} is its owner's alone")),
        None => Finding::fail(
            "key file",
            format!("{file} is not there"),
            "without it the certificate is of no use",
            "copy both files that `quorate cert node` made",
        ),
    }
}

fn ca_end(ca: &CertificateFacts, now_s: i64) -> Option<Finding> {
    let days = (ca.until_s - now_s).div_euclid(DAY_S);
    let why = "with it every certificate that it signed ends, on every node and client at once";
    let next = "bring a second CA in while both are accepted: docs/security.md, Certificates";
    match days {
        ..0 => {
            Some(Finding::fail("CA", format!("the CA {} ended {} days ago", ca.subject, -days), why, next))
        }
        0..RENEW_CA_DAYS => {
            Some(Finding::warn("CA", format!("the CA {} ends in {days} days", ca.subject), why, next))
        }
        _ => None,
    }
}

fn unusable(tls: &TlsFacts, otherwise: &str) -> Finding {
    let what = tls.unusable.clone().unwrap_or_else(|| otherwise.into());
    let why = "other nodes believe a node by its certificate alone";
    Finding::fail(
        "certificate",
        what,
        why,
        "make both files with `quorate cert node` and the cluster's own CA",
    )
}

fn own_certificate(tls: &TlsFacts, own: &CertificateFacts, config: &ConfigFacts, now_s: i64) -> Finding {
    let file = &tls.cert_file;
    let why = "other nodes believe a node by its certificate alone";
    let renew =
        format!("make another with `quorate cert node --name {} …`, then `systemctl reload`", config.name);
    let fail = |what: String, next: String| Finding::fail("certificate", what, why, next);
    let days = (own.until_s - now_s).div_euclid(DAY_S);
    if own.from_s > now_s {
        let later_s = own.from_s - now_s;
        return fail(
            format!("{file} holds only in {later_s} s"),
            "set this machine's clock, or wait; if the clock was wrong where it was made, make another"
                .into(),
        );
    }
    if days < 0 {
        return fail(format!("{file} ended {} days ago", -days), renew);
    }
    if let Some(named) = own.node.as_ref().filter(|named| **named != config.name) {
        return fail(format!("{file} is that of node {named:?}, and this is {:?}", config.name), renew);
    }
    if tls.unusable.is_some() {
        return unusable(tls, "");
    }
    let stranger = config.advertised_hosts.iter().find(|host| !own.addresses.contains(host));
    if let Some(host) = stranger {
        let names = own.addresses.join(", ");
        return fail(
            format!("others are told {host}, and {file} is for {names}"),
            format!(
                "make one for it: `quorate cert node --name {} --addr {host},{}`",
                config.name,
                own.addresses.join(",")
            ),
        );
    }
    match days {
        0..RENEW_DAYS => Finding::warn("certificate", format!("{file} ends in {days} days"), why, renew),
        _ => Finding::ok("certificate", format!("{file} is this node's, for {days} more days")),
    }
}

fn keys(keys: &KeysFacts) -> Finding {
    let KeysFacts { file, mode, unusable } = keys;
    match (unusable, mode) {
        (Some(error), _) => Finding::fail(
            "API keys",
            error.clone(),
            "without the file nobody can be told from anybody else, and the node does not start",
            "correct the entry, or make it again with `quorate key new --file`",
        ),
        (None, Some(mode)) if mode & EVERYONE != 0 => Finding::warn(
            "API keys",
            format!("everyone on this machine may read {file}"),
            "it tells who has access to what; the keys themselves are not in it",
            format!("chmod 640 {file}"),
        ),
        _ => Finding::ok("API keys", format!("{file} is understood")),
    }
}
