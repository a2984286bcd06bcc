"""From what a backend reports to finished futures. Floor 5.

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
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from typing import Any

import psutil

from daskexec import _recording as recording
from daskexec._board import FINISHED, INITIALIZING
from daskexec._calls import Body, Outcome, size_of
from daskexec._endings import Answer, Endings, Relief, name_of, place_of
from daskexec._failures import Failure, Unloaded
from daskexec._frames import load_result
from daskexec._ledger import Given, Ledger
from daskexec._limits import Kill, Limits
from daskexec._messages import (
    Cut,
    Done,
    Ends,
    Failed,
    Line,
    Lost,
    Named,
    Slow,
    SoFar,
    Started,
    Stuck,
    Surveyed,
    There,
    Threads,
    Waits,
)
from daskexec._mute import Behind, Mute
from daskexec._parcel import loaded
from daskexec._patience import Patience
from daskexec._pickling import load
from daskexec._promises import Brought, Ended, Promises
from daskexec._records import Where
from daskexec._supervision import Supervision, say
from daskexec._tasks import Call, Raised, Stretch, Task
from daskexec.errors import InitializerFailed, WorkerDied
from daskexec.futures import DaskFuture, finish_all, set_all_running
from daskexec.options import RERUNS

__all__ = ["CHECK", "Adopted", "Arrived", "Settler", "like"]

_LOG = logging.getLogger("concurrent.futures")  # where the stdlib logs a failed initializer

#: A message to the settle thread: look at the connection and at what waits.
CHECK = object()

_NOT_AGAIN = "it may have begun when its worker was lost, and rerun=False: it is not run again"

ErrorFactory = Callable[[], BaseException]


class Arrived:
    """A message to the settle thread: what a call came to that a keeper has seen to."""

    def __init__(self, future: DaskFuture[Any], body: Body | None) -> None:
        self.future, self.body = future, body


class Adopted:
    """A message to the settle thread: a task was taken over that somebody else has sent."""

    def __init__(self, task: Task) -> None:
        self.task = task


class _Adrift:
    """A message to the settle thread: Dask runs a task no more, and a worker had begun it."""

    def __init__(self, task: Task) -> None:
        self.task = task


class _Pause:
    """A message to the settle thread: do nothing for a while."""

    def __init__(self) -> None:
        self.begun, self.over = threading.Event(), threading.Event()


class Settler:
    """Settles the calls of one executor.

    Parameters
    ----------
    ledger : Ledger
    patience : Patience
    give_up : callable
        Breaks the executor; takes a function that makes the error, for each future anew.
    opaque : bool
        Load nothing that comes from a call: values stay bytes, and errors `Unloaded`.

    Attributes
    ----------
    relieving : bool
        Whether to take from workers what waits behind slow calls.
    reliefs : set
        What was asked of workers to that end, and has not come back.
    """

    def __init__(
        self,
        ledger: Ledger,
        patience: Patience,
        give_up: Callable[[ErrorFactory], None],
        opaque: bool = False,
    ) -> None:
        self.inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.callbacks: queue.SimpleQueue[DaskFuture[Any] | None] = queue.SimpleQueue()
        self.line: Line | None = None  # set when the cluster is up
        self._ledger, self._patience = ledger, patience
        self._give_up = give_up
        self.promises = Promises(ledger, self.inbox.put, lambda: self.line, self.callbacks.put)
        self.endings = Endings(ledger, lambda: self.line, self.inbox.put, self.fail)
        self.limits = Limits(
            ledger, lambda: self.line, self.inbox.put, self.fail, self._relieve_for
        )
        self._warned: set[str] = set()  # packages of which versions differ
        self._addresses: dict[int, str] = {}  # of workers, by process; of use on this machine
        self._supervision = Supervision(patience.warn_after)
        self._behind = Behind(
            ledger,
            lambda: self.line,
            self.inbox.put,
            lambda task: self.withdrawn({task.key}, task),
            self._supervision,
        )
        self._adrift: list[Task] = []  # of which nothing but the board will tell any more
        self._opaque = opaque
        self._load_error = Unloaded if opaque else Failure.load
        self.relieving = True
        self.reliefs: set[concurrent.futures.Future[dict[str, Any]]] = set()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Have the settle thread do nothing, once it is through with what has come so far."""
        pause = _Pause()
        self.inbox.put(pause)
        pause.begun.wait()
        try:
            yield
        finally:
            pause.over.set()

    def settle(self) -> None:
        """Handle messages until a None comes: the settle thread."""
        while True:
            try:
                message = self.inbox.get(timeout=self.limits.pause(self._patience.PULSE))
            except queue.Empty:
                message = CHECK
            if message is None:
                self.callbacks.put(None)
                self._ledger.put_board_away()
                return
            try:
                self._handle(message)
            except BaseException as exc:  # a fault of ours must not become a hang
                _LOG.critical("daskexec: internal error", exc_info=exc)
                self._give_up(like(exc, "internal error of daskexec"))

    def _handle(self, message: Any) -> None:
        if isinstance(message, Done):
            self._done(message.key, message.outcome)
        elif isinstance(message, SoFar):
            task = self._ledger.sent.get(message.key)
            if task is not None:
                self._results(task, message.outcome, so_far=True)
        elif isinstance(message, Started):
            self._started(message)
        elif isinstance(message, There):
            self._there(message)
        elif isinstance(message, Brought):
            self._brought(message.key, message.outcome)
        elif isinstance(message, Ended):
            self.promises.ended(message)
        elif isinstance(message, Failed):
            self._failed(message)
        elif isinstance(message, Threads):
            with self._ledger.changed:
                self._ledger.threads = message.count
                self._ledger.wake()
        elif isinstance(message, Lost):
            self._give_up(like(self._explained(message.error)))
        elif isinstance(message, Answer):
            answer = message.answer
            if not answer.cancelled() and answer.exception() is None:
                for task in message.tasks:
                    self.withdrawn(answer.result(), task)
        elif isinstance(message, Slow):
            self._slow(message)
        elif isinstance(message, Waits):
            self._waits(message)
        elif isinstance(message, Relief):
            self._relieved(message)
        elif isinstance(message, Surveyed):
            self._surveyed(message)
        elif isinstance(message, Cut):
            self.endings.cut(message)
        elif isinstance(message, Ends):
            self.endings.learn(message)
        elif isinstance(message, Named):
            self.endings.learn_names(message)
        elif isinstance(message, Arrived):
            self._arrived(message)
        elif isinstance(message, Kill):
            self.limits.kill(message)
        elif isinstance(message, Stuck):
            self.limits.stuck(message)
        elif isinstance(message, Given):
            self.limits.end(message)
        elif isinstance(message, Adopted):
            self._adopted(message.task)
        elif isinstance(message, _Adrift):
            self._adrift.append(message.task)
            self._find_adrift()
        elif isinstance(message, Mute):
            self._behind.told(message)
        elif isinstance(message, _Pause):
            message.begun.set()
            message.over.wait()
        if message is not CHECK and not isinstance(message, (Threads, Mute)):
            self._supervision.heard()
        self.limits.look()
        self._check()

    def _check(self) -> None:
        line = self.line
        if line is None or not self._patience.due():
            return
        if not line.backend.alive():
            lost = self._explained(line.backend.loss())
            self._give_up(like(lost))
            return
        self._find_adrift()
        final, known = line.trouble() if line.trouble is not None else (False, "")
        complaint = known if final else None
        if complaint is None:
            complaint = self._patience.look(
                self._ledger.waiting(), self._ledger.threads, line.backend.describe_workers, known
            )
        if complaint is not None:
            reason = complaint
            self._give_up(lambda: BrokenExecutor(reason))
            return
        self._behind.look()
        backend = line.backend
        self._supervision.look(
            self._ledger.pending > 0,
            backend.silent_for(),
            backend.address,
            backend.describe_workers,
        )

    def _explained(self, loss: BaseException) -> BaseException:
        """Add to the loss of the cluster what those who started it know of its end."""
        line = self.line
        words = line.last_words() if line is not None and line.last_words is not None else ""
        return type(loss)(f"{loss}. {words}") if words else loss

    def _started(self, message: Started) -> None:
        if self.endings.begun_anew(message):
            return
        task = self._ledger.started(message)
        if task is not None:
            task.started_at = time.monotonic()
            self.limits.begun(task)
            set_all_running(call.future for call in task.calls)
        self._replace_worn()

    def _done(self, key: str, outcome: Outcome) -> None:
        task = self._ledger.sent.get(key)
        if task is None:
            self._brought(key, outcome)
            return
        if outcome.kind == "ran":
            self._results(task, outcome)
            self._ledger.again(task)  # what the worker has handed back
        elif outcome.kind == "let go":
            self._keep_left(task, outcome, *place_of(task.started), "Dask let go of its result")
            self._ledger.again(task)
        elif outcome.kind == "initializer":
            assert isinstance(outcome.bodies[0], Failure)
            error = self._load_error(outcome.bodies[0])
            _LOG.critical("Exception in initializer:", exc_info=error)
            self._give_up(lambda: _initializer_failed(error))
        elif outcome.kind == "refused":
            self._refused(task, outcome)
        elif outcome.kind == "withdrawn":
            self.withdrawn({key}, task)
        elif outcome.kind == "missing" and self._ledger.begun(task) is not None:
            self._adrift.append(task)  # by a worker that had these values, and has died
        elif outcome.kind == "missing":
            self.promises.missing(task, outcome)
        elif outcome.kind == "leaving":
            self.endings.refused(task, outcome)
        self._replace_worn()

    def _results(self, task: Task, outcome: Outcome, *, so_far: bool = False) -> None:
        """Settle those members of a task of which an outcome tells."""
        ledger, load_, bodies = self._ledger, task.load, outcome.bodies
        record = recording.ran(task, outcome)
        if outcome.place is not None:
            self._addresses[outcome.pid] = outcome.place[0]
        news: list[Any]
        rest: list[tuple[Call, Body]] = []
        if task.options.retries and bodies and isinstance(bodies[0], Failure):
            task.record = record
            self._over_or_again(task, self._load_error(bodies[0]), raised=True)  # alone
            return
        with ledger.changed:
            self._observe(task, outcome, so_far)
            start, stop = ledger.told(task, outcome.first, outcome.count, record)
            if task.used and isinstance(load_, list):
                news = outcome.unpacked()[start - outcome.first : stop - outcome.first]
                rest = self.promises.stay(load_[start:stop], news)
        if start == stop:
            return
        if task.used:
            finish_all(_loaded([call for call, _ in rest], [body for _, body in rest]))
            return
        plain = not isinstance(bodies, list) and not self._opaque
        news = load(bodies) if plain else outcome.unpacked()
        if stop - start < len(news):
            news = news[start - outcome.first : stop - outcome.first]
        if isinstance(load_, Stretch):
            load_.job.fill(load_.first + start, news, plain=plain)
        else:
            finish_all((_unloaded if self._opaque else _loaded)(load_[start:stop], news))

    def _there(self, message: There) -> None:
        """A call has run, and its value is to stay with the workers."""
        task = self._ledger.sent.get(message.key)
        if task is not None:
            record = recording.ran(task, message.brief)
            with self._ledger.changed:
                self._observe(task, message.brief)
                self.promises.is_there(task, message, record)
            self._replace_worn()

    def _brought(self, key: str, outcome: Outcome) -> None:
        """A value that was with the workers is here, since its user has asked for it."""
        result = self.promises.brought(key, outcome)
        if result is not None:
            future, body = result
            value, error = loaded(body)
            future._finish(value=value, error=error)

    def _arrived(self, message: Arrived) -> None:
        if message.body is None:
            message.future._cancel_running()
        else:
            value, error = loaded(message.body)
            message.future._finish(value=value, error=error)
        self._ledger.drop_items(1)

    def _observe(self, task: Task, outcome: Outcome, so_far: bool = False) -> None:
        """Tell the policy the run times that are news; with the ledger's lock held.

        Of a task that goes on it is not known when its last call was over: the next outcome
        tells of that time, too. What a lost worker has left does not tell of any.
        """
        observe, seconds = self._ledger.policy.observe, outcome.seconds
        if task.mixed and isinstance(task.load, list):
            known = max(0, task.told - outcome.first)  # a slow task has given them out before
            first = outcome.first + known
            for call, each, body in zip(
                task.load[first:], seconds[known:], outcome.bodies[known:], strict=False
            ):
                if call.function is not None:  # else it is over
                    observe(call.function, each, 1, size_of(body))
        elif seconds and not so_far and (news := outcome.first + outcome.count - task.seen) > 0:
            took = max(0.0, sum(seconds) - (0.0 if outcome.first else task.observed))
            task.observed += took
            task.seen += news
            observe(task.function, took, news, outcome.size() * news / max(outcome.count, 1))

    def _slow(self, message: Slow) -> None:
        """A call takes long: have what waits behind it done elsewhere."""
        line = self.line
        task = self._ledger.sent.get(message.key)
        if task is None or line is None or not line.backend.alive() or not self.relieving:
            return
        task.slow = True
        with self._ledger.changed:
            sent = self._ledger.sent.values()
            others = [other for other in sent if other.started is None]
            if sum(other.slow for other in sent) >= self._ledger.threads:
                others = []  # nobody is free to take them
        keys = [other.key for other in others]
        answer = line.backend.relieve(message.key, message.worker, keys)
        self.reliefs.add(answer)
        answer.add_done_callback(lambda done: self.inbox.put(Relief(done, task, others)))

    def _waits(self, message: Waits) -> None:
        """A call waits for others: it takes no room, and what was behind it goes elsewhere."""
        task = self._ledger.sent.get(message.key)
        if task is not None:
            self._ledger.waits(task)
            self._ledger.again(task, message.begun)

    def _adopted(self, task: Task) -> None:
        if task.started is not None:
            self.limits.begun(task, time.monotonic() - task.started_at)

    def _relieve_for(self, task: Task, kill: Kill) -> None:
        """Have a worker say what of a task is done and what not begun, for a call to be killed."""
        line = self.line
        if line is None or task.started is None or not self.relieving:
            kill.over.set()
            return
        answer = line.backend.relieve(task.key, task.started.worker, [])
        self.reliefs.add(answer)
        answer.add_done_callback(lambda done: self.inbox.put(Relief(done, task, [], kill=kill)))

    def _relieved(self, relief: Relief) -> None:
        self.reliefs.discard(relief.answer)
        if relief.kill is not None:
            self.limits.again(relief.kill)
        if relief.answer.cancelled() or relief.answer.exception() is not None:
            return  # the worker is gone, or going: its tasks come back in another way
        answer = relief.answer.result()
        task = relief.task
        if answer["outcome"] is not None:
            self._results(task, answer["outcome"])
        if answer["begun"] is not None:
            self._ledger.again(task, answer["begun"])
        barred = set(answer["barred"])
        for other in relief.others:
            self.withdrawn(barred, other)
        if relief.cut is not None and task.end - task.told == 1:
            self.endings.cut_alone(task, relief.cut)

    def _surveyed(self, survey: Surveyed) -> None:
        """Break the executor if no call can run; warn of what may go wrong, once for each."""
        if survey.fatal:
            self._give_up(lambda: BrokenExecutor(survey.fatal))
        for package in survey.said.keys() - self._warned:
            self._warned.add(package)
            say(survey.said[package])

    def _refused(self, task: Task, outcome: Outcome) -> None:
        """Another process had begun the task, and did not finish it."""
        line = self.line
        assert line is not None
        name, reason = line.death_of(outcome.pid) if line.death_of else ("", "")
        if outcome.detail == INITIALIZING:
            self._give_up(
                lambda: InitializerFailed(
                    f"worker {name} ended while it ran the initializer: {reason or 'no reason'}"
                )
            )
            return
        where, host = f"{name} (process {outcome.pid})".lstrip(), os.uname().nodename
        if not outcome.pid:  # on a cluster without a board, of a call that is not to run twice
            (where, host), reason = place_of(task.started), _NOT_AGAIN
        self._keep_left(task, outcome, where, host, reason)
        if task.told < task.end:
            # The first that it left no result of was running; those behind had not begun.
            self._ledger.again(task, task.told + 1)
            address = self._addresses.get(outcome.pid, "")
            task.record = recording.died(task, Where(address, name, host, outcome.pid))
            died = WorkerDied(name_of(task), where, host, reason, _begun(task))
            self._over_or_again(task, died)

    def _keep_left(
        self, task: Task, outcome: Outcome, worker: str, host: str, reason: str
    ) -> None:
        """Settle what a dead worker has left of a task; what was lost with it fails."""
        if isinstance(outcome.bodies, list) and None in outcome.bodies:
            reason = f"{reason or 'no reason is known'}; the call had ended, but its result was "
            reason += "too large to outlive its process"
            lost = Failure.of(WorkerDied(name_of(task), worker, host, reason))
            outcome.bodies = [lost if body is None else body for body in outcome.bodies]
        self._results(task, outcome)

    def _failed(self, message: Failed) -> None:
        """Dask gave the task up: its worker was lost.

        A call that is known to have begun is not run again: that is its death, or it may have
        had effects. One that had not begun is sent again. Where nobody can say, and of calls that
        shared the task, each is tried once more, alone, and then, such calls one at a time, held
        to be what kills workers.
        """
        task = self._ledger.sent.get(message.key)
        if task is None:
            self.promises.not_brought(message.key, message.error)
            return
        if type(message.error).__name__ != "KilledWorker":
            self.fail(task, message.error)
            return
        begun, alone, never = message.begun, len(task.load) == 1, task.options.rerun is False
        if begun and message.left is not None:
            worker, host, fate = self._last_of(task, message)
            self._keep_left(task, Outcome("refused", message.left), worker, host, fate)
            # The first that it left no result of was running; those behind had not begun.
            self._ledger.again(task, task.told + 1)
            alone = True
        elif begun is None and alone and task.started is not None:
            begun = True
        if begun is False:
            self._ledger.again(task)
        elif not alone:
            self._ledger.again(task, alone=True)
        elif begun is None and task.calls and not task.suspect and not never:
            task.calls[0].suspect = True
            self._ledger.again(task)
        elif task.told < task.end:
            worker, host, fate = self._last_of(task, message)
            if fate and not message.fate and _begun(task) <= RERUNS and not never:
                self._ledger.again(task, ran=True)  # its job ended, or its host: not its fault
            else:
                fate = fate or "the connection to it was lost"
                if never:
                    fate = f"{fate}; {_NOT_AGAIN}"
                task.record = recording.killed(task, message.error)
                died = WorkerDied(name_of(task), worker, host, fate, _begun(task))
                self._over_or_again(task, died)

    def _last_of(self, task: Task, message: Failed) -> tuple[str, str, str]:
        """Return name and host of the last worker of a task that Dask gave up, and its fate."""
        last = getattr(message.error, "last_worker", None)
        started = task.started
        name, address = (started.name, started.worker) if started else ("", "")
        if last is not None:
            name, address = str(last.name), last.address
        fate = message.fate
        if not fate and self.line and self.line.fate and address:
            fate = self.line.fate(address)
        host = address.rpartition(":")[0].rpartition("/")[2]
        return name, host, fate

    def withdrawn(self, keys: set[str], task: Task) -> None:
        """Take a task back if it is among those that no worker will run; from any thread.

        A worker may have begun it all the same: it has died since and so was not asked, and
        Dask had given the task to another, which has barred it; or it had joined just then.
        """
        if task.key not in keys:
            return
        if self._ledger.begun(task) is not None:
            self.inbox.put(_Adrift(task))
            return
        for call in self._ledger.withdrawn(task):
            call.future._cancel_running()  # as it may say since the task was begun that it shared

    def _find_adrift(self) -> None:
        """Settle what is adrift, by the board, when its worker is through with it or has died."""
        adrift, self._adrift = self._adrift, []
        for task in adrift:
            begun = self._ledger.begun(task)
            if begun is None:
                continue  # settled otherwise
            slot, turn, pid, stage = begun
            if stage != FINISHED and psutil.pid_exists(pid):
                self._adrift.append(task)
                continue
            left = self._ledger.board.recover(slot, turn, pid) if self._ledger.board else []
            self._refused(task, Outcome("refused", left, pid=pid, detail=stage))

    def _over_or_again(self, task: Task, error: BaseException, raised: bool = False) -> None:
        """Try the only call of a task again, if it may be; else fail it."""
        calls = task.calls
        if calls and _may_again(calls[0], _begun(task), raised):
            calls[0].raised += raised
            self._ledger.again(task, ran=True)
        else:
            self.fail(task, error)

    def fail(self, task: Task, error: BaseException) -> None:
        """Fail all that a sent task has not told of."""
        load_ = task.load
        record = task.record or recording.begun(task)
        start, stop = self._ledger.told(task, task.told, task.end - task.told, record)
        if isinstance(load_, Stretch):
            load_.job.fill(load_.first + start, [Raised(error)] * (stop - start))
        else:
            finish_all([(call.future, None, error) for call in load_[start:stop]])
        self._replace_worn()

    def fail_items(self, items: Stretch, error: BaseException) -> None:
        """Fail items of a map that are in hand."""
        self._ledger.drop_items(len(items))
        items.job.fill(items.first, [Raised(error)] * len(items))

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


