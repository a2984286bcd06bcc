"""The dispatcher: from ``submit`` to a finished future. Floor 3.

::

    caller's thread     dispatcher thread          Dask                  settle thread
    ---------------     -----------------          ----                  -------------
    submit()
      QUEUED ---------> take as many as the
                        window has room for
                        pickle each alone  (error -> its own future;
                        PARKED while a future among the arguments is not done)
                        SENT ------------------->  scheduler -> worker
                                                   started event ------> RUNNING
                                                   outcome ------------> unpickle, FINISHED
                        more room in the window <----------------------- settled
                                                                           |
                                                        callback thread <--+ done-callbacks

Where a cancel still works: QUEUED and PARKED, at once and without a message; SENT, if the
workers, when asked, say that they have not begun the call; RUNNING, never.

`_wake` is the one lock. It guards the queues, the table of sent calls, the stages of calls,
and the flags. It is never held while pickling, while talking to the backend, or while a
future is set (which runs user code). It is reentrant since the garbage collector may call
`shutdown` on a thread that holds it.

The threads are daemons, so that an interpreter which is told to die can; at a normal end
`_finish_all` waits for them first, as the stdlib's pools do.
"""

from __future__ import annotations

import concurrent.futures.thread
import contextlib
import logging
import os
import queue
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import BrokenExecutor
from typing import Any

from daskexec import _calls
from daskexec._batching import BatchPolicy
from daskexec._board import INITIALIZING
from daskexec._calls import Outcome, Ticket
from daskexec._messages import Backend, Done, Failed, Lost, Started, Threads
from daskexec._patience import Patience
from daskexec.errors import InitializerFailed, WorkerDied
from daskexec.futures import DaskFuture
from daskexec.options import CallOptions

__all__ = ["Call", "Dispatcher", "Line"]

_LOG = logging.getLogger("concurrent.futures")  # where the stdlib logs a failed initializer

QUEUED, IN_HAND, PARKED, SENT, OVER = range(5)


class Line:
    """A started backend and what belongs to it, as the dispatcher was given it.

    Parameters
    ----------
    backend : Backend
        Not started yet.
    close : callable
        Ends what was started for this executor (client, cluster), nothing else.
    board : Board, optional
        The marks of begun calls, on clusters of our own.
    death_of : callable, optional
        Worker name and cause of death of a process id, on clusters of our own.
    recycle : callable, optional
        Replace the worker process with this id, on clusters of our own.
    signal_workers : callable, optional
        Send a signal to all worker processes, on clusters of our own.
    trouble : callable, optional
        What keeps workers from joining, and whether that is final, on clusters of our own.
    """

    def __init__(
        self,
        backend: Backend,
        close: Callable[[], None],
        *,
        board: Any = None,
        death_of: Callable[[int], tuple[str, str]] | None = None,
        recycle: Callable[[int], None] | None = None,
        signal_workers: Callable[[int], None] | None = None,
        trouble: Callable[[], tuple[bool, str]] | None = None,
    ) -> None:
        self.backend, self.close, self.board, self.trouble = backend, close, board, trouble
        self.death_of, self.recycle, self.signal_workers = death_of, recycle, signal_workers


class Call:
    """One user call, from submit until it is settled."""

    __slots__ = (
        "args",
        "begun",
        "blob",
        "fn",
        "future",
        "key",
        "kwargs",
        "options",
        "resent",
        "slot",
        "stage",
        "started",
        "suspect",
    )

    def __init__(
        self, future: DaskFuture[Any], fn: Any, args: Any, kwargs: Any, options: CallOptions
    ) -> None:
        self.future, self.fn, self.args, self.kwargs = future, fn, args, kwargs
        self.options = options
        self.key = future.key  # of the current attempt
        self.blob: bytes | None = None
        self.slot = -1
        self.stage = QUEUED
        self.started: Started | None = None  # of the current attempt
        self.begun = 0  # attempts that a worker has begun
        self.resent = 0  # attempts in all, less one
        self.suspect = False  # it was there when workers died, more than once


