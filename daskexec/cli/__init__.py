"""The command line: ``daskexec COMMAND ...``.

Role: arguments in, what was asked for on stdout, everything else on stderr, an exit status.
Floor 11, the top. One module a group of commands. Imports of rich, the log job and the executors
wait until they are needed, so that ``--help`` and a wrong option answer at once.

Exit status: 0 all well; 1 it could not be done, or not all of it; 2 a usage error, found before
anything is started; 130 interrupted.
"""

from __future__ import annotations

import gc
import os
import sys

import click

import daskexec
from daskexec.cli import clusters, logs
from daskexec.cli._common import INTERRUPTED, say

__all__ = ["cli", "main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(daskexec.__version__, prog_name="daskexec")
def cli() -> None:
    """Run the same work in threads, in processes or on a Dask cluster."""


for _command in (logs.logs, clusters.clusters, clusters.config, clusters.check):
    cli.add_command(_command)


def main() -> None:
    """Entry point of the ``daskexec`` command."""
    try:
        status = cli.main(prog_name="daskexec", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        status = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        say("Interrupted.")
        status = INTERRUPTED
    if status == INTERRUPTED and "distributed" not in sys.modules and not _end_workers():
        # A thread that is parsing cannot be stopped, and the interpreter's exit would wait
        # for it. With distributed, whose exit hooks end its processes, do wait.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(INTERRUPTED)
    # Nothing more is garbage: the interpreter's last search through all modules takes 0.05 s.
    gc.freeze()
    sys.exit(status if isinstance(status, int) else 0)


def _end_workers() -> bool:
    """End the processes of a pool, if there are any, so that the exit need not wait for them.

    It is needed: it takes away the semaphores, of which else multiprocessing's tracker warns.
    """
    multiprocessing = sys.modules.get("multiprocessing")
    children = [] if multiprocessing is None else multiprocessing.active_children()
    for child in children:
        child.terminate()
    return bool(children)
