"""What is measured. Each workload is a function of a `Turn`, and has an entry in WORKLOADS."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks import arrays, backlog, delay, startup
from benchmarks.functions import busy, nothing
from benchmarks.peers import PEERS, Adapter, dask_client
from benchmarks.turn import Turn, check, warm_up

__all__ = ["WORKLOADS", "Figure", "Workload"]


@dataclass(frozen=True)
class Figure:
    """One column of a table.

    Attributes
    ----------
    key : str
        What the turn calls it.
    title : str
        The head of the column, with the unit.
    better : str
        ``"more"`` or ``"less"``: ratios are made such that above 1 DaskExecutor is the
        better one. ``""``: no ratio.
    """

    key: str
    title: str
    better: str = "more"


@dataclass(frozen=True)
class Workload:
    """One table.

    Attributes
    ----------
    name : str
        On the command line.
    about : str
        One sentence: what is done and what the figures are.
    run : callable
        Takes a `Turn` and fills in its outcome.
    figures : tuple of Figure
        The columns.
    peers : tuple of str
        Those that can take part, in the order of their turns.
    limit : float
        Seconds after which a turn is ended and its peer left out.
    opens : bool
        Starts its executors itself.
    in_main : bool
        The functions are in ``__main__``.
    own_network : bool
        Counts the loopback's bytes, and so wants one of its own.
    """

    name: str
    about: str
    run: Callable[[Turn], None]
    figures: tuple[Figure, ...]
    peers: tuple[str, ...] = tuple(PEERS)
    limit: float = 180.0
    opens: bool = False
    in_main: bool = False
    own_network: bool = False


# --- tiny calls ----------------------------------------------------------------------------------


def submits(turn: Turn) -> None:
    """Submit tiny calls, then ask for all results."""
    n = turn.count(20_000, 1_000)
    fn = turn.functions.tiny
    begin = time.perf_counter()
    futures = [turn.adapter.submit(fn, i) for i in range(n)]
    submitted = time.perf_counter()
    results = turn.adapter.gather(futures)
    end = time.perf_counter()
    check(results, range(1, n + 1))
    turn.figures(rate=n / (end - begin), submit=(submitted - begin) / n * 1e6)


def maps(turn: Turn) -> None:
    """Map over tiny calls without a word on chunks; then, where one can, with the best word."""
    # A million, where that takes a second or so: the first and the last task count little then.
    many = turn.count(1_000_000)
    chooses = turn.peer.name == "daskexec"
    turn.figures(rate=_map_rate(turn, many if chooses else turn.count(50_000, 1_000)))
    if turn.peer.chunks:
        sizes = (100, 1_000, 10_000, 100_000)
        rates = {size: _map_rate(turn, many, chunksize=size) for size in sizes}
        best = max(rates, key=rates.__getitem__)
        row = f"{turn.peer.title}, best chunksize"
        turn.outcome.rows[row] = {"rate": rates[best]}
        turn.outcome.notes[row] = f"chunksize {best:,} of {', '.join(f'{s:,}' for s in rates)}"


def _map_rate(turn: Turn, n: int, **options: Any) -> float:
    begin = time.perf_counter()
    results = turn.adapter.map(turn.functions.tiny, range(n), **options)
    end = time.perf_counter()
    check(results, range(1, n + 1))
    return n / (end - begin)


def in_main(turn: Turn) -> None:
    """Both of the above, with functions that workers cannot import."""
    submits(turn)
    n = turn.count(20_000, 1_000)
    turn.figures(map_rate=_map_rate(turn, n))


# --- calls that do something ---------------------------------------------------------------------


def grain(turn: Turn) -> None:
    """Calls of 1, 10 and 100 ms of CPU time, by submit."""
    for key, seconds, n in (("ms1", 1e-3, 10_000), ("ms10", 1e-2, 1_000), ("ms100", 0.1, 100)):
        n = turn.count(n, n // 10 if seconds < 1e-2 else n // 2, least=2 * turn.width)
        begin = time.perf_counter()
        used = sum(turn.adapter.gather([turn.adapter.submit(busy, seconds) for _ in range(n)]))
        turn.figures(**{key: used / (turn.width * (time.perf_counter() - begin)) * 100})


def mix(turn: Turn) -> None:
    """One call in a hundred takes 100 ms, the others 0.1 ms, in an order drawn by chance."""
    n = turn.count(4_000, 1_000, least=400)
    seconds = [0.1] * (n // 100) + [1e-4] * (n - n // 100)
    random.Random(n).shuffle(seconds)
    begin = time.perf_counter()
    futures = [turn.adapter.submit(busy, s) for s in seconds]
    used = sum(turn.adapter.gather(futures))
    by_submit = time.perf_counter() - begin
    begin = time.perf_counter()
    used_by_map = sum(turn.adapter.map(busy, seconds))
    by_map = time.perf_counter() - begin
    turn.figures(
        submit=used / (turn.width * by_submit) * 100, map=used_by_map / (turn.width * by_map) * 100
    )


# --- there and back ------------------------------------------------------------------------------


def there_and_back(turn: Turn) -> None:
    """One call at a time: on an idle executor, and right after the last one."""
    n = turn.count(200, least=50)
    turn.figures(**_median_and_p90([_one(turn.adapter) for _ in range(n)]))
    turn.figures(next=statistics.median(_one(turn.adapter, 0.0) for _ in range(n)) * 1e3)


def shared_client(turn: Turn) -> None:
    """One call at a time: by a Client, and by a DaskExecutor on the same Client, in turns."""
    from daskexec import DaskExecutor

    n = turn.count(200, least=50)
    with dask_client(turn.width, None) as client, DaskExecutor(cluster=client) as executor:
        plain = Adapter(lambda fn, *args: client.submit(fn, *args, pure=False), _no_map)
        ours = Adapter(executor.submit, _no_map)
        for adapter in (plain, ours):
            warm_up(adapter, turn.width)
        pairs = [(_one(plain), _one(ours)) for _ in range(n)]
        following = [[_one(adapter, 0.0) for _ in range(n)] for adapter in (plain, ours)]
    rows = ("Client.submit(...).result()", "DaskExecutor")
    for row, idle, busy_ in zip(rows, zip(*pairs, strict=True), following, strict=True):
        turn.outcome.rows[row] = {
            **_median_and_p90(list(idle)),
            "next": statistics.median(busy_) * 1e3,
        }


def _one(adapter: Adapter, pause: float = 0.03) -> float:
    # Dask's client keeps a message back for 10 ms if it has just sent one, such as that the
    # last result is no longer needed: idle is later than that.
    time.sleep(pause)
    begin = time.perf_counter()
    adapter.submit(nothing).result()
    return time.perf_counter() - begin


def _median_and_p90(times: list[float]) -> dict[str, float]:
    return {
        "median": statistics.median(times) * 1e3,
        "p90": statistics.quantiles(times, n=10)[-1] * 1e3,
    }


def _no_map(*args: Any) -> list[Any]:
    raise NotImplementedError


# --- all of them ---------------------------------------------------------------------------------

_RATE = Figure("rate", "calls/s")
_TIMES = (
    Figure("median", "idle, median, ms", "less"),
    Figure("p90", "idle, 90th percentile, ms", "less"),
    Figure("next", "one after the other, median, ms", "less"),
)

WORKLOADS: dict[str, Workload] = {
    workload.name: workload
    for workload in (
        Workload(
            "submit",
            "Tiny calls, each by `submit`, then all results: calls a second, and what one "
            "`submit` costs its caller.",
            submits,
            (_RATE, Figure("submit", "submit, µs", "less")),
        ),
        Workload(
            "map",
            "Tiny calls by `map(fn, items)` with no `chunksize`; and with the best one of four, "
            "where there is one to tune.",
            maps,
            (_RATE,),
        ),
        Workload(
            "main",
            "Tiny calls of a function in `__main__`, as in a script: by `submit`, by `map`.",
            in_main,
            (
                Figure("rate", "submit, calls/s"),
                Figure("map_rate", "map, calls/s"),
                Figure("submit", "submit, µs", "less"),
            ),
            in_main=True,
        ),
        Workload(
            "grain",
            "Calls that use 1, 10 and 100 ms of CPU time, by `submit`: efficiency, the CPU time "
            "in the calls / (cores x wall time).",
            grain,
            (Figure("ms1", "1 ms, %"), Figure("ms10", "10 ms, %"), Figure("ms100", "100 ms, %")),
        ),
        Workload(
            "mix",
            "Calls of 0.1 ms, and one in a hundred of 100 ms: efficiency as above, by `submit` "
            "and by `map`.",
            mix,
            (Figure("submit", "submit, %"), Figure("map", "map, %")),
        ),
        Workload(
            "roundtrip",
            "One call at a time, `submit(...).result()`: on an executor that has been idle for "
            "30 ms, and one right after the other.",
            there_and_back,
            _TIMES,
        ),
        Workload(
            "sharedclient",
            "One call at a time, by `Client.submit(...).result()` and by a `DaskExecutor` on "
            "that same client, alternating.",
            shared_client,
            _TIMES,
            peers=("daskexec",),
            opens=True,
        ),
        Workload(
            "arguments",
            "One numpy array of 100 MB, handed to 1,000 calls (10 of the peers'): the time of a "
            "call, and MB for each call: sent by the client's process, received by the workers' "
            "(TCP or pipes), and carried by the loopback interface (TCP, by way of a scheduler "
            "too). The schedulers of Dask run in the client's process, which so sends twice.",
            arrays.arguments,
            (
                Figure("time", "ms/call", "less"),
                Figure("sent", "client sent, MB/call", "less"),
                Figure("received", "workers received, MB/call", ""),
                Figure("loopback", "loopback, MB/call", ""),
            ),
            limit=300.0,
            own_network=True,
        ),
        Workload(
            "results",
            "Results of 10 MB (numpy), 100 of them.",
            arrays.results,
            (Figure("rate", "MB/s"), Figure("time", "ms/call", "less")),
        ),
        Workload(
            "backlog",
            "A million tiny calls (10,000 of slow peers) submitted while the workers are held "
            "up: calls/s of `submit`, calls/s once let go, memory of the client's process for "
            "each pending call, growth of the scheduler's, and what either keeps once all "
            "futures are dropped. The scheduler is a process apart.",
            backlog.run,
            (
                Figure("calls", "calls", ""),
                Figure("submits", "submits/s"),
                Figure("rate", "calls/s"),
                Figure("pending", "bytes/pending call", "less"),
                Figure("kept", "client keeps, MB", ""),
                Figure("scheduler", "scheduler grows, MB", ""),
                Figure("scheduler_kept", "it keeps, MB", ""),
            ),
            limit=900.0,
            opens=True,
        ),
        Workload(
            "delay",
            f"A scheduler that is {delay.DELAY:.0f} ms away from the client, one way; the "
            "workers are near the scheduler. One call at a time, then tiny calls by `submit` "
            "and by `map`.",
            delay.run,
            (
                Figure("median", "one call, median, ms", "less"),
                Figure("submit", "submit, calls/s"),
                Figure("map", "map, calls/s"),
            ),
            peers=tuple(name for name, peer in PEERS.items() if peer.dask),
            opens=True,
        ),
        Workload(
            "startup",
            "Whole programs, `python -c`: start the executor, one call, end. Seconds from the "
            "start of the program until its first result is there, and until it has ended.",
            startup.run,
            (
                Figure("first", "first result, s", "less"),
                Figure("exit", "exit, s", "less"),
            ),
            peers=tuple(startup.PROGRAMS),
            opens=True,
        ),
    )
}
