"""What a worker of a cluster that was given has begun, where it outlives the worker. Floor 1.

Runs on workers and on their nannies. A process that calls ``os._exit`` takes its unsent messages
with it, also the one that it has begun a call, and its finished results. So before a worker begins
a task it writes the task's number into a small mapped file beside its local directory, and leaves
results as on clusters of our own (`daskexec._board`): half a microsecond a call, and no write to a
disk is waited for. When it has died its nanny, or another worker of the host, is asked for them.

On clusters of our own the board itself, which the client sees, tells all that, and sooner.
"""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import os
import re
import shutil
import signal
import struct
import time
import weakref
import zlib
from multiprocessing import util
from pathlib import Path
from typing import Any

import psutil

from daskexec._board import Board, Leave

__all__ = [
    "Trail", "begun_by", "executor_of", "is_in", "keep_left", "mark_begun", "number_of",
    "results_of",
]  # fmt: skip

#: Tasks that are remembered, and the bytes that each takes: the number at the end of its key.
ENTRIES, WIDTH = 1024, 16
_HEAD = struct.Struct("<QQ")  # process id, tasks begun so far
_SIZE = _HEAD.size + ENTRIES * WIDTH
_SUFFIX = ".daskexec"
#: Seconds after which the folder of a dead process is of no use to anybody.
_STALE = 600.0
#: Seconds for which a nanny waits for the end of a process that has lost its connection.
_PATIENCE = 1.0

_marks: weakref.WeakKeyDictionary[Any, Marks] = weakref.WeakKeyDictionary()


