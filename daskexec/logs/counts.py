"""What is counted: a tally, how tallies are merged, and how they are kept small.

Role: the one object that every engine fills and every report is made of. Floor 10, part of
the log job; pure, runs anywhere.

`merge` is associative and commutative, so that neither the executor nor the way the files
are cut can be seen in a report. All keys are bytes, as they stand in the log.

Memory goes with the distinct keys, not with the lines: about 300 bytes for each distinct
client with its visits, and about 150 for each path, referrer or agent of usual length, while
tables are merged; as arrays (`daskexec.logs.engines.arrays`) two thirds of that. Where
that is too much, `bound` drops the rarest keys of a table above ``max_keys`` of them, and the
tally says what was lost: see there. It then takes about 150 MB and 1,200 bytes times
``max_keys`` for a process that reads or merges.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from itertools import repeat
from operator import add, itemgetter
from typing import TYPE_CHECKING

from daskexec.logs.sketch import EMPTY, estimate, merged, with_keys

if TYPE_CHECKING:  # numpy and pyarrow may be missing
    from daskexec.logs.engines.arrays import Arrays

__all__ = [
    "MIX", "MONTHS", "PIECES", "SAMPLES", "SAMPLE_BYTES", "Sample", "Stamp", "Tally",
    "add_arrays", "bound", "highest", "merge", "piece_of", "pieces_of", "settle", "start_of_hour",
]  # fmt: skip

SAMPLES = 10
"""How many malformed lines are kept as samples, the first ones."""

PIECES = 4
"""Into how many pieces `pieces_of` divides a tally."""

MIX = (0xD6E8FEB86659FD93, 0x9E3779B97F4A7C15)
"""Odd numbers by which the last bytes of a key, and its length, become a number like any other."""

SAMPLE_BYTES = 400
"""How much of a sample is kept."""

_MONTHS = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct",
           b"Nov", b"Dec")  # fmt: skip
MONTHS = {name: number for number, name in enumerate(_MONTHS, 1)}

Stamp = tuple[int, bytes]
"""A moment: seconds since the year 1 in UTC, and the same as written in the log."""

Sample = tuple[int, int, bytes, int]
"""A malformed line: part's ordinal, line number within the part from 1, text, full length."""

Visitors = dict[bytes, dict[bytes, set[bytes]]]


@dataclass
class Tally:
    """What was counted in some lines. A new one is the neutral element of `merge`.

    Attributes
    ----------
    lines
        By part's ordinal; makes absolute line numbers out of the samples' relative ones.
    misfits
        By part's ordinal: malformed lines, where there are any.
    requests, bytes_sent
        Lines that fit the format and were selected, and the bytes they sent.
    excluded
        Lines that fit the format and were left out by the selection.
    statuses, paths, path_bytes, not_found, clients, referrers, agents, hosts
        Requests by status code, path, path (summed bytes; above 0 only), path of those
        answered 404, client, referrer (none: not counted), user agent, virtual host (where
        the format has it).
    hours
        Requests by day and hour as written: ``17/May/2015:10``.
    visitors
        By day as written, then by user agent (``b""`` where the format has none): the
        clients. So each agent crosses the wire once a day, and no pair is made twice.
    first, last
        Earliest and latest moment.
    samples
        The first malformed lines.
    lost
        By table, after `bound`: no count in it is more than this below the true one, and
        no key that is missing has more. Empty: everything is exact.
    max_keys
        Most keys of a table that are kept, see `bound`; 0: all. Tallies that are merged have
        the same, or none yet.
    sketches
        ``clients`` and ``visitors``, after `bound`: those that are no longer held one by
        one.
    arrays
        What is counted and not yet in the tables, nor in `visitors`, see `settle`.
    """

    lines: dict[int, int] = field(default_factory=dict)
    misfits: dict[int, int] = field(default_factory=dict)
    requests: int = 0
    bytes_sent: int = 0
    statuses: Counter[bytes] = field(default_factory=Counter)
    hours: Counter[bytes] = field(default_factory=Counter)
    paths: Counter[bytes] = field(default_factory=Counter)
    path_bytes: Counter[bytes] = field(default_factory=Counter)
    not_found: Counter[bytes] = field(default_factory=Counter)
    clients: Counter[bytes] = field(default_factory=Counter)
    referrers: Counter[bytes] = field(default_factory=Counter)
    agents: Counter[bytes] = field(default_factory=Counter)
    visitors: Visitors = field(default_factory=dict)
    first: Stamp | None = None
    last: Stamp | None = None
    samples: list[Sample] = field(default_factory=list)
    excluded: int = 0
    hosts: Counter[bytes] = field(default_factory=Counter)
    max_keys: int = 0
    lost: dict[str, int] = field(default_factory=dict)
    sketches: dict[str, bytes] = field(default_factory=dict)
    arrays: Arrays | None = None

    @property
    def distinct_clients(self) -> int:
        """Distinct clients; an estimate (`sketch.STANDARD_ERROR`) where they have a sketch."""
        if "clients" not in self.sketches:
            self._gather()
            return len(self.clients) if self.arrays is None else self.arrays.distinct("clients")
        return estimate(with_keys(self.sketches["clients"], self.clients))

    @property
    def distinct_visitors(self) -> int:
        """Distinct triples of day, user agent and client; as `distinct_clients`."""
        if "visitors" not in self.sketches:
            self._gather()
            return self.arrays.visitors() if self.arrays else _count_visitors(self.visitors)
        return estimate(with_keys(self.sketches["visitors"], _visitor_keys(self.visitors)))

    def table(self, name: str) -> Counter[bytes]:
        """A table with all that is counted in it, which must not be changed."""
        self._gather()
        table: Counter[bytes] = getattr(self, name)
        return table if self.arrays is None else self.arrays.table(name)

    def highest(self, name: str, number: int) -> list[tuple[bytes, int]]:
        """Return the first rows of a table: the highest first, equal ones by their bytes."""
        self._gather()
        if self.arrays is None:
            return highest(getattr(self, name), number)
        return self.arrays.highest(name, number)

    def _gather(self) -> None:
        """Have all that is counted in one place, where there are several."""
        if self.arrays is not None and not self.arrays.take(self):
            settle(self)

    def widen(self, stamps: list[Stamp]) -> None:
        """Move `first` and `last` so that they take in these moments."""
        self.first = min([*stamps, self.first] if self.first else stamps, default=None)
        self.last = max([*stamps, self.last] if self.last else stamps, default=None)


