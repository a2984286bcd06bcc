"""Parts of files counted by an executor, and their tallies merged on the way.

Role: the one place of the log job that hands over the calls that read the files. Floor 10,
part of the log job; it uses nothing of an executor but ``submit``, and that some take futures
as arguments.

::

    PartCounter.drive, in the caller's thread            the executor
      parts of the files, a window of them ---------> tally(part)
      executor takes futures:                           |  stays where it was made
        every 16 tallies of a worker, for each piece of them:
          merge(their futures) -------------------------+-> that piece of one tally
        during the last parts, for each piece:
          bring(all futures) ---------------------------+-> nothing; they are on one worker now
        at the end, for each piece:
          extract(the last futures) --------------------+-> what a report says of it
      executor takes none:
        the pieces of each tally come here, and are merged as they come
        at the end, for each piece, in threads:
          extract(the piece) -----------------------------> what a report says of it

So the client holds one tally, or none at all, and a bounded number of calls. Tallies have pieces
(`daskexec.logs.counts.pieces_of`), so that several workers can merge the same ones. A file's
tallies join the others' when all of its parts are counted: of a file that cannot be read to
its end nothing is counted, whatever of it was.
"""

from __future__ import annotations

import os
import pickle
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, TypeVar

from daskexec import WorkerDied
from daskexec.logs.inputs import place_of
from daskexec.logs.split import READ_ERRORS, Part
from daskexec.logs.tally import (
    PIECES,
    Tally,
    Unreadable,
    collector_off,
    merge,
    pieces_of,
    reason_of,
)

__all__ = ["FAN_IN", "PartCounter", "Progress", "Receipt", "TallyPart", "Totals"]

T = TypeVar("T")

TallyPart = Callable[[Part, str], Tally]
"""Counts a part, in the format of a name; runs on the workers."""

Progress = Callable[[int, int], None]
"""Called in the caller's thread with the bytes done and the bytes in all, which are 0 where
that is not known: after each part, and now and then while nothing comes in."""

FAN_IN = 16
"""Of how many tallies one call merges a piece."""

_WINDOW = max(32, 4 * (os.cpu_count() or 1))
_REMOTE_WINDOW = 1024  # of calls whose results stay where they are: enough for 200 threads
_HELD = 256 << 20  # bytes of stdin that are in calls at a time
_HEARTBEAT = 0.25  # seconds
_PATIENCE = 15.0  # seconds that what was counted is waited for when interrupted


@dataclass(frozen=True)
class Receipt:
    """How the counting of a file ended; `failure` says why it was given up."""

    failure: str | None = None


@dataclass(eq=False)
class _File:
    """A file that is being counted."""

    format: str
    parts: Iterator[Part]
    done: Future[Receipt]
    pending: int = 0  # calls
    read: bool = False  # there are no more parts
    failure: str | None = None
    tallies: _Heap | None = None  # None once it has failed


@dataclass
class _Task:
    file: _File
    part: Part
    tally: Future[Any]


