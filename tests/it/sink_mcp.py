"""An MCP server that notes every call in a file: what it was given, and the operation's id. Standard library only.

    sink_mcp.py LOG

`put` may be called again, `send` must not, `blob` answers with 5 KB that differ for each number; they wait as long as they
are told. `mark` may be called again and takes a number alone, so that a model can write its arguments. `hold` may be called
again and answers when the file LOG.go is there, one call after the other, as many a second as that file says.
"""

import json
import os
import queue
import sys
import threading
import time

log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
# Calls that wait do not hold up others, as in servers that people use.
turn = threading.Lock()


def send(message):
    with turn:
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        sys.stdout.flush()


def tool(name, hints, **more):
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 99999}, **more},
        "required": ["n"],
        "additionalProperties": False,
    }
    return {"name": name, "description": f"Notes a number ({name}).", "inputSchema": schema, "annotations": hints}


WAIT = {"type": "integer", "minimum": 0, "maximum": 60000}
TOOLS = [
    tool("put", {"idempotentHint": True}, wait_ms=WAIT),
    tool("send", {"idempotentHint": False}, wait_ms=WAIT),
    tool("blob", {"idempotentHint": True}, wait_ms=WAIT),
    tool("mark", {"idempotentHint": True}),
    tool("hold", {"idempotentHint": True}),
]
held = queue.SimpleQueue()


def call(id, params):
    arguments = params["arguments"]
    operation = (params.get("_meta") or {}).get("quorate/operation", "?")
    os.write(log, f"{params['name']} {operation} {arguments['n']}\n".encode())
    if params["name"] == "hold":
        return held.put(id)
    time.sleep(arguments.get("wait_ms", 0) / 1000)
    text = f"noted {arguments['n']}"
    if params["name"] == "blob":
        text = " ".join(f"{(arguments['n'] * 1000 + word) % 9973:04}" for word in range(1000))
    give(id, text)


def give(id, text):
    send({"id": id, "result": {"content": [{"type": "text", "text": text}]}})


def let_go():
    while not os.path.exists(f"{sys.argv[1]}.go"):
        time.sleep(0.1)
    with open(f"{sys.argv[1]}.go") as file:
        pace = 1 / float(file.read())
    due = time.monotonic()
    while True:
        give(held.get(), "let go")
        due = max(due + pace, time.monotonic())
        time.sleep(max(0, due - time.monotonic()))


threading.Thread(target=let_go, daemon=True).start()
for line in sys.stdin:
    request = json.loads(line)
    method, params = request.get("method"), request.get("params") or {}
    if "id" not in request:
        continue
    if method == "initialize":
        info = {"name": "sink", "version": "1"}
        answer = {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": info}
    elif method == "tools/list":
        answer = {"tools": TOOLS}
    elif method == "tools/call":
        threading.Thread(target=call, args=(request["id"], params), daemon=True).start()
        continue
    else:
        answer = {}
    send({"id": request["id"], "result": answer})
