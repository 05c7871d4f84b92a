//! Answers in a form, and how likely their tokens were, on a tiny random model.

use std::collections::BTreeMap;

use super::engine_test::{load, tiny_model};
use super::*;
use crate::grammar::{Grammar, GrammarError, Grammars};
use crate::score::score;

fn engine() -> Engine {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("model");
    std::fs::write(&path, tiny_model(0).0).expect("writable");
    load(&path, |_| {})
}

fn grammars(engine: &Engine) -> Grammars {
    Grammars::new(&engine.text.tokenizer, engine.info.vocab).expect("this vocabulary can be constrained")
}

fn request(engine: &Engine, text: &str, max_new: usize) -> Request {
    let tokens = engine.text.tokenizer.encode(text, false).expect("encodes");
    Request { tokens, max_new, ..Request::default() }
}

/// Runs until idle: the events of each sequence.
fn run(engine: &mut Engine) -> BTreeMap<SequenceId, Vec<Event>> {
    let mut events: BTreeMap<SequenceId, Vec<Event>> = BTreeMap::new();
    while !engine.is_idle() {
        engine.step().into_iter().for_each(|event| events.entry(event.id()).or_default().push(event));
    }
    events
}

fn end(events: &[Event]) -> (String, FinishReason, &[u32]) {
    let piece = |event: &Event| match event {
        Event::Token { text, .. } => text.clone(),
        Event::Finished { rest, .. } => rest.clone(),
        _ => String::new(),
    };
    match events.last() {
        Some(Event::Finished { reason, tokens, .. }) => (events.iter().map(piece).collect(), *reason, tokens),
        other => panic!("{other:?}"),
    }
}

const SCHEMA: &str = r##"{
    "type": "object",
    "properties": {
        "name": { "type": "string", "maxLength": 3 },
        "size": { "enum": ["he", "we"] },
        "count": { "type": "integer", "minimum": 0, "maximum": 99 },
        "deep": { "$ref": "#/$defs/flags" }
    },
    "required": ["name", "size", "count", "deep"],
    "additionalProperties": false,
    "$defs": { "flags": { "type": "array", "items": { "type": "boolean" }, "maxItems": 2 } }
}"##;

#[test]
fn every_answer_has_the_form_that_was_asked() {
    let mut engine = engine();
    let grammar = grammars(&engine).schema(SCHEMA).expect("it can be met");
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..40 {
        let sampling =
            Sampling { temperature: if seed == 0 { 0.0 } else { 5.0 }, seed, ..Sampling::default() };
        let grammar = Some(grammar.clone());
        // Neither `min_new` nor `ignore_eos` may break the form.
        let request =
            Request { sampling, grammar, min_new: 300, ignore_eos: true, ..request(&engine, "he", 400) };
        engine.submit(request).expect("fits");
        let events = run(&mut engine);
        let (text, reason, _) = end(events.values().next().expect("one sequence"));
        assert_eq!(reason, FinishReason::Eos, "{text}");
        let value: serde_json::Value =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let object = value.as_object().expect("an object");
        assert_eq!(object.len(), 4, "{text}");
        assert!(object["name"].as_str().expect("a text").chars().count() <= 3, "{text}");
        assert!(matches!(object["size"].as_str(), Some("he" | "we")), "{text}");
        assert!(object["count"].as_u64().expect("a number") <= 99, "{text}");
        let deep = object["deep"].as_array().expect("an array");
        assert!(deep.len() <= 2 && deep.iter().all(serde_json::Value::is_boolean), "{text}");
        seen.insert(text);
    }
    assert!(seen.len() > 20, "the grammar leaves choices: {seen:?}");
}

#[test]
fn a_grammar_changes_no_other_answer() {
    let mut engine = engine();
    let plain = |engine: &mut Engine| -> Vec<SequenceId> {
        let sampling = |seed| Sampling { temperature: 1.0, seed, ..Sampling::default() };
        let request =
            |engine: &Engine, seed| Request { sampling: sampling(seed), ..request(engine, "hello", 20) };
        (0..3).map(|seed| engine.submit(request(engine, seed)).expect("fits")).collect()
    };
    let alone = plain(&mut engine);
    let alone_events = run(&mut engine);
    let beside = plain(&mut engine);
    let grammar = Some(grammars(&engine).schema(SCHEMA).expect("it can be met"));
    engine.submit(Request { grammar, ..request(&engine, "hello", 60) }).expect("fits");
    let beside_events = run(&mut engine);
    for (one, other) in alone.iter().zip(&beside) {
        assert_eq!(end(&alone_events[one]), end(&beside_events[other]));
    }
}

#[test]
fn an_answer_in_a_form_may_be_cut_by_its_length() {
    let mut engine = engine();
    let grammar = Some(grammars(&engine).schema(SCHEMA).expect("it can be met"));
    engine.submit(Request { grammar, ..request(&engine, "he", 5) }).expect("fits");
    let events = run(&mut engine);
    let (text, reason, tokens) = end(events.values().next().expect("one sequence"));
    assert_eq!((reason, tokens.len()), (FinishReason::Length, 5));
    assert!(text.starts_with("{\"na"), "{text}");
}

