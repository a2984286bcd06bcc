"""fork after use: the child is told that the executor is not its own, and ends cleanly."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import Executor

import pytest
from daskexec_testing import calls

pytestmark = [
    pytest.mark.needs("refuses_after_fork"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def _exit_code(child: int, limit: float = 20) -> int | None:
    """The exit code of the child; None, and the child killed, if it does not end in time."""
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def test_submit_in_the_child(executor: Executor) -> None:
    """submit in a forked child raises RuntimeError; the parent's executor goes on."""
    executor.submit(calls.identity, 1).result()
    child = os.fork()
    if child == 0:  # pragma: no cover
        code = 1
        try:
            executor.submit(calls.identity, 1)
        except RuntimeError:
            code = 42
        finally:
            os._exit(code)
    assert _exit_code(child) == 42
    assert executor.submit(calls.identity, 2).result(30) == 2


def test_shutdown_in_the_child(executor: Executor) -> None:
    """shutdown in a forked child returns and takes nothing from the parent."""
    executor.submit(calls.identity, 1).result()
    child = os.fork()
    if child == 0:  # pragma: no cover
        code = 1
        try:
            executor.shutdown()
            code = 42
        finally:
            os._exit(code)
    assert _exit_code(child) == 42
    assert executor.submit(calls.identity, 2).result(30) == 2
