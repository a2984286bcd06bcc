"""A cluster in simulated time, under the real ledger, policy and settler.

::

    client                          scheduler               workers
    Ledger.take, BatchPolicy  --->  one after the other --> a few tasks ahead, then
    Settler: results, slow,   <---  a queue for all    <--- the calls of each in turn
    relieve

A million calls on thousands of workers take seconds, without a thread, a clock or a process.
What is simulated follows `daskexec._remote` (calls in turn, slow reports, handing back) and
Dask: tasks queue on the scheduler, a worker is given ``ceil(1.1 * threads)`` of them, and
adaptive scaling asks for ``ceil(occupancy / 5 s)`` threads, no more than there are tasks.

Times are seconds. Each message takes half of `Costs.latency` between the scheduler and a side.
"""

from __future__ import annotations

import heapq
import math
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import accumulate
from types import CodeType, FunctionType
from typing import Any

from daskexec._batching import BatchPolicy
from daskexec._calls import Outcome
from daskexec._ledger import Ledger
from daskexec._messages import Done, Line, Slow, SoFar, Started, Threads
from daskexec._patience import Patience
from daskexec._pickling import dump
from daskexec._settling import Settler
from daskexec._tasks import Call, Stretch, Task
from daskexec.futures import DaskFuture
from daskexec.options import CallOptions

__all__ = ["Costs", "Scaling", "Simulation", "functions"]

_BODY = dump(None)
_OPTIONS = CallOptions()


@dataclass(frozen=True)
class Costs:
    """What a task costs besides its calls."""

    latency: float = 0.0075  # a message between client and worker, one way
    worker: float = 0.003  # of the worker's thread, before the first call
    scheduler: float = 0.0003  # of the scheduler, when a task comes and when it is over
    client: float = 0.0003  # of the dispatcher thread, for a task
    call: float = 2e-6  # and for each call in it
    so_far_every: float = 1.0  # seconds between two reports of what a running task has done


@dataclass(frozen=True)
class Scaling:
    """An adaptive cluster: it begins with no worker and grows as Dask's `adapt` does."""

    maximum: int
    startup: float = 2.0  # from asking for a worker until it is there
    interval: float = 1.0
    target_duration: float = 5.0
    unknown_duration: float = 0.5


def functions(count: int) -> list[Any]:
    """Make functions that the policy tells apart."""

    def template(number: int) -> None: ...

    code: CodeType = template.__code__
    return [
        FunctionType(code.replace(co_name=f"function{n}"), {}, f"function{n}")
        for n in range(count)
    ]


class _Map:
    """What the ledger needs to know of a map; its first item is the simulation's `base`-th."""

    chunk: int | None = None
    cancelled: bool = False
    single = True
    name = "map"

    def __init__(self, fn: Any, base: int, number: int) -> None:
        self.fn, self.options, self.base, self.number = fn, _OPTIONS, base, number
        self.keys = 0

    def next_key(self) -> str:
        self.keys += 1
        return f"map-{self.number}-{self.keys}"

    def make_call(self, item: Any) -> Call:
        raise AssertionError("no futures among the arguments here")

    def fill(self, first: int, run: list[Any], *, plain: bool = False) -> None: ...


