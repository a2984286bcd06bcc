"""Futures as arguments: values that stay with the workers, for the calls that need them. Floor 5.

::

    load = submit(f)      SENT ---> THERE: its value is on a worker, nobody here has seen it
                           |          |                  |
    use = submit(g, load)  PARKED     +-> QUEUED, SENT   +-> somebody asks for load: it is
                                          with load's        brought here, OVER
                                          Dask future

A call waits, PARKED, until the futures among its arguments are done: on the client, since there
an earlier call may have been cancelled, may have failed, or may have to run again. Then it is
sent with the Dask futures of their values, which Dask brings from worker to worker. A future that
is used so before it is done is not fetched: its call is THERE, and to everybody else it is still
running. Whoever looks at the future asks for the value (`DaskFuture._ask`), which is then fetched
and ends it. Small values, and those of calls that shared a task with others, come with the word
that they are done; these stay as bytes, which are handed on as they came.

A value lives as long as its `Value`: the user's future holds one, and so does each call that
needs it and is not over. If workers lose a value that is still needed, its call is run again, and
before that those whose values it needs in turn; so a call is remembered, as bytes, as long as a
value that was made from its own may have to be made again. Clusters of our own begin no attempt
twice, so it is a new attempt.

The ledger's lock guards all of it. No future's condition is taken with that lock held: one who
waits for a future holds its condition, and may want to take the ledger's lock to ask for it.
"""

from __future__ import annotations

import weakref
from array import array
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import CancelledError, Future
from concurrent.futures._base import PENDING, RUNNING
from functools import partial
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

from daskexec._calls import Body, Outcome
from daskexec._failures import Failure, needed_by
from daskexec._frames import LARGE
from daskexec._ledger import Ledger
from daskexec._messages import Line, There
from daskexec._pickling import PLAIN, FailedArgument, by_value, given_value
from daskexec._records import Record
from daskexec._tasks import (
    IN_HAND,
    OVER,
    PARKED,
    SENT,
    THERE,
    Call,
    Needs,
    Promise,
    Task,
    Value,
    no_value,
)
from daskexec.errors import NotFetched, WorkerDied
from daskexec.futures import DaskFuture

__all__ = [
    "LEAVES",
    "Arguments",
    "Brought",
    "Ended",
    "Promises",
    "failed_of",
    "futures_in",
    "label_of",
]

#: Types whose instances have no future within them.
LEAVES = frozenset(
    {*PLAIN, bytearray, array, range, type, FunctionType, BuiltinFunctionType, ModuleType}
)
#: Objects within arguments that are looked at for futures when a call is submitted.
MOST = 100_000

#: What a future comes to: with its value or its error.
Result = tuple[DaskFuture[Any], Any]


class Ended:
    """A message to the settle thread: a call that others wait for has ended, and has no value."""

    __slots__ = ("call", "error", "future")

    def __init__(
        self, call: Call, future: DaskFuture[Any], error: BaseException | None = None
    ) -> None:
        self.call, self.future = call, future
        self.error = error  # which its future is still to be told


class Arguments:
    """What the futures among the arguments of a call are pickled as; for one call at a time.

    Attributes
    ----------
    call : Call or None
        The call; None for an item of a map, which then cannot have the values of calls that
        are not done.
    name : str
        Of the function of that.
    unfinished : list of Call or Future
        What the call has to wait for.
    """

    __slots__ = ("_promises", "call", "name", "unfinished")

    def __init__(self, promises: Promises) -> None:
        self._promises = promises
        self.call: Call | None = None
        self.name = ""
        self.unfinished: list[Call | Future[Any]] = []

    def taken(self) -> list[Call | Future[Any]]:
        """Return what is unfinished, and begin anew."""
        unfinished, self.unfinished = self.unfinished, []
        return unfinished

    def __call__(self, future: Future[Any]) -> tuple[Any, ...]:
        wanted: Call | Future[Any] = future
        if isinstance(future, DaskFuture):
            known = self._promises.look(self.call, future)
            if isinstance(known, Value):
                return given_value, (future.key,)
            if known is None and future._is_over():
                error = future._exception
                if error is not None:
                    label = self.name if self.call is None else label_of(self.call.future)
                    raise FailedArgument(needed_by(error, label_of(future), label))
                return by_value(future)
            wanted = known or future
        elif future.done():
            return by_value(future)
        self.unfinished.append(wanted)
        return given_value, ("",)  # it will be pickled again


