"""Handing all calls of an executor over to a keeper: both ends of it. Floor 5.

::

    dispatcher thread                     settle thread      workers       the keeper
    -----------------                     -------------      -------       ----------
    1 take nothing more in hand
    2 which tasks have not begun? ------------------------->  these: barred, and
                                          QUEUED again  <---  never run there
    3 release no result from now on
    4                                     handles what came before 3, then pauses
    5 pickle what is not yet
    6 all calls, and the keys of the tasks that have begun -----------------> wants these keys
                                                                              too, then answers
    7 the local futures: Detached         goes on
    8 close the client: Dask lets go of nothing that the keeper wants

Until the answer in 6 nothing is lost: an error before it has the dispatcher go on as if nothing
had been asked for. A call is never the business of both sides: what has not begun is known to
the keeper alone from 6 on; a task that has begun runs on, whoever waits for its outcome, and of
that the scheduler keeps one until all who want it have it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from time import monotonic
from typing import Any

from daskexec._batching import BatchPolicy
from daskexec._endings import Answer
from daskexec._failures import Failure
from daskexec._frames import dump_result
from daskexec._large import Large, Place
from daskexec._ledger import Ledger
from daskexec._messages import Line
from daskexec._packing import Packer, cause
from daskexec._parcel import Body, KeptCall, KeptTask, Name, Parcel
from daskexec._pickling import Unfinished
from daskexec._promises import Promises
from daskexec._settling import Settler
from daskexec._tasks import OVER, SENT, Call, Needs, Stretch, Task, Value
from daskexec.futures import Canceller, DaskFuture, set_all_running
from daskexec.options import CallOptions

__all__ = ["Parting", "Unpacker"]


class Parting:
    """A request to hand all calls over.

    Parameters
    ----------
    wanted : dict of Name to Future
        What calls are to be asked for by, where somebody has said so.
    first : int
        Calls that were left with the same cluster before.
    taken : set of Name
        What calls are asked for by that were left before.
    deliver : callable
        Takes the parcel to the keeper; returns when that has all of it.

    Attributes
    ----------
    over : Future
        Of the hand-over: done when the keeper has all.
    given : dict of int to Name
        What a call is asked for by, by the id of its future.
    """

    #: Seconds in which the workers must say what they have begun.
    ANSWER = 120.0

    def __init__(
        self,
        wanted: Mapping[Name, DaskFuture[Any]],
        first: int,
        taken: set[Name],
        deliver: Callable[[Parcel], None],
    ) -> None:
        self.over: Future[None] = Future()
        self.given: dict[int, Name] = {}
        self._wanted = {id(future): (name, future) for name, future in wanted.items()}
        self._deliver = deliver
        self._next = first
        self._taken = taken.union(wanted)
        self._order: dict[int, tuple[int, int]] = {}  # by index: number, place in a map
        self._parcel: Parcel

    def hand_over(
        self,
        parcel: Parcel,
        ledger: Ledger,
        packer: Packer,
        settler: Settler,
        line: Line,
        number: Callable[[], int],
    ) -> None:
        """Do all of it but the last two steps; on the dispatcher thread.

        Parameters
        ----------
        parcel : Parcel
            Without calls.
        number : callable
            Returns a new number, of those that calls have.

        Raises
        ------
        RuntimeError
            It cannot be done now; nothing has changed.
        """
        self._parcel = parcel
        settler.relieving = False
        try:
            self._withdraw(ledger, settler, line)
            with settler.paused():
                line.backend.hold(True)
            with settler.paused():
                self._pack(ledger, packer, settler, line, number)
                self._deliver(self._parcel)
                ledger.board = None  # its slots are the keeper's now
        except BaseException:
            with contextlib.suppress(Exception):
                line.backend.hold(False)
            settler.relieving = True
            raise

    def _withdraw(self, ledger: Ledger, settler: Settler, line: Line) -> None:
        with ledger.changed:
            tasks = [task for task in ledger.sent.values() if task.started is None]
        if tasks:
            answer = line.backend.withdraw([task.key for task in tasks])
            if not wait_for([answer], self.ANSWER).done:
                answer.add_done_callback(lambda done: settler.inbox.put(Answer(done, tasks)))
                raise RuntimeError(
                    f"the workers did not say within {self.ANSWER:g} s which calls they have "
                    f"begun: the executor was not left, and goes on; try again"
                )
            answer.result()
            settler.inbox.put(Answer(answer, tasks))
        while settler.reliefs:  # what was asked of workers before; each has an end
            wait_for(list(settler.reliefs), self.ANSWER)
            with settler.paused():
                pass

    # -- packing, while the settle thread pauses -------------------------------------------------

    def _bring(self, promises: Promises, line: Line) -> list[tuple[DaskFuture[Any], Value]]:
        """Bring the values here that are with the workers; return the futures that have one."""
        held = promises.held()
        there = [value for _, value in held] + promises.needed()
        there = [value for value in there if value.body is None]
        bodies = line.backend.bring_now([value.remote for value in there]) if there else []
        for value, outcome in zip(there, bodies, strict=True):
            if outcome is None or outcome.kind != "ran" or isinstance(outcome.bodies[0], Failure):
                raise RuntimeError(
                    f"the value of {value.call.future.key} was lost with a worker just now: the "
                    f"executor was not left, and goes on; try again"
                )
            value.body = outcome.bodies[0]
        return held

    def _pack(
        self,
        ledger: Ledger,
        packer: Packer,
        settler: Settler,
        line: Line,
        number: Callable[[], int],
    ) -> None:
        unsent, parked = ledger.unsent()
        waiting = len(parked)
        parcel = self._parcel
        for entry in unsent:
            try:
                if isinstance(entry, Call):
                    packer.pickle_alone(entry)
            except Unfinished:
                waiting += 1
        held = self._bring(settler.promises, line)
        for entry in unsent:
            if isinstance(entry, Stretch):
                parcel.calls += self._items(entry, packer, number)
            elif entry.stage != OVER and entry.blob is not None:
                # Else it could not be pickled, and its future says so.
                parcel.calls.append(self._kept(entry))
        if waiting:
            raise RuntimeError(
                f"{waiting} call{'s' if waiting != 1 else ''} cannot be left: futures that are "
                f"not done are among the arguments, or in after=. The executor goes on; wait for "
                f"those futures, then detach"
            )
        parcel.tasks = [
            self._task(task, packer, number)
            for task in ledger.sent.values()
            if not (isinstance(task.load, Stretch) and task.load.job.cancelled)
        ]
        for future, value in held:
            index = self._enter_call(future)
            parcel.finished.append((index, _bytes_of(value)))
        for key, (name, future) in self._wanted.items():
            if key not in self.given:
                self._finished(name, future)
        # Those that were named first, as they were named; then the others as submitted.
        places = {name: (place, 0) for place, (name, _) in enumerate(self._wanted.values())}
        parcel.names.sort(
            key=lambda one: (one[0] not in places, places.get(one[0], self._order[one[1]]))
        )

    def _name(self, future: DaskFuture[Any] | None, name: str) -> Name:
        """Return what a call is asked for by."""
        if future is not None and id(future) in self._wanted:
            return self._wanted[id(future)][0]
        unique, times = name, 1
        while unique in self._taken:
            times += 1
            unique = f"{name}#{times}"
        self._taken.add(unique)
        return unique

    def _enter(
        self, future: DaskFuture[Any] | None, name: str, function: str, order: tuple[int, int]
    ) -> int:
        """Enter a call in the list of names; return its index."""
        index = self._next
        self._order[index] = order
        self._next += 1
        asked = self._name(future, name)
        if future is not None:
            self.given[id(future)] = asked
        self._parcel.names.append((asked, index, function))
        return index

    def _enter_call(self, future: DaskFuture[Any]) -> int:
        number = future._number
        return self._enter(future, f"{future._name}-{number}", future._name, (number, 0))

    def _kept(self, call: Call) -> KeptCall:
        future = call.future
        values = call.others.values if call.others is not None else {}
        return KeptCall(
            self._enter_call(future),
            future._name,
            future._number,
            call.blob or b"",
            call.carried,
            call.options.left(),
            self._large(call.large),
            call.resent,
            call.begun,
            call.alone,
            {key: _bytes_of(value) for key, value in values.items()},
            call.raised,
        )

    def _items(
        self, stretch: Stretch, packer: Packer, number: Callable[[], int]
    ) -> list[KeptCall]:
        """Make calls of the items of a map; those that cannot be pickled are over."""
        job, made = stretch.job, []
        for place, item in enumerate(stretch.items, stretch.first):
            args = (item,) if job.single else item
            name, order = f"{job.name}[{place}]", (job.number or 0, place)
            try:
                blob, carried, large = packer.pickle_item(job.fn, args, job.number)
            except Unfinished as exc:
                raise RuntimeError(
                    f"the items of the map of {job.name}() cannot be left: futures that are not "
                    f"done are among them. The executor goes on; wait for those, then detach"
                ) from exc
            except BaseException as exc:
                index = self._enter(None, name, job.name, order)
                self._parcel.finished.append((index, Failure.of(cause(exc))))
                continue
            index = self._enter(None, name, job.name, order)
            kept = self._large(large)
            made.append(
                KeptCall(index, job.name, number(), blob, carried, job.options.left(), kept)
            )
        return made

    def _task(self, task: Task, packer: Packer, number: Callable[[], int]) -> KeptTask:
        members: list[KeptCall | None] = [None] * task.told
        rest = task.load[task.told : task.end]
        if isinstance(rest, Stretch):
            items = self._items(rest, packer, number)
            if len(items) < len(rest):  # pickled before, so something is odd about it
                raise RuntimeError(f"items of the map of {rest.job.name}() cannot be pickled now")
            members += items
        else:
            members += map(self._kept, rest)
        return KeptTask(
            task.key,
            members,
            task.told,
            task.options.left(),
            task.started,
            task.begun,
            task.mixed,
            monotonic() - task.started_at if task.started is not None else 0.0,
            task.slot,
        )

    def _large(self, needed: Any) -> tuple[str, ...]:
        for large in needed:
            self._parcel.large[large.place.key] = large.frames
        return tuple(large.place.key for large in needed)

    def _finished(self, name: Name, future: DaskFuture[Any]) -> None:
        """Take along what a future that is done has come to."""
        body: Body
        if future.cancelled():
            body = None
        else:
            error = future.exception(timeout=0)
            try:
                body = dump_result(future.result(0)) if error is None else Failure.of(error)
            except BaseException as exc:
                body = Failure.of(exc)
        index = self._enter(future, str(name), future._name, (future._number, 0))
        self._parcel.finished.append((index, body))


def _bytes_of(value: Value) -> Any:
    """Return what a value is as bytes, such that they can be pickled."""
    return bytes(value.body) if isinstance(value.body, memoryview) else value.body


class Unpacker:
    """Makes calls and tasks of a parcel again, in the keeper.

    Parameters
    ----------
    parcel : Parcel
    canceller : Canceller
        The dispatcher that is to run them.
    policy : BatchPolicy
        Of that dispatcher.

    Attributes
    ----------
    futures : dict of int to DaskFuture
        Of all that is pending, by index.
    """

    def __init__(self, parcel: Parcel, canceller: Canceller, policy: BatchPolicy) -> None:
        self.futures: dict[int, DaskFuture[Any]] = {}
        self._parcel, self._canceller, self._policy = parcel, canceller, policy
        self._large = {
            key: Large(Place(key, frames.nbytes), frames) for key, frames in parcel.large.items()
        }
        self._carried: dict[tuple[bytes, bool], tuple[bytes, bool]] = {}

    def calls(self) -> list[Call]:
        """Return the calls that have not begun."""
        return [self._call(kept) for kept in self._parcel.calls]

    def tasks(self) -> list[Task]:
        """Return the tasks that have."""
        return [self._task(kept) for kept in self._parcel.tasks]

    def _call(self, kept: KeptCall) -> Call:
        future: DaskFuture[Any] = DaskFuture(kept.name, kept.number, self._canceller)
        future._call = call = Call(future, None, None, None, kept.options)
        call.blob = kept.blob
        if kept.carried is not None:  # one object for equal functions: calls share tasks by it
            call.carried = self._carried.setdefault(kept.carried, kept.carried)
        identity = kept.name if kept.carried is None else kept.carried
        call.function = self._policy.known(("left", identity), kept.name)
        call.large = [self._large[key] for key in kept.large]
        if kept.values:
            call.others = Needs()
            for key, body in kept.values.items():
                call.others.values[key] = Value(call, key, len(body), body=body)
        call.resent, call.begun, call.alone = kept.resent, kept.begun, kept.alone
        call.raised = kept.raised
        self.futures[kept.index] = future
        return call

    def _task(self, kept: KeptTask) -> Task:
        calls = []
        for member in kept.members:
            if member is not None:
                call = self._call(member)
                call.stage = SENT
            else:
                call = Call(DaskFuture(), None, None, None, CallOptions())
                call.stage = OVER
            calls.append(call)
        function = next(call.function for call in calls if call.function is not None)
        task = Task(calls, kept.options, function, 0.0)
        task.mixed, task.slot = kept.mixed, kept.slot
        task.key, task.told, task.started = kept.key, kept.told, kept.started
        task.begun, task.submitted = kept.begun, True
        task.started_at = monotonic() - kept.ran
        for call in task.calls:
            call.task = task
        if kept.started is not None:
            set_all_running(call.future for call in task.calls)
        return task
