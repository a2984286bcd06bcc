"""States: a future is running when its call runs, and cancel tells the truth."""

from __future__ import annotations

from concurrent.futures import CancelledError, Executor, wait

import pytest
from daskexec_testing import calls
from daskexec_testing.gates import Gates, eventually


def test_running_when_it_runs(executor: Executor, gates: Gates) -> None:
    """running() becomes True while the call runs, and False when it is done."""
    started, release = gates.gate(), gates.gate()
    future = executor.submit(calls.hold, started, release)
    started.wait()
    eventually(future.running, "the future says running", 5)
    assert not future.done()
    release.open()
    future.result()
    assert not future.running()
    assert future.done()


def test_running_cannot_be_cancelled(executor: Executor, gates: Gates) -> None:
    """cancel() of a running call returns False and changes nothing."""
    started, release = gates.gate(), gates.gate()
    future = executor.submit(calls.hold, started, release, 6)
    started.wait()
    eventually(future.running, "the future says running", 5)
    assert future.cancel() is False
    assert not future.cancelled()
    release.open()
    assert future.result() == 6


def test_finished_cannot_be_cancelled(executor: Executor) -> None:
    """cancel() of a finished call returns False and keeps the result."""
    future = executor.submit(calls.identity, 6)
    future.result()
    assert future.cancel() is False
    assert future.result() == 6


def test_pending_is_cancelled_and_never_runs(single: Executor, gates: Gates) -> None:
    """cancel() of a waiting call returns True, wakes its waiters, and the call never runs."""
    started, release = gates.gate(), gates.gate()
    journal = gates.journal()
    first = single.submit(calls.hold, started, release)
    started.wait()
    others = [single.submit(calls.note, journal, i) for i in range(20)]
    # The last ones: an executor may have handed the next few to the worker already.
    cancelled = others[10:]
    assert all(future.cancel() for future in cancelled)
    assert all(future.cancelled() for future in cancelled)
    with pytest.raises(CancelledError):
        cancelled[0].result()
    with pytest.raises(CancelledError):
        cancelled[0].exception()
    release.open()
    first.result()
    assert not wait(others, timeout=30).not_done
    single.submit(calls.identity, 0).result()
    assert journal.lines() == [str(i) for i in range(10)]


def test_cancelled_twice(single: Executor, gates: Gates) -> None:
    """cancel() of a cancelled call returns True again."""
    started, release = gates.gate(), gates.gate()
    single.submit(calls.hold, started, release)
    started.wait()
    waiting = [single.submit(calls.identity, i) for i in range(10)]
    assert waiting[-1].cancel()
    assert waiting[-1].cancel()
    release.open()
    assert [future.result() for future in waiting[:-1]] == list(range(9))


def test_cancel_one_of_two_equal_calls(single: Executor, gates: Gates) -> None:
    """Cancelling one of two equal calls leaves the other."""
    started, release = gates.gate(), gates.gate()
    journal = gates.journal()
    single.submit(calls.hold, started, release)
    started.wait()
    others = [single.submit(calls.identity, i) for i in range(10)]
    kept = single.submit(calls.note, journal, "same")
    dropped = single.submit(calls.note, journal, "same")
    assert dropped.cancel()
    release.open()
    assert kept.result(30) == "same"
    assert not wait([*others, dropped], timeout=30).not_done
    assert dropped.cancelled()
    assert journal.lines() == ["same"]


def test_two_calls_that_wait_for_each_other(executor: Executor, gates: Gates) -> None:
    """Two calls that need each other both run when two workers are free."""
    one, other = gates.gate(), gates.gate()
    futures = [
        executor.submit(calls.wait_for_other, one, other),
        executor.submit(calls.wait_for_other, other, one),
    ]
    assert [future.result(30) for future in futures] == [True, True]


def test_two_waiting_calls_after_many_short_ones(executor: Executor, gates: Gates) -> None:
    """Calls that need each other both run even if their like were always quick before."""
    ready = gates.gate()
    ready.open()
    for future in [executor.submit(calls.wait_for_other, ready, ready) for _ in range(300)]:
        future.result()
    one, other = gates.gate(), gates.gate()
    futures = [
        executor.submit(calls.wait_for_other, one, other),
        *[executor.submit(calls.wait_for_other, ready, ready) for _ in range(50)],
        executor.submit(calls.wait_for_other, other, one),
    ]
    assert all(future.result(30) for future in futures)


def test_slow_call_does_not_hold_its_neighbours(executor: Executor, gates: Gates) -> None:
    """Calls submitted right after one that blocks finish on the other worker."""
    ready, release = gates.gate(), gates.gate()
    ready.open()
    for future in [executor.submit(calls.wait_for, ready, i) for i in range(300)]:
        future.result()
    slow = executor.submit(calls.wait_for, release, "slow")
    quick = [executor.submit(calls.wait_for, ready, i) for i in range(100)]
    assert [future.result(30) for future in quick] == list(range(100))
    assert not slow.done()
    release.open()
    assert slow.result() == "slow"
