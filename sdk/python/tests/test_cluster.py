"""The SDK against clusters of real processes that are killed under it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any, Callable

import pytest

import quorate
from cluster import MODEL, Cluster, until
from quorate import AsyncClient, Client, GapEvent, RetractEvent, StateEvent, StepEvent, TaskState, TokenEvent

WORDS = " ".join(f"w{n:04}" for n in range(1, 101))

SCRIPT = f"""
window = 65536

[[reply]]
when_agent = "slow"
text = "{WORDS}"
tokens_per_second = 25

[[reply]]
when_agent = "large"
text = "{"0123456789abcde " * 8_192}"

[[reply]]
when_agent = "failing"
fail = "REFUSED"
retriable = false

[[reply]]
text = "Understood."
"""

AGENTS = ("quick", "slow", "large", "failing")


def apply(client: Client) -> None:
    for name in AGENTS:
        client.agents.apply(f'name = "{name}"\nmodel = "{MODEL}"\nmax_tokens = 20000\n')


@pytest.fixture(scope="module")
def node() -> Iterator[Cluster]:
    """One node that is a whole cluster, as `quorate dev` is."""
    with Cluster(1, 0, SCRIPT) as cluster:
        with cluster.client() as client:
            apply(client)
        yield cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(3, 2, SCRIPT) as cluster:
        with cluster.client() as client:
            apply(client)
        yield cluster


@pytest.fixture
def whole(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster for a test that kills nodes of it: they come back, whatever the test found."""
    yield cluster
    cluster.revive()


@pytest.fixture
def client(node: Cluster, connect: Callable[..., Any]) -> Any:
    return connect(*node.addresses())


def test_a_task_from_creation_to_its_result(client: Any) -> None:
    task = client.tasks.create(agent="quick", input="hi", labels={"kind": "first"}, klass="batch", priority=7)
    assert (task.agent, task.klass, task.priority) == ("quick", quorate.TaskClass.BATCH, 7)
    assert task.result() == "Understood."
    done = task.refresh()
    assert (done.state, done.result_text, done.labels) == (TaskState.SUCCEEDED, "Understood.", {"kind": "first"})
    assert done.usage.generated_tokens > 0 and done.end_time >= done.create_time
    assert client.tasks.get(task.id).uid == task.uid and client.tasks.get(task.id, allow_stale=True)


def test_the_events_of_a_task_read_as_one_story(client: Any) -> None:
    task = client.tasks.create("quick", "hi")
    events = list(task.watch())
    committed = [event for event in events if event.sequence]
    assert [event.sequence for event in committed] == list(range(1, len(committed) + 1))
    assert isinstance(committed[0], StateEvent) and committed[-1].state is TaskState.SUCCEEDED
    assert any(isinstance(event, StepEvent) for event in committed)
    later = list(task.watch(from_sequence=len(committed), tokens=False))
    assert later == committed[-1:]


def test_a_large_result_is_read_by_its_hash(client: Any) -> None:
    task = client.tasks.create("large", "hi")
    text = task.result()
    assert len(text) > 128_000 and text.startswith("0123456789abcde 0123")
    assert task.refresh().result_text is None


def test_a_failed_task_has_no_result_and_says_why(client: Any) -> None:
    task = client.tasks.create("failing", "hi")
    with pytest.raises(quorate.NoResult) as raised:
        task.result()
    assert raised.value.cause and task.refresh().error == raised.value.cause


def test_pause_resume_and_cancel(client: Any) -> None:
    task = client.tasks.create("slow", "hi")
    watch = task.watch()
    next(event for event in watch if isinstance(event, TokenEvent))
    paused = task.pause()
    assert paused.state is TaskState.PAUSED and paused.state_reason.startswith("USER")
    assert [blocker.reason for blocker in task.explain().blockers] == ["PAUSED_BY_USER"]
    next(event for event in watch if isinstance(event, StateEvent) and event.state is TaskState.PAUSED)
    task.resume()
    next(event for event in watch if isinstance(event, StateEvent) and event.state is TaskState.RUNNING)
    assert task.cancel().state in (TaskState.CANCELLING, TaskState.CANCELLED)
    assert list(watch)[-1].state is TaskState.CANCELLED
    assert task.wait().state is TaskState.CANCELLED
    with pytest.raises(quorate.NoResult):
        task.result()


