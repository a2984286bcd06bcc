"""The ledger: where every call of an executor stands. Floor 4.

::

    QUEUED ----> IN_HAND ----> SENT ----> OVER
      ^            |  ^          |
      |            v  |          |        (from any stage: OVER, when cancelled or broken)
      |          PARKED          |
      +------- another attempt --+

A call is QUEUED until the window has room; IN_HAND while the dispatcher thread pickles it;
PARKED while a future among its arguments is not done; SENT while a `Task` with it is with the
scheduler. A task carries one call, or several, or a `Stretch` of the items of a map.

The ledger starts no thread and knows neither Dask nor user code. Its one lock, `changed`, is the
only lock of a dispatcher; it is never held while pickling, while talking to the backend, or
while a future is set (which runs user code). It is reentrant, since the garbage collector may
shut an executor down on a thread that holds it.
"""

from __future__ import annotations

import functools
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

from daskexec._batching import BatchPolicy
from daskexec._board import DECLINED, Board
from daskexec._lifetimes import Lifetimes, Where, usable
from daskexec._messages import Ends, Started
from daskexec._naming import Names
from daskexec._recording import begun as record_of_begun
from daskexec._records import Record
from daskexec._tasks import IN_HAND, OVER, PARKED, QUEUED, SENT, Call, Job, Stretch, Task
from daskexec.options import CallOptions

__all__ = ["Given", "Ledger"]


class Given(NamedTuple):
    """A begun task that was given up: where it runs. "" and 0 for what is not known."""

    key: str
    worker: str
    pid: int


