"""At most once, on clusters that were given. Floor 5.

Left to itself Dask runs what was on a lost worker again elsewhere, up to four times, whether it
had begun or not, and also what had ended, if its result was there only. Here a lost worker's tasks
come back to the client instead, which decides::

    scheduler (`OncePlugin`)          client (`Dead`)                    nanny, or the host
    ------------------------          ---------------                    ------------------
    a worker is lost: its tasks
    fail, each with KilledWorker ---> what had it begun? what ended it? ---> `_marks.left_by`
                                      `Failed` to the settle thread     <---
    a result is lost: its task goes
    to a worker with a note, and is
    refused there                ---> `Done`, "refused"

Where the scheduler takes no plugin it is as Dask has it.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from distributed import SchedulerPlugin

from daskexec import _marks
from daskexec._marks import WIDTH
from daskexec._remote import LOST

__all__ = ["Dead", "OncePlugin"]

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

    async def start(self, scheduler: Any) -> None:
        """Begin."""
        self._scheduler = scheduler

    def update_graph(self, scheduler: Any, *, tasks: Any = (), **_: Any) -> None:
        """Have new tasks fail at the first loss of a worker that they are on."""
        for key in tasks:
            if self._is_ours(key):
                scheduler.tasks[key].suspicious = scheduler.allowed_failures

    def transition(self, key: Any, start: str, finish: str, *_: Any, **__: Any) -> None:
        """Note of a task that its result was lost: Dask computes it anew, if it is wanted."""
        if start == "memory" and finish == "released" and self._is_ours(key):
            task = self._scheduler.tasks.get(key)
            if task is not None:
                task.annotations = {**(task.annotations or {}), LOST: True}

    def remove_client(self, scheduler: Any, client: str) -> None:
        """End with the client."""
        if client == self.client:
            with contextlib.suppress(ValueError):
                scheduler.remove_plugin(name=self.name)

    def _is_ours(self, key: Any) -> bool:
        return (
            isinstance(key, str)
            and key[-2 * WIDTH : -12] == self.executor
            and not key.endswith(_PLAIN)
        )


class Dead:
    """Asks what lost workers had begun; each worker once. On the client's loop.

    Parameters
    ----------
    client : distributed.Client
    """

    #: Seconds in which a nanny, or another worker of the host, must answer.
    LIMIT = 5.0
    #: Dead workers of which the answer is remembered.
    REMEMBERED = 20

    def __init__(self, client: Any) -> None:
        self._client = client
        self._answers: dict[str, asyncio.Task[tuple[bytes | None, str]]] = {}

    async def had_begun(self, key: str, worker: Any) -> tuple[bool | None, str]:
        """Tell whether a lost worker had begun a task, None if nobody knows; and what ended it.

        The latter is "" unless the process alone has ended, and not its job or its host.
        """
        answer = self._answers.get(worker.address)
        if answer is None:
            answer = asyncio.create_task(self._ask(worker))
            self._answers[worker.address] = answer
            while len(self._answers) > self.REMEMBERED:
                del self._answers[next(iter(self._answers))]
        left, fate = await answer
        return None if left is None else _marks.is_in(left, key), fate

    async def _ask(self, worker: Any) -> tuple[bytes | None, str]:
        host, fate = worker.address.rpartition(":")[0], ""
        asked = [worker.nanny] if worker.nanny else []
        with contextlib.suppress(Exception):
            there = await self._client.nthreads(asynchronous=True)
            asked += [other for other in there if other.rpartition(":")[0] == host][:1]
        for address in asked:
            with contextlib.suppress(Exception):  # it is gone, too, or going
                question = self._client.run(
                    *(_marks.left_by, worker.local_directory, worker.pid),
                    workers=[address],
                    asynchronous=True,
                )
                left, said = (await asyncio.wait_for(question, self.LIMIT))[address]
                if address == worker.nanny:  # so the process alone has ended
                    fate = said or "its process ended"
                if left is not None:
                    return left, fate
        return None, fate
