//! The planted cases: what is in the context is known, so what must come out is known. The last one shows that they
//! can fail.

use crate::fake::{Fact, Fake, among, call, fact, segment, trivia};
use evaluate::{
    Audit, Call, CallReport, Duplicates, EvaluateError, Meaning, Report, Scorer, Segment, Settings, Verdict,
    answer_based, evaluate, fill_withheld, tau,
};

const SEEDS: u64 = 50;
const N: usize = 10;
const FACT: &str = "remember that the vault opens with 4711 says the guard";
const SAME: &str = "in other words four-seven-one-one lets you into that room";

fn facts() -> Vec<Fact> {
    vec![fact(&[&["4711"], &["four-seven-one-one"]], 8.0)]
}

fn audited() -> Settings {
    Settings { audit: Audit::All, ..Settings::default() }
}

fn report(calls: &[Call], fake: &mut Fake) -> Report {
    evaluate(calls, &audited(), fake).expect("an evaluation")
}

fn one(segments: Vec<Segment>, fake: &mut Fake) -> CallReport {
    report(&[call(segments)], fake).calls.remove(0)
}

fn worth(report: &CallReport, at: usize) -> f64 {
    let segment = &report.segments[at];
    segment.necessity.unwrap_or(f64::MIN).max(segment.sufficiency.unwrap_or(f64::MIN))
}

fn first(report: &CallReport) -> usize {
    let places = 0..report.segments.len();
    places.max_by(|&a, &b| worth(report, a).total_cmp(&worth(report, b))).expect("segments")
}

fn place(seed: u64) -> usize {
    (seed * 7 % N as u64) as usize
}

fn verdicts(report: &CallReport) -> Vec<Verdict> {
    report.segments.iter().map(|segment| segment.verdict).collect()
}

#[test]
fn one_fact_among_others_is_essential_and_first() {
    let found = (0..SEEDS).filter(|&seed| {
        let report = one(among(N, &[(place(seed), FACT)]), &mut Fake::noisy(facts(), seed, 1.0));
        let only = verdicts(&report).iter().filter(|verdict| **verdict == Verdict::Essential).count() == 1;
        only && first(&report) == place(seed) && report.segments[place(seed)].verdict == Verdict::Essential
    });
    let found = found.count();
    assert!(found * 10 >= SEEDS as usize * 9, "{found} of {SEEDS}");
}

#[test]
fn exact_removal_of_every_segment_stands_beside_masking_and_refuses_nothing() {
    let settings = Settings { audit: Audit::Every, ..Settings::default() };
    let calls = [call(among(N, &[(4, FACT)]))];
    let mut wrong = Fake { mask_error_nats: -3.0, ..Fake::new(facts()) };
    let report = evaluate(&calls, &settings, &mut wrong).expect("an evaluation").calls.remove(0);
    assert!(report.segments.iter().all(|segment| segment.exact.is_some()));
    assert_eq!(report.segments[4].exact, Some(8.0));
    assert!(report.audit_max_nats > Some(2.0) && report.audit_tokens > Some(report.tokens_spent));
    let most = Settings { budget_tokens: Some(report.tokens_spent), ..settings };
    let skipped = evaluate(&calls, &most, &mut wrong).expect("an evaluation").skipped;
    assert_eq!(skipped.len(), 1, "the budget counts the exact removals");
}

#[test]
fn a_fact_in_two_wordings_is_redundant_with_each_other() {
    for seed in 0..SEEDS {
        let (one_place, other) = (place(seed), (place(seed) + 4) % N);
        let segments = among(N, &[(one_place, FACT), (other, SAME)]);
        let report = one(segments, &mut Fake::noisy(facts(), seed, 0.8));
        for (here, there) in [(one_place, other), (other, one_place)] {
            let segment = &report.segments[here];
            assert_eq!(segment.verdict, Verdict::RedundantWith, "seed {seed}");
            assert_eq!(segment.redundant_with, [format!("s{there}")], "seed {seed}");
            assert!(segment.necessity < report.tau && segment.cluster_out >= report.tau, "seed {seed}");
        }
    }
}

#[test]
fn three_wordings_of_one_fact_and_two_of_another_are_told_apart() {
    let both = vec![fact(&[&["4711"], &["four-seven-one-one"]], 8.0), fact(&[&["north"], &["upwards"]], 6.0)];
    let planted = [(1, FACT), (3, SAME), (5, "go north then"), (7, "walk upwards then")];
    let report = one(among(N, &planted), &mut Fake::new(both));
    assert_eq!(report.segments[1].redundant_with, ["s3"]);
    assert_eq!(report.segments[5].redundant_with, ["s7"]);
    assert_eq!(report.segments[7].redundant_with, ["s5"]);

    let thrice = [(1, FACT), (3, SAME), (5, "it is 4711 again as before")];
    let report = one(among(N, &thrice), &mut Fake::new(facts()));
    assert_eq!(report.segments[1].redundant_with, ["s3", "s5"]);
}

