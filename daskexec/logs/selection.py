"""Which requests are counted, and what of them is shown.

Role: the filters and the hiding of addresses and queries, as one frozen value that travels
with each part; and the same for each distinct value of a field, which is all that the
engines ask. Floor 10, part of the log job; pure, runs anywhere.
"""

from __future__ import annotations

import fnmatch
import ipaddress
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from daskexec.logs.counts import start_of_hour

__all__ = ["CRAWLER", "Selection", "anonymize_address", "anonymize_text", "select"]

CRAWLER = re.compile(
    rb"bot\b|bot[/_-]|crawl|spider|slurp|archiver|scrap[ey]|facebookexternalhit|"
    rb"mediapartners|feedfetcher|preview|monitor|\+https?://",
    re.IGNORECASE,
)
"""User agents that call themselves crawlers, or point to a page about them."""

_ADDRESS = re.compile(
    rb"(?<![\w.:])(?:[0-9]{1,3}(?:\.[0-9]{1,3}){3}|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]+)"
)


@dataclass(frozen=True)
class Selection:
    """What `select` made of the options; the default selects everything and hides nothing.

    Attributes
    ----------
    since, until
        First moment that counts and the first after that does not, each in seconds since
        the year 1, and whether it is UTC or the time of day as written in the log.
    statuses
        Ranges of status codes, both ends included; none: all.
    paths
        Patterns of paths; none: all.
    exclude
        Networks whose requests do not count.
    no_crawlers
        Requests of agents that call themselves crawlers do not count.
    no_query
        Paths end before their question mark.
    anonymize
        Addresses of clients lose what tells one from its neighbours.
    """

    since: tuple[int, bool] | None = None
    until: tuple[int, bool] | None = None
    statuses: tuple[tuple[int, int], ...] = ()
    paths: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    no_crawlers: bool = False
    no_query: bool = False
    anonymize: bool = False

    @property
    def filters(self) -> bool:
        """Whether any request may be left out."""
        return bool(
            self.since or self.until or self.statuses or self.paths or self.exclude
            or self.no_crawlers
        )  # fmt: skip

    # -- what the engines ask, once a distinct value ------------------------------------------

    def keeps_moment(self, utc: int, local: int) -> bool:
        """Whether this moment (seconds since the year 1) is between since and until."""
        return (self.since is None or (utc if self.since[1] else local) >= self.since[0]) and (
            self.until is None or (utc if self.until[1] else local) < self.until[0]
        )

    def keeps_time(self, time: bytes) -> bool:
        """The same of a time as it is written: ``17/May/2015:10:05:03 +0000``."""
        within = int(time[15:17]) * 60 + int(time[18:20])
        hour = time[:14]
        return self.keeps_moment(
            start_of_hour(hour, time[21:]) + within, start_of_hour(hour, b"+0000") + within
        )

    def keeps_status(self, status: int) -> bool:
        """Whether requests answered with this status count."""
        return not self.statuses or any(low <= status <= high for low, high in self.statuses)

    def path_filter(self) -> Callable[[bytes], bool] | None:
        """Tell paths, as `shown_path` gives them, that count; None: all do."""
        if not self.paths:
            return None
        sources = [fnmatch.translate(pattern) for pattern in self.paths]
        # Bytes, as Latin-1 has a character for each: the patterns are compared as UTF-8.
        found = re.compile("|".join(sources)).match
        return lambda path: found(path.decode("latin-1")) is not None

    def client_filter(self) -> Callable[[bytes], bool] | None:
        """Tell clients, as they are in the log, that count; None: all do."""
        if not self.exclude:
            return None
        networks = [ipaddress.ip_network(text) for text in self.exclude]

        def counts(client: bytes) -> bool:
            address = _address(client)
            return address is None or not any(address in network for network in networks)

        return counts

    def agent_filter(self) -> Callable[[bytes], bool] | None:
        """Tell user agents that count; None: all do."""
        return (lambda agent: CRAWLER.search(agent) is None) if self.no_crawlers else None

    def shown_path(self, path: bytes) -> bytes:
        """Return what a path counts as."""
        return path.partition(b"?")[0] if self.no_query and path[:1] != b"?" else path

    def shown_client(self, client: bytes) -> bytes:
        """Return what a client counts as."""
        return anonymize_address(client) if self.anonymize else client

    def shown_sample(self, line: bytes) -> bytes:
        """Return what is kept of a malformed line."""
        return anonymize_text(line) if self.anonymize else line


