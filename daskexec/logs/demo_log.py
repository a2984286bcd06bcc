r"""The made-up log itself: its lines, and the count that is kept of what was decided.

Role: `DemoLog`, which `daskexec.logs.demo` writes and measures reports by. Floor 10, part of
the log job. What can come is in `daskexec.logs.demo_site`.

How it is fast: whatever is drawn is drawn for thousands of lines at once, as one 16-bit
number a line into a table in which the likely has more places; counted are those numbers.
"""

from __future__ import annotations

import random
import sys
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import chain, repeat
from typing import Any, TypeVar

from daskexec.logs.demo_site import (
    DAY,
    HOSTS,
    MALFORMED,
    REFERRERS,
    WEEK,
    Choice,
    Person,
    Site,
)
from daskexec.logs.keys import encode_key

__all__ = ["DemoLog"]

_T = TypeVar("_T")
_ZONE = b" +0100"
_START = datetime(2026, 3, 2)
_MONTHS = "JanFebMarAprMayJunJulAugSepOctNovDec"
_SLOTS = 1 << 16
_SPAN_LINES = 20_000  # most lines that are made at once
_SECONDS = [b":%02d:%02d" % divmod(second, 60) for second in range(3600)]
_TABLES = ("hosts", "paths", "paths_by_bytes", "not_found", "clients", "referrers", "agents",
           "browsers", "systems", "crawlers")  # fmt: skip


class _Group:
    """Some of those who come, and what they ask for; and how often each was drawn."""

    def __init__(
        self, people: Sequence[int], weights: Sequence[float], choice: Choice, refers: bool
    ) -> None:
        self.people = _places(people, weights)
        self.asked = _places(range(len(choice.requests)), choice.weights)
        self.texts = [
            b'%b] "%b" %d %b'
            % (_ZONE, r.text, r.status, b"-" if r.sent is None else b"%d" % r.sent)
            for r in choice.requests
        ]
        self.choice = choice
        self.refers = refers
        self.counts: Counter[int] = Counter()


