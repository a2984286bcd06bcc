"""The dispatcher: from ``submit`` to a finished future. Floor 4.

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

Where calls stand, and the one lock, is in `daskexec._ledger`; what happens on the settle and the
callback thread in `daskexec._settling`. The threads are daemons, so that an interpreter which is
told to die can; at a normal end `_finish_all` waits for them first, as the stdlib's pools do.
"""

from __future__ import annotations

import concurrent.futures.thread
import contextlib
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import BrokenExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from daskexec import _calls
from daskexec._batching import BatchPolicy
from daskexec._calls import Ticket
from daskexec._ledger import OVER, SENT, Call, Ledger
from daskexec._messages import Line
from daskexec._patience import Patience
from daskexec._settling import CHECK, Answer, Settler, like
from daskexec.futures import DaskFuture

__all__ = ["Dispatcher"]


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
        self._ledger = Ledger()
        self._settler = Settler(self._ledger, policy, patience or Patience(), self._break)
        self._line: Line | None = None
        self._started = False  # the backend: calls can be sent
        self._stopping = False
        self._forked = False
        self._broken: Callable[[], BaseException] | None = None
        jobs = (self._dispatch, self._settler.settle, self._settler.call_back)
        self._workers = [
            threading.Thread(target=job, name=f"daskexec {job.__name__.strip('_')}", daemon=True)
            for job in jobs
        ]
        _live.add(self)
        for thread in self._workers:
            thread.start()

    # -- the executor's side ---------------------------------------------------------------

    def submit(self, call: Call) -> None:
        """Take a call over; raises RuntimeError or BrokenExecutor when it cannot be run."""
        with self._ledger.changed:
            self.check_open()
            self._ledger.add(call)

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
            self._settler.inbox.put(CHECK)
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
        if self._broken is not None:
            return "broken"
        pending = self._ledger.pending()
        return f"{'shut down' if self._stopping else 'running'}, {pending} calls pending"

    def line(self) -> Line:
        """Return the line, waiting for the cluster to be up; raises when it is broken."""
        with self._ledger.changed:
            while not self._started and self._broken is None:
                self._ledger.changed.wait()
            if self._line is None:
                self.check_open()
                raise RuntimeError("the executor has no cluster any more")
            return self._line

    def cancel(self, future: DaskFuture[Any]) -> bool:
        """Cancel the call of a pending future, if no worker has begun it."""
        call: Call | None = future._call
        if call is None:
            return future._cancel_now()
        if self._ledger.forget_unsent(call):
            return future._cancel_now()
        line = self._line
        if line is None or self._forked or not line.backend.alive():
            return False
        answer = line.backend.withdraw([call.key])
        if not _has_running_loop():
            with contextlib.suppress(concurrent.futures.TimeoutError):
                return self._settler.withdrawn(answer.result(self.CANCEL_WAIT), call)
        answer.add_done_callback(lambda done: self._settler.inbox.put(Answer(done, [call])))
        return False

    def cancel_all(self, futures: Iterable[DaskFuture[Any]]) -> None:
        """Cancel what has not begun, with one question to the workers and without waiting."""
        sent: list[Call] = []
        for future in futures:
            call: Call | None = future._call
            if call is not None:
                if self._ledger.forget_unsent(call):
                    future._cancel_now()
                elif call.started is None:
                    sent.append(call)
        line = self._line
        if sent and line is not None and not self._forked and line.backend.alive():
            answer = line.backend.withdraw([call.key for call in sent])
            answer.add_done_callback(lambda done: self._settler.inbox.put(Answer(done, sent)))

    def dask_future(self, future: DaskFuture[Any]) -> Any:
        """Return the cluster's own future for the plain value of the call."""
        with self._ledger.changed:
            self.check_open()
            call: Call | None = future._call
            if call is not None:
                self._ledger.hurry(call)
            while (
                call is not None
                and call.stage != OVER
                and not call.submitted
                and self._broken is None
            ):
                self._ledger.changed.wait()
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
                "waiting for a DaskExecutor on the thread of the event loop that carries it "
                "would wait for ever: await its futures, and end it by shutdown(wait=False) "
                "or asyncio.to_thread(executor.shutdown)"
            )

    def takes_callbacks(self, future: DaskFuture[Any]) -> bool:
        """Have the callbacks of a done future run on their own thread, if this is ours."""
        if threading.current_thread() not in self._workers[:2]:
            return False
        self._settler.callbacks.put(future)
        return True

    def shutdown(self, wait: bool = True, cancel_futures: bool = False) -> None:
        """Take no more calls; end the threads and the line when all are settled."""
        if self._forked:
            return
        if wait:
            self.refuse_to_block()
        with self._ledger.changed:
            self._stopping = True
            dropped: list[Call] = []
            if cancel_futures:
                # What is with the scheduler finishes, as what is in a process pool's call
                # queue does. Before the cluster is up: what would be running by now.
                dropped = self._ledger.drop_unsent(self._width if self._line is None else 0)
            self._ledger.changed.notify_all()
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
        with self._ledger.changed:
            self._stopping = True
            dropped = self._ledger.drop_unsent()
            line = self._line
        for call in dropped:
            call.future._cancel_now()
        self._break(lambda: BrokenProcessPool(f"{what}() was called while the call was running"))
        if line is not None and line.signal_workers is not None:
            line.signal_workers(number)

    # -- dispatcher thread -----------------------------------------------------------------

    def _dispatch(self) -> None:
        try:
            line = self._connect(self._settler.inbox.put)
            with self._ledger.changed:
                self._line = self._settler.line = line
                self._ledger.board = line.board
                self._ledger.changed.notify_all()
            line.backend.start(self._initializer)
            with self._ledger.changed:
                self._started = True
                self._ledger.changed.notify_all()
        except BaseException as exc:
            self._break(like(exc, "the cluster of this executor could not be started"))
        while self._dispatch_some():
            pass
        with contextlib.suppress(Exception):
            if self._line is not None:
                self._line.backend.close()
        with contextlib.suppress(Exception):
            if self._line is not None:
                self._line.close()
        self._settler.inbox.put(None)

    def _dispatch_some(self) -> bool:
        ledger = self._ledger
        with ledger.changed:
            while self._broken is None:
                room = self._policy.window(ledger.threads) - len(ledger.sent)
                calls = ledger.take(room)
                if calls:
                    break
                if self._stopping and not ledger.pending():
                    return False
                ledger.changed.wait()
            else:
                return False
        for call in calls:
            self._send(call)
        return True

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
        with self._ledger.changed:
            if not self._ledger.put_down(call):
                return  # cancelled meanwhile
            if self._broken is not None:
                error = self._broken()
            turn = self._ledger.send(call) if error is None else 0
        if isinstance(error, concurrent.futures.CancelledError):
            self._ledger.forget(call)
            call.future._cancel_now()
            return
        if error is not None:
            self._settler.over(call, error=error)
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
            self._ledger.submitted(call)
        except BaseException as exc:
            if line.backend.alive():
                self._settler.over(call, error=exc)
            else:
                self._settler.inbox.put(CHECK)

    def _park(self, call: Call, needed: concurrent.futures.Future[Any]) -> None:
        """Hold a call back until a future among its arguments is done; blocks no thread."""
        with self._ledger.changed:
            if not self._ledger.put_down(call):
                return
            broken = self._broken
            if broken is None:
                self._ledger.park(call)
        if broken is not None:
            self._settler.over(call, error=broken())
            return
        needed.add_done_callback(lambda _: self._ledger.unpark(call))

    # -- any thread ------------------------------------------------------------------------

    def _break(self, error: Callable[[], BaseException]) -> None:
        """Fail everything that is pending, and all submits from now on."""
        with self._ledger.changed:
            if self._broken is not None:
                return
            self._broken = error
            calls = self._ledger.drop_all()
            self._ledger.changed.notify_all()
        for call in calls:
            call.future._finish(error=error())


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
        dispatcher._ledger.changed = threading.Condition()
    _live.clear()


# Runs before threads are joined, unlike atexit: then no thread can be started any more. The
# stdlib's own pools hang on the same hook.
threading._register_atexit(_finish_all)  # type: ignore[attr-defined]
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
