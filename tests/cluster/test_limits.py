"""Time limits of calls, killing calls that run, and options on whether one is run again."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, as_completed, wait
from pathlib import Path
from typing import Any

import psutil
import pytest
from daskexec_testing import calls
from daskexec_testing.gates import Gate, Gates, eventually
from daskexec_testing.kept import state_folder
from daskexec_testing.leaks import sharing
from daskexec_testing.processes import Cluster

from daskexec import CallTimedOut, DaskExecutor, ExecutorWarning, WorkerDied

pytestmark = pytest.mark.timeout(90)

LIMIT = 30
#: Seconds that a call sleeps which nobody is to wait for: longer than a test may take.
LONG = 200


@pytest.fixture(scope="module")
def own() -> Iterator[DaskExecutor]:
    """Two processes with one thread each."""
    with sharing():
        executor = DaskExecutor(2)
        wait([executor.submit(calls.pid) for _ in range(4)], timeout=60)
    with executor:
        yield executor


@pytest.fixture(scope="module")
def threaded() -> Iterator[DaskExecutor]:
    """One process with two threads."""
    with sharing():
        executor = DaskExecutor(1, threads_per_worker=2)
        wait([executor.submit(calls.pid) for _ in range(4)], timeout=60)
    with executor:
        yield executor


@pytest.fixture
def remote(cluster: Cluster, gates: Gates) -> Iterator[DaskExecutor]:
    with DaskExecutor(cluster=cluster.address) as executor:
        yield executor
        gates.open_all()


@pytest.fixture(params=["own", "threaded", "remote"])
def executor(request: pytest.FixtureRequest) -> DaskExecutor:
    executor: DaskExecutor = request.getfixturevalue(request.param)
    return executor


@pytest.fixture(params=["own", "remote"])
def single(request: pytest.FixtureRequest) -> DaskExecutor:
    """Its processes have one thread each."""
    executor: DaskExecutor = request.getfixturevalue(request.param)
    return executor


# --- timeout= -----------------------------------------------------------------------------------


def _check_timeout(executor: DaskExecutor, gates: Gates, sleep: Callable[[int], Any]) -> None:
    """Time a call out among a hundred others, each of which is to run once."""
    journal = gates.journal()
    others = [executor.submit(calls.nap_and_note, 0.005, journal, i) for i in range(50)]
    late = executor.with_options(timeout=1).submit(sleep, LONG)
    others += [executor.submit(calls.nap_and_note, 0.005, journal, i) for i in range(50, 100)]
    with pytest.raises(CallTimedOut) as caught:
        late.result(20)
    words = str(caught.value)
    assert "1 s after worker " in words
    assert f"the call of {sleep.__name__}()" in words
    assert caught.value.worker in words
    assert caught.value.worker
    assert not wait(others, timeout=LIMIT).not_done
    assert [future.exception() for future in others] == [None] * 100
    assert sorted(map(int, journal.lines())) == list(range(100))


def test_a_call_that_takes_too_long_is_killed(executor: DaskExecutor, gates: Gates) -> None:
    """It sleeps in C code, and fails in time; a hundred others finish, each run once."""
    _check_timeout(executor, gates, calls.nap)


def test_a_call_that_holds_the_gil_is_killed(single: DaskExecutor, gates: Gates) -> None:
    """Though its process does not answer any more; a hundred others finish, each run once."""
    _check_timeout(single, gates, calls.hold_gil)


def test_the_process_of_a_killed_call_ends(single: DaskExecutor, gates: Gates) -> None:
    """And another one takes its place."""
    journal = gates.journal()
    late = single.with_options(timeout=1).submit(calls.note_then_sleep, journal, LONG)
    error = late.exception(20)
    assert isinstance(error, TimeoutError)
    assert isinstance(error, concurrent.futures.TimeoutError)
    (pid,) = map(int, journal.lines())
    eventually(lambda: not psutil.pid_exists(pid), "the process ends")
    assert pid not in {single.submit(calls.pid).result(LIMIT) for _ in range(4)}


def test_the_time_in_a_queue_does_not_count(single: DaskExecutor, gates: Gates) -> None:
    """A call may wait for longer than its limit for a worker that is free."""
    release = gates.gate()
    busy = [single.submit(calls.hold, gates.gate(), release) for _ in range(2)]
    for future in busy:
        eventually(future.running, "the workers are busy")
    limited = [single.with_options(timeout=1.5).submit(calls.nap, 0.01, i) for i in range(4)]
    assert not wait(limited, timeout=2).done
    release.open()
    assert [future.result(LIMIT) for future in limited] == [0, 1, 2, 3]


def test_a_neighbour_in_the_same_process_is_waited_for(
    threaded: DaskExecutor, gates: Gates
) -> None:
    """The future fails at once; the process begins nothing, and ends when the other call has."""
    journal, started, release = gates.journal(), gates.gate(), gates.gate()
    neighbour = threaded.submit(calls.note_and_hold, journal, "neighbour", started, release)
    started.wait()
    late = threaded.with_options(timeout=0.3).submit(calls.nap, LONG)
    assert isinstance(late.exception(20), CallTimedOut)
    after = [threaded.submit(calls.note, journal, i) for i in range(10)]
    assert not wait(after, timeout=0.5).done
    release.open()
    pid = neighbour.result(LIMIT)
    assert not wait(after, timeout=LIMIT).not_done
    assert sorted(journal.lines()) == sorted(["neighbour", *map(str, range(10))])
    assert threaded.submit(calls.pid).result(LIMIT) != pid


def test_items_of_a_map_have_the_limit_each(own: DaskExecutor) -> None:
    """Of a map with a limit the items that take too long fail, and no others."""
    limited = own.with_options(timeout=0.7)
    results = list(limited.map(calls.nap, [0.01, LONG, 0.01, 0.02], "abcd", errors="return"))
    assert [results[0], *results[2:]] == ["a", "c", "d"]
    assert isinstance(results[1], CallTimedOut)


def test_a_timeout_is_not_retried(own: DaskExecutor, gates: Gates) -> None:
    """Whatever retries= and rerun= say."""
    journal = gates.journal()
    limited = own.with_options(timeout=1, retries=2, rerun=True)
    late = limited.submit(calls.note_then_sleep, journal, LONG)
    assert isinstance(late.exception(20), CallTimedOut)
    assert own.submit(calls.identity, 1).result(LIMIT) == 1
    assert len(journal.lines()) == 1


def test_neighbours_of_a_call_that_holds_the_gil(threaded: DaskExecutor, gates: Gates) -> None:
    """They stand still with it, so its process is not killed before they have gone on."""
    journal = gates.journal()
    neighbour = threaded.submit(calls.note_and_nap, journal, "neighbour", 1)
    eventually(neighbour.running, "it runs")
    late = threaded.with_options(timeout=0.3).submit(calls.hold_gil, 3)
    assert isinstance(late.exception(20), CallTimedOut)
    assert not neighbour.done()
    assert neighbour.result(LIMIT) == "neighbour"
    assert [threaded.submit(calls.note, journal, i).result(LIMIT) for i in range(4)] == [*range(4)]
    assert journal.lines() == ["neighbour", *"0123"]


def test_a_worker_that_is_a_thread_cannot_be_killed(gates: Gates) -> None:
    """The future fails in time all the same, and a warning says that the call runs on."""
    from distributed import LocalCluster

    release = gates.gate()

    def use() -> int:
        with (
            LocalCluster(
                1, threads_per_worker=1, processes=False, dashboard_address=":0"
            ) as local,
            DaskExecutor(cluster=local) as executor,
        ):
            late = executor.with_options(timeout=0.3).submit(calls.wait_for, release)
            assert isinstance(late.exception(20), CallTimedOut)
            release.open()
            result: int = executor.submit(calls.identity, 1).result(LIMIT)
            return result

    with pytest.warns(ExecutorWarning, match="cannot be killed"):
        assert use() == 1


def test_a_limit_holds_where_the_calls_were_left(tmp_path: Path, gates: Gates) -> None:
    """The keeper has the clock then, of calls that have begun and of those that have not."""
    with state_folder(tmp_path / "state"):
        executor = DaskExecutor(1, cluster="local")
        started = gates.gate()
        times = {"begun": 3, "queued": 0.5}
        futures = {
            name: executor.with_options(timeout=seconds).submit(calls.say_and_sleep, gate, LONG)
            for (name, seconds), gate in zip(times.items(), [started, gates.gate()], strict=True)
        }
        started.wait()
        executor.detach("night", futures=futures)
        with DaskExecutor.attach("night") as executor:
            for name in futures:
                error = executor.futures[name].exception(LIMIT)
                assert isinstance(error, CallTimedOut), name
                assert error.timeout == times[name]
            assert executor.submit(calls.identity, 1).result(LIMIT) == 1


def test_a_call_that_holds_the_gil_of_a_kept_worker(tmp_path: Path, gates: Gates) -> None:
    """It is killed where a keeper has the workers, and others finish, each run once."""
    with state_folder(tmp_path / "state"), DaskExecutor(2, cluster="local") as executor:
        _check_timeout(executor, gates, calls.hold_gil)


# --- cancel(kill=True) --------------------------------------------------------------------------


def test_a_running_call_is_killed(executor: DaskExecutor, gates: Gates) -> None:
    """Its future is cancelled and all who wait are woken; others finish, each run once."""
    journal, started = gates.journal(), gates.gate()
    others: list[Future[Any]] = []
    others += [executor.submit(calls.nap_and_note, 0.005, journal, i) for i in range(30)]
    running = executor.submit(calls.say_and_sleep, started, LONG)
    others += [executor.submit(calls.nap_and_note, 0.005, journal, i) for i in range(30, 60)]
    started.wait()
    called_back = threading.Event()
    running.add_done_callback(lambda _: called_back.set())
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lambda: next(as_completed([running], timeout=LIMIT)))
        assert not running.cancel()
        assert running.cancel(kill=True)
        assert waiting.result(LIMIT) is running
    assert called_back.wait(LIMIT)
    assert running.cancelled()
    assert running.cancel()
    with pytest.raises(CancelledError):
        running.result(LIMIT)
    assert not wait(others, timeout=LIMIT).not_done
    assert sorted(map(int, journal.lines())) == list(range(60))


def test_a_call_that_holds_the_gil_is_killed_on_request(own: DaskExecutor) -> None:
    """Though nothing was ever heard of it: a cluster of one's own has a board."""
    stuck = own.submit(calls.hold_gil, LONG)
    eventually(lambda: stuck.cancel(kill=True), "it is cancelled")
    assert [own.submit(calls.identity, i).result(LIMIT) for i in range(4)] == [0, 1, 2, 3]


