"""What the soak has called. Each call first appends its number to a file: it has begun."""

from __future__ import annotations

import os
import signal
import time
from typing import Any, NoReturn

__all__ = ["fail", "filled", "kill", "leave", "length", "nap", "nested", "tiny"]


def _begin(journal: str, number: int) -> None:
    fd = os.open(journal, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(fd, b"%d\n" % number)  # one short write in append mode: never torn
    finally:
        os.close(fd)


def tiny(journal: str, number: int, value: int) -> int:
    _begin(journal, number)
    return value + 1


def nap(journal: str, number: int, seconds: float) -> str:
    _begin(journal, number)
    time.sleep(seconds)
    return "rested"


def fail(journal: str, number: int, value: int) -> NoReturn:
    _begin(journal, number)
    raise ValueError(value)


def length(journal: str, number: int, blob: bytes) -> int:
    _begin(journal, number)
    return len(blob)


def filled(journal: str, number: int, size: int) -> bytes:
    _begin(journal, number)
    return b"x" * size


def nested(journal: str, number: int, executor: Any, first: int, count: int) -> int:
    """Submit calls of its own and sum up what they come to."""
    _begin(journal, number)
    futures = [executor.submit(tiny, journal, first + i, i - 1) for i in range(count)]
    return sum(future.result(100) for future in futures)


def leave(journal: str, number: int) -> NoReturn:
    _begin(journal, number)
    os._exit(3)


def kill(journal: str, number: int) -> None:
    _begin(journal, number)
    os.kill(os.getpid(), signal.SIGKILL)
