"""Running the calls of one task, on a thread of a worker. Floor 3.

The loops here are the price of a small call on a worker, about a microsecond: no clock is read
between two calls, no lock is taken. What looks after a task while it runs (`daskexec._remote`)
sees it by the number of its results, and ends it by taking away what is still to do.

In a process pool ``__main__`` is one module for all calls of a worker. Here its functions arrive
anew: what they assign to their globals is put back for later calls (`_keep_assigned_globals`).
"""

from __future__ import annotations

import contextlib
import marshal
import os
import pickle
import platform
import sys
import time
from array import array
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from functools import partial
from types import FunctionType, ModuleType
from typing import Any, Protocol

import distributed

from daskexec._board import PLAIN_KIND, Leave
from daskexec._calls import Body, Load, Outcome, Ticket, size_of
from daskexec._capture import capturing
from daskexec._failures import Failure, is_of_missing_code
from daskexec._frames import Frames, dump_result, load_again, load_referring
from daskexec._pickling import PLAIN, PROTOCOL, dump, load, main_globals, running

__all__ = ["Run", "failure_of", "forget_functions", "run_with_globals"]

_HERE = os.path.dirname(__file__)

_EXECUTORS = 100
_FUNCTIONS = 256
#: Bytes of results after which a shared task goes no further, those below `_SMALL` not counted.
_MOST_BYTES = 4 << 20
_SMALL = 4096

_functions: OrderedDict[bytes, Any] = OrderedDict()  # that last, by their pickles


class _Pickled(bytes):
    """A pickled value among plain ones."""


class Trails(Protocol):
    """Where the results of tasks are left: a `Board`, or what stands for one."""

    def trail(self, slot: int, turn: int, calls: int) -> Leave:
        """Return ``leave(index, result, kind=...)`` for one task of so many calls."""


