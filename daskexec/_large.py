"""Large arguments go once: which they are, and whether they still are the same. Floor 2.

The client's side, for the dispatcher's thread alone. A call whose arguments are small, which is
nearly every call, costs a glance at their types (`LargeObjects.dump`). Objects that tell their
size (bytes, arrays) are known to be large at once; any other is looked at when the pickle of a
call with it turns out to be large. What is large is left out of the call's pickle and sent as a
`Large`: a Dask value of its own on which the call's task depends (`daskexec._backend`).

Versions
    An object may be changed in place between two submits, so its identity does not say that
    the workers have it. A call may be given its arguments as they are at any moment between its
    ``submit`` and its start (a process pool pickles them in between, too). So one look at an
    object is good for all calls that were submitted before it, however many: `LargeObjects` asks
    the ledger for the newest of them. 1,000 calls that are submitted together take one or two
    looks; calls submitted one by one after each other's results take one each.

    A look compares the object with the client's copy: ``memcmp`` on the buffers themselves,
    which are not pickled for it. Measured on 100 MiB: 25 ms, against 80 ms for `zlib.crc32`,
    180 ms for SHA-1 or SHA-256 with the CPU's support, 330 ms for BLAKE2b, 90 ms for a copy.
    A digest (SHA-256: as fast as the weaker ones, and nobody can make two objects collide) is
    taken only when the copy is given up. ``bytes`` and ``str`` cannot change and are not
    looked at again.

Copies
    The client keeps a copy while calls that need it are pending, and `KEEP` seconds longer:
    when the only worker that has an object dies, the object must be sent again as it was.
    (Of ``bytes`` the copy is the object itself.) After that the workers' copies are all there
    are, and if they are lost the object is sent anew for the next call.

    The workers keep an object as long as it lives on the client and several calls were given
    it, the longest unused first to go when such idle objects exceed `IDLE_BYTES`; else until the
    last call that needs it is over. An object lives while anything but this cache refers to it:
    a weak reference tells, or, for types without those (bytes, lists), the count of references.

Equal objects share one version.
"""

from __future__ import annotations

import functools
import hashlib
import sys
import weakref
from array import array
from collections.abc import Callable, Iterator, Sequence
from time import monotonic
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

from daskexec._frames import IMMUTABLE, LARGE, Frames, dump_referring, take_apart
from daskexec._pickling import Resolve, by_value, dump_arguments

__all__ = ["Large", "LargeObjects", "Place"]

#: Types of which no instance is large.
_SMALL = frozenset({int, float, complex, bool, type(None)})
_CONTAINERS = frozenset({tuple, list, dict})
#: Types whose instances are no candidates at first sight if they are short.
_SHORT = _CONTAINERS | {bytes, str, bytearray}
#: Types that do not tell how many bytes they take.
_UNSIZED = _SMALL | _CONTAINERS | {set, frozenset, range, FunctionType, BuiltinFunctionType}


class Place:
    """One version of a large object: as long as this lives, the cluster keeps what it has of it.

    Attributes
    ----------
    key : str
        What calls refer to it by.
    size : int
        Bytes of its pickle.
    """

    __slots__ = ("__weakref__", "_digest", "_large", "key", "size")

    def __init__(self, key: str, size: int) -> None:
        self.key, self.size = key, size
        self._large: Callable[[], Large | None] = lambda: None
        self._digest = b""

    @property
    def large(self) -> Large | None:
        """The client's copy, if it still has one."""
        return self._large()

    def is_like(self, kind: str, head: bytes, views: Sequence[memoryview]) -> bool:
        """Tell whether it is a version of the object that these are the pickle of."""
        large = self._large()
        if large is None:
            return bool(self._digest) and self._digest == _digest(kind, head, views)
        frames = large.frames
        return (
            frames.kind == kind
            and frames.head == head
            and len(frames.buffers) == len(views)
            and all(map(_equal, frames.buffers, views))
        )

    def give_up_copy(self, large: Large) -> None:
        """Remember the digest in place of the copy."""
        frames = large.frames
        if not self._digest and frames.kind == "pickle":
            self._digest = _digest(frames.kind, frames.head, frames.buffers)


