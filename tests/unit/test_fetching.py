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


class _Cluster:
    """A backend and a Dask client in one; the first `stuck` transfers never end."""

    AFTER_DEATH = 0.01

    def __init__(self, stuck: int) -> None:
        self.loop = SimpleNamespace(asyncio_loop=asyncio.get_running_loop())
        self._gather_future = None
        self.stuck = stuck
        self.delivered = asyncio.Event()
        self.fetching = Fetching(self, self, None)
        self.fetching.LATE = 0.1  # type: ignore[misc]

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
        self.delivered.set()

    def wait_again(self, future: Any) -> None:
        self.fetching.fetch(future)

    def failed(self, key: str, error: BaseException) -> None:
        raise AssertionError(key) from error


def test_a_death_as_a_transfer_begins() -> None:
    """What it was about to fetch is fetched all the same."""

    async def main() -> None:
        cluster = _Cluster(stuck=0)
        cluster.fetching.fetch(SimpleNamespace(key="a"))
        await asyncio.sleep(0)  # it has begun, and waits for what may come along
        cluster.fetching.again()
        await asyncio.wait_for(cluster.delivered.wait(), 10)

    asyncio.run(main())


@pytest.mark.parametrize("before", [True, False])
def test_a_transfer_from_a_worker_that_is_dead(before: bool) -> None:
    """It is begun anew; also one that began just after the death."""

    async def main() -> None:
        cluster = _Cluster(stuck=1)
        if before:
            cluster.fetching.fetch(SimpleNamespace(key="a"))
            await asyncio.sleep(0.01)
            cluster.fetching.again()
        else:
            cluster.fetching.again()
            cluster.fetching.fetch(SimpleNamespace(key="a"))
        await asyncio.wait_for(cluster.delivered.wait(), 10)

    asyncio.run(main())
