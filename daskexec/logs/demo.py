r"""A made-up log, and what a report on it must say.

Role: something to try the log job on, and a check of it. Floor 10, part of the log job.

The log is a week of a small site in combined format: few paths with most of the hits, day
and night, crawlers, probes for holes, odd requests (``-``, empty, HTTP/0.9, binary), user
names with spaces, IPv6, escapes such as ``\"`` and ``\x16``, bytes that are no UTF-8,
``-`` for bytes, a few malformed lines. The generator keeps count of what it writes from
what it *decided*; it never parses a line. So its numbers and the report's are arrived at
independently.
"""

from __future__ import annotations

import gzip
import json
import os
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import accumulate
from typing import Any

from daskexec.logs.keys import encode_key
from daskexec.logs.report import Report

__all__ = ["Demo", "differences", "make_log", "write_demo"]

LINES = 50_000

_ZONE = b"+0100"
_START = datetime(2026, 3, 2)
# Hits by hour of day, in proportion: quiet at four, busy at noon and in the evening.
_DAY = (3, 2, 1, 1, 1, 2, 4, 7, 11, 14, 15, 15, 16, 15, 14, 14, 13, 12, 13, 15, 16, 13, 9, 5)
_WEEK = (15, 16, 16, 15, 14, 9, 10)  # Monday to Sunday
_MONTHS = "JanFebMarAprMayJunJulAugSepOctNovDec"
_SECTIONS = (b"blog", b"docs", b"img", b"api/v1", b"shop", b"static/js", b"download")
_SUFFIXES = (b".html", b"/", b".png", b".css", b".js", b".tar.gz", b"?page=2", b"?q=a+b&l=de")
_PROBES = (
    b"/wp-login.php", b"/.env", b"/xmlrpc.php", b"/phpmyadmin/index.php", b"/.git/config",
    b"/cgi-bin/../../../../bin/sh", b"/admin", b"/vendor/phpunit/eval-stdin.php",
)  # fmt: skip
_BROWSERS = (
    b"Mozilla/5.0 (X11; Linux x86_64; rv:138.0) Gecko/20100101 Firefox/138.0",
    b"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    b"Chrome/136.0.0.0 Safari/537.36",
    b"Mozilla/5.0 (iPhone; CPU iPhone OS 18_4 like Mac OS X) AppleWebKit/605.1.15 "
    b"(KHTML, like Gecko) Version/18.4 Mobile/15E148 Safari/604.1",
    b"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like "
    b"Gecko) Version/18.3 Safari/605.1.15",
    b"curl/8.11.1",
    b'Weird \\"quoted\\" agent \\\\ 1.0',
)
_BROWSER_WEIGHTS = (12, 40, 25, 16, 3, 1)
_CRAWLERS = (
    (b"66.249.66.1", b"Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"),
    (b"40.77.167.12", b"Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)"),
    (b"crawler7.example.net", b"ExampleCrawler/0.9"),
)
_REFERRERS = {
    b"-": 50, b"https://www.google.com/": 20, b"https://example.com/blog/": 9,
    b"https://duckduckgo.com/": 7, b"https://news.example.org/item?id=4711": 5,
    b"https://example.com/": 4, b"http://\\xe4\\xe5.example/": 1, b"": 2,
}  # fmt: skip
_ODD_REQUESTS = (
    (b"-", b"-", b"408"),
    (b"", b"", b"400"),
    (b"\\x16\\x03\\x01\\x02", b"\\x16\\x03\\x01\\x02", b"400"),
    (b"\x00\x01\xff raw\rbytes\x0c", b"\x00\x01\xff raw\rbytes\x0c", b"400"),
    (b"GET /old.html", b"/old.html", b"200"),
    (b"GET /a b c HTTP/1.1", b"GET /a b c HTTP/1.1", b"404"),
    (b"GET /caf\xe9 HTTP/1.1", b"/caf\xe9", b"404"),
    (b'GET /say?\\"hi\\" HTTP/1.1', b'/say?\\"hi\\"', b"200"),
)  # each: as written, the path it counts for, status
_MALFORMED = (
    b"",
    b"restarted\x00log",
    b'10.9.8.7 - - [02/Mar/2026:10:00:00 +0100] "GET /cut HTTP/1.1" 200 12 "-" "Mozilla/5',
    b'10.9.8.7 - - [02/Foo/2026:10:00:00 +0100] "GET / HTTP/1.1" 200 12 "-" "-"',
    b'10.9.8.7 - - [02/Mar/2026:10:00:00 +0100] "GET / HTTP/1.1" OK 12 "-" "-"',
    b'10.9.8.7 - - [02/Mar/2026:10:00:00 +0100] "GET /" HTTP/1.1" 200 12 "-" "-"',
)