def test_neighbours_in_the_same_task_survive(own: DaskExecutor, gates: Gates) -> None:
    """Of a shared task the call alone is killed; those before and behind it run once."""
    journal, started = gates.journal(), gates.gate()
    for future in [own.submit(_note_or_stay, journal, i, None) for i in range(50)]:
        future.result(LIMIT)
    release = gates.gate()
    plugs = [own.submit(calls.wait_for, release) for _ in range(2)]
    for plug in plugs:
        eventually(plug.running, "the workers are busy")
    stays = [started if i == 170 else None for i in range(100, 400)]
    futures = [own.submit(_note_or_stay, journal, 100 + i, stay) for i, stay in enumerate(stays)]
    release.open()
    started.wait()
    assert futures[70].cancel(kill=True)
    del futures[70]
    assert not wait(futures, timeout=LIMIT).not_done
    assert [future.exception() for future in futures] == [None] * 299
    assert sorted(map(int, journal.lines())) == [*range(50), *range(100, 400)]


def _note_or_stay(journal: Any, line: int, started: Gate | None) -> None:
    journal.write(line)
    if started is not None:
        calls.say_and_sleep(started, LONG)


def test_killing_does_not_block_an_event_loop(own: DaskExecutor, gates: Gates) -> None:
    """On the thread of a running loop it returns at once, and whoever awaits is told."""
    started = gates.gate()

    async def main() -> None:
        future = own.submit(calls.say_and_sleep, started, LONG)
        waiting = asyncio.ensure_future(asyncio.wrap_future(future))
        while not started.is_open():
            await asyncio.sleep(0.005)
        future.cancel(kill=True)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(asyncio.shield(waiting), LIMIT)
        assert future.cancelled()

    asyncio.run(main())


