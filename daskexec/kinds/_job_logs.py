"""The logs that the jobs of a queue leave, whose last lines tell why a job has ended."""

from __future__ import annotations

import os
import re
from pathlib import Path

__all__ = ["log_tail"]

_BYTES = 16 << 10
_LINES = 10
_WIDTH = 300


def log_tail(folder: Path, job: str, lines: int = _LINES) -> str:
    """Return where the log of a job is and how it ends, to be put behind a statement.

    The queues name the files differently, but the job's number is in all of the names. "" where
    there is none, or nothing in it.
    """
    number = re.escape(job.partition(".")[0])
    named = re.compile(rf"(?<!\d){number}(?!\d)")
    try:
        found = [Path(entry.path) for entry in os.scandir(folder) if named.search(entry.name)]
        # Standard error, where a queue keeps it apart, is where Dask's workers log.
        found.sort(key=lambda path: (".err" in path.name or ".e" in path.suffix, path.name))
        for path in reversed(found):
            tail = _tail(path, lines)
            if tail:
                return f"; its log {path} ends:\n" + "\n".join(f"    {line}" for line in tail)
    except OSError:  # it may be on another file system, and gone
        pass
    return ""


def _tail(path: Path, lines: int) -> list[str]:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _BYTES))
        text = file.read().decode(errors="replace")
    told = [line.rstrip()[:_WIDTH] for line in text.splitlines() if line.strip()]
    return told[-lines:]
