"""A stand-in for systemctl where PID 1 is not systemd: it does what a unit of ours says, for `run-runbook.py`.

It knows the verbs of the runbook. Commands run as the unit's user, without any privilege, and a start waits for READY=1 as
systemd does. Hardening is not done here; `systemd-analyze` judges that in test_deploy.py.
"""

import os
import pathlib
import shlex
import signal
import socket
import subprocess
import sys
import time

UNITS = pathlib.Path("/usr/lib/systemd/system")


def unit_of(name):
    """Every key of the unit, with its last value."""
    name = name.removesuffix(".service")
    lines = (UNITS / f"{name}.service").read_text().splitlines()
    return name, dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def as_user(unit, command):
    drop = ["--clear-groups", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
    return ["setpriv", f"--reuid={unit['User']}", f"--regid={unit['Group']}", *drop, *shlex.split(command)]


def pid_file(name):
    return pathlib.Path(f"/run/{name}.pid")


def seconds(text):
    return float(text.removesuffix("s"))


def is_gone(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def start(name):
    name, unit = unit_of(name)
    can_check = subprocess.run(["quorate", "config", "check", "--help"], capture_output=True).returncode == 0
    if can_check:
        subprocess.run(as_user(unit, unit["ExecStartPre"]), check=True)
    else:
        print(f"{name}: this program has no `config check`, so ExecStartPre= is left out", file=sys.stderr)
    place = f"/run/{name}.notify"
    pathlib.Path(place).unlink(missing_ok=True)
    told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    told.bind(place)
    os.chmod(place, 0o666)
    environment = dict(pair.split("=", 1) for pair in [unit["Environment"]])
    environment |= {"PATH": os.environ["PATH"], "NOTIFY_SOCKET": place}
    environment["WATCHDOG_USEC"] = str(int(seconds(unit["WatchdogSec"]) * 1e6))
    with open(f"/var/log/{name}.log", "ab") as log:
        child = subprocess.Popen(
            as_user(unit, unit["ExecStart"]), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            env=environment, start_new_session=True, cwd="/", umask=int(unit["UMask"], 8),
        )
    pid_file(name).write_text(str(child.pid))
    deadline = time.monotonic() + seconds(unit["TimeoutStartSec"])
    told.settimeout(0.2)
    while True:
        try:
            # No barrier of systemd-notify is answered: it ends with the descriptor that it sent.
            message, descriptors, _, _ = socket.recv_fds(told, 4096, 4)
            for descriptor in descriptors:
                os.close(descriptor)
            if b"READY=1" in message:
                return
        except TimeoutError:
            pass
        if child.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"{name} did not become ready; see /var/log/{name}.log")


def stop(name, how=signal.SIGTERM):
    name, unit = unit_of(name)
    if not pid_file(name).exists():
        return
    pid = int(pid_file(name).read_text())
    deadline = time.monotonic() + seconds(unit["TimeoutStopSec"])
    if not is_gone(pid):
        os.kill(pid, how)
    while not is_gone(pid):
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            sys.exit(f"{name} did not stop within {unit['TimeoutStopSec']}")
        time.sleep(0.05)
    pid_file(name).unlink()


def reload(name):
    os.kill(int(pid_file(unit_of(name)[0]).read_text()), signal.SIGHUP)


def main(verb, *words):
    names = [word for word in words if not word.startswith("-")]
    if verb == "daemon-reload":
        return
    for name in names:
        if verb in ("start", "enable"):
            start(name)
        elif verb in ("stop", "disable"):
            stop(name)
        elif verb == "restart":
            stop(name)
            start(name)
        elif verb == "reload":
            reload(name)
        elif verb == "kill":
            stop(name, signal.SIGKILL)
        else:
            sys.exit(f"the stand-in does not know `systemctl {verb}`")


main(*sys.argv[1:])
