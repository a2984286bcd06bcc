"""For how long transfers try again what a cut network breaks."""

from __future__ import annotations

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
