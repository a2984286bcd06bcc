"""What a future knows of its call: on an own cluster, and on one that runs already."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import wait
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from daskexec_testing import calls
from daskexec_testing.gates import Gates, eventually
from daskexec_testing.leaks import sharing
from daskexec_testing.processes import running_cluster

from daskexec import CallOutput, DaskExecutor, DaskFuture, WorkerDied

pytestmark = pytest.mark.timeout(120)

LIMIT = 60


@pytest.fixture(scope="module", params=["own", "remote"])
def pool(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[DaskExecutor, list[str]]]:
    """Two workers, and their names."""
    with ExitStack() as stack:
        with sharing():
            if request.param == "own":
                executor, names = stack.enter_context(DaskExecutor(2)), ["0", "1"]
            else:
                context = running_cluster(tmp_path_factory.mktemp("cluster"))
                cluster = stack.enter_context(context)
                executor = stack.enter_context(DaskExecutor(cluster=cluster.address))
                names = ["w0", "w1"]
            for address in addresses_of(executor, names, []).values():
                executor.with_options(workers=[address]).submit(calls.identity, 1).result(LIMIT)
        yield executor, names


def addresses_of(executor: DaskExecutor, names: list[str], old: list[str]) -> dict[str, str]:
    """The addresses of the workers of these names, once they are there and none is an old one."""
    found: dict[str, str] = {}

    def there() -> bool:
        workers = executor._dispatcher.line().backend.describe_workers()
        found.clear()
        found.update({one["name"]: one["address"] for one in workers})
        return set(names) <= set(found) and not set(old) & set(found.values())

    eventually(there, "the workers are there", 30)
    return found


def check(future: DaskFuture[Any], name: str, text: str) -> int:
    """Compare what a future knows with what the call has seen; return its process."""
    pid, address, worker_name, host = future.result(LIMIT)
    info = future.info()
    assert (info.pid, info.worker, info.worker_name, info.host) == (pid, address, name, host)
    assert worker_name == name
    assert (info.name, info.key, info.shared, info.exact) == ("talk", future.key, 1, True)
    assert info.attempts == 1
    assert info.submitted is not None
    assert info.started is not None
    assert info.finished is not None
    assert info.submitted <= info.started <= info.finished <= datetime.now(timezone.utc)
    assert info.seconds is not None
    assert 0 < info.seconds < 30
    assert info.argument_bytes is not None
    assert info.argument_bytes > len(text)
    assert info.result_bytes is not None
    assert info.result_bytes > len(address)
    said(future.output, text)
    return pid


def said(output: CallOutput | None, text: str) -> None:
    assert output is not None
    assert output.stdout == f"out {text}\n"
    assert f"err {text}\n" in output.stderr
    (record,) = output.records
    assert (record.name, record.getMessage()) == ("talk", f"log {text}")
    assert text in record.place  # type: ignore[attr-defined]
    assert output.dropped == 0


def test_workers_tell_of_their_calls(pool: tuple[DaskExecutor, list[str]]) -> None:
    """What is known is right for each worker, also when one of them has died and come again."""
    executor, names = pool
    addresses = addresses_of(executor, names, [])
    for attempt in ("first", "second"):
        futures = {
            name: executor.with_options(workers=[address], capture_output=True).submit(
                calls.talk, f"{attempt} {name}"
            )
            for name, address in addresses.items()
        }
        wait(futures.values(), timeout=LIMIT)
        pids = {name: check(future, name, f"{attempt} {name}") for name, future in futures.items()}
        if attempt == "first":
            killed = pids[names[0]]
            os.kill(killed, signal.SIGKILL)
            addresses = addresses_of(executor, names, [addresses[names[0]]])
    assert pids[names[0]] != killed


def test_at_any_moment(pool: tuple[DaskExecutor, list[str]], tmp_path: Path) -> None:
    """What is known of a call grows from its submit on; what is not known yet is None."""
    executor, _ = pool
    gates = Gates(tmp_path)
    started, release = [gates.gate(), gates.gate()], gates.gate()
    try:
        running = [executor.submit(calls.hold, gate, release) for gate in started]
        for gate in started:
            gate.wait()
        queued = executor.submit(calls.identity, 1)
        eventually(lambda: running[0].info().attempts == 1, "it is known to run", 10)
        info = running[0].info()
        assert info.worker
        assert info.started is not None
        assert (info.finished, info.seconds, info.result_bytes) == (None, None, None)
        info = queued.info()
        assert (info.worker, info.started, info.attempts, info.shared) == (None, None, 0, None)
        assert info.submitted is not None
        assert queued.output is None
        assert queued.cancel()
        assert queued.info() == info or queued.info().argument_bytes is None
    finally:
        gates.open_all()
    wait(running, timeout=LIMIT)
    info = running[0].info()
    assert info.finished is not None
    assert running[0].output is None


def test_another_attempt(pool: tuple[DaskExecutor, list[str]], tmp_path: Path) -> None:
    """Of a call that was run again it is the last attempt that is known, and how many there were.

    Also when all have failed.
    """
    executor, _ = pool
    view = executor.with_options(retries=2, capture_output=True)
    future = view.submit(calls.talk, "again", tmp_path / "tries")
    future.result(LIMIT)
    assert future.info().attempts == 3
    said(future.output, "again")
    view = executor.with_options(retries=1, capture_output=True)
    failing = view.submit(calls.talk, "in vain", tmp_path / "others")
    assert str(failing.exception(LIMIT)) == "try 2"
    info = failing.info()
    assert (info.attempts, info.result_bytes) == (2, None)
    assert info.finished is not None
    said(failing.output, "in vain")


def test_calls_that_share_a_task(pool: tuple[DaskExecutor, list[str]]) -> None:
    """They say so, and know the means; a map that captures nothing runs as ever."""
    executor, names = pool
    for _ in range(3):
        futures = [executor.submit(calls.identity, i) for i in range(1000)]
        wait(futures, timeout=LIMIT)
    # The last ones may have come when all others had been sent.
    info = max((future.info() for future in futures), key=lambda info: info.shared or 0)
    assert info.shared is not None
    assert info.shared > 1
    assert not info.exact
    assert info.worker_name in names
    assert info.seconds is not None
    assert 0 < info.seconds < 0.1
    assert info.result_bytes is not None
    assert 1 < info.result_bytes < 100
    assert list(executor.with_options(capture_output=True).map(calls.identity, "ab")) == ["a", "b"]


@pytest.mark.parametrize("pool", ["own"], indirect=True)
def test_a_call_that_ends_its_worker(pool: tuple[DaskExecutor, list[str]]) -> None:
    """It knows the worker that died of it; what it wrote is lost."""
    executor, names = pool
    future = executor.with_options(capture_output=True).submit(calls.exit_hard)
    assert isinstance(future.exception(LIMIT), WorkerDied)
    info = future.info()
    assert info.worker_name in names
    assert info.pid
    assert (info.attempts, info.finished, info.result_bytes) == (1, None, None)
    assert future.output is None
    assert str(info.pid) in str(future.exception())
