//! The report as bytes. `UPDATE=1` writes it anew: read the difference before you keep it.

use crate::fake::{Fake, among, call, fact, segment, trivia};
use evaluate::{Audit, Call, Report, Settings, evaluate, html, table};
use std::path::Path;

fn calls() -> Vec<Call> {
    let copy = trivia("copy", 20);
    let mut first = call(among(4, &[(1, "take 4711 now"), (3, &copy)]));
    first.segments[0].owner = "reader".into();
    let mut second = call(vec![segment("x1", "anna", &copy), segment("x2", "reader", "go north")]);
    second.name = "2".into();
    second.withheld = Some(vec![segment("x3", "anna", "take 4711 now")]);
    let mut blind = call(vec![segment("x4", "anna", "nothing of use")]);
    blind.name = "3".into();
    let mut long = call(among(40, &[]));
    long.name = "4".into();
    vec![first, second, blind, long]
}

fn report() -> Report {
    let facts = vec![fact(&[&["4711"]], 8.25), fact(&[&["north"]], 3.5)];
    let mut fake = Fake { window: 200, ..Fake::noisy(facts, 1, 0.5) };
    let settings = Settings { audit: Audit::All, ..Settings::default() };
    evaluate(&calls(), &settings, &mut fake).expect("a report")
}

fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/eval/golden").join(name);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, text).expect("written");
    }
    let kept = std::fs::read_to_string(&path).expect("the golden file is committed");
    assert_eq!(text, kept, "{name} changed");
}

#[test]
fn the_report_has_these_bytes() {
    golden("report.json", &report().json());
}

#[test]
fn the_table_has_these_lines() {
    golden("table.txt", &table(&report()));
}

#[test]
fn the_page_has_these_bytes() {
    let page = html(&report(), &calls());
    assert!(page.contains("repeats</span> <a href=\"#c0s3\">s3</a>"), "a copy in another call is linked");
    golden("page.html", &page);
}

/// Where each key stands in the text, in that order.
fn in_order(text: &str, keys: &[&str]) {
    let places: Vec<usize> = keys
        .iter()
        .map(|key| text.find(&format!("\"{key}\":")).unwrap_or_else(|| panic!("{key} is missing")))
        .collect();
    assert!(places.is_sorted(), "{keys:?} stand at {places:?}");
}

#[test]
fn the_form_is_the_agreed_one() {
    let json = report().json();
    in_order(
        &json,
        &[
            "model_sha256",
            "calls",
            "call",
            "gated",
            "gain_nats",
            "tau",
            "audit_max_nats",
            "tokens_spent",
            "removable_tokens",
            "segments",
            "id",
            "owner",
            "kind",
            "tokens",
            "dup_of",
            "attention",
            "bits",
            "necessity",
            "sufficiency",
            "cluster_out",
            "verdict",
            "pairs",
            "from",
            "to",
            "precision",
            "recall",
        ],
    );
    let value: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let keys = |value: &serde_json::Value| value.as_object().map(|fields| fields.len());
    assert_eq!(keys(&value["calls"][0]), Some(8), "no more keys than agreed");
    assert_eq!(keys(&value["calls"][0]["segments"][0]), Some(11));
    assert_eq!(keys(&value["pairs"][0]), Some(4));
}
