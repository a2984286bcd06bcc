"""What a backend reports to its dispatcher. Floor 3.

A backend puts these on the dispatcher's queue; it calls nothing else of it. A backend for
another system than Dask needs these and the methods of `Backend`, no more.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from daskexec._calls import Outcome, Ticket
from daskexec._large import Large
from daskexec._lifetimes import Where
from daskexec.errors import SchedulerLost
from daskexec.options import CallOptions

__all__ = [
    "Backend",
    "Cut",
    "Done",
    "Ends",
    "Failed",
    "Line",
    "Lost",
    "Named",
    "Slow",
    "SoFar",
    "Started",
    "Stuck",
    "Surveyed",
    "There",
    "Threads",
    "Waits",
]


@dataclass(frozen=True, slots=True)
class Started:
    """A worker has begun a task.

    `worn`: it will take no more and wants to be replaced. `left`: seconds until it ends, and
    `lifetime`: those it was given, if it has such an end. `host`: its machine's name; `began`:
    when it began, by its clock.
    """

    key: str
    worker: str
    name: str
    pid: int
    worn: bool = False
    left: float = 0.0
    lifetime: float = 0.0
    host: str = ""
    began: float = 0.0


@dataclass(frozen=True, slots=True)
class Done:
    """The outcome of a task is here."""

    key: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class There:
    """The outcome of a task that was to be left there is there.

    `brief` is all of it but the value; `remote`: as long as this lives, the value stays.
    """

    key: str
    brief: Outcome
    remote: Any


@dataclass(frozen=True, slots=True)
class SoFar:
    """What came of calls of a task that goes on."""

    key: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Slow:
    """A call of a task takes long, and others wait behind it on its worker."""

    key: str
    worker: str


@dataclass(frozen=True, slots=True)
class Waits:
    """A call of a task has submitted calls: its thread is free for others while it waits.

    It is the last of the `begun` calls of its task; those behind it were handed back.
    """

    key: str
    begun: int


@dataclass(frozen=True, slots=True)
class Cut:
    """A call of a task has run for `ran` seconds and its worker ends now, as it was to."""

    key: str
    worker: str
    ran: float
    lifetime: float


@dataclass(frozen=True, slots=True)
class Ends:
    """Workers that are new, with the seconds left to each and its lifetime, or None; and all."""

    new: dict[str, tuple[float, float] | None]
    workers: frozenset[str]


@dataclass(frozen=True, slots=True)
class Named:
    """The name of every worker there is, by its address."""

    names: dict[str, str]


@dataclass(frozen=True, slots=True)
class Failed:
    """The cluster gave the task up, with an error of its own (such as ``KilledWorker``).

    `begun`: whether the worker that was lost had begun it; None if that is not known. `left`: the
    results of its first calls, None for one that is lost; the call behind them was running. None:
    that is not known. `fate`: what ended the process, "" if that is not known, or its job or its
    host ended, too.
    """

    key: str
    error: BaseException
    begun: bool | None = None
    left: list[Any] | None = None
    fate: str = ""


@dataclass(frozen=True, slots=True)
class Lost:
    """The cluster cannot be reached any more; nothing else will be reported."""

    error: SchedulerLost


@dataclass(frozen=True, slots=True)
class Stuck:
    """A worker that is to be killed does not answer: a call in it holds the GIL, perhaps."""

    worker: str
    pid: int


@dataclass(frozen=True, slots=True)
class Surveyed:
    """What runs where calls will run. `fatal`: why no call can, or ""; `said`: by package."""

    fatal: str
    said: dict[str, str]


@dataclass(frozen=True, slots=True)
class Threads:
    """How many worker threads there are now."""

    count: int


class Backend(Protocol):
    """What a dispatcher asks of a backend; every method may be called from any thread."""

    topic: str
    address: str

    def start(self, initializer: bytes | None) -> None:
        """Get ready to send; blocks until then."""

    def alive(self) -> bool:
        """Tell whether the cluster that this backend began with is still there."""

    def silent_for(self) -> float:
        """Return the seconds for which the cluster has owed an answer."""

    def loss(self) -> SchedulerLost:
        """Return the error that says why it is not, for a future: each call makes one."""

    def send(
        self,
        ticket: Ticket,
        options: CallOptions,
        ahead: float = 0.0,
        large: Sequence[Large] = (),
        where: Where | None = None,
        values: Sequence[tuple[str, Any]] = (),
    ) -> None:
        """Have one attempt of a task run, with the large objects it needs; does not block.

        It goes before those of the same priority that are sent with less of `ahead` (0 to 1).
        `values`: keys of earlier calls, and the `remote` of the values that it needs of them.
        """

    def leave(self, key: str) -> None:
        """Report a large result of a task of one call as `There`; does not block."""

    def bring(self, remote: Any) -> None:
        """Report what is there as `Done`, under the key of its `There`; does not block."""

    def bring_now(self, remotes: Sequence[Any]) -> list[Outcome | None]:
        """Return what is there, None for what is lost; blocks."""

    def watch_ends(self) -> None:
        """Report `Ends`, now and whenever workers have come or gone."""

    def watch_names(self) -> None:
        """Report `Named`, now and whenever workers have come or gone."""

    def give_up(self, key: str) -> None:
        """Have nothing more to do with a task, whether it runs or not; does not block."""

    def kill(self, key: str, worker: str, pid: int) -> None:
        """End the process that runs a task, and nothing else; nobody waits for the task.

        Does not block. Reports `Stuck` if the process does not answer.
        """

    def kill_stuck(self, worker: str, pid: int) -> None:
        """End such a process from outside, if nothing else can run in it; does not block."""

    def hold(self, on: bool) -> None:
        """Let go of nothing that is with the workers, until told otherwise; blocks."""

    def adopt(self, topic: str, keys: list[str]) -> None:
        """Take over tasks that somebody else has sent, who reports on `topic`; blocks."""

    def withdraw(self, keys: list[str]) -> concurrent.futures.Future[set[str]]:
        """Stop tasks that were not begun; the result says which ones will never run."""

    def abandon(self, keys: list[str]) -> None:
        """Have no further call of some tasks begun: nobody waits for them; does not block."""

    def relieve(
        self, key: str, worker: str, waiting: list[str]
    ) -> concurrent.futures.Future[dict[str, Any]]:
        """Take from a worker what waits behind a slow task: see `daskexec._remote.relieve`."""

    def mute(self, patience: float) -> concurrent.futures.Future[list[dict[str, Any]]]:
        """Describe every worker: address, name, seconds "mute" or 0, "keys" that it has then."""

    def disown(self, key: str) -> None:
        """Have nothing more to do with a task that no worker will begin; does not block."""

    def value_future(self, key: str, name: str) -> Any:
        """Return the cluster's own future, called `name`, for the value of a task of one call."""

    def plain_future(self, blob: Any, name: str) -> Any:
        """Return the cluster's own future, called `name`, for an already pickled value."""

    def future_of(self, remote: Any, name: str) -> Any:
        """Return the cluster's own future, called `name`, for a value that is there."""

    def upload(self, bundle: Any) -> None:
        """Bring a `daskexec._code.Bundle` to all workers, those to come too; blocks."""

    def on_loop(self) -> bool:
        """Tell whether this thread carries the backend and so must not wait for it."""

    def describe_workers(self) -> list[dict[str, Any]]:
        """Return address, name, resources, state and seconds "mute" of every worker; blocks."""

    def hush(self) -> None:
        """Stop reporting, at once; on the thread that carries the backend."""

    def close(self) -> None:
        """Stop reporting and release what is left; blocks."""


