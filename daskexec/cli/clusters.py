"""``daskexec clusters``, ``config``, ``check``: the cluster configs that there are. Floor 11."""

from __future__ import annotations

import json
import sys
import warnings
from typing import TYPE_CHECKING, Any

import click

from daskexec.cli._common import say

if TYPE_CHECKING:
    from daskexec.config import ClusterConfig

# --- daskexec clusters ---------------------------------------------------------------------------


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Write JSON to stdout.")
@click.option(
    "--running", is_flag=True,
    help="List what runs, and what has ended and left results, in place of configs.",
)  # fmt: skip
@click.option(
    "--stop", "name", metavar="NAME",
    help="End the running cluster of that name; of one that has ended, remove the results.",
)  # fmt: skip
def clusters(as_json: bool, running: bool, name: str | None) -> None:
    """List the cluster configs that can be had by name, or what runs.

    For each: its name, what it starts, its description, its file, and the files of the same
    name that it hides. A file that is no config is listed with what is wrong.

    Where they are looked for, in order: $DASKEXEC_CONFIG_DIR, ~/.config/daskexec,
    /etc/daskexec, and those that come with daskexec.

    With --running, for each cluster that was started from a config by this user: its name,
    its kind, the address of its scheduler, since when it runs, who uses it, how many of the
    calls that were left with it are done, and when it will end.
    """
    if name is not None or running:
        from daskexec.cli.running import list_running, stop

        if name is not None:
            stop(name)
        if running:
            list_running(as_json)
        return
    rows = _rows()
    if as_json:
        click.echo(json.dumps(rows, indent=1))
    elif sys.stdout.isatty():
        _table(rows)
    else:
        for row in rows:
            click.echo("\t".join(_fields(row)))


def _rows() -> list[dict[str, Any]]:
    from daskexec.config import list_configs
    from daskexec.config.loading import peek
    from daskexec.errors import ConfigError

    rows = []
    for found in list_configs():
        error = ""
        try:
            kind, description = peek(found.path)
        except ConfigError as exc:
            kind, description, error = "", "", str(exc)
        rows.append(
            {
                "name": found.name,
                "kind": kind,
                "description": description,
                "path": str(found.path),
                "shadows": [str(path) for path in found.shadows],
                "error": error,
            }
        )
    return rows


def _fields(row: dict[str, Any]) -> list[str]:
    description = row["description"]
    if not row["kind"]:
        description = row["error"] or "no kind is known: daskexec check says more"
    return [row["name"], row["kind"] or "?", description, row["path"], ", ".join(row["shadows"])]


def _table(rows: list[dict[str, Any]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1))
    for name in ("name", "kind"):
        table.add_column(name, no_wrap=True)
    table.add_column("what, and from which file", overflow="fold")
    for row in rows:
        name, kind, what, path, hides = _fields(row)
        # As texts: a path may look like markup.
        cell = Text(what)
        cell.append(f"\n{path}", style="dim")
        if hides:
            cell.append(f"\nhides {hides}", style="yellow")
        table.add_row(Text(name), Text(kind), cell)
    Console(file=sys.stdout).print(table)


# --- daskexec config -----------------------------------------------------------------------------


@click.command()
@click.argument("name", metavar="NAME")
def config(name: str) -> None:
    """Print a cluster config, comments and all, to be edited.

    \b
    Example:
      daskexec config slurm > ~/.config/daskexec/mysite.yaml
    """
    from daskexec.config import find_config, suggest

    path = find_config(name)
    if path is None:
        raise click.ClickException(f"no cluster config is called {name!r}: {suggest(name)}")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise click.ClickException(f"{path}: cannot be read: {exc}") from None
    # Elsewhere the schema is not beside it.
    schema = path.absolute().parent / "schema.json"
    if schema.is_file():
        text = text.replace("$schema=./schema.json", f"$schema={schema}", 1)
    click.echo(text, nl=False)


# --- daskexec check ------------------------------------------------------------------------------


