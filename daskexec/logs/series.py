"""Hits over time in the shape that a chart wants: evenly spaced, gaps as zeros.

Role: what the terminal's sparkline and the page's charts have alike. Floor 10, part of the
log job; pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta

__all__ = ["Series", "by_weekday", "evenly", "moment_of", "weekday"]

WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


@dataclass(frozen=True)
class Series:
    """Hits from `first` on, `step` hours to a count."""

    first: datetime
    last: datetime
    step: int
    counts: tuple[int, ...]

    def start_of(self, place: int) -> datetime:
        """When the hours of a count begin."""
        return self.first + timedelta(hours=self.step * place)


def moment_of(hour: str) -> datetime | None:
    """Read ``2015-05-17 10``; ``None`` where there is no such day, as the 31st of February."""
    try:
        return datetime.strptime(hour, "%Y-%m-%d %H")
    except ValueError:
        return None


def evenly(hours: Mapping[str, int], most: int) -> Series | None:
    """Spread hits by hour over at most `most` counts; ``None`` if no day in it exists."""
    hits = [(at, n) for hour, n in hours.items() if (at := moment_of(hour))]
    if not hits:
        return None
    first, last = min(hits)[0], max(hits)[0]
    number = _hours(last - first) + 1
    step = -(-number // most)
    counts = [0] * -(-number // step)
    for at, count in hits:
        counts[_hours(at - first) // step] += count
    return Series(first, last, step, tuple(counts))


def by_weekday(hours: Mapping[str, int]) -> list[list[int]]:
    """Add up hits by weekday (Monday first) and hour of the day: 7 rows of 24."""
    grid = [[0] * 24 for _ in range(7)]
    for hour, count in hours.items():
        if at := moment_of(hour):
            grid[at.weekday()][at.hour] += count
    return grid


def weekday(day: str) -> str:
    """Three letters for ``2015-05-17``, in English whatever the locale."""
    try:
        return WEEKDAYS[date.fromisoformat(day).weekday()]
    except ValueError:
        return "???"


def _hours(span: timedelta) -> int:
    return span // timedelta(hours=1)
