"""``daskexec logs FILE...``: a report on access logs, over any executor. Floor 11."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, InvalidStateError
from typing import TYPE_CHECKING, Any

import click

from daskexec.cli._common import INTERRUPTED, Size, say
from daskexec.cli._log_counting import FormatText, counting_options
from daskexec.cli._log_outputs import Demo, NotWritten, Outputs, demo_options, output_options

if TYPE_CHECKING:
    from daskexec.logs.job import Plan
    from daskexec.logs.report import Report
    from daskexec.logs.tally import Counting

_RESOLVE_SECONDS = 5.0


@click.command()
@click.argument("files", nargs=-1, metavar="FILE...")
@click.option(
    "-e", "--executor", "spec", metavar="SPEC",
    help="Where the work runs: serial, threads, processes, dask, the address of a Dask "
    "scheduler (tcp://host:8786), or a cluster config: its name, as daskexec clusters lists "
    "them, or its file.  [default: $DASKEXEC_EXECUTOR, or dask]",
)  # fmt: skip
@click.option(
    "-w", "--workers", type=click.IntRange(min=1), metavar="N",
    help="Most parts worked on at a time.  [default: the executor's own]",
)  # fmt: skip
@click.option(
    "-f", "--format", "form", default="auto", show_default=True, type=FormatText(),
    metavar="FORMAT",
    help="Format of the lines; auto: told from each file's first lines. Or common, combined, "
    "vhost_common, vhost_combined, json (Caddy, nginx); or the string of Apache's LogFormat or "
    "nginx' log_format.",
)  # fmt: skip
@click.option(
    "--insecure", is_flag=True,
    help="Speak plaintext with a scheduler on another machine (tcp://).  "
    "[also: DASKEXEC_INSECURE=1]",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Write JSON alone to stdout.")
@click.option(
    "-n", "--top", type=click.IntRange(min=1), default=10, show_default=True, metavar="N",
    help="Rows of the top tables.",
)  # fmt: skip
@click.option(
    "--part-size", type=Size(), default="64MiB", show_default=True, metavar="SIZE",
    help="How much of a plain file one call reads at most.",
)  # fmt: skip
@click.option(
    "--resolve", is_flag=True,
    help="Look up host names of the top clients, for 5 seconds at most.",
)  # fmt: skip
@click.option(
    "--progress/--no-progress", default=None,
    help="Tell on stderr how far it is: a bar on a terminal, else a line every 5 seconds.  "
    "[default: on a terminal]",
)  # fmt: skip
@click.option(
    "--dry-run", is_flag=True,
    help="Say what would be read, in how many parts, and what would cross the wire; as this "
    "machine sees the files. Starts nothing.",
)  # fmt: skip
@counting_options
@output_options
@demo_options
@click.pass_context
def logs(
    ctx: click.Context,
    files: tuple[str, ...],
    spec: str | None,
    workers: int | None,
    form: str,
    insecure: bool,
    as_json: bool,
    top: int,
    part_size: int,
    resolve: bool,
    progress: bool | None,
    dry_run: bool,
    counting: Counting,
    outputs: Outputs,
    demo: Demo | None,
) -> None:
    """Report on access logs of web servers, in one pass.

    FILEs are in common or combined format or another (--format), plain or compressed with
    gzip, bzip2, xz or zstd. One may be a folder (all files below it), a quoted pattern
    ('logs/**/*.gz'), a URL that fsspec knows (s3://bucket/access.log), or - for stdin.
    On a cluster the workers open them, and must see them under the same paths.

    Ctrl-C reports on what was counted so far, marked as partial.

    \b
    Examples:
      daskexec logs --demo --executor processes
      daskexec logs access.log access.log.*.gz
      daskexec logs -e processes -w 8 /var/log/nginx/access.log
      daskexec logs --since 2015-05-17 --status 5xx --path '/api/*' access.log
      daskexec logs -e tls://scheduler:8786 --json /shared/logs > report.json
      daskexec logs --html report.html --save monday.tally access.log
      daskexec logs --merge --html week.html *.tally
      zcat access.log.*.gz | daskexec logs -

    Exit status: 0 if all went well, 1 if a file could not be counted or written, 2 for a
    usage error, 130 if interrupted.
    """
    if demo and files:
        raise click.UsageError("--demo makes its own log: give either FILEs or --demo.")
    if demo and dry_run:
        raise click.UsageError("--dry-run is for FILEs: --demo makes its log, and reads it.")
    if demo and (counting.max_keys or counting.selection != type(counting.selection)()):
        raise click.UsageError("--demo checks every number: it goes with no filter or --max-keys.")
    if "-" in files and outputs.malformed:
        raise click.UsageError("--malformed reads twice, and stdin can be read once only.")
    if not files and not demo:
        raise click.UsageError(
            "no log file given. Name one or more, or try it with: daskexec logs --demo"
        )
    start = _executor_factory(spec, workers, insecure)
    settings = {
        "form": form, "part_size": part_size, "top": top, "as_json": as_json,
        "counting": counting, "outputs": outputs, "progress": progress,
        "resolve": _RESOLVE_SECONDS if resolve else None,
    }  # fmt: skip
    try:
        if outputs.merge:
            good = _merge(files, settings)
        elif dry_run:
            good = _dry_run(files, start, settings)
        elif demo:
            good = _demo(demo, start, settings)
        else:
            good = not _report(files, start, settings).failed
    except KeyboardInterrupt:
        say("Interrupted.")
        ctx.exit(INTERRUPTED)
    except BrokenExecutor as error:
        say(f"Error: the executor broke: {error or type(error).__name__}")
        ctx.exit(1)
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        ctx.exit(0)
    except (ConnectionError, NotWritten) as error:
        say(f"Error: {error}")
        ctx.exit(1)
    except RuntimeError as error:
        from daskexec.errors import ClusterStartFailed  # imports multiprocessing

        if not isinstance(error, ClusterStartFailed):
            raise
        say(f"Error: {error}")
        ctx.exit(1)
    ctx.exit(0 if good else 1)


def _executor_factory(
    spec: str | None, workers: int | None, insecure: bool
) -> functools.partial[Executor]:
    from daskexec.select import resolve_executor

    try:
        factory = resolve_executor(spec, workers, **({"insecure": True} if insecure else {}))
        if factory.func.__name__ == "ProcessPoolExecutor":
            factory = resolve_executor(spec, workers, initializer=_die_quietly)
    except (ValueError, TypeError) as error:
        raise click.UsageError(str(error)) from None
    return factory


def _die_quietly() -> None:
    """In a worker process: end at Ctrl-C without a traceback; the parent says it once."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _report(
    files: tuple[str, ...], start: functools.partial[Executor], settings: dict[str, Any]
) -> Report:
    """Report on `files`; start an executor only if there is anything to count.

    On a cluster its workers look at the files: they may see others than this machine.
    """
    from daskexec.select import SerialExecutor

    if "cluster" in start.keywords:
        with _running(start) as executor:
            return _count(_plan(files, settings, executor), executor, settings)
    todo = _plan(files, settings)
    with _running(start if todo.files else SerialExecutor) as executor:
        return _count(todo, executor, settings)


