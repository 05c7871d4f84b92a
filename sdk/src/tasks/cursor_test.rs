use super::*;
use crate::data::{TaskState, Usage};

const OLD: &str = "1.9.0";
const NEW: &str = "1.10.0";

fn event(sequence: u64, kind: EventKind) -> Event {
    Event { task: "t".into(), sequence, at_ms: 0, kind }
}

fn state(sequence: u64, state: TaskState) -> Event {
    event(sequence, EventKind::State { state, reason: String::new(), node: None, epoch: None })
}

fn step(sequence: u64, step: u64) -> Event {
    event(sequence, EventKind::Step { step, head: String::new(), usage: Usage::default(), route: None })
}

fn token(step: u64, attempt: &str, offset: u64, tokens: u32, text: &str) -> Event {
    event(0, EventKind::Token { step, attempt: attempt.into(), offset, tokens, text: text.into() })
}

fn retract(step: u64, attempt: &str) -> Event {
    event(0, EventKind::Retract { step, attempt: attempt.into() })
}

fn show(cursor: &mut Cursor, event: Event) -> Vec<Event> {
    match cursor.take(event) {
        Took::Show(events) => events,
        Took::AskAgain => panic!("asked again"),
    }
}

#[test]
fn committed_events_come_once_and_in_order() {
    let mut cursor = Cursor::new(0);
    assert_eq!(show(&mut cursor, state(1, TaskState::Pending)).len(), 1);
    assert_eq!(show(&mut cursor, state(1, TaskState::Pending)), vec![]);
    assert_eq!(show(&mut cursor, state(2, TaskState::Running)).len(), 1);
    assert_eq!(cursor.next(), 3);
    assert!(!cursor.ended());
    assert_eq!(show(&mut cursor, state(3, TaskState::Succeeded)).len(), 1);
    assert!(cursor.ended());
}

#[test]
fn a_hole_is_asked_for_again_and_then_named() {
    let mut cursor = Cursor::new(1);
    assert_eq!(cursor.take(state(4, TaskState::Running)), Took::AskAgain);
    assert_eq!(cursor.next(), 1, "nothing was taken");
    let shown = show(&mut cursor, state(4, TaskState::Running));
    assert_eq!(shown[0].kind, EventKind::Gap { first: 1, last: 3 });
    assert_eq!(shown[1].sequence, 4);
}

#[test]
fn an_announced_gap_is_cut_to_what_was_not_seen() {
    let mut cursor = Cursor::new(3);
    let gap = |first, last| event(0, EventKind::Gap { first, last });
    assert_eq!(show(&mut cursor, gap(1, 2)), vec![]);
    assert_eq!(show(&mut cursor, gap(1, 5)), vec![gap(3, 5)]);
    assert_eq!(cursor.next(), 6);
}

#[test]
fn tokens_sent_again_after_a_reconnect_show_only_what_is_new() {
    let mut cursor = Cursor::new(1);
    show(&mut cursor, token(1, OLD, 0, 2, "one two"));
    show(&mut cursor, token(1, OLD, 2, 1, " three"));
    assert_eq!(show(&mut cursor, token(1, OLD, 2, 1, " three")), vec![]);
    let again = show(&mut cursor, token(1, OLD, 0, 5, "one two three four five"));
    assert_eq!(again, vec![token(1, OLD, 3, 2, " four five")]);
    assert_eq!(show(&mut cursor, token(1, OLD, 0, 3, "one two three")), vec![]);
    // A chunk that begins inside one of ours.
    let inside = show(&mut cursor, token(1, OLD, 4, 2, " five six"));
    assert_eq!(inside, vec![token(1, OLD, 5, 1, " six")]);
}

/// Where words repeat, texts overlap at the wrong place: ends that were seen tell the right one.
#[test]
fn repeated_words_are_not_swallowed_after_a_reconnect() {
    let mut cursor = Cursor::new(1);
    show(&mut cursor, token(1, OLD, 0, 4, "la la la la "));
    // Another node cuts elsewhere, and its second chunk goes on beyond what was shown.
    assert_eq!(show(&mut cursor, token(1, OLD, 0, 3, "la la la ")), vec![]);
    let rest = show(&mut cursor, token(1, OLD, 3, 3, "la la la "));
    assert_eq!(rest, vec![token(1, OLD, 4, 2, "la la ")]);
}

