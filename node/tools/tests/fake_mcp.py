"""An MCP server that behaves badly on request. Standard library only; one JSON message a line.

    fake_mcp.py LOG [never-ready | exit | lies | garbage]

Every call and every cancel becomes a line of LOG, so that tests can see what arrived.
"""

import json
import os
import subprocess
import sys
import threading
import time

log_path, mode = sys.argv[1], (sys.argv[2:] or [""])[0]
out_lock = threading.Lock()
grown = []


def log(line):
    with open(log_path, "a") as file:
        file.write(line + "\n")


def send(message):
    with out_lock:
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        sys.stdout.flush()


def text(value, **more):
    return {"content": [{"type": "text", "text": value}], **more}


ANY = {"type": "object", "additionalProperties": False}
READ_ONLY = {"readOnlyHint": True}
PROMISE = {"type": "object", "required": ["degrees"], "properties": {"degrees": {"type": "number"}}}
TEXT = {"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}, "additionalProperties": False}
BYTES = {"type": "object", "required": ["bytes"], "properties": {"bytes": {"type": "integer"}}}


def tool(name, schema=ANY, **more):
    return {"name": name, "description": f"does {name}", "inputSchema": schema, **more}


def tools():
    listed = [
        tool("echo", TEXT, annotations=READ_ONLY),
        *(tool(n) for n in ("fail", "rpc_error", "hang", "freeze", "crash", "garbage", "nothing", "spawn", "grow", "odd")),
        tool("big", BYTES),
        tool("promise", outputSchema=PROMISE),
        tool("break_promise", outputSchema=PROMISE),
        tool("broken_schema", {"type": "objekt"}) if mode == "lies" else tool("quiet"),
    ]
    if mode == "lies":
        listed += [{"name": "no_schema"}, tool("text_schema", "none"), tool("bad name!"), tool("echo"), 7,
                   tool("outside", {"$ref": "http://127.0.0.1:9/schema.json"})]
    return listed + [tool(name) for name in grown]


def call(name, arguments):
    if name == "echo":
        return text(arguments["text"])
    if name == "fail":
        return text("the disk is full", isError=True)
    if name == "hang":
        threading.Event().wait()
    if name == "crash":
        print("assertion failed: the moon is round", file=sys.stderr, flush=True)
        os._exit(3)
    if name == "big":
        return text("x" * arguments["bytes"])
    if name == "garbage":
        with out_lock:
            sys.stdout.write("Warning: this is no JSON\n{\"half\": \n\n[1,2]\n\x1b[31mred\x1b[0m\n")
            sys.stdout.flush()
        return text("still here")
    if name == "nothing":
        return {}
    if name == "odd":
        return {"content": [{"type": "hologram", "data": 1}]}
    if name == "spawn":
        return text(str(subprocess.Popen(["sleep", "300"]).pid))
    if name == "promise":
        return text("warm", structuredContent={"degrees": 20.5})
    if name == "break_promise":
        return text("warm", structuredContent={"degrees": "warm"})
    if name == "grow":
        grown.append(f"grown_{len(grown)}")
        send({"method": "notifications/tools/list_changed"})
        return text("grown")
    return text("done")


def answer(message):
    name, arguments = message["params"]["name"], message["params"].get("arguments", {})
    if name == "rpc_error":
        send({"id": message["id"], "error": {"code": -32000, "message": "out of cheese"}})
        return
    try:
        send({"id": message["id"], "result": call(name, arguments)})
    except OSError:
        os._exit(0)


def serve(message):
    method = message.get("method")
    if method == "initialize":
        if mode == "never-ready":
            threading.Event().wait()
        version = message["params"]["protocolVersion"]
        info = {"name": "fake", "version": "1"}
        capabilities = {"tools": {"listChanged": True}}
        send({"id": message["id"], "result": {"protocolVersion": version, "capabilities": capabilities, "serverInfo": info}})
    elif method == "tools/list":
        listed, start = tools(), int((message.get("params") or {}).get("cursor", 0))
        page = {"tools": listed[start : start + 7]}
        if start + 7 < len(listed):
            page["nextCursor"] = str(start + 7)
        send({"id": message["id"], "result": page})
    elif method == "ping":
        send({"id": message["id"], "result": {}})
    elif method == "notifications/cancelled":
        log(f"cancelled {message['params']['requestId']}")
    elif method == "tools/call":
        params = message["params"]
        log(f"call {params['name']} {params['_meta']['quorate/operation']} {message['id']}")
        if params["name"] == "freeze":
            while True:
                time.sleep(3600)
        threading.Thread(target=answer, args=(message,), daemon=True).start()


log(f"start {os.getpid()}")
if mode == "exit":
    print("no licence found", file=sys.stderr, flush=True)
    sys.exit(1)
if mode == "garbage":
    print("Welcome to the fake server!", flush=True)
for line in sys.stdin:
    serve(json.loads(line))
