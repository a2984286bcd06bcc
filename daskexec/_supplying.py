"""Submitting tasks: at once, or when the large objects are there that they need. Floor 5.

Each large object is a Dask value of its own (`daskexec._placing`), on which a task depends. Dask
forgets a task when the last copy of what it needs is lost with a worker, whether it had begun or
not. It is found out then which (`daskexec._forgotten`); if not, it is sent with new copies::

    send ---> objects are brought to the workers ---> the task is sent ---> its end
                        ^                                    |
                        +----- an object was lost, and so ---+
                               Dask has forgotten the task

All of it runs on the client's loop, but what says otherwise.

Names of Dask that are used here: ``Client.submit``, ``generation`` and ``scheduler.who_has``;
``Future.key``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from daskexec import _remote
from daskexec._calls import Ticket
from daskexec._fetching import Fetching
from daskexec._large import Large
from daskexec._lifetimes import Where
from daskexec._placing import Placing, without_size_warning
from daskexec.options import CallOptions

__all__ = ["Sending", "Supplying", "submit"]


class Sending(NamedTuple):
    """One attempt of a task, as it is to be sent: see `daskexec._messages.Backend.send`."""

    ticket: Ticket
    options: CallOptions
    ahead: float = 0.0
    large: Sequence[Large] = ()
    where: Where | None = None
    values: Sequence[tuple[str, Any]] = ()


#: A resource that no worker has: a task that asks for it waits, and Dask sees that it does.
TO_COME = "a worker that is still to come"


def submit(client: Any, sending: Sending, placed: Iterable[Any] = ()) -> Any:
    """Submit a task, the large objects of which are placed; return its future. From any thread."""
    ticket, options, ahead, _, where, values = sending
    resources = dict(options.resources) if options.resources else {}
    workers = list(where.workers) if where is not None else []
    if where is not None and not workers:
        resources[TO_COME] = 1
    with without_size_warning(len(ticket.load)):
        return client.submit(
            _remote.run_task,
            ticket,
            *placed,
            *(remote.future for _, remote in values),
            key=ticket.key,
            pure=False,
            fifo_timeout="0 s",  # or Dask sorts what comes within 100 ms by name
            priority=options.priority + ahead,  # Dask takes fractions, too
            resources=resources or None,
            workers=workers or None,
            allow_other_workers=bool(workers) and where is not None and not where.strict,
        )


class _Need:
    """What is sent with large objects, while it is not done."""

    __slots__ = ("generation", "placed", "sending")

    def __init__(self, sending: Sending, generation: int) -> None:
        self.sending, self.generation = sending, generation
        self.placed: list[Any] = []  # Dask's futures of the objects, of the last attempt


class Owner(Protocol):
    """A backend, as what supplies its tasks sees it. Futures are of Dask."""

    def alive(self) -> bool:
        """Tell whether the connection stands."""

    def over(self) -> bool:
        """Tell whether nothing is to be sent any more."""

    def ended(self) -> None:
        """Take note that the connection is lost."""

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a coroutine that ends with the backend."""

    def supplied(self, sending: Sending, placed: Sequence[Any]) -> None:
        """Send a task: the large objects that it needs are there."""

    async def forgotten(self, key: str) -> None:
        """Have a task sent again that Dask has forgotten, if it was not begun."""

    def unsendable(self, key: str, error: BaseException) -> None:
        """Take note that a task cannot be sent."""


class Supplying:
    """The tasks of one backend that need large objects.

    Parameters
    ----------
    owner : Owner
    client : distributed.Client
    placing : Placing
        Brings the objects to the workers.
    fetching : Fetching
        Knows for how long what fails is tried again.
    """

    def __init__(self, owner: Owner, client: Any, placing: Placing, fetching: Fetching) -> None:
        self._owner, self._client = owner, client
        self._placing, self._fetching = placing, fetching
        self._loop: asyncio.AbstractEventLoop = client.loop.asyncio_loop
        self._needs: dict[str, _Need] = {}

    def send(self, sending: Sending) -> None:
        """Have a task sent when all is there that it needs; from any thread."""
        need = self._needs[sending.ticket.key] = _Need(sending, self._client.generation)
        self._loop.call_soon_threadsafe(self._spawn, need)

    def __contains__(self, key: str) -> bool:
        """Tell whether a task needs large objects, and is not done."""
        return key in self._needs

    def drop(self, key: str) -> None:
        """Have nothing more to do with a task."""
        self._needs.pop(key, None)

    def clear(self) -> None:
        """Have nothing more to do with any."""
        self._needs.clear()

    def _spawn(self, need: _Need) -> None:
        if self._is_wanted(need):
            self._owner.spawn(self._supply(need))

    def _is_wanted(self, need: _Need) -> bool:
        return self._needs.get(need.sending.ticket.key) is need and not self._owner.over()

    async def _supply(self, need: _Need) -> None:
        """Bring a task's large objects to the cluster, then have it sent."""
        try:
            need.placed = [
                await self._placing.place(large, self._tasks_with(large))
                for large in need.sending.large
            ]
            self._fetching.worked()
            if self._is_wanted(need):  # not withdrawn meanwhile
                self._owner.supplied(need.sending, need.placed)
        except Exception as exc:
            if not self._owner.alive():
                self._owner.ended()
            elif self._fetching.try_again(exc):
                self._loop.call_later(Fetching.RETRY_AFTER, self._spawn, need)
            elif self._is_wanted(need):
                self._owner.unsendable(need.sending.ticket.key, exc)

    def _tasks_with(self, large: Large) -> int:
        return sum(large in need.sending.large for need in self._needs.values())

    async def again(self, future: Any) -> bool:
        """Have a task sent again that Dask forgot since a large object it needs was lost.

        False if there is another reason that Dask forgot it.
        """
        key = future.key
        need = self._needs.get(key)
        if need is None or need.generation != self._client.generation:  # restarted
            return need is None
        # The status of a future does not tell: a worker may die while it is sent the object,
        # and Dask then calls it finished.
        keys = [placed.key for placed in need.placed]
        owners = await self._client.scheduler.who_has(keys=keys)
        lost = {key for key in keys if not owners.get(key)}
        if not lost:
            return False
        self._placing.lost(lost)
        await self._owner.forgotten(key)
        return True