class DemoLog:
    """A made-up log: iterate over it once for its bytes, block by block.

    After that `size` and `expectation` tell what was written. One thread at a time.
    """

    def __init__(self, seed: int, lines: int, format: str = "combined") -> None:
        if format not in ("common", "combined", "vhost_combined"):
            raise ValueError(
                f"the made-up log is common, combined or vhost_combined, not {format!r}"
            )
        self._dice = dice = random.Random(seed)
        self.lines = lines
        self.size = 0
        self._format = format
        self._site = site = Site(dice, lines)
        self._people: list[Person] = []
        self._heads: list[bytes] = []
        self._tails: list[bytes] = []
        regulars = self._enter(site.regulars)
        zipf = [1 / (rank + 5) for rank in range(len(regulars))]
        self._groups = [
            _Group(regulars, zipf, site.pages, True),
            _Group([0], [1], site.pages, True),  # those who are new, drawn otherwise
            _Group(self._enter(site.crawlers), site.crawler_weights, site.crawled, False),
            _Group(self._enter(site.attackers), [1] * 9, site.probes, False),
        ]
        # Of 256 lines; which group a line is of.
        self._kinds = bytes([0] * 130 + [1] * 80 + [2] * 30 + [3] * 16)
        self._referrers = [*REFERRERS]
        self._refers = _places(range(len(REFERRERS)), [*REFERRERS.values()])
        self._hosts = _places([*HOSTS], [*HOSTS.values()])
        self._came: Counter[int] = Counter()
        self._referred: Counter[int] = Counter()
        self._hosted: Counter[bytes] = Counter()
        self._hours: Counter[datetime] = Counter()
        self._visits: dict[str, set[int]] = {}
        self._malformed = 0
        self._first: datetime | None = None
        self._last: datetime | None = None

    def __iter__(self) -> Iterator[bytes]:
        left = self.lines
        for start, seconds, number in self._spans():
            rows = self._rows(start, seconds, number)
            left -= number
            if not left:
                # No newline at the end; a blank line would then be no line at all.
                rows[-1] = rows[-1][:-1] or b"?"
            block = b"".join(rows)
            self.size += len(block)
            yield block

    def _enter(self, people: Sequence[Person]) -> range:
        begin = len(self._people)
        self._people += people
        common = self._format == "common"
        for person in people:
            self._heads.append(b"%b - %b [" % (person.client, person.user))
            self._tails.append(b"\n" if common else b'" "%b"\n' % person.agent)
        return range(begin, len(self._people))

    def _spans(self) -> Iterator[tuple[datetime, int, int]]:
        """Share the lines out over the week: start, length in seconds, number of lines."""
        total, given, weight = sum(DAY) * sum(WEEK), 0, 0
        for day, daily in enumerate(WEEK):
            for hour, hourly in enumerate(DAY):
                weight += daily * hourly
                number = self.lines * weight // total - given
                given += number
                pieces = next(
                    n for n in (1, 6, 60, 600, 3600) if number <= n * _SPAN_LINES or n == 3600
                )
                for piece in range(pieces):
                    share = number * (piece + 1) // pieces - number * piece // pieces
                    if share:
                        length = 3600 // pieces
                        yield _START + timedelta(day, hour * 3600 + piece * length), length, share

    def _rows(self, start: datetime, seconds: int, number: int) -> list[bytes]:
        """Make up the lines of a span of time within an hour, in order."""
        dice = self._dice
        bad = dice.randbytes(number).count(0)
        number -= bad
        kinds = bytes(map(self._kinds.__getitem__, dice.randbytes(number)))
        heads: list[Iterator[bytes]] = []
        tails: list[Iterator[bytes]] = []
        day = self._visits.setdefault(f"{start:%Y-%m-%d}", set())
        for kind, group in enumerate(self._groups):
            count = kinds.count(kind)
            who = self._who(group, kind, count)
            self._came.update(who)
            day.update(who)
            what = [*map(group.asked.__getitem__, _numbers(dice, count))]
            group.counts.update(what)
            heads.append(map(self._heads.__getitem__, who))
            tails.append(self._endings(group, who, what))
        first = (start.minute * 60 + start.second) if number else 0
        moments = [first + (n * seconds >> 16) for n in sorted(_numbers(dice, number))]
        hour = f"{start:%d}/{_month(start)}/{start:%Y:%H}".encode()
        rows = [
            next(heads[kind]) + hour + _SECONDS[moment] + next(tails[kind])
            for kind, moment in zip(kinds, moments, strict=True)
        ]
        if number:
            full = start.replace(minute=0, second=0)
            self._hours[full] += number
            self._last = full + timedelta(seconds=moments[-1])
            self._first = self._first or full + timedelta(seconds=moments[0])
        self._add_oddities(rows)
        if self._format == "vhost_combined":
            hosts = [*map(self._hosts.__getitem__, _numbers(dice, number))]
            self._hosted.update(hosts)
            rows = [b"%b %b" % row for row in zip(hosts, rows, strict=True)]
        for _ in range(bad):
            line = dice.choice(MALFORMED) + b"\n"
            if self._format == "vhost_combined" and line.startswith(b"10."):
                line = b"example.com:443 " + line
            rows.insert(dice.randrange(len(rows) + 1), line)
        self._malformed += bad
        return rows

    def _who(self, group: _Group, kind: int, number: int) -> list[int]:
        numbers = _numbers(self._dice, number)
        if kind != 1:
            return [*map(group.people.__getitem__, numbers)]
        fresh = self._enter([self._site.person() for _ in range(-(-number // 25))])
        return [fresh[n * len(fresh) >> 16] for n in numbers]

    def _endings(self, group: _Group, who: Sequence[int], what: Sequence[int]) -> Iterator[bytes]:
        texts = map(group.texts.__getitem__, what)
        agents = map(self._tails.__getitem__, who)
        if self._format == "common":
            return (a + b for a, b in zip(texts, agents, strict=True))
        if not group.refers:
            return (a + b' "-' + b for a, b in zip(texts, agents, strict=True))
        refers = [*map(self._refers.__getitem__, _numbers(self._dice, len(who)))]
        self._referred.update(refers)
        names = [b' "%b' % name for name in self._referrers]
        return (a + names[b] + c for a, b, c in zip(texts, refers, agents, strict=True))

    def _add_oddities(self, rows: list[bytes]) -> None:
        draws = self._dice.randbytes(len(rows))
        for draw, more in ((7, b' "extra" 0.004\n'), (8, b"\r\n")):
            at = draws.find(draw)
            while at >= 0:
                rows[at] = rows[at][:-1] + more
                at = draws.find(draw, at + 1)

    def expectation(self, top: int = 10) -> dict[str, Any]:
        """Say what a report on the log must say, after the log was made."""
        tables = self._tables()
        statuses = tables.pop("statuses")
        days: Counter[str] = Counter()
        for hour, number in self._hours.items():
            days[f"{hour:%Y-%m-%d}"] += number
        return {
            "totals": {
                "lines": self.lines,
                "requests": self.lines - self._malformed,
                "malformed": self._malformed,
                "bytes": sum(tables["paths_by_bytes"].values()),
                "clients": len(tables["clients"]),
                "visitors": sum(self._visitors(ids) for ids in self._visits.values()),
                "first": _iso(self._first),
                "last": _iso(self._last),
            },
            "statuses": {key.decode(): number for key, number in statuses.items()},
            "status_classes": _classes(statuses),
            "hours": {f"{hour:%Y-%m-%d %H}": number for hour, number in self._hours.items()},
            "days": dict(days),
            "top": {
                name: [
                    {"key": encode_key(key), "bytes" if name == "paths_by_bytes" else "hits": n}
                    for key, n in sorted(table.items(), key=lambda row: (-row[1], row[0]))[:top]
                ]
                for name, table in tables.items()
            },
        }

    def _visitors(self, ids: set[int]) -> int:
        people = map(self._people.__getitem__, ids)
        if self._format == "common":
            return len({person.client for person in people})
        return len({(person.client, person.agent) for person in people})

    def _tables(self) -> dict[str, Counter[bytes]]:
        """Spread what was drawn, and how often, over what it counts for."""
        tables: dict[str, Counter[bytes]] = {name: Counter() for name in (*_TABLES, "statuses")}
        for group in self._groups:
            for place, number in group.counts.items():
                request = group.choice.requests[place]
                tables["paths"][request.path] += number
                tables["statuses"][b"%d" % request.status] += number
                if request.sent:
                    tables["paths_by_bytes"][request.path] += request.sent * number
                if request.status == 404:
                    tables["not_found"][request.path] += number
        for place, number in self._came.items():
            person = self._people[place]
            tables["clients"][person.client] += number
            if self._format == "common":
                continue
            tables["agents"][person.agent] += number
            for kind in ("browser", "system", "crawler"):
                if key := getattr(person, kind):
                    tables[f"{kind}s"][key] += number
        for host, number in self._hosted.items():
            tables["hosts"][host.split(b":")[0]] += number
        for place, number in self._referred.items():
            if (referrer := self._referrers[place]) not in (b"-", b""):
                tables["referrers"][referrer] += number
        return tables


def _numbers(dice: random.Random, number: int) -> array[int]:
    """Draw as many numbers below 65,536."""
    numbers = array("H", dice.randbytes(2 * number))
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def _places(items: Iterable[_T], weights: Iterable[float]) -> list[_T]:
    """Lay items out over 65,536 places, each on as many as its weight asks, one at least."""
    weights = [*weights]
    scale = _SLOTS / sum(weights)
    each = [max(1, round(weight * scale)) for weight in weights]
    places = [*chain.from_iterable(map(repeat, items, each))]
    return (places + places[: max(0, _SLOTS - len(places))])[:_SLOTS]


def _month(time: datetime) -> str:
    # Not strftime: its month names follow the locale.
    return _MONTHS[3 * time.month - 3 : 3 * time.month]


def _classes(statuses: Counter[bytes]) -> dict[str, int]:
    classes: Counter[str] = Counter()
    for status, number in statuses.items():
        classes[f"{status[:1].decode()}xx"] += number
    return dict(classes)


def _iso(time: datetime | None) -> str | None:
    return f"{time:%Y-%m-%dT%H:%M:%S}{_ZONE[1:4].decode()}:00" if time else None
