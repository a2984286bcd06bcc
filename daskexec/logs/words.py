"""How the report's numbers are worded for people, in a terminal and on the page alike.

Role: titles of the tables, sizes, shares, moments. Floor 10, part of the log job; pure.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from daskexec.logs.report import Report

__all__ = ["TITLES", "Title", "human_bytes", "moment", "share", "span"]


class Title(NamedTuple):
    """How a top table is called, what it counts, and what one of its rows is."""

    text: str
    unit: str
    row: str
    hint: str = ""


_GUESS = "guessed from the user agents"
TITLES = {
    "hosts": Title("Virtual hosts", "hits", "Host"),
    "paths": Title("Paths by hits", "hits", "Path"),
    "paths_by_bytes": Title("Paths by bytes sent", "bytes", "Path"),
    "not_found": Title("Not found (404)", "hits", "Path"),
    "clients": Title("Clients", "hits", "Client"),
    "referrers": Title("Referrers", "hits", "Referrer"),
    "agents": Title("User agents", "hits", "User agent"),
    "browsers": Title("Browsers", "hits", "Browser", f"{_GUESS}, without crawlers"),
    "systems": Title("Systems", "hits", "System", f"{_GUESS}, without crawlers"),
    "crawlers": Title("Crawlers", "hits", "Crawler", f"{_GUESS} that call themselves so"),
}
"""By name of a top table."""


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


def share(number: int, whole: int) -> str:
    """Write a share in percent; one below a tenth of it as such, not as none."""
    percent = 100 * number / whole if whole else 0
    return f"{percent:.1f}%" if percent >= 0.05 or not number else "<0.1%"


def moment(iso: str) -> str:
    """Write an ISO 8601 time with blanks between day, time and zone."""
    return f"{iso[:10]} {iso[11:19]} {iso[19:]}"


def span(report: Report) -> str:
    """Say how many days it is from the first request to the last; nothing without any."""
    if report.first is None or report.last is None:
        return ""
    days = _number(report.last[:10]) - _number(report.first[:10]) + 1
    return "one day" if days == 1 else f"{days:,} days"


def _number(day: str) -> int:
    """Number the days; one past its month's end, as the 31st of February, counts on."""
    year, month, date = map(int, day.split("-"))
    return datetime(year, month, 1).toordinal() + date
