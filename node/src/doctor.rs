//! `quorate doctor`: what is wrong, or will be soon, with this machine and this node, found before a user finds it.
//!
//! What is there is looked at once (`look`), as plain [`Facts`]; what they mean is judged by functions that open nothing
//! (`machine`, `disk`, `access`, `cluster`). It changes nothing but a small file of its own, which it removes again.
//!
//! Read: `facts`, then any of the judges, then `look`.

mod access;
mod cluster;
mod disk;
pub mod facts;
pub mod look;
mod machine;

pub use facts::Facts;

use serde::Serialize;

/// How bad it is. Ordered: more is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Ok,
    /// The node works, and something should be done before it stops doing so.
    Warn,
    /// The node does not start, or breaks a promise.
    Fail,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            State::Ok => "ok",
            State::Warn => "warn",
            State::Fail => "FAIL",
        }
    }
}

/// What one check says. `why` and `next` are empty where all is well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub check: &'static str,
    pub state: State,
    pub what: String,
    pub why: String,
    pub next: String,
}

impl Finding {
    fn ok(check: &'static str, what: impl Into<String>) -> Finding {
        Finding { check, state: State::Ok, what: what.into(), why: String::new(), next: String::new() }
    }

    fn warn(check: &'static str, what: impl Into<String>, why: &str, next: impl Into<String>) -> Finding {
        Finding { check, state: State::Warn, what: what.into(), why: why.into(), next: next.into() }
    }

    fn fail(check: &'static str, what: impl Into<String>, why: &str, next: impl Into<String>) -> Finding {
        Finding { state: State::Fail, ..Finding::warn(check, what, why, next) }
    }
}

/// Every check's findings, in the order in which people would look.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![config(facts)];
    findings.extend(machine::judge(facts));
    findings.extend(disk::judge(facts));
    findings.extend(access::judge(facts));
    findings.extend(cluster::judge(facts));
    findings
}

/// The worst of them.
pub fn worst(findings: &[Finding]) -> State {
    findings.iter().map(|finding| finding.state).max().unwrap_or(State::Ok)
}

fn config(facts: &Facts) -> Finding {
    match &facts.config {
        Ok(config) => Finding::ok(
            "config",
            format!("{} is understood, as {}", config.origin, config.roles.join(" and ")),
        ),
        Err(why) => Finding::fail(
            "config",
            why.clone(),
            "a node starts only with a configuration that it understands to the last key",
            "correct it; `quorate config check FILE` judges it again, docs/reference/config.md has every key",
        ),
    }
}

/// Bytes for people.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let step = (0..UNITS.len() - 1).find(|step| count >> (10 * (step + 1)) == 0).unwrap_or(UNITS.len() - 1);
    let tenths = (count as u128 * 10) >> (10 * step);
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[step])
}

#[cfg(test)]
mod doctor_test;
