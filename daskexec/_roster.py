"""Which workers there are: how many threads, what they are called, when they end. Floor 5.

All of it runs on the client's loop, but what says otherwise. What changes is reported; names and
ends of the workers are asked for only once they matter, and each end once.

Names of Dask that are used here: ``Client.nthreads``, ``run`` and ``scheduler.identity``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine
from typing import Any

from daskexec import _remote
from daskexec._messages import Ends, Named, Threads

__all__ = ["Gone", "Roster", "while_there"]

#: Seconds after which it is asked whether the workers are still there that are waited for.
_LOOK = 0.5


class Gone(OSError):
    """A worker that was waited for has gone; `there` are the addresses of those that are there."""

    def __init__(self, gone: Collection[str], there: Collection[str]) -> None:
        super().__init__(f"{', '.join(sorted(gone))} has gone")
        self.there = there


async def while_there(
    client: Any, work: Coroutine[Any, Any, Any], workers: Collection[str]
) -> Any:
    """Return what comes of some work of workers, as long as these are there.

    Dask would try to reach one that has died for half a minute
    (``distributed.comm.timeouts.connect``), and all others would have to wait for it.

    Raises
    ------
    Gone
        As soon as the scheduler knows that one of them is not there any more.
    """
    working, expected = asyncio.ensure_future(work), frozenset(workers)
    # However it ends when nobody waits for it any more.
    working.add_done_callback(lambda task: task.cancelled() or task.exception())
    try:
        while not (await asyncio.wait([working], timeout=_LOOK))[0]:
            there = await client.nthreads(asynchronous=True)
            if not expected <= there.keys():
                raise Gone(expected - there.keys(), [*there])
        return working.result()
    finally:
        working.cancel()


class Roster:
    """The workers of one client's cluster, as last counted.

    Parameters
    ----------
    client : distributed.Client
    report : callable
        Takes `Threads`, `Ends` and `Named`.
    changed : callable
        Takes the addresses of all workers, whenever they were counted.

    Attributes
    ----------
    workers : frozenset of str
        Addresses.
    """

    def __init__(
        self,
        client: Any,
        report: Callable[[Any], None],
        changed: Callable[[list[str]], None],
    ) -> None:
        self._client, self._report, self._changed = client, report, changed
        self.workers: frozenset[str] = frozenset()
        self._ends: dict[str, tuple[float, float] | None] | None = None  # once they matter
        self._named: frozenset[str] | None = None  # whose names are known, once they matter
        self._signs: dict[str, tuple[float, float]] = {}  # worker -> its last, and since when
        self._asked_at: float | None = None  # when the scheduler was asked, while it is silent

    def silent_for(self) -> float:
        """Return the seconds for which the scheduler has owed an answer; from any thread."""
        asked = self._asked_at
        return 0.0 if asked is None else time.monotonic() - asked

    def expect_answer(self) -> None:
        """Take it that the scheduler is being asked, until workers are counted."""
        self._asked_at = time.monotonic()

    async def count(self, least: int = 0) -> None:
        """Count workers and threads, and report these: `least` of them at least."""
        self.expect_answer()
        try:
            threads = await self._client.nthreads(asynchronous=True)
        except (OSError, AttributeError, RuntimeError):
            return  # the connection is going; who looks after it will see that
        finally:
            self._asked_at = None
        self.workers = frozenset(threads)
        self._report(Threads(max(least, sum(threads.values()))))
        self._changed([*threads])
        if self._ends is not None and self._ends.keys() != threads.keys():
            await self._ask_ends(self._ends, [*threads])
        if self._named is not None and self._named != self.workers:
            await self._ask_names(self.workers)

    async def watch_ends(self) -> None:
        """Report when workers will end, now and whenever some have come or gone."""
        if self._ends is None:
            self._ends = {}
            await self.count()

    async def watch_names(self) -> None:
        """Report what workers are called, now and whenever some have come or gone."""
        if self._named is None:
            self._named = frozenset()
            await self.count()

    async def describe(self) -> list[dict[str, Any]]:
        """Return address, name, resources and state of every worker."""
        return [
            {
                "address": address,
                "name": str(worker["name"]),
                "resources": worker.get("resources") or {},
                "paused": worker.get("status") == "paused",
                "seen": worker.get("last_seen", 0.0),
            }
            for address, worker in (await self._identities()).items()
        ]

    async def listen(self, patience: float) -> list[dict[str, Any]]:
        """Return address, name and "mute" of every worker: for how long it has given no sign.

        In seconds since the first time that it was asked here; 0 for less than `patience`.
        """
        there = await self._identities()
        now, before = time.monotonic(), self._signs
        self._signs = {}
        patience += len(there) / 50  # where there are many they give signs more rarely
        found: list[dict[str, Any]] = []
        for address, worker in there.items():
            sign = worker.get("last_seen", 0.0)
            last, since = before.get(address, (sign, now))
            self._signs[address] = sign, (since if last == sign else now)
            mute = now - self._signs[address][1]
            mute = mute if mute >= patience else 0.0
            found.append({"address": address, "name": str(worker["name"]), "mute": mute})
        return found

    async def _identities(self) -> dict[str, Any]:
        told = await self._client.scheduler.identity(n_workers=-1)
        workers: dict[str, Any] = told["workers"]
        return workers

    async def _ask_names(self, workers: frozenset[str]) -> None:
        there = await self._identities()
        self._named = workers
        self._report(Named({address: str(worker["name"]) for address, worker in there.items()}))

    async def _ask_ends(
        self, known: dict[str, tuple[float, float] | None], workers: list[str]
    ) -> None:
        """Ask the workers that are new when they end; report all, on this clock's time."""
        for worker in known.keys() - set(workers):
            del known[worker]
        new = [worker for worker in workers if worker not in known]
        known.update(dict.fromkeys(new))  # asked once
        answers = await self._client.run(_remote.end_of, workers=new, on_error="return")
        told = {worker: answers.get(worker) for worker in new}
        news = {worker: end if isinstance(end, tuple) else None for worker, end in told.items()}
        known.update(news)
        self._report(Ends(news, frozenset(workers)))
