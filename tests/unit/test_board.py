"""The board of begun calls: what outlives a process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from daskexec._board import FINISHED, RUNNING, SLOTS, Board


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
    worker.mark(slot, RUNNING)
    assert client.read(slot) == (os.getpid(), RUNNING)


def test_a_slot_given_on_is_another_call_s(boards: tuple[Board, Board]) -> None:
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


def test_a_result_is_recovered(boards: tuple[Board, Board]) -> None:
    """A small result that was left is found by whoever has the slot and the key."""
    client, worker = boards
    slot, _ = client.acquire()
    worker.leave(slot, "key", {"a": 1}, 100)
    assert client.read(slot)[1] == FINISHED
    assert client.recover(slot, "key") == {"a": 1}
    assert client.recover(slot, "another key") is None


def test_a_large_result_is_not_left(boards: tuple[Board, Board]) -> None:
    """A large result is marked as finished, and lost with its process."""
    client, worker = boards
    slot, _ = client.acquire()
    worker.leave(slot, "key", bytes(2 << 20), 2 << 20)
    assert client.read(slot)[1] == FINISHED
    assert client.recover(slot, "key") is None


def test_files_of_results_are_bounded(boards: tuple[Board, Board], tmp_path: Path) -> None:
    """However much is left, two files of 8 MiB hold it; the newest result is there."""
    client, worker = boards
    for number in range(40):
        slot, _ = client.acquire()
        worker.leave(slot, str(number), bytes(1 << 20), 1 << 20)
    assert client.recover(slot, "39") == bytes(1 << 20)
    files = [path for path in tmp_path.iterdir() if path.name != "board"]
    assert len(files) == 2
    assert sum(path.stat().st_size for path in files) < 17 << 20
    client.remove_spools(os.getpid())
    assert [path.name for path in tmp_path.iterdir()] == ["board"]