class PartCounter(Executor):
    """Runs functions that list a file's parts, and counts these parts on another executor.

    ``submit(function, ...)`` takes a function that returns the file's format and its parts, an
    iterable, which is read as far as calls are wanted. Its future, a `Receipt`, is done
    when the file is counted. All happens in `drive`, in the thread that calls it; the class
    knows no locks and is for one thread.

    Parameters
    ----------
    executor
        Where the parts are counted and, if it takes futures as arguments, tallies merged.
    tally
        What counts a part.
    progress, size
        Told how many bytes of `size` are done.
    window
        Most calls pending; None: what suits the executor.
    """

    def __init__(
        self,
        executor: Executor,
        tally: TallyPart,
        progress: Progress | None = None,
        size: int = 0,
        window: int | None = None,
    ) -> None:
        self._executor, self._tally = executor, tally
        self._tell, self._size, self._done = progress or (lambda done, size: None), size, 0
        self._remote = bool(getattr(executor, "takes_futures", False))
        if self._remote:
            self._executor = _view(executor, remote=True)
        self._window = window or (_REMOTE_WINDOW if self._remote else _WINDOW)
        self._home = socket.gethostname()
        self._files: deque[_File] = deque()  # whose parts are not all handed over
        self._receipts: list[Future[Receipt]] = []
        self._open: set[_File] = set()
        self._pending: dict[Future[Any], _Task] = {}
        self._held = 0  # bytes of content in pending calls
        self._whole = self._heap()
        self._brought: list[Future[None]] = []

    def _heap(self) -> _Heap:
        return _Tree(self._executor) if self._remote else _Pile()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Count the file that ``fn(*args, **kwargs)`` tells, when `drive` comes to it."""
        future: Future[Receipt] = Future()
        future.set_running_or_notify_cancel()
        form, parts = fn(*args, **kwargs)
        file = _File(form, iter(parts), future, tallies=self._heap())
        self._files.append(file)
        self._receipts.append(future)
        self._open.add(file)
        return future

    def drive(self, wanted: Future[Any]) -> None:
        """Count until `wanted` is done, which other threads may do.

        If it is interrupted or the executor breaks, calls not yet begun are cancelled.
        """
        self._tell(0, self._size)
        try:
            with collector_off():  # it would look at each key of the tallies merged here
                self._drive(wanted)
        finally:
            for future, task in self._pending.items():
                future.cancel()
                task.tally.cancel()
            for bringing in self._brought:
                bringing.cancel()  # its worker may have gone

    def _drive(self, wanted: Future[Any]) -> None:
        while not wanted.done():
            self._hand_over()
            self._bring()
            some: Iterable[Future[Any]] = self._pending or [wanted]
            finished, _ = wait(some, timeout=_HEARTBEAT, return_when=FIRST_COMPLETED)
            for future in finished:
                self._settle(future)
            if not finished:
                self._tell(self._done, self._size)

    def totals(self) -> Totals:
        """Everything that was counted of files counted wholly."""
        return Totals(self._whole)

    def totals_so_far(self) -> Totals:
        """Everything that was counted, of files that are not done too.

        For when `drive` was interrupted: what the executor has merged is waited for some
        seconds only.
        """
        for file in self._open:
            if file.tallies is not None:
                self._whole.absorb(file.tallies)
        self._open.clear()
        return Totals(self._whole, _PATIENCE)

    def receipts(self) -> list[Receipt]:
        """Of all files, in order; those that are not done have no failure so far."""
        return [done.result() if done.done() else Receipt() for done in self._receipts]

    def _hand_over(self) -> None:
        while self._files and len(self._pending) < self._window and self._held < _HELD:
            file = self._files[0]
            part = None
            if file.failure is None:  # else the rest of the file need not be read
                try:
                    part = next(file.parts, None)
                except READ_ERRORS as error:  # of stdin
                    file.failure, file.tallies = reason_of(error), None
            if part is None:
                self._files.popleft()
                file.read = True
                self._close(file)
                continue
            file.pending += 1
            self._held += len(part.content or b"")
            self._submit(file, part)

    def _bring(self) -> None:
        """Have tallies travel while the last parts are counted, not when nothing else is done."""
        if self._brought or self._files or not self._pending:
            return
        heaps = [self._whole, *(file.tallies for file in self._open)]
        trees = [heap for heap in heaps if isinstance(heap, _Tree)]
        places = sorted({place for tree in trees for place in tree.levels if place})
        if len(places) > 1 and len(self._pending) <= 2 * len(places):
            tallies = [tally for tree in trees for tally in tree.tallies()]
            self._brought = trees[0].bring(tallies, places)

    def _submit(self, file: _File, part: Part) -> None:
        work = (self._tally, self._home, part, file.format)
        submit: Callable[..., Future[Any]] = self._executor.submit
        if not self._remote:
            future = tally = submit(count_pieces, *work)
        else:
            tally = submit(count_packed, *work)
            future = _ran(tally)
        self._pending[future] = _Task(file, part, tally)
        if future.done():
            # An executor that runs calls at submit: the progress moves, and a Ctrl-C that
            # hit the call is raised here, not after the window's rest.
            self._settle(future)

    def _settle(self, future: Future[Any]) -> None:
        task = self._pending.pop(future, None)
        if task is None:
            return  # it is what is wanted
        file = task.file
        file.pending -= 1
        self._held -= len(task.part.content or b"")
        try:
            value = None if _is_remote(task.tally) else task.tally.result()
        except (Unreadable, WorkerDied) as error:
            # Which part's failure arrives first is chance; the report must not show it.
            reason = str(error)
            file.failure = reason if file.failure is None else min(file.failure, reason)
            file.tallies = None
        else:
            if file.tallies is not None:
                if self._remote:
                    file.tallies.add(task.tally, _place(task.tally))
                else:
                    file.tallies.add(value)
        self._done += task.part.size
        self._tell(self._done, self._size)
        self._close(file)

    def _close(self, file: _File) -> None:
        if file.pending or not file.read:
            return
        if file.tallies is not None:
            self._whole.absorb(file.tallies)
        self._open.discard(file)
        file.done.set_result(Receipt(file.failure))


# -- where tallies are merged ------------------------------------------------------------------


class Totals:
    """One tally of all, which may still be in pieces, and on the workers.

    Parameters
    ----------
    heap
        The pieces.
    timeout
        Seconds that the workers are waited for.
    """

    def __init__(self, heap: _Heap, timeout: float | None = None) -> None:
        self._heap, self._timeout = heap, timeout

    def reduce(self, function: Callable[[Tally], T]) -> list[T]:
        """Return what a function makes of the pieces of the tally, computed where these are.

        Where it was merged here it is in one piece.
        Raises TimeoutError of ``concurrent.futures`` if that does not come in time.
        """
        return self._heap.reduce(function, self._timeout)


class _Pile:
    """Tallies merged here, as they come: piece by piece, those that come in pieces."""

    def __init__(self) -> None:
        self._whole = Tally()
        self._pieces: list[Tally] = []  # or PIECES of them

    def add(self, tally: Any, place: str = "") -> None:
        if len(tally) == 1:
            self._whole = merge(self._whole, tally[0])
        else:
            mine = self._pieces or [Tally() for _ in tally]
            self._pieces = [merge(*pair) for pair in zip(mine, tally, strict=True)]

    def absorb(self, other: _Heap) -> None:
        assert isinstance(other, _Pile)
        self._whole = merge(self._whole, other._whole)
        if other._pieces:
            self.add(other._pieces)

    def reduce(self, function: Callable[[Tally], T], timeout: float | None) -> list[T]:
        if not self._pieces:
            return [function(self._whole)]
        self.add(pieces_of(self._whole))
        self._whole = Tally()
        with ThreadPoolExecutor(min(PIECES, os.cpu_count() or 1)) as threads:
            return list(threads.map(function, self._pieces))


_Pieces = Future[list[bytes]] | list[Future[bytes]]
"""A tally on the workers: its pieces together, as they were counted, or each merged apart."""


@dataclass
class _Tree:
    """Tallies on the workers, merged by calls of the executor, `FAN_IN` at a time.

    Those of one worker first, which then need not travel.
    """

    executor: Executor
    levels: dict[str, list[list[_Pieces]]] = field(default_factory=dict)  # by worker

    def __post_init__(self) -> None:
        # Before parts that wait: what is merged takes less room.
        self._asking = _view(self.executor, priority=1, remote=False)
        self._keeping = _view(self.executor, priority=1, remote=True)

    def add(self, tally: Any, place: str = "", level: int = 0) -> None:
        levels = self.levels.setdefault(place, [])
        while len(levels) <= level:
            levels.append([])
        levels[level].append(tally)
        if len(levels[level]) == FAN_IN:
            group, levels[level] = levels[level], []
            self.add(self._merged(group), place, level + 1)

    def absorb(self, other: _Heap) -> None:
        assert isinstance(other, _Tree)
        for place, levels in other.levels.items():
            for level, tallies in enumerate(levels):
                for tally in tallies:
                    self.add(tally, place, level)

    def tallies(self) -> list[_Pieces]:
        return [tally for levels in self.levels.values() for level in levels for tally in level]

    def bring(self, tallies: list[_Pieces], places: list[str]) -> list[Future[None]]:
        """Have each piece of some tallies brought to one worker: there it will be merged."""
        views = [_view(self._asking, workers=[place]) for place in places]
        return [
            views[piece % len(views)].submit(bring, _inputs(piece, tallies))
            for piece in range(PIECES)
        ]

    def reduce(self, function: Callable[[Tally], T], timeout: float | None) -> list[T]:
        rest = self.tallies()
        while len(rest) > 2 * FAN_IN:  # a few more are no reason to merge some twice
            rest = [*rest[FAN_IN:], self._merged(rest[:FAN_IN])]
        self.levels = {"": [rest]}
        submit: Callable[..., Future[T]] = self._asking.submit
        found = [
            submit(reduce_piece, piece, _inputs(piece, rest), function) for piece in range(PIECES)
        ]
        until = None if timeout is None else time.monotonic() + timeout
        return [
            future.result(None if until is None else max(0.0, until - time.monotonic()))
            for future in found
        ]

    def _merged(self, tallies: list[_Pieces]) -> list[Future[bytes]]:
        submit: Callable[..., Future[Any]] = self._keeping.submit
        return [submit(merge_piece, piece, _inputs(piece, tallies)) for piece in range(PIECES)]


def _inputs(piece: int, tallies: list[_Pieces]) -> list[Future[Any]]:
    return [tally[piece] if isinstance(tally, list) else tally for tally in tallies]


def _view(executor: Executor, **options: Any) -> Executor:
    """Return an executor with other options for its calls, where it knows of such."""
    with_options: Callable[..., Executor] | None = getattr(executor, "with_options", None)
    return executor if with_options is None else with_options(**options)


def _ran(future: Future[Any]) -> Future[None]:
    """Return a future that is done when a call has run, though its value may be elsewhere."""
    ran: Future[None] = Future()
    hear = getattr(future, "add_run_callback", None) or future.add_done_callback

    def heard(_: Future[Any]) -> None:
        if ran.set_running_or_notify_cancel():
            ran.set_result(None)

    hear(heard)
    return ran


def _is_remote(future: Future[Any]) -> bool:
    is_remote: Callable[[], bool] | None = getattr(future, "is_remote", None)
    return is_remote is not None and is_remote()


def _place(future: Future[Any]) -> str:
    """Return the worker that a call has run on, or "" if that is not known."""
    info = getattr(future, "info", None)
    return (info().worker or "") if info is not None else ""


_Heap = _Pile | _Tree


# -- on the workers ----------------------------------------------------------------------------


def count_part(tally: TallyPart, home: str, part: Part, form: str) -> Tally:
    """Count a part; an error says on which host, where that is not the client's."""
    try:
        return tally(part, form)
    except Unreadable as error:
        raise Unreadable(f"{error}{place_of(home)}") from error


