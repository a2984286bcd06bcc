"""However a program ends, on whichever cluster: what is ours is gone, and nothing is printed.

A table: each end, over an own cluster, one with TLS, one in a keeper, and a scheduler that runs
already. Looked at are the exit status, stdout and stderr, the processes that descend from the
program, its folder for temporary files, its home (where locks, keys and what keepers write down
would be), and, on the scheduler that was there before, clients and tasks.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from daskexec_testing.gates import Gates, eventually
from daskexec_testing.processes import Cluster, Ended, Program, running_cluster

pytestmark = pytest.mark.timeout(90)

#: Seconds in which all must be gone.
GONE = 10.0

HEAD = """\
import os, signal, sys, threading, time
from concurrent.futures import BrokenExecutor
from daskexec import DaskExecutor
from daskexec_testing import calls
from daskexec_testing.gates import Gate, Journal

journal = Journal({journal!r})
started = Gate({started!r})
release = Gate({release!r})
executor = DaskExecutor(2, **{options!r})
"""

CLUSTERS: dict[str, dict[str, Any]] = {
    "own": {},
    "tls": {"secure": True},
    "kept": {"cluster": "local"},
    "remote": {},
}


@dataclass(frozen=True)
class End:
    """How a program ends: what it runs, what is sent to it once a call runs, and what is seen."""

    body: str
    signal: int = 0
    code: int = 0
    out: str = ""
    err: str = ""  # the end of stderr, of one traceback
    ran: int = 0  # calls of four that have run
    group: bool = False  # the signal goes to all of its process group, as of Ctrl-C


NOTE_FOUR = """
for i in range(4):
    executor.submit(calls.nap_and_note, 0.05, journal, i)
"""
HOLD = """
futures = [executor.submit(calls.hold, started, release), executor.submit(calls.identity, 1)]
"""
IN_CALL = HOLD + "futures[0].result()\n"

ENDS = {
    "with": End(f"with executor:{NOTE_FOUR.replace(chr(10), chr(10) + '    ')}\n", ran=4),
    "no shutdown": End("print(executor.submit(pow, 2, 8).result())", out="256\n"),
    "nothing done": End(""),
    "pending work": End(NOTE_FOUR + "print('end')", out="end\n", ran=4),
    "sys.exit": End(NOTE_FOUR + "sys.exit(5)", code=5, ran=4),
    "exception": End(
        NOTE_FOUR + "raise KeyError('mine')", code=1, err="KeyError: 'mine'\n", ran=4
    ),
    "os._exit": End(HOLD + "started.wait()\nos._exit(9)", code=9),
    "Ctrl-C": End(IN_CALL, signal.SIGINT, -signal.SIGINT, err="\nKeyboardInterrupt\n", group=True),
    "SIGTERM": End(IN_CALL, signal.SIGTERM, -signal.SIGTERM),
    "SIGHUP": End(IN_CALL, signal.SIGHUP, -signal.SIGHUP),
    "SIGKILL": End(IN_CALL, signal.SIGKILL, -signal.SIGKILL),
    "SIGSEGV": End(IN_CALL, signal.SIGSEGV, -signal.SIGSEGV),
    "killed while it starts": End("os.kill(os.getpid(), signal.SIGKILL)", code=-signal.SIGKILL),
}


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("remote"), 2) as cluster:
        yield cluster


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    for name in ("STATE", "CACHE", "CONFIG", "DATA"):
        monkeypatch.delenv(f"XDG_{name}_HOME", raising=False)
    return folder


def _script(gates: Gates, options: dict[str, Any], body: str) -> tuple[str, Any, Any, Any]:
    journal, started, release = gates.journal(), gates.gate(), gates.gate()
    head = HEAD.format(
        journal=journal.path, started=started.path, release=release.path, options=options
    )
    return head + body, journal, started, release


def _nothing_is_left(ended: Ended, home: Path) -> None:
    assert not ended.processes, ended.processes_told
    assert ended.files == []

    def files() -> list[Path]:
        return [path for path in home.rglob("*") if not path.is_dir() or _is_kept(path)]

    eventually(lambda: not files(), f"nothing of ours is in {home}", GONE)


def _is_kept(path: Path) -> bool:
    return path.parent.name == "clusters"  # a folder for each that a keeper has


#: Of these the whole table is run; of others, what differs by the cluster.
WHOLE = ("own", "kept")
SOME = ("with", "pending work", "Ctrl-C", "SIGTERM", "SIGKILL")
TABLE = [(how, name) for name in CLUSTERS for how in (ENDS if name in WHOLE else SOME)]


@pytest.mark.parametrize(("how", "name"), TABLE)
def test_ends(
    how: str, name: str, gates: Gates, tmp_path: Path, home: Path, remote: Cluster
) -> None:
    """Within 10 s nothing is left, and stderr is empty where nothing went wrong."""
    end, options = ENDS[how], CLUSTERS[name]
    cluster = remote if name == "remote" else None
    if cluster is not None:
        options = {"cluster": cluster.address}
    script, journal, started, release = _script(gates, options, end.body)
    program = Program(script, tmp_path)
    try:
        if end.signal:
            started.wait()
            if end.group:
                os.killpg(program.process.pid, end.signal)
                release.open()  # what runs is waited for
            else:
                program.signal(end.signal)
        ended = program.end(grace=GONE)
    finally:
        program.kill()
        release.open()
    assert ended.err.endswith(end.err)
    assert ended.err.count("Traceback") == bool(end.err)
    assert bool(ended.err) == bool(end.err)
    assert (ended.code, ended.out) == (end.code, end.out)
    assert sorted(journal.lines()) == [str(i) for i in range(end.ran)]
    _nothing_is_left(ended, home)
    if cluster is not None:
        assert cluster.alive()
        _is_as_before(cluster)


def _is_as_before(cluster: Cluster) -> None:
    """Wait until the scheduler has no client but ours and no task, and workers hold no data."""
    from distributed import Client

    with Client(cluster.address, timeout=30, set_as_default=False) as client:

        def left(dask_scheduler: Any) -> tuple[list[str], int]:
            mine = [c for c in dask_scheduler.clients if c.startswith("Client-")]
            return mine, len(dask_scheduler.tasks)

        def clean() -> bool:
            clients, tasks = client.run_on_scheduler(left)
            return clients == [client.id] and tasks == 0

        eventually(clean, "the scheduler has no client and no task of ours", GONE)


LOST = """
futures = [executor.submit(calls.hold, started, release)]
futures += [executor.submit(calls.identity, i) for i in range(20)]
try:
    for future in futures:
        future.result(30)
