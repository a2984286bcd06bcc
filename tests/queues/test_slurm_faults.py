"""What a cluster on a real Slurm does when jobs are refused, die, or are lost."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import textwrap
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, wait
from pathlib import Path

import dask
import psutil
import pytest
from daskexec_testing import calls
from daskexec_testing.gates import Gates, eventually
from daskexec_testing.processes import Program
from daskexec_testing.queues import SERVICES, Queue, command

from daskexec import ClusterStartFailed, DaskExecutor, ExecutorWarning, WorkerDied
from daskexec.config import ClusterConfig
from daskexec.kinds import open_cluster

Configs = Callable[..., ClusterConfig]

LIMIT = 60


def test_a_refused_submission(slurm: Queue, config: Configs) -> None:
    """It raises at once: what sbatch said, its command, and the config's file."""
    made = config("slurm", {"queue": "nosuch"}, scale={"jobs": 2})
    with pytest.raises(ClusterStartFailed) as caught:
        DaskExecutor(cluster=made)
    said = str(caught.value)
    assert "invalid partition specified: nosuch" in said
    assert "sbatch" in said
    assert made.source in said


def test_refused_when_it_would_grow(slurm: Queue, config: Configs) -> None:
    """Where jobs are asked for by load, their refusal breaks the executor, in Slurm's words."""
    made = config(
        "slurm", {"queue": "nosuch"}, adapt_kwargs={"maximum_jobs": 2, "interval": "500ms"}
    )
    with DaskExecutor(cluster=made) as executor:
        future = executor.submit(calls.add, 1, 2)
        with pytest.raises(BrokenExecutor, match="invalid partition specified: nosuch"):
            future.result(LIMIT)


def test_a_job_that_dies_at_once(slurm: Queue, config: Configs) -> None:
    """Every call fails with the state that Slurm gives, and the end of the job's log."""
    made = config("slurm", {"python": "/nosuch/python"}, scale={"jobs": 2})
    with DaskExecutor(cluster=made) as executor:
        futures = [executor.submit(calls.add, i, i) for i in range(20)]
        assert not wait(futures, LIMIT).not_done
        for future in futures:
            with pytest.raises(BrokenExecutor) as caught:
                future.result()
            assert "FAILED (exit code 127)" in str(caught.value)
            assert "/nosuch/python: No such file or directory" in str(caught.value)


def test_a_job_that_waits(slurm: Queue, config: Configs) -> None:
    """A warning says why Slurm lets it wait; at start_timeout so does the calls' error."""
    made = config("slurm", {"queue": "shut"}, start_timeout=8)
    with (
        pytest.warns(ExecutorWarning, match=r"job \d+: PENDING \(PartitionDown\)"),
        DaskExecutor(cluster=made) as executor,
        pytest.raises(BrokenExecutor, match=r"job \d+: PENDING \(PartitionDown\)"),
    ):
        executor.submit(calls.add, 1, 2).result(LIMIT)


def test_a_cancelled_job_is_replaced(slurm: Queue, config: Configs) -> None:
    """scancel in mid-work: every result is right, and there are two jobs again."""
    with DaskExecutor(cluster=config("slurm", scale={"jobs": 2})) as executor:
        executor._client.wait_for_workers(2, timeout=LIMIT)
        jobs = set(slurm.running())
        futures = [executor.submit(calls.nap, 0.1, i) for i in range(100)]
        futures[5].result(LIMIT)
        lost = jobs.pop()
        command("scancel", lost)
        assert [future.result(LIMIT) for future in futures] == list(range(100))
        eventually(
            lambda: len(slurm.running()) == 2 and lost not in slurm.running(), "another job", LIMIT
        )


def test_a_call_that_was_cut_off(slurm: Queue, config: Configs, gates: Gates) -> None:
    """Given up after its jobs were cancelled, a call fails with what Slurm says of the last."""
    once = {"distributed.scheduler.allowed-failures": 0}
    with DaskExecutor(cluster=config("slurm", dask_config=once)) as executor:
        journal = gates.journal()
        future = executor.submit(calls.hold_and_note, gates.gate(), gates.gate(), journal, 1)
        cancelled: set[str] = set()
        deadline = time.monotonic() + LIMIT
        while not future.done():
            assert time.monotonic() < deadline
            if future.running():
                for job in set(slurm.running()) - cancelled:
                    executor._client.wait_for_workers(1, timeout=LIMIT)
                    command("scancel", job)
                    cancelled.add(job)
            time.sleep(0.1)  # what the queue does, it tells nobody
        error = future.exception()
        assert isinstance(error, WorkerDied)
        assert any(f"its job {job} ended: CANCELLED" in error.reason for job in cancelled)
        assert executor.submit(calls.add, 1, 2).result(LIMIT) == 3


