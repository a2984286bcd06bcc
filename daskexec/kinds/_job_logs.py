"""The logs that the jobs of a queue leave, whose last lines tell why a job has ended."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

__all__ = ["log_tail", "process_end"]

_BYTES = 16 << 10
_LINES = 10
_WIDTH = 300

#: What the process that watches a worker (Dask's nanny) says of its end.
_ENDED = re.compile(
    r"Worker process \d+ (?:exited with status|was killed by signal) \d+"
    r"|Worker exceeded \d+% memory budget"
)


def log_tail(folder: Path, job: str, lines: int = _LINES) -> str:
    """Return where the log of a job is and how it ends, to be put behind a statement.

    The queues name the files differently, but the job's number is in all of the names. "" where
    there is none, or nothing in it.
    """
    for path, told in _logs(folder, job):
        return f"; its log {path} ends:\n" + "\n".join(f"    {line}" for line in told[-lines:])
    return ""


def process_end(folder: Path, job: str) -> str:
    """Return what the log of a job says last of the end of a worker process; else ""."""
    for _, told in _logs(folder, job):
        for line in reversed(told):
            match = _ENDED.search(line)
            if match is not None:
                return match[0]
    return ""


def _logs(folder: Path, job: str) -> Iterator[tuple[Path, list[str]]]:
    """Yield those logs of a job that say anything, and their last lines."""
    number = re.escape(job.partition(".")[0])
    named = re.compile(rf"(?<!\d){number}(?!\d)")
    try:
        found = [Path(entry.path) for entry in os.scandir(folder) if named.search(entry.name)]
        # Standard error, where a queue keeps it apart, is where Dask's workers log.
        found.sort(key=lambda path: (".err" in path.name or ".e" in path.suffix, path.name))
        for path in reversed(found):
            told = _last_lines(path)
            if told:
                yield path, told
    except OSError:  # it may be on another file system, and gone
        return


def _last_lines(path: Path) -> list[str]:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _BYTES))
        text = file.read().decode(errors="replace")
    return [line.rstrip()[:_WIDTH] for line in text.splitlines() if line.strip()]
