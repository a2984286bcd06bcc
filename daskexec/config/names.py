"""Which file the name of a cluster config stands for. Floor 1."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Found", "find_config", "folders", "list_configs", "shipped", "suggest"]

_ENDINGS = (".yaml", ".yml")


@dataclass(frozen=True)
class Found:
    """A config that can be had by its name.

    Attributes
    ----------
    name : str
    path : Path
        The file that the name stands for.
    shadows : tuple of Path
        Files of the same name that it hides, the next one first.
    """

    name: str
    path: Path
    shadows: tuple[Path, ...] = ()


def find_config(name: str) -> Path | None:
    """Return the file that a config's name stands for; None if there is none of that name.

    Looked for in order: a path; ``$DASKEXEC_CONFIG_DIR``; ``~/.config/daskexec``;
    ``/etc/daskexec``; those that come with daskexec.
    """
    if is_path(name):
        path = Path(name).expanduser()
        return path if path.is_file() else None
    found = _files(name)
    return found[0] if found else None


def is_path(name: str) -> bool:
    """Tell whether `name` is the path of a config, and no name to be looked for."""
    return name.endswith(_ENDINGS) or os.sep in name


def list_configs() -> list[Found]:
    """Return all configs that can be had by their names, in the order of the names."""
    names = {
        path.stem
        for folder in folders()
        for path in _within(folder)
        if path.suffix in _ENDINGS and path.is_file() and not path.name.startswith(".")
    }
    found = []
    for name in sorted(names):
        path, *shadows = _files(name)
        found.append(Found(name, path, tuple(shadows)))
    return found


def suggest(name: str) -> str:
    """Return what to say to who asked for a config that is not there."""
    if is_path(name):
        return f"there is no file {Path(name).expanduser().absolute()}"
    known = [found.name for found in list_configs()]
    close = difflib.get_close_matches(name.lower(), known, n=2, cutoff=0.5)
    meant = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    return f"{meant}There are {', '.join(known)}; looked for in {', '.join(map(str, folders()))}"


def _within(folder: Path) -> list[Path]:
    """Return what is in a folder; nothing if it is not there, or not for us to read."""
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _files(name: str) -> list[Path]:
    """Return the files of that name, the one that counts first."""
    places = (folder / f"{name}{ending}" for folder in folders() for ending in _ENDINGS)
    return [path for path in places if path.is_file()]


def folders() -> list[Path]:
    """Return the folders in which configs are looked for, the first one first."""
    named = os.environ.get("DASKEXEC_CONFIG_DIR", "")
    home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return [
        *([Path(named).expanduser()] if named else []),
        Path(home, "daskexec").expanduser(),
        Path("/etc/daskexec"),
        shipped(),
    ]


def shipped() -> Path:
    """Return the folder of the configs that come with daskexec."""
    package = Path(__file__).parents[1]
    inside = package / "cluster_configs"  # in an installed wheel; else a clone
    return inside if inside.is_dir() else package.parent / "cluster_configs"
