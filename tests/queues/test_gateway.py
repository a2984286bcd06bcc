"""A real dask-gateway: clusters that it starts, and what it says when it does not."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import socket
import subprocess
import sys
import textwrap
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, wait
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from daskexec_testing import calls
from daskexec_testing.gates import Gates, eventually
from daskexec_testing.leaks import sharing
from daskexec_testing.processes import environment, free_port, marked
from daskexec_testing.services import require

from daskexec import ClusterStartFailed, ClusterUnreachable, ConfigError, DaskExecutor, WorkerDied
from daskexec.config import ClusterConfig
from daskexec.kinds import open_cluster

pytestmark = pytest.mark.timeout(120)

LIMIT = 60
SERVER = Path(__file__).parents[1] / "services" / "gateway.py"


@dataclass(frozen=True)
class Server:
    """The running gateway."""

    port: int

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def config(self, options: dict[str, Any] | None = None, **more: Any) -> ClusterConfig:
        """A config for this gateway, with these options for the cluster."""
        kwargs = {
            "address": self.address,
            "proxy_address": self.port + 1,
            "auth": {"type": "basic", "username": "alice", "password": "test"},
            "options": options or {},
            **more.pop("kwargs", {}),
        }
        return ClusterConfig("mygateway", "gateway", cluster_kwargs=kwargs, **more)

    def gateway(self) -> Any:
        """A client of the gateway. It closes itself when it is dropped, and once only."""
        from dask_gateway import Gateway
        from dask_gateway.auth import BasicAuth

        return Gateway(self.address, self.port + 1, auth=BasicAuth("alice", "test"))

    def clusters(self) -> list[str]:
        """The names of the clusters that there are or are about to be."""
        return [report.name for report in self.gateway().list_clusters()]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    for package in ("dask_gateway", "dask_gateway_server", "sqlalchemy"):
        if importlib.util.find_spec(package) is None:
            require("gateway", f"{package} is not installed")
    folder, port, mark = tmp_path_factory.mktemp("gateway"), free_port(), "gateway"
    with sharing(), (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, str(SERVER), str(folder), str(port)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment(mark, folder / "tmp"),
            start_new_session=True,
        )
        try:
            eventually(lambda: _healthy(port) or process.poll() is not None, "the gateway starts")
            assert process.poll() is None, (folder / "log").read_text()[-2000:]
        except BaseException:
            process.kill()
            raise
    yield Server(port)
    process.terminate()
    process.wait(30)
    assert not marked(mark)


def _healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=2) as answer:
            return bool(json.load(answer)["status"] == "pass")
    except OSError:
        return False


def threads(executor: DaskExecutor) -> int:
    """Worker threads there are, as the scheduler says."""
    return sum(executor._client.nthreads().values())


# -- it works --------------------------------------------------------------------------------


def test_the_log_job(server: Server, tmp_path: Path) -> None:
    """A report made on the gateway's cluster is the same JSON as one made here; then all ends.

    From the command line, with a config file, whose password is in the environment.
    """
    from daskexec.logs.demo import write_demo

    demo = write_demo(tmp_path / "demo")
    site = tmp_path / "site.yaml"
    site.write_text(f"""
        kind: gateway
        cluster_kwargs:
          address: {server.address}
          proxy_address: gateway://127.0.0.1:{server.port + 1}
          auth: {{type: basic, username: alice, password: "${{GATEWAY_PASSWORD}}"}}
          cluster_options: {{worker_cores: 2}}
        scale: {{workers: 1}}
    """)

    def report(spec: str) -> str:
        command = [sys.executable, "-m", "daskexec", "logs", "--json", "--part-size", "256kiB"]
        done = subprocess.run(
            [*command, "--executor", spec, demo.plain, demo.gzip],
            env={**environment("log-job", tmp_path / "tmp"), "GATEWAY_PASSWORD": "test"},
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert report(str(site)) == report("serial")
    assert not server.clusters()
    assert not marked("log-job")


def test_scale(server: Server) -> None:
    """There are as many threads as asked for: by the config, by max_workers, and later."""
    options = {"worker_cores": 2}
    running = open_cluster(server.config(options, scale={"workers": 1}), 3)
    try:
        with client_of(running) as client:
            client.wait_for_workers(2, timeout=LIMIT)
            assert sum(client.nthreads().values()) == 4  # threads come by the worker
            running.scale(1)
            eventually(lambda: sum(client.nthreads().values()) == 2, "one worker is left", LIMIT)
    finally:
        running.close()


def client_of(running: Any) -> Any:
    from distributed import Client

    return Client(running.address, security=running.security, set_as_default=False)


def test_adapt(server: Server, gates: Gates) -> None:
    """An adaptive cluster starts without workers, grows with the work, and shrinks to none."""
    config = server.config(adapt={"minimum": 0, "maximum": 2})
    with DaskExecutor(cluster=config) as executor:
        release, started = gates.gate(), [gates.gate() for _ in range(2)]
        futures = [executor.submit(calls.hold, gate, release, 1) for gate in started]
        for gate in started:
            gate.wait(LIMIT)
        assert threads(executor) == 2
        release.open()
        assert [future.result(LIMIT) for future in futures] == [1, 1]
        del futures
        eventually(lambda: threads(executor) == 0, "the workers go", LIMIT)


def test_quota(server: Server) -> None:
    """Where the gateway allows fewer workers than asked for, its own words come as a warning."""
    with pytest.warns(Warning, match="would exceed resource limit of 3 workers"):
        running = open_cluster(server.config(scale={"workers": 4}), None)
    running.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Gateway.__del__
def test_a_cluster_object(server: Server) -> None:
    """A GatewayCluster of the user's can be given as the cluster, and is left alone."""
    cluster = server.gateway().new_cluster()
    try:
        cluster.scale(1)
        with DaskExecutor(cluster=cluster) as executor:
            assert executor.submit(calls.add, 1, 2).result(LIMIT) == 3
        assert server.clusters() == [cluster.name]
        with DaskExecutor(cluster=cluster) as executor:
            assert executor.submit(calls.add, 3, 4).result(LIMIT) == 7
    finally:
        cluster.shutdown()


