"""Futures that calls run after, without their values. Floor 0.

All calls with the same options wait for one future, the *gate*, that is done when all of these
are, or as soon as one of them has failed or was cancelled: a million items of a map add no million
callbacks to each of them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import CancelledError, Future
from typing import Any

__all__ = ["After"]


class After:
    """What some calls run after. For any thread.

    Parameters
    ----------
    futures : Future or iterable of Future
        Of any executors.

    Attributes
    ----------
    gate : Future
        Done when the calls may be sent, or cannot be: None is its value, or it has the
        exception of the first future that failed, or is cancelled as one of them was.
    failed : Future or None
        That future, once it has failed.

    Raises
    ------
    TypeError
        Something else is among them.
    """

    def __init__(self, futures: Any) -> None:
        if isinstance(futures, Future):
            futures = (futures,)
        if not isinstance(futures, Iterable):
            raise TypeError(
                f"after must be a Future or several of them, not {type(futures).__name__}"
            )
        waited = tuple(futures)
        for future in waited:
            if not isinstance(future, Future):
                raise TypeError(
                    f"after must be a Future or several of them; among them is one "
                    f"{type(future).__name__}, {future!r:.80}"
                )
        self.gate: Future[None] = Future()
        self.failed: Future[Any] | None = None
        self._lock = threading.Lock()  # guards the count
        self._left = len(waited) + 1  # one for this method, so that it is not done too early
        for future in waited:
            # A DaskFuture may have run, and have left its value with the workers: it is not asked.
            hear = getattr(future, "add_run_callback", None) or future.add_done_callback
            hear(self._done)
        self._count()

    def _done(self, future: Future[Any]) -> None:
        if getattr(future, "is_remote", bool)() or future.running():
            self._count()
            return
        try:
            error = future.exception()
        except CancelledError:
            if self._first():
                self.gate.cancel()
                self.gate.set_running_or_notify_cancel()
            return
        if error is None:
            self._count()
        elif self._first():
            self.failed = future
            self.gate.set_exception(error)

    def _count(self) -> None:
        with self._lock:
            self._left -= 1
            last = self._left == 0
        if last:
            self.gate.set_result(None)

    def _first(self) -> bool:
        """Tell whether nothing has decided the gate yet; from now on something has."""
        with self._lock:
            first, self._left = self._left > 0, -1
        return first

    def __reduce__(self) -> Any:
        raise TypeError(
            "an executor with after= cannot be sent into a call: the futures that it waits for "
            "are known to this process alone"
        )
