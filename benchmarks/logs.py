"""The log job beside GoAccess and DuckDB: ``python -m benchmarks.logs``.

Whole programs, from the command line to the report on a file that lies in the page cache, one
at a time, in rounds. All make the same panels: hits by hour and day, status codes, and the top
ten of paths, paths by bytes, paths not found, clients, referrers and user agents (GoAccess: of
browsers, which is cheaper for it), and unique visitors. Memory is the proportional set size of
all processes of a program together, looked at ten times a second; `start` is the same program on
a log of one line, right before.

The log is made up here, from a seed: lines of the shape of a public sample (a small site in
2015; about 190 bytes a line), with addresses, times and query strings drawn anew for each line.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import click
import psutil

from benchmarks import report
from benchmarks.runner import into_page_cache

__all__ = ["SIDES", "Side", "main", "write_log"]

_ROOT = Path(__file__).resolve().parent.parent

# --- the log ---------------------------------------------------------------------------------

_AGENTS = (
    b"Mozilla/5.0 (Windows NT 6.1; WOW64) AppleWebKit/537.36 (KHTML, like Gecko) "
    b"Chrome/%d.0.1700.107 Safari/537.36",
    b"Mozilla/5.0 (Macintosh; Intel Mac OS X 10.9; rv:27.0) Gecko/20100101 Firefox/%d.0",
    b"Mozilla/5.0 (compatible; Examplebot/2.%d; +http://example.com/bot.html)",
    b"UniversalFeedParser/4.2-pre-%d-svn +http://feedparser.example/",
    b"Reader/%d (http://feeds.example; 16 subscribers)",
)
_REFERRERS = (
    b"-",
    b"-",
    b"-",
    b"http://www.example.com/articles/%d/",
    b"http://search.example/?q=%d",
)


def _places(number: int, dice: random.Random, count: int) -> list[int]:
    """Draw `count` of `number` places, the first ones most often."""
    weights = [*accumulate(1 / (rank + 3) for rank in range(number))]
    return dice.choices(range(number), cum_weights=weights, k=count)


def write_log(path: Path, size: int, seed: int = 1) -> int:
    """Write a log of about `size` bytes in combined format; return its number of lines."""
    dice = random.Random(seed)
    sections, suffixes = (b"blog", b"images", b"projects", b"style"), (b".png", b"/", b".html")
    paths = [b"/%b/%d%b" % (dice.choice(sections), n, dice.choice(suffixes)) for n in range(1_500)]
    ends = []  # to choose from: the request's begin, and the rest
    number = 20_000
    for at, who in zip(_places(1_500, dice, number), _places(500, dice, number), strict=True):
        referrer, agent = dice.choice(_REFERRERS), _AGENTS[who % 5] % (who // 5)
        referrer = referrer % dice.randrange(1_000) if b"%" in referrer else referrer
        status = dice.choices((200, 304, 404, 301), (90, 5, 2, 3))[0]
        sent = b"-" if status == 304 else b"%d" % (at * 7919 % 200_000)
        rest = b' HTTP/1.1" %d %b "%b" "%b"\n' % (status, sent, referrer, agent)
        ends.append((b'] "GET %b' % paths[at] + b"?id=" * (dice.random() < 0.15), rest))
    clients = [
        b"%d.%d.%d.%d - - [" % tuple(dice.randrange(1, 255) for _ in range(4))
        for _ in range(200_000)
    ]
    begin = datetime.datetime(2015, 5, 17)
    written = lines = 0
    with path.open("wb") as stream:
        while written < size:
            chosen = dice.choices(ends, k=50_000)
            block = []
            for (request, rest), who in zip(
                chosen, _places(len(clients), dice, 50_000), strict=True
            ):
                if lines % 20 == 0:  # several hits a second
                    now = begin + datetime.timedelta(seconds=lines // 10)
                    moment = f"{now:%d/%b/%Y:%H:%M:%S} +0000".encode()
                if request.endswith(b"="):
                    request += b"%d" % (lines * 7919 % 100_000)
                block += (clients[who], moment, request, rest)
                lines += 1
            written += stream.write(b"".join(block))
    return lines


# --- the programs ----------------------------------------------------------------------------

_DUCKDB = """
import sys, duckdb
path, threads = sys.argv[1:]
db = duckdb.connect(config={"threads": int(threads)})
db.execute("set enable_progress_bar = false")
columns = "client ident user day zone request status bytes referrer agent".split()
types = ", ".join(f"'{name}': 'VARCHAR'" for name in columns)
db.execute(f'''create temp table log as select client, day[2:12] as day, day[2:15] as hour,
    split_part(request, ' ', 2) as path, status, try_cast(bytes as bigint) as bytes, referrer,
    agent from read_csv('{path}', delim=' ', quote='"', escape='\\\\', header=false,
    auto_detect=false, strict_mode=false, ignore_errors=true, null_padding=true,
    columns={{{types}}})''')
