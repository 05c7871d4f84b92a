//! Slices: parts of the quotas that nodes give to requests without asking for each.

use crate::bench::{Bench, NODE};
use ledger::command::{Command, SliceTurn, Spare, Wanted};
use ledger::effect::Effect;
use ledger::keys::Amounts;
use ledger::reply::{Refusal, Reply, SliceAnswer};
use ledger::rows::{CallId, Want};
use ledger::{Place, State};
use types::{Class, NodeId, PauseReason, ProjectName, TaskState};

const HOUR_MS: u64 = 3_600_000;
/// The most that each request may use.
const EACH: u64 = 10;

fn tokens(tokens: u64) -> Amounts {
    Amounts { tokens, ..Amounts::NONE }
}

fn wanted(least: u64, most: u64) -> Wanted {
    Wanted { min_tokens: least, max_tokens: most, want: Want { fresh_tokens: 1, ..Want::default() } }
}

fn spare(requests: u64, slots: u64) -> Option<Spare> {
    Some(Spare { each: wanted(2, EACH), requests, slots })
}

/// The first turn of a slice, for one request.
fn first(id: u8) -> SliceTurn {
    SliceTurn {
        project: ProjectName::parse("p").unwrap(),
        slice: CallId([id; 16]),
        model: "m".into(),
        author: "ann".into(),
        node: NODE,
        needs: vec![],
        seq: 1,
        spent: Amounts::NONE,
        drawn: 0,
        keep: Amounts::NONE,
        keep_slots: 0,
        want: Some(wanted(2, EACH)),
        recalled: false,
        spare: None,
        lives_ms: 30_000,
    }
}

/// Nothing is under way and nothing waits: it ends.
fn last(id: u8, seq: u64, spent: u64) -> SliceTurn {
    SliceTurn { seq, spent: tokens(spent), drawn: 1, want: None, ..first(id) }
}

impl Bench {
    fn turn(&mut self, turn: &SliceTurn) -> SliceAnswer {
        match self.apply(Command::TurnSlice { turn: Box::new(turn.clone()) }) {
            Reply::Slice(answer) => *answer,
            other => panic!("{turn:?}: {other:?}"),
        }
    }

    fn refuse(&mut self, turn: &SliceTurn) -> Refusal {
        let before = self.state.quota("projects/p");
        match self.apply(Command::TurnSlice { turn: Box::new(turn.clone()) }) {
            Reply::Refused(refusal) => {
                assert_eq!(self.state.quota("projects/p"), before, "{refusal}");
                refusal
            }
            other => panic!("{turn:?}: {other:?}"),
        }
    }

    fn refund(&mut self, id: u8, node: NodeId, spent: u64) -> Reply {
        let (project, slice) = (ProjectName::parse("p").unwrap(), CallId([id; 16]));
        self.apply(Command::RefundSlice { project, slice, node, spent: tokens(spent) })
    }

    /// Settled and set aside of the tokens in total, slots, and what is used of the minute's requests.
    fn books(&self) -> (u64, u64, u64) {
        let row = self.state.quota("projects/p").unwrap();
        (row.tokens_settled, row.tokens_reserved, row.running_used)
    }

    fn minute(&self, key: &str) -> u64 {
        let row = self.state.quota("projects/p").unwrap();
        let facts = row.facts(self.now);
        facts.into_iter().find(|(known, ..)| known.to_string() == key).map_or(0, |(_, _, used, _)| used)
    }
}

#[test]
fn one_entry_settles_gives_back_and_takes() {
    let mut bench = Bench::new(1, &["p"]);
    bench.set("projects/p", "tokens_total", Some(1_000));
    bench.set("projects/p", "requests_minute", Some(100));
    let opened = bench.turn(&SliceTurn { spare: spare(9, 3), ..first(1) });
    assert_eq!((opened.granted, opened.spare, bench.books()), (EACH, true, (0, 100, 4)));
    assert_eq!(bench.minute("requests_minute"), 10);
    // Six requests later two are under way, and what there is suffices for less from now on.
    let turn = SliceTurn {
        seq: 2,
        spent: tokens(23),
        drawn: 6,
        keep: tokens(20),
        keep_slots: 2,
        want: None,
        spare: spare(1, 1),
        ..first(1)
    };
    assert!(bench.turn(&turn).spare);
    assert_eq!((bench.books(), bench.minute("requests_minute")), ((23, 30, 3), 7));
    bench.turn(&SliceTurn { drawn: 7, ..last(1, 3, 40) });
    assert_eq!((bench.books(), bench.minute("requests_minute")), ((40, 0, 0), 7));
    assert_eq!(bench.state.slices().count(), 0);
    bench.check();
}

