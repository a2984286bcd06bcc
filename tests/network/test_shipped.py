"""The configs for schedulers and hosts that come with daskexec work as their users edit them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from daskexec_testing.configs import edited
from daskexec_testing.processes import free_port, running_cluster
from daskexec_testing.services import require

from daskexec import DaskExecutor, get_executor

pytestmark = pytest.mark.timeout(120)

LIMIT = 60
ROOT = Path(__file__).parents[2]
SSH = Path(__file__).parents[1] / "services" / "ssh.sh"


def test_scheduler(tmp_path: Path) -> None:
    """scheduler.yaml, with the address, uses that scheduler."""
    with running_cluster(tmp_path, 1) as cluster:
        path = edited("scheduler", tmp_path, address=cluster.address)
        with get_executor(str(path)) as executor:
            assert executor.submit(pow, 2, 10).result(LIMIT) == 1024


def test_scheduler_tls(tmp_path: Path) -> None:
    """scheduler-tls.yaml, with address and certificates, uses a scheduler that takes TLS only."""
    from distributed import LocalCluster, Security

    security = Security.temporary()
    files = {}
    for key in ("tls_ca_file", "tls_client_cert", "tls_client_key"):
        path = tmp_path / f"{key}.pem"
        path.write_text(getattr(security, key))
        files[key] = str(path)
    with LocalCluster(
        n_workers=1,
        processes=False,
        host="127.0.0.1",
        protocol="tls://",
        security=security,
        dashboard_address="127.0.0.1:0",
    ) as cluster:
        path = edited("scheduler-tls", tmp_path, address=cluster.scheduler_address, **files)
        with DaskExecutor(cluster=path) as executor:
            assert executor.submit(pow, 2, 10).result(LIMIT) == 1024


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home whose ssh configuration leads to a server on this machine."""
    pytest.importorskip("asyncssh")
    if os.getuid() != 0:
        require("ssh", "only root can start a server for SSH as these tests need it")
    if not (shutil.which("sshd") or os.path.exists("/usr/sbin/sshd")):
        require("ssh", "openssh-server is not installed")
    server, port = tmp_path / "server", free_port()
    subprocess.run([SSH, "up", server, str(port)], check=True, timeout=60)
    (tmp_path / ".ssh").mkdir(mode=0o700)
    (tmp_path / ".ssh" / "config").write_text(
        f"Host 127.0.0.*\n Port {port}\n IdentityFile {server}/id\n"
        f" UserKnownHostsFile {server}/known_hosts\n"
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    yield tmp_path
    subprocess.run([SSH, "down", server], check=True, timeout=60)


def test_ssh(home: Path) -> None:
    """ssh.yaml, with the hosts, runs workers on all of them, as ~/.ssh/config says."""
    path = edited("ssh", home, hosts="[127.0.0.2, 127.0.0.3]")
    # Where daskexec is not installed for all, but tried from a clone: the one line more.
    text = path.read_text().replace(
        "  scheduler: local", f"  environment: {{PYTHONPATH: '{ROOT}'}}\n  scheduler: local"
    )
    path.write_text(text)
    with DaskExecutor(cluster=path) as executor:
        assert executor.submit(pow, 2, 10).result(LIMIT) == 1024
        assert executor._client.scheduler.address.startswith("tls://")