def test_a_cluster_by_name(server: Server) -> None:
    """A cluster that runs already can be named in the config; it keeps its size and runs on."""
    name = server.gateway().submit()
    try:
        config = server.config(kwargs={"cluster_name": name})
        with DaskExecutor(cluster=replace(config, scale={"workers": 1})) as executor:
            assert executor.submit(calls.add, 1, 2).result(LIMIT) == 3
        with DaskExecutor(cluster=config) as executor:
            assert executor.submit(calls.add, 3, 4).result(LIMIT) == 7
        assert server.clusters() == [name]
    finally:
        server.gateway().stop_cluster(name)


# -- it breaks -------------------------------------------------------------------------------


def test_a_worker_dies(server: Server, gates: Gates) -> None:
    """A call that kills its worker fails alone; the gateway brings the worker back each time."""
    journal = gates.journal()

    def kill() -> None:
        journal.write("begun")
        os._exit(1)

    with DaskExecutor(cluster=server.config(scale={"workers": 1})) as executor:
        before = executor.submit(calls.pid).result(LIMIT)
        with pytest.raises(WorkerDied, match=r"kill\(\)"):
            executor.submit(kill).result(LIMIT)
        assert len(journal.lines()) <= 2  # once more, to tell the killer from its company
        assert executor.submit(calls.pid).result(LIMIT) != before


def test_the_cluster_is_stopped(server: Server, gates: Gates) -> None:
    """When somebody stops the cluster, each future ends with what the gateway says of it."""
    executor = DaskExecutor(cluster=server.config(scale={"workers": 1}))
    try:
        started = gates.gate()
        futures = [executor.submit(calls.hold, started, gates.gate())]
        futures += [executor.submit(calls.identity, i) for i in range(10)]
        started.wait(LIMIT)
        (name,) = server.clusters()
        server.gateway().stop_cluster(name)
        done, not_done = wait(futures, timeout=LIMIT)
        assert not not_done
        for future in done:
            with pytest.raises(BrokenExecutor, match=f"cluster {name} is STOP"):
                future.result()
    finally:
        gates.open_all()
        executor.shutdown()


