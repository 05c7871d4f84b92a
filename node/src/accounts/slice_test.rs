//! Slices against a real ledger, without the world: time is a number.

use super::purse::Purse;
use super::slice::{IDLE, Next, Promise, Slice};
use ledger::command::{Command, RequestKey, Stamp, Wanted};
use ledger::keys::Amounts;
use ledger::reply::{Reply, SliceAnswer};
use ledger::rows::{CallId, Price, QuotaKey, Role, Want};
use ledger::{Place, State, invariants};
use std::collections::VecDeque;
use std::time::Duration;
use types::{ClusterId, NodeId, ProjectName};

const PATH: &str = "projects/p";

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn wanted(least: u64, most: u64) -> Wanted {
    Wanted { min_tokens: least, max_tokens: most, want: Want { fresh_tokens: 1, ..Want::default() } }
}

fn tokens(tokens: u64) -> Amounts {
    Amounts { tokens, ..Amounts::NONE }
}

/// A ledger and the slices of one node, one after the other.
struct Till {
    state: State,
    watch: invariants::Watch,
    index: u64,
    now: Duration,
    slice: Slice,
    opened: u8,
    waiting: VecDeque<Wanted>,
    under_way: Vec<Promise>,
    turns: usize,
    marks: Vec<Amounts>,
    refused: usize,
}

fn slice(nth: u8, now: Duration) -> Slice {
    let (project, author) = (ProjectName::parse("p").unwrap(), "ann".to_string());
    let purse = Purse { project, author, model: "m".into(), destination: None };
    Slice::new(purse, NodeId(1), CallId([nth; 16]), false, now)
}

impl Till {
    fn new(limits: &[(&str, u64)]) -> Till {
        let mut till = Till {
            state: State::new(),
            watch: invariants::Watch::default(),
            index: 0,
            now: ms(1_000),
            slice: slice(0, ms(1_000)),
            opened: 0,
            waiting: VecDeque::new(),
            under_way: vec![],
            turns: 0,
            marks: vec![],
            refused: 0,
        };
        till.apply(Command::InitCluster { cluster_id: ClusterId([1; 16]) });
        till.apply(Command::AdmitNode {
            name: "one".into(),
            roles: vec![Role::Worker],
            client_addr: String::new(),
            internal_addr: "x:1".into(),
            disk_id: [1; 16],
            version: String::new(),
        });
        limits.iter().for_each(|(key, limit)| till.set(key, *limit));
        till
    }

    fn apply(&mut self, command: Command) -> Reply {
        self.index += 1;
        let now_ms = u64::try_from(self.now.as_millis()).unwrap();
        let stamp = Stamp { ledger_ms: now_ms, wall_ms: 1_790_000_000_000 + now_ms };
        let reply = self.state.apply(Place { index: self.index, position: 0 }, stamp, &command).reply;
        self.watch.check(&self.state).unwrap_or_else(|broken| panic!("after {command:?}: {broken}"));
        reply
    }

    fn set(&mut self, key: &str, limit: u64) {
        let changes = vec![(QuotaKey::parse(key).unwrap(), Some(limit))];
        let (request, reason) = (RequestKey::default(), String::new());
        self.apply(Command::SetQuota { path: PATH.into(), changes, etag: None, reason, request });
    }

    /// Does what there is to do now; answers when there is more.
    fn run(&mut self) -> Option<Duration> {
        loop {
            while let Some(first) = self.waiting.front()
                && let Some(promise) = self.slice.draw(first, self.now)
            {
                self.waiting.pop_front();
                self.grant(promise);
            }
            let waiting: Vec<Wanted> = self.waiting.iter().copied().collect();
            match self.slice.next(&waiting, false, false, self.now) {
                Next::Turn(turn) => {
                    self.turns += 1;
                    let first = turn.want.and_then(|_| self.waiting.pop_front());
                    match self.apply(Command::TurnSlice { turn }) {
                        Reply::Slice(answer) => self.answered(first, &answer),
                        other => panic!("{other:?}"),
                    }
                }
                Next::Record(mark) => {
                    self.slice.marking(mark);
                    self.slice.marked(mark, true);
                    self.marks.push(mark);
                }
                Next::Wait(until) => return until,
                Next::Over if self.waiting.is_empty() => return None,
                Next::Over => {}
            }
            if !self.slice.is_open() && self.under_way.is_empty() && !self.waiting.is_empty() {
                self.opened += 1;
                self.marks.clear();
                self.slice = slice(self.opened, self.now);
            }
        }
    }

