"""Which workers are asked whether they have begun a task that is to be stopped."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest import mock

from daskexec import _remote
from daskexec._backend import DaskBackend
from daskexec._remote import relieve


class Scheduler:
    """A client of workers one of which joins while the others are asked."""

    def __init__(self, begun: dict[str, list[str]]) -> None:
        self.begun = begun
        self.asked: list[str] = []
        self.cancelled: list[Any] = []
        self.id, self.scheduler_comm = "client", None
        self.scheduler = SimpleNamespace(address="tcp://scheduler:1")
        self.loop = SimpleNamespace(asyncio_loop=asyncio.get_running_loop())

    async def run(self, _: Any, keys: list[str], *, on_error: str, workers: Any = None) -> Any:
        assert on_error == "return"
        asked = workers or ["first"]
        self.asked += asked
        return {worker: [key for key in keys if key in self.begun[worker]] for worker in asked}

    async def nthreads(self, *, asynchronous: bool) -> dict[str, int]:
        return dict.fromkeys(self.begun, 1)

    async def cancel(self, futures: list[Any], *, asynchronous: bool) -> None:
        self.cancelled += futures


def test_a_worker_that_joins_later() -> None:
    """Dask may move there what waits behind a slow task: it is told not to begin it."""

    class Slow(Scheduler):
        tasks: ClassVar[Any] = {"a": SimpleNamespace(annotations=None, processing_on=None)}

        async def run(self, function: Any, *args: Any, **more: Any) -> Any:
            if function is relieve:
                barred = ["a", "gone", "lost"]
                return {"first": {"begun": None, "outcome": None, "barred": barred}}
            assert self.tasks["a"].annotations, "before workers are asked, of which one may join"
            return await super().run(function, *args, **more)

        async def run_on_scheduler(self, function: Any, *args: Any) -> Any:
            return function(*args, dask_scheduler=self)

    async def main() -> None:
        client = Slow({"first": []})
        backend = DaskBackend(client, "executor", lambda _: None)
        lost = SimpleNamespace(status="error")
        backend._futures.update(a=SimpleNamespace(status="pending"), lost=lost)
        # What became of the others is being reported.
        assert (await backend._relieve("slow", "first", ["a"]))["barred"] == ["a"]
        assert backend._futures == {"lost": lost}

    asyncio.run(main())
    there = SimpleNamespace(state=SimpleNamespace(tasks=Slow.tasks))
    ticket: Any = SimpleNamespace(key="a")
    with mock.patch("daskexec._remote.get_worker", return_value=there):
        assert _remote.run_task(ticket).kind == "withdrawn"


def test_no_other_is_asked_of_what_a_slow_one_has() -> None:
    """One that is stopped would be waited for, and what was barred would run nowhere meanwhile."""

    class Slow(Scheduler):
        tasks: ClassVar[Any] = {
            "a": SimpleNamespace(annotations=None, processing_on=SimpleNamespace(address="first")),
        }

        async def run(self, function: Any, *args: Any, **more: Any) -> Any:
            assert function is relieve
            return {"first": {"begun": None, "outcome": None, "barred": ["a"]}}

        async def run_on_scheduler(self, function: Any, *args: Any) -> Any:
            return function(*args, dask_scheduler=self)

    async def main() -> None:
        client = Slow({"first": [], "stopped": []})
        backend = DaskBackend(client, "executor", lambda _: None)
        backend._futures["a"] = SimpleNamespace(status="pending")
        assert (await backend._relieve("slow", "first", ["a"]))["barred"] == ["a"]

    asyncio.run(main())
    assert Slow.tasks["a"].annotations == {_remote.BARRED: True}


def test_a_worker_that_joins_meanwhile() -> None:
    """A task that a worker has begun that has just joined is not stopped."""

    async def main() -> None:
        client = Scheduler({"first": ["a"], "joined": ["b"]})
        backend = DaskBackend(client, "executor", lambda _: None)
        future = SimpleNamespace(status="pending")
        backend._futures.update(dict.fromkeys("abc", future))
        assert await backend._withdraw(["a", "b", "c"]) == {"c"}
        assert client.asked == ["first", "joined"]
        assert client.cancelled == [future]

    asyncio.run(main())


def test_a_worker_that_has_died_just_now() -> None:
    """What was on it has failed, and will be told: it does not count as never begun."""

    async def main() -> None:
        client = Scheduler({"first": []})
        backend = DaskBackend(client, "executor", lambda _: None)
        backend._asking.workers = frozenset({"first", "dead"})
        lost = SimpleNamespace(status="error")
        backend._futures.update(a=SimpleNamespace(status="pending"), b=lost)
        assert await backend._withdraw(["a", "b"]) == {"a"}
        assert backend._futures == {"b": lost}

    asyncio.run(main())
