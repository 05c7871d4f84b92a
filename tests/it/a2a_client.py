"""The official A2A client against the nodes of a cluster, with API keys. Run by a2a.rs: a scenario, and what it needs as JSON."""

import asyncio
import json
import sys
import uuid

import httpx
from a2a.client import A2ACardResolver, ClientConfig, ClientFactory
from a2a.client.errors import A2AClientError
from a2a.types import a2a_pb2 as pb
from a2a.utils import errors

COMPLETED = pb.TASK_STATE_COMPLETED
WORKING = (pb.TASK_STATE_SUBMITTED, pb.TASK_STATE_WORKING)
ASKS = pb.TASK_STATE_INPUT_REQUIRED


def check(condition, what):
    if not condition:
        raise AssertionError(what)


def message(text, task="", context="", id=None):
    return pb.Message(
        message_id=id or str(uuid.uuid4()), role=pb.ROLE_USER, parts=[pb.Part(text=text)], task_id=task, context_id=context
    )


def order(*args, later=False, **more):
    configuration = pb.SendMessageConfiguration(return_immediately=later)
    return pb.SendMessageRequest(message=message(*args, **more), configuration=configuration)


def http(key):
    return httpx.AsyncClient(headers={"Authorization": f"Bearer {key}"} if key else {}, timeout=60)


async def card(given, agent, key):
    return await A2ACardResolver(http(key), f"{given['base']}/a2a/a/{agent}").get_agent_card()


async def client(given, agent, key=None, streaming=False):
    key = key or given["mine"]
    factory = ClientFactory(ClientConfig(streaming=streaming, httpx_client=http(key)))
    return factory.create(await card(given, agent, key))


async def told(of, request):
    """All that comes of a message."""
    return [response async for response in of.send_message(request)]


async def task_of(of, request):
    responses = await told(of, request)
    check(len(responses) == 1 and responses[0].HasField("task"), responses)
    return responses[0].task


async def refused(kind, call):
    try:
        await call
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was expected")


def text(task):
    check([artifact.artifact_id for artifact in task.artifacts] == ["result"], task)
    return task.artifacts[0].parts[0].text


def said(task):
    return task.status.message.parts[0].text


async def send(given):
    shown = await card(given, "poet", given["mine"])
    check(shown.name == "poet" and shown.capabilities.streaming, shown)
    check("a secret instruction" not in str(shown), shown)
    poet = await client(given, "poet")
    id = str(uuid.uuid4())
    task = await task_of(poet, order("Say something.", context="c-1", id=id))
    check(task.status.state == COMPLETED and task.context_id == "c-1", task)
    check(text(task) == given["expected"], task)
    again = await task_of(poet, order("Say something.", context="c-1", id=id))
    check(again.id == task.id, (again.id, task.id))
    await refused(errors.InvalidParamsError, told(poet, order("Something else.", context="c-1", id=id)))
    found = await poet.get_task(pb.GetTaskRequest(id=task.id))
    check(text(found) == given["expected"] and found.context_id == "c-1", found)
    await refused(errors.UnsupportedOperationError, told(poet, order("And more?", task=task.id)))
    slow = await client(given, "slow")
    await refused(errors.TaskNotFoundError, slow.get_task(pb.GetTaskRequest(id=task.id)))
    await refused(errors.TaskNotFoundError, poet.get_task(pb.GetTaskRequest(id="t_000000000000zzzz")))


async def stream(given):
    """What is told live is the result, and the stream ends with the task."""
    poet = await client(given, "slow", streaming=True)
    task, live, result, states = None, {}, None, []
    async for response in poet.send_message(order("Say something.")):
        kind = response.WhichOneof("payload")
        if kind == "task":
            check(task is None, response)
            task = response.task
        elif kind == "status_update":
            states.append(response.status_update.status.state)
        else:
            artifact = response.artifact_update.artifact
            if artifact.artifact_id == "result":
                check(response.artifact_update.last_chunk, response)
                result = artifact.parts[0].text
            else:
                check(response.artifact_update.append == (artifact.artifact_id in live), response)
                live[artifact.artifact_id] = live.get(artifact.artifact_id, "") + artifact.parts[0].text
    check(result == given["expected"] and states[-1] == COMPLETED, (result, states))
    check(list(live.values()) == [result], live)
    check(all(state in WORKING for state in states[:-1]), states)
    await refused(errors.UnsupportedOperationError, told_of(poet.subscribe(pb.SubscribeToTaskRequest(id=task.id))))


