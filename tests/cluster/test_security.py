"""What others reach: nothing from other machines, and nothing at all where TLS was asked for.

The second user of the tests is ``nobody``: a process that becomes it, once it has imported what it
attacks with, as ``nobody`` may not read this Python.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import pwd
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from daskexec_testing import calls
from daskexec_testing.gates import Gates
from daskexec_testing.kept import family, state_folder
from daskexec_testing.listening import listening
from daskexec_testing.services import require

from daskexec import ClusterConfig, DaskExecutor, ExecutorWarning, _security, _state

pytestmark = pytest.mark.timeout(120)

LIMIT = 30


@pytest.fixture(autouse=True)
def state(tmp_path: Path) -> Iterator[Path]:
    with state_folder(tmp_path / "state") as folder:
        yield folder


# -- other machines -------------------------------------------------------------------------------

KEPT = ClusterConfig("kept", "local", cluster_kwargs={"dashboard_address": ":0"})


@pytest.mark.parametrize(
    "options",
    [{}, {"dashboard": True}, {"secure": True}, {"cluster": KEPT}],
    ids=["own", "dashboard", "secure", "kept with dashboard"],
)
def test_nothing_listens_beyond_loopback(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the kernel says of the sockets of all our processes: loopback only, HTTP included."""
    if "dashboard" in options:  # without bokeh Dask serves other pages, at the same address
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    before = listening(*(process.pid for process in family(os.getpid())))
    with DaskExecutor(2, **options) as executor:
        client = executor.submit(abs, 1).dask_future.client
        client.wait_for_workers(2, timeout=LIMIT)
        info = client.scheduler_info(n_workers=-1)
        port = int(client.scheduler.address.rpartition(":")[2])
        found = listening(*(process.pid for process in family(os.getpid()))) - before
    assert {address.host for address in found} == {"127.0.0.1"}
    ports = {address.port for address in found}
    assert port in ports
    assert {int(address.rpartition(":")[2]) for address in info["workers"]} <= ports
    assert bool(info["services"]) == (options not in ({}, {"secure": True}))
    if info["services"]:
        assert info["services"]["dashboard"] in ports
    else:
        assert len(ports) == 3  # scheduler and workers, and no HTTP


# -- other users of this machine ------------------------------------------------------------------

STRANGER = """
import asyncio, json, os, socket, sys
sys.path[:] = {path!r}
from distributed import Client
from distributed.core import rpc
from distributed.protocol.pickle import dumps
from distributed.security import Security
import distributed.protocol.serialize, distributed.comm.tcp, cryptography.x509, pickle, cloudpickle
task = json.loads(sys.argv[1])
temporary = Security.temporary()
context = Security.temporary().get_connection_args("client")  # what it imports late
os.setgroups([])
os.setgid({gid})
os.setuid({uid})
os.chdir("/")
os.environ["HOME"] = "/nonexistent"
told = {{}}

def attempt(name, action):
    try:
        told[name] = str(action())
    except BaseException as error:
        told[name] = "refused: " + type(error).__name__

def run_code(address, security):
    async def run():
        async with Client(address, asynchronous=True, timeout=5, security=security) as client:
            return await client.run_on_scheduler(os.getuid)
    return asyncio.run(asyncio.wait_for(run(), 20))

def ask_worker(address, security):
    async def ask():
        args = security.get_connection_args("client")
        async with rpc(address, connection_args=args, timeout=5) as worker:
            answer = await worker.run(function=dumps(os.getuid))
            return answer["result"]
    return asyncio.run(asyncio.wait_for(ask(), 20))

def read(path):
    with open(path, "rb") as file:
        return len(file.read(100))

def connect(path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)

place = task["address"].partition("://")[2]
attempt("plain", lambda: run_code("tcp://" + place, None))
attempt("own certificates", lambda: run_code("tls://" + place, temporary))
for worker in task["workers"]:
    attempt("worker", lambda: ask_worker("tcp://" + worker, Security()))
    attempt("worker, own certificates", lambda: ask_worker("tls://" + worker, temporary))
for path in task["folders"]:
    attempt("list " + path, lambda: os.listdir(path))
for path in task["files"]:
    attempt("read " + path, lambda: read(path))
for path in task["sockets"]:
    attempt("connect " + path, lambda: connect(path))
print(json.dumps(told))
"""


