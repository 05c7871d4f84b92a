"""Functions of this program as tools of agents, and as agents. Nothing here travels: `aio.tools` does that.

@quorate.tool(policy="idempotent")
def convert(amount: float, to: Literal["EUR", "USD"]) -> float:
    "Converts an amount of money."
    ...

client.tools.serve(convert)
"""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable, Optional, Union, overload

from . import _schema
from ._proto import tool_pb2
from ._schema import refuse

_POLICIES: Mapping[str, tool_pb2.ToolPolicy.ValueType] = {
    "idempotent": tool_pb2.TOOL_POLICY_IDEMPOTENT,
    "at_most_once": tool_pb2.TOOL_POLICY_AT_MOST_ONCE,
    "ask": tool_pb2.TOOL_POLICY_ASK,
}
_LONGEST_S = 3_600.0


@dataclass(frozen=True)
class ToolContext:
    """What a tool may know of its call: a parameter called `ctx` gets it."""

    operation: str
    """`TASK/STEP/INDEX`: the same over crashes and nodes. Keep it beside what you do, and find out that it was done."""
    attempt: int
    """Counts the tries, for tracing."""
    task: str
    agent: str
    tool: str


@dataclass(frozen=True)
class Call:
    """A tool call: what an agent asks for, or asked for before. `id` is set in conversations."""

    name: str
    arguments: Mapping[str, Any]
    id: str = ""


@dataclass(frozen=True)
class Message:
    """A part of a conversation."""

    role: str
    """`system`, `user`, `assistant`, `tool`."""
    text: str
    calls: tuple[Call, ...] = ()
    """What an assistant called."""
    answers: Optional[str] = None
    """The id of the call that this is the result of."""


@dataclass(frozen=True)
class Step:
    """What an agent does next: says something, calls tools, or both. Without calls it is the answer."""

    text: str = ""
    calls: tuple[Call, ...] = ()


@dataclass(frozen=True)
class StepContext:
    """The conversation that an agent of your own goes on with."""

    agent: str
    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...]
    """What it may call: `name`, `description`, `parameters` (a JSON schema)."""
    max_tokens: int
    """Words that are kept of the text."""
    seed: int
    """The same for every try of a step."""
    attempt: int
    """0 for the first try."""
    must_call: bool
    may_call: bool

    @property
    def results(self) -> tuple[str, ...]:
        """What tools answered so far."""
        return tuple(message.text for message in self.messages if message.role == "tool")

    @property
    def asked(self) -> str:
        """The newest message of a person."""
        return next((message.text for message in reversed(self.messages) if message.role == "user"), "")


class Tool:
    """A function that agents can call. Called directly it is the function that it was."""

    def __init__(
        self, function: Callable[..., Any], name: Optional[str], policy: str, timeout: Optional[float]
    ) -> None:
        self.function = function
        self.name = name or function.__name__
        self.description = inspect.getdoc(function) or ""
        self.policy = policy
        self.timeout = timeout
        if policy not in _POLICIES:
            raise refuse(f"the policy of {self.name} is {policy!r}", f"use one of {', '.join(_POLICIES)}")
        if timeout is not None and not 0 < timeout <= _LONGEST_S:
            raise refuse(f"the timeout of {self.name} is {timeout} s", f"give up to {_LONGEST_S:g} s")
        self._hints = _schema.hints_of(function)
        self._context = "ctx" if "ctx" in inspect.signature(function).parameters else None
        self.parameters = _schema.parameters_of(function, self._hints, self._context)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self.function(*arguments, **named)

    def _served(self) -> tool_pb2.ServedTool:
        return tool_pb2.ServedTool(
            name=self.name,
            description=self.description,
            parameters=json.dumps(self.parameters),
            policy=_POLICIES[self.policy],
            timeout_ms=0 if self.timeout is None else max(1, int(self.timeout * 1_000)),
        )

    async def _result(self, call: tool_pb2.ServedCall) -> tool_pb2.ToolResult:
        """Whatever the function raises is told to the agent."""
        try:
            given = json.loads(call.arguments)
            named = {name: _schema.value_of(self._hints[name], value) for name, value in given.items()}
            if self._context is not None:
                named[self._context] = ToolContext(call.operation, call.attempt, call.task, call.agent, call.tool)
            return tool_pb2.ToolResult(id=call.id, text=_schema.text_of(await _made(self.function, named)))
        except Exception as error:
            return tool_pb2.ToolResult(id=call.id, text=f"{type(error).__name__}: {error}", is_error=True)


