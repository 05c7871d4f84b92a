"""The package as a whole: both faces alike, stubs that fit the API, plain values."""

from __future__ import annotations

import dataclasses
import inspect
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import quorate
from quorate import data
from quorate._proto import task_pb2
from quorate.admin import Agents, Cluster, Quotas
from quorate.aio.admin import AsyncAgents, AsyncCluster, AsyncQuotas
from quorate.aio.prices import AsyncPrices
from quorate.aio.schedules import AsyncSchedules
from quorate.aio.tasks import AsyncTasks
from quorate.aio.tools import AsyncTools
from quorate.prices import Prices
from quorate.schedules import Schedules
from quorate.tasks import Tasks
from quorate.tools import Tools

SDK = Path(__file__).parent.parent

PAIRS: list[tuple[type, type]] = [
    (quorate.Client, quorate.AsyncClient),
    (quorate.Task, quorate.AsyncTask),
    (quorate.Watch, quorate.AsyncWatch),
    (quorate.QuotaWatch, quorate.AsyncQuotaWatch),
    (Tasks, AsyncTasks),
    (Schedules, AsyncSchedules),
    (Tools, AsyncTools),
    (Agents, AsyncAgents),
    (Quotas, AsyncQuotas),
    (Prices, AsyncPrices),
    (Cluster, AsyncCluster),
]


def face(of: type) -> dict[str, tuple[list[str], str]]:
    """Names of the public methods, with parameters and documentation."""
    methods = {name: method for name, method in inspect.getmembers(of, callable) if not name.startswith("_")}
    words = {name: re.sub(r"\bAsync|\basync ", "", inspect.getdoc(method) or "") for name, method in methods.items()}
    return {name: (list(map(str, parameters(method))), words[name]) for name, method in methods.items()}


def parameters(method: object) -> list[inspect.Parameter]:
    assert callable(method)
    return list(inspect.signature(method).parameters.values())


@pytest.mark.parametrize(("sync", "other"), PAIRS, ids=lambda pair: pair.__name__)
def test_both_faces_have_the_same_methods(sync: type, other: type) -> None:
    assert face(sync) == face(other)
    assert [p.name for p in parameters(sync)] == [p.name for p in parameters(other)]


def test_the_stubs_are_those_of_the_protos(tmp_path: Path) -> None:
    subprocess.run([SDK / "generate.sh", tmp_path], check=True, timeout=60)
    made = {file.name: file.read_text() for file in tmp_path.iterdir()}
    kept = {file.name: file.read_text() for file in (SDK / "src/quorate/_proto").glob("*_pb2*.py*")}
    assert made.keys() == kept.keys(), "run sdk/python/generate.sh"
    for name, text in made.items():
        assert text == kept[name], f"{name} differs: run sdk/python/generate.sh"


def test_every_message_field_of_a_task_has_its_place() -> None:
    renamed = {
        "result": "result_text",
        "class": "klass",
        "create_time_ms": "create_time",
        "end_time_ms": "end_time",
        "deadline_ms": "deadline_time",
    }
    fields = {renamed.get(field.name, field.name) for field in task_pb2.Task.DESCRIPTOR.fields}
    assert fields == {field.name for field in dataclasses.fields(data.TaskData)}


def test_values_are_frozen_and_can_be_taken_apart() -> None:
    limit = quorate.Limit(1, 2, 3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        limit.used = 5  # type: ignore[misc]
    classes = [each for _, each in inspect.getmembers(data, inspect.isclass) if dataclasses.is_dataclass(each)]
    assert len(classes) > 15
    for each in classes:
        assert vars(each)["__dataclass_params__"].frozen, each


def test_what_is_installed_is_whole_and_typed(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(build, cwd=SDK, check=True, timeout=60, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    sources = SDK / "src"
    kept = {str(file.relative_to(sources)) for file in sources.rglob("*.py*") if file.suffix != ".pyc"}
    assert {"quorate/py.typed", *kept} <= names
    assert wheel.name.startswith(f"quorate-{quorate.__version__}-")
    use = "import quorate; quorate.Client(); print(quorate.__file__)"
    used = subprocess.run([sys.executable, "-c", use], check=True, capture_output=True, env={"PYTHONPATH": str(wheel)})
    assert str(wheel) in used.stdout.decode()


def test_everything_that_is_named_is_there() -> None:
    assert all(hasattr(quorate, name) for name in quorate.__all__)
