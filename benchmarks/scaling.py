"""The log job with one worker and with several: ``python -m benchmarks.scaling``.

Three things are timed on one file that lies in the page cache, each with one worker and with all,
in turns, in rounds:

- **count only**: processes that share nothing, each of which counts its part of the file, by the
  same code and with no executor; nothing is merged. So much the machine gives.
- **tally**: `daskexec.logs.analyze` by an executor that has started and has run a call on each
  worker.
- **command**: ``daskexec logs``, from the start of the interpreter to its end.

The log is the demo log (`daskexec.logs.demo`), in which visitors come back, or, with ``--log``,
any other. Every turn is a process of its own, and must count the same lines.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import wait
from contextlib import ExitStack
from multiprocessing.synchronize import Barrier
from pathlib import Path

import click

from benchmarks import report
from benchmarks.runner import into_page_cache
from daskexec.logs import analyze
from daskexec.logs.demo import lines_for, write_demo
from daskexec.logs.split import cut
from daskexec.logs.tally import Counting, tally_part
from daskexec.select import get_executor

__all__ = ["EXECUTORS", "main"]

EXECUTORS = ("threads", "processes", "dask")

_ROOT = Path(__file__).resolve().parent.parent
_LIMIT = 900.0  # seconds of a turn

Turn = tuple[float, int]
"""Seconds, and lines counted."""

# --- a turn, in a process of its own ---------------------------------------------------------


def count_only(log: Path, workers: int, _: str) -> Turn:
    """Count every so manieth part in each process, from when all are ready."""
    ready = multiprocessing.Barrier(workers)
    with multiprocessing.Pool(workers, _take, (ready,)) as pool:
        shares = pool.map_async(_count, [(log, n, workers) for n in range(workers)], 1)
        begins, ends, lines = zip(*shares.get(_LIMIT), strict=True)
    return max(ends) - min(begins), sum(lines)


_ready: Barrier  # in the processes


def _take(ready: Barrier) -> None:
    global _ready
    _ready = ready


def _count(share: tuple[Path, int, int]) -> tuple[float, float, int]:
    log, number, workers = share
    try:
        parts = list(cut(str(log)))
        counting = Counting()
        tally_part(parts[0], "combined", counting)  # imports, and the first memory
        _ready.wait(_LIMIT)
    except BaseException:
        _ready.abort()
        raise
    begin = time.monotonic()  # of the system, not of the process
    tallies = (tally_part(part, "combined", counting) for part in parts[number::workers])
    lines = sum(sum(tally.lines.values()) for tally in tallies)
    return begin, time.monotonic(), lines


def tally(log: Path, workers: int, name: str) -> Turn:
    """Report on the log by an executor that has started."""
    with get_executor(name, workers) as executor:
        wait([executor.submit(_warm) for _ in range(workers)])
        begin = time.perf_counter()
        found = analyze([log], executor, keep_tally=False)
        return time.perf_counter() - begin, found.lines


def _warm() -> None:
    import pyarrow.compute  # noqa: F401

    time.sleep(0.3)  # so that each worker has one


def command(log: Path, workers: int, name: str) -> Turn:
    """Run the command."""
    begin = time.perf_counter()
    done = subprocess.run(
        [
            sys.executable, "-m", "daskexec", "logs", "--json", "-e", name, "-w", str(workers),
            str(log),
        ],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=_LIMIT, check=True,
    )  # fmt: skip
    seconds = time.perf_counter() - begin
    return seconds, int(json.loads(done.stdout)["totals"]["lines"])


TURNS: dict[str, Callable[[Path, int, str], Turn]] = {
    "count only": count_only, "tally": tally, "command": command,
}  # fmt: skip


def take_turn(what: str, log: Path, workers: int, name: str) -> Turn:
    """Have a process of its own take a turn.

    Raises
    ------
    RuntimeError
        With the end of what it said, if it fails.
    """
    program = "import sys; from benchmarks.scaling import said; said(*sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", program, what, str(log), str(workers), name],
        capture_output=True, text=True, timeout=_LIMIT, cwd=_ROOT,
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{what} {name} by {workers}: {done.stderr[-800:]}")
    seconds, lines = json.loads(done.stdout.splitlines()[-1])
    return seconds, lines


def said(what: str, log: str, workers: str, name: str) -> None:
    """Take a turn here, and print what came of it."""
    print(json.dumps(TURNS[what](Path(log), int(workers), name)))


# --- the table -------------------------------------------------------------------------------

Found = dict[tuple[str, str], dict[int, list[float]]]
"""Seconds by what and executor, then by number of workers: one a round."""


def measure(log: Path, executors: list[str], workers: int, rounds: int) -> tuple[Found, int]:
    """Take all turns, and return what they took, and the number of lines."""
    sides = [("count only", ""), *((what, e) for e in executors for what in ("tally", "command"))]
    found: Found = {side: {1: [], workers: []} for side in sides}
    lines: set[int] = set()
    into_page_cache(log)
    for number in range(rounds):
        for what, name in sides:
            for many in (1, workers):
                seconds, counted = take_turn(what, log, many, name)
                lines.add(counted)
                found[what, name][many].append(seconds)
                click.echo(
                    f"{number + 1}/{rounds} {name} {what}, {many}: {seconds:.2f} s", err=True
                )
    if len(lines) != 1:
        raise RuntimeError(f"turns counted different numbers of lines: {sorted(lines)}")
    return found, lines.pop()


def rows(found: Found, workers: int) -> list[list[str]]:
    """Return the table: medians, and of each round's own ratio the median and the extremes."""
    table = []
    for (what, name), seconds in found.items():
        one, all_of_them = seconds[1], seconds[workers]
        ratios = [a / b for a, b in zip(one, all_of_them, strict=True)]
        table.append(
            [
                f"{name}, {what}" if name else f"{what}, no executor",
                f"{statistics.median(one):.2f}", f"{statistics.median(all_of_them):.2f}",
                f"{statistics.median(ratios):.2f} x ({min(ratios):.2f} - {max(ratios):.2f})",
            ]
        )  # fmt: skip
    return table


