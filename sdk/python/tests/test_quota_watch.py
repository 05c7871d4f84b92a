"""Following quotas over streams that break."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any, Callable

import pytest
from grpc import StatusCode

import quorate
from fake import Break, End, Fake, Hold, QuotaStep, Refuse
from quorate._proto import quota_pb2
from quorate._proto.cluster_pb2 import AuditEvent
from quorate._proto.quota_pb2 import Limit, Quota, QuotaEvent

Fakes = Callable[[int], list[Fake]]
Connect = Callable[..., Any]


def place(path: str, used: int) -> QuotaEvent:
    limit = Limit(key="tokens_day", limit=9, used=used, kind=quota_pb2.BUDGET, window_start_ms=1_000, overage=1)
    return QuotaEvent(quota=Quota(path=path, limits=[limit]))


def audit(number: int) -> QuotaEvent:
    return QuotaEvent(audit=AuditEvent(number=number, action="quota.set"))


def share(fakes: list[Fake], *scripts: list[QuotaStep]) -> None:
    """Whichever node is asked next plays the next script."""
    for fake in fakes:
        fake.quota_watches = fakes[0].quota_watches
    fakes[0].quota_watches.extend(scripts)


def told(event: Any) -> Any:
    return event.number if isinstance(event, quorate.AuditEvent) else (event.path, event.limits["tokens_day"].used)


@pytest.mark.parametrize("end", [Break(), End()], ids=["broken", "ended"])
def test_a_watch_that_is_cut_shows_only_what_is_new(end: QuotaStep, fakes: Fakes, connect: Connect) -> None:
    nodes = fakes(2)
    begun: list[QuotaStep] = [place("cluster", 1), place("projects/x", 1), audit(7), end]
    share(nodes, begun, [place("cluster", 1), place("projects/x", 2), audit(7), audit(8), Hold()])
    with connect(*nodes).quotas.watch("projects/x") as watch:
        events = []
        while watch.last_audit < 8:
            events.append(told(next(watch)))
    # A line that is cut may swallow what was sent last: it then comes from the other node.
    assert events in (
        [("cluster", 1), ("projects/x", 1), 7, ("projects/x", 2), 8],
        [("cluster", 1), ("projects/x", 1), ("projects/x", 2), 7, 8],
        [("cluster", 1), ("projects/x", 2), 7, 8],
    )
    asked = [request for node in nodes for request in node.requests]
    assert sorted(request.after_audit for request in asked) == [0, 7 if events[2] == 7 and len(events) == 5 else 0]
    assert {request.path for request in asked} == {"projects/x"}


def test_a_limit_tells_its_kind_and_its_window(fakes: Fakes, connect: Connect) -> None:
    (fake,) = fakes(1)
    share([fake], [place("cluster", 3), Hold()])
    with connect(fake).quotas.watch() as watch:
        limit = next(watch).limits["tokens_day"]
    start = datetime(1970, 1, 1, 0, 0, 1, tzinfo=timezone.utc)
    assert limit == quorate.Limit(9, 3, 0, quorate.LimitKind.BUDGET, start, None, 1)


def test_a_watch_has_an_end_when_you_give_it_one(fakes: Fakes, connect: Connect) -> None:
    (fake,) = fakes(1)
    share([fake], [place("cluster", 1), Hold()])
    watch = connect(fake).quotas.watch(timeout=0.3)
    next(watch)
    with pytest.raises(quorate.WaitTimeout):
        next(watch)


def test_a_watch_that_is_refused_says_so_and_can_go_on(fakes: Fakes, connect: Connect) -> None:
    (fake,) = fakes(1)
    share([fake], [audit(1), Refuse(StatusCode.PERMISSION_DENIED, "no more")], [audit(1), audit(2), Hold()])
    with connect(fake).quotas.watch() as watch:
        assert next(watch).number == 1
        with pytest.raises(quorate.PermissionDenied):
            next(watch)
        assert next(watch).number == 2


def test_a_watch_that_is_left_gives_its_stream_back(fakes: Fakes, connect: Connect) -> None:
    (fake,) = fakes(1)
    hold = Hold()
    share([fake], [audit(1), hold])
    with connect(fake).quotas.watch() as watch:
        next(watch)
    assert hold.left.wait(10)
