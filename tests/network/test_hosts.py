"""Scheduler, two workers and client on four hosts, and what happens when the network fails.

Hosts are network namespaces (``tests/services/netns.sh``). Dask's time for a silent connection
is set to 12 s, of 30 s, so that the tests end sooner; less than 11 s it does not take.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from daskexec_testing.gates import Gate, eventually
from daskexec_testing.processes import environment, marked
from daskexec_testing.services import require

pytestmark = pytest.mark.timeout(150)

SERVICE = Path(__file__).parents[1] / "services" / "netns.sh"
SCHEDULER = "tcp://10.77.0.1:8786"
ADDRESSES = {"w1": "10.77.0.11", "w2": "10.77.0.12"}

#: In every script: an executor on the scheduler, and calls that say where they run.
PROLOGUE = f"""
import sys, time
from concurrent.futures import BrokenExecutor, wait
from daskexec import DaskExecutor, SchedulerLost, WorkerDied
from daskexec_testing import calls
from daskexec_testing.gates import Gate

def where(seconds=0.0):
    from distributed import get_worker
    time.sleep(seconds)
    return get_worker().name

def started(gate, value):
    Gate(gate).open()
    return value

def all_lost(futures):
    done, not_done = wait(futures, timeout=60)
    assert not not_done, f"{{len(not_done)}} futures wait on"
    for future in done:
        error = future.exception()
        assert isinstance(error, SchedulerLost) and isinstance(error, BrokenExecutor), repr(error)
        assert "{SCHEDULER}" in str(error), error
    try:
        executor.submit(abs, 1)
    except BrokenExecutor as error:
        print("refused:", error)
    else:
        raise AssertionError("a call was taken after the loss")

"""

CONNECT = f"""
executor = DaskExecutor(cluster="{SCHEDULER}", insecure=True)
"""


class Network:
    """The four hosts, and the processes that a test runs on them."""

    def __init__(self, folder: Path, delay: str = "") -> None:
        self.name = f"dask{os.getpid()}{'d' if delay else ''}"
        self.folder, self.mark = folder, uuid.uuid4().hex
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self.run("up", *filter(None, [delay]))

    def run(self, verb: str, *arguments: str) -> None:
        subprocess.run([SERVICE, verb, self.name, *arguments], check=True, timeout=60)

    def start(self, host: str, *command: str) -> subprocess.Popen[bytes]:
        """Run a Python command on a host; its output goes to a file named after the host."""
        with self.log(host).open("ab") as log:
            process = subprocess.Popen(
                [SERVICE, "exec", self.name, host, sys.executable, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env={
                    **environment(self.mark, self.folder / "tmp"),
                    "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "12s",
                    "DASK_DISTRIBUTED__DEPLOY__LOST_WORKER_TIMEOUT": "2s",
                },
                start_new_session=True,
            )
        self._running[host] = process
        return process

    def log(self, host: str) -> Path:
        return self.folder / f"{host}.log"

    def start_dask(self) -> None:
        """Start the scheduler and both workers; return when they have joined."""
        self.start("sched", "-m", "dask", "scheduler", "--host", "10.77.0.1", "--no-dashboard")
        eventually(lambda: "Scheduler at" in self.log("sched").read_text())
        for host in ADDRESSES:
            self.start_worker(host)
        eventually(lambda: self.log("sched").read_text().count("Register worker") >= 2)

    def start_worker(self, host: str) -> None:
        options = f"--host {ADDRESSES[host]} --name {host} --nthreads 1 --no-dashboard"
        folder = str(self.folder / host)
        self.start(
            host, "-m", "dask", "worker", SCHEDULER, *options.split(), "--local-directory", folder
        )

    def programs(self, host: str) -> list[str]:
        """What runs on a host, but for sshd, which does not notice that its client has gone."""
        command = ["ip", "netns", "pids", f"{self.name}-{host}"]
        found = []
        for pid in subprocess.run(command, capture_output=True, text=True).stdout.split():
            with suppress(OSError):  # ended just now
                found.append(Path("/proc", pid, "comm").read_text().strip())
        return [name for name in found if name != "sshd"]

    def client(
        self, script: str, *arguments: str, connect: bool = True
    ) -> subprocess.Popen[bytes]:
        """Start a program on the client's host that begins with the prologue."""
        path = self.folder / "client.py"
        path.write_text(PROLOGUE + (CONNECT if connect else "") + script)
        return self.start("client", str(path), *arguments)

    def ended_well(self, client: subprocess.Popen[bytes]) -> str:
        """Wait for the end of the client's program; return what it said."""
        code = client.wait(120)
        said = self.log("client").read_text()
        assert code == 0, said
        assert "Traceback" not in said
        print(said)
        return said

    def close(self) -> None:
        self.run("down")
        for pid in marked(self.mark):  # none, unless it has left its namespace
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self._running.values():
            process.wait(10)


