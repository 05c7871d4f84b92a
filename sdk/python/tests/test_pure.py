"""What decides without a connection: retries, addresses, settings, errors, requests, values."""

from __future__ import annotations

import random
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from grpc import StatusCode

import quorate
from fake import status_bytes
from quorate import _requests, _settings, _wire
from quorate._endpoints import parse
from quorate._failures import read
from quorate._proto import error_details_pb2 as details_pb
from quorate._proto import price_pb2, quota_pb2, task_pb2
from quorate._retry import Attempts, Kind, Policy
from quorate.data import StateEvent, StepRoute


def wait_ms(attempts: Attempts, kind: Kind, elapsed_ms: int = 0, after_ms: int | None = None) -> int | None:
    return attempts.on_failure(kind, after_ms, elapsed_ms, random=7)


def test_every_node_is_asked_at_once_then_it_waits() -> None:
    attempts = Attempts(Policy(), 3)
    assert [wait_ms(attempts, Kind.NOT_SENT) for _ in range(3)] == [0, 0, 32]


def test_the_wait_doubles_within_bounds_and_is_random_in_its_upper_half() -> None:
    attempts = Attempts(Policy(), 1)
    for expected in (50, 100, 200, 400, 800, 1_000, 1_000):
        waited = attempts.on_failure(Kind.LOST, None, 0, random=(1 << 64) - 1)
        assert waited is not None and expected // 2 <= waited <= expected


def test_the_deadline_the_count_and_silence_end_it() -> None:
    assert wait_ms(Attempts(Policy(), 1), Kind.LOST, 29_999) is None
    assert wait_ms(Attempts(Policy(), 1), Kind.NOT_SENT, 10_000) is None
    assert wait_ms(Attempts(Policy(), 1), Kind.NO_MEMBER, 10_000) is None
    assert wait_ms(Attempts(Policy(), 1), Kind.BUSY, 10_000) is not None
    assert wait_ms(Attempts(Policy(), 1), Kind.BUSY, after_ms=60_000) is None
    assert wait_ms(Attempts(Policy(), 1), Kind.FINAL) is None
    attempts = Attempts(Policy(), 1)
    assert sum(wait_ms(attempts, Kind.LOST) is not None for _ in range(200)) == 63


def test_the_server_may_ask_for_more_patience() -> None:
    assert wait_ms(Attempts(Policy(), 3), Kind.BUSY, after_ms=2_000) == 2_000


def test_addresses_get_the_default_port() -> None:
    nodes = parse("a, b:7500 ,http://c:1/,[::1],", tls=False)
    assert nodes.names() == "a:7400, b:7500, c:1, [::1]:7400"
    assert [node.tls for node in parse(["https://a", "b"], tls=False).nodes] == [True, False]
    assert [node.tls for node in parse(["https://a", "b"], tls=True).nodes] == [True, True]


@pytest.mark.parametrize("bad", ["a b", "a:x", "a:99999", "a:0", "http://", "u@a:1", "a/b", "ftp://a", "::1"])
def test_bad_addresses_are_refused_with_a_next_step(bad: str) -> None:
    with pytest.raises(quorate.InvalidArgument) as raised:
        parse([bad], tls=False)
    assert bad in raised.value.message and raised.value.next


def test_no_address_is_refused_and_so_is_plain_http_beside_a_ca() -> None:
    with pytest.raises(quorate.InvalidArgument, match="NO_ENDPOINT"):
        parse(" , ", tls=False)
    with pytest.raises(quorate.InvalidArgument, match="a CA is given"):
        parse("http://a", tls=True)


def test_a_failure_moves_on_once() -> None:
    nodes = parse("a,b,c", tls=False)
    nodes.failed(0)
    nodes.failed(0)
    assert nodes.pick() == 1