    fn answered(&mut self, first: Option<Wanted>, answer: &SliceAnswer) {
        match self.slice.answered(answer, self.now) {
            Some(promise) => self.grant(promise),
            None if answer.short.is_some() => self.refused += 1,
            None => first.into_iter().for_each(|first| self.waiting.push_front(first)),
        }
    }

    fn grant(&mut self, promise: Promise) {
        // What a lost node would say was used at most is never less.
        let at_most = self.slice.spent_at_most();
        if let Some(mark) = self.marks.last() {
            assert!(at_most.less(*mark).is_none(), "{at_most:?} beyond {mark:?}");
        }
        self.under_way.push(promise);
    }

    fn ask(&mut self, wanted: Wanted) {
        if !self.slice.is_open() && self.under_way.is_empty() {
            self.opened += 1;
            self.marks.clear();
            self.slice = slice(self.opened, self.now);
        }
        self.waiting.push_back(wanted);
        self.run();
    }

    fn end(&mut self, used: u64) {
        let promise = self.under_way.remove(0);
        let generated = used.min(promise.tokens).saturating_sub(1);
        let used = ledger::rows::Used {
            fresh_tokens: 1,
            known_tokens: 0,
            generated_tokens: generated,
            extra: Amounts::NONE,
        };
        self.slice.end(&promise, used.amounts(promise.price), self.now);
        self.run();
    }

    /// Time passes, and what it brings is done.
    fn pass(&mut self, by: Duration) {
        let until = self.now + by;
        while let Some(next) = self.run().filter(|next| *next <= until) {
            self.now = self.now.max(next);
        }
        self.now = until;
        self.run();
    }

    /// Settled, set aside, and slots.
    fn books(&self) -> (u64, u64, u64) {
        let row = self.state.quota(PATH).unwrap();
        (row.tokens_settled, row.tokens_reserved, row.running_used)
    }
}

#[test]
fn the_first_request_of_a_quiet_project_costs_what_it_costs_without_slices() {
    let mut till = Till::new(&[]);
    till.ask(wanted(5, 40));
    assert_eq!((till.books(), till.turns, till.under_way[0].tokens), ((0, 40, 1), 1, 40));
    till.pass(ms(5_000));
    assert_eq!((till.books(), till.turns), ((0, 40, 1), 1), "as long as it goes on");
    till.end(12);
    till.pass(IDLE - ms(1));
    assert_eq!(till.books(), (0, 40, 1));
    till.pass(ms(1));
    assert_eq!((till.books(), till.turns), ((12, 0, 0), 2));
    assert!(till.marks.is_empty(), "and no mark on the disk");
}

#[test]
fn many_requests_cost_few_entries_and_settle_while_they_go_on() {
    let mut till = Till::new(&[("tokens_total", 1_000_000)]);
    let mut used = 0;
    for nth in 0..500 {
        till.ask(wanted(5, 200));
        till.pass(ms(20));
        till.end(50);
        used += 50;
        if nth % 150 == 149 {
            assert!(used - till.books().0 <= 50 * 110, "{used} used, {:?}", till.books());
        }
    }
    assert!(till.turns < 30, "{} turns", till.turns);
    assert!(till.marks.len() < 60, "{} marks", till.marks.len());
    till.pass(ms(1_000));
    assert_eq!((till.books(), till.refused), ((used, 0, 0), 0));
}

#[test]
fn a_burst_shares_its_turn() {
    let mut till = Till::new(&[]);
    till.waiting.extend((0..60).map(|_| wanted(5, 200)));
    till.run();
    assert_eq!((till.under_way.len(), till.turns, till.books()), (60, 1, (0, 60 * 200, 60)));
    (0..60).for_each(|_| till.end(7));
    till.pass(ms(1_000));
    assert_eq!(till.books(), (60 * 7, 0, 0));
}

/// The half of what is left stays for others, but nobody is refused for that.
#[test]
fn a_budget_is_used_to_its_last_token() {
    for most in [40, 64, 999] {
        let mut till = Till::new(&[("tokens_total", 1_000), ("running", 3)]);
        let mut spent = 0;
        while till.refused == 0 {
            till.ask(wanted(2, most));
            assert!(till.under_way.len() <= 1);
            if let Some(promise) = till.under_way.first() {
                let used = promise.tokens;
                spent += used;
                till.end(used);
            }
        }
        assert!(1_000 - spent < 2, "{spent} of 1000");
        till.pass(ms(1_000));
        assert_eq!(till.books(), (spent, 0, 0));
    }
}