class Promises:
    """The calls of one executor that others need before they are over.

    Every method may be called from any thread, unless it says otherwise.

    Parameters
    ----------
    ledger : Ledger
    post : callable
        Sends a message to the settle thread.
    line : callable
        Returns the line, None while there is none.
    call_back : callable
        Has the callbacks of a future run that are due.
    """

    #: Values of one call that may be lost; the next time it fails.
    LOSSES = 3
    #: Bytes below which a value is fetched at the end though nobody has asked for it.
    KEPT = LARGE

    def __init__(
        self,
        ledger: Ledger,
        post: Callable[[Any], None],
        line: Callable[[], Line | None],
        call_back: Callable[[DaskFuture[Any]], None],
    ) -> None:
        self._ledger, self._post, self._line, self._call_back = ledger, post, line, call_back
        self._there: weakref.WeakSet[DaskFuture[Any]] = weakref.WeakSet()
        self._brought: dict[str, tuple[Value, DaskFuture[Any]]] = {}  # by the key of the attempt
        self.owner: Any = None  # whose futures these are
        self.leaving = True  # whether values may be left with workers: not where these end soon

    # -- before a call is sent: the dispatcher thread -------------------------------------------

    def look(self, call: Call | None, future: DaskFuture[Any]) -> Value | Call | None:
        """Return what is known of a future among the arguments of a call.

        Returns
        -------
        Value, Call or None
            Its value, which the call then holds; its call, which must be waited for; or None:
            the future is of another executor, or knows better itself.
        """
        if future._canceller is not self.owner:
            return None
        with self._ledger.changed:
            needs = call.others if call is not None else None
            if needs is not None:
                value = needs.values.get(future.key)
                if value is not None and not _is_lost(value):
                    return value
            known: Call | None = future._call
            if known is None:
                return None
            if known.stage == THERE and call is not None and self._take(call, known):
                return call.others.values[future.key] if call.others is not None else None
            return known

    def _take(self, call: Call, known: Call) -> bool:
        """Have a call hold the value of another one; False if that has none now."""
        value = known.promise.value() if known.promise is not None else None
        if value is None or _is_lost(value):
            return False
        needs = call.others
        if needs is None:
            needs = call.others = Needs()
        key = known.future.key
        needs.calls[key], needs.values[key] = known, value
        return True

    def is_ready(self, call: Call) -> bool:
        """Tell whether all values that a pickled call needs are there; if not it is parked."""
        needs = call.others
        if needs is None:
            return True
        with self._ledger.changed:
            missing = [
                known
                for key, known in needs.calls.items()
                if (key not in needs.values or _is_lost(needs.values[key]))
                and not self._take(call, known)
            ]
            if missing:
                self.park(call, missing)
            return not missing

    @staticmethod
    def goes_alone(call: Call) -> bool:
        """Tell whether a call that is ready needs values from workers."""
        return call.others is not None and _are_there(call.others.values.values())

    def park_new(self, call: Call, futures: Sequence[DaskFuture[Any]]) -> bool:
        """Enter a new call as parked; False if it need not wait for others of this executor.

        With the ledger's lock held. What it needs is known to be needed from now on: its own
        turn, in which the arguments are pickled, may come when the others are long over.
        """
        needed = []
        for future in futures:
            known: Call | None = future._call
            if known is None or future._canceller is not self.owner or known.stage == OVER:
                continue
            if not (known.stage == THERE and self._take(call, known)):
                needed.append(known)
        if needed:
            self._ledger.pending += 1
            call.stage = IN_HAND
            self.park(call, needed)
        return bool(needed)

    def use(self, futures: Iterable[DaskFuture[Any]]) -> None:
        """Take note that futures are needed by what is not a call yet."""
        with self._ledger.changed:
            for future in futures:
                known: Call | None = future._call
                if known is not None and future._canceller is self.owner and known.stage < THERE:
                    self._promise(known)

    def park(self, call: Call, needed: Iterable[Call | Future[Any]]) -> None:
        """Hold a call in hand back until what it needs is done; blocks no thread."""
        foreign: list[Future[Any]] = []
        with self._ledger.changed:
            if not self._ledger.park(call):
                return
            needs = call.others
            if needs is None:
                needs = call.others = Needs()
            needs.waiting = 1
            for one in {id(one): one for one in needed}.values():
                if not isinstance(one, Call):
                    foreign.append(one)
                elif not self._take(call, one):
                    if one.stage == OVER and one.promise is None:
                        foreign.append(one.future)  # while it was looked at
                        continue
                    promise = self._promise(one)
                    promise.dependants.append(call)
                    needs.calls[one.future.key] = one
                    needs.waiting += 1
                    if one.stage >= THERE and promise.value is not no_value:
                        self._run_again(one)
                    elif one.stage == OVER and one.future._is_over():  # it has failed
                        self._post(Ended(one, one.future))
            needs.waiting += len(foreign)
        for future in foreign:
            if not isinstance(future, DaskFuture) or future._call is not None:
                future.add_done_callback(partial(self._foreign_done, call))
            elif not future._need(partial(self._foreign_done, call)):
                self._foreign_done(call, future)
        self._has_one_less(call)

    def _foreign_done(self, call: Call, future: Future[Any]) -> None:
        if future.cancelled() or future.exception() is not None:
            with self._ledger.changed:
                if call.others is not None:
                    call.others.waiting = 1  # the others need not be waited for
        self._has_one_less(call)

    def _has_one_less(self, call: Call) -> None:
        with self._ledger.changed:
            needs = call.others
            if needs is not None and call.stage == PARKED:
                needs.waiting -= 1
                if needs.waiting <= 0:
                    call.alone = call.alone or _are_there(needs.values.values())
                    self._ledger.unpark(call)

    def _promise(self, call: Call) -> Promise:
        """Note that others need a call; with the ledger's lock held."""
        promise = call.promise
        if promise is None:
            future = call.future
            promise = call.promise = Promise()
            # After that, or one who asks just now would be missed: see `DaskFuture._condition`.
            promise.asked = future._watched
            future._need_surely(partial(self._has_ended, call))
            task = call.task
            if call.stage == SENT and task is not None:
                task.used = True
                self.sent(task)
        return promise

    def sent(self, task: Task) -> None:
        """Have a sent task's result left where it is, if others need it."""
        line = self._line()
        if self.leaving and task.used and len(task.load) == 1 and line is not None:
            line.backend.leave(task.key)

    # -- when it has run: the settle thread ------------------------------------------------------

    def stay(self, calls: Sequence[Call], bodies: Sequence[Any]) -> list[tuple[Call, Body]]:
        """Keep the values of those calls that others need; with the ledger's lock held.

        Returns
        -------
        list of (Call, Body)
            The others.
        """
        rest = []
        for call, body in zip(calls, bodies, strict=True):
            if call.promise is None or isinstance(body, Failure):
                rest.append((call, body))
            else:
                if isinstance(body, memoryview):  # which cannot be pickled
                    body = bytes(body)
                value = Value(call, call.future.key, len(body), body=body)
                self._keep(call, call.promise, value, call.future)
        return rest

    def is_there(self, task: Task, message: There, record: Record | None) -> None:
        """Keep the value of a task's only call; with the ledger's lock held."""
        call = task.calls[0]
        start, stop = self._ledger.told(task, 0, 1, record)
        if start != stop and call.promise is not None:
            value = Value(call, message.key, message.brief.detail, remote=message.remote)
            self._keep(call, call.promise, value, call.future)

    def _keep(self, call: Call, promise: Promise, value: Value, future: DaskFuture[Any]) -> None:
        call.stage, call.task = THERE, None
        if call.others is not None:
            call.others.values = {}  # it will not need them again, unless its own is lost
        promise.value, promise.future = weakref.ref(value), weakref.ref(future)
        key = future.key
        dependants, promise.dependants = promise.dependants, []
        for dependant in dependants:
            if dependant.others is not None:
                dependant.others.values[key] = value
                self._has_one_less(dependant)
        if future._state == PENDING:  # nobody can cancel it now
            future._state = RUNNING
        # The user's future keeps the value; if he drops it, nothing here does.
        future._result, future._call = value, call
        call.future = DaskFuture(future._name, future._number, future._canceller)
        self._there.add(future)
        if future._ends:
            self._call_back(future)
        if promise.asked:
            self._bring(call, value, future)

    def ask(self, future: DaskFuture[Any]) -> None:
        """Have the value of a call brought here, now or when it is there."""
        call: Call | None = future._call
        if call is None or call.promise is None or call.promise.asked:
            return  # without the lock: it is asked for many times
        with self._ledger.changed:
            call = future._call
            if call is None or call.promise is None or call.promise.asked:
                return
            call.promise.asked = True
            if call.stage == THERE and isinstance(future._result, Value):
                self._bring(call, future._result, future)

    def _bring(self, call: Call, value: Value, future: DaskFuture[Any]) -> None:
        line = self._line()
        if line is None:
            return  # it has ended, and its futures are told so
        self._brought[value.key] = value, future
        self._ledger.pending += 1
        if value.body is not None:
            self._post(Brought(value.key, Outcome("ran", [value.body])))
        else:
            line.backend.bring(value.remote)

    def brought(self, key: str, outcome: Outcome) -> Result | None:
        """Take what was asked for; return what its future comes to now, to be set."""
        with self._ledger.changed:
            value, future = self._brought.pop(key, (None, None))
            if value is None or future is None:
                return None
            self._ledger.drop_items(1)
            bodies = outcome.bodies
            if outcome.kind != "ran" or len(bodies) != 1 or isinstance(bodies[0], Failure):
                value.lost = True  # Dask has tried to have it anew
                self._run_again(value.call)
                return None
            value.call.stage = OVER
            self._let_go(future)
            return future, bodies[0]

    def not_brought(self, key: str, error: BaseException) -> None:
        """Take note that what was asked for cannot be brought."""
        with self._ledger.changed:
            value, future = self._brought.pop(key, (None, None))
            if value is None or future is None:
                return
            self._ledger.drop_items(1)
            if type(error).__name__ == "KilledWorker":
                value.lost = True
                self._run_again(value.call)
                return
            self._let_go(future)
        future._finish(error=error)

    def _let_go(self, future: DaskFuture[Any]) -> None:
        self._there.discard(future)
        future._call = future._result = None

    # -- failed, cancelled, lost -----------------------------------------------------------------

    def ended(self, message: Ended) -> None:
        """End what needs a call that has ended without a value: the settle thread."""
        future, promise = message.future, message.call.promise
        if promise is None:
            return
        if message.error is not None:
            future._finish(error=message.error)
        with self._ledger.changed:
            dependants, promise.dependants = promise.dependants, []
        error = None if future.cancelled() else future._exception
        for dependant in dependants:
            if future.cancelled():
                if self._ledger.forget_unsent(dependant) and not dependant.future._cancel_now():
                    dependant.future._finish(error=CancelledError())
            elif error is not None:
                own = dependant.future
                if self._ledger.forget_unsent(dependant):
                    own._finish(error=needed_by(error, label_of(future), label_of(own)))
            else:
                self._has_one_less(dependant)

    def _has_ended(self, call: Call, future: DaskFuture[Any]) -> None:
        # Not bound to the future, which would keep itself.
        self._post(Ended(call, future))

    def missing(self, task: Task, outcome: Outcome) -> None:
        """A worker did not find the values that a task needs: they are made again before it."""
        with self._ledger.changed:
            for call in task.calls:
                needs = call.others
                for key in outcome.bodies if needs is not None else ():
                    value = needs.values.get(bytes(key).decode()) if needs is not None else None
                    if value is not None:
                        value.lost = True
            self._ledger.again(task)

    def _run_again(self, call: Call) -> None:
        """Run a call again whose value is lost; with the ledger's lock held."""
        promise = call.promise
        assert promise is not None
        future = promise.future()
        if future is None or future._is_over():
            future = DaskFuture(call.future._name, call.future._number, call.future._canceller)
            future._need_surely(partial(self._has_ended, call))
        self._there.discard(future)
        future._result, future._call = None, call
        call.future = future
        promise.losses, promise.value = promise.losses + 1, no_value
        self._ledger.pending += 1
        call.stage, call.alone = IN_HAND, True
        never = call.options.rerun is False
        if promise.losses <= self.LOSSES and not never:
            call.resent += 1
            self._ledger.queue_again(call)
            return
        reason = "its value was lost with the worker that had it"
        if never:
            reason += ", and rerun=False: the call is not run again for it"
        error = WorkerDied(future._name, "", "", reason, promise.losses)
        self._ledger.forget(call)
        self._post(Ended(call, future, error))

    # -- at the end ------------------------------------------------------------------------------

    def ask_for_small(self) -> bool:
        """Ask for what is small and still in a user's hands; tell whether there was any."""
        with self._ledger.changed:
            small = [
                future
                for future in self._held()
                if future._result.size < self.KEPT and not future._call.promise.asked
            ]
            for future in small:
                self.ask(future)
            return bool(small)

    def _held(self) -> list[DaskFuture[Any]]:
        return [future for future in list(self._there) if isinstance(future._result, Value)]

    def held(self) -> list[tuple[DaskFuture[Any], Value]]:
        """Return the futures whose values are there, with these."""
        with self._ledger.changed:
            return [(future, future._result) for future in self._held()]

    def needed(self) -> list[Value]:
        """Return the values that calls need which are not over."""
        with self._ledger.changed:
            unsent, parked = self._ledger.unsent()
            calls = [entry for entry in unsent if isinstance(entry, Call)] + parked
            for task in self._ledger.sent.values():
                calls += task.calls
            values = (
                value
                for call in calls
                if call.others is not None
                for value in call.others.values.values()
            )
            return list({id(value): value for value in values}.values())

    def end(self, error: Callable[[DaskFuture[Any]], BaseException] | None = None) -> None:
        """End all futures whose values are there: with an error that says so, or another one."""
        with self._ledger.changed:
            futures = self._held()
            self._ledger.drop_items(len(self._brought))
            self._brought.clear()
            sizes = {id(future): future._result.size for future in futures}
            for future in futures:
                self._let_go(future)
        for future in futures:
            if error is not None:
                future._finish(error=error(future))
            else:
                future._finish(error=NotFetched(future.key, sizes[id(future)]))