@pytest.fixture(scope="module", autouse=True)
def _able() -> None:
    if os.getuid() != 0 or not sys.platform.startswith("linux"):
        require("netns", "network namespaces need root on Linux")
    if shutil.which("ip") is None:
        require("netns", "iproute2 is not installed")
    if subprocess.run(["ip", "netns", "add", "dask-try"], capture_output=True).returncode:
        require("netns", "no network namespace can be made here")
    subprocess.run(["ip", "netns", "delete", "dask-try"], check=True)


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    network = Network(tmp_path)
    try:
        network.start_dask()
        yield network
    finally:
        network.close()


SPREAD = """
gate, released = sys.argv[1], Gate(sys.argv[2])
futures = [executor.submit(where, 0.05) for _ in range(100)]
slow = [executor.submit(calls.hold, Gate(f"{gate}-{i}"), released, i) for i in range(2)]
more = [executor.submit(where, 0.05) for _ in range(100)]
values = [executor.submit(calls.filled, 100_000) for _ in range(100)]
done, not_done = wait([*futures, *slow, *more, *values], timeout=100)
assert not not_done, f"{len(not_done)} futures are lost"
errors = [f.exception() for f in slow]
(lost,) = filter(None, errors)  # it had begun there, and is not run again
assert isinstance(lost, WorkerDied) and lost.worker == "w2" and lost.attempts == 1, lost
assert [f.result() for f in slow if not f.exception()] in ([0], [1])
assert {len(f.result()) for f in values} == {100_000}
assert {f.result() for f in [*futures, *more]} <= {"w1", "w2"}
print("afterwards:", {executor.submit(where).result(30) for _ in range(10)})
executor.shutdown()
"""


@pytest.mark.parametrize("how", ["partition", "kill"])
def test_a_worker_is_lost(network: Network, tmp_path: Path, how: str) -> None:
    """The call that ran on a host that is cut off or lost fails; all others run elsewhere."""
    gates = [Gate(str(tmp_path / f"gate-{i}")) for i in range(2)]
    released = Gate(str(tmp_path / "released"))
    client = network.client(SPREAD, str(tmp_path / "gate"), released.path)
    for gate in gates:  # one call is held on each of the workers
        gate.wait()
    network.run(how, "w2")
    released.open()
    assert "afterwards: {'w1'}" in network.ended_well(client)


def test_a_worker_comes_back(network: Network, tmp_path: Path) -> None:
    """A worker that was cut off for a while, shorter than Dask waits, is there again after."""
    script = """
futures = [executor.submit(where, 0.05) for _ in range(40)]
print("before:", sorted({f.result(60) for f in futures}), flush=True)
Gate(sys.argv[1]).open()
futures = [executor.submit(where, 0.05) for _ in range(200)]
assert len([f.result(60) for f in futures]) == 200
print("after:", sorted({executor.submit(where, 0.05).result(60) for _ in range(20)}))
executor.shutdown()
"""
    gate = Gate(str(tmp_path / "gate"))
    client = network.client(script, gate.path)
    gate.wait()
    network.run("partition", "w2")
    eventually(lambda: not _reachable(network, "w2"), "w2 is cut off")
    network.run("heal", "w2")
    assert "before: ['w1', 'w2']" in network.ended_well(client)


def _reachable(network: Network, host: str) -> bool:
    """Tell whether the scheduler's host reaches a port of another one."""
    script = f"import socket; socket.create_connection(('{ADDRESSES[host]}', 1), timeout=0.5)"
    command = [SERVICE, "exec", network.name, "sched", sys.executable, "-c", script]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30)
    return "ConnectionRefusedError" in ended.stderr


LOSE = """
gate = sys.argv[1]
held = [executor.submit(calls.hold, Gate(f"{gate}-{i}"), Gate(f"{gate}-never")) for i in range(2)]
waiting = [executor.submit(abs, i) for i in range(50)]
all_lost(held + waiting)
executor.shutdown()
print("ended")
"""


@pytest.mark.parametrize(("how", "host"), [("partition", "client"), ("kill", "sched")])
def test_the_scheduler_is_lost(network: Network, tmp_path: Path, how: str, host: str) -> None:
    """A client that is cut off, or whose scheduler is, is told so on each future, and ends."""
    gates = [Gate(str(tmp_path / f"gate-{i}")) for i in range(2)]
    client = network.client(LOSE, str(tmp_path / "gate"))
    for gate in gates:
        gate.wait()
    network.run(how, host)
    said = network.ended_well(client)
    assert "refused:" in said
    assert "ended" in said


TRANSFER = """
import numpy as np
gate, way = sys.argv[1:]
small = [executor.submit(abs, i) for i in range(50)]
assert [f.result(60) for f in small] == list(range(50))
size = 100_000_000  # four of them are 16 s on their way
if way == "out":
    large = np.random.default_rng(0).bytes(size)
    futures = [executor.submit(calls.length, large) for _ in range(4)]
else:
    futures = [executor.submit(calls.filled, size) for _ in range(4)]
Gate(gate).open()
all_lost(futures)
executor.shutdown()
print("ended")
"""


