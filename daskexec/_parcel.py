"""What crosses when an executor is left: calls, tasks under way, and later their results. Floor 4.

A `Parcel` goes from the dispatcher of the process that leaves to the keeper's, in a file. Users'
functions and arguments are in it as the bytes that would have been sent to a worker, and what
they come to is written down as the bytes that came from one: the keeper never loads them.
"""

from __future__ import annotations

import contextlib
import pickle
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

from daskexec._failures import Failure
from daskexec._frames import Frames, load_result
from daskexec._messages import Started
from daskexec.options import CallOptions

__all__ = [
    "Body",
    "KeptCall",
    "KeptTask",
    "Name",
    "Parcel",
    "ResultsReader",
    "ResultsWriter",
    "loaded",
]

#: What a call is asked for by after its executor was left.
Name = str | int
#: What a call came to; None: it was cancelled.
Body = bytes | Frames | Failure | None

_SIZE = struct.Struct("<Q")


@dataclass(slots=True)
class KeptCall:
    """A call that was left.

    Attributes
    ----------
    index : int
        Its number among all calls that were left with a cluster.
    name, number
        Of its future, which make its key.
    blob, carried
        As of `daskexec._tasks.Call`.
    large : tuple of str
        Keys of the large objects that it needs.
    resent, begun, alone, raised
        As of `daskexec._tasks.Call`.
    values : dict of str to Body
        What earlier calls came to whose values it needs, by their keys.
    """

    index: int
    name: str
    number: int
    blob: bytes
    carried: tuple[bytes, bool] | None
    options: CallOptions
    large: tuple[str, ...] = ()
    resent: int = 0
    begun: int = 0
    alone: bool = False
    values: dict[str, Any] = field(default_factory=dict)
    raised: int = 0


@dataclass(slots=True)
class KeptTask:
    """A task that a worker had begun, or may have, `ran` seconds ago.

    `members` that are over are None. `slot` is its place on the executor's board, where that
    has one.
    """

    key: str
    members: list[KeptCall | None]
    told: int
    options: CallOptions
    started: Started | None
    begun: int
    mixed: bool
    ran: float = 0.0
    slot: int = -1


@dataclass(slots=True)
class Parcel:
    """All that an executor leaves.

    Attributes
    ----------
    executor, topic : str
        Its id, and the topic to which the workers report on its `tasks`.
    sharing, ahead, limit
        Of its policy.
    initializer : bytes or None
        The workers have it already.
    calls, tasks
        What was not begun, in order, and what was.
    large : dict of str to Frames
        Large objects by key.
    finished : list of (int, Body)
        Calls that are over, by index.
    names : list of (Name, int, str)
        What each call is asked for by, its index, and the name of its function.
    """

    executor: str
    topic: str
    sharing: Any
    ahead: float
    limit: int | None
    initializer: bytes | None
    calls: list[KeptCall] = field(default_factory=list)
    tasks: list[KeptTask] = field(default_factory=list)
    large: dict[str, Frames] = field(default_factory=dict)
    finished: list[tuple[int, Body]] = field(default_factory=list)
    names: list[tuple[Name, int, str]] = field(default_factory=list)

    def dump(self, path: Path) -> None:
        """Write it to a new file."""
        with open(path, "xb") as file:
            pickle.dump(self, file, 5)

    @staticmethod
    def load(path: Path) -> Parcel:
        """Read a file that `dump` wrote."""
        with open(path, "rb") as file:
            parcel: Parcel = pickle.load(file)
        return parcel


class ResultsWriter:
    """Appends results to a file. For one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "ab")  # noqa: SIM115

    def add(self, index: int, body: Any) -> None:
        """Write down what a call came to; it is on its way to the disk when this returns."""
        if isinstance(body, Frames):
            body = _owned(body)
        elif isinstance(body, (bytearray, memoryview)):
            body = bytes(body)
        record = pickle.dumps((index, body), 5)
        self._file.write(_SIZE.pack(len(record)) + record)
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class ResultsReader:
    """Reads the results that have come since it was last asked. For one thread at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._position = 0

    def more(self) -> Iterator[tuple[int, Body]]:
        """Yield index and body of each; what is not yet written in full is for later."""
        with contextlib.suppress(FileNotFoundError), open(self.path, "rb") as file:
            file.seek(self._position)
            while True:
                head = file.read(_SIZE.size)
                if len(head) < _SIZE.size:
                    return
                (size,) = _SIZE.unpack(head)
                record = file.read(size)
                if len(record) < size:
                    return
                self._position += _SIZE.size + size
                yield pickle.loads(record)


def _owned(frames: Frames) -> Frames:
    """Copy a large value so that it is as writable, once it is read, as it was."""
    pairs = zip_longest(frames.buffers, frames.writable, fillvalue=False)
    buffers = [bytearray(data) if writable else bytes(data) for data, writable in pairs]
    return Frames(frames.key, frames.kind, frames.head, buffers, frames.writable)


def loaded(body: Any) -> tuple[Any, BaseException | None]:
    """Turn a body into value and error. Runs user code: what unpickles it."""
    if isinstance(body, Failure):
        return None, body.load()
    try:
        return load_result(body), None
    except BaseException as exc:
        return None, exc
