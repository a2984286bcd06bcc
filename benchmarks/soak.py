"""A soak: mixed calls for minutes while workers die, things stop, and executors come and go.

``python -m benchmarks.soak --minutes 10`` prints an account of every call: finished, failed with
a reason, or cancelled; and how often each was begun, from a file that the calls append to. It ends
with status 1 if a call hangs, is lost, gives a wrong value or runs twice without leave, or if
threads, descriptors or the memory in use of this process have grown since the first minute
(`Figures`). ``--leak`` shows that it notices: then every future is kept for ever.

Rounds of an executor with workers of its own alternate with rounds on a scheduler and workers in
processes apart. In a round several threads submit, and one makes trouble: it kills workers, stops
and continues workers and the scheduler, and cancels. Rounds end by ``shutdown``, now and then with
``cancel_futures=True``, by dropping the executor, or by the death of the scheduler.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import functools
import gc
import json
import linecache
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import psutil

from benchmarks import soak_calls as calls

__all__ = ["main"]

#: Seconds after which a future that has not ended is held to hang.
HANG = 120.0
#: Blocks of Python, and MB of malloc, that may be in use at the end beyond those after the first
#: minute.
_BLOCKS, _MEGABYTES = 20_000, 2.0
_WORKERS = 3
_LARGE = 2_000_000


@dataclass
class Entry:
    """One call: what it is to give, and its future."""

    number: int
    kind: str
    expected: Any
    future: Future[Any]


@dataclass
class Account:
    """What became of all calls so far."""

    ended: collections.Counter[str] = field(default_factory=collections.Counter)
    trouble: collections.Counter[str] = field(default_factory=collections.Counter)
    faults: list[str] = field(default_factory=list)

    def fault(self, what: str) -> None:
        self.faults.append(what)
        click.echo(f"  FAULT: {what}", err=True)


class Round:
    """One executor, from its start to its end."""

    def __init__(self, executor: Any, victims: Victims, seed: int, folder: Path) -> None:
        self.executor, self.victims = executor, victims
        self.random = random.Random(seed)
        self.journal = str(folder / f"journal-{seed}")
        Path(self.journal).touch()
        self.entries: list[Entry] = []
        self.maps: collections.Counter[str] = collections.Counter()
        self.begun_maps: dict[int, int] = {}
        self.over = threading.Event()
        self._lock = threading.Lock()  # guards the numbers
        self._number = 0

    def number(self, count: int = 1) -> int:
        with self._lock:
            self._number += count
            return self._number - count

    def submit(self, kind: str, fn: Callable[..., Any], *args: Any, expected: Any) -> None:
        number = self.number()
        future = self.executor.submit(fn, self.journal, number, *args)
        self.entries.append(Entry(number, kind, expected, future))

    # -- work: each of these runs again and again on a thread of its own ---------------------

    def tiny(self, rng: random.Random) -> None:
        for i in range(rng.choice((1, 20, 300))):
            self.submit("tiny", calls.tiny, i, expected=i + 1)
        time.sleep(rng.uniform(0.0, 0.1))

    def naps(self, rng: random.Random) -> None:
        for _ in range(rng.randint(1, 10)):
            self.submit("nap", calls.nap, rng.uniform(0.001, 0.3), expected="rested")
        time.sleep(rng.uniform(0.05, 0.3))

    def raising(self, rng: random.Random) -> None:
        for i in range(rng.randint(1, 30)):
            self.submit("raising", calls.fail, i, expected=ValueError(i))
        time.sleep(rng.uniform(0.1, 0.4))

    def large(self, rng: random.Random) -> None:
        blob = bytes([rng.randrange(256)]) * _LARGE
        for _ in range(rng.randint(1, 4)):
            self.submit("large argument", calls.length, blob, expected=_LARGE)
        self.submit("large result", calls.filled, _LARGE, expected=b"x" * _LARGE)
        time.sleep(rng.uniform(0.3, 1.0))

    def nested(self, rng: random.Random) -> None:
        count = rng.randint(1, 5)
        first = self.number(count)
        self.submit(
            "nested", calls.nested, self.executor, first, count, expected=sum(range(count))
        )
        time.sleep(rng.uniform(0.3, 1.0))

    def mapped(self, rng: random.Random) -> None:
        count = rng.choice((1, 50, 1000))
        first = self.number(count)
        numbers = range(first, first + count)
        try:
            found = list(
                self.executor.map(
                    calls.tiny, [self.journal] * count, numbers, range(count), errors="return"
                )
            )
        except (CancelledError, BrokenExecutor) as error:
            self.maps[f"map stopped by {type(error).__name__}"] += 1
            if not self.over.is_set() and not isinstance(error, BrokenExecutor):
                self.maps["FAULT map was cancelled by nobody"] += 1
            return
        for i, value in enumerate(found):
            if value == i + 1:
                self.maps["map items finished"] += 1
            elif isinstance(value, BrokenExecutor):
                self.maps[f"map items failed: {type(value).__name__}"] += 1
            elif isinstance(value, CancelledError) and self.over.is_set():
                self.maps["map items cancelled"] += 1
            else:
                self.maps[f"FAULT item of a map: {value!r:.200}"] += 1
        time.sleep(rng.uniform(0.1, 0.5))

    def killers(self, rng: random.Random) -> None:
        self.submit("killer", rng.choice((calls.leave, calls.kill)), expected=BrokenExecutor())
        time.sleep(rng.uniform(1.0, 4.0))

    # -- trouble ------------------------------------------------------------------------------

    def cancels(self, rng: random.Random) -> None:
        pending = [e.future for e in self.entries[-300:] if not e.future.done()]
        for future in rng.sample(pending, min(len(pending), rng.randint(1, 10))):
            future.cancel()
        time.sleep(rng.uniform(0.01, 0.2))

    def chaos(self, rng: random.Random) -> None:
        what = rng.choice(("kill", "kill", "stop worker", "stop scheduler", "rest"))
        if what == "kill":
            self.victims.kill(rng)
        elif what != "rest":
            self.victims.stop(rng, scheduler=what == "stop scheduler")
        time.sleep(rng.uniform(0.2, 1.5))

    def work(self, seconds: float) -> None:
        """Have all of these go on for a while."""
        jobs = (
            *(self.tiny, self.naps, self.raising, self.large, self.nested, self.mapped),
            *(self.killers, self.cancels, self.chaos),
        )
        threads = []
        for job in jobs:
            rng = random.Random(self.random.random())
            threads.append(threading.Thread(target=self._again, args=(job, rng)))
            threads[-1].start()
        time.sleep(seconds)
        self.over.set()
        for thread in threads:
            thread.join(HANG)
            if thread.is_alive():
                self.maps[f"FAULT thread {thread.name} hangs"] += 1

    def _again(self, job: Callable[[random.Random], None], rng: random.Random) -> None:
        while not self.over.is_set():
            try:
                job(rng)
            except BrokenExecutor:
                return

    # -- the account ----------------------------------------------------------------------------

    def settle(self, account: Account, how: str, all_may_fail: bool) -> None:
        """Wait for every call, and enter it into the account."""
        futures = [entry.future for entry in self.entries]
        _, hanging = wait(futures, timeout=HANG)
        lines = Path(self.journal).read_bytes().split()
        begun = collections.Counter(map(int, lines))
        for entry in self.entries:
            if entry.future in hanging:
                account.fault(f"{how}: {entry.kind} {entry.number} hangs: {entry.future!r}")
                continue
            account.ended[self._judge(entry, begun[entry.number], account, how, all_may_fail)] += 1
        for word, count in self.maps.items():
            account.ended[word] += count
            if word.startswith("FAULT"):
                account.fault(f"{how}: {word}, {count} times")
        for number, times in begun.items():
            if times > 1:
                kinds = [e.kind for e in self.entries if e.number == number] or ["inner or item"]
                account.ended[f"begun twice, {kinds[0]}"] += 1
                account.fault(f"{how}: {kinds[0]} {number} was begun {times} times")

    def _judge(
        self, entry: Entry, begun: int, account: Account, how: str, all_may_fail: bool
    ) -> str:
        what = f"{how}: {entry.kind} {entry.number}"
        if entry.future.cancelled():
            if begun:
                account.fault(f"{what} was cancelled and has run")
            return "cancelled"
        error = entry.future.exception()
        if isinstance(error, BrokenExecutor):
            name = type(error).__name__
            if name != "WorkerDied" and not all_may_fail:
                account.fault(f"{what} failed with {name}: {error}")
            return f"failed with {name}, {entry.kind}"
        if not begun:
            account.fault(f"{what} has ended and never ran: {error!r}, {_where(error)}")
        if isinstance(entry.expected, ValueError) and isinstance(error, ValueError):
            return "raised as it should"
        if entry.kind == "nested" and error is not None:
            return f"nested, failed with {type(error).__name__}"
        if error is not None:
            account.fault(f"{what} failed with {error!r}")
            return "wrong"
        if entry.future.result() != entry.expected:
            account.fault(f"{what} gave {entry.future.result()!r:.100}")
            return "wrong"
        return "finished"


def _where(error: BaseException | None) -> str:
    """Say in one line where something was raised, on a worker if it was there."""
    remote = str(getattr(error, "__cause__", None) or "").split("\n")
    return " | ".join(line.strip() for line in remote if line.startswith("  File"))


class Victims:
    """The processes that trouble is made for."""

    def __init__(self, account: Account, scheduler: int | None, spare: set[int]) -> None:
        self._account, self._scheduler, self._spare = account, scheduler, spare
        self._stopped: set[int] = set()

    def workers(self) -> list[psutil.Process]:
        raise NotImplementedError

    def kill(self, rng: random.Random) -> None:
        self._to(rng, signal.SIGKILL)

    def _to(self, rng: random.Random, number: int) -> psutil.Process | None:
        there = self.workers()
        if not there:
            return None
        victim = rng.choice(there)
        with contextlib.suppress(psutil.Error):
            victim.send_signal(number)
            self._account.trouble[f"a worker got {signal.Signals(number).name}"] += 1
            return victim
        return None

    def stop(self, rng: random.Random, scheduler: bool) -> None:
        """Stop a process for a while, and have it go on."""
        if scheduler and self._scheduler is not None:
            victim: psutil.Process | None = psutil.Process(self._scheduler)
            assert victim is not None
            victim.suspend()
            self._account.trouble["the scheduler got SIGSTOP"] += 1
        else:
            victim = self._to(rng, signal.SIGSTOP)
        time.sleep(rng.uniform(0.1, 3.0))
        if victim is not None:
            with contextlib.suppress(psutil.Error):
                victim.resume()


class OwnVictims(Victims):
    """The workers that an executor has forked: grandchildren of this process."""

    def workers(self) -> list[psutil.Process]:
        found = []
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process().children():
                if child.pid not in self._spare:
                    found += child.children()
        return found


class RemoteCluster(Victims):
    """A scheduler, and nannies with their workers, which are up."""

    def __init__(self, account: Account, folder: Path) -> None:
        self._folder = folder
        self._nannies: list[subprocess.Popen[bytes]] = []
        file = folder / f"scheduler-{time.monotonic_ns()}.json"
        self._boss = self._start("scheduler", "--port", "0", "--scheduler-file", str(file))
        until = time.monotonic() + HANG
        while not (file.exists() and file.stat().st_size):
            if time.monotonic() > until:
                raise TimeoutError("dask scheduler did not start")
            time.sleep(0.05)
        self.address = json.loads(file.read_text())["address"]
        self._have_nannies()
        from distributed import Client

        with Client(self.address, timeout=HANG, set_as_default=False) as client:
            client.wait_for_workers(_WORKERS, timeout=HANG)
        super().__init__(account, self._boss.pid, set())

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        with (self._folder / "cluster.log").open("ab") as log:
            return subprocess.Popen(
                [
                    *(sys.executable, "-m", "dask", *arguments),
                    *("--host", "127.0.0.1", "--no-dashboard"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _have_nannies(self) -> None:
        """Start those that are missing: one whose worker dies while it starts ends, too."""
        self._nannies = [nanny for nanny in self._nannies if nanny.poll() is None]
        while len(self._nannies) < _WORKERS:
            place = ("--local-directory", str(self._folder / "dask"))
            self._nannies.append(self._start("worker", self.address, "--nthreads", "1", *place))

    def workers(self) -> list[psutil.Process]:
        self._have_nannies()
        found = []
        for nanny in self._nannies:
            with contextlib.suppress(psutil.Error):
                # The other child is multiprocessing's resource tracker.
                children = psutil.Process(nanny.pid).children()
                found += [c for c in children if "resource_tracker" not in " ".join(c.cmdline())]
        return found

    def kill_scheduler(self) -> None:
        self._boss.kill()

    def close(self) -> None:
        for process in (*self._nannies, self._boss):
            with contextlib.suppress(psutil.Error):
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.kill()
            process.kill()
            process.wait()


# --- the whole -----------------------------------------------------------------------------------


class _Mallinfo(ctypes.Structure):
    """What glibc's ``mallinfo2`` returns: bytes, and numbers of blocks."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


