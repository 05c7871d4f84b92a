//! `cert init|node|client|rotate|show`: the cluster's CA, and what it signs. Files only: no node is asked.

use crate::identity::{Identity, Role};
use crate::tls::certificate::{Certificate, Who, day};
use crate::tls::issue::{self, Made};
use crate::tls::rotate;
use serde_json::json;
use std::path::Path;
use time::OffsetDateTime;

/// How long what is made holds where nobody says.
pub const CA_DAYS: u32 = issue::CA_DAYS;
pub const NODE_DAYS: u32 = issue::NODE_DAYS;
pub const CLIENT_DAYS: u32 = issue::CLIENT_DAYS;

pub fn cert_init(folder: &Path, cluster: &str, days: u32, json: bool) -> anyhow::Result<()> {
    let made = issue::ca(folder, cluster, days, OffsetDateTime::now_utc())?;
    told(&made, json);
    let next = "keep ca.key away from the nodes: whoever has it can be any node. Next: `quorate cert node`";
    eprintln!("{next}");
    Ok(())
}

pub fn cert_node(
    folder: &Path,
    name: &str,
    addresses: &[String],
    days: u32,
    json: bool,
) -> anyhow::Result<()> {
    let made = issue::node(folder, name, addresses, days, OffsetDateTime::now_utc())?;
    told(&made, json);
    eprintln!("copy both, and ca.crt, to the node; its config names them: [tls] ca = …, cert = …, key = …");
    Ok(())
}

/// `project`: a name, or `*` for every project.
pub fn cert_client(
    folder: &Path,
    subject: &str,
    project: &str,
    role: &str,
    days: u32,
    json: bool,
) -> anyhow::Result<()> {
    let identity = identity(subject, project, role)?;
    let made = issue::client(folder, &identity, days, OffsetDateTime::now_utc())?;
    told(&made, json);
    eprintln!(
        "use them with --ca ca.crt --cert {} --cert-key {}",
        made.certificate.display(),
        made.key.display()
    );
    Ok(())
}

pub(super) fn identity(subject: &str, project: &str, role: &str) -> anyhow::Result<Identity> {
    let role = Role::parse(role).map_err(|why| anyhow::anyhow!("--role: {why}"))?;
    Identity::new(subject, project, role).map_err(anyhow::Error::msg)
}

fn told(made: &Made, json: bool) {
    if json {
        say!("{}", json!({ "certificate": made.certificate, "key": made.key }));
    } else {
        say!("{}\n{}", made.certificate.display(), made.key.display());
    }
}

/// The three steps from one CA to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RotateStep {
    Trust,
    Issue,
    Finish,
}

pub fn cert_rotate(folder: &Path, step: RotateStep, days: u32, json: bool) -> anyhow::Result<()> {
    let now = OffsetDateTime::now_utc();
    let (files, next) = match step {
        RotateStep::Trust => (
            rotate::trust(folder, days, now)?,
            "copy ca.crt to every node and every client, and reload each node; when all have it: `quorate cert rotate issue`",
        ),
        RotateStep::Issue => (
            rotate::issue_all(folder, now)?,
            "copy ca.crt and its own two files to each node, and reload it; when all have them: `quorate cert rotate finish`",
        ),
        RotateStep::Finish => (
            rotate::finish(folder)?,
            "copy ca.crt to every node and every client, reload each node, and restart the nodes one after another: \
             connections that are open are not looked at again",
        ),
    };
    match json {
        true => say!("{}", json!({ "files": files, "next": next })),
        false => files.iter().for_each(|file| say!("{}", file.display())),
    }
    eprintln!("{next}");
    Ok(())
}

pub fn cert_show(file: &Path, json: bool) -> anyhow::Result<()> {
    let now_s = OffsetDateTime::now_utc().unix_timestamp();
    let shown = issue::show(file)?;
    if json {
        let all: Vec<_> = shown.iter().map(|certificate| as_json(certificate, now_s)).collect();
        say!("{}", serde_json::to_string(&all)?);
        return Ok(());
    }
    for certificate in &shown {
        for (what, text) in rows(certificate, now_s) {
            say!("{what:<10} {text}");
        }
    }
    Ok(())
}

fn as_json(certificate: &Certificate, now_s: i64) -> serde_json::Value {
    json!({
        "subject": certificate.subject,
        "issuer": certificate.issuer,
        "kind": kind(certificate),
        "uri": certificate.who.as_ref().map(Who::uri),
        "addresses": certificate.addresses,
        "not_before": day(certificate.not_before_s),
        "not_after": day(certificate.not_after_s),
        "days_left": days_left(certificate, now_s),
    })
}

fn rows(certificate: &Certificate, now_s: i64) -> Vec<(&'static str, String)> {
    let left = days_left(certificate, now_s);
    let end = day(certificate.not_after_s);
    vec![
        ("subject", certificate.subject.clone()),
        ("issuer", certificate.issuer.clone()),
        ("kind", kind(certificate).to_string()),
        ("uri", certificate.who.as_ref().map_or("-".into(), Who::uri)),
        ("addresses", certificate.addresses.join(", ")),
        ("from", day(certificate.not_before_s)),
        ("until", if left < 0 { format!("{end} (EXPIRED)") } else { format!("{end} ({left} days left)") }),
    ]
}

fn kind(certificate: &Certificate) -> &'static str {
    match &certificate.who {
        Some(Who::Node { .. }) => "node",
        Some(Who::Client { .. }) => "client",
        None if certificate.is_ca => "ca",
        None => "unknown",
    }
}

fn days_left(certificate: &Certificate, now_s: i64) -> i64 {
    (certificate.not_after_s - now_s).div_euclid(86_400)
}
