"""Generated messages into our own values. Nothing else sees the generated ones, except what makes requests."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, Optional

from . import data
from ._proto import agent_pb2, cluster_pb2, context_pb2, price_pb2, quota_pb2, task_pb2

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_LAST_MS = (datetime.max.replace(tzinfo=timezone.utc) - _EPOCH) // timedelta(milliseconds=1)

CLASS_TO_WIRE: Mapping[data.TaskClass, task_pb2.TaskClass.ValueType] = {
    data.TaskClass.SYSTEM: task_pb2.SYSTEM,
    data.TaskClass.INTERACTIVE: task_pb2.INTERACTIVE,
    data.TaskClass.BATCH: task_pb2.BATCH,
    data.TaskClass.BEST_EFFORT: task_pb2.BEST_EFFORT,
}
_CLASS_FROM_WIRE = {number: klass for klass, number in CLASS_TO_WIRE.items()}

BUSY_TO_WIRE: Mapping[data.Busy, task_pb2.SignalKind.ValueType] = {
    data.Busy.REJECT: task_pb2.MESSAGE,
    data.Busy.ENQUEUE: task_pb2.ENQUEUE,
    data.Busy.INTERRUPT: task_pb2.INTERRUPT,
    data.Busy.ROLLBACK: task_pb2.ROLLBACK,
}

COST_GROUP_TO_WIRE: Mapping[data.CostGroup, price_pb2.CostGroup.ValueType] = {
    data.CostGroup.PROJECT: price_pb2.BY_PROJECT,
    data.CostGroup.AGENT: price_pb2.BY_AGENT,
    data.CostGroup.MODEL: price_pb2.BY_MODEL,
    data.CostGroup.TASK: price_pb2.BY_TASK,
    data.CostGroup.DAY: price_pb2.BY_DAY,
}

LIMIT_KIND_FROM_WIRE: Mapping[int, data.LimitKind] = {
    quota_pb2.BUDGET: data.LimitKind.BUDGET,
    quota_pb2.RATE: data.LimitKind.RATE,
    quota_pb2.HOLDING: data.LimitKind.HOLDING,
    quota_pb2.WEIGHT: data.LimitKind.WEIGHT,
}


def time(ms: int) -> datetime:
    """Any number is a moment; those beyond the calendar are its end."""
    return _EPOCH + timedelta(milliseconds=min(ms, _LAST_MS))


def _time_set(ms: int) -> Optional[datetime]:
    """On the wire zero means "not set"."""
    return time(ms) if ms else None


def _state(number: int) -> data.TaskState:
    try:
        return data.TaskState(task_pb2.TaskState.Name(number))  # type: ignore[arg-type]
    except ValueError:
        return data.TaskState.UNKNOWN


def task(it: task_pb2.Task) -> data.TaskData:
    state = _state(it.state)
    # An empty result without a hash is a real, empty result once the task has succeeded.
    empty = "" if state is data.TaskState.SUCCEEDED and not it.result_hash else None
    return data.TaskData(
        id=it.id,
        uid=it.uid,
        project=it.project,
        agent=it.agent,
        revision=it.revision,
        labels=dict(it.labels),
        state=state,
        state_reason=it.state_reason,
        node=it.node or None,
        epoch=it.epoch or None,
        step=it.step,
        sequence=it.sequence,
        copies=it.copies,
        usage=_usage(it.usage),
        result_text=it.result or empty,
        result_hash=it.result_hash or None,
        error=it.error or None,
        pending=tuple(_blocker(blocker) for blocker in it.pending),
        create_time=time(it.create_time_ms),
        end_time=_time_set(it.end_time_ms),
        deadline_time=_time_set(it.deadline_ms),
        parent=it.parent or None,
        children=tuple(it.children),
        klass=_CLASS_FROM_WIRE.get(getattr(it, "class"), data.TaskClass.INTERACTIVE),
        priority=it.priority,
        head=it.head or None,
        asks=tuple(_ask(ask) for ask in it.asks),
        forked_from=it.forked_from or None,
        forked_steps=it.forked_steps,
    )


def _ask(it: task_pb2.Ask) -> data.Ask:
    return data.Ask(it.id, _ask_kind(it.kind), it.tool or None, it.text or None, it.text_hash or None)


def _ask_kind(number: int) -> data.AskKind:
    try:
        return data.AskKind(task_pb2.AskKind.Name(number))  # type: ignore[arg-type]
    except ValueError:
        return data.AskKind.OTHER


def schedule(it: task_pb2.Schedule) -> data.Schedule:
    return data.Schedule(
        name=it.name,
        project=it.project,
        cron=it.cron,
        agent=it.agent,
        inputs=tuple(it.inputs),
        klass=_CLASS_FROM_WIRE.get(getattr(it, "class"), data.TaskClass.BATCH),
        priority=it.priority,
        next_time=_time_set(it.next_ms),
        last_task=it.last_task or None,
        last_error=it.last_error or None,
        fired=it.fired,
    )


def _usage(it: task_pb2.Usage) -> data.Usage:
    return data.Usage(it.prompt_tokens, it.cached_tokens, it.generated_tokens, it.micro_usd)


def _blocker(it: task_pb2.Blocker) -> data.Blocker:
    borrowers = tuple(data.Borrower(borrower.path, borrower.amount) for borrower in it.borrowed_by)
    return data.Blocker(it.reason, it.resource, it.requested, it.available, it.limit, it.message, borrowers)


def explanation(it: task_pb2.ExplainTaskResponse) -> data.Explanation:
    return data.Explanation(
        task=task(it.task),
        blockers=tuple(_blocker(blocker) for blocker in it.blockers),
        tasks_ahead=it.tasks_ahead,
        nodes=tuple(data.NodeVerdict(v.node, v.eligible, v.reason) for v in it.nodes),
        position=it.position or None,
        eta=_span(_set(it, "eta_ms")),
        eta_error=_span(_set(it, "eta_error_ms")),
    )


def _span(ms: Optional[int]) -> Optional[timedelta]:
    return None if ms is None else timedelta(milliseconds=min(ms, _LAST_MS))


def event(it: task_pb2.TaskEvent) -> Optional[data.Event]:
    """None for a live event that only a newer cluster knows; a committed one always counts."""
    kind = it.WhichOneof("kind")
    if kind == "step":
        route = data.StepRoute(it.step.route.model, it.step.route.reason) if it.step.HasField("route") else None
        return data.StepEvent(it.task, it.sequence, it.at_ms, it.step.step, it.step.head, _usage(it.step.usage), route)
    if kind == "token":
        token = it.token
        return data.TokenEvent(it.task, it.at_ms, token.step, token.attempt, token.offset, token.tokens, token.text)
    if kind == "retract":
        return data.RetractEvent(it.task, it.at_ms, it.retract.step, it.retract.attempt)
    if kind == "gap":
        return data.GapEvent(it.task, it.at_ms, it.gap.first, it.gap.last)
    if kind is None and it.sequence == 0:
        return None
    state = it.state
    return data.StateEvent(
        it.task,
        it.sequence,
        it.at_ms,
        _state(state.state),
        state.reason,
        state.node or None,
        state.epoch or None,
    )


def agent(it: agent_pb2.Agent) -> data.Agent:
    return data.Agent(
        name=it.name,
        project=it.project,
        kind=it.kind,
        model=it.model,
        revision=it.revision,
        etag=it.etag,
        update_time=_time_set(it.update_time_ms),
        toml=it.toml,
    )


def quota(it: quota_pb2.Quota) -> data.Quota:
    return data.Quota(
        path=it.path,
        limits={limit.key: _limit(limit) for limit in it.limits},
        etag=it.etag,
        reason=it.reason,
        author=it.author,
        update_time=_time_set(it.update_time_ms),
        would_wait=tuple(it.would_wait),
    )


def _limit(it: quota_pb2.Limit) -> data.Limit:
    return data.Limit(
        limit=_set(it, "limit"),
        used=it.used,
        reserved=it.reserved,
        kind=LIMIT_KIND_FROM_WIRE.get(it.kind, data.LimitKind.UNKNOWN),
        window_start=_time_set(it.window_start_ms),
        window_end=_time_set(it.window_end_ms),
        overage=it.overage,
    )


def quota_event(it: quota_pb2.QuotaEvent) -> Optional[data.QuotaEvent]:
    """None for a kind that only a newer cluster knows."""
    kind = it.WhichOneof("kind")
    if kind == "quota":
        return quota(it.quota)
    return audit_event(it.audit) if kind == "audit" else None


def audit_event(it: cluster_pb2.AuditEvent) -> data.AuditEvent:
    return data.AuditEvent(
        number=it.number,
        time=time(it.at_ms),
        author=it.author or None,
        action=it.action,
        subject=it.subject,
        change=it.change,
        reason=it.reason,
    )


def price(it: price_pb2.Price) -> data.Price:
    return data.Price(
        model=it.model,
        input=it.input,
        cached=it.cached,
        output=it.output,
        etag=it.etag,
        reason=it.reason,
        author=it.author,
        update_time=_time_set(it.update_time_ms),
    )


def costs(it: price_pb2.QueryCostResponse) -> data.Costs:
    return data.Costs(tuple(_cost_line(line) for line in it.lines), _cost_line(it.total))


def _cost_line(it: price_pb2.CostLine) -> data.CostLine:
    return data.CostLine(
        key=it.key,
        tasks=it.tasks,
        steps=it.steps,
        usage=_usage(it.usage),
        new_tokens=it.new_tokens,
        known_tokens=it.known_tokens,
        kv_block_seconds=it.kv_block_seconds,
        tool_calls=it.tool_calls,
    )


def _set(message: Any, field: str) -> Any:
    """The value of an optional field, or None."""
    return getattr(message, field) if message.HasField(field) else None


def cluster_status(it: cluster_pb2.ClusterStatus) -> data.ClusterStatus:
    return data.ClusterStatus(
        cluster_id=it.cluster_id,
        leader=it.leader or None,
        term=it.term,
        applied_index=it.applied_index,
        committed_index=it.committed_index,
        voters=tuple(it.voters),
        learners=tuple(it.learners),
        answered_by=it.answered_by,
        state_hash=it.state_hash,
        state_hash_index=it.state_hash_index,
        copies=it.copies,
        feature_level=it.feature_level,
        tasks_by_state=dict(it.tasks_by_state),
        warnings=tuple(it.warnings),
    )


def node(it: cluster_pb2.Node, copies: int) -> data.Node:
    """`copies` is the cluster's, shown with each node."""
    engines = tuple(_engine(engine) for engine in it.engines)
    return data.Node(
        id=it.id,
        name=it.name,
        roles=tuple(it.roles),
        state=it.state,
        client_addr=it.client_addr,
        internal_addr=it.internal_addr,
        running=it.running,
        slots=it.slots,
        fenced_commits=it.fenced_commits,
        engines=engines,
        copies=copies,
        kv=data.Kv(
            blocks=sum(engine.kv_blocks for engine in engines),
            blocks_used=sum(engine.kv_blocks_used for engine in engines),
            bytes=sum(engine.kv_bytes for engine in engines),
        ),
        segments=it.segments,
        segment_bytes=it.segment_bytes,
        context_bytes_received=it.context_bytes_received,
        context_bytes_sent=it.context_bytes_sent,
        context_bytes_full=it.context_bytes_full,
        device=_device(it.device),
        version=it.version,
    )


