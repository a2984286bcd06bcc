"""Clusters over SSH: a real server on three loopback addresses stands for three hosts."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from daskexec_testing import calls
from daskexec_testing.gates import eventually
from daskexec_testing.processes import Program, free_port, marked
from daskexec_testing.services import require

from daskexec import ClusterConfig, ClusterStartFailed, ConfigError, DaskExecutor, WorkerDied
from daskexec.kinds import open_cluster, ssh

pytestmark = pytest.mark.timeout(120)

LIMIT = 60
SERVICE = Path(__file__).parents[1] / "services" / "ssh.sh"
HOSTS = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]


class Server:
    """A running sshd: its port, and the folder with keys."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()

    def connect(self, **more: Any) -> dict[str, Any]:
        return {
            "port": self.port,
            "client_keys": [str(self.folder / "id")],
            "known_hosts": str(self.folder / "known_hosts"),
            "config": [],
            **more,
        }

    def config(self, tmp_path: Path, hosts: list[str] = HOSTS, **kwargs: Any) -> ClusterConfig:
        """A config for these hosts; what they leave behind carries a mark, `mark`."""
        kwargs = {
            "hosts": hosts,
            "connect_options": self.connect(),
            "worker_options": {
                "nthreads": 1,
                "memory_limit": 0,
                "local_directory": str(tmp_path / "scratch"),
            },
            "environment": {
                "PYTHONPATH": os.pathsep.join(filter(None, map(os.path.abspath, sys.path))),
                "DASKEXEC_TEST_MARK": str(tmp_path),
            },
            **kwargs,
        }
        top = {key: kwargs.pop(key) for key in ("insecure", "scale", "adapt") if key in kwargs}
        return ClusterConfig(
            "three", "ssh", "three.yaml", cluster_kwargs=kwargs, start_timeout=LIMIT, **top
        )


def on_hosts(tmp_path: Path) -> list[int]:
    """The processes that run on the hosts for a config with this folder's mark."""
    return marked(str(tmp_path))


def nothing_left(tmp_path: Path) -> None:
    """Wait until all processes on the hosts have gone and their scratch folders with them."""
    eventually(lambda: not on_hosts(tmp_path), "the processes on the hosts have ended")
    scratch = tmp_path / "scratch"
    assert not scratch.exists() or not os.listdir(scratch)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if importlib.util.find_spec("asyncssh") is None:
        require("ssh", "asyncssh is not installed")
    if os.getuid() != 0:
        require("ssh", "only root can start a server for SSH as these tests need it")
    if not (shutil.which("sshd") or os.path.exists("/usr/sbin/sshd")):
        require("ssh", "openssh-server is not installed")
    server = Server(tmp_path_factory.mktemp("ssh") / "server")
    subprocess.run([SERVICE, "up", server.folder, str(server.port)], check=True, timeout=60)
    yield server
    subprocess.run([SERVICE, "down", server.folder], check=True, timeout=60)


def _where() -> str:
    from distributed import get_worker

    return str(get_worker().name)


def _everywhere(executor: DaskExecutor, names: set[str]) -> None:
    """Run calls until each of these workers has run one."""
    seen: set[str] = set()

    def all_seen() -> bool:
        futures = [executor.submit(_nap_and_where) for _ in names for _ in "ab"]
        seen.update(future.result(LIMIT) for future in futures)
        return seen >= names

    eventually(all_seen, f"calls run on {names}")


def _submit_within(executor: DaskExecutor, value: int) -> int:
    return executor.submit(abs, value).result(LIMIT)


def _nap_and_where() -> str:
    time.sleep(0.1)
    return _where()


