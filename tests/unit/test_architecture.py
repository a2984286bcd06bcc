"""The house: imports between its rooms go down only, and every room says what it is for."""

from __future__ import annotations

import ast
import graphlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import daskexec

HOUSE = Path(__file__).parents[2] / "daskexec"

FLOORS = {
    "_after": 0,
    "errors": 0,
    "options": 0,
    "_board": 0,
    "_checks": 0,
    "_pickling": 0,
    "_quiet": 0,
    "info": 0,
    "_batching": 1,
    "_frames": 1,
    "_failures": 1,
    "_lifetimes": 1,
    "_naming": 1,
    "_link": 1,
    "_marks": 1,
    "_patience": 1,
    "_capture": 1,
    "_records": 1,
    "_supervision": 1,
    "_versions": 1,
    "config": 1,
    "futures": 1,
    "_graph_node": 1,
    "_graph_plan": 1,
    "_graph_run": 1,
    "_graph_text": 1,
    "graph": 1,
    "_calls": 2,
    "_large": 2,
    "_worker_end": 3,
    "_contact": 4,
    "_messages": 3,
    "_run": 3,
    "_tasks": 3,
    "_code": 4,
    "_ledger": 4,
    "_recording": 4,
    "_remote": 4,
    "_asking": 5,
    "_forgotten": 5,
    "_backend": 5,
    "_bringing": 5,
    "_dead": 5,
    "_fetching": 5,
    "_hub": 5,
    "_once": 5,
    "_roster": 5,
    "_spawner": 5,
    "_staying": 5,
    "_supplying": 5,
    "_survey": 5,
    "_local": 6,
    "_packing": 5,
    "_promises": 5,
    "_kept": 5,
    "_parcel": 4,
    "_parting": 5,
    "_state": 1,
    "_lean": 1,
    "_detaching": 7,
    "_left": 6,
    "keeper": 8,
    "_placing": 5,
    "_security": 5,
    "_endings": 5,
    "_killing": 5,
    "_limits": 5,
    "_mute": 5,
    "_settling": 5,
    "clusters": 7,
    "_dispatcher": 6,
    "kinds": 6,
    "_mapping": 7,
    "executor": 8,
    "checkup": 9,
    "select": 9,
    "logs": 10,
    "cli": 11,
    "__main__": 12,
}
"""The floor of each room. No room imports from a floor above, inside functions neither."""

LOBBY = "__init__"  # loads the public names lazily, and imports them for type checkers only
CUSTOMERS = {"logs"}  # know the public names and nothing private


def _rooms() -> dict[str, list[Path]]:
    """The files of each room: a module, or all modules of a package."""
    rooms = {path.stem: [path] for path in HOUSE.glob("*.py")}
    rooms |= {
        folder.name: sorted(folder.rglob("*.py"))
        for folder in HOUSE.iterdir()
        if (folder / "__init__.py").exists()
    }
    return rooms


def _imported(path: Path) -> Iterator[str]:
    """The dotted names under daskexec that a file imports, wherever in it."""
    package = ["daskexec", *path.relative_to(HOUSE).parent.parts]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("daskexec"))
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            name = ".".join([*base, *filter(None, [node.module])])
            if name.split(".")[0] == "daskexec":
                yield from (f"{name}.{alias.name}" for alias in node.names)


def _neighbours(room: str) -> set[str]:
    """The other rooms that a room imports from; a public name counts as the room it is from."""
    found = set()
    for path in _rooms()[room]:
        for name in _imported(path):
            first = ([*name.split("."), LOBBY])[1]
            home = daskexec._HOMES.get(first, f"daskexec.{first}")
            found.add(home.split(".")[1])
    return {other for other in found if other in _rooms()} - {room, LOBBY}


ROOMS = sorted(set(_rooms()) - {LOBBY})


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_has_a_floor(room: str) -> None:
    """Each room is in the table of floors, and its docstring, if it says a floor, agrees."""
    assert room in FLOORS
    for path in _rooms()[room]:
        told = re.search(r"\bFloor (\d+)", ast.get_docstring(ast.parse(path.read_text())) or "")
        assert told is None or int(told[1]) == FLOORS[room], path


@pytest.mark.parametrize("room", ROOMS)
def test_imports_go_down(room: str) -> None:
    """A room imports nothing from the floors above it."""
    above = {other for other in _neighbours(room) if FLOORS[other] > FLOORS[room]}
    assert not above, f"{room} (floor {FLOORS[room]}) imports {above}"


def test_no_cycles() -> None:
    """No chain of imports comes back to where it began."""
    graph = {room: _neighbours(room) for room in ROOMS}
    graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("room", sorted(CUSTOMERS & set(ROOMS)))
def test_customers_use_public_names(room: str) -> None:
    """A customer imports from outside of its room only what daskexec offers to everybody."""
    for path in _rooms()[room]:
        for name in _imported(path):
            first, *more = name.split(".")[1:]
            public = first == "__version__" or not first.startswith("_")
            assert first == room or (not more and public), f"{path}: {name}"


def test_every_module_tells_its_role() -> None:
    """Each module has a docstring."""
    paths = [path for paths in _rooms().values() for path in paths]
    assert [str(p) for p in paths if not ast.get_docstring(ast.parse(p.read_text()))] == []
