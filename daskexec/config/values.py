"""What each type of value in a config is checked for, and how it is told in a schema. Floor 1.

`TYPES` has a check for each type that `daskexec.config.keys` names. A check takes the item of
the file and returns the value for the config, or raises `ValueError` with what is expected.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from daskexec.config.document import Item

__all__ = ["TYPES", "Type", "walltime_seconds"]

_HOLE = {"type": "string", "pattern": r"\$\{"}  # a number may be filled in from a variable


@dataclass(frozen=True)
class Type:
    """How values of a type are checked.

    Attributes
    ----------
    check : callable
        From the item of the file to the value for the config.
    shape : {"scalar", "list", "mapping"}
        Of the item.
    schema : dict
        The same check, as far as JSON Schema can say it.
    said : str
        What it is, for the README.
    """

    check: Callable[[Item], Any]
    shape: str
    schema: dict[str, Any] = field(default_factory=dict)
    said: str = ""


def _text(item: Item) -> str:
    # As it is written: an account 0123 is not the number 83, a queue `on` is not true.
    return item.text


def _integer(least: int, most: int = 1 << 63) -> Callable[[Item], int]:
    def check(item: Item) -> int:
        value = item.value
        if item.filled and re.fullmatch(r"\d+", item.text):
            value = int(item.text)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"must be a whole number, {least} or more, not {item.text}")
        if not item.filled and not re.fullmatch(r"\+?(0|[1-9][0-9]*)", item.written):
            raise ValueError(
                f"must be a whole number, and YAML reads {item.written} as {value}: write that, "
                f"or what you meant, in plain digits"
            )
        if value > most:
            raise ValueError(f"must be at most {most}, not {item.text}")
        return value

    return check


def _flag(item: Item) -> bool:
    if item.filled and item.text.lower() in ("true", "false"):
        return item.text.lower() == "true"
    if not isinstance(item.value, bool):
        raise ValueError(f"must be true or false, not {item.text}")
    return item.value


def _size(item: Item) -> str | int:
    from dask.utils import parse_bytes

    try:
        size = parse_bytes(item.value)
    except (ValueError, TypeError, AttributeError, OverflowError):
        size = -1
    if isinstance(item.value, bool) or size < 0:
        raise ValueError(f"must be a number of bytes such as 64GiB or 500MB, not {item.text}")
    if size < 1 << 20:
        raise ValueError(f"{item.text} is {size} bytes: add the unit, such as {item.text}GiB")
    return item.value if isinstance(item.value, int) else item.text


def _limit(item: Item) -> Any:
    """Check a memory limit of Dask's: a size, a share of the memory, "auto" or 0 for none."""
    if item.text == "auto" or (item.value == 0 and item.value is not False):
        return item.value
    if isinstance(item.value, float) and 0 < item.value <= 1:
        return item.value
    return _size(item)


def _duration(item: Item) -> Any:
    from dask.utils import parse_timedelta

    if ":" in item.text:
        raise ValueError(f"must be seconds, or a duration such as 60s or 15m, not {item.text}")
    try:
        seconds = parse_timedelta(item.value)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        seconds = None
    if isinstance(item.value, bool) or seconds is None or seconds < 0:
        raise ValueError(f"must be seconds, or a duration such as 60s or 15m, not {item.text}")
    return item.value


def _seconds(item: Item) -> float:
    from dask.utils import parse_timedelta

    return float(parse_timedelta(_duration(item)))


def _walltime(item: Item) -> str:
    if isinstance(item.value, str):
        return item.text
    if ":" in item.written:
        raise ValueError(
            f"{item.written} is not quoted, and YAML reads it as the number {item.value}: quote "
            f'it, "{item.written}"'
        )
    raise ValueError(f'must be a string: quote it, as in "01:30:00", and not {item.written}')


def _words(item: Item) -> list[str]:
    items = item.value if isinstance(item.value, list) else [item]
    words = []
    for one in items:
        if isinstance(one.value, (dict, list)):
            raise ValueError(
                "must be a list of texts; one with ': ' in it, or that begins with a bracket or "
                "a brace, must be quoted"
            )
        if not one.void():
            words.append(one.text)
    return words


def _homes(item: Item) -> list[str]:
    return [os.path.expanduser(one) for one in _words(item)]


def _path(item: Item) -> str:
    """Expand a path that is used here, where jobs are submitted: a variable must be set here."""
    text = os.path.expandvars(os.path.expanduser(item.text))
    if "$" in text:
        raise ValueError(
            f"is used on this machine, and {text[text.index('$') :].partition('/')[0]} is not set "
            f"in the environment here"
        )
    return text


def _home(item: Item) -> str:
    return os.path.expanduser(item.text)


def _secret(item: Item) -> str:
    if not re.fullmatch(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}", item.written):
        raise ValueError(
            "is a secret, and those do not belong in a file: put it in an environment variable "
            "and write ${NAME_OF_THE_VARIABLE}"
        )
    return item.text


def _address(item: Item) -> str:
    from daskexec._checks import scheduler_address

    address = scheduler_address(item.text)
    if address is None:
        raise ValueError(f"must be an address such as tcp://host:8786, not {item.text!r}")
    return address


def _url(item: Item) -> str:
    if not re.match(r"(https?|tls|tcp|gateway)://[^/\s]+", item.text):
        raise ValueError(f"must be a URL such as https://host:port, not {item.text!r}")
    return item.text