@pytest.mark.parametrize("scheduler", ["local", "first"])
def test_three_hosts(server: Server, tmp_path: Path, scheduler: str) -> None:
    """Calls run on every host, by TLS, with the scheduler here or on the first host."""
    config = server.config(tmp_path, scheduler=scheduler)
    with DaskExecutor(cluster=config) as executor:
        assert executor.submit(calls.add, 1, 2).result(LIMIT) == 3
        _everywhere(executor, {f"{host}-0" for host in HOSTS})
        assert list(executor.map(calls.identity, range(200))) == list(range(200))
        assert executor.submit(_submit_within, executor, -3).result(LIMIT) == 3
        assert executor._client.scheduler.address.startswith("tls://")
        told = "".join(Path("/proc", str(p), "cmdline").read_text() for p in on_hosts(tmp_path))
        assert "ssh_host" in told
        assert "PRIVATE KEY" not in told
        assert "DASK_INTERNAL" not in told
        keys = [p for p in (tmp_path / "scratch").rglob("*") if p.suffix in (".pem", ".key")]
        assert not keys, "keys stay in memory"
        for folder in (tmp_path / "scratch").iterdir():
            assert folder.stat().st_mode & 0o777 == 0o700
    nothing_left(tmp_path)


def test_worker_processes_and_prologue(server: Server, tmp_path: Path) -> None:
    """A host runs as many worker processes as asked for, after the lines of the prologue."""
    config = server.config(
        tmp_path,
        ["127.0.0.2"],
        prologue=['export FROM_PROLOGUE="a b; c"'],
        worker_options={"n_workers": 2, "nthreads": 1, "memory_limit": "1GiB"},
        insecure=True,
    )
    with DaskExecutor(cluster=config) as executor:
        _everywhere(executor, {"127.0.0.2-0", "127.0.0.2-1"})
        assert executor.submit(os.getenv, "FROM_PROLOGUE").result(LIMIT) == "a b; c"
        assert executor._client.scheduler.address.startswith("tcp://127.0.0.1:")
    nothing_left(tmp_path)


def test_two_addresses_of_this_machine(server: Server, tmp_path: Path) -> None:
    """Hosts that reach this machine by different addresses are each told their own."""

    class TwoAddresses(ssh._SSHCluster):
        def _ends(self) -> list[str]:
            return ["127.0.0.1", "127.0.0.3"]

    cluster = TwoAddresses(server.config(tmp_path, HOSTS[:2]))
    cluster.start()
    try:
        with _executor_on(cluster) as executor:
            _everywhere(executor, {"127.0.0.1-0", "127.0.0.2-0"})
            told = executor._client.run(_scheduler_of)
            assert {name: address.split(":")[1] for name, address in told.values()} == {
                "127.0.0.1-0": "//127.0.0.1",
                "127.0.0.2-0": "//127.0.0.3",
            }
    finally:
        cluster.close()
    nothing_left(tmp_path)


def _scheduler_of(dask_worker: Any) -> tuple[str, str]:
    return str(dask_worker.name), str(dask_worker.scheduler.address)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["127.0.0.1", "127.0.0.1"], ["127.0.0.1", "127.0.0.1"]),
        (["10.1.1.1", "127.0.0.1"], ["10.1.1.1", "10.1.1.1"]),
        (["10.1.1.1", "10.2.2.2"], ["10.1.1.1", "10.2.2.2"]),
        (["fd00::1", "::1"], ["[fd00::1]", "[fd00::1]"]),
    ],
)
def test_where_hosts_reach_this_machine(names: list[str], told: list[str]) -> None:
    """At the end of their own connection; never at loopback where a host is another machine."""
    pytest.importorskip("asyncssh")

    class Connection:
        def __init__(self, name: str) -> None:
            self.name = name

        def get_extra_info(self, _: str) -> tuple[str, int]:
            return self.name, 22

        def abort(self) -> None:
            pass

    config = ClusterConfig("c", "ssh", cluster_kwargs={"hosts": names})
    cluster = ssh._SSHCluster(config)
    try:
        for host, name in zip(cluster._hosts, names, strict=True):
            host.connection = Connection(name)
        assert cluster._ends() == told
    finally:
        cluster.close()


