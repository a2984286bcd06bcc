"""How much work the scheduler is given at a time. Pure: no threads, no clock. Floor 1.

The backlog of an executor stays on the client, where a call can be cancelled for free and
costs the scheduler nothing; only a *window* of calls is with the scheduler. `BatchPolicy`
decides how wide it is.
"""

from __future__ import annotations

__all__ = ["BatchPolicy"]


class BatchPolicy:
    """Decide from measured run times how many calls may be with the scheduler at once.

    A worker that finishes a call needs its next one at hand, or it idles for the 10 ms or so
    that a message to the client and back takes. So the window holds, for each thread, the
    running call, a spare one, and as many more as fill `ahead` seconds. For calls longer than
    `ahead` that is two a thread; for calls of 1 ms it is `deepest`.

    Parameters
    ----------
    ahead : float
        Seconds of work for each thread that may wait on the scheduler.
    deepest : int
        Most calls for each thread in the window, however short they are.
    limit : int, optional
        Most calls in the window altogether: ``max_workers`` on a shared cluster.
    """

    #: Weight of the newest run time in the mean.
    WEIGHT = 0.1

    def __init__(self, ahead: float = 0.5, deepest: int = 64, limit: int | None = None) -> None:
        self.ahead, self.deepest, self.limit = ahead, deepest, limit
        self._mean: float | None = None

    @property
    def mean_seconds(self) -> float | None:
        """Exponentially weighted mean run time of calls; None before the first."""
        return self._mean

    def observe(self, seconds: float) -> None:
        """Take note of the run time of one finished call."""
        mean = self._mean
        self._mean = seconds if mean is None else mean + self.WEIGHT * (seconds - mean)

    def window(self, threads: int) -> int:
        """Return how many calls may be with the scheduler for that many worker threads.

        At least two, also without any worker: an adaptive cluster grows only when it sees
        that there is work.
        """
        each = 2
        if self._mean is not None:
            each = min(self.deepest, max(2, 1 + int(self.ahead / max(self._mean, 1e-6))))
        wide = each * max(threads, 1)
        return wide if self.limit is None else min(wide, self.limit)
