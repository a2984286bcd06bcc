"""Runs each behaviour over the executors under test; README.md says how to bring one's own.

Fixtures for the tests: ``executor`` (shared, two workers), ``single`` (shared, one worker),
``make_executor`` (new ones, shut down at the end of the test) and ``kind`` (which executor
this is). Marks: ``needs(*capabilities)`` and ``deviates(kind="reason")``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

_SUPPORT = str(Path(__file__).parents[1] / "support")
if _SUPPORT not in sys.path:
    sys.path.insert(0, _SUPPORT)

from daskexec_testing import calls  # noqa: E402
from daskexec_testing.executors import DASK_KEPT, KINDS, Kind, load  # noqa: E402
from daskexec_testing.gates import Gates  # noqa: E402
from daskexec_testing.leaks import Snapshot, sharing  # noqa: E402


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("executor contract")
    group.addoption(
        "--executor",
        action="append",
        metavar="NAME|PACKAGE.MODULE:FACTORY",
        help="threads, processes, dask, or the factory of an executor of your own (repeatable)",
    )
    group.addoption(
        "--executor-can",
        metavar="CAPABILITY,...",
        help="what the executors of your own can do; default: their factory's .capabilities",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "needs(*capabilities): skip executors without these capabilities"
    )
    config.addinivalue_line(
        "markers", "deviates(**reasons): executors known to break this behaviour, and how"
    )


def _kinds(config: pytest.Config) -> list[Kind]:
    named = config.getoption("--executor", default=None)
    if not named:
        return list(KINDS)
    can = config.getoption("--executor-can", default=None)
    capabilities = None if can is None else frozenset(filter(None, can.split(",")))
    known = {kind.name: kind for kind in (*KINDS, DASK_KEPT)}
    return [known.get(name) or load(name, capabilities) for name in named]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "kind" not in metafunc.fixturenames:
        return
    needed = [
        capability
        for mark in metafunc.definition.iter_markers("needs")
        for capability in mark.args
    ]
    deviations = {
        name: reason
        for mark in metafunc.definition.iter_markers("deviates")
        for name, reason in mark.kwargs.items()
    }
    parameters = []
    for kind in _kinds(metafunc.config):
        marks = []
        missing = [capability for capability in needed if not kind.can(capability)]
        if missing:
            marks.append(pytest.mark.skip(reason=f"{kind} cannot: {', '.join(missing)}"))
        elif kind.name in deviations:
            marks.append(pytest.mark.xfail(reason=deviations[kind.name], strict=True))
        parameters.append(pytest.param(kind, id=str(kind), marks=marks))
    metafunc.parametrize("kind", parameters, scope="session")


class Shared:
    """An executor that lives for all tests of its kind and is made anew if one breaks it."""

    def __init__(self, kind: Kind, max_workers: int, folder: Path) -> None:
        self._kind = kind
        self._max_workers = max_workers
        self._folder = folder
        self._round = 0
        self._start()

    def _start(self) -> None:
        with sharing() as self._processes:
            self._start_one()

    def _start_one(self) -> None:
        self.executor = self._kind.make(self._max_workers)
        self._round += 1
        folder = self._folder / str(self._round)
        folder.mkdir()
        gates = Gates(folder)
        mine = [gates.gate() for _ in range(self._max_workers)]
        release = gates.gate()
        futures = [self.executor.submit(calls.hold, gate, release) for gate in mine]
        for gate in mine:  # every worker is up, so that none shows up later as a leak
            gate.wait()
        release.open()
        for future in futures:
            future.result(30)

    def healthy(self) -> bool:
        try:
            return bool(self.executor.submit(calls.identity, True).result(10))
        except Exception:
            return False

    def restart(self) -> None:
        self.close(wait=False)
        self._start()

    def close(self, wait: bool = True) -> None:
        self.executor.shutdown(wait=wait, cancel_futures=True)
        Snapshot.shared -= self._processes.pop()


@pytest.fixture(scope="session")
def _shared_two(kind: Kind, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    shared = Shared(kind, 2, tmp_path_factory.mktemp("two"))
    yield shared
    shared.close()


@pytest.fixture(scope="session")
def _shared_one(kind: Kind, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    shared = Shared(kind, 1, tmp_path_factory.mktemp("one"))
    yield shared
    shared.close()


@pytest.fixture
def executor(_shared_two: Shared, gates: Gates) -> Executor:
    """Two workers, shared with other tests: do not shut it down."""
    if not _shared_two.healthy():
        _shared_two.restart()
    return _shared_two.executor


@pytest.fixture
def single(_shared_one: Shared, gates: Gates) -> Executor:
    """One worker, shared with other tests: do not shut it down."""
    if not _shared_one.healthy():
        _shared_one.restart()
    return _shared_one.executor


@pytest.fixture
def gates(tmp_path: Path) -> Iterator[Gates]:
    """Makes gates and journals; opens every gate at the end, so that no call stays behind."""
    made = Gates(tmp_path)
    yield made
    made.open_all()


@pytest.fixture
def make_executor(kind: Kind, gates: Gates) -> Iterator[Callable[..., Executor]]:
    """Makes executors of this test's own, which it may break; shuts them down at its end."""
    with ExitStack() as stack:

        def make(max_workers: int = 2, **kwargs: Any) -> Executor:
            made = kind.make(max_workers, **kwargs)
            stack.callback(made.shutdown, wait=True, cancel_futures=True)
            return made

        yield make
        gates.open_all()
