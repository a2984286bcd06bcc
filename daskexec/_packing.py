"""Pickling what a task carries, on the dispatcher thread. Floor 5.

Each call is pickled alone, so what cannot be pickled fails alone; the items of a map together,
where nobody can tell. What is too much for one task goes back to the queue; a call that waits for
a future among its arguments is parked.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Any

from daskexec._after import After
from daskexec._batching import BatchPolicy
from daskexec._calls import Load, all_plain
from daskexec._failures import needed_by
from daskexec._large import Large, LargeObjects
from daskexec._ledger import Ledger
from daskexec._pickling import FailedArgument, Functions, Unfinished
from daskexec._promises import Arguments, Promises, label_of
from daskexec._tasks import IN_HAND, Call, Stretch, Task
from daskexec.futures import DaskFuture

__all__ = ["Packer", "cause"]


class Packer:
    """Turns the calls of tasks in hand into bytes. For one thread.

    Parameters
    ----------
    executor : str
        Id of the executor.
    ledger : Ledger
    promises : Promises
        What calls need of earlier ones.
    park : callable
        ``park(call, needed)``: the call waits for these calls and futures.
    refuse, refuse_items : callable
        ``refuse(call, error)`` and ``refuse_items(stretch, error)``: they cannot be sent.

    Attributes
    ----------
    large : LargeObjects
        Those among the arguments.
    """

    def __init__(
        self,
        executor: str,
        ledger: Ledger,
        *,
        promises: Promises,
        park: Callable[[Call, Sequence[Call | Future[Any]]], None],
        refuse: Callable[[Call, BaseException], None],
        refuse_items: Callable[[Stretch, BaseException], None],
    ) -> None:
        self.large = LargeObjects(executor, ledger.newest)
        self._functions = Functions()
        self._last: tuple[Any, tuple[bytes, bool] | None] | None = None  # `pickle_item`'s
        self._ledger, self._promises = ledger, promises
        self._arguments = Arguments(promises)
        self._park, self._refuse, self._refuse_items = park, refuse, refuse_items

    def pack(self, task: Task) -> bool:
        """Pickle what a task carries; False if nothing of it can be sent now."""
        if task.options.after is not None and not self._may_start(task, task.options.after):
            return False
        if isinstance(task.load, Stretch):
            return self._pack_stretch(task, task.load)
        return self._pack_calls(task, task.load)

    def _may_start(self, task: Task, after: After) -> bool:
        """Tell whether what a task's calls run after is done; park or refuse them if not."""
        gate, failed = after.gate, after.failed
        try:
            if gate.done():
                gate.result()
                return True
        except BaseException as exc:
            if isinstance(task.load, Stretch):
                self._refuse_items(task.load, exc)
            else:
                for call in task.load:
                    own = exc
                    if isinstance(failed, DaskFuture):
                        own = needed_by(exc, label_of(failed), label_of(call.future))
                    self._refuse(call, own)
            return False
        assert not isinstance(task.load, Stretch)  # then its items are calls: see `MapJob`
        for call in task.load:
            self._park(call, [gate])
        return False

    def _packed(self, task: Task, taken: int, size: int, ready: int) -> None:
        """Note what was pickled; queue again what is too much for one task."""
        with self._ledger.changed:
            self._ledger.policy.packed(task.function, size, ready)
            task.argument_bytes = size / max(1, ready)
            if taken < len(task.load):
                self._ledger.put_back(task, taken)

    def _pack_calls(self, task: Task, calls: list[Call]) -> bool:
        size = ready = done = 0
        fn: Any = None
        carried: tuple[bytes, bool] | None = None
        arguments = self._arguments
        for call in calls:
            done += 1
            if call.blob is None:
                arguments.call = call
                try:
                    if call.fn is not fn:
                        carried = self._functions.carry(call.fn)
                        fn = call.fn
                    blob, call.large = self.large.dump(
                        (call.args, call.kwargs)
                        if carried is not None
                        else (call.fn, call.args, call.kwargs),
                        call.future._number,
                        arguments,
                    )
                except BaseException as exc:
                    arguments.unfinished = []
                    self._refuse(call, cause(exc))
                    continue
                if arguments.unfinished:
                    self._park(call, arguments.taken())
                    continue
                call.blob, call.carried = blob, carried
                call.fn = call.args = call.kwargs = None
            if call.others is not None and not self._can_go(call, len(calls)):
                continue
            size += len(call.blob)
            ready += 1
            if size > BatchPolicy.BYTES:
                break
        arguments.call = None  # it would keep what it needs
        self._packed(task, done, size, ready)
        return ready > 0

    def _can_go(self, call: Call, company: int) -> bool:
        """Tell whether a pickled call that needs values can be sent with this task."""
        if not self._promises.is_ready(call):
            return False
        if company > 1 and self._promises.goes_alone(call):
            call.alone = True  # or all would run where these values are
            self._ledger.queue_again(call)
            return False
        return True

    def _pack_stretch(self, task: Task, stretch: Stretch) -> bool:
        fn, items, single = stretch.job.fn, stretch.items, stretch.job.single
        try:
            carried = self._functions.carry(fn)
        except BaseException as exc:
            self._refuse_items(stretch, exc)
            return False
        if (
            carried is not None
            and carried[1]
            and all_plain(items, single=single)
            and not self.large.looks_large(items[:1] if single else list(items[0]))
        ):
            together = pickle.dumps(items, 5)
            if len(together) > BatchPolicy.BYTES and len(items) > 1:
                self._packed(task, len(items) // 2, len(together), len(items))
                return self.pack(task)
            stretch.pickled = Load([carried], None, together, single)
            self._packed(task, len(items), len(together), len(items))
            return True
        blobs: list[bytes] = []
        needed: list[Large] = []
        size = 0
        for item in items:
            args = (item,) if single else item
            try:
                blob, large = self._dump_item(
                    (fn, args, {}) if carried is None else (args, {}),
                    stretch.job.number,
                    stretch.job.name,
                )
            except BaseException as exc:
                if not blobs:
                    self._single_out(task, stretch, exc)
                    return False
                break  # it comes first next time
            blobs.append(blob)
            needed += large
            size += len(blob)
            if size > BatchPolicy.BYTES:
                break
        self._packed(task, len(blobs), size, len(blobs))
        assert isinstance(task.load, Stretch)
        if carried is None:
            task.load.pickled = Load([], [-1] * len(blobs), blobs)
        else:
            task.load.pickled = Load([carried], None, blobs)
        task.load.pickled.large = _unique(needed)
        return True

    def _single_out(self, task: Task, stretch: Stretch, problem: BaseException) -> None:
        """See to the first item of a stretch, which cannot be sent as it is."""
        if len(stretch) > 1:
            self._ledger.put_back(task, 1)
        job, item = stretch.job, stretch.items[0]
        if isinstance(problem, Unfinished):
            call = job.make_call(item)
            call.stage = IN_HAND
            job.fill(stretch.first, [call.future])
            self._park(call, self._arguments.taken())
            return
        self._refuse_items(stretch[:1], cause(problem))

    def _dump_item(
        self, call: tuple[Any, ...], number: int | None, name: str
    ) -> tuple[bytes, Sequence[Large]]:
        arguments = self._arguments
        arguments.call, arguments.name, arguments.unfinished = None, name, []
        blob, large = self.large.dump(call, number, arguments)
        if arguments.unfinished:
            raise Unfinished()
        return blob, large

    # -- for a keeper ----------------------------------------------------------------------------

    def pickle_alone(self, call: Call) -> None:
        """Pickle a queued call, if it is not yet; refuse it if it cannot be.

        Raises Unfinished where a future among its arguments is not done.
        """
        after = call.options.after
        if after is not None and not after.gate.done():
            raise Unfinished
        if call.blob is not None:
            return
        try:
            blob, carried, large = self.pickle_item(
                call.fn, call.args, call.future._number, call.kwargs, call
            )
        except Unfinished:
            raise
        except BaseException as exc:
            self._refuse(call, cause(exc))
            return
        call.blob, call.carried, call.large = blob, carried, large
        call.fn = call.args = call.kwargs = None

    def pickle_item(
        self,
        fn: Any,
        args: Any,
        number: int | None,
        kwargs: Any = None,
        call: Call | None = None,
    ) -> tuple[bytes, tuple[bytes, bool] | None, Sequence[Large]]:
        """Pickle a call, or an item of a map; raises whatever keeps it from being pickled."""
        if self._last is None or self._last[0] is not fn:
            self._last = fn, self._functions.carry(fn)
        carried = self._last[1]
        kwargs = kwargs or {}
        arguments = self._arguments
        arguments.call, arguments.name, arguments.unfinished = call, "", []
        blob, large = self.large.dump(
            (fn, args, kwargs) if carried is None else (args, kwargs), number, arguments
        )
        arguments.call = None
        if arguments.unfinished:
            raise Unfinished()
        return blob, carried, large

    @staticmethod
    def load_of(task: Task) -> Load:
        """Return what was pickled for a task, put together."""
        if isinstance(task.load, Stretch):
            assert task.load.pickled is not None
            return task.load.pickled
        return _load_of(task.load)


def cause(problem: BaseException) -> BaseException:
    """Return what a call fails with that could not be pickled."""
    return problem.error if isinstance(problem, FailedArgument) else problem


def _load_of(calls: list[Call]) -> Load:
    """Put pickled calls together, each function once."""
    functions: list[tuple[bytes, bool]] = []
    which: list[int] = []
    last: tuple[bytes, bool] | None = None
    index = -1
    for call in calls:
        carried = call.carried
        if carried is not last:
            last = carried
            if carried is None:
                index = -1
            elif carried in functions:
                index = functions.index(carried)
            else:
                index = len(functions)
                functions.append(carried)
        which.append(index)
    only_one = len(functions) == 1 and not any(which)
    load = Load(functions, None if only_one else which, [call.blob or b"" for call in calls])
    load.large = _unique(large for call in calls for large in call.large)
    values = {
        key: value
        for call in calls
        if call.others is not None
        for key, value in call.others.values.items()
    }
    if values:
        load.values = [(key, v.remote) for key, v in values.items() if v.remote is not None]
        load.given = [key for key, _ in load.values]
        load.bodies = {key: v.body for key, v in values.items() if v.remote is None}
    return load


def _unique(large: Iterable[Large]) -> Sequence[Large]:
    return list({one.place.key: one for one in large}.values())
