"""Nested use: a call may use the executor that runs it, with no thought of deadlock."""

from __future__ import annotations

from concurrent.futures import Executor

import pytest
from daskexec_testing import calls

pytestmark = [pytest.mark.needs("nests"), pytest.mark.timeout(90)]


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_submit(single: Executor, depth: int) -> None:
    """With one worker, a call can submit and wait, and that call again."""
    assert single.submit(calls.submit_inside, single, depth).result(60) == depth


def test_map(single: Executor) -> None:
    """With one worker, a call can map."""
    assert single.submit(calls.map_inside, single, [1, 2, 3]).result(60) == [1, 2, 3]


def test_many_at_once(executor: Executor) -> None:
    """More nesting calls than workers all finish."""
    futures = [executor.submit(calls.submit_inside, executor, 2) for _ in range(6)]
    assert [future.result(60) for future in futures] == [2] * 6
