"""The cluster that a plain ``DaskExecutor()`` starts on this machine. Floor 6.

A Dask cluster like any other (``scale``, ``adapt``, ``close``), with the scheduler on a thread
of this process and the workers forked by `daskexec._spawner`. Against ``LocalCluster``:

- its workers survive Ctrl-C in the terminal, end with this process however it ends, and need
  no ``__main__`` guard in the script;
- everything listens on 127.0.0.1, and HTTP is served only where a dashboard was asked for;
- a worker that dies is replaced at once, and it is known what ended it;
- calls that a worker had begun are told from those it had not (`daskexec._board`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Mapping
from typing import Any

import distributed
from distributed import SpecCluster
from distributed.deploy.cluster import Cluster
from distributed.deploy.spec import ProcessInterface
from distributed.scheduler import WorkerStatusPlugin

from daskexec._board import BOARDS
from daskexec._lean import be_eager, leave_out_meters, leave_out_profile
from daskexec._link import SpawnerLink
from daskexec._quiet import quiet, quiet_here
from daskexec._security import keys_of, temporary_security

__all__ = ["LOOPBACK", "ForkCluster"]

LOOPBACK = "127.0.0.1"


class ForkCluster(SpecCluster):
    """Scheduler in this process, workers as processes of this machine.

    Parameters
    ----------
    link : SpawnerLink
        To a spawner that has been started; the cluster closes it.
    n_workers : int
        Number of worker processes.
    threads_per_worker : int
        Calls that one worker process runs at the same time.
    memory_limit : int, str or None
        Memory of a worker at which Dask spills and pauses; None for no limit.
    dashboard : bool or str
        Serve Dask's dashboard on http://127.0.0.1:8787, or at that address (needs bokeh).
    resources : dict, optional
        Dask worker resources that each worker offers.
    secure : bool
        Speak TLS, with certificates made for this cluster (needs cryptography). They stay in
        the memory of its processes.
    host : str
        Address to listen at.
    port : int
        TCP port of the scheduler; 0: any.
    logs : int, optional
        Level from which scheduler and workers log; else they do not.
    name : str
        Name of the cluster.
    settings : mapping, optional
        Of Dask, for the workers: dotted names to plain values.

    Attributes
    ----------
    boards : str
        Folder in which executors have their boards.

    Raises
    ------
    RuntimeError
        The platform cannot fork, or the cluster did not start.
    """

    def __init__(
        self,
        link: SpawnerLink,
        n_workers: int,
        *,
        threads_per_worker: int = 1,
        memory_limit: int | str | None = None,
        dashboard: bool | str = False,
        resources: dict[str, float] | None = None,
        secure: bool = False,
        host: str = LOOPBACK,
        port: int = 0,
        logs: int | None = None,
        name: str = "daskexec",
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.link = link
        self.boards = link.scratch
        self._logs = logs is not None
        try:
            security = temporary_security() if secure else None
            protocol = "tls://" if secure else "tcp://"
            worker = {
                "cls": ForkedWorker,
                "options": {
                    "link": self.link,
                    "nthreads": threads_per_worker,
                    "memory_limit": memory_limit or 0,
                    "local_directory": self.link.scratch,
                    "resources": resources,
                    "boards": self.boards,
                    "http": bool(dashboard),
                    "host": host,
                    "protocol": protocol,
                    "security": keys_of(security),
                    "logs": logs,
                    "settings": dict(settings or {}),
                },
            }
            scheduler = {
                "cls": distributed.Scheduler if dashboard else Scheduler,
                "options": {
                    "host": host,
                    "port": port,
                    "protocol": protocol,
                    "security": security,
                    # It needs no folder, and one would be removed by a forked child's end.
                    "needs_workdir": False,
                    "local_directory": self.link.scratch,
                    "dashboard": bool(dashboard),
                    "dashboard_address": (
                        dashboard
                        if isinstance(dashboard, str)
                        else f"{LOOPBACK}:{8787 if dashboard else 0}"
                    ),
                    # A task may be moved off dying workers for ever: the board knows which
                    # call began, and a call that has begun is not run again.
                    "allowed_failures": 1 << 40,
                },
            }
            with quiet_here() if logs is None else contextlib.nullcontext():
                super().__init__(
                    workers=dict.fromkeys(range(n_workers), worker),
                    worker=worker,
                    scheduler=scheduler,
                    name=name,
                    security=security,
                    silence_logs=False,
                    # A fork of this process has no loop that could close the cluster, and
                    # the executor closes it before the interpreter's end anyway.
                    shutdown_on_close=False,
                )
        except BaseException:
            self.link.close()
            raise

    async def _start(self) -> None:
        if not self._logs:
            quiet.add(threading.get_ident())
        self.link.listen(asyncio.get_running_loop())
        await super()._start()
        assert self.scheduler is not None
        # For clients of this user's on this machine, calls on workers among them.
        self.scheduler.task_metadata[BOARDS] = [os.uname().nodename, self.boards]
        self.scheduler.add_plugin(_Joining(self.scheduler, self.link))

    async def _close(self) -> None:
        self.link.stop_replacing()
        if self.status == distributed.Status.running:
            # All at once and by signal: the scheduler, which would have each of them hand its
            # data to the others first, ends too.
            self.worker_spec.clear()
            async with self._lock:
                await asyncio.gather(*(worker.close() for worker in self.workers.values()))
                self.workers.clear()
            self.link.hang_up()
            await self._end_news()
        await super()._close()

    async def _end_news(self) -> None:
        """End the stream on which the scheduler tells of workers that come and go.

        Dask leaves it open. It has just told of those that went, and waits 5 ms for more: where
        the event loop ends within that time, asyncio prints that nobody heard of its end.
        """
        assert self.scheduler is not None
        news = self.scheduler.plugins.get(WorkerStatusPlugin.name)
        if news is not None:
            with contextlib.suppress(OSError, asyncio.TimeoutError):
                await news.bcomm.close(timeout=_NEWS_END)

    def _update_worker_status(self, op: str, msg: Any) -> None:
        # Not Dask's own, by which a place is given up whose worker has just ended when it is
        # looked at, 15 s after an earlier one has: here a dead worker is replaced at once.
        Cluster._update_worker_status(self, op, msg)

    def close(self, timeout: float | None = None) -> Any:
        """Stop workers and scheduler; nothing of them is left afterwards. Idempotent."""
        thread = getattr(self._loop_runner, "_loop_thread", None)
        try:
            with quiet_here():
                return super().close(timeout)
        finally:
            quiet.discard(getattr(thread, "ident", None))
            self.link.close()
            _forget_handlers()

    def answer_at_once(self, client: str) -> None:
        """Have the scheduler send each message to a client at once; Dask's waits for 2 ms."""
        assert self.scheduler is not None
        be_eager(self.scheduler.client_comms[client])

    def retire(self) -> None:
        """Begin to end the workers, which have nothing to do any more; returns at once."""
        self.signal_workers(signal.SIGTERM)

    def signal_workers(self, number: int) -> None:
        """Send a signal to every worker process, and replace none of them."""
        self.link.stop_replacing()
        for pid in self.link.pids():
            self.link.signal(pid, number)

    def recycle(self, pid: int) -> None:
        """End one worker process; a fresh one takes its place."""
        self.link.signal(pid, signal.SIGTERM)

    def kill(self, pid: int) -> None:
        """Kill one worker process; a fresh one takes its place."""
        self.link.kill(pid)

    def trouble(self) -> tuple[bool, str]:
        """Say what keeps workers from joining: whether that is final, and what is known."""
        if self.link.ended:
            return True, "the process that starts the workers has ended; see its messages"
        deaths = list(self.link.deaths.values())
        return False, f"the last worker: {deaths[-1][1]}" if deaths else ""

    def death_of(self, pid: int) -> tuple[str, str]:
        """Return name of the worker that had this process id, and what ended it."""
        return self.link.deaths.get(pid, ("", ""))


