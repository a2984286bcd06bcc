"""The policy of how much is with the scheduler, without clock or threads."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from daskexec._batching import BatchPolicy

seconds = st.floats(min_value=0, max_value=1e6)


def test_something_is_sent_without_workers() -> None:
    """An adaptive cluster at zero must see that there is work."""
    assert BatchPolicy().window(0) == 2


def test_unknown_calls_have_one_spare_a_thread() -> None:
    """Before any run time is known, a thread has a running and a spare call."""
    assert BatchPolicy().window(10) == 20


def test_short_calls_fill_the_time_ahead() -> None:
    """Calls of 10 ms: half a second of them for each thread."""
    policy = BatchPolicy(ahead=0.5, deepest=64)
    policy.observe(0.01)
    assert policy.window(1) == 51


def test_mean_follows_the_newest() -> None:
    """The mean moves towards run times that last."""
    policy = BatchPolicy()
    policy.observe(1.0)
    for _ in range(100):
        policy.observe(0.001)
    assert policy.mean_seconds is not None
    assert policy.mean_seconds < 0.01


@given(st.lists(seconds, max_size=20), st.integers(0, 10_000))
def test_bounds(times: list[float], threads: int) -> None:
    """Whatever the run times: two a thread at least, `deepest` at most."""
    policy = BatchPolicy(deepest=64)
    for time in times:
        policy.observe(time)
    assert 2 * max(threads, 1) <= policy.window(threads) <= 64 * max(threads, 1)


@given(seconds, st.integers(0, 1000), st.integers(1, 50))
def test_limit_holds(time: float, threads: int, limit: int) -> None:
    """``max_workers`` on a shared cluster is never exceeded."""
    policy = BatchPolicy(limit=limit)
    policy.observe(time)
    assert 1 <= policy.window(threads) <= limit
