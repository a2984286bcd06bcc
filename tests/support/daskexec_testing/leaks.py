"""What a test leaves behind: threads, processes, descriptors."""

from __future__ import annotations

import contextlib
import gc
import threading
import time
from collections.abc import Iterator

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
    """Threads that Python waits for, but for Dask's own, which it has once in a process."""
    return {
        thread
        for thread in threading.enumerate()
        if not thread.daemon and not thread.name.startswith("Dask-Offload")
    }


@contextlib.contextmanager
def sharing() -> Iterator[list[int]]:
    """Count the processes started in the body as kept by something that tests share.

    The list given out holds their number afterwards, to be taken off ``Snapshot.shared``
    when they are stopped. What was started in mid-test does not count against the test.
    """
    before = len(_children())
    number: list[int] = []
    yield number
    number.append(max(0, len(_children()) - before))
    Snapshot.shared += number[0]
    if Snapshot.current is not None:
        Snapshot.current.retake()


class Snapshot:
    """Threads, processes and descriptors of a moment, to compare a later one with."""

    current: Snapshot | None = None
    """The snapshot of the test that runs."""

    shared = 0
    """Processes that shared executors keep; one of them may be on its way at any moment."""

    def __init__(self) -> None:
        self.retake()

    def retake(self) -> None:
        """Take what is there now as given; for shared executors made in mid-test."""
        self._threads = _threads()
        self._children = set(_children())
        self._expected = max(len(self._children), Snapshot.shared)
        self._descriptors = psutil.Process().num_fds()

    def _left(self) -> list[str]:
        left = [f"thread {t.name}" for t in _threads() - self._threads]
        children = _children()
        if len(children) > self._expected:  # by number: a dead worker's successor is no leak
            left += [
                f"process {pid}: {line}"
                for pid, line in children.items()
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
