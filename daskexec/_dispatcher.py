"""The dispatcher: from ``submit`` to a finished future. Floor 6.

::

    caller's thread     dispatcher thread          Dask                  settle thread
    ---------------     -----------------          ----                  -------------
    submit()
      QUEUED ---------> take tasks, each of as
                        many calls as the policy
                        says, while the window
                        is open
                        pickle each call alone  (error -> its own future;
                        PARKED while a future among the arguments is not done:
                        see `daskexec._promises`)
                        SENT ------------------->  scheduler -> worker
                                                   started event ------> RUNNING
                                                   outcome ------------> unpickle, FINISHED
                        not begun: QUEUED again <- slow event, outcome <- relieve the worker
                        more room in the window <----------------------- settled
                                                                           |
                                                        callback thread <--+ done-callbacks

Where a cancel still works: QUEUED and PARKED, at once and without a message; SENT, if the
workers, when asked, say that they have not begun the task; RUNNING, only by killing its process
(`daskexec._limits`).

How many calls share a task is for `daskexec._batching`; where calls stand, and the one lock, is
in `daskexec._ledger`; what happens on the settle and the callback thread in `daskexec._settling`.
The threads are daemons, so that an interpreter which is told to die can; at a normal end
`_finish_all` waits for them first, as the stdlib's pools do.
"""

from __future__ import annotations

import concurrent.futures.thread
import contextlib
import itertools
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import BrokenExecutor, CancelledError
from concurrent.futures.process import BrokenProcessPool
from time import monotonic, time
from typing import Any

from daskexec._batching import BatchPolicy
from daskexec._calls import Ticket
from daskexec._endings import Answer
from daskexec._failures import needed_by
from daskexec._ledger import Ledger
from daskexec._lifetimes import Where
from daskexec._limits import Kill
from daskexec._messages import Line
from daskexec._packing import Packer
from daskexec._parcel import Parcel
from daskexec._parting import Parting
from daskexec._patience import Patience
from daskexec._pickling import dump, function_name, running
from daskexec._promises import LEAVES, failed_of, futures_in, label_of
from daskexec._settling import CHECK, Adopted, Arrived, Settler, like
from daskexec._tasks import IN_HAND, THERE, Call, Job, Raised, Stretch, Task, Value
from daskexec.errors import Detached
from daskexec.futures import DaskFuture
from daskexec.options import CallOptions

__all__ = ["Dispatcher"]


