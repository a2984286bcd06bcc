"""CPython's own tests of concurrent.futures, taken from the interpreter that runs.

Nothing of them is copied: ``load`` finds the test classes in the interpreter's ``test``
package, in one module (up to Python 3.11) or a package (from 3.12 on), and ``build`` makes
of each a class over another executor. The classes live in importable modules because some
tests submit methods of theirs, which workers have to find.
"""

from __future__ import annotations

import importlib
import multiprocessing
import sys
import types
import unittest
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

PACKAGE = "test.test_concurrent_futures"

HOMES = {
    "ExecutorTest": "executor",
    "ProcessPoolExecutorTest": "test_process_pool",
    "WaitTests": "test_wait",
    "AsCompletedTests": "test_as_completed",
    "ExecutorShutdownTest": "test_shutdown",
    "ProcessPoolShutdownTest": "test_shutdown",
    "InitializerMixin": "test_init",
    "FailingInitializerMixin": "test_init",
    "ExecutorDeadlockTest": "test_deadlock",
    "ExecutorMixin": "util",
}
"""The module of the package that each class lives in."""

PROCESSES = "looks into the pool's processes"
MANAGER = "waits for the pool's manager thread"
HARD_CODED = "makes a ProcessPoolExecutor by name and looks into its processes"
FORCED = "replaces the pool's _force_shutdown, or calls it"


@dataclass(frozen=True)
class Skip:
    """A test that is not run, and why.

    ``since`` and ``until`` bound the versions of Python that have it (``until`` excluded).
    """

    test: str
    reason: str
    since: tuple[int, int] = (3, 10)
    until: tuple[int, int] = (3, 99)

    def applies(self, version: tuple[int, ...] = sys.version_info) -> bool:
        return self.since <= tuple(version[:2]) < self.until


SKIPS = (
    Skip("ProcessPoolExecutorTest.test_killed_child", PROCESSES),
    Skip("ProcessPoolExecutorTest.test_saturation", PROCESSES),
    Skip("ProcessPoolExecutorTest.test_idle_process_reuse_one", PROCESSES),
    Skip("ProcessPoolExecutorTest.test_idle_process_reuse_multiple", PROCESSES),
    Skip("ProcessPoolExecutorTest.test_max_tasks_per_child", PROCESSES, (3, 11)),
    Skip(
        "ProcessPoolExecutorTest.test_max_tasks_per_child_defaults_to_spawn_context",
        "looks into the pool's _mp_context",
        (3, 11),
    ),
    Skip(
        "ProcessPoolExecutorTest.test_python_finalization_error",
        "counts the threads that the pool starts and makes the second one fail",
        (3, 12),
    ),
    Skip("ProcessPoolExecutorTest.test_broken_process_pool_traceback", PROCESSES, (3, 14)),
    Skip("ProcessPoolExecutorTest.test_shutdown_no_wait_max_tasks_gh119592", MANAGER, (3, 14)),
    Skip(
        "ProcessPoolExecutorTest.test_gc_during_max_tasks_worker_exit_gh152967", MANAGER, (3, 14)
    ),
    Skip(
        "ProcessPoolExecutorTest.test_force_shutdown_during_max_tasks_worker_exit",
        MANAGER,
        (3, 14),
    ),
    Skip("ProcessPoolExecutorTest.test_failed_worker_replacement_breaks_pool", MANAGER, (3, 14)),
    Skip("ProcessPoolExecutorTest.test_terminate_workers", FORCED, (3, 14)),
    Skip("ProcessPoolExecutorTest.test_kill_workers", FORCED, (3, 14)),
    Skip("ProcessPoolExecutorTest.test_force_shutdown_workers_invalid_op", FORCED, (3, 14)),
    Skip("ProcessPoolExecutorTest.test_force_shutdown_workers", PROCESSES, (3, 14)),
    Skip("ProcessPoolExecutorTest.test_force_shutdown_workers_stops_pool", PROCESSES, (3, 14)),
    Skip("ProcessPoolShutdownTest.test_processes_terminate", PROCESSES),
    Skip("ProcessPoolShutdownTest.test_context_manager_shutdown", HARD_CODED),
    Skip("ProcessPoolShutdownTest.test_del_shutdown", HARD_CODED),
    Skip("ProcessPoolShutdownTest.test_shutdown_no_wait", HARD_CODED),
    Skip("ProcessPoolShutdownTest.test_shutdown_gh_132969_case_1", HARD_CODED, (3, 14)),
    Skip("ProcessPoolShutdownTest.test_shutdown_gh_132969_case_2", HARD_CODED, (3, 14)),
    Skip("ExecutorDeadlockTest.test_shutdown_deadlock_pickle", MANAGER),
    Skip(
        "ExecutorDeadlockTest.test_gh105829_should_not_deadlock_if_wakeup_pipe_full",
        "replaces the pool's wakeup pipe and manager thread",
        (3, 12),
    ),
)
"""Every test that is not run: only what looks into the insides of the standard pools."""