@click.command()
@click.option("--size", default=3_000, show_default=True, help="MB of the log.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--workers", type=click.IntRange(2), default=2, show_default=True)
@click.option("--seed", default=1, show_default=True)
@click.option(
    "--log", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="This log (combined) instead of the demo log.",
)  # fmt: skip
@click.option(
    "--executors", default=",".join(EXECUTORS), show_default=True,
    help="Only these; with commas between.",
)  # fmt: skip
@click.option("--write-readme", is_flag=True, help="Put the table into benchmarks/README.md.")
def main(
    size: int, rounds: int, workers: int, seed: int, log: Path | None, executors: str,
    write_readme: bool,
) -> None:  # fmt: skip
    """Time the log job with one worker and with several, on one file, in one run."""
    chosen = [name.strip() for name in executors.split(",")]
    if unknown := set(chosen) - set(EXECUTORS):
        raise click.UsageError(f"no {', '.join(unknown)}; there are {', '.join(EXECUTORS)}")
    with ExitStack() as stack:
        if log is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            made = write_demo(
                folder, seed=seed, lines=lines_for(size * 10**6, "combined"), compressions=("",)
            )
            log = Path(made.plain)
        number = log.stat().st_size
        found, lines = measure(log, chosen, workers, rounds)
    heads = ["", "1 worker, s", f"{workers} workers, s", "speeds up"]
    about = f"{number / 1e6:,.0f} MB, {lines:,} lines, rounds: {rounds}."
    table = rows(found, workers)
    if write_readme:
        text = report.section(about, heads, table)
        report.write_readme(report.README, "scaling", text, order=["logs", "scaling"])
    report.show(about, heads, table)


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.scaling")
