"""From what a backend reports to finished futures. Floor 3.

The settle thread takes the reports off the inbox one by one, unpickles results, sets futures,
and decides what is tried again. It runs no user code but the unpickling of results: the
done-callbacks have a thread of their own, so one may be slow, or wait for another future.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import os
import queue
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from typing import Any

from daskexec import _calls
from daskexec._batching import BatchPolicy
from daskexec._board import INITIALIZING
from daskexec._calls import Outcome
from daskexec._ledger import Call, Ledger
from daskexec._messages import Done, Failed, Line, Lost, Started, Threads
from daskexec._patience import Patience
from daskexec.errors import InitializerFailed, WorkerDied
from daskexec.futures import DaskFuture

__all__ = ["CHECK", "Answer", "Settler", "like"]

_LOG = logging.getLogger("concurrent.futures")  # where the stdlib logs a failed initializer

#: A message to the settle thread: look at the connection and at what waits.
CHECK = object()

ErrorFactory = Callable[[], BaseException]


class Answer:
    """A message to the settle thread: the workers' answer on what they have not begun."""

    def __init__(self, answer: concurrent.futures.Future[set[str]], calls: list[Call]) -> None:
        self.answer, self.calls = answer, calls


class Settler:
    """Settles the calls of one executor.

    Parameters
    ----------
    ledger : Ledger
    policy : BatchPolicy
        Is told the run times.
    patience : Patience
    give_up : callable
        Breaks the executor; takes a function that makes the error, for each future anew.
    """

    def __init__(
        self,
        ledger: Ledger,
        policy: BatchPolicy,
        patience: Patience,
        give_up: Callable[[ErrorFactory], None],
    ) -> None:
        self.inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.callbacks: queue.SimpleQueue[DaskFuture[Any] | None] = queue.SimpleQueue()
        self.line: Line | None = None  # set when the cluster is up
        self._ledger, self._policy, self._patience = ledger, policy, patience
        self._give_up = give_up

    def settle(self) -> None:
        """Handle messages until a None comes: the settle thread."""
        while True:
            try:
                message = self.inbox.get(timeout=self._patience.PULSE)
            except queue.Empty:
                message = CHECK
            if message is None:
                self.callbacks.put(None)
                return
            try:
                self._handle(message)
            except BaseException as exc:  # a fault of ours must not become a hang
                _LOG.critical("daskexec: internal error", exc_info=exc)
                self._give_up(like(exc, "internal error of daskexec"))

    def _handle(self, message: Any) -> None:
        if isinstance(message, Done):
            self._done(message.key, message.outcome)
        elif isinstance(message, Started):
            self._started(message)
        elif isinstance(message, Failed):
            self._failed(message)
        elif isinstance(message, Threads):
            with self._ledger.changed:
                self._ledger.threads = message.count
                self._ledger.changed.notify_all()
        elif isinstance(message, Lost):
            error = message.error
            self._give_up(like(error))
        elif isinstance(message, Answer):
            answer = message.answer
            if not answer.cancelled() and answer.exception() is None:
                for call in message.calls:
                    self.withdrawn(answer.result(), call)
        self._check()

    def _check(self) -> None:
        line = self.line
        if line is None or not self._patience.due():
            return
        if not line.backend.alive():
            self._give_up(lambda: BrokenExecutor("the cluster of this executor was lost"))
            return
        final, known = line.trouble() if line.trouble is not None else (False, "")
        complaint = known if final else None
        if complaint is None:
            complaint = self._patience.look(
                self._ledger.waiting(), self._ledger.threads, line.backend.describe_workers, known
            )
        if complaint is not None:
            reason = complaint
            self._give_up(lambda: BrokenExecutor(reason))

    def _started(self, message: Started) -> None:
        call = self._ledger.started(message)
        if call is not None:
            call.future._set_running()
        self._replace_worn()

    def _done(self, key: str, outcome: Outcome) -> None:
        call = self._ledger.sent.get(key)
        if call is None:
            return
        if outcome.kind == "value":
            self._policy.observe(outcome.seconds)
            try:
                value = _calls.load(outcome.body)
            except BaseException as exc:
                self.over(call, error=exc)
            else:
                self.over(call, value=value)
        elif outcome.kind == "error":
            self._policy.observe(outcome.seconds)
            self._over_or_again(call, outcome.body.load())
        elif outcome.kind == "initializer":
            error = outcome.body.load()
            _LOG.critical("Exception in initializer:", exc_info=error)
            self._give_up(lambda: _initializer_failed(error))
        elif outcome.kind == "refused":
            self._refused(call, outcome)
        elif outcome.kind == "withdrawn":
            self.withdrawn({key}, call)

    def _refused(self, call: Call, outcome: Outcome) -> None:
        """Another process had begun the call, and did not finish it."""
        line = self.line
        assert line is not None
        name, reason = line.death_of(outcome.pid) if line.death_of else ("", "")
        if outcome.body == INITIALIZING:
            self._give_up(
                lambda: InitializerFailed(
                    f"worker {name} ended while it ran the initializer: {reason or 'no reason'}"
                )
            )
            return
        if call.started is None:
            call.begun += 1
        where = f"{name} (process {outcome.pid})"
        host = os.uname().nodename
        function = call.options.name or call.future.key.rpartition("-")[0]
        self._over_or_again(call, WorkerDied(function, where, host, reason, max(call.begun, 1)))

    def _failed(self, message: Failed) -> None:
        """Dask gave the task up: its workers were lost, more often than Dask allows.

        That happens to whatever a killer call had for company, too. So every such call is
        tried once more, these calls one at a time, before it is held to be the killer.
        """
        call = self._ledger.sent.get(message.key)
        if call is None:
            return
        if type(message.error).__name__ != "KilledWorker":
            self.over(call, error=message.error)
        elif not call.suspect:
            call.suspect = True
            self._ledger.again(call)
        else:
            started, function = call.started, call.future.key.rpartition("-")[0]
            worker = started.name if started else ""
            host = started.worker.rpartition(":")[0].rpartition("/")[2] if started else ""
            begun = max(call.begun, 1)
            died = WorkerDied(function, worker, host, "the connection to it was lost", begun)
            self._over_or_again(call, died)

    def withdrawn(self, keys: set[str], call: Call) -> bool:
        """Cancel a call if it is among those that will never run."""
        if call.key not in keys:
            return False
        self._ledger.forget(call)
        return call.future._cancel_now()

    def _over_or_again(self, call: Call, error: BaseException) -> None:
        if call.begun <= call.options.retries and call.blob is not None:
            self._ledger.again(call)
        else:
            self.over(call, error=error)

    def over(self, call: Call, *, value: Any = None, error: BaseException | None = None) -> None:
        """Settle a call."""
        self._ledger.forget(call)
        call.future._finish(value=value, error=error)
        self._replace_worn()

    def _replace_worn(self) -> None:
        """Have worn worker processes replaced once all they have run is here."""
        for pid in self._ledger.worn_out():
            if self.line is not None and self.line.recycle is not None:
                self.line.recycle(pid)

    def call_back(self) -> None:
        """Run the callbacks of futures until a None comes: the callback thread."""
        while True:
            future = self.callbacks.get()
            if future is None:
                return
            with contextlib.suppress(BaseException):
                future._run_callbacks()
            del future  # or its value would live until the next one comes


def _initializer_failed(cause: BaseException) -> InitializerFailed:
    error = InitializerFailed(f"the initializer raised {type(cause).__name__}: {cause}")
    error.__cause__ = cause
    return error


def like(cause: BaseException, message: str = "") -> ErrorFactory:
    """Make errors for many futures from one cause: each future gets an object of its own."""

    def make() -> BaseException:
        if isinstance(cause, BrokenExecutor):
            return type(cause)(*cause.args)
        error = BrokenExecutor(f"{message}: {type(cause).__name__}: {cause}")
        error.__cause__ = cause
        return error

    return make
