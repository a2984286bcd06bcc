"""The only code that runs on workers. Floor 3.

A Dask task of ours is ``run_task(ticket)``: it unpickles its calls one by one, runs each, pickles
what came of it, and returns an `Outcome` for all. It runs on a thread of the worker's pool.
Nothing that a user's code does there, `SystemExit` and unpicklable results included, reaches
Dask's own machinery.

A task is begun at most once: `_begin` and `withdraw` exclude each other under `_lock`, which
guards all that a process remembers. A call of a shared task is begun at most once: whoever takes
it out of the task's queue, its thread to run it or `relieve` to hand it back, has it alone. While
a task runs the worker's event loop looks after it (`_look`): a call that takes long is reported to
the client, which then relieves the worker of what waits behind it.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from functools import partial
from types import FunctionType, ModuleType
from typing import Any

import distributed
from distributed import Status, WorkerPlugin, get_worker

from daskexec._board import FINISHED, INITIALIZING, RUNNING, Board
from daskexec._calls import Body, Load, Outcome, Ticket, size_of
from daskexec._failures import Failure
from daskexec._frames import Frames, dump_result, load_referring
from daskexec._pickling import load, main_globals, running

__all__ = [
    "InitializerPlugin",
    "keep",
    "open_board",
    "relieve",
    "run_task",
    "value_of",
    "withdraw",
]

_REMEMBERED = 20_000
_EXECUTORS = 100
_FUNCTIONS = 256
#: Seconds between two reports of one slow call, at most, unless it may take longer anyway.
_LONGEST_PAUSE = 2.0
#: Bytes of results after which a shared task goes no further.
_MOST_BYTES = 4 << 20

_lock = threading.Lock()
_begun: OrderedDict[str, None] = OrderedDict()
_withdrawn: OrderedDict[str, None] = OrderedDict()
_under_way: dict[str, _Run] = {}  # tasks that run now, by key
_calls_begun: dict[str, int] = {}  # executor -> calls begun here
_functions: OrderedDict[bytes, Any] = OrderedDict()  # that last, by their pickles
_initializers: dict[str, _Initializer] = {}  # executor -> its initializer
_board: Board | None = None


def open_board(path: str) -> None:
    """Have this process mark the tasks it begins (workers that daskexec started)."""
    global _board
    _board = Board(path)


def run_task(ticket: Ticket, *large: Frames) -> Outcome:
    """Run one task on this worker; the value of the Dask task is the outcome."""
    run = _Run(ticket, large)
    refusal = _begin(run)
    if refusal is not None:
        return refusal
    worker = get_worker()
    _report(worker, ticket)
    worker.loop.add_callback(_watch, worker, run)
    running.give_thread_back = run.give_thread_back
    running.executor = ticket.executor
    try:
        if ticket.has_initializer:
            failure = _initialize(ticket)
            if failure is not None:
                return Outcome("initializer", [failure])
            _mark(ticket, RUNNING)
        run.run()
        _mark(ticket, FINISHED)
        return run.outcome()
    finally:
        running.give_thread_back = None
        run.over = True
        with _lock:
            _under_way.pop(ticket.key, None)
        _flush()


def _begin(run: _Run) -> Outcome | None:
    ticket = run.ticket
    key = ticket.key
    with _lock:
        if key in _withdrawn:
            del _withdrawn[key]
            return Outcome("withdrawn", [])
        if _board is not None and ticket.slot >= 0:
            if not _board.has_turn(ticket.slot, ticket.turn):
                return Outcome("withdrawn", [])  # settled already: nobody waits for it
            pid, stage = _board.read(ticket.slot)
            if stage:
                left = _board.recover(ticket.slot, ticket.turn, pid)
                return Outcome("refused", left, pid=pid, detail=stage)
            _board.mark(ticket.slot, INITIALIZING if ticket.has_initializer else RUNNING)
        _begun[key] = None
        if len(_begun) > _REMEMBERED:
            _begun.popitem(last=False)
        _under_way[key] = run
        if ticket.max_calls:
            _calls_begun[ticket.executor] = _calls_begun.get(ticket.executor, 0) + 1
    return None


def _mark(ticket: Ticket, stage: int) -> None:
    if _board is not None and ticket.slot >= 0:
        _board.mark(ticket.slot, stage)


def _report(worker: Any, ticket: Ticket) -> None:
    """Tell the client that the task is running, and on its way out when the worker is worn."""
    message: dict[str, Any] = {
        "daskexec": ticket.executor,
        "key": ticket.key,
        "worker": worker.address,
        "name": str(worker.name),
        "pid": os.getpid(),
    }
    if ticket.max_calls and _calls_begun.get(ticket.executor, 0) >= ticket.max_calls:
        message["worn"] = True
        worker.loop.add_callback(_pause, worker)
    worker.log_event(ticket.topic, message)


def _pause(worker: Any) -> None:
    worker.status = Status.paused  # the scheduler sends its tasks elsewhere


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.flush()  # unless closed, or replaced by the user's code


class _Run:
    """One task while it runs.

    Its thread alone runs `run`; `todo` and `bodies` are shared with the event loop's, whose
    steps (take from one end, append, copy) are atomic.
    """

    def __init__(self, ticket: Ticket, large: Sequence[Frames] = ()) -> None:
        self.ticket = ticket
        self.load: Callable[[Any], Any] = load
        if large:
            self.load = partial(load_referring, large={frames.key: frames for frames in large})
        carried = Load.unpack(ticket.load)
        self.functions, self.which = carried.functions, carried.which
        # Kept as bytes until it is this call's turn, unless none of them can change.
        self.together = not isinstance(carried.calls, list)
        self.todo: deque[Any] = deque(load(carried.calls) if self.together else carried.calls)
        self.calls = len(self.todo)
        self.bodies: list[Body] = []
        self.seconds: list[float] = []
        self.given_out = 0  # bodies that `relieve` has given out already
        self.since = time.perf_counter()  # when the call began that is running
        self.pause = ticket.slow_after  # seconds until its calls are looked at again
        self.gave_thread_back = False
        self.over = False

    def run(self) -> None:
        """Run the calls until none is left, or the rest is better off elsewhere."""
        ticket, todo, bodies, clock = self.ticket, self.todo, self.bodies, time.perf_counter
        board = _board if ticket.slot >= 0 else None
        self.since = start = clock()
        stop = start + ticket.stop_after
        size = 0
        while True:
            try:
                call = todo.popleft()
            except IndexError:
                return
            index = len(bodies)
            body = self._body(index, call)
            del call
            if board is not None:
                board.leave(ticket.slot, ticket.turn, index, body)
            now = clock()
            self.seconds.append(now - self.since)
            self.since = now
            bodies.append(body)
            size += len(body) if type(body) is bytes else size_of(body)
            if now > stop or size > _MOST_BYTES or self.gave_thread_back:
                todo.clear()
                return

    def _body(self, index: int, call: Any) -> Body:
        """Run one call."""
        try:
            which = 0 if self.which is None else self.which[index]
            if which < 0:
                fn, args, kwargs = self.load(call)
            else:
                fn = self._function(*self.functions[which])
                args, kwargs = (call, _NO_KEYWORDS) if self.together else self.load(call)
            call = None
            names = _main_globals_of(fn)
            before = names.copy() if names else None
            value = fn(*args, **kwargs)
            if before:
                _keep_assigned_globals(fn, before)
            del fn, args, kwargs, names, before
            return dump_result(value)
        except BaseException as exc:
            exc.__traceback__ = _users_frames(exc)
            return Failure.of(exc)

    def _function(self, blob: bytes, lasting: bool) -> Any:
        if not lasting:
            return load(blob)
        fn = _functions.get(blob)
        if fn is None:
            fn = _functions[blob] = load(blob)
            if len(_functions) > _FUNCTIONS:
                with contextlib.suppress(KeyError):  # another thread was here
                    _functions.popitem(last=False)
            return fn
        if fn.__module__ == "__main__":  # what calls have assigned since it came
            assigned = main_globals.get(self.ticket.executor)
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

    def outcome(self, first: int = 0) -> Outcome:
        """Return what came of the calls from `first` on, as far as they are over."""
        return Outcome(
            "ran",
            self.bodies[first:],
            first=first,
            seconds=self.seconds[first:],
            pid=os.getpid(),
        )

    def give_thread_back(self) -> None:
        """Let the worker run another task beside the call on this thread.

        Called when a call submits calls: it will wait for them in one way or another, and
        with all threads waiting so nothing would ever run.
        """
        running.give_thread_back = None
        self.gave_thread_back = True
        distributed.secede()


_NO_KEYWORDS: dict[str, Any] = {}


def _users_frames(exc: BaseException) -> Any:
    trace = exc.__traceback__
    return trace.tb_next if trace is not None and trace.tb_next is not None else trace


# --- slow calls -----------------------------------------------------------------------------


def _watch(worker: Any, run: _Run) -> None:
    """Look after a task from now on; on the worker's event loop."""
    if not run.over:
        worker.loop.call_later(run.ticket.slow_after, _look, worker, run)


