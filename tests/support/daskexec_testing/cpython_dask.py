"""CPython's tests of concurrent.futures over DaskExecutor, however it shares its tasks."""

from __future__ import annotations

import multiprocessing
import sys
import unittest
from pickle import UnpicklingError
from typing import Any
from unittest import mock

from daskexec import DaskExecutor, RemoteTraceback
from daskexec_testing import cpython
from daskexec_testing.executors import AloneDaskExecutor, SharedDaskExecutor

_FAIL_AFTER = 30.0

OWN_ERRORS = {
    "test_error_at_task_unpickle": UnpicklingError,
    "test_exit_at_task_unpickle": SystemExit,
    "test_error_during_result_unpickle_in_result_handler": UnpicklingError,
    "test_exit_during_result_unpickle_in_result_handler": SystemExit,
}
"""Where the standard pool breaks as a whole, and ours fails one future with what was raised."""


def share_authkey(key: bytes) -> None:
    multiprocessing.current_process().authkey = key


def _set_up(self: unittest.TestCase) -> None:
    # A manager's proxies only open with the key of the process that made them. Children
    # of multiprocessing inherit it; workers started in another way have to be given it.
    key = bytes(multiprocessing.current_process().authkey)
    self.executor_kwargs = {  # type: ignore[attr-defined]
        "initializer": share_authkey,
        "initargs": (key,),
    }
    # The test wants the cause to be of the pool's private type; ours is public.
    patch = mock.patch("concurrent.futures.process._RemoteTraceback", RemoteTraceback)
    patch.start()
    self.addCleanup(patch.stop)
    super(type(self), self).setUp()


def _create_event(self: Any) -> Any:
    """An event that calls can wait for (asked for from Python 3.14 on)."""
    if self.manager is None:
        self.manager = self.get_context().Manager()  # ended by the tests' own tearDown
    return self.manager.Event()


_CHECK = "_check_error" if sys.version_info >= (3, 14) else "_check_crash"


def _check(
    self: unittest.TestCase, error: type[BaseException], *args: object, **kwargs: object
) -> None:
    error = OWN_ERRORS.get(self._testMethodName, error)
    getattr(super(type(self), self), _CHECK)(error, *args, **kwargs)


def _suite(executor_type: type[DaskExecutor], where: str, prefix: str) -> dict[str, type]:
    """All test classes over one executor, by their names."""

    def build(name: str, **members: Any) -> type[unittest.TestCase]:
        return cpython.build(name, executor_type, __name__, prefix, **members)

    events = {"setUp": _set_up, "create_event": _create_event}
    scripts = cpython.with_scripts("ProcessPoolShutdownTest", executor_type, where)
    made = (
        build("ProcessPoolExecutorTest", **events),
        build("WaitTests", **events),
        build("AsCompletedTests"),
        build("ProcessPoolShutdownTest", **scripts),
        build("InitializerMixin"),
        build("FailingInitializerMixin"),
        build("ExecutorDeadlockTest", TIMEOUT=_FAIL_AFTER, **{_CHECK: _check}),
    )
    return {cls.__name__: cls for cls in made}


_HOME = "daskexec_testing.executors"

SUITES = {
    **_suite(DaskExecutor, "daskexec:DaskExecutor", "Dask"),
    **_suite(SharedDaskExecutor, f"{_HOME}:SharedDaskExecutor", "SharedDask"),
    **_suite(AloneDaskExecutor, f"{_HOME}:AloneDaskExecutor", "AloneDask"),
}
globals().update(SUITES)  # some tests submit methods of theirs, which workers find here
