"""The scripts that are submitted, for every kind of queue, against files.

``DASKEXEC_WRITE_GOLDEN=1`` writes the files anew; look at what changes.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from daskexec.config import ClusterConfig
from daskexec.errors import ConfigError

if importlib.util.find_spec("dask_jobqueue") is None:  # an import by itself would set SIGINT
    pytest.skip("needs dask-jobqueue (daskexec[hpc])", allow_module_level=True)

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


def made(kind: str, **more: Any) -> ClusterConfig:
    options = {**BASE, **KINDS[kind], **more.pop("options", {})}
    return ClusterConfig("mysite", kind, cluster_kwargs=options, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_golden(kind: str) -> None:
    """The script of a kind of queue is, to the letter, that of its file."""
    script = job_script(made(kind, dask_config={"distributed.comm.timeouts.tcp": "60s"}))
    path = GOLDEN / f"{kind}.sh"
    if os.environ.get("DASKEXEC_WRITE_GOLDEN"):
        path.write_text(script)
    assert script == path.read_text()
    assert not Path("/nosuch").exists()  # nothing of it was made


def test_insecure() -> None:
    """Without encryption the workers are given no certificates, and a plain protocol."""
    script = job_script(made("slurm", insecure=True))
    assert "--tls" not in script
    assert "--protocol tcp://" in script


def test_one_process_unless_told() -> None:
    """A job is one worker process, where Dask would start several."""
    assert "--nworkers" not in job_script(made("slurm"))
    assert "--nthreads 16 " in job_script(made("slurm"))
    script = job_script(made("slurm", options={"processes": 4}))
    assert "--nworkers 4" in script
    assert "--nthreads 4 " in script


@pytest.mark.parametrize(
    ("kind", "walltime", "lifetime"),
    [
        ("slurm", "02:00:00", "6600s"),
        ("slurm", "1-00:00:00", "85800s"),
        ("slurm", "60", "3240s"),
        ("slurm", "00:01:00", "40s"),
        ("pbs", "48:00:00", "172200s"),
        ("lsf", "02:00", "6600s"),
        ("slurm", "00:00:30", None),
        ("slurm", "UNLIMITED", None),
    ],
)
def test_workers_leave_before_the_walltime(kind: str, walltime: str, lifetime: str | None) -> None:
    """A worker's lifetime is a little below the walltime, however that is written."""
    script = job_script(made(kind, options={"walltime": walltime}))
    assert (f"--lifetime {lifetime} " in script) == (lifetime is not None)
    assert ("--lifetime" in script) == (lifetime is not None)


def test_own_lifetime_and_requeueing_stay() -> None:
    """What the config says itself of lifetime and requeueing is not added to."""
    options = {"worker_extra_args": ["--lifetime", "5m"], "job_extra_directives": ["--requeue"]}
    script = job_script(made("slurm", options=options))
    assert script.count("--lifetime") == 1
    assert "--no-requeue" not in script


@pytest.mark.parametrize("options", [{"colour": "red"}, {"cores": None}])
def test_what_dask_jobqueue_does_not_take(options: dict[str, Any]) -> None:
    """Options that dask-jobqueue refuses are an error that names the config's file."""
    with pytest.raises(ConfigError, match=r"/etc/mysite.yaml: cluster_kwargs: .*"):
        job_script(made("slurm", source="/etc/mysite.yaml", options=options))


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
