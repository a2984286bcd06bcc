"""Which workers there are, and which of them give no sign."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from daskexec import _roster
from daskexec._asking import Asking
from daskexec._roster import Roster

pytestmark = pytest.mark.timeout(20)


class Scheduler:
    """Two workers; those that are stopped give no sign."""

    def __init__(self) -> None:
        self.now = 100.0
        self.stopped: set[str] = set()
        self._seen = dict.fromkeys("ab", 0.0)

    async def identity(self, n_workers: int) -> dict[str, Any]:
        for name in self._seen.keys() - self.stopped:
            self._seen[name] = self.now
        return {"workers": {n: {"name": n, "last_seen": at} for n, at in self._seen.items()}}

    async def processing(self, workers: list[str]) -> dict[str, list[str]]:
        return {worker: [f"of-{worker}", "another's"] for worker in workers}


def test_one_count_of_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is counted over all that is asked, whoever asks; from the first time after a sign."""

    async def main() -> None:
        scheduler = Scheduler()
        monkeypatch.setattr(_roster.time, "monotonic", lambda: scheduler.now)
        client = SimpleNamespace(scheduler=scheduler)
        roster = Roster(client, print, Asking(client, once=True), print, print)

        async def described() -> dict[str, float]:
            scheduler.now += 1
            return {one["name"]: one["mute"] for one in await roster.describe()}

        async def listened() -> list[Any]:
            scheduler.now += 1
            found = await roster.listen(2.0, {"of-a", "of-b"})
            return [(one["name"], one["mute"], one["keys"]) for one in found]

        assert await described() == {"a": 0, "b": 0}
        scheduler.stopped = {"b"}
        assert await listened() == [("a", 0, []), ("b", 0, [])]
        assert await described() == {"a": 0, "b": 2}
        assert await listened() == [("a", 0, []), ("b", 3, ["of-b"])]
        scheduler.stopped = set()
        assert await listened() == [("a", 0, []), ("b", 0, [])]

    asyncio.run(main())