def _forget_handlers() -> None:
    """Have Dask forget the methods of servers that it remembers: they keep a closed one alive."""
    cache = getattr(distributed.core, "_expects_comm", None)
    with contextlib.suppress(AttributeError):  # another version of Dask
        cache.cache_clear()  # type: ignore[union-attr]


#: Seconds that the end of the stream of news may take.
_NEWS_END = 1.0
#: Seconds between two reports of a worker, where Dask would have it report more often.
_HEARTBEAT = 1.0


class Scheduler(distributed.Scheduler):  # by its name Dask looks things up
    """One that serves no HTTP, and measures nothing for it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        leave_out_profile()
        super().__init__(*args, **kwargs)
        leave_out_meters(self)

    def start_http_server(self, *_args: Any, **_kwargs: Any) -> None:
        """Open no port."""

    def bulk_schedule_unrunnable_after_adding_worker(self, ws: Any) -> dict[Any, Any]:
        """Give a worker that joins what came first, wherever it waits.

        While there is no worker a task waits in Dask's queue, and from when one has begun to join
        until it runs, beside that. What is there would go first, though it came later.
        """
        found: dict[Any, Any] = super().bulk_schedule_unrunnable_after_adding_worker(ws)
        if not found or not self.queued:
            return found
        ranks: dict[Any, Any] = {key: self.tasks[key].priority for key in found}
        last = max(ranks.values())
        ranks.update((task.key, task.priority) for task in self.queued if task.priority < last)
        # Dask begins at the end.
        return dict.fromkeys(sorted(ranks, key=ranks.__getitem__, reverse=True), "processing")

    def heartbeat_worker(self, **state: Any) -> dict[str, Any]:
        """Have each worker report once a second: each report stops its calls for a moment."""
        answer = super().heartbeat_worker(**state)
        if "heartbeat-interval" in answer:
            answer["heartbeat-interval"] = max(_HEARTBEAT, answer["heartbeat-interval"])
        return answer


class _Joining(distributed.SchedulerPlugin):
    """Sees to workers that join.

    Has the scheduler send each message to them at once, where Dask's waits for 5 ms, and the link
    know that they got that far.
    """

    name = "daskexec-joining"

    def __init__(self, scheduler: Any, link: SpawnerLink) -> None:
        self._link = link
        for worker in scheduler.stream_comms:
            self.add_worker(scheduler, worker)

    def add_worker(self, scheduler: Any, worker: str) -> None:
        be_eager(scheduler.stream_comms[worker])
        self._link.joined(str(scheduler.workers[worker].name))


class ForkedWorker(ProcessInterface):
    """One place in the cluster: a worker process, and the next one when it dies."""

    def __init__(self, scheduler: str, *, name: Any, link: SpawnerLink, **options: Any) -> None:
        super().__init__(scheduler, name)
        self.name = name
        self._link = link
        self._options = {
            "scheduler_ip": scheduler,
            "name": name,
            "dashboard_address": f"{LOOPBACK}:0",
            "death_timeout": 60,
            **options,
        }

    async def start(self) -> None:
        self._link.add(str(self.name), self._options)
        await super().start()

    async def close(self) -> None:
        await self._link.remove(str(self.name))
        await super().close()
