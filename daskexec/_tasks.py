"""Calls, items of a map, and the tasks that carry them: the ledger's records. Floor 3.

They know nothing and do nothing; the lock of the `daskexec._ledger` that they are in guards them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from daskexec._calls import Load
from daskexec._large import Large
from daskexec._messages import Started
from daskexec._records import Record
from daskexec.futures import DaskFuture
from daskexec.options import CallOptions

__all__ = [
    "IN_HAND",
    "OVER",
    "PARKED",
    "QUEUED",
    "SENT",
    "THERE",
    "Call",
    "Job",
    "Needs",
    "Promise",
    "Raised",
    "Stretch",
    "Task",
    "Value",
    "no_value",
]

QUEUED, IN_HAND, PARKED, SENT, THERE, OVER = range(6)


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
        "others",
        "promise",
        "raised",
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
        self.raised = 0  # those of them that ended with an exception
        self.resent = 0  # attempts in all, less one
        self.since: int | None = None  # `Task.since` of an earlier attempt
        self.suspect = False  # it was there when workers died, more than once
        self.needs = 0.0  # seconds that it is known to need, since a worker's end has cut it off
        self.cuts: list[tuple[float, float]] = []  # (seconds run, lifetime) of each such time
        self.holds = 0  # times that it has waited for a worker with time enough
        self.promise: Promise | None = None  # once it is known that others need its value
        self.others: Needs | None = None  # what it needs of others


class Value:
    """What a call came to that others need: as long as this lives, somebody may ask for it.

    The future that a user has of the call keeps it alive, and so does each call that needs it
    and is not over.
    """

    __slots__ = ("__weakref__", "body", "call", "key", "lost", "remote", "size")

    def __init__(
        self, call: Call, key: str, size: int, *, body: Any = None, remote: Any = None
    ) -> None:
        self.call, self.key = call, key  # the key of what it came with
        self.body = body  # the bytes, where they are here
        self.remote = remote  # the backend's: what keeps it on the cluster
        self.size = size  # bytes
        self.lost = False  # no worker has it any more


class Promise:
    """What others want of a call that has not ended when they are submitted."""

    __slots__ = ("asked", "dependants", "future", "losses", "value")

    def __init__(self) -> None:
        self.asked = False  # its user wants to know of it: the value, or just whether it is done
        self.dependants: list[Call] = []  # parked
        self.value: Callable[[], Value | None] = no_value
        self.future: Callable[[], DaskFuture[Any] | None] = no_value  # its user's, if he has it
        self.losses = 0  # values that were lost


class Needs:
    """The earlier calls whose values a call needs, by key, and these values.

    The calls are remembered longer: what is lost can be made again.
    """

    __slots__ = ("calls", "values", "waiting")

    def __init__(self) -> None:
        self.calls: dict[str, Call] = {}
        self.values: dict[str, Value] = {}  # while the call is not over
        self.waiting = 0  # how many futures must be done until it can be sent


def no_value() -> None:
    """Stand for a reference to what there is not, or not yet."""
    return


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
        "argument_bytes",
        "begun",
        "deadline",
        "end",
        "function",
        "held",
        "key",
        "load",
        "mixed",
        "observed",
        "options",
        "placed",
        "record",
        "seconds",
        "seen",
        "sent_at",
        "since",
        "slot",
        "slow",
        "started",
        "started_at",
        "submitted",
        "told",
        "used",
        "waits",
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
        self.deadline = 0.0  # when it is given up, where it has a limit
        self.placed: tuple[str, ...] = ()  # the only workers that have the time for it
        self.held = False  # it waits for a worker that is to come, or is to be placed anew then
        self.begun = 0  # workers that have begun it: Dask tries again by itself
        self.submitted = False  # the backend has it
        self.waits = False  # a call of it waits for others, and has given its thread back
        self.slow = False  # a call of it was reported as slow
        self.used = False  # others need the value of a call of it
        self.mixed = False  # its calls are not all of `function`
        self.observed = 0.0  # seconds that the first `seen` calls are known to have taken
        self.seen = 0
        self.since = 0  # how many tasks had been sent when its first member was sent first
        self.sent_at = 0.0  # seconds since the epoch
        self.argument_bytes = 0.0  # mean of a call, pickled
        self.record: Record | None = None  # what came of it, where its calls do not have that yet
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
