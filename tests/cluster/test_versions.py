"""Workers that have not what this process has: no daskexec, or another version of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor
from pathlib import Path

import pytest
from daskexec_testing import calls
from daskexec_testing.processes import Cluster, running_cluster
from distributed import Client

pytestmark = pytest.mark.timeout(120)

LIMIT = 30

WITHOUT = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "daskexec":
            raise ModuleNotFoundError("No module named 'daskexec'", name="daskexec")

sys.meta_path.insert(0, Blocked())
"""
OLDER = "import daskexec\ndaskexec.__version__ = '0.0.1'\n"


def add(cluster: Cluster, folder: Path, preload: str) -> None:
    path = folder / "preloaded.py"
    path.write_text(preload)
    cluster.add_worker("odd", 1, "--no-nanny", "--preload", str(path))


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with running_cluster(tmp_path, 0) as running:
        yield running


@pytest.mark.parametrize("initializer", [None, calls.identity])
def test_daskexec_is_missing_on_the_workers(
    cluster: Cluster, tmp_path: Path, initializer: object
) -> None:
    """Every call fails at once, and is told where and what to install."""
    from daskexec import DaskExecutor

    add(cluster, tmp_path, WITHOUT)
    with Client(cluster.address, set_as_default=False) as client:
        client.wait_for_workers(1, LIMIT)
    with DaskExecutor(cluster=cluster.address, initializer=initializer, initargs=(1,)) as ex:  # type: ignore[arg-type]
        error = ex.submit(calls.identity, 1).exception(LIMIT)
        assert isinstance(error, BrokenExecutor)
        assert f"daskexec is not installed where workers run ({sys.executable} on" in str(error)
        assert "pip install daskexec==" in str(error)
    assert cluster.alive()


def test_daskexec_is_missing_on_a_worker_that_comes_later(
    cluster: Cluster, tmp_path: Path
) -> None:
    """So it is where calls have waited for the first worker: it does not just end."""
    from daskexec import DaskExecutor

    with DaskExecutor(cluster=cluster.address) as executor:
        futures = [executor.submit(calls.identity, i) for i in range(20)]
        add(cluster, tmp_path, WITHOUT)
        for future in futures:
            with pytest.raises(BrokenExecutor, match="daskexec is not installed"):
                future.result(LIMIT)
    assert cluster.alive()


def test_calls_that_wait_for_the_first_worker(cluster: Cluster) -> None:
    """They run when it has come, can be cancelled before, and the rest is as ever."""
    from daskexec import DaskExecutor

    with DaskExecutor(cluster=cluster.address, initializer=calls.identity, initargs=(1,)) as ex:
        futures = [ex.submit(calls.identity, i) for i in range(50)]
        large = ex.submit(len, b"x" * 3_000_000)
        assert futures[0].cancel()
        assert futures[30].cancel()
        cluster.add_worker("first")
        values = [future.result(LIMIT) for future in futures if not future.cancelled()]
        assert values == [i for i in range(50) if i not in (0, 30)]
        assert large.result(LIMIT) == 3_000_000


def test_another_version_there(cluster: Cluster, tmp_path: Path) -> None:
    """A warning says so, once."""
    from daskexec import DaskExecutor, ExecutorWarning

    add(cluster, tmp_path, OLDER)
    with Client(cluster.address, set_as_default=False) as client:
        client.wait_for_workers(1, LIMIT)
    with pytest.warns(ExecutorWarning) as caught, DaskExecutor(cluster=cluster.address) as ex:
        assert list(ex.map(calls.identity, range(20))) == [*range(20)]
    said = [str(warning.message) for warning in caught]
    assert len([line for line in said if line.startswith("daskexec is ")]) == 1, said
    assert "workers: 0.0.1" in said[0]
