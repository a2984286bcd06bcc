"""Medians, ratios and tables: for the terminal, for JSON, and for the README."""

from __future__ import annotations

import datetime
import os
import platform
import re
import shlex
import statistics
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from benchmarks.runner import Rounds
from benchmarks.workloads import Figure

__all__ = [
    "README",
    "REFERENCE",
    "as_json",
    "caption",
    "command_line",
    "machine",
    "markdown",
    "section",
    "show",
    "table",
    "write_readme",
]

README = Path(__file__).with_name("README.md")

#: The row that the others are compared with.
REFERENCE = "DaskExecutor"

_PACKAGES = (
    "daskexec",
    "distributed",
    "loky",
    "mpi4py",
    "ipyparallel",
    "parsl",
    "executorlib",
    "numpy",
)


def machine() -> dict[str, str]:
    """Say where this ran, and with what."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return {
        "date": datetime.date.today().isoformat(),
        "cores": str(len(os.sched_getaffinity(0)))
        if hasattr(os, "sched_getaffinity")
        else str(os.cpu_count()),
        "processor": _processor(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **found,
    }


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.M)
    return match[1] if match else platform.machine()


def ratio(result: Rounds, row: str, figure: Figure) -> float | None:
    """Return how many times as good DaskExecutor is: the median over the rounds of each
    round's own ratio; None where there is nothing to compare."""
    ours = result.rows.get(REFERENCE, {}).get(figure.key, [])
    theirs = result.rows.get(row, {}).get(figure.key, [])
    if not figure.better or row == REFERENCE:
        return None
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=False) if a > 0 and b > 0]
    if not pairs:
        return None
    return statistics.median(a / b if figure.better == "more" else b / a for a, b in pairs)


def _number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if abs(value) >= 0.1 or not value else f"{value:.1g}"


def _cells(result: Rounds, row: str) -> list[str]:
    cells = []
    for figure in result.workload.figures:
        values = result.rows[row].get(figure.key)
        if not values:
            cells += ["", ""] if figure.better else [""]
            continue
        text = _number(statistics.median(values))
        if len(values) > 1:
            text += f" ({_number(min(values))} - {_number(max(values))})"
        cells.append(text)
        if figure.better:
            times = ratio(result, row, figure)
            cells.append("" if times is None else f"{_number(times)} x")
    return cells


def _heads(result: Rounds) -> list[str]:
    heads = []
    for figure in result.workload.figures:
        heads += [figure.title, "ours is"] if figure.better else [figure.title]
    return heads


def _remarks(result: Rounds) -> list[str]:
    remarks = [f"{row}: {note}." for row, note in result.notes.items()]
    return remarks + [f"{name} left out: {why}." for name, why in result.left_out.items()]


def table(result: Rounds) -> Table:
    """Return a table for the terminal."""
    found = Table()
    found.add_column(result.workload.name)
    for head in _heads(result):
        found.add_column(head, justify="right")
    for row in result.rows:
        found.add_row(row, *_cells(result, row))
    remarks = _remarks(result)
    if remarks:
        found.caption = "\n".join(remarks)
        found.caption_justify = "left"
    return found


def markdown(result: Rounds, *, command: str) -> str:
    """Return the same for a README."""
    heads = _heads(result)
    lines = [
        f"### {result.workload.name}",
        "",
        result.workload.about,
        "",
        "| | " + " | ".join(heads) + " |",
        "|---|" + "---:|" * len(heads),
    ]
    lines += [f"| {row} | " + " | ".join(_cells(result, row)) + " |" for row in result.rows]
    lines.append("")
    lines += [f"- {remark}" for remark in _remarks(result)]
    lines.append(f"- {caption(command)}")
    return "\n".join(lines)


def caption(command: str) -> str:
    """Say by which command, when, and on what machine figures were made.

    With the load average at their end: above what one executor keeps busy, which is about the
    number of cores, others used the machine too.
    """
    about = machine()
    load = f", load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return (
        f"`{command}`, {about['date']}, {about['cores']} cores ({about['processor']}), "
        f"Python {about['python']}, distributed {about['distributed']}{load}."
    )


def command_line() -> str:
    """Return the command that runs: with its numbers, and of the other options those given."""
    context = click.get_current_context()
    words = []
    for option in context.command.params:
        value = context.params[option.name or ""]
        if isinstance(value, bool) or value is None:
            continue
        if isinstance(value, int) or value != option.default:
            words += [option.opts[0], value.name if isinstance(value, Path) else str(value)]
    return f"{context.command_path} {shlex.join(words)}"


def section(about: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table for a README: what it is of, its rows of text, and its caption."""
    return "\n".join(
        [
            about,
            "",
            f"| {' | '.join(heads)} |",
            f"|---|{'---:|' * (len(heads) - 1)}",
            *(f"| {' | '.join(row)} |" for row in rows),
            "",
            f"- {caption(command_line())}",
        ]
    )


def show(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print the same on the terminal."""
    shown = Table(title=title)
    for place, head in enumerate(heads):
        shown.add_column(head, justify="right" if place else "left")
    for row in rows:
        shown.add_row(*row)
    Console(highlight=False, width=None if sys.stdout.isatty() else 160).print(shown)


def as_json(results: list[Rounds]) -> dict[str, Any]:
    """Return all figures of all rounds, with what is known about the machine."""
    return {
        "machine": machine(),
        "load": os.getloadavg() if hasattr(os, "getloadavg") else None,
        "workloads": {
            result.workload.name: {
                "about": result.workload.about,
                "rows": result.rows,
                "notes": result.notes,
                "left_out": result.left_out,
            }
            for result in results
        },
    }


def write_readme(path: Path, name: str, text: str, *, order: Sequence[str]) -> None:
    """Put a section into a page, in the place of the last one of that name.

    Sections are between ``<!-- begin NAME -->`` and ``<!-- end NAME -->``; a new one goes where
    `order`, a list of all names, says: all come after ``<!-- results -->``.
    """
    page = path.read_text()
    section = f"<!-- begin {name} -->\n{text}\n<!-- end {name} -->"
    old = re.compile(f"<!-- begin {name} -->.*?<!-- end {name} -->", re.S)
    if old.search(page):
        page = old.sub(section.replace("\\", r"\\"), page)
    else:
        before = [n for n in order[: order.index(name)] if f"<!-- end {n} -->" in page]
        anchor = f"<!-- end {before[-1]} -->" if before else "<!-- results -->"
        page = page.replace(anchor, f"{anchor}\n\n{section}", 1)
    path.write_text(page)