def test_what_has_not_begun_is_cancelled_without_a_kill(own: DaskExecutor, gates: Gates) -> None:
    """With kill=True a waiting call is cancelled as without; nobody's process ends."""
    release = gates.gate()
    busy = [
        own.submit(calls.note_and_hold, gates.journal(), i, gates.gate(), release) for i in (0, 1)
    ]
    for future in busy:
        eventually(future.running, "the workers are busy")
    waiting = [own.submit(calls.identity, i) for i in range(50)]
    assert all(future.cancel(kill=True) for future in waiting)
    release.open()
    pids = {future.result(LIMIT) for future in busy}
    assert {own.submit(calls.pid).result(LIMIT) for _ in range(10)} <= pids


# --- after= -------------------------------------------------------------------------------------


def test_a_call_runs_after_others(executor: DaskExecutor, gates: Gates) -> None:
    """It starts when all of them are done, of whatever executor, and blocks no thread."""
    journal, release = gates.journal(), gates.gate()
    with ThreadPoolExecutor(1) as pool:
        first = [
            executor.submit(calls.hold_and_note, gates.gate(), release, journal, "first"),
            pool.submit(calls.hold_and_note, gates.gate(), release, journal, "first"),
        ]
        ordered = executor.with_options(after=first)
        then = [ordered.submit(calls.note, journal, "then") for _ in range(20)]
        mapped = ordered.map(calls.note, [journal] * 5, ["then"] * 5)
        assert executor.submit(calls.identity, 1).result(LIMIT) == 1
        release.open()
        assert [future.result(LIMIT) for future in then] == ["then"] * 20
        assert list(mapped) == ["then"] * 5
    assert journal.lines() == ["first"] * 2 + ["then"] * 25
    assert list(ordered.map(calls.identity, range(5))) == list(range(5))


