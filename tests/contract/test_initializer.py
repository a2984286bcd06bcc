"""initializer: runs on each worker before its first call; one that fails breaks the executor."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor

import pytest
from daskexec_testing import calls
from daskexec_testing.gates import Gates, eventually

pytestmark = [pytest.mark.needs("initializer"), pytest.mark.timeout(60)]

Make = Callable[..., Executor]


@pytest.mark.needs("initializer", "processes")
def test_before_the_first_call(make_executor: Make) -> None:
    """Every call finds its worker initialized, once, with initargs."""
    executor = make_executor(2, initializer=calls.initialize, initargs=("a", 1))
    assert list(executor.map(calls.initialized, range(20))) == [["a", 1]] * 20


def test_on_each_worker(make_executor: Make, gates: Gates) -> None:
    """The initializer runs once on each of the workers."""
    journal = gates.journal()
    started, release = [gates.gate(), gates.gate()], gates.gate()
    executor = make_executor(2, initializer=calls.initialize_and_note, initargs=(journal,))
    futures = [executor.submit(calls.hold, gate, release) for gate in started]
    for gate in started:  # both workers are at work, so both are initialized
        gate.wait()
    release.open()
    for future in futures:
        future.result()
    assert len(journal.lines()) == 2
    assert len(set(journal.lines())) == 2


def test_not_callable(kind: object) -> None:
    """An initializer that cannot be called is a TypeError at once."""
    with pytest.raises(TypeError, match="initializer must be a callable"):
        kind.make(1, initializer="no function")  # type: ignore[attr-defined]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_failing_one_breaks_the_executor(make_executor: Make) -> None:
    """Pending calls fail with BrokenExecutor, and so does each later submit."""
    executor = make_executor(2, initializer=calls.failing_initializer)
    futures = []
    try:
        for i in range(5):
            futures.append(executor.submit(calls.identity, i))  # noqa: PERF401
    except BrokenExecutor:
        pass  # broken before all were submitted: as good
    for future in futures:
        with pytest.raises(BrokenExecutor):
            future.result(30)

    def refuses() -> bool:
        try:
            executor.submit(calls.identity, 1)
        except BrokenExecutor:
            return True
        return False

    eventually(refuses, "submit raises BrokenExecutor")


@pytest.mark.needs("initializer", "logs_initializer")
def test_failing_one_is_logged(make_executor: Make, caplog: pytest.LogCaptureFixture) -> None:
    """What the initializer raised is logged to concurrent.futures as critical."""
    with caplog.at_level(logging.CRITICAL, "concurrent.futures"):
        executor = make_executor(1, initializer=calls.failing_initializer)
        with contextlib.suppress(BrokenExecutor):
            executor.submit(calls.identity, 1).exception(30)
        eventually(lambda: "ValueError: error in initializer" in caplog.text)
    assert "Exception in initializer:" in caplog.text
