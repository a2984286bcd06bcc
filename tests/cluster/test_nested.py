"""Calls of calls: `DaskExecutor.current()` and executors among the arguments."""

from __future__ import annotations

import pickle
import random
from collections.abc import Iterator
from concurrent.futures import wait
from pathlib import Path

import pytest
from daskexec_testing import calls
from daskexec_testing.gates import Gates, eventually
from daskexec_testing.leaks import sharing
from daskexec_testing.processes import running_cluster

from daskexec import DaskExecutor

pytestmark = pytest.mark.timeout(90)

LIMIT = 60


@pytest.fixture(scope="module")
def own() -> Iterator[DaskExecutor]:
    """One worker of one thread, with an initializer."""
    with sharing():
        executor = DaskExecutor(1, initializer=calls.initialize, initargs=("set", "up"))
        executor.submit(calls.identity, 1).result(LIMIT)
    with executor:
        yield executor


def sorts_deep(executor: DaskExecutor, size: int = 200) -> bool:
    values = [random.random() for _ in range(size)]
    return executor.submit(calls.quicksort, values, 8).result(LIMIT) == sorted(values)


def test_deep_recursion(own: DaskExecutor) -> None:
    """A quicksort of depth 8 with two calls at each step finishes on one thread."""
    assert sorts_deep(own, 3000)  # 500 calls, of which 200 wait at once


def test_deep_recursion_elsewhere(tmp_path: Path) -> None:
    """Also on a cluster that runs already."""
    with running_cluster(tmp_path, 1) as cluster, DaskExecutor(cluster=cluster.address) as ex:
        assert sorts_deep(ex)


def test_deep_recursion_in_a_keeper() -> None:
    """Also on a cluster from a config, which has a process of its own."""
    with DaskExecutor(1, cluster="local") as executor:
        assert sorts_deep(executor)


def test_outside_of_calls() -> None:
    """There is no current executor: the error says what it is for."""
    with pytest.raises(RuntimeError, match="for code that a DaskExecutor runs"):
        DaskExecutor.current()


def test_one_for_all_calls_of_a_process(own: DaskExecutor) -> None:
    """All calls of a process have the same one, which an executor in an argument becomes too."""
    found = {own.submit(calls.current_ids).result(LIMIT) for _ in range(3)}
    found.add(own.submit(calls.current_ids, own).result(LIMIT))
    assert len(found) == 1


def test_initializer(own: DaskExecutor) -> None:
    """Calls of calls find what the executor's initializer has left, too."""
    assert own.submit(calls.initialized_inside).result(LIMIT) == ["set", "up"]


def test_shutdown_inside(own: DaskExecutor) -> None:
    """Shutting the current executor down ends neither the outer one nor the next calls'."""
    assert own.submit(calls.shut_down_inside).result(LIMIT) == 2
    assert own.submit(calls.identity, 3).result(LIMIT) == 3


def test_left_pending(own: DaskExecutor, gates: Gates) -> None:
    """A call that is pending when the call that submitted it returns finishes."""
    journal, gate = gates.journal(), gates.gate()
    own.submit(calls.leave_pending, journal, gate).result(LIMIT)
    assert journal.lines() == []
    gate.open()
    eventually(lambda: journal.lines() == ["finished"], "the call has finished", 30)


def test_every_way_to_wait(own: DaskExecutor) -> None:
    """However a call waits for its calls, they run."""
    future = own.submit(calls.wait_in_all_ways, own)
    assert future.result(LIMIT) == [1, 2, 3, 4, 5]


def test_views(own: DaskExecutor) -> None:
    """A view among the arguments keeps its options."""
    view = own.with_options(name="viewed", capture_output=True)
    name, output = own.submit(calls.inside_a_view, view).result(LIMIT)
    assert (name, output) == ("viewed", "out nested\n")


def test_no_certificates_in_the_pickle(own: DaskExecutor) -> None:
    """An executor travels as its id, its scheduler's address and its options: no more."""
    _, parts = own.__reduce__()
    assert [type(part).__name__ for part in parts] == ["str", "str", "CallOptions"]
    assert len(pickle.dumps(own)) < 500


def test_ends_with_its_worker(caplog: pytest.LogCaptureFixture) -> None:
    """When a worker ends so does what its calls used, and the scheduler hears of it in time."""
    from distributed import LocalCluster

    local = LocalCluster(1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0")
    with local as cluster, DaskExecutor(cluster=cluster) as executor:
        executor.submit(calls.shut_down_inside).result(LIMIT)
        executor.submit(calls.current_ids).result(LIMIT)
    assert [record for record in caplog.records if record.levelname == "CRITICAL"] == []


def test_behind_a_call_that_waits(gates: Gates) -> None:
    """What shares a task with a call that waits for its own calls does not wait for it."""
    with DaskExecutor(1, sharing="always") as executor:
        for _ in range(3):
            wait([executor.submit(calls.nest_or_open) for _ in range(200)], timeout=LIMIT)
        futures = []
        for gate in [gates.gate() for _ in range(20)]:
            futures += [
                executor.submit(calls.nest_or_open, gate, nests=nests) for nests in (True, False)
            ]
        for future in futures:
            future.result(LIMIT)
    pairs = zip(futures[::2], futures[1::2], strict=True)
    assert any((one.info().shared or 0) > 1 for pair in pairs for one in pair)
