"""Time limits and the killing of processes, by a fake clock and a real board."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from daskexec._batching import BatchPolicy
from daskexec._board import DECLINED, FINISHED, RUNNING, SPOOLED, Board
from daskexec._ledger import Ledger
from daskexec._limits import Limits
from daskexec._messages import Line, Started, Stuck
from daskexec._tasks import Call, Task
from daskexec.errors import CallTimedOut
from daskexec.futures import DaskFuture
from daskexec.options import CallOptions


class House:
    """Limits over a ledger, a board, and a line that notes what it is told."""

    def __init__(self, path: Path) -> None:
        self.now = 0.0
        self.board = Board(path, create=True)
        self.ledger = Ledger(BatchPolicy("never"))
        self.ledger.threads, self.ledger.board = 4, self.board
        self.asked: list[tuple[str, str, int]] = []
        self.killed: list[int] = []
        backend: Any = self
        line = Line(backend, lambda: None, board=self.board, kill=self.killed.append)
        self.errors: list[BaseException] = []
        self.limits = Limits(
            self.ledger,
            lambda: line,
            lambda _: None,
            self._fail,
            lambda *_: None,
            lambda: self.now,
        )

    def alive(self) -> bool:
        return True

    def kill(self, key: str, worker: str, pid: int) -> None:
        self.asked.append((key, worker, pid))

    def _fail(self, task: Task, error: BaseException) -> None:
        self.errors.append(error)
        self.ledger.told(task, 0, task.end)

    def begun(self, timeout: float | None = None, pid: int = 7) -> Task:
        """Have a call sent, and a worker begin it."""
        future: DaskFuture[Any] = DaskFuture("f", len(self.ledger.sent))
        call = Call(future, abs, (1,), {}, CallOptions(timeout=timeout))
        future._call = call
        self.ledger.add(call)
        (task,) = self.ledger.take()
        self.ledger.send(task)
        self.ledger.started(Started(task.key, "tcp://10.0.0.1:4000", "alpha", pid))
        self.limits.begun(task)
        return task

    def at(self, now: float) -> None:
        self.now = now
        self.limits.look()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path / "board")
    yield house
    house.board.close()


def test_a_limit_is_counted_from_the_begin(house: House) -> None:
    """When it is over the call fails, and its process is asked to end; not before."""
    house.at(100.0)
    task = house.begun(timeout=2.0)
    key = task.key
    assert house.limits.pause(60.0) == pytest.approx(2.0)
    house.at(101.9)
    assert (house.errors, house.asked) == ([], [])
    house.at(102.0)
    (error,) = house.errors
    assert isinstance(error, CallTimedOut)
    assert (error.worker, error.host, error.timeout) == ("alpha", "10.0.0.1", 2.0)
    assert house.asked == [(key, "tcp://10.0.0.1:4000", 7)]
    assert house.limits.pause(60.0) == 60.0


def test_what_ends_in_time_is_left_alone(house: House) -> None:
    """A call that is over, or has no limit, is not looked at any more."""
    house.begun()
    task = house.begun(timeout=2.0)
    house.ledger.told(task, 0, 1)
    house.at(5.0)
    assert (house.errors, house.asked) == ([], [])


def test_a_call_that_is_begun_anew_has_its_whole_limit(house: House) -> None:
    """Dask begins it elsewhere when its worker has died."""
    task = house.begun(timeout=2.0)
    house.at(1.5)
    house.limits.begun(task)
    house.at(2.5)
    assert house.errors == []
    house.at(3.5)
    assert len(house.errors) == 1


def test_old_limits_do_not_pile_up(house: House) -> None:
    """A million calls with a limit of an hour do not take memory for an hour."""
    for _ in range(1000):
        house.ledger.told(house.begun(timeout=3600.0), 0, 1)
    assert len(house.limits._due) <= 101


def test_a_stuck_process_is_killed_when_its_other_calls_are_over(house: House) -> None:
    """It is doomed at once; a call that runs in it is waited for, one of another is not."""
    other, elsewhere = house.begun(pid=os.getpid()), house.begun(pid=8)
    house.board.mark(other.slot, RUNNING)
    house.limits.stuck(Stuck("tcp://10.0.0.1:4000", os.getpid()))
    assert house.board.doomed()
    assert house.killed == []
    assert house.limits.pause(60.0) == Limits.LOOK
    house.ledger.told(other, 0, 1)
    house.limits.look()
    assert house.killed == [os.getpid()]
    assert elsewhere.key in house.ledger.sent


@pytest.mark.parametrize("left", [True, False])
def test_results_that_cannot_be_had_without_it_are_waited_for(house: House, left: bool) -> None:
    """A finished call is no reason to wait if the process has left what it came to."""
    other = house.begun(pid=os.getpid())
    house.board.mark(other.slot, FINISHED)
    (turn,) = [house.board._map[other.slot * 12]]
    leave = house.board.trail(other.slot, turn, 1)
    leave(0, b"a result" if left else bytes(SPOOLED + 1))
    house.limits.stuck(Stuck("", os.getpid()))
    assert (house.killed == [os.getpid()]) is left


def test_what_a_doomed_process_declines_is_not_begun(tmp_path: Path) -> None:
    """Its mark says so to the next one; a process with the id of a dead one is pardoned."""
    board = Board(tmp_path / "board", create=True)
    slot, _ = board.acquire()
    assert not board.doomed()
    board.doom(os.getpid())
    assert board.doomed()
    board.decline(slot)
    assert board.read(slot) == (0, DECLINED)
    other = Board(tmp_path / "board")
    assert other.doomed()
    other.pardon()
    assert not other.doomed()
    board.doom(1)
    assert not board.doomed()
    other.close()
    board.close()
