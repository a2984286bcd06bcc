"""Files cut into parts, and parts read as blocks of whole lines.

Role: one part is what one call reads. A plain file is cut into byte ranges, each of which
owns the lines that *start* inside it; a compressed file is one part. Floor 10, part of the
log job: `plan_file` runs at the client, `read_blocks` wherever the part is worked on.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, cast

__all__ = ["DEFAULT_PART_SIZE", "READ_ERRORS", "Part", "cut", "first_lines", "read_blocks"]

DEFAULT_PART_SIZE = 64 << 20
"""Bytes of a plain file that one call reads."""

BLOCK_SIZE = 1 << 17
_HEAD = 1 << 20
_PROBE = 1 << 16

READ_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError)
"""What reading a missing, unreadable, truncated or damaged file raises."""

_MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


@dataclass(frozen=True)
class Part:
    """What one call reads: the lines of `path` that start in bytes `start` to `stop`.

    Attributes
    ----------
    path
        The file, as the worker sees it.
    ordinal
        The part's place among the parts of its file, from 0.
    start, stop
        Byte range of the file as it lies on disk; the whole file if it is compressed.
    compression
        ``""``, ``"gzip"``, ``"bzip2"`` or ``"xz"``.
    """

    path: str
    ordinal: int
    start: int
    stop: int
    compression: str = ""

    @property
    def size(self) -> int:
        """Bytes on disk, for the progress."""
        return self.stop - self.start


def cut(path: str, part_size: int = DEFAULT_PART_SIZE) -> list[Part]:
    """Cut one file into its parts; an empty file has none.

    The compression is told from the file's first bytes, not from its name.

    Raises
    ------
    OSError
        If the file cannot be read, is no regular file, or is compressed with zstd.
    """
    if part_size < 1:
        raise ValueError(f"part_size must be at least 1 byte, not {part_size}")
    with open(path, "rb") as stream:
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError("not a regular file (a pipe cannot be cut into parts)")
        head = stream.read(8)
    size = status.st_size
    kind = next((name for magic, name in _MAGIC.items() if head.startswith(magic)), "")
    if kind == "zstd":
        raise OSError("compressed with zstd, which is not read yet; gzip, bzip2 and xz are")
    step = size if kind else part_size
    if size == 0:
        return []
    starts = range(0, size, step)
    return [Part(path, i, at, min(at + step, size), kind) for i, at in enumerate(starts)]


def first_lines(part: Part, count: int) -> list[bytes]:
    """Return up to `count` first lines of a file, given its first part.

    Looks at one mebibyte at most; a line cut off there counts as a line.
    """
    with _open(part) as stream:
        head = stream.read(_HEAD)
    lines = head.split(b"\n", count)
    # What follows the last newline is a line only if something is there; beyond `count`
    # newlines it is the unsplit rest.
    if len(lines) > count or not lines[-1]:
        lines.pop()
    return [line.removesuffix(b"\r") for line in lines]


def read_blocks(part: Part, block_size: int = BLOCK_SIZE) -> Iterator[bytes]:
    """Read a part as blocks of whole lines, about `block_size` bytes each.

    Every block but perhaps the file's last ends with a newline.

    Raises
    ------
    EOFError
        If a compressed file is truncated, or a plain one became shorter meanwhile.
    """
    with _open(part) as stream:
        if part.compression:
            yield from _whole_lines(stream, None, block_size)
        else:
            begin = _next_line_start(stream, part.start)
            end = _next_line_start(stream, part.stop)
            stream.seek(begin)
            yield from _whole_lines(stream, end - begin, block_size)


def _open(part: Part) -> IO[bytes]:
    if part.compression == "gzip":
        return cast("IO[bytes]", gzip.open(part.path, "rb"))
    if part.compression == "bzip2":
        return bz2.open(part.path, "rb")
    if part.compression == "xz":
        return lzma.open(part.path, "rb")
    return open(part.path, "rb", buffering=0)


def _next_line_start(stream: IO[bytes], offset: int) -> int:
    """Where the first line that starts at or after `offset` starts, or where the file ends.

    A line starts at 0 and after every newline. So a range owns the bytes from
    ``next_line_start(start)`` to ``next_line_start(stop)``: neighbouring ranges meet
    exactly, wherever they are cut.
    """
    if offset == 0:
        return 0
    at = stream.seek(offset - 1)
    while chunk := stream.read(_PROBE):
        found = chunk.find(b"\n")
        if found >= 0:
            return at + found + 1
        at += len(chunk)
    return at


def _whole_lines(stream: IO[bytes], length: int | None, block_size: int) -> Iterator[bytes]:
    # A line longer than a block is gathered in pieces and joined once: joining at every
    # read would copy a long line over and over.
    pieces: list[bytes] = []
    while length is None or length > 0:
        chunk = stream.read(block_size if length is None else min(block_size, length))
        if not chunk:
            if length is not None:
                raise EOFError("the file became shorter while it was read")
            break
        if length is not None:
            length -= len(chunk)
        cut_at = chunk.rfind(b"\n") + 1
        if cut_at:
            pieces.append(chunk[:cut_at])
            yield b"".join(pieces)
            pieces = [chunk[cut_at:]] if cut_at < len(chunk) else []
        else:
            pieces.append(chunk)
    if pieces:
        yield b"".join(pieces)
