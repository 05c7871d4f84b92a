"""Requests, checked here against the bounds that the cluster would refuse."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Optional, Union

from ._course import fresh_request_id
from ._proto import agent_pb2, cluster_pb2, context_pb2, price_pb2, quota_pb2, task_pb2, tool_pb2
from ._wire import BUSY_TO_WIRE, CLASS_TO_WIRE, COST_GROUP_TO_WIRE
from .data import Ask, Busy, CostGroup, Input, RecordedCall, RecordedSegment, TaskClass, TaskData, TaskState, WhatIf
from .errors import QuorateError, local
from .serving import ExternalAgent, Tool

NAME_BYTES = 128
REQUEST_BYTES = 8 << 20
SEGMENT_BYTES = 4 << 20
TASK_INPUTS = 256
TASK_LABELS = 16
TEXT_BYTES_MAX = 64 << 20
"""The largest result that is put together in memory."""

Moment = Union[str, timedelta, datetime]
"""A time to come: `30m` (also `500ms`, `20s`, `2h`) or a timedelta from now, or a datetime with its zone."""

_TIME = re.compile(r"([0-9]+)(ms|s|m|h)")
_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}
_PROJECT_PART = re.compile(r"[a-z0-9_-]+")


def _refuse(reason: str, message: str, next: str) -> QuorateError:
    return local("INVALID_ARGUMENT", reason, message, next)


def given_or_fresh(request_id: Optional[str]) -> str:
    return request_id or fresh_request_id()


def project_name(text: str) -> str:
    name = text.strip()
    if len(name) <= NAME_BYTES and all(_PROJECT_PART.fullmatch(part) for part in name.split("/")):
        return name
    message = f"{text!r} is not a project name"
    raise _refuse("BAD_PROJECT", message, "use lower-case letters, digits, - and _, such as `research`")


def create_task(
    project: str,
    agent: str,
    input: Optional[str],
    inputs: Iterable[Union[str, Input]],
    task_id: Optional[str],
    labels: Optional[Mapping[str, str]],
    klass: Optional[Union[TaskClass, str]],
    priority: Optional[int],
    deadline: Optional[Moment],
    not_before: Optional[Moment],
    after: Iterable[Union[str, TaskData]],
    limits: Optional[Mapping[str, int]],
    request_id: Optional[str],
    dry_run: bool,
    now_ms: int,
) -> task_pb2.CreateTaskRequest:
    given = _given(input, inputs)
    _check_priority(priority)
    for key, limit in (limits or {}).items():
        _check_limit(key, limit)
    message = task_pb2.CreateTaskRequest(
        project=project,
        agent=agent,
        inputs=given,
        task_id=task_id or "",
        request_id=given_or_fresh(request_id),
        priority=priority,
        labels=labels or {},
        deadline_ms=0 if deadline is None else moment_ms(deadline, now_ms, "deadline"),
        validate_only=dry_run,
        limits=limits or {},
        not_before_ms=0 if not_before is None else moment_ms(not_before, now_ms, "not_before"),
        after=[_id(it) for it in ([after] if isinstance(after, str) else after)],
    )
    if klass is not None:
        # `class` is a word of Python, so that only setattr reaches the field.
        setattr(message, "class", CLASS_TO_WIRE[_klass(klass)])
    _check(message)
    return message


def _given(input: Optional[str], inputs: Iterable[Union[str, Input]]) -> list[task_pb2.Input]:
    given: list[Union[str, Input]] = [] if input is None else [input]
    # A single text is an iterable of letters, which nobody means.
    given += [inputs] if isinstance(inputs, str) else inputs
    return [_input(text) for text in given]


def _check_priority(priority: Optional[int]) -> None:
    """Before the message is made: protobuf's own words for a number out of range help nobody."""
    if priority is not None and not 0 <= priority <= 9:
        what = f"priority is {priority}, outside 0 to 9"
        raise _refuse("BAD_PRIORITY", what, "give 0 (last) to 9 (first within the class)")


def _input(given: Union[str, Input]) -> task_pb2.Input:
    return task_pb2.Input(text=given) if isinstance(given, str) else task_pb2.Input(name=given.name, text=given.text)


def _id(given: Union[str, TaskData]) -> str:
    return given if isinstance(given, str) else given.uid or given.id