class Ledger:
    """The calls of one executor. Every method may be called from any thread.

    Parameters
    ----------
    policy : BatchPolicy
        Decides what goes into a task and into the window; guarded by `changed`.

    Attributes
    ----------
    lock : threading.RLock
        That of `changed`, which is quicker to take.
    changed : threading.Condition
        The lock, and what is notified of every change that may let somebody go on.
    sent : dict of str to Task
        What is with the scheduler.
    threads : int
        Worker threads there are.
    lifetimes : Lifetimes
        When workers will end; guarded by `changed`.
    names : Names
        Which workers there are, for calls that name them; guarded by `changed`.
    board : Board or None
        Where begun tasks are marked; set when the cluster is up.
    pending : int
        Calls and items that are not over.
    queued : int
        Those of them that wait on the client for room in the window.
    """

    #: Items of a map that are kept together in the queue, about.
    PIECE = 1 << 16
    #: Tasks that are taken in hand together: the next ones are taken with what these have taught.
    AT_ONCE = 32
    #: Bytes of results, on average, up to which calls share tasks though others need these.
    SMALL = 1024
    #: Held tasks for each thread that take no room in the window, at most.
    HELD = 4
    #: Held tasks that name workers which are not there, and take no room in the window, at most.
    NOWHERE = 1000

    def __init__(self, policy: BatchPolicy) -> None:
        self.renew_lock()
        self.policy = policy
        self.sent: dict[str, Task] = {}
        self.threads = 0
        self.board: Board | None = None
        self.lifetimes = Lifetimes()
        self.names = Names()
        self.pending = self.queued = 0
        self._sleepers = 0
        self._queues: dict[int, deque[Call | Stretch]] = {}  # by priority
        self._urgent: deque[Call | Stretch] = deque()
        self._suspects: deque[Call] = deque()  # sent one at a time
        self._hurried: deque[Call] = deque()  # sent whether there is room or not
        self._parked: set[Call] = set()
        self._in_hand = 0  # tasks
        self._held = 0  # of the sent ones
        self._nowhere = 0  # held as well, not counted there: they name workers that are absent
        self._waiting = 0  # of these too: they wait for calls of their own
        self._seconds = 0.0  # expected, of the tasks in hand and sent
        self._sends = 0  # first attempts
        self._worn: dict[int, set[str]] = {}  # process id -> keys it still owes

    # -- waiting ---------------------------------------------------------------------------

    def renew_lock(self) -> None:
        """Have a new lock: in a fork nobody would ever let go of the old one."""
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the next change; with the lock held. False after `timeout` seconds."""
        self._sleepers += 1
        try:
            return self.changed.wait(timeout)
        finally:
            self._sleepers -= 1

    def wake(self) -> None:
        """Have those who wait look again; with the lock held."""
        if self._sleepers:
            self.changed.notify_all()

    # -- on the way to the scheduler -------------------------------------------------------

    def add(self, entry: Call | Stretch) -> None:
        """Queue a new call, or items, behind those of its priority; with the lock held."""
        options = entry.job.options if isinstance(entry, Stretch) else entry.options
        queue = self._queues.get(-options.priority)
        if queue is None:
            queue = self._queues[-options.priority] = deque()
        size = 1
        if isinstance(entry, Stretch):
            size = len(entry)
            # Taking from the front of a list moves the rest of it.
            chunk = entry.job.chunk or 1
            piece = max(1, self.PIECE // chunk) * chunk
            while len(entry) > piece:
                queue.append(entry.split(piece))
        queue.append(entry)  # itself as the last piece: it may be extended
        self.pending += size
        self.queued += size
        self.wake()

    def extend(self, stretch: Stretch, item: Any) -> bool:
        """Add one more item to a queued stretch; False if none of it is queued any more."""
        with self.lock:
            if stretch.over or not stretch.items:
                return False
            stretch.items.append(item)
            self.pending += 1
            self.queued += 1
            self.wake()
            return True

    def hurry(self, call: Call) -> None:
        """Let a queued call go next and alone, whether the window has room or not."""
        with self.changed:
            if call.stage == QUEUED:
                call.alone = True
                self._hurried.append(call)
                self.wake()

    def newest(self) -> int:
        """Return the number of the newest call, or map, that is queued; -1 if none is."""
        with self.changed:
            tails = [queue[-1] for queue in self._queues.values() if queue]
            numbers = (
                tail.job.number if isinstance(tail, Stretch) else tail.future._number
                for tail in tails
            )
            return max((number for number in numbers if number is not None), default=-1)

    def take(self) -> list[Task]:
        """Take in hand what the window has room for, and what cannot wait for room."""
        with self.changed:
            tasks = []
            while self._hurried:
                call = self._hurried.popleft()
                if call.stage == QUEUED:  # where it was queued it will be passed over
                    tasks.append(self._in_hand_alone(call))
            while self._suspects and not any(
                task.suspect for task in (*tasks, *self.sent.values())
            ):
                call = self._suspects.popleft()
                if call.stage == QUEUED:
                    tasks.append(self._in_hand_alone(call))
            while self.queued and len(tasks) < self.AT_ONCE:
                task = self._take_next()
                if task is None:
                    break
                tasks.append(task)
            return tasks

    def _take_next(self) -> Task | None:
        """Take what is next; None if there is no room for it."""
        queue = self._first_queue()
        if queue is None:
            return None
        held = min(self._held, self.HELD * max(self.threads, 4))
        held += min(self._nowhere, self.NOWHERE) + self._waiting
        there, seconds = self.taken - held, self._seconds
        again = queue[0].since is not None
        if not self.policy.is_open(self.threads, there, 0.0 if again else seconds):
            return None
        # What was handed back had its room before, and is not to wait for company.
        there = 0 if again else there
        if isinstance(queue[0], Stretch):
            return self._take_stretch(queue, queue[0], there)
        return self._take_calls(queue, queue[0], there)

    def _first_queue(self) -> deque[Call | Stretch] | None:
        """Return the queue whose first entry is next; None if only suspects are queued."""
        while True:
            priority = min(self._queues, default=None)
            queue = self._urgent
            if not queue:
                if priority is None:
                    return None
                queue = self._queues[priority]
            while queue:
                entry = queue[0]
                if isinstance(entry, Call) and entry.stage == QUEUED:
                    return queue
                if isinstance(entry, Stretch) and entry.items:
                    return queue
                queue.popleft()  # it is over, or was taken out of turn
            if queue is not self._urgent and priority is not None:
                del self._queues[priority]

    def _take_stretch(
        self, queue: deque[Call | Stretch], stretch: Stretch, tasks: int
    ) -> Task | None:
        job = stretch.job
        function = self.policy.known(_identity(job.fn), job.name)
        size, _ = self.policy.share(function, self.queued, self.threads, tasks)
        if not size:
            return None
        if job.chunk is not None:
            size = max(job.chunk, size // job.chunk * job.chunk)
        taken = stretch.split(size)
        if not stretch.items:
            queue.popleft()
        return self._take_in_hand(Task(taken, job.options, function, 0.0), len(taken))

    def _in_hand_alone(self, call: Call) -> Task:
        function = self._function_of(call)
        call.stage = IN_HAND
        return self._take_in_hand(Task([call], call.options, function, 0.0), 1)

    def _take_calls(self, queue: deque[Call | Stretch], first: Call, tasks: int) -> Task | None:
        if first.alone or (first.promise is not None and self._is_bulky(first)):
            queue.popleft()
            return self._in_hand_alone(first)
        fn, options, function = first.fn, first.options, self._function_of(first)
        left, share = self.policy.share(function, self.queued, self.threads, tasks)
        if not left:
            return None
        queue.popleft()
        calls, taken, of, mixed = [first], 1, function, False
        seconds = 0.0  # expected of the functions before `of`
        while queue and taken < left:
            call = queue[0]
            if isinstance(call, Stretch) or call.alone:
                break
            if call.promise is not None and call.stage == QUEUED and self._is_bulky(call):
                break
            if call.stage == QUEUED:
                if call.options is not options and call.options != options:
                    break
                if call.fn is fn and fn is not None:
                    call.function = of
                elif self._function_of(call) is not of:
                    share.take(of, taken)
                    seconds += taken * (of.mean or 0.0)
                    fn, of, taken = call.fn, self._function_of(call), 0
                    left = 0 if of.mean is None else share.room(of)
                    if not left:
                        break
                    mixed = True
                calls.append(call)
                taken += 1
            queue.popleft()
        for call in calls:
            call.stage = IN_HAND
        task = self._take_in_hand(Task(calls, options, function, 0.0), len(calls))
        if mixed:
            task.mixed = True
            self._expect(task, seconds + taken * (of.mean or 0.0))
        return task

    def _is_bulky(self, call: Call) -> bool:
        """Tell whether a call's value, which others need, may be more than comes with its end.

        Then it must have a task of its own: only that of one call can leave its value there.
        """
        known = self._function_of(call)
        return known.mean is None or known.received > self.SMALL

    def _function_of(self, call: Call) -> Any:
        if call.function is None:
            call.function = self.policy.known(_identity(call.fn), call.future._name)
        return call.function

    def _take_in_hand(self, task: Task, size: int) -> Task:
        task.seconds = self.policy.taken(task.function, size)
        self.queued -= size
        self._in_hand += 1
        self._seconds += task.seconds
        return task

    def _expect(self, task: Task, seconds: float) -> None:
        """Count a task in hand with other seconds than before."""
        self._seconds += seconds - task.seconds
        task.seconds = seconds

    def put_back(self, task: Task, size: int) -> None:
        """Keep the first `size` members of a task in hand and queue the others again."""
        with self.changed:
            self._expect(task, task.seconds * size / len(task.load))
            rest = task.load[size:]
            task.load, task.end = task.load[:size], size
            self._queue_again(rest)

    def _queue_again(self, load: list[Call] | Stretch) -> None:
        """Queue what was taken, or sent, ahead of all others."""
        if isinstance(load, Stretch):
            if load.job.cancelled:
                self.pending -= len(load)
            elif load.items:
                self._urgent.appendleft(load)
                self.queued += len(load)
        else:
            for call in reversed(load):
                if call.stage != OVER:
                    call.stage, call.task = QUEUED, None
                    if call.suspect:
                        self._suspects.append(call)
                    else:
                        self._urgent.appendleft(call)
                    self.queued += 1
        self.wake()

    def queue_again(self, call: Call) -> None:
        """Queue a call that was in hand ahead of all others."""
        with self.changed:
            if call.stage == IN_HAND:
                self._queue_again([call])

    def put_down(self, task: Task) -> None:
        """Have a task in hand no more; it will not be sent."""
        with self.changed:
            self._in_hand -= 1
            self._seconds -= task.seconds
            self.wake()

    def drop_items(self, count: int) -> None:
        """Note that items of a map in hand are over."""
        with self.changed:
            self.pending -= count
            self.wake()

    def send(self, task: Task) -> int:
        """Enter a task in hand as sent, with a slot on the board; return the slot's turn.

        Its calls that were cancelled meanwhile are no longer in it; 0 members are left if
        all were, and then it is not entered.
        """
        with self.changed:
            self._in_hand -= 1
            if isinstance(task.load, Stretch):
                task.key = task.load.job.next_key()
            else:
                task.load = calls = [call for call in task.load if call.stage == IN_HAND]
                for call in calls:
                    call.stage, call.task = SENT, task
                    if call.promise is not None:
                        task.used = True
                if calls:
                    task.key = _attempt_key(calls[0].future.key, 1 + calls[0].resent)
            task.end = len(task.load)
            task.sent_at = time.time()
            turn = 0
            if task.end:
                self._rank(task)
                if self.board is not None:
                    task.slot, turn = self.board.acquire()
                self.sent[task.key] = task
            else:
                self._seconds -= task.seconds
            self.wake()
            return turn

    def _rank(self, task: Task) -> None:
        """Have another attempt go ahead of what is with the scheduler, the oldest first."""
        since = task.load.since if isinstance(task.load, Stretch) else task.load[0].since
        if since is None:
            self._sends += 1
            task.since = self._sends
        else:
            task.since, task.ahead = since, 1.0 / (1 + since)

    def place(self, task: Task, needs: float) -> Where | None:
        """Say where a sent task of such calls is to be run, by the ends of the workers.

        One that no worker has time for is *held*: it waits, and takes no room in the window.
        """
        with self.changed:
            loads = [task.load] if isinstance(task.load, Stretch) else task.calls
            if not loads or task.options.workers or not needs:
                return None
            holds = max(load.holds for load in loads)
            where = self.lifetimes.where(
                needs,
                holds,
                was_cut=any(load.cuts for load in loads),
                strict=bool(task.options.resources),
            )
            if where is not None:
                task.placed = where.workers
            if where is not None and where.strict and task.key in self.sent:
                self._hold(task)
                if not where.workers:
                    for load in loads:
                        load.holds += 1
            return where

    def place_named(self, task: Task) -> Where:
        """Say where a sent task is to be run that names its workers; held while none is there."""
        with self.changed:
            where = self.names.where(task.options.workers or ())
            task.placed = where.workers
            if not where.workers and task.key in self.sent:
                self._hold(task)
            return where

    def _hold(self, task: Task) -> None:
        task.held = True
        if task.options.workers:
            self._nowhere += 1
        else:
            self._held += 1
        self._seconds -= task.seconds
        task.seconds = 0.0

    def learn_names(self, names: Mapping[str, str]) -> list[Task]:
        """Take note of which workers there are; return the tasks that are to be placed anew.

        These are the held ones that name one which is there now, and those of which all workers
        that they were placed on have gone.
        """
        with self.changed:
            self.names.learn(names)
            return [
                task
                for task in self.sent.values()
                if task.options.workers
                and (
                    self.names.where(task.options.workers).workers
                    if task.held
                    else names.keys().isdisjoint(task.placed)
                )
            ]

    def learn_ends(self, ends: Ends) -> list[Task]:
        """Take note of when workers end; return the tasks that are to be placed anew.

        These are the held ones, if there are new workers, and those of which all workers that
        they were placed on have gone: Dask would not give them to others that come later.
        """
        with self.changed:
            self.lifetimes.keep(ends.workers)
            self.lifetimes.learn(ends.new)
            return [
                task
                for task in self.sent.values()
                if not task.options.workers
                and (
                    (task.held and ends.new)
                    or (task.placed and ends.workers.isdisjoint(task.placed))
                )
            ]

    def cut(self, task: Task, ran: float, lifetime: float) -> list[tuple[float, float]]:
        """Note that a worker's end cut off the only call that a task has not told of.

        Returns
        -------
        list of (float, float)
            How long it had run, and the lifetime of its worker: this time and before.
        """
        with self.changed:
            if task.key not in self.sent or task.end - task.told != 1:
                return []
            one = task.load if isinstance(task.load, Stretch) else task.calls[0]
            one.cuts = [*one.cuts, (ran, lifetime)]
            one.needs = max(one.needs, min(1.25 * ran, usable(lifetime)))
            return one.cuts

    def submitted(self, task: Task) -> None:
        """Note that the backend has a task that was entered as sent."""
        with self.changed:
            task.submitted = True
            self.wake()

    def park(self, call: Call) -> bool:
        """Hold a call in hand back until `unpark`; False when it is over meanwhile."""
        with self.changed:
            if call.stage == OVER:
                return False
            call.stage = PARKED
            self._parked.add(call)
            return True

    def unpark(self, call: Call) -> None:
        """Queue a parked call, ahead of all others."""
        with self.changed:
            if call.stage == PARKED:
                self._parked.discard(call)
                self._queue_again([call])

    # -- on the way back -------------------------------------------------------------------

    def started(self, message: Started) -> Task | None:
        """Note that a worker has begun a task; None when it is over already."""
        with self.changed:
            task = self.sent.get(message.key)
            if task is not None:
                task.started = message
                task.begun += 1
            if message.worn:
                self._worn[message.pid] = {
                    key
                    for key, other in self.sent.items()
                    if other.started is not None and other.started.pid == message.pid
                }
            return task

    def waits(self, task: Task) -> None:
        """Note that a call of a task has given its thread back: it takes no room any more.

        Else calls that wait for calls of their own would fill the window, and these never run.
        """
        with self.changed:
            if task.key in self.sent and not task.waits:
                task.waits = True
                self._waiting += 1
                self._seconds -= task.seconds
                task.seconds = 0.0
                self.wake()

    def worn_out(self) -> list[int]:
        """Return, once, the worn worker processes of which nothing is to come any more."""
        with self.changed:
            ready = [pid for pid, owed in self._worn.items() if not owed]
            for pid in ready:
                del self._worn[pid]
            return ready

    def waiting(self) -> list[CallOptions]:
        """Return the options of tasks that are sent and not begun."""
        with self.changed:
            return [task.options for task in self.sent.values() if task.started is None]

    def told(
        self, task: Task, first: int, count: int, record: Record | None = None
    ) -> tuple[int, int]:
        """Note that the results of `count` members from `first` on are here, and what ran them.

        Returns
        -------
        tuple of int
            Which of them are news: from where on, and up to where.
        """
        with self.changed:
            start, stop = max(first, task.told), min(first + count, task.end)
            if start != task.told or stop <= start or task.key not in self.sent:
                return 0, 0
            task.told = stop
            if isinstance(task.load, Stretch):
                self.pending -= stop - start
            else:
                for call in task.load[start:stop]:
                    future = call.future
                    future._record = record.after(call.begun) if call.begun and record else record
                    # All else it holds goes with it, soon. The last: see DaskFuture.info.
                    call.stage, future._call = OVER, None
                self.pending -= stop - start
            if task.told == task.end:
                self._unsend(task)
            return start, stop

    def put_board_away(self) -> None:
        """Unmap the board, when all is settled: its file is not to wait for the collector."""
        with self.changed:
            board, self.board = self.board, None
        if board is not None:
            board.close()

    def begun(self, task: Task) -> tuple[int, int, int, int] | None:
        """Return slot, turn, process and stage of a sent task that a worker has begun.

        None: none has begun it, or that is not known, as on clusters that are not ours.
        """
        with self.changed:
            board, slot = self.board, task.slot
            if board is None or slot < 0 or task.key not in self.sent:
                return None
            pid, stage = board.read(slot)
            return (slot, board.turn(slot), pid, stage) if stage and stage != DECLINED else None

    def oldest_sent(self) -> float | None:
        """Return when the task was sent that has been longest on its way, by the wall clock."""
        with self.changed:
            first = next(iter(self.sent.values()), None)  # entered in this order
            return None if first is None else first.sent_at

    def bar(self, task: Task) -> bool:
        """Have no worker begin a sent task any more; False if one may have."""
        with self.changed:
            if self.board is None or task.slot < 0 or task.key not in self.sent:
                return False
            return task.started is None and self.board.bar(task.slot)

    def again(self, task: Task, begun: int = 0, *, alone: bool = False, ran: bool = False) -> None:
        """Queue what a task has not told of, from its member `begun` on, for another attempt.

        It goes ahead of all others: calls of their own if `alone`, suspects one at a time.
        With `ran` they have run in this attempt, in vain.
        """
        with self.changed:
            if task.key not in self.sent:
                return
            begun = max(begun, task.told)
            if begun >= task.end:
                return  # the others were handed back before
            rest = task.load[begun : task.end]
            task.end = begun
            if task.told == task.end:
                self._unsend(task)
            if isinstance(rest, Stretch):
                rest.since = task.since
                rest.begun += max(1, task.begun) if ran else 0
                if alone:
                    ones = [rest.split(1) for _ in range(len(rest))]
                    for one in reversed(ones):
                        self._queue_again(one)
                    return
            else:
                for call in rest:
                    call.resent += 1
                    call.since = task.since
                    call.begun += max(1, task.begun) if ran else 0
                    call.alone = call.alone or alone
            self._queue_again(rest)

    def withdrawn(self, task: Task) -> list[Call]:
        """Take back a task that no worker will run; return the calls that nobody wants."""
        with self.changed:
            if task.key not in self.sent:
                return []
            unwanted = [call for call in task.calls if not call.wanted]
            for call in unwanted:
                self._over(call)
            if isinstance(task.load, list):
                task.load = [call for call in task.calls if call.wanted]
                task.told, task.end = 0, len(task.load)
            if task.end == task.told:
                self._unsend(task)
            self.again(task)
            return unwanted

    # -- out of the ledger -----------------------------------------------------------------

    def forget(self, call: Call) -> None:
        """Drop a call; its future is to be set by the caller, after."""
        with self.changed:
            task = call.task
            if call.stage == QUEUED:
                self.queued -= 1
                if not self.queued:  # what is left there is over
                    self._queues.clear()
                    self._urgent.clear()
            self._over(call)
            if task is not None and not any(other.stage == SENT for other in task.calls):
                self._unsend(task)
            self.wake()

    def _over(self, call: Call) -> None:
        if call.stage == PARKED:
            self._parked.discard(call)
        if call.stage != OVER:
            self.pending -= 1
        call.stage = OVER
        if call.task is not None and call.task.started is not None:
            call.future._record = record_of_begun(call.task).after(call.begun)
        call.fn = call.args = call.kwargs = call.blob = call.carried = None
        call.task = call.function = None
        call.large = ()
        call.others = None
        call.future._call = None

    def forget_unsent(self, call: Call) -> bool:
        """Drop a call if it is not with the scheduler yet; tell whether it was dropped."""
        with self.changed:
            if call.stage >= SENT:
                return False
            self.forget(call)
            return True

    def given(self, task: Task) -> Given:
        """Say where a task runs."""
        with self.changed:
            started = task.started
            if started is not None:
                return Given(task.key, started.worker, started.pid)
            pid = 0
            if task.slot >= 0 and self.board is not None:
                pid, _ = self.board.read(task.slot)
            return Given(task.key, "", pid)

    def seize(self, call: Call) -> Given | None:
        """Drop a call that a worker has begun, and say where it runs.

        None, and nothing is dropped, if it is not known to run, or its task has others left.
        """
        with self.changed:
            task = call.task
            if call.stage != SENT or task is None or task.end - task.told != 1:
                return None
            given = self.given(task)
            if not given.worker and not given.pid:
                return None
            self.forget(call)
            return given

    def unsent(self) -> tuple[list[Call | Stretch], list[Call]]:
        """Return what is queued, in order, and what is parked."""
        with self.changed:
            queues: Iterable[Iterable[Call | Stretch]] = (
                self._suspects,
                self._urgent,
                *(self._queues[priority] for priority in sorted(self._queues)),
            )
            found = [
                entry
                for queue in queues
                for entry in queue
                if (entry.items if isinstance(entry, Stretch) else entry.stage == QUEUED)
            ]
            return found, list(self._parked)

    def adopt(self, task: Task) -> None:
        """Enter a task that was sent by somebody else."""
        with self.changed:
            self._sends += 1
            task.since = self._sends
            task.end = len(task.load)
            self.sent[task.key] = task
            self.pending += task.end - task.told
            self.wake()

    def expect(self, count: int) -> None:
        """Count calls as pending that somebody else sees to, until they are dropped as items."""
        with self.changed:
            self.pending += count

    def forget_items(self, job: Job) -> list[str]:
        """Drop the items of a cancelled map that are queued.

        Returns
        -------
        list of str
            Keys of the tasks that are with the scheduler and have items of it.
        """
        with self.changed:
            self._drop_queued(lambda entry: isinstance(entry, Stretch) and entry.job is job)
            return [
                task.key
                for task in self.sent.values()
                if isinstance(task.load, Stretch) and task.load.job is job
            ]

    @property
    def taken(self) -> int:
        """How many tasks are in hand, or sent and not done. Under `changed`."""
        return len(self.sent) + self._in_hand

    def drop_unsent(self, spare: int = 0) -> tuple[list[Call], list[Stretch]]:
        """Drop all that is queued or parked, but for the first `spare` of them."""
        with self.changed:
            spared: list[Call | Stretch] = []
            for queue in (self._urgent, *(self._queues[p] for p in sorted(self._queues))):
                for entry in list(queue):
                    if spare > 0 and isinstance(entry, Call) and entry.stage == QUEUED:
                        spared.append(entry)
                        spare -= 1
                    elif spare > 0 and isinstance(entry, Stretch) and not entry.over:
                        kept = entry.split(spare)
                        spared.append(kept)
                        self._urgent.append(kept)
                        spare -= len(kept)
            keep = set(map(id, spared))
            return self._drop_queued(lambda entry: id(entry) not in keep)

    def _drop_queued(
        self, which: Callable[[Call | Stretch], bool]
    ) -> tuple[list[Call], list[Stretch]]:
        with self.changed:
            calls: list[Call] = []
            stretches: list[Stretch] = []
            queues: Iterable[Iterable[Call | Stretch]] = (
                self._urgent,
                self._suspects,
                *self._queues.values(),
                self._parked,
            )
            for entry in [entry for queue in queues for entry in queue if which(entry)]:
                if isinstance(entry, Call):
                    if entry.stage in (QUEUED, PARKED):
                        calls.append(entry)
                        self.forget(entry)
                elif not entry.over and entry.items:
                    stretches.append(entry[0:])
                    self.queued -= len(entry)
                    self.pending -= len(entry)
                    entry.over, entry.items = True, []
            self.wake()
            return calls, stretches

    def drop_all(self) -> tuple[list[Call], list[Stretch]]:
        """Drop everything but what is in hand, which the dispatcher thread sees to."""
        with self.changed:
            calls, stretches = self.drop_unsent()
            for task in list(self.sent.values()):
                rest = task.load[task.told : task.end]
                if isinstance(rest, Stretch):
                    self.pending -= len(rest)
                    stretches.append(rest)
                else:
                    calls += rest
                    for call in rest:
                        self._over(call)
                task.end = task.told
                self._unsend(task)
            self.wake()
            return calls, stretches

    def _unsend(self, task: Task) -> None:
        if self.sent.pop(task.key, None) is None:
            return
        task.load = task.load[:0]  # calls refer to their task: a cycle would outlive both
        self._seconds -= task.seconds
        if task.held:
            task.held = False
            if task.options.workers:
                self._nowhere -= 1
            else:
                self._held -= 1
        if task.waits:
            task.waits = False
            self._waiting -= 1
        if not self.sent and not self._in_hand:
            self._seconds = 0.0  # no drift
        if task.slot >= 0 and self.board is not None:
            self.board.release(task.slot)
            task.slot = -1
        for owed in self._worn.values():
            owed.discard(task.key)
        self.wake()


def _identity(fn: Any) -> Hashable:
    """Return what a callable has in common with others that will take about as long."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    if isinstance(fn, MethodType):
        fn = fn.__func__
    if isinstance(fn, FunctionType):
        return fn.__code__
    if isinstance(fn, BuiltinFunctionType):
        if fn.__self__ is None or isinstance(fn.__self__, ModuleType):
            return fn
        return type(fn.__self__), fn.__name__
    return type(fn)  # type: ignore[return-value]


def _attempt_key(key: str, attempt: int) -> str:
    """Name an attempt of a call, such that Dask groups all of them with the call itself.

    The call's own key is left for its plain value (`DaskFuture.dask_future`).
    """
    return f"{key[:-4]}{attempt & 0xFFFF:04x}"
