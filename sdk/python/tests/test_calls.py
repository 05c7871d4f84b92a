"""The client against nodes that misbehave: servers in this process whose answers each test scripts."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Callable

import grpc
import pytest
import trustme
from grpc import StatusCode

import quorate
from fake import Break, Fake, Line, Refuse, Silence, nobody
from quorate._proto import task_pb2

Fakes = Callable[[int], list[Fake]]
Connect = Callable[..., Any]

NO_LEADER = Refuse(StatusCode.UNAVAILABLE, "no leader", "NO_LEADER", {"next": "repeat"}, retry_ms=1)


def test_a_create_is_repeated_elsewhere_with_the_same_request_id(fakes: Fakes, connect: Connect) -> None:
    sick, lossy, well = fakes(3)
    sick.answers.append(NO_LEADER)
    lossy.answers.append(Break())
    task = connect(sick, lossy, well).tasks.create(agent="reader", input="hi")
    assert task.id == "t_1"
    ids = sick.request_ids + lossy.request_ids + well.request_ids
    assert len(ids) == 3 and len(set(ids)) == 1 and ids[0].startswith("r_") and len(ids[0]) == 34


def request_ids(*fakes: Fake) -> list[str]:
    return [getattr(request, "request_id", "") for fake in fakes for request in fake.requests]


def test_every_change_keeps_its_request_id_and_takes_yours(fakes: Fakes, connect: Connect) -> None:
    sick, well = fakes(2)
    task = connect(well).tasks.get("t_1")
    well.requests.clear()
    client = connect(sick, well)
    changes: list[Callable[[str], Any]] = [
        lambda id: client.tasks.create("reader", request_id=id),
        lambda id: client.tasks.cancel("t_1", request_id=id),
        lambda id: client.tasks.pause("t_1", request_id=id),
        lambda id: client.tasks.resume("t_1", request_id=id),
        lambda id: client.agents.apply("name = 'x'", request_id=id),
        lambda id: client.quotas.set("cluster", {"running": 1}, request_id=id),
        lambda id: client.prices.set("m", input=1, output=2, request_id=id),
        lambda id: client.cluster.cordon("n1", request_id=id),
        lambda id: client.cluster.uncordon("n1", request_id=id),
        lambda id: client.cluster.drain("n1", request_id=id),
        lambda id: client.cluster.remove_node("n1", request_id=id),
        lambda id: client.cluster.raise_level(request_id=id),
        lambda id: client.tasks.approve("t_1", request_id=id),
        lambda id: client.tasks.reject("t_1", request_id=id),
        lambda id: client.tasks.answer("t_1", "yes", request_id=id),
        lambda id: client.tasks.repeat("t_1", request_id=id),
        lambda id: client.tasks.send("t_1", "hello", request_id=id),
        lambda id: client.tasks.retry("t_1", request_id=id),
        lambda id: client.tasks.fork("t_1", request_id=id),
        lambda id: client.schedules.set("nightly", "0 6 * * *", "reader", request_id=id),
        lambda id: client.schedules.delete("nightly", request_id=id),
        lambda id: task.cancel(request_id=id),
        lambda id: task.approve(request_id=id),
    ]
    for number, change in enumerate(changes):
        change(f"mine-{number}")
    assert [id for id in request_ids(sick, well) if id] == [f"mine-{n}" for n in range(len(changes))]
    well.requests.clear()
    task.cancel(), task.pause(), task.resume()
    assert len(set(well.request_ids)) == 3 and all(well.request_ids)


def test_a_dead_node_in_the_list_costs_nothing_but_a_try(fakes: Fakes, connect: Connect) -> None:
    (well,) = fakes(1)
    client = connect(nobody(), well)
    assert client.tasks.get("t_1").state is quorate.TaskState.RUNNING
    client.tasks.get("t_1")
    assert well.calls == 2


def test_a_node_killed_under_a_call_is_replaced_by_the_next(fakes: Fakes, connect: Connect) -> None:
    (well,) = fakes(1)
    line = Line(None)
    connect(line.address, well).tasks.create("reader")
    line.close()
    assert well.calls == 1


def test_a_call_lost_with_its_connection_has_an_unknown_outcome(fakes: Fakes, connect: Connect) -> None:
    (lossy,) = fakes(1)
    lossy.answers.extend(Break() for _ in range(50))
    with pytest.raises(quorate.UnknownOutcome) as raised:
        connect(lossy, timeout=0.3).tasks.create("reader", request_id="again")
    error = raised.value
    assert (error.reason, error.request_id) == ("UNKNOWN_OUTCOME", "again")
    assert "again" in (error.next or "") and lossy.address in (error.cause or "")


def test_an_unreachable_cluster_is_named_with_what_to_check(connect: Connect) -> None:
    address = nobody()
    with pytest.raises(quorate.Unreachable) as raised:
        connect(address, connect_timeout=0.2).tasks.get("t_1")
    error = raised.value
    assert (error.code, error.reason) == ("UNAVAILABLE", "UNREACHABLE")
    assert address in error.message and "QUORATE_ENDPOINT" in (error.next or "") and error.cause
    assert all(part in str(error) for part in ("why:", "next:", "UNREACHABLE"))


def test_a_silent_node_leaves_the_outcome_unknown_and_names_the_request_id(fakes: Fakes, connect: Connect) -> None:
    (silent,) = fakes(1)
    silent.answers.append(Silence())
    with pytest.raises(quorate.UnknownOutcome) as raised:
        connect(silent, timeout=0.3).tasks.create("reader", request_id="again")
    assert raised.value.code == "DEADLINE_EXCEEDED" and "again" in (raised.value.next or "")


def test_a_node_without_cluster_is_passed_over_and_named_when_it_is_the_only_one(
    fakes: Fakes, connect: Connect
) -> None:
    alone, well = fakes(2)
    stranger = Refuse(StatusCode.UNAVAILABLE, "no cluster yet", "NOT_INITIALISED")
    alone.answers.append(stranger)
    connect(alone, well).tasks.get("t_1")
    alone.answers.extend([stranger] * 50)
    with pytest.raises(quorate.Unavailable) as raised:
        connect(alone, connect_timeout=0.2).tasks.get("t_1")
    assert (raised.value.reason, raised.value.message) == ("NOT_INITIALISED", "no cluster yet")


def test_final_answers_are_not_repeated_and_keep_their_details(fakes: Fakes, connect: Connect) -> None:
    (fake,) = fakes(1)
    told = {"next": "apply it first", "cause": "it was never applied"}
    fake.answers.append(Refuse(StatusCode.NOT_FOUND, 'there is no agent "x"', "NOT_FOUND", told))
    with pytest.raises(quorate.NotFound) as raised:
        connect(fake).tasks.create("x")
    error = raised.value
    assert (error.code, error.domain, error.next) == ("NOT_FOUND", "quorate", "apply it first")
    assert error.cause == "it was never applied" and error.metadata["next"] == "apply it first"
    assert fake.calls == 1


def test_a_node_is_left_in_peace_for_as_long_as_it_asks(fakes: Fakes, connect: Connect) -> None:
    (fake,) = fakes(1)
    fake.answers.append(Refuse(StatusCode.RESOURCE_EXHAUSTED, "queue full", "OVERLOADED", retry_ms=150))
    fake.answers.append(Refuse(StatusCode.UNAVAILABLE, "no leader", "NO_LEADER", retry_ms=150))
    begun = time.monotonic()
    connect(fake).tasks.create("reader")
    assert time.monotonic() - begun >= 0.3
    assert fake.calls == 3


def test_a_full_quota_is_not_asked_again(fakes: Fakes, connect: Connect) -> None:
    (fake,) = fakes(1)
    fake.answers.append(Refuse(StatusCode.RESOURCE_EXHAUSTED, "full", "QUOTA_EXCEEDED", retry_ms=1))
    with pytest.raises(quorate.QuotaExceeded):
        connect(fake).tasks.create("reader")
    assert fake.calls == 1


def test_what_is_too_large_is_refused_before_anything_is_sent(fakes: Fakes, connect: Connect) -> None:
    (fake,) = fakes(1)
    client = connect(fake)
    with pytest.raises(quorate.InvalidArgument, match="REQUEST_TOO_LARGE"):
        client.tasks.create("reader", inputs=["x" * (4 << 20)] * 3)
    with pytest.raises(quorate.InvalidArgument, match="BAD_PRIORITY"):
        client.tasks.create("reader", priority=-1)
    assert fake.calls == 0


def test_what_is_wished_of_a_task_travels(fakes: Fakes, connect: Connect) -> None:
    (fake,) = fakes(1)
    connect(fake, project="research").tasks.create(
        "reader",
        "first",
        inputs=[quorate.Input("second", name="b.md"), "third"],
        task_id="mine",
        labels={"team": "x"},
        klass="batch",
        priority=0,
        deadline="30m",
        not_before=datetime(2030, 1, 1, tzinfo=timezone.utc),
        after=["first", quorate.Task._of(task_pb2.Task(id="named", uid="t_2"), None)],  # type: ignore[arg-type]
        limits={"tokens_total": 0},
        dry_run=True,
    )
    sent: task_pb2.CreateTaskRequest = fake.requests[0]
    assert [(it.name, it.text) for it in sent.inputs] == [("", "first"), ("b.md", "second"), ("", "third")]
    assert (sent.project, sent.task_id, dict(sent.labels)) == ("research", "mine", {"team": "x"})
    assert getattr(sent, "class") == task_pb2.BATCH and sent.HasField("priority") and sent.priority == 0
    assert abs(sent.deadline_ms - time.time() * 1_000 - 1_800_000) < 60_000 and sent.validate_only
    assert (sent.not_before_ms, list(sent.after)) == (1_893_456_000_000, ["first", "t_2"])
    assert dict(sent.limits) == {"tokens_total": 0}


def test_all_tasks_are_read_page_by_page(fakes: Fakes, connect: Connect) -> None:
    (fake,) = fakes(1)
    fake.pages = [["t_1", "t_2"], ["t_3", "t_4"], ["t_5"]]
    tasks = connect(fake).tasks.list("state=RUNNING", page_size=2)
    assert next(tasks).id == "t_1" and fake.calls == 1, "pages are read as they are taken"
    assert [task.id for task in tasks] == ["t_2", "t_3", "t_4", "t_5"]
    assert [(it.page_token, it.filter, it.page_size) for it in fake.requests] == [
        (token, "state=RUNNING", 2) for token in ("", "1", "2")
    ]


def test_quota_keys_are_plain_words(fakes: Fakes, connect: Connect) -> None:
    (fake,) = fakes(1)
    quota = connect(fake).quotas.set("projects/x", {"running": 4, "a_key_of_tomorrow": None}, reason="night")
    assert quota.limits["running"] == quorate.Limit(4, 1, 0)
    assert quota.limits["a_key_of_tomorrow"].limit is None
    assert fake.requests[0].reason == "night"


def test_a_dry_run_of_a_quota_says_who_would_wait(fakes: Fakes, connect: Connect) -> None:
    (fake,) = fakes(1)
    client = connect(fake)
    assert client.quotas.set("projects/x", {"running": 1}, dry_run=True).would_wait == ("t_9",)
    assert client.quotas.set("projects/x", {"running": 1}).would_wait == ()
    assert [request.validate_only for request in fake.requests] == [True, False]
    assert [quota.path for quota in client.quotas.list("projects/x")] == ["projects/x"]


def test_an_explanation_tells_the_place_and_who_borrowed(fakes: Fakes, connect: Connect) -> None:
    (fake,) = fakes(1)
    client = connect(fake)
    turn = client.tasks.explain("t_1")
    assert (turn.position, turn.eta, turn.eta_error) == (4, timedelta(0), timedelta(seconds=1.5))
    assumed = quorate.WhatIf("projects/x", "running", None)
    blocked = client.tasks.get("t_1").explain(what_if=[assumed])
    assert blocked.blockers[0].borrowed_by == (quorate.Borrower("projects/greedy", 2),)
    assert (blocked.position, blocked.eta, blocked.eta_error) == (None, None, None)
    (sent,) = fake.requests[-1].what_if
    assert (sent.path, sent.key, sent.HasField("limit")) == ("projects/x", "running", False)


def test_prices_are_set_and_read(fakes: Fakes, connect: Connect) -> None:
    (fake,) = fakes(1)
    client = connect(fake)
    price = client.prices.set("m", input=3_000_000, cached=300_000, output=15_000_000, reason="list price", etag="0")
    assert (price.input, price.cached, price.output) == (3_000_000, 300_000, 15_000_000)
    assert (fake.requests[0].reason, fake.requests[0].etag) == ("list price", "0")
    assert client.prices.get("m").model == "m"
    assert [price.model for price in client.prices.list()] == ["a", "b"]


def test_costs_are_summed_by_what_is_asked(fakes: Fakes, connect: Connect) -> None:
    (fake,) = fakes(1)
    since = datetime(2026, 3, 1, tzinfo=timezone.utc)
    costs = connect(fake).prices.costs("day", since=since, project="x")
    assert (costs.lines[0].key, costs.lines[0].usage.micro_usd, costs.total.tasks) == ("2026-03-01", 5, 3)
    (sent,) = fake.requests
    assert (sent.group_by, sent.since_ms, sent.until_ms, sent.project) == (5, 1_772_323_200_000, 0, "x")


def test_the_audit_log_is_read_page_by_page(fakes: Fakes, connect: Connect) -> None:
    (fake,) = fakes(1)
    events = list(connect(fake).cluster.audit("projects/x"))
    assert [(event.number, event.subject) for event in events] == [(n, "projects/x") for n in (1, 2, 3)]
    assert events[0].author is None and fake.calls == 2


def test_nodes_are_closed_and_opened(fakes: Fakes, connect: Connect) -> None:
    (fake,) = fakes(1)
    cluster = connect(fake).cluster
    drained = cluster.drain("n1", grace=timedelta(seconds=2), reason="new disk")
    assert (drained.id, drained.state, drained.copies) == ("n1", "draining", 2)
    assert (fake.requests[0].grace_ms, fake.requests[0].reason) == (2_000, "new disk")
    assert [cluster.cordon("n1").state, cluster.uncordon("n1").state] == ["cordoned", "ready"]


def test_a_lost_node_leaves_and_a_level_begins(fakes: Fakes, connect: Connect) -> None:
    (fake,) = fakes(1)
    cluster = connect(fake).cluster
    assert [cluster.remove_node("n4", reason="burnt").leader, cluster.raise_level(reason="done").leader] == ["n1", "n1"]
    removed, raised = fake.requests
    assert (removed.id, removed.reason, raised.reason) == ("n4", "burnt", "done")


def test_nodes_show_the_copies_and_the_sum_of_their_caches(fakes: Fakes, connect: Connect) -> None:
    (node,) = connect(*fakes(1)).cluster.nodes()
    assert (node.copies, node.kv.blocks) == (2, 7)
    assert (node.device.cpus, node.device.memory_bytes) == (2, None)


def test_the_key_goes_with_every_call(fakes: Fakes, connect: Connect) -> None:
    (fake,) = fakes(1)
    connect(fake, api_key="secret").tasks.get("t_1")
    connect(fake).tasks.get("t_1")
    assert fake.metadata[0]["authorization"] == "Bearer secret"
    assert "authorization" not in fake.metadata[1]


def test_a_large_result_is_read_whole_though_its_node_dies(fakes: Fakes, connect: Connect) -> None:
    a, b = fakes(2)
    for fake in (a, b):
        fake.task = task_pb2.Task(id="t_1", uid="t_1", state=task_pb2.SUCCEEDED, result_hash="abc", sequence=0)
    a.chunks.append([b"one ", b"two \xe2", Break()])
    b.chunks.append([b"one two \xe2\x82\xac th", b"ree"])
    assert connect(a, b).tasks.result("t_1") == "one two € three"


def test_a_task_without_result_says_why(fakes: Fakes, connect: Connect) -> None:
    (fake,) = fakes(1)
    fake.task = task_pb2.Task(id="t_1", state=task_pb2.FAILED, error="CONTEXT_TOO_LONG")
    with pytest.raises(quorate.NoResult) as raised:
        connect(fake).tasks.get("t_1").result()
    assert raised.value.cause == "CONTEXT_TOO_LONG"


def test_a_closed_client_says_so(fakes: Fakes, connect: Connect) -> None:
    client = connect(*fakes(1))
    client.close()
    with pytest.raises(quorate.Conflict, match="CLIENT_CLOSED"):
        client.tasks.get("t_1")


def test_with_a_ca_only_the_cluster_it_signed_is_spoken_to(connect: Connect, tmp_path: Path) -> None:
    ours, other = trustme.CA(), trustme.CA()
    issued = ours.issue_cert("127.0.0.1")
    pair = (issued.private_key_pem.bytes(), issued.cert_chain_pems[0].bytes())
    fake = Fake(grpc.ssl_server_credentials([pair]))  # type: ignore[abstract]
    for name, ca in (("ours", ours), ("other", other)):
        ca.cert_pem.write_to_path(str(tmp_path / name))
    try:
        assert connect(fake, ca=tmp_path / "ours", api_key="k").tasks.get("t_1").id == "t_1"
        assert fake.metadata[0]["authorization"] == "Bearer k"
        for wrong in ({"ca": str(tmp_path / "other")}, {}):
            with pytest.raises(quorate.Unavailable):
                connect(fake, timeout=0.5, connect_timeout=0.3, **wrong).tasks.get("t_1")
        assert fake.calls == 1
    finally:
        fake.stop()


def test_a_context_is_evaluated_with_patience_and_repeated_elsewhere(fakes: Fakes, connect: Connect) -> None:
    sick, well = fakes(2)
    sick.answers.append(NO_LEADER)
    client = connect(sick, well, timeout=0.001)
    found = client.context.evaluate("t_1", step=3, model="m", budget_tokens=9, suggest=True, audit_all=True, timeout=20)
    asked = well.requests[-1]
    assert (asked.project, asked.task.task, asked.task.step, asked.audit_all) == ("default", "t_1", 3, True)
    assert found.report == {"model_sha256": "5", "calls": []} and found.suggestions[0]["none"] == "blind"
    assert (found.model, found.tokens_spent) == ("m", 9)
    segment = quorate.RecordedSegment("a1", "anna", "seven", replaces=("b1",))
    withheld = quorate.RecordedSegment("b1", "bert", "7")
    call = quorate.RecordedCall((segment,), "bert", "How many?", " 7", withheld=(withheld,))
    client.context.evaluate_calls([call], page=True, timeout=20)
    sent = well.requests[-1].calls.calls[0]
    assert (sent.segments[0].owner, list(sent.segments[0].replaces)) == ("anna", ["b1"])
    assert (sent.probe, sent.action, sent.withheld[0].text, well.requests[-1].page) == ("How many?", " 7", "7", True)