@dataclass(frozen=True)
class Demo:
    """What was written where, and what is expected of a report."""

    plain: str
    gzip: str
    expected: str
    lines: int
    expectation: dict[str, Any]


@dataclass
class _Counts:
    """The generator's own count of what it wrote."""

    lines: int = 0
    requests: int = 0
    sent: int = 0
    times: list[datetime] = field(default_factory=list)
    visitors: set[tuple[bytes, bytes, str]] = field(default_factory=set)
    tables: dict[str, Counter[bytes]] = field(
        default_factory=lambda: {
            name: Counter()
            for name in (
                "paths", "paths_by_bytes", "not_found", "clients", "referrers", "agents"
            )
        }
    )  # fmt: skip
    statuses: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class _Hit:
    """One request as decided: what is written, and what it counts for."""

    client: bytes
    user: bytes
    time: datetime
    request: bytes
    path: bytes
    status: bytes
    sent: int | None
    referrer: bytes
    agent: bytes


def write_demo(
    folder: str | os.PathLike[str], *, seed: int = 1, lines: int = LINES, top: int = 10
) -> Demo:
    """Write ``access.log``, ``access.log.gz`` and ``expected.json`` into `folder`.

    Parameters
    ----------
    folder
        Made if it is not there.
    seed
        The same seed gives the same bytes.
    lines
        How many, malformed ones included.
    top
        Rows of the top tables that are expected.
    """
    content, expectation = make_log(seed, lines, top)
    os.makedirs(folder, exist_ok=True)
    plain = os.path.join(folder, "access.log")
    zipped = plain + ".gz"
    expected = os.path.join(folder, "expected.json")
    with open(plain, "wb") as stream:
        stream.write(content)
    with open(zipped, "wb") as stream:
        stream.write(gzip.compress(content, compresslevel=6, mtime=0))
    with open(expected, "w", encoding="ascii") as text:
        json.dump(expectation, text, indent=2, sort_keys=True)
        text.write("\n")
    return Demo(plain, zipped, expected, lines, expectation)


def differences(demo: Demo, report: Report) -> list[str]:
    """Compare a report with what the generator expects; a line for each that differs."""
    said = report.to_dict()
    return [
        f"{section}: expected {json.dumps(wanted)[:300]}, reported {json.dumps(found)[:300]}"
        for section, wanted in demo.expectation.items()
        if (found := said[section]) != wanted
    ]


def make_log(seed: int, lines: int, top: int = 10) -> tuple[bytes, dict[str, Any]]:
    """Make up a log; return its bytes and what a report on it must say.

    The latter are the sections of the report's JSON that do not depend on file names.
    """
    dice = random.Random(seed)
    counts = _Counts()
    written: list[bytes] = []
    for hit in _hits(dice, lines):
        if dice.random() < 0.004:
            written.append(dice.choice(_MALFORMED))
        else:
            written.append(_line(hit, dice))
            _count(counts, hit)
        counts.lines += 1
    # The last line ends without a newline; a blank one would then be no line at all.
    if written and not written[-1]:
        written[-1] = b"?"
    return b"\n".join(written), _expectation(counts, top)