def _dry_run(
    files: tuple[str, ...], start: functools.partial[Executor], settings: dict[str, Any]
) -> bool:
    from daskexec.logs.outline import outline

    todo = _plan(files, settings)
    click.echo(outline(todo, remote=bool(getattr(start.func, "takes_futures", False))))
    return not todo.failed


def _plan(
    files: tuple[str, ...], settings: dict[str, Any], executor: Executor | None = None
) -> Plan:
    from daskexec.logs.job import plan

    todo = plan(files, format=settings["form"], part_size=settings["part_size"], executor=executor)
    _say_plan(todo)
    return todo


def _count(todo: Plan, executor: Executor, settings: dict[str, Any]) -> Report:
    """Carry out the plan, and write the report while the executor is still there."""
    from daskexec.logs.job import Interrupted, run
    from daskexec.logs.progress import showing

    began = time.perf_counter()
    options = {name: settings[name] for name in ("top", "resolve", "counting")}
    try:
        with showing(sys.stderr, settings["progress"] if todo.files else False) as progress:
            report = run(
                todo,
                executor,
                progress=progress,
                keep_tally=bool(settings["outputs"].save),
                **options,
            )
    except Interrupted as interrupted:
        if interrupted.report is not None and interrupted.report.lines:
            say("Interrupted: the report is of what had been counted by then.")
            _write(interrupted.report, settings["as_json"])
            settings["outputs"].write(interrupted.report)
        raise
    seconds = time.perf_counter() - began
    for failed in report.failed[len(todo.failed) :]:
        _say_failed(failed.name, failed.reason)
    if report.files or settings["as_json"]:
        _write(report, settings["as_json"])
        settings["outputs"].write(
            report, executor, settings["part_size"], settings["counting"].selection
        )
    if report.files:
        say(_speed(report, todo.size, seconds, type(executor).__name__))
    return report


