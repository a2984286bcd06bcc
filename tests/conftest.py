"""Fixtures of the whole test house, and the check that no test leaves anything behind."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

_SUPPORT = str(Path(__file__).parent / "support")
if _SUPPORT not in sys.path:
    sys.path.insert(0, _SUPPORT)

from daskexec_testing.gates import Gates  # noqa: E402
from daskexec_testing.leaks import Snapshot  # noqa: E402

_STATE = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "leaves(reason): the test is known to leave something behind; not checked"
    )

    # Where running clusters are written down: not in the user's own folder.
    os.environ["XDG_STATE_HOME"] = config.stash[_STATE] = tempfile.mkdtemp(prefix="daskexec-test-")


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(config.stash[_STATE], ignore_errors=True)


def pytest_sessionfinish() -> None:
    """End what the deviations of other executors have left, or the interpreter would not.

    A process pool whose manager thread a test has ended (that is the deviation) has worker
    processes that nobody will ever end, and the interpreter's exit waits for them.
    """
    for child in multiprocessing.active_children():
        child.kill()
        child.join(5)


@pytest.fixture(autouse=True)
def leaves_nothing_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves threads, child processes or many descriptors.

    Fixtures of a wider scope are set up before this one, so what they share is not counted.
    """
    if request.node.get_closest_marker("leaves"):
        yield
        return
    Snapshot.current = snapshot = Snapshot()
    yield
    Snapshot.current = None
    left = snapshot.left()
    if left:
        pytest.fail("left behind: " + "; ".join(left), pytrace=False)


@pytest.fixture
def gates(tmp_path: Path) -> Iterator[Gates]:
    """Makes gates and journals; opens every gate at the end, so that no call stays behind."""
    made = Gates(tmp_path)
    yield made
    made.open_all()
