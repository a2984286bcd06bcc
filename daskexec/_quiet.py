"""Keeping the log of our own schedulers out of the user's terminal. Floor 0."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator

__all__ = ["quiet", "quiet_here"]

#: Idents of the threads that are kept quiet.
quiet: set[int | None] = set()


class _QuietThreads(logging.Filter):
    """Keeps the log of our own schedulers out of the user's terminal.

    What they would say (a worker died, a task was lost) the user's futures carry. Schedulers
    and clients that the user started log as ever: it goes by thread.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        return record.thread not in quiet


for _name in (
    "distributed.active_memory_manager",
    "distributed.diskutils",
    "distributed.scheduler",
    "distributed.core",
    "distributed.client",
    "distributed.comm",
    "distributed.comm.tcp",
    "distributed.batched",
    "distributed.deploy.adaptive",
    "distributed.deploy.adaptive_core",
    "distributed.deploy.spec",
    "distributed.deploy.cluster",
    "distributed.http.proxy",
    "distributed.stealing",
    "distributed.utils",
    "distributed.utils_perf",
    "distributed.protocol.core",
    "tornado.application",
):
    logging.getLogger(_name).addFilter(_QuietThreads())


@contextlib.contextmanager
def quiet_here() -> Iterator[None]:
    """Keep this thread quiet in the body."""
    ident = threading.get_ident()
    quiet.add(ident)
    try:
        yield
    finally:
        quiet.discard(ident)
