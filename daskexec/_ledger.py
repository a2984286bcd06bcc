"""The ledger: where every call of an executor stands. Floor 2.

::

    QUEUED ----> IN_HAND ----> SENT ----> OVER
      ^            |  ^          |
      |            v  |          |        (from any stage: OVER, when cancelled or broken)
      |          PARKED          |
      +------- another attempt --+

A call is QUEUED until the window has room; IN_HAND while the dispatcher thread pickles it;
PARKED while a future among its arguments is not done; SENT while it is with the scheduler.

The ledger starts no thread and knows neither Dask nor user code. Its one lock, `changed`, is the
only lock of a dispatcher; it is never held while pickling, while talking to the backend, or
while a future is set (which runs user code). It is reentrant, since the garbage collector may
shut an executor down on a thread that holds it.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from daskexec._board import Board
from daskexec._messages import Started
from daskexec.futures import DaskFuture
from daskexec.options import CallOptions

__all__ = ["IN_HAND", "OVER", "PARKED", "QUEUED", "SENT", "Call", "Ledger"]

QUEUED, IN_HAND, PARKED, SENT, OVER = range(5)


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
        "submitted",
        "suspect",
    )

    def __init__(
        self, future: DaskFuture[Any], fn: Any, args: Any, kwargs: Any, options: CallOptions
    ) -> None:
        self.future, self.fn, self.args, self.kwargs = future, fn, args, kwargs
        self.options = options
        self.key = _attempt_key(future.key, 1)  # of the current attempt
        self.blob: bytes | None = None
        self.slot = -1
        self.stage = QUEUED
        self.started: Started | None = None  # of the current attempt
        self.submitted = False  # the backend has the current attempt
        self.begun = 0  # attempts that a worker has begun
        self.resent = 0  # attempts in all, less one
        self.suspect = False  # it was there when workers died, more than once


class Ledger:
    """The calls of one executor. Every method may be called from any thread.

    Attributes
    ----------
    changed : threading.Condition
        The lock, and what is notified of every change that may let somebody go on.
    sent : dict
        Calls that are with the scheduler, by the key of their attempt.
    threads : int
        Worker threads there are.
    board : Board or None
        Where begun calls are marked; set when the cluster is up.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.sent: dict[str, Call] = {}
        self.threads = 0
        self.board: Board | None = None
        self._queues: dict[int, deque[Call]] = {}  # by priority
        self._urgent: deque[Call] = deque()
        self._suspects: deque[Call] = deque()  # sent one at a time
        self._parked: set[Call] = set()
        self._in_hand = 0
        self._worn: dict[int, set[str]] = {}  # process id -> keys it still owes

    def pending(self) -> int:
        """Return how many calls are not over."""
        with self.changed:
            queued = sum(map(len, self._queues.values())) + len(self._urgent)
            queued += len(self._suspects)
            return queued + self._in_hand + len(self._parked) + len(self.sent)

    # -- on the way to the scheduler -------------------------------------------------------

    def add(self, call: Call) -> None:
        """Queue a new call behind those of its priority."""
        with self.changed:
            self._queues.setdefault(-call.options.priority, deque()).append(call)
            self.changed.notify_all()

    def hurry(self, call: Call) -> None:
        """Let a queued call go next, whether the window has room or not."""
        with self.changed:
            if call.stage == QUEUED:
                with contextlib.suppress(KeyError, ValueError):  # it hurries already
                    self._queues[-call.options.priority].remove(call)
                    self._urgent.append(call)
                    self.changed.notify_all()

    def take(self, room: int) -> list[Call]:
        """Take up to `room` calls in hand, and those that cannot wait for room."""
        with self.changed:
            calls = [call for call in self._urgent if call.stage == QUEUED]
            self._urgent.clear()
            while self._suspects and not any(c.suspect for c in (*calls, *self.sent.values())):
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

    def put_down(self, call: Call) -> bool:
        """Have a call in hand no more; False when it is over meanwhile."""
        with self.changed:
            self._in_hand -= 1
            self.changed.notify_all()
            return call.stage != OVER

    def send(self, call: Call) -> int:
        """Enter a call as sent, with a slot on the board; return the slot's turn."""
        with self.changed:
            call.stage = SENT
            call.slot, turn = self.board.acquire() if self.board is not None else (-1, 0)
            self.sent[call.key] = call
            self.changed.notify_all()
            return turn

    def submitted(self, call: Call) -> None:
        """Note that the backend has a call that was entered as sent."""
        with self.changed:
            call.submitted = True
            self.changed.notify_all()

    def park(self, call: Call) -> None:
        """Hold a call back until `unpark`."""
        with self.changed:
            call.stage = PARKED
            self._parked.add(call)

    def unpark(self, call: Call) -> None:
        """Queue a parked call, ahead of all others."""
        with self.changed:
            if call.stage == PARKED:
                self._parked.discard(call)
                call.stage = QUEUED
                self._urgent.append(call)
                self.changed.notify_all()

    # -- on the way back -------------------------------------------------------------------

    def started(self, message: Started) -> Call | None:
        """Note that a worker has begun a call; None when it is over already."""
        with self.changed:
            call = self.sent.get(message.key)
            if call is not None:
                call.started = message
                call.begun += 1
            if message.worn:
                self._worn[message.pid] = {
                    key
                    for key, other in self.sent.items()
                    if other.started is not None and other.started.pid == message.pid
                }
            return call

    def worn_out(self) -> list[int]:
        """Return, once, the worn worker processes of which nothing is to come any more."""
        with self.changed:
            ready = [pid for pid, owed in self._worn.items() if not owed]
            for pid in ready:
                del self._worn[pid]
            return ready

    def waiting(self) -> list[CallOptions]:
        """Return the options of calls that are sent and not begun."""
        with self.changed:
            return [call.options for call in self.sent.values() if call.started is None]

    def again(self, call: Call) -> None:
        """Queue a call for another attempt, ahead of all others; suspects one at a time."""
        with self.changed:
            if call.stage != SENT:
                return
            self._unsend(call)
            call.resent += 1
            call.key = _attempt_key(call.future.key, 1 + call.resent)
            call.started, call.submitted = None, False
            call.stage = QUEUED
            (self._suspects if call.suspect else self._urgent).append(call)
            self.changed.notify_all()

    # -- out of the ledger -----------------------------------------------------------------

    def forget(self, call: Call) -> None:
        """Drop a call; its future is to be set by the caller, after."""
        with self.changed:
            self._unsend(call)
            self._parked.discard(call)
            call.stage = OVER
            call.fn = call.args = call.kwargs = call.blob = None
            call.future._call = None
            self.changed.notify_all()

    def forget_unsent(self, call: Call) -> bool:
        """Drop a call if it is not with the scheduler yet; tell whether it was dropped."""
        with self.changed:
            if call.stage >= SENT:
                return False
            self.forget(call)
            return True

    def drop_unsent(self, spare: int = 0) -> list[Call]:
        """Drop every call that is queued or parked, but for the first `spare`."""
        with self.changed:
            spared = self.take(spare) if spare else []
            self._in_hand -= len(spared)
            queued = [call for waiting in self._queues.values() for call in waiting]
            calls = [*queued, *self._urgent, *self._suspects, *self._parked]
            for waiting in (self._queues, self._urgent, self._suspects):
                waiting.clear()
            for call in spared:
                call.stage = QUEUED
                self._urgent.append(call)
            return self._drop(calls, lambda stage: stage in (QUEUED, PARKED))

    def drop_all(self) -> list[Call]:
        """Drop every call but those in hand, which the dispatcher thread sees to."""
        with self.changed:
            unsent = self.drop_unsent()
            return unsent + self._drop(list(self.sent.values()), lambda stage: stage == SENT)

    def _drop(self, calls: list[Call], where: Callable[[int], bool]) -> list[Call]:
        dropped = [call for call in calls if where(call.stage)]
        for call in dropped:
            self.forget(call)
        return dropped

    def _unsend(self, call: Call) -> None:
        self.sent.pop(call.key, None)
        if call.slot >= 0 and self.board is not None:
            self.board.release(call.slot)
            call.slot = -1
        for owed in self._worn.values():
            owed.discard(call.key)


def _attempt_key(key: str, attempt: int) -> str:
    """Name an attempt of a call, such that Dask groups all of them with the call itself.

    The call's own key is left for its plain value (`DaskFuture.dask_future`).
    """
    return f"{key[:-4]}{attempt & 0xFFFF:04x}"
