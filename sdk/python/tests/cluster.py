"""Clusters of real `quorate` processes on loopback, with a scripted model."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Callable, Optional, TypeVar

from quorate import Client, ClusterStatus, Conflict, QuorateError
from quorate._proto import cluster_pb2

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[3]
PATIENCE_S = 60.0
MODEL = "scripted"
# The second one is what the examples ask for.
MODELS = (MODEL, "smollm2")

# Below the range from which the system gives ports to outgoing connections, so that a node that was killed finds its
# port free when it comes back. Runs at the same time begin at different places.
_PORTS = itertools.cycle(range(12_000, 30_000))
for _ in range(os.getpid() * 97 % 18_000):
    next(_PORTS)


def binary() -> Path:
    path = Path(os.environ.get("QUORATE_BIN") or ROOT / "target/debug/quorate").resolve()
    assert path.is_file(), f"there is no binary at {path}: build it with `make build`, or name one in QUORATE_BIN"
    return path


def until(what: str, look: Callable[[], Optional[T]]) -> T:
    """The first value that `look` gives; errors of the cluster count as none."""
    give_up = time.monotonic() + PATIENCE_S
    pause_s = 0.01
    while time.monotonic() < give_up:
        with contextlib.suppress(QuorateError):
            found = look()
            if found is not None:
                return found
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, 0.2)
    raise AssertionError(f"{what}: not within {PATIENCE_S:g} s")


def _port() -> int:
    for port in _PORTS:
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no free port on loopback")


class Process:
    """One node. Its log is beside its configuration."""

    def __init__(self, folder: Path, name: str, roles: list[str], join: list[str], script: Path) -> None:
        self.name = name
        self.clients, self.internal = f"127.0.0.1:{_port()}", f"127.0.0.1:{_port()}"
        self._config = folder / f"{name}.toml"
        self._log = folder / f"{name}.log"
        self._process: Optional[subprocess.Popen[bytes]] = None
        self._config.write_text(
            f'name = "{name}"\nroles = {roles}\ndata_dir = "{folder / name}"\njoin = {join}\n'
            f'[listen]\nclients = "{self.clients}"\ninternal = "{self.internal}"\nhttp = "127.0.0.1:{_port()}"\n'
            f"[worker]\nslots = 8\n[engine]\nmodels = []\n"
            + "".join(f'[[provider]]\nname = "{model}"\nkind = "scripted"\nfile = "{script}"\n' for model in MODELS)
        )

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([binary(), "start", "--config", self._config], stdout=log, stderr=log)

    def kill(self) -> None:
        """SIGKILL: nothing is handed over."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._process = None

    @property
    def runs(self) -> bool:
        return self._process is not None

    def stop(self) -> None:
        if self._process is not None:
            self.kill()

    def listens(self) -> bool:
        host, port = self.clients.split(":")
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
            return True
        return False

    def log(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines() if self._log.exists() else []
        return "\n".join([f"--- {self.name}", *lines[-15:]])


class Cluster:
    """So many coordinators and workers, or one node that is both. A test that fails shows the end of each log."""

    def __init__(self, coordinators: int, workers: int, script: str) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="quorate-python-"))
        file = self._folder / "script.toml"
        file.write_text(script)
        self.coordinators = [f"coordinator-{n + 1}" for n in range(coordinators)]
        self.workers = [f"worker-{n + 1}" for n in range(workers)]
        self.nodes: dict[str, Process] = {}
        for name in self.coordinators + self.workers:
            # Every node knows the coordinators before it, so that any of them may be down later.
            join = [self.nodes[known].internal for known in self.coordinators if known in self.nodes]
            both = ["coordinator", "worker"] if not workers else [name.split("-")[0]]
            self.nodes[name] = Process(self._folder, name, both, join, file)

    def __enter__(self) -> Cluster:
        try:
            self._start()
        except BaseException:
            self.__exit__(AssertionError, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        for node in self.nodes.values():
            node.stop()
        if kind is not None:
            print("\n".join(node.log() for node in self.nodes.values()))
        shutil.rmtree(self._folder)

    def addresses(self, first: str = "") -> list[str]:
        """Where clients ask; a node that is named comes first."""
        names = sorted(self.nodes, key=lambda name: name != first)
        return [self.nodes[name].clients for name in names]

    def client(self, first: str = "") -> Client:
        return Client(self.addresses(first))

    def revive(self) -> None:
        """Starts again what was killed, and waits until all is as it was."""
        for node in self.nodes.values():
            if not node.runs:
                node.start()
        self.wait_ready()

    def leader(self) -> str:
        """Name of the node that leads."""
        with self.client() as client:
            return until("a leader", lambda: _leader(client))

    def wait_ready(self) -> None:
        """Every node is attached, and the coordinators vote."""
        with self.client() as client:
            until("all nodes attached", lambda: self._ready(client))

    def _ready(self, client: Client) -> Optional[ClusterStatus]:
        ready = sum(node.state == "ready" for node in client.cluster.nodes())
        status = client.cluster.status()
        all_vote = len(status.voters) == len(self.coordinators)
        return status if ready == len(self.nodes) and all_vote and status.leader else None

    def _start(self) -> None:
        first, *others = self.nodes.values()
        first.start()
        with Client(first.clients, timeout=5) as client:
            until("founding the cluster", lambda: _found(client))
        for node in others:
            node.start()
        self.wait_ready()


def _leader(client: Client) -> Optional[str]:
    leader = client.cluster.status().leader
    return next((node.name for node in client.cluster.nodes() if leader in (node.id, node.name)), None)


def _found(client: Client) -> Optional[bool]:
    """The SDK does not found clusters: that is a verb of the command line."""
    try:
        client._call(lambda stubs: stubs.cluster.InitCluster, cluster_pb2.InitClusterRequest())
    except Conflict as error:
        # An attempt whose answer was lost has founded it.
        assert error.reason == "ALREADY_INITIALISED", error
    return True
