"""A cluster that a dask-gateway server starts for us.

The config's ``cluster_kwargs`` are those of ``dask_gateway.GatewayCluster``, checked in
`_gateway_settings`. That class is not used, as it cannot be given a time limit and says nothing
while it waits; what is used is ``dask_gateway.Gateway``, asynchronously, on an event loop of its
own (a thread of `distributed.utils.LoopRunner`): ``cluster_options``, ``submit``,
``get_cluster``, ``scale_cluster``, ``adapt_cluster``, ``stop_cluster``, ``close``. Every request
has a time limit.

A cluster ends with its executor, or with this process. Where the process is killed, the gateway
goes on with the cluster until its own ``idle_timeout``, if its administrators have set one.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import threading
import warnings
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from daskexec.config import ClusterConfig
from daskexec.errors import (
    ClusterStartFailed,
    ClusterUnreachable,
    ExecutorWarning,
)
from daskexec.kinds import needs
from daskexec.kinds._gateway_settings import checked
from daskexec.kinds._workers_only import closest, wrong

__all__ = ["open_cluster"]

T = TypeVar("T")

#: Seconds in which the gateway must answer a request.
REQUEST = 10.0
#: Seconds between two looks at the cluster: while it starts or ends, and while it is used.
LOOK_SOON, LOOK = 0.3, 5.0
#: Seconds that a cluster gets to end, and that its gateway gets to know why it ended.
END, WORDS = 30.0, 4.0


def open_cluster(config: ClusterConfig, workers: int | None) -> _GatewayCluster:
    """Have the gateway start a cluster; return when its scheduler runs.

    Raises
    ------
    ClusterUnreachable
        No gateway answers at the address.
    ClusterStartFailed
        The gateway refused the login or the cluster, or could not start it.
    ConfigError
        Something in the config cannot be right: so says this module, or the gateway.
    """
    needs("dask_gateway", extra="gateway", kind="gateway")
    settings = checked(config)
    cluster = _GatewayCluster(config, settings)
    cluster.open(workers)
    return cluster


class _GatewayCluster:
    """One cluster of one gateway; the loop's thread does all the talking."""

    def __init__(self, config: ClusterConfig, settings: dict[str, Any]) -> None:
        from distributed.utils import LoopRunner

        self.address, self.security = "", None
        self._config, self._settings = config, settings
        self._name: str | None = settings.get("cluster_name")
        self._ours = self._name is None
        self._ends: bool = settings.get("shutdown_on_close", self._ours)
        self._threads_per_worker = 1
        self._asked: str = ""  # the size that was asked for, for messages
        self._trouble: tuple[bool, str] = (False, "")  # replaced as a whole by the loop's thread
        self._watcher: asyncio.Task[None] | None = None
        self._lock = threading.Lock()  # guards _closed
        self._closed = False
        self._runner = LoopRunner()
        self._runner.start()
        self._gateway: Any = None
        self._submission: asyncio.Task[str] | None = None

    # -- any thread ------------------------------------------------------------------------

    def open(self, workers: int | None) -> None:
        atexit.register(self.close)
        try:
            self._run(self._open(workers))
        except BaseException:
            self.close()
            raise

    def trouble(self) -> tuple[bool, str]:
        return self._trouble

    def fate(self, worker: str) -> str:
        final, known = self._trouble
        return known if final else ""

    def last_words(self) -> str:
        if self._closed:
            return ""
        try:
            return self._run(self._last_words(), WORDS + REQUEST)
        except (concurrent.futures.TimeoutError, ConnectionError, ClusterStartFailed) as exc:
            return str(exc)

    def scale(self, workers: int) -> None:
        self._run(self._scale(-(-workers // self._threads_per_worker)), 2 * REQUEST)

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            atexit.unregister(self.close)
            try:
                left = self._run(self._close(), END + 3 * REQUEST)
            except concurrent.futures.TimeoutError:
                left = "it did not answer in time"
            finally:
                self._runner.stop()
        if left:
            message = (
                f"cluster {self._name} may still run, as it could not be ended: {left}. By "
                f"hand: dask_gateway.Gateway(...).stop_cluster({self._name!r})"
            )
            warnings.warn_explicit(message, ExecutorWarning, "daskexec", 0)

    def _run(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._runner.loop.asyncio_loop)
        try:
            return future.result(timeout)
        except BaseException:  # a Ctrl-C, too
            future.cancel()
            raise

    # -- on the loop -----------------------------------------------------------------------

    async def _open(self, workers: int | None) -> None:
        from dask_gateway import Gateway

        settings = self._settings
        try:
            self._gateway = Gateway(
                address=settings["address"],
                proxy_address=settings.get("proxy_address"),
                public_address=settings.get("public_address"),
                auth=settings["auth"],
                asynchronous=True,
                loop=self._runner.loop,
            )
        except (ValueError, TypeError) as exc:
            raise wrong(self._config, str(exc)) from None
        if self._name is None:
            options = await self._options()
            await self._submit(options)
        await self._until_running()
        if self._ours:
            await self._fail_soon()
        await self._set_size(workers)
        self._watcher = asyncio.create_task(self._watch())

    async def _options(self) -> dict[str, Any]:
        """Return the cluster's options, those left out filled in by the gateway."""
        offered = await self._ask(self._gateway.cluster_options)
        wanted = self._settings["cluster_options"]
        where = f"the gateway at {self._settings['address']}"
        for name, value in wanted.items():
            if name not in offered:
                there = f"it has {', '.join(offered)}" if offered else "it has none to set"
                raise wrong(
                    self._config,
                    f"{where} has no cluster option {name!r}{closest(name, offered)}; {there}",
                )
            try:
                offered[name] = value
            except (ValueError, TypeError) as exc:
                raise wrong(
                    self._config, f"{where} does not take {value!r} for option {name}: {exc}"
                ) from None
        options = dict(offered)
        for name in ("worker_cores", "worker_threads"):
            count = options.get(name)
            if isinstance(count, (int, float)) and count >= 1:
                self._threads_per_worker = int(count)
        return options

    async def _submit(self, options: dict[str, Any]) -> None:
        # Not given up once sent, when this is cancelled: the gateway would start a cluster that
        # nobody knows of. _close waits for the name.
        self._submission = asyncio.create_task(self._ask(self._gateway.submit, **options))
        try:
            self._name = await asyncio.shield(self._submission)
        except ValueError as exc:
            raise ClusterStartFailed(f"{self._who()} refused the cluster: {exc}") from None

    async def _until_running(self) -> None:
        """Wait for the scheduler; take its address and the keys to it."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._config.start_timeout
        while True:
            status, report = await self._look()
            if status == "RUNNING":
                self.address, self.security = report.scheduler_address, report.security
                return
            if status != "PENDING":
                raise ClusterStartFailed(
                    f"{self._says(status)}, and that before its scheduler ran. Why is in the "
                    f"log of the gateway's server, which its administrators can read"
                    if self._ours
                    else f"{self._says(status)}: it cannot be used"
                )
            if loop.time() > deadline:
                raise ClusterStartFailed(
                    f"{self._says(status)}: its scheduler has not started within "
                    f"{self._config.start_timeout:g} s (start_timeout)"
                )
            await asyncio.sleep(LOOK_SOON)

    async def _fail_soon(self) -> None:
        """Have a task whose worker dies be given back to us at once, not tried on four workers.

        Each of these would die as well, and a gateway takes workers that die as they begin for
        a cluster that cannot start any, and ends it (``worker_start_failure_limit``). Whether
        the task is tried again is for the dispatcher, which knows what else ran there.
        """
        from distributed import Client

        def no_second_death(dask_scheduler: Any) -> None:  # goes there by value
            dask_scheduler.allowed_failures = 0

        try:
            async with Client(
                self.address,
                security=self.security,
                asynchronous=True,
                timeout=REQUEST,
                set_as_default=False,
            ) as client:
                await client.run_on_scheduler(no_second_death)
        except OSError as exc:
            proxy = self.address.rpartition("/")[0]
            raise ClusterUnreachable(
                f"{self._who()} has started cluster {self._name}, but its proxy for schedulers "
                f"does not answer at {proxy} ({_first_line(exc)}): check proxy_address"
            ) from None

    async def _set_size(self, workers: int | None) -> None:
        count = None if workers is None else -(-workers // self._threads_per_worker)
        adapt = dict(self._config.adapt)
        if adapt:
            if count is not None:
                adapt["maximum"] = min(count, adapt.get("maximum") or count)
                adapt["minimum"] = min(adapt["maximum"], adapt.get("minimum") or 0)
            await self._command(self._gateway.adapt_cluster, self._name, **adapt)
            self._asked = f"{adapt.get('minimum') or 0} to {adapt.get('maximum', 'any')} workers"
        elif count is not None or self._config.scale:
            await self._scale(count or int(self._config.scale["workers"]))
        elif self._ours:
            await self._scale(1)

    async def _scale(self, count: int) -> None:
        await self._command(self._gateway.scale_cluster, self._name, count)
        self._asked = f"{count} worker{'' if count == 1 else 's'}"

    async def _command(self, what: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        from dask_gateway import GatewayClusterError

        try:
            await self._ask(what, *args, **kwargs)
        except (ValueError, GatewayClusterError) as exc:
            raise ClusterStartFailed(
                f"{self._who()} cannot change cluster {self._name}: {exc}"
            ) from None

    async def _look(self) -> tuple[str, Any]:
        """Return the cluster's status and the gateway's report of it."""
        try:
            report = await self._ask(self._gateway.get_cluster, self._name)
        except ValueError:  # which is what the client makes of a 404
            return "UNKNOWN", None
        return report.status.name, report

    async def _watch(self) -> None:
        while not self._trouble[0]:
            try:
                status, _ = await self._look()
            except (ConnectionError, ClusterStartFailed) as exc:
                self._trouble = (False, str(exc))  # the cluster goes on without its gateway
            else:
                self._trouble = (status != "RUNNING", self._says(status))
            await asyncio.sleep(LOOK)

    async def _last_words(self) -> str:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + WORDS
        while True:
            status, _ = await self._look()
            if status != "RUNNING" or loop.time() > deadline:
                return self._says(status)
            await asyncio.sleep(LOOK_SOON)

    async def _close(self) -> str:
        """End the cluster; return "", or why it may still be there."""
        left = ""
        if self._watcher is not None:
            self._watcher.cancel()
        if self._gateway is None:
            return left
        if self._name is None and self._submission is not None:
            with contextlib.suppress(Exception):  # refused: there is no cluster
                self._name = await self._submission
        if self._name is not None and self._ends:
            try:
                await asyncio.wait_for(self._end(), END)
            except (asyncio.TimeoutError, TimeoutError):
                left = f"it had not ended within {END:g} s"
            except (ConnectionError, ClusterStartFailed, ValueError) as exc:
                left = str(exc)
        await self._gateway.close()
        return left

    async def _end(self) -> None:
        await self._ask(self._gateway.stop_cluster, self._name)
        while (await self._look())[0] in ("PENDING", "RUNNING", "STOPPING"):
            await asyncio.sleep(LOOK_SOON)

    async def _ask(self, what: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T:
        """Return the gateway's answer to one request; what goes wrong in one line of ours."""
        import aiohttp
        from dask_gateway import GatewayServerError

        who = self._who()
        try:
            return await asyncio.wait_for(what(*args, **kwargs), REQUEST)
        except (asyncio.TimeoutError, TimeoutError):
            raise ClusterUnreachable(
                f"{who} did not answer within {REQUEST:g} s. Is it running, and can it be "
                f"reached from this machine?"
            ) from None
        except aiohttp.ClientResponseError as exc:
            raise self._refusal(exc) from None
        except ValueError as exc:  # what the client makes of a 404, here of a whole page
            if str(exc).lstrip().startswith("<"):
                raise self._stranger() from None
            raise
        except GatewayServerError as exc:
            raise ClusterStartFailed(
                f"{who} has failed inside: {exc or 'it says no more'}"
            ) from exc
        except (aiohttp.ClientError, OSError) as exc:
            raise ClusterUnreachable(
                f"{who} does not answer ({_first_line(exc)}). Is it running, and can it be "
                f"reached from this machine?"
            ) from None

    def _refusal(self, exc: Any) -> Exception:
        who, auth = self._who(), self._settings["auth"]
        if exc.status in (401, 403):
            kind = type(auth).__name__.removesuffix("Auth").lower()
            whom = f" of user {auth.username!r}" if hasattr(auth, "username") else ""
            return ClusterStartFailed(
                f"{who} refused the login{whom} (auth type {kind}; {exc.status} {exc.message}): "
                f"check auth in {self._config.source or self._config.name}"
            )
        if exc.status == 200 or exc.status == 404:
            return self._stranger()
        return ClusterStartFailed(f"{who} refused a request: {exc.status} {exc.message}")

    def _stranger(self) -> ClusterUnreachable:
        return ClusterUnreachable(
            f"{self._who()} is no dask-gateway: what answers there is another server"
        )

    def _who(self) -> str:
        return f"the gateway at {self._settings['address']}"

    def _says(self, status: str) -> str:
        size = f", {self._asked} asked for" if self._asked and status == "RUNNING" else ""
        if status == "UNKNOWN":
            return f"{self._who()} says: there is no cluster {self._name}"
        return f"{self._who()} says: cluster {self._name} is {status}{size}"


def _first_line(exc: BaseException) -> str:
    return (str(exc).splitlines() or [type(exc).__name__])[0]
