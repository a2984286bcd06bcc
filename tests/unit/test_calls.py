"""Tickets, loads and outcomes: what crosses the wire."""

from __future__ import annotations

import math
import pickle
import threading
from typing import Any

import pytest

from daskexec._calls import Load, Outcome, Ticket, all_plain, size_of
from daskexec._failures import Failure
from daskexec._pickling import dump, load
from daskexec._remote import _Run


def a_ticket(packed: Load, stop_after: float = math.inf) -> Ticket:
    return Ticket("ex", "key", "topic", packed.pack(), -1, 0, False, 0, 0.1, stop_after)


def a_load(fn: Any, *items: tuple[Any, ...]) -> Load:
    """Calls of one function, each pickled on its own."""
    return Load([(dump(fn), True)], None, [dump((args, {})) for args in items])


def ran(packed: Load, stop_after: float = math.inf) -> Outcome:
    """What a worker makes of a task, there and back."""
    run = _Run(load(dump(a_ticket(packed, stop_after))))
    run.run()
    outcome: Outcome = load(dump(run.outcome()))
    return outcome


def values(outcome: Outcome) -> list[Any]:
    """The values; for what failed, the type of the error."""
    return [type(b.load()) if isinstance(b, Failure) else load(b) for b in outcome.bodies]


def broken_at(value: int) -> Any:
    if value == 2:
        return threading.Lock()
    return value


def with_buffers(obj: Any) -> tuple[bytes, list[pickle.PickleBuffer]]:
    buffers: list[pickle.PickleBuffer] = []
    return pickle.dumps(obj, 5, buffer_callback=buffers.append), buffers


def test_each_call_of_a_task_fails_alone() -> None:
    """A call that raises spares those before it and those behind it."""
    outcome = ran(a_load(divmod, (7, 2), (1, 0), (9, 2)))
    assert values(outcome) == [(3, 1), ZeroDivisionError, (4, 1)]
    assert len(outcome.seconds) == 3


def test_a_result_that_does_not_pickle_fails_alone() -> None:
    """A value that cannot be pickled is its own call's failure."""
    assert values(ran(a_load(broken_at, (1,), (2,), (3,)))) == [1, TypeError, 3]


def test_an_argument_that_does_not_unpickle_fails_alone() -> None:
    """Arguments that cannot be rebuilt on the worker fail their call."""
    packed = a_load(str, (1,), (2,))
    packed.calls = [b"not a pickle", packed.calls[1]]  # type: ignore[list-item]
    assert values(ran(packed))[1] == "2"
    assert isinstance(ran(packed).bodies[0], Failure)


def test_functions_are_shared_and_calls_may_bring_their_own() -> None:
    """Each call finds its function, whether that came apart or with it."""
    packed = Load(
        [(dump(abs), True), (dump(str), False)],
        [0, 1, -1, 0],
        [
            dump(((-1,), {})),
            dump(((-2,), {})),
            dump((sorted, ([3, 1],), {"reverse": True})),
            dump(((-4,), {})),
        ],
    )
    assert values(ran(packed)) == [1, "-2", [3, 1], 4]


def test_plain_items_travel_together() -> None:
    """Items that nobody can tell apart from copies go as one pickle."""
    packed = Load([(dump(divmod), True)], None, pickle.dumps([(7, 2), (9, 2)], 5))
    assert values(ran(packed)) == [(3, 1), (4, 1)]


def test_only_plain_values_travel_together() -> None:
    """One list among the arguments, or a subclass of int, and each item goes alone."""
    assert all_plain([(1, "a"), (2.0, None), (b"", True, 1j)])
    assert all_plain([])
    assert not all_plain([(1,), ([],)])
    assert not all_plain([(type("Int", (int,), {})(1),)])


def test_a_task_stops_between_two_calls() -> None:
    """After its time a task begins no further call, but has begun at least one."""
    outcome = ran(a_load(abs, (-1,), (-2,), (-3,)), stop_after=-1.0)
    assert (outcome.first, values(outcome)) == (0, [1])


def test_calls_are_handed_back_once() -> None:
    """What was handed back is not run, and what ran is not handed back."""
    run = _Run(a_ticket(a_load(abs, (-1,), (-2,), (-3,))))
    assert run.hand_back() == 3
    assert run.hand_back() == 0
    run.run()
    assert run.outcome().bodies == []


def test_an_outcome_can_tell_of_the_rest_only() -> None:
    """What was given out already need not be told again."""
    run = _Run(a_ticket(a_load(abs, (-1,), (-2,), (-3,))))
    run.run()
    rest = run.outcome(2)
    assert (rest.first, values(rest), len(rest.seconds)) == (2, [3], 1)


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
