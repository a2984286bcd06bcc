"""The only code that runs on workers. Floor 1.

A Dask task of ours is ``run_call(ticket)``: it unpickles one call, runs it, pickles what came
of it, and returns an `Outcome`. It runs on a thread of the worker's pool. Nothing that a
user's code does there, `SystemExit` and unpicklable results included, reaches Dask's own
machinery.

What a process remembers is below; one lock guards it. A call is begun at most once: `_begin`
and `withdraw` exclude each other under that lock.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any

import distributed
from distributed import Status, WorkerPlugin, get_worker

from daskexec import _calls
from daskexec._board import INITIALIZING, RUNNING, Board
from daskexec._calls import Failure, Outcome, Ticket

__all__ = ["InitializerPlugin", "open_board", "run_call", "value_of", "withdraw"]

_REMEMBERED = 20_000
_EXECUTORS = 100

_lock = threading.Lock()
_begun: OrderedDict[str, None] = OrderedDict()
_withdrawn: OrderedDict[str, None] = OrderedDict()
_calls_begun: dict[str, int] = {}  # executor -> calls begun here
_initializers: dict[str, _Initializer] = {}  # executor -> its initializer
_board: Board | None = None


def open_board(path: str) -> None:
    """Have this process mark the calls it begins (workers that daskexec started)."""
    global _board
    _board = Board(path)


def run_call(ticket: Ticket) -> Outcome:
    """Run one call on this worker; the value of its Dask task is the outcome."""
    refusal = _begin(ticket)
    if refusal is not None:
        return refusal
    worker = get_worker()
    _report(worker, ticket)
    _calls.running.give_thread_back = _give_thread_back
    _calls.running.executor = ticket.executor
    try:
        if ticket.has_initializer:
            failure = _initialize(ticket)
            if failure is not None:
                return Outcome("initializer", failure)
            _mark(ticket, RUNNING)
        outcome = _run(ticket)
        _leave(ticket, outcome)
        return outcome
    finally:
        _calls.running.give_thread_back = None
        _flush()


def _begin(ticket: Ticket) -> Outcome | None:
    key = ticket.key
    with _lock:
        if key in _withdrawn:
            del _withdrawn[key]
            return Outcome("withdrawn", None)
        if _board is not None and ticket.slot >= 0:
            if not _board.has_turn(ticket.slot, ticket.turn):
                return Outcome("withdrawn", None)  # settled already: nobody waits for it
            pid, stage = _board.read(ticket.slot)
            if stage:
                left = _board.recover(ticket.slot, key)
                return left if left is not None else Outcome("refused", stage, pid=pid)
            _board.mark(ticket.slot, INITIALIZING if ticket.has_initializer else RUNNING)
        _begun[key] = None
        if len(_begun) > _REMEMBERED:
            _begun.popitem(last=False)
        if ticket.max_calls:
            _calls_begun[ticket.executor] = _calls_begun.get(ticket.executor, 0) + 1
    return None


def _mark(ticket: Ticket, stage: int) -> None:
    if _board is not None and ticket.slot >= 0:
        _board.mark(ticket.slot, stage)


def _leave(ticket: Ticket, outcome: Outcome) -> None:
    if _board is not None and ticket.slot >= 0:
        with _lock:
            _board.leave(ticket.slot, ticket.key, outcome, outcome.__sizeof__())


def _report(worker: Any, ticket: Ticket) -> None:
    """Tell the client that the call is running, and on its way out when the worker is worn."""
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


def _run(ticket: Ticket) -> Outcome:
    start = time.perf_counter()
    try:
        fn, args, kwargs = _calls.load(ticket.blob)
        before = _main_globals_of(fn).copy()
        value = fn(*args, **kwargs)
        seconds = time.perf_counter() - start
        if before:
            _keep_assigned_globals(fn, before)
        del fn, args, kwargs, before
        return Outcome("value", _calls.dump(value), seconds)
    except BaseException as exc:
        exc.__traceback__ = _users_frames(exc)
        return Outcome("error", Failure.of(exc), time.perf_counter() - start)


def _users_frames(exc: BaseException) -> Any:
    trace = exc.__traceback__
    return trace.tb_next if trace is not None and trace.tb_next is not None else trace


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.flush()  # unless closed, or replaced by the user's code


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
                    fn, args = _calls.load(self.blob)
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
        _calls.main_globals.setdefault(_calls.running.executor, {}).update(kept)
        while len(_calls.main_globals) > _EXECUTORS:
            del _calls.main_globals[next(iter(_calls.main_globals))]


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


# --- cancelling, nesting, values ------------------------------------------------------------


def withdraw(keys: list[str]) -> list[str]:
    """Bar calls from being begun by this process; return those that were begun already."""
    begun = []
    with _lock:
        for key in keys:
            if key in _begun:
                begun.append(key)
            else:
                _withdrawn[key] = None
                if len(_withdrawn) > _REMEMBERED:
                    _withdrawn.popitem(last=False)
    return begun


def _give_thread_back() -> None:
    """Let the worker run another task beside the call on this thread.

    Called when a call submits calls: it will wait for them in one way or another, and with
    all threads waiting so nothing would ever run.
    """
    _calls.running.give_thread_back = _nothing_to_give
    distributed.secede()


def _nothing_to_give() -> None:
    """The thread was given back already."""


def value_of(outcome: Outcome) -> Any:
    """Turn an outcome into the plain value or exception, for other Dask code."""
    if outcome.kind == "value":
        return _calls.load(outcome.body)
    if isinstance(outcome.body, Failure):
        raise outcome.body.load()
    raise RuntimeError(f"the call did not run: {outcome.kind}")
