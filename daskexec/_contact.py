"""Whether this worker is still in touch with its scheduler, before it begins a call. Floor 4.

A worker that is stopped, or cut off, for too long is removed by the scheduler
(``distributed.scheduler.worker-ttl``), and what it had not begun is run elsewhere. When it goes
on it does not know that: what it has queued would be begun, and run twice, before it hears of it.
So one that the scheduler has not answered for a while asks whether a task is still its own.

::

    event loop                          thread of a call
    ----------                          ----------------
    each half second: was a heartbeat   before a call: is that too long ago?
    answered? when, at the earliest?    then: is the task still here? waits for the answer

It asks after it has marked the task as begun (`daskexec._marks`): one that is stopped before that
has not begun it, and will not; of one that is stopped after that the client does not have it run
again. For that what it leaves is kept when it ends. On clusters of our own the board serves for
all that.

Names of Dask that are used here: ``Worker.scheduler_delay``, which each answered heartbeat sets,
``periodic_callbacks``, ``address``, ``status``, ``loop`` and ``scheduler.processing``.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
import weakref
from typing import Any

from distributed import Status

from daskexec._board import Leave
from daskexec._marks import Trail, keep_left
from daskexec._run import Run

__all__ = ["Contact", "Heeding", "contact_of"]

#: Seconds between two looks.
_EVERY = 0.5
#: Seconds, and heartbeats, without an answer after which the scheduler is asked. It removes no
#: worker before 5 seconds, nor before 10 heartbeats.
_PATIENCE, _BEATS = 4.5, 9

_contacts: weakref.WeakKeyDictionary[Any, Contact] = weakref.WeakKeyDictionary()


class Contact:
    """What one worker knows of its scheduler's attention.

    Attributes
    ----------
    until : float
        Until then, by ``time.monotonic``, the scheduler has not removed this worker.
    """

    def __init__(self, worker: Any) -> None:
        self._worker = weakref.ref(worker)
        self.until = 0.0  # it may have been stopped since what is here was queued
        self._patience = _PATIENCE
        self._heard = worker.scheduler_delay
        self._looked, self._steady = time.monotonic(), False
        worker.loop.add_callback(self._look)

    def _look(self) -> None:
        worker, now = self._worker(), time.monotonic()
        if worker is None or worker.status == Status.closed:
            return
        # An answer that is read late, since this process was stopped, tells of the time before.
        steady, self._steady = self._steady, now - self._looked < 2 * _EVERY
        if worker.scheduler_delay != self._heard and steady and self._steady:
            interval = worker.periodic_callbacks["heartbeat"].callback_time / 1000
            self._patience = max(_PATIENCE, _BEATS * interval)
            self.until = max(self.until, self._looked + self._patience)
        self._heard, self._looked = worker.scheduler_delay, now
        keep_left(worker, 0 < self.until < now)
        worker.loop.call_later(_EVERY, self._look)

    def has(self, key: str) -> bool:
        """Tell whether a task is still this worker's; on any thread but the loop's."""
        now = time.monotonic()
        if now < self.until:
            return True
        worker: Any = self._worker()
        asking = asyncio.run_coroutine_threadsafe(_its(worker), worker.loop.asyncio_loop)
        while not concurrent.futures.wait([asking], _EVERY).done:
            if worker.status in (Status.closing, Status.closed, Status.failed):
                asking.cancel()
                return False
        try:
            its = asking.result()
        except Exception:  # it does not know this worker any more, or the connection has broken
            return False
        self.until = max(self.until, now + self._patience)
        return key in its


async def _its(worker: Any) -> list[str]:
    """Return the keys of a worker's tasks, as its scheduler knows them."""
    told = await worker.scheduler.processing(workers=[worker.address])
    its: list[str] = told[worker.address]
    return its


def contact_of(worker: Any) -> Contact:
    """Return the contact of a worker; under a lock of the caller."""
    contact = _contacts.get(worker)
    if contact is None:
        contact = _contacts[worker] = Contact(worker)
    return contact


class Heeding:
    """Leaves results as a `Trail` does, and begins no further call of a task that was lost."""

    def __init__(self, contact: Contact, run: Run, trail: Trail | None) -> None:
        self._contact, self._run, self._trail = contact, run, trail

    def trail(self, slot: int, turn: int, calls: int) -> Leave:
        """As of a `Board`."""
        contact, run, now = self._contact, self._run, time.monotonic
        leave_there = None if self._trail is None else self._trail.trail(slot, turn, calls)

        def leave(index: int, result: Any, *kind: int) -> None:
            if leave_there is not None:
                leave_there(index, result, *kind)
            if now() > contact.until and run.todo and not contact.has(run.ticket.key):
                run.hand_back()

        return leave
