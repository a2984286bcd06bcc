"""A reader of log lines that is slow and obvious: a character at a time, no expressions.

Written from the definition of Apache's formats (``%v:%p %h %l %u %t "%r" %>s %b "%{Referer}i"
"%{User-Agent}i"``); shares nothing with daskexec.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

_MONTHS = b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
_DIGITS = b"0123456789"


@dataclass
class Line:
    """What the reader finds in a line."""

    host: bytes
    client: bytes
    time: bytes
    request: bytes
    status: bytes
    sent: bytes
    referrer: bytes
    agent: bytes

    @property
    def path(self) -> bytes:
        """The target of ``METHOD TARGET`` or ``METHOD TARGET HTTP/x``, else the request."""
        words = self.request.split(b" ")
        method, target = [*words, b""][:2]
        named = bool(method) and all(
            c in b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_-" for c in method
        )
        shaped = len(words) == 2 or (len(words) == 3 and words[2].startswith(b"HTTP/"))
        return target if named and shaped and target else self.request

    @property
    def size(self) -> int:
        return 0 if self.sent == b"-" else int(self.sent)

    @property
    def moment(self) -> datetime:
        """In UTC; days past a month's end and seconds from 60 on count on."""
        t = self.time
        offset = timedelta(hours=int(t[22:24]), minutes=int(t[24:26]))
        at = datetime(int(t[7:11]), _MONTHS.index(t[3:6]) + 1, 1, tzinfo=timezone.utc)
        at += timedelta(int(t[:2]) - 1, int(t[18:20]), hours=int(t[12:14]), minutes=int(t[15:17]))
        return at + offset if t[21:22] == b"-" else at - offset


def _word(line: bytes, at: int) -> int:
    """Where the word that begins at `at` ends; -1 if there is none or no space follows."""
    end = at
    while end < len(line) and line[end] != 0x20:
        end += 1
    return end if at < end < len(line) else -1


def _is_time(text: bytes) -> bool:
    if len(text) != 26 or text[2:3] + text[6:7] != b"//" or text[7:8] == b"0":
        return False
    if text[11:12] + text[14:15] + text[17:18] != b":::" or text[20:21] != b" ":
        return False
    if text[3:6] not in _MONTHS or text[21:22] not in (b"+", b"-"):
        return False
    numbers = text[:2] + text[7:11] + text[12:14] + text[15:17] + text[18:20] + text[22:]
    return (
        all(c in _DIGITS for c in numbers)
        and 1 <= int(text[:2]) <= 31
        and int(text[12:14]) < 24
        and int(text[15:17]) < 60
        and int(text[18:20]) < 70
    )


def _quoted(line: bytes, at: int) -> int:
    """Where the quoted text that begins at `at` ends: after its closing quote; or -1."""
    if line[at : at + 1] != b'"':
        return -1
    at += 1
    while at < len(line):
        if line[at] == 0x5C:
            at += 2
        elif line[at] == 0x22:
            return at + 1
        else:
            at += 1
    return -1


def _after_time(line: bytes, at: int, combined: bool) -> list[bytes] | None:
    values = []
    end = _quoted(line, at)
    if end < 0 or line[end : end + 1] != b" ":
        return None
    values.append(line[at + 1 : end - 1])
    at = end + 1
    status = line[at : at + 3]
    if len(status) < 3 or not all(c in _DIGITS for c in status) or line[at + 3 : at + 4] != b" ":
        return None
    values.append(status)
    at += 4
    end = at
    while end < len(line) and line[end] in _DIGITS:
        end += 1
    if end == at and line[at : at + 1] == b"-":
        end += 1
    if not 1 <= end - at <= 20:
        return None
    values.append(line[at:end])
    at = end
    for _ in range(2 if combined else 0):
        if line[at : at + 1] != b" ":
            return None
        end = _quoted(line, at + 1)
        if end < 0:
            return None
        values.append(line[at + 2 : end - 1])
        at = end
    return values if line[at:] in (b"", b"\r") or line[at] == 0x20 else None


def read_line(line: bytes, form: str = "combined") -> Line | None:
    """Read a line of one of the four formats; None: it is malformed."""
    host, at = b"", 0
    if form.startswith("vhost"):
        end = _word(line, 0)
        name, colon, port = line[: max(end, 0)].rpartition(b":")
        if not name or not colon or not 1 <= len(port) <= 5 or any(c not in _DIGITS for c in port):
            return None
        host, at = name, end + 1
    end = _word(line, at)
    client = line[at:end]
    if end < 0 or (host and b"." not in client and b":" not in client):
        return None
    at = _word(line, end + 1)
    if at < 0:
        return None
    combined = form.endswith("combined")
    # The user's name ends at the first time stamp that the rest of a line follows.
    for begin in range(at + 1, len(line)):
        if line[begin : begin + 2] == b" [" and line[begin + 28 : begin + 30] == b"] ":
            time = line[begin + 2 : begin + 28]
            found = _after_time(line, begin + 30, combined) if _is_time(time) else None
            if found:
                request, status, sent, *more = found
                referrer, agent = more or (b"-", b"")
                return Line(host, client, time, request, status, sent, referrer, agent)
    return None


def split_lines(content: bytes) -> list[bytes]:
    """The lines, without their newlines; what follows the last newline only if it is there."""
    lines = content.split(b"\n")
    return lines if lines[-1] else lines[:-1]


def reference_tally(content: bytes, form: str = "combined", samples: int = 10) -> dict[str, Any]:
    """Everything a tally says of some lines, by the tally's own names."""
    lines = split_lines(content)
    found = [read_line(line, form) for line in lines]
    bad = [n for n, line in enumerate(found) if line is None]
    return {
        **reference_counts([line for line in found if line is not None], form),
        "lines": {0: len(lines)},
        "misfits": {0: len(bad)} if bad else {},
        "samples": [(0, n + 1, lines[n][:400], len(lines[n])) for n in bad[:samples]],
    }


def reference_counts(good: list[Line], form: str = "combined") -> dict[str, Any]:
    """What a tally says of lines that have been read."""
    combined = form.endswith("combined")
    sizes: Counter[bytes] = Counter()
    visitors: dict[bytes, dict[bytes, set[bytes]]] = {}
    for line in good:
        if line.size:
            sizes[line.path] += line.size
        visitors.setdefault(line.time[:11], {}).setdefault(line.agent, set()).add(line.client)
    begin = datetime(1, 1, 1, tzinfo=timezone.utc)
    ages = [(line.moment - begin, line.time) for line in good]
    stamps = sorted(((d.days + 1) * 86400 + d.seconds, text) for d, text in ages)
    return {
        "requests": len(good),
        "bytes_sent": sum(line.size for line in good),
        "statuses": Counter(line.status for line in good),
        "hours": Counter(line.time[:14] for line in good),
        "paths": Counter(line.path for line in good),
        "path_bytes": sizes,
        "not_found": Counter(line.path for line in good if line.status == b"404"),
        "clients": Counter(line.client for line in good),
        "referrers": Counter(line.referrer for line in good if line.referrer not in (b"-", b"")),
        "agents": Counter(line.agent for line in good) if combined else Counter(),
        "hosts": Counter(line.host for line in good if line.host),
        "visitors": visitors,
        "first": stamps[0] if stamps else None,
        "last": stamps[-1] if stamps else None,
    }
