"""Fetching results: many at a time, and again where the network fails. Floor 5.

Part of what is said to ``distributed.Client``, for `daskexec._backend`; all of it runs on the
client's own event loop.

Names of Dask that are used here: ``Client.gather``; ``Client._gather_future``, to get rid of one
that was cancelled; ``available``, ``occupied``, ``_connecting`` and ``remove`` of ``Client.rpc``;
``Future.key`` and ``release``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, Protocol

__all__ = ["Fetching"]


class Owner(Protocol):
    """A backend, as its transfers see it. Futures and outcomes are of Dask."""

    #: Seconds after which the scheduler knows of a worker's death for sure.
    AFTER_DEATH: float

    def alive(self) -> bool:
        """Tell whether the connection stands."""

    def over(self) -> bool:
        """Tell whether nothing is to be fetched any more."""

    def ended(self) -> None:
        """Take note that the connection is lost."""

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a coroutine that ends with the backend."""

    def to_fetch(self, future: Any) -> bool:
        """Tell whether somebody still waits for it."""

    def deliver(self, future: Any, outcome: Any) -> None:
        """Take what has arrived."""

    def wait_again(self, future: Any) -> None:
        """Fetch it when it is there."""

    def failed(self, key: str, error: BaseException) -> None:
        """Take note that it cannot be fetched."""


class Fetching:
    """The transfers of one backend.

    Parameters
    ----------
    owner : Owner
    client : distributed.Client
    direct : bool or None
        Fetch results from the workers themselves; None leaves it to Dask.

    Attributes
    ----------
    holding : bool
        Whether to release nothing for now.
    """

    #: Seconds after which results that are here are released. Dask sends at most one message
    #: every 10 ms: a release on its own would hold up the call submitted right after it.
    RELEASE_DELAY = 0.05
    #: Transfers of results that may be under way at the same time.
    TRANSFERS = 4
    #: Seconds for which transfers that fail are tried again, and between two attempts. A
    #: network that is cut breaks them first; that the scheduler is lost shows later.
    RETRY_FOR, RETRY_AFTER = 60.0, 1.0

    def __init__(self, owner: Owner, client: Any, direct: bool | None) -> None:
        self._owner, self._client, self._direct = owner, client, direct
        self._loop: asyncio.AbstractEventLoop = client.loop.asyncio_loop
        self._fresh: list[Any] = []
        self._spent: list[Any] = []
        self._transfers = 0
        self._failing_since: float | None = None
        self._failed_last = 0.0
        self._tasks: dict[asyncio.Task[Any], dict[str, Any]] = {}  # what each one transfers
        self._workers: frozenset[str] = frozenset()
        self.holding = False

    def fetch(self, future: Any) -> None:
        """Have a result that is there fetched, with others."""
        self._fresh.append(future)
        self._begin()

    def _begin(self) -> None:
        if self._transfers < self.TRANSFERS:
            self._transfers += 1
            self._owner.spawn(self._fetch())

    async def _fetch(self) -> None:
        owner = self._owner
        batch: dict[str, Any] = {}
        task = asyncio.current_task()
        assert task is not None
        self._tasks[task] = batch
        try:
            await asyncio.sleep(0)  # results that arrived in the same message come along
            while self._fresh and not owner.over():
                batch = {f.key: f for f in self._fresh if owner.to_fetch(f)}
                self._fresh, self._tasks[task] = [], batch
                found = await self._client.gather(
                    batch, errors="skip", direct=self._direct, asynchronous=True
                )
                self._tasks[task] = {}
                self.worked()
                for key, outcome in found.items():
                    owner.deliver(batch[key], outcome)
        except asyncio.CancelledError:
            if owner.over():
                raise
            for future in batch.values():  # see `lost`
                self._loop.call_later(owner.AFTER_DEATH, owner.wait_again, future)
        except Exception as exc:
            if not owner.alive():
                owner.ended()
                return
            if self.try_again(exc):
                for future in batch.values():
                    self._loop.call_later(self.RETRY_AFTER, owner.wait_again, future)
                return
            for key in batch:
                owner.failed(key, exc)
        finally:
            del self._tasks[task]
            self._transfers -= 1
            if self._fresh and not owner.over():  # what came while this one ended early
                self._begin()

    def worked(self) -> None:
        """Take note that a transfer has succeeded."""
        self._failing_since = None

    def try_again(self, error: Exception) -> bool:
        """Tell whether a transfer that failed is to be tried again."""
        if not isinstance(error, (OSError, asyncio.TimeoutError)):
            return False
        now, before = self._loop.time(), self._failed_last
        self._failed_last = now
        if self._failing_since is None or now - before > self.RETRY_FOR:  # that is past
            self._failing_since = now
        return now - self._failing_since < self.RETRY_FOR

    def lost(self, key: str) -> None:
        """Start anew what transfers a result, since that was lost with its worker.

        Dask would go on trying to reach the dead one for 30 s.
        """
        self._cancel([task for task, batch in self._tasks.items() if key in batch])

    def counted(self, workers: Iterable[str]) -> None:
        """Have nothing fetched from workers that are not among these, which are all, any more.

        One that was to leave has given its results to others, so none of them is lost.
        """
        pool, before = self._client.rpc, self._workers
        self._workers = frozenset(workers)
        gone = before - self._workers
        wanted = any(pool.occupied.get(one) or pool._connecting.get(one) for one in gone)
        for address in gone:
            pool.remove(address)
        if wanted:
            self._cancel(list(self._tasks))

    def _cancel(self, tasks: list[asyncio.Task[Any]]) -> None:
        for task in tasks:
            task.cancel()
        if tasks:
            self._loop.call_soon(self._forget_cancelled_gather)

    def _forget_cancelled_gather(self) -> None:
        # A gather cancelled before its first step stays behind for others to attach to.
        gather = self._client._gather_future
        if gather is not None and gather.cancelled():
            self._client._gather_future = None

    def spent(self, future: Any) -> None:
        """Have a future released soon: its result is here."""
        if not self._spent:
            self._loop.call_later(self.RELEASE_DELAY, self.release)
        self._spent.append(future)

    def release(self) -> None:
        """Release the futures whose results are here."""
        if self.holding:
            return
        spent, self._spent = self._spent, []
        for future in spent:
            if any(future.key in batch for batch in self._tasks.values()):
                self.spent(future)  # it is being fetched, too: that it is lost would not be told
            else:
                future.release()
