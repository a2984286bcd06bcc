"""submit: the call is made as it was given, once, whatever its keywords are named."""

from __future__ import annotations

from concurrent.futures import Executor, Future

import pytest
from daskexec_testing import calls
from daskexec_testing.gates import Gates

NAMES_OF_OTHERS = [
    "key",
    "workers",
    "retries",
    "priority",
    "resources",
    "pure",
    "actor",
    "allow_other_workers",
    "fifo_timeout",
    "timeout",
    "name",
    "after",
    "fn",
    "func",
    "self",
    "args",
    "kwargs",
]


def test_result(executor: Executor) -> None:
    """The result of the call is the result of its future."""
    assert executor.submit(pow, 2, 8).result() == 256


def test_future_type(executor: Executor) -> None:
    """submit returns a Future of concurrent.futures."""
    assert isinstance(executor.submit(calls.identity, 1), Future)


def test_arguments(executor: Executor) -> None:
    """Positional and keyword arguments arrive as they were given."""
    assert executor.submit(calls.capture, 1, [2], x=3, y=None).result() == (
        (1, [2]),
        {"x": 3, "y": None},
    )


@pytest.mark.parametrize("name", NAMES_OF_OTHERS)
def test_keyword_reaches_the_function(executor: Executor, name: str) -> None:
    """A keyword that an executor might want for itself belongs to the called function."""
    assert executor.submit(calls.capture, 1, **{name: 2}).result(30) == ((1,), {name: 2})


def test_sorted_by_key(executor: Executor) -> None:
    """submit(sorted, words, key=len) sorts by length."""
    words = ["three", "a", "of"]
    assert executor.submit(sorted, words, key=len).result(30) == ["a", "of", "three"]


def test_function_is_positional_only(executor: Executor) -> None:
    """Leaving out the function, or giving it by keyword, is a TypeError of submit."""
    with pytest.raises(TypeError):
        executor.submit(fn=calls.identity, value=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        executor.submit()  # type: ignore[call-arg]


def test_equal_calls_all_run(executor: Executor, gates: Gates) -> None:
    """Five equal calls run five times."""
    journal = gates.journal()
    futures = [executor.submit(calls.note, journal, "here") for _ in range(5)]
    assert [future.result() for future in futures] == ["here"] * 5
    assert journal.lines() == ["here"] * 5


def test_equal_calls_have_their_own_futures(executor: Executor) -> None:
    """Two equal calls never share a future."""
    assert executor.submit(calls.identity, 1) is not executor.submit(calls.identity, 1)


@pytest.mark.needs("by_value")
def test_lambda_and_closure(executor: Executor) -> None:
    """Lambdas and closures can be called."""
    base = 40
    assert executor.submit(lambda x: base + x, 2).result() == 42


def test_bound_method_and_class(executor: Executor) -> None:
    """Bound methods and classes can be called."""
    assert executor.submit("a,b".split, ",").result() == ["a", "b"]
    assert executor.submit(complex, 1, 2).result() == 1 + 2j


def test_none(executor: Executor) -> None:
    """None is a result like any other."""
    assert executor.submit(calls.identity, None).result() is None


def test_runs_unobserved(executor: Executor, gates: Gates) -> None:
    """A call whose future was dropped at once runs all the same."""
    gate = gates.gate()
    executor.submit(gate.open)
    gate.wait()