def test_jump_host(server: Server, tmp_path: Path) -> None:
    """Behind a jump host it has to be said where the scheduler is reached."""
    options = server.connect(tunnel=f"root@127.0.0.1:{server.port}")
    cluster = ssh._SSHCluster(server.config(tmp_path, ["127.0.0.2"], connect_options=options))
    connected: list[str] = []

    async def connect(host: Any) -> None:  # asyncssh takes the tunnel's keys from ~/.ssh
        connected.append(host.name)

    cluster._connect = connect  # type: ignore[method-assign]
    with pytest.raises(ClusterStartFailed, match="scheduler: first"):
        cluster.start()
    assert connected == ["127.0.0.2"]


# --- hosts that cannot be used: one line each, and the good ones are cleaned up ------------------


def _failure(config: ClusterConfig, host: str, tmp_path: Path) -> str:
    """Start a cluster that cannot be; return what is said of the host."""
    with pytest.raises(ClusterStartFailed) as caught:
        DaskExecutor(cluster=config)
    nothing_left(tmp_path)
    told = [line for line in str(caught.value).splitlines() if line.startswith(f"host {host}:")]
    assert len(told) == 1, str(caught.value)
    return told[0]


def test_wrong_key(server: Server, tmp_path: Path) -> None:
    """A key that the host does not take is said to be that, with the command to try."""
    wrong = server.connect(client_keys=[str(server.folder / "stranger")])
    config = server.config(tmp_path, connect_options=[server.connect(), wrong, server.connect()])
    said = _failure(config, "127.0.0.2", tmp_path)
    assert "refused the login" in said
    assert f"ssh -p {server.port}" in said


def test_missing_key(server: Server, tmp_path: Path) -> None:
    """A key file that is not there is named."""
    config = server.config(
        tmp_path, connect_options=server.connect(client_keys=[str(tmp_path / "none")])
    )
    assert str(tmp_path / "none") in _failure(config, "127.0.0.1", tmp_path)


def test_unknown_host_key(server: Server, tmp_path: Path) -> None:
    """A host whose key is not known is not trusted."""
    nobody = str(server.folder / "nobody_known")
    config = server.config(tmp_path, connect_options=server.connect(known_hosts=nobody))
    assert "host key is not known" in _failure(config, "127.0.0.3", tmp_path)


def test_wrong_python(server: Server, tmp_path: Path) -> None:
    """A Python that is not there is named; the hosts that had started are cleaned up."""
    pythons = [sys.executable, "/no/such/python", sys.executable]
    said = _failure(server.config(tmp_path, remote_python=pythons), "127.0.0.2", tmp_path)
    assert "there is no Python at /no/such/python" in said
    assert "remote_python" in said


def test_python_without_daskexec(server: Server, tmp_path: Path) -> None:
    """A Python that lacks daskexec is said to lack it, and what to do."""
    bare = ["env", "-i", "PATH=/usr/bin:/bin", sys.executable, "-I", "-S"]
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {" ".join(bare)} "$@"\n')
    python.chmod(0o755)
    config = server.config(tmp_path, remote_python=str(python))
    said = _failure(config, "127.0.0.1", tmp_path)
    assert "has no daskexec" in said
    assert "Install daskexec there" in said


def test_dead_host(server: Server, tmp_path: Path) -> None:
    """A host that takes the connection and says nothing is given up after connect_timeout."""
    with socket.create_server(("127.0.0.2", 0)) as mute:
        options = [server.connect() for _ in HOSTS]
        options[1]["port"] = mute.getsockname()[1]
        config = server.config(tmp_path, connect_options=options, connect_timeout=1)
        said = _failure(config, "127.0.0.2", tmp_path)
    assert f"port {options[1]['port']}" in said
    assert "Is it up?" in said


def test_nobody_listens(server: Server, tmp_path: Path) -> None:
    """A port that nobody listens at, and a name that nobody has, are said to be that."""
    options = server.connect(port=free_port())
    config = server.config(tmp_path, ["127.0.0.1", "nowhere.invalid"], connect_options=options)
    assert "no SSH connection" in _failure(config, "127.0.0.1", tmp_path)
    assert "nowhere.invalid" in _failure(config, "nowhere.invalid", tmp_path)


