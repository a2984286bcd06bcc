"""How far the job is: bytes done, rate and time left, on stderr.

Role: `showing` makes what ``daskexec.logs.job.run`` tells its progress to. Floor 10, part of the
log job; in the caller's thread, without a thread of its own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from daskexec.logs.counting import Progress

__all__ = ["showing", "told"]

_EVERY = 5.0  # seconds between lines


@contextmanager
def showing(stream: TextIO, wanted: bool | None = None) -> Iterator[Progress | None]:
    """What shows the progress on a stream.

    Parameters
    ----------
    stream
        stderr, most often.
    wanted
        True: a bar on a terminal, and a line every 5 seconds elsewhere, such as in the log of
        a queue's job. None: only on a terminal. False: nothing.
    """
    terminal = stream.isatty()
    if wanted is False or (wanted is None and not terminal):
        yield None
    elif terminal:
        with _bar(stream) as tell:
            yield tell
    else:
        yield _lines(stream)


@contextmanager
def _bar(stream: TextIO) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    # No refresh thread: a process pool may fork, and a fork with threads about can hang.
    with Progress(
        TextColumn("reading"),
        BarColumn(bar_width=None),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(file=stream),
        auto_refresh=False,
        transient=True,
    ) as bar:
        task = bar.add_task("", total=None)

        def tell(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total or None, refresh=True)

        yield tell


def _lines(stream: TextIO) -> Progress:
    began = said = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said >= _EVERY:
            said = now
            print(told(done, total, now - began), file=stream, flush=True)

    return tell


def told(done: int, total: int, seconds: float) -> str:
    """Say in a line how far it is after some seconds; a `total` of 0 is not known.

    >>> told(12_300_000_000, 40_000_000_000, 60)
    'reading: 12.3 GB of 40.0 GB (30 %), 205 MB/s, 2:15 left'
    """
    from daskexec.logs.words import human_bytes

    rate = done / seconds if seconds else 0.0
    line = f"reading: {human_bytes(done)}"
    if total:
        line += f" of {human_bytes(total)} ({100 * done // total} %)"
    line += f", {human_bytes(rate)}/s"
    if total and rate:
        line += f", {_clock((total - done) / rate)} left"
    return line


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
