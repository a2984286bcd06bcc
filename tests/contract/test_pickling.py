"""Pickling: what does not travel fails its own future, and nothing else."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor

import pytest
from daskexec_testing import calls

pytestmark = [pytest.mark.needs("pickles"), pytest.mark.timeout(60)]

Make = Callable[..., Executor]
LIMIT = 20


def _others_live(executor: Executor) -> None:
    assert [executor.submit(calls.identity, i).result(LIMIT) for i in range(3)] == [0, 1, 2]


def test_argument_that_does_not_pickle(executor: Executor) -> None:
    """An argument that does not pickle fails the future, with the pickling error."""
    future = executor.submit(calls.identity, calls.FailsToPickle())
    with pytest.raises(ValueError, match="this does not pickle"):
        future.result(LIMIT)
    _others_live(executor)


def test_keyword_argument_that_does_not_pickle(executor: Executor) -> None:
    """The same for a keyword argument."""
    future = executor.submit(calls.capture, x=threading.Lock())
    with pytest.raises((TypeError, pickle.PicklingError), match="pickle"):
        future.result(LIMIT)
    _others_live(executor)


def test_function_that_does_not_pickle(executor: Executor) -> None:
    """A function object that does not pickle fails the future."""
    future = executor.submit(calls.FailingCallable())
    with pytest.raises(ValueError, match="this function does not pickle"):
        future.result(LIMIT)
    _others_live(executor)


def test_map_over_an_argument_that_does_not_pickle(executor: Executor) -> None:
    """In a map the bad argument raises in its turn."""
    results = executor.map(calls.length, ["ab", calls.FailsToPickle(), "c"])
    assert next(results) == 2
    with pytest.raises(ValueError, match="this does not pickle"):
        next(results)


def test_result_that_does_not_pickle(executor: Executor) -> None:
    """A result that does not pickle fails the future, with the pickling error."""
    future = executor.submit(calls.make_failing_to_pickle)
    with pytest.raises(ValueError, match="this does not pickle"):
        future.result(LIMIT)
    _others_live(executor)


@pytest.mark.deviates(processes="the whole pool breaks")
def test_result_that_does_not_unpickle(make_executor: Make) -> None:
    """A result that does not unpickle here fails the future, with the unpickling error."""
    executor = make_executor()
    good = [executor.submit(calls.identity, i) for i in range(5)]
    future = executor.submit(calls.make_failing_to_unpickle)
    with pytest.raises(ValueError, match="this does not unpickle"):
        future.result(LIMIT)
    assert [future.result(LIMIT) for future in good] == list(range(5))
    _others_live(executor)


@pytest.mark.deviates(processes="the whole pool breaks")
def test_argument_that_does_not_unpickle(make_executor: Make) -> None:
    """An argument that does not unpickle on the worker fails the future only."""
    executor = make_executor()
    good = [executor.submit(calls.identity, i) for i in range(5)]
    future = executor.submit(calls.identity, calls.FailsToUnpickle())
    with pytest.raises((ValueError, BrokenExecutor), match="this does not unpickle"):
        future.result(LIMIT)
    assert [future.result(LIMIT) for future in good] == list(range(5))
    _others_live(executor)


@pytest.mark.needs("isolates_crash")
def test_argument_that_kills_its_unpickler(executor: Executor) -> None:
    """An argument that kills whoever unpickles it kills a worker, and fails its call only."""
    future = executor.submit(calls.identity, calls.KillsItsUnpickler())
    with pytest.raises(BrokenExecutor):
        future.result(LIMIT)
    _others_live(executor)


def test_exception_that_does_not_pickle(executor: Executor) -> None:
    """An exception that does not pickle still fails its future, and only that."""
    future = executor.submit(calls.raise_holding_lock)
    assert isinstance(future.exception(LIMIT), Exception)
    _others_live(executor)


@pytest.mark.needs("by_value")
def test_class_of_a_test(executor: Executor) -> None:
    """An object of a class that the worker cannot import travels both ways."""

    class Local:
        def __init__(self, value: int) -> None:
            self.value = value

        def doubled(self) -> Local:
            return Local(self.value * 2)

    assert executor.submit(Local(4).doubled).result(LIMIT).value == 8


@pytest.mark.needs("by_value")
def test_lambda_as_a_result(executor: Executor) -> None:
    """A lambda made on the worker can be its result."""
    assert executor.submit(calls.make_lambda).result(LIMIT)() == 42
