"""The policy of what goes into a task and into the window, without clock or threads."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskexec._batching import BatchPolicy, Sharing

seconds = st.floats(min_value=0, max_value=1e6)
sizes = st.floats(min_value=0, max_value=1e9)
sharings = st.sampled_from(["auto", "always", "never"])
backlogs = st.integers(1, 10_000_000)
threads = st.integers(0, 10_000)
tasks = st.integers(0, 100_000)


def observed(policy: BatchPolicy, *times: float, sent: float = 0.0, received: float = 0.0) -> Any:
    """A function that took these times, with so many bytes each way."""
    function = policy.known("f")
    for time in times:
        policy.observe(function, time, 1, received)
    policy.packed(function, sent)
    return function


# --- sharing --------------------------------------------------------------------------------


@pytest.mark.parametrize(("sharing", "calls"), [("auto", 1), ("always", 2), ("never", 1)])
def test_unknown_functions(sharing: Sharing, calls: int) -> None:
    """Calls of which nothing is known go alone, or two by two where that is asked for."""
    policy = BatchPolicy(sharing)
    size, rest = policy.share(policy.known("f"), 1000, 4, 0)
    assert size == calls
    assert rest.room(observed(policy, 1e-3)) == 0


@given(seconds, backlogs, threads, tasks)
def test_never_means_never(time: float, backlog: int, workers: int, sent: int) -> None:
    """With "never" each call has a task of its own, and never waits for company."""
    policy = BatchPolicy("never")
    assert policy.share(observed(policy, time), backlog, workers, sent)[0] == 1


@given(sharings, seconds, sizes, sizes, backlogs, threads, tasks)
def test_a_task_has_a_call_at_least(
    sharing: Sharing, time: float, sent: float, got: float, backlog: int, workers: int, there: int
) -> None:
    """Whatever is known, a task has a call, unless the workers have tasks enough already."""
    policy = BatchPolicy(sharing)
    function = observed(policy, time, sent=sent, received=got)
    calls, _ = policy.share(function, backlog, workers, there)
    assert calls >= 1 or there >= 2 * max(workers, 1)


@given(seconds, sizes, sizes, backlogs, threads, tasks)
def test_no_task_is_too_large(
    time: float, sent: float, got: float, backlog: int, workers: int, there: int
) -> None:
    """More than one call only as far as number, seconds, bytes and a fair part allow."""
    policy = BatchPolicy()
    function = observed(policy, time, sent=sent, received=got)
    calls, rest = policy.share(function, backlog, workers, there)
    if calls > 1:
        assert calls <= policy.MOST
        assert calls * time <= policy.seconds(function, backlog, workers) + 1e-6
        assert calls * max(sent, got) <= policy.BYTES * (1 + 1e-9)
        parts = policy.parts(time, backlog, workers)
        if calls * time > policy.SMALLEST * (1 + 1e-9):
            assert calls <= math.ceil(backlog / parts)
        elif calls * time > policy.COST * (1 + 1e-9):
            assert calls <= max(math.ceil(backlog / parts), math.ceil(backlog / max(workers, 1)))
    rest.take(function, calls)
    assert rest.room(function) <= max(0, policy.MOST - calls)


def test_tasks_of_steady_functions_grow() -> None:
    """Up to seconds, with the work seen to take as long as expected; one surprise undoes it."""
    policy = BatchPolicy()
    function = observed(policy, 0.01)
    longest = []
    for _ in range(200):
        longest.append(policy.seconds(function, 1_000_000, 2))
        policy.observe(function, 0.2, 20)
    assert longest == sorted(longest)
    assert longest[0] == policy.long
    assert longest[-1] == policy.longest
    policy.observe(function, 2.0, 20)
    assert policy.seconds(function, 1_000_000, 2) == policy.long


def test_tasks_stay_short_where_a_cluster_may_grow() -> None:
    """Dask counts what it is shown: a few long tasks do not make it grow."""
    policy = BatchPolicy(ahead=6.0)
    function = observed(policy, 0.01)
    for _ in range(100):
        policy.observe(function, 0.2, 20)
    assert policy.seconds(function, 1_000_000, 2) == policy.long


@given(st.floats(1e-6, 1e6), st.integers(1, 10_000_000), st.integers(0, 10_000))
def test_a_fair_part_is_half_a_thread_s(time: float, backlog: int, workers: int) -> None:
    """The backlog is cut in two for each thread, where the scheduler hands out so many in time."""
    policy = BatchPolicy()
    parts = policy.parts(time, backlog, workers)
    two_each = 2 * max(workers, 1)
    assert 1 <= parts <= two_each
    # In the time that it takes to hand out all parts, one of them is done: more are no use.
    if parts < two_each and parts > 1:
        assert parts / policy.RATE == pytest.approx(2 * backlog * time / parts)


@given(st.floats(1e-6, 1.0), backlogs, st.integers(1, 50))
def test_small_clusters_are_cut_two_a_thread(time: float, backlog: int, workers: int) -> None:
    """With work for more than a few milliseconds a thread, the fair part is the plain one."""
    policy = BatchPolicy()
    if backlog * time >= 2 * workers**2 / policy.RATE:
        fair = math.ceil(backlog / (2 * workers))
        worth_it = int(policy.SMALLEST / time)  # no smaller, unless each thread gets a part
        fair = max(fair, min(worth_it, math.ceil(backlog / workers)))
        calls, _ = policy.share(observed(policy, time), backlog, workers, 0)
        assert calls <= max(1, fair)


def test_quick_calls_of_known_functions_share() -> None:
    """On two threads a task of 1 ms calls has 50 ms of work, with much to do 250 ms."""
    policy = BatchPolicy()
    function = observed(policy, 1e-3)
    assert policy.share(function, 500, 2, 0)[0] == 50
    assert policy.share(function, 1_000_000, 2, 0)[0] == 250


def test_a_large_cluster_gets_longer_tasks() -> None:
    """A scheduler that hands out a task a millisecond keeps 4,000 threads busy with 4 s each."""
    policy = BatchPolicy()
    assert policy.share(observed(policy, 1e-3), 1_000_000_000, 4000, 0)[0] == 4000


def test_the_last_small_calls_wait_while_all_are_busy() -> None:
    """Less than a full task waits for more while each thread has two tasks, and not longer."""
    policy = BatchPolicy()
    function = observed(policy, 1e-4)
    assert policy.share(function, 10, 2, 4)[0] == 0
    assert policy.share(function, 10, 2, 3)[0] >= 1
    assert policy.share(function, 10_000_000, 2, 4)[0] >= 1


def test_a_task_has_room_for_other_functions() -> None:
    """What the first function's calls leave of a task is for the next one's."""
    policy = BatchPolicy()
    quick = observed(policy, 1e-3)
    other = policy.known("g")
    policy.observe(other, 2e-3)
    _, share = policy.share(quick, 500, 2, 0)
    share.take(quick, 10)
    assert share.room(other) == 20


# --- what is known --------------------------------------------------------------------------


@pytest.mark.parametrize(("before", "after"), [(1.0, 1e-3), (1e-3, 1.0), (1e-5, 1e-2)])
def test_mean_follows_the_newest(before: float, after: float) -> None:
    """The mean moves to run times that last, up and down."""
    policy = BatchPolicy()
    function = observed(policy, *[before] * 10)
    for _ in range(100):
        policy.observe(function, after)
    assert after / 2 <= function.mean <= after * 2


@given(st.lists(st.tuples(seconds, st.integers(0, 1000)), max_size=20))
def test_mean_is_between_what_was_seen(seen: list[tuple[float, int]]) -> None:
    """The mean lies between the least and the most time that a call took."""
    policy = BatchPolicy()
    function = policy.known("f")
    for took, calls in seen:
        policy.observe(function, took, calls)
    each = [took / calls for took, calls in seen if calls]
    if each:
        assert function.mean is not None
        assert min(each) * 0.999 - 1e-9 <= function.mean <= max(each) * 1.001 + 1e-9
    else:
        assert function.mean is None
    assert function.calls == sum(calls for _, calls in seen)


def test_functions_in_use_are_remembered() -> None:
    """Of more functions than are remembered those go that were not used for longest."""
    policy = BatchPolicy()
    used = policy.known("used")
    for number in range(2 * policy.REMEMBERED):
        policy.known(number)
        assert policy.known("used") is used
    assert len(policy.stats()["functions"]) == policy.REMEMBERED


def test_stats_are_plain() -> None:
    """What the policy tells people has names, counts and means."""
    policy = BatchPolicy()
    function = policy.known("f", "name")
    policy.taken(function, 3)
    policy.observe(function, 0.3, 3, 30.0)
    assert policy.stats() == {
        "sharing": "auto",
        "calls": 3,
        "tasks": 1,
        "functions": [
            {
                "name": "name",
                "calls": 3,
                "tasks": 1,
                "mean_seconds": pytest.approx(0.1),
                "share": 1,
                "argument_bytes": 0,
                "result_bytes": 10,
            }
        ],
    }


def test_a_wrong_word_is_refused() -> None:
    """Sharing is one of three words."""
    with pytest.raises(ValueError, match="sharing"):
        BatchPolicy("sometimes")  # type: ignore[arg-type]


# --- the window -----------------------------------------------------------------------------


def window(policy: BatchPolicy, workers: int, each: float) -> int:
    """How many tasks of so many seconds go to the scheduler, if none comes back."""
    sent = 0
    while policy.is_open(workers, sent, sent * each):
        sent += 1
    return sent


def test_something_is_sent_without_workers() -> None:
    """An adaptive cluster at zero must see that there is work."""
    assert window(BatchPolicy(), 0, 1e6) == 2


def test_unknown_calls_have_one_spare_a_thread() -> None:
    """Before any run time is known, a thread has a running and a spare call."""
    policy = BatchPolicy()
    assert window(policy, 10, policy.taken(policy.known("f"), 1)) == 20


def test_short_tasks_fill_the_time_ahead() -> None:
    """Tasks of 10 ms: half a second of them for each thread."""
    assert window(BatchPolicy(ahead=0.5), 2, 0.01) == 100


def test_a_cluster_that_may_grow_is_shown_more() -> None:
    """With few threads, but reason to expect more, the window is one for 16 threads."""
    assert window(BatchPolicy(ahead=6.0), 0, 1.0) == 96
    assert window(BatchPolicy(ahead=6.0), 1, 1.0) == 96
    assert window(BatchPolicy(ahead=6.0), 100, 1.0) == 600


@given(threads, st.floats(0, 100), st.floats(0.1, 20))
def test_bounds(workers: int, each: float, ahead: float) -> None:
    """Two tasks a thread at least, and at most what is to be ahead, and can be started in time."""
    policy = BatchPolicy(ahead=ahead)
    least = 2 * max(workers, 1)
    for sent in (0, 1, least - 1):
        assert policy.is_open(workers, sent, sent * each)
    shown = max(workers, policy.GROWING_THREADS if ahead > policy.GROWING else 1)
    assert not policy.is_open(workers, max(least, math.ceil(policy.RATE * ahead)), 0.0)
    assert not policy.is_open(workers, max(least, policy.DEEPEST * shown), 0.0)
    assert not policy.is_open(workers, least, ahead * shown)


@given(seconds, threads, st.integers(1, 50))
def test_limit_holds(each: float, workers: int, limit: int) -> None:
    """``max_workers`` on a shared cluster is never exceeded, and the window never shut."""
    policy = BatchPolicy(limit=limit)
    assert 1 <= window(policy, workers, each) <= limit


# --- when a worker is to give up ------------------------------------------------------------


@given(seconds)
def test_patience(time: float) -> None:
    """A call is slow at several times what it usually takes, never below a tenth of a second."""
    policy = BatchPolicy()
    function = policy.known("f")
    assert policy.slow_after(function) == policy.SLOW
    policy.observe(function, time)
    assert policy.slow_after(function) >= max(policy.SLOW, 2 * time)
    assert policy.stop_after(time) >= max(policy.target, 2 * time)