class Brought:
    """A message to the settle thread: what was asked for, and is here."""

    __slots__ = ("key", "outcome")

    def __init__(self, key: str, outcome: Outcome) -> None:
        self.key, self.outcome = key, outcome


def futures_in(values: Iterable[Any], most: int = MOST) -> list[DaskFuture[Any]]:
    """Return the futures among some values, and within containers, dataclasses and partials.

    Pickling finds them wherever they are, but later. `most`: objects to look at within others.
    """
    found: list[DaskFuture[Any]] = []
    seen: set[int] = set()
    stack: list[Iterable[Any]] = [values]
    try:
        while stack:
            for value in stack.pop():
                kind = type(value)
                if kind in LEAVES:
                    continue
                if kind is DaskFuture:
                    found.append(value)
                elif most > 0 and id(value) not in seen:
                    within = _within(value, kind)
                    if within and not LEAVES.issuperset(map(type, within)):
                        seen.add(id(value))
                        most -= len(within)
                        stack.append(within)
    except RuntimeError:  # another thread changes it just now
        pass
    return found


def failed_of(futures: Iterable[DaskFuture[Any]]) -> DaskFuture[Any] | None:
    """Return the first of some futures that has failed or was cancelled."""
    for future in futures:
        if future._is_over() and (future._exception is not None or future.cancelled()):
            return future
    return None


def _within(value: Any, kind: type) -> Collection[Any]:
    if kind in (list, tuple, set, frozenset):
        return value  # type: ignore[no-any-return]
    if kind is dict:
        return [*value, *value.values()]
    if kind is partial:
        return [value.func, *value.args, *value.keywords.values()]
    if hasattr(kind, "__dataclass_fields__"):
        return [getattr(value, name, None) for name in kind.__dataclass_fields__]
    return ()


def label_of(future: DaskFuture[Any]) -> str:
    """Name a call for people who read of a failure."""
    return f"{future._name} [{future.key}]"


def _is_lost(value: Value) -> bool:
    return value.lost or (value.remote is not None and value.remote.lost)


def _are_there(values: Iterable[Value]) -> bool:
    return any(value.remote is not None for value in values)
