"""Cancelling races with finishing: every future ends, and its waiters wake."""

from __future__ import annotations

from concurrent.futures import Executor, Future, as_completed, wait
from threading import Thread

import pytest
from daskexec_testing import calls
from daskexec_testing.gates import Gates


def _cancel_all(futures: list[Future[object]]) -> None:
    for future in futures:
        future.cancel()


@pytest.mark.timeout(90)
def test_every_future_ends(executor: Executor, gates: Gates) -> None:
    """400 calls cancelled while they finish all end, with their result or cancelled."""
    journal = gates.journal()
    futures: list[Future[object]] = []
    for i in range(400):
        futures.append(executor.submit(calls.note, journal, i))
        if i % 2:
            futures[i - 1].cancel()
    thread = Thread(target=_cancel_all, args=(futures[::-3],))
    thread.start()
    done, not_done = wait(futures, timeout=30)
    thread.join()
    assert not not_done
    assert len(done) == 400
    ran = set(map(int, journal.lines()))
    for i, future in enumerate(futures):
        assert future.cancelled() == (i not in ran)
        if i in ran:
            assert future.result() == i


def test_as_completed_wakes(executor: Executor) -> None:
    """as_completed returns cancelled and finished futures alike, each once."""
    futures = [executor.submit(calls.identity, i) for i in range(200)]
    thread = Thread(target=_cancel_all, args=(futures[::2],))
    thread.start()
    seen = list(as_completed(futures, timeout=30))
    thread.join()
    assert len(seen) == 200
    assert set(seen) == set(futures)


def test_cancel_is_final(executor: Executor) -> None:
    """A future whose cancel() returned True stays cancelled."""
    futures = [executor.submit(calls.identity, i) for i in range(200)]
    said = [future.cancel() for future in futures]
    assert not wait(futures, timeout=30).not_done
    assert [future.cancelled() for future in futures] == said
