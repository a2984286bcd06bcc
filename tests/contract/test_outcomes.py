"""Outcomes: whatever ends a call arrives at its future, and nowhere else."""

from __future__ import annotations

from concurrent.futures import CancelledError, Executor, TimeoutError

import pytest
from daskexec_testing import calls
from daskexec_testing.gates import Gates


def test_exception_is_raised_by_result(executor: Executor) -> None:
    """result() raises what the call raised, with its message."""
    with pytest.raises(ValueError, match=r"^out of cheese$"):
        executor.submit(calls.fail, "out of cheese").result()


def test_exception_is_returned_by_exception(executor: Executor) -> None:
    """exception() returns what the call raised, and None for a call that returned."""
    error = executor.submit(calls.fail, "wrong").exception()
    assert type(error) is ValueError
    assert error.args == ("wrong",)
    assert executor.submit(calls.identity, 1).exception() is None


@pytest.mark.parametrize("kind_of_error", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_base_exceptions_are_delivered(
    executor: Executor, kind_of_error: type[BaseException]
) -> None:
    """An exception outside of Exception is delivered like any other."""
    future = executor.submit(calls.raise_type, kind_of_error, "bye")
    with pytest.raises(kind_of_error):
        future.result(30)
    assert executor.submit(calls.identity, 1).result(30) == 1


def test_sys_exit_is_delivered(executor: Executor, gates: Gates) -> None:
    """sys.exit in a call ends that call only, once, with its exit code on the future."""
    with pytest.raises(SystemExit) as caught:
        executor.submit(calls.leave, 3).result(30)
    assert caught.value.code == 3
    assert executor.submit(calls.identity, 1).result(30) == 1


@pytest.mark.parametrize("error", [StopIteration("x"), CancelledError(), TimeoutError("t")])
def test_exceptions_with_a_meaning_elsewhere(executor: Executor, error: Exception) -> None:
    """Exceptions that mean something to futures and generators are delivered, no more."""
    future = executor.submit(calls.raise_, error)
    assert type(future.exception(30)) is type(error)
    assert future.done()
    assert not future.cancelled()


def test_exception_as_a_result(executor: Executor) -> None:
    """An exception that is returned is a result."""
    value = executor.submit(calls.identity, ValueError("returned")).result()
    assert type(value) is ValueError
    assert value.args == ("returned",)


def test_failure_leaves_others_alone(executor: Executor) -> None:
    """Failing calls among others fail alone."""
    futures = [executor.submit(calls.inverse, x) for x in (1, 0, 2, 0, 4)]
    errors = [type(future.exception()) for future in futures]
    assert errors == [type(None), ZeroDivisionError] * 2 + [type(None)]


def test_result_timeout(single: Executor, gates: Gates) -> None:
    """result and exception with a timeout raise TimeoutError, and the call goes on."""
    release = gates.gate()
    future = single.submit(calls.wait_for, release, 5)
    with pytest.raises(TimeoutError):
        future.result(timeout=0.01)
    with pytest.raises(TimeoutError):
        future.exception(timeout=0)
    release.open()
    assert future.result() == 5