#[test]
fn a_turn_that_comes_twice_counts_once_and_is_answered_the_same() {
    let mut bench = Bench::new(1, &["p"]);
    let opening = SliceTurn { spare: spare(2, 0), ..first(1) };
    let opened = bench.turn(&opening);
    bench.set("projects/p", "tokens_total", Some(30));
    assert_eq!(
        (bench.turn(&opening), bench.books()),
        (opened, (0, 30, 1)),
        "also where it would not fit now"
    );
    let ending = last(1, 2, 7);
    let ended = bench.turn(&ending);
    assert_eq!((bench.turn(&ending), bench.books()), (ended, (7, 0, 0)));
    assert!(matches!(bench.refuse(&opening), Refusal::NotFound { .. }), "it is over");
    assert!(matches!(bench.refuse(&last(1, 3, 9)), Refusal::NotFound { .. }));
    bench.wait(20_000);
    assert!(matches!(bench.refuse(&ending), Refusal::NotFound { .. }), "and forgotten");
    bench.check();
}

#[test]
fn bad_input_changes_nothing() {
    let mut bench = Bench::new(1, &["p"]);
    bench.turn(&SliceTurn { spare: spare(2, 1), ..first(1) });
    let next = SliceTurn { seq: 2, keep: tokens(10), keep_slots: 1, ..first(1) };
    for wrong in [
        SliceTurn { seq: 4, ..next.clone() },
        SliceTurn { seq: 0, ..next.clone() },
        SliceTurn { node: NodeId(9), ..next.clone() },
        SliceTurn { node: NodeId(9), ..first(2) },
        SliceTurn { model: "other".into(), ..next.clone() },
        SliceTurn { model: String::new(), ..first(2) },
        SliceTurn { seq: 2, ..first(2) },
        SliceTurn { lives_ms: 1, ..next.clone() },
        SliceTurn { spent: tokens(1 << 61), ..next.clone() },
        SliceTurn { want: Some(wanted(0, 5)), ..next.clone() },
        SliceTurn { want: Some(wanted(9, 5)), ..next.clone() },
        SliceTurn { spare: spare(1 << 40, 1), ..next.clone() },
        SliceTurn { spare: spare(1, 1 << 40), ..next.clone() },
    ] {
        bench.refuse(&wrong);
    }
    assert_eq!(bench.turn(&next).granted, EACH);
    // A call and a slice don't answer for each other.
    let (project, call) = (ProjectName::parse("p").unwrap(), CallId([1; 16]));
    let extra = Amounts::NONE;
    let end =
        Command::EndCall { project, call, fresh_tokens: 1, known_tokens: 0, generated_tokens: 0, extra };
    assert!(matches!(bench.apply(end), Reply::Refused(_)));
    bench.check();
}

#[test]
fn outstanding_and_settled_never_pass_the_limit_in_force() {
    let mut bench = Bench::new(1, &["p"]);
    bench.set("projects/p", "tokens_total", Some(100));
    // Spare leaves as much for others.
    let much = bench.turn(&SliceTurn { spare: spare(5, 0), ..first(1) });
    assert_eq!((much.granted, much.spare, bench.books()), (EACH, false, (0, 10, 1)));
    assert!(bench.turn(&SliceTurn { spare: spare(4, 0), ..first(2) }).spare);
    assert_eq!(bench.books(), (0, 60, 2));
    let all = bench.turn(&SliceTurn { want: Some(wanted(2, 900)), ..first(3) });
    assert_eq!((all.granted, bench.books()), (40, (0, 100, 3)), "the last token");
    // A cut takes nothing back that is promised, and grants nothing before use is below it.
    bench.set("projects/p", "tokens_total", Some(55));
    let none = bench.turn(&SliceTurn { seq: 2, keep: tokens(10), keep_slots: 1, ..first(2) });
    assert!(none.short.is_some() && none.recalled, "{none:?}");
    assert_eq!(bench.books(), (0, 60, 3));
    bench.turn(&last(3, 2, 1));
    let next = bench.turn(&SliceTurn { seq: 3, spent: tokens(4), drawn: 1, ..first(2) });
    assert_eq!((next.granted, bench.books()), (EACH, (5, 20, 2)));
    bench.check();
}

