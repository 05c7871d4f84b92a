"""Tools and agents in this process, against fake nodes."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import dataclass, field
from typing import Any, Callable, Literal, Optional, Union

import pytest
from grpc import StatusCode

import quorate
from fake import PATIENCE_S, Fake, Refuse, ServedStream, nobody
from quorate import AsyncClient, Call, Client, Step, StepContext, ToolContext
from quorate._proto import tool_pb2

Fakes = Callable[[int], list[Fake]]


@dataclass
class Place:
    city: str
    height: float = 0.0


@dataclass
class Trip:
    stops: list[Place] = field(default_factory=list)


@quorate.tool(policy="idempotent", timeout=2.5)
def plan(
    name: str,
    days: int,
    fast: bool = False,
    trip: Optional[Trip] = None,
    tags: Optional[list[str]] = None,
    costs: Optional[dict[str, float]] = None,
    way: Literal["road", "rail"] = "road",
    code: Union[int, str] = 0,
) -> dict[str, Any]:
    """Plans a trip.

    By road or rail.
    """
    stops = [(stop.city, stop.height) for stop in trip.stops] if trip else []
    return {"name": name, "stops": stops, "costs": costs, "way": way, "code": code}


@quorate.tool
async def again(n: int, ctx: ToolContext) -> str:
    if n < 0:
        raise ValueError("n is below zero")
    return f"{ctx.operation} {ctx.attempt} {ctx.task} {ctx.agent}"


@quorate.agent("planner")
async def planner(ctx: StepContext) -> Step:
    if ctx.asked == "fail":
        raise RuntimeError("no idea")
    if not ctx.results:
        return Step("I look.", (Call("look", {"at": ctx.asked}),))
    return Step(f"It is {ctx.results[-1]}, says {ctx.messages[1].calls[0].name}.")


def stream_of(fake: Fake) -> ServedStream:
    return fake.served.get(timeout=PATIENCE_S)


def call(stream: ServedStream, tool: str, id: int = 1, **arguments: Any) -> None:
    served = tool_pb2.ServedCall(id=id, tool=tool, arguments=json.dumps(arguments), operation="t_1/3/0", attempt=2)
    stream.ask(call=served)


def result(stream: ServedStream) -> tool_pb2.ToolResult:
    return stream.told().result


def test_a_function_becomes_a_schema() -> None:
    schema = plan.parameters
    assert schema["required"] == ["name", "days"] and schema["additionalProperties"] is False
    shown = schema["properties"]
    assert shown["name"] == {"type": "string"} and shown["days"] == {"type": "integer"}
    assert shown["fast"] == {"type": "boolean", "default": False}
    assert shown["way"] == {"enum": ["road", "rail"], "default": "road"}
    assert shown["tags"] == {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}]}
    assert shown["costs"]["anyOf"][0] == {"type": "object", "additionalProperties": {"type": "number"}}
    assert shown["code"]["anyOf"] == [{"type": "integer"}, {"type": "string"}]
    place = shown["trip"]["anyOf"][0]["properties"]["stops"]["items"]
    assert place["required"] == ["city"] and place["properties"]["height"] == {"type": "number"}
    assert plan.description == "Plans a trip.\n\nBy road or rail."
    assert "ctx" not in again.parameters["properties"] and plan("x", 1)["name"] == "x"


def untyped(n) -> None:  # type: ignore[no-untyped-def]
    pass


def strange(n: set[int]) -> None:
    pass


def many(*n: int) -> None:
    pass


@pytest.mark.parametrize(("function", "why"), [(untyped, "no type"), (strange, "JSON form"), (many, "no name")])
def test_what_has_no_schema_is_refused_at_once(function: Callable[..., None], why: str) -> None:
    with pytest.raises(quorate.InvalidArgument, match=why):
        quorate.tool(function)
    with pytest.raises(quorate.InvalidArgument, match="policy"):
        quorate.tool(policy="never")(again.function)
    with pytest.raises(quorate.InvalidArgument, match="timeout"):
        quorate.tool(timeout=0)(again.function)


def test_a_node_calls_functions_and_hears_what_they_say(fakes: Fakes) -> None:
    (fake,) = fakes(1)
    with Client(fake.address, api_key="k") as client, client.tools.serving(plan, again):
        stream = stream_of(fake)
        assert fake.metadata[-1]["authorization"] == "Bearer k"
        first, second = stream.register.tools
        assert (first.name, first.policy, first.timeout_ms) == ("plan", tool_pb2.TOOL_POLICY_IDEMPOTENT, 2_500)
        assert (second.policy, second.timeout_ms) == (tool_pb2.TOOL_POLICY_AT_MOST_ONCE, 0)
        call(stream, "plan", id=7, name="x", days=1, trip={"stops": [{"city": "Bern", "height": 540}]}, costs={"a": 1})
        told = result(stream)
        said = {"name": "x", "stops": [["Bern", 540.0]], "costs": {"a": 1.0}, "way": "road", "code": 0}
        assert (told.id, json.loads(told.text), told.is_error) == (7, said, False)
        call(stream, "again", n=1)
        assert result(stream).text.startswith("t_1/3/0 2")
        call(stream, "again", n=-1)
        told = result(stream)
        assert told.is_error and told.text == "ValueError: n is below zero"
        call(stream, "unknown")
        assert result(stream).is_error


def test_a_cancel_reaches_an_async_function(fakes: Fakes) -> None:
    (fake,) = fakes(1)
    begun, cancelled = threading.Event(), threading.Event()

    @quorate.tool
    async def slow() -> None:
        begun.set()
        try:
            await asyncio.sleep(PATIENCE_S)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    with Client(fake.address) as client, client.tools.serving(slow, again):
        stream = stream_of(fake)
        call(stream, "slow", id=5)
        assert begun.wait(PATIENCE_S)
        call(stream, "again", id=6, n=1)
        assert result(stream).id == 6, "others go on meanwhile"
        stream.ask(cancel=tool_pb2.CancelServed(id=5))
        assert cancelled.wait(PATIENCE_S)


def test_an_agent_of_ones_own_decides_steps(fakes: Fakes) -> None:
    (fake,) = fakes(1)
    user = tool_pb2.StepMessage(role="user", text="the sky")
    with Client(fake.address) as client, client.tools.serving(planner):
        stream = stream_of(fake)
        assert list(stream.register.models) == ["planner"]
        stream.ask(question=tool_pb2.ModelQuestion(id=1, model="planner", messages=[user]))
        first = stream.told().answer
        (asked,) = first.calls
        assert (first.id, first.text, asked.name, json.loads(asked.arguments)) == (
            1,
            "I look.",
            "look",
            {"at": "the sky"},
        )
        called = tool_pb2.StepCall(id="c1", name="look", arguments=asked.arguments)
        talk = [
            user,
            tool_pb2.StepMessage(role="assistant", calls=[called]),
            tool_pb2.StepMessage(role="tool", text="blue", answers="c1"),
        ]
        stream.ask(question=tool_pb2.ModelQuestion(id=2, model="planner", messages=talk))
        assert stream.told().answer.text == "It is blue, says look."
        fail = tool_pb2.StepMessage(role="user", text="fail")
        stream.ask(question=tool_pb2.ModelQuestion(id=3, model="planner", messages=[fail]))
        assert stream.told().answer.failure == "RuntimeError: no idea"


def test_a_stream_that_ends_is_opened_again_and_new_nodes_get_one(fakes: Fakes) -> None:
    first, second = fakes(2)
    with Client([nobody(), first.address]) as client, client.tools.serving(again):
        stream_of(first).end()
        first.nodes = [first.address, second.address]
        stream = stream_of(first)
        call(stream, "again", n=1)
        assert not result(stream).is_error
        stream.ask(served_at=tool_pb2.ServedAt(nodes=[first.address, second.address]))
        assert [tool.name for tool in stream_of(second).register.tools] == ["again"]


def test_what_the_cluster_refuses_is_raised(fakes: Fakes) -> None:
    (fake,) = fakes(1)
    with Client(fake.address) as client:
        fake.answers.append(Refuse(StatusCode.PERMISSION_DENIED, "too low", "ROLE_TOO_LOW"))
        with pytest.raises(quorate.PermissionDenied, match="ROLE_TOO_LOW"), client.tools.serving(again):
            pass
        fake.answers.append(Refuse(StatusCode.INVALID_ARGUMENT, "taken"))
        with pytest.raises(quorate.InvalidArgument):
            client.tools.serve(again)
        with pytest.raises(quorate.InvalidArgument, match="one name"):
            client.tools.serve(again, again)
        with pytest.raises(quorate.InvalidArgument, match="neither"):
            client.tools.serve(untyped)  # type: ignore[arg-type]


def test_without_any_node_it_gives_up_in_time() -> None:
    with Client(nobody(), connect_timeout=0.2) as client, pytest.raises(quorate.Unreachable):
        client.tools.serve(again)


def test_the_same_for_asyncio(fakes: Fakes) -> None:
    (fake,) = fakes(1)

    async def run() -> str:
        async with AsyncClient(fake.address) as client, client.tools.serving(again):
            stream = await asyncio.to_thread(stream_of, fake)
            call(stream, "again", n=1)
            return (await asyncio.to_thread(result, stream)).text

    assert asyncio.run(run()).startswith("t_1/3/0 2")
