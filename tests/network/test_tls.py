"""Schedulers that run already, with TLS and without: what connects, and what is said if not."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import dask.config
import pytest
from click.testing import CliRunner
from daskexec_testing import calls
from daskexec_testing.leaks import sharing
from daskexec_testing.processes import Cluster, environment, free_port, running_cluster
from daskexec_testing.services import require

from daskexec import (
    ClusterConfig,
    ClusterUnreachable,
    ConfigError,
    DaskExecutor,
    ExecutorWarning,
    InsecureConnection,
    _security,
    cli,
    get_executor,
)

pytestmark = pytest.mark.timeout(60)

LIMIT = 30


def _certificates(folder: Path) -> dict[str, str]:
    """Make a CA and a certificate signed by it; return the keys of a config's ``security``."""
    folder.mkdir()

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    def request(name: str, *more: str) -> None:
        new = ("-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.pem")
        openssl("req", *new, "-subj", f"/CN=daskexec test {name}", *more)

    request("ca", "-x509", "-days", "2")
    request("request")
    signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2")
    openssl("x509", "-req", "-in", "request.pem", *signed, "-out", "dask.pem")
    return {
        "tls_ca_file": str(folder / "ca.pem"),
        "tls_client_cert": str(folder / "dask.pem"),
        "tls_client_key": str(folder / "request.key"),
    }


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The certificates that the scheduler takes."""
    if shutil.which("openssl") is None:
        require("tls", "openssl is not installed")
    return _certificates(tmp_path_factory.mktemp("ours") / "certificates")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Certificates of another CA."""
    return _certificates(tmp_path_factory.mktemp("theirs") / "certificates")


