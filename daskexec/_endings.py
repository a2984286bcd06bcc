"""Calls on workers that end at a known time or are named, and calls cut off. Floor 5.

Part of the settle thread's work (`daskexec._settling`). What is known of the ends themselves, and
the rules, are in `daskexec._lifetimes`; the workers' side of it is in `daskexec._remote`::

    worker                               here
    ------                               ----
    no time for a task: refuses it --->  learns its end, asks the others for theirs; queues the
                                         task again, to be placed where it fits, or *held*
    workers have come, or gone    --->  held tasks are taken back, and placed anew; so are
                                         those placed on workers that are all gone, and those
                                         that name a worker which was not there (`_naming`)
    ends under a call             --->  gives it up there before Dask runs it anywhere again;
                                         queues it, for a worker with more time; or fails it

Also here: the questions to workers that are under way, as messages to the settle thread.
"""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Callable
from typing import Any

from daskexec._calls import Outcome
from daskexec._ledger import Ledger
from daskexec._lifetimes import CUT, cut_too_often
from daskexec._messages import Cut, Ends, Line, Named, Started
from daskexec._supervision import say
from daskexec._tasks import Task
from daskexec.errors import WorkerDied

__all__ = ["Answer", "Endings", "Relief", "name_of", "place_of"]


class Answer:
    """A message to the settle thread: the workers' answer on what they have not begun."""

    def __init__(self, answer: concurrent.futures.Future[set[str]], tasks: list[Task]) -> None:
        self.answer, self.tasks = answer, tasks


class Relief:
    """A message to the settle thread: what was taken from behind a slow call, or one cut off."""

    def __init__(
        self,
        answer: concurrent.futures.Future[dict[str, Any]],
        task: Task,
        others: list[Task],
        cut: Cut | None = None,
        kill: Any = None,
    ) -> None:
        self.answer, self.task, self.others, self.cut = answer, task, others, cut
        self.kill = kill  # a `daskexec._limits.Kill` that is to be seen to then


class Endings:
    """Sees to the calls of one executor on workers that end. For the settle thread.

    Parameters
    ----------
    ledger : Ledger
    line : callable
        Returns the line, None while there is none.
    post : callable
        Sends a message to the settle thread.
    fail : callable
        ``fail(task, error)`` fails all that a sent task has not told of.
    """

    def __init__(
        self,
        ledger: Ledger,
        line: Callable[[], Line | None],
        post: Callable[[Any], None],
        fail: Callable[[Task, BaseException], None],
    ) -> None:
        self._ledger, self._line, self._post, self._fail = ledger, line, post, fail
        self._watches = self._explained = False

    def refused(self, task: Task, outcome: Outcome) -> None:
        """A worker has not begun a task since it will end before: have it placed elsewhere."""
        address = bytes(outcome.bodies[0]).decode()
        with self._ledger.changed:
            told = (outcome.seconds[0], outcome.seconds[1])
            self._ledger.lifetimes.learn({address: told})
            self._ledger.again(task)
        self._watch()

    def _watch(self) -> None:
        line = self._line()
        if not self._watches and line is not None:
            self._watches = True
            line.backend.watch_ends()

    def learn(self, ends: Ends) -> None:
        """Take note of when workers end; take back what is to be placed anew."""
        self._place_anew(self._ledger.learn_ends(ends))

    def learn_names(self, named: Named) -> None:
        """Take note of who is there; take back what is to be placed anew."""
        self._place_anew(self._ledger.learn_names(named.names))

    def _place_anew(self, held: list[Task]) -> None:
        line = self._line()
        if held and line is not None and line.backend.alive():
            answer = line.backend.withdraw([task.key for task in held])
            answer.add_done_callback(lambda done: self._post(Answer(done, held)))

    def cut(self, cut: Cut) -> None:
        """A worker is about to end under a call: give the call up there, and try it again."""
        task, line = self._ledger.sent.get(cut.key), self._line()
        if task is None or line is None or not line.backend.alive():
            return
        self._watch()
        if task.end - task.told == 1:
            self.cut_alone(task, cut)
            return
        # First what was done of the task, and what was not begun.
        answer = line.backend.relieve(cut.key, cut.worker, [])
        answer.add_done_callback(lambda done: self._post(Relief(done, task, [], cut)))

    def cut_alone(self, task: Task, cut: Cut) -> None:
        """The same, of a task with nothing left but the call that is cut off."""
        line = self._line()
        if line is not None:
            line.backend.give_up(task.key)
        if not self._too_often(task, cut.ran, cut.lifetime, task.started):
            self._ledger.again(task, ran=True)

    def begun_anew(self, message: Started) -> bool:
        """Note that Dask has begun a call anew whose worker had ended, and had not said so.

        True if it has failed, since that was once too often.
        """
        task = self._ledger.sent.get(message.key)
        before = task.started if task is not None else None
        if task is None or before is None or not before.lifetime:
            return False
        ran = min(before.left, time.monotonic() - task.started_at)
        if ran < before.left - CUT:
            return False
        line = self._line()
        failed = self._too_often(task, ran, before.lifetime, before)
        if failed and line is not None:
            line.backend.give_up(message.key)
        return failed

    def _too_often(self, task: Task, ran: float, lifetime: float, where: Started | None) -> bool:
        """Note that the only call of a task was cut off; fail it if that was once too often."""
        cuts = self._ledger.cut(task, ran, lifetime)
        if not cut_too_often(cuts):
            return False
        worker, host = place_of(where)
        each = ", ".join(f"{seconds:.3g} s" for seconds, _ in cuts)
        reason = (
            f"the call was cut off {len(cuts)} times by the end of its worker's lifetime of "
            f"{lifetime:.3g} s; it had run for {each}. It seems to take longer than workers "
            f"live: give their jobs a longer walltime, or make calls that take less"
        )
        self._fail(task, WorkerDied(name_of(task), worker, host, reason, len(cuts)))
        return True

    def explain_hold(self, task: Task, needs: float, most: float) -> None:
        """Warn, once, that calls wait for a worker with more time; on the dispatcher thread."""
        if not self._explained:
            self._explained = True
            message = (
                f"DaskExecutor is waiting: a call of {name_of(task)}() is expected to take "
                f"{needs:.3g} s, and no worker has so much of its lifetime left (at most "
                f"{max(0.0, most):.3g} s). It and others like it are sent to workers that are "
                f"still to come. If none will, start some, or give jobs a longer walltime"
            )
            say(message)


def place_of(started: Started | None) -> tuple[str, str]:
    """Return the name and the host of the worker that has begun a task, as far as known."""
    if started is None:
        return "", ""
    return started.name, started.worker.rpartition(":")[0].rpartition("/")[2]


def name_of(task: Task) -> str:
    """Return the name of the function that a task calls, for people."""
    return task.options.name or str(task.function.name)
