"""The report for people: tables, bars and a sparkline, in a terminal or a text file.

Role: `render` writes a `Report` to a rich console. Floor 10, part of the log job; the only
module of it that imports rich. Fits into 80 columns, needs no colour, and falls back to
ASCII where the output cannot carry block characters.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from rich.cells import cell_len, chop_cells
from rich.console import Console, Group, RenderableType
from rich.constrain import Constrain
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from daskexec.logs.keys import show_key
from daskexec.logs.report import Report
from daskexec.logs.series import evenly, weekday
from daskexec.logs.words import TITLES, human_bytes, moment, share, span

__all__ = ["render"]

_KINDS = ("browsers", "systems", "crawlers")
_CLASS_STYLES = {"2xx": "green", "3xx": "cyan", "4xx": "yellow", "5xx": "red"}
_MAX_WIDTH = 120
_MAX_DAYS = 14


@dataclass(frozen=True)
class _Ink:
    """The characters that an output can carry."""

    levels: str  # of a sparkline, from the least to the most
    full: str  # one full cell of a bar
    parts: str  # eighths of a cell, from none on
    more: str
    dot: str
    rule: str

    def text(self, key: bytes) -> str:
        """Write a key with what the output can carry."""
        text = show_key(key)
        return text if self is _BLOCKS else text.encode("ascii", "backslashreplace").decode()


_BLOCKS = _Ink(" ▁▂▃▄▅▆▇█", "█", " ▏▎▍▌▋▊▉", "…", "·", "─")
_ASCII = _Ink(" .:-=+*#%", "#", " ", "~", "-", "-")


def render(report: Report, console: Console) -> None:
    """Write `report` to `console`."""
    ink = _BLOCKS if console.encoding.lower().startswith("utf") else _ASCII
    width = min(console.width, _MAX_WIDTH)
    pieces: list[RenderableType] = [_heading(report, ink), _totals(report, width)]
    if report.requests:
        pieces += [
            _section("Status", _statuses(report, width, ink), ink),
            _section("Hits an hour", _hours(report.hours, width, ink), ink),
            _section("Hits a day", _days(report.days, width, ink), ink),
        ]
    pieces += [
        _section(TITLES[name].text, _top(report, name, width, ink), ink)
        for name, rows in report.top.items()
        if rows and name not in _KINDS
    ]
    if kinds := _kinds(report, width, ink):
        pieces.append(kinds)
    if report.samples:
        pieces.append(_section(*_malformed(report, width, ink), ink))
    pieces += [Text(note, style="yellow") for note in report.notes]
    for piece in pieces:
        console.print(piece, width=width, highlight=False)


def _heading(report: Report, ink: _Ink) -> RenderableType:
    formats = sorted({f.format for f in report.files})
    files = f"{len(report.files)} file{'' if len(report.files) == 1 else 's'}"
    line = Text(f"Access log report {ink.dot} {files}", style="bold")
    if formats:
        line.append(f" {ink.dot} {', '.join(formats)}", style="not bold")
    if report.failed:
        line.append(f" {ink.dot} {len(report.failed)} not counted", style="red")
    if report.partial:
        line.append(f" {ink.dot} partial: interrupted", style="red")
    return line


def _section(
    title: str, body: RenderableType, ink: _Ink, width: int | None = None
) -> RenderableType:
    rule = Rule(Text(title, style="bold"), align="left", style="dim", characters=ink.rule)
    return Group("", rule if width is None else Constrain(rule, width), body)


def _totals(report: Report, width: int) -> RenderableType:
    # Three pairs of label and number a row fit 80 columns with numbers of 12 digits.
    pairs: list[tuple[str, str | Text]] = [
        ("requests", f"{report.requests:,}"),
        ("clients", f"{report.clients:,}"),
        ("lines", f"{report.lines:,}"),
        ("bytes sent", human_bytes(report.bytes_sent)),
        ("visitors", f"{report.visitors:,}"),
        ("malformed", Text(f"{report.malformed:,}", style="red" if report.malformed else "")),
    ]
    each = 3 if width >= 80 else 2 if width >= 54 else 1
    table = Table.grid(padding=(0, 2))
    for _ in range(each):
        table.add_column(style="dim", no_wrap=True)
        table.add_column(justify="right", style="bold", no_wrap=True)
    for start in range(0, len(pairs), each):
        table.add_row(*(cell for pair in pairs[start : start + each] for cell in pair))
    if report.first is None or report.last is None:
        return Group("", table)
    line = Text.assemble(
        ("from  ", "dim"),
        moment(report.first),
        ("  to  ", "dim"),
        moment(report.last),
        (f"  ({span(report)})", "dim"),
    )
    return Group("", table, line)


def _statuses(report: Report, width: int, ink: _Ink) -> RenderableType:
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", no_wrap=True, style="dim")
    table.add_column(no_wrap=True)
    codes_too = width >= 60
    if codes_too:
        table.add_column(no_wrap=True, overflow="ellipsis", style="dim")
    classes = report.status_classes
    most = max(classes.values())
    for name, count in classes.items():
        codes = sorted(
            ((s, n) for s, n in report.statuses.items() if s[0] == name[0]),
            key=lambda item: (-item[1], item[0]),
        )
        told = "  ".join(f"{s} {n:,}" for s, n in codes[:4])
        style = _CLASS_STYLES.get(name, "magenta")
        bar = Text(_bar(count, most, 16 if width >= 40 else 6, ink), style=style)
        part = share(count, report.requests)
        table.add_row(
            Text(name, style=style), f"{count:,}", part, bar, *([told] if codes_too else [])
        )
    return table


def _hours(hours: Mapping[str, int], width: int, ink: _Ink) -> RenderableType:
    """Draw a sparkline over all hours, those without hits too, several to a cell if many."""
    series = evenly(hours, width)
    if series is None:
        return Text("no day in the log exists", style="dim")
    cells = series.counts
    stretch = min(3, max(1, width // len(cells))) if len(cells) < 48 else 1
    line = "".join(_level(cell, max(cells), ink) * stretch for cell in cells)
    busiest = max(hours, key=lambda hour: (hours[hour], hour))
    start, end = f"{series.first:%Y-%m-%d %H}h", f"{series.last:%Y-%m-%d %H}h"
    room = max(len(line), len(start) + len(end) + 2)
    axis = Text(start + end.rjust(room - len(start)), style="dim")
    per = "one cell is an hour" if series.step == 1 else f"one cell is {series.step:,} hours"
    if stretch > 1:
        per = f"{stretch} cells are an hour"
    said = Text(f"busiest hour {busiest}h: {hours[busiest]:,} hits; {per}", style="dim")
    return Group(Text(line, style="cyan", no_wrap=True), axis, said)


def _level(count: int, most: int, ink: _Ink) -> str:
    # Any hit at all is seen: only 0 is blank.
    steps = len(ink.levels) - 1
    return ink.levels[-(-count * steps // most)] if count else ink.levels[0]


def _days(days: Mapping[str, int], width: int, ink: _Ink) -> RenderableType:
    shown = list(days.items())[-_MAX_DAYS:]
    most = max(count for _, count in shown)
    digits = max(len(f"{count:,}") for _, count in shown)
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    for day, count in shown:
        bar = Text(_bar(count, most, width - 18 - digits, ink), style="cyan")
        table.add_row(f"{weekday(day)} {day}", f"{count:,}", bar)
    if len(days) == len(shown):
        return table
    busiest = max(days, key=lambda day: (days[day], day))
    said = f"the last {len(shown)} of {len(days):,} days with hits; busiest {busiest}: "
    return Group(table, Text(f"{said}{days[busiest]:,}", style="dim"))


def _kinds(report: Report, width: int, ink: _Ink) -> RenderableType | None:
    """Browsers, systems and crawlers: beside each other where there is room."""
    names = [name for name in _KINDS if report.top.get(name)]
    if not names:
        return None
    columns = len(names) if width >= 100 else 1
    each = (width - 3 * (columns - 1)) // columns
    tables = [
        _section(TITLES[name].text, _top(report, name, each, ink), ink, each) for name in names
    ]
    if columns == 1:
        return Group(*tables)
    grid = Table.grid(padding=(0, 3, 0, 0))
    for _ in names:
        grid.add_column(width=each)
    grid.add_row(*tables)
    return grid


def _top(report: Report, name: str, width: int, ink: _Ink) -> RenderableType:
    rows = report.top[name]
    sizes = TITLES[name].unit == "bytes"
    whole = report.bytes_sent if sizes else report.requests
    counts = [human_bytes(n) if sizes else f"{n:,}" for _, n in rows]
    shares = [share(n, whole) for _, n in rows]
    bar_width = 16 if width >= 100 else 8 if width >= 50 else 0
    taken = max(map(len, counts)) + max(map(len, shares)) + bar_width + 2 + bool(bar_width)
    table = Table.grid(padding=(0, 1))
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", no_wrap=True, style="dim")
    for _ in range(1 + bool(bar_width)):
        table.add_column(no_wrap=True)
    names = report.host_names if name == "clients" else {}
    for (key, number), count, part in zip(rows, counts, shares, strict=True):
        if key in names:
            key += b"  " + os.fsencode(names[key])
        bar = [Text(_bar(number, rows[0][1], bar_width, ink), style="cyan")] if bar_width else []
        text = Text(_shorten(ink.text(key), max(8, width - taken), ink) or '""')
        table.add_row(count, part, *bar, text)
    return table


def _malformed(report: Report, width: int, ink: _Ink) -> tuple[str, RenderableType]:
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True, style="yellow")
    table.add_column(no_wrap=True)
    several = len(report.files) > 1
    rows: list[tuple[str, str]] = []
    for sample in report.samples:
        name = os.path.basename(sample.file) if several else "line"
        where = ink.text(name.encode("utf-8", "surrogateescape"))
        where = f"{_shorten(where, 20, ink)}{':' if several else ' '}{sample.number}"
        size = f"({sample.length:,} bytes) " if sample.length > len(sample.text) else ""
        shown = size + ink.text(sample.text) if sample.text.strip() else "(blank)"
        rows.append((where, shown))
    room = max(20, width - 1 - max(cell_len(where) for where, _ in rows))
    for where, shown in rows:
        table.add_row(Text(where), Text(_shorten(shown, room, ink)))
    number = report.malformed
    title = f"Malformed lines: {number:,}"
    if number > len(report.samples):
        title += f", the first {len(report.samples)} of them"
    return title, table


def _bar(number: int, most: int, width: int, ink: _Ink) -> str:
    eighths = len(ink.parts)
    units = max(1, round(number * width * eighths / most)) if most else 0
    full, rest = divmod(units, eighths)
    return (ink.full * full + (ink.parts[rest] if rest else "")).ljust(width)


def _shorten(text: str, width: int, ink: _Ink) -> str:
    """Cut the middle out of what is too long: both ends of a path or an agent tell most."""
    if cell_len(text) <= width:
        return text
    tail = width // 3
    head = chop_cells(text, width - tail - 1)[0]
    return head + ink.more + chop_cells(text[::-1], tail)[0][::-1]