def _merge(files: tuple[str, ...], settings: dict[str, Any]) -> bool:
    """Report on saved tallies; tell whether all could be read."""
    from daskexec.logs.saved import merge_saved

    report = merge_saved(files, settings["top"])
    for failed in report.failed:
        _say_failed(failed.name, failed.reason)
    if report.files or settings["as_json"]:
        _write(report, settings["as_json"])
        settings["outputs"].write(report)
    return not report.failed


def _demo(demo: Demo, start: Callable[[], Executor], settings: dict[str, Any]) -> bool:
    """Report on a made-up log and check it, in each compression; tell whether all is well."""
    from daskexec.logs.demo import differences
    from daskexec.logs.job import analyze

    with contextlib.ExitStack() as stack:
        folder = demo.folder
        if folder is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="daskexec-demo-"))
        made = demo.write(folder, settings["top"])
        first, *others = made.paths.values()
        also = "".join(f", the same in {path}" for path in others)
        say(f"demo: {made.lines:,} made-up lines in {first}{also},")
        say(f"demo: and what a report on them must say in {made.expected}")
        executor = stack.enter_context(_running(start))
        todo = _plan((first,), settings, executor)
        wrong = differences(made, _count(todo, executor, settings))
        for path in others:
            report = analyze([path], executor, top=settings["top"], counting=settings["counting"])
            wrong += differences(made, report)
    for line in wrong:
        say(f"demo: WRONG: {line}")
    if not wrong:
        endings = " and ".join(ending or "plain" for ending in made.paths)
        say(f"demo: checked: every number is what the generator expects, in {endings}")
    return not wrong


@contextlib.contextmanager
def _running(start: Callable[[], Executor]) -> Iterator[Executor]:
    """An executor that is shut down at the end, and abandoned when interrupted."""
    executor = start()
    hook = threading.excepthook
    if type(executor).__name__ == "ProcessPoolExecutor":
        threading.excepthook = functools.partial(_pool_thread_died, hook)
    try:
        yield executor
        executor.shutdown()
        threading.excepthook = hook
    except KeyboardInterrupt:
        # The interpreter's exit would wait for the parts that are being read.
        stop = getattr(executor, "terminate_workers", None)  # of pools: from Python 3.14
        if stop is not None:
            stop()
        executor.shutdown(wait=False, cancel_futures=True)
        processes = sys.modules.get("multiprocessing")
        if type(executor).__name__ == "ProcessPoolExecutor" and processes is not None:
            for child in processes.active_children():
                child.terminate()
        raise
    except BaseException:
        executor.shutdown(cancel_futures=True)
        threading.excepthook = hook
        raise


def _pool_thread_died(hook: Callable[[Any], Any], what: threading.ExceptHookArgs) -> None:
    """Say nothing of a pool's thread that trips, before Python 3.12, over cancelled calls when
    Ctrl-C has ended its processes; all else goes to `hook`."""
    if what.exc_type is not InvalidStateError:
        hook(what)


def _write(report: Report, as_json: bool) -> None:
    if as_json:
        click.echo(report.to_json(), nl=False)
        return
    from rich.console import Console

    from daskexec.logs.render import render

    render(report, Console(file=sys.stdout))


def _say_failed(name: str, reason: str) -> None:
    say(f"Error: {_shown(name)}: {reason}")


def _shown(name: str) -> str:
    from daskexec.logs.keys import show_key

    return show_key(name.encode("utf-8", "surrogateescape"))


def _say_plan(todo: Plan) -> None:
    by_format: dict[str, list[str]] = {}
    for file, _ in todo.files:
        by_format.setdefault(file.format, []).append(_shown(os.path.basename(file.name)))
    for form, names in by_format.items():
        more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
        say(f"format {form}: {', '.join(names[:3])}{more}")
    for note in todo.notes:
        say(f"note: {_shown(note)}")
    for failed in todo.failed:
        _say_failed(failed.name, failed.reason)


def _speed(report: Report, size: int, seconds: float, executor: str) -> str:
    from daskexec.logs.words import human_bytes

    rate = human_bytes(size / seconds) if seconds else "?"
    return f"{report.lines:,} lines, {human_bytes(size)} in {seconds:.2f} s ({rate}/s), {executor}"
