"""Large objects on the cluster: where they are, and how they get there. Floor 5.

The other half of what is said to ``distributed.Client``, for `daskexec._backend`: each large
object is a Dask value of its own, scattered once and copied from worker to worker. All of it runs
as coroutines on the client's event loop.

Names of Dask that are used here: ``Client.submit``, ``scatter``, ``replicate``, ``nthreads``,
``scheduler.ncores_running``, ``rpc`` and ``amm.stop``; ``Future.status`` and ``key``.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import dask.config

from daskexec import _remote
from daskexec._asking import while_there
from daskexec._large import Large, Place

__all__ = ["Placing", "without_size_warning"]


class _Placed:
    """What the cluster has of a large object. Lives on the client's loop."""

    __slots__ = ("attempts", "copies", "future", "lock")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.future: Any = None
        self.copies = 0  # workers that have it, at least when last asked for
        self.attempts = 0

    @property
    def lost(self) -> bool:
        return self.future is None or self.future.status in ("cancelled", "lost", "error")


class Placing:
    """What a cluster has of the large objects of one executor.

    Parameters
    ----------
    client : distributed.Client
    executor : str
        Id of the executor.
    alive : callable
        Tells whether the connection stands.
    direct : bool or None
        Whether this client can reach the workers; None tries it.
    coming : int
        Worker threads that are about to join.

    Attributes
    ----------
    workers : int
        How many there are, when last counted.
    """

    #: Seconds in which a worker must answer for large objects to be sent to workers directly.
    REACH = 3.0
    #: Seconds after which the scheduler knows of a worker's death for sure.
    PAUSE = 0.1

    def __init__(
        self,
        client: Any,
        executor: str,
        alive: Callable[[], bool],
        direct: bool | None,
        coming: int,
    ) -> None:
        self._client, self._alive = client, alive
        # A keeper that goes on with an executor's calls counts its objects and attempts anew. A
        # key of its own, or what the first client releases might be what the keeper has just sent.
        self._mark = f"{executor}-{secrets.token_hex(4)}"
        self._direct, self._coming = direct, coming
        # Dask forgets an object when the last reference to its place goes.
        self._places: weakref.WeakKeyDictionary[Place, _Placed] = weakref.WeakKeyDictionary()
        self._reachable = direct  # the workers, by this client; None: not tried yet
        self.workers = 0
        self._places_kept = False
        self._turn = secrets.randbelow(1 << 16)  # of the worker that an object is sent to first

    def lost(self, keys: set[str]) -> None:
        """Note that no worker has these any more."""
        for placed in list(self._places.values()):
            if placed.future is not None and placed.future.key in keys:
                placed.future = None

    def clear(self) -> None:
        """Release everything."""
        for placed in list(self._places.values()):
            if placed.future is not None:
                placed.future.release()
        self._places.clear()

    async def place(self, large: Large, tasks: int) -> Any:
        """Have a large object on as many workers as there are tasks that need it.

        Returns its Dask future.

        Dask runs a task where its dependencies are. With one copy only all tasks would queue
        for the worker that has it.
        """
        placed = self._places.get(large.place)
        if placed is None:
            placed = self._places[large.place] = _Placed()
        async with placed.lock:
            for attempt in range(4):
                if not placed.lost:
                    break
                try:
                    await self._scatter(placed, large)
                except (OSError, asyncio.TimeoutError, LookupError, ValueError):
                    # A worker that was there has gone; the last two are how Dask's scheduler
                    # takes that, now and then.
                    if attempt == 3 or not self._alive():
                        raise
                    await asyncio.sleep(self.PAUSE)
            wanted = min(tasks, self.workers)
            future = placed.future
            if wanted > placed.copies and future is not None and future.status == "finished":
                with contextlib.suppress(Exception):  # a worker has gone; one copy will do
                    await self._client.replicate([future], n=wanted, asynchronous=True)
                placed.copies = wanted
            return future

    async def _scatter(self, placed: _Placed, large: Large) -> None:
        placed.attempts += 1
        key = f"{large.place.key}-{self._mark}-{placed.attempts}"
        workers = await self._client.nthreads(asynchronous=True)
        while not workers and self._coming and self._alive():
            await asyncio.sleep(0.02)
            workers = await self._client.nthreads(asynchronous=True)
        self.workers = len(workers)
        if not workers:
            # Some will come, when the scheduler sees that there is work: until then the
            # scheduler has to keep the object.
            with without_size_warning(large.place.size):
                placed.future = self._client.submit(
                    _remote.keep, large.frames, key=key, pure=False
                )
            placed.copies = 1
            return
        if not self._places_kept:
            self._places_kept = True
            if self._direct:  # a cluster of ours: Dask drops no copy that is idle for a moment
                with contextlib.suppress(Exception):
                    await self._client.amm.stop()
        if self._reachable is None:
            self._reachable = await self._reach(next(iter(workers)))
        running = await self._client.scheduler.ncores_running(workers=None)
        self._turn += 1
        target = sorted(running or workers)[self._turn % len(running or workers)]
        sending = self._client.scatter(
            {key: large.frames},
            workers=[target],
            direct=self._reachable,
            hash=False,
            asynchronous=True,
        )
        futures = await while_there(self._client, sending, [target])
        placed.future, placed.copies = futures[key], 1

    async def _reach(self, address: str) -> bool:
        """Tell whether this process can talk to a worker without the scheduler's help."""
        worker = self._client.rpc(address)
        try:
            await asyncio.wait_for(worker.identity(), self.REACH)
        except Exception:
            return False
        finally:
            await worker.close_rpc()
        return True


_config_lock = threading.Lock()  # dask.config.set is not safe from several threads


@contextlib.contextmanager
def without_size_warning(size: int) -> Iterator[None]:
    """Send a large argument without Dask's advice on graphs: its user has made no graph."""
    if size < 1 << 20:
        yield
        return
    with _config_lock, dask.config.set({"distributed.admin.large-graph-warning-threshold": "1PB"}):
        yield
