"""``daskexec check NAME --start``, in a process of its own: what a user sees."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from daskexec_testing.processes import free_port, running_cluster

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(120)


def check(folder: Path, config: str, *options: str) -> subprocess.CompletedProcess[str]:
    path = folder / "mine.yaml"
    path.write_text(config)
    return subprocess.run(
        [sys.executable, "-m", "daskexec", "check", str(path), "--start", *options],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120"},
        timeout=90,
    )


def test_a_cluster_that_works(tmp_path: Path) -> None:
    """Times, versions, folders and speeds are on stdout, what is waited for on stderr; 0."""
    done = check(tmp_path, "kind: local\n")
    assert done.returncode == 0, done.stderr
    assert "... starting the scheduler" in done.stderr
    for expected in (
        "scheduler   tcp://127.0.0.1:",
        f"on {socket.gethostname()}, as user",
        "round trip",
        "/s there, ",
        f"Python        {sys.version.split()[0]}",
        "distributed",
        sys.executable,
    ):
        assert expected in done.stdout
    (line,) = (line for line in done.stdout.splitlines() if "the current folder" in line)
    assert line.split()[-3:] == [str(tmp_path), "yes", "yes"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.yaml"]


def test_nobody_there(tmp_path: Path) -> None:
    """A scheduler that does not answer is one line that names the address; 1."""
    address = f"tcp://127.0.0.1:{free_port()}"
    config = f"kind: scheduler\ncluster_kwargs: {{address: '{address}'}}\n"
    done = check(tmp_path, config + "client_kwargs: {timeout: 1s}\n")
    assert done.returncode == 1
    (error,) = (line for line in done.stderr.splitlines() if line.startswith("Error: "))
    assert address in error
    assert "Traceback" not in done.stderr
    assert "round trip" not in done.stdout


def test_no_worker_comes(tmp_path: Path) -> None:
    """It is given up after the config's start_timeout, and said; 1."""
    with running_cluster(tmp_path, 0) as cluster:
        config = f"kind: scheduler\ncluster_kwargs: {{address: '{cluster.address}'}}\n"
        done = check(tmp_path, config + "start_timeout: 2s\n")
    assert done.returncode == 1, done.stdout
    assert "Error: no worker has joined the cluster for" in done.stderr
    assert "... waiting for a worker" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_config_that_is_wrong(tmp_path: Path) -> None:
    """Nothing is started for a config that cannot be right."""
    done = check(tmp_path, "kind: local\ncluster_kwargs: {n_wrokers: 3}\n")
    assert done.returncode == 1
    assert "n_wrokers" in done.stderr
    assert "starting" not in done.stderr
