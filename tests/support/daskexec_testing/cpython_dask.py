"""CPython's tests of concurrent.futures over DaskExecutor."""

from __future__ import annotations

import multiprocessing
import unittest
from pickle import UnpicklingError
from unittest import mock

from daskexec import DaskExecutor, RemoteTraceback
from daskexec_testing import cpython

_WHERE = "daskexec:DaskExecutor"
_FAIL_AFTER = 30.0


def _build(name: str, **members: object) -> type[unittest.TestCase]:
    return cpython.build(name, DaskExecutor, __name__, "Dask", **members)


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


OWN_ERRORS = {
    "test_error_at_task_unpickle": UnpicklingError,
    "test_exit_at_task_unpickle": SystemExit,
    "test_error_during_result_unpickle_in_result_handler": UnpicklingError,
    "test_exit_during_result_unpickle_in_result_handler": SystemExit,
}
"""Where the standard pool breaks as a whole, and ours fails one future with what was raised."""


def _check_crash(
    self: unittest.TestCase, error: type[BaseException], *args: object, **kwargs: object
) -> None:
    error = OWN_ERRORS.get(self._testMethodName, error)
    super(DaskExecutorDeadlockTest, self)._check_crash(  # type: ignore[misc]
        error, *args, **kwargs
    )


DaskProcessPoolExecutorTest = _build("ProcessPoolExecutorTest", setUp=_set_up)
DaskWaitTest = _build("WaitTests")
DaskAsCompletedTest = _build("AsCompletedTests")
DaskProcessPoolShutdownTest = _build(
    "ProcessPoolShutdownTest",
    **cpython.with_scripts("ProcessPoolShutdownTest", DaskExecutor, _WHERE),
)
DaskInitializerTest = _build("InitializerMixin")
DaskFailingInitializerTest = _build("FailingInitializerMixin")
DaskExecutorDeadlockTest = _build(
    "ExecutorDeadlockTest", TIMEOUT=_FAIL_AFTER, _check_crash=_check_crash
)