def settings(environment: dict[str, str], **more: Any) -> _settings.Settings:
    given = {"endpoints": None, "project": None, "api_key": None, "ca": None, "timeout": 30.0, "connect_timeout": 10.0}
    return _settings.read(**{**given, **more}, environment=environment)


def test_what_is_not_given_comes_from_the_environment_then_from_the_defaults(tmp_path: Path) -> None:
    bare = settings({"QUORATE_PROJECT": " "})
    assert (bare.endpoints.names(), bare.project, bare.metadata) == ("127.0.0.1:7400", "default", ())
    assert bare.credentials is None
    ca = tmp_path / "ca.pem"
    ca.write_text("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n")
    environment = {
        "QUORATE_ENDPOINT": "a,b:1",
        "QUORATE_PROJECT": "research/vision",
        "QUORATE_API_KEY": "k",
        "QUORATE_CA": str(ca),
    }
    full = settings(environment)
    assert (full.endpoints.names(), full.project) == ("a:7400, b:1", "research/vision")
    assert full.metadata == (("authorization", "Bearer k"),)
    assert full.credentials is not None and all(node.tls for node in full.endpoints.nodes)
    assert settings(environment, endpoints="c", project="x", api_key="l").endpoints.names() == "c:7400"


def test_a_key_is_never_shown() -> None:
    assert "secret" not in repr(settings({}, api_key="secret"))
    for bad in ("secret\n", "sécret"):
        with pytest.raises(quorate.InvalidArgument, match="BAD_API_KEY") as raised:
            settings({}, api_key=bad)
        assert "cret" not in str(raised.value)


def test_a_ca_that_cannot_be_read_and_a_bad_project_are_named() -> None:
    with pytest.raises(quorate.InvalidArgument, match="BAD_CA"):
        settings({}, ca="/nowhere/ca.pem")
    for bad in ("Upper", "a//b", "a" * 129, "spaß"):
        with pytest.raises(quorate.InvalidArgument, match="BAD_PROJECT"):
            settings({}, project=bad)


@pytest.mark.parametrize("code", [code for code in StatusCode if code is not StatusCode.OK])
def test_a_bare_status_still_says_what_to_do(code: StatusCode) -> None:
    error = read(code, "", ()).error
    assert (error.code, error.reason) == (code.name, code.name)
    assert error.message and error.next


