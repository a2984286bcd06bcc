"""What is special about a cluster of one's own, and about its calls as Dask sees them."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import urllib.request
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


@pytest.mark.skipif(importlib.util.find_spec("bokeh") is None, reason="needs bokeh")
def test_dashboard() -> None:
    """With dashboard=True, scheduler and workers serve HTTP."""
    with DaskExecutor(2, dashboard=True) as executor:
        client = executor.submit(abs, 1).dask_future.client
        client.wait_for_workers(2)
        info = client.scheduler_info(n_workers=-1)
        ports = [info["services"]["dashboard"]]
        ports += [worker["services"]["dashboard"] for worker in info["workers"].values()]
        for path in (f"{ports[0]}/status", *(f"{port}/health" for port in ports)):
            with urllib.request.urlopen(f"http://127.0.0.1:{path}", timeout=30) as page:
                assert page.status == 200


def test_the_spawner_does_not_wait_for_the_import() -> None:
    """The constructor starts the process of the workers, before distributed is imported here."""
    script = """
import psutil, sys
from daskexec import DaskExecutor, clusters
own = clusters.own
def spy(*args):
    connect = own(*args)
    print(len(psutil.Process().children()), "distributed" in sys.modules)
    return connect
clusters.own = spy
with DaskExecutor(1) as executor:
    print(executor.submit(pow, 2, 3).result())
"""
    assert _output(script) == ["1 False", "8"]


def test_the_garbage_collector_is_left_as_it_was() -> None:
    """Importing distributed in the background changes no setting of gc, nor does it in workers."""
    script = """
import gc
from daskexec import DaskExecutor
gc.set_threshold(500, 7, 9)
frozen = gc.get_freeze_count()
def settings():
    import gc, yaml
    return gc.isenabled(), yaml.SafeLoader is yaml.CSafeLoader
with DaskExecutor(1) as executor:
    print(executor.submit(settings).result())
    print(gc.isenabled(), gc.get_threshold(), gc.get_freeze_count() == frozen)
"""
    assert _output(script) == ["(True, False)", "True (500, 7, 9) True"]


def test_a_collector_that_is_off_stays_off() -> None:
    """A gc.disable() while distributed is being imported holds."""
    script = """
import gc
from daskexec import DaskExecutor
with DaskExecutor(1) as executor:
    gc.disable()
    executor.submit(abs, 1).result()
    print(gc.isenabled())
"""
    assert _output(script) == ["False"]


def _output(script: str) -> list[str]:
    """What a program of its own prints; it must not complain."""
    path = f"import sys; sys.path[:] = {sys.path!r}\n"
    ended = subprocess.run(
        [sys.executable, "-c", path + script], capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout.splitlines()


def test_many_workers_end() -> None:
    """Of eight workers with an initializer no process is left after the shutdown."""
    before = set(psutil.Process().children(recursive=True))
    executor = DaskExecutor(8, initializer=calls.identity, initargs=(1,))
    client = executor.submit(abs, 1).dask_future.client
    client.wait_for_workers(8)
    executor.shutdown()
    assert set(psutil.Process().children(recursive=True)) <= before


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
