"""map(): from an input to an iterator over results, without a future for each item. Floor 7.

A map is one `MapJob`. Its items wait in the ledger as a `Stretch`, of which the dispatcher
takes as many for a task as the policy says; what they come to arrives here as *runs* of
consecutive items (`MapJob.fill`), in any order, on the settle thread; the iterator turns runs into
values on the thread that reads it.

Most items never get an object of their own. One that must be waited for alone (a future is
among its arguments) becomes a call with a future, and so does its part of a run.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, TimeoutError
from dataclasses import replace
from itertools import chain, islice
from time import monotonic
from typing import Any, Literal

from daskexec._dispatcher import Dispatcher
from daskexec._failures import Failure
from daskexec._frames import load_result
from daskexec._promises import LEAVES, futures_in
from daskexec._tasks import Call, Raised, Stretch
from daskexec.futures import DaskFuture
from daskexec.options import CallOptions

__all__ = ["Errors", "MapJob"]

Errors = Literal["raise", "return"]


class MapJob:
    """One call of ``map``.

    The reading thread and the settle thread share the runs; `_arrived` is their lock.

    Parameters
    ----------
    dispatcher : Dispatcher
        Runs the items.
    fn : callable
    iterables : tuple of iterable
        The arguments of each call are the items of these, taken in step.
    options : CallOptions
    chunk : int, optional
        Items in a task: multiples of it, when given.
    buffersize : int, optional
        Most items that are taken from the iterables and whose results are not read.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        fn: Callable[..., Any],
        iterables: tuple[Iterable[Any], ...],
        options: CallOptions,
        *,
        chunk: int | None,
        buffersize: int | None,
    ) -> None:
        dispatcher.give_way()
        if options.capture_output:  # there is no future to bring it to
            options = replace(options, capture_output=False)
        self.fn, self.options, self.chunk = fn, options, chunk
        self.name = dispatcher.name_of(fn, options)
        self._dispatcher = dispatcher
        self.single = len(iterables) == 1
        # No tuple for each item where it is not needed: there may be millions of them.
        items = iter(iterables[0]) if self.single else zip(*iterables, strict=False)
        self._items: Iterator[Any] | None = items if buffersize is not None else None
        self._arrived = threading.Condition()
        self._runs: dict[int, tuple[list[Any], bool]] = {}  # by the index of the first item
        self._order: deque[int] = deque()  # those indices, as they came
        self.cancelled = False
        self._taken = 0  # items taken from the input
        self._calls: list[DaskFuture[Any]] = []  # of items that are calls of their own
        self._stretch = Stretch(self, 0, [])
        first = list(islice(items, buffersize))
        self.number = dispatcher.next_number() if buffersize is None else None
        self._submit(first)

    def make_call(self, item: Any) -> Call:
        """Return an item as a call with a future."""
        args = (item,) if self.single else item
        return self._dispatcher.make_call(self.fn, args, {}, self.options)

    def next_key(self) -> str:
        """Return a key for the next task of this map."""
        return self._dispatcher.next_key(self.name)

    def _submit(self, items: list[Any]) -> None:
        after = self.options.after
        # Of one item, not of those that it shares a task with.
        if self.options.singly or (after is not None and not after.gate.done()):
            for item in items:
                call = self.make_call(item)
                self._calls.append(call.future)
                self.fill(self._taken, [call.future])
                self._taken += 1
                self._dispatcher.enter(call)
        elif items:
            flat = items if self.single else [*chain.from_iterable(items)]
            if not LEAVES.issuperset(map(type, flat)):
                self._dispatcher.use(futures_in(flat, 0))
            self._stretch = Stretch(self, self._taken, items)
            self._taken += len(items)
            self._dispatcher.enter(self._stretch)

    def fill(self, first: int, run: list[Any], *, plain: bool = False) -> None:
        """Take what the items from `first` on came to: bodies, `Raised` or futures.

        Or, if `plain`, the values themselves.
        """
        if not run:
            return
        with self._arrived:
            self._runs[first] = (run, plain)
            self._order.append(first)
            self._arrived.notify_all()

    def cancel(self) -> None:
        """Begin no further item."""
        self._items = None
        self.cancelled = True
        self._dispatcher.cancel_items(self)
        self._dispatcher.cancel_all(self._calls)
        with self._arrived:
            self._runs.clear()

    def results(
        self, ordered: bool, errors: Errors, deadline: float | None, owner: Any
    ) -> Iterator[Any]:
        """Yield the results; keeps `owner`, the executor, from being collected meanwhile.

        Parameters
        ----------
        ordered : bool
            In the order of the items; else as they come.
        errors : {"raise", "return"}
            What to do with an item that failed.
        deadline : float or None
            When to give up, of the monotonic clock.
        """
        place = 0
        try:
            while place < self._taken:
                self._read_ahead()
                run, plain = self._next_run(place if ordered else None, deadline)
                place += len(run)
                if plain and self._items is None:
                    yield from run
                    continue
                run.reverse()
                while True:  # and keep no reference to a value
                    yield run.pop() if plain else _value(run.pop(), errors, deadline)
                    if not run:
                        break
                    self._read_ahead()
        finally:
            if place < self._taken:
                self.cancel()

    def _read_ahead(self) -> None:
        """Take one more item from the input, now that a result is asked for."""
        if self._items is None:
            return
        for item in self._items:
            if self._dispatcher.extend(self._stretch, item):
                self._taken += 1
            else:
                self._submit([item])
            return
        self._items = None

    def _next_run(self, place: int | None, deadline: float | None) -> tuple[list[Any], bool]:
        with self._arrived:
            while True:
                if place is None:
                    while self._order:
                        run = self._runs.pop(self._order.popleft(), None)
                        if run is not None:
                            return run
                else:
                    run = self._runs.pop(place, None)
                    if run is not None:
                        self._order.clear()
                        return run
                left = None if deadline is None else deadline - monotonic()
                if left is not None and left <= 0:
                    raise TimeoutError
                self._dispatcher.refuse_to_block()
                self._arrived.wait(left)


def _value(entry: Any, errors: Errors, deadline: float | None) -> Any:
    error: BaseException | None = None
    if isinstance(entry, Future):
        error = entry.exception(None if deadline is None else max(0.0, deadline - monotonic()))
        if error is None:
            return entry.result()
    elif isinstance(entry, Failure):
        error = entry.load()
    elif isinstance(entry, Raised):
        error = entry.error
    else:
        try:
            return load_result(entry)
        except Exception as exc:
            error = exc
    if errors == "return":
        return error
    raise error
