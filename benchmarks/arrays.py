"""Workloads: large arguments and large results. Needs numpy."""

from __future__ import annotations

import time
from typing import Any

from benchmarks import functions, network
from benchmarks.turn import Turn

__all__ = ["arguments", "results"]

_MB = 1_000_000


def arguments(turn: Turn) -> None:
    """Hand one array of 100 MB to many calls, and count what is sent."""
    import numpy

    array = numpy.arange(12_500_000.0)
    ours = turn.peer.name == "daskexec"
    n = turn.count(1_000 if ours else 10, least=10)
    # numpy is imported by the workers, and none of this is counted.
    turn.adapter.gather([turn.adapter.submit(functions.measure, array[:10], 1)])
    turn.outcome.rows[turn.peer.title] = _hand_out(turn, array, n)
    notes = [] if ours else [f"measured with {n} calls"]
    if turn.adapter.scatter is not None:
        expert = f"{turn.peer.title}, scattered by hand"
        turn.outcome.rows[expert] = _hand_out(turn, turn.adapter.scatter(array), n)
        turn.outcome.notes[expert] = "the scattering itself is not counted"
    if not turn.own_network:
        notes.append("the loopback is shared with whatever else this machine does")
    if notes:
        turn.note("; ".join(notes))


def _hand_out(turn: Turn, array: Any, n: int) -> dict[str, float]:
    workers_before = _received_by_workers(turn)
    _, sent_before, _ = network.counts()
    loopback_before = network.loopback()
    begin = time.perf_counter()
    futures = [turn.adapter.submit(functions.measure, array, i) for i in range(n)]
    if turn.adapter.gather(futures) != [float(i) for i in range(n)]:
        raise AssertionError("the results are wrong")
    seconds = time.perf_counter() - begin
    loopback = network.loopback() - loopback_before
    _, sent, _ = network.counts()
    workers = _received_by_workers(turn)
    return {
        "time": seconds / n * 1e3,
        "sent": (sent - sent_before) / n / _MB,
        # A worker that was replaced meanwhile started counting anew.
        "received": sum(got - workers_before.get(pid, 0.0) for pid, got in workers.items())
        / n
        / _MB,
        "loopback": loopback / n / _MB,
    }


def _received_by_workers(turn: Turn) -> dict[int, float]:
    found: dict[int, float] = {}
    until = time.monotonic() + 60
    while len(found) < turn.width and time.monotonic() < until:
        futures = [turn.adapter.submit(functions.traffic, 0.05) for _ in range(2 * turn.width)]
        found.update({pid: received for pid, _, received in turn.adapter.gather(futures)})
    if len(found) < turn.width:
        raise TimeoutError("some workers ran no call in 60 s")
    return found


def results(turn: Turn) -> None:
    """Get many results of 10 MB."""
    n = turn.count(100, least=10)
    turn.adapter.gather([turn.adapter.submit(functions.ones, 1, 0)])
    begin = time.perf_counter()
    futures = [turn.adapter.submit(functions.ones, 10, i) for i in range(n)]
    arrays = turn.adapter.gather(futures)
    seconds = time.perf_counter() - begin
    if [float(array[0]) for array in arrays] != [float(i) for i in range(n)]:
        raise AssertionError("the results are wrong")
    turn.figures(rate=n * 10 / seconds, time=seconds / n * 1e3)
