"""Clusters that grow with the work they see, and shrink when it is done."""

from __future__ import annotations

import time

import pytest
from daskexec_testing import calls

from daskexec import ClusterConfig, DaskExecutor


@pytest.mark.timeout(180)
def test_a_backlog_of_short_calls_grows_it() -> None:
    """From no worker at all, 10,000 calls of 5 ms bring all four; idle, they go again."""
    bounds = {"minimum": 0, "maximum": 4, "interval": "100ms", "wait_count": 5}
    with DaskExecutor(cluster=ClusterConfig("grows", "local", adapt=bounds)) as executor:

        def workers() -> int:
            return len(executor._client.nthreads())

        futures = [executor.submit(calls.nap, 0.005, i) for i in range(10_000)]
        most = 0
        deadline = time.monotonic() + 120
        while not all(future.done() for future in futures[-50:]):
            most = max(most, workers())
            assert time.monotonic() < deadline, executor.stats()
            time.sleep(0.05)  # what it looks at is Dask's, which tells nobody
        assert [future.result(60) for future in futures] == list(range(10_000))
        assert most == 4
        while workers():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        # And again from nothing.
        assert executor.submit(calls.identity, 1).result(60) == 1
