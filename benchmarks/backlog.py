"""A workload: a million pending calls, and what they cost in memory."""

from __future__ import annotations

import gc
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import psutil

from benchmarks import functions
from benchmarks.cluster import dask_cluster
from benchmarks.turn import Turn, warm_up

__all__ = ["run"]

_MB = 1_000_000


def run(turn: Turn) -> None:
    """Submit tiny calls while every worker is held up; weigh; let go; weigh again.

    Peers on Dask use a scheduler that is a process apart, so that it is weighed apart.
    """
    n = turn.count(1_000_000, 10_000, least=1_000)
    with ExitStack() as stack:
        address = scheduler = None
        if turn.peer.dask:
            cluster = stack.enter_context(dask_cluster(turn.width))
            address, scheduler = cluster.address, cluster.scheduler
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        adapter = stack.enter_context(turn.peer.open(turn.width, address))
        warm_up(adapter, turn.width)
        me = psutil.Process()
        gate = Path(folder, "gate")
        held = [adapter.submit(functions.hold, str(gate), 800.0) for _ in range(turn.width)]
        time.sleep(1)  # now every worker has begun one of them

        empty, scheduler_empty = _rss(me), _rss(scheduler)
        begin = time.perf_counter()
        futures = [adapter.submit(turn.functions.tiny, i) for i in range(n)]
        submitted = time.perf_counter()
        full, scheduler_full = _settled(me), _settled(scheduler)

        let_go = time.perf_counter()
        gate.touch()
        results = adapter.gather(futures)
        end = time.perf_counter()
        right = sum(result == i + 1 for i, result in enumerate(results))
        if right != n or not all(adapter.gather(held)):
            raise AssertionError(f"{n - right:,} of {n:,} results are wrong")
        del futures, held, results
        time.sleep(1)
        dropped, scheduler_dropped = _settled(me), _settled(scheduler)

        turn.figures(
            calls=n,
            submits=n / (submitted - begin),
            rate=n / (end - let_go),
            pending=(full - empty) / n,
            kept=(dropped - empty) / _MB,
        )
        if scheduler is not None:
            turn.figures(
                scheduler=(scheduler_full - scheduler_empty) / _MB,
                scheduler_kept=(scheduler_dropped - scheduler_empty) / _MB,
            )


def _rss(process: psutil.Process | None) -> float:
    """Return the resident memory of a process, in bytes."""
    gc.collect()
    return float(process.memory_info().rss) if process is not None else 0.0


def _settled(process: psutil.Process | None) -> float:
    """Return it when it has stopped growing by more than 1 MB in half a second."""
    before = _rss(process)
    for _ in range(20):
        time.sleep(0.5)
        now = _rss(process)
        if abs(now - before) < _MB:
            return now
        before = now
    return before
