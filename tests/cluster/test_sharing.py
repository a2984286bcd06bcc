"""Calls that share a Dask task: nobody can tell, but by the speed."""

from __future__ import annotations

import gc
import itertools
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, as_completed, wait
from pathlib import Path
from typing import Any

import pytest
from daskexec_testing import calls
from daskexec_testing.gates import Gates, eventually

from daskexec import DaskExecutor, WorkerDied

LIMIT = 60


@pytest.fixture
def gates(tmp_path: Path) -> Iterator[Gates]:
    made = Gates(tmp_path)
    yield made
    made.open_all()


@pytest.fixture
def executor(gates: Gates) -> Iterator[DaskExecutor]:
    """Two workers, and functions known to be quick."""
    with DaskExecutor(2) as executor:
        for fn in (calls.identity, calls.quick_or):
            list(executor.map(fn, range(200)))
            [f.result(LIMIT) for f in [executor.submit(fn, i) for i in range(200)]]
        yield executor
        gates.open_all()


def tasks_of(executor: DaskExecutor, name: str) -> tuple[int, int]:
    """How many calls of a function have run so far, and how many tasks carried them."""
    for known in executor.stats()["functions"]:
        if known["name"] == name:
            return known["calls"], known["tasks"]
    return 0, 0


def test_quick_calls_share_tasks(executor: DaskExecutor) -> None:
    """Thousands of quick calls take tens of tasks, and each has its own result."""
    ran, sent = tasks_of(executor, "identity")
    futures = [executor.submit(calls.identity, i) for i in range(5000)]
    assert [future.result(LIMIT) for future in futures] == list(range(5000))
    more, tasks = tasks_of(executor, "identity")
    assert more - ran == 5000
    assert tasks - sent < 500


def test_a_known_long_function_goes_alone(executor: DaskExecutor) -> None:
    """Calls that take longer than a task costs get one each."""
    futures = [executor.submit(calls.nap, 0.1, i) for i in range(6)]
    assert [future.result(LIMIT) for future in futures] == list(range(6))
    ran, tasks = tasks_of(executor, "nap")
    assert (ran, tasks) == (6, 6)


def test_never_means_one_each() -> None:
    """With sharing="never" every call is a Dask task, those of a map too."""
    with DaskExecutor(1, sharing="never") as executor:
        [f.result(LIMIT) for f in [executor.submit(calls.identity, i) for i in range(30)]]
        assert list(executor.map(calls.identity, range(30))) == list(range(30))
        assert tasks_of(executor, "identity") == (60, 60)


def test_a_bad_way_of_sharing() -> None:
    """Another word for sharing is refused before anything starts."""
    with pytest.raises(ValueError, match="sharing must be one of"):
        DaskExecutor(1, sharing="sometimes")  # type: ignore[arg-type]


# -- waiting for one another ----------------------------------------------------------------


def test_two_that_wait_for_each_other(executor: DaskExecutor, gates: Gates) -> None:
    """After 300 quick calls, two of the same function that wait for each other finish."""
    quick = [executor.submit(calls.quick_or, i) for i in range(300)]
    one, two = gates.gate(), gates.gate()
    both = [
        executor.submit(calls.quick_or, 0, one, two),
        executor.submit(calls.quick_or, 0, two, one),
    ]
    assert [future.result(LIMIT) for future in both] == [True, True]
    assert [future.result(LIMIT) for future in quick] == list(range(300))


def test_items_that_wait_for_each_other(executor: DaskExecutor, gates: Gates) -> None:
    """The same within one map."""
    one, two = gates.gate(), gates.gate()
    items: list[tuple[Any, ...]] = [(i,) for i in range(300)]
    items[150:150] = [(0, one, two), (0, two, one)]
    results = list(executor.map(calls.quick_or_of, items, timeout=LIMIT))
    assert results == [*range(150), True, True, *range(150, 300)]


