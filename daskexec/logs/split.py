"""Files cut into parts, and parts read as blocks of whole lines.

Role: one part is what one call reads. A file is cut into ranges, each of which owns the lines
that *start* inside it: of a plain file ranges of its bytes; of a compressed one ranges of its
content, for which each call decompresses what lies before it too, and only parses its own.
Floor 10, part of the log job; runs wherever a file is looked at or a part is worked on.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import IO

from daskexec.logs.streams import (
    READ_ERRORS,
    compression_of,
    decompressed,
    open_raw,
    reading,
    size_of,
)

__all__ = [
    "DEFAULT_PART_SIZE", "READ_ERRORS", "Part", "cut", "first_bytes", "first_lines", "read_blocks",
    "whole_lines",
]  # fmt: skip

DEFAULT_PART_SIZE = 64 << 20
"""Bytes of a plain file that one call reads."""

BLOCK_SIZE = 1 << 17
_HEAD = 1 << 20
_LONGEST = 64 << 20  # bytes of a line: memory must not depend on what a file holds
_PROBE = 1 << 16
_SKIPPED = 1 << 20  # bytes of content that are decompressed and dropped at a time

_SLOW = {"bzip2"}
"""Decompressing takes longer than parsing: calls that skip would gain nothing."""

_STREAM = "stream"
"""The `compression` of a plain file that can only be read from its start."""


@dataclass(frozen=True)
class Part:
    """What one call reads: the lines of `path` that start in a range.

    Attributes
    ----------
    path
        The file, as the worker sees it, or a URL.
    ordinal
        The part's place among the parts of its file, from 0.
    start, stop
        Byte range of the file as it lies on disk. Of a compressed file it tells only how much
        of the whole this is.
    compression
        ``""``, ``"gzip"``, ``"bzip2"``, ``"xz"``, ``"zstd"``, or ``"stream"``: plain, of a
        size that is not known.
    begin, end
        Of a file that can only be read from its start: the range of its content, decompressed;
        an `end` of None is the content's end.
    content
        Whole lines that are to be counted themselves, as those of stdin; else None.
    """

    path: str
    ordinal: int
    start: int
    stop: int
    compression: str = ""
    begin: int = 0
    end: int | None = None
    content: bytes | None = field(default=None, repr=False)

    @property
    def size(self) -> int:
        """Bytes on disk, for the progress."""
        return self.stop - self.start


def cut(path: str, part_size: int = DEFAULT_PART_SIZE, shares: int = 1) -> list[Part]:
    """Cut one file into its parts; an empty file has none.

    Parameters
    ----------
    path
        A local path or a URL.
    part_size
        Most bytes of a plain file that are a part. Parts are of one size.
    shares
        Most parts of a compressed file; a plain one that is not a single part has a multiple of
        it. Each part of a compressed one is of `part_size` bytes of content at least, as
        far as the first bytes tell: what they tell wrong makes shares uneven, nothing else.

    Raises
    ------
    OSError
        If the file cannot be read, or is no regular file.
    """
    if part_size < 1:
        raise ValueError(f"part_size must be at least 1 byte, not {part_size}")
    with reading(path), open_raw(path) as stream:
        size = size_of(stream)
        kind = compression_of(stream.read(8))
        if size == 0:
            return []
        if size is None:
            return [Part(path, 0, 0, 0, kind or _STREAM)]
        if not kind:
            count = -(-size // part_size)
            if count > 1:
                # Alike, and so many that as many workers as `shares` end at the same time.
                count = min(size, -(-count // shares) * shares)
            edges = [size * i // count for i in range(count + 1)]
            return [Part(path, i, *edge) for i, edge in enumerate(pairwise(edges))]
        content = 0 if kind in _SLOW or shares < 2 else _content_size(stream, kind, size)
    count = max(1, min(shares, content // part_size))
    edges = [size * i // count for i in range(count + 1)]
    ends: list[int | None] = [content * i // count for i in range(1, count)]
    return [
        Part(path, i, edges[i], edges[i + 1], kind, begin or 0, end)
        for i, (begin, end) in enumerate(zip([0, *ends], [*ends, None], strict=True))
    ]


def _content_size(stream: IO[bytes], kind: str, size: int) -> int:
    """About how many bytes the content is, from how well the first bytes compress."""
    stream.seek(0)
    head = stream.read(_HEAD)
    content = decompressed(io.BytesIO(head), kind)
    found = 0
    with contextlib.suppress(*READ_ERRORS):  # most often the head's end
        while chunk := content.read(_PROBE):
            found += len(chunk)
    return found * size // len(head)


def first_lines(part: Part, count: int) -> list[bytes]:
    """Return up to `count` first lines of a file, given its first part.

    Looks at one mebibyte at most; a line cut off there counts as a line.
    """
    lines = first_bytes(part, _HEAD, count).split(b"\n", count)
    # What follows the last newline is a line only if something is there; beyond `count`
    # newlines it is the unsplit rest.
    if len(lines) > count or not lines[-1]:
        lines.pop()
    return [line.removesuffix(b"\r") for line in lines]


def first_bytes(part: Part, size: int, lines: int | None = None) -> bytes:
    """Return the first bytes of a file, given its first part: up to `size`.

    Stops where `lines` lines are there, some way behind them.
    """
    head = b""
    with reading(part.path), _opened(part) as stream:
        while len(head) < size and (lines is None or head.count(b"\n") < lines):
            chunk = stream.read(min(size - len(head), 2 * len(head) or _PROBE))
            if not chunk:
                break
            head += chunk
    return head


def read_blocks(part: Part, block_size: int = BLOCK_SIZE) -> Iterator[bytes]:
    """Read a part as blocks of whole lines, about `block_size` bytes each.

    Every block but perhaps the file's last ends with a newline.

    Raises
    ------
    EOFError
        If a compressed file is truncated, or a plain one became shorter meanwhile.
    OSError
        If it cannot be read, a library says that it is damaged, or a line has no end.
    """
    if part.content is not None:
        yield from whole_lines(_pieces(part.content, block_size))
        return
    with reading(part.path), _opened(part) as stream:
        if part.compression:
            yield from whole_lines(_content(stream, part.begin, part.end, block_size))
        else:
            begin = _next_line_start(stream, part.start)
            end = _next_line_start(stream, part.stop)
            if isinstance(stream, io.FileIO):
                yield from _blocks(stream, begin, end, block_size)
            else:  # to go back may be dear
                stream.seek(begin)
                yield from whole_lines(_exactly(stream, end - begin, block_size))


def whole_lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Cut chunks anew, such that each ends where a line ends, but perhaps the last one."""
    # A line longer than a chunk is gathered in pieces and joined once: joining at every
    # read would copy a long line over and over.
    pieces: list[bytes] = []
    length = 0
    for chunk in chunks:
        cut_at = chunk.rfind(b"\n") + 1
        length = len(chunk) - cut_at if cut_at else length + len(chunk)
        _check_line(length)
        if cut_at:
            pieces.append(chunk[:cut_at])
            yield b"".join(pieces)
            pieces = [chunk[cut_at:]] if cut_at < len(chunk) else []
        else:
            pieces.append(chunk)
    if pieces:
        yield b"".join(pieces)


