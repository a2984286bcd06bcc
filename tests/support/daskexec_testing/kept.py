"""Clusters that a keeper has: where they are written down, and that none is left."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import psutil

from daskexec import _kept, _state
from daskexec_testing.gates import eventually


@contextlib.contextmanager
def state_folder(path: Path) -> Iterator[Path]:
    """Have clusters written down under ``path``; those that are left at the end are ended."""
    before = os.environ.get("XDG_STATE_HOME")
    os.environ["XDG_STATE_HOME"] = str(path)
    try:
        yield path / "daskexec" / "clusters"
    finally:
        for entry in _state.entries():
            with contextlib.suppress(ConnectionError):
                if entry.ended is None:
                    _kept.tell(entry, "stop")
        if before is None:
            del os.environ["XDG_STATE_HOME"]
        else:
            os.environ["XDG_STATE_HOME"] = before


def family(pid: int) -> list[psutil.Process]:
    """A process and all that descend from it."""
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def all_gone(processes: list[psutil.Process]) -> None:
    """Wait until none of these processes runs any more."""

    def gone() -> bool:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                    return False
        return True

    eventually(gone, f"{processes} are gone", 20)
