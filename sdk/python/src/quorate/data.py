"""What the SDK hands out: plain values that do not change. A text that the cluster leaves empty is None."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar, Optional, Union


class TaskState(str, enum.Enum):
    """The life of a task. A state that only a newer cluster knows is `UNKNOWN`."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    WAITING_TOOL = "WAITING_TOOL"
    WAITING_CHILD = "WAITING_CHILD"
    WAITING_INPUT = "WAITING_INPUT"
    PAUSED = "PAUSED"
    CANCELLING = "CANCELLING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"
    UNKNOWN = "UNKNOWN"

    @property
    def is_final(self) -> bool:
        """Nothing more will ever happen to the task."""
        return self in (TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED, TaskState.EXPIRED)

    def __str__(self) -> str:
        return self.value


class TaskClass(str, enum.Enum):
    """Which queue a task waits in, most urgent first."""

    SYSTEM = "system"
    INTERACTIVE = "interactive"
    BATCH = "batch"
    BEST_EFFORT = "best-effort"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Input:
    """A text for a task, with a name for people, such as a file's."""

    text: str
    name: str = ""


@dataclass(frozen=True)
class Usage:
    """What model calls used. `cached_tokens` is part of `prompt_tokens`."""

    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int
    micro_usd: int


@dataclass(frozen=True)
class Borrower:
    """A place that holds more than it is guaranteed, and how much more."""

    path: str
    amount: int


@dataclass(frozen=True)
class Blocker:
    """One reason why a task does not run; all of them together keep it waiting."""

    reason: str
    resource: str
    """The resource and whose limit it is, such as `projects/default running`."""
    requested: int
    available: int
    limit: int
    message: str
    borrowed_by: tuple[Borrower, ...] = ()
    """Who holds what is missing beyond their guarantee, the greediest first."""


@dataclass(frozen=True)
class WhatIf:
    """A limit that is assumed to be set; `limit` None: to be none."""

    path: str
    key: str
    limit: Optional[int]


class AskKind(str, enum.Enum):
    """What a task asks. A kind that only a newer cluster knows is `OTHER`."""

    APPROVAL = "APPROVAL"
    """May this call be made?"""
    QUESTION = "QUESTION"
    UNKNOWN = "UNKNOWN"
    """The call was made and nobody knows how it ended. It is never made again."""
    UNKNOWN_MAY_REPEAT = "UNKNOWN_MAY_REPEAT"
    """The same, of a call that is made again if a person says so."""
    NEXT_MESSAGE = "NEXT_MESSAGE"
    """The task has answered and waits for the next message."""
    OTHER = "OTHER"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Ask:
    """An open question of a task."""

    id: str
    """To be given back with the answer."""
    kind: AskKind
    tool: Optional[str]
    """The tool that it is about."""
    text: Optional[str]
    """The exact call as JSON, the question, or the answer that was given last. Lists of tasks leave it out."""
    text_hash: Optional[str]


class Busy(str, enum.Enum):
    """What becomes of a message to a task that is at work."""

    REJECT = "reject"
    """It is refused (`TaskBusy`)."""
    ENQUEUE = "enqueue"
    """It waits for its turn."""
    INTERRUPT = "interrupt"
    """It stops what the task does now, and keeps it."""
    ROLLBACK = "rollback"
    """It takes the place of what the task did since the last message."""

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Schedule:
    """A task that is created again and again."""

    name: str
    project: str
    cron: str
    """Minute, hour, day of the month, month, day of the week, in UTC: `0 6 * * MON-FRI`."""
    agent: str
    inputs: tuple[str, ...]
    """Names of its inputs."""
    klass: TaskClass
    priority: int
    next_time: Optional[datetime]
    """None: never again."""
    last_task: Optional[str]
    last_error: Optional[str]
    fired: int
    """How many tasks it has created."""


