"""When a worker asks whether a task is still its own, and what it does then."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from distributed import Status

from daskexec import _contact
from daskexec._calls import Load, Ticket
from daskexec._contact import Contact, Heeding
from daskexec._pickling import dump
from daskexec._run import Run

pytestmark = pytest.mark.timeout(20)


class Worker:
    """As much of one as is looked at, with a loop on a thread and a clock that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0
        self.scheduler_delay = 0.0
        self.address, self.status = "tcp://w:1", Status.running
        self.periodic_callbacks = {"heartbeat": SimpleNamespace(callback_time=1000.0)}
        self.asked = 0
        self.its: list[str] | None = ["mine"]  # None: the scheduler has removed this worker
        self.scheduler = SimpleNamespace(processing=self._processing)
        self.looks: list[Callable[[], None]] = []
        self.loop = SimpleNamespace(
            asyncio_loop=asyncio.new_event_loop(),
            add_callback=self.looks.append,
            call_later=lambda _, do: self.looks.append(do),
        )
        self._thread = threading.Thread(target=self.loop.asyncio_loop.run_forever)
        self._thread.start()

    async def _processing(self, workers: list[str]) -> dict[str, list[str]]:
        self.asked += 1
        if self.its is None:
            raise KeyError(workers[0])
        return {workers[0]: self.its}

    def run(self, seconds: float, beats: bool = True) -> None:
        """Go on for a while, with heartbeats that are answered, or without."""
        for _ in range(int(seconds / _contact._EVERY)):
            self.now += _contact._EVERY
            if beats:
                self.scheduler_delay += 1e-6
                self.periodic_callbacks["heartbeat"].callback_time = 500.0
            self.looks.pop()()

    def end(self) -> None:
        self.loop.asyncio_loop.call_soon_threadsafe(self.loop.asyncio_loop.stop)
        self._thread.join()
        self.loop.asyncio_loop.close()


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    worker = Worker()
    clock = SimpleNamespace(monotonic=lambda: worker.now)
    monkeypatch.setattr(_contact, "time", clock)
    yield worker
    worker.end()


def test_one_in_touch_asks_once(worker: Worker) -> None:
    """Before its first task, and then not as long as its heartbeats are answered."""
    contact = Contact(worker)
    for _ in range(30):
        assert contact.has("mine")
        worker.run(2)
    assert worker.asked == 1


def test_one_that_was_not_answered_asks(worker: Worker) -> None:
    """Sooner than the scheduler would remove it; what it has no more it does not begin."""
    contact = Contact(worker)
    worker.run(10)
    worker.run(4.5, beats=False)
    assert not contact.has("another's")
    assert contact.has("mine")
    assert worker.asked == 1
    worker.run(5, beats=False)
    worker.its = None
    assert not contact.has("mine")


@pytest.mark.parametrize("looks_before", [0, 1])
def test_a_late_answer_is_of_the_time_before(worker: Worker, looks_before: int) -> None:
    """One that came while it was stopped, and is read when it goes on, proves nothing."""
    contact = Contact(worker)
    worker.run(10)
    worker.now += 60
    for _ in range(looks_before):  # it is read after the first of them
        worker.looks.pop()()
    worker.run(0.5)
    worker.its = None
    assert not contact.has("mine")


def test_one_that_ends_does_not_wait(worker: Worker) -> None:
    """The scheduler may never answer it."""

    async def never(workers: list[str]) -> Any:
        worker.status = Status.closing
        await asyncio.Event().wait()

    worker.scheduler.processing = never
    assert not Contact(worker).has("mine")


def test_the_rest_of_a_task_that_was_lost(worker: Worker) -> None:
    """Is not begun, and the result before it is left as any other."""
    left: list[Any] = []
    load = Load([(dump(abs), True)], None, [dump(((-i,), {})) for i in range(3)])
    run = Run(Ticket("1" * 20, "mine", "topic", load.pack(), -1, 0, False, 0, 100.0, 1e9))
    trail: Any = SimpleNamespace(trail=lambda *_: lambda *result: left.append(result))
    contact = Contact(worker)
    leave = Heeding(contact, run, trail).trail(-1, 0, 3)
    leave(0, b"a")
    assert len(run.todo) == 3
    worker.its = None
    worker.now += 60
    leave(1, b"b", 2)
    assert not run.todo
    assert left == [(0, b"a"), (1, b"b", 2)]
