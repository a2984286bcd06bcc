"""What a future knows of its call, for people and programs: `CallInfo`, `CallOutput`. Floor 0.

Plain records, made when they are asked for. Where the numbers come from is `daskexec._records`'s.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime

__all__ = ["CallInfo", "CallOutput"]


@dataclass(frozen=True, slots=True)
class CallInfo:
    """What is known of a call at one moment: ``future.info()``.

    None stands for what is not known, not yet or at all.

    Parameters
    ----------
    name : str
        Of the function, or what ``with_options(name=)`` says.
    key : str
        Name of the call's task in Dask, as ``future.key``.
    worker, worker_name : str or None
        Address and name of the worker that runs the call, or ran it last. Of a call that ended
        with its worker: that worker.
    host : str or None
        Name of its machine.
    pid : int or None
        Its process.
    attempts : int
        How often workers have begun the call, as far as they could say so: 0 before it has
        begun. More than 1 after ``retries``, or when a worker was lost.
    submitted : datetime or None
        When it was submitted. None for a call of ``DaskExecutor.attach``.
    started, finished : datetime or None
        When the worker began it, and when it was over there: returned or raised, result pickled.
        None for a call that did not run, and `finished` for one that its worker did not survive.
    seconds : float or None
        How long it ran: unpickling, the function, pickling of the result.
    argument_bytes : int or None
        Bytes of its pickled arguments, large ones that were sent before included.
    result_bytes : int or None
        Bytes of its pickled result. None for a call that raised.
    shared : int or None
        How many calls its Dask task was made for; 1: for this one alone.
    exact : bool
        The numbers are those of this call. False: it shared a task, in which no clock is read
        between two calls. Then `seconds`, `argument_bytes` and `result_bytes` are means over the
        calls of the task, `started` is when the first of them was begun and `finished` when the
        last was over.

    Notes
    -----
    All times are aware, in UTC, and of this process's clock as far as that can be: workers
    measure by their own. Where those times do not lie between the sending of the task and the
    coming of its result, the worker's clock is off, and they are shifted by the least that puts
    them there. So ``submitted <= started <= finished`` always holds. A clock that is off by
    less than a call waited goes unnoticed; `seconds` does not depend on it.
    """

    name: str
    key: str
    worker: str | None = None
    worker_name: str | None = None
    host: str | None = None
    pid: int | None = None
    attempts: int = 0
    submitted: datetime | None = None
    started: datetime | None = None
    finished: datetime | None = None
    seconds: float | None = None
    argument_bytes: int | None = None
    result_bytes: int | None = None
    shared: int | None = None
    exact: bool = True


@dataclass(frozen=True, slots=True)
class CallOutput:
    """What a call wrote and logged on its worker: ``future.output``.

    Parameters
    ----------
    stdout, stderr : str
        What it wrote to ``sys.stdout`` and ``sys.stderr``. Of each the first and the last 512
        KiB; a line between them says how much was dropped.
    records : list of logging.LogRecord
        What it logged, in order: the first and the last 500. They hold text only: ``msg`` is the
        whole message, ``exc_text`` the traceback, and of ``extra`` what is no number or string
        is its ``repr``; each is cut at 8,000 characters. ``logging.getLogger(record.name)
        .handle(record)`` logs one here.
    dropped : int
        How many bytes and records were too many to be kept.
    """

    stdout: str
    stderr: str
    records: list[logging.LogRecord]
    dropped: int = 0