@dataclass(frozen=True)
class TaskData:
    """One run of an agent or a team, as the cluster answered. Times are in UTC."""

    id: str
    """The user's task id where one was given, else the uid."""
    uid: str
    project: str
    agent: str
    revision: str
    """Hash of the definition the task was created with."""
    labels: Mapping[str, str]
    state: TaskState
    state_reason: str
    node: Optional[str]
    """The node that holds the lease."""
    epoch: Optional[str]
    step: int
    """Committed steps."""
    sequence: int
    """Sequence of the newest committed event."""
    copies: int
    """Durable copies of its context."""
    usage: Usage
    result_text: Optional[str]
    """Results up to 64 KiB of a task that SUCCEEDED; `result()` reads any."""
    result_hash: Optional[str]
    error: Optional[str]
    pending: tuple[Blocker, ...]
    create_time: datetime
    end_time: Optional[datetime]
    deadline_time: Optional[datetime]
    parent: Optional[str]
    children: tuple[str, ...]
    klass: TaskClass
    priority: int
    """0 to 9; higher runs earlier within its class."""
    head: Optional[str]
    """Hash of the newest step record."""
    asks: tuple[Ask, ...] = ()
    """What it waits for people to say."""
    forked_from: Optional[str] = None
    """The task that its first steps came from."""
    forked_steps: int = 0
    """How many those are."""


@dataclass(frozen=True)
class NodeVerdict:
    """Whether one node could run the task, and why not."""

    node: str
    eligible: bool
    reason: str


@dataclass(frozen=True)
class Explanation:
    """Why a task waits, with numbers."""

    task: TaskData
    blockers: tuple[Blocker, ...]
    tasks_ahead: int
    nodes: tuple[NodeVerdict, ...]
    position: Optional[int]
    """Its place in the queue, from 1; None: it is in no queue."""
    eta: Optional[timedelta]
    """Until it starts, if tasks go on starting as they did. None: something else than its turn holds it, or too few
    tasks started lately."""
    eta_error: Optional[timedelta]
    """How far off `eta` may be."""


@dataclass(frozen=True)
class StateEvent:
    """Committed: the task's new state."""

    kind: ClassVar[str] = "state"
    task: str
    sequence: int
    at_ms: int
    """Unix milliseconds."""
    state: TaskState
    reason: str
    node: Optional[str]
    epoch: Optional[str]


@dataclass(frozen=True)
class StepRoute:
    """Which of an agent's several models was asked, and why."""

    model: str
    reason: str
    """A stable word, such as `CHEAPER` or `OVER_BUDGET`."""


@dataclass(frozen=True)
class StepEvent:
    """Committed: step number `step`. Its text will not change any more."""

    kind: ClassVar[str] = "step"
    task: str
    sequence: int
    at_ms: int
    step: int
    head: str
    usage: Usage
    route: Optional[StepRoute] = None
    """None where the agent names one model, or the step called none."""


@dataclass(frozen=True)
class TokenEvent:
    """New text of a step that is not committed yet. `offset` counts the step's tokens before this text."""

    kind: ClassVar[str] = "token"
    task: str
    at_ms: int
    step: int
    attempt: str
    offset: int
    tokens: int
    text: str
    sequence: int = 0


@dataclass(frozen=True)
class RetractEvent:
    """The text shown for this step and attempt was not committed: forget it."""

    kind: ClassVar[str] = "retract"
    task: str
    at_ms: int
    step: int
    attempt: str
    sequence: int = 0


@dataclass(frozen=True)
class GapEvent:
    """Events `first` to `last` are no longer kept."""

    kind: ClassVar[str] = "gap"
    task: str
    at_ms: int
    first: int
    last: int
    sequence: int = 0


Event = Union[StateEvent, StepEvent, TokenEvent, RetractEvent, GapEvent]
"""Committed events (state, step) carry a sequence above 0 and come exactly once; the others are live and carry 0."""


