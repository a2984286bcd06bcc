"""What is special about a cluster of one's own, and about its calls as Dask sees them."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from itertools import groupby

import psutil
import pytest
from daskexec_testing import calls
from daskexec_testing.gates import Gates

from daskexec import DaskExecutor


@pytest.fixture
def executor() -> Iterator[DaskExecutor]:
    with DaskExecutor(2) as executor:
        yield executor


def test_processes_are_replaced_after_so_many_calls() -> None:
    """With max_tasks_per_child=3, each worker process runs three calls, and none is lost."""
    with DaskExecutor(1, max_tasks_per_child=3) as executor:
        pids = [future.result(60) for future in [executor.submit(os.getpid) for _ in range(10)]]
    assert [len(list(group)) for _, group in groupby(pids)] == [3, 3, 3, 1]


def test_nothing_listens_beyond_loopback(executor: DaskExecutor) -> None:
    """Scheduler and workers, their HTTP servers included, listen on 127.0.0.1 alone."""
    executor.submit(abs, 1).result(60)
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    listening = {
        connection.laddr.ip
        for process in processes
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}


@pytest.mark.skipif(importlib.util.find_spec("bokeh") is not None, reason="bokeh is there")
def test_a_dashboard_needs_bokeh() -> None:
    """Asking for the dashboard without bokeh says what to install, and starts nothing."""
    with pytest.raises(ModuleNotFoundError, match=r"daskexec\[dashboard\]"):
        DaskExecutor(1, dashboard=True)


def test_dask_future_of_a_pending_call(executor: DaskExecutor, gates: Gates) -> None:
    """The Dask future of a call that runs has the call's key, and its plain value later."""
    gate = gates.gate()
    future = executor.submit(calls.wait_for, gate, 5)
    dask_future = future.dask_future
    assert dask_future.key == future.key
    assert dask_future.client.submit(abs, dask_future).status == "pending"
    gate.open()
    assert dask_future.result(60) == 5
    assert dask_future.client.submit(pow, dask_future, 2).result(60) == 25
    assert future.result(60) == 5


def test_dask_future_of_a_finished_call(executor: DaskExecutor) -> None:
    """A call that is done has a Dask future too, though its task is gone."""
    future = executor.submit(pow, 2, 10)
    assert future.result(60) == 1024
    assert future.dask_future.result(60) == 1024


def test_dask_future_of_a_queued_call(executor: DaskExecutor) -> None:
    """Asking for the Dask future of a call far back in the queue does not wait for the queue."""
    futures = [executor.submit(calls.identity, i) for i in range(500)]
    assert futures[-1].dask_future.result(60) == 499


def test_dask_future_of_a_failed_call(executor: DaskExecutor) -> None:
    """The Dask future of a call that raised raises the same."""
    future = executor.submit(divmod, 1, 0)
    with pytest.raises(ZeroDivisionError):
        future.dask_future.result(60)


def test_retries_run_a_failing_call_again(executor: DaskExecutor, gates: Gates) -> None:
    """retries=2 runs a call that raises three times in all; its future fails once."""
    journal = gates.journal()
    future = executor.with_options(retries=2, name="flaky").submit(
        calls.note_then_fail, journal, "x"
    )
    with pytest.raises(ValueError, match="x"):
        future.result(60)
    assert len(journal.lines()) == 3
    assert future.key.startswith("flaky-")


def test_higher_priority_starts_first() -> None:
    """Of what is queued, calls with a higher priority start first."""
    with DaskExecutor(1) as executor:
        early = [executor.submit(calls.identity, i) for i in range(200)]
        urgent = executor.with_options(priority=5).submit(calls.identity, "urgent")
        assert urgent.result(60) == "urgent"
        assert not early[-1].done()