def _klass(given: Union[TaskClass, str]) -> TaskClass:
    try:
        return TaskClass(given)
    except ValueError:
        names = ", ".join(klass.value for klass in TaskClass)
        raise _refuse("BAD_CLASS", f"there is no class {given!r}", f"use one of {names}") from None


def moment_ms(moment: Moment, now_ms: int, what: str) -> int:
    """Unix milliseconds. `what` is the argument's name, for errors."""
    if isinstance(moment, timedelta):
        return max(1, now_ms + moment // timedelta(milliseconds=1))
    if isinstance(moment, datetime):
        return _datetime_ms(moment, what)
    match = _TIME.fullmatch(moment.strip())
    if match is None:
        message = f"{what}: {moment!r} is not a time"
        raise _refuse(f"BAD_{what.upper()}", message, "write it like 500ms, 30s, 20m or 2h")
    return now_ms + int(match[1]) * _UNIT_MS[match[2]]


def _datetime_ms(moment: datetime, what: str) -> int:
    if moment.tzinfo is None:
        message = f"{what}: {moment} has no time zone"
        raise _refuse(f"BAD_{what.upper()}", message, "give it one, such as datetime.now(timezone.utc)")
    return max(1, int(moment.timestamp() * 1_000))


def signal_task(
    project: str,
    id: str,
    kind: task_pb2.SignalKind.ValueType,
    ask: Optional[Union[str, Ask]],
    text: str,
    request_id: Optional[str],
) -> task_pb2.SignalTaskRequest:
    size = len(text.encode())
    if size > SEGMENT_BYTES:
        raise _refuse("REQUEST_TOO_LARGE", _too_large("the text", size, SEGMENT_BYTES), "split it")
    return task_pb2.SignalTaskRequest(
        project=project,
        id=id,
        request_id=given_or_fresh(request_id),
        kind=kind,
        ask=ask.id if isinstance(ask, Ask) else ask or "",
        text=text,
    )


def message_kind(busy: Union[Busy, str]) -> task_pb2.SignalKind.ValueType:
    try:
        return BUSY_TO_WIRE[Busy(busy)]
    except ValueError:
        names = ", ".join(each.value for each in Busy)
        raise _refuse("BAD_BUSY", f"busy is {busy!r}", f"use one of {names}") from None


def retry_task(project: str, id: str, task_id: Optional[str], request_id: Optional[str]) -> task_pb2.RetryTaskRequest:
    return task_pb2.RetryTaskRequest(
        project=project, id=id, task_id=task_id or "", request_id=given_or_fresh(request_id)
    )


def fork_task(
    project: str, id: str, step: Optional[int], task_id: Optional[str], request_id: Optional[str]
) -> task_pb2.ForkTaskRequest:
    if step is not None and not 0 <= step < 1 << 64:
        raise _refuse("BAD_STEP", f"step is {step}, outside 0 to 2^64 - 1", "name a committed step, or None")
    return task_pb2.ForkTaskRequest(
        project=project, id=id, step=step, task_id=task_id or "", request_id=given_or_fresh(request_id)
    )


def set_schedule(
    project: str,
    name: str,
    cron: str,
    agent: str,
    input: Optional[str],
    inputs: Iterable[Union[str, Input]],
    klass: Optional[Union[TaskClass, str]],
    priority: Optional[int],
    request_id: Optional[str],
) -> task_pb2.SetScheduleRequest:
    _check_priority(priority)
    message = task_pb2.SetScheduleRequest(
        project=project,
        name=name,
        cron=cron,
        agent=agent,
        inputs=_given(input, inputs),
        priority=priority,
        request_id=given_or_fresh(request_id),
    )
    if klass is not None:
        setattr(message, "class", CLASS_TO_WIRE[_klass(klass)])
    _check_inputs(message)
    return message


def _check(message: task_pb2.CreateTaskRequest) -> None:
    _check_inputs(message)
    if len(message.labels) > TASK_LABELS:
        what = f"the task has {len(message.labels)} labels; at most {TASK_LABELS} are taken"
        raise _refuse("TOO_MANY_LABELS", what, "send fewer labels")


def _check_inputs(message: Union[task_pb2.CreateTaskRequest, task_pb2.SetScheduleRequest]) -> None:
    if len(message.inputs) > TASK_INPUTS:
        what = f"the task has {len(message.inputs)} inputs; at most {TASK_INPUTS} are taken"
        raise _refuse("TOO_MANY_INPUTS", what, "send fewer, or several tasks")
    for given in message.inputs:
        size = len(given.text.encode())
        if size > SEGMENT_BYTES:
            what = _too_large(f"the input {given.name!r}", size, SEGMENT_BYTES)
            raise _refuse("REQUEST_TOO_LARGE", what, "cut it into several inputs")
    if message.ByteSize() > REQUEST_BYTES:
        what = _too_large("the request", message.ByteSize(), REQUEST_BYTES)
        raise _refuse("REQUEST_TOO_LARGE", what, "send smaller inputs, or several tasks")


def _too_large(what: str, size: int, limit: int) -> str:
    return f"{what} is {size} bytes; the limit is {limit} bytes ({limit >> 20} MiB)"


def watch_task(project: str, id: str, from_sequence: int, tokens: bool) -> task_pb2.WatchTaskRequest:
    return task_pb2.WatchTaskRequest(project=project, id=id, from_sequence=max(from_sequence, 1), no_tokens=not tokens)


def apply_agent(
    project: str, toml: str, etag: Optional[str], request_id: Optional[str], dry_run: bool
) -> agent_pb2.ApplyAgentRequest:
    size = len(toml.encode())
    if size > SEGMENT_BYTES:
        what = _too_large("the definition", size, SEGMENT_BYTES)
        raise _refuse("REQUEST_TOO_LARGE", what, "give long texts as inputs of a task")
    return agent_pb2.ApplyAgentRequest(
        project=project,
        toml=toml,
        etag=etag or "",
        request_id=given_or_fresh(request_id),
        validate_only=dry_run,
    )


def set_quota(
    path: str,
    limits: Mapping[str, Optional[int]],
    reason: str,
    etag: Optional[str],
    request_id: Optional[str],
    dry_run: bool,
) -> quota_pb2.SetQuotaRequest:
    for key, limit in limits.items():
        _check_limit(key, limit)
    return quota_pb2.SetQuotaRequest(
        path=path,
        changes=[quota_pb2.LimitChange(key=key, limit=limit) for key, limit in limits.items()],
        reason=reason,
        etag=etag or "",
        request_id=given_or_fresh(request_id),
        validate_only=dry_run,
    )


def _check_limit(key: str, limit: Optional[int]) -> None:
    if limit is not None and not 0 <= limit < 1 << 64:
        message = f"the limit {key} is {limit}, outside 0 to 2^64 - 1"
        raise _refuse("BAD_LIMIT", message, "give None to take a limit away, 0 to hold everything back")


def explain_task(project: str, id: str, what_if: Iterable[WhatIf]) -> task_pb2.ExplainTaskRequest:
    assumed = list(what_if)
    for it in assumed:
        _check_limit(it.key, it.limit)
    told = [task_pb2.WhatIf(path=it.path, key=it.key, limit=it.limit) for it in assumed]
    return task_pb2.ExplainTaskRequest(project=project, id=id, what_if=told)


def set_price(
    model: str,
    input: int,
    cached: int,
    output: int,
    reason: str,
    etag: Optional[str],
    request_id: Optional[str],
) -> price_pb2.SetPriceRequest:
    for name, amount in (("input", input), ("cached", cached), ("output", output)):
        if not 0 <= amount < 1 << 64:
            message = f"the price {name} is {amount}, outside 0 to 2^64 - 1"
            raise _refuse("BAD_PRICE", message, "give whole micro-dollars a million tokens")
    return price_pb2.SetPriceRequest(
        model=model,
        input=input,
        cached=cached,
        output=output,
        etag=etag or "",
        reason=reason,
        request_id=given_or_fresh(request_id),
    )


def query_cost(
    by: Union[CostGroup, str], since: Optional[datetime], until: Optional[datetime], project: Optional[str]
) -> price_pb2.QueryCostRequest:
    try:
        group = CostGroup(by)
    except ValueError:
        names = ", ".join(group.value for group in CostGroup)
        raise _refuse("BAD_GROUP", f"costs can't be summed by {by!r}", f"use one of {names}") from None
    return price_pb2.QueryCostRequest(
        group_by=COST_GROUP_TO_WIRE[group],
        since_ms=0 if since is None else _datetime_ms(since, "since"),
        until_ms=0 if until is None else _datetime_ms(until, "until"),
        project=project or "",
    )


def drain_node(
    id: str, grace: Optional[timedelta], reason: str, request_id: Optional[str]
) -> cluster_pb2.DrainNodeRequest:
    if grace is not None and grace < timedelta(0):
        raise _refuse("BAD_GRACE", f"the grace {grace} is below zero", "give 0 to move tasks at once")
    grace_ms = None if grace is None else grace // timedelta(milliseconds=1)
    return cluster_pb2.DrainNodeRequest(id=id, grace_ms=grace_ms, reason=reason, request_id=given_or_fresh(request_id))


def given_tools(served: Iterable[Union[Tool, ExternalAgent]]) -> tool_pb2.Register:
    register = tool_pb2.Register()
    for it in served:
        if isinstance(it, Tool):
            register.tools.append(it._served())
        elif isinstance(it, ExternalAgent):
            register.models.append(it.name)
        else:
            message = f"{getattr(it, '__name__', it)!r} is neither a tool nor an agent"
            raise _refuse("BAD_TOOL", message, "put @quorate.tool or @quorate.agent(name) above the function")
    names = [tool.name for tool in register.tools]
    if not names and not register.models:
        raise _refuse("BAD_TOOL", "nothing is to be served", "give functions under @quorate.tool or @quorate.agent")
    if len(set(names)) < len(names):
        raise _refuse("BAD_TOOL", f"two tools have one name among {', '.join(names)}", "give one of them a `name`")
    return register


def no_result(task: TaskData) -> QuorateError:
    message = f"task {task.id} has no result: it is {task.state}"
    next = (
        "read its error, then create it again"
        if task.state.is_final
        else "wait until it has SUCCEEDED, or ask with `explain` why it waits"
    )
    return local("FAILED_PRECONDITION", "NO_RESULT", message, next, cause=task.error)


def result_at_hand(task: TaskData) -> Optional[str]:
    """The result that came with the task; None when it must be read by its hash.

    Raises:
        NoResult: the task did not succeed.
    """
    if task.state is not TaskState.SUCCEEDED:
        raise no_result(task)
    return task.result_text


class Text:
    """A segment that is put together from pieces, though a node may die in the middle: the next one's are the same."""

    def __init__(self, hash: str) -> None:
        self._hash = hash
        self._bytes = bytearray()
        self._skip = 0

    def begin(self) -> None:
        """A node begins anew: what is known of it already is left out."""
        self._skip = len(self._bytes)

    def take(self, chunk: bytes) -> None:
        known = min(self._skip, len(chunk))
        self._skip -= known
        self._bytes += chunk[known:]
        if len(self._bytes) > TEXT_BYTES_MAX:
            message = f"segment {self._hash} is larger than {TEXT_BYTES_MAX >> 20} MiB"
            raise local("OUT_OF_RANGE", "SEGMENT_TOO_LARGE", message, "read it by gRPC, piece by piece")

    def text(self) -> str:
        try:
            return self._bytes.decode()
        except UnicodeDecodeError:
            message = f"segment {self._hash} is not UTF-8 text"
            raise local("DATA_LOSS", "NOT_TEXT", message, "read its bytes by gRPC") from None


EVALUATION_S = 3600.0
"""As long as an evaluation is waited for, where nobody says how long."""


def recorded_calls(calls: Iterable[RecordedCall]) -> context_pb2.RecordedCalls:
    def segment(it: RecordedSegment) -> context_pb2.RecordedSegment:
        return context_pb2.RecordedSegment(id=it.id, owner=it.owner, kind=it.kind, text=it.text, replaces=it.replaces)

    def call(it: RecordedCall) -> context_pb2.RecordedCall:
        return context_pb2.RecordedCall(
            name=it.name,
            segments=[segment(one) for one in it.segments],
            reader=it.reader,
            probe=it.probe,
            action=it.action,
            withheld=[segment(one) for one in it.withheld],
        )

    return context_pb2.RecordedCalls(calls=[call(it) for it in calls])
