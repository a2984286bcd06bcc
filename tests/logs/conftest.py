"""Fixtures of the log job's tests: real logs where there are any, and every executor."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import Executor, wait
from contextlib import ExitStack
from pathlib import Path

import pytest
from daskexec_testing.processes import running_cluster

from daskexec.select import get_executor

SPECS = ("serial", "threads", "processes", "dask", "address")


@pytest.fixture(scope="session")
def real_logs() -> Path:
    """The folder with real logs: $DASKEXEC_TEST_DATA, or ../shared/data."""
    default = Path(__file__).parents[2].parent / "shared" / "data"
    folder = Path(os.environ.get("DASKEXEC_TEST_DATA", default))
    if not (folder / "elastic_apache_10k.log").is_file():
        pytest.skip(f"no real logs in {folder} (set DASKEXEC_TEST_DATA)")
    return folder


@pytest.fixture(scope="session", params=SPECS)
def any_executor(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Executor]:
    """Each kind of executor in turn, two workers each; by address, they are programs apart."""
    options = {}
    spec = request.param
    with ExitStack() as stack:
        if spec == "processes":
            # Not fork: other tests may have left threads in this process.
            options["mp_context"] = multiprocessing.get_context("spawn")
        elif spec == "address":
            folder = tmp_path_factory.mktemp("cluster")
            spec = stack.enter_context(running_cluster(folder)).address
        executor = stack.enter_context(get_executor(spec, 2, **options))
        wait([executor.submit(time.sleep, 0.05) for _ in range(2)])  # its threads are there
        yield executor