@pytest.fixture(scope="module")
def tls(
    ours: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[subprocess.Popen[bytes]]:
    """A scheduler with TLS, and a worker; ``args`` ends with the scheduler's address."""
    folder = tmp_path_factory.mktemp("tls")
    options = {"ca-file": "tls_ca_file", "cert": "tls_client_cert", "key": "tls_client_key"}
    keys = [part for name, key in options.items() for part in (f"--tls-{name}", ours[key])]
    port = free_port()
    address = f"tls://127.0.0.1:{port}"

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        with (folder / f"{arguments[0]}.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "dask", *arguments, *keys, "--no-dashboard"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder,
                env=environment("", folder / "tmp"),
            )

    with sharing():
        scheduler = start(
            "scheduler", "--protocol", "tls", "--host", "127.0.0.1", "--port", str(port)
        )
        worker = start(
            *("worker", address, "--host", "127.0.0.1", "--no-nanny", "--nthreads", "2"),
            *("--local-directory", str(folder), "--death-timeout", "60"),
        )
        deadline = time.monotonic() + 60
        while "Register worker" not in (folder / "scheduler.log").read_text():
            assert time.monotonic() < deadline, (folder / "worker.log").read_text()
            time.sleep(0.05)
    scheduler.args = [address]
    yield scheduler
    for process in (worker, scheduler):
        process.kill()
        process.wait()


@pytest.fixture
def address(tls: subprocess.Popen[bytes]) -> str:
    assert isinstance(tls.args, list)
    return str(tls.args[-1])


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with sharing():
        context = running_cluster(tmp_path_factory.mktemp("plain"), 1)
        running = context.__enter__()
    yield running
    context.__exit__(None, None, None)


@pytest.fixture(autouse=True)
def nothing_said_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Warnings that come once a process come anew for each test; no variable says yes."""
    monkeypatch.setattr(_security, "_said", set())
    monkeypatch.delenv(_security.ENVIRONMENT_VARIABLE, raising=False)


def config(address: str, security: dict[str, Any] | None = None, **more: Any) -> ClusterConfig:
    kwargs = {"address": address, **({"security": security} if security is not None else {})}
    return ClusterConfig("there", "scheduler", "there.yaml", cluster_kwargs=kwargs, **more)


def _refused(cluster: Any) -> str:
    """Open an executor, which must be refused long before its timeout; return what was said."""
    with pytest.raises(ClusterUnreachable) as caught:
        DaskExecutor(cluster=cluster, connect_timeout=3600)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def _in_dask(security: dict[str, str]) -> dict[str, str]:
    """The same certificates as Dask's own configuration has them."""
    return {
        "distributed.comm.tls.ca-file": security["tls_ca_file"],
        "distributed.comm.tls.client.cert": security["tls_client_cert"],
        "distributed.comm.tls.client.key": security["tls_client_key"],
    }


def _works(executor: Executor) -> None:
    with executor:
        assert executor.submit(calls.add, 1, 2).result(LIMIT) == 3
        assert list(executor.map(calls.identity, range(50))) == list(range(50))


def test_certificates_of_the_config(address: str, ours: dict[str, str]) -> None:
    """A config with certificates reaches a scheduler with TLS, and calls run there."""
    _works(DaskExecutor(cluster=config(address, ours)))


def test_home_is_expanded(
    address: str, ours: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``~`` in the names of the files is the home folder."""
    folder = Path(ours["tls_ca_file"]).parent
    monkeypatch.setenv("HOME", str(folder.parent))
    at_home = {key: f"~/{folder.name}/{Path(path).name}" for key, path in ours.items()}
    _works(DaskExecutor(cluster=config(address, at_home)))


def test_certificates_of_dask(address: str, ours: dict[str, str]) -> None:
    """A bare tls:// address takes the certificates that Dask's own configuration names."""
    with dask.config.set(_in_dask(ours)):
        _works(get_executor(address))


def test_wrong_ca(address: str, ours: dict[str, str], theirs: dict[str, str]) -> None:
    """A scheduler whose certificate another CA signed is not trusted: the message says so."""
    said = _refused(config(address, theirs))
    assert address in said
    assert "not signed by the CA in tls_ca_file" in said
    with dask.config.set(_in_dask(theirs)):
        assert "tls_ca_file" in _refused(address)


def test_foreign_certificate(address: str, ours: dict[str, str], theirs: dict[str, str]) -> None:
    """A certificate that the scheduler's CA has not signed is refused, and that is said."""
    mixed = {**theirs, "tls_ca_file": ours["tls_ca_file"]}
    said = _refused(config(address, mixed))
    assert "refused your certificate" in said
    assert "tls_client_cert" in said


def test_no_certificate(address: str, ours: dict[str, str]) -> None:
    """TLS without a certificate is not tried; the message says where to name one."""
    for security in (None, {"tls_ca_file": ours["tls_ca_file"]}):
        said = _refused(config(address, security))
        assert "TLS needs a CA and a certificate" in said
        assert "distributed.comm.tls" in said
    assert "TLS needs" in _refused(address)


def test_plaintext_to_tls(address: str) -> None:
    """tcp:// to a scheduler with TLS is refused, with the address that would do."""
    said = _refused(address.replace("tls:", "tcp:"))
    assert f"connect to {address}" in said


def test_tls_to_plaintext(plain: Cluster, ours: dict[str, str]) -> None:
    """tls:// to a scheduler without TLS is refused, and that is said."""
    wrong = plain.address.replace("tcp:", "tls:")
    assert "does not speak TLS" in _refused(config(wrong, ours))


def test_encryption_required(plain: Cluster) -> None:
    """Where Dask's configuration requires encryption, a plaintext address is not tried."""
    with dask.config.set({"distributed.comm.require-encryption": True}):
        said = _refused(plain.address)
    assert "encryption is required" in said


def test_missing_and_unusable_files(address: str, ours: dict[str, str], tmp_path: Path) -> None:
    """A file that is not there, or is no certificate, is named."""
    missing = str(tmp_path / "none.pem")
    with pytest.raises(ConfigError, match=r"none\.pem does not exist"):
        DaskExecutor(cluster=config(address, {**ours, "tls_client_cert": missing}))
    with pytest.raises(ConfigError, match="no key 'tls_cert'"):
        DaskExecutor(cluster=config(address, {"tls_cert": missing}))
    with dask.config.set({**_in_dask(ours), "distributed.comm.tls.client.cert": missing}):
        assert "cannot be loaded" in _refused(address)
    empty = tmp_path / "empty.pem"
    empty.touch()
    unusable = {**ours, "tls_client_cert": str(empty)}
    assert "cannot be" in _refused(config(address, unusable))


def test_plaintext_elsewhere_is_refused() -> None:
    """Plaintext to an address that is not loopback is refused at once, with both ways out."""
    for cluster in ("tcp://192.0.2.7:8786", "192.0.2.7:8786", config("tcp://192.0.2.7:8786")):
        with pytest.raises(InsecureConnection, match=r"192\.0\.2\.7") as caught:
            DaskExecutor(cluster=cluster)
        assert "tls://" in str(caught.value)
        assert "insecure=True" in str(caught.value)


def test_plaintext_elsewhere_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """With insecure=True, the config's key or the variable it is tried, after one warning."""
    there = "tcp://192.0.2.7:8786"

    def nobody(*_: object) -> None:
        raise ClusterUnreachable("tried")

    monkeypatch.setattr(_security, "_try", nobody)
    for use in (
        lambda: DaskExecutor(cluster=there, insecure=True),
        lambda: DaskExecutor(cluster=config(there), insecure=True),
        lambda: DaskExecutor(cluster=config(there, insecure=True)),
    ):
        _security._said.clear()
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            for _ in range(2):
                with pytest.raises(ClusterUnreachable, match="tried"):
                    use()
        assert [w.category for w in said] == [ExecutorWarning]
        assert "not encrypted" in str(said[0].message)
    monkeypatch.setenv(_security.ENVIRONMENT_VARIABLE, "1")
    with pytest.raises(ClusterUnreachable, match="tried"):
        DaskExecutor(cluster=there)


def test_unknown_host() -> None:
    """A host that nobody knows is said to be that, not to be insecure."""
    with pytest.raises(ClusterUnreachable, match=r"no host is called 'nowhere\.invalid'"):
        DaskExecutor(cluster="tcp://nowhere.invalid:8786")


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("192.0.2.1", False),
        ("0.0.0.0", False),
        ("fe80::1%eth0", False),
    ],
)
def test_what_is_loopback(host: str, loopback: bool) -> None:
    """The whole of 127/8 and ::1 are this machine, and names that stand for them."""
    assert _security.is_loopback(host) == loopback


