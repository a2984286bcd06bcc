"""Everything that is said to ``distributed.Client``. Floor 5.

`DaskBackend` sends tickets and reports what becomes of them; it knows nothing of intake, windows
or the user's futures, and the dispatcher knows nothing of Dask. All of its work runs as
coroutines on the client's own event loop; its public methods may be called from any thread and
return at once. What it reports goes through one function (``report``), which must not block:
the dispatcher hands in ``SimpleQueue.put``.

Names of Dask that are used here (opening and closing a client is for `daskexec.clusters`, large
objects are for `daskexec._placing`):

- ``Client``: ``submit``, ``generation``, ``gather``, ``cancel``, ``run``, ``run_on_scheduler``,
  ``nthreads``, ``register_plugin``, ``unregister_worker_plugin``,
  ``unregister_scheduler_plugin``, ``subscribe_topic``, ``unsubscribe_topic``,
  ``futures``, ``loop``, ``status``, ``id``, ``scheduler.who_has``;
  ``scheduler_comm`` to notice a lost connection at once.
- ``Client._send_to_scheduler`` and ``scheduler.log_event``, to take over another client's tasks.
- ``distributed.utils.offload``; ``distributed.scheduler.KilledWorker``.
- ``Future``: ``status``, ``key``, ``release``; ``_state.wait`` because the public
  ``add_done_callback`` runs all callbacks of a process one after the other on one thread.
- Coroutines are had by calling the client's methods with ``asynchronous=True``.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeAlias

from distributed import Future
from distributed.scheduler import KilledWorker
from distributed.utils import offload

from daskexec import _remote
from daskexec._calls import Outcome, Ticket
from daskexec._code import Bundle, CodePlugin
from daskexec._fetching import Fetching
from daskexec._hub import Hub
from daskexec._killing import Killing
from daskexec._large import Large
from daskexec._lifetimes import Where
from daskexec._messages import Done, Failed, Lost, Stuck, Surveyed, There
from daskexec._once import Dead, OncePlugin, bar, known_of_lost
from daskexec._once import Lost as LostWorker
from daskexec._placing import Placing, without_size_warning
from daskexec._roster import Gone, Roster, while_there
from daskexec._survey import Survey
from daskexec.errors import SchedulerLost
from daskexec.options import CallOptions

__all__ = ["DaskBackend"]


Report = Callable[[Any], None]

# Dask annotates its client in part only, and some of that not for strict checkers.
RemoteFuture: TypeAlias = Any


class _Need:
    """A ticket that needs large objects, while it is not done."""

    __slots__ = (
        "ahead",
        "generation",
        "large",
        "options",
        "placed",
        "ticket",
        "values",
        "where",
    )

    def __init__(
        self,
        ticket: Ticket,
        options: CallOptions,
        ahead: float,
        large: Sequence[Large],
        where: Where | None,
        values: Sequence[tuple[str, Any]],
        generation: int,
    ) -> None:
        self.ticket, self.options, self.ahead, self.large = ticket, options, ahead, large
        self.where, self.values, self.generation = where, values, generation
        self.placed: list[RemoteFuture] = []  # the objects, of the last attempt


class _Remote:
    """What keeps the value of a call on the cluster, while somebody may need it."""

    __slots__ = ("__weakref__", "future")

    def __init__(self, future: RemoteFuture) -> None:
        self.future = future  # Dask forgets the value when this goes

    @property
    def lost(self) -> bool:
        """Whether Dask has given up on it."""
        return self.future.status in ("cancelled", "error")


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
    AFTER_DEATH = 0.1
    #: Seconds in which workers must have taken uploaded code.
    UPLOAD = 300.0
    #: A resource that no worker has: a task that asks for it waits, and Dask sees that it does.
    TO_COME = "a worker that is still to come"
    #: Seconds that the end waits for workers which are being killed.
    LAST_KILLS = 3.0

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
        self._inherits = inherits
        self._loop: asyncio.AbstractEventLoop = self.client.loop.asyncio_loop
        self._comm = client.scheduler_comm
        # Entered by send(); otherwise touched on the loop only.
        self._futures: dict[str, RemoteFuture] = {}
        self._needs: dict[str, _Need] = {}
        self._values: dict[str, Sequence[tuple[str, Any]]] = {}  # what sent tasks need of others
        self._staying: set[str] = set()  # tasks of which the results are to stay where they are
        self._remotes: weakref.WeakSet[_Remote] = weakref.WeakSet()
        self._briefs: dict[str, Outcome] = {}  # and what is known of these, if it was said
        self._direct = direct
        self._killing = Killing(client, report, self._futures)
        self._kills: set[asyncio.Task[Any]] = set()
        self._claimed: set[str] = set()  # tasks that workers claim
        self._placing = Placing(client, executor, self.alive, direct, coming)
        self._fetching = Fetching(self, client, direct)
        self._lost = False
        self._closed = self._hushed = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._plugins: list[str] = []
        # Workers of an own cluster have what we have; those of a left one were looked at.
        self._survey = None if coming or inherits else Survey(client, executor, report)
        # What waits for the first worker; None: nothing needs to any more.
        self._gate: dict[str, tuple[Any, ...]] | None = None
        self._gate_lock = threading.Lock()  # guards that
        self._once = OncePlugin(executor, client.id) if once else None
        self._dead = Dead(client)
        self._roster = Roster(client, report, self._counted)
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
        with self._gate_lock:
            if self._gate is not None:
                self._gate[ticket.key] = (ticket, options, ahead, large, where, values)
                if self._survey is not None and len(self._gate) > 1:  # one is there anyway
                    self._survey.stand_in()
                return
        self._send_now(ticket, options, ahead, large, where, values)

    def _send_now(
        self,
        ticket: Ticket,
        options: CallOptions,
        ahead: float,
        large: Sequence[Large],
        where: Where | None,
        values: Sequence[tuple[str, Any]] = (),
    ) -> None:
        if large:
            need = _Need(ticket, options, ahead, large, where, values, self.client.generation)
            self._needs[ticket.key] = need
            self._loop.call_soon_threadsafe(self._spawn_supply, need)
            return
        future = self._submit(ticket, options, ahead, where, (), values)
        self._loop.call_soon_threadsafe(self._watch, future)

    def _submit(
        self,
        ticket: Ticket,
        options: CallOptions,
        ahead: float,
        where: Where | None,
        large: Iterable[RemoteFuture] = (),
        values: Sequence[tuple[str, Any]] = (),
    ) -> RemoteFuture:
        if values:
            self._values[ticket.key] = values
        resources = dict(options.resources) if options.resources else {}
        workers = list(where.workers) if where is not None else []
        if where is not None and not workers:
            resources[self.TO_COME] = 1
        with without_size_warning(len(ticket.load)):
            future = self.client.submit(
                _remote.run_task,
                ticket,
                *large,
                *(remote.future for _, remote in values),
                key=ticket.key,
                pure=False,
                fifo_timeout="0 s",  # or Dask sorts what comes within 100 ms by name
                priority=options.priority + ahead,  # Dask takes fractions, too
                resources=resources or None,
                workers=workers or None,
                allow_other_workers=bool(workers) and where is not None and not where.strict,
            )
        self._futures[ticket.key] = future
        if ticket.once and ticket.slot < 0:
            self._claimed.add(ticket.key)
        return future

    def leave(self, key: str) -> None:
        """Leave the result of a task where it is, if it is large; report that it is `There`."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._leave, key)

    def bring(self, remote: _Remote) -> None:
        """Fetch what is there; report it as `Done` under the key that it was reported by."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._bring_back, remote)

    def bring_now(self, remotes: Sequence[_Remote]) -> list[Outcome | None]:
        """Fetch what is there; blocks. None for what is lost."""
        gathering = self._run(self._gather([remote.future for remote in remotes]))
        found: list[Outcome | None] = gathering.result(self.UPLOAD)
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
        with contextlib.suppress(RuntimeError):  # the loop has ended, and they with it
            self._run(self._abandon(keys))

    def relieve(
        self, key: str, worker: str, waiting: list[str]
    ) -> concurrent.futures.Future[dict[str, Any]]:
        """Take from a worker what waits behind a slow task: see `_remote.relieve`."""
        return self._run(self._relieve(key, worker, waiting))

    def mute(self, patience: float) -> concurrent.futures.Future[list[dict[str, Any]]]:
        """Describe every worker: address, name, seconds "mute" or 0, "keys" that it has then."""
        return self._run(self._mute(patience))

    def disown(self, key: str) -> None:
        """Have nothing more to do with a task that no worker will begin, where it stands.

        Not cancelled: see `_relieve`.
        """
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._drop, key)

    def watch_ends(self) -> None:
        """Report when workers will end, now and whenever some have come or gone."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._run(self._roster.watch_ends())

    def watch_names(self) -> None:
        """Report which workers there are, now and whenever some have come or gone."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._run(self._roster.watch_names())

    def give_up(self, key: str) -> None:
        """Have nothing more to do with a task, whether it runs or not."""
        with contextlib.suppress(RuntimeError):
            self._run(self._give_up(key))

    def kill(self, key: str, worker: str, pid: int) -> None:
        """End the process that runs a task, and nothing else; see `daskexec._killing`."""
        with contextlib.suppress(RuntimeError):
            self._run(self._kill(key, worker, pid))

    def kill_stuck(self, worker: str, pid: int) -> None:
        """End such a process from outside, if nothing else can run in it."""
        with contextlib.suppress(RuntimeError):
            self._run(self._killing.kill_stuck(worker, pid))

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
        with self._gate_lock:
            waiting = (self._gate or {}).pop(key, None)
        if waiting is not None:  # other code of Dask may wait for it
            self._send_now(*waiting)
        outcome = self._futures.get(key)
        if outcome is None:
            raise KeyError(key)
        return self._plain(outcome, name)

    def future_of(self, remote: _Remote, name: str) -> RemoteFuture:
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

    # -- on the client's loop --------------------------------------------------------------

    async def _start(self, initializer: bytes | None) -> None:
        self._roster.expect_answer()
        Hub.of(self.client).join(self)
        if self._survey is not None:
            workers = [*await self.client.nthreads(asynchronous=True)]
            await self._survey.begin(workers)
            if not workers:
                self._gate = {}
                self._spawn(self._open_gate(initializer))
        if self._once is not None:
            with contextlib.suppress(Exception):  # not every scheduler takes plugins
                await self.client.register_plugin(self._once, name=self._once.name)
        if self._gate is None:
            await self._bring(initializer)
        await self._roster.count(self._coming)
        await offload(int)  # starts Dask's helper thread while one can still be started
        self._spawn(self._pulse())

    async def _upload(self, bundle: Bundle) -> None:
        plugin = CodePlugin(self.executor, bundle)
        if plugin.name not in self._plugins:
            self._plugins.append(plugin.name)
        try:
            await self.client.register_plugin(plugin, name=plugin.name)
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
        client, noted, asked = self.client, asyncio.Event(), f"{topic}-{self.topic}"
        client.subscribe_topic(topic, Hub.of(client).on_event)
        futures: dict[str, RemoteFuture] = {key: Future(key, client) for key in keys}
        client._send_to_scheduler({"op": "client-desires-keys", "keys": keys})
        # Messages of a client are handled in order: once it hears of this topic, so was that.
        client.subscribe_topic(asked, lambda _: noted.set())
        while not noted.is_set():
            await client.scheduler.log_event(topic=asked, msg="")
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(noted.wait(), 0.05)
        client.unsubscribe_topic(asked)
        for key, future in futures.items():
            self._futures[key] = future
            self._watch(future)

    async def _pulse(self) -> None:
        while not self._lost:
            await asyncio.sleep(self.PULSE)
            if not self.alive():
                self._lose()
            elif self._futures or self._gate:
                await self._roster.count()

    def _counted(self, workers: list[str]) -> None:
        self._placing.workers = len(workers)
        if self._survey is not None:
            self._spawn(self._survey.joined(workers))

    async def _bring(self, initializer: bytes | None) -> None:
        if initializer is not None:
            plugin = _remote.InitializerPlugin(self.executor, initializer)
            self._plugins.append(plugin.name)
            if self._inherits:
                return  # they have it
            responses = await self.client.register_plugin(plugin, name=plugin.name)
            for response in (responses or {}).values():
                if isinstance(response, dict) and response.get("status") == "error":
                    raise RuntimeError(f"a worker refused the initializer: {response}")

    async def _open_gate(self, initializer: bytes | None) -> None:
        """Send what waits for the first worker, when that has said that it can run it."""
        assert self._survey is not None
        fatal = await self._survey.first_worker()
        try:
            if not fatal:
                await self._bring(initializer)
        except Exception as exc:
            fatal = f"the initializer could not be brought to the workers: {exc}"
        if fatal:
            self._report(Surveyed(fatal, {}))
            return
        with self._gate_lock:
            gate, self._gate = self._gate, None
        for sending in (gate or {}).values():
            self._send_now(*sending)
        await self._survey.end()

    async def _give_up(self, key: str) -> None:
        future = self._drop(key)
        if future is not None and self.alive():
            await self.client.cancel([future], asynchronous=True, force=True)

    async def _kill(self, key: str, worker: str, pid: int) -> None:
        await self._give_up(key)
        if worker:
            kill = self._spawn(self._killing.kill(key, worker, pid))
            self._kills.add(kill)
            kill.add_done_callback(self._kills.discard)
        else:  # nothing was heard of it, so it will not answer
            self._report(Stuck("", pid))

    async def _mute(self, patience: float) -> list[dict[str, Any]]:
        found = await self._roster.listen(patience)
        silent = [worker["address"] for worker in found if worker["mute"]]
        keys = await self.client.scheduler.processing(workers=silent) if silent else {}
        for worker in found:
            # A worker that has gone in between has none; of others' tasks nothing is known.
            its = keys.get(worker["address"], ())
            worker["keys"] = [key for key in its if key in self._futures]
        return found

    def _watch(self, future: RemoteFuture) -> None:
        self._fetching.release()
        self._spawn(self._wait(future))

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
        if status == "cancelled" and future.key in self._needs and self.alive():
            await asyncio.sleep(self.AFTER_DEATH)  # its large objects' states arrive, too
            if await self._supply_again(future):
                return
        if status == "finished":
            brief = self._briefs.get(future.key)
            if brief is not None and future.key in self._staying:
                self._stay(future, brief)
            else:
                self._fetching.fetch(future)
        elif status == "error":
            self._drop(future.key)
            error = future._state.exception
            if self._once is not None and isinstance(error, KilledWorker):
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
        if self._once is None or not (key in self._values or key in self._needs):
            return False
        killed = isinstance(error, KilledWorker) and error.task == key  # not what it needs
        if not killed and self.alive():
            where = await self._dead.lost_at(key, self._once.name)
            if where is not None:
                error, killed = KilledWorker(key, where, 0), True
        if killed and self._drop(key) is not None:
            await self._report_killed(key, error)
        return killed

    async def _report_killed(self, key: str, error: KilledWorker) -> None:
        assert self._once is not None
        left = await self._dead.left_of_any(key, error.last_worker, self._once.name)
        self._report(Failed(key, error, left.begun, left.bodies, left.fate))

    def _drop(self, key: str) -> RemoteFuture | None:
        """Have nothing more to do with a task; return its future, unless that was so before."""
        self._needs.pop(key, None)
        self._values.pop(key, None)
        self._staying.discard(key)
        self._briefs.pop(key, None)
        future = self._futures.pop(key, None)
        if key in self._claimed:
            self._claimed.discard(key)
            if not self._holding:
                self._spawn(self._unclaim(key))
        if self._holding:
            self._held.append(future)
        return future

    async def _unclaim(self, key: str) -> None:
        with contextlib.suppress(OSError):  # the scheduler goes, and the claim with it
            await self.client.scheduler.event_clear(name=_remote.CLAIM + key)

    # -- large objects: each a Dask value of its own, on the client's loop -------------------

    def _spawn_supply(self, need: _Need) -> None:
        if self._needs.get(need.ticket.key) is need and not self._closed:
            self._spawn(self._supply(need))

    async def _supply(self, need: _Need) -> None:
        """Bring a ticket's large objects to the cluster, then submit it."""
        key = need.ticket.key
        try:
            need.placed = [
                await self._placing.place(large, self._tasks_with(large)) for large in need.large
            ]
            self._fetching.worked()
            if self._needs.get(key) is not need or self._closed:
                return  # withdrawn meanwhile
            future = self._submit(
                need.ticket, need.options, need.ahead, need.where, need.placed, need.values
            )
        except Exception as exc:
            if not self.alive():
                self._lose()
            elif self._fetching.try_again(exc):
                self._loop.call_later(Fetching.RETRY_AFTER, self._spawn_supply, need)
            elif self._needs.get(key) is need:
                self._drop(key)
                self._report(Failed(key, exc))
            return
        self._watch(future)

    def _tasks_with(self, large: Large) -> int:
        return sum(large in need.large for need in self._needs.values())

    async def _supply_again(self, future: RemoteFuture) -> bool:
        """Have a task sent again that Dask forgot since a large object it needs was lost.

        If it was not begun: a worker may run it all the same that has fetched the object, and
        the word of that was still on its way.
        """
        need = self._needs.get(future.key)
        if need is None or need.generation != self.client.generation:  # restarted
            return need is None
        # The status of a future does not tell: a worker may die while it is sent the object,
        # and Dask then calls it finished.
        keys = [placed.key for placed in need.placed]
        owners = await self.client.scheduler.who_has(keys=keys)
        lost = {key for key in keys if not owners.get(key)}
        if not lost:
            return False
        self._placing.lost(lost)
        try:
            became = await self._of_forgotten(future.key)
        except OSError:
            return True  # the connection is going, and everything with it
        if self._drop(future.key) is not None:
            self._report(became)
        return True

    async def _of_forgotten(self, key: str) -> Done | Failed:
        """Find out what becomes of a task that Dask has forgotten: if it runs, once it ends."""
        nobody: Any = None
        answers = await self._ask(_remote.withdraw, [key])
        while answers:
            unsure = []
            for worker, said in answers.items():
                if said == [key]:
                    said = (await self._ask(_remote.outcome_of, key, workers=[worker]))[worker]
                    if isinstance(said, Outcome):
                        return Done(key, said)
                    if self._once is not None and not isinstance(said, OSError):
                        killed = KilledWorker(key, nobody, 0)
                        return Failed(key, killed, True, None, f"{worker} has lost the result")
                if isinstance(said, OSError):
                    unsure.append(worker)
            if unsure:
                await asyncio.sleep(self.AFTER_DEATH)
                there = await self.client.nthreads(asynchronous=True)
                unsure = [worker for worker in unsure if worker in there]
            answers = await self._ask(_remote.withdraw, [key], workers=unsure)
        if self._once is not None:
            left, lost = await self._dead.left_of_forgotten(key, self._once.name)
            if lost is not None:
                error = KilledWorker(key, lost, 0)
                return Failed(key, error, left.begun, left.bodies, left.fate)
        return Done(key, Outcome("withdrawn", []))  # or begun, if the board says so

    # -- results that stay where they are -------------------------------------------------------

    def _leave(self, key: str) -> None:
        if key in self._futures or key in self._needs or key in (self._gate or ()):
            self._staying.add(key)

    def told_of(self, key: str, brief: Outcome) -> None:
        """Take what is known of an outcome that will be there: ahead of Dask's word, too."""
        if key in self._futures:
            self._briefs[key] = brief

    def _stay(self, future: RemoteFuture, brief: Outcome) -> None:
        if self._drop(future.key) is not None:
            remote = _Remote(future)
            self._remotes.add(remote)
            self._report(There(future.key, brief, remote))

    def _bring_back(self, remote: _Remote) -> None:
        if self.over():
            return
        # A future of its own: the other one stays while somebody needs the value there.
        future: RemoteFuture = Future(remote.future.key, self.client)
        self._futures[future.key] = future
        self._spawn(self._wait(future))

    async def _gather(self, futures: list[RemoteFuture]) -> list[Outcome | None]:
        batch = {future.key: future for future in futures}
        found = await self.client.gather(
            batch, errors="skip", direct=self._direct, asynchronous=True
        )
        return [found.get(future.key) for future in futures]

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
            became = await self._of_forgotten(key)
        except OSError:
            return  # the connection is going, and everything with it
        if isinstance(became, Done) and became.outcome.kind == "withdrawn":
            became = Done(key, missing)
        self._report(became)

    # -- for the transfers -----------------------------------------------------------------

    def retry_transfers(self) -> None:
        """Start the transfers that are under way anew, since a worker has died.

        On the client's loop.
        """
        self._fetching.again()

    def over(self) -> bool:
        """Tell whether nothing is to be fetched any more."""
        return self._lost or self._closed

    def ended(self) -> None:
        """Take note that the connection is lost."""
        self._lose()

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a coroutine that ends with the backend."""
        return self._spawn(work)

    def to_fetch(self, future: RemoteFuture) -> bool:
        """Tell whether somebody still waits for it."""
        if future.key in self._staying and future.key in self._briefs:  # said meanwhile
            self.wait_again(future)
            return False
        return future.key in self._futures

    def wait_again(self, future: RemoteFuture) -> None:
        """Fetch a result when it is there."""
        if future.key in self._futures and not self._closed:
            self._spawn(self._wait(future))

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
                # It had ended on a worker that was lost.
                lost: Any = LostWorker(*outcome.bodies)
                self._spawn(self._report_killed(future.key, KilledWorker(future.key, lost, 0)))
            elif outcome.kind == "missing":
                self._spawn(self._report_missing(future.key, outcome))
            else:
                self._report(Done(future.key, outcome))
            self._fetching.spent(future)

    def told(self, key: str, outcome: Outcome) -> None:
        """Take an outcome that came with an event, ahead of Dask's word that it is there."""
        future = self._futures.get(key)
        if future is not None:
            self.deliver(future, outcome)

    async def _withdraw(self, keys: list[str]) -> set[str]:
        with self._gate_lock:
            gate = self._gate or {}
            unsent = {key for key in keys if gate.pop(key, None) is not None}
        keys = [key for key in keys if key not in unsent]
        if not keys:
            return unsent
        try:
            begun = await self._begun(keys)
        except OSError:
            return unsent  # the scheduler cannot be asked: any of the others may have begun
        stopped = {}
        for key in keys:
            future = self._futures.get(key)
            if key not in begun and future is not None and future.status != "error":
                stopped[key] = self._drop(key)
            elif key in self._needs and key not in self._futures:
                self._drop(key)
                unsent.add(key)  # its large objects are still on the way
        if stopped:
            await self.client.cancel(list(stopped.values()), asynchronous=True)
        return unsent.union(stopped)

    async def _begun(self, keys: list[str]) -> set[str]:
        """Return which of these tasks a worker has begun, or may have; they begin no others."""
        begun: set[str] = set()
        answers = await self._ask(_remote.withdraw, keys)
        asked = set(answers)
        if not self._roster.workers <= asked:  # one has died, and may have begun any: see `Failed`
            await asyncio.sleep(self.AFTER_DEATH)
        while answers:
            for answer in answers.values():
                # A worker that did not answer may have begun any of them.
                begun.update(answer if isinstance(answer, list) else keys)
            # One that has joined meanwhile may have been given them.
            joined = set(await self.client.nthreads(asynchronous=True)) - asked
            asked |= joined
            answers = await self._ask(_remote.withdraw, keys, workers=list(joined))
        return begun.union(await self._begun_by_lost([key for key in keys if key not in begun]))

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
                lost: Any = LostWorker(*where)
                self._spawn(self._report_killed(key, KilledWorker(key, lost, 0)))
        return set(known)

    async def _ask(
        self, function: Any, *args: Any, workers: list[str] | None = None
    ) -> dict[str, Any]:
        """Return what a function returns on each worker; an OSError of one that has gone."""
        answers: dict[str, Any] = {}
        asked = set(self._roster.workers if workers is None else workers)
        while workers is None or workers:
            asking = self.client.run(function, *args, workers=workers, on_error="return")
            try:
                return {**answers, **await while_there(self.client, asking, asked)}
            except Gone as gone:
                answers.update(dict.fromkeys(asked.difference(gone.there), gone))
                workers = [one for one in gone.there if workers is None or one in asked]
                asked = set(workers)
        return answers

    async def _abandon(self, keys: list[str]) -> None:
        await self.client.run(_remote.abandon, keys, on_error="return")  # nobody waits for it

    async def _relieve(self, key: str, worker: str, waiting: list[str]) -> dict[str, Any]:
        said = (await self._ask(_remote.relieve, key, waiting, workers=[worker]))[worker]
        if isinstance(said, BaseException):
            raise said
        answer: dict[str, Any] = said
        if answer["barred"]:
            # Or workers that join later may be given them, and run them.
            if self._once is not None:
                with contextlib.suppress(Exception):  # the connection is going, or not allowed
                    await self.client.run_on_scheduler(bar, answer["barred"])
            # Barred wherever Dask may move them, should the worker die; or has it died meanwhile?
            begun = await self._begun(answer["barred"])
            # What is not ours any more has failed, or ended, and that is on its way.
            answer["barred"] = [
                barred
                for barred in answer["barred"]
                if barred in self._futures and barred not in begun
            ]
        for barred in answer["barred"]:
            # Not cancelled: while it stands in the queue there, Dask puts no other task behind
            # the slow one. It ends as soon as the worker gets to it.
            self._drop(barred)
        return answer

    def _lose(self) -> None:
        if self._lost or self._closed:
            return
        self._lost = True
        with self._gate_lock:
            self._gate = None
        self._futures.clear()
        self._needs.clear()
        self._values.clear()
        self._report(Lost(self.loss()))

    async def _close(self) -> None:
        if self._kills and not self._coming:  # an own cluster ends now anyway
            await asyncio.wait(self._kills, timeout=self.LAST_KILLS)
        self._closed = True
        self.hush()
        if self._survey is not None:
            await self._survey.end()
        for task in self._tasks:
            task.cancel()
        for future in self._futures.values():
            future.release()
        self._futures.clear()
        self._needs.clear()
        self._values.clear()
        for remote in list(self._remotes):
            remote.future.release()
        self._placing.clear()
        self._fetching.release()
        if self._holding:
            return  # the initializer is another's now, and so is the code that was brought
        if self.client.status != "running":
            return
        for name in self._plugins:
            await self.client.unregister_worker_plugin(name)
        if self._once is not None:
            with contextlib.suppress(Exception):  # it was not taken
                await self.client.unregister_scheduler_plugin(self._once.name)

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
