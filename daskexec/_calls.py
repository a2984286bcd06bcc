"""What crosses the wire: calls and outcomes, as bytes that only daskexec reads. Floor 0.

Dask never pickles, hashes or looks into a user's function, arguments or results. Each call
is pickled alone on the client, each outcome alone on the worker, so one that cannot be
pickled fails its own future and nothing else, and two calls share no mutable object.

``pickle`` first, because it is the fastest and refers to importable things by name;
``cloudpickle`` where that fails, and for whatever lives in ``__main__``, which a worker does
not import.
"""

from __future__ import annotations

import functools
import io
import pickle
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from types import FunctionType
from typing import Any

import cloudpickle

from daskexec.errors import RemoteError, RemoteTraceback

__all__ = [
    "Batch",
    "Chunk",
    "FailedArgument",
    "Failure",
    "Outcome",
    "Ticket",
    "Unfinished",
    "dump",
    "dump_call",
    "function_name",
    "load",
    "run_chunk",
    "running",
]

_PROTOCOL = 5


def function_name(fn: Any) -> str:
    """Name a callable for people: that of the function inside partials and methods."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    name = getattr(fn, "__name__", None)
    return name if isinstance(name, str) else type(fn).__name__


# --- pickling -----------------------------------------------------------------------------


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


#: What this thread runs: ``.give_thread_back`` is set while it runs a call on a worker.
running = threading.local()


class _ArgumentPickler(_Pickler):
    """Puts the value of a future in the future's place, however deep it sits."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, Future):
            return _value_given, (_value_of_argument(obj),)
        return super().reducer_override(obj)


#: Globals of ``__main__`` that calls have assigned in this worker process, by executor.
main_globals: dict[str, dict[str, Any]] = {}


def _restore_function(function: FunctionType, state: Any) -> None:
    setter, inner = state
    setter(function, inner)
    assigned = main_globals.get(getattr(running, "executor", ""))
    if assigned:
        function.__globals__.update(assigned)


class Unfinished(Exception):
    """A future among the arguments is not done yet."""

    def __init__(self, future: Future[Any]) -> None:
        self.future = future
        super().__init__("a future among the arguments is not done yet")


