"""Large arguments, functions that take them, and a count of what crosses the wire."""

from __future__ import annotations

import contextlib
import os
import time
import zlib
from array import array
from collections.abc import Iterator
from typing import Any

from daskexec_testing.gates import Gate

MIB = 1 << 20


class Table:
    """As a data frame: columns of numbers, no ``nbytes``, no buffer of its own."""

    def __init__(self, rows: int) -> None:
        self.columns = {"x": array("d", bytes(8 * rows)), "y": array("d", bytes(8 * rows))}

    def total(self, more: float = 0.0) -> float:
        return sum(self.columns["x"][:100]) + more


class Unreadable:
    """Large, and cannot be unpickled."""

    def __init__(self) -> None:
        self.data = bytes(2 * MIB)

    def __reduce__(self) -> Any:
        return _fail, (self.data,)


def _fail(data: bytes) -> Any:
    raise ValueError("cannot be unpickled")


def first(data: Any, index: int = 0, *, also: Any = None) -> tuple[int, int]:
    """First item of what comes first, or by ``also``."""
    return (data if also is None else also)[0], index


def inner_length(outer: list[Any]) -> int:
    return len(outer[0])


def described(data: Any, index: int = 0) -> tuple[type, int, int, int]:
    return type(data), len(data), zlib.crc32(data), index


def change(data: Any, index: int) -> int:
    """Change what was given in place; returns what was there before."""
    before = data[0]
    data[0] = index % 100 + 1
    return int(before)


_kept_arrays: list[Any] = []


def kept_array(size: int) -> Any:
    """An array that the worker process keeps, and changes at each call."""
    import numpy

    if not _kept_arrays:
        _kept_arrays.append(numpy.zeros(size))
    _kept_arrays[0] += 1
    return _kept_arrays[0]


def frozen_array(size: int) -> Any:
    import numpy

    data = numpy.zeros(size)
    data.flags.writeable = False
    return data


def same(one: Any, other: Any) -> bool:
    return one is other


def holds(one: Any, other: Any) -> bool:
    return one is other[0]


def hold(started: Gate, release: Gate, data: Any) -> int:
    started.open()
    release.wait()
    return len(data)


def pid_of(data: Any, index: int = 0, seconds: float = 0.0) -> int:
    time.sleep(seconds)
    return os.getpid()


def end_process(data: Any) -> None:
    os._exit(3)


class Wire:
    """Bytes that this process (client, and scheduler where it is here) and the workers write."""

    def __init__(self) -> None:
        self.written = 0


@contextlib.contextmanager
def counted() -> Iterator[Wire]:
    """Count what this process writes to the sockets of Dask's messages.

    Exact, and of nobody else: the sum of what ``TCP.write`` says it has written.
    """
    from distributed.comm.tcp import TCP

    wire = Wire()
    plain = TCP.write

    async def write(self: Any, *args: Any, **kwargs: Any) -> Any:
        size = await plain(self, *args, **kwargs)
        wire.written += size
        return size

    TCP.write = write  # type: ignore[method-assign]
    try:
        yield wire
    finally:
        TCP.write = plain  # type: ignore[method-assign]


def sent_by_workers(client: Any) -> int:
    """Bytes of values that the workers have sent to others, this process too."""
    return int(sum(client.run(_sent).values()))


def _sent(dask_worker: Any) -> int:
    return int(dask_worker.transfer_outgoing_bytes_total)


def kept_by_workers(client: Any) -> int:
    """Bytes of the large objects that the workers hold."""
    return int(sum(client.run(_kept).values()))


def _kept(dask_worker: Any) -> int:
    from daskexec._frames import Frames

    return sum(v.nbytes for v in dict(dask_worker.data).values() if isinstance(v, Frames))
