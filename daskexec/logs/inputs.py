"""What was named on the command line, and what it stands for: files, their formats and parts.

Role: `expand` makes files out of folders and globs, `look` opens a file, chooses its format and
cuts it. Both run on the workers, which may see other files than the client does; `Stdin` is
the client's. Floor 10, part of the log job. Problems are not raised but told in what is
returned: one bad file must not keep the others from being counted.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import importlib
import io
import os
import socket
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from daskexec.logs.formats import SAMPLE_LINES, NotALog, choose_format
from daskexec.logs.split import Part, cut, first_lines, whole_lines
from daskexec.logs.streams import READ_ERRORS, compression_of, decompressed, is_url, reading
from daskexec.logs.tally import reason_of

__all__ = ["STDIN", "Found", "Looked", "Stdin", "expand", "look", "path_of", "place_of"]

STDIN = "-"

_BLOCK = 8 << 20  # bytes of stdin that one call is given, where parts are not smaller
_HEAD = 1 << 20
_CHUNK = 1 << 16


@dataclass(frozen=True)
class Found:
    """What one source stands for.

    Attributes
    ----------
    names
        Files, in order.
    problems
        Name and reason of what is none and cannot be looked into.
    """

    names: tuple[str, ...] = ()
    problems: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Looked:
    """A file that was looked at.

    Attributes
    ----------
    name
        As given, or as found.
    real
        What tells that two names are the same file.
    format
        Its format's name.
    parts
        Empty for an empty file.
    failure
        Why it cannot be counted; the rest says nothing then.
    """

    name: str
    real: str = ""
    format: str = ""
    parts: tuple[Part, ...] = ()
    failure: str | None = None


def path_of(name: str, folder: str) -> str:
    """Where a file is: a worker's working directory may be another one than the client's."""
    if is_url(name):
        return name.removeprefix("file://")
    return os.path.normpath(os.path.join(folder, name))


def place_of(home: str) -> str:
    """Where this runs, to be put after an error; nothing on the client's own host."""
    host = socket.gethostname()
    return "" if host == home else f" (as host {host} sees it, process {os.getpid()})"


# -- folders and globs ---------------------------------------------------------------------------


def expand(name: str, folder: str, home: str) -> Found:
    """List the files that a name stands for.

    Parameters
    ----------
    name
        As given: a file, a folder, a pattern, a URL or ``"-"``. What is found is named alike.
    folder, home
        Working directory and host of the client.

    Returns
    -------
    Found
        Of a folder: all files in it and below, sorted by name. Links to folders are followed,
        but into no folder that they lie in.
    """
    if name == STDIN:
        return Found((STDIN,))
    path = path_of(name, folder)
    try:
        with reading(path):
            if is_url(path):
                return _expand_url(path)
            if os.path.isdir(path):
                return _walk(name, folder, home)
            if not os.path.lexists(path) and glob.has_magic(name):
                return _glob(name, folder, home)
    except READ_ERRORS as error:
        return Found(problems=((name, reason_of(error) + place_of(home)),))
    return Found((name,))


def _expand_url(source: str) -> Found:
    if not glob.has_magic(source) and not source.endswith("/"):
        return Found((source,))
    if source.startswith(("http://", "https://")):
        return Found((source,))  # a `?` begins the query of an address; servers list no files
    core = importlib.import_module("fsspec.core")  # comes with Dask
    try:
        system, path = core.url_to_fs(source)
        paths = system.find(path) if source.endswith("/") else system.glob(path)
    except (ImportError, ValueError) as error:
        raise OSError(str(error)) from None
    if not paths:
        raise OSError("nothing is there")
    return Found(tuple(system.unstrip_protocol(path) for path in sorted(paths)))


def _glob(name: str, folder: str, home: str) -> Found:
    names: list[str] = []
    problems: list[tuple[str, str]] = []
    # Where a link leads to a folder that it lies in, `**` matches round and round: the
    # shortest name of a file is taken, which is not by way of the link.
    shortest: dict[str, str] = {}
    for matched in glob.iglob(name, root_dir=folder, recursive=True):
        real = os.path.realpath(path_of(matched, folder))
        if "**" not in name:
            real = matched
        if real not in shortest or len(matched) < len(shortest[real]):
            shortest[real] = matched
    for matched in sorted(shortest.values()):
        if not os.path.isdir(path_of(matched, folder)):
            names.append(matched)
        elif "**" not in name:  # else what is in it has matched
            found = _walk(matched, folder, home)
            names += found.names
            problems += found.problems
    if not names and not problems:
        problems.append((name, "no file matches" + place_of(home)))
    return Found(tuple(names), tuple(problems))


