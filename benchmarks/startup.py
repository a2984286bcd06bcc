"""A workload: whole programs, from start to first result to exit."""

from __future__ import annotations

import subprocess
import sys
import time

from benchmarks.turn import Turn

__all__ = ["PROGRAMS", "run"]

#: By peer: starts WIDTH workers and has ``first()`` called with the first result.
PROGRAMS: dict[str, str] = {
    "daskexec": """
from daskexec import DaskExecutor
with DaskExecutor(WIDTH) as executor:
    first(executor.submit(pow, 2, 5).result())
""",
    "processes": """
from concurrent.futures import ProcessPoolExecutor
with ProcessPoolExecutor(WIDTH) as executor:
    first(executor.submit(pow, 2, 5).result())
""",
    "loky": """
from loky import ProcessPoolExecutor
with ProcessPoolExecutor(WIDTH) as executor:
    first(executor.submit(pow, 2, 5).result())
""",
    "client": """
from distributed import Client, LocalCluster
with LocalCluster(
    n_workers=WIDTH, threads_per_worker=1, dashboard_address="127.0.0.1:0"
) as cluster, Client(cluster) as client:
    first(client.submit(pow, 2, 5).result())
""",
}

_FRAME = """
import sys, time
def first(result):
    assert result == 32
    print(time.time(), flush=True)
"""


def run(turn: Turn) -> None:
    """Run the peer's program once, with the stdlib's clocks around it."""
    program = _FRAME + PROGRAMS[turn.peer.name].replace("WIDTH", str(turn.width))
    begin = time.time()
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, timeout=60, check=True
    )
    end = time.time()
    turn.figures(first=float(done.stdout.split()[-1]) - begin, exit=end - begin)
