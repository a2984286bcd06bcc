"""The tally of one part: which engine reads it, and how.

Role: `tally_part` is the one function that runs on the workers, in any thread or process;
it and its arguments are importable and picklable for every executor. Floor 10, part of the
log job.

The cyclic garbage collector, which would visit each of the many fresh objects of a block
for nothing, is off meanwhile.
"""

from __future__ import annotations

import gc
import importlib.util
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

from daskexec.logs.counts import (
    MONTHS,
    PIECES,
    SAMPLES,
    Sample,
    Stamp,
    Tally,
    bound,
    highest,
    merge,
    pieces_of,
    settle,
)
from daskexec.logs.engines.stdlib import BLOCK_SIZE, StdlibEngine, target_of
from daskexec.logs.formats import LogFormat, find_format
from daskexec.logs.selection import Selection
from daskexec.logs.split import READ_ERRORS, Part, read_blocks

__all__ = [
    "ENGINES", "MONTHS", "PIECES", "SAMPLES", "Counting", "Sample", "Stamp", "Tally", "Unreadable",
    "bound", "collector_off", "highest", "merge", "pieces_of", "reason_of", "settle",
    "tally_blocks", "tally_part", "target_of",
]  # fmt: skip

ENGINES = ("auto", "stdlib", "arrow")
"""``auto``: `arrow` where numpy and pyarrow are installed, else `stdlib`."""


class Unreadable(Exception):
    """A part could not be read; the message is the reason. Raised on the workers."""


@dataclass(frozen=True)
class Counting:
    """How the lines of a part are counted; travels with each part.

    Attributes
    ----------
    selection
        Which requests count, and what is shown of them.
    engine
        One of `ENGINES`. A format that `arrow` has no columns for is read by `stdlib`.
    max_keys
        Most keys of a table that are kept, see `daskexec.logs.counts.bound`; 0: all.
    samples
        How many malformed lines are kept of a part.
    """

    selection: Selection = field(default_factory=Selection)
    engine: str = "auto"
    max_keys: int = 0
    samples: int = SAMPLES

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            known = ", ".join(ENGINES)
            raise ValueError(f"no engine is called {self.engine!r}; there are {known}")
        if self.max_keys < 0:
            raise ValueError(f"max_keys must be 0 or more, not {self.max_keys}")

    def check(self) -> None:
        """Raise ValueError if the engine that is asked for is not installed here."""
        if self.engine == "arrow" and not arrow_installed():
            raise ValueError(
                "the engine arrow needs numpy and pyarrow where the parts are read: "
                "pip install 'daskexec[logs]'; or take the engine stdlib"
            )


class Engine(Protocol):
    """What counts blocks of whole lines into a tally."""

    def add(self, block: bytes) -> None:
        """Count a block's lines."""

    def flush(self) -> None:
        """Bring what was added into the tally."""


def tally_part(part: Part, format_name: str, counting: Counting | None = None) -> Tally:
    """Read and count one part. Runs on the workers.

    Parameters
    ----------
    part
        What to read.
    format_name
        A format's ``name``.
    counting
        How; by default everything, by the best engine there is.

    Raises
    ------
    Unreadable
        With the reason, if the part cannot be read to its end.
    ValueError
        If the engine ``arrow`` was asked for and is not installed here.
    """
    counting, form = counting or Counting(), find_format(format_name)
    counting.check()
    try:
        with collector_off():
            blocks = read_blocks(part, block_size_for(form, counting.engine))
            return tally_blocks(blocks, form, part.ordinal, counting)
    except READ_ERRORS as error:
        raise Unreadable(reason_of(error)) from error


def reason_of(error: BaseException) -> str:
    """Say in a few words why a file could not be read, the same on every system."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, EOFError) and "end-of-stream" in str(error):
        return "truncated: the compressed data ends too early"
    return str(error) or type(error).__name__


def tally_blocks(
    blocks: Iterable[bytes], form: LogFormat, ordinal: int = 0, counting: Counting | None = None
) -> Tally:
    """Count the lines of blocks of whole lines, as `read_blocks` yields them."""
    counting = counting or Counting()
    tally = Tally(lines={ordinal: 0}, max_keys=counting.max_keys)
    engine = _engine(form, tally, ordinal, counting)
    for block in blocks:
        engine.add(block)
    engine.flush()
    if misfits := tally.lines[ordinal] - tally.requests - tally.excluded:
        tally.misfits[ordinal] = misfits
    return tally


def block_size_for(form: LogFormat, engine: str = "auto") -> int:
    """Bytes of a block that the engine for this format works on best."""
    if not _by_columns(form, engine):
        return BLOCK_SIZE
    from daskexec.logs.engines.arrow import BLOCK_SIZE as LARGE

    return LARGE


def _engine(form: LogFormat, tally: Tally, ordinal: int, counting: Counting) -> Engine:
    engine = StdlibEngine(form, tally, ordinal, counting.selection, counting.samples)
    if not _by_columns(form, counting.engine):
        return engine
    from daskexec.logs.engines.arrow import ArrowEngine  # numpy and pyarrow may be missing

    return ArrowEngine(engine)


def _by_columns(form: LogFormat, engine: str) -> bool:
    return engine != "stdlib" and bool(form.columns) and arrow_installed()


@lru_cache(maxsize=1)
def arrow_installed() -> bool:
    """Whether numpy and pyarrow are installed here."""
    return all(importlib.util.find_spec(name) is not None for name in ("numpy", "pyarrow"))


# Threads share one collector: the first call in turns it off, the last one out on again.
_collector_lock = threading.Lock()  # guards the two below
_collector_users = 0
_collector_was_on = False


@contextmanager
def collector_off() -> Iterator[None]:
    """Have the cyclic collector not look at the many fresh objects of a tally, for nothing."""
    global _collector_users, _collector_was_on
    with _collector_lock:
        if _collector_users == 0:
            _collector_was_on = gc.isenabled()
            gc.disable()
        _collector_users += 1
    try:
        yield
    finally:
        with _collector_lock:
            _collector_users -= 1
            if _collector_users == 0 and _collector_was_on:
                gc.enable()
