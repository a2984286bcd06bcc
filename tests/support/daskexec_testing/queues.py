"""Looking into batch queues that tests have started."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

SERVICES = Path(__file__).parents[2] / "services"
"""The scripts that start services."""

_PATIENCE = 60  # seconds in which a service must come up, and any command answer


@dataclass(frozen=True)
class Queue:
    """A queue that runs: its kind, and how to look into it."""

    kind: str
    folder: Path
    listing: tuple[str, ...]

    def jobs(self) -> list[str]:
        """The ids of the jobs that are in the queue, those that are ending too."""
        told = command(*self.listing).splitlines()
        return [line.split()[0] for line in told if line.split() and line.split()[0].isdigit()]

    def running(self) -> list[str]:
        """The ids of Slurm's jobs that run."""
        return command("squeue", "-h", "-t", "R", "-o", "%A").split()

    def is_empty(self) -> bool:
        return not self.jobs()


def command(*words: str) -> str:
    """Run a command, which must succeed, and return what it prints."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout
