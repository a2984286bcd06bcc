"""The scripts that are submitted, for every kind of queue, against files.

``DASKEXEC_WRITE_GOLDEN=1`` writes the files anew; look at what changes.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from daskexec.config import ClusterConfig, load_config
from daskexec.errors import ConfigError

if importlib.util.find_spec("dask_jobqueue") is None:  # an import by itself would set SIGINT
    pytest.skip("needs dask-jobqueue (daskexec[hpc])", allow_module_level=True)

from daskexec.kinds._jobs import new_run_folder
from daskexec.kinds.queues import job_script

GOLDEN = Path(__file__).parent / "golden"

BASE = {
    "cores": 16,
    "memory": "64GiB",
    "python": "/sw/python/bin/python",
    "interface": "ib0",
    "local_directory": "$TMPDIR",
    "log_directory": "/nosuch/logs",
    "shared_temp_directory": "/nosuch/shared",
    "death_timeout": 120,
    "job_script_prologue": ["module load python"],
}
KINDS: dict[str, dict[str, Any]] = {
    "slurm": {"queue": "compute", "account": "abc123", "walltime": "02:00:00"},
    "pbs": {
        "queue": "regular",
        "account": "abc123",
        "walltime": "02:00:00",
        "resource_spec": "select=1:ncpus=16:mem=64GB",
    },
    "sge": {"queue": "all.q", "walltime": "02:00:00", "resource_spec": "m_mem_free=4G"},
    "lsf": {"queue": "normal", "project": "abc", "walltime": "02:00", "lsf_units": "mb"},
    "oar": {"queue": "default", "walltime": "02:00:00"},
    "htcondor": {"disk": "10GB", "job_extra_directives": {"+WantGlidein": "true"}},
    "moab": {"queue": "batch", "account": "abc123", "walltime": "02:00:00"},
}


Made = Callable[..., ClusterConfig]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Loads a config of a kind, with other options."""

    def make(kind: str, options: dict[str, Any] | None = None, **more: Any) -> ClusterConfig:
        kwargs = {**BASE, **KINDS[kind], **(options or {})}
        file = tmp_path / "mysite.yaml"
        file.write_text(yaml.safe_dump({"kind": kind, "cluster_kwargs": kwargs, **more}))
        return load_config(file)

    return make


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_golden(made: Made, kind: str) -> None:
    """The script of a kind of queue is, to the letter, that of its file."""
    script = job_script(made(kind, dask_config={"distributed.comm.timeouts.tcp": "60s"}))
    path = GOLDEN / f"{kind}.sh"
    if os.environ.get("DASKEXEC_WRITE_GOLDEN"):
        path.write_text(script)
    assert script == path.read_text()
    assert not Path("/nosuch").exists()  # nothing of it was made


def test_insecure(made: Made) -> None:
    """Without encryption the workers are given no certificates, and a plain protocol."""
    script = job_script(made("slurm", insecure=True))
    assert "--tls" not in script
    assert "--protocol tcp://" in script


def test_one_process_unless_told(made: Made) -> None:
    """A job is one worker process, where Dask would start several."""
    assert "--nworkers" not in job_script(made("slurm"))
    assert "--nthreads 16 " in job_script(made("slurm"))
    script = job_script(made("slurm", options={"processes": 4}))
    assert "--nworkers 4" in script
    assert "--nthreads 4 " in script


def test_what_dask_jobqueue_does_not_take(made: Made) -> None:
    """Options that dask-jobqueue refuses are an error that names the config's file."""
    wrong = replace(made("slurm"), cluster_kwargs={**BASE, "colour": "red"})
    with pytest.raises(ConfigError, match=r"mysite.yaml: cluster_kwargs: .*colour"):
        job_script(wrong)


def test_ctrl_c_is_left_alone() -> None:
    """Importing dask-jobqueue, from any thread, does not change what Ctrl-C does."""
    program = """
import signal, threading
from daskexec.kinds._jobs import cluster_class
thread = threading.Thread(target=cluster_class, args=["slurm"])
thread.start()
thread.join()
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
assert cluster_class("slurm").__name__ == "SLURMCluster"
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_what_a_killed_process_has_left(made: Made, tmp_path: Path) -> None:
    """Keys that a killed process of this host has left are removed by the next run; logs stay."""
    config = made("slurm", {"shared_temp_directory": str(tmp_path / "shared")})
    ended = subprocess.Popen(["true"])
    ended.wait()
    mine = new_run_folder(config)
    old = mine.with_name(mine.name.replace(f"-{os.getpid()}-", f"-{ended.pid}-"))
    other = mine.with_name(f"run-otherhost-{ended.pid}-x")
    for folder in (old, other):
        (folder / "logs").mkdir(parents=True)
        (folder / "logs" / "12.err").touch()
        (folder / "worker-key.pem").touch()
    new = new_run_folder(config)
    assert not (old / "worker-key.pem").exists()
    assert (old / "logs" / "12.err").exists()
    assert (other / "worker-key.pem").exists()
    assert mine.exists()
    for folder in (mine, new):
        assert folder.stat().st_mode & 0o077 == 0
