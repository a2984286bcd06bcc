"""What becomes of the tasks of a lost worker on a cluster that was given."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

from daskexec._asking import Asking
from daskexec._dead import Dead, Left, Lost
from daskexec._marks import begun_by, number_of, results_of
from daskexec._once import OncePlugin, gone_since, lost_on, silence_of
from daskexec._remote import LOST

EXECUTOR = "ab" * 10
KEY = f"f-{EXECUTOR}000000010001"


def _scheduler(*keys: str) -> Any:
    worker = SimpleNamespace(
        address="tcp://h:1", name="w", nanny="tcp://h:2", local_directory="/d", pid=7
    )
    other = SimpleNamespace(
        address="tcp://h:3", name="v", nanny="tcp://h:4", local_directory="/e", pid=8
    )
    tasks = {key: SimpleNamespace(suspicious=0, annotations=None, who_wants=set()) for key in keys}
    return SimpleNamespace(
        allowed_failures=3,
        tasks=tasks,
        workers={"tcp://h:1": worker, "tcp://h:3": other},
        plugins={},
    )


def _plugin(scheduler: Any) -> OncePlugin:
    plugin = OncePlugin(EXECUTOR, "client")
    asyncio.run(plugin.start(scheduler))
    scheduler.plugins[plugin.name] = plugin
    return plugin


def test_our_tasks_alone_fail_at_the_first_loss() -> None:
    """Attempts of this executor's calls do; plain values, and what is others', do not."""
    others = [KEY[:-4] + "0000", f"f-{'cd' * 10}000000010001", "x"]
    scheduler = _scheduler(KEY, *others)
    _plugin(scheduler).update_graph(scheduler, tasks=[KEY, *others, ("x", 1)][:-1])
    assert scheduler.tasks[KEY].suspicious == 3
    assert [scheduler.tasks[key].suspicious for key in others] == [0, 0, 0]


def test_a_lost_result_is_noted() -> None:
    """With where it was, on the task and for the client; one that was let go of is not."""
    scheduler = _scheduler(KEY)
    plugin = _plugin(scheduler)
    assert lost_on(plugin.name, KEY, scheduler) == []
    plugin.transition(KEY, "processing", "memory", worker="tcp://h:1")
    plugin.transition(KEY, "memory", "released")
    where = ["tcp://h:1", "w", "tcp://h:2", "/d", 7]
    assert scheduler.tasks[KEY].annotations == {LOST: where}
    assert lost_on(plugin.name, KEY, scheduler) == where


def test_where_it_was_lost_first_is_what_counts() -> None:
    """A second worker can but refuse to run it, and may die with that refusal."""
    scheduler = _scheduler(KEY)
    plugin = _plugin(scheduler)
    for address in ("tcp://h:1", "tcp://h:3"):
        plugin.transition(KEY, "processing", "memory", worker=address)
        plugin.transition(KEY, "memory", "released")
    assert lost_on(plugin.name, KEY, scheduler)[0] == "tcp://h:1"
    assert scheduler.tasks[KEY].annotations[LOST][0] == "tcp://h:1"


def test_who_may_have_begun_what_is_forgotten() -> None:
    """One that was there when Dask forgot it for what it needs; asked for those that have gone."""
    scheduler = _scheduler(KEY)
    plugin = _plugin(scheduler)
    plugin.transition(KEY, "processing", "released")  # somebody cancels it
    assert not plugin.forgotten
    scheduler.tasks[KEY].who_wants = {"client"}
    plugin.transition(KEY, "processing", "released")
    assert gone_since(plugin.name, KEY, scheduler) == []
    del scheduler.workers["tcp://h:1"]
    assert gone_since(plugin.name, KEY, scheduler) == [["tcp://h:1", "w", "tcp://h:2", "/d", 7]]
    assert gone_since(plugin.name, "other", scheduler) == []


def test_what_is_left_of_what_is_forgotten() -> None:
    """By the one that had begun it; else by one of which nobody knows; else it has not begun."""

    class Asked(Dead):
        async def left_of(self, key: str, worker: Any) -> Left:
            begun = {"yes": True, "no": False, "unknown": None}
            return Left(begun[worker.name])

    def left(*names: str) -> tuple[bool | None, Any]:
        class Client:
            async def run_on_scheduler(self, function: Any, *args: Any) -> Any:
                return [["tcp://h:1", name, "", "/d", 7] for name in names]

        client: Any = Client()
        left, worker = asyncio.run(
            Asked(client, Asking(client, True), "plugin").left_of_forgotten(KEY)
        )
        return left.begun, worker and worker.name

    assert left("no", "unknown", "yes") == (True, "yes")
    assert left("no", "unknown") == (None, "unknown")
    assert left("no") == (False, None)
    assert left() == (False, None)


def test_ended_elsewhere_before() -> None:
    """What a dead worker had not begun counts as begun if it had ended on another before."""

    class Asked(Dead):
        async def left_of(self, key: str, worker: Any) -> Left:
            return Left(False) if worker == "second" else Left(True, [b"result"], "it fell")

    class Client:
        async def run_on_scheduler(self, function: Any, *args: Any) -> Any:
            return ["tcp://h:1", "w", "tcp://h:2", "/d", 7]

    dead = Asked(Client(), Asking(Client(), once=True), plugin="once")
    left = asyncio.run(dead.left_of_any(KEY, "second"))
    assert left == Left(True, [b"result"], "it fell")
    assert Lost("a", "b", "c", "d", 1).name == "b"


def test_what_was_lost_was_no_result() -> None:
    """A worker's word that it does not run a task: the task has not begun, if that is known."""

    def left(forgets: bool) -> bool | None:
        class Asked(Dead):
            async def left_of(self, key: str, worker: Any) -> Left:
                return Left(False, forgets=forgets)

        class Client:
            async def run_on_scheduler(self, function: Any, *args: Any) -> Any:
                return ["tcp://h:1", "w", "tcp://h:2", "/d", 7]

        client: Any = Client()
        dead = Asked(client, Asking(client, True), "plugin")
        return asyncio.run(dead.left_of_any(KEY, "second")).begun

    assert left(forgets=False) is False
    assert left(forgets=True) is True