def test_waiting_gives_up_when_told_and_the_task_goes_on(client: Any) -> None:
    task = client.tasks.create("slow", "hi")
    with pytest.raises(quorate.WaitTimeout):
        task.wait(timeout=0.2)
    assert task.refresh().state in (TaskState.PENDING, TaskState.RUNNING)
    task.cancel()


def test_a_quota_holds_a_task_back_and_explain_says_so(client: Any) -> None:
    path = f"projects/{client.project}"
    held = client.quotas.set(path, {"running": 0}, reason="a test")
    try:
        assert held.limits["running"].limit == 0 and held.reason == "a test"
        assert client.quotas.get(path).etag == held.etag
        assert path in [quota.path for quota in client.quotas.list()]
        task = client.tasks.create("quick", "hi")
        reasons = until("a blocker", lambda: [blocker.reason for blocker in task.explain().blockers] or None)
        assert "QUOTA_RUNNING" in reasons
        with pytest.raises(quorate.Conflict, match="WRONG_ETAG"):
            client.quotas.set(path, {"running": 1}, etag="wrong" if not held.etag.isdigit() else "999999")
    finally:
        freed = client.quotas.set(path, {"running": None})
    assert freed.limits.get("running", quorate.Limit(None, 0, 0)).limit is None
    assert task.result() == "Understood."


def test_agents_are_applied_listed_and_guarded_by_their_etag(client: Any) -> None:
    toml = f'name = "guarded"\nmodel = "{MODEL}"\n'
    made = client.agents.apply(toml)
    assert client.agents.get("guarded").toml == toml and made.kind == "agent"
    assert {agent.name for agent in client.agents.list()} >= {"guarded", *AGENTS}
    with pytest.raises(quorate.Conflict, match="WRONG_ETAG"):
        client.agents.apply(toml + "max_steps = 3\n", etag="0")
    with pytest.raises(quorate.InvalidArgument) as raised:
        client.agents.apply('name = "x"\nmodle = "y"\n')
    assert "modle" in raised.value.message and raised.value.domain == "quorate" and raised.value.next


def test_errors_of_the_cluster_arrive_as_classes(client: Any) -> None:
    with pytest.raises(quorate.NotFound, match="nobody"):
        client.tasks.get("nobody")
    with pytest.raises(quorate.NotFound):
        next(client.tasks.watch("nobody"))
    with pytest.raises(quorate.NotFound):
        client.tasks.create("no-such-agent", "hi")
    task = client.tasks.create("quick", "hi", request_id=f"r-{time.time_ns()}")
    with pytest.raises(quorate.Conflict, match="WRONG_STATE"):
        task.wait() and task.pause()


def test_a_request_id_makes_one_task_and_not_another_one(client: Any) -> None:
    request_id = f"once-{time.time_ns()}"
    first = client.tasks.create("quick", "hi", request_id=request_id)
    assert client.tasks.create("quick", "hi", request_id=request_id).uid == first.uid
    with pytest.raises(quorate.Conflict, match="REQUEST_ID_REUSED"):
        client.tasks.create("quick", "something else", request_id=request_id)


def test_a_list_goes_over_its_pages(client: Any) -> None:
    mark = f"m{time.time_ns()}"
    made = [client.tasks.create("quick", "hi", labels={"mark": mark}).uid for _ in range(5)]
    listed = [task.uid for task in client.tasks.list(f"label.mark={mark}", page_size=2)]
    assert sorted(listed) == sorted(made)


def test_a_check_changes_nothing(client: Any) -> None:
    id = f"checked-{time.time_ns()}"
    client.tasks.create("quick", "hi", task_id=id, dry_run=True)
    with pytest.raises(quorate.NotFound):
        client.tasks.get(id)


def test_the_cluster_shows_itself(node: Cluster, client: Any) -> None:
    status = client.cluster.status()
    (shown,) = client.cluster.nodes()
    assert status.leader in (shown.id, shown.name) and status.copies == shown.copies == 1
    assert (shown.name, shown.state, shown.client_addr) == ("coordinator-1", "ready", node.addresses()[0])
    assert client.cluster.node("coordinator-1").id == shown.id
    assert set(shown.roles) == {"coordinator", "worker"} and shown.device.cpus


