//! Ranking: what decides, what is left out, and how far a day of calls is from the best that was possible.

use super::*;
use crate::retry::Random;

const CHEAP: Price = Price { input: 1_000_000, cached: 100_000, output: 4_000_000 };
const DEAR: Price = Price { input: 3_000_000, cached: 300_000, output: 12_000_000 };
const WISH: Wish = Wish { answer_tokens: 100, tools: false, left_ms: None };
const SLOW: Candidate = Candidate {
    here: true,
    price: Some(CHEAP),
    prompt_tokens: 1000,
    cached_tokens: 0,
    queue_ms: 0,
    first_piece_ms: 500,
    micros_a_token: 50_000,
    window: 10_000,
    tools: true,
    closed_ms: 0,
    broken: false,
};
const QUICK: Candidate = Candidate { price: Some(DEAR), micros_a_token: 5_000, ..SLOW };

fn ranked(wish: &Wish, candidates: &[Candidate]) -> (Vec<usize>, Why) {
    let ranking = rank(wish, candidates);
    (ranking.order, ranking.why.expect("one fits"))
}

fn within(left_ms: u64) -> Wish {
    Wish { left_ms: Some(left_ms), ..WISH }
}

#[test]
fn the_cheapest_in_time_wins_and_the_reason_says_what_decided() {
    assert_eq!(ranked(&WISH, &[QUICK, SLOW]), (vec![1, 0], Why::Cheaper));
    let ranking = rank(&WISH, &[QUICK, SLOW]);
    let told = ranking.verdicts.iter().map(|it| (it.micro_usd, it.ms, it.as_str()));
    assert_eq!(told.collect::<Vec<_>>(), [(4200, 1000, "FITS"), (1400, 5500, "FITS")]);
    assert_eq!(ranked(&within(5500), &[QUICK, SLOW]), (vec![1, 0], Why::Cheaper), "just in time");
    assert_eq!(ranked(&within(5499), &[QUICK, SLOW]), (vec![0, 1], Why::InTime));
    let waits = Candidate { queue_ms: 5_000, ..SLOW };
    assert_eq!(ranked(&within(6_000), &[QUICK, waits]), (vec![0, 1], Why::InTime), "a queue counts");
    assert_eq!(ranked(&within(10), &[SLOW, QUICK]), (vec![1, 0], Why::Fastest));
    assert_eq!(rank(&within(10), &[SLOW]).verdicts[0].as_str(), "LATE");
    let knows = Candidate { cached_tokens: 1000, ..QUICK };
    assert_eq!(ranked(&Wish { answer_tokens: 10, ..WISH }, &[SLOW, knows]), (vec![1, 0], Why::Cached));
    assert_eq!(ranked(&WISH, &[SLOW, Candidate { queue_ms: 1, ..SLOW }]), (vec![0, 1], Why::Sooner));
    assert_eq!(ranked(&WISH, &[SLOW, SLOW]), (vec![0, 1], Why::First));
    assert_eq!(ranked(&WISH, &[SLOW]), (vec![0], Why::OnlyOne));
}

#[test]
fn those_behind_follow_by_cost_and_the_late_ones_by_time() {
    let late = |queue_ms| Candidate { queue_ms, ..SLOW };
    let third = Candidate { price: Some(Price { output: 13_000_000, ..DEAR }), ..QUICK };
    let (order, why) = ranked(&within(2_000), &[late(9_000), late(4_000), third, QUICK]);
    assert_eq!((order, why), (vec![3, 2, 1, 0], Why::InTime));
}

#[test]
fn what_cannot_take_the_call_is_named() {
    let wish = Wish { tools: true, ..WISH };
    let away = Candidate { here: false, ..SLOW };
    let unpriced = Candidate { price: None, ..SLOW };
    let small = Candidate { window: 1000, ..SLOW };
    let toolless = Candidate { tools: false, ..SLOW };
    let closed = Candidate { closed_ms: 1, ..SLOW };
    let broken = Candidate { broken: true, ..SLOW };
    let all = [away, unpriced, small, toolless, closed, broken, QUICK];
    let ranking = rank(&wish, &all);
    assert_eq!((ranking.order, ranking.why), (vec![6], Some(Why::OnlyOne)));
    let words: Vec<&str> = ranking.verdicts.iter().map(Verdict::as_str).collect();
    let wanted = ["NOT_HERE", "UNPRICED", "WINDOW_TOO_SMALL", "NO_TOOLS", "CLOSED", "BROKEN", "FITS"];
    assert_eq!(words, wanted);
    let none = rank(&wish, &all[..6]);
    assert_eq!((none.order, none.why), (vec![], None));
    let passing: Vec<bool> = none.verdicts.iter().map(|it| it.unfit.expect("each").passes()).collect();
    assert_eq!(passing, [false, false, false, false, true, true]);
    assert_eq!(ranked(&WISH, &[toolless]).0, [0], "nobody asked for tools");
}

#[test]
fn nothing_overflows() {
    let most = u64::MAX;
    let price = Some(Price { input: most, cached: most, output: most });
    let vast = Candidate { price, prompt_tokens: most - 1, window: most, queue_ms: most, ..SLOW };
    let wish = Wish { answer_tokens: most, tools: true, left_ms: Some(most) };
    assert_eq!(ranked(&wish, &[vast, vast]), (vec![0, 1], Why::First));
}

