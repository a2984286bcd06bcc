"""Time stamps taken in client, scheduler and workers: what `benchmarks.floor` puts into Dask.

A module of its own, so that schedulers and workers can import it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from distributed import SchedulerPlugin, WorkerPlugin

__all__ = ["OnScheduler", "OnWorker", "log", "on_client", "stamp", "stamped", "taken"]

#: This process's stamps: what happened, and ``time.time()`` then. The processes are on one
#: machine, and so have the same clock.
log: list[tuple[str, float]] = []


def stamp(what: str) -> None:
    log.append((what, time.time()))


def taken() -> list[tuple[str, float]]:
    """Return this process's stamps."""
    return list(log)


def stamped() -> None:
    """The call whose way is followed."""
    stamp("function")


class OnScheduler(SchedulerPlugin):
    """Stamps what the scheduler does."""

    name = "benchmarks-stamps"

    def update_graph(self, *args: Any, **kwargs: Any) -> None:
        stamp("graph")

    def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:
        stamp(f"scheduler {finish}")


class OnWorker(WorkerPlugin):
    """Stamps what a worker does."""

    name = "benchmarks-stamps"

    def transition(self, key: Any, start: str, finish: str, **kwargs: Any) -> None:
        stamp("worker has it" if start == "released" else f"worker {finish}")


def on_client(client: Any) -> None:
    """Have a ``distributed.Client`` stamp what it does, on whichever thread."""

    def before(what: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def stamping(*args: Any, **kwargs: Any) -> Any:
            stamp(what)
            return function(*args, **kwargs)

        return stamping

    async def gather(*args: Any, **kwargs: Any) -> Any:
        stamp("gather")
        result = await gather_remote(*args, **kwargs)
        stamp("gathered")
        return result

    gather_remote = client._gather_remote
    client._gather_remote = gather
    client.submit = before("Client.submit", client.submit)
    client._send_to_scheduler = before("message", client._send_to_scheduler)
    comm = client.scheduler_comm.comm
    comm.write = before("write", comm.write)
    handlers = client._stream_handlers
    handlers["key-in-memory"] = before("finished", handlers["key-in-memory"])
    if "event" in handlers:
        handlers["event"] = before("event", handlers["event"])
