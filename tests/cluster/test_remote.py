"""A scheduler and workers in processes of their own, reached by address."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from daskexec_testing import calls
from daskexec_testing.gates import Gates, eventually
from daskexec_testing.processes import Cluster, free_port, running_cluster

if TYPE_CHECKING:
    from daskexec import DaskExecutor

pytestmark = pytest.mark.timeout(120)

LIMIT = 30


@pytest.fixture
def remote(cluster: Cluster, gates: Gates) -> Iterator[DaskExecutor]:
    from daskexec import DaskExecutor

    with DaskExecutor(cluster=cluster.address) as executor:
        yield executor
        gates.open_all()


def test_submit_and_map(remote: DaskExecutor) -> None:
    """Calls run on the workers of the address."""
    assert remote.submit(calls.add, 1, 2).result(LIMIT) == 3
    assert list(remote.map(calls.add, range(100), range(100))) == list(range(0, 200, 2))
    with pytest.raises(ZeroDivisionError):
        remote.submit(calls.inverse, 0).result(LIMIT)


def test_max_workers_of_the_cluster(remote: DaskExecutor) -> None:
    """_max_workers is the number of threads that the cluster has."""
    remote.submit(calls.identity, 1).result(LIMIT)
    assert remote._max_workers == 2


def test_cancel(remote: DaskExecutor, gates: Gates) -> None:
    """Waiting calls can be cancelled, running ones cannot."""
    started, release = [gates.gate(), gates.gate()], gates.gate()
    running = [remote.submit(calls.hold, gate, release, i) for i, gate in enumerate(started)]
    for gate in started:
        gate.wait()
    waiting = [remote.submit(calls.identity, i) for i in range(20)]
    assert waiting[-1].cancel()
    for future in running:
        eventually(future.running, "the future says running", 5)
        assert not future.cancel()
    release.open()
    assert not wait([*running, *waiting], timeout=LIMIT).not_done
    assert [future.result() for future in running] == [0, 1]
    assert [future.result() for future in waiting[:-1]] == list(range(19))


def test_max_workers_is_a_smaller_window(cluster: Cluster, gates: Gates) -> None:
    """max_workers=1 on a larger cluster runs one call at a time."""
    from daskexec import DaskExecutor

    journal = gates.journal()
    with DaskExecutor(1, cluster=cluster.address) as executor:
        futures = [executor.submit(calls.begin_and_end, journal, 0.05) for _ in range(6)]
        assert not wait(futures, timeout=LIMIT).not_done
    assert journal.lines() == ["begin", "end"] * 6


def test_future_and_its_dask_future(remote: DaskExecutor, gates: Gates) -> None:
    """A future knows its key and can be awaited."""
    import asyncio

    future = remote.submit(calls.identity, 1)
    assert isinstance(future.key, str)

    async def main() -> int:
        return await future

    assert asyncio.run(main()) == 1


def test_crash_of_a_worker(tmp_path: Path) -> None:
    """A call that kills its worker fails alone; a nanny brings the worker back."""
    from daskexec import DaskExecutor

    with running_cluster(tmp_path, 2) as cluster, DaskExecutor(cluster=cluster.address) as ex:
        before = [ex.submit(calls.nap, 0.01, i) for i in range(20)]
        killer = ex.submit(calls.exit_hard)
        after = [ex.submit(calls.nap, 0.01, i) for i in range(20)]
        with pytest.raises(BrokenExecutor):
            killer.result(60)
        assert [future.result(LIMIT) for future in [*before, *after]] == [*range(20)] * 2


def test_scheduler_killed(tmp_path: Path, gates: Gates) -> None:
    """When the scheduler dies each pending future gets SchedulerLost, and so does submit."""
    from daskexec import DaskExecutor, SchedulerLost

    with running_cluster(tmp_path, 1) as cluster:
        executor = DaskExecutor(cluster=cluster.address)
        started = gates.gate()
        futures = [executor.submit(calls.hold, started, gates.gate())]
        futures += [executor.submit(calls.identity, i) for i in range(50)]
        started.wait()
        before = time.monotonic()
        cluster.scheduler.kill()
        done, not_done = wait(futures, timeout=LIMIT)
        assert not not_done
        assert time.monotonic() - before < 10
        for future in done:
            assert isinstance(future.exception(), SchedulerLost)
            assert isinstance(future.exception(), BrokenExecutor)
        with pytest.raises(BrokenExecutor):
            executor.submit(calls.identity, 1)
        gates.open_all()
        before = time.monotonic()
        executor.shutdown()
        assert time.monotonic() - before < 10


def test_scheduler_killed_while_idle(tmp_path: Path) -> None:
    """An idle executor whose scheduler died refuses the next call, or fails it, promptly."""
    from daskexec import DaskExecutor

    with running_cluster(tmp_path, 1) as cluster, DaskExecutor(cluster=cluster.address) as ex:
        assert ex.submit(calls.identity, 1).result(LIMIT) == 1
        cluster.scheduler.kill()
        cluster.scheduler.wait()
        with pytest.raises(BrokenExecutor):  # either of the two
            ex.submit(calls.identity, 2).result(20)


@pytest.mark.timeout(60)
def test_nobody_answers() -> None:
    """An address that nobody answers is an error within 45 s that names the address."""
    from daskexec import DaskExecutor

    address = f"tcp://127.0.0.1:{free_port()}"
    before = time.monotonic()

    def use() -> None:
        with DaskExecutor(cluster=address) as executor:
            executor.submit(calls.identity, 1).result(50)

    with pytest.raises((OSError, BrokenExecutor), match=address):
        use()
    assert time.monotonic() - before < 45


def test_leaves_the_cluster_alone(cluster: Cluster) -> None:
    """What the executor did not start it does not stop."""
    from daskexec import DaskExecutor

    for wait_for_it in (True, False):
        executor = DaskExecutor(cluster=cluster.address)
        assert executor.submit(calls.identity, 1).result(LIMIT) == 1
        executor.shutdown(wait=wait_for_it)
    assert cluster.alive()
    with DaskExecutor(cluster=cluster.address) as executor:
        assert executor.submit(calls.identity, 2).result(LIMIT) == 2


def test_leaves_the_client_open(cluster: Cluster) -> None:
    """A Client that was passed in remains open, and holds nothing of the executor's."""
    from distributed import Client

    from daskexec import DaskExecutor

    with Client(cluster.address, set_as_default=False) as client:
        with DaskExecutor(cluster=client) as executor:
            future = executor.submit(calls.identity, 1)
            assert future.result(LIMIT) == 1
        assert client.status == "running"
        assert client.submit(calls.identity, 3).result(timeout=LIMIT) == 3
        del future
        eventually(lambda: not client.futures, "the client holds no future", 10)


