"""Making the records of tasks from what workers and Dask say of them. Floor 4."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import Any

from daskexec._calls import Outcome
from daskexec._records import Record, Where, numbers_of
from daskexec._tasks import Stretch, Task

__all__ = ["begun", "died", "killed", "ran"]


@lru_cache(maxsize=256)
def _where(worker: str, name: str, host: str, pid: int) -> Where:
    """Return one object for all the records of a worker."""
    return Where(worker, name, host, pid)


def ran(task: Task, outcome: Outcome) -> Record | None:
    """Return what an outcome tells of the calls of a task; None for items of a map."""
    calls, started, shared = task.load, task.started, len(task.load)
    if isinstance(calls, Stretch):
        return None
    if outcome.place is not None:
        where = _where(*outcome.place, outcome.pid)
    elif started is not None and started.pid == outcome.pid:
        where = _where_started(task)
    else:
        where = _where("", "", "", outcome.pid)
    seconds = outcome.seconds
    each = None
    if task.mixed and len(seconds) == outcome.count:
        told = calls[outcome.first : outcome.first + outcome.count]
        each = numbers_of(told), seconds
    return Record(
        where,
        attempts=max(1, task.begun),
        shared=shared,
        count=max(1, outcome.count),
        began=outcome.began or None,
        seconds=sum(seconds) if seconds else None,
        sent=task.sent_at,
        received=time.time(),
        argument_bytes=_argument_bytes(task),
        result_bytes=outcome.size() / max(1, outcome.count),
        each=each,
        output=outcome.output,
    )


def begun(task: Task) -> Record:
    """Return what is known of a task that is not over, or will never be."""
    started = task.started
    return Record(
        None if started is None else _where_started(task),
        attempts=task.begun,
        shared=len(task.load),
        began=None if started is None else started.began or None,
        sent=task.sent_at,
        argument_bytes=_argument_bytes(task),
    )


def died(task: Task, where: Where) -> Record:
    """Return what is known of a task whose worker has died under it, on this machine."""
    started, record = task.started, begun(task)
    if started is not None and started.pid == where.pid:
        where = where._replace(worker=started.worker)
    else:
        record.began = None
    record.where = where
    record.attempts = max(1, record.attempts)
    return record


def killed(task: Task, error: Any) -> Record:
    """Return what is known of a task that Dask gave up, by its ``KilledWorker``."""
    record, last = begun(task), getattr(error, "last_worker", None)
    record.attempts = max(1, record.attempts)
    if last is not None and (record.where is None or record.where.worker != last.address):
        host = last.address.rpartition(":")[0].rpartition("/")[2]
        record.where, record.began = _where(last.address, str(last.name), host, 0), None
    return record


def _argument_bytes(task: Task) -> float:
    size, calls = task.argument_bytes, task.load
    if not isinstance(calls, Stretch) and len(calls) == 1:
        size += sum(large.place.size for large in calls[0].large)
    return size


def _where_started(task: Task) -> Where:
    started = task.started
    assert started is not None
    return _where(started.worker, started.name, started.host, started.pid)
