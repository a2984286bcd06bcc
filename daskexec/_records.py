"""What is known of a task that ran, kept by the futures of its calls. Floor 1.

One `Record` for each answer of a worker, however many calls it tells of: a future has a slot for
it and no more. Whoever asks a future makes a `CallInfo` out of it (`info_of`).
"""

from __future__ import annotations

import logging
import pickle
from array import array
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any, NamedTuple

from daskexec.info import CallInfo, CallOutput

__all__ = ["Record", "Where", "info_of", "under_way"]


class Where(NamedTuple):
    """A worker: address, name, host and process id; "" and 0 for what is not known of it."""

    worker: str = ""
    name: str = ""
    host: str = ""
    pid: int = 0


class Record:
    """What a worker has told of some calls of a task.

    Attributes
    ----------
    where : Where or None
        None: no worker has begun it.
    attempts : int
        Times that it was begun.
    shared : int
        Calls in the task.
    began, seconds : float or None
        When the first of them was begun, by the worker's clock, and how long all of them took.
    sent, received : float
        When the task was sent and the answer came, by ours.
    argument_bytes, result_bytes : float
        Means of a call.
    count : int
        Calls that it tells of.
    each : (sequence of int, sequence of float) or None
        Numbers of the futures and seconds of each, where those were measured.
    output : bytes
        What was captured of a call that was alone; packed.
    """

    __slots__ = (
        "argument_bytes",
        "attempts",
        "began",
        "count",
        "each",
        "output",
        "received",
        "result_bytes",
        "seconds",
        "sent",
        "shared",
        "where",
    )

    def __init__(
        self,
        where: Where | None,
        *,
        attempts: int = 0,
        shared: int = 1,
        count: int = 1,
        began: float | None = None,
        seconds: float | None = None,
        sent: float = 0.0,
        received: float = 0.0,
        argument_bytes: float | None = None,
        result_bytes: float | None = None,
        each: tuple[Sequence[int], Sequence[float]] | None = None,
        output: bytes = b"",
    ) -> None:
        self.where, self.attempts, self.shared, self.count = where, attempts, shared, count
        self.began, self.seconds, self.sent, self.received = began, seconds, sent, received
        self.argument_bytes, self.result_bytes = argument_bytes, result_bytes
        self.each, self.output = each, output

    def after(self, attempts: int) -> Record:
        """Return the same of a call that was begun `attempts` times before."""
        other = object.__new__(Record)
        for name in Record.__slots__:
            setattr(other, name, getattr(self, name))
        other.attempts += attempts
        return other

    def times(self, number: int) -> tuple[float | None, float | None, float | None]:
        """Return start, end and run time of the call of future `number`, by our clock."""
        began, seconds = self.began, self.seconds
        if not began:
            return None, None, None
        if seconds is None:
            return max(began, self.sent), None, None
        own = seconds / self.count
        if self.each is not None:
            index = self.each[0].index(number)
            own, began = self.each[1][index], began + sum(self.each[1][:index])
            seconds = own
        # The least shift that puts them between sending and receiving.
        began = max(self.sent, min(began, self.received - seconds))
        return began, max(began, min(began + seconds, self.received)), own

    def unpacked_output(self) -> CallOutput | None:
        """Return what was captured, if anything."""
        if not self.output:
            return None
        stdout, stderr, records, dropped = pickle.loads(self.output)
        return CallOutput(stdout, stderr, [logging.makeLogRecord(one) for one in records], dropped)


def numbers_of(calls: Sequence[Any]) -> array[int]:
    """Return the numbers of the futures of calls."""
    return array("q", [call.future._number for call in calls])


def under_way(call: Any) -> Record:
    """Return what is known of a call that is not settled: a `daskexec._tasks.Call`.

    Takes no lock: what changes meanwhile is seen before or after.
    """
    task, blob = call.task, call.blob
    started = task.started if task is not None else None
    sizes = None if blob is None else len(blob) + sum(one.place.size for one in call.large)
    if started is None:
        return Record(None, attempts=call.begun, shared=0, argument_bytes=sizes)
    return Record(
        Where(started.worker, started.name, started.host, started.pid),
        attempts=max(1, task.begun) + call.begun,
        shared=len(task.load),
        began=started.began,
        sent=task.sent_at,
        argument_bytes=sizes,
    )


def info_of(
    name: str, key: str, number: int, submitted: float, record: Record | None, failed: bool
) -> CallInfo:
    """Put together what is known of a call.

    Parameters
    ----------
    number : int
        Of its future.
    submitted : float
        When, in seconds since the epoch; 0 if not known.
    record : Record, optional
    failed : bool
        It raised.
    """
    if record is None:
        return CallInfo(name, key, submitted=_moment(submitted))
    where = record.where or Where()
    began, ended, seconds = record.times(number)
    if began is not None:
        began = max(began, submitted)
        ended = None if ended is None else max(began, ended)
    return CallInfo(
        name,
        key,
        worker=where.worker or None,
        worker_name=where.name or None,
        host=where.host or None,
        pid=where.pid or None,
        attempts=record.attempts,
        submitted=_moment(submitted),
        started=_moment(began),
        finished=_moment(ended),
        seconds=seconds,
        argument_bytes=_bytes(record.argument_bytes),
        result_bytes=None if failed else _bytes(record.result_bytes),
        shared=record.shared or None,
        exact=record.shared <= 1,
    )


def _moment(seconds: float | None) -> datetime | None:
    return datetime.fromtimestamp(seconds, timezone.utc) if seconds else None


def _bytes(size: float | None) -> int | None:
    return None if size is None else round(size)