class FailedArgument(Exception):
    """A future among the arguments failed, or was cancelled, with `error`."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
        super().__init__("a future among the arguments failed")


def _value_of_argument(future: Future[Any]) -> Any:
    if not future.done():
        raise Unfinished(future)
    try:
        return future.result()
    except BaseException as exc:
        raise FailedArgument(exc) from None


def _value_given(value: Any) -> Any:
    return value


def dump(obj: Any) -> bytes:
    """Pickle `obj`; raise whatever its pickling raises."""
    return _dump(obj, _Pickler)


def dump_call(fn: Any, args: Any, kwargs: Any) -> bytes:
    """Pickle a call; futures among the arguments travel as their values.

    Raises
    ------
    Unfinished, FailedArgument
        A future among the arguments is not done, or failed.
    Exception
        Whatever pickling raises.
    """
    return _dump((fn, args, kwargs), _ArgumentPickler)


def _dump(obj: Any, thorough: type[_Pickler]) -> bytes:
    if not cloudpickle.list_registry_pickle_by_value():
        try:
            blob = pickle.dumps(obj, _PROTOCOL)
        except Exception:
            # Anything may come from a user's __reduce__. The second try names the real cause.
            pass
        else:
            if b"__main__" not in blob:
                return blob
    with io.BytesIO() as buffer:
        thorough(buffer, _PROTOCOL).dump(obj)
        return buffer.getvalue()


load: Callable[[Any], Any] = pickle.loads


# --- exceptions ---------------------------------------------------------------------------


class Failure:
    """An exception on its way from a worker, and what survives if it cannot be rebuilt."""

    __slots__ = ("blob", "message", "trace", "type_name")

    def __init__(self, blob: bytes | None, type_name: str, message: str, trace: str) -> None:
        self.blob, self.type_name, self.message, self.trace = blob, type_name, message, trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Failure, (self.blob, self.type_name, self.message, self.trace)

    @classmethod
    def of(cls, exc: BaseException) -> Failure:
        """Describe `exc`, with its traceback as text. Never raises."""
        kind = type(exc)
        try:
            message = str(exc)
        except Exception as bad:
            message = f"<str() of it raised {type(bad).__name__}>"
        try:
            trace = "".join(traceback.format_exception(kind, exc, exc.__traceback__))
        except Exception:
            trace = f"{kind.__name__}: {message}\n"
        return cls(_dump_exception(exc), f"{kind.__module__}.{kind.__qualname__}", message, trace)

    def load(self) -> BaseException:
        """Rebuild the exception, with the remote traceback as its cause. Never raises."""
        exc: BaseException | None = None
        if self.blob is not None:
            try:
                loaded = load(self.blob)
            except BaseException:
                loaded = None
            if isinstance(loaded, BaseException):
                exc = loaded
        if exc is None:
            exc = RemoteError(self.type_name, self.message)
        exc.__cause__ = RemoteTraceback(self.trace)
        return exc


def _dump_exception(exc: BaseException) -> bytes | None:
    """Pickle an exception so that its type and attributes survive, or return None.

    An exception whose ``__init__`` is written in Python and which has no ``__reduce__`` of
    its own is rebuilt without calling ``__init__``: pickle would call it with ``exc.args``,
    which fails or mangles as soon as its parameters are not what it handed to ``super()``.
    """
    kind = type(exc)
    if _reduces_by_itself(kind):
        try:
            blob = dump(_Reduced(exc.__reduce_ex__(_PROTOCOL)))
            return blob if type(load(blob)) is kind else None
        except BaseException:
            return None
    try:
        reduced: Any = exc.__reduce__()  # a builtin's own, as no class below has one
        _, args, *rest = reduced
        state = _picklable_state(rest[0]) if rest and isinstance(rest[0], dict) else {}
        if not _pickles(args):
            args = tuple(arg if _pickles(arg) else repr(arg) for arg in args)
        return dump(_Reduced((_rebuild, (kind, args, state))))
    except BaseException:
        return None


def _reduces_by_itself(kind: type[BaseException]) -> bool:
    custom = ("__reduce__", "__reduce_ex__", "__getstate__", "__getnewargs__", "__setstate__")
    for base in kind.__mro__:
        if base.__module__ == "builtins":
            break
        if any(name in vars(base) for name in custom):
            return True
    return kind.__module__ == "builtins"


def _picklable_state(state: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in state.items() if _pickles(value)}


def _pickles(value: Any) -> bool:
    try:
        load(dump(value))
    except BaseException:
        return False
    return True


class _Reduced:
    """Pickles as what a reduction describes.

    An exception handed to pickle itself would go through ``copyreg``, where Dask's tblib has
    put a reducer that takes all frames along: a RecursionError's are too deep to pickle.
    """

    def __init__(self, reduced: Any) -> None:
        self._reduced = reduced

    def __reduce__(self) -> Any:
        return self._reduced


def _rebuild(kind: type[BaseException], args: Any, state: dict[str, Any]) -> BaseException:
    builtin: Any = next(base for base in kind.__mro__ if base.__module__ == "builtins")
    try:
        exc = kind.__new__(kind, *args)
    except TypeError:
        exc = builtin.__new__(kind, *args)  # a __new__ of its own that takes other arguments
    builtin.__init__(exc, *args)
    exc.__setstate__(state)
    return exc


# --- chunks of a map ------------------------------------------------------------------------


class Chunk:
    """Several calls of one function that travel as one, each of them pickled alone."""

    def __init__(self, fn: Callable[..., Any], items: list[tuple[Any, ...]]) -> None:
        self.fn, self.items = fn, items

    def __reduce__(self) -> tuple[Any, ...]:
        return list, ([self._dump(args) for args in self.items],)

    def _dump(self, args: tuple[Any, ...]) -> bytes | Failure:
        try:
            return dump_call(self.fn, args, {})
        except (Unfinished, FailedArgument):
            raise
        except Exception as exc:
            return Failure.of(exc)


class Batch:
    """The results of a chunk, up to the first call that raised."""

    def __init__(self, values: list[bytes], failure: Failure | None) -> None:
        self.values, self.failure = values, failure

    def load(self) -> Iterator[Any]:
        """Yield the values, then raise what ended them; keeps no reference to a value."""
        self.values.reverse()
        while self.values:
            yield load(self.values.pop())
        if self.failure is not None:
            raise self.failure.load()


def run_chunk(calls: list[bytes | Failure]) -> Batch:
    """Run the calls of a `Chunk`, which arrives here as the list of them."""
    values: list[bytes] = []
    for call in calls:
        if isinstance(call, Failure):
            return Batch(values, call)
        try:
            fn, args, kwargs = load(call)
            values.append(dump(fn(*args, **kwargs)))
        except BaseException as exc:
            return Batch(values, Failure.of(exc))
    return Batch(values, None)


# --- what a task takes and gives ------------------------------------------------------------


class Ticket:
    """One attempt of one call, as a worker receives it.

    Attributes
    ----------
    executor, key, topic : str
        Id of the executor, Dask key of this attempt, event topic to report to.
    blob : bytes
        The pickled ``(fn, args, kwargs)``.
    slot, turn : int
        Place on the board of begun calls; slot -1 on clusters that daskexec did not start.
    has_initializer : bool
        The executor has one; a worker runs it before its first call.
    max_calls : int
        Calls after which the worker process is to be replaced, 0 for no limit.
    """

    __slots__ = (
        "blob",
        "executor",
        "has_initializer",
        "key",
        "max_calls",
        "slot",
        "topic",
        "turn",
    )

    def __init__(
        self,
        executor: str,
        key: str,
        topic: str,
        blob: bytes,
        slot: int,
        turn: int,
        has_initializer: bool,
        max_calls: int,
    ) -> None:
        self.executor, self.key, self.topic, self.blob = executor, key, topic, blob
        self.slot, self.turn = slot, turn
        self.has_initializer, self.max_calls = has_initializer, max_calls

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        blob = pickle.PickleBuffer(self.blob) if protocol >= 5 else self.blob
        return Ticket, (
            self.executor,
            self.key,
            self.topic,
            blob,
            self.slot,
            self.turn,
            self.has_initializer,
            self.max_calls,
        )

    def __sizeof__(self) -> int:
        return 200 + len(self.blob)


class Outcome:
    """What became of one attempt; the value of its Dask task.

    Attributes
    ----------
    kind : str
        "value", "error", "initializer" (it raised), "refused" (this process may not run it
        because another one began it: `pid` says which) or "withdrawn" (cancelled before).
    body : bytes or Failure or None
        The pickled value, or the failure.
    seconds : float
        Run time of the call.
    pid : int
        Process that ran it, or began it.
    """

    __slots__ = ("body", "kind", "pid", "seconds")

    def __init__(self, kind: str, body: Any, seconds: float = 0.0, pid: int = 0) -> None:
        self.kind, self.body, self.seconds, self.pid = kind, body, seconds, pid

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        body = self.body
        if protocol >= 5 and isinstance(body, (bytes, bytearray, memoryview)):
            body = pickle.PickleBuffer(body)
        return Outcome, (self.kind, body, self.seconds, self.pid)

    def __sizeof__(self) -> int:
        body = self.body
        if isinstance(body, Failure):
            return 400 + len(body.trace) + len(body.blob or b"")
        return 200 + (len(body) if isinstance(body, (bytes, bytearray, memoryview)) else 0)
