"""Kind local: each of its keys does what it says, and a crash is the crashing call's alone."""

from __future__ import annotations

import os
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from daskexec_testing import calls
from daskexec_testing.gates import Gates
from daskexec_testing.kept import state_folder

from daskexec import ClusterConfig, DaskExecutor, InsecureConnection, WorkerDied

pytestmark = pytest.mark.timeout(90)

LIMIT = 30


@pytest.fixture(autouse=True)
def state(tmp_path: Path) -> Iterator[Path]:
    with state_folder(tmp_path / "state") as folder:
        yield folder


def _options(dask_worker: Any) -> dict[str, Any]:
    manager = dask_worker.memory_manager
    return {
        "threads": dask_worker.state.nthreads,
        "memory": manager.memory_limit,
        "resources": dict(dask_worker.state.total_resources),
        "folder": dask_worker.local_directory,
        "pid": os.getpid(),
    }


def test_keys(tmp_path: Path) -> None:
    """Size, memory, resources, port, folder, dashboard and name are as the file says."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    config = ClusterConfig(
        "mine",
        "local",
        cluster_kwargs={
            "n_workers": 2,
            "threads_per_worker": 2,
            "memory_limit": "1GiB",
            "resources": {"GPU": 1},
            "scheduler_port": port,
            "local_directory": str(tmp_path / "new" / "spill"),
            "dashboard_address": ":0",
            "silence_logs": 20,
        },
    )
    with DaskExecutor(cluster=config) as executor:
        client = executor._client
        client.wait_for_workers(2, timeout=LIMIT)
        told = list(client.run(_options).values())
        assert [one["threads"] for one in told] == [2, 2]
        assert {one["memory"] for one in told} == {1 << 30}
        assert all(one["resources"] == {"GPU": 1} for one in told)
        assert all(one["folder"].startswith(str(tmp_path / "new" / "spill")) for one in told)
        assert client.scheduler.address == f"tcp://127.0.0.1:{port}"
        info = client.scheduler_info(n_workers=-1)
        health = f"http://127.0.0.1:{info['services']['dashboard']}/health"
        with urllib.request.urlopen(health, timeout=LIMIT) as page:
            assert page.status == 200
    assert os.listdir(tmp_path / "new" / "spill") == []


def test_others_cannot_connect_unless_it_is_said() -> None:
    """Listening where other machines can connect is refused without TLS, before it is started."""
    everywhere = ClusterConfig("wide", "local", cluster_kwargs={"host": "0.0.0.0"})
    with pytest.raises(InsecureConnection, match=r"0\.0\.0\.0.*security: true.*insecure: true"):
        DaskExecutor(1, cluster=everywhere)


def test_crash_after_it_was_left(gates: Gates) -> None:
    """A call that was left and kills its worker has run once; what waited behind it runs."""
    executor = DaskExecutor(1, cluster="local")
    started, release, journal = gates.gate(), gates.gate(), gates.journal()
    killer = executor.submit(calls.hold_then_exit, started, release, journal)
    waiting = [executor.submit(calls.note, journal, i) for i in range(5)]
    started.wait()
    executor.detach("crash", futures=[killer, *waiting])
    release.open()
    with DaskExecutor.attach("crash") as back:
        error = back.futures[0].exception(LIMIT)
        assert isinstance(error, WorkerDied)
        assert "exited with status 7" in str(error)
        assert [back.futures[i].result(LIMIT) for i in range(1, 6)] == list(range(5))
        # The one who came back has a board too.
        with pytest.raises(WorkerDied, match="exited with status 1"):
            back.submit(calls.exit_hard, journal).result(LIMIT)
        assert back.submit(calls.identity, 1).result(LIMIT) == 1
    assert journal.lines() == ["going", *map(str, range(5)), "exit_hard"]


def test_nested_crash(gates: Gates) -> None:
    """A call of a call that kills its worker runs once, and fails; others of its kind do not."""
    journal = gates.journal()
    with DaskExecutor(2, cluster="local") as executor:
        told = executor.submit(calls.submit_killers, executor, journal, 6).result(60)
    assert "WorkerDied" in told
    assert set(told) <= {"WorkerDied", "NoneType"}
    assert sorted(journal.lines()) == list("012345")