/// A call of a trace: when it comes, its prompt and answer, until when it must be answered.
#[derive(Clone, Copy)]
struct Asked {
    at_ms: u64,
    prompt: u64,
    answer: u64,
    due_ms: u64,
}

/// A destination that answers so many calls at the same time.
#[derive(Clone)]
struct Place {
    facts: Candidate,
    free_at: Vec<u64>,
}

impl Place {
    fn seen(&self, asked: &Asked) -> Candidate {
        let free_ms = self.free_at.iter().min().copied().unwrap_or(0);
        let queue_ms = free_ms.saturating_sub(asked.at_ms);
        Candidate { prompt_tokens: asked.prompt, queue_ms, ..self.facts }
    }

    /// Takes the call; answers what it costs and when it is over.
    fn take(&mut self, asked: &Asked) -> (u64, u64) {
        let verdict = self.seen(asked).verdict(&Wish { answer_tokens: asked.answer, ..WISH });
        let over_ms = asked.at_ms + verdict.ms;
        if let Some(free) = self.free_at.iter_mut().min() {
            *free = over_ms;
        }
        (verdict.micro_usd, over_ms)
    }
}

/// Calls answered in time, and what all cost. More in time is better, then less money.
type Score = (std::cmp::Reverse<u32>, u64);

fn day(seed: u64) -> (Vec<Place>, Vec<Asked>) {
    let mut random = Random::new(seed);
    let mut below = |most: u64| random.draw() % most;
    let place = |price, micros_a_token, slots: u64| Place {
        facts: Candidate { price: Some(price), micros_a_token, ..SLOW },
        free_at: vec![0; slots as usize],
    };
    let middle = Price { input: 1_800_000 + below(600_000), cached: 200_000, output: 8_000_000 };
    let places =
        vec![place(CHEAP, 30_000 + below(20_000), 2), place(middle, 15_000, 2), place(DEAR, 4_000, 8)];
    let mut at_ms = 0;
    let asked = (0..10).map(|_| {
        at_ms += below(4_000);
        let (prompt, answer) = (200 + below(2_000), 20 + below(180));
        Asked { at_ms, prompt, answer, due_ms: at_ms + 1_600 + below(12_000) }
    });
    let asked = asked.collect();
    (places, asked)
}

fn played(places: &[Place], asked: &[Asked], choose: impl Fn(&Wish, &[Candidate]) -> usize) -> Score {
    let (mut places, mut in_time, mut money) = (places.to_vec(), 0, 0);
    for call in asked {
        let seen: Vec<Candidate> = places.iter().map(|place| place.seen(call)).collect();
        let wish = Wish { answer_tokens: call.answer, left_ms: Some(call.due_ms - call.at_ms), tools: false };
        let (cost, over_ms) = places[choose(&wish, &seen)].take(call);
        (in_time, money) = (in_time + u32::from(over_ms <= call.due_ms), money + cost);
    }
    (std::cmp::Reverse(in_time), money)
}

/// Every way to give the calls to the places.
fn best(places: &[Place], asked: &[Asked], so_far: Score, least: &mut Score) {
    let Some((call, rest)) = asked.split_first() else {
        *least = so_far.min(*least);
        return;
    };
    for index in 0..places.len() {
        let mut places = places.to_vec();
        let (cost, over_ms) = places[index].take(call);
        let in_time = so_far.0.0 + u32::from(over_ms <= call.due_ms);
        best(&places, rest, (std::cmp::Reverse(in_time), so_far.1 + cost), least);
    }
}

/// Each call is ranked when it comes, knowing nothing of those to come; the best knows the whole day.
#[test]
fn a_day_costs_at_most_a_tenth_more_than_the_best_and_is_as_punctual_as_the_fastest() {
    let (mut ours_in_all, mut best_in_all) = (0, 0);
    for seed in 1..=20 {
        let (places, asked) = day(seed);
        let ours = played(&places, &asked, |wish, seen| rank(wish, seen).order[0]);
        let fastest = |wish: &Wish, seen: &[Candidate]| {
            (0..seen.len()).min_by_key(|index| seen[*index].ms(wish)).expect("some")
        };
        let fastest = played(&places, &asked, fastest);
        let mut least = (std::cmp::Reverse(0), u64::MAX);
        best(&places, &asked, (std::cmp::Reverse(0), 0), &mut least);
        println!("day {seed}: {ours:?}, the best {least:?}, always the fastest {fastest:?}");
        assert_eq!(ours.0, fastest.0, "day {seed}: in time");
        assert_eq!(ours.0, least.0, "day {seed}: in time");
        assert!(ours.1 * 10 <= least.1 * 11, "day {seed}: {} for {}", ours.1, least.1);
        assert!(ours.1 < fastest.1, "day {seed}: money was saved");
        (ours_in_all, best_in_all) = (ours_in_all + ours.1, best_in_all + least.1);
    }
    println!("in all {ours_in_all} for {best_in_all}");
}
