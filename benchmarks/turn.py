"""One turn: one workload on one peer, in a process of its own.

``python -m benchmarks.turn ORDER``, where ORDER is the JSON of an `Order`, writes the JSON of an
`Outcome` to ``order.out``. `benchmarks.runner` starts it, limits its time and cleans up after
it. Only one executor is up at a time, so that idle ones, some of which poll, cost the others
nothing.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks import functions as _functions
from benchmarks import network
from benchmarks.peers import PEERS, Adapter, Peer

__all__ = ["Order", "Outcome", "Turn", "main", "warm_up"]


@dataclass(frozen=True)
class Order:
    """What a turn is to do.

    Attributes
    ----------
    workload, peer : str
        Their names.
    width : int
        Number of workers, each with one thread.
    scale : float
        Factor on the number of calls.
    out : str
        File for the outcome.
    options : dict
        Of the workload.
    """

    workload: str
    peer: str
    width: int
    scale: float
    out: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class Outcome:
    """What a turn found: figures by row of the table, and notes on rows."""

    rows: dict[str, dict[str, float]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


@dataclass
class Turn:
    """What a workload is given.

    Attributes
    ----------
    peer : Peer
        Which peer it is.
    adapter : Adapter
        The started executor, all its workers up.
    functions : module
        Where the functions are that the workers call.
    outcome : Outcome
        To be filled in.
    own_network : bool
        The loopback carries nothing but this turn's bytes.
    """

    order: Order
    peer: Peer
    functions: Any
    outcome: Outcome
    adapter: Adapter
    own_network: bool = False

    @property
    def width(self) -> int:
        return self.order.width

    def count(self, fast: int, slow: int | None = None, least: int = 20) -> int:
        """Scale a number of calls; `slow` is for the peers that are."""
        number = slow if slow is not None and self.peer.slow else fast
        return max(least, int(number * self.order.scale))

    def note(self, text: str) -> None:
        self.outcome.notes[self.peer.title] = text

    def figures(self, **figures: float) -> None:
        """Put down figures in the peer's row."""
        self.outcome.rows.setdefault(self.peer.title, {}).update(figures)


def warm_up(adapter: Adapter, width: int, limit: float = 60.0) -> None:
    """Return when every worker has run a call, and the road there and back is trodden."""
    until = time.monotonic() + limit
    seen: set[int] = set()
    while len(seen) < width and time.monotonic() < until:
        futures = [adapter.submit(_functions.who, 0.05) for _ in range(2 * width)]
        seen.update(adapter.gather(futures))
    if len(seen) < width:
        raise TimeoutError(f"{len(seen)} of {width} workers ran a call in {limit:.0f} s")
    for _ in range(20):
        adapter.gather([adapter.submit(_functions.nothing)])


def check(results: Sequence[Any], expected: Sequence[Any]) -> None:
    """Raise when an executor has not done its work."""
    if list(results) != list(expected):
        raise AssertionError("the results are wrong")


def main(text: str, functions: ModuleType = _functions) -> None:
    """Do what the order in `text` says, with the functions of a module."""
    from benchmarks.workloads import WORKLOADS

    order = Order(**json.loads(text))
    workload, peer = WORKLOADS[order.workload], PEERS[order.peer]
    outcome = Outcome()
    alone = workload.own_network and network.own_network()
    if workload.opens:
        workload.run(Turn(order, peer, functions, outcome, Adapter(_unopened, _unopened), alone))
        _write(order, outcome)
        return
    with peer.open(order.width, None) as adapter:
        warm_up(adapter, order.width)
        workload.run(Turn(order, peer, functions, outcome, adapter, alone))
        _write(order, outcome)  # before the end of the executor, which may hang


def _unopened(*args: Any) -> Any:
    raise RuntimeError("this workload opens its executors itself")


def _write(order: Order, outcome: Outcome) -> None:
    part = Path(f"{order.out}.part")
    part.write_text(json.dumps(dataclasses.asdict(outcome)))
    os.replace(part, order.out)


if __name__ == "__main__":
    main(sys.argv[1])