class Line:
    """A started backend and what belongs to it, as the dispatcher was given it.

    Parameters
    ----------
    backend : Backend
        Not started yet.
    close : callable
        Ends what was started for this executor (client, cluster), nothing else.
    board : Board, optional
        The marks of begun calls, on clusters of our own.
    death_of : callable, optional
        Worker name and cause of death of a process id, on clusters of our own.
    recycle : callable, optional
        Replace the worker process with this id, on clusters of our own.
    kill : callable, optional
        Kill the worker process with this id, on clusters of our own.
    signal_workers : callable, optional
        Send a signal to all worker processes, on clusters of our own.
    trouble : callable, optional
        What keeps workers from joining, and whether that is final, on clusters of our own.
    last_words : callable, optional
        Why the scheduler is gone, where somebody may know; may block for some seconds.
    fate : callable, optional
        Why a worker, by its address, has gone; "" where nothing is known. May wait for seconds.
    """

    def __init__(
        self,
        backend: Backend,
        close: Callable[[], None],
        *,
        board: Any = None,
        death_of: Callable[[int], tuple[str, str]] | None = None,
        recycle: Callable[[int], None] | None = None,
        kill: Callable[[int], None] | None = None,
        signal_workers: Callable[[int], None] | None = None,
        trouble: Callable[[], tuple[bool, str]] | None = None,
        last_words: Callable[[], str] | None = None,
        fate: Callable[[str], str] | None = None,
    ) -> None:
        self.backend, self.close, self.board, self.trouble = backend, close, board, trouble
        self.death_of, self.recycle, self.signal_workers = death_of, recycle, signal_workers
        self.last_words, self.fate, self.kill = last_words, fate, kill