#[test]
fn another_attempt_takes_back_the_text_of_the_last_one() {
    let mut cursor = Cursor::new(1);
    show(&mut cursor, token(1, OLD, 0, 1, "lost"));
    let shown = show(&mut cursor, token(1, NEW, 0, 1, "kept"));
    assert_eq!(shown, vec![retract(1, OLD), token(1, NEW, 0, 1, "kept")]);
    assert_eq!(show(&mut cursor, token(1, OLD, 1, 1, "straggler")), vec![]);
    assert_eq!(show(&mut cursor, retract(1, OLD)), vec![], "said already");
}

#[test]
fn attempts_are_ordered_by_lease_and_then_by_call() {
    let mut cursor = Cursor::new(1);
    show(&mut cursor, token(1, "1.9.0/1", 0, 1, "second call"));
    assert_eq!(show(&mut cursor, token(1, "1.9.0/0", 0, 1, "first call")), vec![]);
    let shown = show(&mut cursor, token(1, "1.10.0/0", 0, 1, "next lease"));
    assert_eq!(shown, vec![retract(1, "1.9.0/1"), token(1, "1.10.0/0", 0, 1, "next lease")]);
}

#[test]
fn a_retract_is_shown_once_and_only_for_text_that_was_shown() {
    let mut cursor = Cursor::new(1);
    assert_eq!(show(&mut cursor, retract(1, OLD)), vec![]);
    show(&mut cursor, token(2, OLD, 0, 1, "x"));
    assert_eq!(show(&mut cursor, retract(2, OLD)), vec![retract(2, OLD)]);
    assert_eq!(show(&mut cursor, retract(2, OLD)), vec![]);
    assert_eq!(show(&mut cursor, token(2, OLD, 0, 1, "x")), vec![], "a straggler");
}

#[test]
fn the_tail_of_a_committed_step_is_shown_but_not_its_beginning_again() {
    let mut cursor = Cursor::new(1);
    show(&mut cursor, token(1, OLD, 0, 1, "head"));
    show(&mut cursor, step(1, 1));
    assert_eq!(show(&mut cursor, token(1, OLD, 1, 1, " tail")).len(), 1);
    show(&mut cursor, token(2, OLD, 0, 1, "next"));
    assert_eq!(show(&mut cursor, token(1, OLD, 0, 2, "head tail")), vec![]);
    let mut late = Cursor::new(1);
    show(&mut late, step(1, 1));
    assert_eq!(show(&mut late, token(1, OLD, 0, 1, "committed long ago")), vec![]);
}

#[test]
fn text_that_contradicts_itself_is_taken_back() {
    let mut cursor = Cursor::new(1);
    show(&mut cursor, token(1, OLD, 0, 1, "red"));
    let shown = show(&mut cursor, token(1, OLD, 0, 2, "blue sky"));
    assert_eq!(shown, vec![retract(1, OLD), token(1, OLD, 0, 2, "blue sky")]);
}

/// Cuts one stream at every place and sends it again from there: what is shown is always the same.
#[test]
fn any_cut_of_the_stream_reads_the_same() {
    let pieces = ["Ein ", "schö", "ner ", "Tag", "."];
    let chunk = |from: usize| token(1, OLD, from as u64, (5 - from) as u32, &pieces[from..].concat());
    for cut in 0..=pieces.len() {
        let mut cursor = Cursor::new(1);
        let before = (0..cut).map(|i| token(1, OLD, i as u64, 1, pieces[i]));
        let stream: Vec<Event> =
            before.chain([chunk(0), step(1, 1), state(2, TaskState::Succeeded)]).collect();
        let shown: Vec<Event> = stream.into_iter().flat_map(|e| show(&mut cursor, e)).collect();
        let text: String = shown.iter().filter_map(text_of).collect();
        assert_eq!(text, pieces.concat(), "cut at {cut}");
        assert!(cursor.ended());
    }
}

fn text_of(event: &Event) -> Option<&str> {
    match &event.kind {
        EventKind::Token { text, .. } => Some(text),
        _ => None,
    }
}
