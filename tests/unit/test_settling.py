"""From reports to what is known and settled, without threads and without a cluster."""

from __future__ import annotations

from typing import Any

import pytest

from daskexec._batching import BatchPolicy
from daskexec._calls import Outcome
from daskexec._ledger import Ledger
from daskexec._messages import Done
from daskexec._patience import Patience
from daskexec._pickling import dump
from daskexec._settling import Settler
from daskexec._tasks import Call, Task
from daskexec.futures import DaskFuture
from daskexec.options import CallOptions


class Settled:
    """A ledger with one sent task of `count` calls, and its settler."""

    def __init__(self, count: int, *fns: Any) -> None:
        self.ledger = Ledger(BatchPolicy(limit=1))
        self.ledger.threads = 1
        self.settler = Settler(self.ledger, Patience(), lambda error: pytest.fail(str(error())))
        fns = fns or (abs,)
        for fn in fns:
            self.ledger.policy.observe(self.ledger.policy.known(fn), 1e-3)
        self.futures: list[DaskFuture[int]] = []
        for number in range(count):
            future: DaskFuture[int] = DaskFuture("f", number)
            self.futures.append(future)
            call = Call(future, fns[number % len(fns)], (number,), {}, CallOptions())
            future._call = call
            self.ledger.add(call)
        self.task: Task = self.ledger.take()[0]
        self.ledger.send(self.task)

    def known(self, fn: Any) -> Any:
        return self.ledger.policy.known(fn)

    def tell(self, first: int, stop: int, seconds: list[float]) -> None:
        bodies = [dump(number) for number in range(first, stop)]
        self.settler._results(self.task, Outcome("ran", bodies, first=first, seconds=seconds))


def test_results_settle_their_futures() -> None:
    """Each call's future gets its own value; what was not begun is queued again."""
    settled = Settled(8)
    members = len(settled.task.load)
    bodies: list[Any] = [dump(number) for number in range(members - 1)]
    outcome = Outcome("ran", bodies, seconds=[0.1])
    settled.settler._handle(Done(settled.task.key, outcome))
    assert [future.result(0) for future in settled.futures[: members - 1]] == list(
        range(members - 1)
    )
    assert not settled.futures[members - 1].done()
    assert settled.ledger.queued == 8 - (members - 1)


def test_a_relieved_task_is_observed_once() -> None:
    """Results that a slow task tells of twice count once, and so does the time they took."""
    settled = Settled(8)
    before = settled.known(abs).calls
    settled.tell(0, 2, [0.2])
    settled.tell(0, 3, [1.2])
    assert settled.known(abs).calls - before == 3
    assert settled.task.observed == pytest.approx(1.2)


def test_a_relieved_mixed_task_is_observed_once() -> None:
    """So it is where calls of several functions share the task."""
    settled = Settled(8, abs, round)
    assert settled.task.mixed
    before = settled.known(abs).calls, settled.known(round).calls
    settled.tell(0, 2, [0.1, 0.2])
    settled.tell(0, 4, [0.1, 0.2, 0.3, 0.4])
    assert (settled.known(abs).calls, settled.known(round).calls) == (before[0] + 2, before[1] + 2)