_GROWING = ("paths", "path_bytes", "not_found", "clients", "referrers", "agents", "hosts")
_COUNTERS = ("statuses", "hours", *_GROWING)


def merge(into: Tally, other: Tally) -> Tally:
    """Add `other`, a tally of other parts of the same file, to `into` and return `into`.

    `other` must not be used afterwards: its tables may have become those of `into`. The sum
    is bounded, see `bound`.
    """
    if other.arrays is not None:
        add_arrays(into, other.arrays)
    for name in _COUNTERS:
        mine, theirs = getattr(into, name), getattr(other, name)
        if len(mine) < len(theirs):
            mine, theirs = theirs, mine
        # As that of a Counter, without a loop in Python.
        sums = map(add, theirs.values(), map(mine.get, theirs, repeat(0)))
        dict.update(mine, zip(theirs, sums))  # noqa: B905 (strict takes a third as long again)
        setattr(into, name, mine)
    into.lines.update(other.lines)
    into.misfits.update(other.misfits)
    into.requests += other.requests
    into.bytes_sent += other.bytes_sent
    into.excluded += other.excluded
    for day, them in other.visitors.items():
        mine = into.visitors.setdefault(day, {})
        for agent, clients in them.items():
            if agent in mine:
                mine[agent] |= clients
            else:
                mine[agent] = clients
    into.widen([stamp for stamp in (other.first, other.last) if stamp])
    into.samples = sorted(into.samples + other.samples)[:SAMPLES]
    for name, lost in other.lost.items():
        into.lost[name] = into.lost.get(name, 0) + lost
    for name, sketch in other.sketches.items():
        into.sketches[name] = merged(into.sketches.get(name, EMPTY), sketch)
    into.max_keys = into.max_keys or other.max_keys
    return bound(into)


def add_arrays(tally: Tally, arrays: Arrays) -> None:
    """Add what is counted as arrays to `tally`; they must not be used afterwards."""
    if tally.arrays is not None and not tally.arrays.merge(arrays):
        settle(tally)  # numbers too great for arrays
    if tally.arrays is None:
        tally.arrays = arrays


def settle(tally: Tally) -> Tally:
    """Have all that is counted in the tables of `tally`, and return it."""
    if tally.arrays is not None:
        tally.arrays.settle(tally)
        tally.arrays = None
    return tally


def highest(table: Counter[bytes], number: int) -> list[tuple[bytes, int]]:
    """Return the first rows of a table: the highest first, equal ones by their bytes."""
    # By numbers alone first, which is quick; the keys decide among few.
    least = min(heapq.nlargest(number, table.values()), default=0)
    rows = [row for row in table.items() if row[1] >= least]
    return heapq.nsmallest(number, rows, key=lambda row: (-row[1], row[0]))


