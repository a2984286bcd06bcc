"""Where the time of one call goes: ``python -m benchmarks.floor``.

One call at a time on an idle cluster, by ``Client.submit(...).result()`` and by a `DaskExecutor`
on that same client, alternating. Time stamps are taken on the way (`benchmarks.stamps`); each
row is the time from the stamp before to this one. A step that an executor does not take is
blank, and its time is in the next one. The steps named "wire" also have the serialising, and the
waking of the event loops, at both of its ends. Taking the stamps costs some microseconds.
"""

from __future__ import annotations

import bisect
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
from distributed import Client
from rich.console import Console
from rich.table import Table

from benchmarks import report, stamps
from benchmarks.cluster import dask_cluster
from benchmarks.peers import dask_client
from daskexec import DaskExecutor

__all__ = ["STEPS", "main"]

#: Stamp that ends the step, where the time was spent, and what it is.
STEPS: tuple[tuple[str, str, str], ...] = (
    ("submitted", "client", "`submit` returns"),
    ("Client.submit", "client", "a thread of the executor's calls `Client.submit`"),
    ("message", "client", "graph and message are made"),
    ("write", "client", "the event loop writes it"),
    ("graph", "wire", "the scheduler has read it and taken over its graph"),
    ("scheduler processing", "scheduler", "a worker is chosen"),
    ("worker has it", "wire", "the worker has read the task"),
    ("worker executing", "worker", "it executes it"),
    ("function", "worker", "the function runs, on the worker's thread"),
    ("worker memory", "worker", "its result is kept"),
    ("scheduler memory", "wire", "the scheduler has read that it is done"),
    ("event", "wire", "the client has read an event (DaskExecutor's own messages)"),
    ("finished", "wire", "the client has read that it is done"),
    ("gather", "client", "it asks for the value"),
    ("gathered", "wire", "the value is there, by way of the scheduler"),
    ("result", "client", "`result` returns"),
)


@contextmanager
def _cluster(width: int, apart: bool) -> Iterator[Client]:
    if not apart:
        with dask_client(width, None) as client:
            yield client
        return
    with dask_cluster(width) as cluster, Client(cluster.address) as client:
        client.wait_for_workers(width, timeout=60)
        yield client


def measure(calls: int, *, width: int = 2, apart: bool = False) -> dict[str, list[list[float]]]:
    """Follow calls; return for each way of submitting, for each call, the times of the STEPS.

    Parameters
    ----------
    calls : int
        Of each kind.
    width : int
        Workers.
    apart : bool
        Whether the scheduler is a process of its own; else it is on a thread of this one.

    Returns
    -------
    dict
        Seconds; NaN for a step that is not taken.
    """
    windows: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    with _cluster(width, apart) as client, DaskExecutor(cluster=client) as executor:
        ways: dict[str, Callable[..., Any]] = {
            "Client.submit": lambda fn: client.submit(fn, pure=False),
            "DaskExecutor": executor.submit,
        }
        client.register_plugin(stamps.OnScheduler())
        client.register_plugin(stamps.OnWorker())
        stamps.on_client(client)
        for number in range(-20, calls):  # those below 0 warm up
            for name, submit in ways.items():
                time.sleep(0.03)  # until no message of the last call is on its way
                begin = time.time()
                future = submit(stamps.stamped)
                submitted = time.time()
                future.result(60)
                end = time.time()
                del future
                if number >= 0:
                    windows[name].append((begin, submitted, end))
        every = stamps.taken()
        if apart:
            every += client.run_on_scheduler(stamps.taken)
        for found in client.run(stamps.taken).values():
            every += found
    times: dict[str, list[float]] = defaultdict(list)
    for what, when in sorted(every, key=lambda pair: pair[1]):
        times[what].append(when)
    return {
        name: [_steps(times, *window) for window in calls_] for name, calls_ in windows.items()
    }


def _steps(
    times: dict[str, list[float]], begin: float, submitted: float, end: float
) -> list[float]:
    """Return the times of the steps of one call: of each stamp, the first after the last."""
    last, steps = begin, []
    # The stamps of other threads may come before `submit` returns.
    own = {**times, "submitted": [submitted], "result": [end]}
    for what, _, _ in STEPS:
        found = own.get(what, [])
        place = bisect.bisect_left(found, begin if what == "submitted" else last)
        if place == len(found) or found[place] > end:
            steps.append(float("nan"))
        else:
            steps.append(found[place] - last)
            last = found[place]
    return steps


def _median(values: list[float]) -> float | None:
    """Return the median in ms; None for a step that most calls do not take."""
    present = [value for value in values if value == value]
    return statistics.median(present) * 1e3 if len(present) * 2 > len(values) else None


def rows(found: dict[str, list[list[float]]]) -> list[list[str]]:
    """Return the rows of the table: the steps, sums by place, and the whole."""
    ways = list(found.values())
    table = []
    for number, (_, place, what) in enumerate(STEPS):
        medians = [_median([call[number] for call in way]) for way in ways]
        table.append([place, what, *("" if m is None else f"{m:.2f}" for m in medians)])
    for place in ("client", "scheduler", "worker", "wire"):
        sums = [
            [
                sum(t for t, step in zip(call, STEPS, strict=True) if step[1] == place and t == t)
                for call in way
            ]
            for way in ways
        ]
        table.append([place, "SUM", *(f"{_median(s) or 0:.2f}" for s in sums)])
    whole = [[sum(t for t in call if t == t) for call in way] for way in ways]
    table.append(["all", "submit to result", *(f"{_median(s) or 0:.2f}" for s in whole)])
    return table


@click.command()
@click.option("--calls", type=click.IntRange(1), default=200, show_default=True, help="Of each.")
@click.option(
    "--apart", is_flag=True, help="A scheduler in a process of its own, not in the client's."
)
@click.option("--markdown", is_flag=True, help="Print a table that can be pasted into a page.")
@click.option("--write-readme", is_flag=True, help="Put the table into benchmarks/README.md.")
def main(calls: int, apart: bool, markdown: bool, write_readme: bool) -> None:
    """Follow one call at a time through client, scheduler and worker: medians in ms.

    By `Client.submit(...).result()` and by a DaskExecutor on the same client, alternating.
    Each row is the time since the row before.
    """
    found = measure(calls, apart=apart)
    heads = ["where", "until", *(f"{name}, ms" for name in found)]
    lines = [f"| {' | '.join(heads)} |", f"|---|---|{'---:|' * len(found)}"]
    lines += [f"| {' | '.join(row)} |" for row in rows(found)]
    if write_readme:
        command = f"python -m benchmarks.floor --calls {calls}{' --apart' if apart else ''}"
        text = "\n".join((*lines, "", f"- {report.caption(command)}"))
        report.write_readme(report.README, "floor", text, order=["floor"])
    if markdown:
        click.echo("\n".join(lines))
        return
    table = Table()
    for number, head in enumerate(heads):
        table.add_column(head, justify="left" if number < 2 else "right")
    for row in rows(found):
        table.add_row(*row, end_section=row[1] in (STEPS[-1][2],))
    console = Console(highlight=False)
    console.print(", ".join(f"{key} {value}" for key, value in report.machine().items()))
    console.print(table)


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.floor")