class Run:
    """One task while it runs.

    Its thread alone runs `run`. The worker's event loop looks at `results` and takes from
    `todo`; whoever takes a call out of that, has it alone.

    Attributes
    ----------
    todo : deque
        Calls that are not begun.
    results : list
        What the calls that are over came to.
    over : bool
        The task has ended.
    thread_is_free : bool
        Its running call has given its thread back.
    place : (str, str, str) or None
        Address, name and host of the worker.
    missing : list of str
        Keys of earlier calls whose values the task needs, and that have none any more.
    """

    def __init__(self, ticket: Ticket, needed: Sequence[Frames | Outcome] = ()) -> None:
        self.ticket = ticket
        self._load: Callable[[Any], Any] = load
        large = [one for one in needed if isinstance(one, Frames)]
        if large:
            self._load = partial(load_referring, large={one.key: one for one in large})
        carried = Load.unpack(ticket.load)
        self.missing: list[str] = []
        self._given = dict(carried.bodies or {})
        if carried.given:
            self._take(carried.given, needed[len(large) :])
        self._carried, self._which = carried.functions, carried.which
        self._together, self._single = not isinstance(carried.calls, list), carried.single
        # Each call stays bytes until it is its turn, unless nothing in it can change.
        self.todo: deque[Any] = deque(load(carried.calls) if self._together else carried.calls)
        self.calls = len(self.todo)
        self.results: list[Any] = []
        self.started = time.perf_counter()
        self._seconds = array("d")  # of each call, where they are not all of one function
        self._told = self.started  # until when an outcome has told of its time
        self._bytes = 0  # of large results
        self._wall = 0.0  # when it was started, in seconds since the epoch
        self.place: tuple[str, str, str] | None = None
        self._output = b""
        self.over = self.thread_is_free = False

    def _take(self, keys: list[str], outcomes: Sequence[Any]) -> None:
        """Take the values of earlier calls, as Dask has brought them here."""
        for key, outcome in zip(keys, outcomes, strict=True):
            bodies = outcome.bodies
            if outcome.kind != "ran" or len(bodies) != 1 or isinstance(bodies[0], Failure):
                self.missing.append(key)  # Dask has tried to have it anew
            else:
                self._given[key] = bodies[0]

    def value_of(self, key: str) -> Any:
        """Return the value of an earlier call: an object of the caller's own."""
        return load_again(self._given[key])

    def run(self, board: Trails | None) -> None:
        """Run the calls until none is left to do; leave what they come to on the board."""
        leave = None
        if board is not None:
            leave = board.trail(self.ticket.slot, self.ticket.turn, self.calls)
        self.started = self._told = time.perf_counter()
        self._wall = time.time()
        if self.ticket.captures:
            with capturing() as capture:
                self._run_each(leave)
            self._output = capture.pack()
        elif self._together:
            self._run_together(leave)
        else:
            self._run_each(leave)

    def _run_together(self, leave: Leave | None) -> None:
        """Run one function over plain arguments."""
        pop, results, single = self.todo.popleft, self.results, self._single
        dumps, plain = marshal.dumps, PLAIN
        index = 0
        while True:
            try:
                item = pop()
            except IndexError:
                return
            try:
                if not index:
                    fn = self._function(0)
                    mine = _is_of_main(fn)
                if mine:
                    value = run_with_globals(fn, (item,) if single else item, {})
                else:
                    value = fn(item) if single else fn(*item)
                if type(value) not in plain:
                    value = _Pickled(dump(value))
                    if leave is not None:
                        leave(index, value)
                    self._weigh(value)
                elif leave is not None:
                    leave(index, dumps(value), PLAIN_KIND)
            except BaseException as exc:
                value = self._failure(exc)
                if leave is not None:
                    leave(index, value)
                if not index:
                    fn, mine = self._again, False  # in case it could not be loaded
            results.append(value)
            index += 1

    def _again(self, *args: Any) -> Any:
        fn = self._function(0)
        return run_with_globals(fn, args, {}) if _is_of_main(fn) else fn(*args)

    def _run_each(self, leave: Leave | None) -> None:
        """Run calls of whatever functions, each unpickled by itself."""
        pop, results, which = self.todo.popleft, self.results, self._which
        dumps, plain, load_call = pickle.dumps, PLAIN, self._load
        index = function = 0
        body: Body
        while True:
            try:
                call = pop()
            except IndexError:
                return
            try:
                if which is not None:
                    self._seconds.append(-time.perf_counter())
                    function = which[index]
                if function < 0:
                    fn, args, kwargs = load_call(call)
                else:
                    fn = self._function(function)
                    args, kwargs = load_call(call)
                call = None
                if _is_of_main(fn):
                    value = run_with_globals(fn, args, kwargs)
                else:
                    value = fn(*args, **kwargs)
                fn = args = kwargs = None
                body = dumps(value, PROTOCOL) if type(value) in plain else dump_result(value)
                value = None
            except BaseException as exc:
                fn = args = kwargs = value = None
                body = self._failure(exc)
            if which is not None:
                self._seconds[-1] += time.perf_counter()
            if leave is not None:
                leave(index, body)
            results.append(body)
            index += 1
            if type(body) is not bytes or len(body) > _SMALL:
                self._weigh(body)

    def _weigh(self, body: Body) -> None:
        self._bytes += size_of(body)
        if self._bytes > _MOST_BYTES:
            self.hand_back()

    @staticmethod
    def _failure(exc: BaseException) -> Failure:
        trace = exc.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
            trace = trace.tb_next  # the user's frames only
        if trace is not None:
            exc.__traceback__ = trace
        return failure_of(exc)

    def _function(self, index: int) -> Any:
        blob, lasting = self._carried[index]
        if not lasting:
            return load(blob)
        fn = _functions.get(blob)
        if fn is None:
            fn = _functions[blob] = load(blob)
            if len(_functions) > _FUNCTIONS:
                with contextlib.suppress(KeyError):  # another thread was here
                    _functions.popitem(last=False)
        elif _is_of_main(fn):  # what calls have assigned since it came
            assigned = main_globals.get(self.ticket.home)
            if assigned:
                fn.__globals__.update(assigned)
        return fn

    def hand_back(self) -> int:
        """Begin no further call; return how many were not begun."""
        calls = 0
        with contextlib.suppress(IndexError):
            while True:
                self.todo.pop()
                calls += 1
        return calls

    def keep(self, calls: int) -> None:
        """Hand back all but the first `calls` calls; before any is begun."""
        while len(self.todo) > calls:
            self.todo.pop()

    def outcome(self, first: int = 0, *, so_far: bool = False) -> Outcome:
        """Return what came of the calls from `first` on, as far as they are over.

        `so_far`: the next outcome is to tell of the time that they took.
        """
        results: list[Any] = self.results[first:]
        together = self._together and PLAIN.issuperset(map(type, results))
        if self._together and not together:
            results = [
                pickle.dumps(result, PROTOCOL) if type(result) in PLAIN else result
                for result in results
            ]
            results = [bytes(result) if type(result) is _Pickled else result for result in results]
        seconds: Sequence[float] = self._seconds[first : first + len(results)]
        began = self._wall + sum(self._seconds[:first])
        if self._which is None:
            now, since = time.perf_counter(), self._told if first else self.started
            began, seconds = self._wall + since - self.started, [now - since]
            if results and not so_far:
                self._told = now
        return Outcome(
            "ran",
            pickle.dumps(results, PROTOCOL) if together else results,
            count=len(results),
            first=first,
            seconds=seconds,
            pid=os.getpid(),
            place=self.place,
            began=began,
            output=self._output,
        )

    def give_thread_back(self) -> None:
        """Let the worker run another task beside the call on this thread.

        Called when a call submits calls: it will wait for them in one way or another, and
        with all threads waiting so nothing would ever run.
        """
        running.give_thread_back = None
        self.thread_is_free = True
        self.hand_back()
        ticket, begun = self.ticket, len(self.results) + 1
        distributed.secede()
        # Or the client would think that its thread has enough to do, and that what was handed
        # back is still here.
        message = {"daskexec": ticket.executor, "waits": ticket.key, "begun": begun}
        distributed.get_worker().log_event(ticket.topic, message)