def available() -> bool:
    """Whether this interpreter ships the tests."""
    try:
        importlib.import_module(PACKAGE)
    except ImportError:
        return False
    return True


def home(name: str) -> types.ModuleType:
    """The module that the test class ``name`` lives in."""
    found = importlib.import_module(PACKAGE)
    if hasattr(found, "__path__"):
        return importlib.import_module(f"{PACKAGE}.{HOMES[name]}")
    return found


def load(name: str) -> type:
    return getattr(home(name), name)  # type: ignore[no-any-return]


def tests_of(cls: type) -> list[str]:
    return [name for name in dir(cls) if name.startswith("test")]


def _skipping(name: str, cls: type) -> dict[str, Any]:
    """The attributes that skip what the table says of ``cls``."""
    members: dict[str, Any] = {}
    for skip in SKIPS:
        owner, _, test = skip.test.partition(".")
        if owner == name and skip.applies() and hasattr(cls, test):
            members[test] = unittest.skip(skip.reason)(lambda self: None)
    return members


def build(
    name: str, executor_type: type, module: str, prefix: str, **members: Any
) -> type[unittest.TestCase]:
    """CPython's class ``name`` as a test case over ``executor_type``.

    ``members`` are put over the class's own; ``module`` is where the caller keeps the class.
    """
    cls = load(name)
    stem = name
    for suffix in ("Mixin", "Tests", "Test"):
        stem = stem.removesuffix(suffix)
    return type(
        f"{prefix}{stem}Test",
        # Not CPython's BaseTestCase, which only waits, long, for threads to be collected
        # that Dask keeps by design; what is left behind, the conftest looks for.
        (cls, load("ExecutorMixin"), unittest.TestCase),
        {
            "__module__": module,
            "__doc__": f"CPython's {name} over {executor_type.__name__}.",
            "executor_type": executor_type,
            "get_context": lambda self: multiprocessing.get_context("spawn"),
            **_skipping(name, cls),
            **members,
        },
    )


def scripts_know(executor_type: type, where: str) -> Callable[..., Any]:
    """assert_python_ok for scripts that import the executor from concurrent.futures.

    ``where`` is ``module:attribute`` of the executor. The scripts run with the paths of
    this process, which ``-I`` would otherwise keep from them.
    """
    from test.support.script_helper import assert_python_ok

    module, _, attribute = where.partition(":")
    path = [str(Path(entry).resolve()) for entry in sys.path]
    head = (
        f"import sys; sys.path[:] = {path!r}\n"
        f"import concurrent.futures as cf, {module} as home\n"
        f"cf.{executor_type.__name__} = home.{attribute}\n"
    )

    def run(*args: str, **variables: str) -> Any:
        flag, script = args
        if flag != "-c":
            raise ValueError(f"expected a script after -c, not {args}")
        return assert_python_ok("-c", head + script, **variables)

    return run


def with_scripts(name: str, executor_type: type, where: str) -> dict[str, Any]:
    """setUp that lets the scripts of the class ``name`` find the executor."""

    def set_up(self: unittest.TestCase) -> None:
        known = scripts_know(executor_type, where)
        patch = mock.patch.object(home(name), "assert_python_ok", known)
        patch.start()
        self.addCleanup(patch.stop)
        super(type(self), self).setUp()

    return {"setUp": set_up}
