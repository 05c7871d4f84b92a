#!/usr/bin/env python3
"""Looks at the page in headless Chromium, with a real node and its scripted model, and writes the screenshots of docs/page.md.

    make page-screens                     (the binary: QUORATE_BIN, else target/debug/quorate)

Checks that every view comes without a word on the console, in light and in dark; that a project with 10,000 tasks is shown
within a second; that what happens is seen without a reload; that keys of viewers see no verb; that a text with markup in it
is shown as text. Chromium is asked over a pipe: nothing but it (`apt install chromium`, or CHROMIUM=PROGRAM) and the tools
of the Python SDK is needed.
"""

import asyncio
import base64
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "sdk/python/src"))
IMAGES = Path(os.environ.get("PAGE_IMAGES", ROOT / "docs/images"))
BINARY = Path(os.environ.get("QUORATE_BIN", ROOT / "target/debug/quorate"))
TASKS = int(os.environ.get("PAGE_TASKS", "10000"))
PATIENCE_S = 60
IMAGE_BYTES = 150_000
HOSTILE = '<img src=x onerror="window.broken=1"><script>window.broken=1</script>'

SCRIPT = """
window = 65536
[[reply]]
when_agent = "clerk"
when_results_below = 1
text = "I note down what I know."
calls = [{ name = "files.write", arguments = '{"path": "notes.md", "text": "A quorum is two of three, or three of five."}' }]
delay_ms = 500
[[reply]]
when_agent = "clerk"
when_results_below = 2
calls = [{ name = "files.read", arguments = '{"path": "notes.md"}' }]
delay_ms = 700
[[reply]]
when_agent = "clerk"
when_results_below = 3
calls = [{ name = "files.list", arguments = '{}' }]
delay_ms = 600
[[reply]]
when_agent = "clerk"
text = "The folder holds notes about quorums and a plan for the next release. Both agree on one thing: what was acknowledged is kept."
tokens_per_second = 30
[[reply]]
when_agent = "narrator"
text = "%s"
tokens_per_second = 8
[[reply]]
when_agent = "reader"
text = "This part tells how members agree before something counts as decided."
delay_ms = 300
[[reply]]
when_agent = "writer"
text = "The documents describe one system that keeps its promises when machines fail."
delay_ms = 300
tokens_per_second = 12
[[reply]]
when_agent = "hostile"
text = '%s'
[[reply]]
text = "Understood."
""" % (" ".join(
    "What was acknowledged is kept, what was begun is finished elsewhere, and nothing is done twice.".split() * 40), HOSTILE)


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def say(words):
    print(f"page-screens: {words}", flush=True)


def check(good, words):
    if not good:
        raise SystemExit(f"page-screens: {words}")


def small(png):
    """The same picture with 256 colours: a third of the bytes, and screens have no more to lose."""
    chunks, at = {}, 8
    while at < len(png):
        length, kind = struct.unpack(">I4s", png[at:at + 8])
        chunks[kind] = chunks.get(kind, b"") + png[at + 8:at + 8 + length]
        at += 12 + length
    width, height, _, colours = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    size = {2: 3, 6: 4}[colours]
    rows = unfiltered(zlib.decompress(chunks[b"IDAT"]), width * size, height, size)
    pixels = [[row[at:at + 3] for at in range(0, width * size, size)] for row in map(bytes, rows)]
    counted = Counter(pixel for row in pixels for pixel in row)
    palette = []
    for colour, _ in counted.most_common():
        # What is hardly another colour gives way to small things that are.
        if len(palette) < 256 and all(sum(abs(a - b) for a, b in zip(colour, known)) > 8 for known in palette):
            palette.append(colour)
    place = {colour: at for at, colour in enumerate(palette)}
    for colour in counted:
        if colour not in place:
            place[colour] = min(range(len(palette)), key=lambda at: sum((a - b) ** 2 for a, b in zip(colour, palette[at])))
    body = b"".join(b"\0" + bytes(map(place.__getitem__, row)) for row in pixels)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    return png[:8] + chunk(b"IHDR", head) + chunk(b"PLTE", b"".join(palette)) + chunk(b"IDAT", zlib.compress(body, 9)) + chunk(b"IEND", b"")


def unfiltered(data, length, height, size):
    """The rows of a PNG, whose lines are differences to their neighbours."""
    above = bytearray(length)
    for number in range(height):
        start = number * (length + 1)
        kind, row = data[start], bytearray(data[start + 1:start + 1 + length])
        if kind == 2:
            row = bytearray((a + b) & 255 for a, b in zip(row, above))
        elif kind:
            for at in range(length):
                left = row[at - size] if at >= size else 0
                corner = above[at - size] if at >= size else 0
                row[at] = (row[at] + guess(kind, left, above[at], corner)) & 255
        yield row
        above = row


