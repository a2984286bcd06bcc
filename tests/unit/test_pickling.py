"""Calls as bytes."""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from types import FunctionType, ModuleType
from typing import Any

import pytest

from daskexec._pickling import (
    FailedArgument,
    Functions,
    Unfinished,
    dump,
    dump_arguments,
    function_name,
    load,
)


def test_futures_travel_as_their_values() -> None:
    """A done future among the arguments, however deep, is its value on the other side."""
    future: Future[int] = Future()
    future.set_result(5)
    args, kwargs = load(dump_arguments((([{"a": future}],), {"k": (future,)})))
    assert (args, kwargs) == (([{"a": 5}],), {"k": (5,)})


def test_unfinished_and_failed_futures() -> None:
    """A future that is not done, or failed, is reported as such."""
    future: Future[int] = Future()
    with pytest.raises(Unfinished) as unfinished:
        dump_arguments((([future],), {}))
    assert unfinished.value.future is future
    future.set_exception(KeyError("x"))
    with pytest.raises(FailedArgument) as failed:
        dump_arguments((([future],), {}))
    assert isinstance(failed.value.error, KeyError)


def test_results_hold_no_futures() -> None:
    """A future in a result is refused: nobody would wait for it."""
    with pytest.raises(TypeError):
        dump(Future())


def test_the_real_cause_is_raised() -> None:
    """An argument that cannot be pickled raises the error that names it."""
    with pytest.raises(TypeError, match="lock"):
        dump_arguments(((threading.Lock(),), {}))


def test_what_pickle_refuses_cloudpickle_takes() -> None:
    """Lambdas and closures travel, though pickle itself cannot carry them."""
    offset = 3
    assert load(dump(lambda x: x + offset))(4) == 7


def test_names_for_people() -> None:
    """A callable is called by the function in it, or by its class."""
    assert function_name(functools.partial(functools.partial(sorted, key=len))) == "sorted"
    assert function_name([].append) == "append"
    assert function_name(type("Thing", (), {"__call__": lambda self: 0})()) == "Thing"


# --- functions, apart from their arguments --------------------------------------------------


@pytest.fixture
def module() -> Iterator[ModuleType]:
    """A namespace for functions that travel by value, as those of ``__main__`` do."""
    made = ModuleType("__main__")
    before = sys.modules["__main__"]
    sys.modules["__main__"] = made
    yield made
    sys.modules["__main__"] = before


def define(module: ModuleType, source: str, name: str = "f") -> Callable[..., Any]:
    exec(source, vars(module))
    made: Callable[..., Any] = vars(module)[name]
    return made


def test_importable_functions_last() -> None:
    """A function that pickle names may be kept by a worker."""
    carried = Functions().carry(function_name)
    assert carried is not None
    blob, lasting = carried
    assert lasting
    assert load(blob) is function_name


def test_a_function_is_pickled_once() -> None:
    """As long as nothing about a function has changed, it is not pickled again."""
    functions = Functions()
    first = functions.carry(function_name)
    assert functions.carry(function_name) is first


@pytest.mark.parametrize(
    "fn",
    [functools.partial(pow, 2), [].append, type("Thing", (), {"__call__": lambda self: 0})()],
    ids=["partial", "method", "instance"],
)
def test_what_has_state_is_not_carried_apart(fn: Any) -> None:
    """Whatever may hold state of its own is pickled with each call."""
    assert Functions().carry(fn) is None


def test_functions_with_constants_last(module: ModuleType) -> None:
    """A function that reads only what cannot change is kept, with the functions it calls."""
    define(module, "LIMIT = 3\ndef g(x): return x + LIMIT\ndef f(x): return g(x)")
    carried = Functions().carry(vars(module)["f"])
    assert carried is not None
    assert carried[1]


def test_functions_that_read_what_may_change_do_not_last(module: ModuleType) -> None:
    """A function with a list within reach is unpickled anew for each call."""
    fn = define(module, "seen = []\ndef f(x): seen.append(x)")
    carried = Functions().carry(fn)
    assert carried is not None
    assert not carried[1]


@pytest.mark.parametrize(
    "change", ["LIMIT = 4", "def g(x): return 0", "f.__defaults__ = (9,)", "f.note = 1"]
)
def test_a_change_is_seen(module: ModuleType, change: str) -> None:
    """What a function depends on is looked at again for each task."""
    define(module, "LIMIT = 3\ndef g(x): return x + LIMIT\ndef f(x, y=2): return g(x) + y")
    functions = Functions()
    first = functions.carry(vars(module)["f"])
    exec(change, vars(module))
    assert functions.carry(vars(module)["f"]) is not first


def test_a_closure_is_seen_to_change() -> None:
    """A closure over another value is pickled anew."""

    def counter() -> tuple[FunctionType, Callable[[int], None]]:
        value = 1

        def get() -> int:
            return value

        def put(new: int) -> None:
            nonlocal value
            value = new

        return get, put  # type: ignore[return-value]

    get, put = counter()
    functions = Functions()
    first = functions.carry(get)
    put(2)
    second = functions.carry(get)
    assert first is not None
    assert second is not None
    assert (load(first[0])(), load(second[0])()) == (1, 2)
