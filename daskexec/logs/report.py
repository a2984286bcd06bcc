"""The report: what is said about all files together, and the same as JSON.

Role: turn the files' merged tallies into totals, hits over time and top tables. Floor 10,
part of the log job; pure. `daskexec.logs.render` shows it to people.

Nothing in it depends on the executor, on how the files were cut or on when it was made:
the same files give the same bytes of JSON.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from daskexec import __version__
from daskexec.logs.agents import by_kind
from daskexec.logs.keys import encode_key
from daskexec.logs.sketch import STANDARD_ERROR
from daskexec.logs.tally import MONTHS, SAMPLES, Sample, Stamp, Tally, highest

__all__ = [
    "TABLES", "VERSION", "Extract", "FailedFile", "LogFile", "MalformedLine", "Report", "placed",
]  # fmt: skip

VERSION = 1
"""Version of the JSON: raised when a field changes its meaning or goes, not for new ones."""

TABLES = (
    "hosts", "paths", "paths_by_bytes", "not_found", "clients", "referrers", "browsers",
    "systems", "crawlers", "agents",
)  # fmt: skip
"""The top tables, in the order in which they are shown."""

_KINDS = ("browsers", "systems", "crawlers")  # told from the agents
_COUNTED = [name for name in TABLES if name not in _KINDS]
_TABLES = {"paths_by_bytes": "path_bytes"}  # a tally's name, where it is another

Row = tuple[bytes, int]


@dataclass(frozen=True)
class LogFile:
    """A file that was counted.

    Attributes
    ----------
    name, format
        Its name as given, and the format of its lines.
    lines, malformed
        Lines in all, and those that do not fit; 0 until they are counted.
    """

    name: str
    format: str
    lines: int = 0
    malformed: int = 0


@dataclass(frozen=True)
class FailedFile:
    """A file of which nothing was counted, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class MalformedLine:
    """A line that does not fit its file's format.

    Attributes
    ----------
    file
        The file's name as given.
    number
        Line number from 1.
    text
        The line without its newline, at most its first 400 bytes.
    length
        The whole line's length in bytes.
    """

    file: str
    number: int
    text: bytes
    length: int


@dataclass
class Extract:
    """What a report says of a tally, or of a piece of one (`daskexec.logs.counts.pieces_of`).

    Attributes are those of `Tally` and of `Report`; ``top`` and ``inexact`` are the report's, and
    ``rows`` is the most rows of a table in ``top``.
    """

    rows: int
    requests: int
    excluded: int
    bytes_sent: int
    clients: int
    visitors: int
    first: Stamp | None
    last: Stamp | None
    statuses: Counter[bytes]
    hours: Counter[bytes]
    top: dict[str, list[Row]]
    inexact: dict[str, float]
    lines: dict[int, int]
    misfits: dict[int, int]
    samples: list[Sample]

    @classmethod
    def of(cls, tally: Tally, top: int) -> Extract:
        """Look at a tally, for tables of `top` rows."""
        rows = {name: tally.highest(_TABLES.get(name, name), top) for name in _COUNTED}
        for name, table in zip(_KINDS, by_kind(tally.table("agents")), strict=True):
            rows[name] = highest(table, top)
        return cls(
            rows=top,
            requests=tally.requests,
            excluded=tally.excluded,
            bytes_sent=tally.bytes_sent,
            clients=tally.distinct_clients,
            visitors=tally.distinct_visitors,
            first=tally.first,
            last=tally.last,
            statuses=tally.statuses,
            hours=tally.hours,
            top={name: rows[name] for name in TABLES},
            inexact=_inexact(tally),
            lines=tally.lines,
            misfits=tally.misfits,
            samples=tally.samples,
        )

    def add(self, other: Extract) -> None:
        """Add what is said of another piece of the same tally, for tables as long."""
        self.clients += other.clients
        self.visitors += other.visitors
        self.inexact |= other.inexact
        for name, rows in other.top.items():
            rows = sorted(self.top[name] + rows, key=lambda row: (-row[1], row[0]))
            self.top[name] = rows[: self.rows]


