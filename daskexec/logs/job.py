"""The job, as a graph of properties: names -> files -> parts -> tallies -> totals -> report.

Role: the log job's graph, and the functions that run it, on any executor. Floor 10, part of the
log job. All that is asked of the executor is in `JOB`, whose properties without ``on=`` run
there, and in `daskexec.logs.counting`, which reads the parts on it.

::

    names           as given
      found         each, on the executor: a folder's files, those that match a pattern
      paths         one list of them
      looked        each, on the executor: opened there, format chosen, cut into parts
    plan            what is to be counted, and what cannot be
      files         each with its parts
      tallies       each, by `PartCounter`: parts counted on the executor, merged in a tree there
      totals        one tally of all, where its parts are
      tables        the report, made there
    top_clients     -> host_names: each, on threads beside the executor
    report          the tables, with these names
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor, Future
from concurrent.futures import TimeoutError as FutureTimeout  # another one before Python 3.11
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from daskexec import Graph, SerialExecutor
from daskexec.logs.counting import PartCounter, Progress, Receipt, TallyPart, Totals
from daskexec.logs.formats import find_format
from daskexec.logs.hosts import Resolver, host_name
from daskexec.logs.inputs import STDIN, Found, Looked, Stdin, expand, look
from daskexec.logs.report import Extract, FailedFile, LogFile, MalformedLine, Report, placed
from daskexec.logs.split import DEFAULT_PART_SIZE, Part
from daskexec.logs.tally import Counting, Tally, merge, settle, tally_part

__all__ = ["JOB", "Interrupted", "Plan", "Progress", "analyze", "plan", "run"]

_SHARES = min(8, max(2, os.cpu_count() or 1))
"""Most calls that read one compressed file: each decompresses what lies before its share.
Plain files are cut so that as many workers end together."""

_FILE_BITS = 32
"""An ordinal is unique among the parts of all files: the file's place above these bits."""

_HERE = "here"
"""The executor of what is done in the client."""


class Interrupted(KeyboardInterrupt):
    """The job was interrupted.

    Attributes
    ----------
    report
        Of what had been counted, its ``partial`` true; None where that could not be had.
    """

    report: Report | None = None


@dataclass(frozen=True)
class Plan:
    """What is to be counted.

    Attributes
    ----------
    files
        Each file that can be, with its parts.
    failed
        Each that cannot, with the reason.
    notes
        What is to be known and is no failure, a line each.
    stdin
        Where the file ``-`` is among `files`: its parts are not known before they are read.
    """

    files: tuple[tuple[LogFile, tuple[Part, ...]], ...]
    failed: tuple[FailedFile, ...]
    notes: tuple[str, ...] = ()
    stdin: Stdin | None = field(default=None, compare=False, repr=False)

    @property
    def size(self) -> int:
        """Bytes to read, as they lie on disk."""
        return sum(part.size for _, parts in self.files for part in parts)

    @property
    def known(self) -> bool:
        """Whether all sizes are known before the files are read."""
        return self.stdin is None and all(part.size for _, its in self.files for part in its)


# -- the graph -----------------------------------------------------------------------------------

JOB = Graph()
"""The log job. Its inputs are ``names``, ``form``, ``part_size``, ``most_shares``, ``folder``,
``home`` and ``stdin``, or a ``plan``; ``counting``, ``top`` and ``keep_tally``."""

JOB.property(expand, name="found", each={"name": "names"})


@JOB.property(on=_HERE)
def paths(found: Sequence[Found]) -> list[str]:
    return [name for one in found for name in one.names]


