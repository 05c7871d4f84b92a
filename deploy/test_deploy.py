#!/usr/bin/env python3
"""Units within their limits, install and uninstall below a folder, archives of equal bytes. `make deploy-tests` runs it.

QUORATE names the program that is installed; packing is tried with a stand-in for it, because stripping takes long.
"""

import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import time
import unittest

HERE = pathlib.Path(__file__).resolve().parent
UNITS = HERE / "systemd"
# Exposure after `systemd-analyze security`, the most that each unit may have.
EXPOSURE_MOST = {"quorate-coordinator": 1.5, "quorate-worker": 2.0, "quorate-worker-tools": 3.0}
PROGRAM = pathlib.Path(os.environ.get("QUORATE", HERE / "../target/debug/quorate")).resolve()
# Copied by `put`: a stand-in that answers what packing asks.
STAND_IN = '#!/bin/sh\ncase "$1" in --version) echo quorate 9.9.9 ;; *) exit 2 ;; esac\n'


def run(*line, **environment):
    return subprocess.run(
        [str(word) for word in line], capture_output=True, text=True, env=os.environ | environment, timeout=120
    )


def exposure(unit):
    said = run("systemd-analyze", "security", "--offline=true", "--no-pager", unit)
    # A directive that this systemd does not know would count as nothing, silently.
    assert not re.search(r"ignoring|Unknown", said.stderr), said.stderr
    return float(re.search(r"Overall exposure level for \S+: ([\d.]+)", said.stdout).group(1))


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def tree(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class InFolder(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="quorate-deploy-"))
        self.addCleanup(shutil.rmtree, self.folder)


@unittest.skipUnless(shutil.which("systemd-analyze"), "systemd-analyze is not installed: units are NOT checked")
class Units(InFolder):
    def test_each_unit_stays_within_its_exposure(self):
        self.assertEqual({path.stem for path in UNITS.glob("*.service")}, set(EXPOSURE_MOST))
        for name, most in EXPOSURE_MOST.items():
            found = exposure(UNITS / f"{name}.service")
            print(f"{name}: exposure {found}, at most {most}")
            self.assertLessEqual(found, most, name)

    def test_a_unit_without_its_walls_is_found(self):
        bare = self.folder / "quorate-coordinator.service"
        lines = (UNITS / bare.name).read_text().splitlines(keepends=True)
        bare.write_text("".join(line for line in lines if not line.startswith(("Protect", "SystemCall"))))
        self.assertGreater(exposure(bare), EXPOSURE_MOST[bare.stem])

    def test_systemd_takes_every_unit_as_it_is_installed(self):
        installed = run(HERE / "install.sh", "--root", self.folder, QUORATE=str(PROGRAM))
        self.assertEqual(installed.returncode, 0, installed.stderr)
        for name in EXPOSURE_MOST:
            # Their programs are looked for where they will be.
            copy = self.folder / f"{name}.service"
            copy.write_text((UNITS / copy.name).read_text().replace("=/usr/", f"={self.folder}/usr/"))
        said = run("systemd-analyze", "verify", "--man=no", *self.folder.glob("*.service"))
        ours = [line for line in said.stderr.splitlines() if "quorate" in line]
        self.assertEqual((said.returncode, ours), (0, []), said.stderr)

    def test_nodes_are_told_to_stop_in_order_and_have_time_for_it(self):
        for name in EXPOSURE_MOST:
            text = (UNITS / f"{name}.service").read_text()
            # Alone the node is told, and 20 s to a step boundary fit in with room.
            self.assertIn("KillMode=mixed", text)
            self.assertGreaterEqual(int(re.search(r"TimeoutStopSec=(\d+)s", text).group(1)), 60, name)
            self.assertIn("ExecStartPre=/usr/bin/quorate config check", text)
            self.assertEqual("worker" in name, "time-sync.target quorate-coordinator.service" in text)


