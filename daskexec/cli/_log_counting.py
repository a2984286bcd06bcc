"""How ``daskexec logs`` counts: formats, filters, the engine, memory. Floor 11.

`counting_options` adds a block of options to a command, which is given them as one
`daskexec.logs.tally.Counting`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

__all__ = ["FormatText", "counting_options"]

_Command = Callable[..., Any]


class FormatText(click.ParamType[str]):
    """``auto``, or what `daskexec.logs.formats.find_format` takes."""

    name = "format"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        from daskexec.logs.formats import find_format

        if value != "auto":
            try:
                return find_format(value).name
            except ValueError as error:
                self.fail(str(error), param, ctx)
        return str(value)


_OPTIONS = (
    click.option(
        "--since", metavar="TIME",
        help="Count from this day, hour, minute or second on: 2015-05-17, 2015-05-17T10:05; as "
        "written in the log, or in a zone (Z, +02:00).",
    ),
    click.option(
        "--until", metavar="TIME", help="Count up to the end of this day, hour, ...",
    ),
    click.option(
        "--status", metavar="CODES", multiple=True,
        help="Count these answers only: 404, 5xx, 400-403, or several with commas between.",
    ),
    click.option(
        "--path", metavar="PATTERN", multiple=True,
        help="Count these paths only: '/blog/*'; * stands for anything. May be repeated.",
    ),
    click.option(
        "--exclude-ip", metavar="ADDRESS", multiple=True,
        help="Leave out a client, or a network such as 10.0.0.0/8. May be repeated.",
    ),
    click.option(
        "--no-crawlers", is_flag=True, help="Leave out user agents that say they are crawlers.",
    ),
    click.option("--no-query", is_flag=True, help="Cut paths before their question mark."),
    click.option(
        "--anonymize-ip", is_flag=True,
        help="Zero the last byte of IPv4 addresses and the last 80 bits of IPv6 addresses.",
    ),
    click.option(
        "--engine", type=click.Choice(["auto", "stdlib", "arrow"]), default="auto",
        show_default=True,
        help="What reads the lines: numpy and pyarrow, or Python alone; auto: the first where "
        "installed. Both say the same.",
    ),
    click.option(
        "--max-keys", type=click.IntRange(min=1), metavar="N",
        help="Keep memory small: of each table the N to 2 N most frequent keys only. The report "
        "then says by how much counts may be too low.  [default: keep all]",
    ),
)  # fmt: skip


def counting_options(command: _Command) -> _Command:
    """Add the options to a command, which gets them as ``counting``."""

    @functools.wraps(command)
    def run(*args: Any, engine: str, max_keys: int | None, **options: Any) -> Any:
        from daskexec.logs.selection import select
        from daskexec.logs.tally import Counting

        names = (
            "since", "until", "status", "path", "exclude_ip", "no_crawlers", "no_query",
            "anonymize_ip",
        )  # fmt: skip
        try:
            selection = select(**{name: options.pop(name) for name in names})
            counting = Counting(selection, engine, max_keys or 0)
            counting.check()
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        return command(*args, counting=counting, **options)

    for option in reversed(_OPTIONS):
        run = option(run)
    return run
