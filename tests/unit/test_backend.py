"""For how long a backend tries again what a cut network breaks."""

from __future__ import annotations

from typing import Any

import pytest

from daskexec._backend import DaskBackend


class _Loop:
    """A loop whose clock a test sets."""

    now = 0.0

    def time(self) -> float:
        return self.now


@pytest.fixture
def backend() -> Any:
    backend = object.__new__(DaskBackend)  # of what it does, this needs no client
    backend._loop = _Loop()  # type: ignore[assignment]
    backend._failing_since, backend._failed_last = None, 0.0
    return backend


def _tried_again(backend: Any, when: float, error: Exception) -> bool:
    backend._loop.now = when
    return bool(backend._try_again(error))


def test_transfers_are_tried_again_for_a_while(backend: Any) -> None:
    """Failures that go on are given up after RETRY_FOR seconds, not sooner."""
    for when in (100.0, 130.0, 159.0):
        assert _tried_again(backend, when, OSError("cut"))
    assert not _tried_again(backend, 161.0, OSError("cut"))


def test_an_old_failure_does_not_count(backend: Any) -> None:
    """A failure long after the last one begins anew."""
    assert _tried_again(backend, 100.0, OSError("cut"))
    assert _tried_again(backend, 1000.0, OSError("cut again"))
    assert not _tried_again(backend, 1060.0, OSError("still"))


def test_only_the_network_is_tried_again(backend: Any) -> None:
    """What is no matter of the network is reported at once."""
    assert not _tried_again(backend, 100.0, ValueError("no"))
