"""The front door: public names, all there, none of them paid for before it is used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import daskexec

HEAVY = ("distributed", "dask", "multiprocessing", "tornado", "cloudpickle", "asyncio", "yaml")


def _run(script: str) -> str:
    path = f"import sys; sys.path[:] = {sys.path!r}\n"
    ended = subprocess.run(
        [sys.executable, "-c", path + script],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ended.stderr == ""
    return ended.stdout.strip()


def test_import_is_light() -> None:
    """import daskexec imports nothing heavy."""
    assert _run(f"import daskexec; print(sorted(set({HEAVY!r}) & set(sys.modules)))") == "[]"


def test_errors_are_light() -> None:
    """The errors and the factory's name can be used without loading Dask."""
    script = "import daskexec; daskexec.WorkerDied, daskexec.SchedulerLost; "
    assert _run(script + "print('distributed' in sys.modules)") == "False"


@pytest.mark.parametrize("name", daskexec.__all__)
def test_public_names_resolve(name: str) -> None:
    """Each name of __all__ is there, and is called so where it is defined."""
    value = getattr(daskexec, name)
    assert value.__name__ == name
    assert value.__doc__


def test_all_and_dir() -> None:
    """__all__ has no duplicates, and dir() lists all of it."""
    assert len(set(daskexec.__all__)) == len(daskexec.__all__)
    assert set(daskexec.__all__) <= set(dir(daskexec))


def test_star_import() -> None:
    """from daskexec import * gives __all__."""
    script = "import daskexec; from daskexec import *; "
    assert _run(script + "print(set(daskexec.__all__) <= set(globals()))") == "True"


def test_unknown_name() -> None:
    """A name that is not there is an AttributeError, and an ImportError when imported."""
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        daskexec.Nonsense  # noqa: B018
    with pytest.raises(ImportError):
        from daskexec import Nonsense  # noqa: F401
