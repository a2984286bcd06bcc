"""Calls as bytes: how functions, arguments and values are pickled. Floor 0.

Dask never pickles, hashes or looks into a user's function, arguments or results. Each call
is pickled alone on the client, each value alone on the worker, so one that cannot be pickled
fails its own future and nothing else, and two calls share no mutable object.

``pickle`` first, because it is the fastest and refers to importable things by name;
``cloudpickle`` where that fails, and for whatever lives in ``__main__``, which a worker does
not import.

A plain function is the same for all calls, so it travels apart from their arguments, once for
each task (`Functions`). One that is pickled by value, and refers to what may change (a global
list, say), is unpickled anew for each call; any other is kept by the worker.
"""

from __future__ import annotations

import functools
import io
import pickle
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

import cloudpickle

__all__ = [
    "PLAIN",
    "PROTOCOL",
    "ArgumentPickler",
    "FailedArgument",
    "Functions",
    "Resolve",
    "Unfinished",
    "by_value",
    "dump",
    "dump_arguments",
    "function_name",
    "given_value",
    "load",
    "main_globals",
    "running",
]

PROTOCOL = 5

#: Types whose instances cannot change, hold no other object, and pickle into few bytes of
#: code. Several of them can be pickled together without being seen to be.
PLAIN = frozenset({int, float, complex, bool, str, bytes, type(None)})


def function_name(fn: Any) -> str:
    """Name a callable for people: that of the function inside partials and methods."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    name = getattr(fn, "__name__", None)
    return name if isinstance(name, str) else type(fn).__name__


class _Running(threading.local):
    """What this thread runs, on a worker."""

    executor = ""  # id of the last executor that it was for
    within = ""  # the same, while it runs a call
    give_thread_back: Callable[[], None] | None = None  # while it runs a call
    given: Callable[[str], Any] | None = None  # makes the value of an earlier call from its key


running = _Running()

#: ``resolve(future)`` returns what a future among arguments is pickled as, as ``__reduce__`` does.
Resolve = Callable[[Future[Any]], tuple[Any, ...]]

#: Globals of ``__main__`` that calls have assigned in this worker process, by executor.
main_globals: dict[str, dict[str, Any]] = {}


class _Pickler(cloudpickle.CloudPickler):  # type: ignore[misc]
    """Cloudpickle, with the globals of ``__main__`` joined to the worker's own.

    A function of ``__main__`` travels by value, and so do the globals it reads. What the
    executor's initializer has put into such globals on the worker must win over what the
    client has there, as it does in a process pool: `_restore_function` sees to it.
    """

    def reducer_override(self, obj: Any) -> Any:
        reduced = super().reducer_override(obj)
        if (
            isinstance(obj, FunctionType)
            and obj.__module__ == "__main__"
            and isinstance(reduced, tuple)
            and len(reduced) == 6
        ):
            make, args, state, items, pairs, setter = reduced
            return make, args, (setter, state), items, pairs, _restore_function
        return reduced


class ArgumentPickler(_Pickler):
    """Puts the value of a future in the future's place, however deep it sits.

    Or else what `resolve` says: set it before pickling.
    """

    resolve: Resolve | None = None

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, Future):
            return (self.resolve or by_value)(obj)
        return super().reducer_override(obj)


def _restore_function(function: FunctionType, state: Any) -> None:
    setter, inner = state
    setter(function, inner)
    assigned = main_globals.get(running.executor)
    if assigned:
        function.__globals__.update(assigned)


class Unfinished(Exception):
    """A future among the arguments is not done yet."""

    def __init__(self, future: Future[Any] | None = None) -> None:
        self.future = future
        super().__init__("a future among the arguments is not done yet")


class FailedArgument(Exception):
    """A future among the arguments failed, or was cancelled, with `error`."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
        super().__init__("a future among the arguments failed")


def by_value(future: Future[Any]) -> tuple[Any, ...]:
    """Resolve a future that is done; raises Unfinished or FailedArgument if it has no value."""
    if not future.done():
        raise Unfinished(future)
    try:
        return _value_given, (future.result(),)
    except BaseException as exc:
        raise FailedArgument(exc) from None


def _value_given(value: Any) -> Any:
    return value


def given_value(key: str) -> Any:
    """Return the value of an earlier call, which the task on this thread was given: on a worker.

    Pickles of calls refer to such values by this function. A pickle refers to the same future
    once: within a call it is one object.
    """
    assert running.given is not None
    return running.given(key)


def dump(obj: Any) -> bytes:
    """Pickle `obj`; raise whatever its pickling raises."""
    return _dump(obj, _Pickler)


def dump_arguments(obj: Any, resolve: Resolve | None = None) -> bytes:
    """Pickle arguments, or a call; futures among them travel as their values, or as resolved.

    Raises
    ------
    Unfinished, FailedArgument
        A future among the arguments is not done, or failed.
    Exception
        Whatever pickling raises.
    """
    return _dump(obj, ArgumentPickler, resolve)


