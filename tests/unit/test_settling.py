"""From reports to what is known and settled, without threads and without a cluster."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from concurrent.futures import Future
from typing import Any

import pytest

from daskexec._batching import BatchPolicy
from daskexec._board import FINISHED, RUNNING, SPOOLED, Board
from daskexec._calls import Outcome
from daskexec._ledger import Ledger
from daskexec._lifetimes import usable
from daskexec._messages import Cut, Done, Ends, Line, Started
from daskexec._patience import Patience
from daskexec._pickling import dump
from daskexec._settling import Settler
from daskexec._tasks import Call, Task
from daskexec.errors import WorkerDied
from daskexec.futures import DaskFuture
from daskexec.options import CallOptions


class Settled:
    """A ledger with one sent task of `count` calls, and its settler."""

    def __init__(self, count: int, *fns: Any, board: Board | None = None) -> None:
        self.ledger = Ledger(BatchPolicy(limit=1))
        self.ledger.board = board
        self.ledger.threads = 1
        self.settler = Settler(self.ledger, Patience(), lambda error: pytest.fail(str(error())))
        fns = fns or (abs,)
        for fn in fns:
            self.ledger.policy.observe(self.ledger.policy.known(fn), 1e-3)
        self.futures: list[DaskFuture[int]] = []
        for number in range(count):
            future: DaskFuture[int] = DaskFuture("f", number)
            self.futures.append(future)
            call = Call(future, fns[number % len(fns)], (number,), {}, CallOptions())
            future._call = call
            self.ledger.add(call)
        self.task: Task = self.ledger.take()[0]
        self.ledger.send(self.task)

    def known(self, fn: Any) -> Any:
        return self.ledger.policy.known(fn)

    def tell(self, first: int, stop: int, seconds: list[float]) -> None:
        bodies = [dump(number) for number in range(first, stop)]
        self.settler._results(self.task, Outcome("ran", bodies, first=first, seconds=seconds))


def test_results_settle_their_futures() -> None:
    """Each call's future gets its own value; what was not begun is queued again."""
    settled = Settled(8)
    members = len(settled.task.load)
    bodies: list[Any] = [dump(number) for number in range(members - 1)]
    outcome = Outcome("ran", bodies, seconds=[0.1])
    settled.settler._handle(Done(settled.task.key, outcome))
    assert [future.result(0) for future in settled.futures[: members - 1]] == list(
        range(members - 1)
    )
    assert not settled.futures[members - 1].done()
    assert settled.ledger.queued == 8 - (members - 1)


def test_a_relieved_task_is_observed_once() -> None:
    """Results that a slow task tells of twice count once, and so does the time they took."""
    settled = Settled(8)
    before = settled.known(abs).calls
    settled.tell(0, 2, [0.2])
    settled.tell(0, 3, [1.2])
    assert settled.known(abs).calls - before == 3
    assert settled.task.observed == pytest.approx(1.2)


def test_a_relieved_mixed_task_is_observed_once() -> None:
    """So it is where calls of several functions share the task."""
    settled = Settled(8, abs, round)
    assert settled.task.mixed
    before = settled.known(abs).calls, settled.known(round).calls
    settled.tell(0, 2, [0.1, 0.2])
    settled.tell(0, 4, [0.1, 0.2, 0.3, 0.4])
    assert (settled.known(abs).calls, settled.known(round).calls) == (before[0] + 2, before[1] + 2)


# --- workers that end ---------------------------------------------------------------------------


class Spoken:
    """A backend that notes what it is told."""

    def __init__(self) -> None:
        self.given_up: list[str] = []
        self.withdrawn: list[str] = []
        self.watched = 0

    def alive(self) -> bool:
        return True

    def watch_ends(self) -> None:
        self.watched += 1

    def give_up(self, key: str) -> None:
        self.given_up.append(key)

    def withdraw(self, keys: list[str]) -> Future[set[str]]:
        self.withdrawn += keys
        answer: Future[set[str]] = Future()
        answer.set_result(set(keys))
        return answer

    def relieve(self, key: str, worker: str, waiting: list[str]) -> Future[dict[str, Any]]:
        answer: Future[dict[str, Any]] = Future()
        outcome = Outcome("ran", [dump(0), dump(1)], seconds=[0.1])
        answer.set_result({"begun": 3, "outcome": outcome, "barred": []})
        return answer


