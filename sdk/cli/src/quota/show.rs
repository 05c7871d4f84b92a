//! The quota tree as people read it.

use crate::output::{printable, table};
use quorate_sdk::data::{Limit, LimitKind, Quota, QuotaEvent};
use std::collections::BTreeSet;

/// The tree: a place's name, below it a line for each thing that is limited or held there.
pub(crate) fn tree_table(quotas: &[Quota]) -> String {
    let pledged = pledged(quotas);
    let rows: Vec<_> = sorted(quotas).into_iter().flat_map(|quota| place(quota, &pledged)).collect();
    table(&["PLACE", "LIMIT", "USED", "RESERVED", "GUARANTEED", "BORROWED", "REASON"], &rows)
}

/// One line for each limit and everything used.
pub(crate) fn usage_table(quotas: &[Quota]) -> String {
    let row = |quota: &Quota, key: &str, it: &Limit| {
        let share = it
            .limit
            .filter(|limit| *limit > 0)
            .map(|limit| percent(it.used.saturating_add(it.reserved), limit));
        let until = it.window_end.map(|end| end.to_string()).unwrap_or_default();
        let (limit, used, reserved) = (limit(it.limit), it.used.to_string(), it.reserved.to_string());
        vec![quota.path.clone(), key.into(), limit, used, reserved, share.unwrap_or_default(), until]
    };
    let rows: Vec<_> = sorted(quotas)
        .into_iter()
        .flat_map(|quota| quota.limits.iter().map(|(key, it)| row(quota, key, it)))
        .collect();
    let head = ["PATH", "KEY", "LIMIT", "USED", "RESERVED", "SHARE", "WINDOW ENDS"];
    let mut text = table(&head, &rows);
    if let [quota] = quotas {
        text += &format!("etag {}", printable(&quota.etag));
        if !quota.author.is_empty() {
            text += &format!(", by {}", printable(&quota.author));
        }
        if !quota.reason.is_empty() {
            text += &format!(": {}", printable(&quota.reason));
        }
        text.push('\n');
    }
    text
}

/// A change, done or only tried.
pub(crate) fn change_table(quota: &Quota) -> String {
    let mut text = usage_table(std::slice::from_ref(quota));
    if !quota.would_wait.is_empty() {
        text += &format!("running tasks that would have to wait: {}\n", quota.would_wait.join(" "));
    }
    text
}

/// One change of a watched place, or what the audit log said.
pub(super) fn event(event: &QuotaEvent) -> String {
    match event {
        QuotaEvent::Audit(event) => super::audit_line(event),
        QuotaEvent::Quota(quota) => {
            let shown = quota.limits.iter().filter(|(_, it)| it.limit.is_some() || it.reserved > 0);
            let one = |(key, it): (&String, &Limit)| {
                let reserved = if it.reserved > 0 { format!("+{}", it.reserved) } else { String::new() };
                format!("{key} {}{reserved}/{}", it.used, limit(it.limit))
            };
            let limits: Vec<String> = shown.map(one).collect();
            format!("{}: {}\n", printable(&quota.path), printable(&limits.join(", ")))
        }
    }
}

fn sorted(quotas: &[Quota]) -> Vec<&Quota> {
    let mut sorted: Vec<&Quota> = quotas.iter().collect();
    sorted.sort_by(|a, b| a.path.cmp(&b.path));
    sorted
}

fn limit(limit: Option<u64>) -> String {
    limit.map_or("none".to_string(), |limit| limit.to_string())
}

fn percent(used: u64, limit: u64) -> String {
    format!("{} %", u128::from(used) * 100 / u128::from(limit))
}

/// Holdings that somebody is guaranteed: only there can anything be borrowed.
fn pledged(quotas: &[Quota]) -> BTreeSet<String> {
    let keys = quotas.iter().flat_map(|quota| quota.limits.keys());
    keys.filter(|key| key.contains("_guaranteed")).map(|key| key.replacen("_guaranteed", "", 1)).collect()
}

/// Below everything is the cluster, below a project its agents.
fn depth(path: &str) -> usize {
    match path.strip_prefix("projects/") {
        None => 0,
        Some(rest) => 1 + rest.replacen("/agents/", "/", 1).matches('/').count(),
    }
}

fn place(quota: &Quota, pledged: &BTreeSet<String>) -> Vec<Vec<String>> {
    let indent = "  ".repeat(depth(&quota.path));
    let mut rows = vec![vec![
        format!("{indent}{}", quota.path),
        String::new(),
        String::new(),
        String::new(),
        String::new(),
        String::new(),
        quota.reason.clone(),
    ]];
    for key in keys(quota) {
        rows.push(line(quota, &key, &indent, pledged.contains(&key)));
    }
    rows
}

/// What has a limit, is held, or was used for good; windows without a limit say nothing new.
fn keys(quota: &Quota) -> BTreeSet<String> {
    let interesting = |(key, it): &(&String, &Limit)| {
        let used = it.used > 0 && (it.kind != LimitKind::Budget || it.window_end.is_none());
        it.limit.is_some() || it.reserved > 0 && it.window_end.is_none() || used || key.as_str() == "running"
    };
    let base = |key: &str| {
        let bound = ["_guaranteed", "_borrow", "_lend"].into_iter().find(|bound| key.contains(bound));
        bound.map_or(key.to_string(), |bound| key.replacen(bound, "", 1))
    };
    quota.limits.iter().filter(interesting).map(|(key, _)| base(key)).collect()
}

fn line(quota: &Quota, key: &str, indent: &str, pledged: bool) -> Vec<String> {
    let it = quota.limits.get(key).copied().unwrap_or_default();
    let (word, to) = key.split_once(':').map_or((key, String::new()), |(word, to)| (word, format!(":{to}")));
    let guaranteed = quota.limits.get(&format!("{word}_guaranteed{to}")).and_then(|it| it.limit);
    let borrowed = if pledged { it.used.saturating_sub(guaranteed.unwrap_or(0)) } else { 0 };
    vec![
        format!("{indent}  {key}"),
        limit(it.limit),
        it.used.to_string(),
        it.reserved.to_string(),
        guaranteed.map(|amount| amount.to_string()).unwrap_or_default(),
        if borrowed > 0 { borrowed.to_string() } else { String::new() },
        String::new(),
    ]
}
