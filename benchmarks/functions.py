"""What the workers call. Needs the stdlib only, so that importing it costs a worker nothing."""

from __future__ import annotations

import os
import time
from typing import Any

__all__ = ["busy", "hold", "measure", "nothing", "ones", "tiny", "traffic", "who"]


def tiny(x: int) -> int:
    """The smallest call whose result can be checked: about 50 ns of work."""
    return x + 1


def nothing() -> None:
    """No argument, no result."""


def who(seconds: float) -> int:
    """Sleep, so that other workers get some of these calls too; return the process id."""
    time.sleep(seconds)
    return os.getpid()


def traffic(seconds: float) -> tuple[int, float, float]:
    """As `who`, with the bytes that the process has sent and received: `network.counts`."""
    from benchmarks import network

    time.sleep(seconds)
    return network.counts()


def busy(seconds: float) -> float:
    """Spin until this thread has used `seconds` of CPU time; return them.

    CPU time, not wall time: a call that is kept off its core by others takes longer, and the
    time in the calls can be compared with the time of the cores.
    """
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass
    return seconds


def hold(gate: str, limit: float) -> bool:
    """Keep the worker until a file exists; False when `limit` seconds have passed first."""
    until = time.monotonic() + limit
    while not os.path.exists(gate):
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def measure(array: Any, index: int) -> float:
    """Touch one element of a numpy array."""
    return float(array[index])


def ones(megabytes: int, index: int) -> Any:
    """Return an array of `megabytes` * 10**6 bytes, none like the last one."""
    import numpy

    array = numpy.ones(megabytes * 125_000)
    array[0] = index
    return array
