"""The board of begun tasks: what outlives a process."""

from __future__ import annotations

import marshal
import os
import pickle
import random
import struct
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from daskexec._board import (
    FINISHED,
    INITIALIZING,
    PLAIN_KIND,
    RUNNING,
    SLOTS,
    SPOOLED,
    Board,
    path_in,
    remove_spools,
)


@pytest.fixture
def boards(tmp_path: Path) -> Iterator[tuple[Board, Board]]:
    """The client's board and a worker's, on one file."""
    client = Board(path_in(str(tmp_path), "a"), create=True)
    worker = Board(path_in(str(tmp_path), "a"))
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


def test_unused_slots_take_no_memory(tmp_path: Path) -> None:
    """An executor may be kept long after its end, and has a board."""
    tracemalloc.start()
    try:
        board = Board(tmp_path / "board", create=True)
        assert tracemalloc.get_traced_memory()[0] < 50_000
        board.close()
    finally:
        tracemalloc.stop()


def test_a_released_slot_is_nobody_s(boards: tuple[Board, Board]) -> None:
    """A task that is over must not run, though its slot was not handed out again yet."""
    client, worker = boards
    slot, turn = client.acquire()
    client.release(slot)
    assert not worker.has_turn(slot, turn)


def test_a_barred_slot_is_not_begun(boards: tuple[Board, Board]) -> None:
    """A task that is barred must not run; one that was begun cannot be, and keeps its turn."""
    client, worker = boards
    slot, turn = client.acquire()
    other, other_turn = client.acquire()
    worker.mark(other, RUNNING)
    assert client.bar(slot)
    assert not worker.has_turn(slot, turn)
    assert not client.bar(other)
    assert worker.has_turn(other, other_turn)


def test_results_are_recovered(boards: tuple[Board, Board]) -> None:
    """Small results that were left are found, in order, by slot and turn."""
    client, worker = boards
    slot, turn = client.acquire()
    other, other_turn = client.acquire()
    leave, leave_other = worker.trail(slot, turn, 3), worker.trail(other, other_turn, 1)
    leave(0, b"bytes as they are")
    leave_other(0, b"of another task")
    leave(1, {"a": 1})
    leave(2, marshal.dumps("plain"), PLAIN_KIND)
    found = client.recover(slot, turn, os.getpid())
    assert found[:2] == [b"bytes as they are", {"a": 1}]
    assert pickle.loads(found[2]) == "plain"
    assert client.recover(slot, turn + 1, os.getpid()) == []
    assert client.recover(slot, turn, os.getpid() + 1) == []


def test_a_large_result_is_not_left(boards: tuple[Board, Board]) -> None:
    """Of a large result it is noted that there was one; it is lost with its process."""
    client, worker = boards
    slot, turn = client.acquire()
    leave = worker.trail(slot, turn, 2)
    leave(0, bytes(SPOOLED + 1))
    leave(1, b"small")
    assert client.recover(slot, turn, os.getpid()) == [None, b"small"]


def test_files_of_results_are_bounded(boards: tuple[Board, Board], tmp_path: Path) -> None:
    """However much is left, two files of some 8 MiB hold it; the newest result is there."""
    client, worker = boards
    for number in range(40):
        slot, turn = client.acquire()
        worker.trail(slot, turn, 1)(0, bytes([number]) * (1 << 20))
    assert client.recover(slot, turn, os.getpid()) == [bytes([39]) * (1 << 20)]
    files = [path for path in tmp_path.iterdir() if path.name != "board-a"]
    assert len(files) == 2
    assert sum(path.stat().st_size for path in files) < 17 << 20
    remove_spools(str(tmp_path), os.getpid())
    assert [path.name for path in tmp_path.iterdir()] == ["board-a"]


def test_results_begin_where_the_files_still_have_them(boards: tuple[Board, Board]) -> None:
    """Of a task whose first results were overwritten these count as lost, not as never begun."""
    client, worker = boards
    slot, turn = client.acquire()
    leave = worker.trail(slot, turn, 40)
    for index in range(40):
        leave(index, bytes([index]) * (1 << 20))
    found = client.recover(slot, turn, os.getpid())
    kept = [body for body in found if body is not None]
    assert len(found) == 40
    assert 0 < len(kept) < 40
    assert kept == [bytes([index]) * (1 << 20) for index in range(40)][-len(kept) :]


