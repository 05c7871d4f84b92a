#!/usr/bin/env python3
"""Dashboards and alerts against a real Prometheus: rules are checked and fired on series made for them, and every query of
every dashboard returns data of a real cluster that works.

    deploy/test_dashboards.py        QUORATE=… is the program (default target/debug/quorate)

Debian's package `prometheus` is used where it is installed, else it is downloaded and unpacked into a folder that goes away
again. Without both it says what was skipped, and ends with 0: the names of all metrics are checked by `make test` in any case.
"""
import glob
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
PATIENCE_S = 120
REPLIES = """window = 4096
[[reply]]
when_agent = "worker"
text = "w1 w2 w3 w4 w5 w6 w7 w8 w9"
tokens_per_second = 200
"""


def find(folder):
    """The folder with prometheus and promtool, or None."""
    if shutil.which("promtool") and shutil.which("prometheus"):
        return pathlib.Path(shutil.which("promtool")).parent
    got = shutil.which("apt-get") and subprocess.run(["apt-get", "-q", "download", "prometheus"], cwd=folder, capture_output=True)
    packages = glob.glob(f"{folder}/prometheus_*.deb")
    if not got or got.returncode or not packages:
        return None
    subprocess.run(["dpkg", "-x", packages[0], folder], check=True)
    return pathlib.Path(folder, "usr/bin")


def rules(tools):
    subprocess.run([tools / "promtool", "check", "rules", HERE / "alerts.yml"], check=True)
    subprocess.run([tools / "promtool", "test", "rules", HERE / "alerts_test.yml"], check=True)
    alerts = (HERE / "alerts.yml").read_text().count("- alert:")
    fired = (HERE / "alerts_test.yml").read_text().count("exp_alerts: [{")
    assert alerts == fired, f"{alerts} alerts, {fired} are fired"
    print(f"figure alerts_fired {fired}")


def queries():
    for file in sorted((HERE / "grafana").glob("*.json")):
        for panel in json.loads(file.read_text())["panels"]:
            for target in panel["targets"]:
                yield f"{file.stem}: {panel['title']}", target["expr"].replace("$__rate_interval", "20s")


class Work:
    """A cluster, a Prometheus that reads it, and tasks that keep it busy."""

    def __init__(self, program, tools, folder):
        self.program, self.folder = program, folder
        (folder / "replies.toml").write_text(REPLIES)
        model = "smollm2" if self.has("smollm2") else "none"
        line = [program, "-o", "json", "cluster", "up", "--local", "3", "--model", model, "--port", "33000",
                "--replies", folder / "replies.toml", "--folder", folder / "cluster"]
        self.up = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
        told = json.loads(self.up.stdout.readline())
        self.environment = {**os.environ, "QUORATE_ENDPOINT": told["endpoint"]}
        targets = [node["http"].removeprefix("http://") for node in told["nodes"]]
        config = {"global": {"scrape_interval": "1s", "evaluation_interval": "1s"}, "rule_files": [str(HERE / "alerts.yml")],
                  "scrape_configs": [{"job_name": "quorate", "static_configs": [{"targets": targets}]}]}
        (folder / "prometheus.yml").write_text(json.dumps(config))
        self.port = 33190
        self.prometheus = subprocess.Popen(
            [tools / "prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb",
             f"--web.listen-address=127.0.0.1:{self.port}", "--log.level=error"])
        self.model = model

    def has(self, model):
        listed = subprocess.run([self.program, "-o", "json", "model", "list"], capture_output=True, text=True)
        return listed.returncode == 0 and any(it["name"] == model for it in json.loads(listed.stdout))

    def run(self, *words):
        return subprocess.run([self.program, *words], env=self.environment, capture_output=True, text=True)

    def define(self):
        for name, model in [("worker", "scripted"), ("thinker", "smollm2")][: 2 if self.model != "none" else 1]:
            file = self.folder / f"{name}.toml"
            file.write_text(f'name = "{name}"\nmodel = "{model}"\nmax_tokens = 8\n')
            applied = self.run("agent", "apply", "-f", str(file))
            assert applied.returncode == 0, applied.stderr
        self.run("quota", "set", "projects/default", "running=8", "tokens_total=100000000")

    def work(self):
        for agent in ["worker", "worker", "thinker"][: 3 if self.model != "none" else 2]:
            self.run("run", "--agent", agent, "--input", f"Count to three, at {time.time()}.")
        self.run("task", "get", "nobody")
        urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/healthy", timeout=5).read()

    def ask(self, query):
        url = f"http://127.0.0.1:{self.port}/api/v1/query?" + urllib.parse.urlencode({"query": query})
        try:
            return json.load(urllib.request.urlopen(url, timeout=10))["data"]["result"]
        except urllib.error.HTTPError as error:
            sys.exit(f"{query}: {error.read().decode()}")

    def firing(self):
        url = f"http://127.0.0.1:{self.port}/api/v1/alerts"
        return [alert["labels"]["alertname"] for alert in json.load(urllib.request.urlopen(url, timeout=10))["data"]["alerts"]
                if alert["state"] == "firing"]

    def stop(self):
        for process in [self.prometheus, self.up]:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=120)


# What needs a file of API keys; `tests/it/observed.rs` has one, and finds it there.
RARE = {"quorate_requests_refused_total"}


def dashboards(work):
    work.define()
    deadline = time.time() + PATIENCE_S
    left = [(where, query) for where, query in queries() if not any(name in query for name in RARE)]
    if work.model == "none":
        left = [(where, query) for where, query in left if "quorate_tokens_" not in query and "quorate_kv_" not in query]
    all_of_them = len(left)
    while left and time.time() < deadline:
        work.work()
        left = [(where, query) for where, query in left if not work.ask(query)]
    assert not left, f"no data for {json.dumps(left, indent=1)}"
    assert not work.firing(), f"alerts fire on a cluster that is well: {work.firing()}"
    print(f"figure dashboard_queries_with_data {all_of_them}")


def main():
    subprocess.run([sys.executable, HERE / "grafana/make.py", "--check"], check=True)
    program = os.environ.get("QUORATE", HERE.parent / "target/debug/quorate")
    with tempfile.TemporaryDirectory(prefix="quorate-dashboards-") as folder:
        tools = find(folder)
        if tools is None:
            return print("skipped: no Prometheus here, and Debian's package can't be downloaded")
        rules(tools)
        work = Work(program, tools, pathlib.Path(folder))
        try:
            dashboards(work)
        finally:
            work.stop()


if __name__ == "__main__":
    main()
