"""wait and as_completed of the standard library work on the futures."""

from __future__ import annotations

import time
from concurrent.futures import (
    ALL_COMPLETED,
    FIRST_COMPLETED,
    FIRST_EXCEPTION,
    Executor,
    ThreadPoolExecutor,
    TimeoutError,
    as_completed,
    wait,
)

import pytest
from daskexec_testing import calls
from daskexec_testing.gates import Gates


def test_first_completed(executor: Executor, gates: Gates) -> None:
    """FIRST_COMPLETED returns with the first that is done."""
    release = gates.gate()
    slow = executor.submit(calls.wait_for, release)
    quick = executor.submit(calls.identity, 1)
    done, not_done = wait([slow, quick], timeout=30, return_when=FIRST_COMPLETED)
    assert (done, not_done) == ({quick}, {slow})
    release.open()


def test_first_exception(executor: Executor, gates: Gates) -> None:
    """FIRST_EXCEPTION returns with the first that fails."""
    release = gates.gate()
    good = executor.submit(calls.identity, 1)
    good.result()
    slow = executor.submit(calls.wait_for, release)
    bad = executor.submit(calls.fail)
    done, not_done = wait([good, slow, bad], timeout=30, return_when=FIRST_EXCEPTION)
    assert (done, not_done) == ({good, bad}, {slow})
    release.open()


def test_all_completed(executor: Executor) -> None:
    """ALL_COMPLETED returns when all are done, failed ones among them."""
    futures = [executor.submit(calls.inverse, x) for x in (1, 0, 2)]
    done, not_done = wait(futures, timeout=30, return_when=ALL_COMPLETED)
    assert (done, not_done) == (set(futures), set())


def test_timeout(executor: Executor, gates: Gates) -> None:
    """wait with a timeout returns what is done by then."""
    release = gates.gate()
    quick = executor.submit(calls.identity, 1)
    quick.result()
    slow = executor.submit(calls.wait_for, release)
    before = time.monotonic()
    done, not_done = wait([quick, slow], timeout=0.05)
    assert time.monotonic() - before < 5
    assert (done, not_done) == ({quick}, {slow})
    release.open()


def test_as_completed(single: Executor) -> None:
    """as_completed yields each future once, duplicates or not."""
    futures = [single.submit(calls.identity, i) for i in range(10)]
    seen = list(as_completed([*futures, *futures], timeout=30))
    assert len(seen) == 10
    assert {future.result() for future in seen} == set(range(10))


def test_as_completed_yields_as_they_complete(executor: Executor, gates: Gates) -> None:
    """as_completed yields the quick one while the slow one still runs."""
    release = gates.gate()
    slow = executor.submit(calls.wait_for, release, "slow")
    quick = executor.submit(calls.identity, "quick")
    order = as_completed([slow, quick], timeout=30)
    assert next(order) is quick
    release.open()
    assert next(order) is slow


def test_as_completed_timeout(executor: Executor, gates: Gates) -> None:
    """as_completed raises TimeoutError, saying how many are unfinished."""
    release = gates.gate()
    done = executor.submit(calls.identity, 1)
    done.result()
    slow = executor.submit(calls.wait_for, release)
    order = as_completed([done, slow], timeout=0.05)
    assert next(order) is done
    with pytest.raises(TimeoutError, match=r"1 \(of 2\) futures unfinished"):
        next(order)
    release.open()


def test_mixed_with_futures_of_others(executor: Executor, gates: Gates) -> None:
    """Futures of different executors can be waited for together."""
    release = gates.gate()
    with ThreadPoolExecutor(1) as threads:
        mine = executor.submit(calls.wait_for, release, "mine")
        theirs = threads.submit(calls.identity, "theirs")
        order = as_completed([mine, theirs], timeout=30)
        assert next(order) is theirs
        release.open()
        assert next(order) is mine
        assert not wait([mine, theirs], timeout=30).not_done
