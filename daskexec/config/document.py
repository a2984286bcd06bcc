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

#: A config has not more bytes, values and levels than this: nobody writes so much by hand, and a
#: few lines of aliases can stand for more than a machine can hold.
_BYTES, _VALUES, _LEVELS = 1 << 20, 10_000, 50
#: Characters of a message; what is quoted from a file may be long.
_SAID = 500

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
        if len(message) > _SAID:
            message = f"{message[:_SAID]} ..."
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

    text = _text_of(path)
    try:
        loader = _careful_loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                raise ConfigError(
                    f"{path}, line 1: the file says nothing: a config says at least what is "
                    f"started, such as 'kind: local'",
                    str(path),
                )
            return _Tree(loader, problems, str(path)).item(node)
        finally:
            loader.dispose()
    except _Refused as exc:
        raise ConfigError(f"{path}, line {exc.line}: {exc}", str(path)) from None
    except yaml.YAMLError as exc:
        raise ConfigError(f"{path}{_explained(exc, text)}", str(path)) from None


def _text_of(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(_BYTES + 1)
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be read: {exc.strerror}", str(path)) from None
    if len(data) > _BYTES:
        raise ConfigError(f"{path}: has over {_BYTES} bytes: this is no config", str(path))
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        meant = "UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "another encoding"
        raise ConfigError(
            f"{path}, line {line}: this is no UTF-8 text, but {meant}, or no text at all: the "
            f"byte {data[exc.start]:#04x} cannot be in it. Save it as UTF-8",
            str(path),
        ) from None


def _careful_loader(text: str) -> Any:
    """Return a safe loader of YAML that refuses tags, and to go down without an end."""
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        level = 0
        section = ""  # the key at the top

        def compose_node(self, parent: Any, index: Any) -> Any:
            event = self.peek_event()
            if self.level == 1:
                self.section = getattr(index, "value", "")
            # Where it is: the key, unless this is in a list, or is itself a key.
            key = index.value if isinstance(index, yaml.ScalarNode) else self.section
            tag = getattr(event, "tag", None)
            if tag is not None:
                tag = tag.replace("tag:yaml.org,2002:", "!!")
                raise _Refused(f"{key}: a config is plain data, without tags such as {tag}", event)
            if self.level >= _LEVELS:
                raise _Refused(
                    f"{self.section}: mappings and lists are in each other more than {_LEVELS} "
                    f"levels deep: this is no config",
                    event,
                )
            self.level += 1
            try:
                return super().compose_node(parent, index)
            finally:
                self.level -= 1

    return Loader(text)


class _Refused(Exception):
    """What is YAML, but must not be in a config."""

    def __init__(self, message: str, event: Any) -> None:
        super().__init__(message)
        self.line = event.start_mark.line + 1


def _explained(exc: Any, text: str) -> str:
    """Say what YAML found wrong, with the line, and what is meant by it."""
    if getattr(exc, "position", None) is not None:  # a character that must not be in a text
        line = text.count("\n", 0, exc.position) + 1
        return f", line {line}: this is no YAML: it has the character #x{exc.character:04x}"
    mark = getattr(exc, "problem_mark", None)
    where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    begun = getattr(exc, "context_mark", None)
    if mark and begun and begun.line < mark.line:
        where += f" (of what begins in line {begun.line + 1})"
    lines = text.splitlines()
    at = lines[mark.line].strip()[:60] if mark and mark.line < len(lines) else ""
    quoted = f", at {at!r}" if at else ""
    context = f"{exc.context}: " if getattr(exc, "context", None) else ""
    problem = getattr(exc, "problem", None) or str(exc)
    hint = ""
    if "\\t" in problem:
        hint = "; indent by blanks, not by tabs"
    elif "mapping values are not allowed" in problem:
        hint = "; text with ': ' in it must be quoted, and lines of one level begin in one column"
    elif "cannot start any token" in problem or "undefined alias" in problem:
        hint = "; text that begins so must be quoted"
    return f"{where}: this is no YAML{quoted}: {context}{problem}{hint}"


class _Tree:
    def __init__(self, loader: Any, problems: Problems | None, source: str) -> None:
        self._loader, self._problems, self._source = loader, problems, source
        self._open: list[Any] = []  # the nodes that we are within
        self._count = 0
        self._section = ""  # the key at the top

    def item(self, node: Any, line: int = 0, key: str = "") -> Item:
        line = line or node.start_mark.line + 1
        self._count += 1
        if self._count > _VALUES:
            raise self._wrong(
                line, f"{self._section}: there are over {_VALUES} values: this is no config"
            )
        if len(self._open) == 1:
            self._section = key
        if node.id == "scalar":
            return self._scalar(node, line, key)
        if any(node is outer for outer in self._open):
            raise self._wrong(line, f"{key}: an alias to what it stands in")
        self._open.append(node)
        if node.id == "sequence":
            value: Any = [self.item(one) for one in node.value]
        else:
            self._check_keys(node)
            self._loader.flatten_mapping(node)  # carries out "<<"
            value = {
                key.value: self.item(one, key.start_mark.line + 1, key.value)
                for key, one in node.value
            }
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

    def _scalar(self, node: Any, line: int, key: str) -> Item:
        written = text = node.value
        try:
            value = self._loader.construct_object(node)
        except Exception:  # such as the date 2024-13-45, or a number of 5,000 digits
            kind = node.tag.rpartition(":")[2]
            raise self._wrong(
                line,
                f"{key}: {written[:40]} looks to YAML like one of its values (of type {kind}), "
                f"and is none: quote it, if it is a text",
            ) from None
        if self._problems is not None and isinstance(value, str):
            try:
                value = text = fill(written, os.environ)
            except ValueError as exc:
                self._problems.add(line, str(exc))
        return Item(value, line, text, written)

    def _wrong(self, line: int, message: str) -> ConfigError:
        return ConfigError(f"{self._source}, line {line}: {message}", self._source)
