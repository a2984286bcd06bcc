"""The contract's own house: its README tells what its code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from daskexec_testing.executors import CAPABILITIES, Kind, load


def test_readme_lists_the_capabilities() -> None:
    """The table of capabilities in the README is the one in the code."""
    text = (Path(__file__).parent / "README.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", text, re.M))
    assert {name: said.replace("`", "") for name, said in rows.items()} == CAPABILITIES


def test_factory_of_ones_own() -> None:
    """A factory is found by its dotted name; unknown capabilities are refused by name."""
    kind = load("daskexec_testing.executors:make_threads", frozenset({"by_value"}))
    with kind.make(1) as executor:
        assert executor.submit(pow, 2, 3).result() == 8
    assert kind.can("by_value")
    assert not kind.can("by_value", "processes")
    with pytest.raises(ValueError, match="telepathy"):
        Kind("mine", kind.make, kind.importable, frozenset({"telepathy"}))
    with pytest.raises(ValueError, match=r"package\.module:attribute"):
        load("no_colon")
