//! Input that wants to do harm, and sizes at their bounds.

use crate::fake::{Fake, call, fact, segment};
use evaluate::{
    Audit, Call, Child, EvaluateError, Form, Meaning, Report, Scorer, Settings, Tokenised, Verdict, evaluate,
    html, read, table,
};
use proptest::prelude::*;
use std::convert::Infallible;

/// Answers from the child alone: segment `at` is worth five nats.
struct Quick {
    at: usize,
    answer: fn(usize) -> Vec<f64>,
}

impl Scorer for Quick {
    type Error = Infallible;

    fn model_sha256(&self) -> String {
        String::new()
    }

    fn window(&self) -> usize {
        1 << 20
    }

    fn tokenise(&mut self, call: &Call) -> Result<Tokenised, Infallible> {
        let segments = (0..call.segments.len() as u32).map(|at| vec![at]).collect();
        Ok(Tokenised { segments, withheld: Vec::new(), probe: vec![1], action: vec![2] })
    }

    fn score(&mut self, call: &Tokenised, children: &[Child]) -> Result<Vec<f64>, Infallible> {
        let broken = (self.answer)(children.len());
        if !broken.is_empty() {
            return Ok(broken);
        }
        let n = call.segments.len();
        let kept = |child: &Child| match &child.pieces {
            evaluate::Pieces::Only(kept) => kept.contains(&self.at),
            evaluate::Pieces::AllBut(omitted) => self.at < n && !omitted.contains(&self.at),
        };
        Ok(children.iter().map(|child| if kept(child) { -1.0 } else { -6.0 }).collect())
    }
}

#[test]
fn ten_thousand_segments_are_judged() {
    let segments = (0..10_000).map(|at| segment(&at.to_string(), "w", "t")).collect();
    let settings = Settings { audit: Audit::All, ..Settings::default() };
    let mut quick = Quick { at: 7777, answer: |_| Vec::new() };
    let report = evaluate(&[call(segments)], &settings, &mut quick).expect("a report");
    let call = &report.calls[0];
    let essential: Vec<usize> =
        (0..10_000).filter(|&at| call.segments[at].verdict == Verdict::Essential).collect();
    assert_eq!(essential, [7777]);
    assert_eq!(call.removable_tokens, Some(9_999));
    assert!(html(&report, &[]).len() > 1_000_000);
}

#[test]
fn an_engine_that_answers_nonsense_is_an_error() {
    let answers: [fn(usize) -> Vec<f64>; 3] =
        [|n| vec![f64::NAN; n], |n| vec![f64::NEG_INFINITY; n], |n| vec![0.0; n + 1]];
    for answer in answers {
        let broken = evaluate(
            &[call(vec![segment("a", "w", "t")])],
            &Settings::default(),
            &mut Quick { at: 0, answer },
        );
        assert!(matches!(broken, Err(EvaluateError::Scores { .. })));
    }
}

#[test]
fn no_segment_and_empty_segments_are_blind_or_inert() {
    let facts = || vec![fact(&[&["4711"]], 5.0)];
    let none =
        evaluate(&[call(Vec::new())], &Settings::default(), &mut Fake::new(facts())).expect("a report");
    assert!(none.calls[0].gated);
    let segments = vec![segment("e", "reader", ""), segment("f", "w", "4711"), segment("g", "w", "")];
    let mut fake = Fake::new(facts());
    let some = evaluate(&[call(segments)], &Settings::default(), &mut fake).expect("a report");
    let verdicts: Vec<Verdict> = some.calls[0].segments.iter().map(|segment| segment.verdict).collect();
    assert_eq!(verdicts, [Verdict::Inert, Verdict::Essential, Verdict::ForeignInert]);
    let empty = [Meaning::Without(0), Meaning::Alone(0), Meaning::Without(2), Meaning::Alone(2)];
    assert!(
        fake.asked.iter().all(|child| !empty.contains(&child.meaning)),
        "nothing is asked of empty segments"
    );
}

