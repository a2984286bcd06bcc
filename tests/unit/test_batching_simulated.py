"""What the policy makes of whole backlogs, on simulated clusters: see `simulation`.

The bounds follow from the model's costs: a task costs its worker 3 ms, the scheduler 0.6 ms, and
the client 0.3 ms and 2 us for each call; a message takes 7.5 ms. They hold with some margin, so
that a better policy need not change them, and a worse one is seen.
"""

from __future__ import annotations

import random

import pytest
from daskexec_testing.simulation import Costs, Scaling, Simulation, functions

from daskexec._batching import BatchPolicy

COSTS = Costs()
ROUND_TRIP = 2 * COSTS.latency + COSTS.worker
ABS, *_ = functions(1)


def mapped(seconds: list[float], workers: int, threads: int = 1, **policy: object) -> Simulation:
    simulation = Simulation(BatchPolicy(**policy), workers, threads)  # type: ignore[arg-type]
    simulation.map(seconds, ABS)
    return simulation.run()


def at(ordered: list[float], share: float) -> float:
    """The value that so great a share of the sorted values does not exceed."""
    return ordered[int(share * (len(ordered) - 1))]


# --- throughput -----------------------------------------------------------------------------


def test_tiny_calls() -> None:
    """100,000 calls of 10 us on two workers: 0.5 s of work each, and hardly more time."""
    simulation = mapped([1e-5] * 100_000, 2)
    # A round trip to know the function, another with the first large task, 3 ms a task.
    assert simulation.tasks < 50
    assert simulation.makespan < 0.5 + 2 * ROUND_TRIP + 0.03 + 50 / 2 * COSTS.worker


@pytest.mark.parametrize("workers", [2, 16])
@pytest.mark.parametrize("each", [1e-3, 1e-2, 0.1])
def test_long_backlogs_are_efficient(each: float, workers: int) -> None:
    """With 10 s of work a thread, threads spend 95 % of the time in calls; costs show in tasks."""
    simulation = mapped([each] * round(10 * workers / each), workers)
    assert simulation.efficiency > 0.95


@pytest.mark.parametrize("sharing", ["auto", "always"])
def test_short_backlogs_are_efficient(sharing: str) -> None:
    """With half a second of work a thread, round trips and the small last tasks cost a fifth."""
    assert mapped([1e-3] * 1000, 2, sharing=sharing).efficiency > 0.8


def test_workers_with_threads() -> None:
    """Workers of several threads are filled as well as those of one."""
    assert mapped([1e-3] * 80_000, 2, threads=4).efficiency > 0.95


def test_without_sharing_each_call_costs_a_task() -> None:
    """With "never" the tasks are as many as the calls, and the scheduler never holds more of
    them than it can start in the time ahead."""
    simulation = mapped([1e-3] * 5000, 100, sharing="never")
    assert simulation.tasks == 5000
    assert simulation.most_sent <= 500


@pytest.mark.parametrize("ahead", [0.5, 6.0])
def test_four_thousand_threads_and_short_calls(ahead: float) -> None:
    """A million calls of 1 ms: 3 s, of which the client needs 2 s to send them.

    So short a backlog, 250 ms a thread, is bound by how fast tasks are handed out. In tasks of
    half of that the scheduler alone would need 5 s, and in tasks of one call ten minutes.
    """
    simulation = mapped([1e-3] * 1_000_000, 4000, ahead=ahead)
    assert simulation.makespan < 4.0
    assert simulation.tasks < 4000


def test_four_thousand_threads_and_long_calls() -> None:
    """Ten seconds of work a thread in calls of 1 s keep 4,000 threads busy 80 % of the time."""
    simulation = mapped([1.0] * 40_000, 4000)
    assert simulation.efficiency > 0.8
    assert simulation.most_sent <= 2 * 4000


def test_two_hundred_threads() -> None:
    """Three seconds of work a thread in calls of 1 ms: near to the scheduler's limit, at 85 %."""
    assert mapped([1e-3] * 600_000, 200).efficiency > 0.85


# --- unlike calls ---------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [8, 64])
def test_skewed_run_times(workers: int) -> None:
    """Lognormal run times, 1 ms in the middle and half a second at most: no call comes late.

    A call waits for the tasks before it, of 0.25 s, and may be handed back after 0.2 s.
    """
    draw = random.Random(workers)
    simulation = mapped([draw.lognormvariate(-6.9, 1.5) for _ in range(50_000)], workers)
    assert simulation.makespan < 1.05 * max(simulation.ideal()) + 0.3
    lateness = simulation.lateness(lambda seconds: seconds < 0.01)
    assert at(lateness, 0.99) < 1.5
    assert lateness[-1] < 3.0


@pytest.mark.parametrize("how", ["map", "submit"])
def test_quick_calls_get_past_slow_ones(how: str) -> None:
    """99 % of 0.1 ms, 1 % of 1 s, and threads enough: quick calls do not wait for slow ones.

    A call behind a slow one is moved after 0.1 s to 0.15 s and two messages, and may then
    come to be behind another one.
    """
    draw = random.Random(1)
    seconds = [1.0 if draw.random() < 0.01 else 1e-4 for _ in range(2000)]
    simulation = Simulation(BatchPolicy(), 64)
    if how == "map":
        simulation.map(seconds, ABS)
    else:
        simulation.submit(seconds, [ABS])
    simulation.run()
    lateness = simulation.lateness(lambda took: took < 0.01)
    assert at(lateness, 0.5) < 0.25
    assert at(lateness, 0.99) < 0.75
    assert lateness[-1] < 1.5
    assert simulation.makespan < 2.0


