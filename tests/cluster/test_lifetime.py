"""Workers that leave at a known time, as those of a queue's jobs do, and are replaced."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, wait
from contextlib import contextmanager
from pathlib import Path

import pytest
from daskexec_testing import calls
from daskexec_testing.gates import Gates
from daskexec_testing.processes import Cluster, running_cluster

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.filterwarnings("ignore:DaskExecutor is waiting"),
]

LIMIT = 150


@contextmanager
def replaced(cluster: Cluster, places: int, *options: str) -> Iterator[None]:
    """Workers that end; one that has ended is replaced, as a queue's jobs are."""
    over = threading.Event()

    def replace() -> None:
        number = 0
        running = []
        while not over.is_set():
            running = [process for process in running if process.poll() is None]
            while len(running) < places:
                number += 1
                cluster.add_worker(f"w{number}", 1, "--no-nanny", *options)
                running.append(cluster.workers[-1])
            over.wait(0.1)

    thread = threading.Thread(target=replace)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_calls_outlive_their_workers(tmp_path: Path, gates: Gates) -> None:
    """60 calls of a second end right on workers that live for 8 s, and most of them run once."""
    from daskexec import DaskExecutor

    journal = gates.journal()
    with (
        running_cluster(tmp_path, 0) as cluster,
        replaced(cluster, 3, "--lifetime", "8s", "--lifetime-stagger", "2s"),
        DaskExecutor(cluster=cluster.address) as executor,
    ):
        futures = [
            executor.submit(calls.note_and_nap, journal, i, 0.8 + 0.4 * (i % 2)) for i in range(60)
        ]
        assert not wait(futures, timeout=LIMIT).not_done
        assert [future.result() for future in futures] == list(range(60))
    begun = Counter(journal.lines())
    assert len(begun) == 60
    assert sum(times > 1 for times in begun.values()) <= 6, begun


def test_a_call_that_takes_longer_than_workers_live(tmp_path: Path, gates: Gates) -> None:
    """It fails and says so, after it had nearly all of a worker's life twice; others end well."""
    from daskexec import DaskExecutor, WorkerDied

    with (
        running_cluster(tmp_path, 0) as cluster,
        replaced(cluster, 2, "--lifetime", "6s"),
        DaskExecutor(cluster=cluster.address) as executor,
    ):
        endless = executor.submit(calls.wait_for, gates.gate())
        futures = [executor.submit(calls.nap, 0.5, i) for i in range(10)]
        with pytest.raises(WorkerDied) as caught:
            endless.result(LIMIT)
        assert [future.result(LIMIT) for future in futures] == list(range(10))
        gates.open_all()
    assert isinstance(caught.value, BrokenExecutor)
    assert "times by the end of its worker's lifetime of 6 s" in caught.value.reason
    assert "walltime" in str(caught.value)


def test_large_results_of_workers_that_leave(tmp_path: Path, gates: Gates) -> None:
    """Results of 20 MB are fetched before their worker ends: no call runs again for them."""
    from daskexec import DaskExecutor

    journal = gates.journal()
    with (
        running_cluster(tmp_path, 0) as cluster,
        replaced(cluster, 2, "--lifetime", "7s"),
        DaskExecutor(cluster=cluster.address) as executor,
    ):
        futures = [
            executor.submit(calls.note_and_fill, journal, i, 0.7, 20_000_000) for i in range(20)
        ]
        assert not wait(futures, timeout=LIMIT).not_done
        assert {len(future.result()) for future in futures} == {20_000_000}
    begun = Counter(journal.lines())
    assert sum(begun.values()) <= 22, begun
