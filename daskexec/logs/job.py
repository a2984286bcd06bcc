"""The job: files -> parts -> one call a part -> merge -> report, on any executor.

Role: the only module of the log job that sees an executor, and it uses nothing but
``submit``. Floor 10, part of the log job.

All of it runs in the caller's thread; `daskexec.logs.tally.tally_part` runs on the
workers. Only so many calls are handed over at a time, so that neither waiting calls nor
unmerged results pile up; tallies are merged in the order in which they arrive, which the
report cannot tell.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass, field

from daskexec.logs.formats import SAMPLE_LINES as FIRST_LINES
from daskexec.logs.formats import NotALog, choose_format, find_format
from daskexec.logs.report import FailedFile, LogFile, Report
from daskexec.logs.split import DEFAULT_PART_SIZE, READ_ERRORS, Part, cut, first_lines
from daskexec.logs.tally import Counting, Tally, Unreadable, merge, reason_of, tally_part

__all__ = ["Plan", "Progress", "analyze", "plan", "run"]

Progress = Callable[[int, int], None]
"""Called in the caller's thread with the bytes done and the bytes in all: after each part,
and now and then while nothing comes in."""

_WINDOW = max(32, 4 * (os.cpu_count() or 1))
_HEARTBEAT = 0.25  # seconds


@dataclass(frozen=True)
class Plan:
    """What is to be counted.

    Attributes
    ----------
    files
        Each file that can be, with its parts.
    failed
        Each that cannot, with the reason.
    """

    files: tuple[tuple[LogFile, tuple[Part, ...]], ...]
    failed: tuple[FailedFile, ...]

    @property
    def size(self) -> int:
        """Bytes to read, as they lie on disk."""
        return sum(part.size for _, parts in self.files for part in parts)


def plan(
    files: Iterable[str | os.PathLike[str]],
    *,
    format: str = "auto",
    part_size: int = DEFAULT_PART_SIZE,
) -> Plan:
    """Look at the files, here and now: choose formats, cut parts, sort out what is no log.

    Parameters are those of `analyze`.
    """
    if format != "auto":
        find_format(format)
    if part_size < 1:
        raise ValueError(f"part_size must be at least 1 byte, not {part_size}")
    good: list[tuple[LogFile, tuple[Part, ...]]] = []
    failed: list[FailedFile] = []
    for file in files:
        name = os.fspath(file)
        try:
            # Absolute: a worker's working directory may be another one.
            parts = cut(os.path.abspath(name), part_size)
            head = first_lines(parts[0], FIRST_LINES) if parts else []
            chosen = choose_format(head, format)
        except NotALog as error:
            failed.append(FailedFile(name, str(error)))
        except READ_ERRORS as error:
            failed.append(FailedFile(name, reason_of(error)))
        else:
            good.append((LogFile(name, chosen.name), tuple(parts)))
    return Plan(tuple(good), tuple(failed))


def analyze(
    files: Iterable[str | os.PathLike[str]],
    executor: Executor,
    *,
    format: str = "auto",
    part_size: int = DEFAULT_PART_SIZE,
    top: int = 10,
    progress: Progress | None = None,
    counting: Counting | None = None,
) -> Report:
    """Report on access logs, in one pass over them.

    Parameters
    ----------
    files
        Paths, as the workers see them too. Plain, or compressed with gzip, bzip2 or xz.
    executor
        Any ``concurrent.futures.Executor``; it is used and left open.
    format
        ``"auto"`` (chosen for each file from its first lines), or a name or a format string
        as `find_format` takes it: ``"combined"``, ``'%h %l %u %t "%r" %>s %b'``.
    part_size
        Bytes of a plain file that one call reads. A compressed file is one call.
    top
        Rows of the top tables.
    progress
        Told how far it is.
    counting
        Which requests count, with which engine, and how many keys are kept:
        ``Counting(select(status="5xx"), max_keys=100_000)``.

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

    Examples
    --------
    >>> from concurrent.futures import ProcessPoolExecutor
    >>> with ProcessPoolExecutor() as executor:               # doctest: +SKIP
    ...     report = analyze(["access.log"], executor)
    >>> report.requests, report.top["paths"][0]               # doctest: +SKIP
    """
    todo = plan(files, format=format, part_size=part_size)
    return run(todo, executor, top=top, progress=progress, counting=counting)


@dataclass
class _State:
    """What is known of one file while the job runs."""

    file: LogFile
    tally: Tally = field(default_factory=Tally)
    failure: str | None = None


def run(
    todo: Plan,
    executor: Executor,
    *,
    top: int = 10,
    progress: Progress | None = None,
    window: int = _WINDOW,
    counting: Counting | None = None,
) -> Report:
    """Carry out a plan. Parameters are those of `analyze`, and `window`: most calls pending.

    If it is interrupted or the executor breaks, calls not yet begun are cancelled.
    """
    states = [_State(file) for file, _ in todo.files]
    work = _parts(todo, states)
    pending: dict[Future[Tally], tuple[_State, Part]] = {}
    size, done = todo.size, 0
    tell = progress or (lambda done, size: None)

    def settle(future: Future[Tally], state: _State, part: Part) -> None:
        nonlocal done
        _take(state, future)
        done += part.size
        tell(done, size)

    tell(0, size)
    try:
        while True:
            while len(pending) < window and (item := next(work, None)):
                state, part = item
                future = executor.submit(tally_part, part, state.file.format, counting)
                if future.done():
                    # An executor that runs calls at submit: the progress moves, and a
                    # Ctrl-C that hit the call is raised here, not after the window's rest.
                    settle(future, *item)
                else:
                    pending[future] = item
            if not pending:
                break
            finished, _ = wait(pending, timeout=_HEARTBEAT, return_when=FIRST_COMPLETED)
            for future in finished:
                settle(future, *pending.pop(future))
            if not finished:
                tell(done, size)
    finally:
        for future in pending:
            future.cancel()
    return Report.of(
        [(s.file, s.tally) for s in states if s.failure is None],
        [*todo.failed, *(FailedFile(s.file.name, s.failure) for s in states if s.failure)],
        top,
    )


def _parts(todo: Plan, states: list[_State]) -> Iterator[tuple[_State, Part]]:
    for state, (_, parts) in zip(states, todo.files, strict=True):
        for part in parts:
            if state.failure is None:  # else the rest of the file need not be read
                yield state, part


def _take(state: _State, future: Future[Tally]) -> None:
    try:
        tally = future.result()
    except Unreadable as error:
        # Which part's failure arrives first is chance; the report must not show it.
        reason = str(error)
        state.failure = reason if state.failure is None else min(state.failure, reason)
        state.tally = Tally()
    else:
        if state.failure is None:
            state.tally = merge(state.tally, tally)
