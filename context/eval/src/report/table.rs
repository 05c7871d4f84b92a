//! The report for people at a terminal.

use super::{CallReport, Report, SegmentReport};
use std::fmt::Write;

const HEAD: [&str; 11] = [
    "id",
    "owner",
    "kind",
    "tokens",
    "repeats",
    "attention",
    "bits",
    "needed",
    "enough",
    "cluster",
    "verdict",
];
/// Columns 3 and 5 to 9 are numbers and stand to the right.
const RIGHT: [bool; 11] = [false, false, false, true, false, true, true, true, true, true, false];
/// Characters of one cell; ids of others may be long.
const CELL: usize = 40;

/// The whole report as text.
pub fn table(report: &Report) -> String {
    let mut text = format!("model {}\n", report.model_sha256);
    report.calls.iter().for_each(|call| call_table(&mut text, call));
    pairs(&mut text, report);
    for skipped in &report.skipped {
        let _ = writeln!(text, "\nskipped: call {}: {}", plain(&skipped.call), plain(&skipped.why));
    }
    totals(&mut text, report);
    text
}

fn call_table(text: &mut String, call: &CallReport) {
    let _ = writeln!(text, "\ncall {}, read by {}: {}", plain(&call.call), plain(&call.reader), state(call));
    if !call.segments.is_empty() {
        let rows: Vec<[String; 11]> = call.segments.iter().map(row).collect();
        columns(text, &rows);
    }
    if let Some(removable) = call.removable_tokens {
        let of = call.context_tokens();
        let _ = writeln!(text, "removable at 0.5 nat: {removable} of {of} tokens{}", percent(removable, of));
    }
    for withheld in call.withheld.iter().filter(|withheld| withheld.mattered) {
        let (id, owner) = (plain(&withheld.id), plain(&withheld.owner));
        let _ = writeln!(text, "missing: {id} of {owner}, worth {:.2} nats", withheld.gain_nats);
    }
    for summary in &call.summaries {
        let kept = summary.retention.map_or("blind".into(), |kept| format!("{:.0} % kept", kept * 100.0));
        let _ = writeln!(text, "summary {}: {kept} in {} tokens", plain(&summary.id), summary.tokens);
    }
    costs(text, call);
}

fn state(call: &CallReport) -> String {
    let gain = call.gain_nats;
    match call.tau {
        None => format!("blind here, the context is worth {gain:.2} nats only"),
        Some(tau) => format!("the context is worth {gain:.2} nats, threshold {tau:.2}"),
    }
}

fn costs(text: &mut String, call: &CallReport) {
    let (spent, other) = (call.tokens_spent, call.answer_based_tokens());
    let _ = writeln!(
        text,
        "spent: {spent} tokens (scores {}, search {}, withheld {}); the context once, where not cached: {}",
        call.costs.scores,
        call.costs.trim,
        call.costs.withheld,
        call.context_tokens()
    );
    let _ = match call.audit_max_nats {
        Some(most) => writeln!(
            text,
            "audit: {} tokens, masked and exact differ by {most:.2} nats at most",
            call.costs.audit
        ),
        None => writeln!(text, "audit: not this call"),
    };
    let _ = writeln!(text, "answer-based: {other} tokens{}", spent_of(spent, other));
}

fn spent_of(spent: u64, other: u64) -> String {
    format!("; this took {:.2} % of that", spent as f64 * 100.0 / other.max(1) as f64)
}

fn percent(part: u64, of: u64) -> String {
    if of == 0 { String::new() } else { format!(" ({:.0} %)", part as f64 * 100.0 / of as f64) }
}

fn row(segment: &SegmentReport) -> [String; 11] {
    let nats = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.2}"));
    let with = segment.redundant_with.join(" ");
    [
        segment.id.clone(),
        segment.owner.clone(),
        segment.kind.clone(),
        segment.tokens.to_string(),
        segment.dup_of.clone().unwrap_or("-".into()),
        segment.attention.map_or("-".into(), |share| format!("{share:.3}")),
        segment.bits.map_or("-".into(), |bits| format!("{bits:.0}")),
        nats(segment.necessity),
        nats(segment.sufficiency),
        nats(segment.cluster_out),
        format!("{} {with}", segment.verdict.name()).trim_end().to_string(),
    ]
}

fn columns(text: &mut String, rows: &[[String; 11]]) {
    let rows: Vec<[String; 11]> = rows.iter().map(|row| row.clone().map(|text| cell(&text))).collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0).max(HEAD[column].len())
    };
    let widths: [usize; 11] = std::array::from_fn(width);
    line(text, &HEAD.map(str::to_string), &widths);
    rows.iter().for_each(|row| line(text, row, &widths));
}

fn line(text: &mut String, row: &[String; 11], widths: &[usize; 11]) {
    let cells = row.iter().zip(widths).zip(RIGHT).map(|((cell, &width), right)| {
        if right { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
    });
    let cells: Vec<String> = cells.collect();
    let _ = writeln!(text, "  {}", cells.join("  ").trim_end());
}

/// What others wrote, without what moves a terminal's cursor.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// The same, short enough for a column.
fn cell(text: &str) -> String {
    let text = plain(text);
    if text.chars().count() <= CELL {
        return text;
    }
    text.chars().take(CELL - 1).chain(['…']).collect()
}

fn pairs(text: &mut String, report: &Report) {
    let share =
        |value: Option<f64>| value.map_or("unknown".into(), |value| format!("{:.0} %", value * 100.0));
    if !report.pairs.is_empty() {
        let _ = writeln!(text, "\nsharing");
    }
    for pair in &report.pairs {
        let (precision, recall) = (share(pair.precision), share(pair.recall));
        let (from, to) = (plain(&pair.from), plain(&pair.to));
        let _ = writeln!(text, "  {from} to {to}: precision {precision}, recall {recall}");
    }
}

fn totals(text: &mut String, report: &Report) {
    let sum = |of: fn(&CallReport) -> u64| report.calls.iter().map(of).sum::<u64>();
    let (spent, other) = (sum(|call| call.tokens_spent), sum(CallReport::answer_based_tokens));
    let inert = sum(inert);
    let judged = sum(|call| if call.gated { 0 } else { call.context_tokens() });
    let repeated = sum(|call| call.segments.iter().filter(|s| s.dup_of.is_some()).map(|s| s.tokens).sum());
    let context = sum(CallReport::context_tokens);
    let removable = sum(|call| call.removable_tokens.unwrap_or(0));
    let blind = report.calls.iter().filter(|call| call.gated).count();
    let _ = writeln!(
        text,
        "\n{} calls, {blind} blind, {} skipped; tokens: {context}, repeated {repeated}{}, inert {inert}{}, removable {removable}{}",
        report.calls.len(),
        report.skipped.len(),
        percent(repeated, context),
        percent(inert, judged),
        percent(removable, judged),
    );
    let audit = sum(|call| call.costs.audit);
    let _ =
        writeln!(text, "spent {spent} tokens, audit {audit}; answer-based {other}{}", spent_of(spent, other));
}

fn inert(call: &CallReport) -> u64 {
    use crate::judge::Verdict::{ForeignInert, Inert};
    let inert = call.segments.iter().filter(|segment| matches!(segment.verdict, Inert | ForeignInert));
    inert.map(|segment| segment.tokens).sum()
}