def _malloc_in_use() -> int:
    """Return the bytes that were allocated by malloc and not freed; 0 if it does not tell."""
    mallinfo2 = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if mallinfo2 is None:
        return 0
    mallinfo2.restype = _Mallinfo
    told = mallinfo2()
    return int(told.uordblks + told.hblkhd)  # in all arenas, and in mappings of their own


def _empty_caches() -> None:
    """Drop what grows up to a limit, or with the code that has run: that is no leak."""
    linecache.clearcache()
    for cache in gc.get_objects():
        if isinstance(cache, functools._lru_cache_wrapper) and cache.cache_info().maxsize:
            cache.cache_clear()  # Dask's one of keys has room for 100,000


def _large() -> list[str]:
    """Return what is large of all that the garbage collector can see, and what holds it."""
    found = []
    for holder in gc.get_objects():
        for one in gc.get_referents(holder):
            with contextlib.suppress(Exception):  # whatever a size comes to
                if (size := sys.getsizeof(one)) > 500_000:
                    found.append(f"{type(one).__name__} of {size:,} in {type(holder).__name__}")
    return sorted(set(found))[:10]


@dataclass
class Figures:
    """What this process holds.

    Of memory what is in use: small objects, by the blocks that Python has for them, and what is
    larger, which is allocated by malloc. The resident memory says little: glibc gives each new
    thread one of 8 arenas a core, and what was freed there goes back to the system only from the
    arena's end. So a process of ever new threads, and such is a soak, grows by what is free.
    """

    threads: int
    descriptors: int
    children: int
    blocks: int
    malloc: float  # MB
    resident: float  # MB

    @classmethod
    def now(cls) -> Figures:
        _empty_caches()
        gc.collect()
        me = psutil.Process()
        return cls(
            threading.active_count(),
            me.num_fds(),
            len(me.children(True)),
            sys.getallocatedblocks(),
            _malloc_in_use() / 1e6,
            me.memory_info().rss / 1e6,
        )

    @classmethod
    def at_rest(cls) -> Figures:
        """Wait for what a dropped executor ends by itself, a little later: twice the same."""
        before, now = None, cls.now()
        until = time.monotonic() + HANG
        while (before is None or before.counts() != now.counts()) and time.monotonic() < until:
            time.sleep(1.0)
            before, now = now, cls.now()
        return now

    def counts(self) -> tuple[int, int, int]:
        """Return all but the memory."""
        return self.threads, self.descriptors, self.children

    def __str__(self) -> str:
        return (
            f"{self.threads} threads, {self.descriptors} descriptors, "
            f"{self.children} child processes; in use {self.blocks:,} blocks of Python and "
            f"{self.malloc:.1f} MB of malloc ({self.resident:.0f} MB resident)"
        )


