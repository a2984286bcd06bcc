"""Calls for workers that are named: where they run, and what becomes of them without these."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import wait
from pathlib import Path

import pytest
from daskexec_testing import calls
from daskexec_testing.gates import eventually
from daskexec_testing.processes import running_cluster

from daskexec import DaskExecutor, ExecutorWarning

pytestmark = pytest.mark.timeout(120)

LIMIT = 30


def where(_: object = None) -> str:
    from distributed import get_worker

    return str(get_worker().name)


@pytest.fixture(params=["own", "given"])
def pool(request: pytest.FixtureRequest) -> Iterator[tuple[DaskExecutor, list[str]]]:
    """Two workers, and their names."""
    if request.param == "own":
        with DaskExecutor(2) as executor:
            yield executor, ["0", "1"]
    else:
        address = request.getfixturevalue("cluster").address
        with DaskExecutor(cluster=address) as executor:
            yield executor, ["w0", "w1"]


def test_by_name(pool: tuple[DaskExecutor, list[str]]) -> None:
    """A call runs on the worker that it names, by submit and by map, also of several."""
    executor, names = pool
    for name in names:
        options = executor.with_options(workers=[name])
        assert {options.submit(where).result(LIMIT) for _ in range(3)} == {name}
        assert set(options.map(where, range(20), timeout=LIMIT)) == {name}
    either = executor.with_options(workers=["nobody", names[1]])
    assert either.submit(where).result(LIMIT) == names[1]


def test_by_host(pool: tuple[DaskExecutor, list[str]]) -> None:
    """A host, as it is in the addresses of its workers, is as good as their names."""
    executor, names = pool
    assert executor.with_options(workers="127.0.0.1").submit(where).result(LIMIT) in names


def test_a_worker_that_joins_later(tmp_path: Path) -> None:
    """Calls that name it wait for it, as a warning says, and hold up no others."""
    with (
        running_cluster(tmp_path, 1) as cluster,
        DaskExecutor(cluster=cluster.address, warn_after=2) as ex,
    ):
        futures = [ex.with_options(workers=["late"]).submit(where) for _ in range(20)]
        assert list(ex.map(abs, range(1000), timeout=LIMIT)) == list(range(1000))
        eventually(lambda: bool(ex.stats()["pending"] == 20), "only these wait", LIMIT)
        with pytest.warns(ExecutorWarning, match="worker late.*there are: w0"):
            wait(futures, 5)
        assert not any(future.done() for future in futures)
        assert futures.pop().cancel()
        cluster.add_worker("late")
        assert {future.result(LIMIT) for future in futures} == {"late"}


def test_a_worker_that_is_replaced_under_its_name() -> None:
    """Calls that name it run on its successor, those that waited behind the end of it, too."""
    with DaskExecutor(2) as executor:
        options = executor.with_options(workers=["1"])
        pid = options.submit(os.getpid).result(LIMIT)
        running = options.submit(calls.nap, 60)
        eventually(running.running, "it runs", LIMIT)
        waiting = [options.submit(os.getpid) for _ in range(20)]
        os.kill(pid, signal.SIGKILL)
        found = {future.result(LIMIT) for future in waiting}
        assert pid not in found
        assert options.submit(where).result(LIMIT) == "1"
        assert running.exception(LIMIT) is not None
