"""What the documentation and the examples show, against a real node with a scripted model."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import ROOT, Cluster
from quorate import Client

SCRIPT = """
[[reply]]
when_agent = "clerk"
when_results_below = 1
calls = [{ name = "files.write", arguments = '{"path": "note.txt", "text": "two of three"}' }]

[[reply]]
when_agent = "banker"
when_results_below = 1
calls = [{ name = "convert", arguments = '{"money": {"amount": 10, "currency": "EUR"}, "to": "USD"}' }]

[[reply]]
when_agent = "banker"
text = "It is {last}."

[[reply]]
text = "Understood."
"""


@pytest.fixture(scope="module")
def node() -> Iterator[Cluster]:
    with Cluster(1, 0, SCRIPT) as cluster:
        yield cluster


@pytest.fixture
def here(node: Cluster, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of the node, which is also in the environment; names of files are meant from the top."""
    monkeypatch.setenv("QUORATE_ENDPOINT", node.addresses()[0])
    monkeypatch.chdir(ROOT)
    return node.addresses()[0]


def blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)


def test_the_page_works_from_top_to_bottom(here: str, capsys: pytest.CaptureFixture[str]) -> None:
    with Client() as client:
        for name in ("reader", "writer", "team"):
            client.agents.apply((ROOT / f"examples/team/{name}.toml").read_text())
        names: dict[str, object] = {}
        shown = blocks(ROOT / "docs/python.md")
        assert len(shown) == 7
        for block in shown:
            # The first one closes the client that it made.
            names["client"] = client
            exec(compile(block.replace("127.0.0.1:7400", here), "docs/python.md", "exec"), names)
    printed = capsys.readouterr().out
    assert printed.startswith("Understood.") and "['Understood.', 'Understood.', 'Understood.']" in printed


def test_the_readme_of_the_package_works_as_written_once_it_is_installed(here: str, tmp_path: Path) -> None:
    (block,) = blocks(ROOT / "sdk/python/README.md")
    # What it needs is there already, and so is what builds it: nothing is asked of the network.
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", tmp_path / "site", ROOT / "sdk/python"], check=True, timeout=120)
    program = tmp_path / "readme.py"
    program.write_text(block.replace("127.0.0.1:7400", here))
    environment = {"PYTHONPATH": str(tmp_path / "site"), "PYTHONWARNINGS": "error"}
    done = subprocess.run(
        [sys.executable, program], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    asked, answered, result, cancelled = done.stdout.splitlines()
    assert asked.startswith("APPROVAL: files.write ") and "two of three" in asked
    assert (answered, result, cancelled) == ("Understood.", "The result: Understood.", "CANCELLED")


def test_the_page_about_serving_works_from_top_to_bottom(here: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = blocks(ROOT / "docs/serve.md")
    assert len(shown) == 2
    names: dict[str, object] = {"__name__": "serve"}
    for block in shown:
        # Names of types are looked up where a function was defined.
        exec(compile(block.replace("127.0.0.1:7400", here), "docs/serve.md", "exec", dont_inherit=True), names)
    first, second = capsys.readouterr().out.splitlines()
    assert first == 'It is {"amount": 11.0, "currency": "USD"}.'
    assert second == 'The answer to \'What do I get for 10 EUR?\' is {"amount": 11.0, "currency": "USD"}.'


def test_the_example_prints_the_report(here: str) -> None:
    run = [sys.executable, "examples/python/team.py", "docs/watch.md", "docs/quotas.md"]
    environment = {"QUORATE_ENDPOINT": here, "PYTHONPATH": str(ROOT / "sdk/python/src")}
    done = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "Understood.\n"), done.stderr
    assert "team SUCCEEDED" in done.stderr and done.stderr.count("prompt tokens") == 3
    nothing = subprocess.run(run[:2], env=environment, capture_output=True, text=True, timeout=60)
    assert nothing.returncode == 1 and "name some text files" in nothing.stderr
