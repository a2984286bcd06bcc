"""What a worker of a given cluster leaves for those who ask after its death."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from daskexec import _marks
from daskexec._marks import ENTRIES, begun_by, is_in, keep_left, mark_begun, results_of
from daskexec._pickling import dump


def _key(number: int) -> str:
    return f"f-{'ab' * 10}{number:08x}0001"


class Worker:
    """As much of a worker as is looked at."""

    def __init__(self, folder: Path) -> None:
        self.local_directory = str(folder / "worker-x")


@pytest.fixture
def worker(tmp_path: Path) -> Worker:
    return Worker(tmp_path)


def _begun(worker: Worker, nanny: Any = None) -> tuple[bytes | None, str]:
    return asyncio.run(begun_by(worker.local_directory, os.getpid(), nanny))


def test_what_was_begun_is_told(worker: Worker) -> None:
    """Tasks that were begun are told from others, the last thousand of them."""
    for number in range(ENTRIES + 10):
        mark_begun(worker, _key(number))
    left, said = _begun(worker)
    assert said == ""
    assert left is not None
    assert is_in(left, _key(ENTRIES + 9))
    assert is_in(left, _key(10))
    assert not is_in(left, _key(0))
    assert not is_in(left, _key(ENTRIES + 10))


def test_results_are_told(worker: Worker) -> None:
    """Results of a task's calls are those that were left, of that task alone."""
    for number in (1, 2):
        trail = mark_begun(worker, _key(number))
        assert trail is not None
        leave = trail.trail(-1, 0, 5)
        for index in range(number + 1):
            leave(index, dump((number, index)))
    pid = os.getpid()
    of_two = [[dump((number, index)) for index in range(number + 1)] for number in (2, 1)]
    keys = [_key(2), _key(1), _key(3)]
    assert results_of(worker.local_directory, pid, keys) == [*of_two, []]


def test_nothing_is_there(worker: Worker) -> None:
    """Where nothing was left it is not known what was begun."""
    assert _begun(worker) == (None, "")
    assert results_of(worker.local_directory, os.getpid(), [_key(1)]) is None


def test_it_goes_with_the_worker(worker: Worker, tmp_path: Path) -> None:
    """The files of a worker that ends as it should are removed."""
    mark_begun(worker, _key(1))
    assert [path.name for path in tmp_path.iterdir()] == ["worker-x.daskexec"]
    del _marks._marks[worker]
    gc.collect()
    assert not list(tmp_path.iterdir())


def test_it_outlives_a_worker_that_was_removed(worker: Worker, tmp_path: Path) -> None:
    """Which is asked what it had begun though it ends as it should; and one that came back not."""
    mark_begun(worker, _key(1))
    keep_left(worker, False)
    keep_left(worker, True)
    del _marks._marks[worker]
    gc.collect()
    left, _ = _begun(worker)
    assert left is not None
    assert is_in(left, _key(1))
    other = Worker(tmp_path / "other")
    (tmp_path / "other").mkdir()
    mark_begun(other, _key(1))
    keep_left(other, True)
    keep_left(other, False)
    del _marks._marks[other]
    gc.collect()
    assert not list((tmp_path / "other").iterdir())


def test_what_is_stale_goes(worker: Worker, tmp_path: Path) -> None:
    """The next worker removes what dead ones have left ten minutes ago, and nothing else."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    for name, pid, age in (("old", process.pid, 1e3), ("new", process.pid, 0), ("on", 1, 1e3)):
        folder = tmp_path / f"{name}.daskexec"
        folder.mkdir()
        (folder / "begun").write_bytes(_marks._HEAD.pack(pid, 0))
        then = folder.stat().st_mtime - age
        os.utime(folder, (then, then))
    mark_begun(worker, _key(1))
    left = sorted(path.stem for path in tmp_path.iterdir())
    assert left == ["new", "on", "worker-x"]


@pytest.mark.parametrize(
    ("logged", "words"),
    [
        (("Worker process 7 was killed by signal 11",), "it was killed by SIGSEGV"),
        (("Worker process 7 was killed by signal 9",), "SIGKILL (out of memory?)"),
        (("Worker process 7 exited with status 3",), "it exited with status 3"),
        (
            (
                "Worker tcp://h:1 (pid=7) exceeded 95% memory budget. Restarting...",
                "Worker process 7 was killed by signal 15",
            ),
            "for its memory: it used over 95% of its limit of 2 GiB",
        ),
    ],
)
def test_what_a_nanny_says(worker: Worker, logged: tuple[str, ...], words: str) -> None:
    """The end of the process is what its nanny has logged, its memory first."""
    records = [
        logging.LogRecord("distributed.nanny", logging.INFO, "", 0, message, (), None)
        for message in ("Worker process 77 exited with status 9", *logged)
    ]
    nanny = SimpleNamespace(
        instantiate=None,
        _deque_handler=SimpleNamespace(deque=records),
        memory_manager=SimpleNamespace(memory_limit=2 << 30),
    )
    _, said = asyncio.run(begun_by(worker.local_directory, 7, nanny))
    assert words in said
