"""The command line of the benchmarks."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
from pathlib import Path

import click
from rich.console import Console

from benchmarks import report, runner
from benchmarks.peers import PEERS
from benchmarks.workloads import WORKLOADS


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Peers(click.ParamType[tuple[str, ...]]):
    """Names separated by commas."""

    name = "NAME,NAME,..."

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        names = tuple(name.strip() for name in str(value).split(","))
        for name in names:
            if name not in PEERS:
                self.fail(f"no peer {name!r}; there are: {', '.join(PEERS)}", param, ctx)
        return names


def _epilog() -> str:
    workloads = "\n".join(f"  {w.name:<13} {w.about}" for w in WORKLOADS.values())
    peers = "\n".join(f"  {p.name:<15} {p.title}" for p in PEERS.values())
    return f"\b\nPeers:\n{peers}\n\n\b\nWorkloads:\n{workloads}"


@click.command(epilog=_epilog(), context_settings={"max_content_width": 200})
@click.argument("workloads", nargs=-1, type=click.Choice(list(WORKLOADS)), metavar="[WORKLOAD]...")
@click.option("--peers", type=_Peers(), default=tuple(PEERS), help="Only these. [default: all]")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option(
    "--scale",
    type=click.FloatRange(0, min_open=True),
    default=1.0,
    show_default=True,
    help="Factor on the numbers of calls: 0.01 for a trial.",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=_cores(),
    show_default="the number of usable cores",
    help="Workers of each executor, of one thread each.",
)
@click.option(
    "--limit",
    type=click.FloatRange(0, min_open=True),
    help="Seconds for each turn. [default: the workload's, 180 to 900]",
)
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write every figure of every round to this file.",
)
@click.option("--markdown", is_flag=True, help="Print tables that can be pasted into a page.")
@click.option(
    "--write-readme",
    is_flag=True,
    help="Put the tables into benchmarks/README.md, in the place of the old ones.",
)
def main(
    workloads: tuple[str, ...],
    peers: tuple[str, ...],
    rounds: int,
    scale: float,
    workers: int,
    limit: float | None,
    json_file: Path | None,
    markdown: bool,
    write_readme: bool,
) -> None:
    """Run DaskExecutor side by side with its peers, and print medians and ratios.

    All WORKLOADs are run when none is named. In each round every peer takes one turn, in a
    process of its own, one after the other. A cell is the median over the rounds (the least -
    the greatest); `ours is 3.0 x` says that DaskExecutor is three times as fast, or needs a
    third, in the median of the rounds' own ratios. Starting an executor is not counted, but in
    the workload that measures it. A peer that is not installed, fails or hangs is reported and
    left out.
    """
    # By default SIGTERM ends this process on the spot, and leaves the turn that it waits for.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    limits = "" if limit is None else f" --limit {limit:g}"
    chosen = "" if peers == tuple(PEERS) else f" --peers {','.join(peers)}"
    options = f"--rounds {rounds} --scale {scale:g} --workers {workers}{limits}{chosen}"
    console.print(", ".join(f"{key} {value}" for key, value in report.machine().items()))
    results = []
    for name in workloads or WORKLOADS:
        workload = WORKLOADS[name]
        if limit is not None:
            workload = dataclasses.replace(workload, limit=limit)
        result = runner.run_workload(
            workload,
            peers,
            rounds=rounds,
            width=workers,
            scale=scale,
            options={},
            say=lambda line: click.echo(line, err=True),
        )
        results.append(result)
        command = f"python -m benchmarks {name} {options}"
        console.print()
        console.print(result.workload.about)
        console.print(report.table(result))
        if markdown:
            click.echo(report.markdown(result, command=command))
        if json_file is not None:
            json_file.write_text(json.dumps(report.as_json(results), indent=1) + "\n")
        if write_readme:
            report.write_readme(
                report.README,
                name,
                report.markdown(result, command=command),
                order=list(WORKLOADS),
            )


if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
