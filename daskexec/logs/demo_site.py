r"""The made-up site behind the made-up log: its paths, visitors, crawlers and attackers.

Role: what `daskexec.logs.demo` draws from. Floor 10, part of the log job; pure data, and
tables made of it with a seeded ``random.Random``.

Each thing knows what it counts for, as decided here: the request ``GET /a b c HTTP/1.1``
for its whole text, an agent for its browser and system. Nothing of the log job is asked.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["DAY", "HOSTS", "MALFORMED", "REFERRERS", "WEEK", "Person", "Request", "Site"]

# Hits by hour of day, in proportion: quiet at four, busy at noon and in the evening.
DAY = (3, 2, 1, 1, 1, 2, 4, 7, 11, 14, 15, 15, 16, 15, 14, 14, 13, 12, 13, 15, 16, 13, 9, 5)
WEEK = (15, 16, 16, 15, 14, 9, 10)  # Monday to Sunday

HOSTS = {b"example.com:443": 60, b"shop.example.com:443": 30, b"example.com:80": 10}
REFERRERS = {
    b"-": 50, b"https://www.google.com/": 20, b"https://example.com/blog/": 9,
    b"https://duckduckgo.com/": 7, b"https://news.example.org/item?id=4711": 5,
    b"https://example.com/": 4, b"http://\\xe4\\xe5.example/": 1, b"": 2,
}  # fmt: skip
MALFORMED = (
    b"",
    b"restarted\x00log",
    b'10.9.8.7 - - [02/Mar/2026:10:00:00 +0100] "GET /cut HTTP/1.1',
    b'10.9.8.7 - - [02/Foo/2026:10:00:00 +0100] "GET / HTTP/1.1" 200 12 "-" "-"',
    b'10.9.8.7 - - [02/Mar/2026:10:00:00 +0100] "GET / HTTP/1.1" OK 12 "-" "-"',
    b'10.9.8.7 - - [02/Mar/2026:10:00:00 +0100] "GET /" HTTP/1.1" 200 12 "-" "-"',
)

_SECTIONS = (b"blog", b"docs", b"img", b"api/v1", b"shop", b"static/js", b"download")
_SUFFIXES = (b".html", b"/", b".png", b".css", b".js", b".tar.gz", b"?page=2", b"?q=a+b&l=de")
_PROBES = (
    b"/wp-login.php", b"/.env", b"/xmlrpc.php", b"/phpmyadmin/index.php", b"/.git/config",
    b"/cgi-bin/../../../../bin/sh", b"/admin", b"/vendor/phpunit/eval-stdin.php",
    b"/search?q=<script>alert(1)</script>", b"/?id=1'+OR+'1'='1", b"/=cmd|'/c+calc'!A0",
)  # fmt: skip
_ODD_REQUESTS = (
    (b"-", b"-", 408),
    (b"", b"", 400),
    (b"\\x16\\x03\\x01\\x02", b"\\x16\\x03\\x01\\x02", 400),
    (b"\x00\x01\xff raw\rbytes\x0c", b"\x00\x01\xff raw\rbytes\x0c", 400),
    (b"GET /old.html", b"/old.html", 200),
    (b"GET /a b c HTTP/1.1", b"GET /a b c HTTP/1.1", 404),
    (b"GET /caf\xe9 HTTP/1.1", b"/caf\xe9", 404),
    (b'GET /say?\\"hi\\" HTTP/1.1', b'/say?\\"hi\\"', 200),
)  # each: as written, the path it counts for, status

_WEBKIT = b"AppleWebKit/537.36 (KHTML, like Gecko) Chrome/136.0.0.0"
_AGENTS: tuple[tuple[int, bytes, bytes, bytes], ...] = (
    (30, b"Chrome", b"Windows", b"Mozilla/5.0 (Windows NT 10.0; Win64; x64) %b Safari/537.36"),
    (15, b"Chrome", b"Android", b"Mozilla/5.0 (Linux; Android 10; K) %b Mobile Safari/537.36"),
    (8, b"Edge", b"Windows",
     b"Mozilla/5.0 (Windows NT 10.0; Win64; x64) %b Safari/537.36 Edg/136.0.0.0"),
    (12, b"Firefox", b"Linux",
     b"Mozilla/5.0 (X11; Linux x86_64; rv:138.0) Gecko/20100101 Firefox/138.0"),
    (20, b"Safari", b"iOS",
     b"Mozilla/5.0 (iPhone; CPU iPhone OS 18_4 like Mac OS X) AppleWebKit/605.1.15 "
     b"(KHTML, like Gecko) Version/18.4 Mobile/15E148 Safari/604.1"),
    (12, b"Safari", b"macOS",
     b"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like "
     b"Gecko) Version/18.3 Safari/605.1.15"),
    (2, b"curl", b"other", b"curl/8.11.1"),
    (1, b"other", b"other", b'Weird \\"quoted\\" agent \\\\ 1.0'),
)  # fmt: skip
_CRAWLERS = (
    (5, b"66.249.66.%d", b"Googlebot",
     b"Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"),
    (3, b"40.77.167.%d", b"bingbot",
     b"Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)"),
    (3, b"20.171.207.%d", b"GPTBot",
     b"Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2; "
     b"+https://openai.com/gptbot)"),
    (1, b"crawler%d.example.net", b"ExampleCrawler", b"ExampleCrawler/0.9"),
)  # fmt: skip


@dataclass(frozen=True)
class Person:
    """Who sends requests; `browser` and `system`, or `crawler`: what the agent counts for."""

    client: bytes
    user: bytes
    agent: bytes
    browser: bytes | None
    system: bytes | None
    crawler: bytes | None = None


@dataclass(frozen=True)
class Request:
    """A request and its answer: as written, the path it counts for, status, bytes sent."""

    text: bytes
    path: bytes
    status: int
    sent: int | None


@dataclass(frozen=True)
class Choice:
    """Requests and the weights with which they come."""

    requests: list[Request]
    weights: list[float]


class Site:
    """The site as one seed makes it, in the size that suits a log of `lines` lines.

    Attributes
    ----------
    pages, crawled, probes
        What people, crawlers and attackers ask for.
    regulars, crawlers, attackers
        Who comes all the time, with weights.
    """

    def __init__(self, dice: random.Random, lines: int) -> None:
        self._dice = dice
        number = min(3_000, max(60, lines // 50))
        paths = [
            b"/%b/%d%b" % (dice.choice(_SECTIONS), i, dice.choice(_SUFFIXES))
            for i in range(number)
        ]
        paths[:3] = b"/", b"/favicon.ico", b"/robots.txt"
        sizes = [int(dice.lognormvariate(8.5, 1.5)) + 1 for _ in paths]
        self.pages = self._pages(paths, sizes)
        crawled = [
            Request(b"GET %b HTTP/1.1" % path, path, 200, size)
            for path, size in zip(paths, sizes, strict=True)
        ]
        self.crawled = Choice(crawled, [1.0] * number)
        probes = [Request(b"GET %b HTTP/1.1" % path, path, 404, 162) for path in _PROBES]
        odd = [Request(*row, sent) for row in _ODD_REQUESTS for sent in (None, 0, 226)]
        self.probes = Choice(probes + odd, [9.0] * len(probes) + [1.0] * len(odd))
        self.regulars = [self.person() for _ in range(min(2_000, max(5, lines // 60)))]
        self.crawlers = [
            Person(b.replace(b"%d", b"%d" % i), b"-", agent, None, None, name)
            for _, b, name, agent in _CRAWLERS
            for i in range(1, 5)
        ]
        self.crawler_weights = [weight for weight, *_ in _CRAWLERS for _ in range(4)]
        none = b"(none given)"
        self.attackers = [
            Person(self._address(), b"-", agent, none, none) for agent in (b"-", b"", b"-") * 3
        ]

    def _pages(self, paths: Sequence[bytes], sizes: Sequence[int]) -> Choice:
        """Each path in a few ways, by Zipf's law; odd methods and answers of the first only."""
        requests: list[Request] = []
        weights: list[float] = []
        for rank, (path, size) in enumerate(zip(paths, sizes, strict=True), 1):
            ways: list[tuple[int, bytes, bytes, int, int | None]] = [
                (75, b"GET", b"1.1", 200, size),
                (10, b"GET", b"1.1", 304, 0),
            ]
            if rank <= 200:
                ways += [
                    (8, b"GET", b"2.0", 200, size),
                    (2, b"GET", b"1.1", 304, None),
                    (2, b"HEAD", b"1.1", 200, None),
                    (2, b"POST", b"1.1", 301, 178),
                    (1, b"GET", b"1.1", 500, 612),
                ]
            for weight, method, version, status, sent in ways:
                text = b"%b %b HTTP/%b" % (method, path, version)
                requests.append(Request(text, path, status, sent))
                weights.append(weight / rank)
        return Choice(requests, weights)

    def person(self) -> Person:
        """Make up one more visitor."""
        dice = self._dice
        _, browser, system, agent = dice.choices(_AGENTS, [a[0] for a in _AGENTS])[0]
        user = dice.choice((b"jane", b"jane doe", b"")) if dice.random() < 0.01 else b"-"
        # A `%b` in an agent stands for what all of Chrome's kin say.
        agent = agent.replace(b"%b", _WEBKIT)
        return Person(self._address(), user, agent, browser, system)

    def _address(self) -> bytes:
        dice = self._dice
        kind = dice.random()
        if kind < 0.8:
            return b"%d.%d.%d.%d" % (*dice.randbytes(3), dice.randrange(1, 255))
        if kind < 0.95:
            return b"2001:db8:%x::%x" % (dice.randrange(1 << 16), dice.randrange(1, 1 << 16))
        return b"host-%d.example.net" % dice.randrange(1000)
