"""The process that starts, watches and ends the workers of a cluster on this machine. Floor 5.

Started as a process of its own (see `daskexec._link`), it imports ``distributed`` once, then
forks a worker whenever it is told to: a worker is there in a tenth of a second, needs no
``if __name__ == "__main__"`` guard in the user's script, and inherits neither threads nor
locks of the user's process. It runs in a session of its own, so that Ctrl-C in the terminal
reaches the user's program alone.

It talks JSON, a message a line, over one socket::

    client -> spawner   {"op": "spawn", "name": "0", "options": {...}}
                        {"op": "signal", "pid": 123, "signal": 15}
    spawner -> client   {"op": "spawned", "name": "0", "pid": 123}
                        {"op": "memory", "pid": 123, "used": 1900000000, "limit": 2000000000}
                        {"op": "exited", "name": "0", "pid": 123, "status": -9}

When the socket closes, or its parent is gone however that came about, it kills every worker,
removes the scratch folder, and ends. No thread runs here beside the main one.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import json
import logging
import os
import select
import shutil
import signal
import socket
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import psutil

from daskexec._link import RETIRED

__all__ = ["main"]

#: Seconds between two looks at the parent process.
_PARENT_CHECK = 1.0
#: Seconds between two looks at the memory of workers that have a limit.
_MEMORY_CHECK = 0.1
_PR_SET_PDEATHSIG = 1


def main(fd: int, scratch: str, parent: int, argv: list[str]) -> None:
    """Serve the client on the socket `fd` until it or its process `parent` is gone; no return."""
    gc.disable()  # it goes over all that is imported again and again; on in the workers
    sys.argv[:] = argv
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    spawner = _Spawner(socket.socket(fileno=fd), parent)
    status = 1
    try:
        _preload()
        spawner.serve()
        status = 0
    except BaseException:
        _print_exception()
    finally:
        spawner.kill_all()
        shutil.rmtree(scratch, ignore_errors=True)
        _leave(status)  # the client waits: tearing down all modules takes a tenth of a second


def _preload() -> None:
    """Import and look up what every worker needs, once, before any is forked."""
    with _quick_yaml():
        import tornado.platform.asyncio  # of a worker's loop  # noqa: F401
        from distributed.versions import get_versions

        import daskexec._remote  # noqa: F401

    get_versions()  # Dask keeps what it found; each worker tells its scheduler
    # What a worker would log of a call, the call's future carries.
    for name in list(logging.root.manager.loggerDict):
        if name.split(".")[0] in ("distributed", "tornado"):
            logger = logging.getLogger(name)
            logger.handlers.clear()
            logger.propagate = False
            logger.addHandler(logging.NullHandler())
    gc.freeze()  # the workers' collectors need not look at what lives as long as they do


@contextlib.contextmanager
def _quick_yaml() -> Iterator[None]:
    """Have Dask read its configuration by libyaml, where PyYAML has it."""
    import yaml

    slow = yaml.SafeLoader
    yaml.SafeLoader = getattr(yaml, "CSafeLoader", slow)
    try:
        yield
    finally:
        yaml.SafeLoader = slow


class _Spawner:
    def __init__(self, sock: socket.socket, parent: int) -> None:
        self.sock = sock
        self.parent = parent
        self.children: dict[int, str] = {}
        self.limits: dict[int, float] = {}  # of memory, by process
        self.buffer = b""
        # Written to by the interpreter when a child ends, so that select() wakes.
        self.wake_read, self.wake_write = os.pipe()
        os.set_blocking(self.wake_read, False)
        os.set_blocking(self.wake_write, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self.wake_write, warn_on_full_buffer=False)

    def serve(self) -> None:
        while os.getppid() == self.parent:
            pause = _MEMORY_CHECK if self.limits else _PARENT_CHECK
            ready, _, _ = select.select([self.sock.fileno(), self.wake_read], [], [], pause)
            if self.wake_read in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self.wake_read, 4096)
            self.reap()
            self.check_memory()
            if self.sock.fileno() in ready and not self.receive():
                return

    def receive(self) -> bool:
        try:
            data = self.sock.recv(1 << 16)
        except ConnectionError:
            return False
        if not data:
            return False
        *lines, self.buffer = (self.buffer + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if message["op"] == "spawn":
                self.spawn(message["name"], message["options"])
            elif message["op"] == "signal" and message["pid"] in self.children:
                os.kill(message["pid"], message["signal"])
        return True

    def spawn(self, name: str, options: dict[str, Any]) -> None:
        own = os.getpid()
        pid = os.fork()
        if pid == 0:
            _become_worker(self, own, options)
        self.children[pid] = name
        limit = _memory_limit(options)
        if limit:
            self.limits[pid] = limit
        self.tell({"op": "spawned", "name": name, "pid": pid})

    def reap(self) -> None:
        while self.children:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            name = self.children.pop(pid, None)
            self.limits.pop(pid, None)
            if name is not None:
                code = os.waitstatus_to_exitcode(status)
                self.tell({"op": "exited", "name": name, "pid": pid, "status": code})

    def check_memory(self) -> None:
        """End workers that use more than their share of their limit, as Dask's nannies do."""
        for pid, limit in list(self.limits.items()):
            with contextlib.suppress(psutil.Error):
                used = psutil.Process(pid).memory_info().rss
                if used > limit * _terminate_at():
                    del self.limits[pid]
                    self.tell({"op": "memory", "pid": pid, "used": used, "limit": limit})
                    os.kill(pid, signal.SIGKILL)

    def tell(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # the client is gone: serve() will see it
            self.sock.sendall(json.dumps(message).encode() + b"\n")

    def kill_all(self) -> None:
        for pid in self.children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in self.children:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _become_worker(spawner: _Spawner, parent: int, options: dict[str, Any]) -> None:
    """Turn the forked process into a worker; never returns."""
    status = 1
    try:
        _die_with_parent(parent)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for fd in (spawner.wake_read, spawner.wake_write):
            os.close(fd)
        spawner.sock.close()
        gc.enable()
        asyncio.run(_work(options))
        status = RETIRED
    except BaseException:
        _print_exception()
    finally:
        _leave(status)


def _memory_limit(options: dict[str, Any]) -> float:
    """Return the bytes that a worker may use, as Dask understands the option; 0 for no limit."""
    given = options.get("memory_limit")
    if not given or not _terminate_at():
        return 0.0
    from distributed.worker_memory import parse_memory_limit

    threads = options.get("nthreads") or 1
    return float(parse_memory_limit(given, threads, logger=logging.getLogger(__name__)) or 0)


def _terminate_at() -> float:
    """Return the part of its limit at which a worker is ended; 0 for never."""
    import dask.config

    return float(dask.config.get("distributed.worker.memory.terminate") or 0)


def _die_with_parent(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before the line above
            os._exit(1)


async def _work(options: dict[str, Any]) -> None:
    import dask.config
    import distributed
    from distributed import Worker

    from daskexec import _remote
    from daskexec._lean import be_eager, leave_out_meters, leave_out_profile

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, _leave, 0)
    _remote.use_boards(options.pop("boards"))
    http, logs = options.pop("http"), options.pop("logs", None)
    if logs is not None:
        _speak(logs)
    dask.config.set(options.pop("settings", {}))
    keys = options.pop("security", None)
    if keys is not None:
        options["security"] = distributed.Security(**keys)
    if not http:
        leave_out_profile()
    with warnings.catch_warnings():
        # On a busy machine the folder takes a second: Dask takes that for a network file system.
        warnings.filterwarnings("ignore", "Creating scratch directories")
        worker = Worker(**options)
    be_eager(worker.batched_stream)
    if http:
        await worker
    else:
        leave_out_meters(worker)
        vars(worker)["start_http_server"] = lambda *_args, **_kwargs: None
        with dask.config.set({"distributed.worker.http.routes": []}):
            await worker
    await worker.finished()


def _speak(level: int) -> None:
    """Have Dask's log of this worker from that level on, where what is printed goes to."""
    for name in logging.root.manager.loggerDict:
        if name.split(".")[0] == "distributed":
            logging.getLogger(name).propagate = True
    root = logging.getLogger("distributed")
    root.setLevel(level)
    root.addHandler(logging.StreamHandler())


def _print_exception() -> None:
    import traceback

    traceback.print_exc()


def _leave(status: int) -> None:
    """End the process at once, as a pool's worker does: no exit handlers, output flushed."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(status)
