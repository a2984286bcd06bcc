"""``daskexec clusters --running`` and ``--stop``."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from daskexec_testing import calls
from daskexec_testing.gates import Gates, eventually
from daskexec_testing.kept import all_gone, family, state_folder

from daskexec import DaskExecutor, _kept, _state
from daskexec.cli import cli

pytestmark = pytest.mark.timeout(120)

LIMIT = 30


@pytest.fixture(autouse=True)
def state(tmp_path: Path, gates: Gates) -> Iterator[Path]:
    with state_folder(tmp_path / "state") as folder:
        yield folder
        gates.open_all()


def clusters(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["clusters", *arguments])


def test_nothing_runs() -> None:
    """Where nothing runs it says so on stderr, and stdout is empty."""
    result = clusters("--running")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "No cluster" in result.stderr
    assert json.loads(clusters("--running", "--json").stdout) == []


def test_what_is_in_use() -> None:
    """A cluster that is in use is listed with its process, and can be stopped."""
    executor = DaskExecutor(1, cluster="local")
    (line,) = clusters("--running").stdout.splitlines()
    name, kind, address, _, used, calls_, end = line.split("\t")
    assert kind == "local"
    assert address == executor._client.scheduler.address
    assert (used, calls_) == (f"used by process {os.getpid()} on {os.uname().nodename}", "")
    assert end == "with that process"
    processes = family(_state.entries()[0].pid)
    result = clusters("--stop", name)
    assert (result.exit_code, result.stderr) == (0, f"{name}: ended\n")
    all_gone(processes)
    with pytest.raises(BrokenExecutor):  # submit, or the future
        executor.submit(calls.identity, 1).result(LIMIT)
    executor.shutdown()


def test_what_was_left(gates: Gates) -> None:
    """What was left is listed with its calls and its end; stopped, its results are kept."""
    executor = DaskExecutor(1, cluster="local")
    started = gates.gate()
    done = executor.submit(calls.identity, 1)
    assert done.result(LIMIT) == 1
    held = executor.submit(calls.hold, started, gates.gate())
    started.wait()
    executor.detach("night", futures={"done": done, "held": held}, keep="2d")
    (row,) = json.loads(clusters("--running", "--json").stdout)
    assert (row["name"], row["detached"], row["client"]) == ("night", True, None)
    assert (row["done"], row["pending"]) == (1, 1)
    assert row["ends"] == pytest.approx(time.time() + 2 * 86400, abs=60)
    (line,) = clusters("--running").stdout.splitlines()
    assert "1 done, 1 pending" in line
    assert f"left on {os.uname().nodename}" in line
    processes = family(row["pid"])
    result = clusters("--stop", "night", "--running")
    assert "night: ended; results are kept until" in result.stderr
    assert "ended" in result.stdout
    gates.open_all()
    all_gone(processes)
    with DaskExecutor.attach("night") as back:
        assert back.futures["done"].result(0) == 1
    assert "its results are removed" in clusters("--stop", "night").stderr
    assert _state.entries() == []


def test_wrong_name(gates: Gates) -> None:
    """A name that nothing has is an error that says which there are."""
    executor = DaskExecutor(1, cluster="local")
    executor.detach("night", idle_timeout=5)
    result = clusters("--stop", "nigth")
    assert result.exit_code == 1
    assert "'nigth'; there are: night" in result.stderr
    ends = _kept.tell(_state.entries()[0], "status")["ends"]
    assert ends == pytest.approx(time.time() + 5, abs=5)
    processes = family(_state.entries()[0].pid)
    all_gone(processes)
    eventually(lambda: not _state.entries(), "nothing of it is kept: it had no calls")
