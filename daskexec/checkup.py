"""Trying a cluster for real: one worker, a few calls, and what they tell. Floor 9.

`start_and_look` brings up one worker from a config, has it tell what it is and what it sees, and
ends all of it; `render` shows that to people. The command ``daskexec check NAME --start`` does
both.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daskexec._versions import PACKAGES, Difference, Found, differences, here, look

if TYPE_CHECKING:
    from rich.console import Console

    from daskexec.config import ClusterConfig
    from daskexec.executor import DaskExecutor

__all__ = ["Checkup", "Folder", "render", "start_and_look"]

#: Bytes of the object that is sent there and back.
_SIZE = 32 << 20
#: Calls of which the median is the round trip.
_TRIPS = 15
#: Seconds that a call may take once a worker is there.
_LIMIT = 120.0

_MARK = ".daskexec-check-"


@dataclass(frozen=True)
class Folder:
    """A folder of this machine as the worker has it."""

    name: str
    path: str
    seen: bool  # the worker sees the same files there
    writable: bool  # and may write


@dataclass
class Checkup:
    """What starting one worker has shown. Times are seconds, rates bytes a second."""

    config: ClusterConfig
    mine: Found
    scheduler_after: float = 0.0
    worker_after: float = 0.0  # the first call was done, since the scheduler was up
    waited: float | None = None  # until the worker's process started, of these
    ended_after: float = 0.0
    address: str = ""
    theirs: Found | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    folders: list[Folder] = field(default_factory=list)
    trip: float = 0.0
    rate_there: float = 0.0
    rate_back: float = 0.0
    differences: list[Difference] = field(default_factory=list)


def start_and_look(config: ClusterConfig, tell: Callable[[str], None]) -> Checkup:
    """Start one worker of a config, run calls there, end it.

    Parameters
    ----------
    config : ClusterConfig
    tell : callable
        Takes a line on what is being waited for, whenever that changes.

    Raises
    ------
    ClusterStartFailed, ClusterUnreachable, BrokenExecutor, OSError, ImportError
        It could not be started, no worker came, or no call could run; all is ended.
    """
    from daskexec.executor import DaskExecutor

    found = Checkup(config, here())
    began = time.monotonic()
    tell("starting the scheduler")
    with DaskExecutor(1, cluster=config) as executor:
        found.scheduler_after = time.monotonic() - began
        found.address = executor._dispatcher.line().backend.address
        with _marked() as marks:
            asked = time.time()
            began = time.monotonic()
            facts = _patiently(executor, tell, _facts, marks)
            found.worker_after = time.monotonic() - began
            found.facts, found.theirs = facts, Found.of(facts["found"])
            found.folders = [_folder(mark, *facts["folders"][mark]) for mark in marks]
        waited = facts["started"] - asked
        if 0 <= waited <= found.worker_after:  # else the clocks do not agree, or it was there
            found.waited = waited
        tell("measuring")
        _measure(executor, found)
        if found.theirs is not None:
            found.differences = [*differences(found.mine, found.theirs)]
        tell("ending it")
        began = time.monotonic()
    found.ended_after = time.monotonic() - began
    return found


def _patiently(
    executor: DaskExecutor, tell: Callable[[str], None], fn: Callable[..., Any], *args: Any
) -> Any:
    """Run a call, and say meanwhile what keeps workers from joining."""
    future = executor.submit(fn, *args)
    last = ""
    try:
        while True:
            trouble = executor._dispatcher.line().trouble
            known = trouble()[1] if trouble is not None else ""
            if (known or "waiting for a worker") != last:
                last = known or "waiting for a worker"
                tell(last)
            with contextlib.suppress(concurrent.futures.TimeoutError):
                return future.result(1)
            if future.done():  # what the call raised was a TimeoutError of its own
                return future.result()
    except BaseException:
        future.cancel()  # or the shutdown would wait for it
        raise


def _measure(executor: DaskExecutor, found: Checkup) -> None:
    def timed(fn: Callable[..., Any], *args: Any) -> tuple[float, Any]:
        began = time.perf_counter()
        value = executor.submit(fn, *args).result(_LIMIT)
        return time.perf_counter() - began, value

    found.trip = statistics.median(timed(_nothing)[0] for _ in range(_TRIPS))
    noise = _noise(_SIZE)
    there, size = timed(_size_of, noise)
    back, came = timed(_noise, _SIZE)
    if size != _SIZE or len(came) != _SIZE:
        raise RuntimeError(f"of {_SIZE} bytes sent {size} arrived, and {len(came)} came back")
    found.rate_there = _SIZE / max(there - found.trip, 1e-6)
    found.rate_back = _SIZE / max(back - found.trip, 1e-6)


# --- folders: a file in each tells whether it is the same one there -----------------------------


@contextlib.contextmanager
def _marked() -> Iterator[dict[str, tuple[str, str]]]:
    """Put a small file into each folder that matters; what each is called, where, and the file.

    One that cannot be written to has no file, and is looked for by its name alone.
    """
    folders = {
        "the current folder": os.getcwd(),
        "home": os.path.expanduser("~"),
        "the temporary folder": tempfile.gettempdir(),
    }
    marks = {}
    made = []
    try:
        for name, path in folders.items():
            mark = Path(path, _MARK + uuid.uuid4().hex)
            marks[name] = (path, "")
            with contextlib.suppress(OSError):
                mark.touch(exist_ok=False)
                made.append(mark)
                marks[name] = (path, mark.name)
        yield marks
    finally:
        for mark in made:
            with contextlib.suppress(OSError):
                mark.unlink()


def _folder(name: str, path: str, seen: bool, writable: bool) -> Folder:
    return Folder(name, path, seen, seen and writable)


# --- on the worker ------------------------------------------------------------------------------


def _facts(marks: dict[str, tuple[str, str]]) -> dict[str, Any]:
    """Say what this worker is and what it sees."""
    import getpass

    import psutil
    from distributed import get_worker

    from daskexec._worker_end import lifetime_of, seconds_left

    worker = get_worker()
    user = str(os.getuid())
    with contextlib.suppress(Exception):  # there may be no entry for it
        user = getpass.getuser()
    return {
        "found": look(PACKAGES),
        "name": str(worker.name),
        "address": worker.address,
        "threads": worker.state.nthreads,
        "memory": worker.memory_manager.memory_limit,
        "user": user,
        "folder": os.getcwd(),
        "scratch": worker.local_directory,
        "started": psutil.Process().create_time(),
        "lifetime": lifetime_of(worker),
        "left": seconds_left(worker),
        "folders": {name: (path, *_sees(path, mark)) for name, (path, mark) in marks.items()},
    }


def _sees(path: str, mark: str) -> tuple[bool, bool]:
    """Tell whether this process sees a file in a folder, and may write there."""
    try:
        seen = Path(path, mark).is_file() if mark else Path(path).is_dir()
    except OSError:
        return False, False
    return seen, os.access(path, os.W_OK | os.X_OK)


def _nothing() -> None:
    """Take as little time as can be."""


def _size_of(value: bytes) -> int:
    return len(value)


def _noise(size: int) -> bytes:
    """Make, in no time, what nothing on the way can compress: its window is smaller."""
    return os.urandom(1 << 20) * (size >> 20)


# --- for people ---------------------------------------------------------------------------------


def render(found: Checkup, console: Console) -> None:
    """Write what was found."""
    from rich.text import Text

    facts, theirs = found.facts, found.theirs
    where = f"{facts['name']} on {theirs.host if theirs else '?'}, as user {facts['user']}"
    memory = facts["memory"]
    size = f"{_many(facts['threads'], 'thread')}, {_bytes(memory) if memory else 'no limit of'} "
    size += "memory"
    if facts["lifetime"]:
        size += f"; it leaves {_seconds(facts['lifetime'])} after its start"
    waited = ""
    if found.waited is not None:
        joined = _seconds(max(0.0, found.worker_after - found.waited))
        waited = f" (its process started after {_seconds(found.waited)}, {joined} more till then)"
    grid = _grid()
    for name, text in (
        ("scheduler", f"{found.address}, up after {_seconds(found.scheduler_after)}"),
        ("worker", where),
        ("", size),
        ("first call", f"done {_seconds(found.worker_after)} after that{waited}"),
        ("round trip", f"{1000 * found.trip:.1f} ms, median of {_TRIPS} calls"),
        ("bandwidth", f"{_bytes(found.rate_there)}/s there, {_bytes(found.rate_back)}/s back"),
        ("scratch", facts["scratch"]),
        ("ended", f"in {_seconds(found.ended_after)}"),
    ):
        grid.add_row(name, Text(text))
    console.print(grid)
    console.print()
    if theirs is not None:
        console.print(_versions(found.mine, theirs, found.differences))
        console.print()
    console.print(_folders(found.folders))
    for difference in found.differences:
        line = (
            f"{difference.package} is {difference.mine} here and {difference.theirs} on the "
            f"worker: {difference.why}. Run the same version on both sides."
        )
        console.print(Text(f"Warning: {line}", style="yellow"))


def _grid() -> Any:
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    return grid


def _table(*columns: str) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _versions(mine: Found, theirs: Found, differing: list[Difference]) -> Any:
    from rich.text import Text

    table = _table("version of", "here", "on the worker", "")
    table.add_row("Python", mine.python, theirs.python, _verdict("Python", differing))
    for name in PACKAGES:
        one, other = mine.packages.get(name), theirs.packages.get(name)
        if one or other:
            table.add_row(name, one or "none", other or "none", _verdict(name, differing))
    table.add_row("", Text(mine.executable), Text(theirs.executable), "")
    return table


def _verdict(package: str, differing: list[Difference]) -> Any:
    from rich.text import Text

    if any(difference.package == package for difference in differing):
        return Text("differs", style="bold yellow")
    return ""


def _folders(folders: list[Folder]) -> Any:
    from rich.text import Text

    table = _table("files in", "", "the worker sees them", "and may write")
    for folder in folders:
        table.add_row(
            folder.name,
            Text(folder.path),
            "yes" if folder.seen else Text("no", style="yellow"),
            "yes" if folder.writable else Text("no", style="yellow"),
        )
    return table


def _seconds(value: float) -> str:
    if value >= 600:
        return f"{value / 60:.0f} min"
    return f"{value:.1f} s"


def _bytes(value: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def _many(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
