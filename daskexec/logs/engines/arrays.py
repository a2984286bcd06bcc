"""What was counted as arrays: distinct values with their numbers, merged without Python objects.

Role: how the counts of the engine `arrow` are kept, travel and are merged, until somebody wants
a tally's tables (`daskexec.logs.counts.Tally.arrays`). Needs numpy and pyarrow. Floor 10, part
of the log job; runs wherever tallies are merged; most of its time is spent outside the
interpreter's lock.

A `Counted` holds, of some lines, for each text column its distinct values and numbers that belong
to each, and the visitors as triples of places in these: a day, an agent, a client, in one
integer. Merging keeps several of these side by side, and makes one of them (`unified`) only
when they have become twice as large, so that each value is looked up a few times at most.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from daskexec.logs.counts import MIX

if TYPE_CHECKING:
    from daskexec.logs.counts import Tally

__all__ = ["Arrays", "Counted", "Table", "distinct", "encoded", "sums", "used"]

Ints = NDArray[np.int64]

_ENOUGH = 32 << 20  # bytes of new arrays of a piece that are not yet worth a look
_LARGE = 1 << 30  # bytes of values that need 64-bit offsets
_HEAP = 1 << 18  # values that are looked up in one table
_MIX = tuple(np.uint64(number) for number in MIX)
# Arrow's own allocator gives memory back at once, and the kernel has to clear it again each time.
_POOL = pa.system_memory_pool()
_MOST = 1 << 62  # greater numbers stay Python's

# Once so much was freed glibc takes blocks below 32 MiB from memory that it has, and keeps up to
# 64 MiB of it (mallopt(3): the threshold is dynamic). Elsewhere nothing comes of it.
np.empty((32 << 20) - (64 << 10), np.uint8)

# The tables of a tally, by the column that has their keys, and the number of it that they count.
_PLACES = {
    "paths": ("path", 0), "path_bytes": ("path", 1), "not_found": ("path", 2),
    "clients": ("client", 0), "referrers": ("referrer", 0), "agents": ("agent", 0),
    "hosts": ("host", 0),
}  # fmt: skip
_NUMBERS = {"path": 3}  # of other columns: 1


@dataclass
class Table:
    """Distinct values of a column, a `pyarrow` array of binary, and the numbers of each."""

    names: Any
    numbers: list[Ints]

    def __reduce__(self) -> tuple[Any, ...]:
        return Table, (self.names, [_narrow(numbers) for numbers in self.numbers])


@dataclass
class Counted:
    """What was counted of some lines.

    Attributes
    ----------
    tables
        By column: ``path`` (requests, bytes sent, requests answered 404), ``client``,
        ``referrer``, ``agent``, ``host`` (requests). A number may be 0.
    days
        As written in the log.
    triples
        The visitors, sorted, each once: ``(day * agents + agent) * clients + client``, by place
        in `days` and the tables. Unsigned integers of 32 bits where these suffice, else of 64
        bits and signed.
    """

    tables: dict[str, Table] = field(default_factory=dict)
    days: list[bytes] = field(default_factory=list)
    triples: NDArray[Any] = field(default_factory=lambda: np.zeros(0, np.uint32))

    @property
    def nbytes(self) -> int:
        """Bytes that it takes."""
        size: int = self.triples.nbytes
        for table in self.tables.values():
            size += table.names.nbytes + sum(numbers.nbytes for numbers in table.numbers)
        return size

    @property
    def sent(self) -> float:
        """Bytes sent."""
        return float(self.tables["path"].numbers[1].sum()) if "path" in self.tables else 0.0

    def visits(self) -> tuple[Ints, Ints, Ints]:
        """The day, the agent and the client of each visitor."""
        agents, clients = (max(1, len(self.tables[name].names)) for name in ("agent", "client"))
        rest = self.triples // clients  # divmod would take five times as long
        day = rest // agents
        agent, client = rest - day * agents, self.triples - rest * clients
        return day.astype(np.int64), agent.astype(np.int64), client.astype(np.int64)


class Arrays:
    """What was counted, in the order in which it came. For one thread at a time."""

    def __init__(self, *counted: Counted) -> None:
        self._counted = list(counted)
        self._size = sum(each.nbytes for each in counted)
        self._unified = 0
        self._sent = sum(each.sent for each in counted)

    def merge(self, other: Arrays) -> bool:
        """Add what `other` has, which must not be used afterwards.

        False, and nothing is done, where numbers would become too great for arrays.
        """
        if self._sent + other._sent >= _MOST:
            return False
        self._sent += other._sent
        self._counted += other._counted
        self._size += other._size
        if self._size > 2 * self._unified + _ENOUGH:
            self.unified()
        return True

    def unified(self) -> Counted:
        """Make one of all, and return it."""
        if len(self._counted) != 1:
            self._counted = [_unify(self._counted)]
            self._size = self._unified = self._counted[0].nbytes
        return self._counted[0]

    def pieces(self, count: int) -> list[Arrays]:
        """Divide into so many that have no value in common: see `daskexec.logs.counts.pieces_of`.

        These must not be used afterwards.
        """
        divided = [_divide(counted, count) for counted in self._counted]
        return [Arrays(*(its[n] for its in divided)) for n in range(count)]

    def take(self, tally: Tally) -> bool:
        """Take the tables of `tally` that go with the distinct keys in here, and the visitors.

        False, and nothing is taken, where numbers are too great for arrays.
        """
        tables = {name: getattr(tally, name) for name in _PLACES}
        if self._sent + sum(tables["path_bytes"].values()) >= _MOST:
            return False
        taken = []
        for name, (column, place) in _PLACES.items():
            keys, counts = list(tables[name]), list(tables[name].values())
            if keys:
                numbers = [np.zeros(len(keys), np.int64) for _ in range(_NUMBERS.get(column, 1))]
                numbers[place][:] = counts
                taken.append(Counted({column: Table(pa.array(keys, pa.binary()), numbers)}))
                setattr(tally, name, Counter())
        if tally.visitors:
            taken.append(_visiting(tally))
            tally.visitors = {}
        self.merge(Arrays(*taken))
        return True

    # -- a tally's tables ----------------------------------------------------------------------

    def settle(self, tally: Tally) -> None:
        """Add all of it to the tables of `tally`; nothing is left in here."""
        counted = self.unified()
        for name in _PLACES:
            getattr(tally, name).update(self.table(name))
        if len(counted.triples):
            self._settle_visitors(counted, tally)
        self._counted, self._size, self._unified, self._sent = [], 0, 0, 0.0

    def table(self, name: str) -> Counter[bytes]:
        """A tally's table, as far as it is in here."""
        column, place = _PLACES[name]
        table = self.unified().tables.get(column)
        if table is None:
            return Counter()
        keys, numbers = table.names, table.numbers[place]
        if not numbers.all():
            there = np.flatnonzero(numbers)
            keys, numbers = _take(keys, there), numbers[there]
        return Counter(dict(zip(keys.to_pylist(), numbers.tolist(), strict=True)))

    @staticmethod
    def _settle_visitors(counted: Counted, tally: Tally) -> None:
        day, agent, client = counted.visits()
        clients = counted.tables["client"].names.to_numpy(zero_copy_only=False)[client].tolist()
        begins = np.flatnonzero(_changes(day) | _changes(agent))
        ends = [*begins[1:].tolist(), len(day)]
        agents = counted.tables["agent"].names.take(pa.array(agent[begins])).to_pylist()
        rows = zip(begins.tolist(), ends, day[begins].tolist(), agents, strict=True)
        for begin, end, at, name in rows:
            by_agent = tally.visitors.setdefault(counted.days[at], {})
            by_agent.setdefault(name, set()).update(clients[begin:end])

    def highest(self, name: str, number: int) -> list[tuple[bytes, int]]:
        """The rows of a tally's table: the highest first, equal ones by their keys."""
        column, place = _PLACES[name]
        table = self.unified().tables.get(column)
        if table is None:
            return []
        numbers = table.numbers[place]
        number = min(number, int(np.count_nonzero(numbers)))
        if number < 1:
            return []
        rows = pa.table({"key": table.names, "count": pa.array(numbers)})
        order = [("count", "descending"), ("key", "ascending")]
        first = rows.take(pc.select_k_unstable(rows, number, order))
        return list(zip(first["key"].to_pylist(), first["count"].to_pylist(), strict=True))

    def distinct(self, name: str) -> int:
        """How many rows a tally's table has."""
        column, place = _PLACES[name]
        table = self.unified().tables.get(column)
        return 0 if table is None else int(np.count_nonzero(table.numbers[place]))

    def visitors(self) -> int:
        """How many visitors there are."""
        return len(self.unified().triples)


