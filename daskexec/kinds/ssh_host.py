"""What runs on each host of an SSH cluster: ``python -m daskexec.kinds.ssh_host``. Floor 6.

`daskexec.kinds.ssh` starts it over an SSH connection, which stays open and is its leash::

    stdin    <- one line of JSON: what to run, with which keys; then a blank line now and then
    stdout   -> a line of JSON for each thing that happens
    stderr   -> the logs, and what calls print

It ends when it is told to, when stdin ends (the driver was killed, the connection was cut) or
when nothing came through it for a while (the network was cut without a word). Then its worker
processes end too and its scratch folder is removed. A thread of its own sees to that, so that it
happens whatever the event loop is at. Keys stay in memory: they come by stdin, are written to
no command line and no lasting file.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

__all__ = ["main"]

#: Seconds in which the workers end on being told to, before they are killed.
GRACE = 6.0
#: Seconds in which the scheduler must answer.
REACH = 10.0

_PREFIX = "daskexec-ssh-"
_Tell = Callable[..., None]


def main() -> None:
    """Run what the first line of stdin says until stdin ends."""
    tell = _teller()
    with contextlib.suppress(OSError):  # the leader of a session is one of its group already
        os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with open(0, "rb", buffering=0, closefd=False) as stdin:  # takes no more than the line
        boot = json.loads(stdin.readline())
    import dask.config

    dask.config.set(boot["config"])
    stale = boot.get("stale", "")  # of a process before this one that was killed
    if os.path.basename(stale).startswith(_PREFIX):
        shutil.rmtree(stale, ignore_errors=True)
    scratch = _scratch(boot["options"].pop("local_directory", None))
    dask.config.set({"temporary-directory": scratch})
    leash = _Leash(boot["patience"], scratch, tell)
    try:
        asyncio.run(_run(boot, scratch, tell, leash))
    except BaseException as exc:
        tell("failed", what=f"{type(exc).__name__}: {exc}")
        leash.end(1)
    leash.end(0)


def _scratch(within: str | None) -> str:
    """Make a folder that only this user can read."""
    if within is not None:
        within = os.path.expanduser(os.path.expandvars(within))
        os.makedirs(within, exist_ok=True)
    return tempfile.mkdtemp(prefix=_PREFIX, dir=within)


def _teller() -> _Tell:
    """Take stdout for our messages; what calls print goes to stderr."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def tell(event: str, **more: Any) -> None:
        with contextlib.suppress(OSError):  # nobody listens any more
            out.write(json.dumps({"event": event, **more}) + "\n")

    return tell


class _Leash:
    """Watches stdin on a thread of its own, and ends the process.

    Parameters
    ----------
    patience : float
        Seconds without a sign of the driver after which it counts as gone.
    scratch : str
        The folder to remove at the end.
    tell : callable
        As from `_teller`.
    """

    def __init__(self, patience: float, scratch: str, tell: _Tell) -> None:
        self._patience, self._scratch, self._tell = patience, scratch, tell
        self._loop: asyncio.AbstractEventLoop | None = None
        self._cut: asyncio.Event | None = None
        self._was_cut = threading.Event()
        threading.Thread(target=self._watch, name="leash", daemon=True).start()

    async def cut(self) -> None:
        """Return when it is time to end."""
        self._cut = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        if not self._was_cut.is_set():  # else its thread may not have seen the loop
            await self._cut.wait()

    def _watch(self) -> None:
        # Read without a buffer: select() knows nothing of what waits in one.
        while select.select([0], [], [], self._patience)[0]:
            news = os.read(0, 4096)
            if not news or b"end" in news:
                break
        else:
            self._tell("failed", what=f"no sign of the driver for {self._patience:g} s")
        self._was_cut.set()
        loop, cut = self._loop, self._cut
        if loop is not None and cut is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(cut.set)
        time.sleep(GRACE)
        self.end(1)

    def end(self, code: int) -> None:
        """End the process and all that it has started, and leave no file."""
        from multiprocessing import active_children

        for _ in range(5):  # Dask starts processes on a thread: one may come just now
            for child in active_children():
                child.kill()
                child.join(1)
            shutil.rmtree(self._scratch, ignore_errors=True)
            if not os.path.exists(self._scratch):
                break
        sys.stderr.flush()
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)  # what the calls have started
        os._exit(code)