def ending(count: int) -> tuple[Settled, Spoken]:
    settled, backend = Settled(count), Spoken()
    line: Any = backend
    settled.settler.line = Line(line, lambda: None)
    return settled, backend


def heard(settled: Settled) -> None:
    while not settled.settler.inbox.empty():
        settled.settler._handle(settled.settler.inbox.get_nowait())


def refused(key: str, left: float = 2.0, lifetime: float = 3600.0) -> Done:
    return Done(key, Outcome("leaving", [b"tcp://a:1"], count=0, seconds=[left, lifetime]))


def test_what_a_leaving_worker_refuses_is_held() -> None:
    """It is queued again, and held for a worker that is to come; room for others is left."""
    settled, backend = ending(1)
    ledger = settled.ledger
    settled.settler._handle(refused(settled.task.key))
    assert backend.watched == 1
    (task,) = ledger.take()
    ledger.send(task)
    where = ledger.place(task, 60.0)
    assert where is not None
    assert where.workers == ()
    assert ledger.policy.is_open(1, len(ledger.sent) - ledger._held, ledger._seconds)
    settled.settler._handle(Ends({"tcp://b:1": (3500.0, 3600.0)}, frozenset({"tcp://b:1"})))
    heard(settled)
    assert backend.withdrawn == [task.key]
    (task,) = ledger.take()
    ledger.send(task)
    assert ledger.place(task, 60.0) is None
    assert not settled.futures[0].done()


def test_what_was_placed_on_workers_that_are_gone_is_placed_anew() -> None:
    """Dask would not give it to those that come later."""
    settled, backend = ending(1)
    ledger = settled.ledger
    alive = frozenset({"tcp://a:1", "tcp://b:1"})
    settled.settler._handle(
        Ends({"tcp://a:1": (2.0, 3600.0), "tcp://b:1": (3000.0, 3600.0)}, alive)
    )
    where = ledger.place(settled.task, 60.0)
    assert where is not None
    assert where.workers == ("tcp://b:1",)
    settled.settler._handle(Ends({}, frozenset({"tcp://b:1"})))
    assert backend.withdrawn == []
    settled.settler._handle(Ends({}, frozenset()))
    heard(settled)
    assert backend.withdrawn == [settled.task.key]
    (task,) = ledger.take()
    ledger.send(task)
    assert ledger.place(task, 60.0) is None


def test_a_call_that_is_cut_off_again_and_again_fails() -> None:
    """First it is tried again, asking for more time; then its future says what happened."""
    settled, backend = ending(1)
    ledger, task = settled.ledger, settled.task
    for _ in range(2):
        settled.settler._handle(Cut(task.key, "tcp://a:1", 54.0, 55.0))
        assert backend.given_up[-1] == task.key
        if settled.futures[0].done():
            break
        (task,) = ledger.take()
        ledger.send(task)
        assert task.needs() == pytest.approx(usable(55.0))
    error = settled.futures[0].exception(0)
    assert isinstance(error, WorkerDied)
    assert "cut off 2 times by the end of its worker's lifetime of 55 s" in str(error)
    assert "it had run for 54 s, 54 s" in str(error)
    assert not ledger.sent
    assert not ledger.pending


def test_calls_that_share_the_task_of_one_cut_off() -> None:
    """What is done of the task is told, what was not begun is queued, the one cut off again."""
    settled, _ = ending(8)
    members = len(settled.task.load)
    assert members > 3
    settled.settler._handle(Cut(settled.task.key, "tcp://a:1", 3.0, 3600.0))
    heard(settled)
    assert [future.done() for future in settled.futures[:3]] == [True, True, False]
    assert settled.ledger.pending == settled.ledger.queued == 6
    again = [call for task in settled.ledger.take() for call in task.calls]
    assert [call.needs for call in again if call.cuts] == [3.75]


def test_begun_anew_though_nobody_said_that_it_was_cut_off() -> None:
    """A call that Dask begins again and again on workers that end does not do so for ever."""
    settled, _ = ending(1)
    key = settled.task.key
    for n in range(8):
        settled.settler._handle(Started(key, f"tcp://a:{n}", f"w{n}", n, left=0.0, lifetime=55.0))
        if settled.futures[0].done():
            break
    assert isinstance(settled.futures[0].exception(0), WorkerDied)