def _walk(top: str, folder: str, home: str) -> Found:
    names: list[str] = []
    problems: list[tuple[str, str]] = []
    waiting: list[tuple[str, frozenset[str]]] = [(top, frozenset())]  # with what is above it
    while waiting:
        name, above = waiting.pop()
        path = path_of(name, folder)
        real = os.path.realpath(path)
        if not os.path.isdir(path):
            names.append(name)
        elif real in above:
            problems.append((name, f"a link to {real}, in which it lies itself: not followed"))
        else:
            try:
                entries = sorted(os.listdir(path), reverse=True)
            except OSError as error:
                problems.append((name, reason_of(error) + place_of(home)))
                continue
            waiting += [(os.path.join(name, entry), above | {real}) for entry in entries]
    if not names and not problems:
        problems.append((top, "no file is in this folder" + place_of(home)))
    return Found(tuple(names), tuple(problems))


# -- one file ------------------------------------------------------------------------------------


def look(name: str, format: str, part_size: int, shares: int, home: str, folder: str) -> Looked:
    """Open a file, choose its format from its first lines, and cut it.

    Parameters
    ----------
    name
        As `expand` found it.
    format, part_size, shares
        As for ``daskexec.logs.job.plan`` and `daskexec.logs.split.cut`.
    home, folder
        Host and working directory of the client.
    """
    path = path_of(name, folder)
    try:
        parts = cut(path, part_size, shares)
        head = first_lines(parts[0], SAMPLE_LINES) if parts else []
        chosen = choose_format(head, format)
    except NotALog as error:
        return Looked(name, failure=str(error))
    except READ_ERRORS as error:
        return Looked(name, failure=_reason(error, path) + place_of(home))
    real = path if is_url(path) else os.path.realpath(path)
    return Looked(name, real, chosen.name, tuple(parts))


def _reason(error: BaseException, path: str) -> str:
    reason = reason_of(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOENT, errno.ELOOP):
        with contextlib.suppress(OSError):
            if stat.S_ISLNK(os.lstat(path).st_mode):
                return f"{reason}: it is a link to {os.readlink(path)}"
    return reason


# -- stdin ---------------------------------------------------------------------------------------


class Stdin:
    """Lines of a stream that can be read once, as parts that hold them.

    Used by the client's thread alone.

    Parameters
    ----------
    stream
        Binary; plain or compressed.
    part_size
        Most bytes of a part, or 8 MiB where that is less. A longer line is one part.
    format
        As for ``daskexec.logs.job.plan``.

    Attributes
    ----------
    looked
        What the first lines tell, which are read for that.
    """

    def __init__(self, stream: IO[bytes], part_size: int, format: str = "auto") -> None:
        self._size = min(part_size, _BLOCK)
        self._head = b""
        try:
            with reading(STDIN):
                magic = stream.read(8)
                kind = compression_of(magic)
                self._stream = decompressed(io.BufferedReader(_Pushed(magic, stream)), kind)
                while len(self._head) < _HEAD and self._head.count(b"\n") < SAMPLE_LINES:
                    chunk = self._stream.read(_CHUNK)
                    if not chunk:
                        break
                    self._head += chunk
            lines = first_lines(Part(STDIN, 0, 0, 0, content=self._head), SAMPLE_LINES)
            chosen = choose_format(lines, format)
        except NotALog as error:
            self.looked = Looked(STDIN, failure=str(error))
        except READ_ERRORS as error:
            self.looked = Looked(STDIN, failure=reason_of(error))
        else:
            self.looked = Looked(STDIN, STDIN, chosen.name)

    def parts(self, ordinal: int = 0) -> Iterator[Part]:
        """Read on, a part at a time; raises what reading raises."""
        with reading(STDIN):
            for number, content in enumerate(whole_lines(self._blocks()), ordinal):
                yield Part(STDIN, number, 0, len(content), content=content)

    def _blocks(self) -> Iterator[bytes]:
        block, self._head = self._head, b""
        while True:
            pieces, size = [block], len(block)
            while size < self._size:
                chunk = self._stream.read(min(_HEAD, self._size - size))
                if not chunk:
                    break
                pieces.append(chunk)
                size += len(chunk)
            if not size:
                return
            yield b"".join(pieces)
            block = b""


class _Pushed(io.RawIOBase):
    """A stream of which some first bytes were read already."""

    def __init__(self, head: bytes, stream: IO[bytes]) -> None:
        self._head, self._stream = head, stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._head[: len(buffer)] or self._stream.read(len(buffer))
        self._head = self._head[len(data) :]
        buffer[: len(data)] = data
        return len(data)
