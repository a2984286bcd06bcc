"""Fixtures of the log job's tests: real logs where there are any, and every executor."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import Executor, wait
from pathlib import Path

import pytest

from daskexec.select import get_executor

SPECS = ("serial", "threads", "processes", "dask")


@pytest.fixture(scope="session")
def real_logs() -> Path:
    """The folder with real logs: $DASKEXEC_TEST_DATA, or ../shared/data."""
    default = Path(__file__).parents[2].parent / "shared" / "data"
    folder = Path(os.environ.get("DASKEXEC_TEST_DATA", default))
    if not (folder / "elastic_apache_10k.log").is_file():
        pytest.skip(f"no real logs in {folder} (set DASKEXEC_TEST_DATA)")
    return folder


@pytest.fixture(scope="session", params=SPECS)
def any_executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    """Each kind of executor in turn, two workers each."""
    options = {}
    if request.param == "processes":
        # Not fork: other tests may have left threads in this process.
        options["mp_context"] = multiprocessing.get_context("spawn")
    with get_executor(request.param, 2, **options) as executor:
        wait([executor.submit(time.sleep, 0.05) for _ in range(2)])  # its threads are there
        yield executor
