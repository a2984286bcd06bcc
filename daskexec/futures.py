"""DaskFuture: a ``concurrent.futures.Future`` that knows its place in Dask. Floor 1."""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures._base import (
    CANCELLED,
    CANCELLED_AND_NOTIFIED,
    FINISHED,
    PENDING,
    RUNNING,
)
from typing import Any, Protocol, TypeVar

from daskexec._records import Record, info_of, under_way
from daskexec.info import CallInfo, CallOutput

__all__ = ["DaskFuture", "Promise", "finish_all", "set_all_running"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_LOG = logging.getLogger("concurrent.futures")  # where the stdlib's futures log this

#: Guards the making of conditions, and the states of futures that have none. Held for
#: assignments only; reentrant, since the garbage collector may run anything in between.
_unwatched = threading.RLock()


class Promise(Protocol[T_co]):
    """For type checkers: a future of a `T_co`, or of what may stand for one.

    The stdlib's type is invariant: there a future of an int is none of a float.
    """

    def done(self) -> bool: ...

    def result(self, timeout: float | None = None) -> T_co: ...

    def exception(self, timeout: float | None = None) -> BaseException | None: ...


class Canceller(Protocol):
    """What a pending future asks of its dispatcher."""

    executor: str

    def cancel(self, future: DaskFuture[Any]) -> bool: ...

    def kill(self, future: DaskFuture[Any]) -> bool: ...

    def dask_future(self, future: DaskFuture[Any]) -> Any: ...

    def refuse_to_block(self) -> None: ...

    def takes_callbacks(self, future: DaskFuture[Any]) -> bool: ...

    def ask(self, future: DaskFuture[Any]) -> None: ...

    def is_there(self, future: DaskFuture[Any]) -> bool: ...

    def use(self, futures: list[DaskFuture[Any]]) -> None: ...


class DaskFuture(concurrent.futures.Future[T]):
    """The result of a call that a `DaskExecutor` runs.

    It is a ``concurrent.futures.Future`` with all its guarantees: every method may be called
    from any thread; ``concurrent.futures.wait`` and ``as_completed`` take it, also mixed with
    futures of other executors. It can be awaited.

    Callbacks run on a thread of the executor, never on an event loop of Dask, one after the
    other; a slow one delays later callbacks of the same executor only.

    Notes
    -----
    A stdlib future takes a lock, a condition and three lists from the start, 2 kB. Here they
    are made when somebody waits or adds a callback, which most futures never see: a pending
    one takes a few hundred bytes.
    """

    __slots__ = (
        "_call",
        "_callbacks",
        "_canceller",
        "_ends",
        "_exception",
        "_lazy_condition",
        "_name",
        "_needed",
        "_number",
        "_record",
        "_result",
        "_state",
        "_submitted",
        "_watched",
        "_watchers",
    )

    def __init__(
        self, name: str = "", number: int = 0, canceller: Canceller | None = None
    ) -> None:
        # Not the stdlib's __init__: it makes what `_condition` and the lists make when needed.
        self._state = PENDING
        self._result: Any = None
        self._exception: BaseException | None = None
        self._lazy_condition: threading.Condition | None = None
        self._watchers: list[Any] | None = None
        self._watched = False  # somebody has waited for it, or is about to
        self._callbacks: list[Callable[[DaskFuture[T]], object]] | None = None
        self._name, self._number, self._canceller = name, number, canceller
        self._call: Any = None  # the dispatcher's record, while the call is not settled
        self._record: Record | None = None  # set before that becomes None: what ran the call
        self._submitted = 0.0  # seconds since the epoch
        # What the dispatcher does first when it is done; None: nothing.
        self._needed: list[Callable[[DaskFuture[T]], object]] | None = None
        self._ends: list[Callable[[DaskFuture[T]], object]] | None = None  # see add_run_callback

    @property
    def key(self) -> str:
        """Name of the call's task in Dask: what dashboard and logs show."""
        executor = "" if self._canceller is None else self._canceller.executor
        return f"{self._name}-{executor}{self._number & 0xFFFFFFFF:08x}0000"

    def info(self) -> CallInfo:
        """Return what is known of the call now: where, when and how long it ran, sizes.

        Returns
        -------
        CallInfo
            A record that does not change: ask again for news.

        Notes
        -----
        It may be asked for at any moment, from any thread, and does not wait. Of a call that
        takes less than some milliseconds it is not known that it runs until it is over.
        """
        call = self._call  # before the record
        record = self._record
        if record is None and call is not None:
            record = under_way(call)
        failed = self._exception is not None
        return info_of(self._name, self.key, self._number, self._submitted, record, failed)

    @property
    def output(self) -> CallOutput | None:
        """What the call wrote and logged, when it is done: also when it has failed.

        None until then, and where nothing was captured: without
        ``with_options(capture_output=True)``, and of a call that did not run, ended with its
        worker, or was left by `DaskExecutor.detach`. Of a call that was run again (``retries``)
        the last attempt's.
        """
        record = self._record
        if record is None or not (self._is_over() or self.is_remote()):
            return None
        return record.unpacked_output()

    def __reduce__(self) -> Any:
        # Before pickle has gone through all that hangs on it.
        raise TypeError("cannot pickle a DaskFuture: only as an argument it stands for its value")

    def _ask(self) -> None:
        """Have the value brought here if it was left with the workers: somebody wants it."""
        call = self._call
        if call is not None and call.promise is not None and self._canceller is not None:
            self._canceller.ask(self)

    def _need(self, then: Callable[[DaskFuture[T]], object]) -> bool:
        """Have ``then(self)`` called when it is done, on the thread that sets it; False if it is.

        For the dispatcher: nobody has asked for the value by that.
        """
        with self._own_condition():
            if self._is_over():
                return False
            self._need_surely(then)
            return True

    def _need_surely(self, then: Callable[[DaskFuture[T]], object]) -> None:
        """The same, of one that cannot become done until this returns; takes no lock of its own.

        (One that holds the condition may be waiting for the lock that its caller has.)
        """
        self._own_condition()  # for whoever sets it to see that something is to be done
        self._needed = [*(self._needed or ()), then]

    def _is_over(self) -> bool:
        """Tell whether it is done; nobody has asked by that."""
        return self._state not in (PENDING, RUNNING)

    # The stdlib's functions and methods use these three. Whoever does anything with a future
    # that is not done, but for cancelling it, uses the first of them.

    @property
    def _condition(self) -> threading.Condition:  # type: ignore[override]
        condition = self._own_condition()
        self._watched = True
        self._ask()
        return condition

    def _own_condition(self) -> threading.Condition:
        condition = self._lazy_condition
        if condition is None:
            made = threading.Condition()
            with _unwatched:
                condition = self._lazy_condition
                if condition is None:
                    condition = self._lazy_condition = made
        return condition

    @property
    def _waiters(self) -> list[Any]:  # type: ignore[override]
        if self._watchers is None:  # under the condition, as all use of it
            self._watchers = []
        return self._watchers

    @property
    def _done_callbacks(self) -> list[Callable[[DaskFuture[T]], object]]:
        if self._callbacks is None:
            self._callbacks = []
        return self._callbacks

    def cancel(self, *, kill: bool = False) -> bool:
        """Cancel the call, unless it has begun.

        Parameters
        ----------
        kill : bool
            Cancel it also while it runs: its worker process is killed as soon as nothing else
            runs in it, and takes no further call. Other calls are not lost, and not run twice.

        Returns
        -------
        bool
            True: the future is cancelled, and unless with `kill` the call has not run and will
            not. False: it is running or done.

        Notes
        -----
        A call still on the client is cancelled at once. For one that is with the scheduler
        the workers are asked whether they have begun it: a few milliseconds, 5 seconds at
        most. On a thread with a running event loop nothing blocks: the workers are asked, the
        answer is False, and the future becomes cancelled if they had not. Calls that share a
        Dask task count as begun when the first of them is.

        With `kill` the same holds for a call that shares its task: the worker is asked first which
        of them it runs. One that runs alone is cancelled at once. A process whose GIL the
        call holds is killed too, unless that is one of a cluster that daskexec did not start
        and has several threads or no nanny: there it ends when the call lets go, and a warning
        says so. A worker without a nanny is not replaced, unless its cluster does so.
        """
        if kill and self._canceller is not None and not (self._is_over() or self.is_remote()):
            return self._canceller.kill(self)
        if self._state != PENDING or self._canceller is None:
            return super().cancel()
        return self._canceller.cancel(self)

    def cancelled(self) -> bool:
        """Tell whether the call was cancelled."""
        return self._state.startswith(CANCELLED)

    def running(self) -> bool:
        """Tell whether a worker has begun the call, or the task that it shares."""
        return self._state == RUNNING and not self.is_remote()

    def is_remote(self) -> bool:
        """Tell whether the call has run, and its value is with the workers and not here.

        So it is while other calls need the value, or after ``with_options(remote=True)``, and
        nobody has done anything with the future that asks for it, such as `done` or `result`;
        this method does not.
        """
        return (
            self._state == RUNNING
            and self._canceller is not None
            and self._canceller.is_there(self)
        )

    def add_run_callback(
        self, fn: Callable[[DaskFuture[T]], object], *, remote: bool = False
    ) -> None:
        """Have ``fn(future)`` called when the call has run or was cancelled.

        As ``add_done_callback``, but the value is not asked for: it may be with the workers
        still, see `is_remote`.

        Parameters
        ----------
        fn : callable
            What it returns is ignored.
        remote : bool
            Leave the value with the worker, as ``with_options(remote=True)`` does, for a call
            to come: unless it has come already, or somebody asks for it before.
        """
        if remote and self._canceller is not None:
            self._canceller.use([self])
        with self._own_condition():
            self._ends = [*(self._ends or ()), fn]
        if self._is_over() or self.is_remote():
            self._run_ends()

    def done(self) -> bool:
        """Tell whether the call was cancelled or has finished."""
        if self._state == FINISHED or self.cancelled():
            return True
        self._ask()
        return False

    def _cancel_now(self) -> bool:
        """Become cancelled and wake all who wait; False when it is running or done."""
        if not super().cancel():
            return False
        with self._condition:
            if self._state == CANCELLED:
                self.set_running_or_notify_cancel()
        return True

    def _cancel_running(self) -> bool:
        """Become cancelled, though it may be running, and wake all who wait; False when done."""
        condition = self._own_condition()
        with condition:
            if self._is_over():
                return False
            self._state = CANCELLED_AND_NOTIFIED
            for waiter in self._waiters:
                waiter.add_cancelled(self)
            condition.notify_all()
        self._invoke_callbacks()
        return True

    def _finish(self, *, value: Any = None, error: BaseException | None = None) -> None:
        """Become done, once; a future that was cancelled meanwhile stays so."""
        set_all_running([self])
        with contextlib.suppress(concurrent.futures.InvalidStateError):
            if error is not None:
                self.set_exception(error)
            else:
                self.set_result(value)

    def _invoke_callbacks(self) -> None:
        # Called by the stdlib's set_result and friends, on whatever thread sets the result.
        needed, self._needed = self._needed, None
        for then in needed or ():
            then(self)
        if not self._callbacks and not self._ends:
            return
        if self._canceller is None or not self._canceller.takes_callbacks(self):
            self._run_callbacks()

    def _run_ends(self) -> None:
        with self._own_condition():
            ends, self._ends = self._ends, None
        self._run_each(ends or ())

    def _run_callbacks(self) -> None:
        """Run all that is due: not those for when it is done, while its value is remote."""
        if self._ends:
            self._run_ends()
        if self._callbacks and self._is_over():
            self._run_each(self._callbacks)

    def _run_each(self, callbacks: Iterable[Callable[[DaskFuture[T]], object]]) -> None:
        for callback in callbacks:
            try:
                callback(self)
            except KeyboardInterrupt:
                raise
            except BaseException:  # SystemExit too: it would end the thread for all others
                _LOG.exception("exception calling callback for %r", self)

    def result(self, timeout: float | None = None) -> T:
        """Return the value of the call, or raise what it raised.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait at most; None waits without limit.

        Raises
        ------
        TimeoutError
            The call is not done after `timeout` seconds.
        CancelledError
            The call was cancelled.
        WorkerDied
            The worker process ended under the call.
        RuntimeError
            Called where waiting would stop the progress that it waits for: on the thread of
            the event loop that carries this executor.
        """
        exc = self.exception(timeout)
        if exc is not None:
            # The same exception may be raised many times: its frames must not pile up.
            raise exc.with_traceback(None)
        value: T = self._result
        return value

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return what the call raised, or None; waits and raises as `result` does."""
        if self._state != FINISHED:
            if self._canceller is not None and not self.done():
                self._canceller.refuse_to_block()
            return super().exception(timeout)
        return self._exception

    @property
    def dask_future(self) -> Any:
        """A ``distributed.Future`` for the call's plain value, to hand to other Dask code.

        Raises
        ------
        RuntimeError
            The executor is shut down.
        CancelledError
            The call was cancelled.

        Notes
        -----
        A call that still waits on the client is sent at once; one whose arguments hold
        futures that are not done is waited for.
        """
        if self._canceller is None:
            raise RuntimeError("this future belongs to no executor")
        return self._canceller.dask_future(self)

    def __await__(self) -> Generator[Any, None, T]:
        import asyncio  # not before somebody awaits: it takes as long to import as all the rest

        return asyncio.wrap_future(self).__await__()


def set_all_running(futures: Iterable[DaskFuture[Any]]) -> None:
    """Have futures become RUNNING, those that are not yet, or done."""
    watched = []
    with _unwatched:
        for future in futures:
            if future._lazy_condition is not None:
                watched.append(future)
            elif future._state == PENDING:
                future._state = RUNNING
    for future in watched:
        with future._own_condition():
            if future._state == PENDING:
                future._state = RUNNING


def finish_all(
    results: Iterable[tuple[DaskFuture[Any], Any, BaseException | None]],
) -> None:
    """Set the value, or else the error, of many futures; see `DaskFuture._finish`."""
    watched = []
    with _unwatched:
        for future, value, error in results:
            if future._lazy_condition is not None:
                watched.append((future, value, error))
            elif future._state == PENDING or future._state == RUNNING:
                future._result, future._exception = value, error
                future._state = FINISHED
    for future, value, error in watched:
        future._finish(value=value, error=error)