class Dispatcher:
    """Runs the calls of one executor. Every public method may be called from any thread.

    Parameters
    ----------
    connect : callable
        ``connect(report)`` returns a `Line`; called on the dispatcher thread. What it raises
        breaks the executor.
    executor : str
        Id of the executor.
    policy : BatchPolicy
        How many calls share a task, and how many tasks may be with the scheduler.
    initializer : bytes, optional
        The pickled ``(initializer, initargs)``.
    max_calls : int
        Calls after which a worker process is replaced, 0 for no limit.
    width : int
        Calls that the executor's workers can run at the same time.
    patience : Patience
        When to say what is being waited for, and when to give up.
    opaque : bool
        Load nothing that comes from a call, and take an initializer as with the workers already.
    """

    #: Seconds that ``cancel`` waits for the workers' answer.
    CANCEL_WAIT = 5.0

    def __init__(
        self,
        connect: Callable[[Callable[[Any], None]], Line],
        executor: str,
        policy: BatchPolicy,
        *,
        initializer: bytes | None = None,
        max_calls: int = 0,
        width: int = 1,
        patience: Patience | None = None,
        opaque: bool = False,
    ) -> None:
        self.executor = executor
        self._home, self._initialized = "", False
        self._width = width
        self._connect = connect
        self._policy = policy
        self._initializer = initializer
        self._numbers = itertools.count()
        self._max_calls = max_calls
        self._ledger = Ledger(policy)
        self._settler = Settler(self._ledger, patience or Patience(), self._break, opaque)
        self._promises = self._settler.promises
        self._promises.owner = self
        self._promises.leaving = not max_calls  # a worker that is replaced takes its values along
        self._parting: Parting | None = None
        self._left_as = ""
        self._packer = Packer(  # the dispatcher thread's
            executor,
            self._ledger,
            promises=self._settler.promises,
            park=self._park,
            refuse=self._unsendable,
            refuse_items=self._settler.fail_items,
        )
        self._line: Line | None = None
        self._started = False  # the backend: calls can be sent
        self._watches_names = False
        self._stopping = False
        self._forked = False
        self._broken: Callable[[], BaseException] | None = None
        jobs = (self._dispatch, self._settler.settle, self._settler.call_back)
        self._workers = [
            threading.Thread(target=job, name=f"daskexec {job.__name__.strip('_')}", daemon=True)
            for job in jobs
        ]
        _live.add(self)
        for thread in self._workers:
            thread.start()

    # -- the executor's side ---------------------------------------------------------------

    def submit(self, fn: Any, args: Any, kwargs: Any, options: CallOptions) -> DaskFuture[Any]:
        """Take over a call and return its future.

        Raises RuntimeError or BrokenExecutor when it cannot be run.
        """
        self.give_way()
        call = self.make_call(fn, args, kwargs, options)
        future = call.future
        if options.remote:
            self.use([future])
        if _is_plain(fn, args, kwargs):
            self.enter(call)  # there is nothing within these
            return future
        needed = futures_in((fn, *args, *kwargs.values()))
        with self._ledger.changed:
            self.check_open()
            failed = failed_of(needed)
            if failed is None and not (needed and self._promises.park_new(call, needed)):
                self._ledger.add(call)
        if failed is not None:
            _fail_with(call, failed)
        return future

    def act_for(self, home: str, initialized: bool) -> None:
        """Within a call: run calls as those of the executor that runs it; before the first.

        Its globals of ``__main__`` are theirs, and so is its initializer, if it has one.
        """
        self._home, self._initialized = home, initialized

    def end_with_worker(self) -> None:
        """End, since the worker ends whose calls' calls these are; on its event loop."""
        self.shutdown(wait=False)
        line = self._line
        if line is not None:  # or the scheduler would complain that nobody listens any more
            line.backend.hush()

    def give_way(self) -> None:
        """Within a call on a worker: give its thread back, for it will wait for others."""
        give_thread_back = running.give_thread_back
        if give_thread_back is not None:
            give_thread_back()

    def make_call(self, fn: Any, args: Any, kwargs: Any, options: CallOptions) -> Call:
        """Return a call with its future; nothing of it has been submitted."""
        future: DaskFuture[Any] = DaskFuture(self.name_of(fn, options), next(self._numbers), self)
        future._submitted = time()
        future._call = call = Call(future, fn, args, kwargs, options)
        return call

    @staticmethod
    def name_of(fn: Any, options: CallOptions) -> str:
        """Return what Dask calls the tasks of a function."""
        return options.name or function_name(fn).strip("<>")

    def next_number(self) -> int:
        """Return a new number, of those that calls have."""
        return next(self._numbers)

    def next_key(self, name: str) -> str:
        """Return a new key for a task of no call."""
        return f"{name}-{self.executor}{next(self._numbers) & 0xFFFFFFFF:08x}0001"

    def enter(self, entry: Call | Stretch) -> None:
        """Take over a call, or items of a map.

        Raises RuntimeError or BrokenExecutor when it cannot be run.
        """
        with self._ledger.lock:
            self.check_open()
            self._ledger.add(entry)

    def extend(self, stretch: Stretch, item: Any) -> bool:
        """Add an item to a stretch that is queued; False if none of it is any more."""
        self.check_open()
        return self._ledger.extend(stretch, item)

    def use(self, futures: list[DaskFuture[Any]]) -> None:
        """Take note that futures are for calls to come: their values may stay with the workers."""
        self._promises.use(futures)

    def check_open(self) -> None:
        """Raise what ``submit`` raises on a broken, closed or forked executor."""
        if self._forked:
            raise RuntimeError(
                "this DaskExecutor was made before the process forked and cannot be used in "
                "the child: make a new one there"
            )
        if self._broken is not None:
            raise self._broken()
        if self._stopping:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if self._parting is not None:
            raise RuntimeError("cannot schedule new futures while the executor is detached")
        if _interpreter_ends:
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")
        line = self._line
        if line is not None and not line.backend.alive():
            self._settler.inbox.put(CHECK)
            raise BrokenExecutor("the cluster of this DaskExecutor cannot be reached any more")

    def usable(self) -> bool:
        """Tell whether calls can be submitted."""
        try:
            self.check_open()
        except (RuntimeError, BrokenExecutor):
            return False
        return True

    def broken(self) -> str:
        """Say why the executor is broken; "" when it is not."""
        return str(self._broken()) if self._broken is not None else ""

    def state(self) -> str:
        """Say in a few words how it stands, for people."""
        if self._parting is not None and self._broken is not None:
            return f"detached as {self._left_as!r}"
        if self._broken is not None:
            return "broken"
        pending = self._ledger.pending
        return f"{'shut down' if self._stopping else 'running'}, {pending} calls pending"

    def line(self) -> Line:
        """Return the line, waiting for the cluster to be up; raises when it is broken."""
        with self._ledger.changed:
            while not self._started and self._broken is None:
                self._ledger.wait()
            if self._line is None:
                self.check_open()
                raise RuntimeError("the executor has no cluster any more")
            return self._line

    def stats(self) -> dict[str, Any]:
        """Return what is where, and what the policy knows, as plain values."""
        ledger = self._ledger
        with ledger.changed:
            return {
                "threads": ledger.threads,
                "pending": ledger.pending,
                "queued": ledger.queued,
                "tasks_sent": len(ledger.sent),
                **self._policy.stats(),
            }

    def ask(self, future: DaskFuture[Any]) -> None:
        """Have a value that was left with the workers brought here; returns at once."""
        if not self._forked:
            self._promises.ask(future)

    def is_there(self, future: DaskFuture[Any]) -> bool:
        """Tell whether the value of a future was left with the workers."""
        call: Call | None = future._call
        return call is not None and call.stage == THERE

    def cancel(self, future: DaskFuture[Any]) -> bool:
        """Cancel the call of a pending future, if no worker has begun it."""
        if not self._has_it(future):
            return False
        call: Call | None = future._call
        if call is None:
            return future._cancel_now()
        if self._ledger.forget_unsent(call):
            return future._cancel_now()
        task = call.task
        if task is None or task.started is not None:
            return future.cancelled()
        line = self._line
        if line is None or self._forked or not line.backend.alive():
            return False
        call.wanted = False
        answer = line.backend.withdraw([task.key])
        if not _has_running_loop():
            with contextlib.suppress(concurrent.futures.TimeoutError):
                stopped = answer.result(self.CANCEL_WAIT)
                self._settler.withdrawn(stopped, task)
                if not future.done() and self._ledger.forget_unsent(call):
                    return future._cancel_now()  # it was taken back meanwhile
                return future.cancelled()
        answer.add_done_callback(lambda done: self._settler.inbox.put(Answer(done, [task])))
        return False

    def _has_it(self, future: DaskFuture[Any]) -> bool:
        """Wait while a call is on its way to a keeper, where that may be waited for."""
        parting = self._parting
        if parting is not None and not parting.over.done():
            if _has_running_loop():
                return False
            concurrent.futures.wait([parting.over])
        return True

    def kill(self, future: DaskFuture[Any]) -> bool:
        """Cancel the call of a future also if a worker has begun it, whose process is ended."""
        if not self._has_it(future):
            return False
        call: Call | None = future._call
        if call is None:
            return future.cancelled()
        if self._ledger.forget_unsent(call):
            return future._cancel_running()  # it may say so, of a task that it had shared
        line = self._line
        if line is None or self._forked or not line.backend.alive():
            return future.cancelled()
        given = self._ledger.seize(call)
        if given is not None:
            stopped = future._cancel_running()
            self._settler.inbox.put(given)
            return stopped
        call.wanted = False
        kill = Kill(call, monotonic() + self.CANCEL_WAIT)
        self._settler.inbox.put(kill)
        if not _has_running_loop() and threading.current_thread() is not self._workers[1]:
            kill.over.wait(self.CANCEL_WAIT)
        return future.cancelled()

    def cancel_all(self, futures: Iterable[DaskFuture[Any]]) -> None:
        """Cancel what has not begun, with one question to the workers and without waiting."""
        tasks: dict[str, Task] = {}
        for future in futures:
            call: Call | None = future._call
            if call is not None:
                if self._ledger.forget_unsent(call):
                    future._cancel_now()
                    continue
                task = call.task
                if task is not None and task.started is None:
                    call.wanted = False
                    tasks[task.key] = task
        line = self._line
        if tasks and line is not None and not self._forked and line.backend.alive():
            answer = line.backend.withdraw(list(tasks))
            sent = list(tasks.values())
            answer.add_done_callback(lambda done: self._settler.inbox.put(Answer(done, sent)))

    def cancel_items(self, job: Job) -> None:
        """Begin no further item of a map: what it comes to is of no use any more."""
        if self._forked:
            return
        keys = self._ledger.forget_items(job)
        line = self._line
        if keys and line is not None and line.backend.alive():
            line.backend.abandon(keys)

    def part(self, parting: Parting, name: str) -> None:
        """Hand all calls over, then end; blocks. See `daskexec._parting`.

        Raises RuntimeError or BrokenExecutor when that cannot be done; then all goes on.
        """
        self.refuse_to_block()
        self.line()
        with self._ledger.changed:
            self.check_open()
            self._parting, self._left_as = parting, name
            self._ledger.changed.notify_all()
        parting.over.result()
        self.join()

    def adopt(self, tasks: list[Task], topic: str) -> None:
        """Take over tasks that another dispatcher has sent; blocks."""
        line = self.line()
        for task in tasks:
            self._ledger.adopt(task)
            self._settler.inbox.put(Adopted(task))
        line.backend.adopt(topic, [task.key for task in tasks])

    def expect(self, count: int) -> None:
        """Count calls as pending that a keeper sees to."""
        self._ledger.expect(count)

    def arrived(self, future: DaskFuture[Any], body: Any) -> None:
        """Settle a call that was expected; a body of None is for one that was cancelled."""
        self._settler.inbox.put(Arrived(future, body))

    def dask_future(self, future: DaskFuture[Any]) -> Any:
        """Return the cluster's own future for the plain value of the call."""
        with self._ledger.changed:
            self.check_open()
            call: Call | None = future._call
            if call is not None:
                self._ledger.hurry(call)
            while (
                call is not None
                and call.stage < THERE
                and not (call.task is not None and call.task.submitted)
                and self._broken is None
            ):
                self._ledger.wait()
            line = self._line
            task = call.task if call is not None else None
            value: Value | None = future._result if call and call.stage == THERE else None
        if line is None or self._broken is not None:
            raise RuntimeError("the executor has no cluster any more")
        if task is not None and len(task.load) == 1:
            with contextlib.suppress(KeyError):  # settled just now
                return line.backend.value_future(task.key, future.key)
        if value is not None and value.remote is not None:
            return line.backend.future_of(value.remote, future.key)
        body = value.body if value is not None else dump(future.result())
        return line.backend.plain_future(body, future.key)

    def upload(self, bundle: Any) -> None:
        """Bring code to all workers; blocks until those there have it."""
        self.check_open()
        self.refuse_to_block()
        self.line().backend.upload(bundle)

    def refuse_to_block(self) -> None:
        """Raise RuntimeError on the thread that the results come through."""
        line = self._line
        if line is not None and line.backend.on_loop():
            raise RuntimeError(
                "waiting for a DaskExecutor on the thread of the event loop that carries it "
                "would wait for ever: await its futures, and end it by shutdown(wait=False) "
                "or asyncio.to_thread(executor.shutdown)"
            )

    def takes_callbacks(self, future: DaskFuture[Any]) -> bool:
        """Have the callbacks of a done future run on their own thread, if this is ours."""
        if threading.current_thread() not in self._workers[:2]:
            return False
        self._settler.callbacks.put(future)
        return True

    def shutdown(self, wait: bool = True, cancel_futures: bool = False) -> None:
        """Take no more calls; end the threads and the line when all are settled."""
        if self._forked:
            return
        if wait:
            self.refuse_to_block()
        with self._ledger.changed:
            self._stopping = True
            dropped: tuple[list[Call], list[Stretch]] = ([], [])
            if cancel_futures:
                # What is with the scheduler finishes, as what is in a process pool's call
                # queue does; and what would be running by now, had there been time to send it.
                dropped = self._ledger.drop_unsent(max(0, self._width - self._ledger.taken))
            self._ledger.changed.notify_all()
        _cancelled(*dropped)
        if wait:
            self.join()

    def join(self) -> None:
        """Wait until everything is settled and ended."""
        for thread in self._workers:
            if thread is not threading.current_thread():
                thread.join()

    def stop_workers(self, number: int, what: str) -> None:
        """Give up all that is not done and end the worker processes, where they are ours."""
        with self._ledger.changed:
            self._stopping = True
            dropped = self._ledger.drop_unsent()
            line = self._line
        _cancelled(*dropped)
        self._break(lambda: BrokenProcessPool(f"{what}() was called while the call was running"))
        if line is not None and line.signal_workers is not None:
            line.signal_workers(number)

    # -- dispatcher thread -----------------------------------------------------------------

    def _dispatch(self) -> None:
        try:
            line = self._connect(self._settler.inbox.put)
            with self._ledger.changed:
                self._line = self._settler.line = line
                self._ledger.board = line.board
                self._ledger.changed.notify_all()
            line.backend.start(self._initializer)
            with self._ledger.changed:
                self._started = True
                self._ledger.changed.notify_all()
        except BaseException as exc:
            self._break(like(exc, "the cluster of this executor could not be started"))
        while self._dispatch_some():
            pass
        self._promises.end()
        self._refuse_to_part()
        self._packer.large.clear()
        with contextlib.suppress(Exception):
            if self._line is not None:
                self._line.backend.close()
        with contextlib.suppress(Exception):
            if self._line is not None:
                self._line.close()
        self._settler.inbox.put(None)

    def _dispatch_some(self) -> bool:
        ledger = self._ledger
        self._packer.large.tidy()
        with ledger.changed:
            while self._broken is None:
                if self._parting is not None:
                    break
                tasks = ledger.take()
                if tasks:
                    break
                if self._stopping and not ledger.pending and not self._promises.ask_for_small():
                    return False
                if not ledger.wait(self._packer.large.pause):
                    return True
            else:
                return False
        if self._parting is not None:
            self._part(self._parting)
            return True
        self._packer.large.begin()
        for task in tasks:
            try:
                if self._broken is None and self._packer.pack(task):
                    self._send(task)
                    continue
            except BaseException as exc:  # a fault of ours must not become a hang
                self._break(like(exc, "internal error of daskexec"))
            self._put_down(task)
        return True

    def _part(self, parting: Parting) -> None:
        line = self._line
        assert line is not None
        try:
            parcel = Parcel(
                self.executor,
                line.backend.topic,
                self._policy.sharing,
                self._policy.ahead,
                self._policy.limit,
                self._initializer,
            )
            parting.hand_over(
                parcel, self._ledger, self._packer, self._settler, line, self.next_number
            )
        except BaseException as exc:
            self._parting = None
            parting.over.set_exception(exc)
            return
        name = self._left_as
        with self._ledger.changed:
            self._broken = lambda: Detached(name)
            calls, stretches = self._ledger.drop_all()
        for call in calls:
            call.future._finish(error=Detached(name, parting.given.get(id(call.future))))
        self._promises.end(lambda future: Detached(name, parting.given.get(id(future))))
        for stretch in stretches:
            stretch.job.fill(stretch.first, [Raised(Detached(name)) for _ in stretch.items])
        parting.over.set_result(None)

    def _refuse_to_part(self) -> None:
        """Answer a request that came too late."""
        with self._ledger.changed:
            parting = self._parting
            error = self._broken() if self._broken is not None else RuntimeError("it has ended")
        if parting is not None and not parting.over.done():
            parting.over.set_exception(error)

    def _put_down(self, task: Task) -> None:
        """Have a task in hand no more; on a broken executor its calls fail."""
        if self._broken is not None:
            error = self._broken()
            if task.key in self._ledger.sent:
                self._settler.fail(task, error)
                return
            if isinstance(task.load, Stretch):
                self._settler.fail_items(task.load, error)
            else:
                for call in task.load:
                    if call.stage == IN_HAND:
                        self._unsendable(call, error)
        self._ledger.put_down(task)

    def _unsendable(self, call: Call, error: BaseException) -> None:
        """Fail a call in hand, or cancel it if that is what became of its argument."""
        self._ledger.forget(call)
        if isinstance(error, CancelledError):
            call.future._cancel_now()
        else:
            call.future._finish(error=error)

    def _send(self, task: Task) -> None:
        line = self._line
        assert line is not None
        turn = self._ledger.send(task)
        if not task.end:
            return  # cancelled meanwhile
        if self._broken is not None:
            self._settler.fail(task, self._broken())
            return
        load = self._packer.load_of(task)
        needs, where = self._place(task)
        ticket = Ticket(
            self.executor,
            task.key,
            line.backend.topic,
            load.pack(),
            task.slot,
            turn,
            self._initializer is not None or self._initialized,
            self._max_calls,
            self._policy.slow_after(task.function),
            self._stop_after(task),
            needs,
            task.options.capture_output,
            self._home,
            announced=task.options.timeout is not None,
            once=task.options.rerun is False,
        )
        try:
            line.backend.send(ticket, task.options, task.ahead, load.large, where, load.values)
            self._promises.sent(task)
            self._ledger.submitted(task)
        except BaseException as exc:
            if line.backend.alive():
                self._settler.fail(task, exc)
            else:
                self._settler.inbox.put(CHECK)

    def _stop_after(self, task: Task) -> float:
        if _stays_together(task):
            return float("inf")
        return self._policy.stop_after(task.seconds)

    def _place(self, task: Task) -> tuple[float, Where | None]:
        """Return what a task needs, in seconds, and where it is to be run by the workers' ends.

        A worker takes as many calls of a shared task as it has time for: what must fit is one.
        """
        if task.options.workers:
            return 0.0, self._place_named(task)
        if not self._ledger.lifetimes.known:
            return task.expects(), None
        needs = task.needs()
        each = needs if _stays_together(task) else needs / max(1, task.end - task.told)
        where = self._ledger.place(task, each)
        if where is not None and not where.workers:
            self._settler.endings.explain_hold(task, each, where.most)
        return (0.0 if where is not None and where.forced else needs), where

    def _place_named(self, task: Task) -> Where:
        line = self._line
        assert line is not None
        if not self._watches_names:
            self._watches_names = True
            with contextlib.suppress(Exception):  # the cluster does not say just now
                there = line.backend.describe_workers()
                self._ledger.learn_names({each["address"]: each["name"] for each in there})
            line.backend.watch_names()
        return self._ledger.place_named(task)

    def _park(self, call: Call, needed: Sequence[Call | concurrent.futures.Future[Any]]) -> None:
        """Hold a call back until the futures among its arguments are done; blocks no thread."""
        self._promises.park(call, needed)
        broken = self._broken
        if broken is not None and self._ledger.forget_unsent(call):
            self._unsendable(call, broken())

    # -- any thread ------------------------------------------------------------------------

    def _break(self, error: Callable[[], BaseException]) -> None:
        """Fail everything that is pending, and all submits from now on."""
        with self._ledger.changed:
            if self._broken is not None:
                return
            if self._stopping and self._started and not self._ledger.pending:
                return  # all is done, and it ends: then its cluster is not lost
            self._broken = error
            calls, stretches = self._ledger.drop_all()
            self._ledger.changed.notify_all()
        for call in calls:
            call.future._finish(error=error())
        for stretch in stretches:
            stretch.job.fill(stretch.first, [Raised(error()) for _ in stretch.items])
        self._promises.end(lambda _: error())


