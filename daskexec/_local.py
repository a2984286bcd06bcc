"""The cluster that a plain ``DaskExecutor()`` starts on this machine. Floor 6.

A Dask cluster like any other (``scale``, ``adapt``, ``close``), with the scheduler on a thread
of this process and the workers forked by `daskexec._spawner`. Against ``LocalCluster``:

- its workers survive Ctrl-C in the terminal, end with this process however it ends, and need
  no ``__main__`` guard in the script;
- everything listens on 127.0.0.1, the HTTP servers included;
- a worker that dies is replaced at once, and it is known what ended it;
- calls that a worker had begun are told from those it had not (`daskexec._board`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distributed import Scheduler, SpecCluster
from distributed.deploy.spec import ProcessInterface

from daskexec._board import Board

__all__ = ["ForkCluster"]

_LOOPBACK = "127.0.0.1"


class ForkCluster(SpecCluster):
    """Scheduler in this process, workers as processes of this machine.

    Parameters
    ----------
    n_workers : int
        Number of worker processes.
    threads_per_worker : int
        Calls that one worker process runs at the same time.
    memory_limit : int, str or None
        Memory of a worker at which Dask spills and pauses; None for no limit.
    dashboard : bool
        Serve Dask's dashboard on http://127.0.0.1:8787 (needs bokeh).
    resources : dict, optional
        Dask worker resources that each worker offers.

    Raises
    ------
    RuntimeError
        The platform cannot fork, or the cluster did not start.
    """

    def __init__(
        self,
        n_workers: int,
        *,
        threads_per_worker: int = 1,
        memory_limit: int | str | None = None,
        dashboard: bool = False,
        resources: dict[str, float] | None = None,
    ) -> None:
        self.link = SpawnerLink()
        try:
            self.board = Board(Path(self.link.scratch, "board"), create=True)
            self.link.board = self.board
            worker = {
                "cls": ForkedWorker,
                "options": {
                    "link": self.link,
                    "nthreads": threads_per_worker,
                    "memory_limit": memory_limit or 0,
                    "local_directory": self.link.scratch,
                    "resources": resources,
                    "board": self.board.path,
                },
            }
            scheduler = {
                "cls": Scheduler,
                "options": {
                    "host": _LOOPBACK,
                    # It needs no folder, and one would be removed by a forked child's end.
                    "needs_workdir": False,
                    "local_directory": self.link.scratch,
                    "dashboard": dashboard,
                    "dashboard_address": f"{_LOOPBACK}:{8787 if dashboard else 0}",
                    # A task may be moved off dying workers for ever: the board knows which
                    # call began, and a call that has begun is not run again.
                    "allowed_failures": 1 << 40,
                },
            }
            with _quiet_here():
                super().__init__(
                    workers=dict.fromkeys(range(n_workers), worker),
                    worker=worker,
                    scheduler=scheduler,
                    name="daskexec",
                    # A fork of this process has no loop that could close the cluster, and
                    # the executor closes it before the interpreter's end anyway.
                    shutdown_on_close=False,
                )
        except BaseException:
            self.link.close()
            raise

    async def _start(self) -> None:
        _quiet.add(threading.get_ident())
        self.link.listen(asyncio.get_running_loop())
        await super()._start()

    async def _close(self) -> None:
        self.link.stop_replacing()
        await super()._close()

    def close(self, timeout: float | None = None) -> Any:
        """Stop workers and scheduler; nothing of them is left afterwards. Idempotent."""
        thread = getattr(self._loop_runner, "_loop_thread", None)
        try:
            with _quiet_here():
                return super().close(timeout)
        finally:
            _quiet.discard(getattr(thread, "ident", None))
            self.link.close()

    def signal_workers(self, number: int) -> None:
        """Send a signal to every worker process, and replace none of them."""
        self.link.stop_replacing()
        for pid in self.link.pids():
            self.link.signal(pid, number)

    def recycle(self, pid: int) -> None:
        """End one worker process; a fresh one takes its place."""
        self.link.signal(pid, signal.SIGTERM)

    def trouble(self) -> tuple[bool, str]:
        """Say what keeps workers from joining: whether that is final, and what is known."""
        if self.link.ended:
            return True, "the process that starts the workers has ended; see its messages"
        deaths = list(self.link.deaths.values())
        return False, f"the last worker: {deaths[-1][1]}" if deaths else ""

    def death_of(self, pid: int) -> tuple[str, str]:
        """Return name of the worker that had this process id, and what ended it."""
        return self.link.deaths.get(pid, ("", ""))


class ForkedWorker(ProcessInterface):
    """One place in the cluster: a worker process, and the next one when it dies."""

    def __init__(self, scheduler: str, *, name: Any, link: SpawnerLink, **options: Any) -> None:
        super().__init__(scheduler, name)
        self.name = name
        self._link = link
        self._options = {
            "scheduler_ip": scheduler,
            "name": name,
            "host": _LOOPBACK,
            "dashboard_address": f"{_LOOPBACK}:0",
            "death_timeout": 60,
            **options,
        }

    async def start(self) -> None:
        self._link.add(str(self.name), self._options)
        await super().start()

    async def close(self) -> None:
        await self._link.remove(str(self.name))
        await super().close()


class SpawnerLink:
    """This process's end of the line to the spawner.

    Workers are added, replaced and removed on the cluster's event loop; `signal` may be
    called from any thread (``sendall`` of one short line is atomic here).
    """

    #: Dead processes whose end, and whose last results, are remembered.
    REMEMBERED = 50
    #: Seconds of life below which a process counts as dead at its start.
    STILLBORN = 1.0

    def __init__(self) -> None:
        if not hasattr(os, "fork"):
            raise RuntimeError(
                "DaskExecutor() starts its workers by fork(), which this platform does not "
                "have: start a cluster, such as distributed.LocalCluster(), and pass it as "
                "DaskExecutor(cluster=...)"
            )
        self.scratch = tempfile.mkdtemp(prefix="daskexec-")
        self.deaths: dict[int, tuple[str, str]] = {}
        self.board: Board | None = None
        self.on_death: Callable[[], None] = lambda: None  # called on the loop
        self.ended = False  # the spawner has, without being asked to
        self._options: dict[str, dict[str, Any]] = {}
        self._running: dict[str, int] = {}
        self._gone: dict[str, asyncio.Event] = {}
        self._stillborn = 0  # in a row
        self._born: dict[int, float] = {}
        self._replace = True
        self._loop: asyncio.AbstractEventLoop | None = None
        self._buffer = b""
        self._sock, theirs = socket.socketpair()
        with theirs:
            # The path first: whatever lies in the current folder must not be imported as
            # one of the stdlib's modules.
            program = (
                f"import sys; sys.path[:] = {sys.path!r}\n"
                f"from daskexec._spawner import main\n"
                f"main({theirs.fileno()}, {self.scratch!r}, {os.getpid()}, {sys.argv!r})"
            )
            flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
            self._process = subprocess.Popen(
                [sys.executable, *flags, "-c", program],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        _links.add(self)

    def listen(self, loop: asyncio.AbstractEventLoop) -> None:
        """Follow what the spawner says, on `loop`."""
        self._loop = loop
        self._sock.setblocking(True)
        loop.add_reader(self._sock.fileno(), self._read)

    def add(self, name: str, options: dict[str, Any]) -> None:
        self._options[name] = options
        self._gone[name] = asyncio.Event()
        self._spawn(name)

    async def remove(self, name: str) -> None:
        """End the worker of a place for good, by force where it takes over a second."""
        self._options.pop(name, None)
        gone = self._gone[name]
        pid = self._running.get(name)
        if pid is not None:
            self.signal(pid, signal.SIGTERM)
            try:
                await asyncio.wait_for(gone.wait(), 1)
            except asyncio.TimeoutError:
                self.signal(pid, signal.SIGKILL)
        del self._gone[name]

    def pids(self) -> list[int]:
        return list(self._running.values())

    def signal(self, pid: int, number: int) -> None:
        self._tell({"op": "signal", "pid": pid, "signal": int(number)})

    def stop_replacing(self) -> None:
        self._replace = False

    def close(self) -> None:
        """Close the line: the spawner kills what is left, removes the scratch folder, ends."""
        if self._sock.fileno() >= 0:
            loop = self._loop
            if loop is not None and not loop.is_closed():
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(loop.remove_reader, self._sock.fileno())
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)
            self._sock.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()  # its workers die with it
            self._process.wait()
        shutil.rmtree(self.scratch, ignore_errors=True)
        _links.discard(self)

    def _tell(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # closed: there is no worker left to tell of
            self._sock.sendall(json.dumps(message).encode() + b"\n")

    def _spawn(self, name: str) -> None:
        self._tell({"op": "spawn", "name": name, "options": self._options[name]})

    def _spawn_again(self, name: str) -> None:
        if name in self._options and self._replace:
            self._spawn(name)

    def _read(self) -> None:
        try:
            data = self._sock.recv(1 << 16)
        except ConnectionError:
            data = b""
        if not data:
            assert self._loop is not None
            self._loop.remove_reader(self._sock.fileno())
            self.ended = True
            return
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if message["op"] == "spawned":
                self._running[message["name"]] = message["pid"]
                self._born[message["pid"]] = time.monotonic()
            elif message["op"] == "exited":
                self._exited(message["name"], message["pid"], message["status"])

    def _exited(self, name: str, pid: int, status: int) -> None:
        self._running.pop(name, None)
        self.deaths[pid] = (name, _how_it_ended(status))
        self.on_death()
        while len(self.deaths) > self.REMEMBERED:
            old = next(iter(self.deaths))
            del self.deaths[old]
            if self.board is not None:
                self.board.remove_spools(old)
        lived = time.monotonic() - self._born.pop(pid, 0.0)
        self._stillborn = self._stillborn + 1 if lived < self.STILLBORN else 0
        if name in self._options and self._replace:
            # One that cannot even start is tried again ever more slowly.
            delay = min(10.0, 0.05 * 2 ** (self._stillborn - 1)) if self._stillborn else 0.0
            assert self._loop is not None
            self._loop.call_later(delay, self._spawn_again, name)
        elif name in self._gone:
            self._gone[name].set()


def _how_it_ended(status: int) -> str:
    if status >= 0:
        return f"it exited with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    hint = " (out of memory?)" if name == "SIGKILL" else ""
    return f"it was killed by {name}{hint}"


# --- this process's fork and its log -----------------------------------------------------------

_links: weakref.WeakSet[SpawnerLink] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for link in _links:  # or the spawner would not see our end
        link._sock.close()
    _links.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)

_quiet: set[int | None] = set()


class _QuietThreads(logging.Filter):
    """Keeps the log of our own schedulers out of the user's terminal.

    What they would say (a worker died, a task was lost) the user's futures carry. Schedulers
    and clients that the user started log as ever: it goes by thread.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        return record.thread not in _quiet


for _name in (
    "distributed.scheduler",
    "distributed.core",
    "distributed.client",
    "distributed.comm",
    "distributed.comm.tcp",
    "distributed.batched",
    "distributed.deploy.spec",
    "distributed.deploy.cluster",
    "distributed.http.proxy",
    "distributed.stealing",
    "distributed.utils",
    "distributed.utils_perf",
    "distributed.protocol.core",
    "tornado.application",
):
    logging.getLogger(_name).addFilter(_QuietThreads())


@contextlib.contextmanager
def _quiet_here() -> Any:
    ident = threading.get_ident()
    _quiet.add(ident)
    try:
        yield
    finally:
        _quiet.discard(ident)
