"""A queue made of stand-ins for the commands of a batch queue: see tests/services/fakeq."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from daskexec_testing.processes import MARK

PROGRAM = Path(__file__).parents[2] / "services" / "fakeq" / "fakeq.py"

REMOVE = {"pbs": "qdel", "moab": "canceljob", "lsf": "bkill", "htcondor": "condor_rm"}
"""The command that removes a job from each kind of queue."""


class Queue:
    """The stand-ins, put where commands are looked for, and what is in their queue.

    Parameters
    ----------
    kind : str
        Of the queue: ``"pbs"``, ``"moab"``, ``"lsf"`` or ``"htcondor"``.
    folder : Path
        For commands, jobs and whatever they leave.
    monkeypatch : pytest.MonkeyPatch
        Sets the environment, in which the commands are found, and the jobs what tests import.
    """

    def __init__(self, kind: str, folder: Path, monkeypatch: Any) -> None:
        self.kind, self.mark, self.jobs = kind, os.urandom(8).hex(), folder / "jobs"
        self.jobs.mkdir()
        subprocess.run([sys.executable, PROGRAM, "install", folder / "bin"], check=True)
        monkeypatch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setenv("FAKEQ_DIR", str(self.jobs))
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        monkeypatch.setenv(
            "PYTHONPATH", os.pathsep.join(filter(None, map(os.path.abspath, sys.path)))
        )
        monkeypatch.setenv(MARK, self.mark)

    def set(self, mode: str, text: str = "") -> None:
        """Behave otherwise from now on: ``reject``, ``hold`` or ``kill``."""
        (self.jobs / mode).write_text(text)

    def unset(self, mode: str) -> None:
        (self.jobs / mode).unlink()

    def phases(self) -> dict[str, str]:
        """The phase of each job that there ever was, by its number."""
        found = {}
        for path in sorted(self.jobs.glob("*.json")):
            job = json.loads(path.read_text())
            phase = "running" if job["started"] else "waiting"
            found[path.stem] = "ended" if job["ended"] else phase
        return found

    def open_jobs(self) -> list[str]:
        """The numbers of the jobs that have not ended."""
        return [number for number, phase in self.phases().items() if phase != "ended"]

    def remove(self, number: str) -> None:
        """Remove a job, as its owner or an administrator would."""
        subprocess.run([REMOVE[self.kind], number], check=True, stdout=subprocess.DEVNULL)
