"""What a test leaves behind: threads, processes, descriptors."""

from __future__ import annotations

import contextlib
import gc
import threading
import time

import psutil

GRACE = 10.0
"""Seconds that what is on its way out gets to be gone."""

DESCRIPTORS = 20
"""Descriptors that a test may keep: caches, lazily opened files, a loop of asyncio."""

_HELPERS = ("multiprocessing.forkserver", "multiprocessing.resource_tracker")


def _children() -> dict[int, str]:
    """Processes below this one, but for multiprocessing's helpers, which stay by design."""
    me = psutil.Process()
    found = {}
    for child in me.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # gone since it was listed
            line = " ".join(child.cmdline())
            helper = child.ppid() == me.pid and any(name in line for name in _HELPERS)
            if not helper and child.status() != psutil.STATUS_ZOMBIE:
                found[child.pid] = line
    return found


def _threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if not thread.daemon}


class Snapshot:
    """Threads, processes and descriptors of a moment, to compare a later one with."""

    current: Snapshot | None = None

    def __init__(self) -> None:
        self.retake()

    def retake(self) -> None:
        """Take what is there now as given; for shared executors made in mid-test."""
        self._threads = _threads()
        self._children = set(_children())
        self._descriptors = psutil.Process().num_fds()

    def _left(self) -> list[str]:
        left = [f"thread {t.name}" for t in _threads() - self._threads]
        left += [
            f"process {pid}: {line}"
            for pid, line in _children().items()
            if pid not in self._children
        ]
        more = psutil.Process().num_fds() - self._descriptors
        if more > DESCRIPTORS:
            left.append(f"{more} descriptors")
        return left

    def left(self, grace: float = GRACE) -> list[str]:
        """What is new and still there after ``grace`` seconds."""
        deadline = time.monotonic() + grace
        while left := self._left():
            if time.monotonic() > deadline:
                return left
            gc.collect()
            time.sleep(0.02)
        return []