@dataclass(frozen=True)
class Agent:
    """The revision of an agent or a team that new tasks get. Running tasks keep theirs."""

    name: str
    project: str
    kind: str
    """`agent` or `team`."""
    model: str
    revision: str
    etag: str
    update_time: Optional[datetime]
    toml: str
    """The definition as it was applied."""


class LimitKind(str, enum.Enum):
    """What a limit counts. A kind that only a newer cluster knows is `UNKNOWN`."""

    BUDGET = "budget"
    """Used up: reserved, then settled, within a window."""
    RATE = "rate"
    """So much a minute."""
    HOLDING = "holding"
    """Held while a task runs, and comes back."""
    WEIGHT = "weight"
    """A project's share among those that wait."""
    UNKNOWN = "unknown"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Limit:
    """`limit` None means without limit."""

    limit: Optional[int]
    used: int
    """Budgets: settled, with what went beyond a reservation. Holdings: held now. Rates: used of the minute."""
    reserved: int
    """Budgets: set aside by calls under way."""
    kind: LimitKind = LimitKind.UNKNOWN
    window_start: Optional[datetime] = None
    """Budgets of an hour, a day or a month of the calendar (UTC); None: for good."""
    window_end: Optional[datetime] = None
    overage: int = 0
    """Part of `used` that went beyond its reservation."""


@dataclass(frozen=True)
class Quota:
    """The limits of one place in the tree."""

    path: str
    """`cluster`, `projects/NAME`, `projects/NAME/agents/NAME`, `tasks/ID`."""
    limits: Mapping[str, Limit]
    """By key, such as `running`, `tokens_minute`, `tokens_total`."""
    etag: str
    reason: str
    author: str
    update_time: Optional[datetime]
    would_wait: tuple[str, ...] = ()
    """Of a dry run: uids of the running tasks that would have to wait for room, the youngest leases first."""


@dataclass(frozen=True)
class AuditEvent:
    """Who changed a limit, a price or a node, when and why; or that a budget ran up to 50, 80 or 100 percent."""

    number: int
    """Counts from 1 without a gap."""
    time: datetime
    author: Optional[str]
    """None: the ledger itself."""
    action: str
    """`quota.set`, `quota.crossed`, `price.set`, `node.close`."""
    subject: str
    change: str
    """Such as `running 4 -> 8`."""
    reason: str


QuotaEvent = Union[Quota, AuditEvent]
"""What a watch of quotas shows: a place as it is now, or an entry of the audit log."""


@dataclass(frozen=True)
class Price:
    """What a model costs, in micro-dollars a million tokens: 3_000_000 are 3 dollars."""

    model: str
    input: int
    """New tokens of the prompt."""
    cached: int
    """Tokens of the prompt that were in the chain before."""
    output: int
    etag: str
    """Counts the changes of this model's price."""
    reason: str
    author: str
    update_time: Optional[datetime]


class CostGroup(str, enum.Enum):
    """What costs are summed by. Days are those of UTC."""

    PROJECT = "project"
    AGENT = "agent"
    MODEL = "model"
    TASK = "task"
    DAY = "day"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class CostLine:
    """What the tasks of one group used."""

    key: str
    """A quota path, a model's name, or a day as YYYY-MM-DD."""
    tasks: int
    steps: int
    usage: Usage
    """Tokens as models read and wrote them, and money."""
    new_tokens: int
    known_tokens: int
    kv_block_seconds: int
    tool_calls: int


@dataclass(frozen=True)
class Costs:
    """Days in order; all others the most expensive first, at most 1,000."""

    lines: tuple[CostLine, ...]
    total: CostLine
    """Everything, with what was left out of the lines."""


@dataclass(frozen=True)
class RecordedSegment:
    """A piece of what an agent read."""

    id: str
    """Unique in its call; the same id with the same text in several calls is one segment."""
    owner: str
    """Who wrote it."""
    text: str
    kind: str = "message"
    replaces: tuple[str, ...] = ()
    """Of a summary: ids of the withheld segments that it stands for."""


