#!/usr/bin/env python3
"""Executes the blocks of RUNBOOK.md, each on its own host: a network namespace with an overlay of this machine as its root.

    sudo deploy/run-runbook.py dist/quorate-VERSION-MACHINE-linux.tar.gz

Ends with 0 when every block did what it says, 1 when one did not, 77 where hosts can't be made (no root, no namespaces).
Addresses are in 10.77.0.0/24 inside the namespaces alone; everything made is taken away at the end.
"""

import collections
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
PATIENCE_S = 60
COMMANDS_MOST = 5
# Not commands on the node, but done once for each: making its certificate, copying the archive and the files.
PREPARED = 2


def blocks(text):
    """(section, options, commands) of each block of shell."""
    section = ""
    for part in re.split(r"(?m)^(## .*|```sh\n(?:.*\n)*?```)$", text):
        if part.startswith("## "):
            section = part[3:]
        elif part.startswith("```sh"):
            lines = part.splitlines()[1:-1]
            options = dict((line[2:].split(" ", 1) + [""])[:2] for line in lines if re.match(r"# (on|expect|until|retry|keep|lost|not)\b", line))
            yield section, options, [line for line in lines if not line.startswith("#")]


class Hosts:
    """Namespaces that see each other through a bridge in a namespace of its own."""

    def __init__(self, folder):
        self.folder, self.names, self.kept = folder, [], collections.defaultdict(list)
        self.prefix = f"qrb{os.getpid()}"
        self.shared = folder / "media"
        self.shared.mkdir()
        self.switch = f"{self.prefix}-sw"
        run("ip", "netns", "add", self.switch)
        run("ip", "-n", self.switch, "link", "add", "br0", "type", "bridge")
        run("ip", "-n", self.switch, "link", "set", "br0", "up")

    def make(self, name):
        if name in self.names:
            return
        number = 100 if name == "admin" else {"c": 0, "w": 10, "r": 20}[name[0]] + int(name[1:])
        space, port = f"{self.prefix}-{name}", f"p{name}"
        run("ip", "netns", "add", space)
        self.names.append(name)
        run("ip", "-n", space, "link", "add", "eth0", "type", "veth", "peer", "name", port, "netns", self.switch)
        run("ip", "-n", self.switch, "link", "set", port, "master", "br0", "up")
        run("ip", "-n", space, "addr", "add", f"10.77.0.{number}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            run("ip", "-n", space, "link", "set", device, "up")
        place = self.folder / name
        for part in ("upper", "work", "root"):
            (place / part).mkdir(parents=True)
        options = f"lowerdir=/,upperdir={place}/upper,workdir={place}/work"
        run("mount", "-t", "overlay", "overlay", "-o", options, str(place / "root"))
        run("mount", "--bind", str(self.shared), str(place / "root/media"))
        for tree in ("proc", "dev"):
            run("mount", "--rbind", "--make-rslave", f"/{tree}", str(place / "root" / tree))
        run("mount", "-t", "tmpfs", "tmpfs", str(place / "root/run"))
        shim = place / "root/usr/local/bin/systemctl"
        shim.write_text(f"#!{sys.executable}\n" + (HERE / "stand_in_systemctl.py").read_text())
        shim.chmod(0o755)

    def execute(self, name, commands):
        self.make(name)
        text = "set -euo pipefail\n" + "\n".join(self.kept[name] + commands)
        environment = {"PATH": f"/usr/local/bin:{os.environ['PATH']}", "HOME": "/", "LC_ALL": "C.UTF-8", "NAME": name}
        line = ["ip", "netns", "exec", f"{self.prefix}-{name}", "chroot", str(self.folder / name / "root"), "bash", "-c", text]
        done = subprocess.run(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", timeout=300)
        return done.returncode, done.stdout

    def log(self):
        for name in self.names:
            for log in (self.folder / name / "root/var/log").glob("quorate-*.log"):
                print(f"--- {name} {log.name}", *log.read_text(errors="replace").splitlines()[-25:], sep="\n")

    def remove(self):
        for name in self.names:
            space = f"{self.prefix}-{name}"
            # Every process of the namespace was started by a block.
            for pid in subprocess.run(["ip", "netns", "pids", space], capture_output=True, text=True).stdout.split():
                subprocess.run(["kill", "-KILL", pid], capture_output=True)
            run("umount", "-R", "-l", str(self.folder / name / "root"))
            run("ip", "netns", "del", space)
        run("ip", "netns", "del", self.switch)


def run(*line):
    subprocess.run(line, check=True)


def judge(hosts, options, commands):
    """Whether a block did what it says on each of its hosts, and its output there, up to the first where it did not."""
    said = ""
    for host in options["on"].split():
        good, output = judge_on(hosts, host, options, commands)
        said += output
        if not good:
            return False, said
    return True, said


def judge_on(hosts, host, options, commands):
    wanted = options.get("until") or options.get("retry")
    deadline = time.monotonic() + PATIENCE_S
    while True:
        code, output = hosts.execute(host, commands)
        if code == 0 and (wanted or options.get("expect", "")) in output:
            return True, output
        if not wanted or time.monotonic() > deadline:
            return False, output
        # The condition is asked for again, at a pace that leaves the machine to the nodes.
        time.sleep(0.5)


def count_commands(runbook):
    """A founding node's commands: none may need more than five."""
    counts = collections.Counter()
    for section, options, commands in blocks(runbook):
        if section.startswith("Install") and options.get("on") != "admin":
            counts[options["on"]] += len(commands)
    for name, count in counts.items():
        extra = PREPARED + (name == "c1")
        print(f"{name}: {count + extra} commands ({count} on the node, {extra} for it)")
        assert count + extra <= COMMANDS_MOST, f"{name} needs more than {COMMANDS_MOST} commands"


def execute(hosts, runbook):
    ran = left_out = 0
    took = collections.Counter()
    for section, options, commands in blocks(runbook):
        if "not" in options:
            print(f"NOT RUN  {section}: {options['not'].removeprefix('run: ')}")
            left_out += 1
            continue
        started = time.monotonic()
        good, output = judge(hosts, options, commands)
        took[section] += time.monotonic() - started
        print(f"{'ok' if good else 'FAILED':8} {time.monotonic() - started:5.1f} s  {section} on {options['on']}", flush=True)
        if not good:
            print(*commands, "gave:", output, sep="\n")
            hosts.log()
            return False
        if "keep" in options:
            hosts.kept[options["on"]] += commands
        ran += 1
    for section, seconds in took.items():
        print(f"{seconds:6.1f} s  {section}")
    print(f"{ran} blocks ran, {left_out} were left out")
    return ran > 0


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    if os.geteuid() != 0 or subprocess.run(["unshare", "-mn", "true"], capture_output=True).returncode != 0:
        print("run-runbook.py: SKIPPED: hosts need root and namespaces", file=sys.stderr)
        sys.exit(77)
    runbook = (HERE / "RUNBOOK.md").read_text()
    count_commands(runbook)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="quorate-runbook-"))
    folder.chmod(0o755)
    hosts = Hosts(folder)
    try:
        dist = hosts.shared / "dist"
        dist.mkdir()
        run("tar", "-xzf", sys.argv[1], "-C", str(dist), "--strip-components=1")
        good = execute(hosts, runbook)
    finally:
        hosts.remove()
        shutil.rmtree(folder)
    sys.exit(0 if good else 1)


main()