def piece_of(key: bytes) -> int:
    """Return the number of the piece, below `PIECES`, that a client, path or referrer is in.

    By how it ends, and how long it is: `daskexec.logs.engines.arrays` finds the same of many.
    """
    mark = (int.from_bytes(key[-8:], "big") + len(key) * MIX[0]) * MIX[1] & 0xFFFFFFFFFFFFFFFF
    return mark * PIECES >> 64


def pieces_of(tally: Tally) -> list[Tally]:
    """Divide a tally into `PIECES` that have no key in common and take about as long to merge.

    The same pieces of several tallies can be merged apart from the others, at the same time;
    merged with each other the pieces are the tally again. Each has the clients, paths and
    referrers that `piece_of` gives it, and its clients' visits; the first one has all else. With
    ``max_keys`` a table is in one piece: of clients and visitors in the second, others in the
    first. The tally is used up.
    """
    pieces = [tally, *(Tally(max_keys=tally.max_keys) for _ in range(PIECES - 1))]
    if tally.max_keys:
        second = pieces[1]
        second.clients, tally.clients = tally.clients, Counter()
        second.visitors, tally.visitors = tally.visitors, {}
        second.sketches, tally.sketches = tally.sketches, {}
        if "clients" in tally.lost:
            second.lost["clients"] = tally.lost.pop("clients")
        return pieces
    if tally.arrays is not None:
        for piece, arrays in zip(pieces, tally.arrays.pieces(PIECES), strict=True):
            piece.arrays = arrays
    for name in ("paths", "path_bytes", "not_found", "clients", "referrers"):
        table: Counter[bytes] = getattr(tally, name)
        tables: list[dict[bytes, int]] = [{} for _ in pieces]
        for key, count in table.items():
            tables[piece_of(key)][key] = count
        for piece, mine in zip(pieces, tables, strict=True):
            setattr(piece, name, Counter(mine))
    places = {key: place for place, piece in enumerate(pieces) for key in piece.clients}
    visitors, tally.visitors = tally.visitors, {}
    for day, agents in visitors.items():
        for agent, clients in agents.items():
            sets: list[set[bytes]] = [set() for _ in pieces]
            for client in clients:
                sets[places[client]].add(client)
            for piece, its in zip(pieces, sets, strict=True):
                if its:
                    piece.visitors.setdefault(day, {})[agent] = its
    return pieces


def bound(tally: Tally) -> Tally:
    """Drop keys from the tables of `tally` that hold too many, and return it.

    A table that holds more than twice ``max_keys`` loses its rarest keys, down to ``max_keys``;
    the greatest count that went is added to ``lost[table]``. So every count that is shown
    is at most ``lost`` too low, never too high, and a key that was never dropped has its
    true count. Clients that go, and the visitors as a whole, go into a sketch, by which
    their numbers are still told, with `daskexec.logs.sketch.STANDARD_ERROR`.

    What is dropped depends on what is merged with what; with ``max_keys`` two runs may
    differ by ``lost``. Without, they never differ.
    """
    max_keys = tally.max_keys
    if not max_keys:
        return tally
    settle(tally)
    for name in _GROWING:
        table: Counter[bytes] = getattr(tally, name)
        if len(table) > 2 * max_keys:
            rows = sorted(table.items(), key=itemgetter(1), reverse=True)
            smaller: Counter[bytes] = Counter(dict(rows[:max_keys]))
            gone = rows[max_keys:]
            tally.lost[name] = tally.lost.get(name, 0) + gone[0][1]
            if name == "clients":
                before = tally.sketches.get(name, EMPTY)
                tally.sketches[name] = with_keys(before, (key for key, _ in gone))
            setattr(tally, name, smaller)
    if _count_visitors(tally.visitors) > 2 * max_keys:
        before = tally.sketches.get("visitors", EMPTY)
        tally.sketches["visitors"] = with_keys(before, _visitor_keys(tally.visitors))
        tally.visitors = {}
    return tally


def _count_visitors(visitors: Visitors) -> int:
    return sum(len(clients) for day in visitors.values() for clients in day.values())


def _visitor_keys(visitors: Visitors) -> Iterator[bytes]:
    for day, agents in visitors.items():
        for agent, clients in agents.items():
            rest = b"\n%b\n%b" % (day, agent)  # no field holds a newline
            for client in clients:
                yield client + rest


def start_of_hour(hour: bytes, zone: bytes) -> int:
    """Seconds since the year 1, UTC, of ``17/May/2015:10`` in zone ``+0200``.

    A day past the month's end (31/Feb) counts on into the next month.
    """
    month_start = date(int(hour[7:11]), MONTHS[hour[3:6]], 1).toordinal()
    days = month_start + int(hour[:2]) - 1
    offset = int(zone[1:3]) * 3600 + int(zone[3:5]) * 60
    local = days * 86400 + int(hour[12:14]) * 3600
    return local + offset if zone[:1] == b"-" else local - offset
