"""Saying what an executor waits for. Floor 1.

A cluster without workers, or calls that ask for what no worker has, would be waited for in
silence. `Patience` notices, warns at growing intervals, and gives up where it was told to.
It has one user, the settle thread of a dispatcher.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from daskexec._supervision import say
from daskexec.options import CallOptions

__all__ = ["Patience"]


class Patience:
    """Look at what waits, and complain.

    Parameters
    ----------
    warn_after : float
        Seconds without any progress after which the first warning comes; later ones at
        twice the interval each, an hour at most.
    give_up_after : float, optional
        Seconds without any worker after which the executor is broken; None waits on.
    clock : callable
        Seconds, monotonic.
    """

    #: Seconds between two looks.
    PULSE = 1.0

    def __init__(
        self,
        warn_after: float = 5.0,
        give_up_after: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.warn_after, self.give_up_after = warn_after, give_up_after
        self._clock = clock
        self._last_look = clock()
        self._since: float | None = None
        self._interval = warn_after

    def due(self) -> bool:
        """Tell whether it is time for the next look."""
        now = self._clock()
        if now - self._last_look < self.PULSE:
            return False
        self._last_look = now
        return True

    def look(
        self,
        waiting: Sequence[CallOptions],
        threads: int,
        workers: Callable[[], list[dict[str, Any]]],
        known: str = "",
    ) -> str | None:
        """Warn if need be; return why to give up, if it has come to that.

        Parameters
        ----------
        waiting : sequence of CallOptions
            Those of the calls that were sent and have not begun.
        threads : int
            Worker threads there are.
        workers : callable
            Returns a description of every worker; called only to word a warning.
        known : str
            What is known of why there are no workers.
        """
        picky = [o for o in waiting if o.resources or o.workers]
        if not waiting or (threads and not picky):
            self._since, self._interval = None, self.warn_after
            return None
        now = self._clock()
        if self._since is None:
            self._since = now
        waited = now - self._since
        if not threads and self.give_up_after is not None and waited >= self.give_up_after:
            return f"no worker has joined the cluster for {waited:.0f} s" + _because(known)
        if waited >= self._interval:
            self._interval = min(self._interval * 2, self._interval + 3600)
            message = self._reason(waiting, picky, threads, waited, workers, known)
            if message:
                say(message)
        return None

    def _reason(
        self,
        waiting: Sequence[CallOptions],
        picky: Sequence[CallOptions],
        threads: int,
        waited: float,
        workers: Callable[[], list[dict[str, Any]]],
        known: str,
    ) -> str | None:
        calls = f"{len(waiting)} call{'s' if len(waiting) != 1 else ''}"
        if not threads:
            return (
                f"DaskExecutor is waiting: {calls} sent and no worker on the cluster for "
                f"{waited:.0f} s" + _because(known)
            )
        try:
            there = workers()
        except Exception:
            return None  # the cluster does not say just now; the next look asks again
        for options in picky:
            for name, amount in (options.resources or {}).items():
                most = max((w["resources"].get(name, 0) for w in there), default=0)
                if most < amount:
                    return (
                        f"DaskExecutor is waiting: a call needs resource {name}={amount:g}, "
                        f"and the workers offer at most {most:g} of it "
                        f"({len(there)} workers looked at)"
                    )
            if options.workers and not any(
                wanted in (w["address"], w["name"]) or f"//{wanted}:" in w["address"]
                for wanted in options.workers
                for w in there
            ):
                names = ", ".join(sorted(w["name"] for w in there)[:10])
                return (
                    f"DaskExecutor is waiting: a call asks for worker "
                    f"{' or '.join(options.workers)}; there are: {names}"
                )
        return None


def _because(known: str) -> str:
    return f" ({known})" if known else ""