#[test]
fn a_verbatim_copy_of_another_agent_is_found_without_the_model() {
    let text = trivia("report", 40);
    let mut first = call(vec![segment("a1", "anna", &text)]);
    first.reader = "bert".into();
    let second = call(vec![segment("b0", "bert", &trivia("other", 40)), segment("b1", "bert", &text)]);
    let calls = [first, second];
    let mut fake = Fake::new(facts());
    let tokens: Vec<_> = calls.iter().map(|call| fake.tokenise(call).expect("tokens")).collect();
    let duplicates = Duplicates::find(&calls, &tokens);
    assert_eq!(duplicates.repeats((1, 1)), Some((0, 0)));
    assert_eq!(duplicates.repeats((0, 0)), None);
    assert_eq!(duplicates.repeats((1, 0)), None);
    assert!(fake.asked.is_empty() && fake.computed == 0, "the model was asked");
    let report = report(&calls, &mut fake);
    assert_eq!(report.calls[1].segments[1].dup_of.as_deref(), Some("a1"));
}

#[test]
fn without_a_fact_it_is_blind_and_ranks_nothing() {
    let mut fake = Fake::noisy(facts(), 3, 0.8);
    let report = one(among(N, &[]), &mut fake);
    assert!(report.gated && report.tau.is_none() && report.removable_tokens.is_none());
    assert!(verdicts(&report).iter().all(|verdict| *verdict == Verdict::Blind));
    assert!(report.segments.iter().all(|s| s.necessity.is_none() && s.sufficiency.is_none()));
    assert_eq!(fake.asked.len(), 2, "the gate alone was scored");
}

#[test]
fn of_an_old_and_a_new_value_the_new_one_is_essential() {
    let facts = vec![fact(&[&["4711"]], 8.0), fact(&[&["0815"]], -3.0)];
    let planted = [(2, "the vault opens with 0815 says the guard"), (6, FACT)];
    let report = one(among(N, &planted), &mut Fake::new(facts));
    assert_eq!(report.segments[6].verdict, Verdict::Essential);
    assert_eq!(report.segments[2].verdict, Verdict::Harmful);
}

#[test]
fn both_halves_of_two_steps_are_essential() {
    let facts = vec![fact(&[&["neighbour", "forty-two"]], 9.0)];
    let planted = [(1, "anna is the neighbour of bert"), (8, "bert lives at forty-two")];
    let report = one(among(N, &planted), &mut Fake::new(facts));
    assert_eq!(report.segments[1].verdict, Verdict::Essential);
    assert_eq!(report.segments[8].verdict, Verdict::Essential);
}

#[test]
fn anothers_instruction_is_foreign_and_inert_and_counts_against_sharing() {
    let instruction = Segment::new("other", "planner", "system", trivia("plan", 60));
    let useful = segment("told", "planner", FACT);
    let own = segment("own", "reader", &trivia("own", 20));
    let report = report(&[call(vec![instruction, own, useful])], &mut Fake::new(facts()));
    let verdicts = verdicts(&report.calls[0]);
    assert_eq!(verdicts, [Verdict::ForeignInert, Verdict::Inert, Verdict::Essential]);
    let pair = &report.pairs[0];
    assert_eq!((pair.from.as_str(), pair.to.as_str()), ("planner", "reader"));
    assert_eq!(pair.precision, Some(0.1429), "10 of 70 tokens");
    assert_eq!(pair.recall, None, "nobody looked at what was withheld");
}

#[test]
fn what_was_withheld_lowers_recall_and_is_named() {
    let facts = vec![fact(&[&["4711"]], 6.0), fact(&[&["north"]], 4.0)];
    let mut short = call(vec![segment("told", "anna", "go north then")]);
    short.withheld = Some(vec![segment("kept", "anna", FACT), segment("noise", "anna", &trivia("x", 9))]);
    let report = report(&[short], &mut Fake::new(facts));
    let missing: Vec<&str> =
        report.calls[0].withheld.iter().filter(|w| w.mattered).map(|w| w.id.as_str()).collect();
    assert_eq!(missing, ["kept"]);
    assert_eq!(report.pairs[0].recall, Some(0.5));
    let t = report.calls[0].probe_tokens;
    assert_eq!(report.calls[0].costs.withheld, 10 + 9 + 2 * t, "both are read, after the cached chain");
    assert_eq!(report.pairs[0].precision, Some(1.0));
}