def _hits(dice: random.Random, number: int) -> Iterator[_Hit]:
    paths = [b"/%b/%d%b" % (dice.choice(_SECTIONS), i, dice.choice(_SUFFIXES)) for i in range(300)]
    paths[:3] = b"/", b"/favicon.ico", b"/robots.txt"
    sizes = {path: int(dice.lognormvariate(8.5, 1.5)) + 1 for path in paths}
    # Cumulated once: else choices() would add up all weights for every line.
    path_weights = [*accumulate(1 / rank for rank in range(1, len(paths) + 1))]
    people = [
        (_address(dice), dice.choices(_BROWSERS, _BROWSER_WEIGHTS)[0])
        for _ in range(max(10, number // 40))
    ]
    people_weights = [*accumulate(1 / (rank + 5) for rank in range(len(people)))]
    attackers = [_address(dice) for _ in range(5)]
    for time in _times(dice, number):
        user = dice.choice((b"jane", b"jane doe", b"")) if dice.random() < 0.01 else b"-"
        path = dice.choices(paths, cum_weights=path_weights)[0]
        kind = dice.random()
        if kind < 0.80:
            client, agent = dice.choices(people, cum_weights=people_weights)[0]
            status = dice.choices((b"200", b"304", b"301", b"500"), (85, 12, 2, 1))[0]
            referrer = dice.choices([*_REFERRERS], [*_REFERRERS.values()])[0]
        elif kind < 0.93:
            (client, agent), status, referrer = dice.choice(_CRAWLERS), b"200", b"-"
            path = dice.choice(paths)
        elif kind < 0.98:
            client, agent, status, referrer = dice.choice(attackers), b"-", b"404", b"-"
            path = dice.choice(_PROBES)
        else:
            client, agent, referrer = dice.choice(attackers), b"", b"-"
            request, path, status = dice.choice(_ODD_REQUESTS)
            sent = dice.choice((None, 0, 226))
            yield _Hit(client, user, time, request, path, status, sent, referrer, agent)
            continue
        request = b"%b %b HTTP/%b" % (
            dice.choices((b"GET", b"HEAD", b"POST"), (95, 3, 2))[0],
            path,
            dice.choice((b"1.1", b"1.1", b"2.0")),
        )
        sent = dice.choice((None, 0)) if status == b"304" else sizes.get(path, 162)
        yield _Hit(client, user, time, request, path, status, sent, referrer, agent)


def _times(dice: random.Random, number: int) -> list[datetime]:
    hours = dice.choices(range(24), _DAY, k=number)
    days = dice.choices(range(7), _WEEK, k=number)
    return sorted(
        _START + timedelta(day, hour * 3600 + dice.randrange(3600))
        for day, hour in zip(days, hours, strict=True)
    )


def _address(dice: random.Random) -> bytes:
    kind = dice.random()
    if kind < 0.8:
        return b".".join(b"%d" % dice.randrange(1, 255) for _ in range(4))
    if kind < 0.95:
        return b"2001:db8:%x::%x" % (dice.randrange(1 << 16), dice.randrange(1, 1 << 16))
    return b"host-%d.example.net" % dice.randrange(1000)


def _line(hit: _Hit, dice: random.Random) -> bytes:
    line = b'%b - %b [%b %b] "%b" %b %b "%b" "%b"' % (
        hit.client,
        hit.user,
        _written(hit.time),
        _ZONE,
        hit.request,
        hit.status,
        b"-" if hit.sent is None else b"%d" % hit.sent,
        hit.referrer,
        hit.agent,
    )
    odd = dice.random()
    if odd < 0.002:
        return line + b' "extra" 0.004'
    return line + b"\r" if odd < 0.004 else line


def _written(time: datetime) -> bytes:
    # Not strftime: its month names follow the locale.
    month = _MONTHS[3 * time.month - 3 : 3 * time.month]
    return f"{time:%d}/{month}/{time:%Y:%H:%M:%S}".encode()


def _count(counts: _Counts, hit: _Hit) -> None:
    counts.requests += 1
    counts.times.append(hit.time)
    counts.statuses[hit.status.decode()] += 1
    counts.visitors.add((hit.client, hit.agent, f"{hit.time:%Y-%m-%d}"))
    tables = counts.tables
    tables["paths"][hit.path] += 1
    tables["clients"][hit.client] += 1
    tables["agents"][hit.agent] += 1
    if hit.sent:
        counts.sent += hit.sent
        tables["paths_by_bytes"][hit.path] += hit.sent
    if hit.status == b"404":
        tables["not_found"][hit.path] += 1
    if hit.referrer not in (b"-", b""):
        tables["referrers"][hit.referrer] += 1


def _expectation(counts: _Counts, top: int) -> dict[str, Any]:
    zone = f"{_ZONE[:3].decode()}:{_ZONE[3:].decode()}"
    moments = [f"{time:%Y-%m-%dT%H:%M:%S}{zone}" for time in sorted(counts.times)]
    return {
        "totals": {
            "lines": counts.lines,
            "requests": counts.requests,
            "malformed": counts.lines - counts.requests,
            "bytes": counts.sent,
            "clients": len(counts.tables["clients"]),
            "visitors": len(counts.visitors),
            "first": moments[0] if moments else None,
            "last": moments[-1] if moments else None,
        },
        "statuses": dict(counts.statuses),
        "status_classes": dict(Counter(f"{s[0]}xx" for s in counts.statuses.elements())),
        "hours": dict(Counter(f"{time:%Y-%m-%d %H}" for time in counts.times)),
        "days": dict(Counter(f"{time:%Y-%m-%d}" for time in counts.times)),
        "top": {
            name: [
                {"key": encode_key(key), "bytes" if name == "paths_by_bytes" else "hits": n}
                for key, n in sorted(table.items(), key=lambda row: (-row[1], row[0]))[:top]
            ]
            for name, table in counts.tables.items()
        },
    }