def _load_security(info: dict[str, Any]) -> None:
    raise AssertionError("a function that Dask's configuration named was called")


def test_ambient_configuration(plain: Cluster, tmp_path: Path) -> None:
    """scheduler-address, preload and security-loader are not obeyed, and a note says so."""
    trap = tmp_path / "trap.py"
    trap.write_text("def dask_setup(*_): raise AssertionError('a preload was run')\n")
    ambient = {
        "scheduler-address": "tcp://192.0.2.7:8786",
        "distributed.client.preload": [str(trap)],
        "distributed.client.security-loader": f"{__name__}._load_security",
    }
    with dask.config.set(ambient), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        _works(DaskExecutor(cluster=plain.address))
        _works(DaskExecutor(1))
        _works(DaskExecutor(1))
        assert dask.config.get("distributed.client.preload") == [str(trap)]
    texts = [str(w.message) for w in said if w.category is ExecutorWarning]
    for name in ambient:
        assert sum(text.startswith(name) for text in texts) == 1, texts


def test_client_of_the_user(plain: Cluster) -> None:
    """A client that the user has opened is the user's decision: nothing is checked or said."""
    from distributed import Client

    with (
        warnings.catch_warnings(),
        Client(plain.address, set_as_default=False) as client,
    ):
        warnings.simplefilter("error", ExecutorWarning)
        _works(DaskExecutor(cluster=client))


def test_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """``daskexec logs`` refuses plaintext elsewhere in one line, and --insecure tries it."""
    there = "tcp://192.0.2.7:8786"
    command = [sys.executable, "-m", "daskexec", "logs", "-e", there, "--demo"]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 1
    assert "--insecure" in refused.stderr
    assert "Traceback" not in refused.stderr
    tried: list[Any] = []
    monkeypatch.setattr(_security, "_try", lambda address, *_: tried.append(address) or 1 / 0)
    with pytest.warns(ExecutorWarning, match="not encrypted"):
        result = CliRunner().invoke(cli.cli, [*command[3:], "--insecure"])
    assert isinstance(result.exception, ZeroDivisionError)
    assert tried == [there]