class Marks:
    """The files of one worker; `add` is called under a lock of the caller."""

    def __init__(self, local_directory: str) -> None:
        folder = _folder(local_directory)
        self.lasting = [False]  # whether they are to outlive a good end of this process, too
        self._map: mmap.mmap | None = None
        self.board: Board | None = None
        self._count = 0
        with contextlib.suppress(OSError):  # disk full, say: then nothing is known
            _remove_stale(folder.parent)
            folder.mkdir(mode=0o700)
            util.Finalize(self, _put_away, (str(folder), self.lasting), exitpriority=0)
            fd = os.open(folder / "begun", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(fd, 0, _SIZE)  # or a full disk would be a SIGBUS later
                else:
                    os.ftruncate(fd, _SIZE)
                self._map = mmap.mmap(fd, _SIZE)
            finally:
                os.close(fd)
            self.board = Board(folder / "board", create=True)

    def add(self, key: str) -> None:
        """Note that the task of this key is being begun."""
        if self._map is None:
            return
        place = _HEAD.size + self._count % ENTRIES * WIDTH
        self._map[place : place + WIDTH] = number_of(key)
        self._count += 1
        _HEAD.pack_into(self._map, 0, os.getpid(), self._count)


class Trail:
    """Where the results of one task are left: what `daskexec._run` asks of a board."""

    def __init__(self, board: Board, key: str) -> None:
        self._board, self._key = board, key

    def trail(self, slot: int, turn: int, calls: int) -> Leave:
        """As of a `Board`; slot and turn are those of no board."""
        return self._board.trail(*_place_of(self._key), calls)


def _folder(local_directory: str) -> Path:
    return Path(local_directory.rstrip("/") + _SUFFIX)


def number_of(key: str) -> bytes:
    """Return what tells a task's key from all others: executor, call and attempt."""
    return bytes.fromhex(key[-2 * WIDTH :])


def executor_of(key: Any) -> str:
    """Return the id of the executor that a task is of; of somebody else's, anything else."""
    return key[-2 * WIDTH : -12] if isinstance(key, str) else ""


def _place_of(key: str) -> tuple[int, int]:
    number = number_of(key)
    return int.from_bytes(number[10:14], "big"), zlib.crc32(number)


def mark_begun(worker: Any, key: str) -> Trail | None:
    """Note that this worker begins a task; return where to leave its results, if anywhere.

    Under a lock of the caller.
    """
    marks = _marks.get(worker)
    if marks is None:
        marks = _marks[worker] = Marks(worker.local_directory)
    marks.add(key)
    return None if marks.board is None else Trail(marks.board, key)


def keep_left(worker: Any, lasting: bool) -> None:
    """Have what a worker leaves outlive it, or not, if its process ends in good order.

    One that was removed for its silence ends so when it goes on; it is asked for all the same.
    """
    marks = _marks.get(worker)
    if marks is not None:
        marks.lasting[0] = lasting


def _put_away(folder: str, lasting: list[bool]) -> None:
    if not lasting[0]:  # else it is removed when it is stale
        shutil.rmtree(folder, ignore_errors=True)


def is_in(left: bytes, key: str) -> bool:
    """Tell whether the task of this key is among those that `begun_by` has returned."""
    number = number_of(key)
    return any(left[at : at + WIDTH] == number for at in range(0, len(left), WIDTH))


async def begun_by(
    local_directory: str, pid: int, dask_worker: Any = None
) -> tuple[bytes | None, str]:
    """Return what a dead worker had begun, and what ended it; on its nanny, or its host.

    Returns
    -------
    bytes or None
        For `is_in`; None if there is no such file.
    str
        What the nanny says of the process's end; "" where this is no nanny, or it says nothing.
    """
    said, until = _said_of(pid, dask_worker), time.monotonic() + _PATIENCE
    while not said and hasattr(dask_worker, "instantiate") and time.monotonic() < until:
        await asyncio.sleep(0.02)  # the scheduler hears of the end before the nanny does
        said = _said_of(pid, dask_worker)
    try:
        content = (_folder(local_directory) / "begun").read_bytes()
    except OSError:
        return None, said
    count = min(_HEAD.unpack_from(content)[1], ENTRIES)
    return content[_HEAD.size : _HEAD.size + count * WIDTH], said


def results_of(local_directory: str, pid: int, keys: list[str]) -> list[list[Any]] | None:
    """Return the results that a dead worker has left of each of some tasks: see `Board.recover`.

    None: the files are gone.
    """
    try:
        board = Board(_folder(local_directory) / "board", create=False)
    except OSError:
        return None
    try:
        return board.recover_all([_place_of(key) for key in keys], pid)
    finally:
        board.close()


def _said_of(pid: int, nanny: Any) -> str:
    """Find what a nanny has logged of the end of its worker's process."""
    handler = getattr(nanny, "_deque_handler", None)
    ended = ""
    for record in list(getattr(handler, "deque", ())):
        message = record.getMessage()
        if f"(pid={pid}) exceeded" in message:
            limit = getattr(getattr(nanny, "memory_manager", None), "memory_limit", None)
            share = re.search(r"exceeded ([\d.]+%)", message)
            part = share[1] if share else "most"
            of = f" of {_gib(limit)}" if limit else ""
            return f"its nanny ended it for its memory: it used over {part} of its limit{of}"
        killed = re.search(rf"Worker process {pid} was killed by signal (\d+)", message)
        exited = re.search(rf"Worker process {pid} (exited with status \d+)", message)
        if killed:
            ended = f"it was killed by {_signal(int(killed[1]))}"
        elif exited:
            ended = f"it {exited[1]}"
    return ended


def _signal(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
    return f"{name} (out of memory?)" if name == "SIGKILL" else name


def _gib(size: float) -> str:
    return f"{size / (1 << 30):.3g} GiB" if size >= 1 << 30 else f"{size / (1 << 20):.3g} MiB"


def _remove_stale(place: Path) -> None:
    """Remove what workers that were killed have left here."""
    for folder in place.glob("*" + _SUFFIX):
        with contextlib.suppress(OSError, struct.error):
            if time.time() - folder.stat().st_mtime < _STALE:
                continue
            pid, _ = _HEAD.unpack_from((folder / "begun").read_bytes())
            if not psutil.pid_exists(pid):
                shutil.rmtree(folder, ignore_errors=True)