def select(
    *,
    since: str | datetime | None = None,
    until: str | datetime | None = None,
    status: str | Iterable[str] = (),
    path: str | Iterable[str] = (),
    exclude_ip: str | Iterable[str] = (),
    no_crawlers: bool = False,
    no_query: bool = False,
    anonymize_ip: bool = False,
) -> Selection:
    """Say which requests count.

    Parameters
    ----------
    since, until
        ``2015-05-17``, ``2015-05-17T10``, ``... 10:05``, ``... 10:05:03``, all of them with
        or without a zone (``Z``, ``+02:00``). Both ends belong to it: until ``2015-05-17``
        is to the end of that day. Without a zone they are compared with the time as it is
        written in the log, whatever its zone.
    status
        ``404``, ``5xx``, ``400-403``; also several with commas between. Any of them.
    path
        Patterns of whole paths, any of which must fit: ``*`` stands for anything, slashes
        included, ``?`` for one byte, ``[abc]`` for one of these. They are compared with
        what is counted: without the query, if `no_query`.
    exclude_ip
        Addresses (``192.0.2.7``, ``2001:db8::1``) and networks (``10.0.0.0/8``) that do not
        count. Host names in a log are not looked up.
    no_crawlers
        Leave out user agents that call themselves crawlers (`CRAWLER`); those that do not
        are not noticed.
    no_query
        Cut paths before the question mark.
    anonymize_ip
        Set the last byte of IPv4 addresses and the last 80 bits of IPv6 addresses to 0, in
        clients and in the samples of malformed lines. Clients that are then the same are
        counted as one. Host names stay; so does what stands in paths, referrers and agents.

    Raises
    ------
    ValueError
        Says which option cannot be understood, and what it may be.
    """
    chosen = Selection(
        since=_moment("since", since)[0] if since else None,
        until=_moment("until", until)[1] if until else None,
        statuses=tuple(_statuses(status)),
        # As UTF-8 seen as Latin-1: see path_filter.
        paths=tuple(p.encode("utf-8", "surrogateescape").decode("latin-1") for p in _many(path)),
        exclude=tuple(str(_network(text)) for text in _many(exclude_ip)),
        no_crawlers=no_crawlers,
        no_query=no_query,
        anonymize=anonymize_ip,
    )
    a, b = chosen.since, chosen.until
    if a and b and a[1] == b[1] and a[0] >= b[0]:
        raise ValueError(f"since {since} is later than until {until}: nothing would be counted")
    return chosen


def _many(value: str | Iterable[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


_UNITS = (
    (re.compile(r"\d{4}-\d\d-\d\d"), timedelta(days=1)),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d"), timedelta(hours=1)),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d"), timedelta(minutes=1)),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"), timedelta(seconds=1)),
)
_ZONED = re.compile(r"(.{10,}?) ?(Z|[+-]\d\d:?\d\d)?", re.DOTALL)


def _moment(option: str, value: str | datetime) -> tuple[tuple[int, bool], tuple[int, bool]]:
    """The begin of what is named, and the first moment after it."""
    text = value.isoformat(" ", "seconds") if isinstance(value, datetime) else value.strip()
    parts = _ZONED.fullmatch(text.replace("T", " "))
    for form, unit in _UNITS:
        if parts and form.fullmatch(parts[1]):
            try:
                at = datetime.fromisoformat(parts[1] + ":00" * (unit == timedelta(hours=1)))
            except ValueError:
                break  # such as the 31st of February
            zone = parts[2]
            if zone and zone != "Z":
                shift = timedelta(hours=int(zone[1:3]), minutes=int(zone[-2:]))
                at = at + shift if zone[0] == "-" else at - shift
            begin = date.toordinal(at) * 86400 + at.hour * 3600 + at.minute * 60 + at.second
            utc = bool(zone)
            return (begin, utc), (begin + int(unit.total_seconds()), utc)
    raise ValueError(
        f"{option} {text!r} is no time: give a day such as 2015-05-17, or 2015-05-17T10:05, "
        "with a zone such as Z or +02:00 if it is not the log's own"
    )


def _statuses(value: str | Iterable[str]) -> Iterable[tuple[int, int]]:
    for text in ",".join(_many(value)).split(","):
        word = text.strip().lower()
        if match := re.fullmatch(r"(\d)xx", word):
            yield int(match[1]) * 100, int(match[1]) * 100 + 99
        elif match := re.fullmatch(r"(\d{3})(?:-(\d{3}))?", word):
            yield int(match[1]), int(match[2] or match[1])
        elif word:
            raise ValueError(f"status {text!r} is none: give 404, 5xx or 400-403")


def _network(text: str) -> Any:
    try:
        return ipaddress.ip_network(text.strip(), strict=False)
    except ValueError:
        raise ValueError(
            f"exclude-ip {text!r} is neither an address (192.0.2.7, 2001:db8::1) nor a network "
            "(10.0.0.0/8)"
        ) from None


def _address(client: bytes) -> Any:
    """The address that a client is, or None for host names; IPv4 in IPv6 is IPv4."""
    try:
        address = ipaddress.ip_address(client.decode("ascii"))
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def anonymize_address(client: bytes) -> bytes:
    """Zero an address's last byte (IPv4) or last 80 bits (IPv6); host names stay.

    >>> anonymize_address(b"192.0.2.77"), anonymize_address(b"2001:db8:1:2::3")
    (b'192.0.2.0', b'2001:db8:1::')
    """
    address = _address(client)
    if address is None:
        return client
    bits = 8 if address.version == 4 else 80
    return str(type(address)(int(address) >> bits << bits)).encode()


def anonymize_text(text: bytes) -> bytes:
    """Do the same to whatever looks like an address in a text."""
    return _ADDRESS.sub(lambda match: anonymize_address(match[0]), text)
