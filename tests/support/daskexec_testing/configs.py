"""The configs that come with daskexec, edited as their users would."""

from __future__ import annotations

import re
from pathlib import Path

from daskexec.config.names import shipped

_MARKED = re.compile(r"^( +)([a-z_]+): .*# <- edit.*$")


def marked(name: str) -> list[str]:
    """The keys of the lines that are marked to be edited."""
    lines = (shipped() / f"{name}.yaml").read_text().splitlines()
    return [found[2] for found in map(_MARKED.match, lines) if found]


def edited(name: str, folder: Path, **values: str) -> Path:
    """Write a shipped config into a folder, with other values in all the marked lines."""
    lines = (shipped() / f"{name}.yaml").read_text().splitlines()
    assert sorted(values) == sorted(marked(name)), "the marked lines, all and only they"
    for number, line in enumerate(lines):
        found = _MARKED.match(line)
        if found:
            lines[number] = f"{found[1]}{found[2]}: {values[found[2]]}"
    path = folder / f"{name}.yaml"
    path.write_text("\n".join(lines) + "\n")
    return path
