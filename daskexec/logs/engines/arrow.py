"""The engine that works by columns: numpy cuts the lines, pyarrow finds distinct values.

Role: blocks of whole lines into a tally, about three times as fast as `stdlib`. Needs
numpy and pyarrow. Floor 10, part of the log job; runs on the workers, in any thread or
process; most of its time is spent outside the interpreter's lock.

Of 32 MiB of lines (16, where keys are bounded) each column becomes numbers for its distinct values
(``dictionary_encode``); everything else counts numbers (``bincount``, ``sort``). Fields are
not copied: an array's offsets are begin, end, begin, end, ... in the block itself, and what
lies between two fields is null. Python sees distinct values only. Lines that are not
plainly of their format, and what only the distinct values show to be odd, go to `stdlib`
one by one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from daskexec.logs.counts import add_arrays, bound, start_of_hour
from daskexec.logs.engines.arrays import Arrays, Counted, Table, distinct, encoded, sums, used
from daskexec.logs.engines.columns import Columns, split
from daskexec.logs.engines.stdlib import StdlibEngine, flush_bytes
from daskexec.logs.layouts import TIME

__all__ = ["BLOCK_SIZE", "ArrowEngine"]

BLOCK_SIZE = 4 << 20
"""Bytes of a block that it works on best."""

_BATCH = 32 << 20  # bytes of lines that are held until their distinct values are found

_NO_REFERRER = pa.array([b"-", b""], pa.binary())
_TIME = re.compile(TIME)
_HOST = re.compile(rb"([^ \n]+):[0-9]{1,5}")

Ints = NDArray[np.int64]
Column = tuple[Any, Ints]
"""Distinct values, a `pyarrow` array, and the place in it of each line's."""


class _Hours:
    """Days with hour and zone by number, as they are met."""

    def __init__(self) -> None:
        self.codes: dict[tuple[bytes, bytes], int] = {}
        self.hours: list[bytes] = []
        self.zones: list[bytes] = []

    def __call__(self, hour: bytes, rest: bytes) -> int:
        code = self.codes.get((hour, rest))
        if code is None:
            good = rest[:1] == b" " and rest[6:] == b"] "
            zone = rest[1:6]
            code = -1
            if good and _TIME.fullmatch(hour + b":00:00 " + zone):
                code = len(self.hours)
                self.hours.append(hour)
                self.zones.append(zone)
            self.codes[hour, rest] = code
        return code

    def starts(self, *, utc: bool) -> Ints:
        pairs = zip(self.hours, self.zones, strict=True)
        return np.array([start_of_hour(h, z if utc else b"+0000") for h, z in pairs], np.int64)


class _Batch:
    """What waits for its distinct values to be found: the columns of some blocks."""

    def __init__(self) -> None:
        self.size = 0
        self.blocks: list[tuple[bytes, Columns, int]] = []  # with the number of lines before
        self.texts: dict[str, list[Any]] = {}
        self.hours = _Hours()

    def add(self, block: bytes, columns: Columns, before: int) -> None:
        self.size += len(block)
        self.blocks.append((block, columns, before))
        for name, span in columns.spans.items():
            self.texts.setdefault(name, []).append(_array(block, *span))

    def numbers(self, name: str) -> Ints:
        return np.concatenate([getattr(columns, name) for _, columns, _ in self.blocks])

    def distinct(self, name: str) -> Column:
        """The distinct values of a column, and the number of each line's."""
        chunks = encoded(self.texts.pop(name))
        names = chunks[-1].dictionary
        codes = [np.frombuffer(c.indices.buffers()[1], np.int32)[: len(c) : 2] for c in chunks]
        return names, np.concatenate(codes).astype(np.int64)

    def line(self, place: int) -> tuple[bytes, int]:
        """The plain line at this place of the columns: its text, and its number from 1."""
        for block, columns, before in self.blocks:
            if place < len(columns.plain):
                at = columns.plain[place]
                return block[columns.starts[at] : columns.ends[at]], before + int(at) + 1
            place -= len(columns.plain)
        raise IndexError(place)


