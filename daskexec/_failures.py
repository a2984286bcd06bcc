"""Exceptions on their way from a worker to a future. Floor 1.

An exception that pickle would mangle, or could not carry at all, must not hang or break
anything: what cannot be rebuilt on the other side arrives as `RemoteError`, with type name,
message and traceback. One that comes of code which is missing on the worker says where that is
so, and what to do.
"""

from __future__ import annotations

import importlib.util
import re
import sys
import traceback
from collections.abc import Mapping
from typing import Any

from daskexec._pickling import PROTOCOL, dump, load
from daskexec.errors import RemoteError, RemoteTraceback

__all__ = ["Failure", "Unloaded", "is_of_missing_code", "needed_by"]

# "Can't get attribute 'f' on <module 'shapes' from ...>"; "module 'shapes' has no attribute 'f'"
_ATTRIBUTE = re.compile(r"<?module '([\w.]+)'")


class Failure:
    """An exception on its way from a worker, and what survives if it cannot be rebuilt.

    `place` is where code was missing, in words, if that is what it is about; `unpickling`: the
    call did not even begin.
    """

    __slots__ = ("blob", "message", "place", "trace", "type_name", "unpickling")

    def __init__(
        self,
        blob: bytes | None,
        type_name: str,
        message: str,
        trace: str,
        place: str = "",
        unpickling: bool = False,
    ) -> None:
        self.blob, self.type_name, self.message, self.trace = blob, type_name, message, trace
        self.place, self.unpickling = place, unpickling

    def __reduce__(self) -> tuple[Any, ...]:
        return Failure, (
            self.blob,
            self.type_name,
            self.message,
            self.trace,
            self.place,
            self.unpickling,
        )

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
        if self.place:
            _explain(exc, self.place, self.unpickling)
        return exc


class Unloaded(Exception):
    """Stands for an exception of a call, in a process that must not rebuild it."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        super().__init__(f"{failure.type_name}: {failure.message}")


# --- failures of what others need ---------------------------------------------------------------

_SHOWN = 3  # calls at each end of a chain that are named


class _Chain(str):
    """A note that says which call raised, and which ones needed it in turn.

    Attributes
    ----------
    first, last : tuple of str
        The call that raised and those that needed it, the last ones apart if they are many.
    between : int
        How many there are between these.
    """

    first: tuple[str, ...]
    last: tuple[str, ...]
    between: int

    @classmethod
    def of(cls, first: tuple[str, ...], last: tuple[str, ...] = (), between: int = 0) -> _Chain:
        names = [*first[1:], *([f"{between:,} more"] if between else []), *last]
        made = cls(f"daskexec: raised by {first[0]}; needed by {', needed by '.join(names)}")
        made.first, made.last, made.between = first, last, between
        return made

    def longer(self, name: str) -> _Chain:
        if len(self.first) <= _SHOWN:
            return _Chain.of((*self.first, name))
        last = (*self.last, name)
        return _Chain.of(self.first, last[-_SHOWN:], self.between + max(0, len(last) - _SHOWN))

    def __reduce__(self) -> tuple[Any, ...]:
        return str, (str(self),)


def needed_by(error: BaseException, raiser: str, name: str) -> BaseException:
    """Return an error for a call that needed one which failed with `error`; never raises.

    An object of its own, as far as it can be: what a traceback or a note adds to one must not
    show in the other. A note says which call raised, and which ones needed it in turn.

    Parameters
    ----------
    error : BaseException
        What the other call's future has.
    raiser, name : str
        That call, and the one that needed it.
    """
    notes = list(getattr(error, "__notes__", ()))
    chain = next((note for note in notes if isinstance(note, _Chain)), None)
    own = _copy_of(error)
    added = chain.longer(name) if chain is not None else _Chain.of((raiser, name))
    try:
        own.__notes__ = [*(note for note in notes if note is not chain), added]  # type: ignore[attr-defined]
    except Exception:  # it takes no attributes
        return own
    return own


def _copy_of(error: BaseException) -> BaseException:
    blob = _dump_exception(error)
    try:
        own = load(blob) if blob is not None else None
    except BaseException:
        own = None
    if type(own) is not type(error):
        return error
    own.__cause__, own.__context__ = error.__cause__, error.__context__
    own.__suppress_context__ = error.__suppress_context__
    return own


# --- code that is missing there -----------------------------------------------------------------


def is_of_missing_code(exc: BaseException, unpickling: bool) -> bool:
    """Tell whether an exception comes of a module that is missing, or is an older one.

    `unpickling`: it was raised before the call began.
    """
    if isinstance(exc, ModuleNotFoundError):
        return True
    return (
        unpickling
        and isinstance(exc, (AttributeError, ImportError))
        and _ATTRIBUTE.search(str(exc)) is not None
    )


def _explain(exc: BaseException, place: str, unpickling: bool) -> None:
    """Say, with an exception, where a module is missing and what to do; never raises."""
    try:
        found = _ATTRIBUTE.search(str(exc))
        if isinstance(exc, ModuleNotFoundError) and exc.name:
            name = exc.name.split(".")[0]
            what = f"the module {exc.name!r} cannot be imported"
        elif found is not None:
            name = found[1].split(".")[0]
            what = f"the module {found[1]!r} is another one than here, an older version perhaps,"
        else:
            return
        note = f"daskexec: {what} where this call ran: {place}. {_advice(name)}"
        if sys.version_info >= (3, 11):
            exc.add_note(note)
        elif unpickling:
            message = f"{exc}\n{note}"
            exc.args = (message, *exc.args[1:])
            if isinstance(exc, ImportError):
                exc.msg = message
    except Exception:
        return


def _advice(name: str) -> str:
    """Say how a module can be brought to the workers."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        return "Install it there, or bring it there by executor.upload(path)"
    path = (list(spec.submodule_search_locations or ()) or [spec.origin or ""])[0]
    if "-packages" in path:
        return f"Install it there (pip install); here it is in {path}"
    return f"Bring it there by executor.upload({path!r}), or install it there"


# --- pickling -----------------------------------------------------------------------------------


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
