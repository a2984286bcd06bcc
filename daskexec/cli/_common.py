"""What all commands share. Floor 11."""

from __future__ import annotations

import re
from typing import Any

import click

__all__ = ["INTERRUPTED", "Size", "say"]

INTERRUPTED = 130

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30}


class Size(click.ParamType[int]):
    """A number of bytes such as ``65536``, ``500kB`` or ``64MiB``."""

    name = "size"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg]i?)?b?", value.strip(), re.IGNORECASE)
        number = float(match[1]) * _UNITS[(match[2] or "").lower()] if match else 0
        if number < 1:
            self.fail(f"{value!r} is not a size such as 65536, 500kB or 64MiB", param, ctx)
        return int(number)


def say(line: str) -> None:
    """Write a line to stderr: stdout is for what was asked for."""
    click.echo(line, err=True)