def test_two_executors_share_a_client(cluster: Cluster) -> None:
    """Two executors on one client are independent: shutting one down spares the other."""
    from distributed import Client

    from daskexec import DaskExecutor

    with Client(cluster.address, set_as_default=False) as client:
        one, other = DaskExecutor(cluster=client), DaskExecutor(cluster=client)
        assert one.submit(calls.identity, 1).result(LIMIT) == 1
        one.shutdown()
        assert other.submit(calls.identity, 2).result(LIMIT) == 2
        other.shutdown()


def test_client_closed_under_us(cluster: Cluster, gates: Gates) -> None:
    """When the client is closed, pending futures fail with BrokenExecutor: none waits."""
    from distributed import Client

    from daskexec import DaskExecutor

    client = Client(cluster.address, set_as_default=False)
    executor = DaskExecutor(cluster=client)
    started = [gates.gate(), gates.gate()]
    futures = [executor.submit(calls.hold, gate, gates.gate()) for gate in started]
    futures += [executor.submit(calls.identity, i) for i in range(20)]
    for gate in started:
        gate.wait()
    client.close()
    assert not wait(futures, timeout=15).not_done
    for future in futures:
        assert isinstance(future.exception(), BrokenExecutor)
    gates.open_all()
    executor.shutdown()


def test_dask_cluster_object() -> None:
    """A cluster object of Dask is used, and left running."""
    from distributed import LocalCluster

    from daskexec import DaskExecutor

    with LocalCluster(
        n_workers=1,
        threads_per_worker=2,
        processes=False,
        dashboard_address="127.0.0.1:0",
    ) as cluster:
        with DaskExecutor(cluster=cluster) as executor:
            assert executor.submit(calls.identity, 1).result(LIMIT) == 1
        assert cluster.status.name == "running"


def test_asynchronous_client() -> None:
    """An asynchronous client will do: futures are awaited, and blocking on its loop is refused."""
    from distributed import Client, LocalCluster

    from daskexec import DaskExecutor

    async def use() -> tuple[int, int]:
        async with (
            LocalCluster(
                1, processes=False, asynchronous=True, dashboard_address="127.0.0.1:0"
            ) as cluster,
            Client(cluster, asynchronous=True, set_as_default=False) as client,
        ):
            with pytest.raises(TypeError, match="asynchronous"):
                DaskExecutor(cluster=cluster)
            executor = DaskExecutor(cluster=client)
            first = await executor.submit(abs, -3)
            pending = executor.submit(abs, -4)
            with pytest.raises(RuntimeError, match="await"):
                pending.result()
            with pytest.raises(RuntimeError, match="wait=False"):
                executor.shutdown()
            second = await pending
            await asyncio.to_thread(executor.shutdown)
            return first, second

    assert asyncio.run(use()) == (3, 4)
