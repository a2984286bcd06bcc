"""Which differences between two sides matter, and what is said of them."""

from __future__ import annotations

import pytest

from daskexec._versions import PACKAGES, PROBE, Found, differences, here, missing, warnings_for


def side(python: str = "3.11.7", **packages: str) -> Found:
    there = {"daskexec": "0.1.0", "distributed": "2026.8.0", **packages}
    return Found(python, "/opt/python", "node7", there)


def test_the_probe_is_text_that_any_python_can_evaluate() -> None:
    """What the other side evaluates gives what this side finds of itself."""
    assert Found.of(eval(PROBE, {})) == here()
    assert here().packages["daskexec"]
    assert set(here().packages) <= set(PACKAGES)


def test_an_answer_that_is_none() -> None:
    """An exception, or whatever else comes instead of an answer, is not one."""
    assert Found.of(RuntimeError("no")) is None
    assert Found.of({"python": "3.11.7"}) is None


@pytest.mark.parametrize(
    ("mine", "theirs", "found"),
    [
        (side(), side(), []),
        (side("3.11.7"), side("3.11.2"), []),
        (side("3.11.7"), side("3.12.1"), ["Python"]),
        (side(), side(daskexec="0.1.1"), ["daskexec"]),
        (side(), side(distributed="2026.8.1"), []),
        (side(), side(distributed="2026.7.0"), ["distributed"]),
        (side(numpy="2.1.0"), side(numpy="1.26.4"), ["numpy"]),
        (side(numpy="2.1.0"), side(numpy="2.3.0"), []),
        (side(numpy="2.1.0"), side(), []),
        (side(), side(pandas="2.0.0"), []),
    ],
)
def test_differences_that_matter(mine: Found, theirs: Found, found: list[str]) -> None:
    """Those after which calls fail; a package that one side lacks may not be needed there."""
    assert [difference.package for difference in differences(mine, theirs)] == found


def test_a_warning_names_package_versions_and_place() -> None:
    """One for each package, however many workers there are."""
    theirs = side(numpy="1.26.4")
    places = [("workers", theirs)] * 50 + [("scheduler", side())]
    (said,) = warnings_for(side(numpy="2.1.0"), places).values()
    assert said.startswith("numpy is 2.1.0 here and another version where calls run: ")
    assert said.count("workers: 1.26.4 (/opt/python on node7)") == 1


def test_missing_daskexec() -> None:
    """It is said where, and how to install the version that is here."""
    bare = Found("3.11.7", "/opt/python", "node7", {})
    assert missing(side(), [side()], "workers run") == ""
    said = missing(side(), [bare, side(), bare], "workers run")
    assert "where workers run (/opt/python on node7)" in said
    assert said.endswith("pip install daskexec==0.1.0")


def test_what_dask_itself_says_of_versions() -> None:
    """It has no place, and packages without a version are not there."""
    from distributed.versions import get_versions

    found = Found.of_dask(get_versions(packages=["daskexec", "nowhere_at_all"]))
    assert found is not None
    assert found.python == here().python
    assert found.packages["distributed"] == here().packages["distributed"]
    assert "nowhere_at_all" not in found.packages
    assert Found.of_dask({}) is None
