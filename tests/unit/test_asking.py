"""Questions to workers, some of which die, or are stopped, before they answer."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from types import SimpleNamespace
from typing import Any

import pytest

from daskexec._asking import Asking
from daskexec._dead import Dead, Left, Lost
from daskexec._killing import Killing
from daskexec._messages import Ends, Stuck, Threads
from daskexec._remote import kill_child
from daskexec._roster import Roster

pytestmark = pytest.mark.timeout(20)

EXECUTOR = "ab" * 10
KEY = f"f-{EXECUTOR}000000010001"
LIMIT = 3


class Client:
    """Three workers. What has died Dask does not know yet: it is found out while it is asked."""

    def __init__(self, died: Collection[str] = (), stopped: Collection[str] = ()) -> None:
        self.there = {"h:a": 1, "h:b": 1, "h:c": 1}
        self.died, self.stopped = died, stopped
        self.asked: list[list[str] | None] = []
        known = {"nanny": "h:n", "nthreads": 1}
        self.scheduler = SimpleNamespace(
            identity=lambda **_: _made({"workers": dict.fromkeys(self.there, known)}),
            has_what=lambda **_: _made({}),
        )

    async def nthreads(self, asynchronous: bool) -> dict[str, int]:
        return dict(self.there)

    async def run_on_scheduler(self, function: Any, *_: Any) -> float:
        return 0.0

    async def run(
        self, function: Any, *args: Any, workers: list[str] | None, nanny: bool = False, **_: Any
    ) -> Any:
        self.asked.append(workers)
        workers = list(self.there) if workers is None else workers
        for died in set(self.died).intersection(workers):
            self.there.pop(died, None)
        if not (set(self.died) | set(self.stopped)).isdisjoint(workers):
            await asyncio.sleep(30)
        return {worker: self.answer(worker, function) for worker in workers}

    def answer(self, worker: str, function: Any) -> Any:
        return worker.upper()


async def _made(value: Any) -> Any:
    return value


def test_one_that_has_gone_is_not_waited_for() -> None:
    """The others' answers come at once, not when Dask gives up to reach it."""

    async def ask() -> dict[str, Any]:
        asking = Asking(client, once=True)
        asking.workers = frozenset(client.there)
        return await asyncio.wait_for(asking.ask(str.upper), LIMIT)

    client = Client(died=["h:b"])
    answers = asyncio.run(ask())
    assert isinstance(answers.pop("h:b"), OSError)
    assert answers == {"h:a": "H:A", "h:c": "H:C"}
    assert client.asked == [None, ["h:a", "h:c"]]


@pytest.mark.parametrize("nanny", [False, True])
def test_one_that_is_to_be_killed_and_has_gone(nanny: bool) -> None:
    """Nothing is left to do then, for it or for its nanny."""

    async def main() -> None:
        client, reports = Client(died=["h:b"]), []  # type: ignore[var-annotated]
        asking = Asking(client, once=True)
        killing = Killing(client, asking, reports.append, (), asyncio.create_task)
        if nanny:
            await asyncio.wait_for(killing.kill_stuck("h:b", 7), LIMIT)
        else:
            killing.begin(KEY, "h:b", 7)
            await asyncio.wait_for(killing.end(), LIMIT)
            assert not killing._kills
        assert reports in ([], [Stuck("h:b", 7)])  # as may be: it is asked where it is only then

    asyncio.run(main())


def test_a_neighbour_of_one_that_is_lost_has_gone_too() -> None:
    """Another one of their host is asked what the first had begun."""

    class Asked(Client):
        def answer(self, worker: str, function: Any) -> Any:
            return (b"", "")  # it had begun nothing

    async def main() -> None:
        client = Asked(died=["h:a", "h:b"])
        del client.there["h:a"]
        dead = Dead(client, Asking(client, once=True), "plugin")
        lost = Lost("h:a", "a", "", "folder", 7)
        assert await asyncio.wait_for(dead.left_of(KEY, lost), LIMIT) == Left(False)

    asyncio.run(main())


@pytest.mark.parametrize("how", ["died", "stopped"])
def test_one_does_not_say_when_it_ends(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are counted all the same, and the others' ends are known soon."""
    monkeypatch.setattr(Roster, "TOGETHER", 0.5)

    class Asked(Client):
        def answer(self, worker: str, function: Any) -> Any:
            return (100.0, 200.0)

    async def main() -> None:
        client, ends, threads = Asked(**{how: ["h:b"]}), {}, []  # type: ignore[var-annotated]
        told = asyncio.Event()

        def report(message: Any) -> None:
            if isinstance(message, Ends):
                ends.update(message.new)
                if {"h:a", "h:c"} <= ends.keys():
                    told.set()
            elif isinstance(message, Threads):
                threads.append(message.count)

        asking = Asking(client, once=True)
        roster = Roster(client, report, asking, asyncio.create_task, lambda _: None)
        await asyncio.wait_for(roster.watch_ends(), 0.4)
        await asyncio.wait_for(told.wait(), LIMIT)
        await asyncio.wait_for(roster.count(), 0.4)
        assert threads == [3, 2 if how == "died" else 3]
        assert ends == dict.fromkeys(["h:a", "h:c"], (100.0, 200.0))

    asyncio.run(main())


def test_a_nanny_is_asked_as_such() -> None:
    """Its worker's address stands for it."""

    async def main() -> None:
        client = Client()
        nannies = []
        real = client.run

        async def run(function: Any, *args: Any, nanny: bool = False, **more: Any) -> Any:
            nannies.append((function, nanny))
            return await real(function, *args, nanny=nanny, **more)

        client.run = run  # type: ignore[method-assign]
        asking = Asking(client, once=True)
        await Killing(client, asking, print, (), asyncio.create_task).kill_stuck("h:b", 7)
        assert nannies == [(kill_child, True)]

    asyncio.run(main())
