"""Clusters of a config in a process of their own, which ends with the one that has started it."""

from __future__ import annotations

import os
import signal
import stat
import time
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, wait
from pathlib import Path

import pytest
from daskexec_testing import calls
from daskexec_testing.gates import Gates, eventually
from daskexec_testing.kept import all_gone, family, state_folder
from daskexec_testing.processes import Program

from daskexec import ClusterConfig, ClusterStartFailed, DaskExecutor, _kept, _state

pytestmark = pytest.mark.timeout(120)

LIMIT = 30

SCRIPT = """
import os, signal, sys, time
from daskexec import DaskExecutor
from daskexec_testing import calls
from daskexec_testing.gates import Gate, Journal
started, release, journal = Gate(sys.argv[1]), Gate(sys.argv[2]), Journal(sys.argv[3])
"""


@pytest.fixture(autouse=True)
def state(tmp_path: Path) -> Iterator[Path]:
    with state_folder(tmp_path / "state") as folder:
        yield folder


def test_runs_calls_and_ends(state: Path) -> None:
    """Calls run on its workers; with the executor all of it ends, its folder too."""
    with DaskExecutor(2, cluster="local") as executor:
        assert list(executor.map(calls.add, range(50), range(50))) == list(range(0, 100, 2))
        (entry,) = _state.entries()
        assert (entry.kind, entry.config, entry.client) == ("local", "local", os.getpid())
        assert entry.address.startswith("tcp://127.0.0.1:")
        processes = family(entry.pid)
        assert len(processes) >= 3  # the keeper and two workers
        assert not {executor.submit(calls.pid).result(LIMIT)} - {p.pid for p in processes}
        scratch = Path(entry.socket).parent
        assert scratch.exists()
    all_gone(processes)
    assert os.listdir(state) == []
    assert not scratch.exists()


def test_is_the_users_alone(state: Path) -> None:
    """Nobody else may read anything of it, nor reach its socket."""
    with DaskExecutor(1, cluster="local"):
        (entry,) = _state.entries()
        for folder in (state.parent, state, entry.folder, Path(entry.socket).parent):
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700, folder
        for path in entry.folder.iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_certificates_come_through_the_socket(state: Path) -> None:
    """A cluster with TLS is reached by the certificates it has made; no file has them."""
    pytest.importorskip("cryptography")
    config = ClusterConfig(
        "secure", "local", cluster_kwargs={"protocol": "tls://", "security": True}
    )
    with DaskExecutor(1, cluster=config) as executor:
        assert executor.submit(calls.add, 1, 2).result(LIMIT) == 3
        (entry,) = _state.entries()
        assert entry.address.startswith("tls://")
        for path in [*entry.folder.rglob("*"), *Path(entry.socket).parent.iterdir()]:
            assert not path.is_file() or b"PRIVATE KEY" not in path.read_bytes()
        command = family(entry.pid)[0].cmdline()
        assert not any("PRIVATE KEY" in part for part in command)


def test_ctrl_c_reaches_the_client_alone(tmp_path: Path, gates: Gates) -> None:
    """SIGINT to the whole group of processes is the client's: the cluster works on."""
    started, release = gates.gate(), gates.gate()
    script = (
        SCRIPT
        + """
with DaskExecutor(1, cluster="local") as executor:
    future = executor.submit(calls.hold, started, release, "kept")
    started.wait()
    try:
        os.killpg(0, signal.SIGINT)
        time.sleep(10)
    except KeyboardInterrupt:
        print("interrupted")
    release.open()
    print(future.result(), executor.submit(pow, 2, 3).result())
"""
    )
    ended = Program(script, tmp_path, started.path, release.path, "").end()
    assert (ended.code, ended.out, ended.err) == (0, "interrupted\nkept 8\n", "")
    assert not ended.processes, ended.processes_told


def test_errors_arrive_as_themselves(state: Path) -> None:
    """What keeps a cluster from starting is raised by the constructor, as it was raised there."""
    config = ClusterConfig("bad", "local", cluster_kwargs={"threads_per_worker": "many"})
    with pytest.raises(ValueError, match="many"):
        DaskExecutor(1, cluster=config)
    assert os.listdir(state) == []


