"""Options of calls are checked where they are given."""

from __future__ import annotations

import concurrent.futures
import pickle
from concurrent.futures import CancelledError, Future
from typing import Any

import pytest

from daskexec.errors import CallTimedOut
from daskexec.options import CallOptions


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"name": 3}, TypeError, "name must be a str"),
        ({"priority": "high"}, TypeError, "priority must be an int"),
        ({"retries": -1}, ValueError, "retries must be 0 or more"),
        ({"resources": "GPU"}, TypeError, "resources must map"),
        ({"resources": {"GPU": 0}}, ValueError, "positive"),
        ({"workers": []}, TypeError, "workers must be"),
        ({"workers": [1]}, TypeError, "workers must be"),
        ({"capture_output": "yes"}, TypeError, "capture_output must be"),
        ({"workers": 5}, TypeError, "workers must be"),
        ({"name": ""}, TypeError, "not empty"),
        ({"retries": True}, TypeError, "retries must be an int, not bool"),
        ({"resources": {1: 1}}, TypeError, "names"),
        ({"resources": {"GPU": "1"}}, TypeError, r"resources\['GPU'\] must be a number"),
        ({"resources": {"GPU": float("nan")}}, ValueError, "positive"),
        ({"timeout": "1"}, TypeError, "timeout must be a number of seconds, not str"),
        ({"timeout": True}, TypeError, "timeout must be a number"),
        ({"timeout": 0}, ValueError, "greater than 0"),
        ({"timeout": float("inf")}, ValueError, "None for no limit"),
        ({"timeout": float("nan")}, ValueError, "greater than 0"),
        ({"after": 3}, TypeError, "after must be a Future"),
        ({"after": [3]}, TypeError, "among them is one int"),
        ({"rerun": 1}, TypeError, "rerun must be True, False or None"),
        ({"remote": None}, TypeError, "remote must be True or False, not None"),
    ],
)
def test_wrong_options(options: dict[str, Any], error: type[Exception], words: str) -> None:
    """A wrong option is an error that names it."""
    with pytest.raises(error, match=words):
        CallOptions(**options)


def test_one_worker_may_be_a_string() -> None:
    """A single worker needs no list."""
    assert CallOptions(workers="alpha").workers == ("alpha",)  # type: ignore[arg-type]


def test_unknown_options() -> None:
    """An option that there is not is named, with the nearest that there is."""
    with pytest.raises(TypeError, match=r"unknown option 'timout'.*mean 'timeout'.*priority"):
        CallOptions().with_({"timout": 1})


def test_options_that_are_left_out_stay() -> None:
    """A view of a view has the options of both."""
    options = CallOptions(retries=2).with_({"timeout": 1.5})
    assert (options.retries, options.timeout) == (2, 1.5)
    assert options.with_({"retries": 0}).timeout == 1.5


@pytest.mark.parametrize(
    ("options", "alone"),
    [({}, False), ({"timeout": 1}, True), ({"rerun": False}, True), ({"name": "x"}, False)],
)
def test_what_shares_no_task(options: dict[str, Any], alone: bool) -> None:
    """What is killed, or must not run twice, goes alone."""
    assert CallOptions(**options).alone is alone


def test_after_several() -> None:
    """The gate is done when all are; nothing is left of no futures at all."""
    one, two = Future[int](), Future[int]()
    options = CallOptions(after=iter([one, two]))  # type: ignore[arg-type]
    assert options.after is not None
    one.set_result(1)
    assert not options.after.gate.done()
    two.set_result(2)
    assert options.after.gate.result(0) is None
    assert CallOptions(after=[]).after is None  # type: ignore[arg-type]


def test_after_the_first_that_fails() -> None:
    """The first that fails, or is cancelled, decides, once; others do not matter then."""
    futures = [Future[int]() for _ in range(3)]
    failed = CallOptions(after=futures).after  # type: ignore[arg-type]
    error = ValueError("first")
    futures[1].set_exception(error)
    assert failed is not None
    assert failed.gate.exception(0) is error
    futures[0].cancel()
    futures[2].set_result(1)
    assert failed.gate.exception(0) is error
    cancelled = CallOptions(after=futures[0]).after  # type: ignore[arg-type]
    assert cancelled is not None
    with pytest.raises(CancelledError):
        cancelled.gate.result(0)


def test_after_does_not_travel() -> None:
    """An executor that waits for futures of this process cannot be pickled; the error says why."""
    options = CallOptions(after=Future())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="cannot be sent into a call"):
        pickle.dumps(options)
    assert options.left() == CallOptions()


def test_a_timed_out_call_is_caught_as_either_timeout() -> None:
    """On Python 3.10 the builtin TimeoutError is another class than that of the futures."""
    error = pickle.loads(pickle.dumps(CallTimedOut("f", 2, "alpha", "host")))
    assert isinstance(error, TimeoutError)
    assert isinstance(error, concurrent.futures.TimeoutError)
    assert (error.function, error.timeout, error.worker, error.host) == ("f", 2, "alpha", "host")
    assert "f() was not over 2 s after worker alpha on host host had begun it" in str(error)
