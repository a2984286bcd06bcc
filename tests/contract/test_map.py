"""map: the results of map(), computed by the workers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, TimeoutError
from contextlib import closing

import pytest
from daskexec_testing import calls
from daskexec_testing.gates import Gates


def test_order(executor: Executor) -> None:
    """Results come in the order of the arguments."""
    naps = [0.05, 0.0, 0.02, 0.0]
    assert list(executor.map(calls.nap, naps, range(4))) == [0, 1, 2, 3]


def test_returns_an_iterator(executor: Executor) -> None:
    """map returns an iterator, not a list."""
    results = executor.map(calls.identity, [1])
    assert iter(results) is results
    assert next(results) == 1
    with pytest.raises(StopIteration):
        next(results)


def test_empty(executor: Executor) -> None:
    """An empty input has no results."""
    assert list(executor.map(calls.identity, [])) == []


def test_many_iterables_shortest_stops(executor: Executor) -> None:
    """Several iterables give several arguments; the shortest one ends it."""
    assert list(executor.map(calls.add, [1, 2, 3], [10, 20])) == [11, 22]


def test_generators(executor: Executor) -> None:
    """Generators and iterables without a length are inputs like any other."""
    squares = (x * x for x in range(5))
    assert list(executor.map(calls.add, squares, itertools.count())) == [0, 2, 6, 12, 20]
    assert list(executor.map(calls.identity, {"a": 1, "b": 2}.keys())) == ["a", "b"]


def test_error_in_the_input(executor: Executor) -> None:
    """What the input raises is raised to the caller of map."""

    def broken() -> Iterator[int]:
        yield 1
        raise LookupError("the input ended badly")

    with pytest.raises(LookupError, match="ended badly"):
        list(executor.map(calls.identity, broken()))


def test_equal_arguments_all_run(executor: Executor, gates: Gates) -> None:
    """Equal arguments are as many calls."""
    journal = gates.journal()
    assert list(executor.map(calls.note, [journal] * 5, ["same"] * 5)) == ["same"] * 5
    assert journal.lines() == ["same"] * 5


@pytest.mark.parametrize("chunksize", [1, 3, 40, 1000])
def test_chunksize_changes_nothing_seen(executor: Executor, chunksize: int) -> None:
    """Whatever the chunksize, the results are the same."""
    assert list(executor.map(pow, range(40), range(40), chunksize=chunksize)) == [
        x**x for x in range(40)
    ]


@pytest.mark.needs("chunks")
@pytest.mark.parametrize("chunksize", [0, -1])
def test_chunksize_below_one(executor: Executor, chunksize: int) -> None:
    """A chunksize below 1 is a ValueError of map."""
    with pytest.raises(ValueError, match="chunksize"):
        executor.map(calls.identity, [1], chunksize=chunksize)


def test_error_in_the_middle(executor: Executor) -> None:
    """An error is raised in its turn, after the results before it."""
    results = executor.map(divmod, [1, 1, 1, 1], [2, 3, 0, 5])
    assert next(results) == (0, 1)
    assert next(results) == (0, 1)
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_error_cancels_the_rest(make_executor: Callable[..., Executor], gates: Gates) -> None:
    """After an error was raised, calls not yet begun do not run."""
    journal, release = gates.journal(), gates.gate()
    executor = make_executor(1)
    results = executor.map(
        calls.add_after, itertools.chain(["bad"], range(30)), *_all((release, journal))
    )
    release.open()
    with pytest.raises(TypeError):
        next(results)
    results.close()  # type: ignore[attr-defined]
    executor.shutdown()
    assert len(journal.lines()) < 30


def _all(values: tuple[object, ...]) -> list[Iterator[object]]:
    return [itertools.repeat(value) for value in values]


def test_starts_without_being_read(executor: Executor, gates: Gates) -> None:
    """The calls run although nobody reads the results."""
    mine = [gates.gate() for _ in range(4)]
    results = executor.map(calls.open_gate, mine)
    for gate in mine:
        gate.wait()
    assert list(results) == [None] * 4


def test_with_body_runs_everything(make_executor: Callable[..., Executor], gates: Gates) -> None:
    """The end of a with-body waits for all calls of a map that nobody has read."""
    journal = gates.journal()
    with make_executor() as executor:
        results = executor.map(calls.note, itertools.repeat(journal), range(20))
    assert sorted(map(int, journal.lines())) == list(range(20))
    assert list(results) == list(range(20))


def test_unread_results_dropped_at_once_run(
    make_executor: Callable[..., Executor], gates: Gates
) -> None:
    """A map whose iterator was never kept nor read still runs to the end of the with-body."""
    journal = gates.journal()
    with make_executor() as executor:
        executor.map(calls.note, itertools.repeat(journal), range(20))
    assert sorted(map(int, journal.lines())) == list(range(20))


def test_dropping_the_iterator_cancels_the_rest(single: Executor, gates: Gates) -> None:
    """Closing an iterator that has been read from cancels what has not begun."""
    journal = gates.journal()
    started, release = gates.gate(), gates.gate()
    release_first = gates.gate()
    release_first.open()
    results = single.map(
        calls.hold_and_note,
        [started, *(gates.gate() for _ in range(30))],
        itertools.chain([release_first], itertools.repeat(release)),
        itertools.repeat(journal),
        range(31),
    )
    assert next(results) == 0
    results.close()  # type: ignore[attr-defined]
    release.open()
    single.submit(calls.identity, 0).result()
    assert len(journal.lines()) < 15


def test_timeout(single: Executor, gates: Gates) -> None:
    """A result that is not there in time is a TimeoutError."""
    release = gates.gate()
    with closing(single.map(calls.wait_for, [release], timeout=0.05)) as results:  # type: ignore[type-var]
        with pytest.raises(TimeoutError):
            next(results)
        release.open()


def test_timeout_read_after_the_deadline(single: Executor, gates: Gates) -> None:
    """A result read for the first time after the deadline is a TimeoutError, no other error."""
    release = gates.gate()
    blocker = single.submit(calls.wait_for, release)
    results = single.map(calls.identity, [1, 2], timeout=0.0)
    with pytest.raises(TimeoutError):
        next(results)
    release.open()
    blocker.result()


def test_timeout_counts_from_the_call_of_map(single: Executor, gates: Gates) -> None:
    """The deadline is set when map is called, not when it is first read."""
    release, passed = gates.gate(), gates.gate()
    blocker = single.submit(calls.wait_for, release)
    results = single.map(calls.identity, [1], timeout=0.05)
    with pytest.raises(AssertionError):
        passed.wait(0.06)  # time itself is what this waits for
    with pytest.raises(TimeoutError):
        next(results)
    release.open()
    blocker.result()


def test_timeout_long_enough(executor: Executor) -> None:
    """A timeout that is not reached changes nothing."""
    assert list(executor.map(calls.identity, range(10), timeout=30)) == list(range(10))


def test_results_are_not_kept(executor: Executor) -> None:
    """The iterator keeps no reference to results that it has given out."""
    import gc
    import weakref

    for value in executor.map(calls.make_counter, range(5)):
        reference = weakref.ref(value)
        del value
        gc.collect()
        assert reference() is None
