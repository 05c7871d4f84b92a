//! The likeliest token is found by a sketch of the output matrix: answers keep their bits.

use worker_inference::{Request, Speculation};

use super::speculation::{Heard, hear, mixed};
use super::{TEXT, encode, load, request};

#[test]
fn answers_are_the_same_with_and_without_a_sketch() {
    let mut without = load(|config| config.sketch_from = usize::MAX);
    let mut requests = mixed(&without);
    let text = encode(&without, TEXT);
    requests.extend((0..4).map(|part| request(text[part * 90..part * 90 + 60].to_vec(), 40)));
    let expected: Vec<Heard> =
        requests.iter().flat_map(|one| hear(&mut without, std::slice::from_ref(one))).collect();
    assert_eq!(without.observe().steps_sketched, 0);

    let mut with = load(|config| config.sketch_from = 0);
    assert!(with.observe().repacked_bytes > without.observe().repacked_bytes);
    for some in [0..1, 0..3, 0..5, 5..6, 5..9] {
        assert_eq!(hear(&mut with, &requests[some.clone()]), expected[some.clone()], "{some:?} together");
    }
    let observed = with.observe();
    assert!(observed.steps_sketched > observed.steps / 4, "{observed:?}");
}

/// A caller that wants more than the likeliest token is told the truth.
#[test]
fn probabilities_are_never_read_off_a_sketch() {
    let mut engine = load(|config| (config.sketch_from, config.speculation) = (0, Speculation::Off));
    let asked = Request { logprobs: Some(5), ..request(encode(&engine, TEXT)[..50].to_vec(), 12) };
    let heard = hear(&mut engine, &[asked]);
    assert_eq!(engine.observe().steps_sketched, 0);
    let logprobs = heard[0].tokens.iter().filter_map(|(_, _, logprobs)| logprobs.as_ref());
    let told: Vec<f64> =
        logprobs.flat_map(|logprobs| logprobs.top.iter().map(|(_, logprob)| *logprob)).collect();
    assert!(told.len() == 12 * 5 && told.iter().all(|logprob| logprob.is_finite()), "{told:?}");
}
