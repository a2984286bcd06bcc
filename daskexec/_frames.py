"""Large objects as they travel: pickled apart from the calls that are given them. Floor 1.

A large object crosses the wire as a `Frames`, a Dask value of its own; in the pickle of a call
there is a reference to it (`dump_referring`, on the client) which the worker resolves
(`load_referring`). References are pickle's *persistent ids*: these reach whatever is pickled,
at any depth and of any type, so that arguments, partials and bound methods need no taking apart
and putting together again.

Every call gets an object of its own, which it may change. What makes that cheap:

- buffers (those of arrays, say) travel beside the pickle (protocol 5), and where the platform
  has ``memfd_create`` a call sees them through a private mapping: pages are copied when the
  call writes to them, and not before;
- what nobody can change, ``bytes``, ``str`` and read-only buffers, is shared by the calls of a
  process.
"""

from __future__ import annotations

import contextlib
import io
import mmap
import os
import pickle
import sys
import threading
from array import array
from collections.abc import Callable, Mapping, Sequence, Sized
from typing import Any

import cloudpickle

from daskexec._pickling import PLAIN, PROTOCOL, ArgumentPickler, Resolve, dump, load

__all__ = [
    "IMMUTABLE",
    "LARGE",
    "Frames",
    "dump_referring",
    "dump_result",
    "load_again",
    "load_referring",
    "load_result",
    "take_apart",
]

#: Bytes from which on an object is large: it then travels once for each worker.
LARGE = 1 << 20

#: Types whose instances nobody can change: calls may share them, and identity means equality.
IMMUTABLE = frozenset({bytes, str})

#: Bytes from which on a buffer within an object travels beside its pickle.
_BESIDE = 1 << 16


class Frames:
    """A large object as bytes.

    Parameters
    ----------
    key : str
        What calls refer to it by.
    kind : str
        "bytes" or "str": the object is the only buffer (UTF-8 of it); or "pickle".
    head : bytes
        Its pickle.
    buffers : list of bytes-like
        What belongs to the pickle and is not in it.
    writable : list of bool
        Whether a call may change each of them: then it gets a copy of its own.
    """

    __slots__ = (
        "__weakref__",
        "_arrived",
        "_mapped",
        "_shared",
        "buffers",
        "head",
        "key",
        "kind",
        "writable",
    )

    #: Guards the making of mappings, on workers with several threads.
    _lock = threading.Lock()

    def __init__(
        self,
        key: str,
        kind: str,
        head: bytes,
        buffers: Sequence[Any],
        writable: Sequence[bool] = (),
    ) -> None:
        self.key, self.kind, self.head = key, kind, head
        self.buffers, self.writable = list(buffers), list(writable)
        self._arrived = False  # from another process
        self._shared: Any = None  # the object, if calls may share it
        self._mapped: dict[int, _Mapped] = {}  # by the index of the buffer

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        wrap: Callable[[Any], Any] = pickle.PickleBuffer if protocol >= 5 else bytes
        head = wrap(self.head) if len(self.head) >= _BESIDE else bytes(self.head)
        return _arrive, (self.key, self.kind, head, list(map(wrap, self.buffers)), self.writable)

    @property
    def nbytes(self) -> int:
        """Bytes that it takes, about."""
        return len(self.head) + sum(map(len, self.buffers))

    def __sizeof__(self) -> int:
        return 300 + self.nbytes

    def __len__(self) -> int:
        return self.nbytes

    def only_value(self) -> Any:
        """Return the object, for one who alone asks for it: if it was sent, on these buffers."""
        if not self._arrived:
            return self.value()
        return pickle.loads(self.head, buffers=map(_owned, self.buffers))

    def value(self) -> Any:
        """Return the object: one of the caller's own, unless nobody can change it."""
        if self.kind == "pickle":
            return pickle.loads(self.head, buffers=map(self._buffer, range(len(self.buffers))))
        if self._shared is None:
            if self.kind == "str":
                self._shared = str(self.buffers[0], "utf-8", "surrogatepass")
            else:
                # In place of Dask's buffer: it can be sent on from there as well.
                self.buffers[0] = self._shared = bytes(self.buffers[0])
        return self._shared

    def _buffer(self, index: int) -> Any:
        data = self.buffers[index]
        if not self.writable[index]:
            return memoryview(data).toreadonly()
        if _CAN_MAP and len(data) >= LARGE:
            with contextlib.suppress(OSError):  # out of descriptors, or forbidden
                with self._lock:
                    mapped = self._mapped.get(index)
                    if mapped is None:
                        mapped = self._mapped[index] = _Mapped(data)
                        self.buffers[index] = mapped.shared
                return mapped.private()
        return bytearray(data)