def test_a_slow_call_holds_up_nobody(executor: DaskExecutor, gates: Gates) -> None:
    """While one call of a quick function is held, a thousand others of it finish."""
    started, release = gates.gate(), gates.gate()
    futures = [executor.submit(calls.quick_or, i) for i in range(500)]
    slow = executor.submit(calls.quick_or, 0, started, release)
    futures += [executor.submit(calls.quick_or, i) for i in range(500)]
    _, pending = wait(futures, timeout=LIMIT)
    assert not pending
    assert not slow.done()
    release.open()
    assert slow.result(LIMIT) is True


def test_a_slow_call_in_a_task_that_takes_too_long(executor: DaskExecutor, gates: Gates) -> None:
    """The same when the task was ended for its calls take longer than they used to."""
    list(executor.map(calls.nap_or, [0.0] * 500))
    started, release = gates.gate(), gates.gate()
    futures = [executor.submit(calls.nap_or, 0.001) for _ in range(500)]
    slow = executor.submit(calls.nap_or, 0.0, started, release)
    futures += [executor.submit(calls.nap_or, 0.001) for _ in range(500)]
    _, pending = wait(futures, timeout=LIMIT)
    assert not pending
    assert not slow.done()
    release.open()
    assert slow.result(LIMIT) == 0.0


def test_slow_calls_everywhere(executor: DaskExecutor) -> None:
    """A function that is quick mostly, and slow at times, runs each call once."""
    naps = [0.25 if i % 97 == 0 else 0.0 for i in range(1000)]
    futures = [executor.submit(calls.nap, nap, i) for i, nap in enumerate(naps)]
    assert [future.result(LIMIT) for future in futures] == list(range(1000))
    assert list(executor.map(calls.nap, naps, range(1000))) == list(range(1000))


def test_each_runs_once(executor: DaskExecutor, gates: Gates) -> None:
    """However calls are handed back and moved, each runs once."""
    journal = gates.journal()
    for fn in (calls.note, calls.note_slowly_at_times):
        futures = [executor.submit(fn, journal, f"{fn.__name__} {i}") for i in range(400)]
        wait(futures, timeout=LIMIT)
        list(executor.map(fn, itertools.repeat(journal), (f"map {fn} {i}" for i in range(400))))
    counts = Counter(journal.lines())
    assert len(counts) == 1600
    assert set(counts.values()) == {1}


def test_a_call_that_submits_gives_way(executor: DaskExecutor) -> None:
    """Quick calls that wait for calls of their own finish on one thread, each of them."""
    with DaskExecutor(1) as single:
        futures = [single.submit(calls.submit_and_wait, single, i) for i in range(40)]
        assert [future.result(LIMIT) for future in futures] == list(range(40))


# -- errors and crashes ---------------------------------------------------------------------


def test_errors_are_their_own(executor: DaskExecutor) -> None:
    """In a shared task each error is on the future of its own call, the others finish."""
    futures = [executor.submit(calls.inverse, i % 5) for i in range(500)]
    for i, future in enumerate(futures):
        if i % 5 == 0:
            assert isinstance(future.exception(LIMIT), ZeroDivisionError)
        else:
            assert future.result(LIMIT) == 1 / (i % 5)


def test_pickling_errors_are_their_own(executor: DaskExecutor) -> None:
    """What cannot be pickled or unpickled, there or back, fails one call of a shared task."""
    bad: dict[int, Any] = {
        100: calls.FailsToPickle(),
        200: calls.FailsToUnpickle(),
        300: (lambda: (yield))(),
    }
    inputs = [bad.get(i, i) for i in range(400)]
    futures = [executor.submit(calls.identity, value) for value in inputs]
    failed = [i for i, future in enumerate(futures) if future.exception(LIMIT) is not None]
    assert failed == sorted(bad)
    results = list(executor.map(calls.identity, inputs, errors="return"))
    assert [i for i, value in enumerate(results) if isinstance(value, Exception)] == failed


