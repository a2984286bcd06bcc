"""Tickets, loads and outcomes: what crosses the wire."""

from __future__ import annotations

import math
import pickle
from typing import Any

import pytest

from daskexec._calls import Outcome, Ticket, all_plain, size_of
from daskexec._failures import Failure


def with_buffers(obj: Any) -> tuple[bytes, list[pickle.PickleBuffer]]:
    buffers: list[pickle.PickleBuffer] = []
    return pickle.dumps(obj, 5, buffer_callback=buffers.append), buffers


def test_only_plain_values_travel_together() -> None:
    """One list among the arguments, or a subclass of int, and each item goes alone."""
    assert all_plain([(1, "a"), (2.0, None), (b"", True, 1j)], single=False)
    assert all_plain([1, "a", None], single=True)
    assert all_plain([], single=True)
    assert not all_plain([(1,), ([],)], single=False)
    assert not all_plain([1, (1,)], single=True)
    assert not all_plain([type("Int", (int,), {})(1)], single=True)


@pytest.mark.parametrize("size", [10, 1 << 20])
def test_large_results_travel_beside_the_message(size: int) -> None:
    """A large result is not copied into its message; small ones are."""
    body = bytes(size)
    blob, buffers = with_buffers(Outcome("ran", [body, b"x"], seconds=[0.5, 0.25], pid=7))
    assert len(blob) < 1000
    assert len(buffers) == (size > 1000)
    back = pickle.loads(blob, buffers=buffers)
    assert (back.kind, back.first, list(back.seconds), back.pid) == ("ran", 0, [0.5, 0.25], 7)
    assert list(map(bytes, back.bodies)) == [body, b"x"]


def test_a_ticket_survives() -> None:
    """All that a ticket says arrives, and its load is not copied into the message."""
    ticket = Ticket("ex", "key", "topic", b"load" * 100, 5, 6, True, 7, 0.5, math.inf)
    blob, buffers = with_buffers(ticket)
    assert len(buffers) == 1
    back = pickle.loads(blob, buffers=buffers)
    assert bytes(back.load) == ticket.load
    for name in set(Ticket.__slots__) - {"load"}:
        assert getattr(back, name) == getattr(ticket, name), name


def test_sizes_count_what_was_raised() -> None:
    """Dask is told about how much an outcome takes, failures included."""
    failure = Failure.of(ValueError("x" * 1000))
    assert size_of(b"12345") == 5
    assert size_of(failure) > 1000
    assert Outcome("ran", [b"12345", failure]).__sizeof__() > size_of(failure)