#[test]
fn an_hour_that_is_over_and_an_old_price_get_no_more() {
    let mut bench = Bench::new(1, &["p"]);
    let opened = bench.turn(&SliceTurn { spare: spare(3, 1), ..first(1) });
    assert!((1..=HOUR_MS).contains(&opened.closes_in_ms));
    bench.now.wall_ms += opened.closes_in_ms;
    let held =
        |seq, spent| SliceTurn { seq, spent: tokens(spent), keep: tokens(10), keep_slots: 1, ..first(1) };
    let old = bench.turn(&held(2, 5));
    assert!(old.retired && old.granted == 0 && old.short.is_none(), "{old:?}");
    let hour = |bench: &Bench| bench.used("projects/p", "tokens_hour");
    assert_eq!((bench.books(), hour(&bench)), ((5, 10, 1), 0), "settled in the hour it was made in");
    bench.turn(&last(1, 3, 12));
    assert_eq!((bench.books(), hour(&bench)), ((12, 0, 0), 0));
    bench.turn(&first(2));
    bench.price(1_000_000, 0, 1_000_000);
    let old = bench.turn(&SliceTurn { seq: 2, keep: tokens(10), keep_slots: 1, ..first(2) });
    assert!(old.retired && old.price.is_none());
    bench.turn(&last(2, 3, 3));
    assert_eq!(bench.turn(&first(3)).price.map(|price| price.input), Some(1_000_000));
    assert_eq!(bench.used("projects/p", "micro_usd_total"), EACH);
    bench.check();
}

#[test]
fn a_lost_slice_counts_in_full_until_its_node_says_more_once() {
    let mut bench = Bench::new(1, &["p"]);
    bench.set("projects/p", "tokens_total", Some(1_000));
    bench.set("projects/p", "tokens_minute", Some(1_000));
    bench.turn(&SliceTurn { spare: spare(9, 3), ..first(1) });
    bench.turn(&SliceTurn {
        seq: 2,
        spent: tokens(15),
        drawn: 2,
        want: None,
        spare: spare(5, 1),
        ..first(1)
    });
    assert_eq!((bench.books(), bench.minute("tokens_minute")), ((15, 50, 1), 65));
    bench.apply(Command::NodeLost { node: NODE });
    assert_eq!(bench.books(), (65, 0, 0));
    assert_eq!(bench.minute("tokens_minute"), 15, "rates return");
    assert!(matches!(bench.refuse(&last(1, 3, 15)), Refusal::NotFound { .. }), "too late");
    assert!(matches!(bench.refund(1, NodeId(2), 20), Reply::Refused(Refusal::Invalid { .. })));
    assert!(matches!(bench.refund(7, NODE, 20), Reply::Refused(Refusal::NotFound { .. })));
    assert_eq!(bench.books(), (65, 0, 0));
    assert_eq!((bench.refund(1, NODE, 22), bench.books()), (Reply::Done, (22, 0, 0)));
    assert!(matches!(bench.refund(1, NODE, 15), Reply::Refused(Refusal::NotFound { .. })), "once");
    assert_eq!(bench.books(), (22, 0, 0));
    bench.check();
}

#[test]
fn a_slice_ends_with_its_time_and_is_remembered_for_a_day() {
    let mut bench = Bench::new(1, &["p"]);
    bench.turn(&SliceTurn { spare: spare(1, 0), ..first(1) });
    bench.turn(&SliceTurn { spare: spare(1, 0), ..first(2) });
    let calls = vec![(ProjectName::parse("p").unwrap(), CallId([2; 16]))];
    bench.wait(20_000);
    bench.apply(Command::RenewCalls { node: NODE, calls, lives_ms: 30_000 });
    bench.wait(10_000);
    assert_eq!(bench.books(), (20, 20, 1));
    bench.wait(HOUR_MS);
    assert_eq!(bench.books(), (40, 0, 0));
    bench.wait(22 * HOUR_MS);
    assert_eq!((bench.refund(1, NODE, 5), bench.books().0), (Reply::Done, 25));
    bench.wait(2 * HOUR_MS);
    assert!(matches!(bench.refund(2, NODE, 5), Reply::Refused(_)), "a day is over");
    assert_eq!(bench.state.calls().count(), 0);
    bench.check();
}

/// Its node was back before anybody missed it, and knows nothing of its requests but how much they used at most.
#[test]
fn a_node_that_came_back_ends_its_slice() {
    let mut bench = Bench::new(1, &["p"]);
    bench.turn(&SliceTurn { spare: spare(4, 2), ..first(1) });
    assert_eq!((bench.refund(1, NODE, 12), bench.books()), (Reply::Done, (12, 0, 0)));
    assert!(matches!(bench.refund(1, NODE, 0), Reply::Refused(_)));
    bench.check();
}