@JOB.property(on=_HERE)
def shares(paths: Sequence[str], most_shares: int) -> int:
    # With many files there is work enough for all without reading one of them several times.
    return max(1, most_shares // max(1, len(paths)))


@JOB.property(each="paths")
def looked(
    path: str, form: str, part_size: int, shares: int, home: str, folder: str
) -> Looked | None:
    return None if path == STDIN else look(path, form, part_size, shares, home, folder)


@JOB.property(name="plan", on=_HERE)
def _plan(found: Sequence[Found], looked: Sequence[Looked | None], stdin: Stdin | None) -> Plan:
    failed = [FailedFile(name, why) for one in found for name, why in one.problems]
    seen: dict[str, str] = {}
    files: list[tuple[LogFile, tuple[Part, ...]]] = []
    notes: list[str] = []
    for one in looked:
        if one is None:
            assert stdin is not None
            one = stdin.looked
        if one.failure is not None:
            failed.append(FailedFile(one.name, one.failure))
        elif one.real in seen:
            first = seen[one.real]
            same = "was named twice" if first == one.name else f"is the same file as {first}"
            notes.append(f"{one.name} {same}: counted once")
        else:
            seen[one.real] = one.name
            files.append((LogFile(one.name, one.format), one.parts))
    if STDIN not in seen:
        stdin = None
    return Plan(tuple(files), tuple(failed), tuple(notes), stdin)


@JOB.property(on=_HERE)
def files(plan: Plan) -> list[tuple[str, Iterable[Part]]]:
    made: list[tuple[str, Iterable[Part]]] = []
    for index, (file, parts) in enumerate(plan.files):
        base = index << _FILE_BITS
        if plan.stdin is not None and file.name == STDIN:
            made.append((file.format, plan.stdin.parts(base)))
        else:
            made.append((file.format, _numbered(parts, base)))
    return made


def _numbered(parts: Iterable[Part], base: int) -> Iterable[Part]:
    return (dataclasses.replace(part, ordinal=base + part.ordinal) for part in parts)


@JOB.property(each="files", on="counting")
def tallies(file: tuple[str, Iterable[Part]]) -> tuple[str, Iterable[Part]]:
    return file


@JOB.property(on=_HERE)
def totals(tallies: Sequence[Receipt], counting: PartCounter) -> Totals:
    return counting.totals()


@JOB.property(on=_HERE)
def tables(
    plan: Plan, tallies: Sequence[Receipt], totals: Totals, top: int, keep_tally: bool
) -> Report:
    files = [file for file, _ in plan.files]
    failed = [
        FailedFile(file.name, receipt.failure)
        for file, receipt in zip(files, tallies, strict=True)
        if receipt.failure is not None
    ]
    pieces = totals.reduce(partial(extract, top=top, keep_tally=keep_tally))
    found, tally = pieces[0]
    for more, piece in pieces[1:]:
        found.add(more)
        if tally is not None and piece is not None:
            tally = merge(tally, piece)
    counted, samples = _by_file(files, tallies, found)
    return Report.of(counted, [*plan.failed, *failed], samples, found, tally)


@JOB.property(on=_HERE)
def top_clients(tables: Report) -> list[bytes]:
    return [client for client, _ in tables.top["clients"]]


JOB.property(host_name, name="host_names", each={"client": "top_clients"}, on="names")


@JOB.property(on=_HERE)
def report(tables: Report, top_clients: list[bytes], host_names: list[str | None]) -> Report:
    names = {c: name for c, name in zip(top_clients, host_names, strict=True) if name}
    return dataclasses.replace(tables, host_names=names)


def extract(tally: Tally, *, top: int, keep_tally: bool) -> tuple[Extract, Tally | None]:
    """Say what a report says of a tally; runs where the tally is."""
    found = Extract.of(tally, top)
    if not keep_tally:
        return found, None
    return found, dataclasses.replace(settle(tally), lines={}, misfits={}, samples=[])


def _by_file(
    files: Sequence[LogFile], receipts: Sequence[Receipt], found: Extract
) -> tuple[list[LogFile], list[MalformedLine]]:
    """Return the files that were counted, and their first malformed lines."""
    lines: dict[int, dict[int, int]] = {}
    for ordinal, number in found.lines.items():
        lines.setdefault(ordinal >> _FILE_BITS, {})[ordinal] = number
    counted: list[LogFile] = []
    samples: list[MalformedLine] = []
    for index, (file, receipt) in enumerate(zip(files, receipts, strict=True)):
        if receipt.failure is not None:
            continue
        its = lines.get(index, {})
        malformed = sum(number for part, number in found.misfits.items() if part in its)
        counted.append(dataclasses.replace(file, lines=sum(its.values()), malformed=malformed))
        # Not where parts before a sample's were not counted, as its number is not known then:
        # the job was interrupted.
        upto = index << _FILE_BITS
        while upto in its:
            upto += 1
        samples += placed(
            file.name, its, [s for s in found.samples if s[0] in its and s[0] < upto]
        )
    return counted, samples


# -- running it --------------------------------------------------------------------------------


def plan(
    files: Iterable[str | os.PathLike[str]],
    *,
    format: str = "auto",
    part_size: int = DEFAULT_PART_SIZE,
    shares: int = _SHARES,
    executor: Executor | None = None,
) -> Plan:
    """Look at the files: list folders, choose formats, cut parts, sort out what is no log.

    Parameters are those of `analyze`, but that files are looked at here where `executor` is
    None. The parts of a plan can be counted on any executor that sees the same files.
    """
    if format != "auto":
        find_format(format)
    if part_size < 1:
        raise ValueError(f"part_size must be at least 1 byte, not {part_size}")
    if shares < 1:
        raise ValueError(f"shares must be at least 1, not {shares}")
    names = [os.fspath(name) for name in files]
    # Read in this thread: properties of the graph must not wait for somebody's pipe.
    stdin = Stdin(sys.stdin.buffer, part_size, format) if STDIN in names else None
    here = SerialExecutor()
    job = JOB.on(
        {"default": executor or here, _HERE: here},
        names=names,
        form=format,
        part_size=part_size,
        most_shares=shares,
        folder=os.getcwd(),
        home=socket.gethostname(),
        stdin=stdin,
    )
    try:
        made: Plan = job["plan"]
    except BaseException:  # Ctrl-C: what has not begun is not looked at any more
        job.cancel()
        raise
    return made


def analyze(
    files: Iterable[str | os.PathLike[str]],
    executor: Executor,
    *,
    format: str = "auto",
    part_size: int = DEFAULT_PART_SIZE,
    shares: int = _SHARES,
    top: int = 10,
    resolve: float | None = None,
    progress: Progress | None = None,
    counting: Counting | None = None,
    keep_tally: bool = True,
) -> Report:
    """Report on access logs, in one pass over them.

    Parameters
    ----------
    files
        Files, folders (all files in them and below), patterns such as ``logs/*.gz``, URLs
        that fsspec knows, and ``"-"``, which is stdin; as the workers see them, but for stdin,
        which is read here. Plain, or compressed with gzip, bzip2, xz or zstd. A file that is
        named twice is counted once.
    executor
        Any ``concurrent.futures.Executor``; it is used and left open. Where it takes futures as
        arguments, tallies are merged on its workers; else here, as they come.
    format
        ``"auto"`` (chosen for each file from its first lines), or a name or a format string
        as `find_format` takes it: ``"combined"``, ``'%h %l %u %t "%r" %>s %b'``.
    part_size
        Most bytes of a plain file that one call reads.
    shares
        Most calls that read one compressed file. Each decompresses what lies before its share.
        A plain file of several parts has a multiple of it, all of one size.
    top
        Rows of the top tables.
    resolve
        Seconds in which host names of the top clients are looked up, from here, all at the same
        time; None: they are not. A client whose name does not come in time has none.
    progress
        Told how far it is.
    counting
        Which requests count, with which engine, and how many keys are kept:
        ``Counting(select(status="5xx"), max_keys=100_000)``.
    keep_tally
        Have all that was counted in the report's ``tally``, to be saved. Without, only the
        report leaves the workers, where the executor takes futures as arguments.

    Returns
    -------
    Report
        Of the files that could be read; its ``failed`` names the others, of which nothing
        is counted.

    Raises
    ------
    ValueError
        For an unknown format, or a part size below 1.
    concurrent.futures.BrokenExecutor
        If the executor breaks.
    Interrupted
        A ``KeyboardInterrupt``, with the report of what was done.

    Examples
    --------
    >>> from concurrent.futures import ProcessPoolExecutor
    >>> with ProcessPoolExecutor() as executor:               # doctest: +SKIP
    ...     report = analyze(["access.log"], executor)
    >>> report.requests, report.top["paths"][0]               # doctest: +SKIP
    """
    todo = plan(files, format=format, part_size=part_size, shares=shares, executor=executor)
    return run(
        todo,
        executor,
        top=top,
        resolve=resolve,
        progress=progress,
        counting=counting,
        keep_tally=keep_tally,
    )


def run(
    todo: Plan,
    executor: Executor,
    *,
    top: int = 10,
    resolve: float | None = None,
    progress: Progress | None = None,
    counting: Counting | None = None,
    keep_tally: bool = True,
    tally: TallyPart | None = None,
    **options: int,
) -> Report:
    """Carry out a plan.

    Parameters are those of `analyze`, and `tally`, what counts a part on the workers, else
    `tally_part`; `options` are those of `PartCounter`. If it is interrupted or the executor
    breaks, calls not yet begun are cancelled.
    """
    size = todo.size if todo.known else 0
    if tally is None:
        tally = tally_part if counting is None else partial(tally_part, counting=counting)
    counter = PartCounter(executor, tally, progress, size, **options)
    here = SerialExecutor()
    with Resolver(resolve or 0) as names:
        executors = {"default": executor, _HERE: here, "counting": counter, "names": names}
        job = JOB.on(executors, plan=todo, counting=counter, top=top, keep_tally=keep_tally)
        wanted: Future[Any] = job.future("tables" if resolve is None else "report")
        try:
            counter.drive(wanted)
            result: Report = wanted.result()
        except KeyboardInterrupt as error:
            raise _interrupted(todo, counter, top, keep_tally) from error
    return result


def _interrupted(todo: Plan, counter: PartCounter, top: int, keep_tally: bool) -> Interrupted:
    interrupted = Interrupted()
    # The same graph, with what there is in the places of what was to be computed.
    job = JOB.on(
        {_HERE: SerialExecutor()},
        plan=todo,
        totals=counter.totals_so_far(),
        tallies=counter.receipts(),
        top=top,
        keep_tally=keep_tally,
    )
    with contextlib.suppress(FutureTimeout):
        interrupted.report = dataclasses.replace(job["tables"], partial=True)
    return interrupted