@pytest.mark.parametrize("way", ["out", "back"])
def test_cut_in_mid_transfer(network: Network, tmp_path: Path, way: str) -> None:
    """A client that is cut off while it sends or fetches something large does not wait on."""
    network.run("slow", "client" if way == "out" else "sched", "200mbit")
    gate = Gate(str(tmp_path / "gate"))
    client = network.client(TRANSFER, gate.path, way)
    gate.wait()
    device = f"/sys/class/net/eth0/statistics/{'tx' if way == 'out' else 'rx'}_bytes"
    eventually(lambda: _count(network, device) > 20_000_000, "the transfer is under way")
    network.run("partition", "client")
    assert "ended" in network.ended_well(client)


def _count(network: Network, path: str) -> int:
    command = [SERVICE, "exec", network.name, "client", "cat", path]
    return int(subprocess.run(command, check=True, capture_output=True, timeout=30).stdout)


SSH = """
import json
from daskexec import ClusterConfig
from daskexec.kinds import ssh

ssh.PING, ssh.PATIENCE, ssh.DELAYS = 1.0, 10.0, (1.0,)  # seconds; sooner than for users
words, cut, healed = sys.argv[1:]
config = ClusterConfig("two", "ssh", cluster_kwargs=json.loads(words), start_timeout=60)

with DaskExecutor(cluster=config) as executor:
    assert executor._client.scheduler.address.startswith("tls://10.77.0.100:")
    futures = [executor.submit(where, 0.05) for _ in range(40)]
    print("before:", sorted({f.result(60) for f in futures}), flush=True)
    futures = [executor.submit(where, 0.05) for _ in range(200)]
    Gate(cut).open()
    assert len([f.result(100) for f in futures]) == 200
    Gate(healed).wait(60)
    deadline = time.monotonic() + 100
    seen = set()
    while len(seen) < 2:
        assert time.monotonic() < deadline, seen
        seen |= {f.result(60) for f in [executor.submit(where, 0.05) for _ in range(10)]}
    print("after:", sorted(seen))
"""


def test_host_of_an_ssh_cluster_is_cut_off(tmp_path: Path) -> None:
    """Its calls run elsewhere, what runs on it ends, and it is used again when it is back."""
    if importlib.util.find_spec("asyncssh") is None or not os.path.exists("/usr/sbin/sshd"):
        require("ssh", "asyncssh or openssh-server is not installed")
    network = Network(tmp_path)
    try:
        options, port = [], "2222"
        for host, address in ADDRESSES.items():
            folder = tmp_path / f"ssh-{host}"
            service = str(SERVICE.with_name("ssh.sh"))
            network.run("exec", host, service, "up", str(folder), port, address)
            options.append(
                {
                    "port": int(port),
                    "client_keys": [str(folder / "id")],
                    "known_hosts": str(folder / "known_hosts"),
                    "config": [],
                }
            )
        kwargs = {
            "hosts": [*ADDRESSES.values()],
            "connect_options": options,
            "connect_timeout": 2,
            "worker_options": {"nthreads": 1, "memory_limit": 0},
            "environment": {"PYTHONPATH": environment("", tmp_path / "tmp")["PYTHONPATH"]},
        }
        cut, healed = (Gate(str(tmp_path / name)) for name in ("cut", "healed"))
        client = network.client(SSH, json.dumps(kwargs), cut.path, healed.path, connect=False)
        cut.wait()
        network.run("partition", "w2")
        eventually(lambda: not network.programs("w2"), "what runs there ends", 60)
        network.run("heal", "w2")
        healed.open()
        said = network.ended_well(client)
        assert "before: ['10.77.0.11-0', '10.77.0.12-0']" in said
        assert "after: ['10.77.0.11-0', '10.77.0.12-0']" in said
        for host in ADDRESSES:
            eventually(lambda host=host: not network.programs(host), "nothing is left")
    finally:
        network.close()


@pytest.mark.parametrize("network", ["20,1", "200"])
def test_a_bad_network(tmp_path: Path, network: str) -> None:
    """With 200 ms, or 20 ms and 1 % lost, between any two hosts all works; see how fast."""
    if not os.path.exists("/dev/net/tun"):
        require("netns", "there is no /dev/net/tun for a slow network")
    script = """
began = time.perf_counter()
assert executor.submit(abs, -1).result(60) == 1
first = time.perf_counter()
assert list(executor.map(abs, range(5000))) == list(range(5000))
mapped = time.perf_counter()
futures = [executor.submit(abs, -i) for i in range(2000)]
assert [f.result(60) for f in futures] == list(range(2000))
submitted = time.perf_counter()
assert len(executor.submit(calls.filled, 2_000_000).result(60)) == 2_000_000
large = time.perf_counter()
executor.shutdown()
print(f"one way {sys.argv[1]} ms: first call {first - began:.2f} s, "
      f"map of 5000 {mapped - first:.2f} s, 2000 submits {submitted - mapped:.2f} s, "
      f"2 MB back {large - submitted:.2f} s")
"""
    hosts = Network(tmp_path, delay=network)
    try:
        hosts.start_dask()
        assert "one way" in hosts.ended_well(hosts.client(script, network))
    finally:
        hosts.close()
