"""Stand-ins for the commands of batch queues; README.md says what they are and are not.

The program is called by the name of a command, parses a job script as that one would (in
`queue_commands`), and keeps one JSON file a job. Each job has a runner, a process of its own,
which waits until the job may start, runs it, and writes down how it ended; removing a job is a
signal to its runner.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

COMMANDS = (
    "qsub", "qstat", "qdel", "msub", "checkjob", "canceljob", "bsub", "bjobs", "bkill",
    "condor_submit", "condor_q", "condor_history", "condor_rm",
)  # fmt: skip

#: Seconds between two looks at what may have changed.
STEP = 0.05

#: Seconds that a job gets to end when it is removed, before it is killed.
GRACE = 2.0


def folder() -> Path:
    path = Path(os.environ["FAKEQ_DIR"])
    path.mkdir(parents=True, exist_ok=True)
    return path


def mode(name: str) -> str | None:
    """What the file of this name in the folder says; None if there is none."""
    try:
        return (folder() / name).read_text().strip()
    except FileNotFoundError:
        return None


@dataclass
class Job:
    """A job, as it is written down; a time is seconds since 1970, 0 for not yet."""

    number: int
    kind: str
    name: str
    queue: str
    command: list[str]
    out: str
    err: str
    env: dict[str, str]
    cwd: str
    runner: int = 0
    started: float = 0
    ended: float = 0
    code: int = 0  # negative: of the signal that ended it
    removed: bool = False

    @property
    def path(self) -> Path:
        return folder() / f"{self.number}.json"

    @property
    def phase(self) -> str:
        if self.ended:
            return "ended"
        return "running" if self.started else "waiting"

    def write(self) -> None:
        new = self.path.with_suffix(f".{os.getpid()}.new")
        new.write_text(json.dumps(asdict(self)))
        new.replace(self.path)


def load(number: int) -> Job | None:
    """Return a job, with what its runner could not write down as it was killed itself."""
    try:
        job = Job(**json.loads((folder() / f"{number}.json").read_text()))
    except FileNotFoundError:
        return None
    if not job.ended and job.runner and not alive(job.runner):
        job.ended, job.code = time.time(), -signal.SIGKILL
    return job


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def jobs() -> list[Job]:
    numbers = sorted(int(path.stem) for path in folder().glob("*.json"))
    return [job for number in numbers if (job := load(number)) is not None]


def next_number() -> int:
    with (folder() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        path = folder() / "last"
        number = int(path.read_text()) + 1 if path.exists() else 101
        path.write_text(str(number))
    return number


def start(job: Job) -> None:
    """Write the job down and start its runner, which outlives this process."""
    job.write()
    with contextlib.ExitStack() as stack:
        files = []
        for path in (job.out, job.err):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            files.append(stack.enter_context(Path(path).open("ab")))
        runner = subprocess.Popen(
            [sys.executable, "-S", "-E", os.path.abspath(__file__), "run", str(job.number)],
            stdin=subprocess.DEVNULL,
            stdout=files[0],
            stderr=files[1],
            env={**os.environ, **job.env},
            cwd=job.cwd,
            start_new_session=True,
        )
    ready = time.monotonic() + 10
    while not (known := load(job.number)) or not known.runner:
        if runner.poll() is not None or time.monotonic() > ready:
            raise SystemExit(f"the runner of job {job.number} does not start")
        time.sleep(STEP / 10)


class Removed(Exception):
    """The job is to end."""


def run(number: int) -> None:
    """Be the runner of a job: its output is this process's output."""

    def removed(*_: object) -> None:
        raise Removed

    job = load(number)
    assert job is not None
    signal.signal(signal.SIGTERM, removed)
    job.runner = os.getpid()
    job.write()
    process = None
    try:
        while mode("hold") is not None:
            time.sleep(STEP)
        job.started = time.time()
        job.write()
        process = subprocess.Popen(job.command, start_new_session=True)
        if mode("kill") is not None:
            os.killpg(process.pid, signal.SIGKILL)
        job.code = process.wait()
    except Removed:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        job.removed, job.code = True, -signal.SIGTERM
        if process is not None:
            end(process)
    if process is not None:  # what the job has started does not outlive it
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    job.ended = time.time()
    job.write()


def end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(GRACE)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def remove(job: Job) -> None:
    """Have a job end; the queue knows it as ending until it has."""
    if not job.ended:
        with contextlib.suppress(ProcessLookupError):
            os.kill(job.runner, signal.SIGTERM)


def install(target: Path) -> None:
    """Put the commands into a folder."""
    target.mkdir(parents=True, exist_ok=True)
    for name in COMMANDS:
        path = target / name
        path.write_text(
            f'#!/bin/sh\nexec "{sys.executable}" -S -E "{os.path.abspath(__file__)}" {name} "$@"\n'
        )
        path.chmod(0o755)


def main(name: str, arguments: list[str]) -> int:
    if name == "install":
        install(Path(arguments[0]))
        return 0
    if name == "run":
        run(int(arguments[0]))
        return 0
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import queue_commands

    return queue_commands.command(name, arguments)


if __name__ == "__main__":
    sys.modules["fakeq"] = sys.modules["__main__"]
    sys.exit(main(sys.argv[1], sys.argv[2:]))
