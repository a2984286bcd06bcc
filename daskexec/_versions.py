"""What runs on the two sides of a line: Python, packages, and whether they fit. Floor 1.

`PROBE` is what a client has the other side evaluate. It is text, so that nothing need be
installed there and no bytecode of another Python is sent.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = [
    "PACKAGES",
    "PROBE",
    "Difference",
    "Found",
    "differences",
    "here",
    "look",
    "missing",
    "warnings_for",
]

#: Packages that are looked at, with how much of their version numbers must agree, and why.
PACKAGES: Mapping[str, tuple[int, str]] = {
    "daskexec": (9, "they speak to each other in a form that may change with each version"),
    "distributed": (2, "Dask asks for the same version everywhere"),
    "cloudpickle": (1, "functions may not arrive"),
    "msgpack": (1, "messages may not arrive"),
    "numpy": (1, "arrays may not arrive"),
    "pandas": (1, "tables may not arrive"),
}
_PYTHON = (2, "lambdas, and functions of a script, crash or fail in another Python")


def look(packages: Iterable[str]) -> dict[str, Any]:
    """Say what runs in this process. Its text is sent, so it uses nothing from outside."""
    import platform
    import sys
    from importlib import metadata

    found = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except Exception:
            continue
    try:
        import daskexec
    except ImportError:
        found.pop("daskexec", None)
    else:
        found["daskexec"] = daskexec.__version__
    return {
        "python": platform.python_version(),
        "executable": sys.executable,
        "host": platform.node(),
        "packages": found,
    }


_SOURCE = "from __future__ import annotations\n" + inspect.getsource(look)
PROBE = f"(lambda names: exec({_SOURCE!r}, names) or names['look']({[*PACKAGES]!r}))({{}})"


@dataclass(frozen=True)
class Found:
    """What runs in one process; packages that it has not are left out."""

    python: str
    executable: str
    host: str
    packages: Mapping[str, str]

    @classmethod
    def of(cls, told: Any) -> Found | None:
        """Read what `look` said; None if it is something else."""
        try:
            return cls(told["python"], told["executable"], told["host"], told["packages"])
        except (TypeError, KeyError):
            return None

    @classmethod
    def of_dask(cls, told: Any) -> Found | None:
        """Read what Dask says when asked for versions: neither where, nor by which Python."""
        try:
            there = {name: version for name, version in told["packages"].items() if version}
            python = ".".join(there.pop("python").split(".")[:3])
        except (TypeError, KeyError, AttributeError):
            return None
        return cls(python, "", "", {name: there[name] for name in PACKAGES if name in there})

    def place(self) -> str:
        """Name the process for people."""
        return f"{self.executable} on {self.host}" if self.host else "no more is known of it"


@dataclass(frozen=True)
class Difference:
    """A version that is not the same on both sides, where that matters."""

    package: str
    mine: str
    theirs: str
    why: str


def here() -> Found:
    """Look at this process."""
    return Found(**look(PACKAGES))


def differences(mine: Found, theirs: Found) -> Iterator[Difference]:
    """Yield what differs such that it matters; packages that only one side has do not."""
    if _part(mine.python, _PYTHON[0]) != _part(theirs.python, _PYTHON[0]):
        yield Difference("Python", mine.python, theirs.python, _PYTHON[1])
    for name, (parts, why) in PACKAGES.items():
        one, other = mine.packages.get(name), theirs.packages.get(name)
        if one and other and _part(one, parts) != _part(other, parts):
            yield Difference(name, one, other, why)


def _part(version: str, parts: int) -> list[str]:
    return version.split(".")[:parts]


def missing(mine: Found, places: Iterable[Found], what: str) -> str:
    """Say that daskexec is missing in some places, "" if it is not; `what`: who runs there."""
    lacking = sorted({found.place() for found in places if "daskexec" not in found.packages})
    if not lacking:
        return ""
    more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
    return (
        f"daskexec is not installed where {what} ({', '.join(lacking[:3])}{more}). Install it "
        f"there: pip install daskexec=={mine.packages['daskexec']}"
    )


def warnings_for(mine: Found, places: Iterable[tuple[str, Found]]) -> dict[str, str]:
    """Return a warning for each version that differs, by package; `places`: who, and what."""
    seen: dict[str, tuple[Difference, list[str]]] = {}
    for who, found in places:
        for difference in differences(mine, found):
            told = f"{who}: {difference.theirs} ({found.place()})"
            _, where = seen.setdefault(difference.package, (difference, []))
            if told not in where:
                where.append(told)
    said = {}
    for package, (difference, where) in seen.items():
        more = f" and {len(where) - 3} more" if len(where) > 3 else ""
        said[package] = (
            f"{package} is {difference.mine} here and another version where calls run: "
            f"{'; '.join(where[:3])}{more}. {difference.why[0].upper()}{difference.why[1:]}: "
            f"run the same version on both sides"
        )
    return said
