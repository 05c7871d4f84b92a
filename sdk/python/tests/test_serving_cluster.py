"""Tools and agents of this process, called by real clusters."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

import quorate
from cluster import MODEL, Cluster, until
from quorate import Call, Client, Step, StepContext, TaskState, ToolContext

SCRIPT = """
[[reply]]
when_agent = "wrong"
when_results_below = 1
calls = [{ name = "put", arguments = '{"n": "x"}' }]

[[reply]]
when_results_below = 3
calls = [{ name = "put", arguments = '{"n": {results}}' }]

[[reply]]
text = "Said: {last}"
"""

SEEN: list[tuple[str, int]] = []


@quorate.tool(policy="idempotent")
def put(n: int, ctx: ToolContext) -> str:
    """Puts a number away."""
    SEEN.append((ctx.operation, n))
    return f"number {n}"


@quorate.agent("planner")
async def planner(ctx: StepContext) -> Step:
    done = len(ctx.results)
    return Step(calls=(Call("put", {"n": done}),)) if done < 2 else Step(f"{done} numbers, {ctx.results[-1]}")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Agents run on the workers; programs that know a coordinator must be asked there."""
    with Cluster(1, 2, SCRIPT) as cluster:
        with cluster.client() as client:
            for name in ("clerk", "wrong"):
                client.agents.apply(f'name = "{name}"\nmodel = "{MODEL}"\ntools = ["put"]\n')
            client.agents.apply('name = "own"\nmodel = "external:planner"\ntools = ["put"]\n')
        yield cluster


@pytest.fixture
def client(cluster: Cluster) -> Iterator[Client]:
    with Client(cluster.nodes["coordinator-1"].clients) as client:
        yield client


def test_a_task_calls_functions_of_this_process(client: Client) -> None:
    with client.tools.serving(put):
        SEEN.clear()
        task = client.tasks.create("clerk", "hi")
        assert task.result(60) == "Said: number 2"
        assert [(f"{task.uid}/{step}/0", n) for n, step in enumerate((1, 3, 5))] == SEEN
        SEEN.clear()
        assert client.tasks.create("wrong", "hi").result(60) == "Said: number 2"
        assert [n for _, n in SEEN] == [1, 2], "what is off the schema never came here"


def test_a_call_waits_for_the_process_to_come_back(client: Client) -> None:
    with client.tools.serving(put):
        pass
    task = client.tasks.create("clerk", "hi")
    until("it waits", lambda: task.refresh().state is TaskState.WAITING_TOOL or None)
    with client.tools.serving(put):
        assert task.result(60) == "Said: number 2"


def test_a_cancel_is_heard_here(client: Client) -> None:
    begun, over = threading.Event(), threading.Event()

    @quorate.tool(name="put")
    async def slow(n: int) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            over.set()

    with client.tools.serving(slow):
        task = client.tasks.create("clerk", "hi")
        until("it is called", lambda: begun.is_set() or None)
        task.cancel()
        assert over.wait(30)
        assert task.wait(60).state is TaskState.CANCELLED


def test_an_agent_of_this_process_decides(client: Client) -> None:
    task = client.tasks.create("own", "hi")
    until("it waits", lambda: "NO_ENGINE" in [it.reason for it in task.explain().blockers] or None)
    with client.tools.serving(put, planner):
        assert task.result(60) == "2 numbers, number 1"
        spent = task.refresh().usage
        assert spent.prompt_tokens > 0 and spent.generated_tokens >= 4


def gone_in_the_middle(client: Client, policy: str) -> quorate.Task:
    """A task whose first call was under way when its program went."""
    called = threading.Event()

    @quorate.tool(name="put", policy=policy)
    async def slow(n: int) -> None:
        called.set()
        await asyncio.Event().wait()

    with client.tools.serving(slow):
        task = client.tasks.create("clerk", "hi")
        until("it is called", lambda: called.is_set() or None)
    return task


def test_a_call_of_which_nobody_knows_is_for_a_person_to_settle(client: Client) -> None:
    task = gone_in_the_middle(client, "at_most_once")
    (ask,) = until("it asks", lambda: task.refresh().asks or None)
    assert (ask.kind, ask.tool) == (quorate.AskKind.UNKNOWN, "put")
    with client.tools.serving(put):
        SEEN.clear()
        task.answer("It was put away.")
        assert task.result(60) == "Said: number 2"
        assert [n for _, n in SEEN] == [1, 2], "the first one is never made again"


def test_an_idempotent_call_is_made_again_as_the_same_operation(client: Client) -> None:
    task = gone_in_the_middle(client, "idempotent")
    SEEN.clear()
    with client.tools.serving(put):
        assert task.result(60) == "Said: number 2"
    assert SEEN[0] == (f"{task.uid}/1/0", 0) and [n for _, n in SEEN] == [0, 1, 2]


def test_what_an_agent_of_this_process_says_counts_like_a_models_words(client: Client) -> None:
    client.agents.apply('name = "long"\nmodel = "external:talker"\nmax_tokens = 50\n')

    @quorate.agent("talker")
    def talker(ctx: StepContext) -> str:
        return "word " * 200

    with client.tools.serving(talker):
        task = client.tasks.create("long", "hi")
        assert task.result(60).split() == ["word"] * 50
        assert task.refresh().usage.generated_tokens == 50


def test_an_agent_that_fails_pauses_its_task_and_resuming_tries_again(client: Client) -> None:
    client.agents.apply('name = "moody"\nmodel = "external:moody"\n')
    tries: list[int] = []

    @quorate.agent("moody")
    async def moody(ctx: StepContext) -> str:
        tries.append(ctx.attempt)
        if len(tries) <= 4:
            raise RuntimeError("not today")
        return "yes"

    with client.tools.serving(moody):
        task = client.tasks.create("moody", "hi")
        until("it pauses", lambda: task.refresh().state is TaskState.PAUSED or None)
        assert "EXTERNAL_FAILED" in task.refresh().state_reason and tries == [0, 1, 2, 3]
        task.resume()
        assert task.result(60) == "yes"


def test_a_worker_that_dies_takes_nothing_along(cluster: Cluster, client: Client) -> None:
    with client.tools.serving(put):
        SEEN.clear()
        tasks = [client.tasks.create("clerk", "hi") for _ in range(6)]
        until("they are at work", lambda: SEEN or None)
        cluster.nodes["worker-2"].kill()
        assert {task.result(60) for task in tasks} == {"Said: number 2"}
        assert {(task.uid, n) for task in tasks for n in (0, 1, 2)} == {(op.split("/")[0], n) for op, n in SEEN}
        cluster.revive()
        tasks = [client.tasks.create("clerk", "hi") for _ in range(6)]
        assert {task.result(60) for task in tasks} == {"Said: number 2"}
