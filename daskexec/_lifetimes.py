"""Workers that end at a known time: where a call that takes long can still be run. Floor 1.

Workers of a queue's job run with ``--lifetime``, a little less than the job's walltime, and leave
when it is over; what they run then is cut off. A worker knows its own end exactly, so it is the
worker that refuses a call which would not fit (`daskexec._remote`). From the first refusal on
the client knows the ends, too, and sends such a call where it fits, or has it wait for a worker
that is still to come. On clusters without lifetimes nothing of this is ever asked or sent.

Pure: no threads, and the clock is passed in. Seconds *left* are those in which calls can be run,
without what delivering results takes (`SLACK`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

__all__ = ["CUT", "SLACK", "Lifetimes", "Where", "cut_too_often", "fits", "usable"]

#: Seconds before a worker's end by which its last results should be there, to be fetched.
SLACK = 1.0
#: Seconds before a worker's end at which a call that still runs is given up there.
CUT = 0.5
#: What a call is given more than its expected time, where that can be had.
_ROOM = 1.1
#: Most seconds that go by from a worker's start to its first call, about.
_START = 10.0
#: Times that a call is cut off before it fails: after it had about a whole lifetime, or at all.
_CUTS_WHOLE, _CUTS = 2, 5
#: Times that a call waits for a worker to come before it takes what there is.
_HOLDS = 5


def usable(lifetime: float) -> float:
    """Return the seconds that a call can have on a worker that has just come."""
    return max(0.0, lifetime - SLACK - min(_START, 0.1 * lifetime))


def fits(needs: float, left: float, lifetime: float) -> bool:
    """Tell whether a call that takes about `needs` seconds ends before its worker does."""
    roomy = _ROOM * needs
    return left >= (roomy if roomy <= usable(lifetime) else needs)


def cut_too_often(cuts: Collection[tuple[float, float]]) -> bool:
    """Tell whether a call is to fail that was cut off so often.

    Parameters
    ----------
    cuts : collection of (float, float)
        For each time the seconds it had run, and the lifetime of its worker.
    """
    whole = sum(ran >= usable(lifetime) for ran, lifetime in cuts)
    return whole >= _CUTS_WHOLE or len(cuts) >= _CUTS


@dataclass(frozen=True, slots=True)
class Where:
    """Where a task is to be run.

    Attributes
    ----------
    workers : tuple of str
        Addresses of those to choose from; none: it waits for a worker that is to come.
    forced : bool
        It runs there though it does not fit.
    strict : bool
        On no other worker, not even when these are gone or busy.
    most : float
        Seconds left of the worker that has most, for people.
    """

    workers: tuple[str, ...]
    forced: bool = False
    strict: bool = False
    most: float = 0.0


class Lifetimes:
    """The ends of the workers, as far as known.

    For one thread at a time: the ledger of the executor guards it with its lock.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ends: dict[str, tuple[float, float] | None] = {}  # (time, lifetime); None: endless

    @property
    def known(self) -> bool:
        """Whether any worker is known to have an end."""
        return any(self._ends.values())

    def learn(self, left: Mapping[str, tuple[float, float] | None]) -> None:
        """Take note of workers' seconds left and lifetimes; None for a worker without end."""
        now = self._clock()
        for worker, told in left.items():
            self._ends[worker] = (now + told[0], told[1]) if told is not None else None

    def keep(self, workers: Collection[str]) -> None:
        """Forget all workers but these."""
        self._ends = {worker: end for worker, end in self._ends.items() if worker in workers}

    def where(
        self, needs: float, holds: int = 0, *, was_cut: bool = False, strict: bool = False
    ) -> Where | None:
        """Say where a task that takes about `needs` seconds is to be run; None: anywhere.

        Parameters
        ----------
        needs : float
        holds : int
            Times that it has waited for a worker to come.
        was_cut : bool
            It was cut off before: it is not begun again where it would be for sure.
        strict : bool
            It has wishes of its own that must not be passed over.
        """
        if not needs or not self.known:
            return None
        now = self._clock()
        left = {
            worker: end[0] - now if end is not None else float("inf")
            for worker, end in self._ends.items()
        }
        fit = tuple(
            worker
            for worker, end in self._ends.items()
            if end is None or fits(needs, left[worker], end[1])
        )
        if len(fit) == len(left):
            return None
        best = max(left, key=left.__getitem__)
        if fit:
            return Where(fit, strict=strict, most=left[best])
        longest = max(end[1] for end in self._ends.values() if end is not None)
        never = needs > usable(longest) and (not was_cut or left[best] >= usable(longest))
        if left[best] > 0 and (never or holds >= _HOLDS):
            return Where((best,), forced=True, strict=strict, most=left[best])
        return Where((), strict=True, most=left[best])