class Dispatcher:
    """Runs the calls of one executor. Every public method may be called from any thread.

    Parameters
    ----------
    connect : callable
        ``connect(report)`` returns a `Line`; called on the dispatcher thread. What it raises
        breaks the executor.
    executor : str
        Id of the executor.
    policy : BatchPolicy
        How many calls may be with the scheduler.
    initializer : bytes, optional
        The pickled ``(initializer, initargs)``.
    max_calls : int
        Calls after which a worker process is replaced, 0 for no limit.
    width : int
        Calls that the executor's workers can run at the same time.
    patience : Patience
        When to say what is being waited for, and when to give up.
    """

    #: Seconds that ``cancel`` waits for the workers' answer.
    CANCEL_WAIT = 5.0

    def __init__(
        self,
        connect: Callable[[Callable[[Any], None]], Line],
        executor: str,
        policy: BatchPolicy,
        *,
        initializer: bytes | None = None,
        max_calls: int = 0,
        width: int = 1,
        patience: Patience | None = None,
    ) -> None:
        self.executor = executor
        self._width = width
        self._connect = connect
        self._policy = policy
        self._initializer = initializer
        self._max_calls = max_calls
        self._patience = patience or Patience()
        self._wake = threading.Condition()
        self._queues: dict[int, deque[Call]] = {}  # by priority
        self._urgent: deque[Call] = deque()
        self._suspects: deque[Call] = deque()  # sent one at a time
        self._sent: dict[str, Call] = {}
        self._in_hand = 0
        self._parked: set[Call] = set()
        self._threads = 0
        self._line: Line | None = None
        self._worn: dict[int, set[str]] = {}  # process id -> keys it still owes
        self._stopping = False
        self._forked = False
        self._broken: Callable[[], BaseException] | None = None
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._callbacks: queue.SimpleQueue[DaskFuture[Any] | None] = queue.SimpleQueue()
        names = (self._dispatch, self._settle, self._call_back)
        self._workers = [
            threading.Thread(target=t, name=f"daskexec{t.__name__}", daemon=True) for t in names
        ]
        _live.add(self)
        for thread in self._workers:
            thread.start()

    # -- the executor's side ---------------------------------------------------------------

    def submit(self, call: Call) -> None:
        """Take a call over; raises RuntimeError or BrokenExecutor when it cannot be run."""
        with self._wake:
            self.check_open()
            self._queues.setdefault(-call.options.priority, deque()).append(call)
            self._wake.notify()

    def check_open(self) -> None:
        """Raise what ``submit`` raises on a broken, closed or forked executor."""
        if self._forked:
            raise RuntimeError(
                "this DaskExecutor was made before the process forked and cannot be used in "
                "the child: make a new one there"
            )
        if self._broken is not None:
            raise self._broken()
        if self._stopping:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if _interpreter_ends:
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")
        line = self._line
        if line is not None and not line.backend.alive():
            self._inbox.put(_CHECK)
            raise BrokenExecutor("the cluster of this DaskExecutor cannot be reached any more")

    def usable(self) -> bool:
        """Tell whether calls can be submitted."""
        try:
            self.check_open()
        except (RuntimeError, BrokenExecutor):
            return False
        return True

    def broken(self) -> str:
        """Say why the executor is broken; "" when it is not."""
        return str(self._broken()) if self._broken is not None else ""

    def state(self) -> str:
        """Say in a few words how it stands, for people."""
        with self._wake:
            pending = self._pending()
        if self._broken is not None:
            return "broken"
        return f"{'shut down' if self._stopping else 'running'}, {pending} calls pending"

    def line(self) -> Line:
        """Return the line, waiting for the cluster to be up; raises when it is broken."""
        with self._wake:
            while self._line is None and self._broken is None:
                self._wake.wait()
            if self._line is None:
                self.check_open()
                raise RuntimeError("the executor has no cluster any more")
            return self._line

    def cancel(self, future: DaskFuture[Any]) -> bool:
        """Cancel the call of a pending future, if no worker has begun it."""
        call = self._call_of(future)
        if call is None:
            return future._cancel_now()
        with self._wake:
            at_once = call.stage < SENT
            if at_once:
                self._forget(call)
            line = self._line
        if at_once:
            return future._cancel_now()
        if line is None or self._forked or not line.backend.alive():
            return False
        answer = line.backend.withdraw([call.key])
        if not _has_running_loop():
            with contextlib.suppress(concurrent.futures.TimeoutError):
                return self._withdrawn(answer.result(self.CANCEL_WAIT), call)
        answer.add_done_callback(lambda done: self._inbox.put(_Answer(done, [call])))
        return False

    def cancel_all(self, futures: Iterable[DaskFuture[Any]]) -> None:
        """Cancel what has not begun, with one question to the workers and without waiting."""
        sent: list[Call] = []
        dropped: list[DaskFuture[Any]] = []
        with self._wake:
            for future in futures:
                call = self._call_of(future)
                if call is None:
                    continue
                if call.stage < SENT:
                    self._forget(call)
                    dropped.append(future)
                elif call.started is None:
                    sent.append(call)
            line = self._line
        for future in dropped:
            future._cancel_now()
        if sent and line is not None and not self._forked and line.backend.alive():
            answer = line.backend.withdraw([call.key for call in sent])
            answer.add_done_callback(lambda done: self._inbox.put(_Answer(done, sent)))

    def dask_future(self, future: DaskFuture[Any]) -> Any:
        """Return the cluster's own future for the plain value of the call."""
        with self._wake:
            self.check_open()
            call = self._call_of(future)
            if call is not None and call.stage == QUEUED:
                self._queues[-call.options.priority].remove(call)
                self._urgent.append(call)
                self._wake.notify_all()
            while call is not None and call.stage in (QUEUED, IN_HAND) and self._broken is None:
                self._wake.wait()
            line = self._line
        if line is None or self._broken is not None:
            raise RuntimeError("the executor has no cluster any more")
        if call is not None and call.stage == SENT:
            with contextlib.suppress(KeyError):  # settled just now
                return line.backend.value_future(call.key, future.key)
        return line.backend.plain_future(_calls.dump(future.result()), future.key)

    def refuse_to_block(self) -> None:
        """Raise RuntimeError on the thread that the results come through."""
        line = self._line
        if line is not None and line.backend.on_loop():
            raise RuntimeError(
                "waiting for a future on the thread of the event loop that carries it would "
                "wait for ever: use 'await future' or asyncio.wrap_future(future)"
            )

    def takes_callbacks(self, future: DaskFuture[Any]) -> bool:
        """Have the callbacks of a done future run on their own thread, if this is ours."""
        if threading.current_thread() not in self._workers[:2]:
            return False
        self._callbacks.put(future)
        return True

    def shutdown(self, wait: bool = True, cancel_futures: bool = False) -> None:
        """Take no more calls; end the threads and the line when all are settled."""
        if self._forked:
            return
        with self._wake:
            self._stopping = True
            dropped = self._drop_queued() if cancel_futures else []
            self._wake.notify_all()
        for call in dropped:
            call.future._cancel_now()
        if wait:
            self.join()

    def join(self) -> None:
        """Wait until everything is settled and ended."""
        for thread in self._workers:
            if thread is not threading.current_thread():
                thread.join()

    def stop_workers(self, number: int, what: str) -> None:
        """Give up all that is not done and end the worker processes, where they are ours."""
        with self._wake:
            self._stopping = True
            dropped = self._take_all_queued()
            line = self._line
        for call in dropped:
            call.future._cancel_now()
        self._break(lambda: WorkerDied("the executor's calls", reason=f"{what}() was called"))
        if line is not None and line.signal_workers is not None:
            line.signal_workers(number)

    # -- dispatcher thread -----------------------------------------------------------------

    def _dispatch(self) -> None:
        try:
            line = self._connect(self._inbox.put)
            with self._wake:
                self._line = line
                self._wake.notify_all()
            line.backend.start(self._initializer)
        except BaseException as exc:
            self._break(_like(exc, "the cluster of this executor could not be started"))
        while self._dispatch_some():
            pass
        with contextlib.suppress(Exception):
            if self._line is not None:
                self._line.backend.close()
        with contextlib.suppress(Exception):
            if self._line is not None:
                self._line.close()
        self._inbox.put(None)

    def _dispatch_some(self) -> bool:
        with self._wake:
            while self._broken is None:
                calls = self._take()
                if calls:
                    break
                if self._stopping and not self._pending():
                    return False
                self._wake.wait()
            else:
                return False
        for call in calls:
            self._send(call)
        return True

    def _pending(self) -> int:
        queued = sum(map(len, self._queues.values())) + len(self._urgent) + len(self._suspects)
        return queued + self._in_hand + len(self._parked) + len(self._sent)

    def _take(self, room: int | None = None) -> list[Call]:
        if room is None:
            room = self._policy.window(self._threads) - len(self._sent)
        calls = [call for call in self._urgent if call.stage == QUEUED]
        self._urgent.clear()
        while self._suspects and not any(call.suspect for call in (*calls, *self._sent.values())):
            call = self._suspects.popleft()
            if call.stage == QUEUED:
                calls.append(call)
        for priority in sorted(self._queues):
            waiting = self._queues[priority]
            while waiting and len(calls) < room:
                call = waiting.popleft()
                if call.stage == QUEUED:  # else it was cancelled
                    calls.append(call)
            if not waiting:
                del self._queues[priority]
        for call in calls:
            call.stage = IN_HAND
        self._in_hand += len(calls)
        return calls

    def _send(self, call: Call) -> None:
        error: BaseException | None = None
        try:
            if call.blob is None:
                call.blob = _calls.dump_call(call.fn, call.args, call.kwargs)
        except _calls.Unfinished as exc:
            self._park(call, exc.future)
            return
        except _calls.FailedArgument as exc:
            error = exc.error
        except BaseException as exc:
            error = exc
        line = self._line
        assert line is not None
        turn = 0
        with self._wake:
            self._in_hand -= 1
            if call.stage == OVER:
                return  # cancelled meanwhile
            if error is None:
                call.stage = SENT
                call.slot, turn = line.board.acquire() if line.board is not None else (-1, 0)
                self._sent[call.key] = call
                self._wake.notify_all()
            else:
                self._forget(call)
        if isinstance(error, concurrent.futures.CancelledError):
            call.future._cancel_now()
            return
        if error is not None:
            _finish(call.future, error=error)
            return
        ticket = Ticket(
            self.executor,
            call.key,
            line.backend.topic,
            call.blob or b"",
            call.slot,
            turn,
            self._initializer is not None,
            self._max_calls,
        )
        if not call.options.retries:
            call.fn = call.args = call.kwargs = None
        try:
            line.backend.send(ticket, call.options)
        except BaseException as exc:
            if line.backend.alive():
                self._over(call, error=exc)
            else:
                self._inbox.put(_CHECK)

    def _park(self, call: Call, needed: concurrent.futures.Future[Any]) -> None:
        """Hold a call back until a future among its arguments is done; blocks no thread."""
        with self._wake:
            self._in_hand -= 1
            if call.stage == OVER:
                return
            call.stage = PARKED
            self._parked.add(call)
        needed.add_done_callback(lambda _: self._unpark(call))

    def _unpark(self, call: Call) -> None:
        with self._wake:
            if call.stage == PARKED:
                self._parked.discard(call)
                call.stage = QUEUED
                self._urgent.append(call)
                self._wake.notify_all()

    # -- settle thread ---------------------------------------------------------------------

    def _settle(self) -> None:
        while True:
            try:
                message = self._inbox.get(timeout=self._patience.PULSE)
            except queue.Empty:
                message = _CHECK
            if message is None:
                self._callbacks.put(None)
                return
            try:
                self._handle(message)
            except BaseException as exc:  # a fault of ours must not become a hang
                _LOG.critical("daskexec: internal error", exc_info=exc)
                self._break(_like(exc, "internal error of daskexec"))

    def _handle(self, message: Any) -> None:
        if isinstance(message, Done):
            self._done(message.key, message.outcome)
        elif isinstance(message, Started):
            self._started(message)
        elif isinstance(message, Failed):
            self._failed(message)
        elif isinstance(message, Threads):
            with self._wake:
                self._threads = message.count
                self._wake.notify_all()
        elif isinstance(message, Lost):
            error = message.error
            self._break(_like(error))
        elif isinstance(message, _Answer):
            answer = message.answer
            if not answer.cancelled() and answer.exception() is None:
                for call in message.calls:
                    self._withdrawn(answer.result(), call)
        self._check()

    def _check(self) -> None:
        line = self._line
        if self._broken is not None or line is None or not self._patience.due():
            return
        if not line.backend.alive():
            self._break(lambda: BrokenExecutor("the cluster of this executor was lost"))
            return
        final, known = line.trouble() if line.trouble is not None else (False, "")
        with self._wake:
            waiting = [call.options for call in self._sent.values() if call.started is None]
            threads = self._threads
        complaint = known if final else None
        if complaint is None:
            complaint = self._patience.look(waiting, threads, line.backend.describe_workers, known)
        if complaint is not None:
            reason = complaint
            self._break(lambda: BrokenExecutor(reason))

    def _started(self, message: Started) -> None:
        with self._wake:
            call = self._sent.get(message.key)
            if call is not None:
                call.started = message
                call.begun += 1
            if message.worn:
                owed = {
                    key
                    for key, other in self._sent.items()
                    if other.started is not None and other.started.pid == message.pid
                }
                self._worn[message.pid] = owed
        if call is not None:
            _set_running(call.future)
        self._replace_worn()

    def _done(self, key: str, outcome: Outcome) -> None:
        call = self._sent.get(key)
        if call is None:
            return
        if outcome.kind == "value":
            self._policy.observe(outcome.seconds)
            try:
                value = _calls.load(outcome.body)
            except BaseException as exc:
                self._over(call, error=exc)
            else:
                self._over(call, value=value)
        elif outcome.kind == "error":
            self._policy.observe(outcome.seconds)
            self._over_or_again(call, outcome.body.load())
        elif outcome.kind == "initializer":
            error = outcome.body.load()
            _LOG.critical("Exception in initializer:", exc_info=error)
            self._break(lambda: _initializer_failed(error))
        elif outcome.kind == "refused":
            self._refused(call, outcome)
        elif outcome.kind == "withdrawn":
            self._withdrawn({key}, call)

    def _refused(self, call: Call, outcome: Outcome) -> None:
        """Another process had begun the call, and did not finish it."""
        line = self._line
        assert line is not None
        name, reason = line.death_of(outcome.pid) if line.death_of else ("", "")
        if outcome.body == INITIALIZING:
            self._break(
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
        call = self._sent.get(message.key)
        if call is None:
            return
        if type(message.error).__name__ != "KilledWorker":
            self._over(call, error=message.error)
        elif not call.suspect:
            call.suspect = True
            self._again(call)
        else:
            started, function = call.started, call.future.key.rpartition("-")[0]
            worker = started.name if started else ""
            host = started.worker.rpartition(":")[0].rpartition("/")[2] if started else ""
            begun = max(call.begun, 1)
            died = WorkerDied(function, worker, host, "the connection to it was lost", begun)
            self._over_or_again(call, died)

    def _withdrawn(self, keys: set[str], call: Call) -> bool:
        if call.key not in keys:
            return False
        with self._wake:
            self._forget(call)
        return call.future._cancel_now()

    def _over_or_again(self, call: Call, error: BaseException) -> None:
        if call.begun <= call.options.retries and call.blob is not None:
            self._again(call)
        else:
            self._over(call, error=error)

    def _again(self, call: Call) -> None:
        """Queue a call for another attempt, ahead of all others."""
        with self._wake:
            self._unsend(call)
            call.resent += 1
            call.key = attempt_key(call.future.key, call.resent)
            call.started = None
            call.stage = QUEUED
            (self._suspects if call.suspect else self._urgent).append(call)
            self._wake.notify_all()

    def _over(self, call: Call, *, value: Any = None, error: BaseException | None = None) -> None:
        with self._wake:
            self._forget(call)
        _finish(call.future, value=value, error=error)
        self._replace_worn()

    # -- any of our threads ----------------------------------------------------------------

    def _call_of(self, future: DaskFuture[Any]) -> Call | None:
        return getattr(future, "_call", None)

    def _unsend(self, call: Call) -> None:
        self._sent.pop(call.key, None)
        if call.slot >= 0 and self._line is not None:
            self._line.board.release(call.slot)
            call.slot = -1
        for owed in self._worn.values():
            owed.discard(call.key)

    def _forget(self, call: Call) -> None:
        """Drop a call, with `_wake` held; its future is to be set after."""
        self._unsend(call)
        self._parked.discard(call)
        call.stage = OVER
        call.fn = call.args = call.kwargs = call.blob = None
        call.future._call = None
        self._wake.notify_all()

    def _take_all_queued(self) -> list[Call]:
        calls = [call for waiting in self._queues.values() for call in waiting]
        calls.extend(self._urgent)
        calls.extend(self._suspects)
        self._queues.clear()
        self._urgent.clear()
        self._suspects.clear()
        calls = [call for call in calls if call.stage == QUEUED]
        for call in calls:
            self._forget(call)
        return calls

    def _drop_queued(self) -> list[Call]:
        """Forget what ``shutdown(cancel_futures=True)`` cancels.

        What is with the scheduler finishes, as what is in a process pool's call queue does.
        Before the cluster is up that is what would be running by now: a call a worker.
        """
        spared = [] if self._line is not None else self._take(self._width)
        dropped = self._take_all_queued()
        parked = list(self._parked)
        for call in parked:
            self._forget(call)
        dropped += parked
        for call in spared:
            call.stage = QUEUED
            self._urgent.append(call)
        self._in_hand -= len(spared)
        return dropped

    def _replace_worn(self) -> None:
        """Have worn worker processes replaced once all they have run is here."""
        with self._wake:
            ready = [pid for pid, owed in self._worn.items() if not owed]
            for pid in ready:
                del self._worn[pid]
        for pid in ready:
            if self._line is not None and self._line.recycle is not None:
                self._line.recycle(pid)

    def _break(self, error: Callable[[], BaseException]) -> None:
        """Fail everything that is pending, and all submits from now on."""
        with self._wake:
            if self._broken is not None:
                return
            self._broken = error
            calls = [*self._take_all_queued(), *self._parked, *self._sent.values()]
            for call in calls:
                self._forget(call)
            self._wake.notify_all()
        for call in calls:
            _finish(call.future, error=error())

    # -- callback thread -------------------------------------------------------------------

    def _call_back(self) -> None:
        while True:
            future = self._callbacks.get()
            if future is None:
                return
            with contextlib.suppress(BaseException):
                future._run_callbacks()
            del future  # or its value would live until the next one comes


_CHECK = object()  # look at the connection and at what waits


class _Answer:
    """The workers' answer on which of some calls they have not begun."""

    def __init__(self, answer: concurrent.futures.Future[set[str]], calls: list[Call]) -> None:
        self.answer, self.calls = answer, calls


def attempt_key(key: str, attempt: int) -> str:
    """Name a further attempt of a call, such that Dask groups it with the first."""
    return f"{key[:-4]}{attempt:04x}"


def _initializer_failed(cause: BaseException) -> InitializerFailed:
    error = InitializerFailed(f"the initializer raised {type(cause).__name__}: {cause}")
    error.__cause__ = cause
    return error


def _like(cause: BaseException, message: str = "") -> Callable[[], BaseException]:
    """Make errors for many futures from one cause: each future gets an object of its own."""

    def make() -> BaseException:
        if isinstance(cause, BrokenExecutor):
            return type(cause)(*cause.args)
        error = BrokenExecutor(f"{message}: {type(cause).__name__}: {cause}")
        error.__cause__ = cause
        return error

    return make


def _set_running(future: DaskFuture[Any]) -> None:
    with future._condition:
        if future._state == "PENDING":
            future.set_running_or_notify_cancel()


def _finish(
    future: DaskFuture[Any], *, value: Any = None, error: BaseException | None = None
) -> None:
    """Set a future once; one that was cancelled meanwhile stays so."""
    _set_running(future)
    with contextlib.suppress(concurrent.futures.InvalidStateError):
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(value)


def _has_running_loop() -> bool:
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None


# --- the interpreter's end, and forks -----------------------------------------------------------

_live: weakref.WeakSet[Dispatcher] = weakref.WeakSet()
_interpreter_ends = False


def _finish_all() -> None:
    """Run what is pending, then end every dispatcher: the stdlib's pools do so too."""
    global _interpreter_ends
    _interpreter_ends = True
    dispatchers = list(_live)
    for dispatcher in dispatchers:
        dispatcher.shutdown(wait=False)
    for dispatcher in dispatchers:
        dispatcher.join()


def _after_fork_in_child() -> None:
    for dispatcher in _live:
        dispatcher._forked = True
        dispatcher._wake = threading.Condition()
    _live.clear()


# Runs before threads are joined, unlike atexit: then no thread can be started any more. The
# stdlib's own pools hang on the same hook.
threading._register_atexit(_finish_all)  # type: ignore[attr-defined]
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
