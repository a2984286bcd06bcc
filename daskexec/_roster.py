"""Which workers there are: how many threads, what they are called, when they end. Floor 5.

And for how long each has given no sign: what follows from that is for `daskexec._supervision`,
where nothing comes from anybody, and for `daskexec._mute`, where others go on.

All of it runs on the client's loop, but what says otherwise. What changes is reported; names and
ends of the workers are asked for only once they matter, and each end once.

Names of Dask that are used here: ``Client.nthreads``, ``scheduler.identity`` and
``processing``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine
from typing import Any

from daskexec import _remote
from daskexec._asking import Asking
from daskexec._messages import Ends, Named, Threads

__all__ = ["Roster"]


class Roster:
    """The workers of one client's cluster, as last counted.

    Parameters
    ----------
    client : distributed.Client
    report : callable
        Takes `Threads`, `Ends` and `Named`.
    asking : Asking
        Is told whenever workers were counted.
    spawn : callable
        Runs a coroutine that ends with the backend.
    changed : callable
        Takes the addresses of all workers, whenever they were counted.
    """

    #: Seconds in which workers that are asked together are to answer.
    TOGETHER = 5.0

    def __init__(
        self,
        client: Any,
        report: Callable[[Any], None],
        asking: Asking,
        spawn: Callable[[Coroutine[Any, Any, Any]], Any],
        changed: Callable[[list[str]], None],
    ) -> None:
        self._client, self._report, self._changed = client, report, changed
        self._asking, self._spawn = asking, spawn
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
        workers = self._asking.workers = frozenset(threads)
        self._report(Threads(max(least, sum(threads.values()))))
        self._changed([*threads])
        if self._ends is not None and self._ends.keys() != threads.keys():
            self._ask_ends(self._ends, [*threads])
        if self._named is not None and self._named != workers:
            await self._ask_names(workers)

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
        """Return address, name, resources and state of every worker.

        "mute" of it: the seconds for which it has given no sign, since the first time that this
        one, or `listen`, was asked.
        """
        there = await self._identities()
        now, before, self._signs = time.monotonic(), self._signs, {}
        found = []
        for address, worker in there.items():
            sign = worker.get("last_seen", 0.0)
            last, since = before.get(address, (sign, now))
            self._signs[address] = sign, since if last == sign else now
            found.append(
                {
                    "address": address,
                    "name": str(worker["name"]),
                    "resources": worker.get("resources") or {},
                    "paused": worker.get("status") == "paused",
                    "mute": now - self._signs[address][1],
                }
            )
        return found

    async def listen(self, patience: float, wanted: Collection[str]) -> list[dict[str, Any]]:
        """Describe every worker; with "mute" as 0 for less than `patience`, and "keys" then.

        These are those of the `wanted` tasks that a mute worker has.
        """
        found = await self.describe()
        patience += len(found) / 50  # where there are many they give signs more rarely
        for worker in found:
            worker["mute"] = worker["mute"] if worker["mute"] >= patience else 0.0
        silent = [worker["address"] for worker in found if worker["mute"]]
        keys = await self._client.scheduler.processing(workers=silent) if silent else {}
        for worker in found:
            # A worker that has gone in between has none; of others' tasks nothing is known.
            its = keys.get(worker["address"], ())
            worker["keys"] = [key for key in its if key in wanted]
        return found

    async def _identities(self) -> dict[str, Any]:
        told = await self._client.scheduler.identity(n_workers=-1)
        workers: dict[str, Any] = told["workers"]
        return workers

    async def _ask_names(self, workers: frozenset[str]) -> None:
        there = await self._identities()
        self._named = workers
        self._report(Named({address: str(worker["name"]) for address, worker in there.items()}))

    def _ask_ends(self, known: dict[str, tuple[float, float] | None], workers: list[str]) -> None:
        """Ask the workers that are new when they end; each is asked once."""
        for worker in known.keys() - set(workers):
            del known[worker]
        new = [worker for worker in workers if worker not in known]
        known.update(dict.fromkeys(new))
        if new:
            self._spawn(self._learn_ends(known, new))
        else:
            self._report(Ends({}, frozenset(known)))

    async def _learn_ends(
        self, known: dict[str, tuple[float, float] | None], new: list[str]
    ) -> None:
        """Report when workers end, on this clock's time."""
        asking = self._asking.ask(_remote.end_of, workers=new)
        try:
            answers = await asyncio.wait_for(asking, self.TOGETHER if len(new) > 1 else None)
        except asyncio.TimeoutError:  # one of them is stopped, say: none waits for another
            for worker in new:
                self._spawn(self._learn_ends(known, [worker]))
            return
        except (OSError, AttributeError, RuntimeError):
            return  # as above
        for worker, end in answers.items():
            if worker in known:  # still
                known[worker] = end if isinstance(end, tuple) else None
        self._report(Ends({one: known[one] for one in new if one in known}, frozenset(known)))
