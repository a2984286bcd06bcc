r"""Tables of the report as CSV, for spreadsheets and programs.

Role: `write_csv` and `write_all`. Floor 10, part of the log job.

UTF-8, comma, a header line, ``\r\n`` as RFC 4180 has it. What stands in a log was written by
strangers, and a spreadsheet runs a cell that begins with ``=``: so text that begins with ``=``,
``+``, ``-``, ``@``, a tab or a carriage return gets an apostrophe before it (but for a single
``-``, which is how servers write that there is nothing). Unprintable characters are written as
escapes, as on the terminal. The very bytes of a key are in the JSON.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable
from typing import IO

from daskexec.logs.keys import show_key
from daskexec.logs.report import TABLES, Report

__all__ = ["SHEETS", "safe_cell", "write_all", "write_csv"]

SHEETS = ("totals", "files", "statuses", "hours", "days", *TABLES)
"""What can be written, by name."""

_BEGINS_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_csv(report: Report, name: str, stream: IO[str]) -> None:
    """Write one table.

    Parameters
    ----------
    report
        Where it is from; a top table has the rows that the report has.
    name
        One of `SHEETS`.
    stream
        Opened for text with ``newline=""``.

    Raises
    ------
    ValueError
        If there is no such table.
    """
    if name not in SHEETS:
        raise ValueError(f"no table is called {name!r}; there are {', '.join(SHEETS)}")
    head, rows = _sheet(report, name)
    writer = csv.writer(stream)
    writer.writerow(head)
    writer.writerows(
        [safe_cell(cell) if isinstance(cell, str) else cell for cell in row] for row in rows
    )


def write_all(report: Report, folder: str | os.PathLike[str]) -> None:
    """Write all tables into `folder`, each as ``NAME.csv``; it is made if it is not there."""
    os.makedirs(folder, exist_ok=True)
    for name in SHEETS:
        path = os.path.join(folder, f"{name}.csv")
        with open(path, "w", encoding="utf-8", newline="") as stream:
            write_csv(report, name, stream)


def safe_cell(text: str) -> str:
    """Return a text such that no spreadsheet takes it for a formula.

    >>> safe_cell("=1+1"), safe_cell("/a=b"), safe_cell("-")
    ("'=1+1", '/a=b', '-')
    """
    return f"'{text}" if text.startswith(_BEGINS_FORMULA) and text != "-" else text


def _sheet(report: Report, name: str) -> tuple[list[str], Iterable[Iterable[object]]]:
    if name == "totals":
        return ["name", "value"], report.to_dict()["totals"].items()
    if name == "files":
        rows = [
            (show_key(f.name.encode("utf-8", "surrogateescape")), f.format, f.lines, f.malformed)
            for f in report.files
        ]
        return ["file", "format", "lines", "malformed"], rows
    if name in ("statuses", "hours", "days"):
        counts = getattr(report, name)
        return [{"statuses": "status", "hours": "hour", "days": "day"}[name], "hits"], [
            *counts.items()
        ]
    unit = "bytes" if name == "paths_by_bytes" else "hits"
    return ["key", unit], [(show_key(key), number) for key, number in report.top[name]]
