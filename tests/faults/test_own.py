"""Faults of calls on a cluster of one's own."""

from __future__ import annotations

import ctypes
import os
import time
from concurrent.futures import BrokenExecutor, wait
from typing import Any

import pytest
from daskexec_testing import calls
from daskexec_testing.gates import Gate, Gates, eventually, said

from daskexec import DaskExecutor, WorkerDied

pytestmark = pytest.mark.timeout(60)

LIMIT = 30


def _eat(megabytes: int) -> int:
    eaten = []
    for _ in range(megabytes // 20):
        eaten.append(b"x" * (20 << 20))
        time.sleep(0.01)
    return len(eaten)


def _hold_the_gil(started: Gate) -> str:
    started.open()
    ctypes.PyDLL(None).sleep(6)  # it does not let go of the GIL, as CDLL would
    return "over"


def _note_and_die(journal: Any) -> None:
    journal.write("x")
    os._exit(3)


def _nested_killer(executor: DaskExecutor, journal: Any) -> str:
    error = executor.submit(_note_and_die, journal).exception(LIMIT)
    assert isinstance(error, BrokenExecutor), error
    return str(error)


def test_memory_limit() -> None:
    """A call that exceeds its worker's memory fails with what was used and the limit."""
    with DaskExecutor(2, memory_limit="400MiB") as executor:
        future = executor.submit(_eat, 2000)
        others = [executor.submit(calls.nap, 0.01, i) for i in range(40)]
        error = future.exception(LIMIT)
        assert isinstance(error, WorkerDied)
        assert "memory" in error.reason
        assert "of its limit of 400 MiB" in error.reason
        assert error.attempts == 1
        assert [other.result(LIMIT) for other in others] == list(range(40))


def test_killer_in_a_call_of_a_call(gates: Gates) -> None:
    """A call that a call has submitted, and that kills its worker, is begun once."""
    journal = gates.journal()
    with DaskExecutor(2) as executor:
        told = executor.submit(_nested_killer, executor, journal).result(LIMIT)
    assert "_note_and_die" in told
    assert journal.lines() == ["x"]


@pytest.mark.parametrize("size", [1 << 20, 4 << 20])
def test_results_that_have_not_been_fetched(size: int) -> None:
    """What a killer's worker had finished just before is kept: two large results at least."""
    with DaskExecutor(1) as executor:
        assert executor.submit(calls.identity, 1).result(LIMIT) == 1
        for _ in range(5):
            results = [executor.submit(calls.filled, size) for _ in range(2)]
            killer = executor.submit(calls.exit_hard)
            assert [len(future.result(LIMIT)) for future in results] == [size] * 2
            assert isinstance(killer.exception(LIMIT), WorkerDied)


def _hold_the_gil_soon() -> str:
    time.sleep(0.03)  # others are sent meanwhile; less than makes a call slow
    ctypes.PyDLL(None).sleep(16)
    return "over"


def _note_slowly(journal: Any, line: int) -> None:
    time.sleep(0.02)
    journal.write(line)


def test_calls_behind_one_that_holds_the_gil(
    gates: Gates, recwarn: pytest.WarningsRecorder
) -> None:
    """What was sent to its worker before runs elsewhere, once; a warning comes meanwhile."""
    journal = gates.journal()
    with DaskExecutor(2, sharing="never", warn_after=1) as executor:
        assert executor.submit(calls.identity, 1).result(LIMIT) == 1
        future = executor.submit(_hold_the_gil_soon)
        others = [executor.submit(_note_slowly, journal, i) for i in range(300)]
        assert not wait(others, 14).not_done  # with something to hear of nearly all the time
        assert not future.done()
        assert said("holds the GIL", recwarn)
        assert future.result(LIMIT) == "over"
    assert sorted(map(int, journal.lines())) == list(range(300))


def test_a_call_holds_the_gil(gates: Gates, recwarn: pytest.WarningsRecorder) -> None:
    """Its worker gives no sign, which a warning says; others go on; it ends as it would."""
    started = gates.gate()
    with DaskExecutor(2, warn_after=1) as executor:
        future = executor.submit(_hold_the_gil, started)
        started.wait()
        others = [executor.submit(calls.nap, 0.01, i) for i in range(40)]
        assert not wait(others, LIMIT).not_done
        eventually(lambda: said("holds the GIL", recwarn), "a warning comes")
        assert future.result(LIMIT) == "over"
