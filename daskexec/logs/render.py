"""The report for people: tables, bars and a sparkline, in a terminal or a text file.

Role: `render` writes a `Report` to a rich console. Floor 10, part of the log job; the only
module of it that imports rich. Fits into 80 columns, needs no colour, and falls back to
ASCII where the output cannot carry block characters.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from rich.cells import cell_len, chop_cells
from rich.console import Console, Group, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from daskexec.logs.keys import show_key
from daskexec.logs.report import Report

__all__ = ["human_bytes", "render"]

_TITLES = {
    "paths": ("Paths by hits", "hits"),
    "paths_by_bytes": ("Paths by bytes sent", "bytes"),
    "not_found": ("Not found (404)", "hits"),
    "clients": ("Clients", "hits"),
    "referrers": ("Referrers", "hits"),
    "agents": ("User agents", "hits"),
}
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
    pieces: list[RenderableType] = [_heading(report, ink), _totals(report)]
    if report.requests:
        pieces += [
            _section("Status", _statuses(report, ink), ink),
            _section("Hits an hour", _hours(report.hours, width, ink), ink),
            _section("Hits a day", _days(report.days, width, ink), ink),
        ]
    for name, rows in report.top.items():
        if rows:
            title, unit = _TITLES[name]
            if name == "clients" and report.host_names:
                rows = [(_named(key, report.host_names), count) for key, count in rows]
            whole = report.bytes_sent if unit == "bytes" else report.requests
            pieces.append(_section(title, _top(rows, unit, whole, width, ink), ink))
    if report.samples:
        pieces.append(_section(*_malformed(report, width, ink), ink))
    for piece in pieces:
        console.print(piece, width=width, highlight=False)


def _named(client: bytes, names: Mapping[bytes, str]) -> bytes:
    name = names.get(client)
    return client if name is None else client + b"  " + os.fsencode(name)


def human_bytes(number: float) -> str:
    """Write a number of bytes with three digits or so: ``2.75 GB`` (powers of 1,000)."""
    if number < 999.5:
        return f"{number:.0f} B"
    units = iter(("kB", "MB", "GB", "TB", "PB"))
    while number >= 999.5:
        number /= 1000
        unit = next(units)
    digits = 2 if number < 9.995 else 1 if number < 99.95 else 0
    return f"{number:.{digits}f} {unit}"


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


def _section(title: str, body: RenderableType, ink: _Ink) -> RenderableType:
    rule = Rule(Text(title, style="bold"), align="left", style="dim", characters=ink.rule)
    return Group("", rule, body)


def _totals(report: Report) -> RenderableType:
    # Three pairs of label and number a row: fits 80 columns with numbers of 12 digits.
    table = Table.grid(padding=(0, 2))
    for _ in range(3):
        table.add_column(style="dim", no_wrap=True)
        table.add_column(justify="right", style="bold", no_wrap=True)
    malformed = Text(f"{report.malformed:,}", style="red" if report.malformed else "")
    table.add_row(
        "requests", f"{report.requests:,}", "clients", f"{report.clients:,}",
        "lines", f"{report.lines:,}",
    )  # fmt: skip
    table.add_row(
        "bytes sent", human_bytes(report.bytes_sent), "visitors", f"{report.visitors:,}",
        "malformed", malformed,
    )  # fmt: skip
    if report.first is None or report.last is None:
        return Group("", table)
    span = Text.assemble(
        ("from  ", "dim"),
        _moment(report.first),
        ("  to  ", "dim"),
        _moment(report.last),
        (f"  ({_span(report.first, report.last)})", "dim"),
    )
    return Group("", table, span)


def _moment(iso: str) -> str:
    return f"{iso[:10]} {iso[11:19]} {iso[19:]}"


def _span(first: str, last: str) -> str:
    days = len(_days_between(first[:10], last[:10]))
    return "one day" if days == 1 else f"{days:,} days"


def _statuses(report: Report, ink: _Ink) -> RenderableType:
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", no_wrap=True, style="dim")
    table.add_column(no_wrap=True)
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
        bar = Text(_bar(count, most, 16, ink), style=style)
        share = f"{100 * count / report.requests:.1f}%"
        table.add_row(Text(name, style=style), f"{count:,}", share, bar, told)
    return table


def _hours(hours: Mapping[str, int], width: int, ink: _Ink) -> RenderableType:
    """Draw a sparkline over all hours, those without hits too, several to a cell if many."""
    moments = [datetime.strptime(hour, "%Y-%m-%d %H") for hour in hours if _real(hour)]
    if not moments:
        return Text("no day in the log exists", style="dim")
    first, last = min(moments), max(moments)
    number = int((last - first) / timedelta(hours=1)) + 1
    step = -(-number // width)
    cells = [0] * -(-number // step)
    for hour, count in hours.items():
        if _real(hour):
            at = int((datetime.strptime(hour, "%Y-%m-%d %H") - first) / timedelta(hours=1))
            cells[at // step] += count
    stretch = max(1, width // len(cells)) if len(cells) < 48 else 1
    stretch = min(stretch, 3)
    line = "".join(_level(cell, max(cells), ink) * stretch for cell in cells)
    busiest = max(hours, key=lambda hour: (hours[hour], hour))
    axis = Text(f"{first:%Y-%m-%d %H}h", style="dim")
    end = f"{last:%Y-%m-%d %H}h"
    axis.append(" " * max(2, len(line) - len(axis) - len(end)) + end)
    per = "one cell is an hour" if step == 1 else f"one cell is {step:,} hours"
    if stretch > 1:
        per = f"{stretch} cells are an hour"
    said = Text(f"busiest hour {busiest}h: {hours[busiest]:,} hits; {per}", style="dim")
    return Group(Text(line, style="cyan", no_wrap=True), axis, said)


def _real(hour: str) -> bool:
    """Whether the day exists: a log may hold the 31st of February."""
    try:
        datetime.strptime(hour, "%Y-%m-%d %H")
    except ValueError:
        return False
    return True


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
        table.add_row(f"{_weekday(day)} {day}", f"{count:,}", bar)
    if len(days) == len(shown):
        return table
    busiest = max(days, key=lambda day: (days[day], day))
    said = f"the last {len(shown)} of {len(days):,} days with hits; busiest {busiest}: "
    return Group(table, Text(f"{said}{days[busiest]:,}", style="dim"))


def _weekday(day: str) -> str:
    return f"{datetime.strptime(day, '%Y-%m-%d'):%a}" if _real(f"{day} 00") else "???"


def _days_between(first: str, last: str) -> range:
    def number(day: str) -> int:
        year, month, date = map(int, day.split("-"))
        return datetime(year, month, 1).toordinal() + date

    return range(number(first), number(last) + 1)


def _top(
    rows: Sequence[tuple[bytes, int]], unit: str, whole: int, width: int, ink: _Ink
) -> RenderableType:
    table = Table.grid(padding=(0, 1))
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", no_wrap=True, style="dim")
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    most = rows[0][1]
    bar_width = 8 if width < 100 else 16
    counts = [human_bytes(n) if unit == "bytes" else f"{n:,}" for _, n in rows]
    shares = [f"{100 * n / whole:.1f}%" for _, n in rows]
    room = max(20, width - max(map(len, counts)) - max(map(len, shares)) - bar_width - 3)
    for (key, number), count, share in zip(rows, counts, shares, strict=True):
        bar = Text(_bar(number, most, bar_width, ink), style="cyan")
        table.add_row(count, share, bar, Text(_shorten(ink.text(key), room, ink) or '""'))
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