@pytest.mark.parametrize("how", ["submit", "map", "chunks"])
def test_a_killer_among_them(executor: DaskExecutor, gates: Gates, how: str) -> None:
    """A call that kills its worker fails alone and runs once, and so do all the others."""
    journal = gates.journal()
    lines = [f"{how} {i}" for i in range(600)]
    codes = [7 if i in (150, 151, 449) else None for i in range(600)]
    for fn in (calls.note, calls.note_or_exit):  # known to be quick
        list(executor.map(fn, [journal] * 50, ["warm"] * 50))
    if how == "submit":
        futures = [
            executor.submit(calls.note_or_exit, journal, line, code)
            for line, code in zip(lines, codes, strict=True)
        ]
        results: list[Any] = [future.exception(LIMIT) for future in futures]
    else:
        chunk = 20 if how == "chunks" else None
        results = list(
            executor.map(
                calls.note_or_exit,
                itertools.repeat(journal),
                lines,
                codes,
                errors="return",
                chunksize=chunk,
            )
        )
    died = [i for i, result in enumerate(results) if isinstance(result, WorkerDied)]
    assert died == [150, 151, 449]
    counts = Counter(journal.lines())
    assert {line: counts[line] for line in lines if counts[line] != 1} == {}


def test_a_large_result_ends_its_task(executor: DaskExecutor) -> None:
    """Results of megabytes from a function known to be small arrive all the same."""
    sizes = [10] * 300 + [3 << 20] * 4 + [10] * 300
    futures = [executor.submit(calls.filled, size) for size in sizes]
    assert [len(future.result(LIMIT)) for future in futures] == sizes


# -- cancelling -----------------------------------------------------------------------------


def test_cancel_in_a_task_not_begun(executor: DaskExecutor, gates: Gates) -> None:
    """Of calls whose task waits behind busy workers one can be cancelled; the others run."""
    started, release = [gates.gate(), gates.gate()], gates.gate()
    journal = gates.journal()
    list(executor.map(calls.note, [journal] * 100, ["warm"] * 100))
    busy = [executor.submit(calls.hold, gate, release) for gate in started]
    for gate in started:
        gate.wait()
    futures = [executor.submit(calls.note, journal, i) for i in range(100)]
    cancelled = [future.cancel() for future in futures[::10]]
    assert all(cancelled)
    release.open()
    wait([*busy, *futures], timeout=LIMIT)
    assert [future.cancelled() for future in futures] == [i % 10 == 0 for i in range(100)]
    lines = [line for line in journal.lines() if line != "warm"]
    assert sorted(map(int, lines)) == [i for i in range(100) if i % 10]


def test_as_completed_sees_all(executor: DaskExecutor) -> None:
    """as_completed yields each of thousands of futures that share tasks once."""
    futures = {executor.submit(calls.identity, i): i for i in range(3000)}
    seen = {futures[future]: future.result() for future in as_completed(futures, timeout=LIMIT)}
    assert seen == {i: i for i in range(3000)}


# -- functions ------------------------------------------------------------------------------


def test_mixed_functions_share(executor: DaskExecutor) -> None:
    """Calls of several quick functions, one after the other, have their own results."""
    functions = [calls.identity, calls.length, str, lambda value: value * 2]
    for fn in functions:
        list(executor.map(fn, ["warm"] * 20))
    futures = [executor.submit(functions[i % 4], f"{i}") for i in range(2000)]
    for i, future in enumerate(futures):
        assert future.result(LIMIT) == functions[i % 4](f"{i}")


def test_state_is_not_shared(executor: DaskExecutor) -> None:
    """Mutable arguments, functions with state and defaults are each call's own copies."""
    box: list[int] = []
    counter = calls.Counting()

    def remember(value: int, kept: list[int] = []) -> int:  # noqa: B006
        kept.append(value)
        return len(kept)

    for fn, args in ((calls.grow, (box,)), (counter, ()), (remember, (1,))):
        futures = [executor.submit(fn, *args) for _ in range(300)]
        assert {future.result(LIMIT) for future in futures} == {1}
        assert set(executor.map(lambda _, fn=fn, args=args: fn(*args), range(50))) == {1}


def test_a_changed_closure_is_seen(executor: DaskExecutor) -> None:
    """A function that reads what has changed since it was last sent is sent anew."""
    factor = 1

    def scaled(value: int) -> int:
        return value * factor

    assert list(executor.map(scaled, range(100))) == list(range(100))
    factor = 3
    assert executor.submit(scaled, 5).result(LIMIT) == 15


# -- maps -----------------------------------------------------------------------------------


