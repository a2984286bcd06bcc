"""What a type checker knows of the public names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy", reason="the type checker is in the extra 'lint'")

_SNIPPET = """
from concurrent.futures import Executor; from typing import cast
from daskexec import DaskExecutor, DaskFuture, Graph, get_executor

with DaskExecutor() as ex:
    reveal_type(ex)
    reveal_type(ex.submit(len, "a"))
    reveal_type(ex.submit(len, "a").result())
    reveal_type(list(ex.map(str, [1, 2])))
    reveal_type(ex.with_options(priority=1).submit(divmod, 7, 2).result())
anything: Executor = DaskExecutor()
reveal_type(get_executor("threads"))

async def wait(future: DaskFuture[bytes]) -> None:
    reveal_type(await future)

DaskExecutor().submit(len, "a", "b")  # error: too many arguments
DaskExecutor().submit("len")  # error: no callable
graph = Graph()
@graph.property
def plain(x: int) -> str: return str(x)
@graph.property(each="plain", on="names")
def option(x: str) -> bytes: return x.encode()
reveal_type(plain)
reveal_type(option)
reveal_type(graph.on(anything, x=1)["plain", "option"])

def add(x: int, y: float, z: str = "") -> bytes: return b""
def late(x: int, *, y: int) -> str: return ""
ex = DaskExecutor()
one = ex.submit(len, "a")
reveal_type(ex.submit(add, one, one).result())
reveal_type(ex.submit(add, 1, one, ex.submit(str, one)).result())
reveal_type(ex.submit(late, 1, y=cast(int, one)).result())
ex.submit(len, one)  # error: an int has no length
ex.submit(add, one, ex.submit(str, 1))  # error: a str for a float
ex.submit(late, 1, z=2)  # error: no such keyword
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("typing") / "snippet.py"
    file.write_text(_SNIPPET)
    root = Path(__file__).parents[2]
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file", root / "pyproject.toml", file],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=110,
    )
    return run.stdout.replace("builtins.", "")  # as older versions of mypy write


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (6, "daskexec.executor.DaskExecutor"),
        (7, "daskexec.futures.DaskFuture[int]"),
        (8, "int"),
        (9, "list[str]"),
        (10, "tuple[int, int]"),
        (12, "concurrent.futures._base.Executor"),
        (15, "bytes"),
        (24, "def (x: int) -> str"),
        (25, "def (x: str) -> bytes"),
        (26, "tuple[Any, ...]"),
        (32, "bytes"),
        (33, "bytes"),
        (34, "str"),
    ],
)
def test_revealed_types(told: str, line: int, kind: str) -> None:
    """Submitting keeps the type of the function's result, a graph that of the function.

    A future stands for its value in the arguments.
    """
    assert f'snippet.py:{line}: note: Revealed type is "{kind}"' in told


@pytest.mark.parametrize("line", [17, 18, 35, 36, 37])
def test_wrong_arguments_are_found(told: str, line: int) -> None:
    """A call with wrong arguments is an error of the program, found before it runs."""
    assert f"snippet.py:{line}: error:" in told


def test_nothing_else_is_wrong(told: str) -> None:
    """The right lines have no errors."""
    errors = [text for text in told.splitlines() if ": error:" in text]
    assert [text.split(":")[1] for text in errors] == ["17", "18", "35", "36", "37"], told