def _loaded(
    calls: list[Call], bodies: list[Body]
) -> Iterator[tuple[DaskFuture[Any], Any, BaseException | None]]:
    """Turn what calls came to into values and errors, for `finish_all`."""
    # A list first: what unpickles is user code, and must not run while futures are being set.
    loaded: list[tuple[DaskFuture[Any], Any, BaseException | None]] = []
    for call, body in zip(calls, bodies, strict=True):
        if isinstance(body, Failure):
            loaded.append((call.future, None, body.load()))
            continue
        try:
            loaded.append((call.future, load_result(body), None))
        except BaseException as exc:
            loaded.append((call.future, None, exc))
    bodies.clear()
    loaded.reverse()
    while loaded:
        yield loaded.pop()


def _unloaded(
    calls: list[Call], bodies: list[Body]
) -> Iterator[tuple[DaskFuture[Any], Any, BaseException | None]]:
    """As `_loaded`, with nothing loaded."""
    for call, body in zip(calls, bodies, strict=True):
        if isinstance(body, Failure):
            yield call.future, None, Unloaded(body)
        else:
            yield call.future, body, None


def _begun(task: Task) -> int:
    """How many times the first call of a task that has begun was begun in all."""
    loads = [task.load] if isinstance(task.load, Stretch) else task.calls[:1]
    return max(1, task.begun) + sum(load.begun for load in loads)


def _may_again(call: Call, begun: int, raised: bool) -> bool:
    """Tell whether a call may be run again that was begun so often, and raised or died."""
    options = call.options
    if options.rerun is None:
        return begun <= options.retries
    if raised:
        return call.raised < options.retries
    return options.rerun and begun - call.raised <= RERUNS


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
