"""The interpreter's end: pending calls finish first, and nothing is printed about it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from daskexec_testing.executors import Kind

pytestmark = pytest.mark.timeout(90)

HEAD = """
import importlib, sys
sys.path[:] = {path!r}
from daskexec_testing import calls
from daskexec_testing.gates import Journal
module, _, attribute = {importable!r}.partition(":")
make = getattr(importlib.import_module(module), attribute)
journal = Journal({journal!r})
if __name__ == "__main__":
"""


def _run(
    kind: Kind, folder: Path, body: str
) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    journal = folder / "lines"
    script = folder / "script.py"
    head = HEAD.format(path=sys.path, importable=kind.importable, journal=str(journal))
    script.write_text(head + body)
    ended = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=False
    )
    return ended, journal.read_text().splitlines() if journal.exists() else []


def test_pending_calls_run(kind: Kind, tmp_path: Path) -> None:
    """A program that ends with calls pending runs them all."""
    ended, lines = _run(
        kind,
        tmp_path,
        """
    executor = make(2)
    for i in range(8):
        executor.submit(calls.nap_and_note, 0.05, journal, i)
    print("end")
""",
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "end\n", "")
    assert sorted(lines) == [str(i) for i in range(8)]


def test_pending_calls_run_after_shutdown_without_wait(kind: Kind, tmp_path: Path) -> None:
    """So do they after shutdown(wait=False)."""
    ended, lines = _run(
        kind,
        tmp_path,
        """
    executor = make(2)
    for i in range(8):
        executor.submit(calls.nap_and_note, 0.05, journal, i)
    executor.shutdown(wait=False)
""",
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert sorted(lines) == [str(i) for i in range(8)]


def test_unused(kind: Kind, tmp_path: Path) -> None:
    """A program that made an executor and never used it ends."""
    ended, _ = _run(kind, tmp_path, "    executor = make(2)\n")
    assert (ended.returncode, ended.stderr) == (0, "")


def test_exit_code_is_kept(kind: Kind, tmp_path: Path) -> None:
    """sys.exit with calls pending runs them and keeps the exit code."""
    ended, lines = _run(
        kind,
        tmp_path,
        """
    executor = make(1)
    for i in range(3):
        executor.submit(calls.note, journal, i)
    sys.exit(7)
""",
    )
    assert (ended.returncode, ended.stderr) == (7, "")
    assert lines == ["0", "1", "2"]


def test_submit_at_exit(kind: Kind, tmp_path: Path) -> None:
    """submit in an atexit function is a RuntimeError."""
    ended, _ = _run(
        kind,
        tmp_path,
        """
    import atexit

    @atexit.register
    def at_exit():
        try:
            executor.submit(calls.identity, 1)
        except RuntimeError as error:
            print(error)

    executor = make(1)
    executor.submit(calls.identity, 1).result()
""",
    )
    assert "cannot schedule new futures after" in ended.stdout
    assert (ended.returncode, ended.stderr) == (0, "")
