"""The board of begun tasks: memory shared by this process and its workers. Floor 0.

When a worker process dies, only the call that it was *running* is lost: what it had not begun
can be sent again without running twice, and what it had finished need not run again. Messages
cannot tell them apart, because a process that calls ``os._exit`` takes its unsent messages with
it, its finished results included. So each worker of a cluster on this machine writes down, in
a small file that all of them have mapped, that it begins a task *before* it does so, and
leaves the result of each call, before it begins the next one, in a mapped file of its own (its
*spool*). Both outlive the process, and cost half a microsecond a call: memory is written, no
file.

Each executor has a board of its own, in the folder that its cluster's workers know; so executors
that share a cluster do not share slots, and one that is left is taken over with its board.

A slot belongs to one attempt of one task, from when it is sent until it is settled. The client
hands slots out; a worker that is given a task whose slot is already marked does not run it. Nor
does it if the slot has gone to another task since: then this one is settled, and Dask runs it
again just because its worker died before its result was released. Or it was *barred*: it was taken
back from a worker that gives no sign. So a worker looks at the turn after it has marked, too.

A process that is to be killed, since a call in it took too long, is *doomed* first: it is written
on the board as well, and a process that finds itself there begins no task any more. It marks a
task before it looks, and the client writes before it looks at the marks, so one of the two sees
the other: what is not marked then is not begun, and is not lost by the kill.
"""

from __future__ import annotations

import glob
import marshal
import mmap
import os
import pickle
import struct
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

__all__ = [
    "BOARDS",
    "DECLINED",
    "FINISHED",
    "INITIALIZING",
    "PLAIN_KIND",
    "RUNNING",
    "SLOTS",
    "SPOOLED",
    "Board",
    "Leave",
    "path_in",
    "remove_spools",
]

#: Under this name a scheduler's metadata have host and folder of its boards.
BOARDS = "daskexec-boards"

SLOTS = 1 << 16
_TURN = struct.Struct("<I")  # how often the slot was handed out
_MARK = struct.Struct("<II")  # process id, stage
_WIDTH = _TURN.size + _MARK.size
_DOOMS = SLOTS * _WIDTH  # where the doomed are: how many ever, and the last process ids
_LAST_DOOMS = 64
_DOOM = struct.Struct("<I")
_SIZE = _DOOMS + (1 + _LAST_DOOMS) * _DOOM.size

INITIALIZING = 1
RUNNING = 2
FINISHED = 3
DECLINED = 4

#: A spool begins with where its used part ends, and a room in it with its own length. Native: of
#: such a number a process that is killed has written all or nothing.
_LENGTH = struct.Struct("@Q")
#: A result in a spool: slot, turn, index of the call in the task, length, kind of bytes.
_RECORD = struct.Struct("<IIIIH")
_NO_RECORD = bytes(_RECORD.size)
_BYTES, PLAIN_KIND, _OBJECT, _TOO_LARGE = 1, 2, 3, 4

#: ``leave(index, result, kind=...)``
Leave = Callable[..., None]

#: Room in a spool is handed out in pages; a task's first result begins one.
_PAGE = 4096
#: Largest result that is left in a spool, as it is pickled; a larger one is lost with its process.
#: A value of 4 MiB, that is: pickling adds some bytes.
SPOOLED = (4 << 20) + _PAGE
#: Bytes in a spool after which a process goes on in its other one: two of the largest, with heads.
_SPOOL_SIZE = 2 * (SPOOLED + _PAGE) + _PAGE


def path_in(folder: str, executor: str) -> str:
    """Return where the board of an executor is, in the folder of its cluster's boards."""
    return os.path.join(folder, f"board-{executor}")


def remove_spools(folder: str, pid: int) -> None:
    """Remove what an ended process has left, for any board of a folder."""
    for path in glob.glob(os.path.join(glob.escape(folder), f"board-*.{pid}.[01]")):
        Path(path).unlink(missing_ok=True)


