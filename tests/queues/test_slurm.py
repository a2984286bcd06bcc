"""What a cluster on a real Slurm of two nodes does when all goes well."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from daskexec_testing import calls
from daskexec_testing.gates import Gates, eventually
from daskexec_testing.processes import environment
from daskexec_testing.queues import Queue
from distributed import Client

from daskexec import DaskExecutor
from daskexec.config import ClusterConfig
from daskexec.kinds import open_cluster

Configs = Callable[..., ClusterConfig]

LIMIT = 60


def test_calls_run_in_jobs(slurm: Queue, config: Configs) -> None:
    """Calls run in jobs of the queue, encrypted; with the executor all of it ends."""
    with DaskExecutor(cluster=config("slurm", scale={"jobs": 2})) as executor:
        assert executor.submit(os.getenv, "SLURM_JOB_ID").result(LIMIT) in slurm.jobs()
        assert executor._client.scheduler.address.startswith("tls://")
        assert list(executor.map(calls.add, range(100), range(100))) == list(range(0, 200, 2))
        assert len(slurm.jobs()) == 2


def test_keys_are_the_users_alone(slurm: Queue, config: Configs, tmp_path: Path) -> None:
    """While a cluster runs its key can be read by nobody else; unencrypted there is none."""
    running = open_cluster(config("slurm"))
    try:
        (key,) = (tmp_path / "shared").rglob("worker-key.pem")
        assert key.stat().st_mode & 0o077 == 0
        assert key.parent.stat().st_mode & 0o077 == 0
    finally:
        running.close()
    assert not key.exists()
    running = open_cluster(config("slurm", insecure=True))
    try:
        assert running.address.startswith("tcp://")
        assert running.security is None
        assert not list((tmp_path / "shared").rglob("*.pem"))
    finally:
        running.close()


@pytest.mark.timeout(180)
def test_the_log_job(slurm: Queue, config: Configs, tmp_path: Path) -> None:
    """The report of the log job is that of this machine, to the last byte."""
    demo = tmp_path / "demo"
    made = config("slurm", scale={"jobs": 2})

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "daskexec", "logs", *arguments],
            env=environment("log-job", tmp_path / "tmp"),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("--demo", "--demo-dir", str(demo), "--executor", "serial")
    files = sorted(str(path) for path in demo.iterdir() if ".log" in path.name)
    assert files
    here, there = (
        run("--executor", spec, "--json", "--part-size", "1MiB", *files)
        for spec in ("serial", made.source)
    )
    assert json.loads(here)["files"]
    assert there == here


def test_scale(slurm: Queue, config: Configs) -> None:
    """A running cluster grows and shrinks to the number of jobs that it is asked for."""
    running = open_cluster(config("slurm"))
    try:
        with Client(running.address, security=running.security, set_as_default=False) as client:
            client.wait_for_workers(1, timeout=LIMIT)
            running.scale(3)
            client.wait_for_workers(3, timeout=LIMIT)
            running.scale(1)
            eventually(lambda: len(slurm.running()) == 1, "one job is left", LIMIT)
            eventually(lambda: len(client.scheduler_info()["workers"]) == 1, "and its worker")
    finally:
        running.close()
    running.close()  # a second one returns


@pytest.mark.timeout(180)
def test_adapt(slurm: Queue, config: Configs, gates: Gates) -> None:
    """From no job at all a load brings two, and idleness none again; twice."""
    adapt = {"minimum_jobs": 0, "maximum_jobs": 2, "interval": "500ms", "wait_count": 4}
    with DaskExecutor(cluster=config("slurm", adapt_kwargs=adapt)) as executor:
        assert slurm.is_empty()
        for _ in range(2):
            started, release = [gates.gate(), gates.gate()], gates.gate()
            held = [executor.submit(calls.hold, gate, release, 1) for gate in started]
            # Enough of a backlog: Dask grows when there are over 5 s of work a thread.
            held += [executor.submit(calls.nap, 0.01, 1) for _ in range(200)]
            for gate in started:
                gate.wait(LIMIT)
            assert len(slurm.running()) == 2
            release.open()
            assert [future.result(LIMIT) for future in held] == [1] * len(held)
            eventually(lambda: not slurm.running(), "idle jobs are given back", LIMIT)


@pytest.mark.timeout(180)
def test_many_processes_a_job(slurm: Queue, config: Configs) -> None:
    """A job of several processes that is lost is replaced as a whole."""
    options = {"cores": 2, "processes": 2}
    with DaskExecutor(cluster=config("slurm", options)) as executor:
        executor._client.wait_for_workers(2, timeout=LIMIT)
        (job,) = slurm.jobs()
        subprocess.run(["scancel", job], check=True)
        eventually(lambda: slurm.running() not in ([], [job]), "another job runs", LIMIT)
        assert executor.submit(calls.add, 1, 2).result(LIMIT) == 3
        executor._client.wait_for_workers(2, timeout=LIMIT)
        assert len(slurm.running()) == 1
