"""Clusters that grow with the work they see, and shrink when it is done."""

from __future__ import annotations

import time

import pytest
from daskexec_testing import calls
from distributed import Client, LocalCluster

from daskexec import DaskExecutor


@pytest.mark.timeout(180)
def test_a_backlog_of_short_calls_grows_it() -> None:
    """From no worker at all, 10,000 calls of 5 ms bring all four; idle, they go again."""
    with (
        LocalCluster(
            n_workers=0, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        cluster.adapt(minimum=0, maximum=4, interval="100ms", wait_count=5)
        with DaskExecutor(cluster=client) as executor:
            futures = [executor.submit(calls.nap, 0.005, i) for i in range(10_000)]
            most = 0
            deadline = time.monotonic() + 120
            while not all(future.done() for future in futures[-50:]):
                most = max(most, len(cluster.workers))
                assert time.monotonic() < deadline, executor.stats()
                time.sleep(0.05)  # what it looks at is Dask's, which tells nobody
            assert [future.result(60) for future in futures] == list(range(10_000))
            assert most == 4
            while cluster.workers:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            # And again from nothing.
            assert executor.submit(calls.identity, 1).result(60) == 1
