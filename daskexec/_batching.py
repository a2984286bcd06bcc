"""How many calls share a Dask task, and how many tasks the scheduler is given. Floor 1.

Pure: no threads, no clock; what it knows of time it is told (`BatchPolicy.observe`). So it can be
simulated: a million calls on thousands of workers in a second.

Sharing
    A Dask task costs a few milliseconds of client, scheduler and worker together, whatever is
    in it. Calls that take less than that are not worth one each. A task is filled up to
    `target` seconds of work, counted with the mean run time of each function. A function that
    never ran yet gets a task for each call: nothing is known of it, and a call of a minute
    must not hold up its neighbours. Nor may sharing leave a worker idle: a task takes no more
    than the backlog would give each thread in two rounds. With seconds of work in the backlog
    the target grows with it, up to `long`: results come in larger lumps, since they come for a
    long time. It grows further, up to `longest`, for a function whose tasks have all taken about
    as long as expected: who knows how long a second task will be loses nothing by a longer one.
    One that took a quarter longer makes the function a new one in this. What a long task has
    done is told once a second, and it goes no further where calls of a higher priority or of
    another executor wait for its thread (`daskexec._remote`).

    All tasks go through one scheduler, `RATE` a second. With tasks of a second it keeps so many
    threads busy, with shorter ones fewer. So on a large cluster tasks are longer, a millisecond
    for each thread, and the end of a backlog is not cut finer than the scheduler can hand
    out: 4,000 threads do a million calls of 1 ms in 2,900 tasks and 3 s, where a fair part for
    each thread would make 56,000 tasks, and half a minute.

Window
    The backlog of an executor stays on the client, where a call can be cancelled for free
    and costs the scheduler nothing; only a *window* is with the scheduler. A worker that
    finishes a task needs the next one at hand, so each thread has a running task and a spare
    one, and as many more as fill `ahead` seconds, if they are full: small calls beyond those
    wait on the client until they make up a task worth its cost. Nor is the scheduler given
    more tasks than it can start in `ahead` seconds. With no worker at all there are two tasks:
    a cluster that starts at zero grows only when it sees that there is work.

    Dask lets a cluster grow to the threads that could do in 5 s what it sees. Where `ahead` says
    that it may grow, it sees work for `GROWING_THREADS` at least: else it would grow from one
    thread to two, to three, each time waiting for a worker to start.

Mistakes are cheap, because workers hand back what they have not begun: a worker ends a task
that takes `stop_after` seconds between two calls, and reports a call that takes `slow_after`,
so that the calls behind it can be moved (`daskexec._remote`). So a mean may be wrong, and a
function may be fast mostly and slow at times.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any, Literal, get_args

__all__ = ["BatchPolicy", "Share", "Sharing"]

Sharing = Literal["auto", "always", "never"]


class _Function:
    """What is known of one function: means of its calls, and counts."""

    __slots__ = ("calls", "mean", "name", "received", "sent", "share", "steady", "tasks")

    def __init__(self, name: str) -> None:
        self.name = name
        self.mean: float | None = None  # seconds
        self.steady = 0.0  # seconds of work since a task took much longer than expected
        self.sent = self.received = 0.0  # bytes
        self.calls = self.tasks = 0
        self.share = 1  # calls that its last task was meant to take


class Share:
    """What one task may still take: calls, seconds, and bytes each way."""

    __slots__ = ("_bytes", "_calls", "_seconds")

    def __init__(self, calls: int, seconds: float, size: float) -> None:
        self._calls, self._seconds, self._bytes = calls, seconds, size

    def room(self, known: _Function) -> int:
        """Return how many calls of a function still fit."""
        assert known.mean is not None
        fit = min(
            float(self._calls),
            self._seconds / max(known.mean, 1e-9),
            self._bytes / max(known.sent, known.received, 1.0),
        )
        return max(0, int(fit))

    def take(self, known: _Function, calls: int) -> None:
        """Note that the task takes that many calls of a function."""
        self._calls -= calls
        self._seconds -= calls * (known.mean or 0.0)
        self._bytes -= calls * max(known.sent, known.received)


class BatchPolicy:
    """Decide from measured run times what goes into a task and into the window.

    For one thread at a time: the ledger of the executor guards it with its lock.

    Parameters
    ----------
    sharing : {"auto", "always", "never"}
        "always" lets functions share whose run time is not known, two by two; "never" gives
        each call a task of its own.
    ahead : float
        Seconds of work for each thread that may wait on the scheduler. An adaptive cluster
        grows by what it sees there, so on a cluster that may grow this must exceed Dask's
        ``adaptive.target-duration`` (5 s).
    limit : int, optional
        Most tasks in the window altogether: ``max_workers`` on a shared cluster.
    target, long, longest : float
        Seconds of work that a task is filled up to: with a small backlog, with a large one, and
        with a large one of a function whose run times are steady.
    """

    #: Calls that a mean is taken over, at least.
    FEW = 10
    #: Most calls in a task.
    MOST = 1 << 16
    #: Most bytes of arguments, or of results, in a shared task.
    BYTES = float(1 << 20)
    #: Tasks a second that a scheduler and its client get through, all threads together.
    RATE = 1000.0
    #: Seconds that a task costs everyone together: less work than that is not cut at all.
    COST = 0.003
    #: Seconds of work below which a backlog is not cut, but for one part for each thread: the
    #: next task has its own costs, and would come after this one is done.
    SMALLEST = 0.02
    #: Most tasks for each thread in the window, however short they are.
    DEEPEST = 128
    #: A cluster may grow if more seconds of work than these wait for each thread: Dask's
    #: ``adaptive.target-duration``. It is shown work for so many threads, if it has fewer.
    GROWING, GROWING_THREADS = 5.0, 16
    #: Seconds a call may take before it is reported as slow, if its mean is not longer.
    SLOW = 0.1
    #: A call is slow, and a task is ended, after this many times what was expected of it.
    PATIENCE = 4.0
    #: A task that takes so many times what was expected, and a `target` more, is a surprise.
    SURPRISE = 1.25
    #: A function is steady for a task if it has done as many times its work without a surprise.
    STEADY = 6.0
    #: Functions that are remembered.
    REMEMBERED = 1000

    def __init__(
        self,
        sharing: Sharing = "auto",
        *,
        ahead: float = 0.5,
        limit: int | None = None,
        target: float = 0.05,
        long: float = 0.25,
        longest: float = 4.0,
    ) -> None:
        if sharing not in get_args(Sharing):
            raise ValueError(f"sharing must be one of {get_args(Sharing)}, not {sharing!r}")
        self.sharing, self.ahead, self.limit = sharing, ahead, limit
        self.target, self.long, self.longest = target, long, max(long, longest)
        self._functions: OrderedDict[Hashable, _Function] = OrderedDict()
        self._calls = self._tasks = 0

    # -- what is known ---------------------------------------------------------------------

    def known(self, function: Hashable, name: str = "") -> _Function:
        """Return what is known of a function; the name is for people."""
        found = self._functions.get(function)
        if found is None:
            found = self._functions[function] = _Function(name)
            if len(self._functions) > self.REMEMBERED:
                self._functions.popitem(last=False)
        else:
            self._functions.move_to_end(function)  # those that are in use are kept
        return found

    def observe(
        self, function: _Function, seconds: float, calls: int = 1, received: float = 0.0
    ) -> None:
        """Take note that `calls` calls took `seconds` and gave `received` bytes together."""
        if calls < 1:
            return
        before = function.calls
        function.calls += calls
        self._calls += calls
        each = seconds / calls
        if function.mean is None:
            function.mean, function.received = each, received / calls
            return
        expected = function.mean * calls
        surprise = seconds > self.SURPRISE * expected + self.target
        function.steady = 0.0 if surprise else function.steady + seconds
        # As many earlier calls count as make up a task, so that a few that had to wait for a
        # core do not pass for many; but one that took longer than a task is believed at once.
        usual = min(before, max(self.FEW, self.target / max(function.mean, 1e-9)))
        weight = max(calls / (calls + usual), seconds / (seconds + 4 * self.target))
        function.mean += weight * (each - function.mean)
        function.received += weight * (received / calls - function.received)

    def packed(self, function: _Function, size: float, calls: int = 1) -> None:
        """Take note that the arguments of `calls` calls took `size` bytes together."""
        if calls < 1:
            return
        weight = 1.0 if not function.sent else calls / (calls + self.FEW)
        function.sent += weight * (size / calls - function.sent)

    # -- sharing ---------------------------------------------------------------------------

    def share(
        self, function: _Function, backlog: int, threads: int, tasks: int
    ) -> tuple[int, Share]:
        """Return how many calls of a function a new task begins with, and what else fits.

        No calls at all: the workers have enough to do until more have come together.

        Parameters
        ----------
        function : _Function
            That of the first call of the task.
        backlog : int
            Calls that wait on the client, of whatever function.
        threads : int
            Worker threads there are.
        tasks : int
            Tasks that are with the scheduler.
        """
        if self.sharing == "never" or function.mean is None:
            function.share = 2 if self.sharing == "always" else 1
            return function.share, Share(0, 0.0, 0.0)
        fair = math.ceil(backlog / self.parts(function.mean, backlog, threads))
        worth = int(self.SMALLEST / max(function.mean, 1e-9))
        fair = max(fair, min(worth, math.ceil(backlog / max(threads, 1))))
        fair = max(fair, min(backlog, int(self.COST / max(function.mean, 1e-9))))
        seconds = self.seconds(function, backlog, threads)
        full = Share(self.MOST, seconds, self.BYTES).room(function)
        if fair < full and tasks >= 2 * max(threads, 1):
            return 0, Share(0, 0.0, 0.0)
        share = Share(min(self.MOST, fair), seconds, self.BYTES)
        function.share = max(2 if self.sharing == "always" else 1, share.room(function))
        return function.share, share

    def parts(self, mean: float, backlog: int, threads: int) -> float:
        """Return into how many tasks the backlog is best divided, so that it ends soonest.

        Two for each thread. But `n` tasks take ``n / RATE`` to be sent, and the last of them
        takes its own ``work / n``: with more tasks than ``sqrt(work * RATE)`` the end comes
        later, not sooner, however many threads there are.
        """
        return min(2.0 * max(threads, 1), max(1.0, math.sqrt(2 * backlog * mean * self.RATE)))

    def seconds(self, function: _Function, backlog: int, threads: int) -> float:
        """Return how many seconds of work a task is filled up to."""
        each = backlog * (function.mean or 0.0) / max(threads, 1)  # that a thread still has to do
        longest = min(self.longest, function.steady / self.STEADY)
        if self.ahead > self.GROWING:
            longest = 0.0  # Dask lets a cluster grow by the tasks that it sees
        full = min(longest, each / 2) if longest > self.long else min(self.long, each / 8)
        return max(self.target, full, threads / self.RATE)

    # -- the window ------------------------------------------------------------------------

    def is_open(self, threads: int, tasks: int, seconds: float) -> bool:
        """Tell whether one more task may go to the scheduler.

        Parameters
        ----------
        threads : int
            Worker threads there are.
        tasks : int
            Tasks that are with the scheduler.
        seconds : float
            Expected run time of all of them; what `taken` said of each.
        """
        if self.limit is not None and tasks >= self.limit:
            return False
        threads = max(threads, 1)
        if tasks < 2 * threads:
            return True
        if self.ahead > self.GROWING:
            threads = max(threads, self.GROWING_THREADS)
        most = min(self.DEEPEST * threads, self.RATE * self.ahead)
        return tasks < most and seconds < self.ahead * threads

    def taken(self, function: _Function, calls: int) -> float:
        """Take note of a new task, and return its expected run time in the window.

        A call of which nothing is known fills the window: more of its kind wait for the first.
        """
        self._tasks += 1
        function.tasks += 1
        return self.ahead if function.mean is None else function.mean * calls

    # -- when a worker is to give up -------------------------------------------------------

    def slow_after(self, function: _Function) -> float:
        """Return after how many seconds a call is to be reported as slow."""
        return max(self.SLOW, self.PATIENCE * (function.mean or 0.0))

    def stop_after(self, expected: float) -> float:
        """Return after how many seconds no further call of a task is to be begun."""
        return max(self.PATIENCE * self.target, self.PATIENCE * expected)

    # -- for people ------------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        """Return what it knows and does, as plain values."""
        return {
            "sharing": self.sharing,
            "calls": self._calls,
            "tasks": self._tasks,
            "functions": [
                {
                    "name": known.name,
                    "calls": known.calls,
                    "tasks": known.tasks,
                    "mean_seconds": known.mean,
                    "share": known.share,
                    "argument_bytes": round(known.sent),
                    "result_bytes": round(known.received),
                }
                for known in self._functions.values()
            ],
        }
