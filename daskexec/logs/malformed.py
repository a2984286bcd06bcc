"""Every malformed line with its file, number and reason, in a file.

Role: a second pass, over those files only that have such lines; `lines_of` runs on the workers.
Floor 10, part of the log job.

The report keeps the first few malformed lines. All of them may be as many as the log has lines
(a wrong ``--format``), so they are written as they come, and no more than a few parts of them
are ever held. Line numbers are told within a part on the worker, and made those of the file as
the parts are written in order.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from itertools import islice
from typing import IO, NamedTuple

from daskexec.logs.formats import LogFormat, find_format
from daskexec.logs.keys import show_key
from daskexec.logs.report import LogFile, Report
from daskexec.logs.selection import Selection
from daskexec.logs.split import DEFAULT_PART_SIZE, READ_ERRORS, Part, cut, read_blocks
from daskexec.logs.tally import Unreadable, reason_of

__all__ = ["HEAD", "explain", "lines_of", "write_malformed"]

HEAD = "file\tline\treason\ttext\n"
"""The first line of what `write_malformed` writes."""

_WINDOW = 2 * (os.cpu_count() or 1)

# The pieces of a line in their order, and what is missing where one does not fit.
_QUOTED = rb'"[^"\\]*(?:\\.[^"\\]*)*"'
_HOST = (("virtual host with a port", rb"[^ ]+:[0-9]{1,5} "),)
_COMMON = (
    ("client", rb"[^ ]+ "),
    ("ident", rb"[^ ]+ "),
    ("user and time in brackets", rb"[^\[]*(?:\[(?![0-9]{2}/)[^\[]*)*(?=\[)"),
    (
        "time such as [17/May/2015:10:05:03 +0000]",
        rb"\[[0-9]{2}/(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)/[1-9][0-9]{3}"
        rb"(?::[0-9]{2}){3} [+-][0-9]{4}\] ",
    ),
    ("request between quotes", _QUOTED + b"(?= |$)"),
    ("status of three digits", rb" [0-9]{3}(?= )"),
    ("number of bytes, or -", rb" (?:[0-9]{1,20}|-)(?=[ \r]|$)"),
)
_REST = (
    ("referrer between quotes", b" " + _QUOTED),
    ("user agent between quotes", b" " + _QUOTED),
)
_PIECES = {
    "common": _COMMON,
    "combined": _COMMON + _REST,
    "vhost_common": _HOST + _COMMON,
    "vhost_combined": _HOST + _COMMON + _REST,
}
_COMPILED = {
    name: [(label, re.compile(source, re.DOTALL)) for label, source in pieces]
    for name, pieces in _PIECES.items()
}


class Malformed(NamedTuple):
    """A line: its number within the part from 1, why it does not fit, and the line."""

    number: int
    reason: str
    text: bytes


def write_malformed(
    report: Report,
    executor: Executor,
    stream: IO[str],
    *,
    part_size: int = DEFAULT_PART_SIZE,
    selection: Selection | None = None,
) -> int:
    """Write all malformed lines of the files of a report: file, line, reason, text.

    Files that have such lines are read a second time, on the executor. Fields are separated by
    tabs, unprintable characters are written as escapes, so each line is one line.

    Parameters
    ----------
    report
        Of the same files, just made.
    executor
        Any; it is used and left open.
    stream
        Opened for text.
    part_size
        Bytes of a plain file that one call reads.
    selection
        Whether addresses are shown; its filters say nothing of lines that do not fit.

    Returns
    -------
    int
        How many were written.

    Raises
    ------
    daskexec.logs.tally.Unreadable
        If a file cannot be read the second time; the message names it.
    """
    stream.write(HEAD)
    written = before = 0
    current: LogFile | None = None
    for file, lines, found in _in_order(report, executor, part_size, selection):
        if file is not current:
            current, before = file, 0
        name = show_key(file.name.encode("utf-8", "surrogateescape"))
        stream.writelines(
            f"{name}\t{before + line.number}\t{line.reason}\t{show_key(line.text)}\n"
            for line in found
        )
        before += lines
        written += len(found)
    return written


def _in_order(
    report: Report, executor: Executor, part_size: int, selection: Selection | None
) -> Iterator[tuple[LogFile, int, list[Malformed]]]:
    """Submit a window of calls ahead, and give their results in the order of the lines."""
    pending: deque[tuple[LogFile, Future[tuple[int, list[Malformed]]]]] = deque()
    work = _work(report, executor, part_size)
    try:
        while True:
            for file, part in islice(work, _WINDOW - len(pending)):
                pending.append((file, executor.submit(lines_of, part, file.format, selection)))
            if not pending:
                return
            file, future = pending.popleft()
            try:
                lines, found = future.result()
            except Unreadable as error:
                raise Unreadable(f"{file.name}: {error}") from error
            yield file, lines, found
    finally:
        for _, future in pending:
            future.cancel()


def _work(report: Report, executor: Executor, part_size: int) -> Iterator[tuple[LogFile, Part]]:
    for file in report.files:
        if file.malformed:
            path = file.name if "://" in file.name else os.path.abspath(file.name)
            try:
                parts = executor.submit(cut, path, part_size).result()
            except READ_ERRORS as error:
                raise Unreadable(f"{file.name}: {reason_of(error)}") from error
            yield from ((file, part) for part in parts)


def lines_of(
    part: Part, format_name: str, selection: Selection | None = None
) -> tuple[int, list[Malformed]]:
    """Count a part's lines, and find those that do not fit. Runs on the workers.

    Raises
    ------
    Unreadable
        With the reason, if the part cannot be read to its end.
    """
    form, lines = find_format(format_name), 0
    found: list[Malformed] = []
    try:
        for block in read_blocks(part):
            found += _misfits(block, form, lines)
            lines += block.count(b"\n") + (not block.endswith(b"\n"))
    except READ_ERRORS as error:
        raise Unreadable(reason_of(error)) from error
    if selection is not None:
        found = [line._replace(text=selection.shown_sample(line.text)) for line in found]
    return lines, found


def _misfits(block: bytes, form: LogFormat, before: int) -> Iterator[Malformed]:
    """Find what lies between the lines that fit."""
    if type(form).fits is not LogFormat.fits:  # its expression alone does not decide
        for number, line in enumerate(block.removesuffix(b"\n").split(b"\n"), before + 1):
            if not form.fits(line):
                yield Malformed(number, explain(line, form.name), line)
        return
    at, number = 0, before + 1
    for match in form.pattern.finditer(block):
        start = match.start()
        if start > at:
            bad = block[at : start - 1].split(b"\n")
            yield from (Malformed(number + i, explain(t, form.name), t) for i, t in enumerate(bad))
            number += len(bad)
        number += 1
        at = match.end() + 1
    if at < len(block):
        bad = block[at:].removesuffix(b"\n").split(b"\n")
        yield from (Malformed(number + i, explain(t, form.name), t) for i, t in enumerate(bad))


def explain(line: bytes, format_name: str) -> str:
    """Say where a line stops being of a format.

    >>> explain(b'1.2.3.4 - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" OK 12', "common")
    'at byte 59: no status of three digits'
    """
    if not line.strip():
        return "blank line"
    at = 0
    for label, piece in _COMPILED.get(format_name, ()):
        match = piece.match(line, at)
        if match is None:
            where = "the line ends" if at >= len(line.rstrip()) else f"at byte {at + 1}"
            return f"{where}: no {label}"
        at = match.end()
    return f"does not fit the format {format_name}"
