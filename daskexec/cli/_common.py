"""What all commands share. Floor 11."""

from __future__ import annotations

import click

__all__ = ["INTERRUPTED", "say"]

INTERRUPTED = 130


def say(line: str) -> None:
    """Write a line to stderr: stdout is for what was asked for."""
    click.echo(line, err=True)
