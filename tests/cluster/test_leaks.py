"""A thousand executors on one cluster leave no thread, descriptor or future."""

from __future__ import annotations

import gc
import threading

import psutil
import pytest
from daskexec_testing import calls
from daskexec_testing.gates import eventually

WARM_UP = 50
ROUNDS = 1000
SLACK = 5
"""Threads and descriptors that may come and go: pools that fill lazily."""


def _futures() -> int:
    from daskexec import DaskFuture

    gc.collect()
    return sum(isinstance(thing, DaskFuture) for thing in gc.get_objects())


def _counts() -> tuple[int, int]:
    return threading.active_count(), psutil.Process().num_fds()


@pytest.mark.timeout(300)
def test_thousand_rounds_on_one_client() -> None:
    """1,000 times create, use, shutdown on one client: nothing grows after 50 rounds."""
    from distributed import Client, LocalCluster

    from daskexec import DaskExecutor

    with (
        LocalCluster(
            n_workers=1,
            threads_per_worker=2,
            processes=False,
            dashboard_address="127.0.0.1:0",
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):

        def one_round(i: int) -> None:
            with DaskExecutor(cluster=client) as executor:
                future = executor.submit(calls.identity, i)
                assert list(executor.map(calls.add, [i], [1])) == [i + 1]
                assert future.result() == i

        for i in range(WARM_UP):
            one_round(i)
        futures = _futures()
        threads, descriptors = _counts()
        for i in range(ROUNDS - WARM_UP):
            one_round(i)

        def settled() -> bool:
            now_threads, now_descriptors = _counts()
            return now_threads <= threads + SLACK and now_descriptors <= descriptors + SLACK

        eventually(settled, f"back to {threads} threads, {descriptors} descriptors", 10)
        eventually(lambda: _futures() <= futures, "no more futures than before", 10)
        eventually(lambda: not client.futures, "the client holds no future", 10)


@pytest.mark.timeout(200)
def test_rounds_of_own_clusters() -> None:
    """Executors with workers of their own leave nothing either, round after round."""
    from daskexec import DaskExecutor

    def one_round() -> None:
        with DaskExecutor(1) as executor:
            assert executor.submit(calls.identity, 1).result() == 1

    one_round()
    one_round()
    threads, descriptors = _counts()
    for _ in range(10):
        one_round()

    def settled() -> bool:
        now_threads, now_descriptors = _counts()
        return now_threads <= threads + 1 and now_descriptors <= descriptors + 1

    eventually(settled, f"back to {threads} threads, {descriptors} descriptors", 10)


@pytest.mark.timeout(120)
def test_schedulers_of_own_clusters_are_collected() -> None:
    """The scheduler of an executor that was shut down is not kept alive, with all it knows."""
    from distributed import Scheduler

    from daskexec import DaskExecutor

    def schedulers() -> int:
        gc.collect()
        return sum(isinstance(one, Scheduler) for one in gc.get_objects())

    before = schedulers()
    with DaskExecutor(1) as executor:
        assert executor.submit(abs, -1).result(30) == 1
        assert schedulers() == before + 1
    del executor
    eventually(lambda: schedulers() <= before, "the scheduler is collected", 10)


@pytest.mark.timeout(120)
def test_many_futures_dropped() -> None:
    """Thousands of futures, dropped, are gone, here and on the client."""
    from daskexec import DaskExecutor

    with DaskExecutor(1) as executor:
        before = _futures()
        values = [executor.submit(calls.identity, i) for i in range(3000)]
        assert sum(future.result() for future in values) == sum(range(3000))
        del values
        eventually(lambda: _futures() <= before, "the futures are collected", 10)


def test_no_stream_outlives_the_executor() -> None:
    """Each ends with it: asyncio would print of one whose timer fires as the event loop ends."""
    from distributed.batched import BatchedSend

    from daskexec import DaskExecutor

    def streams() -> dict[int, BatchedSend]:
        return {id(thing): thing for thing in gc.get_objects() if isinstance(thing, BatchedSend)}

    for _ in range(8):  # one that nobody ends may end by itself, with a failed last message
        before = streams()  # kept, or a new one could have the id of one that has gone
        with DaskExecutor(2) as executor:
            assert executor.submit(calls.identity, 1).result() == 1
            ours = [stream for name, stream in streams().items() if name not in before]
        assert len(ours) >= 4  # client, scheduler to client, a worker at least, news of workers
        assert [stream for stream in ours if not stream.stopped.is_set()] == []