def guess(kind, left, up, corner):
    if kind == 1:
        return left
    if kind == 3:
        return (left + up) // 2
    near = [(abs(up - corner), 0, left), (abs(left - corner), 1, up), (abs(left + up - 2 * corner), 2, corner)]
    return min(near)[2]


class Node:
    """A cluster of one, that goes with this process."""

    def __init__(self, folder, keys=False):
        self.folder, self.keys = folder, keys
        self.clients, self.http = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.http}"
        folder.mkdir(parents=True)
        (folder / "script.toml").write_text(SCRIPT)
        config = folder / "node.toml"
        config.write_text(f'''name = "node-1"
roles = ["coordinator", "worker"]
data_dir = "{folder}/data"
{f'keys = "{folder}/keys.toml"' if keys else ""}
[listen]
clients = "127.0.0.1:{self.clients}"
internal = "127.0.0.1:{free_port()}"
http = "127.0.0.1:{self.http}"
[worker]
slots = 16
[engine]
models = {json.dumps(models())}
threads = 1
[tools.files]
[[provider]]
name = "scripted"
kind = "scripted"
file = "{folder}/script.toml"
''')
        self.key = self.new_key("*", "admin") if keys else ""
        self.log = open(folder / "node.log", "w")
        self.process = subprocess.Popen([BINARY, "start", "--config", config], stdout=self.log, stderr=self.log)
        self.run("cluster", "init", patience_s=PATIENCE_S)

    def new_key(self, project, role):
        line = ["key", "new", "--project", project, "--role", role, "--subject", role, "--file", self.folder / "keys.toml"]
        return subprocess.run([BINARY, *line], check=True, capture_output=True, text=True).stdout.strip()

    def run(self, *arguments, patience_s=0):
        """The command line, once or until it succeeds."""
        environment = {**os.environ, "QUORATE_ENDPOINT": f"127.0.0.1:{self.clients}", "QUORATE_API_KEY": self.key}
        end = time.monotonic() + patience_s
        while True:
            done = subprocess.run([BINARY, *arguments], env=environment, capture_output=True, text=True)
            if done.returncode == 0 or "already" in done.stderr:
                return done.stdout
            if time.monotonic() > end or self.process.poll() is not None:
                raise SystemExit(f"quorate {' '.join(arguments)}: {done.stderr}\n{(self.folder / 'node.log').read_text()[-3000:]}")
            time.sleep(0.2)

    def stop(self):
        self.process.terminate()
        self.process.wait(30)


def models():
    """One small model, where one was pulled: its engine is what the first view shows."""
    listed = subprocess.run([BINARY, "-o", "json", "model", "list"], capture_output=True, text=True).stdout
    return ["smollm2"] if "smollm2" in listed else []


