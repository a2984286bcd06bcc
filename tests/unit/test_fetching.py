"""For how long transfers try again what a cut network breaks, and what a worker's death does."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any

import pytest

from daskexec._fetching import Fetching


class _Loop:
    """A loop whose clock a test sets."""

    now = 0.0

    def time(self) -> float:
        return self.now


@pytest.fixture
def transfers() -> Any:
    transfers = object.__new__(Fetching)  # of what it does, this needs no client
    transfers._loop = _Loop()  # type: ignore[assignment]
    transfers._failing_since, transfers._failed_last = None, 0.0
    return transfers


def _tried_again(transfers: Any, when: float, error: Exception) -> bool:
    transfers._loop.now = when
    return bool(transfers.try_again(error))


def test_transfers_are_tried_again_for_a_while(transfers: Any) -> None:
    """Failures that go on are given up after RETRY_FOR seconds, not sooner."""
    for when in (100.0, 130.0, 159.0):
        assert _tried_again(transfers, when, OSError("cut"))
    assert not _tried_again(transfers, 161.0, OSError("cut"))


def test_an_old_failure_does_not_count(transfers: Any) -> None:
    """A failure long after the last one begins anew."""
    assert _tried_again(transfers, 100.0, OSError("cut"))
    assert _tried_again(transfers, 1000.0, OSError("cut again"))
    assert not _tried_again(transfers, 1060.0, OSError("still"))


def test_only_the_network_is_tried_again(transfers: Any) -> None:
    """What is no matter of the network is reported at once."""
    assert not _tried_again(transfers, 100.0, ValueError("no"))


# --- a worker's death ---------------------------------------------------------------------------


class _Pool:
    """Dask's connections of a client, by address."""

    def __init__(self) -> None:
        self.available: dict[str, set[Any]] = {}
        self.occupied: dict[str, set[Any]] = {}
        self._connecting: dict[str, set[Any]] = {}

    def remove(self, address: str) -> None:
        for table in (self.available, self.occupied, self._connecting):
            table.pop(address, None)


class _Cluster:
    """A backend and a Dask client in one; the first `stuck` transfers never end."""

    AFTER_DEATH = 0.01

    def __init__(self, stuck: int) -> None:
        self.loop = SimpleNamespace(asyncio_loop=asyncio.get_running_loop())
        self._gather_future = None
        self.stuck = stuck
        self.got: list[str] = []
        self.delivered = asyncio.Event()
        self.rpc = _Pool()
        self.fetching = Fetching(self, self, None)

    def alive(self) -> bool:
        return True

    def over(self) -> bool:
        return False

    def ended(self) -> None:
        raise AssertionError("the connection stands")

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        return asyncio.ensure_future(work)

    def to_fetch(self, future: Any) -> bool:
        return True

    async def gather(self, batch: dict[str, Any], **_: Any) -> dict[str, Any]:
        self.stuck -= 1
        if self.stuck >= 0:
            await asyncio.Event().wait()
        return dict.fromkeys(batch, "outcome")

    def deliver(self, future: Any, outcome: Any) -> None:
        self.got.append(future.key)
        self.delivered.set()

    def wait_again(self, future: Any) -> None:
        self.fetching.fetch(future)

    def failed(self, key: str, error: BaseException) -> None:
        raise AssertionError(key) from error


def test_a_worker_goes_as_a_transfer_begins() -> None:
    """What it was about to fetch is fetched all the same."""

    async def main() -> None:
        cluster = _Cluster(stuck=0)
        cluster.fetching.fetch(SimpleNamespace(key="a"))
        await asyncio.sleep(0)  # it has begun, and waits for what may come along
        cluster.rpc.occupied["dead"] = {"a connection"}
        cluster.fetching.counted(["dead"])
        cluster.fetching.counted([])
        await asyncio.wait_for(cluster.delivered.wait(), 10)

    asyncio.run(main())


def test_a_result_that_is_lost_while_it_is_fetched() -> None:
    """Its transfer is begun anew, and no other."""

    async def main() -> None:
        cluster = _Cluster(stuck=2)
        for key in "ab":
            cluster.fetching.fetch(SimpleNamespace(key=key))
            await asyncio.sleep(0.01)
        cluster.fetching.lost("none of these")
        await asyncio.sleep(0.05)
        assert not cluster.got
        cluster.fetching.lost("b")
        await asyncio.wait_for(cluster.delivered.wait(), 10)
        assert cluster.got == ["b"]

    asyncio.run(main())


def test_a_result_that_came_otherwise_while_it_is_fetched() -> None:
    """It is kept until then, since the scheduler tells of losses to who wants the result."""

    async def main() -> None:
        cluster = _Cluster(stuck=1)
        released = asyncio.Event()
        future = SimpleNamespace(key="a", release=released.set)
        cluster.fetching.fetch(future)
        await asyncio.sleep(0.01)
        cluster.fetching.spent(future)
        cluster.fetching.release()
        assert not released.is_set()
        cluster.fetching.lost("a")
        await asyncio.wait_for(released.wait(), 10)

    asyncio.run(main())


@pytest.mark.parametrize("table", ["occupied", "_connecting"])
def test_a_transfer_from_a_worker_that_is_gone(table: str) -> None:
    """It is begun anew once the worker is no longer among those that there are, not before."""

    async def main() -> None:
        cluster = _Cluster(stuck=1)
        cluster.fetching.fetch(SimpleNamespace(key="a"))
        await asyncio.sleep(0.01)
        getattr(cluster.rpc, table)["dead"] = {"a connection"}
        cluster.rpc.available["live"] = cluster.rpc.available["no worker"] = {"a connection"}
        cluster.fetching.counted(["dead", "live"])  # the scheduler has not seen it yet
        await asyncio.sleep(0.05)
        assert not cluster.delivered.is_set()
        cluster.fetching.counted(["live"])
        assert cluster.rpc.available.keys() == {"live", "no worker"}
        assert not getattr(cluster.rpc, table)
        await asyncio.wait_for(cluster.delivered.wait(), 10)

    asyncio.run(main())


def test_transfers_go_on_when_an_idle_worker_goes() -> None:
    async def main() -> None:
        cluster = _Cluster(stuck=1)
        cluster.fetching.fetch(SimpleNamespace(key="a"))
        await asyncio.sleep(0.01)
        cluster.rpc.available["gone"] = {"a connection"}
        cluster.fetching.counted(["live", "gone"])
        cluster.fetching.counted(["live"])
        assert not cluster.rpc.available
        await asyncio.sleep(0.05)
        assert cluster.stuck == 0
        assert not cluster.delivered.is_set()

    asyncio.run(main())