def test_a_node_that_comes_back_is_found_soon(node: Cluster, client: Any) -> None:
    """Also by a client that has been refused before, and that does nothing but wait."""
    process = node.nodes["coordinator-1"]
    client.cluster.status()
    process.kill()
    answered: list[float] = []

    def wait() -> None:
        with contextlib.suppress(quorate.NotFound):
            client.tasks.get("nobody", allow_stale=True)
        answered.append(time.monotonic())

    waiting = threading.Thread(target=wait)
    waiting.start()
    process.start()
    until("the node listens", lambda: process.listens() or None)
    listened = time.monotonic()
    waiting.join()
    node.wait_ready()
    assert answered[0] - listened < 3, "it waits for less than gRPC's own 5 s"


class Story:
    """What a watcher of a slow task was shown."""

    def __init__(self) -> None:
        self.sequences: list[int] = []
        self.text = ""
        self.retracts = 0
        self.last: Any = None

    def add(self, event: quorate.Event) -> None:
        assert not isinstance(event, GapEvent), event
        if isinstance(event, TokenEvent):
            self.text += event.text
        elif isinstance(event, RetractEvent):
            self.text = ""
            self.retracts += 1
        else:
            self.sequences.append(event.sequence)
            self.last = event

    def check(self) -> None:
        assert self.sequences == list(range(1, len(self.sequences) + 1)), "each once, in order"
        assert self.last.state is TaskState.SUCCEEDED
        assert self.text.split() == WORDS.split()


def test_a_watch_goes_on_when_the_leader_is_killed(whole: Cluster) -> None:
    leader, killed = whole.leader(), ""
    story = Story()
    # The watch hangs on the leader itself: it breaks, and must find another node.
    with whole.client(first=leader) as client:
        task = client.tasks.create("slow", "hi")
        for event in task.watch():
            story.add(event)
            if not killed and len(story.text.split()) > 5:
                killed = leader
                whole.nodes[killed].kill()
        assert killed, "the leader was killed before the end"
        story.check()
        assert story.retracts == 0, "the worker lived, so no text was taken back"
        assert task.result().split() == WORDS.split()
    assert whole.leader() != killed


def test_an_async_watch_goes_on_when_the_worker_is_killed(whole: Cluster) -> None:
    async def run() -> str:
        async with AsyncClient(whole.addresses()) as client:
            task = await client.tasks.create("slow", "hi")
            story, killed = Story(), ""
            async for event in task.watch():
                story.add(event)
                if not killed and len(story.text.split()) > 5:
                    killed = await name_of((await task.refresh()).node)
                    whole.nodes[killed].kill()
            story.check()
            assert story.retracts == 1, "the text of the lost worker was taken back"
            return killed

    async def name_of(node: Any) -> str:
        async with AsyncClient(whole.addresses()) as client:
            return (await client.cluster.node(node)).name

    assert asyncio.run(run()) in whole.workers


def test_what_was_acknowledged_while_the_leader_died_exists_once(whole: Cluster) -> None:
    leader, count, mark = whole.leader(), 120, f"m{time.time_ns()}"
    made: list[str] = []

    async def run() -> list[quorate.AsyncTask]:
        async with AsyncClient(whole.addresses(first=leader)) as client:

            async def some(numbers: range) -> list[quorate.AsyncTask]:
                created = []
                for number in numbers:
                    created.append(await client.tasks.create("quick", "hi", task_id=f"{mark}-{number}", labels=label))
                    made.append(created[-1].uid)
                return created

            label = {"mark": mark}
            kinds = await asyncio.gather(*(some(range(k, count, 8)) for k in range(8)))
            return [task for kind in kinds for task in kind]

    def kill() -> None:
        until("some acknowledgements", lambda: True if len(made) > count // 4 else None)
        whole.nodes[leader].kill()

    killer = threading.Thread(target=kill)
    killer.start()
    created = asyncio.run(run())
    killer.join()
    with whole.client() as client:
        listed = [task.uid for task in client.tasks.list(f"label.mark={mark}", page_size=50)]
        assert sorted(listed) == sorted(task.uid for task in created) and len(set(listed)) == count
        assert all(client.tasks.wait(uid).state is TaskState.SUCCEEDED for uid in listed[:10])
