"""Keeping what a call writes and logs, for its future. Floor 1. Runs on workers.

While a captured call runs, ``sys.stdout`` and ``sys.stderr`` are stand-ins that ask at each write
who writes: a captured call, by the context variable `_capture`, or anybody else, whose text goes
where it went before. So calls on other threads of the process do not mix. Records of ``logging``
are seen as they are made, by the record factory: handlers and levels are left as they are, and
what a logger's level holds back is not made at all.

A new thread has an empty context (before Python 3.14). One that was not there when the call began
is counted as the call's, as long as no other captured call runs in the process.

Only Python's streams: what C code and child processes write to the descriptors 1 and 2 goes where
the worker's own output goes, since descriptors are the whole process's, all calls of it included.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import pickle
import sys
import threading
import traceback
from collections import deque
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import Any

from daskexec._pickling import PLAIN

__all__ = ["Capture", "capturing"]

#: Bytes of each stream that are kept of its start, and as many of its end.
HALF = 512 << 10
#: Records that are kept of the first ones, and as many of the last.
RECORDS = 500
#: Characters of a record's text that are kept.
TEXT = 8000

_STREAMS = ("stdout", "stderr")
#: Threads of others that may come while a call runs: their names begin so.
_OTHERS = ("Dask-", "daskexec", "IO loop", "Profile", "asyncio_")


class _Bytes:
    """The first and the last bytes of what is written. For any thread."""

    def __init__(self, half: int) -> None:
        self._half = half
        self._head, self._tail = bytearray(), bytearray()
        self._lock = threading.Lock()
        self._dropped = 0

    def add(self, data: bytes) -> None:
        with self._lock:
            room = self._half - len(self._head)
            if room > 0:
                self._head += data[:room]
                data = data[room:]
            self._tail += data
            if len(self._tail) > 2 * self._half:
                self._trim()

    def _trim(self) -> None:
        more = len(self._tail) - self._half
        if more > 0:
            self._dropped += more
            del self._tail[:more]

    def text(self) -> tuple[str, int]:
        """Return what is kept, and how many bytes are not."""
        with self._lock:
            self._trim()
            gap = b""
            if self._dropped:
                gap = b"\n[daskexec: %d bytes in between were not kept]\n" % self._dropped
            return (self._head + gap + self._tail).decode("utf-8", "replace"), self._dropped


class _Binary(io.BufferedIOBase):
    """``sys.stdout.buffer`` of a captured call."""

    def __init__(self, kept: _Bytes) -> None:
        self._kept = kept

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        blob = bytes(data)
        self._kept.add(blob)
        return len(blob)


class _Text(io.TextIOBase):
    """``sys.stdout`` of a captured call."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, kept: _Bytes) -> None:
        self._kept = kept
        self.buffer = _Binary(kept)

    def writable(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self._kept.add(text.encode("utf-8", "backslashreplace"))
        return len(text)


class Capture:
    """What one call writes and logs.

    Attributes
    ----------
    over : bool
        The call has ended: what its threads still write is not its output.
    alone : bool
        No other captured call has run in the process at the same time.
    """

    def __init__(self) -> None:
        self._kept = {name: _Bytes(HALF) for name in _STREAMS}
        self.streams = {name: _Text(kept) for name, kept in self._kept.items()}
        self._first: list[dict[str, Any]] = []
        self._last: deque[dict[str, Any]] = deque(maxlen=RECORDS)
        self._logged = 0
        self._newest: tuple[logging.LogRecord, dict[str, Any]] | None = None
        self._lock = threading.Lock()  # guards the records
        self._pid = os.getpid()
        self._others = set(threading.enumerate())
        self.over, self.alone = False, True

    def log(self, record: logging.LogRecord) -> None:
        """Keep a record that was just made."""
        with self._lock:
            if self._newest is not None and self._newest[0] is record:
                return  # by two factories, one around the other
            self._complete()
            told = _told(record)
            (self._first if len(self._first) < RECORDS else self._last).append(told)
            self._logged += 1
            self._newest = record, told

    def _complete(self) -> None:
        # What ``extra=`` says comes to a record after it was made.
        if self._newest is not None:
            record, told = self._newest
            for name, value in list(record.__dict__.items()):
                if name not in told and name not in ("args", "exc_info", "message"):
                    told[name] = value if type(value) in PLAIN else _safe(repr, value)
            self._newest = None

    def takes(self) -> bool:
        """Tell whether this process, where a child may have been forked, is the call's."""
        return not self.over and os.getpid() == self._pid

    def has_started(self, thread: threading.Thread) -> bool:
        """Tell whether a thread must be the call's, though not in its context."""
        return self.alone and thread not in self._others and not thread.name.startswith(_OTHERS)

    def pack(self) -> bytes:
        """Return all of it as plain values, pickled."""
        with self._lock:
            self._complete()
            records = [*self._first, *self._last]
            dropped = self._logged - len(records)
            texts = []
            for name in _STREAMS:
                text, lost = self._kept[name].text()
                texts.append(text)
                dropped += lost
            return pickle.dumps((*texts, records, dropped), 5)


def _told(record: logging.LogRecord) -> dict[str, Any]:
    """Return a record as plain values; its message and traceback as they are now."""
    told = {
        name: value
        for name, value in record.__dict__.items()
        if type(value) in PLAIN and name not in ("msg", "args", "exc_info", "message")
    }
    told["msg"] = _safe(type(record).getMessage, record)
    told["args"], told["exc_info"] = None, None
    error = record.exc_info
    if error and error[0] is not None and not record.exc_text:
        told["exc_text"] = _safe(lambda kinds: "".join(traceback.format_exception(*kinds)), error)
    return told


def _safe(make: Any, value: Any) -> str:
    try:
        text = str(make(value))
    except Exception as exc:
        text = f"<{type(value).__name__}: its text raised {type(exc).__name__}: {exc}>"
    return text if len(text) <= TEXT else text[:TEXT] + f"... ({len(text):,} characters)"


# --- who writes ---------------------------------------------------------------------------------

_capture: ContextVar[Capture | None] = ContextVar("daskexec_capture", default=None)
_lock = threading.Lock()  # guards what is below, and what stands in sys and logging
_active: list[Capture] = []


def _current() -> Capture | None:
    """Return what captures what this thread writes."""
    capture = _capture.get()
    if capture is not None:
        return capture if capture.takes() else None
    active = _active[:1]
    if active and active[0].takes() and active[0].has_started(threading.current_thread()):
        return active[0]
    return None


class _StandIn:
    """Stands in for ``sys.stdout`` or ``sys.stderr``: a captured call's own, or what was there."""

    def __init__(self, name: str, before: Any) -> None:
        self._name, self._before = name, before

    def _stream(self) -> Any:
        capture = _current()
        return self._before if capture is None else capture.streams[self._name]

    def write(self, text: str) -> Any:
        stream = self._stream()
        return len(text) if stream is None else stream.write(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        stream = self._stream()
        if stream is not None:
            stream.flush()

    def fileno(self) -> int:
        # The worker's: a child process may be given it.
        return int(self._before.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream(), name)


class _Factory:
    """Makes log records, as the factory that was there, and shows them to who captures."""

    def __init__(self, before: Any) -> None:
        self.before = before

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record: logging.LogRecord = self.before(*args, **kwargs)
        capture = _current()
        if capture is not None:
            capture.log(record)
        return record


@contextlib.contextmanager
def capturing() -> Iterator[Capture]:
    """Keep what this thread writes and logs in the body, and what it starts."""
    capture = Capture()
    token = _capture.set(capture)
    _begin(capture)
    try:
        yield capture
    finally:
        _end(capture)
        _capture.reset(token)


def _begin(capture: Capture) -> None:
    with _lock:
        _active.append(capture)
        if len(_active) > 1:
            for one in _active:
                one.alone = False
        for name in _STREAMS:
            before = getattr(sys, name)
            if not isinstance(before, _StandIn):
                setattr(sys, name, _StandIn(name, before))
        factory = logging.getLogRecordFactory()
        if not isinstance(factory, _Factory):
            logging.setLogRecordFactory(_Factory(factory))


def _end(capture: Capture) -> None:
    capture.over = True
    with _lock:
        _active.remove(capture)
        if _active:
            return
        for name in _STREAMS:
            now = getattr(sys, name)
            if isinstance(now, _StandIn):  # not replaced by the user's code
                setattr(sys, name, now._before)
        factory = logging.getLogRecordFactory()
        if isinstance(factory, _Factory):
            logging.setLogRecordFactory(factory.before)