def _engine(it: cluster_pb2.Engine) -> data.Engine:
    return data.Engine(
        model=it.model,
        model_digest=it.model_digest,
        numerics_id=it.numerics_id,
        window=it.window,
        kernels=it.kernels,
        kv_blocks=it.kv_blocks,
        kv_blocks_used=it.kv_blocks_used,
        kv_bytes=it.kv_bytes,
        weight_bytes=it.weight_bytes,
        tokens_computed=it.tokens_computed,
        tokens_cached=it.tokens_cached,
        tokens_generated=it.tokens_generated,
        kv_tiers={tier.tier: tier.bytes for tier in it.kv_tiers},
    )


def _device(it: cluster_pb2.Device) -> data.Device:
    return data.Device(
        cpus=_set(it, "cpus"),
        memory_bytes=_set(it, "memory_bytes"),
        memory_free_bytes=_set(it, "memory_free_bytes"),
        rss_bytes=_set(it, "rss_bytes"),
        cpu_pressure_milli=_set(it, "cpu_pressure_milli"),
        memory_pressure_milli=_set(it, "memory_pressure_milli"),
        gpus=tuple(_gpu(gpu) for gpu in it.gpus),
    )


def _gpu(it: cluster_pb2.Gpu) -> data.Gpu:
    return data.Gpu(
        uuid=_set(it, "uuid"),
        name=_set(it, "name"),
        memory_total_bytes=_set(it, "memory_total_bytes"),
        memory_used_bytes=_set(it, "memory_used_bytes"),
        utilization_percent=_set(it, "utilization_percent"),
        power_milliwatts=_set(it, "power_milliwatts"),
        temperature_celsius=_set(it, "temperature_celsius"),
    )


def evaluation(it: context_pb2.EvaluateContextResponse) -> data.Evaluation:
    return data.Evaluation(
        report_json=it.report,
        suggestions_json=tuple(it.suggestions),
        table=it.table,
        suggested=it.suggested,
        page=it.page,
        model=it.model,
        node=it.node,
        tokens_spent=it.tokens_spent,
    )
