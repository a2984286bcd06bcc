"""A YAML file as a tree of items that know their lines. Floor 1.

Errors in a config are told with the line, so the plain values that ``yaml.safe_load`` gives are
not enough. The tree is made of the nodes of the same safe loader: no tag makes an object, and
what a scalar means is decided by it. Strings are filled here: ``${NAME}`` and
``${NAME:-default}`` from the environment; ``$NAME`` is left for the shell of a job.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daskexec.errors import ConfigError

__all__ = ["Item", "Problems", "fill", "read"]

_BRACES = re.compile(r"(\$?)\$\{([^}]*)\}")
_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?:(:-)(.*))?", re.DOTALL)


@dataclass(frozen=True)
class Item:
    """A value of the file.

    Attributes
    ----------
    value : Any
        A dict of items, a list of items, or a scalar, as YAML reads it.
    line : int
        Where its key is, or itself in a list; from 1.
    text : str
        Of a scalar: as it stands in the file, filled in.
    written : str
        Of a scalar: as it stands in the file.
    """

    value: Any
    line: int
    text: str = ""
    written: str = ""

    @property
    def filled(self) -> bool:
        """Whether something was filled in: it is a string then, whatever it looks like."""
        return self.text != self.written

    def plain(self) -> Any:
        """Return the plain value: dicts, lists and scalars."""
        if isinstance(self.value, dict):
            return {key: item.plain() for key, item in self.value.items()}
        if isinstance(self.value, list):
            return [item.plain() for item in self.value]
        return self.value

    def void(self) -> bool:
        """Tell whether it says nothing: null, or an empty text, list or mapping."""
        return self.value is None or self.value in ("", [], {})


class Problems:
    """What is wrong with a file: gathered, so that one run tells all of it."""

    def __init__(self, source: str) -> None:
        self.source, self._told = source, dict[tuple[int, str], None]()

    def add(self, line: int, message: str) -> None:
        """Note that something is wrong in that line."""
        self._told.setdefault((line, message))

    def check(self) -> None:
        """Raise a `ConfigError` that says all that was noted, if anything was."""
        if self._told:
            # The sort is stable: within a line the order is that of the checks.
            told = sorted(self._told, key=lambda one: one[0])
            said = [f"{self.source}, line {line}: {message}" for line, message in told]
            raise ConfigError("\n".join(said), self.source)


def fill(text: str, environ: Mapping[str, str]) -> str:
    """Put variables in the place of ``${NAME}`` and ``${NAME:-default}``.

    ``$${`` stands for ``${``. As in a shell, the default is also taken for an empty variable.

    Raises
    ------
    ValueError
        A variable is not set and has no default, or the braces hold something else.
    """

    def value(match: re.Match[str]) -> str:
        escaped, inner = match.groups()
        if escaped:
            return match[0][1:]
        variable = _VARIABLE.fullmatch(inner)
        if variable is None:
            raise ValueError(
                f"{match[0]} is neither ${{NAME}} nor ${{NAME:-default}}; write ${match[0]} to "
                f"leave it to the shell of the job"
            )
        name, defaulted, default = variable.groups()
        if defaulted:
            return environ.get(name) or default
        if name not in environ:
            raise ValueError(
                f"the environment variable {name} is not set: set it, or give a default as in "
                f"${{{name}:-default}}; $${{{name}}} and ${name} are left to the shell of the job"
            )
        return environ[name]

    return _BRACES.sub(value, text)


def read(path: Path, problems: Problems | None = None) -> Item:
    """Read a YAML file.

    Parameters
    ----------
    path : Path
    problems : Problems, optional
        Takes the variables that are not set. When None nothing is filled in.

    Raises
    ------
    ConfigError
        It cannot be read, or is no YAML.
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else f"it is no UTF-8 text ({exc})"
        raise ConfigError(f"{path}: cannot be read: {reason}", str(path)) from None
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                raise ConfigError(f"{path}: the file says nothing", str(path))
            return _Tree(loader, problems, str(path)).item(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as exc:
        raise ConfigError(f"{path}{_explained(exc)}", str(path)) from None


def _explained(exc: Any) -> str:
    """Say what YAML found wrong, with the line, and what is meant by it."""
    mark = getattr(exc, "problem_mark", None)
    where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    context = f"{exc.context}: " if getattr(exc, "context", None) else ""
    problem = getattr(exc, "problem", None) or str(exc)
    hint = ""
    if "\\t" in problem:
        hint = "; indent by blanks, not by tabs"
    elif "mapping values are not allowed" in problem:
        hint = "; text with ': ' in it must be quoted"
    elif "could not determine a constructor" in problem:
        hint = "; a config is plain data, without tags"
    return f"{where}: this is no YAML: {context}{problem}{hint}"


class _Tree:
    def __init__(self, loader: Any, problems: Problems | None, source: str) -> None:
        self._loader, self._problems, self._source = loader, problems, source
        self._open: list[Any] = []  # the nodes that we are within

    def item(self, node: Any, line: int = 0) -> Item:
        line = line or node.start_mark.line + 1
        if node.id == "scalar":
            return self._scalar(node, line)
        if any(node is outer for outer in self._open):
            raise self._wrong(line, "an alias to what it stands in")
        self._open.append(node)
        if node.id == "sequence":
            value: Any = [self.item(one) for one in node.value]
        else:
            self._check_keys(node)
            self._loader.flatten_mapping(node)  # carries out "<<"
            value = {key.value: self.item(one, key.start_mark.line + 1) for key, one in node.value}
        self._open.pop()
        return Item(value, line)

    def _check_keys(self, node: Any) -> None:
        seen: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if key.id != "scalar":
                raise self._wrong(line, "a key must be a word")
            if key.value in seen and key.value != "<<":
                raise self._wrong(
                    line, f"{key.value!r} is there twice: in line {seen[key.value]} too"
                )
            seen[key.value] = line

    def _scalar(self, node: Any, line: int) -> Item:
        value = self._loader.construct_object(node)
        written = text = node.value
        if self._problems is not None and isinstance(value, str):
            try:
                value = text = fill(written, os.environ)
            except ValueError as exc:
                self._problems.add(line, str(exc))
        return Item(value, line, text, written)

    def _wrong(self, line: int, message: str) -> ConfigError:
        return ConfigError(f"{self._source}, line {line}: {message}", self._source)
