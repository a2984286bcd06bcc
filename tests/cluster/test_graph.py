"""Graphs of properties on pools of processes, and on Dask."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import (
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)

import pytest
from daskexec_testing import calls
from daskexec_testing.gates import Gate, Gates
from daskexec_testing.graphs import TEXTS, TOTALS, report
from daskexec_testing.leaks import sharing
from daskexec_testing.promised import Guarded, wait_and_guard

from daskexec import DaskExecutor, Graph, SerialExecutor, WorkerDied

LIMIT = 60
NOTES = hasattr(BaseException, "add_note")  # Python 3.11
ONCE = ["longest", "parts", "tallies", "tallies", "totals"]


def _loky() -> Executor:
    loky = pytest.importorskip("loky")
    executor: Executor = loky.ProcessPoolExecutor(1)
    return executor


KINDS = {
    "serial": SerialExecutor,
    "threads": lambda: ThreadPoolExecutor(1),
    "processes": lambda: ProcessPoolExecutor(1),
    "loky": _loky,
    "dask": lambda: DaskExecutor(1),
    "dask-alone": lambda: DaskExecutor(1, sharing="never"),
}


@pytest.fixture(scope="module", params=KINDS)
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    """Each kind of executor, with one worker."""
    with sharing():
        executor = KINDS[request.param]()
        executor.submit(len, "warm").result(LIMIT)
    yield executor
    executor.shutdown()


def test_same_values_once(executor: Executor, gates: Gates) -> None:
    """Asked from 8 threads of one worker: the same values everywhere, each computed once."""
    journal = gates.journal()
    run = report.on(executor, texts=TEXTS, journal=journal)
    start = threading.Barrier(8)

    def ask(name: str) -> object:
        start.wait(LIMIT)
        return run.future(name).result(LIMIT)

    with ThreadPoolExecutor(8) as threads:
        values = list(threads.map(ask, ["longest", "totals", "tallies", "parts"] * 2))
    assert values[:2] == ["brown", TOTALS]
    assert values[:4] == values[4:]
    assert sorted(journal.lines()) == ONCE


def test_a_failure_leaves_others_alone(executor: Executor, gates: Gates) -> None:
    """What needs the failed property fails as it did; the rest is computed."""
    run = report.on(executor, texts=TEXTS, journal=gates.journal())
    needs_broken, longest = run.future("needs_broken"), run.future("longest")
    with pytest.raises(KeyError) as caught:
        needs_broken.result(LIMIT)
    assert caught.value.args == ("broken", 9)
    if NOTES:
        assert (
            "raised by the property 'broken', needed by 'needs_broken'" in caught.value.__notes__
        )
    assert longest.result(LIMIT) == "brown"


def test_cancelled(executor: Executor, gates: Gates) -> None:
    """A property whose turn has not come is cancelled, and what needs it; others are not."""
    if isinstance(executor, SerialExecutor):
        pytest.skip("nothing is ever pending")
    started, release = gates.gate(), gates.gate()
    inputs = {"texts": TEXTS, "started": started, "release": release}
    run = report.on(executor, journal=gates.journal(), **inputs)
    held, longest = run.future("held"), run.future("longest")
    started.wait()
    needs_held = run.future("needs_held")
    assert needs_held.cancel()
    release.open()
    assert held.result(LIMIT) == 9
    assert longest.result(LIMIT) == "brown"
    assert run.wait(LIMIT)
    assert needs_held.cancelled()


@pytest.mark.parametrize("kind", ["processes", "loky", "dask"])
def test_a_dying_worker(kind: str, gates: Gates) -> None:
    """The property of the call, and what needs it, fail with the executor's own error."""
    with KINDS[kind]() as executor:
        run = report.on(executor, texts=TEXTS, journal=gates.journal())
        futures = [run.future(name) for name in ("longest", "needs_dead")]
        assert not wait(futures, LIMIT).not_done
        error = futures[1].exception()
        assert isinstance(error, BrokenExecutor)
        if NOTES:
            assert "needed by 'needs_dead'" in error.__notes__[-1]
        if kind == "dask":
            assert isinstance(error, WorkerDied)
            assert futures[0].result() == "brown"


@pytest.mark.parametrize("kind", ["processes", "loky", "dask"])
def test_dying_workers_of_many_calls(kind: str) -> None:
    """Of properties with many pending calls each ends, also those of other runs."""
    with KINDS[kind]() as executor:
        runs = [report.on(executor, numbers=range(10)) for _ in range(2)]
        dying, living = runs[0].future("dying"), [run.future("living") for run in runs]
        assert not wait([dying, *living], LIMIT).not_done
        assert isinstance(dying.exception(), BrokenExecutor)
        for future in living:
            if kind == "dask":
                assert future.result() == list(range(10))
            else:
                assert isinstance(future.exception(), BrokenExecutor)


@pytest.mark.parametrize("kind", ["processes", "dask"])
def test_shut_down_amid_a_run(kind: str, gates: Gates) -> None:
    """Every property ends: computed, cancelled, or with what the executor says to its submit."""
    started, release = gates.gate(), gates.gate()
    inputs = {"texts": TEXTS, "started": started, "release": release}
    with KINDS[kind]() as executor:
        run = report.on(executor, journal=gates.journal(), **inputs)
        needs_held, held = run.future("needs_held"), run.future("held")
        started.wait()
        executor.shutdown(wait=False, cancel_futures=True)
        release.open()
        assert held.result(LIMIT) == 9
        if kind == "dask":  # it was submitted, and waited for the other one
            with pytest.raises(CancelledError):
                needs_held.result(LIMIT)
        else:
            with pytest.raises(RuntimeError, match="shutdown"):
                needs_held.result(LIMIT)


