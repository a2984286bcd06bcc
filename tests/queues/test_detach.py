"""Leaving a cluster on a real queue, and coming back to it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from daskexec_testing.gates import Gates, eventually
from daskexec_testing.kept import state_folder
from daskexec_testing.processes import Program
from daskexec_testing.queues import Queue

from daskexec import DaskExecutor
from daskexec.config import ClusterConfig

pytestmark = pytest.mark.timeout(240)

Configs = Callable[..., ClusterConfig]

LIMIT = 90

SCRIPT = """
import os, signal, sys
from daskexec import DaskExecutor
from daskexec_testing import calls
from daskexec_testing.gates import Gate, Journal
started, journal = Gate(sys.argv[1]), Journal(sys.argv[2])
executor = DaskExecutor(cluster=sys.argv[3])
futures = [executor.submit(calls.nap_and_note, 0.05, journal, i) for i in range(400)]
futures[0].result()
"""


@pytest.fixture(autouse=True)
def state(tmp_path: Path, gates: Gates) -> Iterator[Path]:
    with state_folder(tmp_path / "state") as folder:
        yield folder


def test_jobs_of_a_killed_client(
    slurm: Queue, config: Configs, tmp_path: Path, gates: Gates
) -> None:
    """When the client is killed its jobs leave the queue."""
    started = gates.gate()
    program = Program(
        SCRIPT + "started.open()\nfutures[-1].result()\n",
        tmp_path,
        *(started.path, gates.journal().path, config("slurm", scale={"jobs": 2}).source),
    )
    started.wait(LIMIT)
    assert slurm.jobs()
    program.signal(signal.SIGKILL)
    ended = program.end(grace=30)
    assert not ended.processes, ended.processes_told
    eventually(slurm.is_empty, "its jobs are gone")


def test_left_and_regained(slurm: Queue, config: Configs, tmp_path: Path, gates: Gates) -> None:
    """Left, the jobs run on without their client; another has all results; each call ran once."""
    journal = gates.journal()
    program = Program(
        SCRIPT
        + "executor.detach('night', futures=futures)\nos.kill(os.getpid(), signal.SIGKILL)\n",
        tmp_path,
        *("", journal.path, config("slurm", scale={"jobs": 2}).source),
    )
    out, err = program.process.communicate(timeout=LIMIT)
    assert (program.process.returncode, out, err) == (-signal.SIGKILL, "", "")
    assert slurm.jobs()
    with DaskExecutor.attach("night") as executor:
        assert [executor.futures[i].result(LIMIT) for i in range(400)] == list(range(400))
        assert executor.submit(pow, 2, 8).result(LIMIT) == 256
    assert sorted(map(int, journal.lines())) == list(range(400))
    eventually(slurm.is_empty, "its jobs are gone")
    assert not program.end(grace=20).processes