def _fail_with(call: Call, failed: DaskFuture[Any]) -> None:
    """End a call that was given a future which has failed or was cancelled."""
    future, call.future._call = call.future, None
    if failed._exception is None:
        future._cancel_now()
    else:
        error = needed_by(failed._exception, label_of(failed), label_of(future))
        future._finish(error=error)


def _cancelled(calls: Iterable[Call], stretches: Iterable[Stretch]) -> None:
    """Tell those who wait that calls and items will not be run."""
    for call in calls:
        if not call.future._cancel_now():  # it has run, and was to run again
            call.future._finish(error=CancelledError())
    for stretch in stretches:
        stretch.job.fill(stretch.first, [Raised(CancelledError()) for _ in stretch.items])


def _stays_together(task: Task) -> bool:
    """Tell whether a user wants the calls of a task to run one after the other on one worker."""
    return isinstance(task.load, Stretch) and task.load.job.chunk is not None


def _is_plain(fn: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Tell whether nothing of a call can be, or have in it, a future; quickly."""
    if type(fn) not in LEAVES or kwargs:
        return False
    for argument in args:  # noqa: SIM110 (a generator would take as long as all the rest)
        if type(argument) not in LEAVES:
            return False
    return True


def _has_running_loop() -> bool:
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None


# --- the interpreter's end, and forks -----------------------------------------------------------

_live: weakref.WeakSet[Dispatcher] = weakref.WeakSet()
_interpreter_ends = False


def _finish_all() -> None:
    """Run what is pending, then end every dispatcher: the stdlib's pools do so too."""
    global _interpreter_ends
    _interpreter_ends = True
    dispatchers = list(_live)
    for dispatcher in dispatchers:
        dispatcher.shutdown(wait=False)
    for dispatcher in dispatchers:
        dispatcher.join()


def _after_fork_in_child() -> None:
    for dispatcher in _live:
        dispatcher._forked = True
        dispatcher._ledger.renew_lock()
    _live.clear()


# Runs before threads are joined, unlike atexit: then no thread can be started any more. The
# stdlib's own pools hang on the same hook.
threading._register_atexit(_finish_all)  # type: ignore[attr-defined]
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