class _Run:
    """A task on its way to a worker, and there."""

    def __init__(
        self, task: Task, calls: Sequence[int], seconds: list[float], slow: float, stop: float
    ) -> None:
        self.key, self.function, self.ahead = task.key, task.function, task.ahead
        self.mixed = task.mixed
        self.calls, self.seconds = calls, seconds
        self.slow_after, self.stop_after = slow, stop
        self.starts: list[float] = []  # of each call, and the end of the last one
        self.count = len(calls)  # calls that it will have run
        self.told_calls = 0  # results that a relief has told of
        self.told_until = 0.0
        self.pulse = max(slow / 2, 0.02)  # seconds between two looks at it
        self.patience = slow
        self.over = False

    def begin(self, now: float) -> None:
        self.starts = list(accumulate(self.seconds, initial=now))
        self.told_until = now
        end = self.next_look(now + self.stop_after)  # then what is not begun is handed back
        if end < self.starts[-1]:
            self.count = self.current(end) + 1

    def next_look(self, time: float) -> float:
        """When it is looked at for the first time after then."""
        if math.isinf(time):
            return time
        start = self.starts[0]
        return start + math.floor((time - start) / self.pulse + 1) * self.pulse

    def current(self, now: float) -> int:
        """Index of the call that runs now."""
        return min(bisect_right(self.starts, now) - 1, self.count - 1)

    def next_slow(self, now: float, patience: float) -> float | None:
        """When the next call will be found slow; the one that runs now needs more `patience`."""
        running = self.current(now)
        for index in range(running, self.count):
            wait = patience if index == running else self.slow_after
            if self.seconds[index] > wait:
                found = self.next_look(self.next_look(self.starts[index]) + wait - 1e-9)
                if found < self.starts[index + 1]:
                    return found
        return None

    def outcome(self, now: float, first: int, stop: int, *, so_far: bool = False) -> Outcome:
        bodies: list[Any] = [_BODY] * (stop - first)
        seconds = self.seconds[first:stop]
        if not self.mixed:  # the worker looks at the clock for all of them together
            seconds = [now - (self.told_until if first else self.starts[0])]
            if not so_far:
                self.told_until = now
        return Outcome("ran", bodies, first=first, seconds=seconds, pid=1)


