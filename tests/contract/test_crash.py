"""Crashes: a worker that dies fails its call, and no future waits for ever."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor

import pytest
from daskexec_testing import calls
from daskexec_testing.gates import Gates

pytestmark = [pytest.mark.needs("detects_crash"), pytest.mark.timeout(90)]

Make = Callable[..., Executor]
KILLERS = [calls.exit_hard, calls.kill_self, calls.segfault]
LIMIT = 30


@pytest.mark.parametrize("killer", KILLERS)
def test_fails_with_broken_executor(make_executor: Make, killer: Callable[..., object]) -> None:
    """A call that kills its worker fails with BrokenExecutor."""
    with pytest.raises(BrokenExecutor):
        make_executor(1).submit(killer).result(LIMIT)


@pytest.mark.needs("isolates_crash")
@pytest.mark.parametrize("killer", KILLERS)
def test_killer_runs_once(executor: Executor, gates: Gates, killer: Callable[..., object]) -> None:
    """A call that kills its worker is not tried again."""
    journal = gates.journal()
    with pytest.raises(BrokenExecutor):
        executor.submit(killer, journal).result(LIMIT)
    assert executor.submit(calls.identity, 1).result(LIMIT) == 1
    assert len(journal.lines()) == 1


@pytest.mark.needs("isolates_crash")
def test_others_finish(executor: Executor) -> None:
    """Calls before, beside and after the killer finish, and the executor goes on."""
    before = [executor.submit(calls.nap, 0.005, i) for i in range(20)]
    killer = executor.submit(calls.exit_hard)
    after = [executor.submit(calls.nap, 0.005, i) for i in range(20)]
    with pytest.raises(BrokenExecutor):
        killer.result(LIMIT)
    assert [future.result(LIMIT) for future in [*before, *after]] == [*range(20)] * 2
    assert executor.submit(calls.identity, 1).result(LIMIT) == 1


@pytest.mark.needs("isolates_crash")
def test_one_killer_among_many_short_calls(executor: Executor, gates: Gates) -> None:
    """Among hundreds of quick calls of the same function only the killer fails."""
    journal = gates.journal()
    codes = [None] * 200 + [5] + [None] * 200
    futures = [executor.submit(calls.exit_if, code, journal) for code in codes]
    errors = [future.exception(LIMIT) for future in futures]
    assert [i for i, error in enumerate(errors) if error is not None] == [200]
    assert isinstance(errors[200], BrokenExecutor)
    assert journal.lines() == ["exit_if"]


@pytest.mark.needs("isolates_crash")
def test_error_names_the_function(executor: Executor) -> None:
    """The error of a call that killed its worker names the function."""
    error = executor.submit(calls.exit_hard).exception(LIMIT)
    assert "exit_hard" in str(error)


@pytest.mark.needs("isolates_crash")
def test_finished_calls_are_not_run_again(executor: Executor, gates: Gates) -> None:
    """Calls whose results are here do not run again when their worker dies."""
    journal = gates.journal()
    for future in [executor.submit(calls.note, journal, i) for i in range(20)]:
        future.result()
    with pytest.raises(BrokenExecutor):
        executor.submit(calls.exit_hard).result(LIMIT)
    assert [executor.submit(calls.identity, i).result(LIMIT) for i in range(4)] == [0, 1, 2, 3]
    assert len(journal.lines()) == 20


@pytest.mark.needs("isolates_crash")
def test_in_a_map(executor: Executor) -> None:
    """In a map the killer raises in its turn, after the results before it."""
    results = executor.map(calls.exit_if, [None, None, 5, None])
    assert next(results) is None
    assert next(results) is None
    with pytest.raises(BrokenExecutor):
        next(results)


@pytest.mark.needs("isolates_crash", "initializer")
def test_replacement_is_initialized(make_executor: Make) -> None:
    """The worker that takes a dead one's place is initialized too."""
    executor = make_executor(1, initializer=calls.initialize, initargs=("ready",))
    with pytest.raises(BrokenExecutor):
        executor.submit(calls.exit_hard).result(LIMIT)
    assert executor.submit(calls.initialized).result(LIMIT) == ["ready"]


def test_shutdown_after_a_crash(make_executor: Make) -> None:
    """shutdown returns although a worker died."""
    executor = make_executor(1)
    future = executor.submit(calls.exit_hard)
    executor.shutdown()
    assert isinstance(future.exception(0), BrokenExecutor)
