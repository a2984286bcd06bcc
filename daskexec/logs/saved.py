"""Saved tallies: what was counted, in a file, to be added to others later.

Role: `save` writes all that a report is made of, `merge_saved` makes the report of several such
files: to the byte the report of all their logs at once, in that order. Floor 10, part of the
log job.

The file: the line ``daskexec tally 1``, then gzip, in it MessagePack. It is data only, nothing
in it is run: plain values, and as extensions the few types of `_EXTENSIONS`. It holds an entry
for each distinct key; it is as private as the log is.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import astuple, fields, replace
from typing import Any

import msgpack

from daskexec.logs.report import Extract, FailedFile, LogFile, MalformedLine, Report
from daskexec.logs.tally import Tally, merge, reason_of

__all__ = ["VERSION", "NotSaved", "merge_saved", "save"]

VERSION = 1
"""Version of the file: raised when an older daskexec could not read it rightly."""

_MAGIC = b"daskexec tally "
_EXTENSIONS: dict[int, tuple[type, Callable[[Any], Any], Callable[[Any], Any]]] = {
    1: (Counter, dict, Counter),
    2: (tuple, list, tuple),
    3: (set, list, set),
    4: (int, str, int),  # those above 64 bits
}
"""By code: a type, how a value becomes a plain one, and the way back."""

_SAVED = [field.name for field in fields(Tally) if field.name != "arrays"]


class NotSaved(ValueError):
    """A file is no saved tally, or one that cannot be read; the message says why."""


def save(report: Report, path: str | os.PathLike[str]) -> None:
    """Write all that `report` is made of into a file; one that is there is replaced at once.

    Raises
    ------
    OSError
        If it cannot be written. A file that was there is left as it was.
    ValueError
        If the report has no tally.
    """
    if report.tally is None:
        raise ValueError("the report has no tally to save: make it with keep_tally=True")
    content = {
        "files": [astuple(file) for file in report.files],
        "failed": [astuple(file) for file in report.failed],
        "samples": [astuple(sample) for sample in report.samples],
        "partial": report.partial,
        "tally": {name: getattr(report.tally, name) for name in _SAVED},
    }
    temporary = f"{os.fspath(path)}.{os.getpid()}.part"
    try:
        with open(temporary, "wb") as stream:
            stream.write(b"%b%d\n" % (_MAGIC, VERSION))
            with gzip.GzipFile("", "wb", 1, stream, 0) as packed:
                packed.write(_pack(content))
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def merge_saved(paths: Iterable[str | os.PathLike[str]], top: int = 10) -> Report:
    """Make the report of all logs whose tallies were saved into some files.

    Parameters
    ----------
    paths
        Their order is that of the logs in the report.
    top
        Rows of the top tables.

    Returns
    -------
    Report
        Its ``failed`` also names the files of `paths` that could not be read.
    """
    files: list[LogFile] = []
    failed: list[FailedFile] = []
    samples: list[MalformedLine] = []
    whole = Tally()
    partial = False
    for path in paths:
        try:
            content = _load(path)
            new_files = [LogFile(*row) for row in content["files"]]
            new_failed = [FailedFile(*row) for row in content["failed"]]
            new_samples = [MalformedLine(*row) for row in content["samples"]]
            new_partial = bool(content["partial"])
            tally = _tally(content["tally"])
        except (NotSaved, OSError) as error:
            failed.append(FailedFile(os.fspath(path), reason_of(error)))
        except (KeyError, TypeError, AttributeError) as error:
            reason = f"not what a saved tally holds: {error!r}; save it again from its logs"
            failed.append(FailedFile(os.fspath(path), reason))
        else:
            files += new_files
            failed += new_failed
            samples += new_samples
            partial = partial or new_partial
            whole = merge(whole, tally)
    found = Extract.of(whole, top)
    return replace(Report.of(files, failed, samples, found, whole), partial=partial)


def _tally(values: dict[str, Any]) -> Tally:
    """Make the tally of what was read, if each value is of the type that it should be."""
    tally = Tally()
    for name in _SAVED:
        value, default = values.pop(name), getattr(tally, name)
        if type(value) is not type(default) and not (default is None and type(value) is tuple):
            raise TypeError(f"{name} is of type {type(value).__name__}")
        setattr(tally, name, value)
    if values:
        raise TypeError(f"{', '.join(values)} too much")
    return tally


def _load(path: str | os.PathLike[str]) -> dict[str, Any]:
    with open(path, "rb") as stream:
        head = stream.readline(len(_MAGIC) + 10)
        version = head[len(_MAGIC) :].strip()
        if not head.startswith(_MAGIC) or not version.isdigit():
            raise NotSaved("no saved tally; it was not written by --save")
        if int(version) != VERSION:
            raise NotSaved(
                f"a saved tally of version {int(version)}, and this daskexec reads {VERSION}: "
                "use the daskexec that wrote it, or save it again from its logs"
            )
        try:
            with gzip.GzipFile(fileobj=stream) as packed:
                content = _unpack(packed.read())
        except (EOFError, zlib.error, gzip.BadGzipFile, ValueError) as error:
            raise NotSaved(
                f"damaged or cut off ({str(error) or type(error).__name__}): "
                "save it again from its logs"
            ) from None
    if not isinstance(content, dict):
        raise NotSaved("no saved tally; it was not written by --save")
    return content


def _pack(value: Any) -> bytes:
    packed: bytes = msgpack.packb(value, default=_extended, strict_types=True)
    return packed


def _extended(value: Any) -> msgpack.ExtType:
    for code, (kind, plain, _) in _EXTENSIONS.items():
        if type(value) is kind:
            return msgpack.ExtType(code, _pack(plain(value)))
    raise TypeError(f"a {type(value).__name__} cannot be saved")


def _unpack(data: bytes) -> Any:
    return msgpack.unpackb(data, ext_hook=_back, strict_map_key=False, use_list=True)


def _back(code: int, data: bytes) -> Any:
    if code not in _EXTENSIONS:
        raise ValueError(f"extension {code} is not known")
    return _EXTENSIONS[code][2](_unpack(data))