class Large:
    """The client's copy of a version, which the calls that need it keep alive."""

    __slots__ = ("__weakref__", "frames", "place")

    def __init__(self, place: Place, frames: Frames) -> None:
        self.place, self.frames = place, frames
        place._large = weakref.ref(self)


def _equal(mine: Any, view: memoryview) -> bool:
    if type(mine) is bytes and type(view.obj) is bytes:
        return bool(mine == view.obj)
    return bool(mine == view)  # a bytearray's comparison is a memcmp, whatever the other is


def _digest(kind: str, head: bytes, views: Sequence[Any]) -> bytes:
    digest = hashlib.sha256(b"%b %d %d;" % (kind.encode(), len(head), len(views)))
    digest.update(head)
    for view in views:
        digest.update(b"%d;" % len(view))
        digest.update(view)
    return digest.digest()


class _Known:
    """An object that was large."""

    __slots__ = ("immutable", "inner", "mark", "object", "place", "round", "used", "uses")

    def __init__(self, value: Any) -> None:
        self.immutable = type(value) in IMMUTABLE
        try:
            self.object: Callable[[], Any] = weakref.ref(value)
        except TypeError:
            self.object = _Strong(value)
        self.place: Place | None = None
        self.mark = -1  # the newest call when it was looked at
        self.round = -1  # when that was
        self.uses = 0  # calls that were given it
        self.used = 0.0  # when it was given to a call, of the monotonic clock
        self.inner: frozenset[int] | None = frozenset()

    def is_dead(self) -> bool:
        """Tell whether nobody else refers to the object any more."""
        if isinstance(self.object, _Strong):
            return sys.getrefcount(self.object.value) <= 2  # with getrefcount's own
        return self.object() is None


class _Strong:
    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __call__(self) -> Any:
        return self.value


