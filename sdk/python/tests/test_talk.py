"""What is said to tasks, and tasks that begin again, against fake nodes."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any, Callable

import pytest
from grpc import StatusCode

import quorate
from fake import Fake, Refuse
from quorate import Ask, AskKind, Busy
from quorate._proto import task_pb2

Fakes = Callable[[int], list[Fake]]
Connect = Callable[..., Any]


def waiting(*asks: task_pb2.Ask) -> task_pb2.Task:
    return task_pb2.Task(id="t_1", uid="t_1", state=task_pb2.WAITING_INPUT, asks=asks)


def test_a_task_shows_what_it_asks(fakes: Fakes, connect: Connect) -> None:
    (fake,) = fakes(1)
    approval = task_pb2.Ask(id="a1", kind=task_pb2.APPROVAL, tool="mail.send", text='{"to": "x"}', text_hash="h")
    fake.task = waiting(approval, task_pb2.Ask(id="a2", kind=99))  # type: ignore[arg-type]
    first, second = connect(fake).tasks.get("t_1").asks
    assert first == Ask("a1", AskKind.APPROVAL, "mail.send", '{"to": "x"}', "h")
    assert (second.kind, second.tool, second.text) == (AskKind.OTHER, None, None)


def test_verdicts_and_messages_say_what_was_meant(fakes: Fakes, connect: Connect) -> None:
    (fake,) = fakes(1)
    fake.task = waiting(task_pb2.Ask(id="a1", kind=task_pb2.APPROVAL))
    task = connect(fake).tasks.get("t_1")
    (ask,) = task.asks
    fake.requests.clear()
    task.approve(ask)
    task.reject("a1")
    task.answer("42")
    task.repeat()
    task.send("hello")
    for busy in Busy:
        task.send("again", busy=busy.value)
    told = [(task_pb2.SignalKind.Name(it.kind), it.ask, it.text) for it in fake.requests]
    assert told[:4] == [("APPROVE", "a1", ""), ("REJECT", "a1", ""), ("ANSWER", "", "42"), ("REPEAT", "", "")]
    kinds = ["MESSAGE", "MESSAGE", "ENQUEUE", "INTERRUPT", "ROLLBACK"]
    assert [kind for kind, _, _ in told[4:]] == kinds and told[4][2] == "hello"


def test_a_task_is_retried_and_forked(fakes: Fakes, connect: Connect) -> None:
    (fake,) = fakes(1)
    client = connect(fake)
    task = client.tasks.get("t_1")
    assert task.retry(task_id="again").labels == {"again": "t_1"} and fake.requests[-1].task_id == "again"
    fork = task.fork(step=0)
    assert (fork.forked_from, fork.forked_steps) == ("t_1", 0)
    assert client.tasks.fork("t_1").forked_steps == 9, "without a step the newest one counts"


def test_schedules_are_set_listed_and_deleted(fakes: Fakes, connect: Connect) -> None:
    (fake,) = fakes(1)
    client = connect(fake)
    inputs = [quorate.Input("text", name="a.md")]
    made = client.schedules.set("nightly", "0 6 * * *", "reader", inputs=inputs, klass="system", priority=9)
    sent = fake.requests[-1]
    assert (getattr(sent, "class"), sent.priority, sent.inputs[0].text) == (task_pb2.SYSTEM, 9, "text")
    assert (made.inputs, made.next_time) == (("a.md",), datetime(1970, 1, 2, tzinfo=timezone.utc))
    (listed,) = client.schedules.list()
    assert (listed.project, listed.last_error, listed.next_time) == ("default", "NO_AGENT", None)
    assert client.schedules.delete("nightly") is None and fake.requests[-1].name == "nightly"


@pytest.mark.parametrize(
    ("reason", "raised"),
    [
        ("ALREADY_ANSWERED", quorate.AlreadyAnswered),
        ("NOTHING_ASKED", quorate.NothingAsked),
        ("TASK_BUSY", quorate.TaskBusy),
        ("NOT_ENDED", quorate.NotEnded),
    ],
)
def test_refusals_have_classes_of_their_own(
    fakes: Fakes, connect: Connect, reason: str, raised: type[quorate.Conflict]
) -> None:
    (fake,) = fakes(1)
    fake.answers.append(Refuse(StatusCode.FAILED_PRECONDITION, "no", reason))
    with pytest.raises(raised, match=reason):
        connect(fake).tasks.approve("t_1")
    assert issubclass(raised, quorate.Conflict)


def test_what_no_cluster_would_take_is_not_sent(fakes: Fakes, connect: Connect) -> None:
    (fake,) = fakes(1)
    client = connect(fake)
    wrong: list[Callable[[], Any]] = [
        lambda: client.tasks.send("t_1", "x", busy="now"),
        lambda: client.tasks.answer("t_1", "x" * (5 << 20)),
        lambda: client.tasks.fork("t_1", -1),
        lambda: client.schedules.set("n", "* * * * *", "reader", priority=10),
        lambda: client.schedules.set("n", "* * * * *", "reader", klass="urgent"),
    ]
    for call in wrong:
        with pytest.raises(quorate.InvalidArgument):
            call()
    assert fake.calls == 0