@pytest.mark.parametrize("seed", range(3))
def test_nobody_starves_when_all_are_slow(seed: int) -> None:
    """99 % of 0.1 ms, 1 % of 1 s, and all threads in slow calls all the time.

    A quick call that is moved waits for a thread each time, but ahead of all that came after
    it: it comes a few slow calls late, not when all is over. The whole takes hardly longer.
    """
    draw = random.Random(seed)
    simulation = mapped([1.0 if draw.random() < 0.01 else 1e-4 for _ in range(20_000)], 8)
    ideal = max(simulation.ideal())
    assert ideal > 20
    assert simulation.makespan < 1.1 * ideal
    lateness = simulation.lateness(lambda took: took < 0.01)
    assert at(lateness, 0.9) < 3.0
    assert lateness[-1] < 6.0


def test_a_function_that_becomes_slow_and_quick_again() -> None:
    """After 2 s of quick calls come 4 s of slow ones, and quick ones again: none is lost in
    tasks cut for the other kind."""
    seconds = [1e-4] * 20_000 + [2e-2] * 200 + [1e-4] * 20_000
    simulation = mapped(seconds, 4)
    assert simulation.efficiency > 0.85
    assert simulation.lateness()[-1] < 1.5


def test_a_slow_first_call() -> None:
    """A first call that imports for 2 s is not taken for the rule for long."""
    simulation = mapped([2.0] * 4 + [1e-3] * 8000, 4)
    assert simulation.makespan < 4.0 + 1.0
    assert simulation.tasks < 400


# --- many functions -------------------------------------------------------------------------


def test_many_functions_in_turn() -> None:
    """Fifty functions, mixed: each is unknown once, then its calls share tasks with others."""
    simulation = Simulation(BatchPolicy(), 16)
    simulation.submit([1e-3] * 20_000, functions(50))
    simulation.run()
    assert simulation.efficiency > 0.85
    assert simulation.sizes.count(1) < 150


def test_functions_called_once() -> None:
    """Functions that are all different are not shared: a task each, two a thread with the
    scheduler, as fast as that can hand them out."""
    simulation = Simulation(BatchPolicy(), 16)
    simulation.submit([1e-3] * 3000, functions(3000))
    simulation.run()
    assert simulation.sizes == [1] * 3000
    assert simulation.most_sent == 32
    assert simulation.makespan < 3000 * 2 * COSTS.scheduler * 1.2


# --- limits ---------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 3])
def test_limit_holds_at_every_instant(limit: int) -> None:
    """``max_workers`` of a large shared cluster: never more tasks there, let alone running,
    also when calls are handed back."""
    draw = random.Random(limit)
    seconds = [0.5 if draw.random() < 0.01 else 1e-4 for _ in range(2000)]
    simulation = mapped(seconds, 20, limit=limit, ahead=6.0)
    assert simulation.most_sent == limit
    assert simulation.most_running <= limit


# --- the tail -------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [2, 16])
@pytest.mark.parametrize("each", [1e-3, 1e-2, 0.1])
def test_no_thread_idles_at_the_end(each: float, workers: int) -> None:
    """The last tasks are so small that all threads end at about the same time.

    None is without work for longer than another one needs for two of the last tasks.
    """
    simulation = mapped([each] * round(2 * workers / each), workers)
    assert simulation.spread < 2 * (each + COSTS.worker) + 0.01


# --- clusters that grow ---------------------------------------------------------------------


def test_something_is_sent_to_nobody() -> None:
    """With no worker at all there are tasks on the scheduler: else no cluster would grow."""
    simulation = Simulation(BatchPolicy(ahead=6.0), 0)
    simulation.map([1e-3] * 1000, ABS)
    simulation.run(until=10.0)
    assert 2 <= simulation.most_sent <= 16


@pytest.mark.parametrize(
    ("maximum", "startup", "within"), [(20, 2.0, 10.0), (100, 2.0, 30.0), (20, 30.0, 70.0)]
)
def test_adaptive_clusters_grow_to_the_maximum(
    maximum: int, startup: float, within: float
) -> None:
    """A long backlog of short calls brings all workers: two rounds to 16, then a fifth a round.

    Dask asks for the threads that could do in 5 s what is with the scheduler: `ahead` is 6 s.
    """
    scaling = Scaling(maximum, startup)
    simulation = Simulation(BatchPolicy(ahead=6.0), 0, scaling=scaling)
    simulation.map([5e-3] * 400_000, ABS)
    simulation.run(until=within)
    assert simulation.growth[-1][1] == maximum


def test_adaptive_clusters_grow_for_long_calls() -> None:
    """Of calls longer than what is to be ahead two a thread are seen: the cluster doubles."""
    simulation = Simulation(BatchPolicy(ahead=6.0), 0, scaling=Scaling(50, 2.0))
    simulation.map([20.0] * 1000, ABS)
    simulation.run(until=60.0)
    assert simulation.growth[-1][1] == 50


def test_adaptive_clusters_do_not_grow_for_little() -> None:
    """A backlog of one second does not bring ten workers."""
    simulation = Simulation(BatchPolicy(ahead=6.0), 0, scaling=Scaling(50, 2.0))
    simulation.map([1e-3] * 1000, ABS)
    simulation.run()
    assert len(simulation.workers) <= 3