@contextlib.contextmanager
def _opened(part: Part) -> Iterator[IO[bytes]]:
    if part.content is not None:
        yield io.BytesIO(part.content)
        return
    with open_raw(part.path) as raw:
        if part.compression in ("", _STREAM):
            yield raw
        else:
            with decompressed(raw, part.compression) as stream:
                yield stream


def _next_line_start(stream: IO[bytes], offset: int) -> int:
    """Where the first line that starts at or after `offset` starts, or where the file ends.

    A line starts at 0 and after every newline. So a range owns the bytes from
    ``next_line_start(start)`` to ``next_line_start(stop)``: neighbouring ranges meet
    exactly, wherever they are cut.
    """
    if offset == 0:
        return 0
    at = start = stream.seek(offset - 1)
    while chunk := stream.read(_PROBE):
        found = chunk.find(b"\n")
        if found >= 0:
            return at + found + 1
        at += len(chunk)
        _check_line(at - start)
    return at


def _blocks(file: io.FileIO, begin: int, end: int, block_size: int) -> Iterator[bytes]:
    """Blocks that end where a line ends as they are read, so that none has to be copied."""
    while begin < end:
        stop = end
        if begin + block_size < end:
            stop = min(end, _next_line_start(file, begin + block_size))
        file.seek(begin)
        size = max(1, stop - begin)  # 0 when the file ends here by now
        yield b"".join(_exactly(file, size, size))
        begin = stop


def _check_line(length: int) -> None:
    if length > _LONGEST:
        raise OSError(
            f"a line is longer than {_LONGEST >> 20} MiB: this is no log, or a damaged one"
        )


def _exactly(stream: IO[bytes], length: int, block_size: int) -> Iterator[bytes]:
    while length > 0:
        chunk = stream.read(min(block_size, length))
        if not chunk:
            raise EOFError("the file became shorter while it was read")
        length -= len(chunk)
        yield chunk


def _content(stream: IO[bytes], begin: int, end: int | None, block_size: int) -> Iterator[bytes]:
    """The lines of a stream that start in a range, in chunks: as `_next_line_start` has it."""
    at = 0
    chunk = b""
    if begin:
        while at < begin - 1:
            skipped = stream.read(min(_SKIPPED, begin - 1 - at))
            if not skipped:
                return  # the content is shorter than was thought
            at += len(skipped)
        while True:
            chunk = stream.read(block_size)
            if not chunk:
                return
            found = chunk.find(b"\n") + 1
            if found:
                at, chunk = at + found, chunk[found:]
                break
            at += len(chunk)
    while end is None or at < end:
        chunk = chunk or stream.read(block_size)
        if not chunk:
            return
        if end is not None and at + len(chunk) >= end:
            # The last line that starts before `end` goes on to the first newline from the
            # byte before `end` on.
            found = chunk.find(b"\n", max(0, end - 1 - at)) + 1
            if found:
                yield chunk[:found]
                return
            yield chunk
            yield from _to_newline(stream, block_size)
            return
        at += len(chunk)
        yield chunk
        chunk = b""


def _to_newline(stream: IO[bytes], block_size: int) -> Iterator[bytes]:
    while chunk := stream.read(block_size):
        found = chunk.find(b"\n") + 1
        yield chunk[:found] if found else chunk
        if found:
            return


def _pieces(content: bytes, size: int) -> Iterator[bytes]:
    return (content[at : at + size] for at in range(0, len(content), size))
