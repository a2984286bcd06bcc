"""The board of begun calls: shared memory between this process and its workers. Floor 0.

When a worker process dies, only the call that it was *running* is lost: what it had not begun
can be sent again without running twice, and what it had finished need not run again. Messages
cannot tell them apart, because a process that calls ``os._exit`` takes its unsent messages with
it, its finished results included. So each worker of a cluster on this machine writes down, in
a small file that all of them have mapped, that it begins a call *before* it does so, and
leaves each small result in a file of its own. Both outlive the process; they cost a few
microseconds.

A slot belongs to one attempt of one call, from when it is sent until it is settled. The client
hands slots out; a worker that is given a call whose slot is already marked does not run it. Nor
does it if the slot has gone to another call since: then this one is settled, and Dask runs it
again just because its worker died before its result was released.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import struct
from collections import deque
from pathlib import Path
from typing import Any

__all__ = ["FINISHED", "INITIALIZING", "RUNNING", "Board"]

SLOTS = 1 << 16
_TURN = struct.Struct("<I")  # how often the slot was handed out
_MARK = struct.Struct("<IHHII")  # process id, stage, number of the spool, offset, length
_WIDTH = _TURN.size + _MARK.size
_SIZE = SLOTS * _WIDTH

INITIALIZING = 1
RUNNING = 2
FINISHED = 3

#: Bytes in a spool file after which a process goes on in its other one.
_SPOOL_SIZE = 8 << 20
#: Largest result that is left in a spool; a larger one is lost with its process.
_SPOOLED = 1 << 20


class Board:
    """The mapped file. Safe from several threads: each slot has one writer at a time.

    Parameters
    ----------
    path : str or Path
        The file, on a filesystem of this machine.
    create : bool
        Make it (the client's side) or open it (the worker's side).
    """

    def __init__(self, path: str | Path, *, create: bool = False) -> None:
        self.path = str(path)
        flags = os.O_RDWR | (os.O_CREAT | os.O_EXCL if create else 0)
        fd = os.open(path, flags, 0o600)
        try:
            if create:
                os.ftruncate(fd, _SIZE)
            self._map = mmap.mmap(fd, _SIZE)
        finally:
            os.close(fd)
        # The longest unused first, so that a slot is not soon another call's.
        self._free = deque(range(SLOTS)) if create else deque()
        self._spool = -1  # descriptor of the file that results go to
        self._spool_number = 0
        self._spool_end = 0

    # -- the client's side -----------------------------------------------------------------

    def acquire(self) -> tuple[int, int]:
        """Take an unmarked slot: its number and its turn. (-1, 0) when all are in use."""
        try:
            slot = self._free.popleft()
        except IndexError:
            return -1, 0
        place = slot * _WIDTH
        turn = (_TURN.unpack_from(self._map, place)[0] + 1) & 0xFFFFFFFF
        _MARK.pack_into(self._map, place + _TURN.size, 0, 0, 0, 0, 0)
        _TURN.pack_into(self._map, place, turn)
        return slot, turn

    def release(self, slot: int) -> None:
        """Give a slot back."""
        if slot >= 0:
            self._free.append(slot)

    def remove_spools(self, pid: int) -> None:
        """Remove what an ended process has left."""
        for number in (0, 1):
            Path(self._spool_path(pid, number)).unlink(missing_ok=True)

    # -- a worker's side -------------------------------------------------------------------

    def has_turn(self, slot: int, turn: int) -> bool:
        """Tell whether the slot is still that of the call it was given to on this turn."""
        return bool(_TURN.unpack_from(self._map, slot * _WIDTH)[0] == turn)

    def read(self, slot: int) -> tuple[int, int]:
        """Return process id and stage of the slot: (0, 0) when the call was never begun."""
        pid, stage, *_ = self._mark_of(slot)
        return pid, stage

    def mark(self, slot: int, stage: int) -> None:
        """Write that this process has brought the slot's call to `stage`."""
        self._write(slot, os.getpid(), stage, 0, 0, 0)

    def _mark_of(self, slot: int) -> tuple[int, int, int, int, int]:
        pid, stage, number, offset, length = _MARK.unpack_from(
            self._map, slot * _WIDTH + _TURN.size
        )
        return pid, stage, number, offset, length

    def _write(self, slot: int, *mark: int) -> None:
        _MARK.pack_into(self._map, slot * _WIDTH + _TURN.size, *mark)

    def leave(self, slot: int, key: str, result: Any, size: int) -> None:
        """Leave the result of a call of about `size` bytes where it outlives this process.

        To be called by one thread at a time.
        """
        number = offset = length = 0
        if size <= _SPOOLED:
            blob = pickle.dumps((key, result), 4)
            with contextlib.suppress(OSError):  # disk full: the result is just not insured
                number, offset = self._spool_for(len(blob))
                length = os.pwrite(self._spool, blob, offset)
        self._write(slot, os.getpid(), FINISHED, number, offset, length)

    def recover(self, slot: int, key: str) -> Any:
        """Return the result that another process has left for a call, or None."""
        pid, stage, number, offset, length = self._mark_of(slot)
        if stage != FINISHED or not length:
            return None
        try:
            with open(self._spool_path(pid, number), "rb") as file:
                file.seek(offset)
                found, result = pickle.loads(file.read(length))
        except Exception:  # written over since, half or whole
            return None
        return result if found == key else None

    def _spool_for(self, size: int) -> tuple[int, int]:
        if self._spool < 0 or self._spool_end + size > _SPOOL_SIZE:
            if self._spool >= 0:
                os.close(self._spool)
                self._spool_number ^= 1
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            path = self._spool_path(os.getpid(), self._spool_number)
            self._spool = os.open(path, flags, 0o600)
            self._spool_end = 0
        offset = self._spool_end
        self._spool_end += size
        return self._spool_number, offset

    def _spool_path(self, pid: int, number: int) -> str:
        return f"{self.path}.{pid}.{number}"

    def close(self) -> None:
        """Unmap the file; removing it is its folder's owner's work."""
        self._map.close()