def test_after_what_has_failed(own: DaskExecutor, gates: Gates) -> None:
    """The call fails with the same exception at once, though others are not done; a map too."""
    never: Future[None] = Future()
    failed, journal = own.submit(calls.fail, "the first"), gates.journal()
    ordered = own.with_options(after=[never, failed])
    then = ordered.submit(calls.note, journal, "then")
    error = then.exception(LIMIT)
    assert (type(error), str(error)) == (ValueError, "the first")
    (note,) = getattr(error, "__notes__", ())
    assert f"raised by fail [{failed.key}]; needed by note [{then.key}]" in note
    with pytest.raises(ValueError, match="the first"):
        list(ordered.map(calls.note, [journal] * 3, range(3)))
    assert journal.lines() == []


def test_after_what_was_cancelled(own: DaskExecutor) -> None:
    """The call is cancelled as well, and so are items of a map."""
    before: Future[None] = Future()
    ordered = own.with_options(after=before)
    then = ordered.submit(calls.identity, 1)
    before.cancel()
    assert not wait([then], timeout=LIMIT).not_done
    assert then.cancelled()
    with pytest.raises(CancelledError):
        list(ordered.map(calls.identity, range(3)))


def test_a_call_that_waits_for_others_can_be_cancelled(own: DaskExecutor) -> None:
    """At once: it is still on the client."""
    never: Future[None] = Future()
    then = own.with_options(after=never).submit(calls.identity, 1)
    assert then.cancel()


# --- rerun= -------------------------------------------------------------------------------------


def test_sent_again_three_times(own: DaskExecutor, gates: Gates) -> None:
    """With rerun=True a call that kills its worker is begun four times, then fails."""
    journal = gates.journal()
    killer = own.with_options(rerun=True).submit(calls.exit_hard, journal)
    error = killer.exception(60)
    assert isinstance(error, WorkerDied)
    assert error.attempts == 4
    assert len(journal.lines()) == 4


def test_what_raises_is_not_run_again_by_rerun(own: DaskExecutor, gates: Gates) -> None:
    """rerun= is about workers that die; exceptions are for retries=."""
    journal = gates.journal()
    failed = own.with_options(rerun=True).submit(calls.note_then_fail, journal, "x")
    assert isinstance(failed.exception(LIMIT), ValueError)
    path = Path(journal.path).with_name("tries")
    both = own.with_options(rerun=True, retries=2).submit(calls.fail_twice, path)
    assert both.result(LIMIT) == 3
    assert journal.lines() == ["x"]


def test_never_run_again(remote: DaskExecutor, gates: Gates) -> None:
    """With rerun=False no call is begun twice, though Dask sends what a dead worker had again."""
    journal = gates.journal()
    once = remote.with_options(rerun=False)
    killer = once.submit(calls.exit_hard, journal)
    assert [future.result(LIMIT) for future in [once.submit(calls.identity, 1)]] == [1]
    error = killer.exception(60)
    assert isinstance(error, WorkerDied)
    assert "may have begun" in str(error)
    assert len(journal.lines()) == 1
    assert remote.submit(calls.identity, 1).result(60) == 1
