"""A node in this process: it answers what it was told to, and remembers what it was asked."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Callable, Optional, Union

import grpc

from quorate._proto import (
    agent_pb2,
    agent_pb2_grpc,
    cluster_pb2,
    cluster_pb2_grpc,
    context_pb2,
    context_pb2_grpc,
    price_pb2,
    price_pb2_grpc,
    quota_pb2,
    quota_pb2_grpc,
    task_pb2,
    task_pb2_grpc,
    tool_pb2,
    tool_pb2_grpc,
)
from quorate._proto import error_details_pb2 as details_pb

PATIENCE_S = 10.0


@dataclass(frozen=True)
class Refuse:
    """A status with what `google.rpc` says of it."""

    code: grpc.StatusCode
    message: str = "refused"
    reason: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    retry_ms: Optional[int] = None
    details: bool = True

    def trailing(self) -> tuple[tuple[str, bytes], ...]:
        if not self.details:
            return ()
        told: list[Any] = []
        if self.reason:
            told.append(details_pb.ErrorInfo(reason=self.reason, domain="quorate", metadata=self.metadata))
        if self.retry_ms is not None:
            info = details_pb.RetryInfo()
            info.retry_delay.FromMilliseconds(self.retry_ms)
            told.append(info)
        return (("grpc-status-details-bin", status_bytes(told)),)


def status_bytes(told: Iterable[Any]) -> bytes:
    status = details_pb.Status()
    for message in told:
        url = f"type.googleapis.com/google.rpc.{message.DESCRIPTOR.name}"
        status.details.add(type_url=url, value=message.SerializeToString())
    return status.SerializeToString()


class Break:
    """The connection breaks."""


class Silence:
    """No answer, ever."""


class End:
    """The stream ends in good order."""


class Hold:
    """Nothing more is sent until the client goes, which sets `left`."""

    def __init__(self) -> None:
        self.left = threading.Event()


class ServedStream:
    """A stream over which a program serves tools: what it said first, what it is asked, what it answers."""

    def __init__(self, register: tool_pb2.Register) -> None:
        self.register = register
        self.asks: queue.Queue[Any] = queue.Queue()
        self._told: queue.Queue[tool_pb2.ToolServerMessage] = queue.Queue()

    def ask(self, **kind: Any) -> None:
        self.asks.put(tool_pb2.ToolServerRequest(**kind))

    def end(self) -> None:
        self.asks.put(End())

    def told(self) -> tool_pb2.ToolServerMessage:
        return self._told.get(timeout=PATIENCE_S)

    def hear(self, messages: Iterator[tool_pb2.ToolServerMessage]) -> None:
        with contextlib.suppress(grpc.RpcError):
            for message in messages:
                self._told.put(message)
        self.end()


Answer = Union[Refuse, Break, Silence]
Step = Union[task_pb2.TaskEvent, Refuse, Break, End, Hold]
QuotaStep = Union[quota_pb2.QuotaEvent, Refuse, Break, End, Hold]
Chunk = Union[bytes, Break]


class Fake(
    task_pb2_grpc.TaskServiceServicer,
    agent_pb2_grpc.AgentServiceServicer,
    quota_pb2_grpc.QuotaServiceServicer,
    price_pb2_grpc.PriceBookServiceServicer,
    cluster_pb2_grpc.ClusterServiceServicer,
    context_pb2_grpc.ContextServiceServicer,
    tool_pb2_grpc.ToolServiceServicer,
):
    """Without an answer for the next unary call it answers well."""

    def __init__(self, credentials: Optional[grpc.ServerCredentials] = None) -> None:
        self.answers: deque[Answer] = deque()
        self.watches: deque[Sequence[Step]] = deque()
        self.chunks: deque[Sequence[Chunk]] = deque()
        self.requests: list[Any] = []
        self.quota_watches: deque[Sequence[QuotaStep]] = deque()
        self.watched_from: list[int] = []
        self.metadata: list[dict[str, Any]] = []
        self.task = task_pb2.Task(id="t_1", project="default", state=task_pb2.RUNNING)
        self.pages: list[list[str]] = [[]]
        self.served: queue.Queue[ServedStream] = queue.Queue()
        self.nodes: list[str] = []
        self._over = threading.Event()
        self._server = grpc.server(
            ThreadPoolExecutor(8), options=[("grpc.http2.min_recv_ping_interval_without_data_ms", 100)]
        )
        task_pb2_grpc.add_TaskServiceServicer_to_server(self, self._server)
        agent_pb2_grpc.add_AgentServiceServicer_to_server(self, self._server)
        quota_pb2_grpc.add_QuotaServiceServicer_to_server(self, self._server)
        price_pb2_grpc.add_PriceBookServiceServicer_to_server(self, self._server)
        cluster_pb2_grpc.add_ClusterServiceServicer_to_server(self, self._server)
        context_pb2_grpc.add_ContextServiceServicer_to_server(self, self._server)
        tool_pb2_grpc.add_ToolServiceServicer_to_server(self, self._server)
        listen = "127.0.0.1:0"
        port = (
            self._server.add_insecure_port(listen)
            if credentials is None
            else self._server.add_secure_port(listen, credentials)
        )
        self._line = Line(port)
        self._server.start()

    @property
    def address(self) -> str:
        return self._line.address

    @property
    def calls(self) -> int:
        return len(self.requests)

    @property
    def request_ids(self) -> list[str]:
        return [request.request_id for request in self.requests]

    def stop(self) -> None:
        self._over.set()
        self._line.close()
        self._server.stop(None).wait(PATIENCE_S)

    def _answer(self, request: Any, context: Any, well: Callable[[], Any]) -> Any:
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        answer = self.answers.popleft() if self.answers else None
        if answer is None:
            return well()
        self._misbehave(answer, context)
        return None

    def _misbehave(self, answer: Answer, context: Any) -> None:
        if isinstance(answer, Refuse):
            context.set_trailing_metadata(answer.trailing())
            context.abort(answer.code, answer.message)
        if isinstance(answer, Break):
            self._line.cut()
        # Nothing is answered over a line that is cut, and nothing at all by the silent.
        self._over.wait(PATIENCE_S)

    def CreateTask(self, request: task_pb2.CreateTaskRequest, context: Any) -> Any:
        return self._answer(request, context, lambda: self.task)

    def GetTask(self, request: task_pb2.GetTaskRequest, context: Any) -> Any:
        return self._answer(request, context, lambda: self.task)

    def ListTasks(self, request: task_pb2.ListTasksRequest, context: Any) -> Any:
        def page() -> task_pb2.ListTasksResponse:
            number = int(request.page_token or 0)
            more = str(number + 1) if number + 1 < len(self.pages) else ""
            tasks = [task_pb2.Task(id=id) for id in self.pages[number]]
            return task_pb2.ListTasksResponse(tasks=tasks, next_page_token=more)

        # The client fills in the token of the next page in the same message.
        kept = task_pb2.ListTasksRequest()
        kept.CopyFrom(request)
        return self._answer(kept, context, page)

    def CancelTask(self, request: task_pb2.CancelTaskRequest, context: Any) -> Any:
        return self._answer(request, context, lambda: self.task)

    def PauseTask(self, request: task_pb2.PauseTaskRequest, context: Any) -> Any:
        return self._answer(request, context, lambda: self.task)

    def ResumeTask(self, request: task_pb2.ResumeTaskRequest, context: Any) -> Any:
        return self._answer(request, context, lambda: self.task)

    def SignalTask(self, request: task_pb2.SignalTaskRequest, context: Any) -> Any:
        return self._answer(request, context, lambda: self.task)

    def RetryTask(self, request: task_pb2.RetryTaskRequest, context: Any) -> Any:
        return self._answer(request, context, lambda: task_pb2.Task(id="t_2", labels={"again": request.id}))

    def ForkTask(self, request: task_pb2.ForkTaskRequest, context: Any) -> Any:
        step = request.step if request.HasField("step") else 9
        fork = task_pb2.Task(id="t_3", forked_from=request.id, forked_steps=step)
        return self._answer(request, context, lambda: fork)

    def SetSchedule(self, request: task_pb2.SetScheduleRequest, context: Any) -> Any:
        names = [given.name for given in request.inputs]
        schedule = task_pb2.Schedule(name=request.name, cron=request.cron, inputs=names, next_ms=86_400_000)
        return self._answer(request, context, lambda: schedule)

    def ListSchedules(self, request: task_pb2.ListSchedulesRequest, context: Any) -> Any:
        schedule = task_pb2.Schedule(name="nightly", project=request.project, last_error="NO_AGENT")
        return self._answer(request, context, lambda: task_pb2.ListSchedulesResponse(schedules=[schedule]))

    def DeleteSchedule(self, request: task_pb2.DeleteScheduleRequest, context: Any) -> Any:
        return self._answer(request, context, lambda: task_pb2.DeleteScheduleResponse())

    def ExplainTask(self, request: task_pb2.ExplainTaskRequest, context: Any) -> Any:
        borrower = task_pb2.Borrower(path="projects/greedy", amount=2)
        blocker = task_pb2.Blocker(reason="QUOTA_RUNNING", borrowed_by=[borrower])
        turn = task_pb2.ExplainTaskResponse(task=self.task, tasks_ahead=3, position=4, eta_ms=0, eta_error_ms=1_500)
        blocked = task_pb2.ExplainTaskResponse(task=self.task, blockers=[blocker])
        return self._answer(request, context, lambda: blocked if request.what_if else turn)

    def EvaluateContext(self, request: context_pb2.EvaluateContextRequest, context: Any) -> Any:
        found = context_pb2.EvaluateContextResponse(
            report='{"model_sha256": "5", "calls": []}',
            suggestions=['{"call": "1", "none": "blind"}'] if request.suggest else [],
            model=request.model,
            tokens_spent=request.budget_tokens,
        )
        return self._answer(request, context, lambda: found)

    def WatchTask(self, request: task_pb2.WatchTaskRequest, context: Any) -> Iterator[Any]:
        self.watched_from.append(request.from_sequence)
        return self._play(self.watches.popleft() if self.watches else (), context)

    def WatchQuotas(self, request: quota_pb2.WatchQuotasRequest, context: Any) -> Iterator[Any]:
        self.requests.append(request)
        return self._play(self.quota_watches.popleft() if self.quota_watches else (), context)

    def _play(self, steps: Sequence[Any], context: Any) -> Iterator[Any]:
        context.send_initial_metadata(())
        # From the beginning: a client may be gone before its stream comes to the hold.
        for hold in (step for step in steps if isinstance(step, Hold)):
            if not context.add_callback(hold.left.set):
                hold.left.set()
        for step in steps:
            if isinstance(step, End):
                return
            if isinstance(step, Hold):
                step.left.wait(PATIENCE_S)
                return
            if isinstance(step, (Refuse, Break)):
                self._misbehave(step, context)
            yield step

    def ServeTools(self, requests: Any, context: Any) -> Iterator[Any]:
        first = next(requests)
        self.metadata.append(dict(context.invocation_metadata()))
        if self.answers:
            self._misbehave(self.answers.popleft(), context)
        stream = ServedStream(first.register)
        threading.Thread(target=stream.hear, args=(requests,), daemon=True).start()
        yield tool_pb2.ToolServerRequest(served_at=tool_pb2.ServedAt(nodes=self.nodes or [self.address]))
        self.served.put(stream)
        while not isinstance(asked := stream.asks.get(), End):
            yield asked

    def ReadSegment(self, request: context_pb2.ReadSegmentRequest, context: Any) -> Iterator[Any]:
        for chunk in self.chunks.popleft():
            if isinstance(chunk, Break):
                self._misbehave(chunk, context)
                return
            yield context_pb2.ReadSegmentResponse(chunk=chunk)

    def ApplyAgent(self, request: agent_pb2.ApplyAgentRequest, context: Any) -> Any:
        return self._answer(request, context, lambda: agent_pb2.Agent(name="reader", toml=request.toml))

    def GetQuota(self, request: quota_pb2.GetQuotaRequest, context: Any) -> Any:
        return self._answer(request, context, lambda: quota_pb2.Quota(path=request.path))

    def SetQuota(self, request: quota_pb2.SetQuotaRequest, context: Any) -> Any:
        limits = [quota_pb2.Limit(key=change.key, limit=_limit(change), used=1) for change in request.changes]
        waits = ["t_9"] if request.validate_only else []
        return self._answer(
            request, context, lambda: quota_pb2.Quota(path=request.path, limits=limits, would_wait=waits)
        )

    def ListQuotas(self, request: quota_pb2.ListQuotasRequest, context: Any) -> Any:
        quota = quota_pb2.Quota(path=request.prefix)
        return self._answer(request, context, lambda: quota_pb2.ListQuotasResponse(quotas=[quota]))

    def SetPrice(self, request: price_pb2.SetPriceRequest, context: Any) -> Any:
        price = price_pb2.Price(model=request.model, input=request.input, cached=request.cached, output=request.output)
        return self._answer(request, context, lambda: price)

    def GetPrice(self, request: price_pb2.GetPriceRequest, context: Any) -> Any:
        return self._answer(request, context, lambda: price_pb2.Price(model=request.model))

    def ListPrices(self, request: price_pb2.ListPricesRequest, context: Any) -> Any:
        prices = [price_pb2.Price(model="a"), price_pb2.Price(model="b")]
        return self._answer(request, context, lambda: price_pb2.ListPricesResponse(prices=prices))

    def QueryCost(self, request: price_pb2.QueryCostRequest, context: Any) -> Any:
        line = price_pb2.CostLine(key="2026-03-01", tasks=2, usage=task_pb2.Usage(micro_usd=5))
        total = price_pb2.CostLine(tasks=3)
        return self._answer(request, context, lambda: price_pb2.QueryCostResponse(lines=[line], total=total))

    def CordonNode(self, request: cluster_pb2.CordonNodeRequest, context: Any) -> Any:
        return self._answer(request, context, lambda: cluster_pb2.Node(id=request.id, state="cordoned"))

    def UncordonNode(self, request: cluster_pb2.UncordonNodeRequest, context: Any) -> Any:
        return self._answer(request, context, lambda: cluster_pb2.Node(id=request.id, state="ready"))

    def DrainNode(self, request: cluster_pb2.DrainNodeRequest, context: Any) -> Any:
        return self._answer(request, context, lambda: cluster_pb2.Node(id=request.id, state="draining"))

    def RemoveNode(self, request: cluster_pb2.RemoveNodeRequest, context: Any) -> Any:
        return self._answer(request, context, lambda: cluster_pb2.ClusterStatus(leader="n1"))

    def RaiseLevel(self, request: cluster_pb2.RaiseLevelRequest, context: Any) -> Any:
        return self._answer(request, context, lambda: cluster_pb2.ClusterStatus(leader="n1"))

    def ListAuditEvents(self, request: cluster_pb2.ListAuditEventsRequest, context: Any) -> Any:
        """Three events, two a page."""
        numbers = [number for number in (1, 2, 3) if number > request.after][:2]
        events = [cluster_pb2.AuditEvent(number=number, subject=request.subject) for number in numbers]
        more = numbers[-1] if 3 not in numbers else 0
        return self._answer(
            request, context, lambda: cluster_pb2.ListAuditEventsResponse(events=events, next_after=more)
        )

    def GetClusterStatus(self, request: cluster_pb2.GetClusterStatusRequest, context: Any) -> Any:
        return self._answer(request, context, lambda: cluster_pb2.ClusterStatus(leader="n1", copies=2))

    def ListNodes(self, request: cluster_pb2.ListNodesRequest, context: Any) -> Any:
        engines = [cluster_pb2.Engine(kv_blocks=3), cluster_pb2.Engine(kv_blocks=4)]
        node = cluster_pb2.Node(id="n1", engines=engines, device=cluster_pb2.Device(cpus=2))
        return self._answer(request, context, lambda: cluster_pb2.ListNodesResponse(nodes=[node]))


def _limit(change: quota_pb2.LimitChange) -> Optional[int]:
    return change.limit if change.HasField("limit") else None


class Line:
    """A line to a port that can be cut, as by a node that is killed. `port` None: taken, and cut at once."""

    def __init__(self, port: Optional[int]) -> None:
        self._port = port
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> str:
        host, port = self._listener.getsockname()
        return f"{host}:{port}"

    def cut(self) -> None:
        with self._lock:
            cut, self._open = self._open, []
        for end in cut:
            _hang_up(end)

    def close(self) -> None:
        _hang_up(self._listener)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self._port is None:
                near.recv(24)
                near.close()
                continue
            far = socket.create_connection(("127.0.0.1", self._port))
            with self._lock:
                self._open += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=_carry, args=(source, sink), daemon=True).start()


def _carry(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        pass
    _hang_up(sink)
    source.close()


def _hang_up(end: socket.socket) -> None:
    # The other side may have been quicker.
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


def nobody() -> str:
    """An address that refuses connections: its port was taken, and is free again."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"