Decided = Union[str, Call, Sequence[Call], Step]
"""What an agent of your own may return."""


class ExternalAgent:
    """A function that decides the steps of agents whose model is `external:NAME`."""

    def __init__(self, function: Callable[[StepContext], Union[Decided, Awaitable[Decided]]], name: str) -> None:
        self.function = function
        self.name = name

    def __call__(self, ctx: StepContext) -> Union[Decided, Awaitable[Decided]]:
        return self.function(ctx)

    async def _answer(self, question: tool_pb2.ModelQuestion) -> tool_pb2.ModelAnswer:
        """What the function raises fails the step, which is tried again as for any model."""
        try:
            step = _step(await _made(self.function, {"ctx": _context(question)}, by_place=True))
            calls = [tool_pb2.StepCall(name=it.name, arguments=json.dumps(dict(it.arguments))) for it in step.calls]
            return tool_pb2.ModelAnswer(id=question.id, text=step.text, calls=calls)
        except Exception as error:
            return tool_pb2.ModelAnswer(id=question.id, failure=f"{type(error).__name__}: {error}")


@overload
def tool(function: Callable[..., Any]) -> Tool: ...
@overload
def tool(
    *, name: Optional[str] = None, policy: str = "at_most_once", timeout: Optional[float] = None
) -> Callable[[Callable[..., Any]], Tool]: ...
def tool(
    function: Optional[Callable[..., Any]] = None,
    *,
    name: Optional[str] = None,
    policy: str = "at_most_once",
    timeout: Optional[float] = None,
) -> Union[Tool, Callable[[Callable[..., Any]], Tool]]:
    """Makes a typed function, plain or async, a tool. Its docstring is what models read.

    Types: str, int, float, bool, list, dict, Optional, Union, Literal, dataclasses. A parameter called `ctx` gets the
    `ToolContext` and is not shown to models. Texts are told as they are, other values as JSON, exceptions as errors.

    Args:
        name: how agents call it; the function's own name when not set.
        policy: what becomes of a call of which nobody knows how it ended: `idempotent` (made again with the same
            operation), `at_most_once` (never), `ask` (when a person says so).
        timeout: seconds for one call, with the time in which no process serves it; 60 when not set.

    Raises:
        InvalidArgument: a type has no JSON form.
    """
    if function is not None:
        return Tool(function, name, policy, timeout)
    return lambda function: Tool(function, name, policy, timeout)


def agent(
    name: str,
) -> Callable[[Callable[[StepContext], Union[Decided, Awaitable[Decided]]]], ExternalAgent]:
    """Makes `async def step(ctx)` the model of agents that say `model = "external:NAME"`.

    It gets a `StepContext` and returns a text (the answer), a `Call`, several, or a `Step`. Each step is journalled,
    budgeted (a token is a word) and cancelled like that of any model; it may be asked for more than once.
    """
    return lambda function: ExternalAgent(function, name)


async def _made(function: Callable[..., Any], named: dict[str, Any], by_place: bool = False) -> Any:
    """Plain functions get a thread, so that the others go on."""
    arguments = tuple(named.values()) if by_place else ()
    named = {} if by_place else named
    if inspect.iscoroutinefunction(function):
        return await function(*arguments, **named)
    return await asyncio.to_thread(function, *arguments, **named)


def _step(decided: Any) -> Step:
    if isinstance(decided, Step):
        return decided
    if isinstance(decided, str):
        return Step(decided)
    if isinstance(decided, Call):
        return Step(calls=(decided,))
    if isinstance(decided, Sequence) and decided and all(isinstance(each, Call) for each in decided):
        return Step(calls=tuple(decided))
    raise TypeError(f"a step is a text, a Call, several or a Step, not {type(decided).__name__}")


def _context(question: tool_pb2.ModelQuestion) -> StepContext:
    return StepContext(
        agent=question.agent,
        messages=tuple(_message(it) for it in question.messages),
        tools=tuple(json.loads(question.tools)) if question.tools else (),
        max_tokens=question.max_tokens,
        seed=question.seed,
        attempt=question.attempt,
        must_call=question.must_call,
        may_call=not question.may_not_call,
    )


def _message(it: tool_pb2.StepMessage) -> Message:
    calls = tuple(Call(call.name, _arguments(call.arguments), call.id) for call in it.calls)
    return Message(it.role, it.text, calls, it.answers or None)


def _arguments(text: str) -> Mapping[str, Any]:
    """What a model wrote there may be anything."""
    try:
        given = json.loads(text)
    except ValueError:
        return {"": text}
    return given if isinstance(given, dict) else {"": given}
