"""The engine that needs nothing but Python, and reads every format.

Role: blocks of whole lines into a tally. Floor 10, part of the log job; runs on the
workers, in any thread or process.

How it is fast: one ``findall`` of one strict expression over a block of 128 KiB (its rows
stay in the processor's cache), then only loops in C over whole columns
(``Counter.update`` of a sequence); request, status and bytes are one key, taken apart
once a *distinct* key; filters are asked once a distinct value.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import compress

from daskexec.logs.counts import SAMPLE_BYTES, SAMPLES, Sample, Stamp, Tally, bound, start_of_hour
from daskexec.logs.layouts import LogFormat, Row
from daskexec.logs.selection import Selection

__all__ = ["BLOCK_SIZE", "StdlibEngine", "flush_bytes", "target_of"]

BLOCK_SIZE = 1 << 17
"""Bytes of a block that it works on best."""


def flush_bytes(tally: Tally) -> int:
    """After how many bytes what waits goes into the tally, so that it does not pile up."""
    return 16 << 20 if tally.max_keys else 64 << 20


_REQUEST = re.compile(rb"[A-Za-z_-]+ ([^ ]+)(?: HTTP/[^ ]*)?")


def target_of(request: bytes) -> bytes:
    """Return the path that a request line counts for.

    The target of ``METHOD TARGET HTTP/x`` or, as before HTTP/1.0, ``METHOD TARGET``;
    of any other request (``-``, empty, binary, a target with spaces) the whole of it.
    """
    match = _REQUEST.fullmatch(request)
    return match[1] if match else request


class _Memo(dict[bytes, bool]):
    """What a filter says of each distinct value; forgets when it has grown large."""

    def __init__(self, keeps: Callable[[bytes], bool]) -> None:
        super().__init__()
        self._keeps = keeps

    def __missing__(self, value: bytes) -> bool:
        if len(self) > 100_000:
            self.clear()
        kept = self[value] = self._keeps(value)
        return kept


class StdlibEngine:
    """Counts blocks of whole lines into `tally`. Its parameters are its attributes, too.

    Parameters
    ----------
    form
        What the lines look like.
    tally
        Filled by `add`; complete after `flush`.
    ordinal
        The part's, for the samples.
    selection
        Which requests count, and what is shown of them.
    samples
        How many malformed lines are kept.
    """

    def __init__(
        self,
        form: LogFormat,
        tally: Tally,
        ordinal: int = 0,
        selection: Selection | None = None,
        samples: int = SAMPLES,
    ) -> None:
        self.form, self.tally, self.ordinal = form, tally, ordinal
        self.selection = selection or Selection()
        self.samples = samples
        self._requests: Counter[bytes] = Counter()
        self._visitors: dict[bytes, set[tuple[bytes, bytes]]] = {}
        self._clients: Counter[bytes] = Counter()
        self._waiting, self._flush_at = 0, flush_bytes(tally)
        self._filters = self._make_filters() if self.selection.filters else []

    def add(self, block: bytes) -> None:
        """Count a block's lines; the block ends where a line does."""
        rows = self.form.rows(block)
        count = block.count(b"\n") + (not block.endswith(b"\n"))
        before = self.tally.lines.get(self.ordinal, 0)
        if len(rows) < count and len(self.tally.samples) < self.samples:
            self.tally.samples += self._malformed(block, before)
        self.tally.lines[self.ordinal] = before + count
        self.add_rows(rows)
        self._waiting += len(block)
        if self._waiting >= self._flush_at:
            self.flush()

    def add_rows(self, rows: Sequence[Row]) -> None:
        """Count rows as the format gives them."""
        if not rows:
            return
        columns = dict(zip(self.form.fields, zip(*rows, strict=True), strict=True))
        if self._filters:
            columns = self._selected(columns, len(rows))
            if not columns:
                return
        tally, clients, times = self.tally, columns["client"], columns["time"]
        tally.requests += len(times)
        self._clients.update(clients)
        self._requests.update(columns["key"])
        if "referrer" in columns:
            tally.referrers.update(columns["referrer"])
        if "host" in columns:
            tally.hosts.update(columns["host"])
        agents = columns.get("agent")
        if agents is None:
            agents = (b"",) * len(times)
        else:
            tally.agents.update(agents)
        distinct = Counter(times)
        self._add_times(distinct)
        self._add_visitors({time[:11] for time in distinct}, times, clients, agents)

    def flush(self) -> None:
        """Bring what was added into the tally."""
        tally, shown = self.tally, self.selection.shown_client
        for nothing in (b"-", b""):
            tally.referrers.pop(nothing, None)
        if self.selection.anonymize:
            for client, count in self._clients.items():
                tally.clients[shown(client)] += count
        else:
            tally.clients.update(self._clients)
        for day, pairs in self._visitors.items():
            by_agent = tally.visitors.setdefault(day, {})
            for client, agent in pairs:
                by_agent.setdefault(agent, set()).add(shown(client))
        self._take_apart()
        self._requests, self._clients, self._visitors = Counter(), Counter(), {}
        self._waiting = 0
        bound(tally)

    def _take_apart(self) -> None:
        """Spread the keys ``GET /x HTTP/1.1" 200 512`` over the tables they stand for."""
        tally, shown = self.tally, self.selection.shown_path
        targets: dict[bytes, bytes] = {}
        for key, count in self._requests.items():
            quoted, status, sent = key.rsplit(b" ", 2)
            target = targets.get(quoted)
            if target is None:
                target = targets[quoted] = shown(target_of(quoted[:-1]))
            tally.paths[target] += count
            tally.statuses[status] += count
            if status == b"404":
                tally.not_found[target] += count
            if sent != b"-" and (size := int(sent)):
                tally.path_bytes[target] += size * count
                tally.bytes_sent += size * count

    # -- filters -------------------------------------------------------------------------------

    def _make_filters(self) -> list[tuple[str, _Memo]]:
        """The columns that filters look at, and what these say of their values."""
        chosen = self.selection
        path_counts = chosen.path_filter()

        def keeps_key(key: bytes) -> bool:
            quoted, status, _ = key.rsplit(b" ", 2)
            return chosen.keeps_status(int(status)) and (
                path_counts is None or path_counts(chosen.shown_path(target_of(quoted[:-1])))
            )

        filters: list[tuple[str, _Memo]] = []
        if chosen.statuses or path_counts:
            filters.append(("key", _Memo(keeps_key)))
        if chosen.since or chosen.until:
            filters.append(("time", _Memo(chosen.keeps_time)))
        for name, counts in (("client", chosen.client_filter()), ("agent", chosen.agent_filter())):
            if counts is not None and name in self.form.fields:
                filters.append((name, _Memo(counts)))
        return filters

    def _selected(
        self, columns: dict[str, tuple[bytes, ...]], count: int
    ) -> dict[str, tuple[bytes, ...]]:
        """The columns without the rows that do not count; none if no row does."""
        for name, memo in self._filters:
            kept = [memo[value] for value in columns[name]]
            if not all(kept):
                columns = {key: tuple(compress(column, kept)) for key, column in columns.items()}
        self.tally.excluded += count - len(columns["time"])
        return columns if columns["time"] else {}

    # -- times and visitors --------------------------------------------------------------------

    def _add_visitors(
        self,
        days: set[bytes],
        times: Sequence[bytes],
        clients: Sequence[bytes],
        agents: Sequence[bytes],
    ) -> None:
        for day in days:
            self._visitors.setdefault(day, set())
        if len(days) == 1:
            self._visitors[days.pop()].update(zip(clients, agents, strict=True))
            return
        for time, client, agent in zip(times, clients, agents, strict=True):
            self._visitors[time[:11]].add((client, agent))

    def _add_times(self, times: Counter[bytes]) -> None:
        """Count a block's hours and widen the tally's `first` to `last`.

        Zones may change from line to line, so text does not order the moments. Taking each
        apart would cost more than the rest; but of the block's few pairs of hour and zone
        only those matter that can hold an extreme.
        """
        tally = self.tally
        pairs: Counter[tuple[bytes, bytes]] = Counter()
        for time, count in times.items():
            pairs[time[:14], time[21:]] += count
        for (hour, _), count in pairs.items():
            tally.hours[hour] += count
        starts = {pair: start_of_hour(*pair) for pair in pairs}
        # An hour lasts 3600 s, and more with the second 60 to 69 that the format admits.
        low, high = min(starts.values()) + 3669, max(starts.values()) - 3669
        if tally.first and low - 3669 > tally.first[0]:
            low = -1
        if tally.last and high + 2 * 3669 < tally.last[0]:
            high = 1 << 62
        wanted = {pair: at for pair, at in starts.items() if at <= low or at >= high}
        stamps: list[Stamp] = [
            (wanted[pair] + int(time[15:17]) * 60 + int(time[18:20]), time)
            for time in times
            if (pair := (time[:14], time[21:])) in wanted
        ]
        if stamps:
            tally.widen(stamps)

    # -- malformed lines -----------------------------------------------------------------------

    def _malformed(self, block: bytes, before: int) -> Iterator[Sample]:
        """Find lines of a block that do not fit, as many as are still wanted."""
        wanted = self.samples - len(self.tally.samples)
        for number, line in enumerate(block.removesuffix(b"\n").split(b"\n"), before + 1):
            if not self.form.fits(line):
                yield self.sample(number, line)
                wanted -= 1
                if not wanted:
                    return

    def sample(self, number: int, line: bytes) -> Sample:
        """What is kept of a malformed line."""
        kept = self.selection.shown_sample(line[: 2 * SAMPLE_BYTES])[:SAMPLE_BYTES]
        return self.ordinal, number, kept, len(line)