#[test]
fn schemas_that_cannot_be_met_are_refused() {
    let engine = engine();
    let grammars = grammars(&engine);
    let refused = |schema: &str| grammars.schema(schema).map(drop).expect_err(schema);
    assert!(matches!(refused("{"), GrammarError::NotJson(_)));
    assert!(matches!(refused("[1]"), GrammarError::NotJson(_)));
    assert!(matches!(refused(&" ".repeat(70_000)), GrammarError::TooLarge { bytes: 70_000 }));
    for schema in [
        r#"{"type": "string", "minLength": 5, "maxLength": 2}"#,
        r#"{"type": "integer", "minimum": 3, "maximum": 1}"#,
        r#"{"enum": []}"#,
        r#"{"allOf": [{"type": "string"}, {"type": "integer"}]}"#,
        r##"{"$ref": "#/nowhere"}"##,
        r#"{"$ref": "https://example.com/schema"}"#,
        r#"{"type": "strang"}"#,
        r#"{"type": "string", "pattern": "(("}"#,
        r#"{"not": {"type": "string"}}"#,
    ] {
        let error = refused(schema);
        assert!(matches!(error, GrammarError::Schema(_)), "{schema}: {error}");
        assert!(error.to_string().contains(';') && error.to_string().len() < 2000, "{error}");
    }
    // Nesting without end is refused by depth, not by the stack.
    let deep = format!("{}{}", r#"{"items":"#.repeat(5000), "{}".to_owned() + &"}".repeat(5000));
    assert!(matches!(refused(&deep), GrammarError::NotJson(_)));
}

#[test]
fn a_monstrous_schema_costs_no_more_than_others() {
    let mut engine = engine();
    let grammars = grammars(&engine);
    for schema in [
        // Would be recognisers of billions of states.
        r#"{"type": "string", "pattern": "^(([a-z]{1000}){1000}){1000}$"}"#,
        r#"{"type": "string", "pattern": "^(.*a.{200}|.*b.{300}){50}$"}"#,
        r##"{"$ref": "#/$defs/a", "$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/a"}}}}"##,
    ] {
        let Ok(grammar) = grammars.schema(schema) else { continue };
        engine.submit(Request { grammar: Some(grammar), ..request(&engine, "he", 40) }).expect("fits");
        let events = run(&mut engine);
        let (_, reason, tokens) = end(events.values().next().expect("one sequence"));
        assert!(reason != FinishReason::Cancelled && tokens.len() <= 40, "{schema}: {reason:?}");
    }
}

#[test]
fn the_probabilities_told_are_those_that_scoring_finds() {
    let mut engine = engine();
    let sampling = Sampling { temperature: 0.7, seed: 3, ..Sampling::default() };
    let asked = Request { sampling, logprobs: Some(3), ..request(&engine, "hello w", 12) };
    let prompt = asked.tokens.clone();
    engine.submit(asked).expect("fits");
    let events = run(&mut engine);
    let events = events.values().next().expect("one sequence");
    let told: Vec<(u32, &TokenLogprobs)> = events
        .iter()
        .filter_map(|event| match event {
            Event::Token { token, logprobs, .. } => Some((*token, logprobs.as_deref().expect("asked for"))),
            _ => None,
        })
        .collect();
    let tokens: Vec<u32> = told.iter().map(|(token, _)| *token).collect();
    let scored = score(&mut engine, [0; 32], &prompt, &tokens).expect("fits");
    for ((token, told), scored) in told.iter().zip(scored) {
        assert!((told.chosen - scored).abs() < 1e-9, "{} and {scored}", told.chosen);
        assert_eq!(told.top.len(), 3);
        assert!(told.top.is_sorted_by(|one, next| one.1 >= next.1), "{:?}", told.top);
        assert!(told.top[0].1 >= told.chosen);
        let among = told.top.iter().find(|(other, _)| other == token);
        assert!(among.is_none_or(|(_, logprob)| *logprob == told.chosen));
    }
    let too_many = Request { logprobs: Some(21), ..request(&engine, "he", 1) };
    assert!(engine.submit(too_many).expect_err("too many").to_string().contains("20"));
    engine.submit(request(&engine, "he", 1)).expect("fits");
    let events = run(&mut engine);
    let silent = |event: &Event| !matches!(event, Event::Token { logprobs: Some(_), .. });
    assert!(events.values().flatten().all(silent), "nobody asked");
}

#[test]
fn a_grammar_copies_its_state() {
    let engine = engine();
    let first: Grammar = grammars(&engine).schema(r#"{"enum": ["he", "we"]}"#).expect("it can be met");
    let mut ahead = first.clone();
    let quote = engine.text.tokenizer.encode("\"", false).expect("encodes")[0];
    assert!(ahead.take(quote));
    let allows = |grammar: &mut Grammar, token: u32| match grammar.next() {
        crate::grammar::Next::Some(allowed) => allowed.is_allowed(token),
        crate::grammar::Next::Stuck => panic!("it is simple"),
    };
    let mut first = first;
    assert!(allows(&mut first, quote) && !allows(&mut ahead, quote));
    assert!(!first.is_over() && !ahead.is_over());
}
