"""A property within a run, its future, and what an exception tells of it. Floor 1."""

from __future__ import annotations

import logging
from collections.abc import Generator
from concurrent.futures import Future
from concurrent.futures._base import CANCELLED as FUTURE_CANCELLED
from types import TracebackType
from typing import Any, Protocol, TypeVar

from daskexec._graph_plan import Recipe, chain

__all__ = ["CANCELLED", "DONE", "FAILED", "STARTED", "WAITING", "Node", "PropertyFuture", "note"]

T = TypeVar("T")

_LOG = logging.getLogger(__name__)

WAITING, STARTED, DONE, FAILED, CANCELLED = "waiting", "started", "done", "failed", "cancelled"

_NOTES = 8  # most notes on an exception: one that fails many properties must not grow


class Run(Protocol):
    """What a property's future asks of its run."""

    def _cancel(self, node: Node) -> bool: ...

    def _running(self, node: Node) -> bool: ...


class PropertyFuture(Future[T]):
    """The value of a property in a run.

    A ``concurrent.futures.Future``: for ``wait``, ``as_completed``, ``asyncio.wrap_future``,
    from any thread; it can be awaited too. Callbacks run on the thread that ended the
    property, after what needs it was submitted; they must not wait for the same run.
    """

    def __init__(self, run: Run, node: Node) -> None:
        super().__init__()
        self._run, self._node = run, node

    def cancel(self) -> bool:
        """Cancel the property, and all that need it, unless its call has begun.

        Returns
        -------
        bool
            True: it has no value and will have none. Of a property that is computed for each
            element: so many calls as had not begun will not be run. False: it runs or is done.
        """
        return self._run._cancel(self._node)

    def running(self) -> bool:
        """Tell whether its call, or one of its calls, has begun and it is not done."""
        return not self.done() and self._run._running(self._node)

    def result(self, timeout: float | None = None) -> T:
        """Return the value, or raise what the property, or one that it needs, has raised.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait at most; None waits without limit.

        Raises
        ------
        TimeoutError
            It is not done after `timeout` seconds.
        CancelledError
            It, or a property that it needs, was cancelled.
        """
        error = self.exception(timeout)
        if error is not None:
            # Many futures raise the same exception, many times: frames must not pile up.
            raise error.with_traceback(self._node.traceback)
        return super().result(timeout)

    def __await__(self) -> Generator[Any, None, T]:
        import asyncio  # not before somebody awaits: it takes as long to import as all the rest

        return asyncio.wrap_future(self).__await__()

    def _cancel_now(self) -> None:
        """Become cancelled and wake all who wait; may be called by several threads."""
        try:
            super().cancel()
        finally:
            with self._condition:
                if self._state == FUTURE_CANCELLED:
                    self.set_running_or_notify_cancel()


class Node:
    """A property of a run that somebody needs, or a value that was given."""

    __slots__ = (
        "asked",
        "because",
        "begun",
        "calls",
        "dependants",
        "early",
        "ended",
        "error",
        "future",
        "label",
        "left",
        "name",
        "needs",
        "offered",
        "placeholder",
        "recipe",
        "remote",
        "results",
        "state",
        "takes_futures",
        "total",
        "traceback",
        "value",
        "waiting",
        "wanted",
    )

    def __init__(self, run: Run, name: str, recipe: Recipe | None) -> None:
        self.name, self.recipe = name, recipe  # no recipe: it was given
        self.future: PropertyFuture[Any] = PropertyFuture(run, self)
        self.state = WAITING
        self.asked = False  # by the user, not by a dependant alone
        self.needs: tuple[str, ...] = ()
        self.waiting = 0  # how many of those are not done
        self.dependants: list[Node] = []
        self.calls: list[Future[Any]] = []  # that were submitted, while it is not closed
        self.total: int | None = None  # calls there are to be
        self.left = 0  # of them, not done
        self.results: list[Any] = []
        self.value: Any = None
        self.error: BaseException | None = None
        self.traceback: TracebackType | None = None  # as the call left it
        self.label = ""  # who raised it
        self.because: Node | None = None  # the needed property that failed
        self.begun = self.ended = 0.0
        # Where executors take futures as arguments:
        self.takes_futures = False  # its own executor does
        self.offered: Any = None  # what stands for its value there: a future, or a list of them
        self.early: set[str] = set()  # needs that it was given as that, before they were done
        self.wanted = False  # its value is wanted here, by the user or by another executor
        self.remote = False  # it is done, and `value` is what is offered
        self.placeholder = False  # its future, which nobody has, does not have the value

    def takes(self, source: Node) -> bool:
        """Tell whether it can be given futures of what another property comes to."""
        if not self.takes_futures or self.recipe is None:
            return False
        listed = source.recipe is not None and source.recipe.each
        return bool(listed) or source.name not in self.recipe.each

    def offer(self, calls: list[Future[Any]]) -> Any:
        """Return what stands for its value, once all of its calls were submitted."""
        if self.offered is None:
            each = self.recipe is not None and self.recipe.each
            self.offered = list(calls) if each else calls[0]
        return self.offered

    def futures(self) -> list[Future[Any]]:
        """Return the futures that stand for its value, if there are any yet."""
        if self.offered is None:
            return list(self.calls)
        return self.offered if isinstance(self.offered, list) else [self.offered]


def note(node: Node) -> None:
    """Write into an exception which property raised it and who needed that."""
    error = node.error
    add_note = getattr(error, "add_note", None)  # Python 3.11
    notes = getattr(error, "__notes__", ())
    if add_note is None or len(notes) >= _NOTES:
        return
    path = [node.name]
    raiser = node
    while raiser.because is not None:
        raiser = raiser.because
        path.append(raiser.name)
    text = raiser.label
    if len(path) > 1:
        text += ", " + chain(path[::-1])
    try:
        if text not in notes:
            add_note(text)
    except Exception:  # it takes no attributes
        _LOG.debug("no note on %r: %s", error, text)
