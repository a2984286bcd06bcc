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

import asyncio
import contextlib
import math
import os
import pickle
import platform
import sys
import threading
import time
import weakref
from collections import OrderedDict
from itertools import takewhile
from types import FunctionType
from typing import Any

from distributed import Status, Worker, WorkerPlugin, get_worker

from daskexec._board import DECLINED, FINISHED, INITIALIZING, RUNNING, Board, path_in
from daskexec._calls import Outcome, Ticket
from daskexec._contact import Contact, Heeding, contact_of
from daskexec._failures import Failure
from daskexec._frames import Frames, load_result
from daskexec._lifetimes import CUT, SLACK, fits
from daskexec._link import GAVE_WAY
from daskexec._marks import executor_of, mark_begun, results_of
from daskexec._pickling import load, running
from daskexec._run import Run, failure_of, run_with_globals
from daskexec._worker_end import before_end, lifetime_of, seconds_left

__all__ = [
    "BARRED",
    "LOST",
    "PROCESS",
    "EndPlugin",
    "InitializerPlugin",
    "abandon",
    "doom",
    "end_of",
    "has_initializer",
    "keep",
    "kill_child",
    "outcome_of",
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

#: Seconds between two reports of what a task has done so far, and bytes of results in one at most.
_SO_FAR_EVERY, _SO_FAR_BYTES = 1.0, 16384
#: Seconds after which a task goes no further if calls of other kinds wait for its thread.
_ALONE = 0.5

#: Of an outcome: it was withdrawn since this process is to be killed.
_DOOMED = 1
#: Boards that are kept mapped: executors of nested calls come and go.
_BOARDS = 32

#: Annotation of a task whose result was lost with its worker: see `daskexec._once`.
LOST = "daskexec-lost"
#: Annotation of a task that no worker is to begin which is given it from now on.
BARRED = "daskexec-barred"
#: Seconds between two refusals of a worker that is about to end.
_REFUSALS = 0.25
#: Seconds that a task waits to be heard of before it runs, where it must be.
_HEARD = 10.0
#: Seconds for which a doomed worker waits for new results to be fetched; and how old those are.
_FETCHED, _NEW = 30.0, 10.0
#: Seconds for which a call that may be killed gives way to the fetching of results that are new.
_GIVES_WAY = 1.0
#: Seconds between two looks of a doomed worker at whether it is free to end.
_DOOMED_LOOK = 0.02
#: Seconds between two looks at whether a task has ended that Dask has let go of.
_OUTCOME_LOOK = 0.02
#: What the claim on a task that may be begun once only is called, among Dask's events.
CLAIM = "daskexec-begun-"

#: Seconds after which a task is looked at half as often: each look stops its calls for a moment.
_LONG = 1.0
#: Tells this process from all others, also of other hosts.
PROCESS = os.urandom(8).hex()

_lock = threading.Lock()
_next_refusal: weakref.WeakKeyDictionary[Any, float] = weakref.WeakKeyDictionary()
_begun: OrderedDict[str, None] = OrderedDict()
_withdrawn: OrderedDict[str, None] = OrderedDict()
_under_way: dict[str, _Watch] = {}  # tasks that run now, by key
_calls_begun: dict[str, int] = {}  # executor -> calls begun here
_initializers: dict[str, _Initializer] = {}  # executor -> its initializer
_ended: OrderedDict[str, float] = OrderedDict()  # when tasks ended
_doomed: set[str] = set()  # tasks for which this process is to be killed; then it begins no other
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
            board.pardon()
            if len(_boards) > _BOARDS:  # unmapped when no task writes there any more
                _boards.popitem(last=False)
        _boards.move_to_end(ticket.executor)
        return board


def run_task(ticket: Ticket, *needed: Frames | Outcome) -> Outcome:
    """Run one task on this worker; the value of the Dask task is the outcome.

    `needed`: the large objects and, after these, the outcomes of earlier calls that it needs.
    """
    worker = get_worker()
    notes = _annotations(worker, ticket.key)
    if LOST in notes:  # whatever else keeps it from being run here, it is not to be sent again
        return Outcome("refused", list(notes[LOST]), detail=FINISHED)
    if BARRED in notes:
        return Outcome("withdrawn", [])
    run = Run(ticket, needed)
    if run.missing:
        return Outcome("missing", [key.encode() for key in run.missing], count=0)
    watch = _Watch(worker, run)
    if ticket.once and ticket.slot < 0:
        with _lock:
            contact = contact_of(worker)
        if not contact.has(ticket.key):
            return Outcome("withdrawn", [])
        if not _ask(worker, _claim(worker, ticket.key)):
            return Outcome("refused", [], detail=RUNNING)
    try:
        board = _board_of(ticket)
    except FileNotFoundError:  # its executor has ended
        return Outcome("withdrawn", [])  # nobody waits for it any more
    refusal = _begin(watch, board)
    if refusal is not None:
        if refusal.kind == "leaving" or (refusal.kind == "withdrawn" and refusal.detail):
            _refuse_slowly(worker)
        return refusal
    try:
        if watch.contact is not None and not watch.contact.has(ticket.key):
            return Outcome("withdrawn", [])  # it was given to another worker
        run.place = (worker.address, str(worker.name), platform.node())
        watch.start()
        running.give_thread_back = run.give_thread_back
        running.executor = running.within = ticket.home
        running.given = run.value_of
        if ticket.has_initializer:
            failure = _initialize(ticket)
            if failure is not None:
                return Outcome("initializer", [failure])
            if board is not None:
                board.mark(ticket.slot, RUNNING)
        if ticket.announced:
            _announce(watch)
        run.run(board if watch.contact is None else Heeding(watch.contact, run, watch.trail))
        if board is not None:
            board.mark(ticket.slot, FINISHED)
        outcome = run.outcome()
        if outcome.size() + len(outcome.output) <= _TOLD_AT_ONCE:
            worker.log_event(
                ticket.topic,
                {
                    "daskexec": ticket.executor,
                    "done": ticket.key,
                    "outcome": pickle.dumps(outcome, 4),
                },
            )
        elif run.calls == 1 and outcome.count == 1 and not isinstance(outcome.bodies[0], Failure):
            # The client may want no more than to know that it is there.
            brief = pickle.dumps(outcome.brief(), 4)
            message = {"daskexec": ticket.executor, "there": ticket.key, "outcome": brief}
            worker.log_event(ticket.topic, message)
        return outcome
    finally:
        running.give_thread_back = running.given = None
        running.within = ""
        run.over = True
        with _lock:
            _under_way.pop(ticket.key, None)
            _ended[ticket.key] = time.monotonic()
            if len(_ended) > _REMEMBERED:
                _ended.popitem(last=False)
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
            if stage == DECLINED:
                return Outcome("withdrawn", [])
            if stage:
                left = board.recover(ticket.slot, ticket.turn, pid)
                return Outcome("refused", left, pid=pid, detail=stage)
            board.mark(ticket.slot, INITIALIZING if ticket.has_initializer else RUNNING)
            if not board.has_turn(ticket.slot, ticket.turn):  # barred just now
                board.decline(ticket.slot)
                return Outcome("withdrawn", [])
            # For whichever executor: its client marks that on the board of its own.
            if _doomed or any(one.doomed() for one in tuple(_boards.values())):
                board.decline(ticket.slot)
                watch.worker.loop.add_callback(_pause, watch.worker)
                return Outcome("withdrawn", [], detail=_DOOMED)
        elif _doomed:
            return Outcome("withdrawn", [], detail=_DOOMED)
        else:
            watch.trail = mark_begun(watch.worker, key)
            watch.contact = contact_of(watch.worker)
        _begun[key] = None
        if len(_begun) > _REMEMBERED:
            _begun.popitem(last=False)
        _under_way[key] = watch
        if ticket.max_calls:
            _calls_begun[ticket.executor] = _calls_begun.get(ticket.executor, 0) + 1
    return None


def _annotations(worker: Any, key: str) -> dict[str, Any]:
    """Return what the scheduler had noted of a task when it gave it to this worker."""
    task = worker.state.tasks.get(key)
    return (task.annotations if task is not None else None) or {}


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
    """Tell the client that the task is running."""
    worker.log_event(ticket.topic, _started(worker, ticket))


def _announce(watch: _Watch) -> None:
    """Tell the client that the task is running, and wait until that is on its way.

    A call that holds the GIL lets nothing leave this process any more. So the results of
    calls before it are to be gone as well.
    """
    worker, ticket = watch.worker, watch.run.ticket
    try:
        _ask(worker, _announced(worker, ticket))
    except Exception:  # the connection is going, or very slow
        worker.log_event(ticket.topic, _started(worker, ticket))


async def _announced(worker: Any, ticket: Ticket) -> None:
    until = time.monotonic() + _GIVES_WAY
    recent = _recent(_GIVES_WAY)
    while recent and time.monotonic() < until:
        if ticket.slot < 0:  # else the board knows that they are over
            told = await worker.scheduler.processing(workers=[worker.address])
            unknown = recent.intersection(told.get(worker.address, ()))
        else:
            unknown = set()
        recent = {key for key in recent if key in unknown or _is_to_fetch(worker, key)}
        if recent:
            await asyncio.sleep(_DOOMED_LOOK / 4)
    await worker.scheduler.log_event(topic=ticket.topic, msg=_started(worker, ticket))


def _recent(seconds: float) -> set[str]:
    """Return which tasks have ended here in the last seconds."""
    since = time.monotonic() - seconds
    with _lock:
        return set(takewhile(lambda key: _ended[key] > since, reversed(_ended)))


def _is_to_fetch(worker: Any, key: str) -> bool:
    """Tell whether the result of a task is here, and was too large to be told at once."""
    outcome = worker.data.get(key)
    return isinstance(outcome, Outcome) and outcome.size() > _TOLD_AT_ONCE


def _ask(worker: Any, question: Any) -> Any:
    """Wait for what is awaited on the worker's loop; on another thread."""
    return asyncio.run_coroutine_threadsafe(question, worker.loop.asyncio_loop).result(_HEARD)


async def _claim(worker: Any, key: str) -> bool:
    """Note with the scheduler that a task is begun; False if that is noted already.

    Dask has a task with one worker at a time, so nobody claims it in between.
    """
    name = CLAIM + key
    if await worker.scheduler.event_is_set(name=name):
        return False
    await worker.scheduler.event_set(name=name)
    return True


def _started(worker: Any, ticket: Ticket) -> dict[str, Any]:
    """Say that a task is running, and on its way out when the worker is worn."""
    message: dict[str, Any] = {
        "daskexec": ticket.executor,
        "key": ticket.key,
        "worker": worker.address,
        "name": str(worker.name),
        "pid": os.getpid(),
        "host": platform.node(),
        "began": _began_at(ticket.key),
    }
    remaining = seconds_left(worker)
    if remaining is not None:
        message["left"], message["lifetime"] = remaining + SLACK, lifetime_of(worker)
    if ticket.max_calls and _calls_begun.get(ticket.executor, 0) >= ticket.max_calls:
        message["worn"] = True
        worker.loop.add_callback(_pause, worker)
    return message


def _began_at(key: str) -> float:
    """Return when a task began that may still run, by the wall clock."""
    with _lock:
        watch = _under_way.get(key)
    return time.time() - (time.perf_counter() - watch.run.started) if watch is not None else 0.0


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
        self.trail: Any = None  # where results are left, on a cluster that was given
        self.contact: Contact | None = None  # with the scheduler of one
        self.told = 0  # results that were told of while it runs
        self.told_at = run.started  # or looked at for that, last
        self.seen = 0  # results that there were when the running call began, as far as known
        self.since = run.started
        self.patience = run.ticket.slow_after

    def start(self) -> None:
        """Say that the task runs: not at once, since most are over before it is heard."""
        if self.run.ticket.max_calls and not self.run.ticket.announced:
            _report(self.worker, self.run.ticket)
        self.worker.loop.add_callback(self._start)

    def _start(self) -> None:
        if not self.run.over:
            self.worker.loop.call_later(_SAID_AFTER, self._say)

    def _say(self) -> None:
        if not self.run.over:
            if not self.run.ticket.max_calls and not self.run.ticket.announced:
                _report(self.worker, self.run.ticket)
            self._again()

    def _again(self) -> None:
        if not self.run.over:
            pause = self.run.ticket.slow_after
            if time.perf_counter() - self.run.started < _LONG:
                pause = max(pause / 2, 0.02)
            self.worker.loop.call_later(pause, self._look)

    def _look(self) -> None:
        run, ticket, now = self.run, self.run.ticket, time.perf_counter()
        done = len(run.results)
        if done != self.seen:
            self.seen, self.since, self.patience = done, now, ticket.slow_after
        if now - run.started > ticket.stop_after:
            run.hand_back()  # its outcome will say so
        elif run.todo and now - run.started > _ALONE and self._others_wait():
            run.hand_back()
        if run.todo and now - self.told_at >= _SO_FAR_EVERY:
            self.told_at = now
            self._tell_so_far()
        if now - self.since >= self.patience and self._waited_for() and not run.over:
            event = {
                "daskexec": ticket.executor,
                "slow": ticket.key,
                "worker": self.worker.address,
            }
            self.worker.log_event(ticket.topic, event)
            self.patience += min(self.patience, _LONGEST_PAUSE)
        self._again()

    def _tell_so_far(self) -> None:
        """Have the client know what of a long task is done; large results it gets at the end."""
        outcome = self.run.outcome(self.told, so_far=True)
        if outcome.count and outcome.size() <= _SO_FAR_BYTES:
            self.told += outcome.count
            ticket = self.run.ticket
            event = {
                "daskexec": ticket.executor,
                "so_far": ticket.key,
                "outcome": pickle.dumps(outcome, 4),
            }
            self.worker.log_event(ticket.topic, event)

    def _others_wait(self) -> bool:
        """Tell whether a task waits here that is not of the same executor and priority."""
        if self.run.ticket.stop_after == float("inf"):
            return False  # its calls are to stay together
        mine = self.worker.state.tasks.get(self.run.ticket.key)
        if mine is None:
            return False
        rank = _rank(mine)
        return any(
            _rank(other) < rank
            or (_rank(other) == rank and executor_of(other.key) != self.run.ticket.executor)
            for other in self.worker.state.ready
            if other.key not in _withdrawn
        )

    def _waited_for(self) -> bool:
        """Tell whether anything waits for the running call to end."""
        if self.run.thread_is_free:  # nothing but what is over waits for it
            return self.seen > self.told
        return bool(
            self.run.todo
            or self.seen > self.told
            or any(task.key not in _withdrawn for task in self.worker.state.ready)
        )


def _rank(task: Any) -> int:
    """Return by what Dask sorts a task first: less goes first; without our own `ahead`."""
    rank: int = math.ceil(task.priority[0])
    return rank


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
    initializer = _initializers.get(ticket.home)
    if initializer is None:
        lost = RuntimeError("the executor's initializer has not reached this worker")
        return Failure.of(lost)
    return initializer.run()


def has_initializer(executor: str) -> bool:
    """Tell whether an executor has an initializer, here."""
    return executor in _initializers


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


class EndPlugin(WorkerPlugin):
    """Has something done when a worker ends, before its client is closed; on its event loop."""

    def __init__(self, do: weakref.WeakMethod[Any]) -> None:
        self._do = do

    def teardown(self, worker: Any) -> None:
        do = self._do()
        if do is not None:
            do()


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


async def outcome_of(key: str, dask_worker: Any = None) -> Outcome | None:
    """Return what comes of a task that this process has begun, once it has ended.

    For one that Dask has let go of, and of its result. None: what came of it is not known here.
    """
    with _lock:
        watch = _under_way.get(key)
    if watch is None:
        left = results_of(dask_worker.local_directory, os.getpid(), [key])
        return Outcome("let go", left[0]) if left and left[0] else None
    while not watch.run.over:
        await asyncio.sleep(_OUTCOME_LOOK)
    return watch.run.outcome()


def abandon(keys: list[str]) -> None:
    """Begin no further call of some tasks."""
    with _lock:
        for key in keys:
            watch = _under_way.get(key)
            if watch is not None:
                watch.run.hand_back()
            elif key not in _begun:
                _bar(key)


# --- the end of a process that runs a call which is to be killed ------------------------------


def doom(key: str, client: str, dask_worker: Any = None) -> str:
    """End this process as soon as nothing runs in it but the task `key`; begin no other.

    Runs on the worker's event loop.

    Parameters
    ----------
    key : str
        Task of the call that is to be killed; nobody waits for it any more.
    client : str
        `PROCESS` of the one who asks.

    Returns
    -------
    str
        Why that cannot be, or "".
    """
    from distributed import Scheduler

    if client == PROCESS or Scheduler._instances:
        return "its worker is a thread of a process that has more to do, and cannot be killed"
    with _lock:
        if key not in _under_way:
            return ""  # it has just ended, and the process may go on
        first = not _doomed
        _doomed.add(key)
    for worker in Worker._instances:
        _pause(worker)
    if first:
        dask_worker.loop.add_callback(_end_when_free, dask_worker)
    return ""


async def _end_when_free(worker: Any) -> None:
    while _is_busy():
        if _is_pardoned():
            return
        await asyncio.sleep(_DOOMED_LOOK)
    # Results that nobody has fetched yet are waited for; what has been here for longer is kept by
    # somebody, who loses it as by any end of a worker: Dask computes it again.
    begun = time.monotonic()
    while (waited := time.monotonic() - begun) < _FETCHED and _has_results(waited + _NEW):
        await asyncio.sleep(_DOOMED_LOOK)
    os._exit(GAVE_WAY)


def _has_results(seconds: float) -> bool:
    """Tell whether results of the last seconds are still here."""
    recent = _recent(seconds)
    return any(key in one.data for one in Worker._instances for key in recent)


def _is_pardoned() -> bool:
    """Go on as before if what was to be killed has ended by itself, while other calls ran."""
    with _lock:
        if not _doomed.isdisjoint(_under_way):
            return False
        _doomed.clear()
    for worker in Worker._instances:
        if worker.status == Status.paused:
            worker.status = Status.running
    return True


def _is_busy() -> bool:
    """Tell whether anything runs here that is not to be killed."""
    running_here = (ts.key for one in Worker._instances for ts in one.state.all_running_tasks)
    with _lock:
        return any(key not in _doomed for key in (*_under_way, *running_here))


def kill_child(pid: int, dask_worker: Any = None) -> bool:
    """Kill the worker process of this nanny, which starts another one; False if it has ended."""
    import signal

    if dask_worker.pid != pid:
        return False
    os.kill(pid, signal.SIGKILL)
    return True


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