@click.command()
@click.argument("name", metavar="NAME_OR_FILE")
@click.option(
    "--start", is_flag=True,
    help="Start one worker too, run a few calls there, say what was seen, and end it.",
)  # fmt: skip
@click.pass_context
def check(ctx: click.Context, name: str, start: bool) -> None:
    """Check a cluster config and say what it would do; start nothing, without --start.

    Says its kind, how large the cluster would be, where it is, and for a queue the script of
    a job. What is wrong with it is told with the lines, all of it.

    With --start one worker is brought up, and it is said how long that takes, which versions
    of Python and packages differ on the two sides, which files the worker sees, how long a
    call takes there and back, and the bandwidth. All of it is ended after.

    Exit status: 0 if it is right (and a call could be run), 1 if it is not.
    """
    from daskexec.errors import ClusterStartFailed

    try:
        loaded = _loaded(name)
        _tell(loaded)
    except (ValueError, ClusterStartFailed) as error:  # ConfigError is a ValueError
        say(f"Error: {error}")
        ctx.exit(1)
    if start and not _start(loaded):
        ctx.exit(1)


def _start(config: ClusterConfig) -> bool:
    """Try a config for real; tell whether a call could be run."""
    from concurrent.futures import BrokenExecutor

    from rich.console import Console

    from daskexec.checkup import render, start_and_look

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = start_and_look(config, lambda line: say(f"... {line}"))
        except (BrokenExecutor, OSError, ImportError, ValueError, RuntimeError) as error:
            say(f"Error: {error or type(error).__name__}")
            found = None
    for text in dict.fromkeys(str(warning.message) for warning in caught):
        if not text.startswith("DaskExecutor is waiting"):  # that was said meanwhile
            say(f"Warning: {text}")
    if found is None:
        return False
    click.echo()
    render(found, Console(file=sys.stdout))
    return True


def _loaded(name: str) -> ClusterConfig:
    """Load a config; its warnings are lines of their own."""
    from daskexec.config import load_config

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loaded = load_config(name)
    for warning in caught:
        say(f"Warning: {warning.message}")
    return loaded


def _tell(config: ClusterConfig) -> None:
    described = f" ({config.description})" if config.description else ""
    told = {
        "config": config.source,
        "kind": f"{config.kind}{described}",
        "size": size(config),
        "where": place(config),
        "walltime": f"{config.walltime:g} s" if config.walltime else "",
        "first worker": f"waited for {config.start_timeout:g} s at most",
        **{name: str(value) for name, value in config.dask_config.items()},
    }
    script = _script(config)  # it may fail: nothing is told before
    for name, value in told.items():
        if value:
            click.echo(f"{name}: {value}")
    if script:
        click.echo(f"job script:\n\n{script}")


def _script(config: ClusterConfig) -> str:
    from daskexec.config import QUEUES

    if config.kind not in QUEUES:
        return ""
    from daskexec.kinds.queues import job_script

    return job_script(config).strip()


def size(config: ClusterConfig) -> str:
    """Say in words how large a cluster is."""
    from daskexec.config import QUEUES

    kwargs, scale, adapt = config.cluster_kwargs, config.scale, config.adapt
    if config.kind == "scheduler":
        return "that of the cluster that runs there"
    if config.kind == "threads":
        return _many(kwargs.get("threads_per_worker", 4), "thread")
    if config.kind == "ssh":
        each = kwargs.get("worker_options", {}).get("n_workers", 1)
        return f"{_many(len(kwargs['hosts']), 'host')}, {_many(each, 'worker')} on each"
    unit = "job" if config.kind in QUEUES else "worker"
    if adapt:
        least = adapt.get("minimum_jobs", adapt.get("minimum", 0))
        most = adapt.get("maximum_jobs", adapt.get("maximum"))
        upper = "as many as the work asks for" if most is None else _many(most, unit)
        text = f"{least} to {upper}, as there is work"
    elif config.kind == "local" and not scale:
        number = kwargs.get("n_workers")
        text = "a worker for each core" if number is None else _many(number, "worker")
    else:
        text = _many(next(iter(scale.values()), 1), unit)
    if "cores" in kwargs:
        text += f"; each job {_many(kwargs['cores'], 'core')}, {kwargs.get('memory', '?')}"
    return text


def place(config: ClusterConfig) -> str:
    """Say where a cluster is; "" for a queue, which decides that."""
    kwargs = config.cluster_kwargs
    if config.kind in ("local", "threads"):
        return "this machine" if config.kind == "local" else "this process"
    if config.kind == "ssh":
        return ", ".join(kwargs["hosts"])
    if config.kind == "kubernetes":
        return f"namespace {kwargs.get('namespace', 'of the current context')}"
    return str(kwargs.get("address", ""))


def _many(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