except BrokenExecutor as error:
    print("broken")
"""


@pytest.mark.parametrize("name", ["kept", "remote"])
def test_scheduler_crashes(name: str, gates: Gates, tmp_path: Path, home: Path) -> None:
    """When the scheduler's process is killed the program is told so, and ends leaving nothing."""
    body = LOST
    if name == "kept":
        body = "print(executor._kept.pid, flush=True)\n" + LOST
        _crash(gates, {"cluster": "local"}, body, tmp_path, home, None)
        return
    (tmp_path / "cluster").mkdir()
    with running_cluster(tmp_path / "cluster", 1) as cluster:
        _crash(gates, {"cluster": cluster.address}, body, tmp_path, home, cluster)


def _crash(
    gates: Gates,
    options: dict[str, Any],
    body: str,
    folder: Path,
    home: Path,
    cluster: Cluster | None,
) -> None:
    script, _, started, release = _script(gates, options, body)
    program = Program(script, folder)
    try:
        assert program.process.stdout is not None
        pid = int(program.process.stdout.readline()) if cluster is None else cluster.scheduler.pid
        started.wait()
        os.kill(pid, signal.SIGKILL)
        ended = program.end(grace=GONE)
    finally:
        program.kill()
        release.open()
    assert (ended.code, ended.out, ended.err) == (0, "broken\n", "")
    _nothing_is_left(ended, home)


def test_client_and_keeper_are_killed(gates: Gates, tmp_path: Path, home: Path) -> None:
    """Both at once: no process is left; what is in the state folder goes when next looked at."""
    script, _, started, release = _script(
        gates, {"cluster": "local"}, "print(executor._kept.pid, flush=True)\n" + IN_CALL
    )
    program = Program(script, tmp_path)
    try:
        assert program.process.stdout is not None
        keeper = int(program.process.stdout.readline())
        started.wait()
        os.kill(keeper, signal.SIGKILL)
        program.signal(signal.SIGKILL)
        ended = program.end(grace=3)
        assert not ended.processes, ended.processes_told
        (tmp_path / "again").mkdir()
        listing = "from daskexec import _state\nassert _state.entries() == []\n"
        again = Program(listing, tmp_path).end()
    finally:
        program.kill()
        release.open()
    assert (again.code, again.err) == (0, "")
    _nothing_is_left(again, home)