def test_unordered(executor: DaskExecutor, gates: Gates) -> None:
    """With ordered=False what is there comes first, and nothing is lost."""
    release = gates.gate()
    items: list[tuple[Any, ...]] = [(0, gates.gate(), release), *((i,) for i in range(1, 200))]
    results = executor.map(calls.quick_or_of, items, ordered=False, timeout=LIMIT)
    first = list(itertools.islice(results, 199))
    assert sorted(first) == list(range(1, 200))
    release.open()
    assert list(results) == [True]


def test_errors_returned(executor: DaskExecutor) -> None:
    """With errors="return" an error comes in its call's place, and the others follow."""
    inputs = [i % 3 for i in range(60)]
    ways: list[dict[str, Any]] = [{}, {"chunksize": 7}, {"buffersize": 9}]
    for way in ways:
        results = list(executor.map(calls.inverse, inputs, errors="return", **way))
        kinds = ["error" if isinstance(value, ZeroDivisionError) else value for value in results]
        assert kinds == ["error", 1.0, 0.5] * 20


def test_a_wrong_word_for_errors(executor: DaskExecutor) -> None:
    """Another word for errors is refused by map itself."""
    with pytest.raises(ValueError, match="errors must be"):
        executor.map(calls.identity, [1], errors="ignore")  # type: ignore[call-overload]


def test_chunks_stay_together(executor: DaskExecutor) -> None:
    """Each chunk of a given size runs on one worker."""
    pids = list(executor.map(calls.pid, range(100), chunksize=10))
    assert all(len(set(pids[i : i + 10])) == 1 for i in range(0, 100, 10))


def test_results_of_a_long_chunk_come_early() -> None:
    """A chunk of a hundred seconds gives what is done while it runs, though no call is slow."""
    with DaskExecutor(1) as executor:
        results = executor.map(calls.nap, [0.02] * 5000, chunksize=5000)
        for _ in range(60):
            next(results)
        executor.kill_workers()
        with pytest.raises(BrokenExecutor):
            list(results)


def test_futures_among_the_items(executor: DaskExecutor) -> None:
    """Items of a map that are futures stand for their values."""
    items = [executor.submit(calls.nap, 0.05, i) if i % 9 == 0 else i for i in range(100)]
    assert list(executor.map(calls.identity, items)) == list(range(100))


def test_a_map_with_retries(executor: DaskExecutor, tmp_path: Path) -> None:
    """With retries each item that fails is tried again by itself."""
    retrying = executor.with_options(retries=2)
    paths = [tmp_path / str(i) for i in range(10)]
    assert list(retrying.map(calls.fail_twice, paths)) == [3] * 10


# -- memory ---------------------------------------------------------------------------------


def test_a_pending_future_is_small(executor: DaskExecutor, gates: Gates) -> None:
    """A pending call takes less than a bare future of the stdlib, and gives it back."""
    count = 20_000
    started, release = [gates.gate(), gates.gate()], gates.gate()
    busy = [executor.submit(calls.hold, gate, release) for gate in started]
    for gate in started:
        gate.wait()
    gc.collect()
    tracemalloc.start()
    try:
        futures = [executor.submit(calls.quick_or, i) for i in range(count)]
        pending, _ = tracemalloc.get_traced_memory()
        release.open()
        wait([*busy, *futures], timeout=LIMIT)
        assert [future.result() for future in futures] == list(range(count))
        del futures
        gc.collect()
        left, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert pending / count < 1000
    assert left < 0.2 * pending


def test_time_stands_in_stats(executor: DaskExecutor) -> None:
    """stats() says what is known of each function."""
    futures = [executor.submit(calls.nap, 0.05) for _ in range(4)]
    wait(futures, timeout=LIMIT)
    stats = executor.stats()
    assert stats["pending"] == stats["queued"] == stats["tasks_sent"] == 0
    # Workers are counted once a second, and may have just joined.
    eventually(lambda: executor.stats()["threads"] == 2)
    (nap,) = (known for known in stats["functions"] if known["name"] == "nap")
    assert 0.05 <= nap["mean_seconds"] < LIMIT
    assert nap["calls"] == 4
