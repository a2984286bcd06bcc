"""Times of calls, by clocks that are not all ours."""

from __future__ import annotations

import pytest

from daskexec._records import Record, Where, info_of


def a_record(began: float, seconds: float, **more: object) -> Record:
    """A task that was sent at 1000 and was here again at 1010."""
    return Record(Where("w"), began=began, seconds=seconds, sent=1000.0, received=1010.0, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("began", "seconds", "times"),
    [
        (1003.0, 4.0, (1003.0, 1007.0)),  # as it was told
        (400.0, 4.0, (1000.0, 1004.0)),  # its clock is behind
        (2000.0, 4.0, (1006.0, 1010.0)),  # it is ahead
        (2000.0, 40.0, (1000.0, 1010.0)),  # ours was set meanwhile
    ],
)
def test_clocks_of_workers(began: float, seconds: float, times: tuple[float, float]) -> None:
    """Start and end lie between sending and receiving, whatever the worker's clock says."""
    record = a_record(began, seconds)
    assert record.times(0) == (*times, seconds)
    info = info_of("f", "f-1", 0, 999.0, record, False)
    assert info.submitted is not None
    assert info.started is not None
    assert info.finished is not None
    assert info.submitted <= info.started <= info.finished
    assert info.seconds == seconds


def test_measured_and_mean() -> None:
    """Calls of several functions were measured each; others know their mean."""
    record = a_record(1001.0, 6.0, count=3, shared=3, each=([7, 8, 9], [1.0, 2.0, 3.0]))
    assert record.times(8) == (1002.0, 1004.0, 2.0)
    assert a_record(1001.0, 6.0, count=3, shared=3).times(8) == (1001.0, 1007.0, 2.0)


def test_earlier_attempts() -> None:
    """A record for a call that was begun before is its own."""
    record = a_record(1001.0, 1.0, attempts=1)
    assert record.after(2).attempts == 3
    assert (record.attempts, record.after(2).began) == (1, 1001.0)
