"""Saying what does not answer. Floor 1.

A scheduler or a worker that is stopped, overloaded or cut off keeps its connection for a while,
or for ever: calls just do not end. `Supervision` notices that, and warns at growing intervals for
as long as it lasts. It gives nothing up: what is stopped may go on, and what is lost Dask
notices. It has one user, the settle thread of a dispatcher.

What no worker can run, and what is known of workers that do not come, is for `daskexec._patience`.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable
from typing import Any

from daskexec.errors import ExecutorWarning

__all__ = ["Supervision", "say"]

#: Seconds in which a scheduler that is well answers.
_OWED = 0.1
_WAITING = "DaskExecutor is waiting: "
_LOG = logging.getLogger("daskexec")


def say(message: str) -> None:
    """Warn; where warnings are errors, which here would strike a thread of ours, log it."""
    try:
        # Not warnings.warn: no line of this file explains anything to its reader.
        warnings.warn_explicit(message, ExecutorWarning, "daskexec", 0)
    except ExecutorWarning:
        _LOG.warning(message)


class Supervision:
    """Look at what has become silent, and complain.

    Parameters
    ----------
    warn_after : float
        Seconds of silence after which the first warning comes; the next ones at twice the
        interval each, an hour at most.
    clock : callable
        Seconds, monotonic.
    """

    def __init__(
        self, warn_after: float = 5.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.warn_after, self._clock = warn_after, clock
        self._heard = clock()
        self._next = 0.0  # seconds of silence at which the next look, or warning, is due
        self._warned = ""  # of whom, since they were last heard
        self._mute_next: dict[str, float] = {}  # mute worker -> seconds at which to say so again

    def heard(self) -> None:
        """Note that something has come from the cluster."""
        self._heard = self._clock()
        if self._warned:
            _LOG.info("%s answers again", self._warned)
        self._next, self._warned = self.warn_after, ""

    def look(
        self,
        waiting: bool,
        silent: float,
        address: str,
        workers: Callable[[], list[dict[str, Any]]],
    ) -> None:
        """Warn if need be.

        Parameters
        ----------
        waiting : bool
            There are calls that have not ended.
        silent : float
            Seconds for which the scheduler has owed an answer.
        address : str
            The scheduler's.
        workers : callable
            Describes every worker, with the seconds for which it is "mute"; called where nothing
            has been heard for a while only.
        """
        if not waiting:
            self.heard()
            return
        quiet = self._clock() - self._heard
        if quiet < max(self._next, self.warn_after):
            return
        if silent >= self.warn_after:
            self._warn(
                quiet,
                f"the scheduler at {address}",
                f"{_WAITING}the scheduler at {address} has not answered for {silent:.0f} s: it is "
                f"stopped, overloaded or cut off. Calls that run go on; if it is lost for good, "
                f"they fail with SchedulerLost when the connection breaks",
            )
            return
        if silent > _OWED:
            return  # asking it would wait for the answer, too
        try:
            there = workers()
        except Exception:
            return  # the scheduler does not say just now; the next look asks again
        self._next = quiet + max(self.warn_after, len(there) / 50)
        self._judge(there, quiet)

    def mute(self, workers: list[dict[str, Any]]) -> None:
        """Warn, if need be, of workers that give no sign while others go on.

        Parameters
        ----------
        workers : list of dict
            Those that have calls, all of them: address, name, and "mute", in seconds.
        """
        if self._clock() - self._heard >= self.warn_after:
            return  # nothing comes from anybody: see `look`
        new = self._to_say(workers, self.warn_after)
        if new:
            say(_of_mute(new))

    def _to_say(self, mute: list[dict[str, Any]], patience: float) -> list[dict[str, Any]]:
        """Return those of the mute workers of which it is time to say so, now or again."""
        before, self._mute_next = self._mute_next, {}
        new = []
        for worker in mute:
            seconds, due = worker["mute"], before.get(worker["address"], patience)
            if seconds >= due:
                new.append(worker)
                due = seconds + min(seconds, 3600.0)
            self._mute_next[worker["address"]] = due
        return new

    def _judge(self, there: list[dict[str, Any]], quiet: float) -> None:
        # Workers give a sign once a second or more often, and more rarely where there are many.
        patience = max(self.warn_after, 2.0 + len(there) / 50)
        mute = [w for w in there if w["mute"] >= patience]
        new = self._to_say(mute, patience)
        paused = [w for w in there if w["paused"]]
        if new:
            self._warn(quiet, _names(new), _of_mute(new))
        elif not mute and paused and len(paused) == len(there):
            names = _names(paused)
            self._warn(
                quiet,
                names,
                f"{_WAITING}{names} {_have(paused)} paused: Dask begins no call there, as their "
                f"memory is nearly used up. Free some, or use workers with more",
            )

    def _warn(self, quiet: float, whom: str, what: str) -> None:
        self._warned = whom
        self._next = quiet + min(max(quiet, self.warn_after), 3600.0)
        say(what)


def _of_mute(workers: list[dict[str, Any]]) -> str:
    seconds = max(worker["mute"] for worker in workers)
    return (
        f"{_WAITING}{_names(workers)} {_have(workers)} given no sign for {seconds:.0f} s: "
        f"stopped, overloaded, cut off, or in a call that holds the GIL. What runs there goes on "
        f"if it does; a worker that is lost is noticed by Dask in time"
    )


def _names(workers: list[dict[str, Any]]) -> str:
    names = sorted(f"{w['name']} ({w['address']})" for w in workers)
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"worker{'s' if len(names) > 1 else ''} {', '.join(names[:5])}{more}"


def _have(workers: list[dict[str, Any]]) -> str:
    return "have" if len(workers) > 1 else "has"