def test_the_largest_results_are_left(boards: tuple[Board, Board]) -> None:
    """Of values of 4 MiB the last two are always there, and so is what is small behind them."""
    client, worker = boards
    slots = [client.acquire() for _ in range(7)]
    bodies = [pickle.dumps(bytes([number]) * (4 << 20), 5) for number in range(7)]
    for number, (slot, turn) in enumerate(slots):
        worker.trail(slot, turn, 1)(0, bodies[number])
        last = slots[max(0, number - 1) : number + 1]
        found = [client.recover(*one, os.getpid()) for one in last]
        assert found == [[body] for body in bodies[max(0, number - 1) : number + 1]]
    slot, turn = client.acquire()
    worker.trail(slot, turn, 1)(0, b"small")
    assert client.recover(slot, turn, os.getpid()) == [b"small"]
    assert client.recover(*slots[-1], os.getpid()) == [bodies[-1]]


def _leave_much(client: Board, worker: Board) -> None:
    """Fill both files, and begin them anew."""
    for _ in range(20):
        worker.trail(*client.acquire(), 1)(0, bytes(1 << 20))


def test_a_file_is_written_to_again(boards: tuple[Board, Board], tmp_path: Path) -> None:
    """What is full is begun anew, which is fast; unless a task still writes there."""
    client, worker = boards

    def files() -> set[int]:
        return {path.stat().st_ino for path in tmp_path.iterdir() if path.name != "board-a"}

    _leave_much(client, worker)
    before = files()
    assert len(before) == 2
    _leave_much(client, worker)
    assert files() == before
    slot, turn = client.acquire()
    leave = worker.trail(slot, turn, 1000)
    leave(0, b"first")
    _leave_much(client, worker)
    assert len(files() - before) == 1
    others = [client.acquire() for _ in range(3)]
    for other in others[:2]:
        worker.trail(*other, 1)(0, bytes(100))
    leave(1, b"second")  # to its place in the file that is no more
    worker.trail(*others[2], 1)(0, bytes(100))
    for other in others:
        assert client.recover(*other, os.getpid()) == [bytes(100)]


def test_nothing_is_found_that_was_not_left(boards: tuple[Board, Board]) -> None:
    """Whatever was written to a file before, what is found there is what was left since."""
    client, worker = boards
    rng = random.Random(3)
    # Bytes that look like records, wherever they are cut.
    slot, turn = client.acquire()
    forged = struct.pack("<IIIIH", slot, turn, 0, 4, 1) + b"evil"
    bodies = [forged * (size // len(forged)) for size in (50, 3000, 30_000, 300_000, 3_000_000)]
    for number in range(200):
        leave = worker.trail(*client.acquire(), rng.choice([1, 70, 1000]))
        for index in range(rng.choice([1, 1, 5])):
            leave(index, rng.choice(bodies))
        worker._reserve(rng.choice([1, 10_000]))  # its process has died before it wrote there
        assert client.recover(slot, turn, os.getpid()) == [], number


@pytest.mark.parametrize("size", range(1, 25))
def test_small_results_are_recovered_whatever_their_size(
    boards: tuple[Board, Board], size: int
) -> None:
    """Wherever the room of one task ends, what the next one leaves is found."""
    client, worker = boards
    tasks = [client.acquire() for _ in range(3)]
    body = bytes(range(1, size + 1))
    calls = 4000  # more than one room
    trails = [worker.trail(slot, turn, calls) for slot, turn in tasks]
    for index in range(calls):
        for leave in trails:
            leave(index, body)
    for slot, turn in tasks:
        assert client.recover(slot, turn, os.getpid()) == [body] * calls


def test_taken_over(boards: tuple[Board, Board], tmp_path: Path) -> None:
    """Who goes on with a board hands out no slot that is in use, and marks are as they were."""
    client, worker = boards
    slot, turn = client.acquire()
    worker.mark(slot, RUNNING)
    heir = Board(client.path, held={slot})
    assert heir.read(slot) == (os.getpid(), RUNNING)
    assert worker.has_turn(slot, turn)
    assert slot not in {heir.acquire()[0] for _ in range(SLOTS - 1)}
    assert heir.acquire() == (-1, 0)
    heir.release(slot)
    assert heir.acquire()[0] == slot
    heir.remove()
    assert list(tmp_path.iterdir()) == []
