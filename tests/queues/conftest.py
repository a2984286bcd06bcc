"""Real batch queues on this machine, and what every test of them must leave: an empty queue."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from daskexec_testing.gates import eventually
from daskexec_testing.queues import SERVICES, Queue, command
from daskexec_testing.services import require

from daskexec.config import ClusterConfig, load_config


def _service(script: str, action: str, *arguments: str) -> None:
    command("bash", str(SERVICES / script), action, *arguments)


def _need(word: str, *programs: str) -> None:
    if importlib.util.find_spec("dask_jobqueue") is None:
        require(word, "needs dask-jobqueue (daskexec[hpc])")
    if os.geteuid() != 0 or not all(map(shutil.which, programs)):
        require(word, f"needs root, and {', '.join(programs)} (.ci/services {word})")


@pytest.fixture(scope="session")
def slurm_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Queue]:
    """A Slurm of two nodes."""
    _need("slurm", "slurmctld", "slurmd", "munged")
    folder = tmp_path_factory.mktemp("slurm")
    port = str(20000 + os.getpid() % 3000 * 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        try:
            _service("slurm.sh", "up", str(folder), port)
            yield Queue("slurm", folder, ("squeue", "-h", "-o", "%A"))
        finally:
            _service("slurm.sh", "down", str(folder))


@pytest.fixture(scope="session")
def sge_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Queue]:
    """A Grid Engine of one host with eight slots."""
    _need("sge", "sge_qmaster", "sge_execd", "qconf", "qstat")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SGE_ROOT", "/var/lib/gridengine")
        try:
            _service("sge.sh", "up")
            yield Queue("sge", tmp_path_factory.mktemp("sge"), ("qstat", "-u", "*"))
        finally:
            _service("sge.sh", "down")


@pytest.fixture
def slurm(slurm_service: Queue) -> Iterator[Queue]:
    """The Slurm, empty before and after."""
    yield from _empty(slurm_service)


@pytest.fixture
def sge(sge_service: Queue) -> Iterator[Queue]:
    """The Grid Engine, empty before and after."""
    yield from _empty(sge_service)


def _empty(queue: Queue) -> Iterator[Queue]:
    eventually(queue.is_empty, "the queue is empty before the test", 30)
    yield queue
    eventually(queue.is_empty, "the queue is empty after the test", 30)


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Callable[..., ClusterConfig]]:
    """Makes configs of small jobs on this machine; their folder of runs is empty afterwards."""
    shared = tmp_path / "shared"

    def make(kind: str, options: dict[str, Any] | None = None, **more: Any) -> ClusterConfig:
        path = os.pathsep.join(
            [str(Path(__file__).parents[2]), str(Path(__file__).parents[1] / "support")]
        )
        own = {
            "cores": 1,
            "memory": "400MB",
            "walltime": "00:10:00",
            "interface": "lo",
            "log_directory": str(tmp_path / "logs"),
            "shared_temp_directory": str(shared),
            "local_directory": str(tmp_path / "scratch"),
            # The code under test, wherever a job starts.
            "job_script_prologue": [f"export PYTHONPATH={path}"],
        }
        quick = {"distributed.deploy.lost-worker-timeout": "3s"}
        file = tmp_path / f"{kind}.yaml"
        text = yaml.safe_dump({
            "kind": kind,
            "cluster_kwargs": {**own, **(options or {})},
            "dask_config": {**quick, **more.pop("dask_config", {})},
            "start_timeout": 60,
            **more,
        })  # fmt: skip
        file.write_text(text)
        return load_config(file)

    yield make
    left = list(shared.rglob("*")) if shared.exists() else []
    assert left == [], "keys or logs of a run are left"