top = "select {0}, {1} from log {2} group by {0} order by 2 desc, 1 limit 10"
print(db.execute("select count(*), sum(bytes), min(day), max(day) from log").fetchone()[0])
for key in ("status", "hour", "day"):
    db.execute(f"select {key}, count(*) from log group by {key}").fetchall()
for key, what, where in (
    ("path", "count(*)", ""), ("path", "sum(bytes)", ""), ("client", "count(*)", ""),
    ("path", "count(*)", "where status='404'"), ("referrer", "count(*)", "where referrer<>'-'"),
    ("agent", "count(*)", ""),
):
    db.execute(top.format(key, what, where)).fetchall()
db.execute("select count(distinct client) from log").fetchall()
db.execute("select count(*) from (select distinct client, agent, day from log)").fetchall()
"""

_PANELS = (
    "REQUESTS_STATIC", "OS", "VIRTUAL_HOSTS", "REFERRING_SITES", "KEYPHRASES",
    "REMOTE_USER", "CACHE_STATUS", "GEO_LOCATION", "MIME_TYPE", "TLS_TYPE",
)  # fmt: skip


@dataclass(frozen=True)
class Side:
    """One program.

    Attributes
    ----------
    name
        Its row.
    command
        Of the log, the number of workers, and a folder for its output.
    count
        Finds the number of requests in its output.
    missing
        Why it cannot take part; empty: it can.
    """

    name: str
    command: Callable[[Path, int, Path], Sequence[str]]
    count: Callable[[str, Path], int]
    missing: Callable[[], str] = lambda: ""


def _goaccess(log: Path, workers: int, folder: Path) -> list[str]:
    return [
        "goaccess", str(log), "--log-format=COMBINED", "--no-global-config", "--no-progress",
        *(f"--ignore-panel={panel}" for panel in _PANELS), "--enable-panel=REFERRERS",
        "-o", str(folder / "goaccess.json"),
    ]  # fmt: skip


def _ours(executor: str, engine: str) -> Side:
    def command(log: Path, workers: int, folder: Path) -> list[str]:
        return [
            sys.executable, "-m", "daskexec", "logs", "--json", "-e", executor, "-w", str(workers),
            "--engine", engine, str(log),
        ]  # fmt: skip

    return Side(
        f"daskexec logs, {executor}, {engine}",
        command,
        lambda out, folder: int(json.loads(out)["totals"]["requests"]),
        lambda: "" if engine == "stdlib" else _module_missing("pyarrow"),
    )


def _module_missing(name: str) -> str:
    import importlib.util

    return "" if importlib.util.find_spec(name) else f"{name} is not installed"


SIDES = {
    "goaccess": Side(
        "GoAccess",
        _goaccess,
        lambda out, folder: int(
            json.loads((folder / "goaccess.json").read_text())["general"]["valid_requests"]
        ),
        lambda: "" if shutil.which("goaccess") else "goaccess is not installed",
    ),
    "duckdb": Side(
        "DuckDB read_csv",
        lambda log, workers, folder: [sys.executable, "-c", _DUCKDB, str(log), str(workers)],
        lambda out, folder: int(out.split()[0]),
        lambda: _module_missing("duckdb"),
    ),
    **{
        f"{executor}-{engine}": _ours(executor, engine)
        for engine in ("arrow", "stdlib")
        for executor in ("processes", "threads", "dask")
    },
}


@dataclass
class Found:
    """What was measured of one side: a value a round."""

    seconds: list[float] = field(default_factory=list)
    peak: list[float] = field(default_factory=list)
    start_seconds: list[float] = field(default_factory=list)
    start_peak: list[float] = field(default_factory=list)
    requests: int = 0


def run(side: Side, log: Path, workers: int) -> tuple[float, float, int]:
    """Run a program once: seconds, peak memory in MB, requests that it counted.

    Raises
    ------
    RuntimeError
        With the end of what it said, if it fails or takes ten minutes.
    """
    with tempfile.TemporaryDirectory(prefix="bench-logs-") as name:
        folder = Path(name)
        environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
        with (folder / "out").open("w+") as out, (folder / "err").open("w+") as err:
            begin = time.perf_counter()
            process = subprocess.Popen(
                side.command(log, workers, folder), stdout=out, stderr=err, env=environment,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
            with _watched(process.pid) as peak:
                try:
                    code = process.wait(600)
                finally:
                    process.kill()
            seconds = time.perf_counter() - begin
            out.seek(0)
            err.seek(0)
            if code != 0:
                raise RuntimeError(f"exit status {code}: {err.read()[-500:]}")
            return seconds, peak[0] / 1e6, side.count(out.read(), folder)


@contextlib.contextmanager
def _watched(pid: int) -> Iterator[list[float]]:
    """Follow the memory of a process and its children; the list's one item is the most."""
    peak, done = [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            total = 0
            with contextlib.suppress(psutil.Error):
                root = psutil.Process(pid)
                for process in (root, *root.children(recursive=True)):
                    with contextlib.suppress(psutil.Error):
                        total += _memory(process)
            peak[0] = max(peak[0], total)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def _memory(process: psutil.Process) -> int:
    said: Any = process.memory_full_info()
    return int(getattr(said, "pss", 0) or said.rss)


# --- the table -------------------------------------------------------------------------------


def measure(log: Path, sides: Sequence[str], workers: int, rounds: int) -> dict[str, Found]:
    """Let each side run once a round, one after the other; those that fail are left out."""
    found: dict[str, Found] = {}
    with tempfile.TemporaryDirectory(prefix="bench-logs-") as folder:
        tiny = Path(folder, "one.log")
        with log.open("rb") as stream:
            tiny.write_bytes(stream.readline())
        for number in range(1, rounds + 1):
            for name in sides:
                side = SIDES[name]
                if number > 1 and name not in found:
                    continue
                try:
                    if reason := side.missing():
                        raise RuntimeError(reason)
                    # First: the programs' own files are in the page cache then, too.
                    start_seconds, start_peak, _ = run(side, tiny, workers)
                    into_page_cache(log)
                    seconds, peak, requests = run(side, log, workers)
                except RuntimeError as error:
                    click.echo(f"{side.name} is LEFT OUT: {error}", err=True)
                    found.pop(name, None)
                    continue
                mine = found.setdefault(name, Found())
                mine.start_seconds.append(start_seconds)
                mine.start_peak.append(start_peak)
                mine.seconds.append(seconds)
                mine.peak.append(peak)
                mine.requests = requests
                click.echo(
                    f"{number}/{rounds} {side.name}: {seconds:.2f} s, {peak:.0f} MB", err=True
                )
    return found


def rows(found: dict[str, Found], size: int, lines: int) -> list[list[str]]:
    """Return the table: a side's medians, and how many times as fast it is as each rival."""
    table = []
    for name, mine in found.items():
        seconds = statistics.median(mine.seconds)
        ratios = []
        for rival in ("goaccess", "duckdb"):
            pairs = zip(found[rival].seconds, mine.seconds, strict=False) if rival in found else ()
            times = [theirs / ours for theirs, ours in pairs]
            ratios.append(f"{statistics.median(times):.2f} x" if times and rival != name else "")
        table.append(
            [
                SIDES[name].name, f"{seconds:.2f}", f"{size / seconds / 1e6:.0f}", *ratios,
                f"{max(mine.peak):.0f}", f"{statistics.median(mine.start_seconds):.2f}",
                f"{max(mine.start_peak):.0f}",
                f"{lines - mine.requests:,}",
            ]
        )  # fmt: skip
    return table


HEADS = (
    "", "s", "MB/s", "GoAccess's time / its", "DuckDB's time / its", "peak, MB", "start, s",
    "start, MB", "lines lost",
)  # fmt: skip


@click.command()
@click.option("--size", default=300, show_default=True, help="MB of the log.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True)
@click.option("--seed", default=1, show_default=True)
@click.option(
    "--log", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="This log (combined) instead of a made-up one.",
)  # fmt: skip
@click.option(
    "--keep", type=click.Path(path_type=Path), help="Write the made-up log here, and keep it."
)
@click.option(
    "--sides", default=",".join(SIDES), show_default=True, help="Only these; with commas between."
)
@click.option("--write-readme", is_flag=True, help="Put the table into benchmarks/README.md.")
def main(
    size: int, rounds: int, workers: int, seed: int, log: Path | None, keep: Path | None,
    sides: str, write_readme: bool,
) -> None:  # fmt: skip
    """Time the log job beside GoAccess and DuckDB, on one file, in one run."""
    chosen = [name.strip() for name in sides.split(",")]
    if unknown := set(chosen) - set(SIDES):
        raise click.UsageError(f"no side {', '.join(unknown)}; there are {', '.join(SIDES)}")
    with contextlib.ExitStack() as stack:
        if log is None:
            log = keep or Path(stack.enter_context(tempfile.TemporaryDirectory()), "access.log")
            lines = write_log(log, size * 10**6, seed)
        else:
            with log.open("rb") as stream:
                lines = sum(1 for _ in stream)
        number = log.stat().st_size
        found = measure(log, chosen, workers, rounds)
    table = rows(found, number, lines)
    if write_readme:
        about = f"{number / 1e6:.0f} MB, {lines:,} lines, {workers} workers, rounds: {rounds}."
        text = report.section(about, HEADS, table)
        report.write_readme(report.README, "logs", text, order=["logs"])
    report.show(f"{number / 1e6:.0f} MB, {lines:,} lines, {workers} workers", HEADS, table)


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.logs")
