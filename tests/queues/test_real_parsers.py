"""Job scripts of queues that cannot be had here, read by programs that are the real ones.

HTCondor's submit description is parsed by HTCondor's own library. The script of PBS is taken by
a real Slurm through its ``qsub``, which reads what is written for PBS.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from daskexec_testing.gates import eventually
from daskexec_testing.services import require

from daskexec.config import ClusterConfig
from daskexec.kinds.queues import job_script

pytest.importorskip("dask_jobqueue")

pytestmark = pytest.mark.filterwarnings("ignore:Neither the environment variable CONDOR_CONFIG")

QSUB = Path("/opt/slurm-torque/usr/bin/qsub")
"""Where .ci/services puts Slurm's qsub: the package conflicts with Grid Engine's."""


# -- HTCondor --------------------------------------------------------------------------------


def job_ad(config: ClusterConfig) -> Any:
    """What HTCondor makes of the script: the ad of job 7.0."""
    try:
        import htcondor
    except ImportError as exc:
        require("htcondor", f"{exc} (.ci/services htcondor)")
    submit = htcondor.Submit(job_script(config))
    (ad,) = submit.jobs(count=1, clusterid=7)
    return ad


def words(arguments: str) -> list[str]:
    """The words of an ad's ``Arguments``: quotes group, and a doubled one in them is itself."""
    pieces = re.compile(r"""(?: '(?:[^']|'')*' | [^'\s] )+""", re.VERBOSE)
    quoted = re.compile(r"'((?:[^']|'')*)'")
    return [
        quoted.sub(lambda match: match[1].replace("''", "'"), word)
        for word in pieces.findall(arguments)
    ]


def condor(**kwargs: Any) -> ClusterConfig:
    told = {"cores": 2, "memory": "1GB", "disk": "3GB", "log_directory": "/logs", **kwargs}
    return ClusterConfig("my", "htcondor", cluster_kwargs=told)


def test_htcondor_reads_what_is_asked_for() -> None:
    """Resources, name and files are in the job ad as they are in the config."""
    ad = job_ad(condor())
    assert ad["Cmd"] == "/bin/sh"
    assert ad["JobBatchName"].startswith("my-")
    assert ad.eval("RequestCpus") == 2
    assert ad.eval("RequestMemory") == 10**9 // 2**20
    assert ad.eval("RequestDisk") == 3 * 10**9 // 2**10
    assert ad["Out"] == "/logs/worker-7.0.out"
    assert ad["Err"] == "/logs/worker-7.0.err"
    assert ad["UserLog"] == "/logs/worker-7.log"
    assert ad["StreamErr"]


def test_htcondor_reads_the_command() -> None:
    """The shell gets one command: the prologue as it was written, then the worker."""
    prologue = ["module load python", "export A='b c'", 'export B="$HOME/x"']
    ad = job_ad(condor(job_script_prologue=prologue, python="/opt/my python"))
    option, command = words(ad["Arguments"])
    assert option == "-c"
    *before, worker = command.split("; ")
    assert before == prologue
    assert worker.startswith("/opt/my python -m distributed.cli.dask_worker tls://")
    assert "--nthreads 2" in worker


def test_htcondor_reads_extra_directives() -> None:
    """Directives of the user's own become attributes of the job."""
    ad = job_ad(condor(job_extra_directives={"+Project": '"physics"', "Rank": "Memory"}))
    assert ad["Project"] == "physics"
    assert "Memory" in str(ad["Rank"])


def test_the_stand_in_reads_the_same(tmp_path: Path) -> None:
    """The stand-in for condor_submit runs what HTCondor would run."""
    config = condor(python=sys.executable, job_script_prologue=["export A='b c'", 'B="d"'])
    expected = [str(job_ad(config)["Cmd"]), *words(job_ad(config)["Arguments"])]
    folder = Path(__file__).parents[1] / "services" / "fakeq"
    told = {**condor().cluster_kwargs, "log_directory": str(tmp_path)}
    script = tmp_path / "script"
    script.write_text(job_script(config).replace("/logs", str(told["log_directory"])))
    done = subprocess.run(
        [sys.executable, folder / "fakeq.py", "condor_submit", script],
        env={**os.environ, "FAKEQ_DIR": str(tmp_path / "jobs")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.search(r"submitted to cluster 101\.", done.stdout)
    job = json.loads((tmp_path / "jobs" / "101.json").read_text())
    assert job["command"] == expected
    assert job["err"] == str(tmp_path / "worker-101.0.err")


# -- PBS -------------------------------------------------------------------------------------


def test_slurm_takes_the_script_of_pbs(
    slurm: Any, config: Callable[..., ClusterConfig], tmp_path: Path
) -> None:
    """The script goes through a qsub that is not ours, into a job of what was asked for."""
    if not QSUB.exists():
        require("torque", f"there is no {QSUB} (.ci/services torque)")
    script = tmp_path / "script.pbs"
    marker = tmp_path / "ran"
    script.write_text(
        job_script(
            config(
                "pbs",
                {
                    "cores": 2,
                    "memory": "900MiB",
                    "queue": "debug",
                    "walltime": "00:09:00",
                    "job_script_prologue": [f"echo $SLURM_JOB_NAME > {marker}"],
                    "python": "true",
                },
            )
        )
    )
    done = subprocess.run(
        [QSUB, script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    number = re.search(r"\d+", done.stdout)
    assert number is not None
    eventually(marker.exists, "the job runs", 30)
    shown = subprocess.run(
        ["squeue", "-h", "-t", "all", "-j", number[0], "-o", "%j|%P|%C|%m|%l"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.strip() == "dask-worker|debug|2|900M|9:00"
