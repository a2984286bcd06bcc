"""The board of begun tasks: what outlives a process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from daskexec._board import FINISHED, INITIALIZING, RUNNING, SLOTS, SPOOLED, Board


@pytest.fixture
def boards(tmp_path: Path) -> Iterator[tuple[Board, Board]]:
    """The client's board and a worker's, on one file."""
    client = Board(tmp_path / "board", create=True)
    worker = Board(tmp_path / "board")
    yield client, worker
    client.close()
    worker.close()


def test_a_mark_is_seen_by_others(boards: tuple[Board, Board]) -> None:
    """What one process marks the others read, with its process id."""
    client, worker = boards
    slot, turn = client.acquire()
    assert worker.has_turn(slot, turn)
    assert worker.read(slot) == (0, 0)
    for stage in (INITIALIZING, RUNNING, FINISHED):
        worker.mark(slot, stage)
        assert client.read(slot) == (os.getpid(), stage)


def test_a_slot_given_on_is_another_task_s(boards: tuple[Board, Board]) -> None:
    """A slot that was handed out again has another turn, and no mark."""
    client, worker = boards
    slot, turn = client.acquire()
    worker.mark(slot, RUNNING)
    client.release(slot)
    others = [client.acquire() for _ in range(SLOTS)]
    assert dict(others)[slot] != turn
    assert not worker.has_turn(slot, turn)
    assert worker.read(slot) == (0, 0)
    assert client.acquire() == (-1, 0)


def test_a_released_slot_is_nobody_s(boards: tuple[Board, Board]) -> None:
    """A task that is over must not run, though its slot was not handed out again yet."""
    client, worker = boards
    slot, turn = client.acquire()
    client.release(slot)
    assert not worker.has_turn(slot, turn)


def test_results_are_recovered(boards: tuple[Board, Board]) -> None:
    """Small results that were left are found, in order, by slot and turn."""
    client, worker = boards
    slot, turn = client.acquire()
    other, other_turn = client.acquire()
    worker.leave(slot, turn, 0, b"bytes as they are")
    worker.leave(other, other_turn, 0, b"of another task")
    worker.leave(slot, turn, 1, {"a": 1})
    assert client.recover(slot, turn, os.getpid()) == [b"bytes as they are", {"a": 1}]
    assert client.recover(slot, turn + 1, os.getpid()) == []
    assert client.recover(slot, turn, os.getpid() + 1) == []


def test_a_large_result_is_not_left(boards: tuple[Board, Board]) -> None:
    """Of a large result it is noted that there was one; it is lost with its process."""
    client, worker = boards
    slot, turn = client.acquire()
    worker.leave(slot, turn, 0, bytes(SPOOLED + 1))
    worker.leave(slot, turn, 1, b"small")
    assert client.recover(slot, turn, os.getpid()) == [None, b"small"]


def test_files_of_results_are_bounded(boards: tuple[Board, Board], tmp_path: Path) -> None:
    """However much is left, two files of 8 MiB hold it; the newest result is there."""
    client, worker = boards
    for number in range(40):
        slot, turn = client.acquire()
        worker.leave(slot, turn, 0, bytes([number]) * (1 << 20))
    assert client.recover(slot, turn, os.getpid()) == [bytes([39]) * (1 << 20)]
    files = [path for path in tmp_path.iterdir() if path.name != "board"]
    assert len(files) == 2
    assert sum(path.stat().st_size for path in files) < 17 << 20
    client.remove_spools(os.getpid())
    assert [path.name for path in tmp_path.iterdir()] == ["board"]


def test_results_begin_where_the_files_still_have_them(boards: tuple[Board, Board]) -> None:
    """Of a task whose first results were overwritten nothing counts as recovered."""
    client, worker = boards
    slot, turn = client.acquire()
    for index in range(40):
        worker.leave(slot, turn, index, bytes(1 << 20))
    assert client.recover(slot, turn, os.getpid()) == []
