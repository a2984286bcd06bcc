"""Exceptions on their way from a worker to a future. Floor 1.

An exception that pickle would mangle, or could not carry at all, must not hang or break
anything: what cannot be rebuilt on the other side arrives as `RemoteError`, with type name,
message and traceback.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from typing import Any

from daskexec._pickling import PROTOCOL, dump, load
from daskexec.errors import RemoteError, RemoteTraceback

__all__ = ["Failure", "Unloaded"]


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


class Unloaded(Exception):
    """Stands for an exception of a call, in a process that must not rebuild it."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        super().__init__(f"{failure.type_name}: {failure.message}")


def _dump_exception(exc: BaseException) -> bytes | None:
    """Pickle an exception so that its type and attributes survive, or return None.

    An exception whose ``__init__`` is written in Python and which has no ``__reduce__`` of
    its own is rebuilt without calling ``__init__``: pickle would call it with ``exc.args``,
    which fails or mangles as soon as its parameters are not what it handed to ``super()``.
    """
    kind = type(exc)
    if _reduces_by_itself(kind):
        try:
            blob = dump(_Reduced(exc.__reduce_ex__(PROTOCOL)))
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