def _arrive(*fields: Any) -> Frames:
    frames = Frames(*fields)
    frames._arrived = True
    return frames


def _owned(data: Any) -> Any:
    """Return a buffer, copied if it would keep much more than itself in memory."""
    view = memoryview(data)
    if view.readonly or not isinstance(view.obj, Sized):
        return data
    return data if 2 * view.nbytes >= memoryview(view.obj).nbytes else bytearray(view)


_CAN_MAP = hasattr(os, "memfd_create")
_NO_DESCRIPTOR: dict[str, Any] = {"trackfd": False} if sys.version_info >= (3, 13) else {}


class _Mapped:
    """A buffer in memory without a file name, of which everybody can have a private copy."""

    def __init__(self, data: Any) -> None:
        self._fd = os.memfd_create("daskexec", os.MFD_CLOEXEC)
        try:
            with memoryview(data).cast("B") as view:
                done, self._size = 0, len(view)
                while done < self._size:
                    done += os.write(self._fd, view[done:])
            self.shared = mmap.mmap(self._fd, self._size, access=mmap.ACCESS_READ)
        except BaseException:
            os.close(self._fd)
            self._fd = -1
            raise

    def private(self) -> mmap.mmap:
        """Return a copy that its owner may write to; a page is copied when that happens."""
        return mmap.mmap(self._fd, self._size, access=mmap.ACCESS_COPY, **_NO_DESCRIPTOR)

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)


def dump_result(value: Any) -> bytes | Frames:
    """Pickle what a call returned; a large array is copied once, and never again.

    A copy it must be: it may be changed by another call before it is sent.
    """
    kind = type(value)
    if kind not in PLAIN and hasattr(kind, "nbytes"):
        try:
            size = value.nbytes
        except Exception:
            size = 0
        if type(size) is int and size >= LARGE:
            name, head, views, _ = take_apart(value)
            copies = [bytes(view) if view.readonly else bytearray(view) for view in views]
            return Frames("", name, head, copies, [not view.readonly for view in views])
    return dump(value)


def load_again(body: Any) -> Any:
    """Unpickle what a call returned, for one of several that are given it."""
    return body.value() if type(body) is Frames else load(body)


def load_result(body: Any) -> Any:
    """Unpickle what a call returned."""
    return body.only_value() if type(body) is Frames else load(body)


# --- the client's side --------------------------------------------------------------------------


def take_apart(
    value: Any, resolve: Resolve | None = None
) -> tuple[str, bytes, list[memoryview], frozenset[int] | None]:
    """Pickle an object with its buffers left where they are, futures in it as resolved.

    Returns
    -------
    kind, head
        As of `Frames`.
    buffers : list of memoryview
        Of the object itself: they change with it, and must be let go soon.
    inner : frozenset of int, or None
        Ids of the objects it refers to which other objects may refer to as well; None if they
        are too many to be remembered.

    Raises
    ------
    Unfinished, FailedArgument, Exception
        As `dump_arguments`.
    """
    if type(value) is bytes:
        return "bytes", b"", [memoryview(value)], _NOTHING
    if type(value) is str:
        return "str", b"", [memoryview(value.encode("utf-8", "surrogatepass"))], _NOTHING
    # What pickle would copy into its stream.
    if type(value) is bytearray:
        value = _Rebuilt(bytearray, pickle.PickleBuffer(memoryview(value).toreadonly()))
    elif type(value) is array:
        view = pickle.PickleBuffer(memoryview(value).toreadonly())
        value = _Rebuilt(_array_of, value.typecode, view)
    beside: list[memoryview] = []

    def keep_in(buffer: pickle.PickleBuffer) -> bool:
        view = buffer.raw()
        if view.nbytes < _BESIDE:
            return True
        beside.append(view)
        return False

    if not cloudpickle.list_registry_pickle_by_value():
        try:
            with io.BytesIO() as out:
                plain = pickle.Pickler(out, PROTOCOL, buffer_callback=keep_in)
                plain.dump(value)
                head = out.getvalue()
        except Exception:
            pass  # the second try names the real cause
        else:
            if b"__main__" not in head:
                return "pickle", head, beside, _inner(plain)
    beside.clear()
    with io.BytesIO() as out:
        thorough = ArgumentPickler(out, PROTOCOL, keep_in)
        thorough.resolve = resolve
        thorough.dump(value)
        return "pickle", out.getvalue(), beside, _inner(thorough)


