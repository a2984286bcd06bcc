"""At most once, on clusters that were given. Floor 5.

Left to itself Dask runs what was on a lost worker again elsewhere, up to four times, whether it
had begun or not, and also what had ended, if its result was there only. Here a lost worker's tasks
come back to the client instead, which decides::

    scheduler (`OncePlugin`)          client (`Dead`)                    nanny, or the host
    ------------------------          ---------------                    ------------------
    a worker is lost: its tasks
    fail, each with KilledWorker ---> what had it begun? what ended it? ---> `_marks.begun_by`
    a result is lost: its task goes   what has it left of a task?       ---> `_marks.results_of`
    to a worker with a note, and is
    refused there                ---> the same
                                      `Failed` to the settle thread

Where the scheduler takes no plugin it is as Dask has it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass
from typing import Any

from distributed import SchedulerPlugin

from daskexec import _marks
from daskexec._marks import executor_of
from daskexec._remote import BARRED, LOST

__all__ = ["Dead", "Lost", "OncePlugin", "bar", "known_of_lost"]

_LOG = logging.getLogger("daskexec")
#: Results that were lost, of which the scheduler knows where they were.
_REMEMBERED = 10_000
#: Seconds in which the scheduler is done with a silent worker: its nanny is given 30 of them.
_RECENT = 120.0
_PLAIN = "0000"  # the end of a key that is a call's plain value, not an attempt to run it


class OncePlugin(SchedulerPlugin):
    """Gives an executor's tasks on lost workers back to it; runs on the scheduler.

    Parameters
    ----------
    executor : str
        Its id, which the keys of its tasks have.
    client : str
        Id of its client, with which this ends.
    """

    def __init__(self, executor: str, client: str) -> None:
        self.executor, self.client = executor, client
        self.name = f"daskexec-once-{executor}"
        self._scheduler: Any = None
        self._at: dict[str, Any] = {}  # where each result is that there is
        self.lost: dict[str, list[Any]] = {}  # where each was that was lost last
        self.forgotten: dict[
            str, dict[str, Any]
        ] = {}  # the workers of which one may have begun it

    async def start(self, scheduler: Any) -> None:
        """Begin."""
        self._scheduler = scheduler

    def update_graph(self, scheduler: Any, *, tasks: Any = (), **_: Any) -> None:
        """Have new tasks fail at the first loss of a worker that they are on."""
        for key in tasks:
            if self._is_ours(key):
                scheduler.tasks[key].suspicious = scheduler.allowed_failures

    def transition(self, key: Any, start: str, finish: str, *_: Any, **more: Any) -> None:
        """Note of a task that its result was lost: Dask computes it anew, if it is wanted."""
        if finish == "memory" and start == "processing" and self._is_ours(key):
            self._at[key] = self._scheduler.workers.get(more.get("worker"))
        elif start == "memory" and key in self._at:
            worker, task = self._at.pop(key), self._scheduler.tasks.get(key)
            if finish == "released" and worker is not None and task is not None:
                # Not twice: what was lost the second time was a worker's refusal to run it.
                lost = (task.annotations or {}).get(LOST, _described(worker))
                task.annotations = {**(task.annotations or {}), LOST: lost}
                self.lost[key] = lost
                while len(self.lost) > _REMEMBERED:
                    del self.lost[next(iter(self.lost))]
        elif start == "processing" and finish == "released" and self._is_ours(key):
            task = self._scheduler.tasks.get(key)
            if task is not None and task.who_wants:  # what it needs is lost
                # With which one it was is not told here; the one that was lost has gone already.
                self.forgotten[key] = dict(self._scheduler.workers)
                while len(self.forgotten) > _REMEMBERED // 10:
                    del self.forgotten[next(iter(self.forgotten))]

    def remove_client(self, scheduler: Any, client: str) -> None:
        """End with the client."""
        if client == self.client:
            with contextlib.suppress(ValueError):
                scheduler.remove_plugin(name=self.name)

    def _is_ours(self, key: Any) -> bool:
        return executor_of(key) == self.executor and not key.endswith(_PLAIN)


def _described(worker: Any) -> list[Any]:
    """Return what a `Lost` is made of."""
    told = [worker.address, str(worker.name), worker.nanny or ""]
    return [*told, worker.local_directory, worker.pid]


def lost_on(plugin: str, key: str, dask_scheduler: Any = None) -> list[Any]:
    """Return the worker that a task had ended on, if its result was lost; on the scheduler."""
    found = dask_scheduler.plugins.get(plugin)
    return [] if found is None else list(found.lost.get(key, ()))


def known_of_lost(
    plugin: str, keys: list[str], dask_scheduler: Any = None
) -> dict[str, list[Any]]:
    """Return which tasks were with a worker that is lost, and where they had ended.

    Runs on the scheduler. An empty list: the task has not ended, and its client is told anyway.
    """
    found, tasks = dask_scheduler.plugins.get(plugin), dask_scheduler.tasks
    failed: dict[str, list[Any]] = {
        key: [] for key in keys if key in tasks and tasks[key].state == "erred"
    }
    lost = {} if found is None else found.lost
    return {**failed, **{key: list(lost[key]) for key in keys if key in lost}}


def gone_since(plugin: str, key: str, dask_scheduler: Any = None) -> list[list[Any]]:
    """Return the lost workers that may have begun a task that was forgotten; on the scheduler.

    Those that were there then and are not now.
    """
    found, there = dask_scheduler.plugins.get(plugin), dask_scheduler.workers
    then = {} if found is None else found.forgotten.get(key, {})
    return [_described(one) for at, one in then.items() if there.get(at) is not one]


def silence_of(worker: str, dask_scheduler: Any = None) -> float:
    """Return the seconds of silence for which a worker was removed; 0 if not. On the scheduler."""
    for at, event in reversed(dask_scheduler.get_events("scheduler")):
        if time.time() - at > _RECENT:  # of another worker, which had the same address
            break
        silent = isinstance(event, dict) and event.get("action") == "worker-ttl-timed-out"
        if silent and worker in event["workers"]:
            return float(event["ttl"])
    return 0.0


def bar(keys: list[str], dask_scheduler: Any = None) -> None:
    """Have no worker begin some tasks that gets them from now on; on the scheduler."""
    for key in keys:
        task = dask_scheduler.tasks.get(key)
        if task is not None:
            task.annotations = {**(task.annotations or {}), BARRED: True}


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
    """

    #: Seconds in which a nanny, or another worker of the host, must answer. One that is there
    #: does so in milliseconds; one that has gone with its job or host is waited for in vain.
    LIMIT = 5.0
    #: Dead workers of which the answer is remembered.
    REMEMBERED = 20

    def __init__(self, client: Any) -> None:
        self._client = client
        self._answers: dict[str, asyncio.Task[tuple[str, bytes | None, str]]] = {}

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
        bodies = None
        try:
            bodies = await self._run(who, _marks.results_of, worker, key)
        except Exception as exc:  # it is gone, too, or going
            _LOG.info("%s does not say what %s has left: %r", who, worker.address, exc)
        return Left(True, bodies, fate)

    async def left_of_any(self, key: str, worker: Any, plugin: str) -> Left:
        """The same; where that worker had not begun it, another may have ended it before.

        The result was lost there, and this one died before it could refuse to run it again. Or
        what was lost there was just its word that it does not run it.
        """
        left = await self.left_of(key, worker)
        if left.begun:
            return left
        lost = await self.lost_at(key, plugin)
        if lost is None:
            return left
        before = await self.left_of(key, lost)
        if before.begun is False and not before.forgets:
            return before
        return Left(True, before.bodies, before.fate)

    async def lost_at(self, key: str, plugin: str) -> Any:
        """Return the `Lost` worker that a task had ended on, if its result was lost, or None."""
        lost: Any = ()
        with contextlib.suppress(Exception):  # the connection is going, or that is not allowed
            lost = await self._client.run_on_scheduler(lost_on, plugin, key)
        return Lost(*lost) if lost else None

    async def left_of_forgotten(self, key: str, plugin: str) -> tuple[Left, Any]:
        """The same, of a task that Dask has forgotten, and the `Lost` worker that had begun it."""
        gone: list[list[Any]] = []
        with contextlib.suppress(Exception):  # as above
            gone = await self._client.run_on_scheduler(gone_since, plugin, key)
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
            asked += [other for other in there if other.rpartition(":")[0] == host][:1]
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
        question = self._client.run(
            *(function, worker.local_directory, worker.pid, *args),
            workers=[address],
            asynchronous=True,
        )
        return (await asyncio.wait_for(question, self.LIMIT))[address]
