"""Done-callbacks: each is called once, with its future, and none harms another."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Executor, Future, ThreadPoolExecutor

import pytest
from daskexec_testing import calls
from daskexec_testing.gates import Gates

LIMIT = 30


def test_called_with_the_future(executor: Executor, gates: Gates) -> None:
    """A callback is called once, with its done future, in this process."""
    release = gates.gate()
    called = threading.Event()
    seen: list[tuple[Future[int], bool]] = []

    def callback(future: Future[int]) -> None:
        seen.append((future, future.done()))
        called.set()

    future = executor.submit(calls.wait_for, release, 4)
    future.add_done_callback(callback)
    assert not seen
    release.open()
    assert called.wait(LIMIT)
    assert seen == [(future, True)]
    assert future.result() == 4


def test_order(executor: Executor, gates: Gates) -> None:
    """Callbacks of one future are called in the order they were added."""
    release = gates.gate()
    called = threading.Event()
    order: list[int] = []
    future = executor.submit(calls.wait_for, release)
    for i in range(5):
        future.add_done_callback(lambda _, i=i: order.append(i))
    future.add_done_callback(lambda _: called.set())
    release.open()
    assert called.wait(LIMIT)
    assert order == [0, 1, 2, 3, 4]


def test_on_a_done_future(executor: Executor) -> None:
    """A callback added to a done future is called at once, by the thread that adds it."""
    future = executor.submit(calls.identity, 1)
    future.result()
    callers: list[threading.Thread] = []
    future.add_done_callback(lambda _: callers.append(threading.current_thread()))
    assert callers == [threading.current_thread()]


def test_on_failure_and_cancellation(single: Executor, gates: Gates) -> None:
    """Callbacks are called for failed and for cancelled futures too."""
    started, release = gates.gate(), gates.gate()
    single.submit(calls.hold, started, release)
    started.wait()
    failing = single.submit(calls.fail)
    others = [single.submit(calls.identity, i) for i in range(10)]
    called = {name: threading.Event() for name in ("failed", "cancelled")}
    failing.add_done_callback(lambda _: called["failed"].set())
    others[-1].add_done_callback(lambda _: called["cancelled"].set())
    assert others[-1].cancel()
    assert called["cancelled"].is_set()
    release.open()
    assert called["failed"].wait(LIMIT)


def test_exception_is_logged(
    executor: Executor, gates: Gates, caplog: pytest.LogCaptureFixture
) -> None:
    """A callback that raises is logged; the later ones and other futures go on."""
    release = gates.gate()
    called = threading.Event()

    def broken(_: Future[object]) -> None:
        raise LookupError("a broken callback")

    future = executor.submit(calls.wait_for, release, 1)
    future.add_done_callback(broken)
    future.add_done_callback(lambda _: called.set())
    with caplog.at_level(logging.ERROR, "concurrent.futures"):
        release.open()
        assert called.wait(LIMIT)
    assert "a broken callback" in caplog.text
    assert executor.submit(calls.identity, 2).result(LIMIT) == 2


@pytest.mark.deviates(
    threads="a BaseException in a callback ends the pool's thread; later calls wait for ever",
    processes="a BaseException in a callback ends the pool's manager; later futures never end",
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.leaves("the deviating pools lose their thread")
@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
@pytest.mark.timeout(40)
def test_base_exception_ends_nothing(
    single: Executor, gates: Gates, error: type[BaseException]
) -> None:
    """SystemExit in a callback does not stop the executor."""
    release = gates.gate()

    def leave(_: Future[object]) -> None:
        raise error("from a callback")

    future = single.submit(calls.wait_for, release, 1)
    future.add_done_callback(leave)
    release.open()
    assert future.result(LIMIT) == 1
    assert [single.submit(calls.identity, i).result(5) for i in range(3)] == [0, 1, 2]


def test_callback_that_submits(executor: Executor, gates: Gates) -> None:
    """A callback may submit to the same executor."""
    release = gates.gate()
    ended = threading.Event()
    results: list[int] = []

    def keep(future: Future[int]) -> None:
        results.append(future.result())
        ended.set()

    def go_on(future: Future[int]) -> None:
        executor.submit(calls.add, future.result(), 1).add_done_callback(keep)

    future = executor.submit(calls.wait_for, release, 1)
    future.add_done_callback(go_on)
    release.open()
    assert ended.wait(LIMIT)
    assert results == [2]


@pytest.mark.deviates(processes="a blocking callback blocks the pool's only manager thread")
@pytest.mark.leaves("the deviating pool's manager is stuck until the limit")
def test_callback_that_waits(executor: Executor, gates: Gates) -> None:
    """A callback may wait for another call of the same executor."""
    release = gates.gate()
    ended = threading.Event()
    results: list[int] = []

    def wait_inside(_: Future[object]) -> None:
        try:
            results.append(executor.submit(calls.identity, 7).result(3))
        finally:
            ended.set()

    future = executor.submit(calls.wait_for, release)
    future.add_done_callback(wait_inside)
    release.open()
    assert ended.wait(LIMIT)
    assert results == [7]


def test_slow_callback_holds_nobody_else_up(executor: Executor, gates: Gates) -> None:
    """While a callback blocks, executors of other kinds, and result(), go on."""
    release = gates.gate()
    entered, leave = threading.Event(), threading.Event()

    def slow(_: Future[object]) -> None:
        entered.set()
        leave.wait(LIMIT)

    future = executor.submit(calls.wait_for, release, 1)
    future.add_done_callback(slow)
    release.open()
    try:
        assert entered.wait(LIMIT)
        assert future.result(0) == 1
        with ThreadPoolExecutor(1) as other:
            assert other.submit(calls.identity, 2).result(5) == 2
    finally:
        leave.set()


@pytest.mark.deviates(processes="a slow callback holds up the pool's only manager thread")
def test_slow_callback_holds_no_other_future_up(executor: Executor, gates: Gates) -> None:
    """While a callback blocks, other futures of the same executor still get their results."""
    release = gates.gate()
    entered, leave = threading.Event(), threading.Event()

    def slow(_: Future[object]) -> None:
        entered.set()
        leave.wait(LIMIT)

    future = executor.submit(calls.wait_for, release, 1)
    future.add_done_callback(slow)
    release.open()
    try:
        assert entered.wait(LIMIT)
        assert executor.submit(calls.identity, 2).result(3) == 2
    finally:
        leave.set()