def test_two_executors_in_one_graph(gates: Gates) -> None:
    """A pool of threads beside Dask, and Dask with options, each by name."""
    with DaskExecutor(1) as dask, ThreadPoolExecutor(1, "names") as pool:
        executors = {"default": dask, "names": pool, "urgent": dask.with_options(priority=5)}
        run = report.on(executors, texts=TEXTS, journal=gates.journal())
        here, *rest = run["threads"]
        assert here == ("the", "names_0")
        assert [word for word, _ in rest] == ["brown", "dog"]
        assert run["top"] == ["the", "brown", "dog"]


passing = Graph()
CLIENT = os.getpid()


@passing.property
def names(count: int) -> list[int]:
    return list(range(count))


@passing.property(each="names")
def parts(name: int, client: int, release: Gate) -> Guarded:
    return wait_and_guard(release, 100_000, client)


@passing.property(each={"part": "parts"})
def lengths(part: Guarded) -> int:
    return len(part.data)


@passing.property
def whole(parts: list[Guarded]) -> Guarded:
    parts[0].data = b"".join(part.data for part in parts)
    return parts[0]


@passing.property
def total(whole: Guarded, lengths: list[int]) -> tuple[int, int]:
    return len(whole.data), sum(lengths)


@passing.property(on="here")
def checked(total: tuple[int, int], lengths: list[int]) -> tuple[bool, int, int]:
    return total[0] == total[1], len(lengths), os.getpid()


@passing.property
def last(checked: tuple[bool, int, int], whole: Guarded) -> tuple[int, int]:
    return checked[1], len(whole.data)


@passing.property
def broken(whole: Guarded) -> None:
    raise ValueError("broken")


@passing.property
def needs_broken(broken: None, parts: list[Guarded]) -> None:
    return broken


@passing.property(on="here")
def here_too(needs_broken: None) -> None:
    return needs_broken


@pytest.fixture(scope="module")
def two() -> Iterator[dict[str, Executor]]:
    with sharing():
        dask, pool = DaskExecutor(2), ThreadPoolExecutor(1)
        dask.submit(abs, 1).result(LIMIT)
        pool.submit(abs, 1).result(LIMIT)
    yield {"default": dask, "here": pool}
    dask.shutdown()
    pool.shutdown()


def test_values_stay_with_the_workers(two: dict[str, Executor], gates: Gates) -> None:
    """Only what is asked for, and what another executor needs, comes here; the rest cannot."""
    release = gates.gate()
    run = passing.on(two, count=5, client=CLIENT, release=release)
    last = run.future("last")
    release.open()
    assert last.result(LIMIT) == (5, 500_000)
    assert run.wait(LIMIT)
    assert run["total", "lengths"] == ((500_000, 500_000), [100_000] * 5)
    assert run["checked"] == (True, 5, CLIENT)
    assert "whole    done" in run.explain("last")
    with pytest.raises(RuntimeError, match="unpickled by the client"):
        run["whole"]


def test_a_future_is_given(two: dict[str, Executor], gates: Gates) -> None:
    """A future that is given goes on as a future."""
    release = gates.gate()
    given = two["default"].submit(wait_and_guard, release, 1_000_000, CLIENT)
    run = passing.on(two, whole=given, count=2, client=CLIENT, release=release)
    total = run.future("total")
    release.open()
    assert total.result(LIMIT) == (1_000_000, 200_000)
    assert run["last"] == (2, 1_000_000)
    assert given.is_remote()  # type: ignore[attr-defined]


def test_a_future_is_given_and_done_long_before_it_is_needed(
    two: dict[str, Executor], gates: Gates
) -> None:
    """Its value stays with the worker: what needs it is submitted when all else is there."""
    release = gates.gate()
    given = two["default"].submit(wait_and_guard, release, 1_000_000, CLIENT)
    names: Future[list[int]] = Future()
    inputs = {"whole": given, "names": names, "client": CLIENT, "release": release}
    total = passing.on(two, **inputs).future("total")
    ran: Future[object] = Future()
    given.add_run_callback(ran.set_result)  # type: ignore[attr-defined]
    release.open()
    ran.result(LIMIT)
    assert given.is_remote()  # type: ignore[attr-defined]
    names.set_result([0, 1])
    assert total.result(LIMIT) == (1_000_000, 200_000)


def test_failures_of_what_was_given_as_futures(two: dict[str, Executor], gates: Gates) -> None:
    """The property that raised is named, whoever hears of it first; others are not touched."""
    release = gates.gate()
    run = passing.on(two, count=3, client=CLIENT, release=release)
    futures = {name: run.future(name) for name in ("here_too", "total")}
    release.open()
    with pytest.raises(ValueError, match="broken") as caught:
        futures["here_too"].result(LIMIT)
    if NOTES:
        chain = "needed by 'needs_broken', needed by 'here_too'"
        assert f"raised by the property 'broken', {chain}" in caught.value.__notes__
    assert futures["total"].result(LIMIT) == (300_000, 300_000)
    assert run.wait(LIMIT)
    assert "failed with broken" in run.explain("needs_broken")


def test_cancelling_what_was_submitted_early(two: dict[str, Executor], gates: Gates) -> None:
    """All that needs it is cancelled, though it was submitted before."""
    started, release = gates.gate(), gates.gate()
    count = two["default"].submit(calls.hold, started, release, 2)
    started.wait()
    run = passing.on(two, whole=count, lengths=[1], client=CLIENT, release=release)
    needed, needs = run.future("total"), run.future("checked")
    assert not needs.running()
    assert needed.cancel()
    assert wait([needs], LIMIT).done.pop().cancelled()
    release.open()
    assert run.wait(LIMIT)
