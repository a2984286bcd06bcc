"""Opening what is read: local files and URLs, plain or compressed.

Role: the only module of the log job that knows libraries of compression and fsspec. Floor 10,
part of the log job; runs wherever a part is worked on. A file's first bytes tell how it is
compressed, not its name.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import importlib
import io
import lzma
import os
import re
import stat
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "READ_ERRORS", "compression_of", "decompressed", "is_url", "open_raw", "reading", "size_of",
]  # fmt: skip

READ_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError)
"""What reading a missing, unreadable, truncated or damaged file raises."""

_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(?:://|::)")
_LIBRARIES = (
    "isal",
    "igzip_lib",
    "zstandard",
    "zstd",
    "compression",
    "_zstd",
)  # whose errors are their own
_PIECE = 1 << 17  # compressed bytes that are decompressed at a time


def is_url(path: str) -> bool:
    """Whether a path is for fsspec: ``s3://...``, ``https://...``, ``zip://...::file``."""
    return _URL.match(path) is not None


def compression_of(head: bytes) -> str:
    """``"gzip"``, ``"bzip2"``, ``"xz"``, ``"zstd"`` or ``""``, by a file's first bytes."""
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), "")


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Turn whatever a library behind fsspec, or of compression, raises into one of `READ_ERRORS`.

    Those libraries have errors of their own, which may be missing, or no module at all, where
    the exception arrives.
    """
    try:
        yield
    except READ_ERRORS:
        raise
    except Exception as error:
        if is_url(path) or type(error).__module__.split(".")[0] in _LIBRARIES:
            raise OSError(f"{type(error).__name__}: {error}") from None
        raise


def open_raw(path: str) -> IO[bytes]:
    """Open a file as it lies there, unbuffered where it is local.

    Raises
    ------
    OSError
        If it cannot be opened, or is neither a regular file nor a URL that fsspec knows.
    """
    if is_url(path):
        return _open_url(path)
    mode = os.stat(path).st_mode  # before it is opened: that would wait for a pipe's writer
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # of a folder open says it itself
        raise OSError("not a regular file (a pipe cannot be cut into parts; `-` reads stdin)")
    return open(path, "rb", buffering=0)


def size_of(stream: IO[bytes]) -> int | None:
    """Bytes of an open file as it lies there; None where a server does not tell."""
    if isinstance(stream, io.FileIO):
        return os.fstat(stream.fileno()).st_size
    if hasattr(stream, "size"):  # fsspec's files, most of them
        return cast("int | None", stream.size)
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    return size


def decompressed(stream: IO[bytes], kind: str) -> IO[bytes]:
    """The content of a compressed stream; `kind` as `compression_of` says it.

    Raises
    ------
    OSError
        If what reads zstd is not installed.
    """
    if kind == "gzip":
        return cast("IO[bytes]", _gzip_file()(fileobj=stream, mode="rb"))
    if kind == "bzip2":
        return bz2.BZ2File(stream)
    if kind == "xz":
        return lzma.LZMAFile(stream)
    if kind == "zstd":
        return _zstd(stream)
    return stream


def _gzip_file() -> Callable[..., Any]:
    """gzip.GzipFile, or the one of isal, which is quicker, where that is installed."""
    try:
        return cast("Callable[..., Any]", importlib.import_module("isal.igzip").IGzipFile)
    except ImportError:
        return gzip.GzipFile


def _zstd(stream: IO[bytes]) -> IO[bytes]:
    if sys.version_info >= (3, 14):
        return cast("IO[bytes]", importlib.import_module("compression.zstd").ZstdFile(stream))
    try:
        zstandard = importlib.import_module("zstandard")
    except ImportError:
        raise OSError(
            "compressed with zstd, which needs the package zstandard where it is read: "
            "pip install zstandard"
        ) from None
    return io.BufferedReader(_Frames(stream, zstandard), _PIECE)


class _Frames(io.RawIOBase):
    """The content of zstd frames. zstandard's own reader takes a truncated frame for the end."""

    def __init__(self, stream: IO[bytes], zstandard: Any) -> None:
        self._stream = stream
        self._start = zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj
        self._frame: Any = None  # None between two frames
        self._input = self._output = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._output:
            self._input = self._input or self._stream.read(_PIECE)
            if not self._input:
                if self._frame is not None:
                    raise EOFError("the zstd data ended before the end-of-stream marker")
                return 0
            if self._frame is None:
                self._frame = self._start()
            self._output, self._input = self._frame.decompress(self._input), b""
            if self._frame.eof:
                self._input, self._frame = self._frame.unused_data, None
        size = min(len(buffer), len(self._output))
        buffer[:size] = self._output[:size]
        self._output = self._output[size:]
        return size


def _open_url(path: str) -> IO[bytes]:
    try:
        core = importlib.import_module("fsspec.core")  # comes with Dask
        system, name = core.url_to_fs(path)
        return cast("IO[bytes]", system.open(name, "rb"))
    except READ_ERRORS as error:
        if isinstance(error, FileNotFoundError) and not error.strerror:  # it says the path only
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from None
        raise
    except ImportError as error:  # "Install s3fs to access S3"
        raise OSError(f"{error}: with pip, where the file is read") from None
    except ValueError as error:  # no such protocol
        raise OSError(str(error)) from None
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}") from None
