"""Questions to all workers, some of which die before they answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from daskexec._asking import Asking

pytestmark = pytest.mark.timeout(20)


class Client:
    """Three workers; while one is there that has died, which Dask does not know yet, it waits."""

    def __init__(self) -> None:
        self.there = {"a": 1, "b": 1, "c": 1}
        self.asked: list[list[str] | None] = []

    async def nthreads(self, asynchronous: bool) -> dict[str, int]:
        return dict(self.there)

    async def run(self, function: Any, *_: Any, workers: list[str] | None, on_error: str) -> Any:
        self.asked.append(workers)
        workers = workers or list(self.there)
        if "b" in workers:
            del self.there["b"]
            await asyncio.sleep(30)
        return {worker: function(worker) for worker in workers}


def test_one_that_has_gone_is_not_waited_for() -> None:
    """The others' answers come at once, not when Dask gives up to reach it."""

    async def ask() -> dict[str, Any]:
        return await asyncio.wait_for(asking.ask(str.upper), 10)

    client = Client()
    asking = Asking(client, once=True)
    asking.workers = frozenset("abc")
    answers = asyncio.run(ask())
    assert isinstance(answers.pop("b"), OSError)
    assert answers == {"a": "A", "c": "C"}
    assert client.asked == [None, ["a", "c"]]