class Browser:
    """Chromium over its own pipe: a JSON message, a zero byte."""

    def __init__(self, folder):
        program = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        check(program, "there is no Chromium: `apt install chromium`, or name one in CHROMIUM")
        to_browser, self.out = os.pipe()
        self.incoming, from_browser = os.pipe()

        def pipes():
            # The two ends get out of the way first: one of them may be 3 or 4 itself.
            theirs = os.dup(to_browser), os.dup(from_browser)
            theirs = tuple(fd if fd > 4 else os.dup(fd) for fd in theirs)
            os.dup2(theirs[0], 3)
            os.dup2(theirs[1], 4)

        self.process = subprocess.Popen(
            [program, "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-lcd-text",
             "--force-device-scale-factor=1", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
             f"--user-data-dir={folder}/browser", "about:blank"],
            preexec_fn=pipes, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_browser)
        os.close(from_browser)
        self.number, self.rest, self.problems = 0, b"", []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if getattr(self, "session", None):
            message["sessionId"] = self.session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.read()
            if answer.get("id") == self.number:
                check("error" not in answer, f"{method}: {answer.get('error')}")
                return answer["result"]

    def read(self):
        while b"\0" not in self.rest:
            more = os.read(self.incoming, 1 << 20)
            check(more, "Chromium has ended")
            self.rest += more
        first, self.rest = self.rest.split(b"\0", 1)
        message = json.loads(first)
        self.note(message)
        return message

    def note(self, message):
        method, it = message.get("method"), message.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.problems.append(it["exceptionDetails"].get("exception", {}).get("description") or it["exceptionDetails"]["text"])
        elif method == "Runtime.consoleAPICalled" and it["type"] in ("error", "warning", "assert"):
            self.problems.append(str([arg.get("value") for arg in it["args"]]))
        elif method == "Log.entryAdded" and it["entry"]["level"] in ("error", "warning"):
            self.problems.append(f"{it['entry']['text']} {it['entry'].get('url', '')}")

    def js(self, text):
        result = self.ask("Runtime.evaluate", expression=text, returnByValue=True, awaitPromise=True)
        check("exceptionDetails" not in result, f"{text}: {result.get('exceptionDetails')}")
        return result["result"].get("value")

    def until(self, text, what):
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            if self.js(f"Boolean({text})"):
                return
            time.sleep(0.05)
        raise SystemExit(f"page-screens: {what} was not seen; the page says: {self.js('document.body.innerText')[:1500]}")

    def theme(self, name):
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def open(self, url, width=1320, height=860):
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.ask("Page.navigate", url=url)

    def shot(self, name):
        image = small(base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"]))
        check(len(image) < IMAGE_BYTES, f"{name}.png has {len(image)} bytes, more than {IMAGE_BYTES}")
        IMAGES.mkdir(parents=True, exist_ok=True)
        (IMAGES / f"{name}.png").write_bytes(image)
        say(f"{name}.png, {len(image) // 1024} KiB")

    def close(self):
        self.process.terminate()
        self.process.wait(30)


async def fill(node):
    """Agents, limits, a team, a task with tools, one that talks, and many that are done or wait."""
    from quorate.aio import AsyncClient

    async with AsyncClient(f"127.0.0.1:{node.clients}") as client:
        for name, more in (("reader", ""), ("writer", ""), ("narrator", "max_tokens = 4000"), ("hostile", ""), ("planner", ""), ("clerk", 'tools = ["files.list", "files.read", "files.write"]')):
            await client.agents.apply(f'name = "{name}"\nmodel = "scripted"\nsystem = "You are the {name} of a small team."\n{more}\n')
        await client.agents.apply('name = "team"\nbackground = "One report for somebody in a hurry."\n[fan_out]\nover = "inputs"\nagent = "reader"\n[then]\nagent = "writer"\n')
        await client.quotas.set("cluster", {"running": 64, "micro_usd_day": 25_000_000}, reason="what the budget allows")
        await client.quotas.set("projects/default", {"running": 16, "tokens_day": 2_000_000, "tokens_minute": 600_000}, reason="the team's share")
        await client.quotas.set("projects/default/agents/narrator", {"running": 2})
        await client.quotas.set("projects/default/agents/clerk", {"running": 4, "tokens_day": 20_000})
        await client.quotas.set("projects/default/agents/planner", {"tokens_day": 100}, reason="nothing before Monday")
        await client.prices.set("scripted", input=3_000_000, output=15_000_000, cached=300_000, reason="as if it were bought")
        await client.tasks.create(agent="clerk", input="What is in the folder?", task_id="look-around", labels={"team": "docs"})
        await client.tasks.create(agent="team", inputs=[f"part {n}" for n in range(9)], task_id="weekly-report", labels={"team": "docs"})
        if models():
            await client.agents.apply('name = "essay"\nmodel = "smollm2"\nsystem = "You write plainly."\nmax_tokens = 24\n')
            # A budget of money lets nothing begin that has no price.
            await client.prices.set("smollm2", input=0, output=0)
            essay = await client.tasks.create(agent="essay", input="What is a quorum? " * 12, task_id="essay")
            await asyncio.wait_for(essay.wait(), PATIENCE_S)
        await client.tasks.create(agent="planner", input="Plan the week.", task_id="next-week")
        await client.tasks.create(agent="hostile", input=HOSTILE, task_id="markup")
        turns = asyncio.Semaphore(32)

        async def one(number):
            async with turns:
                await client.tasks.create(agent="reader", input=f"part {number}", task_id=f"part-{number:05}", klass="batch", labels={"run": str(number % 7)})

        begun = time.monotonic()
        await asyncio.gather(*(one(number) for number in range(TASKS)))
        say(f"{TASKS} tasks made in {time.monotonic() - begun:.0f} s")
        for number in range(6):
            await client.tasks.create(agent="narrator", input="Tell me.", task_id=f"story-{number}", priority=9 - number)


def views(node, browser):
    """Every view in light and in dark, without a word on the console."""
    heads = {
        "cluster": ("#/cluster", "document.querySelector('.node')"),
        "queue": ("#/queue", "document.querySelector('.blocker')"),
        "tasks": ("#/tasks", "document.querySelectorAll('tbody tr').length >= 50"),
        "task": ("#/task/default/look-around", "document.querySelectorAll('tbody tr').length >= 3 && document.querySelector('.segment')"),
        "tree": ("#/task/default/weekly-report", "document.querySelectorAll('.leaf').length >= 9"),
        "live": ("#/task/default/story-0", "document.querySelector('.text') && document.querySelector('.text').textContent.length > 200"),
        "quotas": ("#/quotas", "document.querySelectorAll('.quotas tbody').length >= 3"),
    }
    for name, (place, there) in heads.items():
        for theme in ("light", "dark"):
            browser.theme(theme)
            browser.open("about:blank")
            browser.open(f"{node.url}/{place}", height=700 if name == "cluster" else 860)
            browser.until(there, f"the view {name}")
            browser.until("document.fonts.status === 'loaded'", "fonts")
            browser.shot(f"page-{name}" if theme == "light" else f"page-{name}-dark")
    check(not browser.problems, f"the console says {browser.problems}")


def load(node, browser):
    """From the click to the rows of the largest view: the median of five."""
    times = []
    for _ in range(5):
        browser.open("about:blank")
        begun = time.monotonic()
        browser.open(f"{node.url}/#/tasks")
        browser.until(f"document.querySelectorAll('tbody tr').length >= 100 && document.querySelector('.foot').textContent.replaceAll('\\u2009', '').includes('{TASKS // 100}')", "the rows")
        times.append(round((time.monotonic() - begun) * 1000))
    say(f"figure page_load_ms {sorted(times)[2]} of {sorted(times)}, {TASKS} tasks")
    check(sorted(times)[2] < 1000, f"the page takes {times} ms")


def updates(node, browser):
    """What is made while one looks is seen, and so is what a verb does."""
    browser.open(f"{node.url}/#/tasks")
    browser.until("document.querySelector('tbody tr')", "the list")
    begun = time.monotonic()
    node.run("task", "create", "--agent", "narrator", "--input", "x", "--task-id", "seen-at-once")
    browser.until("document.body.textContent.includes('seen-at-once')", "a new task")
    say(f"figure page_new_task_ms {round((time.monotonic() - begun) * 1000)}")
    browser.js("location.hash = '#/task/default/seen-at-once'")
    browser.until("document.querySelector('[data-key=pause]')", "the verb")
    browser.js("document.querySelector('[data-key=pause]').click()")
    browser.until("document.querySelector('header .state.stop')", "PAUSED")
    browser.js("document.querySelector('[data-key=cancel]').click()")
    browser.until("document.querySelector('dialog[open]')", "the question")
    browser.js("document.querySelector('dialog .danger').click()")
    browser.until("document.querySelector('header .state').textContent === 'cancelled'", "CANCELLED")
    browser.js("location.hash = '#/task/default/markup'")
    browser.until("document.querySelector('.text') && document.querySelector('.text').textContent.includes('onerror')", "markup as text")
    check(not browser.js("Boolean(window.broken)"), "a text was taken for markup")
    check(not browser.problems, f"the console says {browser.problems}")


def signed_in(folder, browser):
    """With keys: the form, a viewer without verbs, and a key that is nowhere but in its tab."""
    node = Node(folder, keys=True)
    try:
        viewer = node.new_key("default", "viewer")
        node.process.send_signal(1)
        node.run("agent", "apply", "-f", str(write(folder / "narrator.toml", 'name = "narrator"\nmodel = "scripted"\nmax_tokens = 4000\n')))
        node.run("task", "create", "--agent", "narrator", "--input", "x", "--task-id", "story")
        browser.theme("light")
        browser.open("about:blank")
        browser.open(f"{node.url}/", height=560)
        browser.until("document.querySelector('#key')", "the form")
        browser.shot("page-sign-in")
        # The form's question itself is answered with 401, which the browser notes.
        browser.problems.clear()
        browser.js(f"document.querySelector('#key').value = '{viewer}'; document.querySelector('.login form').requestSubmit()")
        browser.until("document.querySelector('tbody a')", "a viewer's tasks")
        browser.js("location.hash = '#/task/default/story'")
        browser.until("document.querySelector('.text') && document.querySelector('.text').textContent.length > 20", "live text")
        check(not browser.js("Boolean(document.querySelector('[data-key=cancel], [data-key=pause]'))"), "a viewer sees verbs")
        refused = browser.js("import('/page/api.js').then((api) => api.act('default', 'story', 'cancel')).then(() => 'done', (error) => error.reason)")
        check(refused == "ROLE_TOO_LOW", f"a viewer's verb: {refused}")
        check(browser.js("document.cookie + JSON.stringify(localStorage) + location.href").find("qk_") < 0, "the key is outside of its place")
        others = [it for it in browser.problems if "403" not in it]
        check(not others, f"the console says {others}")
    finally:
        node.stop()


def write(path, text):
    path.write_text(text)
    return path


def main():
    check(BINARY.exists(), f"there is no binary at {BINARY}; build it with `make build`, or name one in QUORATE_BIN")
    with tempfile.TemporaryDirectory(prefix="quorate-page-") as folder:
        folder = Path(folder)
        node = Node(folder / "open")
        browser = Browser(folder)
        try:
            asyncio.run(fill(node))
            views(node, browser)
            load(node, browser)
            updates(node, browser)
            signed_in(folder / "keys", browser)
        finally:
            browser.close()
            node.stop()
    say("done")


if __name__ == "__main__":
    main()