def test_a_removal_for_silence_is_known() -> None:
    """By the scheduler's own events; not by one of a worker that had the address long ago."""
    events = [
        (at, {"action": "worker-ttl-timed-out", "workers": [worker], "ttl": 5.0})
        for at, worker in [(time.time() - 1000, "old"), (time.time(), "new")]
    ]
    scheduler = SimpleNamespace(get_events=lambda topic: (*events, (time.time(), "text")))
    assert [silence_of(w, scheduler) for w in ("old", "new", "other")] == [0.0, 5.0, 0.0]


def test_lost_results_are_asked_for_together() -> None:
    """Those of all tasks that were lost with a worker: each question reads all that it left."""
    asked: list[Any] = []

    class Client:
        async def run_on_scheduler(self, function: Any, *args: Any) -> float:
            return 0.0

        async def nthreads(self, asynchronous: bool) -> dict[str, int]:
            return {"tcp://h:3": 1}

        async def run(self, function: Any, *args: Any, workers: list[str]) -> Any:
            asked.append(function)
            if function is results_of:
                return {workers[0]: [[key.encode()] for key in args[-1]]}
            return {workers[0]: (b"".join(map(number_of, keys)), "")}

    async def main() -> None:
        dead = Dead(Client(), Asking(Client(), once=True), plugin="once")
        worker = Lost("tcp://h:1", "w", "", "/d", 7)
        found = await asyncio.gather(*(dead.left_of(key, worker) for key in keys))
        assert found == [Left(True, [key.encode()]) for key in keys]

    keys = [f"f-{EXECUTOR}{number:08x}0001" for number in range(50)]
    asyncio.run(main())
    assert asked == [begun_by, results_of]
