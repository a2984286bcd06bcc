"""Has the turns taken in rounds: A B C A B C ..., so that a slow minute hits every peer.

Every turn is a process with a time limit. A peer whose turn hangs or fails is reported and
takes no further part in that workload. Whatever a turn leaves running is ended: its processes
are known by an environment variable that they inherit.
"""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.peers import PEERS
from benchmarks.turn import Order, Outcome
from benchmarks.workloads import Workload

__all__ = ["Failed", "Rounds", "end_processes", "into_page_cache", "run_workload"]

_MARK = "DASKEXEC_BENCHMARK_TURN"
_ROOT = Path(__file__).resolve().parent.parent


class Failed(Exception):
    """A turn brought no figures; says why."""


@dataclass
class Rounds:
    """All turns of one workload.

    Attributes
    ----------
    rows : dict
        Figures by row and figure, one value a round.
    notes : dict
        By row.
    left_out : dict
        Why, by the title of the peer.
    """

    workload: Workload
    rows: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def add(self, outcome: Outcome) -> None:
        self.notes.update(outcome.notes)
        for row, figures in outcome.rows.items():
            for key, value in figures.items():
                self.rows.setdefault(row, {}).setdefault(key, []).append(value)


def run_workload(
    workload: Workload,
    peers: Sequence[str],
    *,
    rounds: int,
    width: int,
    scale: float,
    options: Mapping[str, Any],
    say: Callable[[str], None],
) -> Rounds:
    """Have each of the peers take one turn a round.

    Parameters
    ----------
    workload : Workload
        What to do.
    peers : sequence of str
        Names; those that cannot take part are left out, with the reason.
    rounds : int
        How often.
    width : int
        Workers of each executor.
    scale : float
        Factor on the number of calls.
    options : mapping
        For the workload.
    say : callable
        Told in a line what happens.
    """
    result = Rounds(workload)
    for number in range(1, rounds + 1):
        for name in workload.peers:
            peer = PEERS[name]
            if name not in peers or peer.title in result.left_out:
                continue
            reason = peer.missing() if number == 1 else ""
            if not reason:
                try:
                    outcome = _take_turn(workload, name, width, scale, options)
                except Failed as exc:
                    reason = str(exc)
            if reason:
                result.left_out[peer.title] = reason
                say(f"{workload.name}: {peer.title} is LEFT OUT: {reason}")
                continue
            result.add(outcome)
            figures = "; ".join(
                f"{row}: " + ", ".join(f"{key} {value:,.4g}" for key, value in found.items())
                for row, found in outcome.rows.items()
            )
            say(f"{workload.name} {number}/{rounds}: {figures}")
    return result


def _take_turn(
    workload: Workload, peer: str, width: int, scale: float, options: Mapping[str, Any]
) -> Outcome:
    token = secrets.token_hex(8)
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
        out, log = Path(folder, "outcome.json"), Path(folder, "log.txt")
        order = Order(workload.name, peer, width, scale, str(out), dict(options))
        how = [str(_ROOT / "benchmarks" / "script.py")]
        if not workload.in_main:
            how = ["-m", "benchmarks.turn"]
        path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
        # Some peers start programs of their own, which are beside the interpreter.
        programs = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, *how, json.dumps(dataclasses.asdict(order))],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": path, "PATH": programs, _MARK: token},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
            try:
                code: int | None = process.wait(workload.limit)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                end_processes(token)
                process.wait()
        if out.exists():  # even if its end then hung: that is not what was measured
            outcome = Outcome(**json.loads(out.read_text()))
            if code != 0:
                how_it_ended = f"hung for {workload.limit:.0f} s" if code is None else "failed"
                for row in outcome.rows:
                    note = outcome.notes.get(row, "")
                    outcome.notes[row] = f"{note}; {how_it_ended} at its end".lstrip("; ")
            return outcome
        if code is None:
            raise Failed(f"hung: no result within {workload.limit:.0f} s")
        lines = log.read_text(errors="replace").strip().splitlines() or ["no message"]
        raise Failed(f"exit status {code}: {lines[-1]}")


def end_processes(token: str) -> None:
    """End every process that was started by the turn with this token."""
    for _ in range(3):  # one may have started another meanwhile
        found = [process for process in psutil.process_iter() if _is_of(process, token)]
        for process in found:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(found, timeout=5)
        if not found:
            return


def _is_of(process: psutil.Process, token: str) -> bool:
    try:
        return bool(process.environ().get(_MARK) == token)
    except psutil.Error:
        return False


def into_page_cache(path: Path) -> None:
    """Read a file, so that no side has to wait for the disk."""
    with path.open("rb") as stream:
        while stream.read(1 << 24):
            pass
