"""Looking at what runs on the other side before calls are sent there. Floor 5.

A worker without daskexec ends at the first task of ours, before it can say why, and where it is
the only one nothing would ever be heard again. So the workers that are there are asked first, with
something that runs in any Python (`daskexec._versions`). Where there is none yet tasks wait here,
and as many *probes* stand in for them, plain Dask tasks of which Dask sees that there is work; the
first worker that joins runs one of them, and so says what it has.

All of it runs on the client's loop; workers are asked once each.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator
from concurrent.futures import BrokenExecutor
from typing import Any

from daskexec._messages import Surveyed
from daskexec._versions import PACKAGES, PROBE, Found, here, missing, warnings_for

__all__ = ["Gate", "Survey"]


class Gate:
    """Holds what is to be sent until the first worker is there. From any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the rest
        self._held: dict[str, Any] | None = None  # None: it is open
        self._stand_in: Callable[[], None] = lambda: None

    @property
    def is_shut(self) -> bool:
        """Whether anything is held."""
        return self._held is not None

    @property
    def held(self) -> Collection[str]:
        """The keys of what is held."""
        return self._held or ()

    def shut(self, stand_in: Callable[[], None]) -> None:
        """Hold all from now on; for each but the first something is to stand in."""
        with self._lock:
            self._held, self._stand_in = {}, stand_in

    def hold(self, key: str, what: Any) -> bool:
        """Hold something, if the gate is shut."""
        with self._lock:
            if self._held is None:
                return False
            self._held[key] = what
            if len(self._held) > 1:  # one is there anyway
                self._stand_in()
            return True

    def take(self, keys: Collection[str]) -> dict[str, Any]:
        """Hold some no longer; return which ones were held, by their keys."""
        with self._lock:
            held = self._held or {}
            return {key: held.pop(key) for key in keys if key in held}

    def open(self) -> Iterator[Any]:
        """Let out what is held, one after the other; hold nothing once all of it is out.

        What comes meanwhile is held, too, or it would overtake what came before.
        """
        while True:
            with self._lock:
                if not self._held:
                    self._held = None
                    return
                what = self._held.pop(next(iter(self._held)))
            yield what

    def drop(self) -> None:
        """Forget what is held, and hold nothing from now on."""
        with self._lock:
            self._held = None


class Survey:
    """What is known of the processes at the other end of one client.

    Parameters
    ----------
    client : distributed.Client
    executor : str
        Id of the executor, for the keys of the probes.
    report : callable
        Takes `Surveyed`.
    """

    #: Seconds in which workers should answer; then it is done without them.
    LIMIT = 5.0

    def __init__(self, client: Any, executor: str, report: Callable[[Any], None]) -> None:
        self._client, self._executor, self._report = client, executor, report
        self._asked: set[str] = set()
        self._asking = False
        self._probes: list[Any] = []

    async def begin(self, workers: list[str]) -> None:
        """Ask the scheduler, and the workers there are.

        Raises
        ------
        BrokenExecutor
            daskexec is missing there, so no call can run.
        """
        boss = await self._ask_scheduler()
        fatal = missing(here(), [boss], "the scheduler runs") if boss is not None else ""
        if not fatal:
            fatal = self._judge(await self._ask(workers), boss)
        if fatal:
            raise BrokenExecutor(fatal)

    async def joined(self, workers: list[str]) -> None:
        """Look at workers that are new."""
        new = [worker for worker in workers if worker not in self._asked]
        if new and not self._asking:
            self._asking = True
            try:
                self._judge(await self._ask(new))
            finally:
                self._asking = False

    async def open(self, gate: Gate, bring: Callable[[], Awaitable[None]]) -> Iterable[Any]:
        """Open a gate when a worker is there that can run calls, and has what they need.

        `bring` brings that. Returns what is let out; what no worker can run stays there.
        """
        fatal = await self.first_worker()
        try:
            if not fatal:
                await bring()
        except Exception as exc:
            fatal = f"the initializer could not be brought to the workers: {exc}"
        if fatal:
            self._report(Surveyed(fatal, {}))
            return ()
        return gate.open()

    async def first_worker(self) -> str:
        """Wait for a worker to join and to say what it has; return why no call can run, or ""."""
        self.stand_in()
        probe, told = self._probes[0], None
        await probe._state.wait()  # Dask's own wait leaves an exception behind when cancelled
        if probe.status == "finished":
            with contextlib.suppress(Exception):  # its worker is gone again
                told = Found.of(await self._client.gather(probe, asynchronous=True))
        return self._judge([told] if told is not None else [])

    def stand_in(self) -> None:
        """Have one more probe seen by Dask; from any thread."""
        key = f"daskexec-looks-at-its-workers-{self._executor}-{len(self._probes)}"
        self._probes.append(self._client.submit(eval, PROBE, key=key, pure=False))

    async def end(self) -> None:
        """Take the probes back."""
        probes, self._probes = self._probes, []
        if probes and self._client.status == "running":
            await self._client.cancel(probes, asynchronous=True, force=True)

    async def _ask_scheduler(self) -> Found | None:
        with contextlib.suppress(Exception):  # not every scheduler answers such questions
            # Dask's own question first: it leaves no line in a log, which may be the user's
            # terminal. What is not installed but on a path only the probe sees.
            told = await self._client.scheduler.versions(packages=[*PACKAGES])
            found = Found.of_dask(told)
            if found is None or "daskexec" not in found.packages:
                found = Found.of(await self._client.run_on_scheduler(eval, PROBE))
            return found
        return None

    async def _ask(self, workers: list[str]) -> list[Found]:
        if not workers:
            return []
        self._asked.update(workers)
        answers: dict[str, Any] = {}
        with contextlib.suppress(Exception):  # the connection is going: others will see it
            answers = await asyncio.wait_for(
                self._client.run(eval, PROBE, workers=workers, on_error="return"), self.LIMIT
            )
        return [found for found in map(Found.of, answers.values()) if found is not None]

    def _judge(self, found: list[Found], boss: Found | None = None) -> str:
        """Report versions that differ; return why no call can run on any of them, or ""."""
        mine = here()
        lacking = missing(mine, found, "workers run")
        if lacking and not any("daskexec" in each.packages for each in found):
            return lacking
        places = [("workers", each) for each in found]
        said = warnings_for(mine, places if boss is None else [("scheduler", boss), *places])
        if lacking:
            said["daskexec"] = f"{lacking}. Till then these workers end when they get a call"
        if said:
            self._report(Surveyed("", said))
        return ""
