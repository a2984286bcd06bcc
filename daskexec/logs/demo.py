r"""A made-up log of any size, and what a report on it must say.

Role: something to try the log job on, to measure it with, and a check of it. Floor 10, part
of the log job.

The log is a week of a small site: few paths with most of the hits, day and night, regular
visitors and ever new ones, crawlers, probes for holes, odd requests (``-``, empty, HTTP/0.9,
binary), user names with spaces, IPv6, escapes such as ``\"`` and ``\x16``, bytes that are no
UTF-8, ``-`` for bytes, fields too many, ``\r\n``, a few malformed lines. The generator keeps
count of what it writes from what it *decided*; it never parses a line. So its numbers and
the report's are arrived at independently.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO, Any, cast

from daskexec.logs.demo_log import DemoLog
from daskexec.logs.report import Report

__all__ = ["COMPRESSIONS", "Demo", "DemoLog", "differences", "lines_for", "make_log", "write_demo"]

LINES = 50_000


def _zstd(stream: IO[bytes]) -> IO[bytes]:
    try:
        from compression import zstd as module  # from Python 3.14 on
    except ImportError:
        try:
            import zstandard as module
        except ImportError:
            raise RuntimeError(
                "writing .zst needs the package zstandard (pip install zstandard), or Python 3.14"
            ) from None
    opened: IO[bytes] = module.open(stream, "wb")
    return opened


COMPRESSIONS: dict[str, Callable[[IO[bytes]], IO[bytes]]] = {
    "": lambda stream: stream,
    # No name and no time in it: a seed gives the same bytes.
    "gz": lambda stream: cast("IO[bytes]", gzip.GzipFile("", "wb", 6, stream, 0)),
    "bz2": lambda stream: cast("IO[bytes]", bz2.BZ2File(stream, "wb")),
    "xz": lambda stream: cast("IO[bytes]", lzma.LZMAFile(stream, "wb", preset=1)),  # noqa: SIM115
    "zst": _zstd,
}
"""How a log can be written, by the ending of its file's name."""


@dataclass(frozen=True)
class Demo:
    """What was written where, and what is expected of a report.

    Attributes
    ----------
    paths
        The log's files by compression, a key of `COMPRESSIONS`; all hold the same lines.
    expected
        The JSON file of `expectation`.
    lines, size
        Lines, and bytes of the plain log.
    expectation
        The sections of the report's JSON that do not depend on file names.
    """

    paths: dict[str, str]
    expected: str
    lines: int
    size: int
    expectation: dict[str, Any]

    @property
    def plain(self) -> str:
        """The log as it is."""
        return self.paths[""]

    @property
    def gzip(self) -> str:
        """The same, compressed with gzip."""
        return self.paths["gz"]


def write_demo(
    folder: str | os.PathLike[str],
    *,
    seed: int = 1,
    lines: int = LINES,
    top: int = 10,
    format: str = "combined",
    compressions: Sequence[str] = ("", "gz"),
) -> Demo:
    """Write ``access.log`` and its compressed likes, and ``expected.json``, into `folder`.

    Parameters
    ----------
    folder
        Made if it is not there.
    seed
        The same seed gives the same bytes.
    lines
        How many, malformed ones included; `lines_for` tells how many make up a size.
    top
        Rows of the top tables that are expected.
    format
        ``"common"``, ``"combined"`` or ``"vhost_combined"``.
    compressions
        Keys of `COMPRESSIONS`: a file for each.

    Raises
    ------
    RuntimeError
        If zstd is asked for and nothing is installed that writes it.
    """
    log = DemoLog(seed, lines, format)
    os.makedirs(folder, exist_ok=True)
    paths = {
        ending: os.path.join(folder, "access.log" + (f".{ending}" if ending else ""))
        for ending in compressions
    }
    with ExitStack() as stack:
        streams = []
        for ending, path in paths.items():
            raw = stack.enter_context(open(path, "wb"))
            streams.append(stack.enter_context(COMPRESSIONS[ending](raw)))
        for block in log:
            for stream in streams:
                stream.write(block)
    expectation = log.expectation(top)
    expected = os.path.join(folder, "expected.json")
    with open(expected, "w", encoding="ascii") as text:
        json.dump(expectation, text, indent=2, sort_keys=True)
        text.write("\n")
    return Demo(paths, expected, lines, log.size, expectation)


def lines_for(size: int, format: str = "combined", seed: int = 1) -> int:
    """Tell how many lines make up about `size` bytes of plain log (within 3 %)."""
    sample = DemoLog(seed, 20_000, format)
    for _ in sample:
        pass
    return max(1, round(size * 20_000 / sample.size))


def differences(demo: Demo, report: Report) -> list[str]:
    """Compare a report with what the generator expects; a line for each that differs."""
    said, wanted = report.to_dict(), dict(demo.expectation)
    sections = [(name, wanted[name], said[name]) for name in wanted if name != "top"]
    sections += [(f"top {t}", rows, said["top"].get(t)) for t, rows in wanted["top"].items()]
    return [
        f"{name}: expected {json.dumps(right)[:300]}, reported {json.dumps(found)[:300]}"
        for name, right, found in sections
        if found != right
    ]


def make_log(
    seed: int, lines: int, top: int = 10, format: str = "combined"
) -> tuple[bytes, dict[str, Any]]:
    """Make up a log; return its bytes and what a report on it must say.

    The latter are the sections of the report's JSON that do not depend on file names.
    """
    log = DemoLog(seed, lines, format)
    return b"".join(log), log.expectation(top)