def _play(
    account: Account, seed: int, own: bool, seconds: float, folder: Path, kept: list[Any] | None
) -> None:
    """One round; its calls are entered into `kept`."""
    from daskexec import DaskExecutor

    rng = random.Random(seed)
    end = rng.choice(("wait", "wait", "cancel", "drop", "kill scheduler", "no wait"))
    if own and end == "kill scheduler":
        end = "wait"
    how = f"round {seed} ({'own' if own else 'remote'}, {end})"
    with contextlib.ExitStack() as stack:
        if own:
            before = {child.pid for child in psutil.Process().children()}
            victims: Victims = OwnVictims(account, None, before)
            executor = DaskExecutor(_WORKERS)
        else:
            victims = remote = RemoteCluster(account, folder)
            stack.callback(remote.close)
            executor = DaskExecutor(cluster=remote.address)
        turn = Round(executor, victims, seed, folder)
        turn.work(seconds)
        turn.over.set()
        if end == "kill scheduler":
            remote.kill_scheduler()
            account.trouble["the scheduler got SIGKILL"] += 1
        elif end == "cancel":
            executor.shutdown(wait=False, cancel_futures=True)
        elif end == "no wait":
            executor.shutdown(wait=False)
        elif end == "drop":
            turn.executor = None
        closer = threading.Thread(target=executor.shutdown)
        if end == "drop":
            closer = threading.Thread(target=gc.collect)
        del executor
        closer.start()
        turn.settle(account, how, end == "kill scheduler")
        closer.join(HANG)
        if closer.is_alive():
            account.fault(f"{how}: shutdown() does not return")
    calls_of_round = len(turn.entries)
    if kept is not None:
        kept.append(turn.entries)
    del turn
    click.echo(f"{how}: {calls_of_round} calls; {Figures.now()}", err=True)