def test_codes_and_reasons_become_classes() -> None:
    def raised(code: StatusCode, reason: str) -> type[quorate.QuorateError]:
        info = details_pb.ErrorInfo(reason=reason)
        return type(read(code, "x", (("grpc-status-details-bin", status_bytes([info])),)).error)

    cases: list[tuple[StatusCode, str, type[quorate.QuorateError]]] = [
        (StatusCode.NOT_FOUND, "NOT_FOUND", quorate.NotFound),
        (StatusCode.ABORTED, "WRONG_ETAG", quorate.Conflict),
        (StatusCode.ALREADY_EXISTS, "TASK_ID_TAKEN", quorate.Conflict),
        (StatusCode.FAILED_PRECONDITION, "WRONG_STATE", quorate.Conflict),
        (StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED", quorate.Conflict),
        (StatusCode.INVALID_ARGUMENT, "BAD_DEFINITION", quorate.InvalidArgument),
        (StatusCode.RESOURCE_EXHAUSTED, "REQUEST_TOO_LARGE", quorate.InvalidArgument),
        (StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED", quorate.QuotaExceeded),
        (StatusCode.RESOURCE_EXHAUSTED, "WATCHERS", quorate.ResourceExhausted),
        (StatusCode.PERMISSION_DENIED, "ROLE_TOO_LOW", quorate.PermissionDenied),
        (StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED", quorate.PermissionDenied),
        (StatusCode.UNAVAILABLE, "NO_LEADER", quorate.Unavailable),
        (StatusCode.INTERNAL, "UNEXPECTED_REPLY", quorate.InternalError),
    ]
    for code, reason, expected in cases:
        assert raised(code, reason) is expected, reason


def test_standard_violations_become_the_cause() -> None:
    quota, fields = details_pb.QuotaFailure(), details_pb.BadRequest()
    quota.violations.add(subject="projects/default", description="running 4 of 4")
    fields.field_violations.add(field="priority", description="is 12, at most 9")
    told = (("grpc-status-details-bin", status_bytes([quota, fields])),)
    error = read(StatusCode.RESOURCE_EXHAUSTED, "over", told).error
    assert error.cause == "projects/default: running 4 of 4; priority: is 12, at most 9"


def test_details_that_are_no_details_do_not_hide_the_error() -> None:
    good = status_bytes([details_pb.ErrorInfo(reason="NOT_FOUND", metadata={"next": "look"})])
    chance = random.Random(1)
    for _ in range(2_000):
        damaged = bytearray(good[: chance.randint(0, len(good))])
        for _ in range(chance.randint(0, 3)):
            if damaged:
                damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        error = read(StatusCode.NOT_FOUND, "no task", (("grpc-status-details-bin", bytes(damaged)),)).error
        assert error.code == "NOT_FOUND" and error.message == "no task"


def test_only_known_words_claim_that_nothing_was_sent() -> None:
    refused = "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Connection refused"
    assert read(StatusCode.UNAVAILABLE, refused, ()).kind is Kind.NOT_SENT
    assert read(StatusCode.UNAVAILABLE, "Socket closed", ()).kind is Kind.LOST
    assert read(StatusCode.INTERNAL, "Received RST_STREAM with error code 2", ()).kind is Kind.LOST
    assert read(StatusCode.INTERNAL, "a bug", ()).kind is Kind.FINAL


def test_deadlines_are_moments() -> None:
    now_ms = 1_000_000
    assert _requests.moment_ms("500ms", now_ms, "deadline") == 1_000_500
    assert _requests.moment_ms("2h", now_ms, "deadline") == 8_200_000
    assert _requests.moment_ms(timedelta(seconds=1.5), now_ms, "deadline") == 1_001_500
    assert _requests.moment_ms(datetime(1970, 1, 1, 1, tzinfo=timezone.utc), now_ms, "deadline") == 3_600_000
    for bad in ("soon", "-1s", "1 day", datetime(2026, 1, 1)):
        with pytest.raises(quorate.InvalidArgument, match="BAD_DEADLINE"):
            _requests.moment_ms(bad, now_ms, "deadline")


def create(**more: Any) -> task_pb2.CreateTaskRequest:
    names = ("input", "task_id", "labels", "klass", "priority", "deadline", "not_before", "limits", "request_id")
    given: dict[str, Any] = {"inputs": (), "after": (), "dry_run": False, **dict.fromkeys(names), **more}
    return _requests.create_task("default", "reader", now_ms=0, **given)


@pytest.mark.parametrize(
    ("reason", "more"),
    [
        ("TOO_MANY_INPUTS", {"inputs": ["x"] * 257}),
        ("TOO_MANY_LABELS", {"labels": {str(n): "" for n in range(17)}}),
        ("BAD_PRIORITY", {"priority": 10}),
        ("BAD_CLASS", {"klass": "urgent"}),
        ("BAD_NOT_BEFORE", {"not_before": "soon"}),
        ("BAD_LIMIT", {"limits": {"running": -1}}),
        ("REQUEST_TOO_LARGE", {"inputs": [quorate.Input("ä" * (2 << 20) + "x", "big.md")]}),
    ],
)
def test_bounds_are_named_before_anything_is_sent(reason: str, more: dict[str, Any]) -> None:
    with pytest.raises(quorate.InvalidArgument) as raised:
        create(**more)
    assert raised.value.reason == reason


def test_a_single_text_is_one_input() -> None:
    assert [it.text for it in create(inputs="word").inputs] == ["word"]
    assert [it.text for it in create(input="").inputs] == [""]


def test_limits_outside_a_number_of_64_bits_are_refused() -> None:
    for bad in (-1, 1 << 64):
        with pytest.raises(quorate.InvalidArgument, match="BAD_LIMIT"):
            _requests.set_quota("cluster", {"running": bad}, "", None, None, False)


def test_prices_and_costs_are_checked_before_anything_is_sent() -> None:
    with pytest.raises(quorate.InvalidArgument, match="BAD_PRICE"):
        _requests.set_price("m", -1, 0, 0, "", None, None)
    with pytest.raises(quorate.InvalidArgument, match="BAD_GROUP"):
        _requests.query_cost("week", None, None, None)
    with pytest.raises(quorate.InvalidArgument, match="BAD_SINCE"):
        _requests.query_cost("day", datetime(2026, 1, 1), None, None)


def test_a_drain_tells_no_grace_from_none_given() -> None:
    assert _requests.drain_node("n1", timedelta(0), "", None).HasField("grace_ms")
    assert not _requests.drain_node("n1", None, "", None).HasField("grace_ms")
    with pytest.raises(quorate.InvalidArgument, match="BAD_GRACE"):
        _requests.drain_node("n1", timedelta(seconds=-1), "", None)


def test_values_of_a_newer_cluster_are_taken() -> None:
    tomorrow: Any = 99
    task = _wire.task(task_pb2.Task(state=tomorrow, create_time_ms=(1 << 64) - 1))
    assert task.state is quorate.TaskState.UNKNOWN and task.create_time.year == 9999
    assert _wire.event(task_pb2.TaskEvent(task="t")) is None, "a live event that is not known"
    committed = _wire.event(task_pb2.TaskEvent(task="t", sequence=3))
    assert isinstance(committed, StateEvent) and committed.sequence == 3
    assert committed.state is quorate.TaskState.UNKNOWN
    by = task_pb2.StepRoute(model="m", reason="CHEAPER")
    routed = task_pb2.TaskEvent(task="t", sequence=4, step=task_pb2.StepCommitted(step=1, route=by))
    assert getattr(_wire.event(routed), "route", None) == StepRoute("m", "CHEAPER")
    plain = task_pb2.TaskEvent(task="t", sequence=5, step=task_pb2.StepCommitted(step=2))
    assert getattr(_wire.event(plain), "route", "none") is None
    quota = _wire.quota(quota_pb2.Quota(limits=[quota_pb2.Limit(key="k", kind=tomorrow)]))
    assert quota.limits["k"].kind is quorate.LimitKind.UNKNOWN
    assert _wire.quota_event(quota_pb2.QuotaEvent()) is None


def test_an_empty_result_is_one_only_after_success() -> None:
    assert _wire.task(task_pb2.Task(state=task_pb2.SUCCEEDED)).result_text == ""
    assert _wire.task(task_pb2.Task(state=task_pb2.SUCCEEDED, result_hash="h")).result_text is None
    assert _wire.task(task_pb2.Task(state=task_pb2.RUNNING)).result_text is None


def test_every_state_of_the_api_has_its_word() -> None:
    words = {state.value for state in quorate.TaskState} - {"UNKNOWN"}
    assert words == set(task_pb2.TaskState.keys()) - {"TASK_STATE_UNSPECIFIED"}
    classes = set(task_pb2.TaskClass.values()) - {task_pb2.TASK_CLASS_UNSPECIFIED}
    assert set(_wire.CLASS_TO_WIRE.values()) == classes
    groups = set(price_pb2.CostGroup.values()) - {price_pb2.COST_GROUP_UNSPECIFIED}
    assert set(_wire.COST_GROUP_TO_WIRE.values()) == groups
    kinds = set(quota_pb2.LimitKind.values()) - {quota_pb2.LIMIT_KIND_UNSPECIFIED}
    assert set(_wire.LIMIT_KIND_FROM_WIRE) == kinds
