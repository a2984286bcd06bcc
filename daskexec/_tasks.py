"""Calls, items of a map, and the tasks that carry them: the ledger's records. Floor 3.

They know nothing and do nothing; the lock of the `daskexec._ledger` that they are in guards them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from daskexec._calls import Load
from daskexec._large import Large
from daskexec._messages import Started
from daskexec.futures import DaskFuture
from daskexec.options import CallOptions

__all__ = [
    "IN_HAND",
    "OVER",
    "PARKED",
    "QUEUED",
    "SENT",
    "Call",
    "Job",
    "Raised",
    "Stretch",
    "Task",
]

QUEUED, IN_HAND, PARKED, SENT, OVER = range(5)


class Call:
    """One user call, from submit until it is settled."""

    __slots__ = (
        "alone",
        "args",
        "begun",
        "blob",
        "carried",
        "cuts",
        "fn",
        "function",
        "future",
        "holds",
        "kwargs",
        "large",
        "needs",
        "options",
        "resent",
        "since",
        "stage",
        "suspect",
        "task",
        "wanted",
    )

    def __init__(
        self, future: DaskFuture[Any], fn: Any, args: Any, kwargs: Any, options: CallOptions
    ) -> None:
        self.future, self.fn, self.args, self.kwargs = future, fn, args, kwargs
        self.options = options
        self.stage = QUEUED
        self.function: Any = None  # what the policy knows of it, once it was taken
        self.task: Task | None = None  # while SENT
        self.blob: bytes | None = None  # once pickled
        self.carried: tuple[bytes, bool] | None = None  # its function, where that goes apart
        self.large: Sequence[Large] = ()  # what the blob refers to
        self.alone = options.alone  # it shares no task
        self.wanted = True  # nobody waits for the workers' word on cancelling it
        self.begun = 0  # earlier attempts that a worker has begun
        self.resent = 0  # attempts in all, less one
        self.since: int | None = None  # `Task.since` of an earlier attempt
        self.suspect = False  # it was there when workers died, more than once
        self.needs = 0.0  # seconds that it is known to need, since a worker's end has cut it off
        self.cuts: list[tuple[float, float]] = []  # (seconds run, lifetime) of each such time
        self.holds = 0  # times that it has waited for a worker with time enough


class Raised:
    """What an item of a map came to that ended with an error of this process."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class Job(Protocol):
    """What the ledger knows of a map: its iterator takes what its items come to."""

    fn: Any
    name: str
    single: bool
    options: CallOptions
    chunk: int | None
    cancelled: bool  # nobody waits for its items any more
    number: int | None  # among those of calls; None if items are still to be added

    def next_key(self) -> str:
        """Return a key for the next task of this map."""

    def make_call(self, item: Any) -> Call:
        """Return an item as a call with a future."""

    def fill(self, first: int, run: list[Any], *, plain: bool = False) -> None:
        """Take what the items from `first` on came to: `plain` values, or bodies."""


class Stretch:
    """Consecutive items of a map that are at the same stage.

    An item is the only argument of its call, if the job is `single`, or the tuple of all.
    """

    __slots__ = (
        "begun",
        "cuts",
        "first",
        "holds",
        "items",
        "job",
        "needs",
        "over",
        "pickled",
        "since",
    )

    def __init__(self, job: Job, first: int, items: list[Any], since: int | None = None) -> None:
        self.job, self.first, self.items = job, first, items
        self.since = since  # `Task.since` of an earlier attempt
        # As of a `Call`; of one that has a single item.
        self.needs, self.holds, self.begun = 0.0, 0, 0
        self.cuts: list[tuple[float, float]] = []
        self.over = False
        self.pickled: Load | None = None

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, part: slice) -> Stretch:
        first = part.start or 0
        return self._like(self.first + first, self.items[part])

    def _like(self, first: int, items: list[Any]) -> Stretch:
        other = Stretch(self.job, first, items, self.since)
        other.needs, other.holds, other.cuts = self.needs, self.holds, self.cuts
        other.begun = self.begun
        return other

    def split(self, size: int) -> Stretch:
        """Take the first `size` items off it, as another stretch."""
        if size >= len(self.items):
            head, self.items = self.items, []
        else:
            head = self.items[:size]
            del self.items[:size]
        taken = self._like(self.first, head)
        self.first += len(head)
        return taken


class Task:
    """One attempt to have some calls, or some items of a map, run.

    Results come for the first ones first, and what is handed back is always the last ones:
    those from `told` to `end` are still the task's.
    """

    __slots__ = (
        "ahead",
        "begun",
        "end",
        "function",
        "held",
        "key",
        "load",
        "mixed",
        "observed",
        "options",
        "placed",
        "seconds",
        "since",
        "slot",
        "slow",
        "started",
        "started_at",
        "submitted",
        "told",
    )

    def __init__(
        self, load: list[Call] | Stretch, options: CallOptions, function: Any, seconds: float
    ) -> None:
        self.load, self.options, self.function, self.seconds = load, options, function, seconds
        self.key = ""
        self.slot = -1
        self.told, self.end = 0, len(load)
        self.started: Started | None = None
        self.started_at = 0.0  # when that was heard
        self.placed: tuple[str, ...] = ()  # the only workers that have the time for it
        self.held = False  # it waits for a worker that is to come, or is to be placed anew then
        self.begun = 0  # workers that have begun it: Dask tries again by itself
        self.submitted = False  # the backend has it
        self.slow = False  # a call of it was reported as slow
        self.mixed = False  # its calls are not all of `function`
        self.observed = 0.0  # seconds that its calls are known to have taken
        self.since = 0  # how many tasks had been sent when its first member was sent first
        self.ahead = 0.0  # of what has the same priority: more, the longer it is on its way

    @property
    def calls(self) -> list[Call]:
        """The calls that are still the task's; none of a map's."""
        return [] if isinstance(self.load, Stretch) else self.load[self.told : self.end]

    def expects(self) -> float:
        """Return the seconds that it is expected to take; 0 if nothing is known of that."""
        if self.mixed:
            known = self.seconds
        else:
            known = (self.function.mean or 0.0) * (self.end - self.told)
        return float(known)

    def needs(self) -> float:
        """Return `expects`, or more where a call of it was cut off by its worker's end."""
        loads = [self.load] if isinstance(self.load, Stretch) else self.calls
        return max(self.expects(), *(one.needs for one in loads), 0.0)

    @property
    def suspect(self) -> bool:
        """Its only call was there when workers died."""
        return any(call.suspect for call in self.calls[:1])
