"""When this worker will end, as it knows itself. Floor 3. Runs on workers.

Dask ends a worker that was started with ``--lifetime`` by a timer of its own. Its exact time is
found in the event loop, once; what is left is then a subtraction for each task, and nothing at all
for a worker without lifetime.
"""

from __future__ import annotations

import asyncio
import functools
import time
import weakref
from collections.abc import Callable
from typing import Any

import psutil

from daskexec._lifetimes import SLACK

__all__ = ["before_end", "lifetime_of", "seconds_left"]

_ends: weakref.WeakKeyDictionary[Any, float] = weakref.WeakKeyDictionary()  # of `time.monotonic`


def lifetime_of(worker: Any) -> float:
    """Return the seconds that a worker was to live from its start; 0 if it has no end."""
    return float(getattr(worker, "lifetime", None) or 0.0)


def seconds_left(worker: Any) -> float | None:
    """Return the seconds in which this worker can still run calls; None if it has no end."""
    lifetime = lifetime_of(worker)
    return _end(worker, lifetime) - SLACK - time.monotonic() if lifetime else None


def _end(worker: Any, lifetime: float) -> float:
    end = _ends.get(worker)
    if end is None:
        end = _ends[worker] = _told_by_timer(worker) or _told_by_process(lifetime)
    return end


def _told_by_timer(worker: Any) -> float | None:
    """Find Dask's timer among those of the loop, which counts in the same seconds."""
    loop: Any = worker.loop.asyncio_loop
    if type(loop).__module__.split(".")[0] != "asyncio":
        return None
    for timer in list(getattr(loop, "_scheduled", ())):
        for arg in getattr(timer, "_args", None) or ():
            call = arg.func if isinstance(arg, functools.partial) else arg
            if call == worker.close_gracefully and isinstance(timer, asyncio.TimerHandle):
                return float(timer.when())
    return None


def _told_by_process(lifetime: float) -> float:
    """Count from the start of the process: a little too early is on the safe side."""
    age = time.time() - psutil.Process().create_time()
    return float(time.monotonic() + lifetime - age)


def before_end(worker: Any, ahead: float, do: Callable[[Any], None]) -> None:
    """Have ``do(worker)`` called on the worker's loop `ahead` seconds before its end, once."""
    lifetime = lifetime_of(worker)
    if not lifetime or worker in _told:
        return
    _told.add(worker)
    delay = max(0.0, _end(worker, lifetime) - ahead - time.monotonic())
    worker.loop.add_callback(worker.loop.call_later, delay, do, worker)


_told: weakref.WeakSet[Any] = weakref.WeakSet()