#[test]
fn only_so_many_lost_slices_are_remembered() {
    let mut bench = Bench::new(1, &["p"]);
    let most = types::limits::LOST_SLICES;
    let turns: Vec<Command> = (0..=most)
        .map(|at| {
            let mut turn = first(0);
            turn.slice.0[..8].copy_from_slice(&(at as u64).to_be_bytes());
            Command::TurnSlice { turn: Box::new(turn) }
        })
        .collect();
    turns.into_iter().for_each(|turn| drop(bench.apply(turn)));
    bench.apply(Command::NodeLost { node: NODE });
    assert_eq!(bench.books(), ((most as u64 + 1) * EACH, 0, 0));
    assert!(matches!(bench.refund(0, NODE, 1), Reply::Refused(_)), "the oldest went");
    let restored = State::restore(&bench.state.snapshot()).unwrap();
    assert_eq!(restored.snapshot(), bench.state.snapshot());
    bench.check();
}

/// Nobody is refused what somebody else holds and does not need.
#[test]
fn a_request_waits_for_what_slices_of_others_need_not() {
    let mut bench = Bench::new(1, &["p"]);
    bench.set("projects/p", "tokens_total", Some(100));
    bench.turn(&SliceTurn { spare: spare(4, 0), ..first(1) });
    bench.turn(&SliceTurn { want: Some(wanted(50, 50)), ..first(2) });
    let waits = |seq, recalled| SliceTurn { want: Some(wanted(30, 30)), recalled, seq, ..first(3) };
    bench.index += 1;
    let place = Place { index: bench.index, position: 0 };
    let applied =
        bench.state.apply(place, bench.now, &Command::TurnSlice { turn: Box::new(waits(1, false)) });
    assert_eq!(applied.effects[..1], [Effect::Recall { node: NODE, answer: true }]);
    assert_eq!(bench.state.recalls().into_iter().collect::<Vec<_>>(), [(NODE, true)], "until all answered");
    let Reply::Slice(answer) = applied.reply else { panic!("{:?}", applied.reply) };
    assert!(answer.recalled && answer.short.is_some());
    // One answers: it needs all of it. The other's spare is gone, and it gets none before the next turn.
    let keep = SliceTurn { seq: 2, keep: tokens(50), keep_slots: 1, want: None, ..first(2) };
    bench.turn(&keep);
    let waiting = SliceTurn { slice: CallId([4; 16]), ..waits(1, true) };
    assert!(bench.turn(&waiting).recalled, "the other one did not answer yet");
    let gives =
        SliceTurn { seq: 2, keep: tokens(10), keep_slots: 1, want: None, spare: spare(4, 0), ..first(1) };
    assert!(!bench.turn(&gives).spare);
    let waiting = SliceTurn { slice: CallId([5; 16]), ..waits(1, true) };
    assert_eq!((bench.turn(&waiting).granted, bench.books()), (30, (0, 90, 3)));
    let last = bench.turn(&SliceTurn { slice: CallId([6; 16]), ..waits(1, true) });
    assert!(last.short.is_some() && !last.recalled, "all answered: that is the truth");
    assert!(bench.state.recalls().is_empty());
    bench.check();
}

/// PAUSED(BUDGET) is not for good while a slice holds what the task needs.
#[test]
fn a_task_wakes_when_a_slice_gives_back() {
    let mut bench = Bench::new(2, &["p"]);
    bench.set("projects/p", "tokens_total", Some(100));
    bench.turn(&SliceTurn { spare: spare(4, 0), ..first(1) });
    let uid = bench.create("p", "agent", Class::Batch);
    bench.start(uid);
    assert!(matches!(bench.reserve(uid, 80, 80, Want::default()), Reply::Refused(_)));
    assert_eq!(bench.task(uid).state, TaskState::Paused(PauseReason::Budget));
    assert_eq!(bench.state.recalls().into_iter().collect::<Vec<_>>(), [(NODE, false)]);
    bench.turn(&SliceTurn { seq: 2, keep: tokens(10), keep_slots: 1, want: None, ..first(1) });
    bench.wait(1);
    assert_eq!(bench.task(uid).state, TaskState::Pending);
    bench.check();
}

#[test]
fn a_task_that_waits_for_a_slot_is_in_nobodys_way() {
    let mut bench = Bench::new(2, &["p"]);
    bench.set("projects/p", "running", Some(3));
    assert!(bench.turn(&SliceTurn { spare: spare(1, 1), ..first(1) }).spare);
    let uids: Vec<_> = (0..2).map(|_| bench.create("p", "agent", Class::Batch)).collect();
    bench.start(uids[0]);
    assert_eq!(bench.state.recalls().into_iter().collect::<Vec<_>>(), [(NODE, false)]);
    bench.turn(&SliceTurn { seq: 2, keep: tokens(10), keep_slots: 1, want: None, ..first(1) });
    assert!(bench.state.recalls().is_empty());
    bench.start(uids[1]);
    bench.check();
}