def failure_of(exc: BaseException) -> Failure:
    """Describe what was raised here; what comes of missing code with the place it is missing."""
    failure = Failure.of(exc)
    if isinstance(exc, (AttributeError, ImportError)):
        trace, ours = exc.__traceback__, True
        while trace is not None and ours:
            ours = os.path.dirname(trace.tb_frame.f_code.co_filename) == _HERE
            trace = trace.tb_next
        if is_of_missing_code(exc, ours):
            failure.place, failure.unpickling = _place(), ours
    return failure


def _place() -> str:
    """Name this worker, and the Python that it runs, for people."""
    python = f"{sys.executable}, Python {platform.python_version()}, on {platform.node()}"
    try:
        return f"worker {distributed.get_worker().name} ({python})"
    except ValueError:  # not on a worker's thread
        return python


def forget_functions() -> None:
    """Unpickle all functions anew: the modules that they are from may be others now."""
    _functions.clear()


# --- globals of __main__ ------------------------------------------------------------------------


def _is_of_main(fn: Any) -> bool:
    return type(fn) is FunctionType and fn.__module__ == "__main__"


def run_with_globals(fn: FunctionType, args: Any, kwargs: Any, *, mutated: bool = False) -> Any:
    """Run a function of ``__main__``; what it assigns to globals is kept for later calls."""
    before = fn.__globals__.copy()
    value = fn(*args, **kwargs)
    _keep_assigned_globals(fn, before, mutated)
    return value


def _keep_assigned_globals(fn: FunctionType, before: dict[str, Any], mutated: bool) -> None:
    """Remember the globals of ``__main__`` that a function has assigned, for later calls.

    What it only reads keeps coming from the client, so that a redefined function or constant
    is seen. With `mutated` data counts as assigned when it was just reachable: initializers
    fill dictionaries.
    """
    kept = {
        name: value
        for name, value in fn.__globals__.items()
        if not name.startswith("__")
        and (
            name not in before
            or before[name] is not value
            or (mutated and not isinstance(value, (FunctionType, type, ModuleType)))
        )
    }
    if kept:
        main_globals.setdefault(running.executor, {}).update(kept)
        while len(main_globals) > _EXECUTORS:
            del main_globals[next(iter(main_globals))]