def count_pieces(tally: TallyPart, home: str, part: Part, form: str) -> list[Tally]:
    """Count a part: its pieces, or all in one where threads cannot merge several at a time."""
    counted = count_part(tally, home, part, form)
    return [counted] if counted.arrays is None else pieces_of(counted)


def count_packed(tally: TallyPart, home: str, part: Part, form: str) -> list[bytes]:
    """Count a part, and make of each piece the bytes that travel, once.

    Who asks for their number only, or hands them on, need not make millions of keys of them.
    """
    return [_pack(piece) for piece in pieces_of(count_part(tally, home, part, form))]


def bring(tallies: list[Any]) -> None:
    """Do nothing: what a call needs comes to its worker, and stays there while it is of use."""


def merge_piece(piece: int, tallies: list[list[bytes] | bytes]) -> bytes:
    """Merge a piece of several tallies; of each there are all pieces, or only this one."""
    return reduce_piece(piece, tallies, _pack)


def reduce_piece(
    piece: int, tallies: list[list[bytes] | bytes], function: Callable[[Tally], T]
) -> T:
    """Return what a function makes of a piece of the sum of several tallies.

    They are merged one after the other, so that no more than two are unpacked.
    """
    with collector_off():
        whole = Tally()
        for packed in tallies:
            mine = packed[piece] if isinstance(packed, list) else packed
            whole = merge(whole, pickle.loads(mine))
        return function(whole)


def _pack(tally: Tally) -> bytes:
    return pickle.dumps(tally, pickle.HIGHEST_PROTOCOL)
