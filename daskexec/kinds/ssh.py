"""Hosts that are reached by SSH: one process a host, which runs Dask workers. Floor 6.

The keys of a config of kind ``ssh``, under ``cluster_kwargs``. Names are those that
``distributed.SSHCluster`` has, but *every* host runs workers:

``hosts``
    Names or addresses. A host that stands there twice is used twice.
``connect_options``
    For ``asyncssh.connect``: ``port``, ``username``, ``password``, ``client_keys``,
    ``passphrase``, ``known_hosts``, ``config`` (an OpenSSH client config; ``~/.ssh/config`` when
    left out), ``tunnel`` (a jump host), ``agent_path``, ``host_key_alias``,
    ``preferred_auth``, ``gss_host``. One mapping for all hosts, or a list with one for each.
    ``known_hosts: null`` (any host key will do) needs ``insecure: true``. A ``tunnel`` is for
    SSH alone: scheduler and workers still have to reach each other.
``connect_timeout``
    Seconds in which a host must take the connection; 10.
``worker_options``
    ``n_workers`` (worker processes a host, 1), ``nthreads`` (of each; its share of the cores),
    ``memory_limit`` (of each), ``local_directory`` (on the host: where the scratch folder is
    made), ``resources``, ``interface`` or ``host`` (where workers listen), ``worker_port``,
    ``death_timeout``, ``lifetime``, ``lifetime_stagger``.
``scheduler``
    ``local``: in this process, which the hosts must be able to reach; the default.
    ``first``: on the first host, for example when this machine is behind a firewall.
``scheduler_options``
    ``host`` or ``interface`` (where it listens; default: the address that the SSH connections
    to the hosts have at this end), ``port``.
``remote_python``
    Path of Python on the hosts, or a list with one for each; that of this process.
``prologue``
    Lines of shell to run on a host before Python, such as ``module load python``.
``environment``
    Variables to set on the hosts, before the prologue. They are not seen on a command line.

The cluster is as large as its hosts: it is not scaled, and ``max_workers`` of an executor limits
how many of its threads are used. What connects the hosts is TLS with a certificate made for the
run, unless the config says ``insecure: true``; keys go through the SSH channels' stdin and stay in
memory. A host that is lost, or whose workers end, is started again at growing intervals. When
this process ends, in whatever way, the SSH channels end, and with them all on the hosts.

One thread, ``daskexec ssh``, runs an event loop for connections, watching and the scheduler.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
import tempfile
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from daskexec._security import is_loopback, warn_insecure
from daskexec.config import ClusterConfig
from daskexec.errors import ClusterStartFailed, ConfigError
from daskexec.kinds import needs
from daskexec.kinds.ssh_hosts import (
    FIXED,
    SHELL,
    Host,
    Process,
    Told,
    checked,
    explained,
    hosts_of,
    script,
)

__all__ = ["open_cluster"]

T = TypeVar("T")

#: What a host needs of `distributed.Security`, as text in PEM.
SECRETS = (
    "tls_ca_file", "tls_client_cert", "tls_client_key", "tls_scheduler_cert",
    "tls_scheduler_key", "tls_worker_cert", "tls_worker_key",
)  # fmt: skip

#: Seconds between two signs of life to a host, and without one after which it gives us up.
PING, PATIENCE = 10.0, 120.0
#: Seconds to wait before a lost host is tried again.
DELAYS = (0.5, 2.0, 5.0, 15.0, 30.0, 60.0)


class _SSHCluster:
    """The hosts of a config, connected and running. See `daskexec.kinds.RunningCluster`."""

    def __init__(self, config: ClusterConfig) -> None:
        self._config = config
        self._kwargs = checked(config)
        self._hosts = hosts_of(self._kwargs)
        self.security: Any = None
        self.address = ""
        self._scheduler: Any = None  # here, or a Process on the first host
        self._for_host: dict[str, str] = {}
        self._final = ""
        self._fates: dict[str, str] = {}
        self._closing = False
        self._closed = False
        self._lock = threading.Lock()  # guards the close
        self._tasks: list[asyncio.Task[Any]] = []
        self._exits = contextlib.ExitStack()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="daskexec ssh", daemon=True
        )
        self._thread.start()

    def start(self) -> None:
        """Start all; blocks. What was started is ended again if it cannot be."""
        try:
            self._do(self._start())
        except BaseException:
            self.close()
            raise

    def trouble(self) -> tuple[bool, str]:
        if self._final:
            return True, self._final
        return False, "; ".join(f"{h.label}: {h.trouble}" for h in self._hosts if h.trouble)

    def fate(self, worker: str) -> str:
        return self._fates.get(worker, "")

    def scale(self, workers: int) -> None:
        raise ConfigError(FIXED.format(hosts=len(self._hosts)), self._config.source)

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            try:
                self._do(self._close())
            finally:
                self._exits.close()
                self._loop.call_soon_threadsafe(self._loop.stop)
                self._thread.join(10)
                if not self._thread.is_alive():
                    self._loop.close()

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # we were interrupted
            raise

    # -- on the loop -----------------------------------------------------------------------

    async def _start(self) -> None:
        timeout = self._config.start_timeout
        await self._all("connect to", [self._connect(host) for host in self._hosts], timeout)
        if not self._config.insecure:
            from distributed.security import Security

            self.security = await asyncio.to_thread(Security.temporary)
        if self._kwargs.get("scheduler", "local") == "first":
            await self._all("start the scheduler on", [self._scheduler_on_first()], timeout)
        else:
            await self._scheduler_here()
        if self.security is None:
            warn_insecure(self.address)
        self._spawn(self._ping())
        await self._all("start workers on", [self._begin(host) for host in self._hosts], timeout)
        for host in self._hosts:
            self._spawn(self._keep(host))

    async def _all(self, doing: str, work: list[Coroutine[Any, Any, None]], limit: float) -> None:
        """Do it for every host at once; fail with a line for each that failed."""
        tasks = [asyncio.ensure_future(each) for each in work]
        try:
            await asyncio.wait(tasks, timeout=limit)
        finally:
            for task in tasks:
                task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        lines = []
        for host, error in zip(self._hosts, ended, strict=False):
            if isinstance(error, asyncio.CancelledError):
                error = Told(f"not ready within start_timeout, {limit:g} s")
            if isinstance(error, BaseException):
                lines.append(f"host {host.label}: {explained(host, error)}")
        if lines:
            raise ClusterStartFailed(
                f"could not {doing} {len(lines)} of {len(work)} hosts of {self._config.name!r}; "
                f"nothing is left running there\n" + "\n".join(lines)
            )

    async def _connect(self, host: Host) -> None:
        import asyncssh
        from dask.utils import parse_timedelta

        limit = parse_timedelta(self._kwargs.get("connect_timeout", 10), default="seconds")
        host.connection = await asyncssh.connect(
            host.name,
            connect_timeout=limit,
            login_timeout=limit,
            keepalive_interval=PING,
            keepalive_count_max=3,
            **host.connect,
        )

    async def _scheduler_here(self) -> None:
        """Start a scheduler at this end of the SSH connections."""
        import dask.config
        from distributed import Scheduler
        from distributed.utils import silence_logging_cmgr

        options = dict(self._kwargs.get("scheduler_options") or {})
        ends = [] if "host" in options or "interface" in options else self._ends()
        everywhere = len(set(ends)) > 1
        if ends:
            options["host"] = "0.0.0.0" if everywhere else ends[0]
        self._exits.enter_context(silence_logging_cmgr(logging.CRITICAL))  # it logs to stderr
        # The scheduler has a working folder, which it does not remove.
        folder = self._exits.enter_context(tempfile.TemporaryDirectory(prefix="daskexec-ssh-"))
        settings = {
            "distributed.scheduler.preload": [],  # code, unless this config asks for it
            **self._config.dask_config,
            "temporary-directory": folder,
        }
        with dask.config.set(settings):
            self._scheduler = await Scheduler(
                protocol="tls" if self.security else "tcp",
                security=self.security,
                allowed_failures=0,
                dashboard=False,
                dashboard_address="127.0.0.1:0",
                **options,
            )
        self.address = str(self._scheduler.address)
        if everywhere:
            scheme = self.address.partition("://")[0]
            for host, end in zip(self._hosts, ends, strict=True):
                self._for_host[host.label] = f"{scheme}://{end}:{self._scheduler.port}"
            self.address = self._for_host[self._hosts[0].label]

    def _ends(self) -> list[str]:
        """Return the address of this machine by which each of the hosts can reach it."""
        if any(host.connect.get("tunnel") for host in self._hosts):
            raise ClusterStartFailed(
                "hosts behind a jump host (tunnel) cannot be told where this machine is: name an "
                "address that they reach as host in scheduler_options, or use scheduler: first"
            )
        names = [str(host.connection.get_extra_info("sockname")[0]) for host in self._hosts]
        # Where this machine is one of the hosts too, the others cannot reach its loopback.
        outside = [name for name in names if not is_loopback(name)]
        ends = [outside[0] if outside and is_loopback(name) else name for name in names]
        return [f"[{end}]" if ":" in end else end for end in ends]

    async def _scheduler_on_first(self) -> None:
        first = self._hosts[0]
        options = dict(self._kwargs.get("scheduler_options") or {})
        self._scheduler = process = await self._launch(
            first, {"role": "scheduler", "options": {"allowed_failures": 0, **options}}
        )
        self.address = str((await process.up)["address"])

        async def watch() -> None:
            await asyncio.wait([process.ended])
            if not self._closing:
                self._final = f"the scheduler on {first.label} has ended: {process.end_of_it()}"

        self._spawn(watch())

    async def _begin(self, host: Host) -> None:
        """Start the workers of a connected host; return when they have joined."""
        options = dict(self._kwargs.get("worker_options") or {})
        number = int(options.pop("n_workers", 1))
        host.process = process = await self._launch(
            host,
            {
                "role": "workers",
                "scheduler": self._for_host.get(host.label, self.address),
                "names": [f"{host.label}-{i}" for i in range(number)],
                "options": options,
                "stale": host.scratch,
            },
        )
        news = await process.up
        host.addresses, host.scratch = dict(news["workers"]), str(news["scratch"])
        host.trouble = ""

    async def _launch(self, host: Host, boot: dict[str, Any]) -> Process:
        security = self.security
        boot["security"] = security and {
            "require_encryption": True,
            **{name: getattr(security, name) for name in SECRETS},
        }
        boot |= {"config": dict(self._config.dask_config), "patience": PATIENCE}
        channel = await host.connection.create_process(SHELL, encoding=None)
        process = Process(host.connection, channel, lambda event: self._told(host, event))
        process.write(script(self._kwargs, host.python) + "\n" + json.dumps(boot) + "\n")
        return process

    def _told(self, host: Host, event: dict[str, Any]) -> None:
        if event["event"] == "died":
            code = event["code"]
            how = f"killed by signal {-code}" if code is not None and code < 0 else f"exit {code}"
            fate = f"its process on host {host.label} ended ({how}); Dask starts another"
            self._fates[str(event["worker"])] = self._fates[str(event["address"])] = fate

    async def _keep(self, host: Host) -> None:
        """Start a host's workers again whenever they have ended."""
        while True:
            assert host.process is not None
            await asyncio.wait([host.process.ended])
            if self._closing:
                return
            self._lost(host, host.process.end_of_it())
            for attempt in range(sys.maxsize):
                await asyncio.sleep(DELAYS[min(attempt, len(DELAYS) - 1)])
                try:
                    host.connection.close()
                    await self._connect(host)
                    await asyncio.wait_for(self._begin(host), self._config.start_timeout)
                    break
                except Exception as exc:
                    host.trouble = explained(host, exc)

    def _lost(self, host: Host, why: str) -> None:
        host.trouble = f"its workers are gone ({why}); they are being started again"
        fate = f"host {host.label} was lost ({why})"
        for name, address in host.addresses.items():
            self._fates[name] = self._fates[address] = fate

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(PING)
            for process in self._processes():
                process.write("\n")

    def _processes(self) -> list[Process]:
        running = [host.process for host in self._hosts if host.process is not None]
        return running + ([self._scheduler] if isinstance(self._scheduler, Process) else [])

    async def _close(self) -> None:
        self._closing = True
        ends = [process.end() for process in self._processes() if process is not self._scheduler]
        await asyncio.gather(*ends, return_exceptions=True)
        with contextlib.suppress(Exception):
            if isinstance(self._scheduler, Process):
                await self._scheduler.end()
            elif self._scheduler is not None:
                await asyncio.wait_for(self._scheduler.close(), 5)
        for host in self._hosts:
            if host.connection is not None:
                host.connection.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        self._tasks = [task for task in self._tasks if not task.done()]
        task = self._loop.create_task(work)
        self._tasks.append(task)
        return task


def open_cluster(config: ClusterConfig, workers: int | None) -> _SSHCluster:
    """Connect to the hosts, start a scheduler and workers; return when all have joined."""
    needs("asyncssh", extra="ssh", kind="ssh")
    cluster = _SSHCluster(config)
    cluster.start()
    return cluster
