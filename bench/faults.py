#!/usr/bin/env python3
"""Three coordinators whose leader is killed, or hands over, while clients create tasks; and a busy engine beside them.

    bench/faults.py --quorate target/release/quorate --kills 50 --transfers 20 --busy 600

Prints the longest time in which nothing was acknowledged, of each kill and of each transfer, and what was lost or made
twice. Needs the Python SDK's tools (`sdk/python/tools.sh`): run it with .tools/python-sdk/bin/python. Everything is on
loopback, data in --work; only processes that it started are ended.
"""

import argparse
import contextlib
import os
import pathlib
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time

import grpc

from common import end_in_order, machine, say

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "sdk/python/src"))
from quorate._proto import cluster_pb2, cluster_pb2_grpc, task_pb2, task_pb2_grpc  # noqa: E402

CLIENTS = 8
SCRIPT = '[[reply]]\nwhen_agent = "quick"\ntext = "Understood."\n'


def free():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Node:
    def __init__(self, cluster, name, role, join, more=""):
        self.name, self.role = name, role
        self.clients, self.internal, self.http = free(), free(), free()
        self.folder = cluster.work / name
        self.config = cluster.work / f"{name}.toml"
        self.config.write_text(
            f'name = "{name}"\nroles = ["{role}"]\ndata_dir = "{self.folder}"\njoin = {join}\n'
            f'[listen]\nclients = "127.0.0.1:{self.clients}"\ninternal = "127.0.0.1:{self.internal}"\n'
            f'http = "127.0.0.1:{self.http}"\n[log]\nlevel = "info"\n{more}'
        )
        self.binary, self.process = cluster.binary, None

    def start(self):
        with open(f"{self.config}.log", "a") as log:
            self.process = subprocess.Popen([self.binary, "start", "--config", self.config], stdout=log, stderr=log)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def ticks(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return int(fields[11]) + int(fields[12])


class Cluster:
    """Three coordinators, and workers with what their configuration says."""

    def __init__(self, binary, work, worker="", workers=1):
        self.binary, self.work = str(binary), work
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        (work / "script.toml").write_text(SCRIPT)
        self.nodes = [Node(self, "c1", "coordinator", "[]")]
        join = f'["127.0.0.1:{self.nodes[0].internal}"]'
        self.nodes += [Node(self, name, "coordinator", join) for name in ("c2", "c3")]
        seeds = str([f"127.0.0.1:{node.internal}" for node in self.nodes]).replace("'", '"')
        self.nodes += [Node(self, f"w{n}", "worker", seeds, worker) for n in range(workers)]
        self.nodes[0].start()
        self.until(lambda: self.cli(0, "cluster", "init").returncode in (0, 6))
        for node in self.nodes[1:]:
            node.start()
        self.until(lambda: self.ready() == len(self.nodes) and len(self.status().voters) == 3)

    def cli(self, node, *words):
        address = f"127.0.0.1:{self.nodes[node].clients}"
        return subprocess.run([self.binary, *words, "--endpoint", address], capture_output=True, text=True)

    def until(self, condition, patience=60):
        end = time.monotonic() + patience
        while time.monotonic() < end:
            with contextlib.suppress(grpc.RpcError):
                if condition():
                    return
            time.sleep(0.05)
        raise SystemExit(f"not within {patience} s; logs are in {self.work}")

    def ask(self, call, node=None):
        last = None
        for one in [node] if node else self.nodes[:3]:
            if one.process and one.process.poll() is None:
                with grpc.insecure_channel(f"127.0.0.1:{one.clients}") as channel:
                    try:
                        return call(cluster_pb2_grpc.ClusterServiceStub(channel))
                    except grpc.RpcError as error:
                        last = error
        raise last

    def status(self, node=None):
        return self.ask(lambda it: it.GetClusterStatus(cluster_pb2.GetClusterStatusRequest(), timeout=5), node)

    def ready(self):
        nodes = self.ask(lambda it: it.ListNodes(cluster_pb2.ListNodesRequest(), timeout=5)).nodes
        return sum(node.state == "ready" for node in nodes)

    def leader(self):
        self.until(lambda: self.status().leader)
        name = self.status().leader
        return next(node for node in self.nodes if node.name == name)

    def stop(self):
        for node in self.nodes:
            if node.process and node.process.poll() is None:
                node.kill()


class Creators:
    """Clients that create one task after the other, and repeat with the same request id where asked to be patient."""

    def __init__(self, cluster, tag, patient):
        self.cluster, self.tag, self.patient = cluster, tag, patient
        self.told, self.errors, self.done = [], [], threading.Event()
        self.threads = [threading.Thread(target=self.create, args=(n,)) for n in range(CLIENTS)]
        for thread in self.threads:
            thread.start()

    def create(self, client):
        channels = [grpc.insecure_channel(f"127.0.0.1:{node.clients}") for node in self.cluster.nodes[:3]]
        stubs = [task_pb2_grpc.TaskServiceStub(channel) for channel in channels]
        at, number = client, 0
        while not self.done.is_set():
            number += 1
            name = f"{self.tag}-{client}-{number}"
            message = task_pb2.CreateTaskRequest(
                project="default", agent="quick", request_id=name, task_id=name, labels={"tag": self.tag},
                inputs=[task_pb2.Input(text=f"hello {name}".ljust(256))],
            )
            while True:
                try:
                    task = stubs[at % 3].CreateTask(message, timeout=8)
                    self.told.append((time.monotonic(), name, task.uid))
                    break
                except grpc.RpcError as error:
                    self.errors.append((name, error.code().name, error.details()))
                    at += 1
                    if not self.patient:
                        break
                    time.sleep(0.02)

    def more(self, count):
        enough = len(self.told) + count
        self.cluster.until(lambda: len(self.told) >= enough)

    def end(self):
        """The longest gap in ms, what was lost, and what exists twice."""
        self.done.set()
        for thread in self.threads:
            thread.join()
        times = sorted(at for at, _, _ in self.told)
        gap = max((b - a) * 1000 for a, b in zip(times, times[1:]))
        found, token = [], ""
        with grpc.insecure_channel(f"127.0.0.1:{self.cluster.leader().clients}") as channel:
            stub = task_pb2_grpc.TaskServiceStub(channel)
            while True:
                page = stub.ListTasks(
                    task_pb2.ListTasksRequest(
                        project="default", filter=f"label.tag={self.tag}", page_size=500, page_token=token
                    )
                )
                found += [(task.id, task.uid) for task in page.tasks]
                token = page.next_page_token
                if not token:
                    break
        uids = dict(found)
        lost = [name for _, name, uid in self.told if uids.get(name) != uid]
        return gap, len(lost), len(found) - len(uids)


def spread(name, values, lost=None, twice=None):
    values = sorted(values)
    p99 = values[min(len(values) - 1, -(-len(values) * 99 // 100) - 1)]
    more = "" if lost is None else f", {lost} lost, {twice} twice"
    print(f"{name}: {len(values)} times, gap p50 {statistics.median(values):.0f} ms, p99 {p99:.0f} ms, "
          f"most {values[-1]:.0f} ms{more}", flush=True)


def kills(options):
    worker = '[engine]\nmodels = []\n[[provider]]\nname = "scripted"\nkind = "scripted"\nfile = "%s/script.toml"\n'
    cluster = Cluster(options.quorate, options.work, worker % options.work)
    try:
        agent = options.work / "quick.toml"
        agent.write_text('name = "quick"\nmodel = "scripted"\nmax_tokens = 100\n')
        assert cluster.cli(0, "agent", "apply", "-f", str(agent)).returncode == 0
        gaps, lost, twice = [], 0, 0
        for round in range(options.kills):
            leader = cluster.leader()
            creators = Creators(cluster, f"k{round}-{time.time_ns() % 10**9}", patient=True)
            creators.more(60)
            leader.kill()
            creators.more(100)
            gap, gone, double = creators.end()
            gaps.append(gap)
            lost, twice = lost + gone, twice + double
            leader.start()
            cluster.until(lambda: cluster.ready() == len(cluster.nodes))
            say(f"kill {round}: {gap:.0f} ms, {len(creators.told)} acknowledged")
        if gaps:
            spread("leader killed", gaps, lost, twice)
        gaps, errors = [], []
        for round in range(options.transfers):
            leader = cluster.leader()
            other = next(node for node in cluster.nodes[:3] if node is not leader)
            creators = Creators(cluster, f"t{round}-{time.time_ns() % 10**9}", patient=False)
            creators.more(60)
            done = cluster.cli(0, "cluster", "transfer-leader", other.name)
            assert done.returncode == 0, done.stderr
            creators.more(60)
            gap, gone, double = creators.end()
            gaps.append(gap)
            errors += creators.errors
            say(f"transfer {round}: {gap:.0f} ms, {len(creators.errors)} errors, {gone} lost, {double} twice")
        if gaps:
            spread("office handed over", gaps)
            print(f"errors of clients without patience: {len(errors)} {errors[:2]}", flush=True)
    finally:
        cluster.stop()


def busy(options):
    cores = os.cpu_count()
    cluster = Cluster(options.quorate, options.work, f'[engine]\nmodels = ["smollm2"]\nthreads = {cores}\n')
    try:
        agent = options.work / "quick.toml"
        agent.write_text('name = "quick"\nmodel = "smollm2"\nmax_tokens = 200\ntemperature = 0\n')
        assert cluster.cli(0, "agent", "apply", "-f", str(agent)).returncode == 0
        before, worker = cluster.status(), cluster.nodes[-1]
        ticks, begun, made = worker.ticks(), time.monotonic(), 0
        while time.monotonic() < begun + options.busy:
            waiting = cluster.status().tasks_by_state
            if sum(waiting.get(state, 0) for state in ("PENDING", "RUNNING")) < 12:
                words = " ".join(f"w{n}" for n in range(made, made + 150))
                done = cluster.cli(1, "task", "create", "--agent", "quick", "--input", f"Tell me of {made}. {words}")
                assert done.returncode == 0, done.stderr
                made += 1
            else:
                time.sleep(0.2)
        took = time.monotonic() - begun
        after = cluster.status()
        percent = (worker.ticks() - ticks) / took
        print(f"busy engine: {took:.0f} s, {made} tasks, the worker had {percent:.0f} % of a core (of {cores}), "
              f"term {before.term} -> {after.term}, leader {before.leader} -> {after.leader}", flush=True)
    finally:
        cluster.stop()


def main():
    parse = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parse.add_argument("--quorate", default=ROOT / "target/release/quorate")
    parse.add_argument("--work", type=pathlib.Path, default=ROOT / "target/faults", help="a folder that is emptied")
    parse.add_argument("--kills", type=int, default=0)
    parse.add_argument("--transfers", type=int, default=0)
    parse.add_argument("--busy", type=int, default=0, help="seconds")
    options = parse.parse_args()
    options.work = options.work.resolve()
    end_in_order()
    print(machine(), flush=True)
    if options.kills or options.transfers:
        kills(options)
    if options.busy:
        busy(options)


if __name__ == "__main__":
    main()