def _rounds(seed: int, minutes: float) -> Iterator[int]:
    until = time.monotonic() + 60 * minutes
    while time.monotonic() < until:
        yield seed
        seed += 1


@click.command()
@click.option("--minutes", type=click.FloatRange(0, min_open=True), default=10.0)
@click.option("--round-seconds", type=click.FloatRange(0, min_open=True), default=15.0)
@click.option("--seed", type=int, default=1, show_default=True, help="Of the first round.")
@click.option("--only", type=click.Choice(["own", "remote"]), help="One kind of cluster only.")
@click.option("--leak", is_flag=True, help="Keep every future: this must be found.")
def main(minutes: float, round_seconds: float, seed: int, only: str | None, leak: bool) -> None:
    """Mix calls and trouble for some minutes; account for every call."""
    warnings.simplefilter("ignore")  # that it waits, which it does a lot here
    logging.getLogger("daskexec").setLevel(logging.INFO)
    logging.getLogger("daskexec").addHandler(logging.StreamHandler())
    account, kept = Account(), list[Any]()
    begun = time.monotonic()
    first: Figures | None = None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        for number in _rounds(seed, minutes):
            own = only == "own" if only else number % 2 == 1
            _play(account, number, own, round_seconds, Path(name), kept if leak else None)
            if first is None and time.monotonic() - begun > 60:
                first = Figures.at_rest()
        last = Figures.at_rest()
    first = first or last
    _compare(account, first, last)
    click.echo(
        f"\n{(time.monotonic() - begun) / 60:.1f} minutes, {sum(account.ended.values())} calls"
    )
    for word, count in sorted(account.ended.items()):
        click.echo(f"{count:9,}  {word}")
    for word, count in sorted(account.trouble.items()):
        click.echo(f"{count:9,}  times {word}")
    click.echo(f"after the first minute: {first}\nat the end:             {last}")
    click.echo(f"faults: {len(account.faults)}")
    for fault in account.faults[:50]:
        click.echo(f"  {fault}")
    sys.stdout.flush()
    os._exit(1) if any("hangs" in fault for fault in account.faults) else sys.exit(
        1 if account.faults else 0
    )


def _compare(account: Account, first: Figures, last: Figures) -> None:
    if last.threads > first.threads + 2:
        names = sorted(thread.name for thread in threading.enumerate())
        account.fault(f"threads: {first.threads} became {last.threads}: {names}")
    if last.descriptors > first.descriptors + 10:
        account.fault(f"descriptors: {first.descriptors} became {last.descriptors}")
    if last.children > first.children:
        account.fault(f"child processes: {first.children} became {last.children}")
    if last.blocks > first.blocks + _BLOCKS:
        account.fault(f"blocks of Python in use: {first.blocks:,} became {last.blocks:,}")
    if last.malloc > first.malloc + _MEGABYTES:
        account.fault(
            f"MB of malloc in use: {first.malloc:.1f} became {last.malloc:.1f}; large: {_large()}"
        )


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.soak")