def _look(worker: Any, run: _Run) -> None:
    if run.over:
        return
    left = run.since + run.ticket.slow_after - time.perf_counter()
    if left > 0:
        worker.loop.call_later(max(left, 0.01), _look, worker, run)
        return
    if (
        run.todo
        or len(run.bodies) > run.given_out
        or any(task.key not in _withdrawn for task in worker.state.ready)
    ):
        worker.log_event(
            run.ticket.topic,
            {
                "daskexec": run.ticket.executor,
                "slow": run.ticket.key,
                "worker": worker.address,
            },
        )
        run.pause = min(2 * run.pause, max(run.pause, _LONGEST_PAUSE))
    worker.loop.call_later(run.pause, _look, worker, run)


def relieve(key: str, waiting: list[str], dask_worker: Any = None) -> dict[str, Any]:
    """Take from this worker what waits for a slow call.

    Runs on the worker's event loop.

    Parameters
    ----------
    key : str
        Key of the slow call's task: its calls that are not begun are handed back, and the
        results of those that are over are given out.
    waiting : list of str
        Keys of other tasks of the same executor. Those that have come to this worker and are
        not begun are barred from it.

    Returns
    -------
    dict
        "begun": calls of the task that were begun, or None if it is over; "outcome": the
        `Outcome` of those finished; "barred": keys of the tasks that will not run here.
    """
    answer: dict[str, Any] = {"begun": None, "outcome": None, "barred": []}
    with _lock:
        run = _under_way.get(key)
        for other in waiting:
            if other not in _begun and other in dask_worker.state.tasks:
                _bar(other)
                answer["barred"].append(other)
    if run is not None:
        if run.ticket.stop_after != float("inf"):
            answer["begun"] = run.calls - run.hand_back()
        answer["outcome"] = run.outcome(run.given_out)
        run.given_out += len(answer["outcome"].bodies)
    return answer


