"""What a user agent claims to be: browser, system, crawler. Heuristics, stated as such.

Role: turn the hits of *distinct* user agents into three small tables, after all counting is
done. Floor 10, part of the log job; pure.

A user agent says what its sender likes. These are words looked for in it, the first that is
there wins; the order matters, since Edge says that it is Chrome, and Chrome that it is
Safari. What calls itself a bot, crawler or spider is a crawler and counts for neither
browser nor system.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["Kind", "Kinds", "by_kind", "identify"]

OTHER = b"other"
NONE = b"(none given)"

# What is looked for is in lower case, as is the agent.
_CRAWLERS = (
    (b"googlebot", b"Googlebot"), (b"google-inspectiontool", b"Google-InspectionTool"),
    (b"adsbot-google", b"AdsBot-Google"), (b"bingbot", b"bingbot"), (b"msnbot", b"msnbot"),
    (b"slurp", b"Yahoo! Slurp"), (b"yandex.com/bots", b"YandexBot"),
    (b"baiduspider", b"Baiduspider"), (b"duckduckbot", b"DuckDuckBot"), (b"applebot", b"Applebot"),
    (b"gptbot", b"GPTBot"), (b"chatgpt-user", b"ChatGPT-User"), (b"claudebot", b"ClaudeBot"),
    (b"ccbot", b"CCBot"), (b"perplexitybot", b"PerplexityBot"), (b"bytespider", b"Bytespider"),
    (b"ahrefsbot", b"AhrefsBot"), (b"semrushbot", b"SemrushBot"), (b"mj12bot", b"MJ12bot"),
    (b"petalbot", b"PetalBot"), (b"amazonbot", b"Amazonbot"),
    (b"facebookexternalhit", b"facebookexternalhit"), (b"ia_archiver", b"ia_archiver"),
    (b"feedfetcher", b"Feedfetcher"), (b"feedburner", b"FeedBurner"),
)  # fmt: skip
# Any other that says of itself what it is, under the word in which it says so.
_ANY_CRAWLER = re.compile(rb"[a-z0-9_.!-]*(?:bot\b|bot[/_-]|crawl|spider)[a-z0-9_-]*", re.I)
_BROWSERS = (
    (b"edg/", b"Edge"), (b"edge/", b"Edge"), (b"edga/", b"Edge"), (b"edgios/", b"Edge"),
    (b"opr/", b"Opera"), (b"opera", b"Opera"), (b"samsungbrowser", b"Samsung Internet"),
    (b"vivaldi", b"Vivaldi"), (b"yabrowser", b"Yandex Browser"), (b"firefox/", b"Firefox"),
    (b"fxios/", b"Firefox"), (b"chrome/", b"Chrome"), (b"crios/", b"Chrome"),
    (b"chromium/", b"Chrome"), (b"trident/", b"Internet Explorer"),
    (b"msie ", b"Internet Explorer"), (b"safari/", b"Safari"), (b"curl/", b"curl"),
    (b"wget/", b"Wget"), (b"python-requests", b"Python"), (b"python-urllib", b"Python"),
    (b"aiohttp", b"Python"), (b"python-httpx", b"Python"), (b"go-http-client", b"Go"),
    (b"okhttp", b"OkHttp"), (b"java/", b"Java"), (b"libwww-perl", b"Perl"),
    (b"applewebkit/", b"Safari"), (b"gecko/", b"Firefox"),
)  # fmt: skip
_SYSTEMS = (
    (b"android", b"Android"), (b"iphone", b"iOS"), (b"ipad", b"iOS"), (b"ipod", b"iOS"),
    (b"windows", b"Windows"), (b"macintosh", b"macOS"), (b"mac os x", b"macOS"),
    (b"darwin", b"macOS"), (b"cros ", b"ChromeOS"), (b"freebsd", b"BSD"), (b"openbsd", b"BSD"),
    (b"netbsd", b"BSD"), (b"linux", b"Linux"), (b"x11", b"Linux"),
)  # fmt: skip


class Kind(NamedTuple):
    """What one user agent claims; a crawler has neither browser nor system."""

    browser: bytes | None
    system: bytes | None
    crawler: bytes | None


class Kinds(NamedTuple):
    """Requests by browser, by system, and by crawler."""

    browsers: Counter[bytes]
    systems: Counter[bytes]
    crawlers: Counter[bytes]


def identify(agent: bytes) -> Kind:
    """Say what a user agent claims to be.

    >>> identify(b"Mozilla/5.0 (X11; Linux x86_64; rv:138.0) Gecko/20100101 Firefox/138.0")
    Kind(browser=b'Firefox', system=b'Linux', crawler=None)
    >>> identify(b"ExampleCrawler/0.9").crawler
    b'ExampleCrawler'
    """
    if agent in (b"", b"-"):
        return Kind(NONE, NONE, None)
    lower = agent.lower()
    for word, name in _CRAWLERS:
        if word in lower:
            return Kind(None, None, name)
    if b"bot" in lower or b"crawl" in lower or b"spider" in lower:
        found = _ANY_CRAWLER.search(agent)
        # Such a word is made by the sender: not longer than a name is.
        if found:
            return Kind(None, None, found[0].strip(b".-_")[:40] or OTHER)
    browser = next((name for word, name in _BROWSERS if word in lower), OTHER)
    system = next((name for word, name in _SYSTEMS if word in lower), OTHER)
    return Kind(browser, system, None)


def by_kind(agents: Mapping[bytes, int]) -> Kinds:
    """Add up the requests of distinct user agents by what they claim to be."""
    kinds = Kinds(Counter(), Counter(), Counter())
    for agent, count in agents.items():
        for table, name in zip(kinds, identify(agent), strict=True):
            if name is not None:
                table[name] += count
    return kinds
