"""Saying what an executor waits for. Floor 1.

A cluster without workers, or calls that ask for what no worker has, would be waited for in
silence. `Patience` notices, warns at growing intervals, and gives up where it was told to.
It has one user, the settle thread of a dispatcher.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any

from daskexec._naming import is_meant
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
        lacks = [lack for options in picky if (lack := _lack(options, there))]
        if not lacks:
            return None
        return (
            f"DaskExecutor is waiting: {lacks[0]}. It goes on when a worker joins that has what "
            f"is asked for; cancel the call if none will"
        )


def _lack(options: CallOptions, there: Sequence[dict[str, Any]]) -> str:
    """Say what calls ask for that no worker has; "" if one has all of it."""
    able = [
        worker
        for worker in there
        if options.workers is None or is_meant(options.workers, worker["address"], worker["name"])
    ]
    if not able:
        names = sorted(worker["name"] for worker in there)
        known = [*names, *(worker["address"] for worker in there)]
        wanted = " or ".join(options.workers or ())
        return (
            f"a call asks for worker {wanted}{_nearest(options.workers or (), known)}; "
            f"there are: {_few(names)}"
        )
    needs = options.resources or {}
    if any(all(w["resources"].get(name, 0) >= needs[name] for name in needs) for w in able):
        return ""
    where = _few(options.workers) if options.workers else "the workers"
    for name, amount in needs.items():
        most = max(worker["resources"].get(name, 0) for worker in able)
        if most < amount:
            offered = sorted({one for worker in able for one in worker["resources"]})
            near = "" if name in offered else _nearest([name], offered)
            return (
                f"a call needs resource {name}={amount:g}{near}, and {where} offer at most "
                f"{most:g} of it ({len(able)} workers looked at; resources there are: "
                f"{_few(offered)})"
            )
    wanted = " and ".join(f"{name}={amount:g}" for name, amount in needs.items())
    return f"a call needs {wanted} on one worker, and each is offered by another one"


def _nearest(wanted: Sequence[str], known: Sequence[str]) -> str:
    near = [match for name in wanted for match in get_close_matches(name, known, 1)]
    return f" (is {near[0]!r} meant?)" if near else ""


def _few(names: Sequence[str]) -> str:
    if not names:
        return "none"
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def _because(known: str) -> str:
    return f" ({known})" if known else ""