class Board:
    """The mapped file. Safe from several threads: each slot has one writer at a time.

    Parameters
    ----------
    path : str or Path
        The file, on a filesystem of this machine.
    create : bool
        Make it (the client's side) or open it (the worker's side).
    held : collection of int, optional
        Open one as a client that goes on with what another one has begun: the slots that are
        in use.
    """

    def __init__(
        self, path: str | Path, *, create: bool = False, held: Collection[int] | None = None
    ) -> None:
        self.path = str(path)
        self._map = _mapped(self.path, _SIZE, create=create)
        # The longest unused first, so that a slot is not soon another task's. What never was is
        # not listed: that would be 2 MB.
        self._free: deque[int] = deque()
        self._unused = iter(range(SLOTS if create or held is not None else 0))
        if held:
            self._unused = (slot for slot in self._unused if slot not in held)
        self._lock = threading.Lock()  # guards the place in the spool
        self._spool: _Spool | None = None
        self._other: _Spool | None = None  # that was full before
        self._dooms = 0  # that this process has seen not to be its own

    # -- the client's side -----------------------------------------------------------------

    def acquire(self) -> tuple[int, int]:
        """Take an unmarked slot: its number and its turn. (-1, 0) when all are in use."""
        slot = next(self._unused, -1)
        if slot < 0:
            if not self._free:
                return -1, 0
            slot = self._free.popleft()
        _MARK.pack_into(self._map, slot * _WIDTH + _TURN.size, 0, 0)
        return slot, self._next_turn(slot)

    def release(self, slot: int) -> None:
        """Give a slot back; a worker that is still to run its task will not."""
        if slot >= 0:
            self._next_turn(slot)
            self._free.append(slot)

    def bar(self, slot: int) -> bool:
        """Have no worker begin a slot's task any more; False if one has, or is about to.

        Written before it is looked, as of the doomed: one of the two sees the other.
        """
        turn = self.turn(slot)
        self._next_turn(slot)
        if self.read(slot) == (0, 0):
            return True
        _TURN.pack_into(self._map, slot * _WIDTH, turn)  # its results are found by that
        return False

    def _next_turn(self, slot: int) -> int:
        place = slot * _WIDTH
        turn = (_TURN.unpack_from(self._map, place)[0] + 1) & 0xFFFFFFFF or 1
        _TURN.pack_into(self._map, place, turn)
        return turn

    def remove(self) -> None:
        """Unmap the file and remove it, and what workers have left for it."""
        self.close()
        for path in (self.path, *glob.glob(f"{glob.escape(self.path)}.*")):
            Path(path).unlink(missing_ok=True)

    def doom(self, pid: int) -> None:
        """Have a process begin no further task; see the module's docstring."""
        (count,) = _DOOM.unpack_from(self._map, _DOOMS)
        place = _DOOMS + (1 + count % _LAST_DOOMS) * _DOOM.size
        _DOOM.pack_into(self._map, place, pid)
        _DOOM.pack_into(self._map, _DOOMS, (count + 1) & 0xFFFFFFFF)

    def left_all(self, slot: int, pid: int, calls: int) -> bool:
        """Tell whether a process has left the results of the first calls of a slot's task."""
        (turn,) = _TURN.unpack_from(self._map, slot * _WIDTH)
        results = self.recover(slot, turn, pid)
        return len(results) >= calls and None not in results

    # -- a worker's side -------------------------------------------------------------------

    def pardon(self) -> None:
        """Take this process off the doomed: it has the process id of one that is dead."""
        own = os.getpid()
        for place in range(_DOOMS + _DOOM.size, _SIZE, _DOOM.size):
            if _DOOM.unpack_from(self._map, place)[0] == own:
                _DOOM.pack_into(self._map, place, 0)

    def doomed(self) -> bool:
        """Tell whether this process is to begin no further task."""
        (count,) = _DOOM.unpack_from(self._map, _DOOMS)
        if count == self._dooms:
            return False
        last = struct.unpack_from(f"<{_LAST_DOOMS}I", self._map, _DOOMS + _DOOM.size)
        if os.getpid() in last:
            return True
        self._dooms = count
        return False

    def decline(self, slot: int) -> None:
        """Mark that this process, being doomed, has not begun a slot's task; nor may another.

        The client is told, and sends the task's calls anew. If that word is lost with this
        process Dask runs the task elsewhere; and the word may just have been heard.
        """
        _MARK.pack_into(self._map, slot * _WIDTH + _TURN.size, 0, DECLINED)

    def has_turn(self, slot: int, turn: int) -> bool:
        """Tell whether the slot is still that of the task it was given to on this turn."""
        return bool(_TURN.unpack_from(self._map, slot * _WIDTH)[0] == turn)

    def read(self, slot: int) -> tuple[int, int]:
        """Return process id and stage of the slot: (0, 0) when the task was never begun."""
        pid, stage = _MARK.unpack_from(self._map, slot * _WIDTH + _TURN.size)
        return pid, stage

    def mark(self, slot: int, stage: int) -> None:
        """Write that this process has brought the slot's task to `stage`."""
        _MARK.pack_into(self._map, slot * _WIDTH + _TURN.size, os.getpid(), stage)

    def trail(self, slot: int, turn: int, calls: int) -> Leave:
        """Return ``leave(index, result)`` for the results of a task of so many calls.

        It leaves a result where it outlives this process. Bytes are left as they are, and
        so are marshalled ones, of `PLAIN_KIND`; anything else is pickled; one over `SPOOLED` is
        only noted. For one thread.
        """
        pack, head = _RECORD.pack_into, _RECORD.size
        usual = _PAGE * min(16, 1 + calls // 64)
        spool: mmap.mmap | None = None
        use: object = None  # not read: see `_Spool`
        place = end_of_room = 0

        def leave(index: int, result: Any, kind: int = _BYTES) -> None:
            nonlocal spool, use, place, end_of_room
            if not isinstance(result, bytes):
                if sys.getsizeof(result) > SPOOLED:
                    kind, result = _TOO_LARGE, b""
                else:
                    kind, result = _OBJECT, pickle.dumps(result, 5)
            size = len(result)
            if size > SPOOLED:
                kind, result, size = _TOO_LARGE, b"", 0
            body = place + head
            end = body + size
            # An empty record always follows: behind it is what was written there long ago.
            if end + head > end_of_room:
                needs = _LENGTH.size + 2 * head + size
                spool, use, place, end_of_room = self._reserve(max(usual, needs))
                body = place + head
                end = body + size
            if spool is None:
                return
            # The record last: a process may be killed between any two of these lines.
            spool[body:end] = result
            spool[end : end + head] = _NO_RECORD
            pack(spool, place, slot, turn, index, size, kind)
            place = end

        return leave

    def _reserve(self, size: int) -> tuple[mmap.mmap | None, object, int, int]:
        """Return room in a spool, whole pages: where its records begin, and where it ends.

        The second is to be kept for as long as something may be written there.
        """
        size = -(-size // _PAGE) * _PAGE
        with self._lock:
            if self._spool is None or self._spool.end + size > _SPOOL_SIZE:
                try:
                    self._next_spool()
                except OSError:  # disk full: the result is just not insured
                    return None, None, 0, 0
            assert self._spool is not None
            return self._spool.reserve(size)

    def recover(self, slot: int, turn: int, pid: int) -> list[Any]:
        """Return the results that a dead process has left of a task: of its first calls.

        None stands for a result that was too large to be left, or has not been kept: the call
        that the process was running is the one behind the last of them.
        """
        return self.recover_all([(slot, turn)], pid)[0]

    def recover_all(self, tasks: Sequence[tuple[int, int]], pid: int) -> list[list[Any]]:
        """Return that of several tasks, by slot and turn; what was left is read once."""
        found: dict[tuple[int, int], dict[int, Any]] = {task: {} for task in tasks}
        for number in (0, 1):
            try:
                with open(self._spool_path(pid, number), "rb") as file:
                    _search(file.read(), found)
            except OSError:
                continue
        # Those that are not found among the others were in a file that was begun anew since.
        return [
            [found[task].get(index) for index in range(max(found[task], default=-1) + 1)]
            for task in tasks
        ]

    def turn(self, slot: int) -> int:
        """Return how often the slot was handed out."""
        return int(_TURN.unpack_from(self._map, slot * _WIDTH)[0])

    def _next_spool(self) -> None:
        full, spool = self._spool, self._other
        number = full.number ^ 1 if full is not None else 0
        if spool is None or not spool.begin_anew():
            path = self._spool_path(os.getpid(), number)
            Path(path).unlink(missing_ok=True)
            spool = _Spool(number, _mapped(path, _SPOOL_SIZE, create=True))
        self._spool, self._other = spool, full

    def _spool_path(self, pid: int, number: int) -> str:
        return f"{self.path}.{pid}.{number}"

    def close(self) -> None:
        """Unmap the files; removing them is their folder's owner's work."""
        self._map.close()
        self._spool = self._other = None


class _Spool:
    """A file for results: rooms with records; an empty one follows the last of a room.

    When both files of a process are full the older one is begun anew. That is ten times as fast as
    a new file, every page of which is a fault at first.
    """

    def __init__(self, number: int, room: mmap.mmap) -> None:
        self.number, self._map = number, room
        self._use()

    def _use(self) -> None:
        self.end = _PAGE
        _LENGTH.pack_into(self._map, 0, self.end)
        self._use_of_it: Any = _Use()
        self._used = weakref.ref(self._use_of_it)

    def reserve(self, size: int) -> tuple[mmap.mmap, object, int, int]:
        """Hand out room, as a `Board` does; under its lock."""
        start, self.end = self.end, self.end + size
        first = start + _LENGTH.size
        _LENGTH.pack_into(self._map, start, size)
        self._map[first : first + _RECORD.size] = _NO_RECORD
        _LENGTH.pack_into(self._map, 0, self.end)  # what is behind that is of no account
        return self._map, self._use_of_it, first, self.end

    def begin_anew(self) -> bool:
        """Forget what is there; False if a task still writes to it, which began long ago."""
        self._use_of_it = None
        if self._used() is not None:
            return False
        self._use()
        return True


class _Use:
    """Lives as long as a task may write to a spool."""


def _mapped(path: str, size: int, *, create: bool) -> mmap.mmap:
    fd = os.open(path, os.O_RDWR | (os.O_CREAT | os.O_EXCL if create else 0), 0o600)
    try:
        if create and hasattr(os, "posix_fallocate"):
            os.posix_fallocate(fd, 0, size)  # or a full disk would be a SIGBUS later
        elif create:
            os.ftruncate(fd, size)
        return mmap.mmap(fd, size)
    finally:
        os.close(fd)


def _search(spool: bytes, found: dict[tuple[int, int], dict[int, Any]]) -> None:
    used, room = _LENGTH.unpack_from(spool)[0], _PAGE
    while room < min(used, len(spool)):
        place, length = room + _LENGTH.size, _LENGTH.unpack_from(spool, room)[0]
        if not length:  # a process that lives has begun the file anew in between
            return
        room += length
        while place + _RECORD.size <= min(room, len(spool)):
            slot, turn, index, size, kind = _RECORD.unpack_from(spool, place)
            if not kind:
                break
            place += _RECORD.size
            results = found.get((slot, turn))
            if results is not None:
                body = spool[place : place + size]
                if kind == PLAIN_KIND:
                    body = pickle.dumps(marshal.loads(body), 5)
                results[index] = (
                    None if kind == _TOO_LARGE else pickle.loads(body) if kind == _OBJECT else body
                )
            place += size
