"""The tally of one part, and how tallies are merged.

Role: `tally_part` is the one function that runs on the workers, in any thread or process;
it and its argument are importable and picklable for every executor. Floor 10, part of the
log job.

`merge` is associative and commutative, so that neither the executor nor the way the files
are cut can be seen in a report. All keys are bytes, as they stand in the log.

How it is fast: one ``findall`` of one strict expression over a block of 128 KiB (its rows
stay in the processor's cache), then only loops in C over whole columns
(``Counter.update`` of a sequence); request, status and bytes are one key, taken apart
once a *distinct* key; the cyclic garbage collector, which would visit each of the many
fresh tuples for nothing, is off meanwhile.
"""

from __future__ import annotations

import gc
import re
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date

from daskexec.logs.formats import FORMATS, LogFormat
from daskexec.logs.split import READ_ERRORS, Part, read_blocks

__all__ = ["Sample", "Tally", "Unreadable", "merge", "tally_blocks", "tally_part", "target_of"]

SAMPLES = 10
"""How many malformed lines are kept as samples, the first ones."""

SAMPLE_BYTES = 400
"""How much of a sample is kept."""

_MONTHS = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct",
           b"Nov", b"Dec")  # fmt: skip
MONTHS = {name: number for number, name in enumerate(_MONTHS, 1)}

_REQUEST = re.compile(rb"[A-Za-z_-]+ ([^ ]+)(?: HTTP/[^ ]*)?")

Stamp = tuple[int, bytes]
"""A moment: seconds since the year 1 in UTC, and the same as written in the log."""

Sample = tuple[int, int, bytes, int]
"""A malformed line: part's ordinal, line number within the part from 1, text, full length."""


class Unreadable(Exception):
    """A part could not be read; the message is the reason. Raised on the workers."""


@dataclass
class Tally:
    """What was counted in some lines. A new one is the neutral element of `merge`.

    Attributes
    ----------
    lines
        By part's ordinal; makes absolute line numbers out of the samples' relative ones.
    requests, bytes_sent
        Lines that fit the format, and the bytes they sent.
    statuses, paths, path_bytes, not_found, clients, referrers, agents
        Requests by status code, path, path (summed bytes; above 0 only), path of those
        answered 404, client, referrer (none: not counted), user agent.
    hours
        Requests by day and hour as written: ``17/May/2015:10``.
    visitors
        By day as written, then by user agent (``b""`` where the format has none): the
        clients. So each agent crosses the wire once a day, and no pair is made twice.
    first, last
        Earliest and latest moment.
    samples
        The first malformed lines.
    """

    lines: dict[int, int] = field(default_factory=dict)
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
    visitors: dict[bytes, dict[bytes, set[bytes]]] = field(default_factory=dict)
    first: Stamp | None = None
    last: Stamp | None = None
    samples: list[Sample] = field(default_factory=list)


_COUNTERS = (
    "statuses", "hours", "paths", "path_bytes", "not_found", "clients", "referrers", "agents",
)  # fmt: skip


def merge(into: Tally, other: Tally) -> Tally:
    """Add `other`, a tally of other parts of the same file, to `into` and return `into`.

    `other` must not be used afterwards: its tables may have become those of `into`.
    """
    for name in _COUNTERS:
        mine, theirs = getattr(into, name), getattr(other, name)
        if len(mine) < len(theirs):
            mine, theirs = theirs, mine
        mine.update(theirs)
        setattr(into, name, mine)
    into.lines.update(other.lines)
    into.requests += other.requests
    into.bytes_sent += other.bytes_sent
    for day, them in other.visitors.items():
        mine = into.visitors.setdefault(day, {})
        for agent, clients in them.items():
            if agent in mine:
                mine[agent] |= clients
            else:
                mine[agent] = clients
    into.first = min((s for s in (into.first, other.first) if s), default=None)
    into.last = max((s for s in (into.last, other.last) if s), default=None)
    into.samples = sorted(into.samples + other.samples)[:SAMPLES]
    return into


def tally_part(part: Part, format_name: str) -> Tally:
    """Read and count one part. Runs on the workers.

    Raises
    ------
    Unreadable
        With the reason, if the part cannot be read to its end.
    """
    try:
        with _collector_off():
            return tally_blocks(read_blocks(part), FORMATS[format_name], part.ordinal)
    except READ_ERRORS as error:
        raise Unreadable(reason_of(error)) from error