#: What two objects may refer to without anybody being able to tell whether it is the same.
_HARMLESS = frozenset({bytes, str, tuple, frozenset, type, type(len), type(take_apart)})
_NOTHING: frozenset[int] = frozenset()
#: Objects within one that are remembered.
_MOST_INNER = 100_000


def _inner(pickler: Any) -> frozenset[int] | None:
    memo = pickler.memo.copy()
    # Four references are this loop's and the pickler's: such objects were made for it.
    found = frozenset(
        key
        for key, (_, obj) in memo.items()
        if type(obj) not in _HARMLESS
        and not isinstance(obj, type)
        and "dtype" not in type(obj).__name__.lower()  # numpy's
        and sys.getrefcount(obj) > 4
    )
    return found if len(found) < _MOST_INNER else None


class _Rebuilt:
    """Pickles as ``make(*args)``."""

    def __init__(self, make: Callable[..., Any], *args: Any) -> None:
        self._reduced = make, args

    def __reduce__(self) -> Any:
        return self._reduced


def _array_of(typecode: str, data: Any) -> array[Any]:
    made = array(typecode)
    made.frombytes(data)
    return made


#: What stands for a large object in a call's pickle: its key, and a number of the object.
Reference = tuple[str, int]
Refer = Callable[[Any], "Reference | None"]


class _Referring(pickle.Pickler):
    def __init__(self, out: Any, refer: Refer) -> None:
        super().__init__(out, PROTOCOL)
        self._refer = refer

    def persistent_id(self, obj: Any) -> Reference | None:
        return self._refer(obj)


class _ReferringThorough(ArgumentPickler):
    def __init__(self, out: Any, refer: Refer) -> None:
        super().__init__(out, PROTOCOL)
        self._refer = refer

    def persistent_id(self, obj: Any) -> Reference | None:
        return self._refer(obj)


def dump_referring(
    obj: Any, refer: Refer, resolve: Resolve | None = None
) -> tuple[bytes, frozenset[int] | None]:
    """Pickle a call with references to what is large.

    Parameters
    ----------
    obj : tuple
        The call.
    refer : callable
        Returns the reference to a large object, or None for any other. Called for every object.
    resolve : callable, optional
        What futures are pickled as.

    Returns
    -------
    blob : bytes
        For `load_referring`.
    inner : frozenset of int, or None
        As of `take_apart`, of the call without its large objects.
    """
    if not cloudpickle.list_registry_pickle_by_value():
        try:
            with io.BytesIO() as out:
                plain = _Referring(out, refer)
                plain.dump(obj)
                blob = out.getvalue()
        except Exception:
            pass
        else:
            if b"__main__" not in blob:
                return blob, _inner(plain)
    with io.BytesIO() as out:
        thorough = _ReferringThorough(out, refer)
        thorough.resolve = resolve
        thorough.dump(obj)
        return out.getvalue(), _inner(thorough)


# --- the worker's side --------------------------------------------------------------------------


class _Resolving(pickle.Unpickler):
    def __init__(self, blob: Any, large: Mapping[str, Frames]) -> None:
        super().__init__(io.BytesIO(blob))
        self._large = large
        self._values: dict[Reference, Any] = {}

    def persistent_load(self, pid: Reference) -> Any:
        if pid not in self._values:  # the same object twice stays one object
            self._values[pid] = self._large[pid[0]].value()
        return self._values[pid]


def load_referring(blob: Any, large: Mapping[str, Frames]) -> Any:
    """Unpickle a call; what of it is large is unpickled for it alone."""
    return _Resolving(blob, large).load()