class LargeObjects:
    """The large objects of one executor's calls. For one thread.

    Parameters
    ----------
    prefix : str
        What the keys begin with.
    newest : callable
        Returns the number of the newest call that was submitted.
    """

    #: Seconds that the client's copy is kept for the next call.
    KEEP = 2.0
    #: Bytes on each worker of objects that no pending call needs.
    IDLE_BYTES = 1 << 30
    #: Seconds between two looks at what is needed no more.
    PAUSE = 0.5

    def __init__(self, prefix: str, newest: Callable[[], int]) -> None:
        self._prefix, self._newest = prefix, newest
        self._known: dict[int, _Known] = {}  # by the object's id
        self._by_size: dict[int, weakref.WeakSet[Place]] = {}
        self._copies: dict[Place, list[Any]] = {}  # [Large, when it was last used]
        self._number = 0
        self._round = 0
        self._tidy_at = 0.0
        self._resolve: Resolve = by_value  # of the call that is being pickled
        self._referred = 0  # futures it was asked about

    @property
    def pause(self) -> float | None:
        """Seconds after which to `tidy`; None when there is nothing to be tidied."""
        return self.PAUSE if self._known or self._copies else None

    def begin(self) -> None:
        """Begin another round: the calls of one round were all submitted before it."""
        self._round += 1

    # -- pickling --------------------------------------------------------------------------

    def dump(
        self, call: tuple[Any, ...], number: int | None, resolve: Resolve = by_value
    ) -> tuple[bytes, tuple[Large, ...]]:
        """Pickle a call, ``(args, kwargs)`` or ``(fn, args, kwargs)``.

        Parameters
        ----------
        number : int, optional
            Of the call; when None it is not known when it was submitted.
        resolve : callable
            What futures are pickled as; their values, unless it says otherwise.

        Returns
        -------
        blob : bytes
            For `_frames.load_referring`, or plain `_pickling.load` if nothing is large.
        large : tuple of Large
            What the blob refers to.
        """
        known = self._known
        self._resolve = resolve
        for value in (*call[-2], *call[-1].values()) if call[-1] else call[-2]:
            kind = type(value)
            if kind in _SMALL or (not known and kind in _SHORT and len(value) < LARGE):
                continue
            if self._looks_large(value):
                return self._dump_apart(call, number)
        if len(call) == 3 and any(map(self._looks_large, _bound_values(call[0]))):
            return self._dump_apart(call, number)
        blob = dump_arguments(call, resolve)
        if len(blob) < LARGE:
            return blob, ()
        return self._dump_apart(call, number)

    def looks_large(self, args: Sequence[Any]) -> bool:
        """Tell whether one of some arguments is known to be large."""
        return any(map(self._looks_large, args))

    def _looks_large(self, value: Any) -> bool:
        kind = type(value)
        if kind is str or kind is bytes or kind is bytearray:
            return len(value) >= LARGE
        if self._known and id(value) in self._known:
            return True
        # Asked of the type: an instance that is a proxy would load what it stands for.
        if kind not in _UNSIZED and hasattr(kind, "nbytes"):
            try:
                size = value.nbytes
            except Exception:
                return False
            return type(size) is int and size >= LARGE
        return False

    def _dump_apart(
        self, call: tuple[Any, ...], number: int | None
    ) -> tuple[bytes, tuple[Large, ...]]:
        """Pickle a call of which some part is large, or the whole."""
        # By id, with the object: it must not be another one's id meanwhile.
        found: dict[int, tuple[Any, Large]] = {}
        values = [value for value in _values(call) if type(value) not in _SMALL]
        others = []
        for value in values:
            if self._looks_large(value):
                self._find(value, number, found)
            elif type(value) not in _CONTAINERS:
                others.append(value)
        blob, inner = self._dump(call, number, found)
        if len(blob) >= LARGE:
            # Own objects as a whole; containers, which are often made for one call, last.
            for value in (*others, *(v for v in values if type(v) in _CONTAINERS)):
                if id(value) not in found:
                    self._find(value, number, found)
            blob, inner = self._dump(call, number, found)
        if inner is not None:
            inner -= {id(call[-1])}
        if self._overlap(found, inner):
            return dump_arguments(call, self._resolve), ()
        unique = {large.place.key: large for _, large in found.values()}
        return blob, tuple(unique.values())

    def _dump(
        self, call: tuple[Any, ...], number: int | None, found: dict[int, tuple[Any, Large]]
    ) -> tuple[bytes, frozenset[int] | None]:
        def refer(obj: Any) -> tuple[str, int] | None:
            if type(obj) in _SMALL:
                return None
            known = found.get(id(obj))
            if known is None:
                if not _is_large_leaf(obj):
                    return None
                self._find(obj, number, found)
                known = found.get(id(obj))
                if known is None:
                    return None
            # Equal objects are sent as one, but within a call they stay two.
            return known[1].place.key, id(obj)

        return dump_referring(call, refer, self._resolve)

    def _overlap(self, found: dict[int, tuple[Any, Large]], rest: frozenset[int] | None) -> bool:
        """Tell whether parts of a call share an object: pickled apart they would no more."""
        seen = rest
        for key in found:
            inner = self._known[key].inner
            if inner == frozenset():
                continue
            if seen == frozenset():
                seen = inner
            elif inner is None or seen is None or not seen.isdisjoint(inner):
                return True
            else:
                seen |= inner
        return False

    def _find(self, value: Any, number: int | None, found: dict[int, tuple[Any, Large]]) -> None:
        large = self._large(value, number)
        if large is not None:
            found[id(value)] = (value, large)

    def _resolve_within(self, future: Any) -> tuple[Any, ...]:
        self._referred += 1
        return self._resolve(future)

    # -- versions --------------------------------------------------------------------------

    def _large(self, value: Any, number: int | None) -> Large | None:
        """Return the present version of an object; None if it is not large."""
        known = self._known.get(id(value))
        if known is not None and known.object() is not value:  # another one's id once
            known = None
        large = None if known is None or known.place is None else known.place.large
        if known is None or large is None or not self._is_fresh(known, number):
            # Before the object is looked at: what is submitted from now on, it may change for.
            mark = self._newest() if number is None else max(number, self._newest())
            before = self._referred
            kind, head, views, inner = take_apart(value, self._resolve_within)
            try:
                if self._referred != before:
                    return None  # what its pickle refers to is given to this call alone
                size = len(head) + sum(map(len, views))
                if size < LARGE:
                    return None
                if known is None:
                    known = self._known[id(value)] = _Known(value)
                    known.inner = inner if not _is_leaf(value) else frozenset()
                elif not known.immutable:
                    known.inner = inner if not _is_leaf(value) else frozenset()
                large = self._version(known, value, size, kind, head, views)
            finally:
                for view in views:
                    view.release()
            known.place, known.mark, known.round = large.place, mark, self._round
        known.uses += 1
        known.used = monotonic()
        self._copies[large.place] = [large, known.used]
        return large

    def _is_fresh(self, known: _Known, number: int | None) -> bool:
        """Tell whether the last look at an object is good for a call in hand."""
        return (
            known.immutable
            or known.round == self._round
            or (number is not None and number <= known.mark)
        )

    def _version(
        self,
        known: _Known,
        value: Any,
        size: int,
        kind: str,
        head: bytes,
        views: Sequence[memoryview],
    ) -> Large:
        place = known.place
        if place is None or not (known.immutable or place.is_like(kind, head, views)):
            same_size = self._by_size.setdefault(size, weakref.WeakSet())
            for place in list(same_size):
                if place.is_like(kind, head, views):
                    break
            else:
                self._number += 1
                place = Place(f"large-{self._prefix}-{self._number}", size)
                same_size.add(place)
        large = place.large
        if large is None:
            if kind == "bytes":
                buffers: list[Any] = [value]
            elif kind == "str":
                buffers = [views[0].obj]
            else:
                buffers = list(map(bytearray, views))
            writable = [not view.readonly for view in views]
            large = Large(place, Frames(place.key, kind, head, buffers, writable))
        return large

    # -- letting go ------------------------------------------------------------------------

    def tidy(self) -> None:
        """Let go of what is needed no more, now and then."""
        if not self._known and not self._copies:
            return
        now = monotonic()
        if now < self._tidy_at:
            return
        self._tidy_at = now + self.PAUSE
        for place, entry in list(self._copies.items()):
            # Its list and getrefcount() itself: no call needs it.
            if now - entry[1] > self.KEEP and sys.getrefcount(entry[0]) <= 2:
                place.give_up_copy(entry[0])
                del self._copies[place]
        for key, known in list(self._known.items()):
            if known.place is not None and known.place in self._copies:
                continue
            if known.is_dead():
                del self._known[key]
            elif known.uses < 2:
                known.place = None
        self._limit_idle()
        for size, places in list(self._by_size.items()):
            if not len(places):
                del self._by_size[size]

    def _limit_idle(self) -> None:
        idle: dict[Place, list[_Known]] = {}
        for known in sorted(self._known.values(), key=lambda known: known.used):
            if known.place is not None and known.place not in self._copies:
                idle.setdefault(known.place, []).append(known)
        excess = sum(place.size for place in idle) - self.IDLE_BYTES
        for place, owners in idle.items():
            if excess <= 0:
                return
            for known in owners:
                known.place = None
            excess -= place.size

    def clear(self) -> None:
        """Let go of everything."""
        self._known.clear()
        self._copies.clear()
        self._by_size.clear()


