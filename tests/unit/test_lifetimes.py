"""Where calls go when workers end at a known time; the clock is the test's."""

from __future__ import annotations

import pytest

from daskexec._lifetimes import SLACK, Lifetimes, cut_too_often, fits, usable


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def lifetimes(clock: Clock | None = None, **left: float | None) -> Lifetimes:
    """Workers of a lifetime of an hour, by the seconds left to each; None: without end."""
    known = Lifetimes(clock or Clock())
    known.learn({name: None if each is None else (each, 3600.0) for name, each in left.items()})
    return known


def test_nothing_is_said_of_workers_without_end() -> None:
    """Without lifetimes a call goes anywhere, however long it takes."""
    assert lifetimes().where(1e9) is None
    assert lifetimes(a=None, b=None).where(1e9) is None


def test_nothing_is_said_where_all_have_time() -> None:
    """A call that fits everywhere, or of which nothing is known, goes anywhere."""
    known = lifetimes(a=100, b=2000)
    assert known.where(60) is None
    assert known.where(0) is None


def test_a_call_goes_where_it_fits() -> None:
    """Workers that end too soon for it are left out, those without end are in."""
    where = lifetimes(a=100, b=2000, c=None).where(600)
    assert where is not None
    assert set(where.workers) == {"b", "c"}
    assert not where.forced
    assert not where.strict


def test_time_goes_by() -> None:
    """What fitted a while ago does not fit any more."""
    clock = Clock()
    known = lifetimes(clock, a=1000, b=3000)
    assert known.where(600) is None
    clock.now += 500
    where = known.where(600)
    assert where is not None
    assert where.workers == ("b",)


def test_a_call_waits_for_a_worker_that_is_to_come() -> None:
    """It is held when no worker has time for it now and a fresh one would have."""
    where = lifetimes(a=100, b=200).where(600)
    assert where is not None
    assert where.workers == ()
    assert where.strict
    assert where.most == 200


def test_a_call_that_fits_nowhere_runs_where_most_time_is_left() -> None:
    """If no lifetime is long enough, waiting for another worker is of no use."""
    where = lifetimes(a=100, b=3000).where(5000)
    assert where is not None
    assert where.workers == ("b",)
    assert where.forced


def test_a_call_that_was_cut_off_gets_all_that_a_worker_can_give() -> None:
    """It is not begun again where it would be cut off again for sure, but on a fresh worker."""
    held = lifetimes(a=100, b=3000).where(5000, was_cut=True)
    assert held is not None
    assert held.workers == ()
    where = lifetimes(a=100, b=3590).where(5000, was_cut=True)
    assert where is not None
    assert where.workers == ("b",)
    assert where.forced


def test_a_call_does_not_wait_for_ever() -> None:
    """After some workers have come that did not help it takes what there is."""
    where = lifetimes(a=100, b=200).where(600, holds=5)
    assert where is not None
    assert where.workers == ("b",)
    assert where.forced


def test_nobody_is_forced_onto_a_worker_that_is_over() -> None:
    """A worker without any time left is given nothing."""
    where = lifetimes(a=-0.5).where(5000)
    assert where is not None
    assert where.workers == ()


def test_workers_that_are_gone_are_forgotten() -> None:
    """Their lifetimes say nothing of those to come."""
    known = lifetimes(a=100, b=3000)
    known.keep({"a"})
    where = known.where(600)
    assert where is not None
    assert where.workers == ()
    known.keep(())
    assert known.where(600) is None


@pytest.mark.parametrize("lifetime", [6.0, 60.0, 86_400.0])
def test_what_a_fresh_worker_can_give_fits_it(lifetime: float) -> None:
    """A call may need up to `usable` and is then taken by a worker that has just come."""
    assert fits(usable(lifetime), lifetime - SLACK - 0.05 * min(lifetime, 100), lifetime)
    assert not fits(lifetime, lifetime - SLACK, lifetime)


def test_room_is_left_where_it_can_be_had() -> None:
    """A call that would end just before its worker waits for one with more time."""
    assert not fits(600, 610, 3600)
    assert fits(600, 700, 3600)


def test_cut_off_too_often() -> None:
    """Twice after a whole lifetime, or several times after less, and a call fails."""
    assert not cut_too_often([(3590, 3600)])
    assert cut_too_often([(3590, 3600), (3590, 3600)])
    assert not cut_too_often([(60, 3600)] * 4)
    assert cut_too_often([(60, 3600)] * 5)