@unittest.skipUnless(shutil.which("systemd-notify"), "systemd-notify is not installed: the watchdog is NOT tried")
class Watchdog(InFolder):
    """A real node under `quorate-run`, and a socket in the place of systemd's."""

    def setUp(self):
        super().setUp()
        self.told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.told.close)
        self.told.bind(str(self.folder / "notify"))
        ports = [free_port() for _ in range(3)]
        config = self.folder / "node.toml"
        config.write_text(
            f'name = "c1"\nroles = ["coordinator"]\ndata_dir = "data"\n[listen]\nclients = "127.0.0.1:{ports[0]}"\n'
            f'internal = "127.0.0.1:{ports[1]}"\nhttp = "127.0.0.1:{ports[2]}"\n'
        )
        # A fourth of it passes between two signs of life: one second.
        environment = os.environ | {"NOTIFY_SOCKET": str(self.folder / "notify"), "WATCHDOG_USEC": "4000000"}
        environment["QUORATE_BIN"] = str(PROGRAM)
        self.node = subprocess.Popen(
            [UNITS / "quorate-run", config], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.addCleanup(self.end)

    def end(self):
        self.node.send_signal(signal.SIGCONT)
        self.node.kill()
        self.node.wait()

    def hears(self, word, within_s):
        deadline = time.monotonic() + within_s
        while (left_s := deadline - time.monotonic()) > 0:
            self.told.settimeout(left_s)
            try:
                message, descriptors, _, _ = socket.recv_fds(self.told, 4096, 4)
            except TimeoutError:
                return False
            for descriptor in descriptors:
                os.close(descriptor)
            if word in message:
                return True
        return False

    def test_a_node_that_stands_still_gives_no_sign_of_life(self):
        self.assertTrue(self.hears(b"READY=1", 30), "never ready")
        self.assertTrue(self.hears(b"WATCHDOG=1", 10), "no sign of life")
        self.node.send_signal(signal.SIGSTOP)
        # One may have been on its way.
        self.hears(b"WATCHDOG=1", 1)
        self.assertFalse(self.hears(b"WATCHDOG=1", 3), "a sign of life of a node that stands still")
        self.node.send_signal(signal.SIGCONT)
        self.assertTrue(self.hears(b"WATCHDOG=1", 15), "it goes on, and nobody hears of it")


class Install(InFolder):
    def install(self, *words):
        return run(HERE / "install.sh", "--root", self.folder, *words, QUORATE=str(PROGRAM))

    def test_twice_is_the_same_and_uninstall_keeps_data(self):
        node = ["--role", "coordinator", "--name", "c1", "--join", "127.0.0.2:7401"]
        first = self.install(*node)
        self.assertEqual(first.returncode, 0, first.stderr)
        files = tree(self.folder)
        again = self.install(*node)
        self.assertEqual((again.returncode, tree(self.folder)), (0, files), again.stderr)
        self.assertNotIn("mv ", again.stdout, "what is the same is not written again")
        (self.folder / "var/lib/quorate/kept").write_text("data")
        for _ in range(2):
            gone = self.install("--uninstall")
            self.assertEqual(gone.returncode, 0, gone.stderr)
            left = {str(path) for path in tree(self.folder)}
            self.assertEqual(left, {"etc/quorate/coordinator.toml", "var/lib/quorate/kept"})

    def test_folders_and_configurations_are_closed(self):
        done = self.install("--role", "worker", "--name", "w1")
        self.assertEqual(done.returncode, 0, done.stderr)
        modes = {"etc/quorate": 0o750, "etc/quorate/worker.toml": 0o640, "var/lib/quorate": 0o700}
        for path, mode in modes.items():
            self.assertEqual((self.folder / path).stat().st_mode & 0o777, mode, path)
        text = (self.folder / "etc/quorate/worker.toml").read_text()
        for line in ('name = "w1"', 'data_dir = "/var/lib/quorate/w1"', 'http = "127.0.0.1:7480"'):
            self.assertIn(f"\n{line}\n", text)

    def test_a_rehearsal_changes_nothing(self):
        done = self.install("--role", "worker", "--name", "w1", "--dry-run")
        self.assertEqual((done.returncode, tree(self.folder)), (0, {}), done.stderr)
        self.assertIn("usr/bin/quorate", done.stdout)

    def test_bad_words_are_refused_with_what_to_do(self):
        for words, said in [(["--role", "king"], "coordinator, worker"), (["--rule"], "--help"), (["--role"], "no value")]:
            done = self.install(*words)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn(said, done.stderr)
        missing = self.install("--role", "worker", "--name", "w1", "--pki", self.folder)
        self.assertEqual(missing.returncode, 1)
        self.assertIn("quorate cert node", missing.stderr)

    def test_a_configuration_that_the_program_refuses_is_not_installed(self):
        if run(PROGRAM, "config", "check", "--help").returncode != 0:
            self.skipTest(f"{PROGRAM} has no `config check`")
        # Beyond loopback and without certificates.
        done = self.install("--role", "worker", "--name", "w1", "--address", "10.0.0.1")
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertFalse((self.folder / "etc/quorate/worker.toml").exists())


class Dist(InFolder):
    def pack(self, name):
        program = self.folder / "quorate"
        program.write_text(STAND_IN)
        program.chmod(0o755)
        done = run(HERE / "dist.sh", self.folder / name, QUORATE=str(program), SOURCE_DATE_EPOCH="1700000000")
        self.assertEqual(done.returncode, 0, done.stderr)
        return self.folder / name

    def test_the_same_program_gives_the_same_bytes(self):
        first, second = self.pack("first"), self.pack("second")
        self.assertEqual(len(list(first.iterdir())), 3)
        self.assertEqual(tree(first), tree(second))

    def test_an_archive_holds_what_its_checksums_name(self):
        packed = next(self.pack("out").glob("*.tar.gz"))
        with tarfile.open(packed) as archive:
            archive.extractall(self.folder / "open", filter="data")
        top = next((self.folder / "open").iterdir())
        checked = subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=top, capture_output=True, text=True)
        self.assertEqual(checked.returncode, 0, checked.stdout)
        named = {line.split("./")[1] for line in (top / "SHA256SUMS").read_text().splitlines()}
        self.assertEqual(named | {"SHA256SUMS"}, {str(path) for path in tree(top)})
        dashboards = {path.name for path in (HERE / "grafana").glob("*.json")}
        self.assertEqual({path.name for path in (top / "monitoring").iterdir()}, dashboards | {"alerts.yml", "alerts.md"})

    def test_the_package_installs_and_asks_for_what_it_needs(self):
        package = next(self.pack("out").glob("*.deb"))
        fields = run("dpkg-deb", "--field", package).stdout
        self.assertRegex(fields, r"(?s)Package: quorate\nVersion: 9.9.9\n.*Depends: .*curl")
        extracted = self.folder / "root"
        self.assertEqual(run("dpkg-deb", "-x", package, extracted).returncode, 0)
        for path in ["usr/bin/quorate", "usr/lib/systemd/system/quorate-worker.service", "usr/share/quorate/install.sh", "usr/share/quorate/monitoring/alerts.yml"]:
            self.assertTrue((extracted / path).is_file(), path)
        self.assertFalse((extracted / "etc").exists(), "configurations are not the package's")


if __name__ == "__main__":
    unittest.main()
