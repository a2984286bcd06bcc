"""A real OAR: not part of an ordinary run, as it takes over a part of the machine.

Run with DASKEXEC_REQUIRE=oar, as root, after ``.ci/services oar``. OAR refuses root's jobs, so
what is tested runs in programs of another user, who must be able to read this repository.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from daskexec_testing.services import require

pytestmark = pytest.mark.timeout(240)

USER = "daskexec-oar"
PYTHON = Path("/opt/daskexec-oar/bin/python")
REPOSITORY = Path(__file__).parents[2]
SCRIPT = REPOSITORY / "tests" / "services" / "oar.sh"

HEAD = """
import json, os, subprocess, sys
from pathlib import Path
from daskexec import ClusterStartFailed, DaskExecutor
from daskexec_testing import calls
from daskexec_testing.gates import eventually

folder = Path(sys.argv[1])
site = folder / "site.yaml"
told = dict(
    cores=1, memory="400MB", interface="lo", walltime="00:10:00",
    log_directory=str(folder / "logs"), shared_temp_directory=str(folder / "shared"),
    job_script_prologue=["export PYTHONPATH=" + os.environ["PYTHONPATH"]],
)

def config(**more):
    import yaml
    jobs = more.pop("jobs", 1)
    site.write_text(yaml.safe_dump(
        {"kind": "oar", "cluster_kwargs": {**told, **more}, "scale": {"jobs": jobs}}
    ))
    return str(site)

def jobs():
    listed = subprocess.run(["oarstat"], capture_output=True, text=True, check=True).stdout
    return [line.split()[0] for line in listed.splitlines() if line[:1].isdigit()]

"""

Run = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="module")
def oar() -> Iterator[None]:
    if "oar" not in os.environ.get("DASKEXEC_REQUIRE", "").split():
        pytest.skip("runs only where DASKEXEC_REQUIRE names oar")
    if os.geteuid() != 0 or not PYTHON.exists():
        require("oar", f"needs root and {PYTHON} (.ci/services oar)")
    base = tempfile.mkdtemp(prefix="daskexec-oar-", dir="/var/tmp")
    os.chmod(base, 0o755)  # PostgreSQL, below, and the jobs run as other users
    try:
        subprocess.run(["bash", SCRIPT, "up", base], check=True, timeout=100)
        yield
    finally:
        subprocess.run(["bash", SCRIPT, "down", base], check=False, timeout=60)
        shutil.rmtree(base)


@pytest.fixture
def run(oar: None) -> Iterator[Run]:
    """Runs the body of a program as the other user, and returns what it prints: one JSON."""
    made = as_user("mktemp", "-d").strip()

    def body(text: str) -> dict[str, Any]:
        program = Path(made, "program.py")
        indented = textwrap.indent(textwrap.dedent(text), "    ")
        program.write_text(f"{HEAD}\nif __name__ == '__main__':\n{indented}")
        told: dict[str, Any] = json.loads(as_user(str(PYTHON), str(program), made))
        return told

    yield body
    as_user("rm", "-r", made)


def as_user(*command: str) -> str:
    paths = f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'tests' / 'support'}"
    variables = {
        "HOME": f"/home/{USER}",
        "USER": USER,
        "SHELL": "/bin/bash",
        "PWD": "/tmp",  # oarsub fails without
        "PATH": f"{os.defpath}:/usr/sbin",
        "PYTHONPATH": paths,
    }
    clean = ["env", "-i", *(f"{name}={value}" for name, value in variables.items())]
    done = subprocess.run(
        ["runuser", "-u", USER, "--", *clean, *command],
        cwd="/tmp",
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_log_job(run: Run) -> None:
    """The report of the log job is that of this machine, to the last byte; the queue is empty."""
    told = run("""
        from daskexec.logs.demo import write_demo
        demo = write_demo(str(folder / "demo"))
        def report(spec):
            command = [sys.executable, "-m", "daskexec", "logs", "--json", "--part-size", "256kiB"]
            done = subprocess.run([*command, "-e", spec, demo.plain, demo.gzip],
                                  capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            return done.stdout
        serial, queue = report("serial"), report(config(jobs=2))
        print(json.dumps({"same": serial == queue, "size": len(serial), "left": jobs()}))
    """)
    assert told["size"] > 1000
    assert told["same"]
    assert told["left"] == []


def test_a_lost_job(run: Run) -> None:
    """A job that is deleted is replaced by another one, and calls go on; then all go."""
    told = run("""
        with DaskExecutor(cluster=config()) as executor:
            before = executor.submit(os.getenv, "OAR_JOB_ID").result(100)
            subprocess.run(["oardel", before], check=True, stdout=subprocess.DEVNULL)
            eventually(lambda: jobs() not in ([], [before]), "another job is there", 100)
            after = executor.submit(os.getenv, "OAR_JOB_ID").result(100)
        print(json.dumps({"before": before, "after": after, "left": jobs()}))
    """)
    assert int(told["after"]) > int(told["before"])
    assert told["left"] == []


def test_what_oar_says(run: Run) -> None:
    """A refused submission and a job that dies at once come with the words of OAR and the log."""
    told = run("""
        try:
            DaskExecutor(cluster=config(queue="nosuch"))
        except ClusterStartFailed as exc:
            refused = str(exc)
        with DaskExecutor(cluster=config(python="/nowhere/python")) as executor:
            died = str(executor.submit(abs, -1).exception(150))
        print(json.dumps({"refused": refused, "died": died, "left": jobs()}))
    """)
    assert "The queue nosuch does not exist" in told["refused"]
    assert re.search(r"(?s)Terminated \(exit code 127\).*/nowhere/python", told["died"])
    assert told["left"] == []
