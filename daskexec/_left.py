"""The calls that were left with a cluster, as futures of the executor that attached it. Floor 6.

The keeper sees to them; this follows what it says. What they come to is in a file, and is loaded
on the settle thread of the executor's dispatcher, as what comes from a worker is.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterable
from concurrent.futures import BrokenExecutor, Future
from typing import Any, Protocol

from daskexec._kept import KeptCluster
from daskexec._parcel import Name, ResultsReader, loaded
from daskexec._state import Entry, clusters, moment
from daskexec.errors import Detached
from daskexec.futures import Canceller, DaskFuture, set_all_running

__all__ = ["KeptCalls", "ended_futures"]


class Settling(Canceller, Protocol):
    """What is asked of the executor's dispatcher."""

    def expect(self, count: int) -> None: ...

    def arrived(self, future: DaskFuture[Any], body: Any) -> None: ...


class KeptCalls:
    """Futures of calls that a keeper sees to; also their `Canceller`.

    Parameters
    ----------
    kept : KeptCluster
        That was attached.
    dispatcher : Dispatcher
        Of the executor that they belong to from now on.

    Attributes
    ----------
    futures : dict of Name to DaskFuture
        All of them, by what they are asked for by.
    """

    #: Seconds that ``cancel`` waits for the keeper's answer.
    CANCEL_WAIT = 10.0

    def __init__(self, kept: KeptCluster, dispatcher: Settling) -> None:
        self.executor = dispatcher.executor
        self.futures: dict[Name, DaskFuture[Any]] = {}
        self._kept, self._dispatcher = kept, dispatcher
        self._lock = threading.Lock()  # guards the reader, and what is pending
        self._reader = ResultsReader(clusters() / kept.name / "results")
        self._pending: dict[int, DaskFuture[Any]] = {}
        self._by_index: dict[int, DaskFuture[Any]] = {}
        for name, index, function in kept.names:
            future: DaskFuture[Any] = DaskFuture(function, index, self)
            self.futures[name] = self._pending[index] = future
            self._by_index[index] = future
        dispatcher.expect(len(self._pending))
        kept.on_news, kept.on_close = self._hear, self.give_up
        kept.ask("follow")
        self._read()

    def _hear(self, message: dict[str, Any]) -> None:
        """Follow the keeper; on the thread that reads its words."""
        if message["op"] == "more":
            self._read()
        elif message["op"] == "running":
            with self._lock:
                begun = [self._pending.get(index) for index in message["indexes"]]
            set_all_running(future for future in begun if future is not None)

    def _read(self) -> None:
        with self._lock:
            for index, body in self._reader.more():
                future = self._pending.pop(index, None)
                if future is not None:
                    self._dispatcher.arrived(future, body)

    def give_up(self) -> None:
        """Fail what is still pending: no more will come."""
        kept = self._kept
        if not kept.left:
            self._read()
        with self._lock:
            self._pending.clear()
        for name, future in self.futures.items():
            if not future.done():
                error: Exception = Detached(kept.name, name)
                if not kept.left:
                    error = BrokenExecutor(kept.dead())
                future._finish(error=error)

    def cancel_all(self) -> None:
        """Cancel what has not begun, without waiting."""
        with self._lock:
            pending = list(self._pending)
        if pending:
            answer = self._kept.ask("cancel", indexes=pending)
            answer.add_done_callback(self._cancelled)

    # -- as a Canceller ------------------------------------------------------------------------

    def cancel(self, future: DaskFuture[Any]) -> bool:
        """Cancel a call, if it has not begun: the keeper knows."""
        return self._cancel(future)

    def kill(self, future: DaskFuture[Any]) -> bool:
        """Cancel a call also if a worker has begun it, whose process is ended."""
        return self._cancel(future, kill=True)

    def _cancel(self, future: DaskFuture[Any], **how: bool) -> bool:
        answer = self._kept.ask("cancel", indexes=[future._number], **how)
        answer.add_done_callback(self._cancelled)
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            with contextlib.suppress(Exception):
                self._cancelled_of(answer.result(self.CANCEL_WAIT))
        return future.cancelled()

    def _cancelled(self, answer: Future[Any]) -> None:
        if answer.exception() is None:
            self._cancelled_of(answer.result())

    def _cancelled_of(self, indexes: Iterable[int]) -> None:
        for index in indexes:
            with self._lock:
                first = self._pending.pop(index, None) is not None
            future = self._by_index[index]
            future._cancel_running()
            if first:
                self._dispatcher.arrived(future, None)

    def dask_future(self, future: DaskFuture[Any]) -> Any:
        """Return a Dask future for the value; waits for it."""
        return self._dispatcher.dask_future(future)

    def refuse_to_block(self) -> None:
        """Raise RuntimeError on the thread that the results come through."""
        self._dispatcher.refuse_to_block()

    def ask(self, future: DaskFuture[Any]) -> None:
        """Do nothing: what these come to is brought here anyway."""

    def use(self, futures: list[DaskFuture[Any]]) -> None:
        """Do nothing, for the same reason."""

    def is_there(self, future: DaskFuture[Any]) -> bool:
        """Tell whether its value is with workers: it never is."""
        return False

    def takes_callbacks(self, future: DaskFuture[Any]) -> bool:
        """Have the callbacks of a done future run on the executor's thread for them."""
        return self._dispatcher.takes_callbacks(future)


def ended_futures(entry: Entry) -> tuple[dict[Name, DaskFuture[Any]], str]:
    """Return what is left of a cluster that has ended: its calls, all of them done, and why."""
    when = moment(entry.ended or 0.0)
    why = f"the cluster {entry.name!r} ended at {when}: {entry.why}"
    names = []
    with contextlib.suppress(OSError):
        names = json.loads((entry.folder / "futures.json").read_text())
    bodies = dict(ResultsReader(entry.folder / "results").more())
    futures: dict[Name, DaskFuture[Any]] = {}
    for name, index, function in names:
        future: DaskFuture[Any] = DaskFuture(function, index)
        futures[name] = future
        if index in bodies:
            body = bodies.pop(index)
            if body is None:
                future._cancel_now()
                continue
            value, error = loaded(body)
            future._finish(value=value, error=error)
        else:
            future._finish(error=BrokenExecutor(f"the call was not finished when {why}"))
    return futures, why