# --- initializer --------------------------------------------------------------------------


class _Initializer:
    """The initializer of one executor in this process: run once, by the first call."""

    def __init__(self, blob: bytes) -> None:
        self.blob = blob
        self.lock = threading.Lock()
        self.done = False
        self.failure: Failure | None = None

    def run(self) -> Failure | None:
        with self.lock:  # other threads of the process wait for it, as they must
            if not self.done:
                try:
                    fn, args = load(self.blob)
                    before = _main_globals_of(fn).copy()
                    fn(*args)
                    _keep_assigned_globals(fn, before, mutated=True)
                except BaseException as exc:
                    self.failure = Failure.of(exc)
                self.done = True
        return self.failure


def _initialize(ticket: Ticket) -> Failure | None:
    initializer = _initializers.get(ticket.executor)
    if initializer is None:
        lost = RuntimeError("the executor's initializer has not reached this worker")
        return Failure.of(lost)
    return initializer.run()


def _main_globals_of(fn: Callable[..., Any]) -> dict[str, Any]:
    if isinstance(fn, FunctionType) and fn.__module__ == "__main__":
        return fn.__globals__
    return {}


def _keep_assigned_globals(
    fn: Callable[..., Any], before: dict[str, Any], mutated: bool = False
) -> None:
    """Remember the globals of ``__main__`` that a function has assigned, for later calls.

    In a process pool ``__main__`` is one module for all calls of a worker. Here its functions
    arrive anew with each call: what they assign must be put back. What they only read keeps
    coming from the client, so that a redefined function or constant is seen.
    With `mutated` data counts as assigned when it was just reachable: initializers fill
    dictionaries.
    """
    kept = {
        name: value
        for name, value in _main_globals_of(fn).items()
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


class InitializerPlugin(WorkerPlugin):
    """Brings an executor's initializer to every worker, those that join later included.

    It only lays the bytes down: the user's code runs on the thread of the first call, never
    on the worker's event loop.
    """

    def __init__(self, executor: str, blob: bytes) -> None:
        self.executor, self.blob = executor, blob
        self.name = f"daskexec-initializer-{executor}"

    def setup(self, worker: Any) -> None:
        _initializers.setdefault(self.executor, _Initializer(self.blob))

    def teardown(self, worker: Any) -> None:
        _initializers.pop(self.executor, None)


# --- cancelling, values ---------------------------------------------------------------------


def withdraw(keys: list[str]) -> list[str]:
    """Bar tasks from being begun by this process; return those that were begun already."""
    begun = []
    with _lock:
        for key in keys:
            if key in _begun:
                begun.append(key)
            else:
                _bar(key)
    return begun


def _bar(key: str) -> None:
    _withdrawn[key] = None
    if len(_withdrawn) > _REMEMBERED:
        _withdrawn.popitem(last=False)


def keep(frames: Frames) -> Frames:
    """Hold a large object, as a task that Dask can run again elsewhere."""
    return frames


def value_of(outcome: Outcome) -> Any:
    """Turn the outcome of a task of one call into its value, for other Dask code."""
    for body in outcome.bodies:
        if isinstance(body, Failure):
            raise body.load()
        return body.value() if isinstance(body, Frames) else load(body)
    raise RuntimeError(f"the call did not run: {outcome.kind}")
