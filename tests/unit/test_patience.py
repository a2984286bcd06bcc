"""What is said while an executor waits, by a fake clock."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from daskexec import ExecutorWarning
from daskexec._patience import Patience
from daskexec.options import CallOptions

PLAIN = [CallOptions()]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def workers() -> list[dict[str, Any]]:
    return [{"address": "tcp://10.0.0.1:4000", "name": "alpha", "resources": {"GPU": 1.0}}]


def looks(
    patience: Patience, clock: Clock, waiting: Any, threads: int, until: int
) -> list[tuple[int, str]]:
    """Look once a second; return when a warning came, and which."""
    said = []
    for second in range(until):
        clock.now = float(second)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            patience.look(waiting, threads, workers)
        said += [(second, str(w.message)) for w in caught if w.category is ExecutorWarning]
    return said


def test_missing_workers_are_said_at_growing_intervals() -> None:
    """Without any worker a warning comes after 5 s, and ever more rarely then."""
    clock = Clock()
    said = looks(Patience(clock=clock), clock, PLAIN, 0, 100)
    assert [second for second, _ in said] == [5, 10, 20, 40, 80]
    assert "no worker on the cluster for 5 s" in said[0][1]


def test_nothing_is_said_while_it_goes_on() -> None:
    """With workers and undemanding calls there is nothing to say."""
    clock = Clock()
    assert looks(Patience(clock=clock), clock, PLAIN, 4, 50) == []
    assert looks(Patience(clock=clock), clock, [], 0, 50) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (CallOptions(resources={"GPU": 2}), "GPU=2"),
        (CallOptions(resources={"TPU": 1}), "at most 0"),
        (CallOptions(resources={"GPUs": 1}), "is 'GPU' meant?"),
        (CallOptions(workers=("beta",)), "there are: alpha"),
        (CallOptions(workers=("alpah",)), "is 'alpha' meant?"),
        (CallOptions(workers=("alpha",), resources={"GPU": 2}), "alpha offer at most 1"),
        (CallOptions(resources={"GPU": 1, "SSD": 1}), "resources there are: GPU"),
    ],
)
def test_what_nobody_has_is_named(options: CallOptions, words: str) -> None:
    """A resource or a worker that is not there is named, with what there is."""
    clock = Clock()
    ((second, text),) = looks(Patience(clock=clock), clock, [options], 1, 9)
    assert second == 5
    assert words in text


@pytest.mark.parametrize(
    "options",
    [
        CallOptions(resources={"GPU": 1}),
        CallOptions(workers=("alpha",)),
        CallOptions(workers=("10.0.0.1",)),
    ],
)
def test_what_somebody_has_is_no_trouble(options: CallOptions) -> None:
    """A call that some worker can run just waits its turn."""
    clock = Clock()
    assert looks(Patience(clock=clock), clock, [options], 1, 50) == []


def test_a_cluster_that_does_not_answer_is_no_error() -> None:
    """If the workers cannot be asked, nothing is said, and nothing breaks."""

    def silent() -> list[dict[str, Any]]:
        raise TimeoutError

    clock = Clock()
    patience = Patience(clock=clock)
    for second in range(20):
        clock.now = float(second)
        assert patience.look([CallOptions(resources={"GPU": 1})], 1, silent) is None


def test_gives_up_where_told() -> None:
    """After `give_up_after` without a worker the reason to break the executor is returned."""
    clock = Clock()
    patience = Patience(give_up_after=3, clock=clock)
    assert patience.look(PLAIN, 0, workers) is None
    clock.now = 3.0
    reason = patience.look(PLAIN, 0, workers, "the last worker: it was killed")
    assert reason == "no worker has joined the cluster for 3 s (the last worker: it was killed)"


def test_resources_of_two_workers_are_not_those_of_one() -> None:
    """What is offered by different workers only is said to be."""
    two = [
        {"address": f"tcp://10.0.0.{i}:4000", "name": name, "resources": {name: 1.0}}
        for i, name in enumerate(["GPU", "SSD"])
    ]
    clock = Clock()
    patience = Patience(clock=clock)
    waiting = [CallOptions(resources={"GPU": 1, "SSD": 1})]
    patience.look(waiting, 2, lambda: two)
    clock.now = 6.0
    with pytest.warns(ExecutorWarning, match="GPU=1 and SSD=1 on one worker"):
        patience.look(waiting, 2, lambda: two)
