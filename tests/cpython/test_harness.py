"""The harness itself: it passes a right executor, fails a wrong one, and skips by the table."""

from __future__ import annotations

import io
import sys
import unittest

import pytest
from daskexec_testing import cpython

if not cpython.available():
    pytest.skip("this interpreter ships no tests of its own", allow_module_level=True)

from daskexec_testing import cpython_control as control


def _run(cls: type[unittest.TestCase], test: str) -> unittest.TestResult:
    return unittest.TextTestRunner(stream=io.StringIO()).run(cls(test))


@pytest.mark.parametrize(
    ("cls", "test"),
    [
        (control.RightExecutorTest, "test_submit"),
        (control.RightExecutorTest, "test_submit_keyword"),
        (control.RightExecutorTest, "test_map"),
        (control.RightExecutorTest, "test_map_exception"),
        (control.RightExecutorTest, "test_no_stale_references"),
        (control.RightShutdownTest, "test_run_after_shutdown"),
        (control.RightShutdownTest, "test_interpreter_shutdown"),
        (control.RightShutdownTest, "test_cancel_futures"),
        (control.RightDeadlockTest, "test_crash_during_func_exec_on_worker"),
        (control.RightDeadlockTest, "test_error_during_result_pickle_on_worker"),
    ],
)
def test_passes_the_standard_pool(cls: type[unittest.TestCase], test: str) -> None:
    """What the standard pool passes in CPython's own run, it passes here."""
    result = _run(cls, test)
    assert result.testsRun == 1
    assert not result.skipped
    assert result.wasSuccessful(), result.failures + result.errors


def test_fails_a_wrong_executor() -> None:
    """An executor whose map gives results backwards fails test_map, and only that kind."""
    result = _run(control.WrongExecutorTest, "test_map")
    assert len(result.failures) == 1
    assert _run(control.WrongExecutorTest, "test_submit").wasSuccessful()


@pytest.mark.parametrize("skip", cpython.SKIPS, ids=lambda skip: skip.test)
def test_skips_name_tests_that_exist(skip: cpython.Skip) -> None:
    """Each entry of the table names a test of a Python that is said to have it."""
    if not skip.applies():
        pytest.skip(f"Python {skip.since} to {skip.until} only")
    owner, _, test = skip.test.partition(".")
    assert test in cpython.tests_of(cpython.load(owner))
    assert skip.reason


def test_skips_are_few() -> None:
    """Most of CPython's tests do run."""
    names = set(cpython.HOMES) - {"ExecutorMixin"}
    names.discard("ExecutorShutdownTest")  # a base of ProcessPoolShutdownTest
    names.discard("ExecutorTest")  # a base of ProcessPoolExecutorTest
    total = sum(len(cpython.tests_of(cpython.load(name))) for name in names)
    skipped = sum(skip.applies() for skip in cpython.SKIPS)
    # Many of those that came with 3.14 drive the standard pool by its private methods.
    assert skipped * (3 if sys.version_info >= (3, 14) else 4) < total