def reason_of(error: BaseException) -> str:
    """Say in a few words why a file could not be read, the same on every system."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, EOFError) and "end-of-stream" in str(error):
        return "truncated: the compressed data ends too early"
    return str(error) or type(error).__name__


def tally_blocks(blocks: Iterable[bytes], form: LogFormat, ordinal: int = 0) -> Tally:
    """Count the lines of blocks of whole lines, as `read_blocks` yields them."""
    tally = Tally()
    requests: Counter[bytes] = Counter()
    visitors: dict[bytes, set[tuple[bytes, bytes]]] = {}
    referrers = tally.referrers
    lines = 0
    for block in blocks:
        rows = form.pattern.findall(block)
        count = block.count(b"\n") + (not block.endswith(b"\n"))
        if len(rows) < count and len(tally.samples) < SAMPLES:
            tally.samples += _malformed(block, form, ordinal, lines, SAMPLES - len(tally.samples))
        lines += count
        if not rows:
            continue
        columns: list[Sequence[bytes]] = list(zip(*rows, strict=True))
        clients, times, keys = columns[:3]
        tally.requests += len(rows)
        tally.clients.update(clients)
        requests.update(keys)
        if form.has_agent:
            referrers.update(columns[3])
            tally.agents.update(columns[4])
        agents = columns[4] if form.has_agent else (b"",) * len(rows)
        distinct = Counter(times)
        _add_times(tally, distinct)
        _add_visitors(visitors, {time[:11] for time in distinct}, times, clients, agents)
    for nothing in (b"-", b""):
        referrers.pop(nothing, None)
    for day, pairs in visitors.items():
        by_agent = tally.visitors[day] = {}
        for client, agent in pairs:
            by_agent.setdefault(agent, set()).add(client)
    _take_apart(tally, requests)
    tally.lines[ordinal] = lines
    return tally


def target_of(request: bytes) -> bytes:
    """Return the path that a request line counts for.

    The target of ``METHOD TARGET HTTP/x`` or, as before HTTP/1.0, ``METHOD TARGET``;
    of any other request (``-``, empty, binary, a target with spaces) the whole of it.
    """
    match = _REQUEST.fullmatch(request)
    return match[1] if match else request


def _take_apart(tally: Tally, requests: Counter[bytes]) -> None:
    """Spread the keys ``GET /x HTTP/1.1" 200 512`` over the tables they stand for."""
    targets: dict[bytes, bytes] = {}
    for key, count in requests.items():
        quoted, status, sent = key.rsplit(b" ", 2)
        target = targets.get(quoted)
        if target is None:
            target = targets[quoted] = target_of(quoted[:-1])
        tally.paths[target] += count
        tally.statuses[status] += count
        if status == b"404":
            tally.not_found[target] += count
        if sent != b"-" and (size := int(sent)):
            tally.path_bytes[target] += size * count
            tally.bytes_sent += size * count


def _add_visitors(
    visitors: dict[bytes, set[tuple[bytes, bytes]]],
    days: set[bytes],
    times: Sequence[bytes],
    clients: Sequence[bytes],
    agents: Sequence[bytes],
) -> None:
    for day in days:
        visitors.setdefault(day, set())
    if len(days) == 1:
        visitors[days.pop()].update(zip(clients, agents, strict=True))
        return
    for time, client, agent in zip(times, clients, agents, strict=True):
        visitors[time[:11]].add((client, agent))


def _add_times(tally: Tally, times: Counter[bytes]) -> None:
    """Count a block's hours and widen `first` to `last`.

    Zones may change from line to line, so text does not order the moments. Taking each
    apart would cost more than the rest; but of the block's few pairs of hour and zone
    only those matter that can hold an extreme.
    """
    pairs: Counter[tuple[bytes, bytes]] = Counter()
    for time, count in times.items():
        pairs[time[:14], time[21:]] += count
    for (hour, _), count in pairs.items():
        tally.hours[hour] += count
    starts = {pair: _start_of(*pair) for pair in pairs}
    # An hour lasts 3600 s, and more with the second 60 to 69 that the format admits.
    low, high = min(starts.values()) + 3669, max(starts.values()) - 3669
    if tally.first and low - 3669 > tally.first[0]:
        low = -1
    if tally.last and high + 2 * 3669 < tally.last[0]:
        high = 1 << 62
    wanted = {pair: at for pair, at in starts.items() if at <= low or at >= high}
    stamps = [
        (wanted[pair] + int(time[15:17]) * 60 + int(time[18:20]), time)
        for time in times
        if (pair := (time[:14], time[21:])) in wanted
    ]
    if stamps:
        tally.first = min(stamps if tally.first is None else [tally.first, *stamps])
        tally.last = max(stamps if tally.last is None else [tally.last, *stamps])


def _start_of(hour: bytes, zone: bytes) -> int:
    """Seconds since the year 1, UTC, of ``17/May/2015:10`` in zone ``+0200``.

    A day past the month's end (31/Feb) counts on into the next month.
    """
    month_start = date(int(hour[7:11]), MONTHS[hour[3:6]], 1).toordinal()
    days = month_start + int(hour[:2]) - 1
    offset = int(zone[1:3]) * 3600 + int(zone[3:5]) * 60
    local = days * 86400 + int(hour[12:14]) * 3600
    return local + offset if zone[:1] == b"-" else local - offset


def _malformed(
    block: bytes, form: LogFormat, ordinal: int, before: int, wanted: int
) -> Iterator[Sample]:
    """Find up to `wanted` lines of a block that do not fit, for the samples."""
    for number, line in enumerate(block.removesuffix(b"\n").split(b"\n"), before + 1):
        if not form.fits(line):
            yield ordinal, number, line[:SAMPLE_BYTES], len(line)
            wanted -= 1
            if not wanted:
                return


# Threads share one collector: the first call in turns it off, the last one out on again.
_collector_lock = threading.Lock()  # guards the two below
_collector_users = 0
_collector_was_on = False


@contextmanager
def _collector_off() -> Iterator[None]:
    global _collector_users, _collector_was_on
    with _collector_lock:
        if _collector_users == 0:
            _collector_was_on = gc.isenabled()
            gc.disable()
        _collector_users += 1
    try:
        yield
    finally:
        with _collector_lock:
            _collector_users -= 1
            if _collector_users == 0 and _collector_was_on:
                gc.enable()
