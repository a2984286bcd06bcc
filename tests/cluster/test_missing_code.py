"""Modules that the client has and the workers have not."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from daskexec_testing.processes import running_cluster

pytestmark = pytest.mark.timeout(120)

LIMIT = 30
NOTES = sys.version_info >= (3, 11)


def told(error: BaseException) -> str:
    """What a traceback would end with."""
    return "\n".join([str(error), *getattr(error, "__notes__", ())])


def import_it(name: str) -> Any:
    return importlib.import_module(name).__name__


@pytest.fixture(params=["own", "given"])
def executor(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    from daskexec import DaskExecutor

    if request.param == "own":
        with DaskExecutor(1) as made:
            made.submit(int).result(LIMIT)  # its workers have the path that there is now
            yield made
    else:
        with running_cluster(tmp_path, 1) as cluster, DaskExecutor(cluster=cluster.address) as ex:
            yield ex


@pytest.fixture
def only_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A module that this process alone can import."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "only_here.py").write_text("def f(): return 1\n\nclass Thing:\n    pass\n")
    monkeypatch.syspath_prepend(str(folder))
    importlib.invalidate_caches()
    module = importlib.import_module("only_here")
    yield module
    del sys.modules["only_here"]


@pytest.mark.parametrize("what", ["function", "argument"])
def test_missing_at_unpickling(executor: Any, only_here: Any, what: str) -> None:
    """The error keeps type and name, and says which Python lacks what, and what to do."""
    if what == "function":
        future = executor.submit(only_here.f)
    else:
        future = executor.submit(repr, only_here.Thing())
    error = future.exception(LIMIT)
    assert type(error) is ModuleNotFoundError
    assert error.name == "only_here"
    assert sys.executable in told(error)
    assert f"executor.upload('{only_here.__file__}')" in told(error)
    executor.upload(only_here.__file__)
    assert executor.submit(only_here.f).result(LIMIT) == 1


def test_missing_in_the_call(executor: Any) -> None:
    """So it does when a call imports it, or a module that the call imports does."""
    error = executor.submit(import_it, "nowhere_at_all").exception(LIMIT)
    assert type(error) is ModuleNotFoundError
    assert error.name == "nowhere_at_all"
    if NOTES:
        assert "Install it there, or bring it there by executor.upload" in told(error)


def test_an_older_version_there(executor: Any, only_here: Any, tmp_path: Path) -> None:
    """A module that lacks a name there is said to be another one than here."""
    older = tmp_path / "only_here.py"
    older.write_text("")
    executor.upload(older)
    error = executor.submit(only_here.f).exception(LIMIT)
    assert type(error) is AttributeError
    assert "the module 'only_here' is another one than here" in told(error)
    assert "executor.upload" in told(error)


def test_errors_of_the_call_itself_are_left_alone(executor: Any) -> None:
    """An attribute that a call misses is its own affair."""
    for call in (lambda: sys.no_such_name, lambda: importlib.import_module("sys").nothing):  # type: ignore[attr-defined]
        error = executor.submit(call).exception(LIMIT)
        assert type(error) is AttributeError
        assert not getattr(error, "__notes__", None)