def _array(block: bytes, begins: Ints, ends: Ints) -> Any:
    """The fields of one column without a copy, and between each two a null."""
    offsets = np.empty(2 * len(begins), np.int32)
    offsets[0::2], offsets[1::2] = begins, ends
    valid = np.full((len(offsets) + 7) // 8, 0b01010101, np.uint8)
    buffers = [pa.py_buffer(valid), pa.py_buffer(offsets), pa.py_buffer(block)]
    return pa.Array.from_buffers(pa.binary(), len(offsets) - 1, buffers)


class ArrowEngine:
    """Counts blocks of whole lines into the tally of another engine.

    Parameters
    ----------
    slow
        Reads the lines that are not plainly of their format; what is counted, and how, is as
        it was told.
    """

    def __init__(self, slow: StdlibEngine) -> None:
        self._slow, self._form, self._tally = slow, slow.form, slow.tally
        self._selection, self._ordinal = slow.selection, slow.ordinal
        self._batch, self._flush_at = _Batch(), min(_BATCH, flush_bytes(self._tally))

    def add(self, block: bytes) -> None:
        """Count a block's lines; the block ends where a line does."""
        if not block.endswith(b"\n"):
            block += b"\n"
        if len(block) < 1 << 30:
            columns = split(block, self._form.columns, self._batch.hours)
            if 2 * len(columns.plain) >= len(columns.starts):
                self._add(block, columns)
                return
        self._slow.add(block)

    def _add(self, block: bytes, columns: Columns) -> None:
        before = self._tally.lines.get(self._ordinal, 0)
        odd = columns.odd()
        if len(odd):
            bounds = zip(columns.starts[odd].tolist(), columns.ends[odd].tolist(), strict=True)
            numbers = (odd + (before + 1)).tolist()
            self._one_by_one([block[a:b] for a, b in bounds], numbers)
        self._tally.lines[self._ordinal] = before + len(columns.starts)
        self._batch.add(block, columns, before)
        if self._batch.size >= self._flush_at:
            self.flush()

    def _one_by_one(self, lines: list[bytes], numbers: list[int]) -> None:
        """Have the strict expression read some lines."""
        rows = self._form.rows(b"\n".join(lines))
        if len(rows) < len(lines):
            bad = (n for n, line in enumerate(lines) if not self._form.fits(line))
            found = [
                self._slow.sample(numbers[n], lines[n])
                for n, _ in zip(bad, range(self._slow.samples), strict=False)
            ]
            # Of one batch, odd ones that only a flush finds may come before others.
            self._tally.samples = sorted(self._tally.samples + found)[: self._slow.samples]
        self._slow.add_rows(rows)

    def flush(self) -> None:
        """Bring what was added into the tally."""
        batch, self._batch = self._batch, _Batch()
        if any(len(columns.plain) for _, columns, _ in batch.blocks):
            self._count(batch)
        self._slow.flush()
        bound(self._tally)

    # -- a batch -------------------------------------------------------------------------------

    def _count(self, batch: _Batch) -> None:
        numbers = {name: batch.numbers(name) for name in ("hours", "clock", "status", "sent")}
        texts = {name: batch.distinct(name) for name in list(batch.texts)}
        paths, at = texts["path"]
        spaced = pc.match_substring(paths, " ")
        kept = np.logical_not(spaced.to_numpy(zero_copy_only=False))[at]
        if "host" in texts:
            kept &= _told(texts["host"], lambda host: _HOST.fullmatch(host) is not None)
            kept &= _told(texts["client"], lambda client: b"." in client or b":" in client)
        # What only the distinct values show: a path with spaces, a host that is none.
        late = [batch.line(place) for place in np.flatnonzero(~kept).tolist()]
        if late:
            self._one_by_one([line for line, _ in late], [number for _, number in late])
        if self._selection.no_query:
            texts["path"] = _renamed(texts["path"], self._selection.shown_path)
        if self._selection.filters:
            plain = np.count_nonzero(kept)
            kept &= self._selected(numbers, texts, batch.hours)
            self._tally.excluded += int(plain - np.count_nonzero(kept))
        if self._selection.anonymize:
            texts["client"] = _renamed(texts["client"], self._selection.shown_client)
        if not kept.all():
            numbers = {name: column[kept] for name, column in numbers.items()}
            texts = {name: used(names, codes[kept]) for name, (names, codes) in texts.items()}
        if len(numbers["hours"]):
            self._count_numbers(numbers)
            self._count_times(numbers, batch.hours)
            counted = Counted(_tables(texts, numbers))
            _add_visitors(counted, texts, numbers["hours"], batch.hours)
            add_arrays(self._tally, Arrays(counted))

    def _selected(
        self, numbers: dict[str, Ints], texts: dict[str, Column], hours: _Hours
    ) -> NDArray[np.bool_]:
        chosen = self._selection
        status = numbers["status"]
        kept = np.array([chosen.keeps_status(code) for code in range(1000)])[status]
        if chosen.since or chosen.until:
            within = _seconds(numbers["clock"])
            for limit, before in ((chosen.since, False), (chosen.until, True)):
                if limit is not None:
                    moment = hours.starts(utc=limit[1])[numbers["hours"]] + within
                    kept &= moment < limit[0] if before else moment >= limit[0]
        for name, counts in (
            ("path", chosen.path_filter()),
            ("client", chosen.client_filter()),
            ("agent", chosen.agent_filter()),
        ):
            if counts is not None and name in texts:
                kept &= _told(texts[name], counts)
        return kept

    def _count_numbers(self, numbers: dict[str, Ints]) -> None:
        tally, status = self._tally, numbers["status"]
        tally.requests += len(status)
        tally.bytes_sent += int(numbers["sent"].sum())
        for code, count in enumerate(np.bincount(status).tolist()):
            if count:
                tally.statuses[b"%03d" % code] += count

    def _count_times(self, numbers: dict[str, Ints], hours: _Hours) -> None:
        tally, at, clock = self._tally, numbers["hours"], numbers["clock"]
        for hour, count in zip(hours.hours, np.bincount(at).tolist(), strict=False):
            if count:
                tally.hours[hour] += count
        moments = hours.starts(utc=True)[at] + _seconds(clock)
        for extreme in (int(moments.min()), int(moments.max())):
            places = np.flatnonzero(moments == extreme)
            # Zones write one moment in several ways; the least, or greatest, counts.
            for code, within in set(zip(at[places].tolist(), clock[places].tolist(), strict=True)):
                minute, second = divmod(within, 100)
                text = b"%b:%02d:%02d %b" % (hours.hours[code], minute, second, hours.zones[code])
                tally.widen([(extreme, text)])


# -- columns -----------------------------------------------------------------------------------


def _tables(texts: dict[str, Column], numbers: dict[str, Ints]) -> dict[str, Table]:
    """Count the lines of each value."""
    tables = {}
    for name, (names, at) in texts.items():
        if name == "host":
            names, at = _renamed((names, at), lambda host: host.rpartition(b":")[0])
        counts: list[Ints] = [np.bincount(at, minlength=len(names))]
        if name == "referrer":
            counts[0][pc.is_in(names, _NO_REFERRER).to_numpy(zero_copy_only=False)] = 0
        if name == "path":
            counts.append(sums(at, numbers["sent"], len(names)))
            counts.append(np.bincount(at[numbers["status"] == 404], minlength=len(names)))
        tables[name] = Table(names, counts)
    return tables


def _add_visitors(counted: Counted, texts: dict[str, Column], at: Ints, hours: _Hours) -> None:
    """Find the distinct triples of day, agent and client: each is one number, sorted."""
    names, client = texts["client"]
    if "agent" not in texts:
        counted.tables["agent"] = Table(pa.array([b""], pa.binary()), [np.zeros(1, np.int64)])
    agent = texts["agent"][1] if "agent" in texts else np.zeros_like(client)
    counted.days = list(dict.fromkeys(hour[:11] for hour in hours.hours))
    places = {day: place for place, day in enumerate(counted.days)}
    day = np.array([places[hour[:11]] for hour in hours.hours], np.int64)[at]
    agents = len(counted.tables["agent"].names)
    counted.triples = distinct((day * agents + agent) * len(names) + client)


def _seconds(clock: Ints) -> Ints:
    minute, second = np.divmod(clock, 100)
    return minute * 60 + second


def _told(column: Column, tell: Callable[[bytes], bool]) -> NDArray[np.bool_]:
    """What `tell` says of each line's value, asked once a distinct one."""
    names, codes = column
    said: NDArray[np.bool_] = np.array([tell(n) for n in names.to_pylist()], np.bool_)[codes]
    return said


def _renamed(column: Column, rename: Callable[[bytes], bytes]) -> Column:
    """The column with each value renamed; values may become the same."""
    names, codes = column
    table: dict[bytes, int] = {}
    renamed = [table.setdefault(rename(name), len(table)) for name in names.to_pylist()]
    return pa.array(list(table), pa.binary()), np.array(renamed, np.int64)[codes]
