"""Charts as numbers: where each bar, tick and label of a drawing goes.

Role: the geometry of the page's charts; `assets/page.html` draws it as SVG. Floor 10, part
of the log job; pure. Lengths are in pixels of a wide screen; the page scales them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from daskexec.logs.series import WEEKDAYS, Series, by_weekday, evenly, weekday

__all__ = ["Bar", "Cell", "Chart", "Grid", "days_chart", "hours_chart", "week_grid"]

WIDTH = 1180
HALF = 560  # of two charts side by side
HEIGHT = 230
_LEFT, _BOTTOM, _TOP = 58, 26, 10
_MOST_BARS = 336
_MOST_DAYS = 62


@dataclass(frozen=True)
class Bar:
    """One bar, and what it stands for."""

    x: float
    y: float
    width: float
    height: float
    label: str
    value: int


@dataclass(frozen=True)
class Chart:
    """A bar chart. `ticks` are heights with numbers, `marks` places below with words."""

    caption: str
    bars: tuple[Bar, ...]
    ticks: tuple[tuple[float, str], ...]
    marks: tuple[tuple[float, str], ...]
    width: int
    left: int = _LEFT
    height: int = HEIGHT
    floor: int = HEIGHT - _BOTTOM


@dataclass(frozen=True)
class Cell:
    """One cell of a grid; `level` from 0 (nothing) to 5 (the most)."""

    x: float
    y: float
    level: int
    label: str
    value: int


@dataclass(frozen=True)
class Grid:
    """Hits by weekday and hour."""

    cells: tuple[Cell, ...]
    rows: tuple[tuple[float, str], ...]
    columns: tuple[tuple[float, str], ...]
    cell_width: float
    cell_height: float
    table: tuple[tuple[str, tuple[int, ...]], ...]
    width: int = HALF
    height: int = HEIGHT


def hours_chart(hours: Mapping[str, int]) -> Chart | None:
    """Draw hits an hour, several hours to a bar where there are many."""
    series = evenly(hours, _MOST_BARS)
    if series is None:
        return None
    labels = [f"{series.start_of(i):%Y-%m-%d %H}h" for i in range(len(series.counts))]
    per = "an hour" if series.step == 1 else f"in {series.step:,} hours"
    return _chart(f"Hits {per}", labels, series.counts, _day_marks(series), WIDTH)


def days_chart(days: Mapping[str, int]) -> Chart | None:
    """Draw hits a day, the last ones if they are many."""
    if not days:
        return None
    shown = list(days.items())[-_MOST_DAYS:]
    every = -(-len(shown) // 8)
    marks = [
        (i + 0.5, f"{weekday(day)} {day[8:]}" if len(shown) <= 8 else day[5:])
        for i, (day, _) in enumerate(shown)
        if i % every == 0
    ]
    last = "" if len(shown) == len(days) else f", the last {len(shown)} of {len(days):,}"
    labels = [f"{weekday(day)} {day}" for day, _ in shown]
    return _chart(f"Hits a day{last}", labels, [n for _, n in shown], marks, HALF)


def week_grid(hours: Mapping[str, int]) -> Grid | None:
    """Draw hits by weekday and hour of the day."""
    rows = by_weekday(hours)
    most = max(map(max, rows))
    if not most:
        return None
    across, down = (HALF - _LEFT) / 24, (HEIGHT - _BOTTOM) / 7
    cells = tuple(
        Cell(
            round(_LEFT + hour * across, 2),
            round(day * down, 2),
            -(-5 * count // most),
            f"{WEEKDAYS[day]} {hour:02}h",
            count,
        )
        for day, counts in enumerate(rows)
        for hour, count in enumerate(counts)
    )
    return Grid(
        cells,
        tuple((round((i + 0.5) * down, 2), name) for i, name in enumerate(WEEKDAYS)),
        tuple((round(_LEFT + (h + 0.5) * across, 2), f"{h:02}") for h in range(0, 24, 3)),
        round(across - 3, 2),
        round(down - 3, 2),
        tuple((name, tuple(counts)) for name, counts in zip(WEEKDAYS, rows, strict=True)),
    )


def _chart(
    caption: str,
    labels: Sequence[str],
    counts: Sequence[int],
    marks: Sequence[tuple[float, str]],
    width: int,
) -> Chart:
    step = _step(max(counts))
    top = step * -(-max(counts) // step)
    room, tall = width - _LEFT, HEIGHT - _BOTTOM - _TOP
    each = room / len(counts)
    gap = min(each * 0.2, 6)
    bars = tuple(
        Bar(
            round(_LEFT + i * each + gap / 2, 2),
            round(_TOP + tall * (1 - count / top), 2),
            round(each - gap, 2),
            round(tall * count / top, 2),
            label,
            count,
        )
        for i, (label, count) in enumerate(zip(labels, counts, strict=True))
    )
    ticks = tuple(
        (round(_TOP + tall * (1 - number / top), 2), _short(number))
        for number in range(0, top + 1, step)
    )
    placed = tuple((round(_LEFT + at * each, 2), text) for at, text in marks)
    return Chart(caption, bars, ticks, placed, width)


def _day_marks(series: Series) -> list[tuple[float, str]]:
    """Name the days (or, over few hours, the hours) at which they begin."""
    starts = [series.start_of(i) for i in range(len(series.counts))]
    if len(starts) <= 48 and series.step == 1:
        every = -(-len(starts) // 12)
        return [(i + 0.5, f"{at:%H}h") for i, at in enumerate(starts) if i % every == 0]
    begins = [
        (float(i), f"{weekday(f'{at:%Y-%m-%d}')} {at:%m-%d}")
        for i, at in enumerate(starts)
        if i == 0 or at.date() != starts[i - 1].date()
    ]
    every = -(-len(begins) // 9)
    return begins[::every]


def _step(most: int) -> int:
    """Return what lies between two ticks: 1, 2 or 5 times a power of ten, most / 5 or more."""
    power = 1
    while True:
        for step in (power, 2 * power, 5 * power):
            if 5 * step >= most:
                return step
        power *= 10


def _short(number: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:g}{unit}"
    return f"{number:g}"