async def _run(boot: dict[str, Any], scratch: str, tell: _Tell, leash: _Leash) -> None:
    """Run a scheduler or workers until they end or the leash is cut."""
    from distributed.security import Security

    security = Security(**boot["security"]) if boot["security"] else None
    cut: asyncio.Future[Any] = asyncio.create_task(leash.cut())
    start = _scheduler if boot["role"] == "scheduler" else _workers
    begun: asyncio.Future[list[Any]] = asyncio.create_task(start(boot, scratch, security, tell))
    await asyncio.wait([cut, begun], return_when=asyncio.FIRST_COMPLETED)
    if not begun.done():
        begun.cancel()
        await asyncio.wait([begun], timeout=GRACE - 1)
        return
    servers = begun.result()
    ended = asyncio.gather(*(server.finished() for server in servers))
    await asyncio.wait([cut, ended], return_when=asyncio.FIRST_COMPLETED)
    if not cut.done():
        tell("failed", what="they lost their scheduler, or it sent them away")
        return
    closing = asyncio.gather(*(server.close() for server in servers), return_exceptions=True)
    await asyncio.wait([closing], timeout=GRACE - 1)


async def _scheduler(boot: dict[str, Any], scratch: str, security: Any, tell: _Tell) -> list[Any]:
    from distributed import Scheduler

    options = {"host": _reached_at(), **boot["options"]}
    scheduler = await Scheduler(
        protocol="tls" if security else "tcp",
        security=security,
        dashboard=False,
        dashboard_address="127.0.0.1:0",
        **options,
    )
    tell("up", address=scheduler.address)
    return [scheduler]


async def _workers(boot: dict[str, Any], scratch: str, security: Any, tell: _Tell) -> list[Any]:
    from distributed import Nanny

    class ToldNanny(Nanny):
        """Says when its worker process has ended; Dask then starts it again."""

        async def _on_worker_exit(self, exitcode: int) -> None:
            if str(self.status.name) == "running":
                tell("died", worker=self.name, address=self.worker_address, code=exitcode)
            await super()._on_worker_exit(exitcode)

    options = dict(boot["options"])
    if len(boot["names"]) > 1:
        from dask.system import CPU_COUNT

        options.setdefault("nthreads", max(1, CPU_COUNT // len(boot["names"])))
    if not ("host" in options or "interface" in options):
        options["host"] = _own_address(boot["scheduler"])
    await _reach(boot["scheduler"], security)
    nannies = [
        ToldNanny(
            boot["scheduler"],
            name=name,
            security=security,
            local_directory=scratch,
            dashboard_address="127.0.0.1:0",
            silence_logs=None,
            **{"death_timeout": 60.0, **options},
        )
        for name in boot["names"]
    ]
    try:
        await asyncio.gather(*nannies)
    except BaseException:
        await asyncio.gather(*(nanny.close() for nanny in nannies), return_exceptions=True)
        raise
    addresses = {nanny.name: nanny.worker_address for nanny in nannies}
    tell("up", workers=addresses, scratch=scratch)
    return nannies


async def _reach(scheduler: str, security: Any) -> None:
    """Fail within seconds where the workers would wait for a minute."""
    from distributed.comm.core import connect

    arguments = security.get_connection_args("worker") if security else {}
    try:
        comm = await connect(scheduler, timeout=REACH, **arguments)
    except OSError as exc:
        raise ConnectionError(
            f"the scheduler at {scheduler} does not answer this host ({exc}). A firewall between "
            f"them? scheduler_options: host or interface says at which address hosts reach it; "
            f"scheduler: first runs it on the first host"
        ) from None
    comm.abort()


def _own_address(scheduler: str) -> str:
    """Return the address of this host on the way to the scheduler."""
    host, _, port = scheduler.rpartition("/")[2].rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:  # sends nothing
        probe.connect((host.strip("[]"), int(port)))
        own = str(probe.getsockname()[0])
    return _reached_at() or own if own.startswith("127.") else own


def _reached_at() -> str:
    """Return the address at which this host was reached by SSH."""
    there = os.environ.get("SSH_CONNECTION", "").split()
    return there[2] if len(there) == 4 else ""


if __name__ == "__main__":
    main()
