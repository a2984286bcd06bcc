"""Calls and exceptions as bytes."""

from __future__ import annotations

import json
import subprocess
import threading
from concurrent.futures import Future

import pytest

from daskexec import RemoteError
from daskexec._calls import (
    Chunk,
    FailedArgument,
    Failure,
    Unfinished,
    dump,
    dump_call,
    load,
    run_chunk,
)


class TwoArguments(Exception):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{text} ({code})")
        self.code = code


class Locked(Exception):
    def __init__(self) -> None:
        super().__init__("locked")
        self.lock = threading.Lock()
        self.note = "kept"


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as exc:
        return Failure.of(exc).load()


@pytest.mark.parametrize(
    "error",
    [
        ValueError("plain"),
        KeyError("key"),
        OSError(2, "gone", "file.txt"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        json.JSONDecodeError("bad", "{", 1),
        subprocess.CalledProcessError(3, ["ls"], b"out"),
        SystemExit(7),
        KeyboardInterrupt(),
        TwoArguments(3, "text"),
    ],
)
def test_exceptions_survive(error: BaseException) -> None:
    """Type, text and attributes of an exception are the same after the journey."""
    back = raised(error)
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert back.args == error.args
    assert {**vars(back)} == {**vars(error)}
    assert "raise error" in str(back.__cause__)


def test_what_cannot_travel_is_left_behind() -> None:
    """An exception with a lock keeps its type and all that can be pickled."""
    back = raised(Locked())
    assert type(back) is Locked
    assert vars(back) == {"note": "kept"}


def test_unknown_type_is_described() -> None:
    """An exception that cannot be rebuilt is described by a RemoteError."""
    failure = Failure(b"not a pickle", "their.Error", "the message", "the trace")
    back = failure.load()
    assert isinstance(back, RemoteError)
    assert (back.type_name, back.message) == ("their.Error", "the message")
    assert "the trace" in str(back.__cause__)


def test_futures_travel_as_their_values() -> None:
    """A done future among the arguments, however deep, is its value on the other side."""
    future: Future[int] = Future()
    future.set_result(5)
    _, args, kwargs = load(dump_call(len, ([{"a": future}],), {"k": (future,)}))
    assert (args, kwargs) == (([{"a": 5}],), {"k": (5,)})


def test_unfinished_and_failed_futures() -> None:
    """A future that is not done, or failed, is reported as such."""
    future: Future[int] = Future()
    with pytest.raises(Unfinished) as unfinished:
        dump_call(len, ([future],), {})
    assert unfinished.value.future is future
    future.set_exception(KeyError("x"))
    with pytest.raises(FailedArgument) as failed:
        dump_call(len, ([future],), {})
    assert isinstance(failed.value.error, KeyError)


def test_results_hold_no_futures() -> None:
    """A future in a result is refused: nobody would wait for it."""
    with pytest.raises(TypeError):
        dump(Future())


def test_a_chunk_runs_up_to_its_first_error() -> None:
    """Results before the call that raised are kept."""
    chunk = load(dump(Chunk(divmod, [(7, 2), (1, 0), (9, 2)])))
    batch = run_chunk(chunk)
    values = batch.load()
    assert next(values) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        next(values)


def test_an_item_that_does_not_pickle_fails_alone() -> None:
    """In a chunk, too, a call that cannot be pickled spares those before it."""
    chunk = load(dump(Chunk(str, [("a",), (threading.Lock(),)])))
    values = run_chunk(chunk).load()
    assert next(values) == "a"
    with pytest.raises(TypeError):
        next(values)