#[test]
fn whoever_is_recalled_gives_back_and_stays_shy() {
    let mut till = Till::new(&[]);
    for _ in 0..20 {
        till.ask(wanted(5, 10));
        till.end(4);
    }
    till.ask(wanted(5, 10));
    let (settled, reserved, _) = till.books();
    assert!(reserved > 10, "{settled}+{reserved}");
    till.slice.recall(false, till.now);
    till.run();
    assert_eq!(till.books(), (20 * 4, 10, 1));
    let turns = till.turns;
    till.slice.recall(false, till.now);
    till.run();
    assert_eq!(till.turns, turns, "there is nothing to give");
    till.slice.recall(true, till.now);
    till.run();
    assert_eq!(till.turns, turns + 1, "but somebody waits for an answer");
    till.ask(wanted(5, 10));
    till.ask(wanted(5, 10));
    assert_eq!((till.books(), till.turns), ((20 * 4, 30, 3), turns + 3), "nothing spare");
}

#[test]
fn a_new_hour_and_a_new_price_begin_a_new_slice() {
    let mut till = Till::new(&[]);
    till.ask(wanted(5, 10));
    till.ask(wanted(5, 10));
    let hour = ms(3_600_000);
    till.pass(hour);
    assert!(!till.slice.is_open(), "what it holds belongs to the old hour");
    assert_eq!(till.books(), (0, 20, 2));
    till.end(10);
    till.end(10);
    till.pass(ms(1));
    assert_eq!(till.books(), (20, 0, 0));
    till.ask(wanted(5, 10));
    let price = Price { input: 1_000_000, cached: 0, output: 2_000_000 };
    let (request, reason) = (RequestKey::default(), String::new());
    till.apply(Command::SetPrice { model: "m".into(), price, etag: None, reason, request });
    // With the recall that comes with the price.
    till.slice.recall(false, till.now);
    till.waiting.push_back(wanted(5, 10));
    let first = till.under_way.remove(0);
    till.slice.end(&first, tokens(3), till.now);
    till.run();
    assert_eq!(till.under_way[0].amounts.micro_usd, 1 + 2 * 9);
    till.end(4);
    till.pass(ms(1_000));
    let row = till.state.quota(PATH).unwrap();
    let money = row.budgets_at(0).into_iter().find(|row| row.budget == ledger::keys::Budget::MicroUsd);
    assert_eq!((till.books(), money.map(|row| row.settled)), ((20 + 3 + 4, 0, 0), Some(1 + 2 * 3)));
}

#[test]
fn without_a_record_nothing_spare_is_taken() {
    let mut till = Till::new(&[]);
    till.waiting.extend((0..4).map(|_| wanted(5, 10)));
    let waiting: Vec<Wanted> = till.waiting.iter().copied().collect();
    let Next::Turn(turn) = till.slice.next(&waiting, false, false, till.now) else { panic!("it opens") };
    assert_eq!(turn.spare.map(|spare| spare.requests), Some(3));
    let Reply::Slice(answer) = till.apply(Command::TurnSlice { turn }) else { panic!("granted") };
    till.slice.answered(&answer, till.now).unwrap();
    let Next::Record(mark) = till.slice.next(&waiting[1..], false, false, till.now) else { panic!("a mark") };
    till.slice.marking(mark);
    till.slice.marked(mark, false);
    assert!(!till.slice.is_open());
    assert_eq!(till.slice.draw(&wanted(1, 1), till.now), None);
}

/// Whatever comes: the limit holds after every entry, and in the end everything is in the books.
#[test]
fn chance_finds_no_token_too_many() {
    for seed in 0..60_u64 {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        let mut till = Till::new(&[("tokens_total", 5_000), ("running", 8), ("requests_minute", 300)]);
        let mut used = 0;
        for _ in 0..300 {
            match next(8) {
                0..=3 => {
                    let least = 2 + next(20);
                    till.ask(wanted(least, least + next(60)));
                }
                4..=5 if !till.under_way.is_empty() => {
                    let some = 1 + next(till.under_way[0].tokens);
                    used += some;
                    till.end(some);
                }
                6 => till.slice.recall(next(2) == 0, till.now),
                _ => till.pass(ms(next(400))),
            }
        }
        while let Some(promise) = till.under_way.first() {
            used += promise.tokens;
            let all = promise.tokens;
            till.end(all);
        }
        till.pass(ms(3_000));
        assert_eq!(till.books(), (used, 0, 0), "seed {seed}");
        assert!(used <= 5_000);
    }
}
