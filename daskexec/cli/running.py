"""``daskexec clusters --running`` and ``--stop``: what keepers have on this host. Floor 11."""

from __future__ import annotations

import json
import shutil
import sys
from typing import Any

import click

from daskexec import _kept, _state
from daskexec._state import Entry, moment
from daskexec.cli._common import say

__all__ = ["list_running", "stop"]


def list_running(as_json: bool) -> None:
    """Write what runs, and what is kept of what has ended, to stdout."""
    rows = [_row(entry) for entry in _state.entries()]
    if as_json:
        click.echo(json.dumps(rows, indent=1))
    elif not rows:
        say("No cluster of yours that daskexec has started runs, and no results are kept.")
    elif sys.stdout.isatty():
        _table(rows)
    else:
        for row in rows:
            click.echo("\t".join(_fields(row)))


def stop(name: str) -> None:
    """End a cluster; or remove the results of one that has ended.

    Raises
    ------
    click.ClickException
        There is none of that name, or it cannot be reached.
    """
    entry = _state.find(name)
    if entry is None:
        names = ", ".join(one.name for one in _state.entries()) or "none"
        raise click.ClickException(f"no running cluster is called {name!r}; there are: {names}")
    if entry.ended is not None:
        shutil.rmtree(entry.folder, ignore_errors=True)
        say(f"{name}: had ended at {moment(entry.ended)}; its results are removed")
        return
    if not entry.here:
        raise click.ClickException(f"{name} was started on the host {entry.host}: stop it there")
    try:
        _kept.tell(entry, "stop")
    except ConnectionError as exc:
        if _state.is_held(entry.folder):
            raise click.ClickException(
                f"{exc}. Process {entry.pid} may be ended by kill"
            ) from None
    left = _state.find(name)
    if left is None:
        say(f"{name}: ended")
    else:
        until = moment(left.until or 0.0)
        say(f"{name}: ended; results are kept until {until}, or until it is stopped once more")


def _row(entry: Entry) -> dict[str, Any]:
    """Say of a cluster what there is to say, as plain values; times in seconds, UTC."""
    row = {
        "name": entry.name,
        "kind": entry.kind,
        "config": entry.config,
        "address": entry.address,
        "host": entry.host,
        "pid": entry.pid,
        "since": entry.since,
        "client": entry.client or None,
        "detached": entry.left,
        "done": None,
        "pending": None,
        "ends": entry.until if entry.left else None,
        "ended": entry.ended,
        "why": entry.why,
    }
    if entry.ended is None and entry.here:
        try:
            row |= _kept.tell(entry, "status")
        except ConnectionError as exc:
            row["why"] = str(exc)
    return row


def _fields(row: dict[str, Any]) -> list[str]:
    calls = "" if row["done"] is None else f"{row['done']} done, {row['pending']} pending"
    return [
        row["name"],
        row["kind"],
        row["address"],
        moment(row["since"]),
        _state_of(row),
        calls if row["detached"] else "",
        _end_of(row),
    ]


def _state_of(row: dict[str, Any]) -> str:
    if row["ended"] is not None:
        return "ended"
    if row["client"]:
        return f"used by process {row['client']} on {row['host']}"
    return f"left on {row['host']}"


def _end_of(row: dict[str, Any]) -> str:
    if row["ended"] is not None:
        return f"{moment(row['ended'])} ({row['why']}); results until {moment(row['ends'] or 0)}"
    if row["ends"] is None:
        return "with that process"
    return moment(row["ends"])


def _table(rows: list[dict[str, Any]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1))
    for name in ("name", "kind", "address", "since", "state", "calls", "ends"):
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, _fields(row)))  # as texts: a name may look like markup
    Console(file=sys.stdout).print(table)
