"""The config for Slurm that comes with daskexec works as its users edit it, and as they begin."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from daskexec_testing.configs import edited
from daskexec_testing.queues import Queue

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(120)


def test_slurm(slurm: Queue, tmp_path: Path) -> None:
    """slurm.yaml with its marked lines edited is found by its new name, right, and runs calls.

    What only this machine needs, is where a site has it: in Dask's own jobqueue.yaml.
    """
    configs, theirs = tmp_path / ".config" / "daskexec", tmp_path / ".config" / "dask"
    configs.mkdir(parents=True)
    theirs.mkdir(parents=True)
    edited("slurm", tmp_path, cores="1", memory="400MiB", walltime='"00:10:00"').rename(
        configs / "mysite.yaml"
    )
    (theirs / "jobqueue.yaml").write_text(
        "jobqueue:\n  slurm:\n    interface: lo\n"
        f"    job-script-prologue: ['export PYTHONPATH={ROOT}']\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments], capture_output=True, text=True, env=env, timeout=100
        )

    checked = run("-m", "daskexec", "check", "mysite")
    assert checked.returncode == 0, checked.stderr
    assert "size: 2 jobs; each job 1 core, 400MiB\n" in checked.stdout
    assert f"export PYTHONPATH={ROOT}\n" in checked.stdout
    program = (
        "import os\nfrom daskexec import get_executor\n"
        "if __name__ == '__main__':\n"
        "    with get_executor('mysite') as executor:\n"
        "        print(executor.submit(os.getenv, 'SLURM_JOB_ID').result(90))\n"
    )
    ran = run("-c", program)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip().isdigit()
    assert list((tmp_path / "daskexec-logs").glob("*.err")), "the output of jobs is where it says"
