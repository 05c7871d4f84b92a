"""What the scripts of this folder share: running programs, the machine's state, medians."""

import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request


def end_in_order():
    """On SIGTERM, leave as on an interrupt: servers that were started are ended, stopped ones too."""

    def leave(*_):
        raise SystemExit("ended by SIGTERM")

    signal.signal(signal.SIGTERM, leave)


def say(what):
    """Progress, where it doesn't mix with the table."""
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


def run(*command, nice=0):
    """The standard output of a command that must succeed."""
    command = ["nice", "-n", str(nice), *map(str, command)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{(done.stderr or done.stdout)[-2000:]}")
    return done.stdout


def machine():
    with open("/proc/cpuinfo") as file:
        names = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores, {platform.system()}"


def probe(peak, threads, seconds=0.5):
    """GOP/s of int8 products that the machine can do now, by the example `peak` of our kernels; its best set."""
    return float(run(peak, threads, seconds).splitlines()[-1].split()[-2])


def spread(values, digits=1):
    """The median, and the least and the most."""
    middle, least, most = statistics.median(values), min(values), max(values)
    return f"{middle:.{digits}f} ({least:.{digits}f}–{most:.{digits}f})"


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def busy_seconds():
    """Processor seconds of all programs since the machine started (user, nice, system)."""
    with open("/proc/stat") as file:
        return sum(map(int, file.readline().split()[1:4])) / os.sysconf("SC_CLK_TCK")


class Watch:
    """How many cores other programs keep busy from now on, ours being this one, its children and a server."""

    def __init__(self, server=None):
        self.server, self.start = server, time.monotonic()
        self.begin = self.now()

    def now(self):
        times, served = os.times(), self.server.seconds() if self.server else 0
        own = times.user + times.system + times.children_user + times.children_system + served
        return busy_seconds() - own

    def others(self):
        return max(0.0, self.now() - self.begin) / (time.monotonic() - self.start)


class Server:
    """A program that answers HTTP on 127.0.0.1, in a process group of its own that can be stopped and continued."""

    def __init__(self, name, command, port, log, ready, deadline_s=300, env=None):
        self.name, self.url, self.log = name, f"http://127.0.0.1:{port}", log
        with open(log, "w") as out:
            self.process = subprocess.Popen(
                [str(word) for word in command],
                stdout=out,
                stderr=out,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )
        self.wait(ready, deadline_s)

    def wait(self, ready, deadline_s):
        deadline = time.monotonic() + deadline_s
        while time.monotonic() < deadline:
            try:
                return urllib.request.urlopen(f"{self.url}{ready}", timeout=5).read()
            except OSError:
                if self.process.poll() is not None:
                    raise SystemExit(f"{self.name} ended by itself; {self.log} says why")
                time.sleep(0.3)
        self.end()
        raise SystemExit(f"{self.name} did not get ready in {deadline_s} s; see {self.log}")

    def signal(self, number):
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            pass

    def rest(self):
        """Not a cycle of the processor until it is continued."""
        self.signal(signal.SIGSTOP)

    def resume(self):
        self.signal(signal.SIGCONT)

    def seconds(self):
        """Processor seconds of its whole process group, as far as its members live."""
        ticks = 0
        for entry in os.listdir("/proc"):
            if not entry.isdigit():
                continue
            try:
                with open(f"/proc/{entry}/stat") as file:
                    fields = file.read().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[2]) == self.process.pid:
                ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def end(self):
        self.resume()
        self.signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            self.process.wait()


def post(url, body):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request))
