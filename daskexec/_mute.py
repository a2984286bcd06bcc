"""Calls behind a worker that gives no sign, while others go on. Floor 5.

A worker that is stopped, or in a call that holds the GIL, answers nobody: what it was sent and has
not begun stays there, and Dask does not move it without the worker's word. Part of the settle
thread's work (`daskexec._settling`)::

    here                                    the client's loop
    ----                                    -----------------
    something was sent a while ago -------> which workers are mute? what is with them?
    warns of them                 <-------- `Mute`
    bars on the board what they have
    not begun; queues it again

Only the board (`daskexec._board`) makes that safe. On a cluster that was given such calls wait,
and a warning says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from daskexec._ledger import Ledger
from daskexec._messages import Line
from daskexec._supervision import Supervision
from daskexec._tasks import Task

__all__ = ["Behind", "Mute"]


class Mute:
    """A message to the settle thread: the backend's answer on mute workers."""

    def __init__(self, answer: Future[list[dict[str, Any]]]) -> None:
        self.answer = answer


class Behind:
    """Looks for mute workers, and takes back what waits behind them. For the settle thread.

    Parameters
    ----------
    ledger : Ledger
    line : callable
        Returns the line, None while there is none.
    post : callable
        Sends a message to the settle thread.
    take_back : callable
        ``take_back(task)`` queues a sent task again that no worker will begin.
    supervision : Supervision
        Says which workers are mute.
    """

    #: Seconds that a task has been with a worker when it is first asked what keeps it, and after
    #: which a worker that gives no sign counts as mute. Dask's give two a second.
    LOOK = 2.0

    def __init__(
        self,
        ledger: Ledger,
        line: Callable[[], Line | None],
        post: Callable[[Any], None],
        take_back: Callable[[Task], None],
        supervision: Supervision,
    ) -> None:
        self._ledger, self._line, self._post = ledger, line, post
        self._take_back, self._supervision = take_back, supervision
        self._asked = False
        self._next = 0.0

    def look(self) -> None:
        """Ask which workers are mute, if something has been with one for a while."""
        line, now = self._line(), time.monotonic()
        if self._asked or line is None or now < self._next:
            return
        self._next = now + self.LOOK
        sent = self._ledger.oldest_sent()
        if sent is None or time.time() - sent < self.LOOK:
            return
        self._asked = True
        answer = line.backend.mute(self.LOOK)
        answer.add_done_callback(lambda done: self._post(Mute(done)))

    def told(self, mute: Mute) -> None:
        """Warn of mute workers, and take back what they have not begun."""
        self._asked = False
        line = self._line()
        if mute.answer.cancelled() or mute.answer.exception() is not None or line is None:
            return  # the scheduler does not say just now
        workers = mute.answer.result()
        self._next += len(workers) / 50
        silent = [worker for worker in workers if worker["mute"]]
        if len(silent) < len(workers):
            for worker in silent:
                for key in worker["keys"]:
                    self._free(line, self._ledger.sent.get(key))
        self._supervision.mute([worker for worker in silent if worker["keys"]])

    def _free(self, line: Line, task: Task | None) -> None:
        """Take a task back, unless its worker has begun it, or is the one that it is for."""
        if task is None or task.options.workers or task.options.resources:
            return
        if self._ledger.bar(task):
            line.backend.disown(task.key)
            self._take_back(task)