@pytest.mark.timeout(180)
def test_a_node_that_fails(slurm: Queue, config: Configs) -> None:
    """With one of two nodes gone every result is right, and the other node has the jobs."""
    # Three cores of four: one job a node.
    made = config("slurm", {"job_cpu": 3}, scale={"jobs": 2})
    try:
        with DaskExecutor(cluster=made) as executor:
            executor._client.wait_for_workers(2, timeout=LIMIT)
            futures = [executor.submit(calls.nap, 0.1, i) for i in range(100)]
            futures[5].result(LIMIT)
            _kill_node(slurm, "n2")
            assert [future.result(LIMIT) for future in futures] == list(range(100))
            nodes = command("squeue", "-h", "-t", "R", "-o", "%N").split()
            assert nodes == ["n1"]
    finally:
        command("bash", str(SERVICES / "slurm.sh"), "node", str(slurm.folder), "n2")
        subprocess.run(["scontrol", "update", "NodeName=n2", "State=RESUME"], check=False)
        eventually(lambda: command("sinfo", "-h", "-t", "idle,mix", "-o", "%D") == "2\n", "up", 30)


def _kill_node(slurm: Queue, name: str) -> None:
    """End the daemon of a node and all processes of its jobs, and have Slurm notice."""
    for job in command("squeue", "-h", "-w", name, "-t", "R", "-o", "%A").split():
        for process in psutil.process_iter(["cmdline", "environ"]):
            environ, line = process.info["environ"] or {}, process.info["cmdline"] or []
            if environ.get("SLURM_JOB_ID") == job or f"slurmstepd: [{job}" in " ".join(line):
                process.kill()
    pid = int((slurm.folder / "run" / f"slurmd.{name}.pid").read_text())
    os.kill(pid, signal.SIGKILL)
    command("scontrol", "update", f"NodeName={name}", "State=DOWN", "Reason=test")


def test_workers_leave_in_time(slurm: Queue, config: Configs) -> None:
    """Workers that leave before their walltime is over cost no call, and others follow."""
    options = {"worker_extra_args": ["--lifetime", "6s"]}
    with DaskExecutor(cluster=config("slurm", options, scale={"jobs": 2})) as executor:
        jobs = [executor.submit(_job_after, 0.2) for _ in range(100)]
        seen = {future.result(LIMIT) for future in jobs}
    assert len(seen) > 2


def _job_after(seconds: float) -> str:
    time.sleep(seconds)
    return os.environ["SLURM_JOB_ID"]


@pytest.mark.timeout(240)
def test_the_walltime(slurm: Queue, config: Configs) -> None:
    """Jobs of one minute that Slurm ends in mid-work are replaced; every result is right."""
    options = {"walltime": "00:01:00", "worker_extra_args": ["--lifetime", "1h"]}
    with DaskExecutor(cluster=config("slurm", options, scale={"jobs": 2})) as executor:
        executor._client.wait_for_workers(2, timeout=LIMIT)
        first = set(slurm.running())
        futures = [executor.submit(calls.nap, 0.5, i) for i in range(400)]
        assert [future.result(180) for future in futures] == list(range(400))
        ended = command("squeue", "-h", "-t", "all", "-o", "%A %T").splitlines()
        assert {f"{job} TIMEOUT" for job in first} <= set(ended)


def test_interrupted(slurm: Queue, config: Configs, tmp_path: Path, gates: Gates) -> None:
    """Ctrl-C in a program with jobs in the queue: KeyboardInterrupt, and no job is left."""
    made = config("slurm", scale={"jobs": 2})
    working = gates.gate()
    program = Program(
        textwrap.dedent(f"""
            import time
            from pathlib import Path
            from daskexec import DaskExecutor

            with DaskExecutor(cluster={made.source!r}) as executor:
                list(executor.map(abs, range(10)))
                Path({working.path!r}).touch()
                list(executor.map(time.sleep, [0.5] * 60))
        """),
        tmp_path,
    )
    working.wait(LIMIT)
    os.killpg(program.process.pid, signal.SIGINT)  # as a terminal does: the whole group
    ended = program.end(grace=30)  # its jobs have its mark, too
    assert ended.code in (1, -signal.SIGINT)
    assert ended.err.count("Traceback") == 1, ended.err
    assert ended.err.rstrip().endswith("KeyboardInterrupt")
    assert not ended.processes, ended.processes_told


def test_closed_twice(slurm: Queue, config: Configs) -> None:
    """A cluster that was closed while its job waits leaves the queue empty; again is nothing."""
    running = open_cluster(config("slurm", {"queue": "shut"}))
    assert len(slurm.jobs()) == 1
    running.close()
    assert slurm.is_empty()
    running.close()


def test_settings_of_dask(slurm: Queue, config: Configs) -> None:
    """A config's settings of Dask are in force while its cluster runs, and put back by its end."""
    name = "distributed.deploy.lost-worker-timeout"
    before = dask.config.get(name)
    for queue in ("shut", "nosuch"):
        made = config("slurm", {"queue": queue}, dask_config={name: "7s"})
        with contextlib.suppress(ClusterStartFailed):
            running = open_cluster(made)
            assert dask.config.get(name) == "7s"
            running.close()
        assert dask.config.get(name) == before
