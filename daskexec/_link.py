"""This process's end of the line to the spawner of a cluster on this machine. Floor 1.

Imports nothing of Dask: the executor's constructor starts the spawner (`daskexec._spawner`)
from here at once, and the two processes import ``distributed`` at the same time.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from typing import TYPE_CHECKING, Any

from daskexec._board import remove_spools

if TYPE_CHECKING:
    import asyncio

__all__ = ["GAVE_WAY", "RETIRED", "SpawnerLink"]

#: Status with which a worker process exits that was asked to, since a call in it is to be killed.
GAVE_WAY = 75
#: Status with which a worker exits that its scheduler has told to, or that has lost it.
RETIRED = 82


class SpawnerLink:
    """This process's end of the line to the spawner.

    Workers are added, replaced and removed on the cluster's event loop; `signal` may be
    called from any thread (``sendall`` of one short line is atomic here).

    Parameters
    ----------
    folder : str, optional
        Where the scratch folder is made; the system's for temporary files when None.
    """

    #: Dead processes whose end, and whose last results, are remembered.
    REMEMBERED = 50
    #: Seconds of life below which a process counts as dead at its start.
    STILLBORN = 1.0
    #: Seconds after which another worker takes the place of one whose scheduler has told it to
    #: end: that place may be about to go, as the cluster is made smaller.
    RETIRING = 2.0

    def __init__(self, folder: str | None = None) -> None:
        if not hasattr(os, "fork"):
            raise RuntimeError(
                "DaskExecutor() starts its workers by fork(), which this platform does not "
                "have: start a cluster, such as distributed.LocalCluster(), and pass it as "
                "DaskExecutor(cluster=...)"
            )
        self.scratch = tempfile.mkdtemp(prefix="daskexec-", dir=folder)
        self.deaths: dict[int, tuple[str, str]] = {}
        self.ended = False  # the spawner has, without being asked to
        self._options: dict[str, dict[str, Any]] = {}
        self._running: dict[str, int] = {}
        self._gone: dict[str, asyncio.Event] = {}
        self._joined: set[str] = set()  # places whose worker has been with the scheduler
        self._stillborn = 0  # in a row
        self._born: dict[int, float] = {}
        self._killed: set[int] = set()  # by `kill`, and not known to have ended
        self._reasons: dict[int, str] = {}  # for which a process is being ended
        self._replace = True
        self._hung_up = False
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
        import asyncio

        self._options[name] = options
        self._gone[name] = asyncio.Event()
        self._spawn(name)

    async def remove(self, name: str) -> None:
        """End the worker of a place for good, by force where it takes over a second."""
        import asyncio

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

    def joined(self, name: str) -> None:
        """Note that the worker of a place is with the scheduler; on the loop."""
        self._joined.add(name)

    def pids(self) -> list[int]:
        return list(self._running.values())

    def signal(self, pid: int, number: int) -> None:
        self._tell({"op": "signal", "pid": pid, "signal": int(number)})

    def kill(self, pid: int) -> None:
        """Kill a worker process whose replacement is to start at once."""
        self._killed.add(pid)
        self.signal(pid, signal.SIGKILL)

    def stop_replacing(self) -> None:
        self._replace = False

    def hang_up(self) -> None:
        """Tell the spawner to kill what is left, remove the scratch folder, and end."""
        self._hung_up = True
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close the line and wait until the spawner has ended, and all that it started."""
        if self._sock.fileno() >= 0:
            loop = self._loop
            if loop is not None and not loop.is_closed():
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(loop.remove_reader, self._sock.fileno())
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)
            self._sock.close()
        try:
            self._wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()  # its workers die with it
            self._process.wait()
        shutil.rmtree(self.scratch, ignore_errors=True)
        _links.discard(self)

    def _wait(self, timeout: float) -> None:
        """Wait for the spawner's end, on Linux without the polling of ``Popen.wait``."""
        if self._process.returncode is None and hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError), selectors.DefaultSelector() as selector:
                fd = os.pidfd_open(self._process.pid)
                try:
                    selector.register(fd, selectors.EVENT_READ)
                    selector.select(timeout)
                finally:
                    os.close(fd)
                timeout = 1
        self._process.wait(timeout)

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
            self.ended = not self._hung_up
            return
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if message["op"] == "spawned":
                self._running[message["name"]] = message["pid"]
                self._born[message["pid"]] = time.monotonic()
                if message["name"] not in self._options:  # its place was given up meanwhile
                    self.signal(message["pid"], signal.SIGTERM)
            elif message["op"] == "memory":
                self._reasons[message["pid"]] = (
                    f"it was ended for its memory: it used {_mib(message['used'])} "
                    f"of its limit of {_mib(message['limit'])}"
                )
            elif message["op"] == "exited":
                self._exited(message["name"], message["pid"], message["status"])

    def _exited(self, name: str, pid: int, status: int) -> None:
        self._running.pop(name, None)
        self.deaths[pid] = (name, self._reasons.pop(pid, "") or _how_it_ended(status))
        while len(self.deaths) > self.REMEMBERED:
            old = next(iter(self.deaths))
            del self.deaths[old]
            remove_spools(self.scratch, old)
        lived = time.monotonic() - self._born.pop(pid, 0.0)
        asked_for = pid in self._killed or status == GAVE_WAY
        self._killed.discard(pid)
        # Not one that was there, and soon got a call that ended it.
        stillborn = lived < self.STILLBORN and not asked_for and name not in self._joined
        self._stillborn = self._stillborn + 1 if stillborn else 0
        self._joined.discard(name)
        if name in self._options and self._replace:
            # One that cannot even start is tried again ever more slowly.
            delay = min(10.0, 0.05 * 2 ** (self._stillborn - 1)) if self._stillborn else 0.0
            if status == RETIRED:
                delay = max(delay, self.RETIRING)
            assert self._loop is not None
            self._loop.call_later(delay, self._spawn_again, name)
        elif name in self._gone:
            self._gone[name].set()


def _how_it_ended(status: int) -> str:
    if status == GAVE_WAY:
        return "it was ended, since a call in it was to be killed"
    if status >= 0:
        return f"it exited with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    hint = " (out of memory?)" if name == "SIGKILL" else ""
    return f"it was killed by {name}{hint}"


def _mib(size: float) -> str:
    return f"{size / (1 << 20):,.0f} MiB"


# --- this process's fork -------------------------------------------------------------------------

_links: weakref.WeakSet[SpawnerLink] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for link in _links:  # or the spawner would not see our end
        link._sock.close()
    _links.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