#[test]
fn a_team_finds_by_itself_what_was_withheld() {
    let mut first = call(vec![segment("f", "guard", FACT), segment("own", "reader", "mine")]);
    first.reader = "anna".into();
    let mut calls = [first, call(vec![segment("x", "guard", "hello there")])];
    fill_withheld(&mut calls, 16);
    let ids: Vec<&str> = calls[1].withheld().iter().map(|segment| segment.id.as_str()).collect();
    assert_eq!(ids, ["f"], "the reader's own segment is not withheld from it");
    assert_eq!(calls[0].withheld, Some(Vec::new()));
}

#[test]
fn a_summary_keeps_or_loses_what_its_originals_were_worth() {
    for (text, kept) in [("in short 4711", 0.8..=1.2), ("in short they talked", -0.2..=0.2)] {
        let mut summary = segment("sum", "reader", text);
        summary.replaces = vec!["o1".into(), "o2".into()];
        let mut call = call(vec![summary, segment("x", "reader", "always fridays")]);
        call.withheld = Some(vec![segment("o1", "reader", FACT), segment("o2", "reader", &trivia("o", 30))]);
        let facts = vec![fact(&[&["4711"]], 8.0), fact(&[&["fridays"]], 3.0)];
        let report = report(&[call], &mut Fake::new(facts));
        let summary = &report.calls[0].summaries[0];
        let retention = summary.retention.expect("originals that matter");
        assert!(kept.contains(&retention), "{text}: {retention}");
        assert!(report.calls[0].withheld.is_empty(), "originals of a summary are not withheld");
    }
}

#[test]
fn trivia_can_be_removed() {
    let planted = [(4, FACT)];
    let report = one(among(11, &planted), &mut Fake::noisy(facts(), 5, 0.3));
    let (removable, of) = (report.removable_tokens.expect("not gated"), report.context_tokens());
    assert!(removable * 100 >= of * 80, "{removable} of {of}");
    assert!(removable <= of - 10, "the fact stays");
}

#[test]
fn of_two_copies_one_can_go_before_what_is_worth_less() {
    let facts = vec![fact(&[&["4711"]], 8.0), fact(&[&["north"]], 5.0)];
    let text = trivia("copy", 30) + " 4711";
    let report = one(among(5, &[(1, &text), (2, &text), (3, "go north")]), &mut Fake::new(facts));
    assert_eq!(report.removable_tokens, Some(20 + 20 + 31));
}

#[test]
fn the_same_calls_have_the_same_bytes() {
    let calls = || [call(among(N, &[(3, FACT), (5, SAME)])), call(among(4, &[]))];
    let mut warm = Fake::noisy(facts(), 9, 0.8);
    let first = report(&calls(), &mut warm).json();
    assert_eq!(report(&calls(), &mut warm).json(), first, "an engine that has seen it all");
    assert_eq!(report(&calls(), &mut Fake::noisy(facts(), 9, 0.8)).json(), first, "a fresh engine");
    assert_ne!(report(&calls(), &mut Fake::noisy(facts(), 10, 0.8)).json(), first, "other scores");
}

#[test]
fn tokens_are_counted_and_bounded() {
    let mut fake = Fake::new(facts());
    let report = one(among(N, &[(3, FACT)]), &mut fake);
    assert_eq!(report.costs.spent() + report.costs.audit, fake.computed, "what the engine computed");
    let t = report.probe_tokens;
    assert_eq!(report.costs.scores, (2 + 2 * N as u64) * t, "gate, necessity, sufficiency");
    assert!(report.costs.trim <= 4 * t, "ten segments are searched in four looks");
    assert_eq!(report.tokens_spent, report.costs.scores + report.costs.trim);
    let audits = fake.asked.iter().filter(|child| matches!(child.meaning, Meaning::Audit(_))).count();
    assert_eq!(audits, 4);
    assert_eq!(report.audit_max_nats, Some(0.0));
    assert_eq!(answer_based(32, 4000), 536_448);
}

#[test]
fn it_costs_a_small_part_of_leaving_out_by_computing_anew() {
    // 32 segments of 125 tokens; leaving each out behind a cached prefix computes half of the context each time.
    for (t, percent) in [(96, 10), (40, 5)] {
        let text = |at: usize| trivia(&format!("s{at}"), 124) + if at == 9 { " 4711" } else { " end" };
        let segments = (0..32).map(|at| segment(&format!("s{at}"), "w", &text(at))).collect();
        let mut call = call(segments);
        (call.probe, call.action) = (trivia("probe", t - 16), trivia("action", 16));
        let mut fake = Fake::new(facts());
        let settings = Settings { audit: Audit::Some, ..Settings::default() };
        let report = evaluate(&[call], &settings, &mut fake).expect("a report").calls.remove(0);
        let anew = 31 * 4000 / 2 + 32 * t as u64;
        assert_eq!((report.context_tokens(), report.probe_tokens), (4000, t as u64));
        assert!(report.costs.scores * 100 <= anew * percent, "{} of {anew}", report.costs.scores);
        assert!(report.tokens_spent * 1000 <= report.answer_based_tokens() * 15, "{}", report.tokens_spent);
    }
}

