"""Exceptions come back as what they were, with the worker's traceback."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from concurrent.futures import Executor

import pytest
from daskexec_testing import calls

pytestmark = pytest.mark.timeout(60)

Make = Callable[..., Executor]


def _told(error: BaseException) -> str:
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))


@pytest.mark.deviates(processes="unpickling the exception breaks the whole pool")
def test_several_arguments(make_executor: Make) -> None:
    """An exception whose __init__ takes several arguments keeps type name and message."""
    executor = make_executor()
    error = executor.submit(calls.raise_many_arguments).exception(30)
    told = _told(error)
    assert "ManyArguments" in told
    assert "no such thing (7)" in told
    assert executor.submit(calls.identity, 1).result(30) == 1


@pytest.mark.deviates(processes="the pickling error takes the place of the exception")
def test_holding_a_lock(executor: Executor) -> None:
    """An exception that cannot be pickled keeps type name, message and remote frames."""
    error = executor.submit(calls.raise_holding_lock).exception(30)
    told = _told(error)
    assert "HoldsLock" in told
    assert "holds a lock" in told
    assert "raise_holding_lock" in told


def test_attributes(executor: Executor) -> None:
    """Attributes set on an exception come back with it."""
    error = executor.submit(calls.raise_with_attributes).exception(30)
    assert type(error) is calls.WithAttributes
    assert error.position == (3, 14)  # type: ignore[attr-defined]


def test_recursion_error(executor: Executor) -> None:
    """A call that recurses too deep fails with RecursionError."""
    with pytest.raises(RecursionError):
        executor.submit(calls.recurse).result(30)
    assert executor.submit(calls.identity, 1).result(30) == 1


def test_memory_error(executor: Executor) -> None:
    """MemoryError raised by a call is delivered."""
    with pytest.raises(MemoryError):
        executor.submit(calls.raise_type, MemoryError).result(30)


def test_os_error_subclass(executor: Executor) -> None:
    """An OSError keeps its subclass, errno and file name."""
    with pytest.raises(FileNotFoundError) as caught:
        executor.submit(open, "/no/such/file").result(30)
    assert caught.value.errno == 2
    assert caught.value.filename == "/no/such/file"


@pytest.mark.needs("remote_traceback")
def test_remote_traceback_is_the_cause(executor: Executor) -> None:
    """The text of the worker's traceback is in __cause__, down to the raising line."""
    error = executor.submit(calls.fail, "far away").exception(30)
    assert error is not None
    assert "raise ValueError(message)" in str(error.__cause__)


def test_printed_traceback_tells_where(executor: Executor) -> None:
    """The printed traceback names the function that raised."""
    error = executor.submit(calls.fail, "far away").exception(30)
    assert error is not None
    told = _told(error)
    assert "in fail" in told
    assert "far away" in told


def test_chain_is_told(executor: Executor) -> None:
    """The exception that an exception was raised from is in the printed traceback."""
    error = executor.submit(calls.raise_chained).exception(30)
    assert error is not None
    told = _told(error)
    assert "the second" in told
    assert "the first" in told


@pytest.mark.deviates(
    threads="the pool raises one exception object again and again, which gathers frames",
    processes="the pool raises one exception object again and again, which gathers frames",
)
def test_traceback_does_not_grow(executor: Executor) -> None:
    """Asking ten times for the result does not make the traceback longer."""
    future = executor.submit(calls.fail)
    lengths = []
    for _ in range(10):
        with pytest.raises(ValueError, match="wrong") as caught:
            future.result(30)
        lengths.append(len(traceback.extract_tb(caught.value.__traceback__)))
    assert lengths[0] == lengths[-1]


def test_exception_gives_the_same_object(executor: Executor) -> None:
    """exception() gives the same exception each time."""
    future = executor.submit(calls.fail)
    assert future.exception(30) is future.exception()
