"""A Dask cluster of processes apart: ``dask scheduler`` and ``dask worker``."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

__all__ = ["Cluster", "dask_cluster"]


@dataclass
class Cluster:
    """A running cluster.

    Attributes
    ----------
    address : str
        Of the scheduler, ``tcp://127.0.0.1:PORT``.
    scheduler : psutil.Process
        Its process.
    """

    address: str
    scheduler: psutil.Process


@contextmanager
def dask_cluster(width: int, limit: float = 60.0) -> Iterator[Cluster]:
    """Start a scheduler and `width` workers of one thread each; end them at the end."""
    dask = [sys.executable, "-m", "dask"]
    here = ["--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0"]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        file = Path(folder, "scheduler.json")
        processes = [
            subprocess.Popen(
                [*dask, "scheduler", *here, "--port", "0", "--scheduler-file", str(file)]
            )
        ]
        try:
            until = time.monotonic() + limit
            while not file.exists():
                if time.monotonic() > until or processes[0].poll() is not None:
                    raise TimeoutError("dask scheduler did not start")
                time.sleep(0.05)
            address: str = json.loads(file.read_text())["address"]
            for _ in range(width):
                command = [*dask, "worker", address, *here, "--nthreads", "1", "--no-nanny"]
                processes.append(subprocess.Popen([*command, "--local-directory", folder]))
            yield Cluster(address, psutil.Process(processes[0].pid))
        finally:
            for process in reversed(processes):
                process.terminate()
            for process in processes:
                try:
                    process.wait(5)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