def sums(codes: Ints, values: Ints, size: int) -> Ints:
    """Add up the values of each code below `size`."""
    # Through floats, which hold whole numbers below 2**53.
    if float(values.sum(dtype=np.float64)) < 2.0**53:
        return np.bincount(codes, values, size).astype(np.int64)
    total = np.zeros(size, np.int64)
    np.add.at(total, codes, values)
    return total


def _unify(counted: list[Counted]) -> Counted:
    whole = Counted()
    places: dict[str, list[Ints]] = {}  # of each value of the column in the whole, for each
    for name in dict.fromkeys(name for each in counted for name in each.tables):
        its = [each.tables[name] for each in counted if name in each.tables]
        names, codes = _join([table.names for table in its])
        every = np.concatenate(codes)
        columns = zip(*(table.numbers for table in its), strict=True)
        numbers = [sums(every, np.concatenate(column), len(names)) for column in columns]
        whole.tables[name] = Table(names, numbers)
        at = iter(codes)
        places[name] = [next(at) if name in each.tables else codes[0][:0] for each in counted]
    triples = []
    days: dict[bytes, int] = {}
    for n, each in enumerate(counted):
        if len(each.triples):
            day, agent, client = each.visits()
            new_day = np.array([days.setdefault(day, len(days)) for day in each.days], np.int64)
            pair = new_day[day] * len(whole.tables["agent"].names) + places["agent"][n][agent]
            triples.append(pair * len(whole.tables["client"].names) + places["client"][n][client])
    whole.days = list(days)
    if triples:
        whole.triples = distinct(np.concatenate(triples))
    return whole


