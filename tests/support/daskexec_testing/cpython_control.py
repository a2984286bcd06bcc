"""The harness over executors whose verdict is known: one that is right, one that is wrong."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from daskexec_testing import cpython


class RightExecutor(ProcessPoolExecutor):
    """The standard pool, started in a way that threads of other tests do not disturb."""

    def __init__(self, max_workers: int | None = None, mp_context: Any = None, **kw: Any) -> None:
        context = mp_context or multiprocessing.get_context("forkserver")
        super().__init__(max_workers, mp_context=context, **kw)


class WrongExecutor(RightExecutor):
    """A pool whose map gives its results backwards."""

    def map(self, fn: Callable[..., Any], *iterables: Iterable[Any], **kw: Any) -> Iterator[Any]:
        return iter(list(super().map(fn, *iterables, **kw))[::-1])


_WHERE = "daskexec_testing.cpython_control:RightExecutor"

RightExecutorTest = cpython.build("ExecutorTest", RightExecutor, __name__, "Right")
RightShutdownTest = cpython.build(
    "ExecutorShutdownTest",
    RightExecutor,
    __name__,
    "Right",
    **cpython.with_scripts("ExecutorShutdownTest", RightExecutor, _WHERE),
)
RightDeadlockTest = cpython.build(
    "ExecutorDeadlockTest", RightExecutor, __name__, "Right", TIMEOUT=30.0
)
WrongExecutorTest = cpython.build("ExecutorTest", WrongExecutor, __name__, "Wrong")