def _dump(obj: Any, thorough: type[_Pickler], resolve: Resolve | None = None) -> bytes:
    if not cloudpickle.list_registry_pickle_by_value():
        try:
            blob = pickle.dumps(obj, PROTOCOL)
        except Exception:
            # Anything may come from a user's __reduce__. The second try names the real cause.
            pass
        else:
            if b"__main__" not in blob:
                return blob
    with io.BytesIO() as buffer:
        pickler = thorough(buffer, PROTOCOL)
        if resolve is not None and isinstance(pickler, ArgumentPickler):
            pickler.resolve = resolve
        pickler.dump(obj)
        return buffer.getvalue()


load: Callable[[Any], Any] = pickle.loads


# --- functions, apart from their arguments ------------------------------------------------------


class Functions:
    """Pickles plain functions, each as seldom as can be. For one thread.

    `carry` gives ``(blob, lasting)``. A `lasting` function holds nothing that could change
    between two calls, so a worker may unpickle it once and keep it.
    """

    #: Functions that are remembered.
    REMEMBERED = 256

    def __init__(self) -> None:
        self._known: OrderedDict[int, tuple[Any, tuple[bytes, bool], _Snapshot]] = OrderedDict()

    def carry(self, fn: Any) -> tuple[bytes, bool] | None:
        """Pickle a function; None when it must be pickled with each call.

        That is so for whatever may hold state of its own: methods, partials, instances.
        Raises whatever pickling raises.
        """
        if type(fn) is not FunctionType and type(fn) is not BuiltinFunctionType:
            return None
        if type(fn) is BuiltinFunctionType and not isinstance(fn.__self__, ModuleType):
            return None  # a method of an object
        known = self._known.get(id(fn))
        if known is not None and known[0] is fn and known[2].holds():
            return known[1]
        snapshot = _Snapshot()
        lasting = snapshot.take(fn)  # before it is pickled: what changes later is seen
        carried = (dump(fn), lasting)
        if lasting:
            self._known[id(fn)] = (fn, carried, snapshot)
            if len(self._known) > self.REMEMBERED:
                self._known.popitem(last=False)
        return carried


class _Snapshot:
    """All that the pickle of a function depends on, to see whether it still is the same."""

    def __init__(self) -> None:
        self._globals: list[tuple[dict[str, Any], str, Any]] = []
        self._cells: list[tuple[Any, Any]] = []
        self._codes: list[tuple[FunctionType, CodeType, Any]] = []
        self._registry: Any = cloudpickle.list_registry_pickle_by_value()

    def holds(self) -> bool:
        return (
            all(names.get(name, _ABSENT) is value for names, name, value in self._globals)
            and all(cell.cell_contents is value for cell, value in self._cells)
            and all(
                fn.__code__ is code and fn.__defaults__ is defaults and not fn.__dict__
                for fn, code, defaults in self._codes
            )
            and self._registry == cloudpickle.list_registry_pickle_by_value()
        )

    def take(self, fn: Any) -> bool:
        """Note what `fn` depends on; False if some of it may change without being seen to."""
        if self._registry:
            return False
        return _by_name(fn) or (isinstance(fn, FunctionType) and self._take_function(fn))

    def _take_function(self, fn: FunctionType) -> bool:
        if any(known is fn for known, _, _ in self._codes):
            return True
        if fn.__dict__ or fn.__kwdefaults__:
            return False
        self._codes.append((fn, fn.__code__, fn.__defaults__))
        if not all(map(self._fixed, fn.__defaults__ or ())):
            return False
        for cell in fn.__closure__ or ():
            try:
                value = cell.cell_contents
            except ValueError:  # not filled yet
                return False
            self._cells.append((cell, value))
            if not self._fixed(value):
                return False
        for name in _names(fn.__code__):
            value = fn.__globals__.get(name, _ABSENT)
            self._globals.append((fn.__globals__, name, value))
            if value is not _ABSENT and not self._fixed(value):
                return False
        return True

    def _fixed(self, value: Any) -> bool:
        if type(value) in PLAIN or isinstance(value, ModuleType) or _by_name(value):
            return True
        if type(value) is tuple:
            return all(map(self._fixed, value))
        return isinstance(value, FunctionType) and self._take_function(value)


_ABSENT = object()


def _names(code: CodeType) -> set[str]:
    """Names that a function's code may look up as globals, in nested functions too."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _names(constant)
    return names


def _by_name(value: Any) -> bool:
    """Tell whether pickle refers to a function or class by its name alone."""
    if not isinstance(value, (FunctionType, BuiltinFunctionType, type)):
        return False
    module = getattr(value, "__module__", None)
    if module is None or module == "__main__":
        return False
    found: Any = sys.modules.get(module)
    for part in value.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is value
