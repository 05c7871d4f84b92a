"""What is said to tasks of a real node: verdicts, answers, messages, and tasks that begin again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Callable

import pytest

import quorate
from cluster import MODEL, Cluster, until
from quorate import AskKind, TaskState

SCRIPT = """
[[reply]]
when_agent = "clerk"
when_results_below = 1
calls = [{ name = "files.write", arguments = '{"path": "a", "text": "b"}' }]

[[reply]]
when_agent = "asker"
when_results_below = 1
calls = [{ name = "ask_human", arguments = '{"question": "Which one?"}' }]

[[reply]]
when_agent = "talker"
when_message = 2
text = "Second."

[[reply]]
text = "Said: {last}"
"""

AGENTS = {
    "clerk": 'tools = [{ name = "files.write", approve = true }]',
    "asker": 'tools = ["ask_human"]',
    "talker": "conversation = true",
    "quick": "",
}


@pytest.fixture(scope="module")
def node() -> Iterator[Cluster]:
    with Cluster(1, 0, SCRIPT) as cluster:
        with cluster.client() as client:
            for name, more in AGENTS.items():
                client.agents.apply(f'name = "{name}"\nmodel = "{MODEL}"\n{more}\n')
        yield cluster


@pytest.fixture
def client(node: Cluster, connect: Callable[..., Any]) -> Any:
    return connect(*node.addresses())


def ask_of(task: Any) -> Any:
    """The one thing that it asks."""
    asks = until("it asks", lambda: task.refresh().asks or None)
    assert len(asks) == 1
    return asks[0]


def test_a_verdict_counts_once(client: Any) -> None:
    task = client.tasks.create("clerk", "hi")
    ask = ask_of(task)
    assert (ask.kind, ask.tool) == (AskKind.APPROVAL, "files.write") and '"path"' in ask.text
    task.approve(ask)
    with pytest.raises(quorate.Conflict) as raised:
        task.reject(ask)
    assert raised.value.reason in ("ALREADY_ANSWERED", "WRONG_STATE")
    assert task.result(60).startswith("Said: ")


def test_what_is_rejected_is_not_done_and_the_model_hears_so(client: Any) -> None:
    task = client.tasks.create("clerk", "hi")
    ask_of(task)
    task.reject()
    assert "error" in task.result(60)


def test_a_question_is_answered(client: Any) -> None:
    task = client.tasks.create("asker", "hi")
    ask = ask_of(task)
    assert (ask.kind, ask.tool, ask.text) == (AskKind.QUESTION, "ask_human", "Which one?")
    task.answer("The left one.")
    assert task.result(60) == "Said: The left one."
    with pytest.raises(quorate.Conflict):
        task.answer("The right one.")


def test_a_conversation_goes_on_is_forked_and_stopped(client: Any) -> None:
    task = client.tasks.create("talker", "hi")
    ask = ask_of(task)
    assert (ask.kind, ask.text) == (AskKind.NEXT_MESSAGE, "Said: ")
    step = task.refresh().step
    task.send("More, please.")
    until("it answers", lambda: True if task.refresh().asks and task.refresh().step > step else None)
    assert ask_of(task).text == "Second."
    fork = task.fork(step=step)
    assert (fork.forked_from, fork.forked_steps) == (task.uid, step)
    assert ask_of(fork).text == "Said: "
    for each in (task, fork):
        each.cancel()
        assert each.wait(60).state is TaskState.CANCELLED


def test_only_what_has_ended_is_retried(client: Any) -> None:
    waiting = client.tasks.create("clerk", "hi")
    with pytest.raises(quorate.NotEnded):
        waiting.retry()
    waiting.cancel()
    done = client.tasks.create("quick", "hi")
    assert done.result(60) == "Said: "
    again = done.retry()
    assert again.uid != done.uid and again.result(60) == "Said: "
    with pytest.raises(quorate.NothingAsked):
        again.approve()


def test_schedules_are_kept(client: Any) -> None:
    made = client.schedules.set("nightly", "0 6 * * MON-FRI", "quick", "hi")
    assert made.next_time.hour == 6 and made.klass is quorate.TaskClass.BATCH
    assert [it.name for it in client.schedules.list()] == ["nightly"]
    client.schedules.delete("nightly")
    assert client.schedules.list() == ()
    with pytest.raises(quorate.InvalidArgument):
        client.schedules.set("never", "0 0 31 2 *", "quick")
