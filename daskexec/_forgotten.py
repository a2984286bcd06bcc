"""What becomes of a task that Dask has forgotten, as what it needs was lost. Floor 5.

A worker may have begun it all the same: one that has fetched what it needs says so, and until the
scheduler has heard that, the death of the other holder makes it forget the task. So all workers
are asked first, and of those that have gone since, what they have left. On the client's loop.

Names of Dask that are used here: ``Client.nthreads``; ``distributed.scheduler.KilledWorker``.
"""

from __future__ import annotations

import asyncio
from typing import Any

from distributed.scheduler import KilledWorker

from daskexec import _remote
from daskexec._asking import Asking
from daskexec._calls import Outcome
from daskexec._dead import Dead
from daskexec._messages import Done, Failed

__all__ = ["Forgotten"]


class Forgotten:
    """Finds out what becomes of forgotten tasks.

    Parameters
    ----------
    client : distributed.Client
    asking : Asking
    dead : Dead or None
        Knows what lost workers have left, on a cluster that was given.
    """

    def __init__(self, client: Any, asking: Asking, dead: Dead | None) -> None:
        self._client, self._asking, self._dead = client, asking, dead

    async def becomes(self, key: str) -> Done | Failed:
        """Return what becomes of a task: if it runs, once it ends.

        Raises OSError where the connection is going, and everything with it.
        """
        nobody: Any = None
        answers = await self._asking.ask(_remote.withdraw, [key])
        while answers:
            unsure = []
            for worker, said in answers.items():
                if said == [key]:
                    found = await self._asking.ask(_remote.outcome_of, key, workers=[worker])
                    said = found[worker]
                    if isinstance(said, Outcome):
                        return Done(key, said)
                    if self._dead is not None and not isinstance(said, OSError):
                        killed = KilledWorker(key, nobody, 0)
                        return Failed(key, killed, True, None, f"{worker} has lost the result")
                if isinstance(said, OSError):
                    unsure.append(worker)
            if unsure:
                await asyncio.sleep(self._asking.AFTER_DEATH)
                there = await self._client.nthreads(asynchronous=True)
                unsure = [worker for worker in unsure if worker in there]
            answers = await self._asking.ask(_remote.withdraw, [key], workers=unsure)
        if self._dead is not None:
            left, lost = await self._dead.left_of_forgotten(key)
            if lost is not None:
                error = KilledWorker(key, lost, 0)
                return Failed(key, error, left.begun, left.bodies, left.fate)
        return Done(key, Outcome("withdrawn", []))  # or begun, if the board says so
