"""The board of begun calls: shared memory between this process and its workers. Floor 0.

When a worker process dies, only the calls that it had *begun* are lost; the others can be
sent again without running twice. Messages cannot tell the two apart, because a process that
calls ``os._exit`` takes its unsent messages with it. So each worker of a cluster on this
machine writes down, in a small file that all of them have mapped, that it begins a call
*before* it does so. The mark outlives the process: it costs about a microsecond.

A slot belongs to one attempt of one call, from when it is sent until it is settled. The
client hands slots out; a worker that is given a call whose slot is already marked refuses it.
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path

__all__ = ["INITIALIZING", "RUNNING", "Board"]

SLOTS = 1 << 16
_SLOT = struct.Struct("<II")  # process id, stage
_SIZE = SLOTS * _SLOT.size

INITIALIZING = 1
RUNNING = 2


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
        self._free = list(range(SLOTS - 1, -1, -1)) if create else []

    def acquire(self) -> int:
        """Take an unmarked slot, -1 when all are in use (the client's side)."""
        try:
            slot = self._free.pop()
        except IndexError:
            return -1
        _SLOT.pack_into(self._map, slot * _SLOT.size, 0, 0)
        return slot

    def release(self, slot: int) -> None:
        """Give a slot back (the client's side)."""
        if slot >= 0:
            self._free.append(slot)

    def read(self, slot: int) -> tuple[int, int]:
        """Return process id and stage of the slot: (0, 0) when the call was never begun."""
        pid, stage = _SLOT.unpack_from(self._map, slot * _SLOT.size)
        return pid, stage

    def mark(self, slot: int, stage: int) -> None:
        """Write that this process has brought the slot's call to `stage` (a worker's side)."""
        _SLOT.pack_into(self._map, slot * _SLOT.size, os.getpid(), stage)

    def close(self) -> None:
        """Unmap the file; removing it is its folder's owner's work."""
        self._map.close()
