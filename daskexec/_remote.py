"""The only code that runs on workers. Floor 4.

A Dask task of ours is ``run_task(ticket)``: it runs the calls in the ticket (`daskexec._run`) on
a thread of the worker's pool and returns an `Outcome` for all of them.
Nothing that a user's code does there, `SystemExit` and unpicklable results included, reaches
Dask's own machinery.

A task is begun at most once: `_begin` and `withdraw` exclude each other under `_lock`, which
guards all that a process remembers. A call of a shared task is begun at most once: whoever takes
it out of the task's queue, its thread to run it or `relieve` to hand it back, has it alone. While
a task runs the worker's event loop looks after it (`_Watch`): a call that takes long is reported
to the client, which then relieves the worker of what waits behind it.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
import threading
import time
import weakref
from collections import OrderedDict
from types import FunctionType
from typing import Any

from distributed import Status, WorkerPlugin, get_worker

from daskexec._board import FINISHED, INITIALIZING, RUNNING, Board, path_in
from daskexec._calls import Outcome, Ticket
from daskexec._failures import Failure
from daskexec._frames import Frames, load_result
from daskexec._lifetimes import CUT, SLACK, fits
from daskexec._pickling import load, running
from daskexec._run import Run, failure_of, run_with_globals
from daskexec._worker_end import before_end, lifetime_of, seconds_left

__all__ = [
    "InitializerPlugin",
    "abandon",
    "end_of",
    "keep",
    "relieve",
    "run_task",
    "use_boards",
    "value_of",
    "withdraw",
]

_REMEMBERED = 20_000
#: Seconds between two reports of one slow call, at most, unless it may take longer anyway.
_LONGEST_PAUSE = 2.0
#: Seconds after which it is said that a task runs.
_SAID_AFTER = 0.005
#: Bytes of results up to which they are told in an event, which saves the client a question and
#: its answer. The scheduler keeps the last thousand or so of them.
_TOLD_AT_ONCE = 4096

#: Boards that are kept mapped: executors of nested calls come and go.
_BOARDS = 32

#: Seconds between two refusals of a worker that is about to end.
_REFUSALS = 0.25

_lock = threading.Lock()
_next_refusal: weakref.WeakKeyDictionary[Any, float] = weakref.WeakKeyDictionary()
_begun: OrderedDict[str, None] = OrderedDict()
_withdrawn: OrderedDict[str, None] = OrderedDict()
_under_way: dict[str, _Watch] = {}  # tasks that run now, by key
_calls_begun: dict[str, int] = {}  # executor -> calls begun here
_initializers: dict[str, _Initializer] = {}  # executor -> its initializer
_board_folder = ""
_boards_lock = threading.Lock()  # guards the next one
_boards: OrderedDict[str, Board] = OrderedDict()  # executor -> its board, the last used last


def use_boards(folder: str) -> None:
    """Have this process mark the tasks it begins (workers that daskexec started)."""
    global _board_folder
    _board_folder = folder


def _board_of(ticket: Ticket) -> Board | None:
    """Return the board that a task is on."""
    if ticket.slot < 0 or not _board_folder:
        return None
    with _boards_lock:
        board = _boards.get(ticket.executor)
        if board is None:
            board = _boards[ticket.executor] = Board(path_in(_board_folder, ticket.executor))
            if len(_boards) > _BOARDS:  # unmapped when no task writes there any more
                _boards.popitem(last=False)
        _boards.move_to_end(ticket.executor)
        return board


def run_task(ticket: Ticket, *large: Frames) -> Outcome:
    """Run one task on this worker; the value of the Dask task is the outcome."""
    run = Run(ticket, large)
    worker = get_worker()
    watch = _Watch(worker, run)
    try:
        board = _board_of(ticket)
    except FileNotFoundError:  # its executor has ended
        return Outcome("withdrawn", [])  # nobody waits for it any more
    refusal = _begin(watch, board)
    if refusal is not None:
        if refusal.kind == "leaving":
            _refuse_slowly(worker)
        return refusal
    watch.start()
    running.give_thread_back = run.give_thread_back
    running.executor = ticket.executor
    try:
        if ticket.has_initializer:
            failure = _initialize(ticket)
            if failure is not None:
                return Outcome("initializer", [failure])
            if board is not None:
                board.mark(ticket.slot, RUNNING)
        run.run(board)
        if board is not None:
            board.mark(ticket.slot, FINISHED)
        outcome = run.outcome()
        if outcome.size() <= _TOLD_AT_ONCE:
            worker.log_event(
                ticket.topic,
                {
                    "daskexec": ticket.executor,
                    "done": ticket.key,
                    "outcome": pickle.dumps(outcome, 4),
                },
            )
        return outcome
    finally:
        running.give_thread_back = None
        run.over = True
        with _lock:
            _under_way.pop(ticket.key, None)
        _flush()


def _begin(watch: _Watch, board: Board | None) -> Outcome | None:
    ticket = watch.run.ticket
    key = ticket.key
    remaining = seconds_left(watch.worker)
    with _lock:
        if key in _withdrawn:
            del _withdrawn[key]
            return Outcome("withdrawn", [])
        if remaining is not None and not _has_time(watch, remaining):
            return _too_late(watch.worker, remaining)
        if board is not None:
            if not board.has_turn(ticket.slot, ticket.turn):
                return Outcome("withdrawn", [])  # settled already: nobody waits for it
            pid, stage = board.read(ticket.slot)
            if stage:
                left = board.recover(ticket.slot, ticket.turn, pid)
                return Outcome("refused", left, pid=pid, detail=stage)
            board.mark(ticket.slot, INITIALIZING if ticket.has_initializer else RUNNING)
        _begun[key] = None
        if len(_begun) > _REMEMBERED:
            _begun.popitem(last=False)
        _under_way[key] = watch
        if ticket.max_calls:
            _calls_begun[ticket.executor] = _calls_begun.get(ticket.executor, 0) + 1
    return None


def _has_time(watch: _Watch, remaining: float) -> bool:
    """Tell whether this worker lives long enough for a task; hand back what is too much of it."""
    run, lifetime = watch.run, lifetime_of(watch.worker)
    before_end(watch.worker, CUT, _cut_all)
    each = run.ticket.needs / max(run.calls, 1)
    if remaining <= 0:
        return False
    if not each or fits(run.ticket.needs, remaining, lifetime):
        return True
    if run.ticket.stop_after == float("inf") or not fits(each, remaining, lifetime):
        return False  # calls that are to stay together do
    run.keep(max(1, int(remaining / each)))
    return True


def _refuse_slowly(worker: Any) -> None:
    """Let some time go by between two refusals: Dask moves waiting tasks to idle workers."""
    now = time.monotonic()
    with _lock:
        due = _next_refusal.get(worker, now)
        _next_refusal[worker] = max(now, due) + _REFUSALS
    time.sleep(min(max(0.0, due - now), _REFUSALS))


def _too_late(worker: Any, remaining: float) -> Outcome:
    told = (remaining, lifetime_of(worker))
    return Outcome("leaving", [worker.address.encode()], count=0, seconds=told)


def end_of(dask_worker: Any = None) -> tuple[float, float] | None:
    """Return the seconds in which this worker can run calls, and its lifetime, if it has any."""
    remaining = seconds_left(dask_worker)
    return None if remaining is None else (remaining, lifetime_of(dask_worker))


def _cut_all(worker: Any) -> None:
    """Say which calls are about to be cut off by this worker's end. On its event loop.

    Before that, since Dask would have them run elsewhere, anywhere, again and again.
    """
    with _lock:
        cut = [watch for watch in _under_way.values() if watch.worker is worker]
    for watch in cut:
        if not watch.run.over:
            ticket = watch.run.ticket
            message = {
                "daskexec": ticket.executor,
                "cut": ticket.key,
                "worker": worker.address,
                "ran": time.perf_counter() - watch.since,
                "lifetime": lifetime_of(worker),
            }
            worker.log_event(ticket.topic, message)


def _report(worker: Any, ticket: Ticket) -> None:
    """Tell the client that the task is running, and on its way out when the worker is worn."""
    message: dict[str, Any] = {
        "daskexec": ticket.executor,
        "key": ticket.key,
        "worker": worker.address,
        "name": str(worker.name),
        "pid": os.getpid(),
    }
    remaining = seconds_left(worker)
    if remaining is not None:
        message["left"], message["lifetime"] = remaining + SLACK, lifetime_of(worker)
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


# --- slow calls -----------------------------------------------------------------------------


class _Watch:
    """Looks after a task while it runs; on the worker's event loop."""

    def __init__(self, worker: Any, run: Run) -> None:
        self.worker, self.run = worker, run
        self.told = 0  # results that `relieve` has told of
        self.seen = 0  # results that there were when the running call began, as far as known
        self.since = run.started
        self.patience = run.ticket.slow_after

    def start(self) -> None:
        """Say that the task runs: not at once, since most are over before it is heard."""
        if self.run.ticket.max_calls:
            _report(self.worker, self.run.ticket)
        self.worker.loop.add_callback(self._start)

    def _start(self) -> None:
        if not self.run.over:
            self.worker.loop.call_later(_SAID_AFTER, self._say)

    def _say(self) -> None:
        if not self.run.over:
            if not self.run.ticket.max_calls:
                _report(self.worker, self.run.ticket)
            self._again()

    def _again(self) -> None:
        if not self.run.over:
            self.worker.loop.call_later(max(self.run.ticket.slow_after / 2, 0.02), self._look)

    def _look(self) -> None:
        run, ticket, now = self.run, self.run.ticket, time.perf_counter()
        done = len(run.results)
        if done != self.seen:
            self.seen, self.since, self.patience = done, now, ticket.slow_after
        if now - run.started > ticket.stop_after:
            run.hand_back()  # its outcome will say so
        if now - self.since >= self.patience and self._waited_for() and not run.over:
            event = {
                "daskexec": ticket.executor,
                "slow": ticket.key,
                "worker": self.worker.address,
            }
            self.worker.log_event(ticket.topic, event)
            self.patience += min(self.patience, _LONGEST_PAUSE)
        self._again()

    def _waited_for(self) -> bool:
        """Tell whether anything waits for the running call to end."""
        return bool(
            self.run.todo
            or self.seen > self.told
            or any(task.key not in _withdrawn for task in self.worker.state.ready)
        )


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
        for other in waiting:
            if other not in _begun and other in dask_worker.state.tasks:
                _bar(other)
                answer["barred"].append(other)
        watch = _under_way.get(key)
    if watch is not None:
        run = watch.run
        if run.ticket.stop_after != float("inf"):
            run.hand_back()
        outcome = answer["outcome"] = run.outcome(watch.told)
        if not run.todo:  # also if it was handed back before: the running one is the last
            answer["begun"] = min(run.calls, outcome.first + outcome.count + 1)
        watch.told += outcome.count
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
                    if isinstance(fn, FunctionType) and fn.__module__ == "__main__":
                        run_with_globals(fn, args, {}, mutated=True)
                    else:
                        fn(*args)
                except BaseException as exc:
                    self.failure = failure_of(exc)
                self.done = True
        return self.failure


def _initialize(ticket: Ticket) -> Failure | None:
    initializer = _initializers.get(ticket.executor)
    if initializer is None:
        lost = RuntimeError("the executor's initializer has not reached this worker")
        return Failure.of(lost)
    return initializer.run()


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


def abandon(keys: list[str]) -> None:
    """Begin no further call of some tasks."""
    with _lock:
        for key in keys:
            watch = _under_way.get(key)
            if watch is not None:
                watch.run.hand_back()
            elif key not in _begun:
                _bar(key)


def _bar(key: str) -> None:
    _withdrawn[key] = None
    if len(_withdrawn) > _REMEMBERED:
        _withdrawn.popitem(last=False)


def keep(frames: Frames) -> Frames:
    """Hold a large object, as a task that Dask can run again elsewhere."""
    return frames


def value_of(outcome: Outcome) -> Any:
    """Turn the outcome of a task of one call into its value, for other Dask code."""
    for body in outcome.unpacked():
        if isinstance(body, Failure):
            raise body.load()
        return load_result(body)
    raise RuntimeError(f"the call did not run: {outcome.kind}")
