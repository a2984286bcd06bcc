"""map with buffersize: the input is read no further than the results are."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import Executor

import pytest
from daskexec_testing import calls

pytestmark = pytest.mark.needs("buffersize")


class Counting:
    """An endless input that knows how much of it was taken."""

    def __init__(self) -> None:
        self.taken = 0

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        self.taken += 1
        return self.taken - 1


def test_results(executor: Executor) -> None:
    """The results are those without a buffersize, in order."""
    for size in (1, 2, 7, 100):
        results = executor.map(calls.identity, range(20), buffersize=size)
        assert list(results) == list(range(20))


def test_endless_input(executor: Executor) -> None:
    """An endless input works, and is read no further than buffersize ahead."""
    numbers = Counting()
    results = executor.map(calls.identity, numbers, buffersize=5)
    assert numbers.taken <= 5
    assert list(itertools.islice(results, 10)) == list(range(10))
    assert numbers.taken <= 15
    results.close()  # type: ignore[attr-defined]


def test_several_iterables(executor: Executor) -> None:
    """The shortest iterable ends it, endless others or not."""
    results = executor.map(calls.add, [1, 2, 3], itertools.count(), buffersize=2)
    assert list(results) == [1, 3, 5]


def test_empty(executor: Executor) -> None:
    """An empty input has no results."""
    assert list(executor.map(calls.identity, [], buffersize=3)) == []


@pytest.mark.parametrize("size", [0, -1])
def test_below_one(executor: Executor, size: int) -> None:
    """A buffersize below 1 is a ValueError of map."""
    with pytest.raises(ValueError, match="buffersize"):
        executor.map(calls.identity, [1], buffersize=size)


@pytest.mark.parametrize("size", ["1", 1.0])
def test_not_an_integer(executor: Executor, size: object) -> None:
    """A buffersize that is not an integer is a TypeError of map."""
    with pytest.raises(TypeError, match="buffersize"):
        executor.map(calls.identity, [1], buffersize=size)  # type: ignore[arg-type]


def test_error_in_the_middle(executor: Executor) -> None:
    """An error is raised in its turn."""
    results = executor.map(calls.inverse, [1, 2, 0, 4], buffersize=2)
    assert next(results) == 1
    assert next(results) == 0.5
    with pytest.raises(ZeroDivisionError):
        next(results)