def test_keeper_dies_at_the_start(state: Path) -> None:
    """A keeper that dies before the cluster is up is ClusterStartFailed, with its status."""
    kept = _kept.start(ClusterConfig("local", "local"), 1)
    os.kill(kept.pid, signal.SIGKILL)
    with pytest.raises(ClusterStartFailed, match=r"'local'.*-9"):
        kept.wait_until_open()
    kept.close()
    assert os.listdir(state) == []


def test_closed_while_it_starts(state: Path) -> None:
    """A cluster that is closed before it is up ends, and a second close returns."""
    kept = _kept.start(ClusterConfig("local", "local"), 1)
    kept.close()
    kept.close()
    assert os.listdir(state) == []


def test_keeper_killed(state: Path, gates: Gates) -> None:
    """When a keeper dies pending calls fail with BrokenExecutor, and the workers go."""
    executor = DaskExecutor(2, cluster="local")
    started = gates.gate()
    futures = [executor.submit(calls.hold, started, gates.gate())]
    futures += [executor.submit(calls.identity, i) for i in range(50)]
    started.wait()
    (entry,) = _state.entries()
    processes = family(entry.pid)
    os.kill(entry.pid, signal.SIGKILL)
    assert not wait(futures, timeout=LIMIT).not_done
    assert isinstance(futures[0].exception(), BrokenExecutor)
    gates.open_all()
    executor.shutdown()
    all_gone(processes)
    assert os.listdir(state) == []


def test_dead_keeper_is_the_trouble(state: Path) -> None:
    """The trouble of a cluster whose keeper has died is that, for good."""
    kept = _kept.start(ClusterConfig("local", "local"), 1)
    try:
        kept.wait_until_open()
        assert kept.trouble() == (False, "")
        assert kept.fate("tcp://127.0.0.1:1") == ""
        os.kill(kept.pid, signal.SIGKILL)
        eventually(lambda: kept.trouble()[0], "the trouble is final")
        assert f"process {kept.pid}" in kept.trouble()[1]
        assert kept.fate("tcp://127.0.0.1:1") == ""
    finally:
        kept.close()


def test_scales(state: Path) -> None:
    """Asking for more workers brings them."""
    with DaskExecutor(1, cluster="local") as executor:
        kept = executor._kept
        assert kept is not None
        kept.scale(2)
        pids = set()

        def two() -> bool:
            pids.update(executor.map(calls.pid, range(4), chunksize=1))
            return len(pids) == 2

        eventually(two, "two workers run calls")


def test_no_place_to_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing can be written down the error says what to set."""
    monkeypatch.setenv("XDG_STATE_HOME", "/proc/nowhere")
    with pytest.raises(ClusterStartFailed, match="XDG_STATE_HOME"):
        DaskExecutor(1, cluster="local")


def test_stale_folders_go(state: Path) -> None:
    """What a dead keeper has left behind is removed when clusters are next looked at."""
    folder, lock = _state.new_folder("local")
    entry = _state.Entry(folder.name, "local", "local", os.uname().nodename, since=time.time())
    entry.save()
    assert [e.name for e in _state.entries()] == [folder.name]  # its lock is held
    os.close(lock)
    assert _state.entries() == []
    assert not folder.exists()
    bare, lock = _state.new_folder("local")
    os.close(lock)
    assert _state.entries() == []
    assert bare.exists()  # it may be about to get its entry
    os.utime(bare, (0, 0))
    assert _state.entries() == []
    assert not bare.exists()


def test_fork_of_the_client(tmp_path: Path, gates: Gates) -> None:
    """A forked child of the client does not keep the cluster alive."""
    forked, go = gates.gate(), gates.gate()
    script = (
        SCRIPT
        + """
executor = DaskExecutor(1, cluster="local")
executor.submit(pow, 2, 8).result()
if os.fork():
    release.wait()
    os.kill(os.getpid(), signal.SIGKILL)
started.open()
time.sleep(100)
"""
    )
    program = Program(script, tmp_path, forked.path, go.path, "")
    try:
        forked.wait()
        (entry,) = _state.entries()
        processes = family(entry.pid)
        go.open()
        all_gone(processes)
    finally:
        program.kill()
        program.process.communicate()
