"""What a watcher has seen, without any stream."""

from __future__ import annotations

import random
from collections.abc import Iterator

from quorate._cursor import Cursor
from quorate.data import Event, GapEvent, RetractEvent, StateEvent, StepEvent, TaskState, TokenEvent, Usage

OLD = "1.9.0"
NEW = "1.10.0"


def state(sequence: int, to: TaskState) -> StateEvent:
    return StateEvent("t", sequence, 0, to, "", None, None)


def step(sequence: int, number: int) -> StepEvent:
    return StepEvent("t", sequence, 0, number, "", Usage(0, 0, 0, 0))


def token(number: int, attempt: str, offset: int, tokens: int, text: str) -> TokenEvent:
    return TokenEvent("t", 0, number, attempt, offset, tokens, text)


def retract(number: int, attempt: str) -> RetractEvent:
    return RetractEvent("t", 0, number, attempt)


def show(cursor: Cursor, *events: Event) -> list[Event]:
    shown: list[Event] = []
    for event in events:
        took = cursor.take(event)
        assert took is not None, "asked again"
        shown += took
    return shown


def test_committed_events_come_once_and_in_order() -> None:
    cursor = Cursor(0)
    pending, running = state(1, TaskState.PENDING), state(2, TaskState.RUNNING)
    assert show(cursor, pending, pending, running, pending) == [pending, running]
    assert (cursor.next, cursor.ended) == (3, False)
    show(cursor, state(3, TaskState.SUCCEEDED))
    assert cursor.ended


def test_a_hole_is_asked_for_again_and_then_named() -> None:
    cursor = Cursor(1)
    late = state(4, TaskState.RUNNING)
    assert cursor.take(late) is None
    assert cursor.next == 1, "nothing was taken"
    assert show(cursor, late) == [GapEvent("t", 0, 1, 3), late]


def test_an_announced_gap_is_cut_to_what_was_not_seen() -> None:
    cursor = Cursor(3)
    assert show(cursor, GapEvent("t", 0, 1, 2)) == []
    assert show(cursor, GapEvent("t", 0, 1, 5)) == [GapEvent("t", 0, 3, 5)]
    assert cursor.next == 6


def test_tokens_sent_again_show_only_what_is_new() -> None:
    cursor = Cursor(1)
    show(cursor, token(1, OLD, 0, 2, "one two"), token(1, OLD, 2, 1, " three"))
    assert show(cursor, token(1, OLD, 2, 1, " three")) == []
    again = show(cursor, token(1, OLD, 0, 5, "one two three four five"))
    assert again == [token(1, OLD, 3, 2, " four five")]
    assert show(cursor, token(1, OLD, 0, 3, "one two three")) == []
    # A chunk that begins inside one of ours.
    assert show(cursor, token(1, OLD, 4, 2, " five six")) == [token(1, OLD, 5, 1, " six")]


def test_another_attempt_takes_back_the_text_of_the_last_one() -> None:
    cursor = Cursor(1)
    kept = token(1, NEW, 0, 1, "kept")
    assert show(cursor, token(1, OLD, 0, 1, "lost"), kept)[1:] == [retract(1, OLD), kept]
    assert show(cursor, token(1, OLD, 1, 1, "straggler")) == []
    assert show(cursor, retract(1, OLD)) == [], "said already"


def test_attempts_are_ordered_by_lease_and_then_by_call() -> None:
    cursor = Cursor(1)
    show(cursor, token(1, "1.9.0/1", 0, 1, "second call"))
    assert show(cursor, token(1, "1.9.0/0", 0, 1, "first call")) == []
    last = token(1, "1.10.0/0", 0, 1, "next lease")
    assert show(cursor, last) == [retract(1, "1.9.0/1"), last]
    unreadable = token(1, "tomorrow", 0, 1, "counts as later")
    assert show(cursor, unreadable) == [retract(1, "1.10.0/0"), unreadable]


def test_a_retract_is_shown_once_and_only_for_text_that_was_shown() -> None:
    cursor = Cursor(1)
    assert show(cursor, retract(1, OLD)) == []
    show(cursor, token(2, OLD, 0, 1, "x"))
    assert show(cursor, retract(2, OLD), retract(2, OLD)) == [retract(2, OLD)]
    assert show(cursor, token(2, OLD, 0, 1, "x")) == [], "a straggler"


def test_the_tail_of_a_committed_step_is_shown_but_not_its_beginning_again() -> None:
    cursor = Cursor(1)
    show(cursor, token(1, OLD, 0, 1, "head"), step(1, 1))
    assert len(show(cursor, token(1, OLD, 1, 1, " tail"))) == 1
    show(cursor, token(2, OLD, 0, 1, "next"))
    assert show(cursor, token(1, OLD, 0, 2, "head tail")) == []
    late = Cursor(1)
    show(late, step(1, 1))
    assert show(late, token(1, OLD, 0, 1, "committed long ago")) == []


def test_text_that_contradicts_itself_is_taken_back() -> None:
    cursor = Cursor(1)
    blue = token(1, OLD, 0, 2, "blue sky")
    assert show(cursor, token(1, OLD, 0, 1, "red"), blue)[1:] == [retract(1, OLD), blue]


def test_any_stream_from_nodes_that_die_reads_the_same() -> None:
    """Nodes send the text from its beginning in pieces of their own, and die anywhere."""
    for seed in range(1_000):
        chance = random.Random(seed)
        words = [chance.choice(["Ein ", "schö", "ner ", "Tag", ".", "a", "a"]) for _ in range(chance.randint(1, 30))]
        cursor, shown = Cursor(1), ""
        for last in (*[False] * chance.randint(0, 4), True):
            shown += "".join(pieces(cursor, words, len(words) if last else chance.randint(0, len(words)), chance))
        assert shown == "".join(words), f"seed {seed}"
        assert len(show(cursor, step(1, 1), state(2, TaskState.SUCCEEDED))) == 2 and cursor.ended


def pieces(cursor: Cursor, words: list[str], end: int, chance: random.Random) -> Iterator[str]:
    """What is shown of a stream with the words up to `end`."""
    at = 0
    while at < end:
        more = min(chance.randint(1, 6), end - at)
        for event in show(cursor, token(1, OLD, at, more, "".join(words[at : at + more]))):
            assert isinstance(event, TokenEvent)
            yield event.text
        at += more
