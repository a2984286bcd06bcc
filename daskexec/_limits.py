"""Time limits of calls, and killing calls that run. Floor 5.

Part of the settle thread's work (`daskexec._settling`), which is all the clock there is: a limit
costs no thread, and is kept though the worker, whose GIL a call may hold, says nothing any more.

A call is given up first: its future is set, and its task is not the ledger's any more. Then its
process is ended, which `daskexec._killing` asks of it. A process of our own clusters that does not
answer is killed from here. What else runs in it, and what has come to results that cannot be had
without it, is seen on the board (`daskexec._board`): it is waited for. The process is doomed
meanwhile, and begins nothing.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

from daskexec._board import FINISHED
from daskexec._endings import Answer, name_of, place_of
from daskexec._ledger import Given, Ledger
from daskexec._messages import Line, Stuck
from daskexec._tasks import OVER, SENT, Call, Task
from daskexec.errors import CallTimedOut

__all__ = ["Kill", "Limits"]


class Kill:
    """A message to the settle thread: cancel a call, whether it runs or not.

    `over` is set when it is decided.
    """

    def __init__(self, call: Call, until: float) -> None:
        self.call, self.until = call, until
        self.over = threading.Event()


class Limits:
    """Keeps the time limits of one executor's calls. For the settle thread.

    Parameters
    ----------
    ledger : Ledger
    line : callable
        Returns the line, None while there is none.
    post : callable
        Sends a message to the settle thread.
    fail : callable
        ``fail(task, error)`` fails all that a sent task has not told of.
    relieve : callable
        ``relieve(task, kill)`` has a worker say what of a task it has not begun, and then asks
        here again.
    clock : callable
        Seconds, monotonic.
    """

    #: Seconds between two looks at processes that are to be killed, or at calls to be.
    LOOK = 0.05

    def __init__(
        self,
        ledger: Ledger,
        line: Callable[[], Line | None],
        post: Callable[[Any], None],
        fail: Callable[[Task, BaseException], None],
        relieve: Callable[[Task, Kill], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger, self._line, self._post, self._fail = ledger, line, post, fail
        self._relieve, self._clock = relieve, clock
        self._numbers = itertools.count()
        self._due: list[tuple[float, int, Task | Kill]] = []  # a heap
        self._doomed: set[int] = set()  # processes of our own cluster

    # -- the clock -------------------------------------------------------------------------

    def pause(self, longest: float) -> float:
        """Return for how many seconds nothing is due, `longest` at most."""
        if self._doomed:
            longest = min(longest, self.LOOK)
        if self._due:
            longest = min(longest, self._due[0][0] - self._clock())
        return max(0.0, longest)

    def begun(self, task: Task, ran: float = 0.0) -> None:
        """Note that a worker has begun a task, which may have a limit, `ran` seconds ago."""
        if task.options.timeout is not None:
            task.deadline = self._clock() - ran + task.options.timeout
            self._at(task.deadline, task)
            if len(self._due) > 100 + 4 * len(self._ledger.sent):  # most are over
                self._due = [one for one in self._due if self._stands(one)]
                heapq.heapify(self._due)

    def _at(self, when: float, what: Task | Kill) -> None:
        heapq.heappush(self._due, (when, next(self._numbers), what))

    def _stands(self, due: tuple[float, int, Task | Kill]) -> bool:
        when, _, what = due
        if isinstance(what, Kill):
            return True
        # A later deadline: Dask has begun it anew, since its worker had died.
        return self._ledger.sent.get(what.key) is what and when == what.deadline

    def look(self) -> None:
        """Do what is due."""
        while self._due and self._due[0][0] <= self._clock():
            due = heapq.heappop(self._due)
            if isinstance(due[2], Kill):
                self.kill(due[2])
            elif self._stands(due):
                self._expire(due[2])
        for pid in list(self._doomed):
            self._kill_when_free(pid)

    def _expire(self, task: Task) -> None:
        started, timeout = task.started, task.options.timeout
        given = self._ledger.given(task)
        worker, host = place_of(started)
        if timeout is not None:
            self._fail(task, CallTimedOut(name_of(task), timeout, worker, host))
        self.end(given)

    # -- killing ---------------------------------------------------------------------------

    def kill(self, kill: Kill) -> None:
        """Cancel a call and end its process; or find out first what is missing to do so."""
        call, line = kill.call, self._line()
        task = call.task
        if call.stage == OVER or line is None or not line.backend.alive():
            kill.over.set()
        elif self._ledger.forget_unsent(call):
            call.future._cancel_running()  # it may have been sent, with others, before
            kill.over.set()
        elif (given := self._ledger.seize(call)) is not None:
            call.future._cancel_running()
            self.end(given)
            kill.over.set()
        elif self._clock() >= kill.until:
            kill.over.set()
        elif task is not None and task.started is not None:
            self._relieve(task, kill)
        elif task is not None and call.stage == SENT:
            # Not begun, or it has just been and nobody has said so yet.
            answer = line.backend.withdraw([task.key])
            answer.add_done_callback(lambda done: self._withdrawn(Answer(done, [task]), kill))

    def _withdrawn(self, answer: Answer, kill: Kill) -> None:
        """Have the workers' answer heeded, then look again; on the backend's thread."""
        self._post(answer)
        self._post(kill)

    def again(self, kill: Kill) -> None:
        """Look at a call again, soon."""
        self._at(self._clock() + self.LOOK, kill)

    def end(self, given: Given) -> None:
        """End the process of a call that was given up, and nothing else."""
        line = self._line()
        if line is not None and line.backend.alive() and (given.worker or given.pid):
            line.backend.kill(given.key, given.worker, given.pid)

    def stuck(self, message: Stuck) -> None:
        """A process that is to end does not answer: kill it when nothing else is lost by that."""
        line = self._line()
        if line is None:
            return
        if line.kill is None or line.board is None:
            line.backend.kill_stuck(message.worker, message.pid)
            return
        line.board.doom(message.pid)
        self._doomed.add(message.pid)
        self._kill_when_free(message.pid)

    def _kill_when_free(self, pid: int) -> None:
        line = self._line()
        if line is None or line.kill is None or (line.death_of and any(line.death_of(pid))):
            self._doomed.discard(pid)
        elif not self._is_busy(line.board, pid):
            self._doomed.discard(pid)
            line.kill(pid)

    def _is_busy(self, board: Any, pid: int) -> bool:
        """Tell whether a process has begun a task of which results are not to be had yet."""
        with self._ledger.changed:
            tasks = list(self._ledger.sent.values())
        for task in tasks:
            slot, started = task.slot, task.started
            if slot < 0:
                if started is not None and started.pid == pid:
                    return True
                continue
            mark, stage = board.read(slot)
            if mark == pid and not (stage == FINISHED and board.left_all(slot, pid, task.end)):
                return True
        return False
