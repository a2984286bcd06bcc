"""DaskFuture: a ``concurrent.futures.Future`` that knows its place in Dask. Floor 1."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
from collections.abc import Callable, Generator
from typing import Any, Protocol, TypeVar

__all__ = ["DaskFuture"]

T = TypeVar("T")

_LOG = logging.getLogger("concurrent.futures")  # where the stdlib's futures log this


class Canceller(Protocol):
    """What a pending future asks of its dispatcher."""

    def cancel(self, future: DaskFuture[Any]) -> bool: ...

    def dask_future(self, future: DaskFuture[Any]) -> Any: ...

    def refuse_to_block(self) -> None: ...

    def takes_callbacks(self, future: DaskFuture[Any]) -> bool: ...


class DaskFuture(concurrent.futures.Future[T]):
    """The result of a call that a `DaskExecutor` runs.

    It is a ``concurrent.futures.Future`` with all its guarantees: every method may be called
    from any thread; ``concurrent.futures.wait`` and ``as_completed`` take it, also mixed with
    futures of other executors. It can be awaited.

    Callbacks run on a thread of the executor, never on an event loop of Dask, one after the
    other; a slow one delays later results of the same executor only.

    Attributes
    ----------
    key : str
        Name of the call's task in Dask: what dashboard and logs show.
    """

    def __init__(self, key: str = "", canceller: Canceller | None = None) -> None:
        super().__init__()
        self._done_callbacks: list[Callable[[DaskFuture[T]], object]]  # the stdlib's
        self.key = key
        self._canceller = canceller
        self._call: Any = None  # the dispatcher's record, while the call is not settled

    def cancel(self) -> bool:
        """Cancel the call, unless it has begun.

        Returns
        -------
        bool
            True: the call has not run and will not. False: it is running or done.

        Notes
        -----
        A call still on the client is cancelled at once. For one that is with the scheduler
        the workers are asked whether they have begun it: a few milliseconds, 5 seconds at
        most. On a thread with a running event loop nothing blocks: the workers are asked, the
        answer is False, and the future becomes cancelled if they had not.
        """
        with self._condition:
            if self._state == "PENDING" and self._canceller is not None:
                canceller = self._canceller
            else:
                return super().cancel()
        return canceller.cancel(self)

    def _cancel_now(self) -> bool:
        """Become cancelled and wake all who wait; False when it is running or done."""
        if not super().cancel():
            return False
        with self._condition:
            if self._state == "CANCELLED":
                self.set_running_or_notify_cancel()
        return True

    def _set_running(self) -> None:
        """Become RUNNING, unless it is already, or done."""
        with self._condition:
            if self._state == "PENDING":
                self.set_running_or_notify_cancel()

    def _finish(self, *, value: Any = None, error: BaseException | None = None) -> None:
        """Become done, once; a future that was cancelled meanwhile stays so."""
        self._set_running()
        with contextlib.suppress(concurrent.futures.InvalidStateError):
            if error is not None:
                self.set_exception(error)
            else:
                self.set_result(value)

    def _invoke_callbacks(self) -> None:
        # Called by the stdlib's set_result and friends, on whatever thread sets the result.
        if not self._done_callbacks:
            return
        if self._canceller is None or not self._canceller.takes_callbacks(self):
            self._run_callbacks()

    def _run_callbacks(self) -> None:
        for callback in self._done_callbacks:
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
        self._refuse_to_block()
        exc = self.exception(timeout)
        if exc is not None:
            # The same exception may be raised many times: its frames must not pile up.
            raise exc.with_traceback(None)
        return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return what the call raised, or None; waits and raises as `result` does."""
        self._refuse_to_block()
        return super().exception(timeout)

    def _refuse_to_block(self) -> None:
        if self._canceller is not None and not self.done():
            self._canceller.refuse_to_block()

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
        return asyncio.wrap_future(self).__await__()