@dataclass(frozen=True)
class RecordedCall:
    """One model call: what an agent read, what it was asked last, what it did then."""

    segments: tuple[RecordedSegment, ...]
    """In the order in which they were read."""
    reader: str
    probe: str
    action: str
    name: str = ""
    """For people; its place where empty."""
    withheld: tuple[RecordedSegment, ...] = ()
    """What others had and the reader did not get."""


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found."""

    report_json: str
    """As docs/evaluation.md has it: the same bytes for the same calls and model."""
    suggestions_json: tuple[str, ...]
    """One object a call, where they were asked for."""
    table: str
    """The report as lines for people."""
    suggested: str
    """The suggestions as lines for people."""
    page: str
    """HTML, where it was asked for. It holds the texts."""
    model: str
    node: str
    tokens_spent: int
    """Everything that was computed, audit included."""

    @property
    def report(self) -> dict[str, Any]:
        """The report, read."""
        found: dict[str, Any] = json.loads(self.report_json)
        return found

    @property
    def suggestions(self) -> tuple[dict[str, Any], ...]:
        """The suggestions, read."""
        return tuple(json.loads(text) for text in self.suggestions_json)


@dataclass(frozen=True)
class ClusterStatus:
    """The consensus as the node `answered_by` sees it."""

    cluster_id: str
    leader: Optional[str]
    """None while there is no leader."""
    term: int
    applied_index: int
    committed_index: int
    voters: tuple[str, ...]
    learners: tuple[str, ...]
    answered_by: str
    state_hash: str
    state_hash_index: int
    copies: int
    """Copies kept of every acknowledged segment, given the stores that are members."""
    feature_level: int
    tasks_by_state: Mapping[str, int]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Engine:
    """A model that a node serves. `window` is in tokens."""

    model: str
    model_digest: str
    numerics_id: str
    window: int
    kernels: str
    kv_blocks: int
    kv_blocks_used: int
    kv_bytes: int
    weight_bytes: int
    tokens_computed: int
    tokens_cached: int
    tokens_generated: int
    kv_tiers: Mapping[str, int]
    """Bytes of KV that can be used again: `memory`, `host`, `disk`."""


@dataclass(frozen=True)
class Kv:
    """The KV cache of all engines of a node."""

    blocks: int
    blocks_used: int
    bytes: int


@dataclass(frozen=True)
class Gpu:
    uuid: Optional[str]
    name: Optional[str]
    memory_total_bytes: Optional[int]
    memory_used_bytes: Optional[int]
    utilization_percent: Optional[int]
    power_milliwatts: Optional[int]
    temperature_celsius: Optional[int]


@dataclass(frozen=True)
class Device:
    """What the machine has. A figure that could not be read is None."""

    cpus: Optional[int]
    memory_bytes: Optional[int]
    memory_free_bytes: Optional[int]
    rss_bytes: Optional[int]
    cpu_pressure_milli: Optional[int]
    """Thousandths of the last 10 s in which some task waited."""
    memory_pressure_milli: Optional[int]
    gpus: tuple[Gpu, ...]


@dataclass(frozen=True)
class Node:
    """One node, whatever its roles."""

    id: str
    name: str
    roles: tuple[str, ...]
    state: str
    """`ready`: attached to the leader; `cordoned`, `draining`: attached, and gets nothing new; `lost`: not attached."""
    client_addr: str
    internal_addr: str
    running: int
    slots: int
    fenced_commits: int
    """Commits refused because this node's lease was no longer in force."""
    engines: tuple[Engine, ...]
    copies: int
    """Copies that the cluster keeps of every acknowledged segment."""
    kv: Kv
    segments: int
    segment_bytes: int
    context_bytes_received: int
    context_bytes_sent: int
    context_bytes_full: int
    """What would have moved if every assignment and model call had carried its whole chain."""
    device: Device
    version: str