#[test]
fn markup_in_texts_stays_text() {
    let evil = "</pre><script>alert(1)</script>\u{202e}\"'><img src=x onerror=1>4711\u{7}";
    let mut bad = call(vec![segment(evil, evil, evil), segment("b", evil, evil)]);
    (bad.reader, bad.probe, bad.name) = (evil.into(), evil.into(), evil.into());
    let calls = [bad];
    let facts = vec![fact(&[&["onerror=1>4711\u{7}"]], 5.0)];
    let report = evaluate(&calls, &Settings::default(), &mut Fake::new(facts)).expect("a report");
    let page = html(&report, &calls);
    for markup in ["<script", "<img", "\u{202e}", "\u{7}", "http:", "https:", "src=\"", "url("] {
        assert!(!page.contains(markup), "the page has {markup:?}");
    }
    assert!(page.contains("&lt;script&gt;alert(1)"), "the text is there");
    assert!(page.contains("prefers-color-scheme:dark"));
    let opened = page.matches("<pre>").count();
    assert!(opened > 0 && opened == page.matches("</pre>").count());
    assert!(!table(&report).contains('\u{7}'));
}

#[test]
fn the_page_links_what_repeats_and_shows_sharing() {
    let text = "one two three four five six seven eight nine ten eleven twelve 4711";
    let calls = [call(vec![segment("a", "anna", text), segment("b", "bert", text)])];
    let facts = vec![fact(&[&["4711"]], 5.0)];
    let report = evaluate(&calls, &Settings::default(), &mut Fake::new(facts)).expect("a report");
    let page = html(&report, &calls);
    assert!(page.contains("repeats</span> <a href=\"#c0s0\">a</a>"), "{page}");
    assert!(page.contains("class=\"redundant-with\" style=\"flex-grow:13\""), "{page}");
    assert!(page.contains("<th>anna</th>") && page.contains("100 % / –"), "{page}");
}

fn judged(texts: Vec<String>, seed: u64) -> (Report, Fake) {
    let segments = texts
        .iter()
        .enumerate()
        .map(|(at, text)| segment(&at.to_string(), ["reader", "w"][at % 2], text))
        .collect();
    let facts = vec![fact(&[&["a"], &["b"]], 6.0), fact(&[&["c"]], -3.0), fact(&[&["d", "e"]], 4.0)];
    let mut fake = Fake::noisy(facts, seed, 0.6);
    let settings = Settings { audit: Audit::All, ..Settings::default() };
    let report = evaluate(&[call(segments)], &settings, &mut fake).expect("a report");
    (report, fake)
}

proptest! {
    #[test]
    fn reading_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = read(bytes.as_slice(), Form::Calls);
        let _ = read(bytes.as_slice(), Form::OpenAi);
    }

    #[test]
    fn reading_json_of_any_shape_never_panics(
        role in "system|user|assistant|tool|x", content in "null|5|\"t\"|\\[\\]|\\[\\{\\}\\]|\\{\\}", calls in "null|\\[\\]|\\[5\\]|\\{\\}",
    ) {
        let line = format!(
            r#"{{"messages":[{{"role":"{role}","content":{content},"tool_calls":{calls},"function_call":{calls}}}],"response":{content}}}"#
        );
        let _ = read(line.as_bytes(), Form::OpenAi);
    }

    #[test]
    fn every_report_keeps_its_promises(
        texts in prop::collection::vec("([a-h] ){0,6}", 0..12), seed in any::<u64>(),
    ) {
        let (report, fake) = judged(texts, seed);
        let call = &report.calls[0];
        // Equal words at a border are shared by a cache, not by the rule.
        prop_assert!(call.costs.spent() + call.costs.audit >= fake.computed);
        prop_assert!(call.removable_tokens.unwrap_or(0) <= call.context_tokens());
        prop_assert_eq!(call.gated, call.segments.iter().all(|s| s.verdict == Verdict::Blind) && call.tau.is_none());
        for segment in &call.segments {
            let tau = call.tau.unwrap_or(f64::MAX);
            let needed = segment.necessity.unwrap_or(0.0);
            prop_assert_eq!(segment.verdict == Verdict::Essential, needed >= tau);
            prop_assert_eq!(segment.verdict == Verdict::Harmful, needed <= -tau);
            if segment.verdict == Verdict::ForeignInert {
                prop_assert_eq!(segment.owner.as_str(), "w");
            }
        }
        let json: serde_json::Value = serde_json::from_str(&report.json()).expect("JSON");
        prop_assert_eq!(json["calls"][0]["segments"].as_array().map(Vec::len), Some(call.segments.len()));
    }
}
