"""What a backend reports to its dispatcher. Floor 3.

A backend puts these on the dispatcher's queue; it calls nothing else of it. A backend for
another system than Dask needs these six and the methods of `Backend`, no more.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from daskexec._calls import Outcome, Ticket
from daskexec._large import Large
from daskexec.errors import SchedulerLost
from daskexec.options import CallOptions

__all__ = ["Backend", "Done", "Failed", "Line", "Lost", "Slow", "Started", "Threads"]


@dataclass(frozen=True, slots=True)
class Started:
    """A worker has begun a task. `worn`: it will take no more and wants to be replaced."""

    key: str
    worker: str
    name: str
    pid: int
    worn: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """The outcome of a task is here."""

    key: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Slow:
    """A call of a task takes long, and others wait behind it on its worker."""

    key: str
    worker: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The cluster gave the task up, with an error of its own (such as ``KilledWorker``)."""

    key: str
    error: BaseException


@dataclass(frozen=True, slots=True)
class Lost:
    """The cluster cannot be reached any more; nothing else will be reported."""

    error: SchedulerLost


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

    def loss(self) -> SchedulerLost:
        """Return the error that says why it is not, for a future: each call makes one."""

    def send(
        self,
        ticket: Ticket,
        options: CallOptions,
        ahead: float = 0.0,
        large: Sequence[Large] = (),
    ) -> None:
        """Have one attempt of a task run, with the large objects it needs; does not block.

        It goes before those of the same priority that are sent with less of `ahead` (0 to 1).
        """

    def withdraw(self, keys: list[str]) -> concurrent.futures.Future[set[str]]:
        """Stop tasks that were not begun; the result says which ones will never run."""

    def abandon(self, keys: list[str]) -> None:
        """Have no further call of some tasks begun: nobody waits for them; does not block."""

    def relieve(
        self, key: str, worker: str, waiting: list[str]
    ) -> concurrent.futures.Future[dict[str, Any]]:
        """Take from a worker what waits behind a slow task: see `daskexec._remote.relieve`."""

    def value_future(self, key: str, name: str) -> Any:
        """Return the cluster's own future, called `name`, for the value of a task of one call."""

    def plain_future(self, blob: bytes, name: str) -> Any:
        """Return the cluster's own future, called `name`, for an already pickled value."""

    def on_loop(self) -> bool:
        """Tell whether this thread carries the backend and so must not wait for it."""

    def describe_workers(self) -> list[dict[str, Any]]:
        """Return address, name and resources of every worker; blocks."""

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
    signal_workers : callable, optional
        Send a signal to all worker processes, on clusters of our own.
    trouble : callable, optional
        What keeps workers from joining, and whether that is final, on clusters of our own.
    """

    def __init__(
        self,
        backend: Backend,
        close: Callable[[], None],
        *,
        board: Any = None,
        death_of: Callable[[int], tuple[str, str]] | None = None,
        recycle: Callable[[int], None] | None = None,
        signal_workers: Callable[[int], None] | None = None,
        trouble: Callable[[], tuple[bool, str]] | None = None,
    ) -> None:
        self.backend, self.close, self.board, self.trouble = backend, close, board, trouble
        self.death_of, self.recycle, self.signal_workers = death_of, recycle, signal_workers
