"""Programs run in processes of their own, and what they leave on the machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

MARK = "DASKEXEC_TEST_MARK"
"""Environment variable that tells a program's descendants from all other processes."""


def marked(mark: str) -> list[int]:
    """The processes that run with this mark, zombies left out."""
    needle = f"{MARK}={mark}".encode()
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            environment = Path("/proc", entry, "environ").read_bytes()
            if needle not in environment.split(b"\0"):
                continue
            if psutil.Process(int(entry)).status() != psutil.STATUS_ZOMBIE:
                found.append(int(entry))
        except (OSError, psutil.Error):
            continue
    return found


def told(pids: list[int]) -> str:
    """The command lines of these processes, for a message."""
    lines = []
    for pid in pids:
        with suppress(psutil.Error):
            lines.append(f"{pid}: {' '.join(psutil.Process(pid).cmdline())[:200]}")
    return "\n".join(lines)


def environment(mark: str, folder: Path) -> dict[str, str]:
    """An environment with the mark, its own folder for temporary files, and our paths."""
    folder.mkdir(exist_ok=True)
    return {
        **os.environ,
        MARK: mark,
        "TMPDIR": str(folder),
        "PYTHONPATH": os.pathsep.join(filter(None, map(os.path.abspath, sys.path))),
    }


@dataclass
class Ended:
    """How a program ended, and what was left when it had."""

    code: int
    out: str
    err: str
    seconds: float
    processes: list[int]
    processes_told: str
    files: list[str]

    def clean(self) -> bool:
        return not (self.err or self.processes or self.files)


class Program:
    """A running script with a mark; ``end`` waits for it and looks for what is left."""

    def __init__(self, script: str, folder: Path, *arguments: str) -> None:
        self.mark = uuid.uuid4().hex
        self._scratch = folder / "tmp"
        path = folder / "script.py"
        path.write_text(script)
        self._begun = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, str(path), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            env=environment(self.mark, self._scratch),
            start_new_session=True,
        )

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self, limit: float = 60, grace: float = 10) -> Ended:
        """Wait for the end; give what remains ``grace`` seconds to go, then list it."""
        try:
            out, err = self.process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            self.kill()
            out, err = self.process.communicate()
            raise AssertionError(
                f"still running after {limit:g} s\nstdout: {out}\nstderr: {err}"
            ) from None
        seconds = time.monotonic() - self._begun
        deadline = time.monotonic() + grace
        while (processes := marked(self.mark)) and time.monotonic() < deadline:
            time.sleep(0.02)
        while (files := sorted(os.listdir(self._scratch))) and time.monotonic() < deadline:
            time.sleep(0.02)
        ended = Ended(
            self.process.returncode, out, err, seconds, processes, told(processes), files
        )
        self.kill()
        return ended

    def kill(self) -> None:
        """End the program and all that descends from it, whatever state they are in."""
        self.process.kill()
        for pid in marked(self.mark):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def free_port() -> int:
    """A port of loopback that nobody listens at, for now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Cluster:
    """A scheduler and workers as separate processes of the command line, on loopback only."""

    def __init__(self, folder: Path, workers: int = 2, nthreads: int = 1) -> None:
        self.folder = folder
        self.mark = uuid.uuid4().hex
        self._environment = {
            **environment(self.mark, folder / "tmp"),
            "DASK_DISTRIBUTED__SCHEDULER__DASHBOARD__STATUS__TASK_STREAM_LENGTH": "10",
        }
        self.port = free_port()
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.workers: list[subprocess.Popen[bytes]] = []
        self.scheduler = self._start(
            "scheduler", "--host", "127.0.0.1", "--port", str(self.port), "--no-dashboard"
        )
        for i in range(workers):
            self.add_worker(f"w{i}", nthreads)

    def add_worker(self, name: str, nthreads: int = 1, *more: str) -> None:
        self.workers.append(
            self._start(
                "worker",
                self.address,
                *("--host", "127.0.0.1", "--name", name, "--nthreads", str(nthreads)),
                *("--no-dashboard", "--local-directory", str(self.folder), *more),
            )
        )

    def _start(self, what: str, *arguments: str) -> subprocess.Popen[bytes]:
        log = (self.folder / f"{what}-{len(self.workers)}.log").open("wb")
        with log:
            return subprocess.Popen(
                [sys.executable, "-m", "dask", what, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=self._environment,
                start_new_session=True,
            )

    def alive(self) -> bool:
        return all(process.poll() is None for process in (self.scheduler, *self.workers))

    def close(self) -> None:
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()
        for pid in marked(self.mark):  # what the nannies started
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while marked(self.mark) and time.monotonic() < deadline:
            time.sleep(0.02)


@contextmanager
def running_cluster(
    folder: Path, workers: int = 2, options: Mapping[str, int] | None = None
) -> Iterator[Cluster]:
    """A Cluster whose workers have joined; everything of it is gone at the end."""
    from distributed import Client

    cluster = Cluster(folder, workers, **(options or {}))
    try:
        with Client(cluster.address, timeout=60, set_as_default=False) as client:
            if workers:
                client.wait_for_workers(workers, timeout=60)
        yield cluster
    finally:
        cluster.close()
