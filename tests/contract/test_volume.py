"""Volume: large values, many calls, and their order on one worker."""

from __future__ import annotations

from concurrent.futures import Executor, wait

import pytest
from daskexec_testing import calls
from daskexec_testing.gates import Gates

MB = 1_000_000

pytestmark = pytest.mark.timeout(90)


def test_large_argument(executor: Executor) -> None:
    """An argument of 50 MB arrives."""
    assert executor.submit(calls.length, bytes(50 * MB)).result(60) == 50 * MB


@pytest.mark.filterwarnings("error")
def test_large_argument_without_warning(executor: Executor) -> None:
    """A large argument is the caller's good right: no warning."""
    assert executor.submit(calls.length, bytes(20 * MB)).result(60) == 20 * MB


def test_large_result(executor: Executor) -> None:
    """A result of 50 MB comes back."""
    assert executor.submit(calls.filled, 50 * MB).result(60) == b"x" * (50 * MB)


def test_same_large_argument_many_times(executor: Executor) -> None:
    """One large argument given to many calls arrives in each."""
    value = bytes(2 * MB)
    futures = [executor.submit(calls.length, value) for _ in range(50)]
    assert {future.result(60) for future in futures} == {2 * MB}


def test_large_argument_changed_between_calls(executor: Executor) -> None:
    """A large argument changed in place between two submits arrives as it was at each."""
    value = bytearray(2 * MB)
    first = executor.submit(calls.first_byte, value)
    assert first.result(60) == 0
    value[0] = 7
    assert executor.submit(calls.first_byte, value).result(60) == 7


def test_many_calls(executor: Executor) -> None:
    """2,000 calls all give their own result."""
    futures = [executor.submit(calls.identity, i) for i in range(2000)]
    assert not wait(futures, timeout=60).not_done
    assert [future.result() for future in futures] == list(range(2000))


def test_many_calls_by_map(executor: Executor) -> None:
    """A map over 2,000 gives its results in order."""
    assert list(executor.map(calls.identity, range(2000))) == list(range(2000))


def test_starts_in_order(single: Executor, gates: Gates) -> None:
    """One worker begins the calls in the order they were submitted."""
    journal = gates.journal()
    futures = [single.submit(calls.note, journal, i) for i in range(300)]
    assert not wait(futures, timeout=60).not_done
    assert journal.lines() == [str(i) for i in range(300)]


def test_starts_in_order_across_functions(single: Executor, gates: Gates) -> None:
    """The order holds for calls of different functions too, failing ones among them."""
    journal = gates.journal()
    futures = []
    for i in range(100):
        function = calls.note_then_fail if i % 3 == 0 else calls.note
        futures.append(single.submit(function, journal, i))
    assert not wait(futures, timeout=60).not_done
    assert journal.lines() == [str(i) for i in range(100)]
