"""What is cancelled, and which workers are asked whether they have begun what is to be stopped."""

from __future__ import annotations

import asyncio
import sys
import time
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest import mock

from daskexec import DaskExecutor, _remote
from daskexec._backend import DaskBackend
from daskexec._calls import Outcome
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
        plugins: ClassVar[Any] = {}
        tasks: ClassVar[Any] = {
            "a": SimpleNamespace(annotations=None, processing_on=None, state="processing")
        }

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


def test_a_worker_that_dies_meanwhile() -> None:
    """What waits behind a slow task is taken from there all the same, but for what has failed.

    It is barred there already: nobody would look at it again before the slow task ends.
    """

    class Dying(Scheduler):
        async def run(self, function: Any, *args: Any, **more: Any) -> Any:
            if function is relieve:
                return {"first": {"begun": None, "outcome": None, "barred": ["a", "b", "c", "d"]}}
            answers = await super().run(function, *args, **more)
            if "dying" in self.begun:
                del self.begun["dying"]
                backend._futures["b"].status = "error"
                answers["dying"] = OSError("it has closed its connection")
            return answers

    async def main() -> None:
        nonlocal backend
        client = Dying({"first": [], "dying": []})
        backend = DaskBackend(client, "executor", lambda _: None)
        backend._asking.workers = frozenset({"first", "dying"})
        backend._futures.update({key: SimpleNamespace(status="pending") for key in "abc"})
        assert (await backend._relieve("slow", "first", []))["barred"] == ["a", "c"]

    backend: Any = None
    asyncio.run(main())


def test_a_worker_that_cannot_be_asked() -> None:
    """It may have begun any task; but first it is asked again."""

    class Deaf(Scheduler):
        fails = 0

        async def run(self, function: Any, *args: Any, **more: Any) -> Any:
            answers = await super().run(function, *args, **more)
            if self.fails:
                self.fails -= 1
                answers["first"] = OSError("no answer")
            return answers

    async def main() -> None:
        client = Deaf({"first": ["b"]})
        backend = DaskBackend(client, "executor", lambda _: None)
        client.fails = backend._asking.TRIES - 1
        assert await backend._asking.begun(["a", "b"]) == {"b"}
        client.fails = backend._asking.TRIES
        assert await backend._asking.begun(["a", "b"]) == {"a", "b"}

    asyncio.run(main())


def test_what_a_lost_worker_had_begun() -> None:
    """It cannot be asked, but the scheduler knows: what has ended there is settled by that."""
    plugin = SimpleNamespace(lost={"b": ["tcp://h:1", "w", "", "/d", 7]})

    class Losing(Scheduler):
        tasks: ClassVar[Any] = {
            "a": SimpleNamespace(state="erred"),
            "b": SimpleNamespace(state="processing"),  # on another worker
            "c": SimpleNamespace(state="processing"),
        }

        async def run_on_scheduler(self, function: Any, name: str, keys: Any) -> Any:
            there = SimpleNamespace(plugins={name: plugin}, tasks=self.tasks)
            return function(name, keys, dask_scheduler=there)

    async def main() -> None:
        client = Losing({"first": []})
        backend = DaskBackend(client, "executor", lambda _: None)
        future = SimpleNamespace(status="pending")
        backend._futures.update(dict.fromkeys("abc", future))
        killed = mock.AsyncMock()
        with mock.patch.object(backend, "_report_killed", killed):
            assert await backend._withdraw(["a", "b", "c"]) == {"c"}
            await asyncio.sleep(0)
        ((key, error),) = (call.args for call in killed.await_args_list)
        assert (key, error.last_worker.pid) == ("b", 7)
        assert backend._futures == {"a": future}  # Dask says itself that it failed

    asyncio.run(main())


def test_what_misses_a_value_may_run_all_the_same() -> None:
    """On a worker that had fetched the value: then that is waited for; else the value is made."""

    class Running(Scheduler):
        async def run(self, function: Any, key: Any, *, on_error: str, workers: Any = None) -> Any:
            if function is _remote.outcome_of:
                return {"first": Outcome("ran", [b"1"])}
            return await super().run(function, key, on_error=on_error, workers=workers)

    async def main(begun: list[str]) -> Any:
        reports: list[Any] = []
        backend = DaskBackend(Running({"first": begun}), "executor", reports.append, once=False)
        future: Any = SimpleNamespace(key="a", status="finished", release=lambda: None)
        backend._futures["a"] = future
        backend.deliver(future, Outcome("missing", [b"value"], count=0))
        await asyncio.gather(*backend._tasks)
        (done,) = reports
        return done.key, done.outcome.kind

    assert asyncio.run(main(["a"])) == ("a", "ran")
    assert asyncio.run(main([])) == ("a", "missing")


def test_what_idle_workers_would_be_running_is_not_cancelled() -> None:
    """A shutdown that follows so fast that nothing could be sent leaves each worker a call."""
    with DaskExecutor(2) as executor:
        assert list(executor.map(abs, [-1, -2])) == [1, 2]
        interval = sys.getswitchinterval()
        sys.setswitchinterval(10.0)  # the thread that sends gets no turn
        try:
            futures = [executor.submit(time.sleep, 0.05) for _ in range(50)]
            executor.shutdown(wait=False, cancel_futures=True)
        finally:
            sys.setswitchinterval(interval)
    others = [future for future in futures if not future.cancelled()]
    assert 2 <= len(others) < 25
    assert [future.result() for future in others] == [None] * len(others)