# -- on a cluster with a board: what was begun is not begun again ---------------------------


@pytest.fixture
def board(tmp_path: Any) -> Any:
    made = Board(tmp_path / "board", create=True)
    yield made
    made.close()


def _dead_process() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return process.pid


class OnBoard(Settled):
    """The same on a cluster of ours, where a process has begun the task, and left so much."""

    def __init__(self, board: Board, count: int, pid: int, left: list[Any]) -> None:
        super().__init__(count, board=board)
        slot, turn = self.task.slot, board.turn(self.task.slot)
        leave = board.trail(slot, turn, count)
        for index, body in enumerate(left):
            leave(index, body)
        board.mark(slot, RUNNING)
        for number in (0, 1):  # as if the other process had done so
            path = f"{board.path}.{os.getpid()}.{number}"
            if os.path.exists(path):
                os.rename(path, f"{board.path}.{pid}.{number}")
        board._map[slot * 12 + 4 : slot * 12 + 8] = struct.pack("<I", pid)
        self.settler.line = Line(Alive(), lambda: None, death_of=lambda pid: ("w", "it fell"))


class Alive:
    """As much of a backend as is asked here."""

    def alive(self) -> bool:
        return True


def test_what_a_dead_worker_had_begun_is_not_withdrawn(board: Board) -> None:
    """Barred by all workers that live, a task is not sent again if a dead one had begun it."""
    pid = _dead_process()
    settled = OnBoard(board, 8, pid, [dump(0)])
    members = len(settled.task.load)
    assert members > 2
    settled.settler.withdrawn({settled.task.key}, settled.task)
    settled.settler._handle(settled.settler.inbox.get(timeout=5))
    assert settled.futures[0].result(0) == 0
    with pytest.raises(WorkerDied, match="it fell"):
        settled.futures[1].result(0)
    assert not settled.futures[2].done()
    assert settled.ledger.queued == 8 - 2


def test_what_a_worker_that_lives_has_begun_is_waited_for(board: Board) -> None:
    """It is neither sent again nor failed while its worker has it; then it is on the board."""
    settled = OnBoard(board, 1, os.getpid(), [dump(0)])
    settled.settler.withdrawn({settled.task.key}, settled.task)
    settled.settler._handle(settled.settler.inbox.get(timeout=5))
    assert not settled.futures[0].done()
    assert settled.ledger.queued == 0
    board.mark(settled.task.slot, FINISHED)
    settled.settler._find_adrift()
    assert settled.futures[0].result(0) == 0


def test_what_misses_a_value_is_not_begun_again(board: Board) -> None:
    """Where it had begun on a worker that had the value, and has died."""
    settled = OnBoard(board, 1, _dead_process(), [dump(0)])
    missing = Outcome("missing", [b"value"], count=0)
    settled.settler._handle(Done(settled.task.key, missing))
    settled.settler._find_adrift()
    assert settled.futures[0].result(0) == 0
    assert settled.ledger.queued == 0


def test_a_result_that_has_not_outlived_its_worker(board: Board) -> None:
    """Its call fails and says so; those behind it, which had begun, are not begun again."""
    settled = OnBoard(board, 1, _dead_process(), [bytes(SPOOLED + 1)])
    settled.settler.withdrawn({settled.task.key}, settled.task)
    settled.settler._handle(settled.settler.inbox.get(timeout=5))
    with pytest.raises(WorkerDied, match="too large"):
        settled.futures[0].result(0)
    assert settled.ledger.queued == 0


def test_what_is_left_of_a_task_that_dask_has_let_go_of() -> None:
    """It settles what it tells of, teaches no run times, and the rest was not begun."""
    settled = Settled(8)
    members = len(settled.task.load)
    assert members > 2
    mean = settled.known(abs).mean
    left = Outcome("let go", [dump(0), None])
    settled.settler._handle(Done(settled.task.key, left))
    assert settled.futures[0].result(0) == 0
    with pytest.raises(WorkerDied, match="too large"):
        settled.futures[1].result(0)
    assert not any(future.done() for future in settled.futures[2:])
    assert settled.ledger.queued == 8 - 2
    assert settled.known(abs).mean == mean