def test_scheduler_out_of_reach(server: Server, tmp_path: Path) -> None:
    """Workers that cannot reach the scheduler say so, and which keys are about that."""
    config = server.config(tmp_path, ["127.0.0.2"], scheduler_options={"port": free_port()})

    class Elsewhere(ssh._SSHCluster):
        async def _scheduler_here(self) -> None:
            await super()._scheduler_here()
            self._for_host["127.0.0.2"] = f"tls://127.0.0.1:{free_port()}"

    cluster = Elsewhere(config)
    with pytest.raises(ClusterStartFailed, match=r"scheduler_options: host or interface"):
        cluster.start()
    nothing_left(tmp_path)


# --- while it runs ------------------------------------------------------------------------------


def test_worker_dies(server: Server, tmp_path: Path) -> None:
    """A call that kills its worker fails alone; the worker is started again; its fate is known."""
    cluster = open_cluster(server.config(tmp_path, ["127.0.0.2"]))
    try:
        with _executor_on(cluster) as executor:
            with pytest.raises(WorkerDied):
                executor.submit(calls.exit_hard).result(LIMIT)
            assert executor.submit(calls.add, 1, 2).result(LIMIT) == 3
            assert "127.0.0.2" in cluster.fate("127.0.0.2-0")
    finally:
        cluster.close()
    nothing_left(tmp_path)


def test_host_process_is_killed(server: Server, tmp_path: Path) -> None:
    """What runs on a host is started again when it is killed; the loss is said meanwhile."""
    cluster = open_cluster(server.config(tmp_path, ["127.0.0.2", "127.0.0.3"]))
    try:
        with _executor_on(cluster) as executor:
            _everywhere(executor, {"127.0.0.2-0", "127.0.0.3-0"})
            for pid in _leaders(tmp_path):
                os.kill(pid, signal.SIGKILL)
            eventually(lambda: "host 127.0.0.3 was lost" in cluster.fate("127.0.0.3-0"))
            _everywhere(executor, {"127.0.0.2-0", "127.0.0.3-0"})
            eventually(lambda: cluster.trouble() == (False, ""), "all is well again")
    finally:
        cluster.close()
    nothing_left(tmp_path)


def _executor_on(cluster: Any) -> DaskExecutor:
    from distributed import Client

    client = Client(cluster.address, security=cluster.security, set_as_default=False)
    executor = DaskExecutor(cluster=client)
    shutdown = executor.shutdown

    def both(*args: Any, **kwargs: Any) -> None:
        shutdown(*args, **kwargs)
        client.close()

    executor.shutdown = both  # type: ignore[method-assign]
    return executor


def _leaders(tmp_path: Path) -> list[int]:
    """The processes on the hosts that SSH has started."""
    lines = {pid: " ".join(psutil.Process(pid).cmdline()) for pid in on_hosts(tmp_path)}
    return [pid for pid, line in lines.items() if "daskexec.kinds.ssh_host" in line]