def _is_leaf(value: Any) -> bool:
    """Tell whether an object refers to no other."""
    kind = type(value)
    if kind is bytes or kind is str or kind is bytearray or kind is array:
        return True
    if kind.__module__ != "numpy" or kind.__name__ != "ndarray":
        return False
    return not value.dtype.hasobject


def _is_large_leaf(value: Any) -> bool:
    kind = type(value)
    if kind is bytes or kind is str or kind is bytearray:
        return len(value) >= LARGE
    if kind is array:
        return bool(len(value) * value.itemsize >= LARGE)
    return hasattr(kind, "dtype") and _is_leaf(value) and bool(value.nbytes >= LARGE)


def _bound_values(fn: Any) -> Iterator[Any]:
    """Yield what a callable brings along: arguments of partials, the object of a method."""
    while type(fn) is functools.partial:
        yield from fn.args
        yield from fn.keywords.values()
        fn = fn.func
    if type(fn) is MethodType:
        yield fn.__self__
    elif type(fn) is BuiltinFunctionType:
        if fn.__self__ is not None and not isinstance(fn.__self__, ModuleType):
            yield fn.__self__
    elif type(fn) is not FunctionType and not isinstance(fn, type):
        yield fn


def _values(call: tuple[Any, ...]) -> Iterator[Any]:
    yield from call[-2]
    yield from call[-1].values()
    if len(call) == 3:
        yield from _bound_values(call[0])
