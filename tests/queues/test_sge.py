"""A cluster on a real Grid Engine."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from pathlib import Path

import pytest
from daskexec_testing import calls
from daskexec_testing.gates import Gates, eventually
from daskexec_testing.queues import Queue, command

from daskexec import ClusterStartFailed, DaskExecutor, get_executor
from daskexec.config import ClusterConfig
from daskexec.kinds import open_cluster
from daskexec.logs import analyze
from daskexec.logs.demo import write_demo

Configs = Callable[..., ClusterConfig]

LIMIT = 60


@pytest.mark.timeout(180)
def test_the_log_job(sge: Queue, config: Configs, tmp_path: Path) -> None:
    """The report of the log job is that of this machine."""
    write_demo(tmp_path / "demo")
    files = sorted((tmp_path / "demo").glob("access.log*"))
    with get_executor("serial") as executor:
        here = analyze(files, executor).to_json()
    with DaskExecutor(cluster=config("sge", scale={"jobs": 2})) as executor:
        assert executor.submit(os.getenv, "JOB_ID").result(LIMIT) in sge.jobs()
        assert analyze(files, executor).to_json() == here
        assert len(sge.jobs()) == 2


@pytest.mark.timeout(180)
def test_adapt(sge: Queue, config: Configs, gates: Gates) -> None:
    """From no job at all a load brings two, and idleness none again."""
    adapt = {"minimum_jobs": 0, "maximum_jobs": 2, "interval": "500ms", "wait_count": 4}
    with DaskExecutor(cluster=config("sge", adapt_kwargs=adapt)) as executor:
        assert sge.is_empty()
        started, release = [gates.gate(), gates.gate()], gates.gate()
        held = [executor.submit(calls.hold, gate, release, 1) for gate in started]
        held += [executor.submit(calls.nap, 0.01, 1) for _ in range(200)]
        for gate in started:
            gate.wait(LIMIT)
        assert len(sge.jobs()) == 2
        release.open()
        assert [future.result(LIMIT) for future in held] == [1] * len(held)
        eventually(sge.is_empty, "idle jobs are given back", LIMIT)


def test_a_refused_submission(sge: Queue, config: Configs) -> None:
    """It raises at once, with what qsub said."""
    with pytest.raises(ClusterStartFailed, match=r'unknown queue "nosuch.q"'):
        DaskExecutor(cluster=config("sge", {"queue": "nosuch.q"}))


def test_a_job_that_dies_at_once(sge: Queue, config: Configs) -> None:
    """Calls fail with the exit code that Grid Engine has noted, and the end of the log."""
    made = config("sge", {"python": "/nosuch/python"}, scale={"jobs": 3})
    with DaskExecutor(cluster=made) as executor:
        with pytest.raises(BrokenExecutor) as caught:
            executor.submit(calls.add, 1, 2).result(LIMIT)
        assert "/nosuch/python: No such file or directory" in str(caught.value)
        assert "exit code 127" in str(caught.value)


def test_jobs_that_cannot_run(sge: Queue, config: Configs, tmp_path: Path) -> None:
    """Jobs that Grid Engine puts in error state are told of with its reason, and removed."""
    logs = tmp_path / "nosuch"
    made = config("sge", {"job_extra_directives": [f"-o {logs}/x/", f"-e {logs}/x/"]})
    with (
        DaskExecutor(cluster=made) as executor,
        pytest.raises(BrokenExecutor, match=r"Eqw \(.*can't open output file"),
    ):
        executor.submit(calls.add, 1, 2).result(LIMIT)


def test_a_deleted_job_is_replaced(sge: Queue, config: Configs) -> None:
    """qdel in mid-work: every result is right, and there is another job."""
    with DaskExecutor(cluster=config("sge", scale={"jobs": 2})) as executor:
        executor._client.wait_for_workers(2, timeout=LIMIT)
        futures = [executor.submit(calls.nap, 0.1, i) for i in range(100)]
        futures[5].result(LIMIT)
        lost = sge.jobs()[0]
        command("qdel", lost)
        assert [future.result(LIMIT) for future in futures] == list(range(100))
        eventually(lambda: len({*sge.jobs()} - {lost}) == 2, "another job", LIMIT)


def test_a_job_that_waits(sge: Queue, config: Configs) -> None:
    """What is known of a job that waits has Grid Engine's reason; closed, it is gone."""
    running = open_cluster(config("sge", {"job_extra_directives": ["-l mem_free=900G"]}))
    try:
        eventually(lambda: "qw (" in running.trouble()[1], running.trouble()[1], LIMIT)
    finally:
        running.close()
    running.close()
