"""Isolation: calls in other processes work on copies of their own."""

from __future__ import annotations

import os
from concurrent.futures import Executor

import pytest
from daskexec_testing import calls

pytestmark = pytest.mark.needs("pickles")


@pytest.mark.needs("processes")
def test_not_in_this_process(executor: Executor) -> None:
    """Calls run in another process."""
    assert executor.submit(calls.pid).result() != os.getpid()


def test_arguments_of_the_caller_stay(executor: Executor) -> None:
    """A call that changes its argument does not change the caller's."""
    mine: list[int] = []
    assert executor.submit(calls.append_to, mine, 1).result() == [1]
    assert mine == []


def test_arguments_are_not_shared_between_calls(executor: Executor) -> None:
    """Many calls given the same list each get it as it was."""
    mine: list[int] = [0]
    futures = [executor.submit(calls.append_to, mine, i) for i in range(100)]
    assert [future.result() for future in futures] == [[0, i] for i in range(100)]


def test_callables_are_not_shared_between_calls(executor: Executor) -> None:
    """A stateful callable starts from its state at submit in each call."""
    counter = calls.Counter()
    assert [executor.submit(counter).result() for _ in range(5)] == [1] * 5
    futures = [executor.submit(counter) for _ in range(100)]
    assert [future.result() for future in futures] == [1] * 100


@pytest.mark.deviates(processes="one chunk is pickled as a whole: its calls share the argument")
def test_arguments_are_not_shared_in_a_map(executor: Executor) -> None:
    """The calls of one chunk of a map share nothing either."""
    mine: list[int] = [0]
    results = executor.map(calls.append_to, [mine] * 20, range(20), chunksize=10)
    assert list(results) == [[0, i] for i in range(20)]


def test_results_are_not_shared(executor: Executor) -> None:
    """Two results are two objects."""
    one, other = executor.map(calls.identity, [[1], [1]])
    assert one == other
    assert one is not other
