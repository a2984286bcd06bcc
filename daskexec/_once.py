"""At most once, on clusters that were given. Floor 5.

Left to itself Dask runs what was on a lost worker again elsewhere, up to four times, whether it
had begun or not, and also what had ended, if its result was there only. Here a lost worker's tasks
come back to the client instead, which decides::

    scheduler (`OncePlugin`)          client (`_dead.Dead`)              nanny, or the host
    ------------------------          ---------------                    ------------------
    a worker is lost: its tasks
    fail, each with KilledWorker ---> what had it begun? what ended it? ---> `_marks.begun_by`
    a result is lost: its task goes   what has it left of a task?       ---> `_marks.results_of`
    to a worker with a note, and is
    refused there                ---> the same
                                      `Failed` to the settle thread

Where the scheduler takes no plugin it is as Dask has it. All that is here runs on the scheduler.
"""

from __future__ import annotations

import contextlib
import time
from typing import Any

from distributed import SchedulerPlugin

from daskexec._marks import executor_of
from daskexec._remote import BARRED, LOST

__all__ = ["OncePlugin", "bar", "gone_since", "known_of_lost", "lost_on", "silence_of"]

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
        # Tasks that Dask forgot, with the workers of which one may have begun it.
        self.forgotten: dict[str, dict[str, Any]] = {}

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
    """Return what a `daskexec._dead.Lost` is made of."""
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


def bar(keys: list[str], worker: str, dask_scheduler: Any = None) -> list[str]:
    """Have no worker begin some tasks that gets them from now on; on the scheduler.

    Returns those that are with this one: no other has them, unless it is told so of that.
    """
    there = []
    for key in keys:
        task = dask_scheduler.tasks.get(key)
        if task is not None:
            task.annotations = {**(task.annotations or {}), BARRED: True}
            if getattr(task.processing_on, "address", "") == worker:
                there.append(key)
    return there
