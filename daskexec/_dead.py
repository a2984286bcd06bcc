"""What lost workers had begun, and have left, on clusters that were given. Floor 5.

The client's part of `daskexec._once`. All of it runs on the client's loop.

Names of Dask that are used here: ``Client.run_on_scheduler`` and ``nthreads``;
``distributed.scheduler.KilledWorker``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from typing import Any

from distributed.scheduler import KilledWorker

from daskexec import _marks
from daskexec._asking import Asking
from daskexec._messages import Failed
from daskexec._once import gone_since, lost_on, silence_of

__all__ = ["Dead", "Left", "Lost"]

_LOG = logging.getLogger("daskexec")


@dataclass(frozen=True)
class Lost:
    """A worker that has gone: as much of Dask's ``WorkerState`` as is asked for."""

    address: str
    name: str
    nanny: str
    local_directory: str
    pid: int


@dataclass(frozen=True)
class Left:
    """What a lost worker has left of a task: see `daskexec._messages.Failed`.

    `forgets`: so many tasks were begun there that the first of them are not known any more.
    """

    begun: bool | None = None
    bodies: list[Any] | None = None
    fate: str = ""
    forgets: bool = False


class Dead:
    """Asks what lost workers had begun, and have left. On the client's loop.

    Parameters
    ----------
    client : distributed.Client
    asking : Asking
    plugin : str
        Name of the `OncePlugin`.
    """

    #: Seconds in which a nanny, or another worker of the host, must answer. One that is there
    #: does so in milliseconds; one that has gone with its job or host is waited for in vain.
    LIMIT = 5.0
    #: Dead workers of which the answer is remembered.
    REMEMBERED = 20
    #: Workers of its host, at most, that are asked one after the other until one answers.
    OTHERS = 2

    def __init__(self, client: Any, asking: Asking, plugin: str) -> None:
        self._client, self._asking, self._plugin = client, asking, plugin
        self._answers: dict[str, asyncio.Task[tuple[str, bytes | None, str]]] = {}
        # By worker: the tasks whose results are about to be asked for, and that question.
        self._batches: dict[str, tuple[list[str], asyncio.Task[dict[str, Any]]]] = {}

    async def left_of(self, key: str, worker: Any) -> Left:
        """Return what a lost worker has left of a task."""
        answer = self._answers.get(worker.address)
        if answer is None:
            answer = asyncio.create_task(self._ask(worker))
            self._answers[worker.address] = answer
            while len(self._answers) > self.REMEMBERED:
                del self._answers[next(iter(self._answers))]
        who, left, fate = await answer
        if left is None or not _marks.is_in(left, key):
            forgets = left is None or len(left) >= _marks.ENTRIES * _marks.WIDTH
            return Left(None if left is None else False, None, fate, forgets)
        return Left(True, await self._results_of(key, worker, who), fate)

    async def _results_of(self, key: str, worker: Any, who: str) -> list[Any] | None:
        """Return the results that a lost worker has left of a task, None if that is not known."""
        if worker.address not in self._batches:
            keys: list[str] = []
            asking = asyncio.create_task(self._ask_results(keys, worker, who))
            self._batches[worker.address] = keys, asking
        keys, asking = self._batches[worker.address]
        keys.append(key)
        return (await asking).get(key)

    async def _ask_results(
        self, keys: list[str], worker: Any, who: str
    ) -> dict[str, list[Any] | None]:
        await asyncio.sleep(0)  # tasks that were lost at the same time come along
        del self._batches[worker.address]
        try:
            found = await self._run(who, _marks.results_of, worker, keys)
        except Exception as exc:  # it is gone, too, or going
            _LOG.info("%s does not say what %s has left: %r", who, worker.address, exc)
            return {}
        return dict(zip(keys, found or [], strict=False))

    async def failed(self, key: str, error: KilledWorker) -> Failed:
        """Return what to report of a task that was lost with its worker."""
        left = await self.left_of_any(key, error.last_worker)
        return Failed(key, error, left.begun, left.bodies, left.fate)

    async def left_of_any(self, key: str, worker: Any) -> Left:
        """The same; where that worker had not begun it, another may have ended it before.

        The result was lost there, and this one died before it could refuse to run it again. Or
        what was lost there was just its word that it does not run it.
        """
        left = await self.left_of(key, worker)
        if left.begun:
            return left
        lost = await self.lost_at(key)
        if lost is None:
            return left
        before = await self.left_of(key, lost)
        if before.begun is False and not before.forgets:
            return before
        return Left(True, before.bodies, before.fate)

    async def lost_at(self, key: str) -> Any:
        """Return the `Lost` worker that a task had ended on, if its result was lost, or None."""
        lost: Any = ()
        with contextlib.suppress(Exception):  # the connection is going, or that is not allowed
            lost = await self._client.run_on_scheduler(lost_on, self._plugin, key)
        return Lost(*lost) if lost else None

    async def left_of_forgotten(self, key: str) -> tuple[Left, Any]:
        """The same, of a task that Dask has forgotten, and the `Lost` worker that had begun it."""
        gone: list[list[Any]] = []
        with contextlib.suppress(Exception):  # as above
            gone = await self._client.run_on_scheduler(gone_since, self._plugin, key)
        workers = [Lost(*each) for each in gone]
        found = await asyncio.gather(*(self.left_of(key, worker) for worker in workers))
        for left, worker in zip(found, workers, strict=True):
            if left.begun:
                return left, worker
        for left, worker in zip(found, workers, strict=True):
            if left.begun is None:  # and it may have
                return left, worker
        return Left(False), None

    async def _ask(self, worker: Any) -> tuple[str, bytes | None, str]:
        """Return who has answered, and what `begun_by` says; "" is said of no end of a process.

        Of the end of a process, that is, which was not that of its job, or its host.
        """
        host, fate = worker.address.rpartition(":")[0], ""
        silence = await self._silence_of(worker)
        if silence:
            fate = f"{silence}. It has no nanny that answers: the call may still be running there"
        asked = [worker.nanny] if worker.nanny else []
        with contextlib.suppress(Exception):
            there = await self._client.nthreads(asynchronous=True)
            asked += [other for other in there if other.rpartition(":")[0] == host][: self.OTHERS]
        for address in asked:
            try:
                left, said = await self._run(address, _marks.begun_by, worker)
            except Exception as exc:
                _LOG.info("%s does not say what %s had begun: %r", address, worker.address, exc)
                continue
            if address == worker.nanny:
                fate = said or "its process ended"
                if silence:  # it was killed for that, however that looks to the nanny
                    fate = f"{silence}, and had its nanny end its process"
            if left is not None:
                return address, left, fate
        return "", None, fate

    async def _silence_of(self, worker: Any) -> str:
        """Say that the scheduler has removed a worker for its silence, if it has."""
        seconds = 0.0
        with contextlib.suppress(Exception):  # the connection is going, or that is not allowed
            question = self._client.run_on_scheduler(silence_of, worker.address)
            seconds = await asyncio.wait_for(question, self.LIMIT)
        if not seconds:
            return ""
        return (
            f"the scheduler removed it, as it had given no sign for {seconds:.3g} s "
            f"(distributed.scheduler.worker-ttl): stopped, cut off, or in a call that held the GIL"
        )

    async def _run(self, address: str, function: Any, worker: Any, *args: Any) -> Any:
        args = (worker.local_directory, worker.pid, *args)
        is_nanny = address == worker.nanny
        question = self._asking.ask_at(address, function, *args, is_worker=not is_nanny)
        return await asyncio.wait_for(question, self.LIMIT)
