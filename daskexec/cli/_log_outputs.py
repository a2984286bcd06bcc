"""What ``daskexec logs`` writes besides the report on stdout, and its made-up log. Floor 11.

`output_options` and `demo_options` add a block of options each to a command, which is given
them as one `Outputs` and one `Demo`.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import IO, TYPE_CHECKING, Any

import click

from daskexec.cli._common import Size, say

if TYPE_CHECKING:
    from daskexec.logs.demo import Demo as Written
    from daskexec.logs.report import Report
    from daskexec.logs.selection import Selection

_Command = Callable[..., Any]
_FILE = click.Path(dir_okay=False)


def _show_schema(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        schema = files("daskexec.logs") / "assets" / "report.schema.json"
        click.echo(schema.read_text("utf-8"), nl=False)
        ctx.exit()


class NotWritten(Exception):
    """A file of the outputs could not be written; the message names it and says why."""


@dataclass(frozen=True)
class Outputs:
    """What is asked for, and where it goes."""

    html: str | None
    csv: tuple[tuple[str, str], ...]
    save: str | None
    merge: bool
    malformed: str | None

    def check(self) -> None:
        """Refuse what cannot be written before anything is counted."""
        from daskexec.logs.sheets import SHEETS

        names = [("--html", self.html), ("--save", self.save), ("--malformed", self.malformed)]
        for table, path in self.csv:
            if table not in (*SHEETS, "all"):
                raise click.UsageError(
                    f"--csv: no table is called {table!r}; there are all, {', '.join(SHEETS)}"
                )
            names.append(("--csv", path))
        for option, name in names:
            folder = os.path.dirname(os.path.abspath(name)) if name else None
            if folder and not os.path.isdir(folder):
                raise click.UsageError(f"{option}: there is no folder {folder}")
        if self.merge and (self.malformed or self.save):
            option = "--malformed" if self.malformed else "--save"
            why = (
                "a saved tally has only the first malformed lines" if self.malformed
                else "merge the saved tallies themselves, whenever you need to"
            )  # fmt: skip
            raise click.UsageError(f"{option} does not go with --merge: {why}.")

    def write(
        self,
        report: Report,
        executor: Executor | None = None,
        part_size: int = 64 << 20,
        selection: Selection | None = None,
    ) -> None:
        """Write what was asked for, and say so.

        Raises
        ------
        NotWritten
            At the first file that cannot be.
        """
        if self.html:
            from daskexec.logs.html import to_html

            with _opened(self.html) as stream:
                stream.write(to_html(report))
        for table, path in self.csv:
            _write_csv(report, table, path)
        if self.save:
            from daskexec.logs.saved import save

            with _telling(self.save):
                save(report, self.save)
        if self.malformed and executor is not None:
            from daskexec.logs.malformed import write_malformed
            from daskexec.logs.tally import Unreadable

            try:
                with _opened(self.malformed) as stream:
                    write_malformed(
                        report, executor, stream, part_size=part_size, selection=selection
                    )
            except Unreadable as error:
                raise NotWritten(f"{self.malformed} is not complete: {error}") from None


@dataclass(frozen=True)
class Demo:
    """The made-up log that is asked for."""

    folder: str | None
    size: int | None
    form: str
    seed: int
    compressions: tuple[str, ...]

    def write(self, folder: str, top: int) -> Written:
        """Write it into `folder`.

        Raises
        ------
        NotWritten
            If it cannot be.
        """
        from daskexec.logs.demo import LINES, lines_for, write_demo

        lines = LINES if self.size is None else lines_for(self.size, self.form, self.seed)
        # A log of a size that was asked for is for measuring: without a second file.
        kinds = self.compressions or (("plain", "gz") if self.size is None else ("plain",))
        try:
            return write_demo(
                folder,
                seed=self.seed,
                lines=lines,
                top=top,
                format=self.form,
                compressions=["" if kind == "plain" else kind for kind in kinds],
            )
        except OSError as error:
            raise NotWritten(f"cannot write the made-up log: {error}") from None
        except RuntimeError as error:
            raise NotWritten(str(error)) from None


def output_options(command: _Command) -> _Command:
    """Add the options of what is written; `command` gets them as ``outputs``."""

    @functools.wraps(command)
    def collected(
        *args: Any,
        html: str | None,
        csv: tuple[tuple[str, str], ...],
        save: str | None,
        merge: bool,
        malformed: str | None,
        **rest: Any,
    ) -> Any:
        outputs = Outputs(html, csv, save, merge, malformed)
        outputs.check()
        return command(*args, outputs=outputs, **rest)

    for option in (
        click.option(
            "--malformed", type=_FILE, metavar="FILE",
            help="Write all malformed lines to FILE: file, line number, reason, text, between "
            "tabs. Files that have such lines are read twice.",
        ),
        click.option(
            "--merge", is_flag=True,
            help="FILEs are saved tallies: report on all of them as one.",
        ),
        click.option(
            "--save", type=_FILE, metavar="FILE",
            help="Save all that was counted to FILE, for --merge.",
        ),
        click.option(
            "--json-schema", is_flag=True, is_eager=True, expose_value=False,
            callback=_show_schema, help="Write the JSON Schema of --json, and exit.",
        ),
        click.option(
            "--csv", nargs=2, multiple=True, metavar="TABLE FILE",
            help="Write a table to FILE as CSV: totals, files, statuses, hours, days, hosts, "
            "paths, paths_by_bytes, not_found, clients, referrers, browsers, systems, crawlers, "
            "agents; or all, each into a file in the folder FILE.",
        ),
        click.option(
            "--html", type=_FILE, metavar="FILE",
            help="Write the report to FILE as a web page with charts, which needs nothing else.",
        ),
    ):  # fmt: skip
        collected = option(collected)
    return collected


def demo_options(command: _Command) -> _Command:
    """Add the options of the made-up log; `command` gets them as ``demo``, or ``None``."""

    @functools.wraps(command)
    def collected(
        *args: Any,
        demo: bool,
        demo_dir: str | None,
        demo_size: int | None,
        demo_format: str | None,
        demo_seed: int | None,
        demo_compression: tuple[str, ...],
        **rest: Any,
    ) -> Any:
        wanted = None
        if demo or demo_dir or demo_size or demo_format or demo_compression or demo_seed:
            wanted = Demo(
                demo_dir, demo_size, demo_format or "combined", demo_seed or 1, demo_compression
            )
        return command(*args, demo=wanted, **rest)

    for option in (
        click.option(
            "--demo-compression", multiple=True, metavar="KIND",
            type=click.Choice(["plain", "gz", "bz2", "xz", "zst"]),
            help="Write it plain, or as gz, bz2, xz or zst; may be given several times.",
        ),
        click.option(
            "--demo-seed", type=click.IntRange(min=1), metavar="N",
            help="Another number, another log.  [default: 1]",
        ),
        click.option(
            "--demo-format", type=click.Choice(["common", "combined", "vhost_combined"]),
            help="Format of the made-up log.  [default: combined]",
        ),
        click.option(
            "--demo-size", type=Size(), metavar="SIZE",
            help="About how large the made-up log is, such as 300MB.  [default: 50,000 lines]",
        ),
        click.option(
            "--demo-dir", type=click.Path(file_okay=False), metavar="DIR",
            help="Keep the files of --demo in DIR. Any --demo-... implies --demo.",
        ),
        click.option(
            "--demo", is_flag=True,
            help="Make up a log, report on it, and check the report against what was made up.",
        ),
    ):  # fmt: skip
        collected = option(collected)
    return collected


def _write_csv(report: Report, table: str, path: str) -> None:
    from daskexec.logs.sheets import write_all, write_csv

    if table == "all":
        with _telling(path):
            write_all(report, path)
        return
    with _opened(path, newline="") as stream:
        write_csv(report, table, stream)


@contextmanager
def _opened(path: str, newline: str = "\n") -> Iterator[IO[str]]:
    with _telling(path), open(path, "w", encoding="utf-8", newline=newline) as stream:
        yield stream


@contextmanager
def _telling(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise NotWritten(f"cannot write {path}: {error.strerror or error}") from None
    say(f"wrote {path}")
