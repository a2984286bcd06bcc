"""Running the calls of a task: what a worker makes of a ticket."""

from __future__ import annotations

import math
import pickle
import threading
from typing import Any

import pytest

from daskexec._board import Board
from daskexec._calls import Load, Outcome, Ticket
from daskexec._failures import Failure
from daskexec._pickling import dump, load
from daskexec._run import Run


def a_ticket(packed: Load) -> Ticket:
    return Ticket("ex", "key", "topic", packed.pack(), -1, 0, False, 0, 0.1, math.inf)


def a_load(fn: Any, *items: tuple[Any, ...]) -> Load:
    """Calls of one function, each pickled on its own."""
    return Load([(dump(fn), True)], None, [dump((args, {})) for args in items])


def ran(packed: Load) -> Outcome:
    """What a worker makes of a task, there and back."""
    run = Run(load(dump(a_ticket(packed))))
    run.run(None)
    outcome: Outcome = load(dump(run.outcome()))
    return outcome


def values(outcome: Outcome) -> list[Any]:
    """The values; for what failed, the type of the error."""
    return [type(b.load()) if isinstance(b, Failure) else load(b) for b in outcome.unpacked()]


def broken_at(value: int) -> Any:
    if value == 2:
        return threading.Lock()
    return value


def test_each_call_of_a_task_fails_alone() -> None:
    """A call that raises spares those before it and those behind it."""
    outcome = ran(a_load(divmod, (7, 2), (1, 0), (9, 2)))
    assert values(outcome) == [(3, 1), ZeroDivisionError, (4, 1)]
    assert outcome.count == 3


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
    packed = Load([(dump(divmod), True)], None, pickle.dumps([(7, 2), (1, 0), (9, 2)], 5))
    assert values(ran(packed)) == [(3, 1), ZeroDivisionError, (4, 1)]
    packed = Load([(dump(abs), True)], None, pickle.dumps([-1, -2], 5), single=True)
    outcome = ran(packed)
    assert isinstance(outcome.bodies, bytes)
    assert (outcome.count, values(outcome)) == (2, [1, 2])


def test_calls_are_handed_back_once() -> None:
    """What was handed back is not run, and what ran is not handed back."""
    run = Run(a_ticket(a_load(abs, (-1,), (-2,), (-3,))))
    assert run.hand_back() == 3
    assert run.hand_back() == 0
    run.run(None)
    assert run.outcome().bodies == []


def test_an_outcome_can_tell_of_the_rest_only() -> None:
    """What was given out already need not be told again."""
    run = Run(a_ticket(a_load(abs, (-1,), (-2,), (-3,))))
    run.run(None)
    rest = run.outcome(2)
    assert (rest.first, rest.count, values(rest)) == (2, 1, [3])


def test_run_times_are_told_of_each_function() -> None:
    """Where a task is mixed, each call's own time is told, so that none is taken for another's."""
    packed = Load([(dump(abs), True), (dump(str), False)], [0, 1, 0], [dump(((-1,), {}))] * 3)
    assert len(ran(packed).seconds) == 3


def test_time_is_told_once() -> None:
    """Outcomes of the parts of a task do not count the same time twice."""
    run = Run(a_ticket(a_load(abs, (-1,), (-2,), (-3,))))
    run.run(None)
    parts = [sum(run.outcome(first).seconds) for first in (1, 2)]
    assert sum(parts) <= sum(run.outcome(0).seconds)


def test_results_are_left_on_the_board(tmp_path: Any) -> None:
    """What a task's calls came to is found on the board, in the form an outcome has."""
    board = Board(tmp_path / "board", create=True)
    ticket = a_ticket(a_load(broken_at, (1,), (2,), (3,)))
    ticket.slot, ticket.turn = board.acquire()
    run = Run(ticket)
    run.run(board)
    left = board.recover(ticket.slot, ticket.turn, run.outcome().pid)
    assert values(Outcome("refused", left)) == values(run.outcome()) == [1, TypeError, 3]
    board.close()


@pytest.mark.parametrize("single", [True, False])
def test_a_function_that_does_not_unpickle_fails_its_calls(single: bool) -> None:
    """A function that cannot be rebuilt on the worker fails each call by itself."""
    items = [1, 2] if single else [(1,), (2,)]
    packed = Load([(b"not a pickle", True)], None, pickle.dumps(items, 5), single)
    assert values(ran(packed)) == [pickle.UnpicklingError] * 2
