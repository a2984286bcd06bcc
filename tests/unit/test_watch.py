"""Looking after a task while it runs: what is said of it, and when it goes no further."""

from __future__ import annotations

import pickle
import time
from types import SimpleNamespace
from typing import Any

import pytest

from daskexec._calls import Load, Ticket
from daskexec._pickling import dump
from daskexec._remote import _Watch
from daskexec._run import Run

EXECUTOR, OTHER = "1" * 20, "2" * 20


class Worker:
    """As much of one as is looked at: its tasks, and what it says to the client."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.address = "tcp://worker:1"
        self.state = SimpleNamespace(tasks={}, ready=[])
        self.loop = SimpleNamespace(call_later=lambda *_: None)

    def log_event(self, topic: str, event: dict[str, Any]) -> None:
        self.events.append(event)

    def add(self, executor: str, number: int, priority: float) -> str:
        key = f"f-{executor}{number:012x}"
        task = SimpleNamespace(key=key, priority=(-priority, 1, 1))
        self.state.tasks[key] = task
        self.state.ready.append(task)
        return key


def a_watch(worker: Worker, calls: int = 4, stop_after: float = 1e9) -> _Watch:
    """Of a task with nothing done, which has been running for two seconds."""
    key = worker.add(EXECUTOR, 0, 0.25)  # our own order is behind the point
    worker.state.ready.clear()
    load = Load([(dump(abs), True)], None, [dump(((-i,), {})) for i in range(calls)])
    ticket = Ticket(EXECUTOR, key, "topic", load.pack(), -1, 0, False, 0, 100.0, stop_after)
    run = Run(ticket)
    run.started = time.perf_counter() - 2
    return _Watch(worker, run)


def finish(watch: _Watch, *values: Any) -> None:
    """Have the next calls give these values."""
    for value in values:
        watch.run.todo.popleft()
        watch.run.results.append(dump(value))


def so_far(worker: Worker) -> list[tuple[int, int]]:
    """First call and number of calls of each outcome that was told."""
    outcomes = [pickle.loads(event["outcome"]) for event in worker.events if "so_far" in event]
    return [(outcome.first, outcome.count) for outcome in outcomes]


def test_what_is_done_is_told_now_and_then() -> None:
    """Each result once, and not with each look."""
    worker = Worker()
    watch = a_watch(worker)
    watch._look()
    assert so_far(worker) == []
    finish(watch, "a", "b")
    watch._look()
    assert so_far(worker) == []  # it has just looked for some
    watch.told_at -= 2
    watch._look()
    assert so_far(worker) == [(0, 2)]
    finish(watch, "c")
    watch.told_at -= 2
    watch._look()
    assert so_far(worker) == [(0, 2), (2, 1)]
    watch.told_at -= 2
    watch._look()
    assert so_far(worker) == [(0, 2), (2, 1)]


def test_large_results_are_not_told() -> None:
    """The scheduler keeps what is told: it is not for data."""
    worker = Worker()
    watch = a_watch(worker)
    finish(watch, b"x" * 20_000)
    watch.told_at -= 2
    watch._look()
    assert so_far(worker) == []


@pytest.mark.parametrize(
    ("executor", "priority", "gives_way"),
    [
        (EXECUTOR, 0.5, False),
        (EXECUTOR, 1.5, True),
        (EXECUTOR, -1, False),
        (OTHER, 0, True),
        (OTHER, 1, True),
        (OTHER, -1, False),
    ],
)
def test_gives_way_to_calls_of_others(executor: str, priority: float, gives_way: bool) -> None:
    """To those of a higher priority, and of the same one but another executor."""
    worker = Worker()
    watch = a_watch(worker)
    worker.add(executor, 1, priority)
    watch._look()
    assert (len(watch.run.todo) == 0) is gives_way


def test_goes_on_with_calls_that_stay_together() -> None:
    """A chunk of a size that was asked for is not cut."""
    worker = Worker()
    watch = a_watch(worker, stop_after=float("inf"))
    worker.add(OTHER, 1, 1)
    watch._look()
    assert len(watch.run.todo) == 4


def test_goes_on_at_first() -> None:
    """A task that has just begun is over soon, most of the time."""
    worker = Worker()
    watch = a_watch(worker)
    watch.run.started = time.perf_counter()
    worker.add(OTHER, 1, 1)
    watch._look()
    assert len(watch.run.todo) == 4