async def told_of(events):
    return [event async for event in events]


async def cancel(given):
    slow = await client(given, "endless")
    task = await task_of(slow, order("Go on for ever.", later=True))
    check(task.status.state in WORKING, task)
    events = (await client(given, "endless", streaming=True)).subscribe(pb.SubscribeToTaskRequest(id=task.id))
    check((await anext(events)).task.id == task.id, "the task comes first")
    cancelled = await slow.cancel_task(pb.CancelTaskRequest(id=task.id))
    check(cancelled.id == task.id, cancelled)
    last = (await asyncio.wait_for(told_of(events), 60))[-1].status_update
    check(last.status.state == pb.TASK_STATE_CANCELED, last)
    await refused(errors.TaskNotCancelableError, slow.cancel_task(pb.CancelTaskRequest(id=task.id)))


async def talk(given):
    """A conversation, and a call that somebody has to allow."""
    guide = await client(given, "guide")
    task = await task_of(guide, order("What colour is it?"))
    check(task.status.state == ASKS and said(task) == "It is blue, and has been for long.", task)
    task = await task_of(guide, order("shorter", task=task.id))
    check(task.status.state == ASKS and said(task) == "Blue.", task)
    await refused(errors.InvalidParamsError, told(guide, order("more", task=task.id, context="another")))
    mailer = await client(given, "mailer")
    task = await task_of(mailer, order("Send it."))
    check(task.status.state == ASKS and "sink.send" in said(task) and '"n":7' in said(task), task)
    await refused(errors.InvalidParamsError, told(mailer, order("well…", task=task.id)))
    task = await task_of(mailer, order("approve", task=task.id))
    check(task.status.state == COMPLETED and text(task) == "The last was: noted 7.", task)


async def strangers(given):
    for key in [None, "nonsense"]:
        answer = await http(key).get(f"{given['base']}/a2a/a/poet/.well-known/agent-card.json")
        check(answer.status_code == 401 and answer.json()["error"]["message"], answer.text)
    answer = await http(given["other"]).get(f"{given['base']}/a2a/a/poet/.well-known/agent-card.json")
    check(answer.status_code in (403, 404), answer.text)
    viewer = await client(given, "poet", given["viewer"])
    await refused(A2AClientError, told(viewer, order("Say something.")))
    poet = await client(given, "poet")
    file = order("Read this.")
    file.message.parts.append(pb.Part(raw=b"bytes"))
    await refused(errors.ContentTypeNotSupportedError, told(poet, file))
    await refused(errors.InvalidParamsError, told(poet, order(" ")))
    url = f"{given['base']}/a2a/a/poet"
    call = {"jsonrpc": "2.0", "id": 1, "method": "message/send", "params": {}}
    for headers, body, code in [
        ({}, call, -32009),
        ({"A2A-Version": "0.3"}, {**call, "method": "GetTask"}, -32009),
        ({}, {**call, "method": "Dance"}, -32601),
        ({}, {**call, "method": "CreateTaskPushNotificationConfig"}, -32003),
        ({}, {**call, "method": "SendMessage"}, -32602),
        ({}, [call], -32600),
    ]:
        answer = (await http(given["mine"]).post(url, json=body, headers=headers)).json()
        check(answer["error"]["code"] == code and answer["error"]["message"], (body, answer))
    answer = await http(given["mine"]).post(url, json=call, headers={"Origin": "http://evil.example"})
    check(answer.status_code == 403, answer.text)


asyncio.run({"send": send, "stream": stream, "cancel": cancel, "talk": talk, "strangers": strangers}[sys.argv[1]](json.loads(sys.argv[2])))
