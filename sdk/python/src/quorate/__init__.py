"""What Python programs import to use a Quorate cluster: create tasks, follow them, set quotas, look at nodes.

It is a client and nothing else: it holds no state of the cluster and opens no port. Everything it hands out is a plain
value; no generated type comes through.

What it does for its user:
- connects when first needed, to any of the endpoints, and moves on to the next one when a node is gone;
- repeats a call with the *same request id* until it knows the answer, so that a repeated create makes one task;
- follows a task without a gap and without a duplicate, across nodes that die under the stream;
- says of every failure what happened, why, and what to do next (`QuorateError`).

A timeout means *unknown*, never *failed*: ask again with the same request id.

Read: `client`, `tasks` (`aio` is the same for asyncio), then `data`, `errors`; of the inside `_course`, `_watching`,
`_cursor`.

    from quorate import Client

    with Client("127.0.0.1:7400") as client:
        task = client.tasks.create(agent="reader", input="What is a quorum?")
        print(task.result())
"""

from ._settings import VERSION as __version__
from .aio import AsyncClient, AsyncQuotaWatch, AsyncTask, AsyncWatch
from .client import Client
from .data import (
    Agent,
    Ask,
    AskKind,
    AuditEvent,
    Blocker,
    Borrower,
    Busy,
    ClusterStatus,
    CostGroup,
    CostLine,
    Costs,
    Device,
    Engine,
    Evaluation,
    Event,
    Explanation,
    GapEvent,
    Gpu,
    Input,
    Kv,
    Limit,
    LimitKind,
    Node,
    NodeVerdict,
    Price,
    Quota,
    QuotaEvent,
    RecordedCall,
    RecordedSegment,
    RetractEvent,
    Schedule,
    StateEvent,
    StepEvent,
    StepRoute,
    TaskClass,
    TaskState,
    TokenEvent,
    Usage,
    WhatIf,
)
from .errors import (
    AlreadyAnswered,
    Conflict,
    InternalError,
    InvalidArgument,
    NoResult,
    NotEnded,
    NotFound,
    NothingAsked,
    PermissionDenied,
    QuorateError,
    QuotaExceeded,
    ResourceExhausted,
    TaskBusy,
    Unavailable,
    UnknownOutcome,
    Unreachable,
    WaitTimeout,
)
from .quota_watch import QuotaWatch
from .serving import (
    Call,
    Decided,
    ExternalAgent,
    Message,
    Step,
    StepContext,
    Tool,
    ToolContext,
    agent,
    tool,
)
from .tasks import Task
from .watch import Watch

__all__ = [
    "Agent",
    "AlreadyAnswered",
    "Ask",
    "AskKind",
    "AsyncClient",
    "AsyncQuotaWatch",
    "AsyncTask",
    "AsyncWatch",
    "AuditEvent",
    "Blocker",
    "Borrower",
    "Busy",
    "Call",
    "Client",
    "ClusterStatus",
    "Conflict",
    "CostGroup",
    "CostLine",
    "Costs",
    "Decided",
    "Device",
    "Engine",
    "Evaluation",
    "Event",
    "Explanation",
    "ExternalAgent",
    "GapEvent",
    "Gpu",
    "Input",
    "InternalError",
    "InvalidArgument",
    "Kv",
    "Limit",
    "LimitKind",
    "Message",
    "NoResult",
    "Node",
    "NodeVerdict",
    "NotEnded",
    "NotFound",
    "NothingAsked",
    "PermissionDenied",
    "Price",
    "QuorateError",
    "Quota",
    "QuotaEvent",
    "QuotaExceeded",
    "QuotaWatch",
    "RecordedCall",
    "RecordedSegment",
    "ResourceExhausted",
    "RetractEvent",
    "Schedule",
    "StateEvent",
    "Step",
    "StepContext",
    "StepEvent",
    "StepRoute",
    "Task",
    "TaskBusy",
    "TaskClass",
    "TaskState",
    "TokenEvent",
    "Tool",
    "ToolContext",
    "Unavailable",
    "UnknownOutcome",
    "Unreachable",
    "Usage",
    "WaitTimeout",
    "Watch",
    "WhatIf",
    "__version__",
    "agent",
    "tool",
]
