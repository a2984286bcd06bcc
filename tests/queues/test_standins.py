"""The lifecycle of clusters of jobs, over stand-ins for the commands of four kinds of queue.

None of these queues can be had here. The stand-ins (tests/services/fakeq) prove what daskexec does
with what a queue says, nothing about real sites.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import Any

import pytest
from daskexec_testing import calls
from daskexec_testing.gates import eventually
from daskexec_testing.processes import marked
from daskexec_testing.standins import REMOVE, Queue

from daskexec import ClusterStartFailed, DaskExecutor
from daskexec.config import ClusterConfig
from daskexec.kinds import open_cluster

pytest.importorskip("dask_jobqueue")

pytestmark = pytest.mark.timeout(120)

LIMIT = 60

MORE = {"htcondor": {"disk": "100MB"}, "lsf": {"lsf_units": "MB"}}
"""What a kind of queue wants to be told beside cores and memory."""


@pytest.fixture(params=sorted(REMOVE))
def queue(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Queue]:
    """Each of the queues in turn; it must be empty at the end, and no process be left."""
    monkeypatch.setattr("daskexec.kinds._job_book.JobBook.next_look", lambda book: 0.2)
    made = Queue(request.param, tmp_path, monkeypatch)
    yield made
    assert made.open_jobs() == []
    eventually(lambda: not marked(made.mark), "the jobs' processes have ended")


def config(queue: Queue, kwargs: dict[str, Any] | None = None, **more: Any) -> ClusterConfig:
    told = {
        "cores": 1,
        "memory": "400MB",
        "interface": "lo",
        "death_timeout": 60,
        "queue": "short",
        **MORE.get(queue.kind, {}),
        **(kwargs or {}),
    }
    if queue.kind == "htcondor":
        del told["queue"]  # it has none
    dask_config = {"distributed.deploy.lost-worker-timeout": "1s"}
    return ClusterConfig(
        f"my{queue.kind}", queue.kind, cluster_kwargs=told, dask_config=dask_config, **more
    )


def test_from_start_to_end(queue: Queue) -> None:
    """Jobs are submitted and run calls; one that somebody removes is replaced; then all go."""
    with DaskExecutor(cluster=config(queue, scale={"jobs": 1})) as executor:
        before = executor.submit(calls.pid).result(LIMIT)
        (first,) = queue.open_jobs()
        queue.remove(first)
        eventually(lambda: queue.open_jobs() not in ([], [first]), "another job is there", LIMIT)
        assert executor.submit(calls.pid).result(LIMIT) != before
        (second,) = queue.open_jobs()
    assert queue.phases() == {first: "ended", second: "ended"}


def test_refused(queue: Queue) -> None:
    """A refused submission is an error with the queue's words; nothing was started."""
    queue.set("reject", "project 'physics' has no hours left")
    with pytest.raises(ClusterStartFailed, match="project 'physics' has no hours left"):
        open_cluster(config(queue, insecure=True))
    assert queue.phases() == {}


@pytest.mark.parametrize("use_stdin", [True, False])
@pytest.mark.parametrize("queue", ["lsf"], indirect=True)
def test_both_ways_to_submit_to_lsf(queue: Queue, use_stdin: bool) -> None:
    """A script goes to bsub on its standard input or as a file; a directive is refused aloud."""
    queue.set("hold")
    told = {"use_stdin": use_stdin}
    running = open_cluster(config(queue, told, insecure=True))
    try:
        assert len(queue.open_jobs()) == 1
    finally:
        running.close()
    wrong = {**told, "job_extra_directives": ["--gres=gpu:1"]}
    with pytest.raises(ClusterStartFailed, match="--gres=gpu:1: Illegal option"):
        open_cluster(config(queue, wrong, insecure=True))


@pytest.mark.parametrize("queue", ["pbs", "moab"], indirect=True)
def test_a_directive_of_another_queue(queue: Queue) -> None:
    """A directive that the queue does not know is refused, and the message quotes it."""
    wrong = {"job_extra_directives": ["--gres=gpu:1"]}
    with pytest.raises(ClusterStartFailed, match="illegal option in: #PBS --gres=gpu:1"):
        open_cluster(config(queue, wrong, insecure=True))


def test_a_job_that_dies_at_once(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs that end before their workers join end the wait, with the last lines of a log."""
    monkeypatch.setattr("daskexec.kinds._job_book.ENOUGH", 1)
    broken = config(queue, {"python": "/nowhere/bin/python"}, scale={"jobs": 1}, insecure=True)
    with (
        DaskExecutor(cluster=broken) as executor,
        pytest.raises(BrokenExecutor, match=r"(?s)exit code 127.*/nowhere/bin/python") as caught,
    ):
        executor.submit(calls.identity, 1).result(LIMIT)
    assert "ended before their workers joined" in str(caught.value)


def test_a_job_that_is_killed(queue: Queue) -> None:
    """A job that dies on its host is replaced by another one, which works."""
    queue.set("kill")
    with DaskExecutor(cluster=config(queue, scale={"jobs": 1}, insecure=True)) as executor:
        future = executor.submit(calls.identity, 1)
        eventually(lambda: "ended" in queue.phases().values(), "the first job dies", LIMIT)
        queue.unset("kill")
        assert future.result(LIMIT) == 1
        assert len(queue.open_jobs()) == 1


def test_a_job_that_waits(queue: Queue) -> None:
    """Why a job waits is said in the queue's words; a waiting job goes when all ends."""
    queue.set("hold", "not enough free nodes")
    running = open_cluster(config(queue, scale={"jobs": 2}, insecure=True))
    try:
        words = "IDLE" if queue.kind == "htcondor" else "not enough free nodes"
        eventually(lambda: words in running.trouble()[1], f"{words} is told", LIMIT)
        assert not running.trouble()[0]
        assert list(queue.phases().values()) == ["waiting", "waiting"]
    finally:
        running.close()
        running.close()
