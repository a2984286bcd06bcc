"""What is found among arguments, what a failure says to those that need it, what is forgotten."""

from __future__ import annotations

import functools
import gc
import pickle
import sys
import weakref
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from daskexec._failures import needed_by
from daskexec._promises import futures_in
from daskexec._tasks import Call, Needs, Value
from daskexec.errors import NotFetched, WorkerDied
from daskexec.futures import DaskFuture
from daskexec.options import CallOptions


@dataclass
class Box:
    content: Any


@pytest.mark.parametrize(
    "wrap",
    [
        lambda future: future,
        lambda future: [[1, (future,)]],
        lambda future: {"a": {future}},
        lambda future: {future: 1},
        lambda future: Box([Box(future)]),
        lambda future: functools.partial(print, 1, sep=future),
    ],
)
def test_futures_are_found(wrap: Any) -> None:
    """In lists, tuples, sets, dicts, dataclasses and partials, at any depth."""
    future: DaskFuture[int] = DaskFuture("f", 1)
    value = wrap(future)
    assert futures_in([1, value, "x"]) == [future]


def test_the_search_has_an_end() -> None:
    """Circles, large lists and what is no container are no matter."""
    future: DaskFuture[int] = DaskFuture("f", 1)
    circle: list[Any] = [1]
    circle += [circle, {"a": circle}]
    assert futures_in([circle, SimpleNamespace(a=future)]) == []
    assert futures_in([[list(range(100)), future]], most=50) == [future]
    assert futures_in([[(i,) for i in range(100)], [future]], most=50) == []


class Odd(Exception):
    """Its ``__init__`` takes something else than its ``args``."""

    def __init__(self, one: int, two: int) -> None:
        self.one, self.two = one, two
        super().__init__(f"{one} and {two}")


@pytest.mark.parametrize(
    "error", [ValueError("bad", 1), Odd(1, 2), WorkerDied("f", "w", "h", "why", 2), KeyError("k")]
)
def test_an_error_of_its_own(error: Exception) -> None:
    """Same type, arguments, attributes and cause; what is noted on one is not on the other."""
    error.__cause__ = cause = OSError("cause")
    own = needed_by(error, "load [1]", "parse [2]")
    assert type(own) is type(error)
    assert own is not error
    assert (own.args, str(own), own.__cause__) == (error.args, str(error), cause)
    assert getattr(error, "__notes__", []) == []
    note = "daskexec: raised by load [1]; needed by parse [2]"
    assert own.__notes__ == [note]
    again = needed_by(own, "parse [2]", "total [3]")
    assert again.__notes__ == [f"{note}, needed by total [3]"]
    assert own.__notes__ == [note]
    assert type(pickle.loads(pickle.dumps(again.__notes__))[0]) is str


def test_users_own_notes_stay() -> None:
    """Notes that were on the exception are on each copy."""
    error = ValueError("bad")
    error.__notes__ = ["mine"]  # Python 3.10 has no add_note
    own = needed_by(needed_by(error, "a", "b"), "b", "c")
    assert own.__notes__ == ["mine", "daskexec: raised by a; needed by b, needed by c"]


def test_an_error_that_cannot_be_copied() -> None:
    """It is passed on itself."""

    class Local(Exception):
        def __reduce__(self) -> Any:
            raise TypeError("no")

    error = Local("x")
    assert needed_by(error, "a", "b") is error


def test_long_chains_are_short() -> None:
    """The first and the last calls of a chain are named, and how many are between."""
    error: BaseException = ValueError("bad")
    for number in range(1000):
        error = needed_by(error, f"c{number}", f"c{number + 1}")
    assert error.__notes__ == [
        "daskexec: raised by c0; needed by c1, needed by c2, needed by c3, needed by 994 more, "
        "needed by c998, needed by c999, needed by c1000"
    ]


def test_a_long_line_of_calls_is_forgotten() -> None:
    """Calls that remember those they need, 100,000 in a line, go without using up the stack."""
    call = Call(DaskFuture("f", 0), None, None, None, CallOptions())
    value = Value(call, "k", 1)
    gone = weakref.ref(value)
    for number in range(100_000):
        call = Call(DaskFuture("f", number), None, None, None, CallOptions())
        call.others = Needs()
        call.others.calls["k"], call.others.values["k"] = value.call, value
        value = Value(call, "k", 1)
    del call, value
    gc.collect()
    assert gone() is None


def test_what_was_not_fetched_says_what_to_do() -> None:
    """Key, size and advice; it can be pickled."""
    error = pickle.loads(pickle.dumps(NotFetched("load-1", 5 << 20)))
    assert (error.key, error.size) == ("load-1", 5 << 20)
    assert "load-1 (5.0 MiB)" in str(error)
    assert "result()" in str(error)


def test_a_future_is_not_pickled() -> None:
    """Pickle refuses it at once, before it goes through all that hangs on it."""
    future: DaskFuture[int] = DaskFuture("f", 1, sys)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="DaskFuture"):
        pickle.dumps(future)