@dataclass(frozen=True)
class Report:
    """What the log files say.

    Attributes
    ----------
    files, failed
        The files that were counted, and those that could not be.
    lines, requests, malformed
        Lines in all; those that fit their file's format; those that do not (blank ones
        too).
    bytes_sent
        Bytes sent, ``-`` counted as 0.
    clients
        Distinct clients.
    visitors
        Distinct triples of client, user agent and day.
    first, last
        Earliest and latest request, ISO 8601 in the zone it was logged in; ``None`` where
        there is no request.
    statuses
        Requests by status code.
    hours, days
        Requests by hour (``2015-05-17 10``) and by day, as written in the log, whatever
        its zone. Hours without requests are not there.
    top
        By name in `TABLES`, the rows of the top tables: key and count (bytes sent, in
        ``paths_by_bytes``), the highest first, equal ones by their bytes. ``not_found``:
        paths answered 404. Requests without a referrer are not counted in ``referrers``;
        a request that is no ``METHOD TARGET [HTTP/x]`` counts under its whole text.
        ``browsers``, ``systems`` and ``crawlers`` are guesses from the user agents
        (`daskexec.logs.agents`), empty where the format has none, as ``hosts``, the virtual
        hosts, is.
    samples
        The first malformed lines.
    excluded
        Lines that fit and were left out by filters; they are in nothing but ``lines``.
    inexact
        What ``max_keys`` has cost; empty: everything is exact. By table, by how much its
        counts may be too low at most, and the count that a missing row has at most. By
        ``clients_distinct`` and ``visitors_distinct``, the relative standard error of
        ``clients`` and ``visitors``.
    partial
        Whether the job was interrupted, and all this is of what it had counted by then.
    host_names
        Names of top clients, where they were asked for and found.
    tally
        All that was counted, of which the rest is an extract: for `daskexec.logs.saved`.
        Its tables have an entry for each distinct key, so let go of a report in time. None
        where it was not kept.
    """

    files: tuple[LogFile, ...]
    failed: tuple[FailedFile, ...]
    lines: int
    requests: int
    malformed: int
    bytes_sent: int
    clients: int
    visitors: int
    first: str | None
    last: str | None
    statuses: Mapping[str, int]
    hours: Mapping[str, int]
    days: Mapping[str, int]
    top: Mapping[str, Sequence[Row]]
    samples: tuple[MalformedLine, ...]
    excluded: int = 0
    inexact: Mapping[str, float] = field(default_factory=dict)
    partial: bool = False
    host_names: Mapping[bytes, str] = field(default_factory=dict)
    tally: Tally | None = field(repr=False, compare=False, default=None)

    @property
    def status_classes(self) -> dict[str, int]:
        """Requests by ``2xx``, ``3xx``, ..."""
        classes: Counter[str] = Counter()
        for status, count in self.statuses.items():
            classes[f"{status[0]}xx"] += count
        return dict(sorted(classes.items()))

    @property
    def notes(self) -> list[str]:
        """Return what a reader must know of the numbers, a sentence each; often none."""
        notes = []
        if self.excluded:
            notes.append(f"{self.excluded:,} requests were left out by filters.")
        for name, error in self.inexact.items():
            if name.endswith("_distinct"):
                what = f"The number of {name.removesuffix('_distinct')} is an estimate: "
                notes.append(what + f"its standard error is {error:.2%}.")
            else:
                unit = "bytes" if name == "paths_by_bytes" else "requests"
                notes.append(
                    f"Not all keys of the table {name} were kept: a row is up to "
                    f"{error:,.0f} {unit} too low, and a key that is missing has no more."
                )
        return notes

    @classmethod
    def of(
        cls,
        files: Sequence[LogFile],
        failed: Iterable[FailedFile],
        samples: Sequence[MalformedLine],
        found: Extract,
        tally: Tally | None = None,
    ) -> Report:
        """Make the report of counted files, their malformed lines, and what is said of all."""
        lines = sum(file.lines for file in files)
        hours = _by_hour(found.hours)
        days: Counter[str] = Counter()
        for hour, count in hours.items():
            days[hour[:10]] += count
        return cls(
            files=tuple(files),
            failed=tuple(failed),
            lines=lines,
            requests=found.requests,
            malformed=lines - found.requests - found.excluded,
            bytes_sent=found.bytes_sent,
            clients=found.clients,
            visitors=found.visitors,
            first=_iso(found.first),
            last=_iso(found.last),
            statuses={s.decode(): found.statuses[s] for s in sorted(found.statuses)},
            hours=hours,
            days=dict(days),
            top=found.top,
            samples=tuple(samples[:SAMPLES]),
            excluded=found.excluded,
            inexact=dict(sorted(found.inexact.items())),
            tally=tally,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data; keys of the log as `encode_key` writes them.

        ``partial`` is there where it is true, ``host_names`` where there are any.
        """
        names = {encode_key(key): _name(name) for key, name in self.host_names.items()}
        return {
            **({"partial": True} if self.partial else {}),
            **({"host_names": names} if names else {}),
            "version": VERSION,
            "generator": f"daskexec {__version__}",
            "files": [
                {
                    "name": _name(f.name),
                    "format": f.format,
                    "lines": f.lines,
                    "malformed": f.malformed,
                }
                for f in self.files
            ],
            "failed": [{"name": _name(f.name), "reason": f.reason} for f in self.failed],
            "totals": {
                "lines": self.lines,
                "requests": self.requests,
                "malformed": self.malformed,
                "bytes": self.bytes_sent,
                "clients": self.clients,
                "visitors": self.visitors,
                "first": self.first,
                "last": self.last,
            },
            "excluded": self.excluded,
            "inexact": dict(self.inexact),
            "statuses": dict(self.statuses),
            "status_classes": self.status_classes,
            "hours": dict(self.hours),
            "days": dict(self.days),
            "top": {
                name: [
                    {"key": encode_key(key), "bytes" if name == "paths_by_bytes" else "hits": n}
                    for key, n in rows
                ]
                for name, rows in self.top.items()
            },
            "malformed_samples": [
                {
                    "file": _name(s.file),
                    "line": s.number,
                    "text": encode_key(s.text),
                    "length": s.length,
                }
                for s in self.samples
            ],
        }

    def to_json(self) -> str:
        """Return the report as JSON: ASCII, keys sorted, indented, ending in a newline."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"


def _inexact(tally: Tally) -> dict[str, float]:
    """What `daskexec.logs.counts.bound` has cost, by the report's names."""
    names = {name: shown for shown, name in _TABLES.items()}
    found: dict[str, float] = {names.get(name, name): lost for name, lost in tally.lost.items()}
    found |= {f"{name}_distinct": round(STANDARD_ERROR, 4) for name in tally.sketches}
    return found


def _by_hour(hours: Counter[bytes]) -> dict[str, int]:
    """``17/May/2015:10`` -> ``2015-05-17 10``, in order of time."""
    return dict(sorted((f"{_iso_day(h)} {h[12:14].decode()}", n) for h, n in hours.items()))


def _iso_day(time: bytes) -> str:
    return f"{time[7:11].decode()}-{MONTHS[time[3:6]]:02}-{time[:2].decode()}"


def _iso(stamp: Stamp | None) -> str | None:
    if stamp is None:
        return None
    written = stamp[1]
    zone = written[21:].decode()
    return f"{_iso_day(written)}T{written[12:20].decode()}{zone[:3]}:{zone[3:]}"


def placed(name: str, lines: Mapping[int, int], samples: Iterable[Sample]) -> list[MalformedLine]:
    """Give each sample its line number within the file; of which `lines` has all parts before."""
    before: dict[int, int] = {}
    so_far = 0
    for ordinal in sorted(lines):
        before[ordinal] = so_far
        so_far += lines[ordinal]
    return [MalformedLine(name, before[o] + n, text, size) for o, n, text, size in samples]


def _name(name: str) -> str:
    """A file name as JSON text: names that are no UTF-8 get the escapes of keys."""
    return encode_key(name.encode("utf-8", "surrogateescape"))