def distinct(values: Ints) -> NDArray[Any]:
    """The distinct values, none of them negative, sorted: see `Counted.triples`."""
    values = np.sort(_short(values))
    return values[_changes(values)]


def _short(values: Ints) -> NDArray[Any]:
    """The values, none of them negative, in 32 bits if these suffice: all takes half the time."""
    return values.astype(np.uint32) if len(values) and values.max() < 1 << 32 else values


def _narrow(numbers: Ints) -> NDArray[Any]:
    """The numbers, none of them negative, in as few bits as they need."""
    most = int(numbers.max(initial=0))
    kind = next(
        kind for kind in (np.int8, np.int16, np.int32, np.int64) if most <= np.iinfo(kind).max
    )
    return numbers.astype(kind)


def _join(names: list[Any]) -> tuple[Any, list[Ints]]:
    """The distinct values of some arrays, and for each array the places of its values."""
    if sum(each.nbytes for each in names) > _LARGE or len({each.type for each in names}) > 1:
        names = [each.cast(pa.large_binary()) for each in names]
    heaps = sum(map(len, names)) // _HEAP + 1
    if heaps == 1:
        return _encode(names)
    # A table of all values would be slow, as it is in no cache, and five times their size.
    which = [(_marks(each) >> np.uint64(16)) % np.uint64(heaps) for each in names]
    places = [np.empty(len(each), np.int64) for each in names]
    found: list[Any] = []
    size = 0
    for heap in range(heaps):
        there = [np.flatnonzero(its == heap) for its in which]
        some = [_take(each, at) for each, at in zip(names, there, strict=True)]
        values, codes = _encode(some)
        for place, at, code in zip(places, there, codes, strict=True):
            place[at] = code + size
        found.append(values)
        size += len(values)
    return pa.concat_arrays(found, _POOL), places


def _encode(names: list[Any]) -> tuple[Any, list[Ints]]:
    chunks = encoded(names)  # of arrays that are not empty
    if not chunks:
        return names[0], [np.zeros(0, np.int64)] * len(names)
    codes = np.concatenate([chunk.indices.to_numpy() for chunk in chunks]).astype(np.int64)
    return chunks[-1].dictionary, np.split(codes, np.cumsum([len(each) for each in names[:-1]]))


def encoded(names: list[Any]) -> list[Any]:
    """Arrays as Arrow encodes them: the last has all distinct values, each has its indices."""
    every = pa.chunked_array(names, names[0].type)
    chunks: list[Any] = pc.dictionary_encode(every, memory_pool=_POOL).chunks
    return chunks


