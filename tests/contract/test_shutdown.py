"""shutdown: what was submitted finishes, what comes later is refused."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError, Executor, wait
from threading import Thread

import pytest
from daskexec_testing import calls
from daskexec_testing.gates import Gates, eventually

Make = Callable[..., Executor]


def test_waits_for_everything(make_executor: Make, gates: Gates) -> None:
    """shutdown returns when every call has finished."""
    journal = gates.journal()
    executor = make_executor()
    futures = [executor.submit(calls.note, journal, i) for i in range(30)]
    executor.shutdown()
    assert all(future.done() for future in futures)
    assert sorted(map(int, journal.lines())) == list(range(30))


def test_no_wait_finishes_the_pending(make_executor: Make, gates: Gates) -> None:
    """shutdown(wait=False) returns at once; running and waiting calls still finish."""
    started, release = gates.gate(), gates.gate()
    executor = make_executor(1)
    first = executor.submit(calls.hold, started, release, "first")
    rest = [executor.submit(calls.identity, i) for i in range(8)]
    started.wait()
    executor.shutdown(wait=False)
    assert not first.done()
    release.open()
    assert first.result(30) == "first"
    assert [future.result(30) for future in rest] == list(range(8))


def test_cancel_futures(make_executor: Make, gates: Gates) -> None:
    """cancel_futures cancels what has not begun and lets the running calls finish."""
    started, release = gates.gate(), gates.gate()
    journal = gates.journal()
    executor = make_executor(1)
    first = executor.submit(calls.hold, started, release, "first")
    rest = [executor.submit(calls.note, journal, i) for i in range(30)]
    started.wait()
    eventually(first.running, "the future says running", 5)
    executor.shutdown(wait=False, cancel_futures=True)
    release.open()
    assert first.result(30) == "first"
    executor.shutdown()
    eventually(lambda: all(future.done() for future in rest))
    cancelled = [future for future in rest if future.cancelled()]
    assert len(cancelled) > 20
    assert len(journal.lines()) == len(rest) - len(cancelled)
    with pytest.raises(CancelledError):
        cancelled[0].result()


@pytest.mark.deviates(
    threads="the pool cancels what is queued without notifying its waiters",
    processes="the pool cancels what is pending without notifying its waiters",
)
def test_cancel_futures_wakes_waiters(make_executor: Make, gates: Gates) -> None:
    """wait returns for futures that cancel_futures cancelled."""
    started = gates.gate()
    executor = make_executor(1)
    first = executor.submit(calls.hold, started, gates.gate())
    rest = [executor.submit(calls.identity, i) for i in range(30)]
    started.wait()
    executor.shutdown(wait=False, cancel_futures=True)
    assert not wait(rest[10:], timeout=2).not_done
    assert not first.done()


def test_cancel_futures_with_wait(make_executor: Make) -> None:
    """With wait and cancel_futures every future is done when shutdown returns."""
    executor = make_executor()
    futures = [executor.submit(calls.nap, 0.01, i) for i in range(50)]
    executor.shutdown(wait=True, cancel_futures=True)
    assert all(future.done() for future in futures)
    for i, future in enumerate(futures):
        assert future.cancelled() or future.result() == i


def test_twice(make_executor: Make) -> None:
    """A second shutdown does nothing and raises nothing."""
    executor = make_executor()
    future = executor.submit(calls.identity, 1)
    executor.shutdown()
    executor.shutdown()
    executor.shutdown(wait=False)
    assert future.result() == 1


@pytest.mark.deviates(processes="the pool forgets its manager in the first shutdown")
def test_second_one_waits_too(make_executor: Make, gates: Gates) -> None:
    """shutdown(wait=True) after shutdown(wait=False) waits for what is still running."""
    started, release = gates.gate(), gates.gate()
    executor = make_executor(1)
    future = executor.submit(calls.hold, started, release)
    started.wait()
    executor.shutdown(wait=False)
    thread = Thread(target=executor.shutdown)
    thread.start()
    thread.join(0.1)
    assert thread.is_alive()
    release.open()
    thread.join(30)
    assert not thread.is_alive()
    assert future.done()


def test_unused(make_executor: Make) -> None:
    """An executor that was never used shuts down."""
    make_executor().shutdown()


@pytest.mark.parametrize("wait_for_it", [True, False])
def test_refuses_afterwards(make_executor: Make, wait_for_it: bool) -> None:
    """submit and map after shutdown are RuntimeErrors, also when it did not wait."""
    executor = make_executor()
    executor.submit(calls.identity, 1)
    executor.shutdown(wait=wait_for_it)
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(calls.identity, 1)
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.map(calls.identity, [1])
    executor.shutdown()


def test_context_manager(make_executor: Make) -> None:
    """A with-body hands out the executor itself and ends with shutdown(wait=True)."""
    executor = make_executor()
    with executor as inside:
        assert inside is executor
        futures = [inside.submit(calls.nap, 0.01, i) for i in range(5)]
    assert all(future.done() for future in futures)
    with pytest.raises(RuntimeError):
        executor.submit(calls.identity, 1)


def test_raising_body(make_executor: Make) -> None:
    """A with-body that raises waits for its calls all the same; the error passes through."""
    futures = []

    def body() -> None:
        with make_executor() as executor:
            futures.extend(executor.submit(calls.nap, 0.01, i) for i in range(5))
            raise LookupError("body")

    with pytest.raises(LookupError, match="body"):
        body()
    assert [future.result(0) for future in futures] == list(range(5))


@pytest.mark.timeout(60)
def test_races_with_submit(make_executor: Make) -> None:
    """While other threads submit, every future that submit returned ends."""
    executor = make_executor()
    executor.submit(calls.identity, 0).result()
    futures = []

    def submit_until_refused() -> None:
        try:
            while True:
                futures.append(executor.submit(calls.identity, 1))
        except RuntimeError:
            pass

    threads = [Thread(target=submit_until_refused) for _ in range(3)]
    for thread in threads:
        thread.start()
    eventually(lambda: len(futures) > 20)
    executor.shutdown()
    for thread in threads:
        thread.join()
    assert not wait(futures, timeout=30).not_done
    assert {future.result() for future in futures} == {1}


def test_dropped_without_shutdown(make_executor: Make, kind: object, gates: Gates) -> None:
    """An executor that nobody refers to any more still finishes its calls."""
    journal = gates.journal()
    executor = kind.make(1)  # type: ignore[attr-defined]
    futures = [executor.submit(calls.note, journal, i) for i in range(5)]
    del executor
    assert [future.result(30) for future in futures] == list(range(5))


@pytest.mark.needs("kills_workers")
@pytest.mark.parametrize("method", ["terminate_workers", "kill_workers"])
def test_workers_can_be_stopped(make_executor: Make, gates: Gates, method: str) -> None:
    """terminate_workers and kill_workers end running calls and the executor at once."""
    started = gates.gate()
    executor = make_executor(1)
    future = executor.submit(calls.hold, started, gates.gate())
    started.wait()
    getattr(executor, method)()
    assert future.exception(30) is not None
    with pytest.raises(RuntimeError):
        executor.submit(calls.identity, 1)


def test_max_workers_below_one(kind: object) -> None:
    """max_workers of 0 or less is a ValueError that says so."""
    for number in (0, -1):
        with pytest.raises(ValueError, match="max_workers must be greater than 0"):
            kind.make(number)  # type: ignore[attr-defined]