#[test]
fn a_budget_is_never_passed() {
    let calls: Vec<Call> = (0..6).map(|_| call(among(N, &[(3, FACT)]))).collect();
    for budget in (0..6000).step_by(125) {
        let mut fake = Fake::new(facts());
        let settings = Settings { budget_tokens: Some(budget), ..audited() };
        let report = evaluate(&calls, &settings, &mut fake).expect("a report");
        assert!(fake.computed <= budget, "{} of {budget}", fake.computed);
        assert_eq!(report.calls.len() + report.skipped.len(), 6);
        assert!(budget < 3000 || report.calls.len() > 1, "{budget} buys more than one call");
    }
}

#[test]
fn a_report_that_its_audit_contradicts_is_refused() {
    let mut fake = Fake { mask_error_nats: -2.5, ..Fake::new(facts()) };
    let refused = evaluate(&[call(among(N, &[(3, FACT)]))], &audited(), &mut fake);
    let error = refused.expect_err("masked and exact differ by 2.5 nats");
    assert!(matches!(&error, EvaluateError::Refused { segment, .. } if !segment.is_empty()), "{error}");
    let open = Settings { audit_limit_nats: f64::INFINITY, ..audited() };
    let report = evaluate(&[call(among(N, &[(3, FACT)]))], &open, &mut fake).expect("asked for");
    assert_eq!(report.calls[0].audit_max_nats, Some(2.5));
}

#[test]
fn one_call_in_twenty_is_audited() {
    let calls: Vec<Call> = (0..400).map(|at| call(vec![segment("s", "w", &format!("{at} 4711"))])).collect();
    let report = evaluate(&calls, &Settings::default(), &mut Fake::new(facts())).expect("a report");
    let audited = report.calls.iter().filter(|call| call.audit_max_nats.is_some()).count();
    assert!((8..=36).contains(&audited), "{audited} of 400");
}

#[test]
fn a_call_longer_than_the_window_is_skipped_and_said() {
    let mut fake = Fake { window: 100, ..Fake::new(facts()) };
    let report = report(&[call(among(N, &[(3, FACT)])), call(vec![segment("s", "w", FACT)])], &mut fake);
    assert_eq!(report.calls.len(), 1);
    assert!(report.skipped[0].why.contains("window is 100"), "{}", report.skipped[0].why);
}

#[test]
fn sabotage_with_shuffled_labels_finds_nothing() {
    let hits = |sabotaged: bool| {
        let found = (0..SEEDS).filter(|&seed| {
            let rotate = if sabotaged { (seed * 3 + seed / 10) as usize % N } else { 0 };
            let mut fake = Fake { rotate, ..Fake::noisy(facts(), seed, 0.8) };
            first(&one(among(N, &[(place(seed), FACT)]), &mut fake)) == place(seed)
        });
        found.count()
    };
    assert!(hits(false) >= 45, "{} unharmed", hits(false));
    assert!(hits(true) <= 15, "{} of {SEEDS} with wrong labels: the measure can't fail", hits(true));
}

#[test]
fn the_threshold_stands_out_of_noise_but_not_above_what_matters() {
    let quiet = [0.1, -0.1, 0.0, 0.1, 0.0, -0.1, 0.1, 6.0];
    assert_eq!(tau(8.0, &quiet), 1.0);
    let noisy = [0.6, -0.6, 0.4, -0.4, 0.6, -0.6, 0.4, 6.0];
    assert!((tau(9.0, &noisy) - 4.0).abs() < 0.7, "{}", tau(9.0, &noisy));
    assert_eq!(tau(3.0, &noisy), 1.5, "at most half of what the context is worth");
    let mattering = [5.0; 8];
    assert_eq!(tau(5.0, &mattering), 2.5, "where all are needed they are not the noise");
    assert_eq!(tau(8.0, &[5.0, 3.0, 0.1]), 1.0, "three segments say nothing about noise");
}

#[test]
fn what_stays_below_the_noise_is_inert() {
    let weak = || vec![fact(&[&["4711"]], 8.0), fact(&[&["north"]], 1.4)];
    let planted = [(1, FACT), (4, "go north then")];
    let verdict = |noise| one(among(12, &planted), &mut Fake::noisy(weak(), 2, noise)).segments[4].verdict;
    assert_eq!(verdict(0.0), Verdict::Essential);
    assert_eq!(verdict(2.0), Verdict::ForeignInert);
}