def _take(names: Any, at: Ints) -> Any:
    return pc.take(names, pa.array(at), memory_pool=_POOL)


def _marks(names: Any) -> NDArray[np.uint64]:
    """A number for each value: what `daskexec.logs.counts.piece_of` makes of its end."""
    offsets, content = names.buffers()[1:]
    kind = np.int32 if names.type == pa.binary() else np.int64
    edges = np.frombuffer(offsets, kind)[names.offset :][: len(names) + 1].astype(np.int64)
    length, ends = np.diff(edges), edges[1:]
    if content is None or content.size < 8:
        content = (b"" if content is None else content.to_pybytes()).ljust(8, b"\0")
    values = np.frombuffer(content, np.uint8)
    words = np.ndarray((len(values) - 7,), ">u8", values, 0, (1,))
    # The last 8 bytes up to its end; there may be fewer, and not all may be its own.
    last = words[np.maximum(ends - 8, 0)].astype(np.uint64)
    last >>= (8 * np.clip(8 - ends, 0, 7)).astype(np.uint64)
    foreign = (8 * np.clip(8 - length, 0, 7)).astype(np.uint64)
    last = np.where(length == 0, 0, last << foreign >> foreign).astype(np.uint64)
    marks: NDArray[np.uint64] = (last + length.astype(np.uint64) * _MIX[0]) * _MIX[1]
    return marks


def _divide(counted: Counted, count: int) -> list[Counted]:
    """Divide by the marks of values; hosts, and the requests of agents, are in the first one."""
    shift = np.uint64(64 - (count - 1).bit_length())
    pieces = [Counted(days=counted.days) for _ in range(count)]
    place: Ints = np.zeros(0, np.int64)  # of each client in its piece
    which: Ints = place
    for name, table in counted.tables.items():
        if name in ("host", "agent"):
            pieces[0].tables[name] = table
            continue
        which = (_marks(table.names) >> shift).astype(np.int64)
        if name == "client":
            clients, place = which, np.empty(len(which), np.int64)
        for n, piece in enumerate(pieces):
            at = np.flatnonzero(which == n)
            numbers = [column[at] for column in table.numbers]
            piece.tables[name] = Table(_take(table.names, at), numbers)
            if name == "client":
                place[at] = np.arange(len(at))
    if len(counted.triples):
        day, agent, client = counted.visits()
        for n, piece in enumerate(pieces):
            at = np.flatnonzero(clients[client] == n)
            agents, its = counted.tables["agent"], agent[at]
            if n:
                names, its = used(agents.names, its)
                piece.tables["agent"] = Table(names, [np.zeros(len(names), np.int64)])
            pair = day[at] * len(piece.tables["agent"].names) + its
            piece.triples = _short(pair * len(piece.tables["client"].names) + place[client[at]])
    return pieces


def used(names: Any, codes: Ints) -> tuple[Any, Ints]:
    """The values without those that no code stands for, and the new codes."""
    there = np.bincount(codes, minlength=len(names)) > 0
    if there.all():
        return names, codes
    return _take(names, np.flatnonzero(there)), (np.cumsum(there) - 1)[codes]


def _changes(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Where a value is another than the one before."""
    changes = np.ones(len(values), np.bool_)
    changes[1:] = values[1:] != values[:-1]
    return changes


def _visiting(tally: Tally) -> Counted:
    """The visitors of a tally's table."""
    clients: dict[bytes, int] = {}
    agents: dict[bytes, int] = {}
    pairs: list[int] = []
    found: list[int] = []
    for day, by_agent in enumerate(tally.visitors.values()):
        for agent, its in by_agent.items():
            pairs += [day << 32 | agents.setdefault(agent, len(agents))] * len(its)
            found += [clients.setdefault(client, len(clients)) for client in its]
    pair = np.array(pairs, np.int64)
    pair = (pair >> 32) * len(agents) + (pair & 0xFFFFFFFF)
    tables = {
        name: Table(pa.array(list(keys), pa.binary()), [np.zeros(len(keys), np.int64)])
        for name, keys in (("client", clients), ("agent", agents))
    }
    triples = np.sort(_short(pair * len(clients) + np.array(found, np.int64)))
    return Counted(tables, list(tally.visitors), triples)
