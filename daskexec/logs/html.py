"""The report as one web page: charts, tables that sort, dark and light, no network.

Role: `to_html` fills `assets/page.html` with a `Report`. Floor 10, part of the log job; the
only module of it that imports jinja2.

What stands in a log was written by strangers. It comes into the page as text only: escaped by
the template engine, in the embedded JSON without any ``<``, and what cannot be printed as an
escape. Beyond that the page's own policy (Content-Security-Policy) allows no script and no
style but the two that are there, by their hashes, and no address to be fetched.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from daskexec import __version__
from daskexec.logs.charts import days_chart, hours_chart, week_grid
from daskexec.logs.keys import show_key
from daskexec.logs.malformed import explain
from daskexec.logs.report import MalformedLine, Report
from daskexec.logs.words import TITLES, Title, human_bytes, moment, share, span

__all__ = ["to_html"]


@dataclass(frozen=True)
class _Row:
    """A row of a top table; `part` is its bar in percent of the first one's."""

    text: str
    number: int
    shown: str
    share: str
    part: float


@dataclass(frozen=True)
class _Table:
    name: str
    title: Title
    rows: tuple[_Row, ...]


@dataclass(frozen=True)
class _Piece:
    """A status class in the bar of all: where it begins and how wide it is, in percent."""

    name: str
    count: int
    share: str
    start: float
    width: float
    codes: tuple[tuple[str, int], ...]


def to_html(report: Report, title: str = "Access log report") -> str:
    """Return the report as one self-contained HTML page, which fetches nothing.

    Parameters
    ----------
    report
        What to show.
    title
        The page's title and heading.

    Returns
    -------
    str
        To be written as UTF-8. The same report gives the same page.
    """
    style, script = _asset("page.css"), _asset("page.js")
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"moment": moment, "number": "{:,}".format, "size": human_bytes}
    return environment.from_string(_asset("page.html")).render(
        title=title,
        report=report,
        formats=", ".join(sorted({file.format for file in report.files})),
        span=span(report),
        errors=sum(n for s, n in report.status_classes.items() if s in ("4xx", "5xx")),
        share=share,
        pieces=_pieces(report),
        hours=hours_chart(report.hours),
        days=days_chart(report.days),
        week=week_grid(report.hours),
        tables=[_table(report, name) for name, rows in report.top.items() if rows],
        files=[(_name(f.name), f) for f in report.files],
        failed=[(_name(f.name), show_key(f.reason.encode())) for f in report.failed],
        samples=[(_name(s.file), s, _reason(report, s), show_key(s.text)) for s in report.samples],
        policy=policy,
        # Both are ours; and the page's policy knows them by their hashes.
        style=Markup(style),
        script=Markup(script),
        data=_data(report),
        generator=f"daskexec {__version__}",
    )


def _asset(name: str) -> str:
    return (files("daskexec.logs") / "assets" / name).read_text("utf-8")


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _data(report: Report) -> Markup:
    """Write the report's JSON so that no end of a script can stand in it."""
    text = report.to_json().strip()
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _name(name: str) -> str:
    return show_key(name.encode("utf-8", "surrogateescape"))


def _reason(report: Report, line: MalformedLine) -> str:
    if line.length > len(line.text):
        return f"a line of {line.length:,} bytes"  # of which only the first are known
    form = next((f.format for f in report.files if f.name == line.file), "")
    return explain(line.text, form)


def _shown(report: Report, table: str, key: bytes) -> str:
    host = report.host_names.get(key) if table == "clients" else None
    return (show_key(key) or '""') + (f"  {_name(host)}" if host else "")


def _table(report: Report, name: str) -> _Table:
    title = TITLES[name]
    rows = report.top[name]
    sizes = title.unit == "bytes"
    whole = report.bytes_sent if sizes else report.requests
    return _Table(
        name,
        title,
        tuple(
            _Row(
                _shown(report, name, key),
                number,
                human_bytes(number) if sizes else f"{number:,}",
                share(number, whole),
                round(100 * number / rows[0][1], 1),
            )
            for key, number in rows
        ),
    )


def _pieces(report: Report) -> list[_Piece]:
    pieces: list[_Piece] = []
    start = 0.0
    for name, count in report.status_classes.items():
        width = 100 * count / report.requests
        codes = tuple((s, n) for s, n in report.statuses.items() if s[0] == name[0])
        pieces.append(
            _Piece(
                name, count, share(count, report.requests), round(start, 3), round(width, 3), codes
            )
        )
        start += width
    return pieces
