"""Following a task over streams that break."""

from __future__ import annotations

import asyncio
from typing import Any, Callable

import pytest
from grpc import StatusCode

import quorate
from fake import Break, End, Fake, Hold, Refuse, Step
from quorate import AsyncClient
from quorate._proto import task_pb2
from quorate._proto.task_pb2 import Retract, StateChange, StepCommitted, TaskEvent, TokenChunk

Fakes = Callable[[int], list[Fake]]
Connect = Callable[..., Any]


def state(sequence: int, to: task_pb2.TaskState.ValueType) -> TaskEvent:
    return TaskEvent(task="t_1", sequence=sequence, state=StateChange(state=to))


def step(sequence: int, number: int) -> TaskEvent:
    return TaskEvent(task="t_1", sequence=sequence, step=StepCommitted(step=number))


def token(attempt: str, offset: int, text: str) -> TaskEvent:
    return TaskEvent(task="t_1", token=TokenChunk(step=1, attempt=attempt, offset=offset, tokens=1, text=text))


TEXT = ["A", " quorum", " is", " enough", "."]
LIFE: list[TaskEvent] = [
    state(1, task_pb2.PENDING),
    state(2, task_pb2.RUNNING),
    *(token("1.5.0", at, piece) for at, piece in enumerate(TEXT)),
    step(3, 1),
    state(4, task_pb2.SUCCEEDED),
]


def share(fakes: list[Fake], *scripts: list[Step]) -> None:
    """Whichever node is asked next plays the next script."""
    for fake in fakes:
        fake.watches = fakes[0].watches
    fakes[0].watches.extend(scripts)


def follow(client: Any) -> tuple[list[int], str]:
    """The numbers of the committed events, and the text that stands in the end."""
    sequences, text = [], ""
    for event in client.tasks.watch("t_1"):
        if event.kind == "token":
            text += event.text
        elif event.kind == "retract":
            text = ""
        elif event.kind == "gap":
            pytest.fail(f"{event}")
        else:
            sequences.append(event.sequence)
    return sequences, text


@pytest.mark.parametrize("cut", range(len(LIFE)))
def test_a_watch_cut_anywhere_reads_as_if_it_was_not(cut: int, fakes: Fakes, connect: Connect) -> None:
    nodes = fakes(2)
    share(nodes, [*LIFE[:cut], Break() if cut % 2 else End()], [*LIFE])
    assert follow(connect(*nodes)) == ([1, 2, 3, 4], "A quorum is enough.")
    assert [len(node.watched_from) for node in nodes] == [1, 1], "the other node was asked"


def test_a_watch_asks_for_what_it_has_not_seen(fakes: Fakes, connect: Connect) -> None:
    (fake,) = fakes(1)
    paused = state(3, task_pb2.PAUSED)
    share([fake], [*LIFE[:2], paused, End()], [state(4, task_pb2.CANCELLED)])
    follow(connect(fake))
    assert fake.watched_from == [1, 4]


def test_live_text_goes_on_at_a_node_that_begins_it_with_the_lease(fakes: Fakes, connect: Connect) -> None:
    (fake,) = fakes(1)
    share([fake], [*LIFE[:4], End()], [*LIFE[1:]])
    assert follow(connect(fake)) == ([1, 2, 3, 4], "A quorum is enough.")
    assert fake.watched_from == [1, 2]


def test_the_text_of_a_lost_attempt_is_taken_back(fakes: Fakes, connect: Connect) -> None:
    (fake,) = fakes(1)
    lost: list[Step] = [state(1, task_pb2.RUNNING), token("1.5.0", 0, "lost"), End()]
    kept: list[Step] = [state(2, task_pb2.RUNNING), token("1.6.0", 0, "kept"), step(3, 1), state(4, task_pb2.FAILED)]
    share([fake], lost, kept)
    assert follow(connect(fake)) == ([1, 2, 3, 4], "kept")


def test_an_announced_retract_is_shown(fakes: Fakes, connect: Connect) -> None:
    (fake,) = fakes(1)
    retract = TaskEvent(task="t_1", retract=Retract(step=1, attempt="1.5.0"))
    share([fake], [token("1.5.0", 0, "x"), retract, state(1, task_pb2.CANCELLED)])
    assert [event.kind for event in connect(fake).tasks.watch("t_1")] == ["token", "retract", "state"]


def test_a_hole_is_asked_for_again_and_then_named(fakes: Fakes, connect: Connect) -> None:
    (fake,) = fakes(1)
    holed: list[Step] = [state(1, task_pb2.PENDING), state(4, task_pb2.SUCCEEDED)]
    share([fake], holed, holed[1:])
    events = list(connect(fake).tasks.watch("t_1"))
    assert [(event.kind, event.sequence) for event in events] == [("state", 1), ("gap", 0), ("state", 4)]
    assert (events[1].first, events[1].last) == (2, 3)
    assert fake.watched_from == [1, 2]


def test_a_watch_from_beyond_the_end_of_a_finished_task_ends(fakes: Fakes, connect: Connect) -> None:
    (fake,) = fakes(1)
    fake.task = task_pb2.Task(id="t_1", state=task_pb2.FAILED, sequence=4)
    assert list(connect(fake).tasks.watch("t_1", from_sequence=5)) == []


def test_watching_nothing_says_so(fakes: Fakes, connect: Connect) -> None:
    (fake,) = fakes(1)
    share([fake], [Refuse(StatusCode.NOT_FOUND, 'there is no task "t_1"', "NOT_FOUND")])
    with pytest.raises(quorate.NotFound):
        next(connect(fake).tasks.watch("t_1"))


def test_a_watch_goes_on_where_it_was_after_an_error(fakes: Fakes, connect: Connect) -> None:
    (fake,) = fakes(1)
    share([fake], [*LIFE[:2], Refuse(StatusCode.PERMISSION_DENIED, "no more")], [*LIFE[2:]])
    watch = connect(fake).tasks.watch("t_1")
    assert [next(watch).sequence, next(watch).sequence] == [1, 2]
    with pytest.raises(quorate.PermissionDenied):
        next(watch)
    assert watch.next_sequence == 3
    assert [event.sequence for event in watch if event.sequence] == [3, 4]


def test_waiting_has_an_end_when_you_give_it_one(fakes: Fakes, connect: Connect) -> None:
    (fake,) = fakes(1)
    share([fake], [state(1, task_pb2.RUNNING), Hold()])
    with pytest.raises(quorate.WaitTimeout) as raised:
        connect(fake).tasks.wait("t_1", timeout=0.2)
    assert isinstance(raised.value, TimeoutError) and "goes on" in (raised.value.next or "")


def test_a_watch_that_is_left_gives_its_stream_back(fakes: Fakes, connect: Connect) -> None:
    (fake,) = fakes(1)
    hold = Hold()
    share([fake], [LIFE[0], hold])
    with connect(fake).tasks.watch("t_1") as watch:
        next(watch)
    assert hold.left.wait(10)


def test_an_async_watch_survives_a_caller_that_loses_patience(fakes: Fakes) -> None:
    (fake,) = fakes(1)
    share([fake], [LIFE[0], Hold()], [*LIFE[1:]])

    async def run() -> list[int]:
        async with AsyncClient(fake.address) as client:
            watch = client.tasks.watch("t_1")
            seen = [(await watch.__anext__()).sequence]
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(watch.__anext__(), 0.1)
            return seen + [event.sequence async for event in watch if event.sequence]

    assert asyncio.run(run()) == [1, 2, 3, 4]
    assert fake.watched_from == [1, 2]
