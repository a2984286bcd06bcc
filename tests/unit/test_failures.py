"""Exceptions as bytes."""

from __future__ import annotations

import json
import subprocess
import threading

import pytest

from daskexec import RemoteError
from daskexec._failures import Failure
from daskexec._pickling import dump, load


class TwoArguments(Exception):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{text} ({code})")
        self.code = code


class Locked(Exception):
    def __init__(self) -> None:
        super().__init__("locked")
        self.lock = threading.Lock()
        self.note = "kept"


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as exc:
        failure: Failure = load(dump(Failure.of(exc)))
        return failure.load()


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


def test_an_exception_without_words_is_described_all_the_same() -> None:
    """An exception whose text cannot be had breaks nothing."""
    assert type(raised(Unspeakable())) is Unspeakable