def test_stopped_while_unused(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """That a cluster has ended is final, and the trouble says so."""
    monkeypatch.setattr("daskexec.kinds.gateway.LOOK", 0.2)
    running = open_cluster(server.config(), None)
    try:
        eventually(lambda: running.trouble()[1], "the first look at the cluster")
        final, known = running.trouble()
        assert not final
        assert known.endswith("is RUNNING, 1 worker asked for")
        server.gateway().stop_cluster(server.clusters()[0])
        eventually(lambda: running.trouble()[0], "the look that sees the end")
        assert "STOP" in running.trouble()[1]
    finally:
        running.close()
        running.close()


def test_wrong_password(server: Server) -> None:
    """A refused login says whose it was."""
    config = server.config(kwargs={"auth": {"type": "basic", "username": "bob"}})
    with pytest.raises(ClusterStartFailed, match=r"refused the login of user 'bob' .*401"):
        DaskExecutor(cluster=config)


def test_unknown_option(server: Server) -> None:
    """An option that the gateway does not have is named, with those that it has."""
    with pytest.raises(ConfigError) as caught:
        DaskExecutor(cluster=server.config({"worker_core": 2}))
    assert "no cluster option 'worker_core' (did you mean 'worker_cores'?)" in str(caught.value)
    assert "it has worker_cores, scheduler" in str(caught.value)


def test_option_out_of_bounds(server: Server) -> None:
    """A value that the gateway does not take is refused in its words."""
    with pytest.raises(ConfigError, match=r"does not take 9 for option worker_cores: .*9"):
        DaskExecutor(cluster=server.config({"worker_cores": 9}))


@pytest.mark.parametrize(
    ("scheduler", "limit", "words"),
    [
        ("refused", 60.0, "refused the cluster: your group may have no more clusters"),
        ("fails", 60.0, "is FAILED"),
        ("hangs", 1.0, r"has not started within 1 s"),
    ],
)
def test_a_cluster_that_does_not_start(
    server: Server, scheduler: str, limit: float, words: str
) -> None:
    """A cluster whose scheduler does not run is an error, and nothing is left of it."""
    config = server.config({"scheduler": scheduler}, start_timeout=limit)
    with pytest.raises(ClusterStartFailed, match=words):
        DaskExecutor(cluster=config)
    assert not server.clusters()


def test_left_to_the_exit(server: Server, tmp_path: Path) -> None:
    """A program that ends without closing its cluster leaves none."""
    program = f"""
        from daskexec.config import ClusterConfig
        from daskexec.kinds import open_cluster
        config = ClusterConfig("left", "gateway", cluster_kwargs={server.config().cluster_kwargs})
        running = open_cluster(config)
        print(running.address)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=environment("left", tmp_path / "tmp"),
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("gateway://")
    assert not server.clusters()


def test_interrupted_while_it_starts(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Ctrl-C while the cluster starts ends it: also one that nobody knows the name of yet."""
    from daskexec.kinds import gateway

    sent = threading.Event()
    ask = gateway._GatewayCluster._ask

    async def slowly(self: Any, what: Any, *args: Any, **kwargs: Any) -> Any:
        answer = await ask(self, what, *args, **kwargs)
        if what.__name__ == "submit":
            sent.set()
            await asyncio.sleep(0.5)
        return answer

    def interrupt(self: Any, work: Any, timeout: float | None = None) -> Any:
        if work.__name__ != "_open":
            return run(self, work, timeout)
        future = asyncio.run_coroutine_threadsafe(work, self._runner.loop.asyncio_loop)
        assert sent.wait(LIMIT)
        future.cancel()
        raise KeyboardInterrupt

    run = gateway._GatewayCluster._run
    monkeypatch.setattr(gateway._GatewayCluster, "_ask", slowly)
    monkeypatch.setattr(gateway._GatewayCluster, "_run", interrupt)
    with pytest.raises(KeyboardInterrupt):
        open_cluster(server.config(), None)
    assert not server.clusters()


def test_wrong_proxy(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where schedulers cannot be reached through the address of the proxy, that is said."""
    monkeypatch.setattr("daskexec.kinds.gateway.REQUEST", 3.0)
    config = server.config(kwargs={"proxy_address": f"127.0.0.1:{free_port()}"})
    with pytest.raises(ClusterUnreachable, match=r"proxy for schedulers does not answer .* check"):
        DaskExecutor(cluster=config)
    assert not server.clusters()


# -- it is not there -------------------------------------------------------------------------


def nowhere(port: int) -> ClusterConfig:
    pytest.importorskip("dask_gateway")
    return Server(port).config()


def test_dead_gateway() -> None:
    """An address where nobody listens is one clear line."""
    with pytest.raises(ClusterUnreachable, match="does not answer") as caught:
        DaskExecutor(cluster=nowhere(free_port()))
    assert "\n" not in str(caught.value)


def test_silent_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that listens and never answers is given up."""
    from daskexec.kinds import gateway, open_cluster

    monkeypatch.setattr(gateway, "REQUEST", 0.5)  # here: a keeper would not see it
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = nowhere(listener.getsockname()[1])
        with pytest.raises(ClusterUnreachable, match=r"did not answer within 0\.5 s"):
            open_cluster(config)


@pytest.mark.parametrize("status", [200, 404])
def test_another_server(status: int) -> None:
    """A web server that is no gateway, such as a page for logging in, is told from one."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<html>Please log in</html>")

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Page) as web:
        thread = threading.Thread(target=web.serve_forever)
        thread.start()
        try:
            with pytest.raises(ClusterUnreachable, match="is no dask-gateway"):
                DaskExecutor(cluster=nowhere(web.server_port))
        finally:
            web.shutdown()
            thread.join()


def test_gateway_lost_while_in_use(tmp_path: Path) -> None:
    """Closing returns, and warns, when the gateway no longer answers; twice is once."""
    pytest.importorskip("dask_gateway")
    from daskexec.kinds._gateway_settings import checked
    from daskexec.kinds.gateway import _GatewayCluster

    config = nowhere(free_port())
    cluster = _GatewayCluster(config, checked(config))
    with pytest.raises(ClusterUnreachable):
        cluster._run(cluster._open(None))
    cluster._name = "abc"  # as if it had been started before the gateway went
    assert "does not answer" in cluster.last_words()
    with pytest.warns(UserWarning, match="cluster abc may still run"):
        cluster.close()
    before = time.monotonic()
    cluster.close()
    assert time.monotonic() - before < 5


# -- what cannot be right --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kwargs", "more", "words"),
    [
        ({"adress": "https://x"}, {}, "'adress' is no key of a gateway .did you mean 'address'"),
        ({"address": None}, {}, "address is missing"),
        ({"address": "gateway:8000"}, {}, "address must be a URL"),
        ({"address": "http://gateway.example.org"}, {}, "is not encrypted"),
        ({"auth": "my.module.Login"}, {}, "auth type must be one of basic, kerberos"),
        ({"auth": {"type": "basic", "token": "x"}}, {}, "auth of type basic has no key 'token'"),
        ({"auth": "jupyterhub"}, {}, "JUPYTERHUB_API_TOKEN"),
        ({"options": ["a"]}, {}, "cluster_options must be a mapping"),
        ({}, {"scale": {"jobs": 2}}, "scaled by workers"),
        ({}, {"adapt": {"minimum_jobs": 2}}, "'minimum' and 'maximum' workers only"),
    ],
)
def test_configs_that_cannot_be_right(
    kwargs: dict[str, Any], more: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is wrong in a config is found before anything is asked of a gateway."""
    pytest.importorskip("dask_gateway")
    monkeypatch.delenv("JUPYTERHUB_API_TOKEN", raising=False)
    config = Server(1).config(kwargs=kwargs, **more)
    with pytest.raises(ConfigError, match=words) as caught:
        open_cluster(config, None)
    assert caught.value.source == "mygateway"
    assert str(caught.value).startswith("mygateway: ")


def test_plain_http_can_be_meant() -> None:
    """``insecure: true`` allows an address that is not encrypted."""
    pytest.importorskip("dask_gateway")
    from daskexec.kinds._gateway_settings import checked

    config = Server(1).config(kwargs={"address": "http://gateway.example.org/"}, insecure=True)
    assert checked(config)["address"] == "http://gateway.example.org"


def test_dasks_own_configuration_fills_in() -> None:
    """Where the file says nothing, address and login come from dask-gateway's configuration."""
    pytest.importorskip("dask_gateway")
    import dask

    from daskexec.kinds._gateway_settings import checked

    site = {
        "gateway.address": "https://gateway.example.org",
        "gateway.auth": {"type": "basic", "kwargs": {"username": "carol"}},
    }
    with dask.config.set(site):
        settings = checked(ClusterConfig("mygateway", "gateway"))
    assert settings["address"] == "https://gateway.example.org"
    assert settings["auth"].username == "carol"
    with dask.config.set({"gateway.auth.type": "some.Class"}), pytest.raises(ConfigError):
        checked(ClusterConfig("x", "gateway", cluster_kwargs={"address": "https://g"}))
