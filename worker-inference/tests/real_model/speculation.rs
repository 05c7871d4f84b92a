//! Guessed tokens on a real model: they come true, and answers keep their bits.

use std::collections::BTreeMap;

use worker_inference::{
    Engine, Event, FinishReason, Grammars, Request, Sampling, SequenceId, Speculation, TokenLogprobs,
};

use super::{TEXT, ask, encode, load, logits, request};

const SCHEMA: &str = r#"{"type": "object", "properties": {
    "harbour": {"type": "string", "maxLength": 12}, "boats": {"type": "integer", "minimum": 0, "maximum": 900}},
    "required": ["harbour", "boats"], "additionalProperties": false}"#;

/// All that a caller hears of one request.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Heard {
    pub(super) tokens: Vec<(u32, String, Option<Box<TokenLogprobs>>)>,
    end: Option<(FinishReason, Vec<u32>, String)>,
}

pub(super) fn hear(engine: &mut Engine, requests: &[Request]) -> Vec<Heard> {
    let ids: Vec<SequenceId> =
        requests.iter().map(|request| engine.submit(request.clone()).expect("fits")).collect();
    let mut heard: BTreeMap<SequenceId, Heard> = BTreeMap::new();
    while !engine.is_idle() {
        for event in engine.step() {
            let one = heard.entry(event.id()).or_default();
            match event {
                Event::Token { token, text, logprobs, .. } => one.tokens.push((token, text, logprobs)),
                Event::Finished { reason, tokens, rest, .. } => one.end = Some((reason, tokens, rest)),
                other => panic!("nobody asked for {other:?}"),
            }
        }
    }
    ids.iter().map(|id| heard.remove(id).expect("it was answered")).collect()
}

/// Greedy, drawn, cut by a stop string, with penalties and probabilities, and in a form.
pub(super) fn mixed(engine: &Engine) -> Vec<Request> {
    let tokens = encode(engine, TEXT);
    // What was read is quoted: the second half begins like the first.
    let quoting = [&tokens[..120], &tokens[..40]].concat();
    let drawn = |seed| Sampling { temperature: 0.7, top_p: 0.95, seed, ..Sampling::default() };
    let penal = Sampling { frequency_penalty: 0.4, presence_penalty: 0.2, ..drawn(5) };
    let grammars = Grammars::new(&engine.text().tokenizer, engine.info().vocab).expect("constrainable");
    let grammar = grammars.schema(SCHEMA).expect("it can be met");
    vec![
        request(quoting.clone(), 70),
        Request { sampling: drawn(3), logprobs: Some(2), ..request(quoting.clone(), 61) },
        Request { stop: vec!["harbour".into(), "the".into()], min_new: 9, ..request(quoting.clone(), 90) },
        Request { sampling: penal, logprobs: Some(0), ..request(tokens[..90].to_vec(), 33) },
        Request { grammar: Some(grammar), ignore_eos: false, ..request(quoting, 60) },
    ]
}

#[test]
fn answers_are_the_same_with_and_without_guesses() {
    let mut without = load(|config| config.speculation = Speculation::Off);
    let requests = mixed(&without);
    let expected: Vec<Heard> =
        requests.iter().flat_map(|one| hear(&mut without, std::slice::from_ref(one))).collect();
    assert_eq!(without.observe().tokens_drafted, 0);
    assert!(expected.iter().any(|heard| matches!(heard.end, Some((FinishReason::StopString, ..)))));

    let mut with = load(|_| {});
    for some in [0..1, 1..2, 2..4, 0..3, 1..5, 0..5] {
        assert_eq!(hear(&mut with, &requests[some.clone()]), expected[some.clone()], "{some:?} together");
    }
    let observed = with.observe();
    assert!(observed.tokens_accepted > 100, "{observed:?}");
    assert_eq!(observed.blocks_used, 0);
}

#[test]
fn wrong_guesses_change_no_bit_and_leave_nothing_behind() {
    let mut without = load(|config| config.speculation = Speculation::Off);
    let requests = mixed(&without);
    let expected = hear(&mut without, &requests);
    let whole = |(request, heard): (&Request, &Heard)| -> Vec<u32> {
        request.tokens.iter().copied().chain(heard.tokens.iter().map(|(token, ..)| *token)).collect()
    };
    let chains: Vec<Vec<u32>> = requests.iter().zip(&expected).map(whole).collect();
    let mut cold = load(|config| config.speculation = Speculation::Off);
    let after: Vec<Vec<u32>> = chains.iter().map(|chain| logits(&mut cold, chain)).collect();

    let mut with = load(|_| {});
    let known = chains.clone();
    let mut calls = 0_usize;
    with.guess_by(Box::new(move |tokens| {
        // Often the truth, in which one token is wrong; else nonsense.
        calls += 1;
        let truth = known.iter().find(|chain| chain.starts_with(tokens));
        let mut guess: Vec<u32> = truth.map_or(Vec::new(), |chain| chain[tokens.len()..].to_vec());
        guess.resize(calls % 9, 7);
        let wrong = calls * 5 % 11;
        guess.get_mut(wrong).into_iter().for_each(|token| *token = (calls * 37 % 49_000) as u32);
        guess
    }));
    assert_eq!(hear(&mut with, &requests), expected);
    let observed = with.observe();
    let (drafted, accepted) = (observed.tokens_drafted, observed.tokens_accepted);
    assert!(accepted > 50 && drafted > accepted + 50, "{accepted} of {drafted}");
    assert_eq!((observed.blocks_used, observed.running), (0, 0));
    for (chain, expected) in chains.iter().zip(&after) {
        assert_eq!(&logits(&mut with, chain), expected, "what is cached is right");
    }
    assert!(with.observe().tokens_cached > 300);
}

#[test]
fn the_same_answer_again_takes_fewer_passes() {
    let mut engine = load(|_| {});
    let tokens = encode(&engine, TEXT);
    let asked = || request(tokens[..300].to_vec(), 96);
    let first = ask(&mut engine, asked());
    let before = engine.observe();
    let elsewhere = Request { scope: [9; 32], ..asked() };
    assert_eq!(ask(&mut engine, elsewhere).tokens, first.tokens);
    let stranger = engine.observe();
    assert_eq!(ask(&mut engine, asked()).tokens, first.tokens);
    let again = engine.observe();
    let steps = (stranger.steps - before.steps, again.steps - stranger.steps);
    assert!(steps.1 * 3 < 96, "{steps:?}: the project has seen this answer");
    assert!(steps.0 > steps.1, "{steps:?}: another project has not");
}
