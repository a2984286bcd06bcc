"""Having worker processes ended, through Dask. Floor 5. Runs on the client's event loop.

::

    settle thread          here                              worker                nanny
    -------------          ----                              ------                -----
    a limit is over, or
    cancel(kill=True)
      its future is set
      kill ------------->  Dask forgets the task
                           doom ------------------------->  begins nothing else,
                                                            is free: ends
                           no answer: it holds the GIL
      Stuck <------------  (an own cluster: killed by its spawner, see `daskexec._limits`)
      kill_stuck ------->  nothing else can run there?
                           kill_child ----------------------------------------->  kills it

What has no nanny and does not answer cannot be ended from here: a warning says so. The question
stays as long as the worker is there, which so ends when the call lets go of the GIL.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Coroutine
from typing import Any

from daskexec import _remote
from daskexec._asking import Asking
from daskexec._messages import Stuck, Surveyed

__all__ = ["Killing"]


class Killing:
    """Ends the worker processes of one client's cluster on request.

    Parameters
    ----------
    client : distributed.Client
    asking : Asking
    report : callable
        Takes `Stuck` and `Surveyed`.
    wanted : collection of str
        Keys of the tasks whose results are still to come.
    spawn : callable
        Runs a coroutine that ends with the backend.
    """

    #: Seconds in which a worker answers that does not hold the GIL.
    ANSWER = 0.75
    #: Seconds that the end waits for workers which are being killed.
    LAST = 3.0

    def __init__(
        self,
        client: Any,
        asking: Asking,
        report: Callable[[Any], None],
        wanted: Collection[str],
        spawn: Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]],
    ) -> None:
        self._client, self._asking, self._report = client, asking, report
        self._wanted, self._spawn = wanted, spawn
        self._silent: set[str] = set()  # workers that were asked, and have not answered
        self._kills: set[asyncio.Task[Any]] = set()

    def begin(self, key: str, worker: str, pid: int) -> None:
        """Have the worker end that runs a task, which nobody waits for any more."""
        if worker:
            kill = self._spawn(self._kill(key, worker, pid))
            self._kills.add(kill)
            kill.add_done_callback(self._kills.discard)
        else:  # nothing was heard of it, so it will not answer
            self._report(Stuck("", pid))

    async def end(self) -> None:
        """Wait for the workers that are being killed, for a while."""
        if self._kills:
            await asyncio.wait(self._kills, timeout=self.LAST)

    async def _kill(self, key: str, worker: str, pid: int) -> None:
        """Have a worker end, as `_remote.doom` says."""
        question = asyncio.ensure_future(
            self._asking.ask(_remote.doom, key, _remote.PROCESS, workers=[worker])
        )
        try:
            done, _ = await asyncio.wait([question], timeout=self.ANSWER)
            if not done and worker not in self._silent:
                self._silent.add(worker)
                self._report(Stuck(worker, pid))
            answer = (await question).get(worker, "")
        except Exception:  # the connection has gone
            return
        finally:
            question.cancel()
            self._silent.discard(worker)
        if isinstance(answer, str) and answer:
            self._say(worker, f"a call was given up on {worker} and runs on there: {answer}")

    async def kill_stuck(self, worker: str, pid: int) -> None:
        """Kill a worker that does not answer, from outside, if that loses nothing else."""
        why = await self._kept_from(worker)
        if not why:
            with contextlib.suppress(Exception):  # as above
                await self._asking.ask(_remote.kill_child, pid, workers=[worker], nanny=True)
            return
        self._say(
            worker,
            f"a call was given up on {worker} (process {pid}) and runs on there, holding the "
            f"GIL: {why}. The worker ends when the call lets go of it; or end the process there",
        )

    async def _kept_from(self, worker: str) -> str:
        """Return why a worker cannot be killed; "" if it can be, or has gone."""
        scheduler = self._client.scheduler
        try:
            known = (await scheduler.identity(n_workers=-1))["workers"].get(worker)
            kept = await scheduler.has_what(workers=[worker])
        except Exception:
            return ""
        if known is None:
            return ""
        if not known.get("nanny"):
            return "it has no nanny that could kill it"
        if known["nthreads"] > 1:
            return "other calls may be running in its other threads, and would be lost"
        if any(key in self._wanted for key in kept.get(worker, ())):
            return "results of other calls are still there, and would be lost"
        return ""

    def _say(self, worker: str, what: str) -> None:
        self._report(Surveyed("", {f"killing {worker}": what}))
