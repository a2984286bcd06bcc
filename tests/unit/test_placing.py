"""Large objects on their way to workers that come and go."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from daskexec._placing import Placing

pytestmark = pytest.mark.timeout(20)


class Client:
    """Two workers, of which one dies while it is being sent something, unnoticed by Dask."""

    def __init__(self) -> None:
        self.there = {"a": 1, "b": 1}
        self.sent: list[str] = []
        self.scheduler = SimpleNamespace(ncores_running=self._running)

    async def _running(self, workers: Any) -> dict[str, int]:
        return dict(self.there)

    async def nthreads(self, asynchronous: bool) -> dict[str, int]:
        return dict(self.there)

    async def scatter(self, data: dict[str, Any], workers: list[str], **_: Any) -> dict[str, Any]:
        self.sent += workers
        if len(self.sent) == 1:
            del self.there[workers[0]]
            await asyncio.sleep(30)
        return {key: SimpleNamespace(key=key, status="finished") for key in data}


def test_a_worker_dies_while_it_is_sent_one() -> None:
    """Another is sent it at once, not when Dask gives up to reach the first."""

    async def place() -> Any:
        placing = Placing(client, "x", lambda: True, True, 0)
        placing._places_kept = True
        large: Any = SimpleNamespace(place=Place(), frames=[b"x"])
        return await asyncio.wait_for(placing.place(large, 1), 10)

    client = Client()
    assert asyncio.run(place()).key.startswith("large-")
    assert sorted(client.sent) == ["a", "b"]


class Place:
    """What a large object is known by."""

    key = "large"
    size = 1