def _attacked(executor: DaskExecutor, **task: list[str]) -> dict[str, str]:
    """What a process of another user could do to the cluster of an executor."""
    if os.getuid() != 0:
        require("users", "only root can become another user")
    nobody = pwd.getpwnam("nobody")
    client = executor.submit(abs, 1).dask_future.client
    client.wait_for_workers(1, timeout=LIMIT)
    info = client.scheduler_info(n_workers=-1)
    told = {
        "address": client.scheduler.address,
        "workers": [address.partition("://")[2] for address in info["workers"]],
        "folders": [],
        "files": [],
        "sockets": [],
        **task,
    }
    script = STRANGER.format(path=sys.path, uid=nobody.pw_uid, gid=nobody.pw_gid)
    ended = subprocess.run(
        [sys.executable, "-c", script, json.dumps(told)],
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert ended.stdout, ended.stderr
    found: dict[str, str] = json.loads(ended.stdout.splitlines()[-1])
    return found


def test_the_stranger_can_attack() -> None:
    """What the next tests rest on: without TLS another user of this machine gets in."""
    with DaskExecutor(1) as executor:
        told = _attacked(executor)
    assert told["plain"] == told["worker"] == str(os.getuid())


def test_another_user_cannot_use_an_own_cluster(tmp_path: Path) -> None:
    """With secure=True: no code is run, no file of ours is read, no key is anywhere."""
    with DaskExecutor(1, secure=True) as executor:
        assert executor.submit(calls.add, 1, 2).result(LIMIT) == 3
        assert executor.submit(abs, 1).dask_future.client.scheduler.address.startswith("tls://")
        scratch = executor.submit(calls.scratch).result(LIMIT)
        folder = Path(scratch).parents[1]
        processes = family(os.getpid())
        files = [str(path) for path in folder.rglob("*") if path.is_file()]
        assert any("board" in path for path in files)
        files += [f"/proc/{one.pid}/{what}" for one in processes for what in ("environ", "mem")]
        told = _attacked(executor, folders=[str(folder)], files=files)
        _holds_no_key([folder], processes)
    assert all(each.startswith("refused") for each in told.values()), told
    assert {told[f"read {path}"] for path in files} == {"refused: PermissionError"}


def test_another_user_cannot_use_a_kept_cluster(state: Path, gates: Gates) -> None:
    """Nor one that a keeper has: not its sockets, what was left with it, nor what that came to."""
    config = ClusterConfig("kept", "local", cluster_kwargs={"security": True})
    executor = DaskExecutor(1, cluster=config)
    started, release = gates.gate(), gates.gate()
    done = executor.submit(calls.identity, "secret")
    assert done.result(LIMIT) == "secret"
    held = executor.submit(calls.hold, started, release, "secret")
    started.wait()
    executor.detach("left", futures=[done, held])
    with DaskExecutor.attach("left") as back:
        (entry,) = _state.entries()
        processes = family(entry.pid)
        folders = [state, entry.folder, Path(entry.socket).parent]
        files = [str(path) for path in entry.folder.iterdir()]
        assert {"results", "futures.json", "entry.json"} <= set(os.listdir(entry.folder))
        told = _attacked(
            back, folders=list(map(str, folders)), files=files, sockets=[entry.socket]
        )
        _holds_no_key(folders, processes)
        release.open()
        assert back.futures[1].result(LIMIT) == "secret"
    assert all(each.startswith("refused") for each in told.values()), told
    assert {told[f"read {path}"] for path in files} == {"refused: PermissionError"}
    assert told[f"connect {entry.socket}"] == "refused: PermissionError"


def _holds_no_key(folders: list[Path], processes: list[Any]) -> None:
    """Check that no file has a private key, nor a command line, nor an environment."""
    for folder in folders:
        for path in folder.rglob("*"):
            assert not path.is_file() or b"PRIVATE KEY" not in path.read_bytes(), path
    for process in processes:
        for what in ("cmdline", "environ"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
                assert b"PRIVATE KEY" not in Path("/proc", str(process.pid), what).read_bytes()


# -- what was not asked for -----------------------------------------------------------------------


def test_ambient_settings_of_dask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Own and kept clusters go nowhere else and run nothing that Dask's configuration names."""
    import dask

    trap = tmp_path / "trap.py"
    trap.write_text(f"def dask_setup(*_): open({str(tmp_path / 'sprung')!r}, 'w')\n")
    ambient = {
        "scheduler-address": "tcp://192.0.2.7:8786",
        "distributed.client.preload": [str(trap)],
        "distributed.client.security-loader": "builtins.print",
    }
    monkeypatch.setattr(_security, "_said", set())
    with dask.config.set(ambient), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for cluster in (None, "local"):
            with DaskExecutor(1, cluster=cluster) as executor:
                assert executor.submit(abs, -1).result(LIMIT) == 1
    said = [str(one.message) for one in caught if issubclass(one.category, ExecutorWarning)]
    assert {one.partition(" = ")[0] for one in said} == set(ambient)
    assert all("is not obeyed" in one for one in said)
    assert not (tmp_path / "sprung").exists()


def test_secure_needs_cryptography(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it secure=True says what to install, and starts nothing."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"daskexec\[tls\]"):
        DaskExecutor(1, secure=True)