class _Queue:
    """Tasks in the order of Dask's priorities; those of the same in the order they came."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, _Run]] = []
        self._sequence = 0

    def append(self, run: _Run) -> None:
        self._sequence += 1
        heapq.heappush(self._heap, (-run.ahead, self._sequence, run))

    def popleft(self) -> _Run:
        return heapq.heappop(self._heap)[2]

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[_Run]:
        return (run for _, _, run in self._heap)


class _Worker:
    def __init__(self, number: int, threads: int) -> None:
        self.address, self.threads = f"sim://{number}", threads
        self.slots = math.ceil(1.1 * threads)  # distributed.scheduler.worker-saturation
        self.processing = 0  # as the scheduler has it
        self.ready = _Queue()
        self.running: dict[str, _Run] = {}
        self.last_busy = 0.0


class _Patience(Patience):
    def due(self) -> bool:
        return False


class Simulation:
    """One executor on one cluster.

    Parameters
    ----------
    policy : BatchPolicy
    workers, threads : int
        Workers at the start, and threads of each.
    costs : Costs
    scaling : Scaling, optional
        Grow from the workers at the start.

    Attributes
    ----------
    now : float
        Simulated time.
    tasks : int
        Tasks that were sent.
    most_sent : int
        Most tasks that were with the scheduler at the same time.
    began, delivered : array of float
        For each call: when it was begun, and when its result was settled.
    held_since : array of float
        For each call: when a worker began the first task that it was in.
    """

    def __init__(
        self,
        policy: BatchPolicy,
        workers: int = 0,
        threads: int = 1,
        *,
        costs: Costs | None = None,
        scaling: Scaling | None = None,
    ) -> None:
        self.policy, self.costs, self.scaling = policy, costs or Costs(), scaling
        self.now = 0.0
        self.tasks = self.most_sent = self.most_running = 0
        self.sizes: list[int] = []
        self.seconds = array("d")
        self.began, self.delivered, self.held_since = array("d"), array("d"), array("d")
        self.workers: dict[str, _Worker] = {}
        self.growth: list[tuple[float, int]] = []  # when there were how many workers
        self._per_worker = threads
        self._asked_for = workers
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._sequence = 0
        self._times_begun = bytearray()
        self._maps = 0
        # client
        self.ledger = Ledger(policy)
        self._settler = Settler(self.ledger, _Patience(clock=lambda: self.now), self._broken)
        self._settler.line = Line(_SimulatedBackend(self), lambda: None)  # type: ignore[arg-type]
        self._dispatching = False
        # scheduler
        self._busy_until = 0.0
        self._queue = _Queue()
        self._loads: list[tuple[int, int, _Worker]] = []  # processing of each: a heap
        self._processing: Counter[Any] = Counter()
        self._durations: dict[Any, float] = {}
        self._withdrawn: set[str] = set()
        self._running = 0
        for _ in range(workers):
            self._join()
        self.ledger.threads = workers * threads

    # -- what to run -----------------------------------------------------------------------

    def submit(self, seconds: Sequence[float], fns: Sequence[Any]) -> None:
        """Submit calls of these run times, of these functions in turn."""
        base = self._enter(seconds)
        for place in range(len(seconds)):
            number = base + place
            future: DaskFuture[None] = DaskFuture("f", number)
            future._call = call = Call(future, fns[place % len(fns)], (), {}, _OPTIONS)
            with self.ledger.changed:
                self.ledger.add(call)

    def map(self, seconds: Sequence[float], fn: Any) -> None:
        """Run a map over items of these run times."""
        job = _Map(fn, self._enter(seconds), self._maps)
        self._maps += 1
        with self.ledger.changed:
            self.ledger.add(Stretch(job, 0, [0] * len(seconds)))

    def _enter(self, seconds: Sequence[float]) -> int:
        base, size = len(self.seconds), len(seconds)
        self.seconds.extend(seconds)
        for times in (self.began, self.delivered, self.held_since):
            times.extend([math.nan]) if size == 1 else times.extend(array("d", [math.nan]) * size)
        self._times_begun.extend(bytes(size))
        return base

    def run(self, until: float = math.inf) -> Simulation:
        """Run until all calls are settled, or until then."""
        self._at(self.now, self._dispatch)
        if self.scaling is not None:
            self._at(self.now, self._scale)
            self._at(self.now + 1.0, self._pulse)
        events = self._events
        while events and self.ledger.pending:
            if events[0][0] > until:
                self.now = until
                return self
            self.now, _, what, args = heapq.heappop(events)
            what(*args)
        if self.ledger.pending and until < math.inf:
            self.now = until
            return self
        assert not self.ledger.pending, f"stalled at {self.now:.3f} s: {self.ledger.pending} left"
        assert set(self._times_begun) <= {1}, "each call is begun once"
        return self

    # -- what came of it -------------------------------------------------------------------

    @property
    def makespan(self) -> float:
        return max(self.delivered)

    @property
    def efficiency(self) -> float:
        """Share of the threads' time that was spent in calls."""
        threads = len(self.workers) * self._per_worker
        return sum(self.seconds) / (threads * self.makespan)

    @property
    def spread(self) -> float:
        """For how long, at the end, a worker had nothing to do while another one had."""
        ends = [worker.last_busy for worker in self.workers.values()]
        return max(ends) - min(ends)

    def delays(self, which: Callable[[float], bool]) -> list[float]:
        """For calls of such run times: from when a worker had them to their results, sorted."""
        return sorted(
            done - held
            for seconds, held, done in zip(
                self.seconds, self.held_since, self.delivered, strict=True
            )
            if which(seconds)
        )

    def ideal(self) -> list[float]:
        """When each call would be over in a pool without any costs, first come, first served."""
        free = [0.0] * (len(self.workers) * self._per_worker)
        ends = []
        for seconds in self.seconds:
            ends.append(free[0] + seconds)
            heapq.heapreplace(free, ends[-1])
        return ends

    def lateness(self, which: Callable[[float], bool] = lambda seconds: True) -> list[float]:
        """How much later than in the `ideal` pool calls of such run times are done, sorted."""
        return sorted(
            done - ideal
            for seconds, ideal, done in zip(
                self.seconds, self.ideal(), self.delivered, strict=True
            )
            if which(seconds)
        )

    # -- events ----------------------------------------------------------------------------

    def _at(self, time: float, what: Callable[..., None], *args: Any) -> None:
        self._sequence += 1
        heapq.heappush(self._events, (time, self._sequence, what, args))

    def _after(self, delay: float, what: Callable[..., None], *args: Any) -> None:
        self._at(self.now + delay, what, *args)

    def _broken(self, error: Callable[[], BaseException]) -> None:
        raise AssertionError("the executor broke") from error()

    # -- client ----------------------------------------------------------------------------

    def _dispatch(self) -> None:
        if self._dispatching:
            return
        tasks = self.ledger.take()
        if not tasks:
            return
        self._dispatching = True
        at = self.now
        for task in tasks:
            at += self.costs.client + self.costs.call * len(task.load)
            self._at(at, self._send, task)
        self._at(at, self._dispatch_on)

    def _dispatch_on(self) -> None:
        self._dispatching = False
        self._dispatch()

    def _send(self, task: Task) -> None:
        ledger, policy = self.ledger, self.policy
        policy.packed(task.function, 30.0 * len(task.load), len(task.load))
        ledger.send(task)
        ledger.submitted(task)
        self.tasks += 1
        self.most_sent = max(self.most_sent, len(ledger.sent))
        self.sizes.append(len(task.load))
        calls = _numbers(task)
        run = _Run(
            task,
            calls,
            list(self.seconds[calls.start : calls.stop])
            if isinstance(calls, range)
            else [self.seconds[number] for number in calls],
            policy.slow_after(task.function),
            policy.stop_after(task.seconds),
        )
        self._after(self.costs.latency / 2, self._arrive, run)

    def _hear(self, message: Any) -> None:
        """Have the settler handle a message; take note of what it settled."""
        task = self.ledger.sent.get(getattr(message, "key", ""))
        task = getattr(message, "task", task)  # of a relief
        told = 0 if task is None else task.told
        numbers = [] if task is None else _numbers(task)
        self._settler._handle(message)
        if task is not None:
            for place in range(told, task.told):
                self.delivered[numbers[place]] = self.now
        while not self._settler.inbox.empty():
            self._hear(self._settler.inbox.get_nowait())
        self._dispatch()

    def _pulse(self) -> None:
        if self.ledger.threads != len(self.workers) * self._per_worker:
            self._hear(Threads(len(self.workers) * self._per_worker))
        self._after(1.0, self._pulse)

    # -- scheduler -------------------------------------------------------------------------

    def _served(self) -> float:
        """When the scheduler, which does one thing at a time, will have done one more."""
        self._busy_until = max(self._busy_until, self.now) + self.costs.scheduler
        return self._busy_until

    def _arrive(self, run: _Run) -> None:
        self._at(self._served(), self._enqueue, run)

    def _enqueue(self, run: _Run) -> None:
        self._queue.append(run)
        self._processing[run.function] += 1
        self._assign()

    def _assign(self) -> None:
        while self._queue and self._loads:
            load, _, worker = self._loads[0]
            if load != worker.processing or load >= worker.slots:
                heapq.heappop(self._loads)
                continue
            worker.processing += 1
            self._offer(worker, replace=True)
            self._after(self.costs.latency / 2, self._receive, worker, self._queue.popleft())

    def _offer(self, worker: _Worker, replace: bool = False) -> None:
        self._sequence += 1
        entry = (worker.processing, self._sequence, worker)
        (heapq.heapreplace if replace else heapq.heappush)(self._loads, entry)

    def _finished(self, worker: _Worker, run: _Run, done: Done | None) -> None:
        self._at(self._served(), self._settle, worker, run, done)

    def _settle(self, worker: _Worker, run: _Run, done: Done | None) -> None:
        worker.processing -= 1
        self._processing[run.function] -= 1
        if done is not None:
            took = run.starts[run.count] - run.starts[0] + self.costs.worker
            known = self._durations.get(run.function)
            self._durations[run.function] = took if known is None else (took + known) / 2
            self._after(self.costs.latency / 2, self._hear, done)
        self._offer(worker)
        self._assign()

    def _scale(self) -> None:
        scaling = self.scaling
        assert scaling is not None
        ready = sum(self._processing.values())
        occupancy = sum(
            tasks * self._durations.get(function, scaling.unknown_duration)
            for function, tasks in self._processing.items()
        )
        wanted = min(math.ceil(occupancy / scaling.target_duration), ready)
        wanted = math.ceil(wanted / self._per_worker)
        if ready and not self.workers:
            wanted = max(1, wanted)
        for _ in range(self._asked_for, min(wanted, scaling.maximum)):
            self._asked_for += 1
            self._after(scaling.startup, self._join)
        self._after(scaling.interval, self._scale)

    def _join(self) -> None:
        worker = _Worker(len(self.workers), self._per_worker)
        self.workers[worker.address] = worker
        self.growth.append((self.now, len(self.workers)))
        self._offer(worker)
        self._assign()

    # -- workers ---------------------------------------------------------------------------

    def _receive(self, worker: _Worker, run: _Run) -> None:
        worker.ready.append(run)
        self._start(worker)

    def _start(self, worker: _Worker) -> None:
        while worker.ready and len(worker.running) < worker.threads:
            run = worker.ready.popleft()
            if run.key in self._withdrawn:
                self._after(self.costs.latency / 2, self._finished, worker, run, None)
                continue
            worker.running[run.key] = run
            self._running += 1
            self.most_running = max(self.most_running, self._running)
            started = Started(run.key, worker.address, worker.address, 1)
            self._after(self.costs.latency, self._hear, started)
            run.begin(self.now + self.costs.worker)
            for number in run.calls:
                if math.isnan(self.held_since[number]):
                    self.held_since[number] = self.now
            self._at(run.starts[run.count], self._end, worker, run, run.count)
            if max(run.seconds) > run.slow_after:
                self._look_at_next(worker, run, run.starts[0])
            self._after(self.costs.so_far_every, self._tell_so_far, run)

    def _tell_so_far(self, run: _Run) -> None:
        if run.over:
            return
        index = run.current(self.now)
        if run.told_calls < index < run.count - 1:
            told = SoFar(run.key, run.outcome(self.now, run.told_calls, index, so_far=True))
            run.told_calls = index
            self._after(self.costs.latency, self._hear, told)
        self._after(self.costs.so_far_every, self._tell_so_far, run)

    def _look_at_next(self, worker: _Worker, run: _Run, now: float) -> None:
        slow = run.next_slow(now, run.patience)
        if slow is not None:
            self._at(slow, self._look, worker, run, run.current(slow))

    def _look(self, worker: _Worker, run: _Run, index: int) -> None:
        if run.over:
            return
        waiting = any(other.key not in self._withdrawn for other in worker.ready)
        if index + 1 < run.count or index > run.told_calls or waiting:
            self._after(self.costs.latency, self._hear, Slow(run.key, worker.address))
            run.patience += min(run.patience, 2.0)
        else:
            run.patience += run.pulse
        self._look_at_next(worker, run, self.now)

    def _relieve(
        self, key: str, worker: _Worker, waiting: list[str], answer: Future[dict[str, Any]]
    ) -> None:
        here = {run.key for run in worker.ready}
        barred = [other for other in waiting if other in here and other not in self._withdrawn]
        self._withdrawn.update(barred)
        found: dict[str, Any] = {"begun": None, "outcome": None, "barred": barred}
        run = worker.running.get(key)
        if run is not None:
            index = run.current(self.now)
            if run.count > index + 1:
                run.count = index + 1
                self._at(run.starts[run.count], self._end, worker, run, run.count)
            found["begun"] = run.count
            found["outcome"] = run.outcome(self.now, run.told_calls, index)
            run.told_calls = index
        self._after(self.costs.latency, self._answer, answer, found)

    def _answer(self, answer: Future[dict[str, Any]], found: dict[str, Any]) -> None:
        answer.set_result(found)  # its callback puts a message into the settler's inbox
        while not self._settler.inbox.empty():
            self._hear(self._settler.inbox.get_nowait())

    def _end(self, worker: _Worker, run: _Run, count: int) -> None:
        if run.over or run.count != count:
            return  # relieved meanwhile
        run.over = True
        del worker.running[run.key]
        self._running -= 1
        worker.last_busy = self.now
        for place in range(count):
            number = run.calls[place]
            self.began[number] = run.starts[place]
            self._times_begun[number] += 1
        done = Done(run.key, run.outcome(self.now, 0, count))
        self._after(self.costs.latency / 2, self._finished, worker, run, done)
        self._start(worker)


class _SimulatedBackend:
    """Just what the settler asks of a backend."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation

    def alive(self) -> bool:
        return True

    def relieve(self, key: str, worker: str, waiting: list[str]) -> Future[dict[str, Any]]:
        simulation, answer = self._simulation, Future[dict[str, Any]]()
        simulation._after(
            simulation.costs.latency,
            simulation._relieve,
            key,
            simulation.workers[worker],
            waiting,
            answer,
        )
        return answer


def _numbers(task: Task) -> Sequence[int]:
    """The numbers of a task's calls."""
    load = task.load
    if isinstance(load, Stretch):
        job: Any = load.job
        return range(job.base + load.first, job.base + load.first + len(load))
    return [call.future._number for call in load]