def _free(item: Item) -> Any:
    if not isinstance(item.value, dict):
        raise ValueError("must be a mapping: lines 'name: value' below it, indented")
    return item.plain()


def _lists(item: Item) -> Any:
    if not isinstance(item.value, list):
        raise ValueError("must be a list: lines '- ...' below it")
    return item.plain()


def _texts(item: Item) -> dict[str, str]:
    if not isinstance(item.value, dict) or any(
        isinstance(one.value, (dict, list)) for one in item.value.values()
    ):
        raise ValueError("must be a mapping of texts: lines 'name: value' below it, indented")
    return {name: one.text for name, one in item.value.items()}


_SCALAR = {"type": ["string", "number", "boolean"]}

TYPES: dict[str, Type] = {
    "text": Type(_text, "scalar", _SCALAR, "text"),
    "count": Type(
        _integer(1), "scalar", {"anyOf": [{"type": "integer", "minimum": 1}, _HOLE]}, "number"
    ),
    "whole": Type(
        _integer(0), "scalar", {"anyOf": [{"type": "integer", "minimum": 0}, _HOLE]}, "number"
    ),
    "port": Type(
        _integer(0, 65535),
        "scalar",
        {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 65535}, _HOLE]},
        "number",
    ),
    "flag": Type(_flag, "scalar", {"anyOf": [{"type": "boolean"}, _HOLE]}, "true or false"),
    "size": Type(_size, "scalar", {"type": ["string", "integer"]}, "bytes, such as 64GiB"),
    "limit": Type(_limit, "scalar", {"type": ["string", "number"]}, "bytes, such as 4GiB"),
    "duration": Type(
        _duration, "scalar", {"type": ["string", "number"]}, "seconds, or such as 15m"
    ),
    "seconds": Type(_seconds, "scalar", {"type": ["string", "number"]}, "seconds, or such as 15m"),
    "walltime": Type(_walltime, "scalar", {"type": "string"}, 'time, quoted: "02:00:00"'),
    "path": Type(_path, "scalar", {"type": "string"}, "path; ~ and $VAR are expanded"),
    "home": Type(_home, "scalar", {"type": "string"}, "path; ~ is expanded"),
    "there": Type(_text, "scalar", {"type": "string"}, "path where the worker runs; $VAR is kept"),
    "secret": Type(_secret, "scalar", {"type": "string", "pattern": r"^\$\{\w+\}$"}, "${NAME}"),
    "address": Type(_address, "scalar", {"type": "string"}, "tcp://host:port"),
    "url": Type(_url, "scalar", {"type": "string"}, "https://host:port"),
    "words": Type(
        _words,
        "list",
        {"anyOf": [{"type": "array", "items": _SCALAR}, _SCALAR]},
        "list of texts",
    ),
    "homes": Type(
        _homes,
        "list",
        {"anyOf": [{"type": "array", "items": _SCALAR}, _SCALAR]},
        "list of paths; ~ is expanded",
    ),
    "lists": Type(_lists, "list", {"type": "array"}, "list"),
    "texts": Type(
        _texts,
        "mapping",
        {"type": "object", "additionalProperties": _SCALAR},
        "names to texts",
    ),
    "free": Type(_free, "mapping", {"type": "object"}, "names to values"),
}

# How many seconds the fields of a walltime are, by their number; as each queue's manual has it.
_FIELDS: dict[str, dict[int, tuple[int, ...]]] = {
    "slurm": {1: (60,), 2: (60, 1), 3: (3600, 60, 1)},
    "pbs": {1: (1,), 2: (60, 1), 3: (3600, 60, 1)},
    "moab": {1: (1,), 2: (60, 1), 3: (3600, 60, 1), 4: (86400, 3600, 60, 1)},
    "sge": {1: (1,), 2: (60, 1), 3: (3600, 60, 1)},
    "oar": {1: (3600,), 2: (3600, 60), 3: (3600, 60, 1)},
    "lsf": {1: (60,), 2: (3600, 60)},
}
_SHAPES = {"slurm": "[days-]HH:MM:SS", "lsf": "HH:MM", "moab": "[DD:]HH:MM:SS"}


def walltime_seconds(kind: str, text: str) -> float | None:
    """Return how many seconds a queue takes a walltime for; None for no limit.

    Raises
    ------
    ValueError
        The queue would not understand it, or understand 0.
    """
    if kind == "slurm" and text.upper() in ("UNLIMITED", "INFINITE"):
        return None
    days, dash, rest = text.rpartition("-") if kind == "slurm" else ("", "", text)
    if kind == "lsf":
        rest = rest.partition("/")[0]  # HH:MM/host: of what speed the time is meant
    parts = rest.split(":")
    # After "days-" Slurm counts from the hours on: 1-12 is a day and twelve hours.
    units = (3600, 60, 1)[: len(parts)] if dash else _FIELDS[kind].get(len(parts), ())
    fields = [*parts, days] if dash else parts
    good = len(units) == len(parts) and all(re.fullmatch("[0-9]+", one) for one in fields)
    seconds = sum(int(n) * unit for n, unit in zip(parts, units, strict=False)) if good else 0
    seconds += int(days) * 86400 if good and dash else 0
    if seconds <= 0:
        shape = _SHAPES.get(kind, "HH:MM:SS")
        raise ValueError(f"{text!r} is no time that {kind} understands: write it as {shape}")
    return float(seconds)
