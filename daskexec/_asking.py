"""Questions to workers, some of which go before they answer. Floor 5.

Dask would try to reach a worker that has died for half a minute, and wait for one that is stopped
for ever, while all others wait with it. So whoever asks workers here looks meanwhile whether they
are there still; one that the scheduler does not know any more has said nothing.

All of it runs on the client's loop. What is asked is in `daskexec._remote`.

Names of Dask that are used here: ``Client.run``, ``run_on_scheduler`` and ``nthreads``.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Coroutine
from typing import Any

from daskexec import _remote
from daskexec._once import bar

__all__ = ["Asking", "Gone", "while_there"]

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
    # Not cancelled when nobody waits for it any more: tasks of Dask's for which it waits would go
    # on and complain when they fail. It ends with the connection, at the latest with the client.
    working.add_done_callback(lambda task: task.cancelled() or task.exception())
    while not (await asyncio.wait([working], timeout=_LOOK))[0]:
        there = await client.nthreads(asynchronous=True)
        if not expected <= there.keys():
            raise Gone(expected - there.keys(), [*there])
    return working.result()


class Asking:
    """Asks the workers of one client's cluster.

    Parameters
    ----------
    client : distributed.Client
    once : bool
        The scheduler can be told to have no worker begin a task (`daskexec._once.bar`).

    Attributes
    ----------
    workers : frozenset of str
        Addresses of all of them, as last counted (`daskexec._roster`).
    """

    #: Seconds after which the scheduler knows of a worker's death for sure.
    AFTER_DEATH = 0.1
    #: Times that a worker is asked which does not answer, and of which no death is known.
    TRIES = 3

    def __init__(self, client: Any, once: bool) -> None:
        self._client, self._once = client, once
        self.workers: frozenset[str] = frozenset()

    async def ask(
        self, function: Any, *args: Any, workers: Collection[str] | None = None, **more: Any
    ) -> dict[str, Any]:
        """Return what a function returns on each worker; an OSError of one that has gone.

        Of all workers where none are named. `more` is as for Dask's ``Client.run``.
        """
        answers: dict[str, Any] = {}
        asked = set(self.workers if workers is None else workers)
        while workers is None or workers:
            named = workers if workers is None else list(workers)
            asking = self._client.run(function, *args, workers=named, on_error="return", **more)
            try:
                return {**answers, **await while_there(self._client, asking, asked)}
            except Gone as gone:
                answers.update(dict.fromkeys(asked.difference(gone.there), gone))
                workers = [one for one in gone.there if workers is None or one in asked]
                asked = set(workers)
        return answers

    async def ask_at(self, address: str, function: Any, *args: Any, is_worker: bool = True) -> Any:
        """Return what a function returns at one address: a worker's, or else its nanny's.

        Raises what is raised there, or an OSError if the worker has gone.
        """
        asking = self._client.run(function, *args, workers=[address])
        return (await while_there(self._client, asking, [address] if is_worker else []))[address]

    async def begun(self, keys: list[str]) -> set[str]:
        """Return which of these tasks a worker has begun, or may have; they begin no others.

        What one had begun that has died is not among them: see `daskexec._messages.Failed`.
        """
        begun: set[str] = set()
        answers = await self.ask(_remote.withdraw, keys)
        asked = set(answers)
        dead, tries = not self.workers <= asked, self.TRIES
        while answers:
            silent = set()
            for worker, answer in answers.items():
                if isinstance(answer, list):
                    begun.update(answer)
                else:
                    silent.add(worker)
            if silent:
                await asyncio.sleep(self.AFTER_DEATH)
                tries -= 1
            there = set(await self._client.nthreads(asynchronous=True))
            dead = dead or not silent <= there
            silent &= there
            if silent and not tries:  # they may have begun any of them
                return set(keys)
            # One that has joined meanwhile may have been given them.
            joined = there - asked
            asked |= joined
            answers = await self.ask(_remote.withdraw, keys, workers=joined | silent)
        if dead:
            await asyncio.sleep(self.AFTER_DEATH)
        return begun

    async def abandon(self, keys: list[str]) -> None:
        """Have no further call of some tasks begun: nobody waits for them, nor for an answer."""
        await self._client.run(_remote.abandon, keys, on_error="return")

    async def relieve(self, key: str, worker: str, waiting: list[str]) -> dict[str, Any]:
        """Take from a worker what waits behind a slow task: see `daskexec._remote.relieve`.

        "barred" are the tasks that it will not begin, nor a worker that is given them later;
        "elsewhere" those of them that another may have, as far as the scheduler knows.
        """
        said = (await self.ask(_remote.relieve, key, waiting, workers=[worker]))[worker]
        if isinstance(said, BaseException):
            raise said
        answer: dict[str, Any] = said
        barred = answer["barred"]
        answer["elsewhere"] = list(barred)
        if barred and self._once:
            # Or workers that are given them later, also those that join, would run them.
            with contextlib.suppress(Exception):  # the connection is going, or not allowed
                still = await self._client.run_on_scheduler(bar, barred, worker)
                answer["elsewhere"] = [one for one in barred if one not in still]
        return answer
