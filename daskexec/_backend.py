"""Everything that is said to ``distributed.Client``. Floor 5.

`DaskBackend` sends tickets and reports what becomes of them; it knows nothing of intake, windows
or the user's futures, and the dispatcher knows nothing of Dask. All of its work runs as
coroutines on the client's own event loop; its public methods may be called from any thread and
return at once. What it reports goes through one function (``report``), which must not block:
the dispatcher hands in ``SimpleQueue.put``.

What is said there is in several rooms of this floor, one for each purpose: what is brought to the
workers (`daskexec._bringing`), large objects and the tasks that need them (`_placing`,
`_supplying`), questions to workers (`_asking`), which ones there are (`_roster`), their messages
(`_hub`), results (`_fetching`, `_staying`), lost workers (`_once`, `_dead`), workers that are to
end (`_killing`), and what runs there (`_survey`). Opening a client is for `daskexec.clusters`.

Names of Dask that are used here; each room lists its own:

- ``Client``: ``submit``, ``cancel``, ``nthreads``, ``register_plugin``,
  ``unregister_scheduler_plugin``, ``loop``, ``status``, ``id``, ``scheduler.event_clear``;
  ``scheduler_comm`` to notice a lost connection at once.
- ``distributed.utils.offload``; ``distributed.scheduler.KilledWorker``.
- ``Future``: ``status``, ``key``, ``release``; ``_state.wait`` because the public
  ``add_done_callback`` runs all callbacks of a process one after the other on one thread.
- Coroutines are had by calling the client's methods with ``asynchronous=True``.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import Any, TypeAlias

from distributed import Future
from distributed.scheduler import KilledWorker
from distributed.utils import offload

from daskexec import _remote
from daskexec._asking import Asking
from daskexec._bringing import Bringing
from daskexec._calls import Outcome, Ticket
from daskexec._code import Bundle
from daskexec._dead import Dead
from daskexec._dead import Lost as LostWorker
from daskexec._fetching import Fetching
from daskexec._forgotten import Forgotten
from daskexec._hub import Hub
from daskexec._killing import Killing
from daskexec._large import Large
from daskexec._lifetimes import Where
from daskexec._messages import Done, Failed, Lost, There
from daskexec._once import OncePlugin, known_of_lost
from daskexec._placing import Placing
from daskexec._roster import Roster
from daskexec._staying import Remote, Staying
from daskexec._supplying import Sending, Supplying, submit
from daskexec._survey import Gate, Survey
from daskexec.errors import SchedulerLost
from daskexec.options import CallOptions

__all__ = ["DaskBackend"]


Report = Callable[[Any], None]

# Dask annotates its client in part only, and some of that not for strict checkers.
RemoteFuture: TypeAlias = Any


class DaskBackend:
    """One executor's line to one Dask client.

    Parameters
    ----------
    client : distributed.Client
        Connected. Several backends may share it.
    executor : str
        Id of the executor; the workers' messages carry it.
    report : callable
        Takes the messages of `daskexec._messages`, on the client's loop.
    direct : bool or None
        Fetch results from the workers themselves; None leaves it to Dask.
    coming : int
        Worker threads that are about to join: they count as there from the start.
    inherits : bool
        The workers have the initializer already, from another process.
    once : bool
        See to it that Dask begins no task again; else a board does (`daskexec._board`).
    """

    #: Seconds between two looks at the connection and the number of threads.
    PULSE = 1.0
    #: Seconds after which the scheduler knows of a worker's death for sure.
    AFTER_DEATH = Asking.AFTER_DEATH
    #: Seconds in which workers must have taken uploaded code.
    UPLOAD = 300.0

    def __init__(
        self,
        client: Any,
        executor: str,
        report: Report,
        direct: bool | None = None,
        coming: int = 0,
        inherits: bool = False,
        once: bool = True,
    ) -> None:
        self.client = client
        self.executor = executor
        self.topic: str = client.id
        self.address: str = self.client.scheduler.address
        self._report = report
        self._coming = coming
        self._loop: asyncio.AbstractEventLoop = self.client.loop.asyncio_loop
        self._comm = client.scheduler_comm
        # Entered by send(); otherwise touched on the loop only.
        self._futures: dict[str, RemoteFuture] = {}
        self._values: dict[str, Sequence[tuple[str, Any]]] = {}  # what sent tasks need of others
        self._staying = Staying(client, direct)
        self._asking = Asking(client, once)
        self._killing = Killing(client, self._asking, report, self._futures, self.spawn)
        self._claimed: set[str] = set()  # tasks that workers claim
        self._placing = Placing(client, executor, self.alive, direct, coming)
        self._fetching = Fetching(self, client, direct)
        self._supplying = Supplying(self, client, self._placing, self._fetching)
        self._lost = False
        self._closed = self._hushed = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._bringing = Bringing(client, executor, inherits)
        # Workers of an own cluster have what we have; those of a left one were looked at.
        self._survey = None if coming or inherits else Survey(client, executor, report)
        self._gate = Gate()
        self._once = OncePlugin(executor, client.id) if once else None
        self._dead = Dead(client, self._asking, self._once.name) if self._once else None
        self._forgotten = Forgotten(client, self._asking, self._dead)
        self._roster = Roster(client, report, self._asking, self.spawn, self._counted)
        self._holding = False
        self._held: list[RemoteFuture | None] = []

    # -- any thread ------------------------------------------------------------------------

    def start(self, initializer: bytes | None) -> None:
        """Listen to the workers and bring the initializer to them; blocks until done."""
        self._run(self._start(initializer)).result(60)

    def alive(self) -> bool:
        """Tell whether the connection that this backend began with still stands."""
        client = self.client
        comm = client.scheduler_comm
        return (
            not self._lost
            and client.status == "running"
            and comm is self._comm
            and not (comm is None or comm.closed())
        )

    def silent_for(self) -> float:
        """Return the seconds for which the scheduler has owed an answer."""
        return self._roster.silent_for()

    def loss(self) -> SchedulerLost:
        """Return the error that says why `alive` is False."""
        if self.client.status in ("closing", "closed"):
            return SchedulerLost("the Dask client of this executor was closed")
        return SchedulerLost(
            f"the connection to {self.address} was lost: the scheduler ended, was restarted, or "
            f"cannot be reached. Calls that had not finished are lost; make a new executor"
        )

    def send(
        self,
        ticket: Ticket,
        options: CallOptions,
        ahead: float = 0.0,
        large: Sequence[Large] = (),
        where: Where | None = None,
        values: Sequence[tuple[str, Any]] = (),
    ) -> None:
        """Submit one attempt of a task; its fate will be reported under ``ticket.key``."""
        sending = Sending(ticket, options, ahead, large, where, values)
        if not self._gate.hold(ticket.key, sending):
            self._send_now(sending)

    def _send_now(self, sending: Sending) -> None:
        if sending.large:
            self._supplying.send(sending)
            return
        future = self._submit(sending)
        self._loop.call_soon_threadsafe(self._watch, future)

    def _submit(self, sending: Sending, large: Iterable[RemoteFuture] = ()) -> RemoteFuture:
        ticket = sending.ticket
        if sending.values:
            self._values[ticket.key] = sending.values
        future = self._futures[ticket.key] = submit(self.client, sending, large)
        if ticket.once and ticket.slot < 0:
            self._claimed.add(ticket.key)
        return future

    def leave(self, key: str) -> None:
        """Leave the result of a task where it is, if it is large; report that it is `There`."""
        self._soon(self._leave, key)

    def bring(self, remote: Remote) -> None:
        """Fetch what is there; report it as `Done` under the key that it was reported by."""
        self._soon(self._bring_back, remote)

    def bring_now(self, remotes: Sequence[Remote]) -> list[Outcome | None]:
        """Fetch what is there; blocks. None for what is lost."""
        found: list[Outcome | None] = self._run(self._staying.gather(remotes)).result(self.UPLOAD)
        return found

    def hold(self, on: bool) -> None:
        """Let go of no result, nor of the initializer, until told otherwise; blocks.

        Somebody else is going to `adopt` what is with the workers.
        """
        self._run(self._hold(on)).result(10)

    def adopt(self, topic: str, keys: list[str]) -> None:
        """Take over tasks that another client has sent, and its topic; blocks.

        That client must not let go of them before this returns.
        """
        self._run(self._adopt(topic, keys)).result(60)

    def withdraw(self, keys: list[str]) -> concurrent.futures.Future[set[str]]:
        """Stop tasks that were not begun; the result says which ones will never run."""
        return self._run(self._withdraw(keys))

    def abandon(self, keys: list[str]) -> None:
        """Have no further call of some tasks begun: nobody waits for them."""
        self._begin(self._asking.abandon(keys))

    def relieve(
        self, key: str, worker: str, waiting: list[str]
    ) -> concurrent.futures.Future[dict[str, Any]]:
        """Take from a worker what waits behind a slow task: see `_remote.relieve`."""
        return self._run(self._relieve(key, worker, waiting))

    def mute(self, patience: float) -> concurrent.futures.Future[list[dict[str, Any]]]:
        """Describe every worker: address, name, seconds "mute" or 0, "keys" that it has then."""
        return self._run(self._roster.listen(patience, self._futures))

    def disown(self, key: str) -> None:
        """Have nothing more to do with a task that no worker will begin, where it stands.

        Not cancelled: see `_relieve`.
        """
        self._soon(self._drop, key)

    def watch_ends(self) -> None:
        """Report when workers will end, now and whenever some have come or gone."""
        self._begin(self._roster.watch_ends())

    def watch_names(self) -> None:
        """Report which workers there are, now and whenever some have come or gone."""
        self._begin(self._roster.watch_names())

    def give_up(self, key: str) -> None:
        """Have nothing more to do with a task, whether it runs or not."""
        self._begin(self._give_up(key))

    def kill(self, key: str, worker: str, pid: int) -> None:
        """End the process that runs a task, and nothing else; see `daskexec._killing`."""
        self._begin(self._kill(key, worker, pid))

    def kill_stuck(self, worker: str, pid: int) -> None:
        """End such a process from outside, if nothing else can run in it."""
        self._begin(self._killing.kill_stuck(worker, pid))

    def upload(self, bundle: Bundle) -> None:
        """Bring code to all workers, those to come too; blocks until those there have it.

        Raises
        ------
        RuntimeError
            A worker could not take it.
        """
        try:
            self._run(self._upload(bundle)).result(self.UPLOAD)
        except concurrent.futures.TimeoutError:
            raise RuntimeError(
                f"not all workers have said within {self.UPLOAD:g} s that they have "
                f"{bundle.origin}; some may be paused or cut off"
            ) from None

    def report(self, message: Any) -> None:
        """Report a message of the workers."""
        self._report(message)

    def value_future(self, key: str, name: str) -> RemoteFuture:
        """Return a Dask future named `name` for the plain value of the attempt `key`."""
        for waiting in self._gate.take([key]).values():  # other code of Dask may wait for it
            self._send_now(waiting)
        outcome = self._futures.get(key)
        if outcome is None:
            raise KeyError(key)
        return self._plain(outcome, name)

    def future_of(self, remote: Remote, name: str) -> RemoteFuture:
        """Return a Dask future named `name` for the plain value of what is there."""
        return self._plain(remote.future, name)

    def plain_future(self, blob: Any, name: str) -> RemoteFuture:
        """Return a Dask future named `name` for an already pickled value."""
        return self._plain(Outcome("ran", [blob]), name)

    def _plain(self, outcome: Outcome | RemoteFuture, name: str) -> RemoteFuture:
        return self.client.submit(_remote.value_of, outcome, key=name, pure=False)

    def on_loop(self) -> bool:
        """Tell whether this is the thread of the client's event loop."""
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return False

    def describe_workers(self) -> list[dict[str, Any]]:
        """Return address, name, resources and state of every worker, for messages; blocks."""
        workers: list[dict[str, Any]] = self._run(self._roster.describe()).result(2)
        return workers

    def hush(self) -> None:
        """Stop listening, at once; on the client's loop, before somebody closes the client."""
        if not self._hushed:
            self._hushed = True
            Hub.of(self.client).leave(self)

    def close(self) -> None:
        """Stop listening and release what is left; the client stays as it is. Blocks."""
        if self._closed:
            return
        with contextlib.suppress(
            RuntimeError, concurrent.futures.TimeoutError, concurrent.futures.CancelledError
        ):  # the loop has ended, and all that we had there with it
            self._run(self._close()).result(10)

    def _run(self, work: Coroutine[Any, Any, Any]) -> concurrent.futures.Future[Any]:
        try:
            if self._loop.is_closed():
                raise RuntimeError("the client's event loop is closed")
            return asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:
            work.close()
            raise

    def _begin(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run something of which nobody waits for the end."""
        with contextlib.suppress(RuntimeError):  # the loop has ended, and all there with it
            self._run(work)

    def _soon(self, do: Callable[..., None], *args: Any) -> None:
        with contextlib.suppress(RuntimeError):  # as above
            self._loop.call_soon_threadsafe(do, *args)

    # -- on the client's loop --------------------------------------------------------------

    async def _start(self, initializer: bytes | None) -> None:
        self._roster.expect_answer()
        Hub.of(self.client).join(self)
        if self._survey is not None:
            workers = [*await self.client.nthreads(asynchronous=True)]
            await self._survey.begin(workers)
            if not workers:
                self._gate.shut(self._survey.stand_in)
                self.spawn(self._open_gate(initializer))
        if self._once is not None:
            with contextlib.suppress(Exception):  # not every scheduler takes plugins
                await self.client.register_plugin(self._once, name=self._once.name)
        if not self._gate.is_shut:
            await self._bringing.initializer(initializer)
        await self._roster.count(self._coming)
        await offload(int)  # starts Dask's helper thread while one can still be started
        self.spawn(self._pulse())

    async def _upload(self, bundle: Bundle) -> None:
        try:
            await self._bringing.code(bundle)
        except Exception as exc:
            if not self.alive():
                self._lose()
            raise RuntimeError(
                f"a worker could not take {bundle.origin}: {type(exc).__name__}: {exc}"
            ) from exc

    async def _hold(self, on: bool) -> None:
        self._holding = self._fetching.holding = on
        if not on:
            self._held.clear()
            self._fetching.release()

    async def _adopt(self, topic: str, keys: list[str]) -> None:
        futures: dict[str, RemoteFuture] = {key: Future(key, self.client) for key in keys}
        await Hub.of(self.client).adopt(topic, keys)
        for key, future in futures.items():
            self._futures[key] = future
            self._watch(future)

    async def _pulse(self) -> None:
        while not self._lost:
            await asyncio.sleep(self.PULSE)
            if not self.alive():
                self._lose()
            elif self._futures or self._gate.held:
                await self._roster.count()

    def _counted(self, workers: list[str]) -> None:
        self._placing.workers = len(workers)
        self._fetching.counted(workers)
        if self._survey is not None:
            self.spawn(self._survey.joined(workers))

    async def _open_gate(self, initializer: bytes | None) -> None:
        assert self._survey is not None
        bring = partial(self._bringing.initializer, initializer)
        for sending in await self._survey.open(self._gate, bring):
            self._send_now(sending)
        await self._survey.end()

    async def _give_up(self, key: str) -> None:
        future = self._drop(key)
        if future is not None and self.alive():
            await self.client.cancel([future], asynchronous=True, force=True)

    async def _kill(self, key: str, worker: str, pid: int) -> None:
        await self._give_up(key)
        self._killing.begin(key, worker, pid)

    def _watch(self, future: RemoteFuture) -> None:
        self._fetching.release()
        self.spawn(self._wait(future))

    async def _wait(self, future: RemoteFuture) -> None:
        status = ""
        while status not in ("finished", "error", "cancelled"):
            await future._state.wait()  # also for a new result, where the first was lost
            status = future.status
        if future.key not in self._futures:
            return
        if status != "finished" and await self._has_run(future):
            return
        if status != "finished" and future.key in self._values and await self._misses(future):
            return
        if status == "cancelled" and future.key in self._supplying and self.alive():
            await asyncio.sleep(self.AFTER_DEATH)  # its large objects' states arrive, too
            if await self._supplying.again(future):
                return
        if status == "finished":
            brief = self._staying.brief_of(future.key)
            if brief is not None:
                self._stay(future, brief)
            else:
                self._fetching.fetch(future)
        elif status == "error":
            self._drop(future.key)
            error = future._state.exception
            if self._dead is not None and isinstance(error, KilledWorker):
                await self._report_killed(future.key, error)
            else:
                self._report(Failed(future.key, error))
        elif self.alive():  # not by us: what we withdraw leaves _futures first
            self._drop(future.key)
            lost = SchedulerLost("Dask was told to forget the call, by a cancel() or restart()")
            self._report(Failed(future.key, lost))
        else:
            self._lose()

    async def _has_run(self, future: RemoteFuture) -> bool:
        """Report a task as lost with its worker, if it was, and what it needs was lost as well.

        Dask cannot compute it anew then, and so no worker is there to refuse that. What it needs
        can be had again, and the task is sent again for that: but not if it has run.
        """
        key, error = future.key, future._state.exception
        if self._dead is None or not (key in self._values or key in self._supplying):
            return False
        killed = isinstance(error, KilledWorker) and error.task == key  # not what it needs
        if not killed and self.alive():
            where = await self._dead.lost_at(key)
            if where is not None:
                error, killed = KilledWorker(key, where, 0), True
        if killed and self._drop(key) is not None:
            await self._report_killed(key, error)
        return killed

    def _drop(self, key: str) -> RemoteFuture | None:
        """Have nothing more to do with a task; return its future, unless that was so before."""
        self._supplying.drop(key)
        self._values.pop(key, None)
        self._staying.drop(key)
        future = self._futures.pop(key, None)
        if key in self._claimed:
            self._claimed.discard(key)
            if not self._holding:
                self.spawn(self._unclaim(key))
        if self._holding:
            self._held.append(future)
        return future

    async def _unclaim(self, key: str) -> None:
        with contextlib.suppress(OSError):  # the scheduler goes, and the claim with it
            await self.client.scheduler.event_clear(name=_remote.CLAIM + key)

    # -- for what supplies tasks with large objects ------------------------------------------

    def supplied(self, sending: Sending, placed: Sequence[RemoteFuture]) -> None:
        """Send a task: the large objects that it needs are there."""
        self._watch(self._submit(sending, placed))

    async def forgotten(self, key: str) -> None:
        """Have a task sent again that Dask has forgotten, if it was not begun."""
        try:
            became = await self._forgotten.becomes(key)
        except OSError:
            return  # the connection is going, and everything with it
        if self._drop(key) is not None:
            self._report(became)

    def unsendable(self, key: str, error: BaseException) -> None:
        """Take note that a task cannot be sent."""
        self._drop(key)
        self._report(Failed(key, error))

    # -- results that stay where they are -------------------------------------------------------

    def _leave(self, key: str) -> None:
        if key in self._futures or key in self._supplying or key in self._gate.held:
            self._staying.leave(key)

    def told_of(self, key: str, brief: Outcome) -> None:
        """Take what is known of an outcome that will be there: ahead of Dask's word, too."""
        if key in self._futures:
            self._staying.told_of(key, brief)

    def _stay(self, future: RemoteFuture, brief: Outcome) -> None:
        if self._drop(future.key) is not None:
            self._report(There(future.key, brief, self._staying.keep(future)))

    def _bring_back(self, remote: Remote) -> None:
        if self.over():
            return
        # A future of its own: the other one stays while somebody needs the value there.
        future: RemoteFuture = Future(remote.future.key, self.client)
        self._futures[future.key] = future
        self.spawn(self._wait(future))

    async def _misses(self, future: RemoteFuture) -> bool:
        """Report a task that Dask gave up as one that misses values, if it does."""
        await asyncio.sleep(self.AFTER_DEATH)  # their states arrive, too
        values = self._values.get(future.key, ())
        lost = [key.encode() for key, remote in values if remote.lost]
        if not lost or not self.alive():
            return False
        if self._drop(future.key) is not None:
            await self._report_missing(future.key, Outcome("missing", lost, count=0))
        return True

    async def _report_missing(self, key: str, missing: Outcome) -> None:
        """Report a task as one that misses values, unless a worker has begun it all the same.

        One that had fetched them; the word of that was still on its way when they were lost.
        """
        try:
            became = await self._forgotten.becomes(key)
        except OSError:
            return  # the connection is going, and everything with it
        if isinstance(became, Done) and became.outcome.kind == "withdrawn":
            became = Done(key, missing)
        self._report(became)

    # -- for the transfers -----------------------------------------------------------------

    def lost(self, key: str) -> None:
        """Take note that a result was lost with its worker, be it this backend's or not."""
        self._fetching.lost(key)

    def over(self) -> bool:
        """Tell whether nothing is to be fetched any more."""
        return self._lost or self._closed

    def ended(self) -> None:
        """Take note that the connection is lost."""
        self._lose()

    def to_fetch(self, future: RemoteFuture) -> bool:
        """Tell whether somebody still waits for it."""
        if self._staying.brief_of(future.key) is not None:  # said meanwhile
            self.wait_again(future)
            return False
        return future.key in self._futures

    def wait_again(self, future: RemoteFuture) -> None:
        """Fetch a result when it is there."""
        if future.key in self._futures and not self._closed:
            self.spawn(self._wait(future))

    def failed(self, key: str, error: BaseException) -> None:
        """Take note that a result cannot be fetched."""
        if self._drop(key) is not None:
            self._report(Failed(key, error))

    def deliver(self, future: RemoteFuture, outcome: Outcome | None) -> None:
        """Take what has arrived."""
        if not isinstance(outcome, Outcome):  # its worker was lost meanwhile: wait again
            self.wait_again(future)
            return
        if self._drop(future.key) is not None:
            if outcome.kind == "refused" and outcome.bodies and not outcome.pid:
                self._had_ended(future.key, outcome.bodies)
            elif outcome.kind == "missing":
                self.spawn(self._report_missing(future.key, outcome))
            else:
                self._report(Done(future.key, outcome))
            self._fetching.spent(future)

    def told(self, key: str, outcome: Outcome) -> None:
        """Take an outcome that came with an event, ahead of Dask's word that it is there."""
        future = self._futures.get(key)
        if future is not None:
            self.deliver(future, outcome)

    def _had_ended(self, key: str, where: Iterable[Any]) -> None:
        """Report a task that had ended on a lost worker; `where` makes a `LostWorker`."""
        lost: Any = LostWorker(*where)
        self.spawn(self._report_killed(key, KilledWorker(key, lost, 0)))

    async def _report_killed(self, key: str, error: KilledWorker) -> None:
        assert self._dead is not None
        self._report(await self._dead.failed(key, error))

    async def _withdraw(self, keys: list[str]) -> set[str]:
        unsent = set(self._gate.take(keys))
        keys = [key for key in keys if key not in unsent]
        if not keys:
            return unsent
        try:
            begun = await self._asking.begun(keys)
            begun |= await self._begun_by_lost([key for key in keys if key not in begun])
        except OSError:
            return unsent  # the scheduler cannot be asked: any of the others may have begun
        stopped = {}
        for key in keys:
            if key not in begun and self._is_pending(key):
                stopped[key] = self._drop(key)
            elif key in self._supplying and key not in self._futures:
                self._drop(key)
                unsent.add(key)  # its large objects are still on the way
        if stopped:
            await self.client.cancel(list(stopped.values()), asynchronous=True)
        return unsent.union(stopped)

    def _is_pending(self, key: str) -> bool:
        """Tell whether a task has not failed; what was on a worker that has died has."""
        future = self._futures.get(key)
        return future is not None and future.status != "error"

    async def _begun_by_lost(self, keys: list[str]) -> set[str]:
        """Return which of these tasks a worker may have begun that cannot be asked any more.

        Of one that had ended there Dask has made a task for another worker, which would refuse it,
        but only when its thread is free: what has been left of it is asked for now.
        """
        known: dict[str, list[Any]] = {}
        if self._once is not None and keys:
            with contextlib.suppress(Exception):  # the connection is going, or not allowed
                known = await self.client.run_on_scheduler(known_of_lost, self._once.name, keys)
        for key, where in known.items():
            if where and self._drop(key) is not None:
                self._had_ended(key, where)
        return set(known)

    async def _relieve(self, key: str, worker: str, waiting: list[str]) -> dict[str, Any]:
        answer = await self._asking.relieve(key, worker, waiting)
        barred, elsewhere = answer["barred"], answer.pop("elsewhere")
        # One of the workers that are asked may be stopped, and its answer is waited for.
        begun = await self._asking.begun(elsewhere) if elsewhere else set()
        begun |= await self._begun_by_lost([key for key in barred if key not in begun])
        # Of what is not pending it is being reported what became of it.
        answer["barred"] = [key for key in barred if key not in begun and self._is_pending(key)]
        for barred in answer["barred"]:
            # Not cancelled: while it stands in the queue there, Dask puts no other task behind
            # the slow one. It ends as soon as the worker gets to it.
            self._drop(barred)
        return answer

    def _lose(self) -> None:
        if self._lost or self._closed:
            return
        self._lost = True
        self._gate.drop()
        self._futures.clear()
        self._supplying.clear()
        self._values.clear()
        self._report(Lost(self.loss()))

    async def _close(self) -> None:
        if not self._coming:  # an own cluster ends now anyway
            await self._killing.end()
        self._closed = True
        self.hush()
        if self._survey is not None:
            await self._survey.end()
        for task in self._tasks:
            task.cancel()
        for future in self._futures.values():
            future.release()
        self._futures.clear()
        self._supplying.clear()
        self._values.clear()
        self._staying.release()
        self._placing.clear()
        self._fetching.release()
        if self._holding:
            return  # the initializer is another's now, and so is the code that was brought
        if self.client.status != "running":
            return
        await self._bringing.end()
        if self._once is not None:
            with contextlib.suppress(Exception):  # it was not taken
                await self.client.unregister_scheduler_plugin(self._once.name)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a coroutine that ends with the backend; on the client's loop."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