def test_fixed_size(server: Server, tmp_path: Path) -> None:
    """scale and adapt are refused, in the config and later, with what to do instead."""
    for more in ({"scale": {"workers": 2}}, {"adapt": {"maximum": 3}}):
        with pytest.raises(ConfigError, match="as large as its hosts"):
            DaskExecutor(cluster=server.config(tmp_path, **more))
    cluster = open_cluster(server.config(tmp_path, ["127.0.0.2"]))
    try:
        with pytest.raises(ConfigError, match="add hosts"):
            cluster.scale(3)
    finally:
        cluster.close()
        cluster.close()  # a second one returns
    nothing_left(tmp_path)


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({"hosts": []}, "hosts must be a list"),
        ({"hostz": ["a"]}, "did you mean hosts"),
        ({"hosts": ["a"], "connect_options": {"known_hosts": None}}, "insecure: true"),
        ({"hosts": ["a"], "connect_options": [{}, {}]}, "one for each"),
        ({"hosts": ["a"], "worker_options": {"nthread": 1}}, "did you mean nthreads"),
        ({"hosts": ["a"], "scheduler": "b"}, "local or first"),
        ({"hosts": ["a"], "environment": {"A": "b\nc"}}, "one line"),
        ({"hosts": ["a"], "prologue": ["a\nb"]}, "one line"),
    ],
)
def test_keys_that_cannot_be_right(kwargs: dict[str, Any], said: str) -> None:
    """What cannot be right is refused before anything is started."""
    pytest.importorskip("asyncssh")
    config = ClusterConfig("c", "ssh", "c.yaml", cluster_kwargs={"hosts": ["x"], **kwargs})
    with pytest.raises(ConfigError, match=said):
        DaskExecutor(cluster=config)


# --- the end ------------------------------------------------------------------------------------


def test_interrupted_start(server: Server, tmp_path: Path) -> None:
    """A start that fails from outside in its middle leaves nothing on the hosts."""
    cluster = ssh._SSHCluster(server.config(tmp_path))
    failed = threading.Event()

    def start() -> None:
        with pytest.raises(BaseException):  # noqa: B017, PT011 - whatever the close makes of it
            cluster.start()
        failed.set()

    thread = threading.Thread(target=start)
    thread.start()
    eventually(lambda: on_hosts(tmp_path), "something runs on the hosts")
    cluster.close()
    assert failed.wait(LIMIT)
    thread.join()
    nothing_left(tmp_path)


_DRIVER = """
import json, sys, time
from daskexec import ClusterConfig, DaskExecutor

if __name__ == "__main__":
    config = ClusterConfig("three", "ssh", **json.loads(sys.argv[1]))
    executor = DaskExecutor(cluster=config)
    executor.submit(pow, 2, 3).result(60)
    executor.submit(time.sleep, 600)
    print("ready", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("scheduler", ["local", "first"])
def test_driver_is_killed(server: Server, tmp_path: Path, scheduler: str) -> None:
    """When the driver is killed, all on the hosts ends, the scheduler on a host too."""
    config = server.config(tmp_path, HOSTS[1:], scheduler=scheduler)
    words = json.dumps({"cluster_kwargs": config.cluster_kwargs, "start_timeout": 60})
    program = Program(_DRIVER, tmp_path, words)
    try:
        assert program.process.stdout is not None
        assert program.process.stdout.readline() == "ready\n"
        assert len(_leaders(tmp_path)) == (3 if scheduler == "first" else 2)
        program.signal(signal.SIGKILL)
        program.process.wait(LIMIT)
        nothing_left(tmp_path)
    finally:
        program.kill()
        program.process.communicate()


def test_driver_says_nothing_more(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the network is cut without a word, a host gives the driver up by itself."""
    monkeypatch.setattr(ssh, "PATIENCE", 6.0)
    monkeypatch.setattr(ssh, "PING", 3600.0)
    monkeypatch.setattr(ssh, "DELAYS", (3600.0,))
    cluster = open_cluster(server.config(tmp_path, ["127.0.0.2"]))
    try:
        nothing_left(tmp_path)
        eventually(lambda: "no sign of the driver" in cluster.trouble()[1], "why is said")
    finally:
        cluster.close()


def test_polite_end(server: Server, tmp_path: Path) -> None:
    """A driver that ends without closing anything leaves nothing, and prints nothing."""
    config = server.config(tmp_path, HOSTS[1:])
    words = json.dumps({"cluster_kwargs": config.cluster_kwargs, "start_timeout": 60})
    script = _DRIVER.replace("    executor.submit(time.sleep, 600)\n", "").replace(
        "    time.sleep(600)\n", ""
    )
    ended = Program(script, tmp_path, words).end()
    assert (ended.code, ended.out) == (0, "ready\n")
    assert ended.clean(), ended
    nothing_left(tmp_path)
