"""Format strings of Apache and nginx, made into one strict regular expression.

Role: what is common to all formats (`LogFormat`), and `compile_format` for those that are
given as a string. Floor 10, part of the log job; pure, runs anywhere.

A field ends where the character that follows it in the format string first comes; between
double quotes a backslash shields the next byte. So no format leaves the matcher a choice,
and a line is read in linear time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import NoReturn

__all__ = [
    "LINE_END", "TEXT", "TIME", "WORD", "LogFormat", "clf_time_of_epoch", "clf_time_of_iso",
    "compile_format",
]  # fmt: skip

WORD = rb"[^ \n]+"
TEXT = rb'[^"\\\n]*(?:\\[^\n][^"\\\n]*)*'
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_DAY = rb"(?:0[1-9]|[12][0-9]|3[01])"
_CLOCK = rb"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-6][0-9]"
TIME = (
    _DAY + rb"/(?:" + "|".join(_MONTHS).encode() + rb")/[1-9][0-9]{3}:"
    + _CLOCK + rb" [+-][0-9]{4}"
)  # fmt: skip
ISO_TIME = (
    rb"[1-9][0-9]{3}-(?:0[1-9]|1[0-2])-" + _DAY + rb"T" + _CLOCK
    + rb"(?:\.[0-9]+)?(?:Z|[+-][0-9]{2}:?[0-9]{2})"
)  # fmt: skip
EPOCH = rb"[0-9]{1,11}(?:\.[0-9]+)?"
LINE_END = rb"(?: [^\n]*)?\r?$"

Row = tuple[bytes, ...]


@dataclass(frozen=True)
class LogFormat:
    """One format.

    Attributes
    ----------
    name
        What ``--format`` calls it; for one that was made of a string, the string.
    layout
        The same as Apache writes it, or nginx, for people.
    pattern
        Multiline; finds the lines that fit.
    fields
        What `rows` gives, in this order: ``client``, ``time`` (``17/May/2015:10:05:03
        +0000``), ``key`` (the request with status and bytes: ``GET / HTTP/1.1" 200 512``),
        and, where the format has them, ``referrer``, ``agent``, ``host``.
    columns
        A name, if the engine that works by columns knows this layout; else ``""``.
    fix
        Makes a row of the groups of `pattern` where they are others than `fields`.
    """

    name: str
    layout: str
    pattern: re.Pattern[bytes]
    fields: tuple[str, ...]
    columns: str = ""
    fix: Callable[[Row], Row] | None = field(default=None, compare=False, repr=False)

    @property
    def has_agent(self) -> bool:
        """Whether the user agent is there."""
        return "agent" in self.fields

    def fits(self, line: bytes) -> bool:
        """Whether `line`, without its newline, is of this format."""
        return self.pattern.match(line) is not None

    def rows(self, block: bytes) -> list[Row]:
        """Read a block of whole lines: a row for each line that fits, in order."""
        rows: list[Row] = self.pattern.findall(block)
        return rows if self.fix is None else list(map(self.fix, rows))


# -- directives --------------------------------------------------------------------------------

_APACHE = {
    "h": "client", "a": "client", "u": "user", "r": "request", "s": "status", "b": "bytes",
    "B": "bytes", "O": "all_bytes", "v": "host", "V": "host", "p": "port", "U": "uri",
    "q": "query", **dict.fromkeys("lmHDTXPkfALRSIECinoex", ""),
}  # fmt: skip
_HEADERS = {"referer": "referrer", "user-agent": "agent"}
_NGINX = {
    "remote_addr": "client", "remote_user": "user", "time_local": "time",
    "time_iso8601": "iso_time", "msec": "epoch", "request": "request", "status": "status",
    "body_bytes_sent": "bytes", "bytes_sent": "all_bytes", "http_referer": "referrer",
    "http_user_agent": "agent", "host": "host", "http_host": "host", "server_name": "host",
    "server_port": "port", "request_uri": "uri", "uri": "uri",
}  # fmt: skip
_TIMES = {
    "%d/%b/%Y:%H:%M:%S %z": "time", "%d/%b/%Y:%T %z": "time",
    "%Y-%m-%dT%H:%M:%S%z": "iso_time", "%FT%T%z": "iso_time", "sec": "epoch",
}  # fmt: skip
_SOURCES = {
    "time": TIME, "iso_time": ISO_TIME, "epoch": EPOCH, "status": rb"[0-9]{3}",
    "bytes": rb"[0-9]{1,20}|-", "all_bytes": rb"[0-9]{1,20}|-", "port": rb"[0-9]{1,5}|-",
}  # fmt: skip

_APACHE_TOKEN = re.compile(
    r"%(?P<hundred>%)|%[!0-9,]*[<>]?(?:\{(?P<arg>[^}]*)\})?(?P<letter>\^[A-Za-z]{2}|[A-Za-z])"
)
_NGINX_TOKEN = re.compile(r"\$(?P<name>[a-z0-9_]+)|\$\{(?P<braced>[a-z0-9_]+)\}")
_APACHE_LINE = re.compile(r'\s*LogFormat\s+"((?:[^"\\]|\\.)*)"(?:\s+\S+)?\s*')
_NGINX_LINE = re.compile(
    r"\s*log_format\s+\S+\s+(?:escape=\w+\s+)?((?:'[^']*'|\"[^\"]*\"|\s)+);?\s*"
)


@dataclass(frozen=True)
class _Field:
    """A directive: where it stands, as it is written, and what it means."""

    at: int
    written: str
    meaning: str


def compile_format(text: str) -> LogFormat:
    """Make a format of the string of Apache's LogFormat or nginx' log_format.

    Parameters
    ----------
    text
        The string, or the line of the server's configuration that has it.

    Raises
    ------
    ValueError
        Says where the string goes wrong and what may stand there, or what it lacks.
    """
    layout = _bare(text)
    source, groups = _pattern(layout, list(_tokens(layout)))
    _check_complete(layout, groups)
    pattern = re.compile(rb"^" + source + LINE_END, re.MULTILINE)
    fields = ("client", "time", "key", *(f for f in ("referrer", "agent", "host") if f in groups))
    return LogFormat(text, layout, pattern, fields, fix=_Fixer(tuple(groups), fields))


def _bare(text: str) -> str:
    """The format string alone, of a line of a server's configuration."""
    if match := _APACHE_LINE.fullmatch(text):
        return re.sub(r"\\(.)", r"\1", match[1])
    if match := _NGINX_LINE.fullmatch(text):
        return "".join(a or b for a, b in re.findall(r"'([^']*)'|\"([^\"]*)\"", match[1]))
    text = text.strip()
    return text.replace('\\"', '"') if '\\"' in text else text


def _tokens(layout: str) -> Iterator[str | _Field]:
    """Take a format string apart into literal text and fields."""
    apache = "%" in layout and not _NGINX_TOKEN.search(layout)
    at = 0
    while at < len(layout):
        if layout[at] != ("%" if apache else "$"):
            end = layout.find("%" if apache else "$", at)
            end = end if end >= 0 else len(layout)
            yield layout[at:end]
            at = end
            continue
        match = (_APACHE_TOKEN if apache else _NGINX_TOKEN).match(layout, at)
        if match is None:
            _fail(layout, at, "no directive" if apache else "no variable")
        at = match.end()
        if not apache:
            name = match["name"] or match["braced"]
            yield _Field(match.start(), match[0], _NGINX.get(name, ""))
        elif match["hundred"]:
            yield "%"
        else:
            yield from _apache_field(layout, match)


def _apache_field(layout: str, match: re.Match[str]) -> Iterator[str | _Field]:
    letter, argument = match["letter"], match["arg"]
    if letter == "t":
        if argument is None:
            yield "["
        meaning = "time" if argument is None else _TIMES.get(argument.removeprefix("begin:"))
        if meaning is None:
            known = ", ".join(f"%{{{form}}}t" for form in _TIMES)
            _fail(layout, match.start(), f"times as {match[0]} are not read; as {known} they are")
        yield _Field(match.start(), match[0], meaning)
        if argument is None:
            yield "]"
        return
    if letter not in _APACHE and not letter.startswith("^"):
        _fail(layout, match.start(), f"{match[0]} is no directive")
    meaning = _APACHE.get(letter, "")
    if letter == "i":
        meaning = _HEADERS.get((argument or "").lower(), "")
    yield _Field(match.start(), match[0], meaning)


def _fail(layout: str, at: int, what: str) -> NoReturn:
    raise ValueError(
        f"format string, character {at + 1}, at {layout[at : at + 20]!r}: {what}. Known are "
        "Apache's %h %a %l %u %t %{...}t %r %m %U %q %H %>s %b %B %O %v %V %p %{Name}i %{Name}o "
        "%D %T %X and such, %% for a percent sign; and nginx' $remote_addr $remote_user "
        "$time_local $time_iso8601 $msec $request $request_uri $status $body_bytes_sent "
        "$http_referer $http_user_agent $host; any other $name is skipped"
    )


def _pattern(layout: str, tokens: list[str | _Field]) -> tuple[bytes, list[str]]:
    """The source of the expression, and what its groups are."""
    source, groups = b"", []
    # Where both are there, the bytes of the body are those that count.
    meanings = {t.meaning for t in tokens if isinstance(t, _Field)}
    for place, token in enumerate(tokens):
        if isinstance(token, str):
            source += re.escape(token.encode())
            continue
        before = tokens[place - 1] if place else " "
        after = tokens[place + 1] if place + 1 < len(tokens) else ""
        meaning = token.meaning
        if meaning == "all_bytes" and "bytes" not in meanings:
            meaning = "bytes"
        piece = _piece(layout, token, before, after)
        if meaning in ("", "user", "port", "all_bytes") or meaning in groups:
            source += rb"(?:" + piece + rb")"
        else:
            source += rb"(" + piece + rb")"
            groups.append(meaning)
    return source, groups


def _piece(layout: str, token: _Field, before: str | _Field, after: str | _Field) -> bytes:
    """What one field may hold, such that the matcher has no choice where it ends."""
    if token.meaning in _SOURCES:
        return _SOURCES[token.meaning]
    if isinstance(before, _Field) and token.meaning == "query":
        return rb"(?:\?[^ \"\n]*)?"
    if isinstance(after, _Field):
        if after.meaning == "query":
            return rb"[^? \"\n]*"
        _fail(
            layout, after.at,
            f"nothing between {token.written} and {after.written} tells where the one ends",
        )  # fmt: skip
    if isinstance(before, str) and before.endswith('"') and str(after).startswith('"'):
        return TEXT
    if token.meaning == "user":
        return rb"-|[^\n]*?"
    if after == "":
        return rb"[^\r\n]*" if token.meaning in ("referrer", "agent") else rb"[^ \r\n]*"
    many = rb"+" if token.meaning == "client" else rb"*"
    return rb"[^" + re.escape(str(after)[0].encode()) + rb"\n]" + many


def _check_complete(layout: str, groups: list[str]) -> None:
    found = set(groups)
    lacks = [
        said
        for wanted, said in (
            ({"client"}, "the client (%h or %a, $remote_addr)"),
            ({"time", "iso_time", "epoch"}, "the time (%t, $time_local)"),
            ({"request", "uri"}, "the request (%r or %U, $request)"),
            ({"status"}, "the status (%>s, $status)"),
        )
        if not found & wanted
    ]
    if lacks:
        raise ValueError(f"format string {layout!r} lacks {', '.join(lacks)}")


@dataclass(frozen=True)
class _Fixer:
    """Makes the row that is counted of the groups of a format string."""

    groups: tuple[str, ...]
    fields: tuple[str, ...]

    def __call__(self, row: Row) -> Row:
        said = dict(zip(self.groups, row, strict=True))
        time = said.get("time")
        if time is None:
            iso = said.get("iso_time")
            time = clf_time_of_epoch(float(said["epoch"])) if iso is None else clf_time_of_iso(iso)
        request = said.get("request")
        if request is None:
            request = b"GET %b%b HTTP/1.1" % (said["uri"], said.get("query", b""))
        key = b'%b" %b %b' % (request, said["status"], said.get("bytes", b"-"))
        said |= {"time": time, "key": key}
        return tuple(said[name] for name in self.fields)


def clf_time_of_iso(iso: bytes) -> bytes:
    """Write ``2015-05-17T10:05:03+00:00``, which must fit `ISO_TIME`, as Apache does."""
    month = _MONTHS[int(iso[5:7]) - 1].encode()
    zone = b"+0000" if iso.endswith(b"Z") else iso[19:].lstrip(b".0123456789").replace(b":", b"")
    return b"%b/%b/%b:%b %b" % (iso[8:10], month, iso[:4], iso[11:19], zone)


def clf_time_of_epoch(seconds: float) -> bytes:
    """Write seconds since 1970 as Apache does, in UTC.

    Raises
    ------
    OverflowError, ValueError, OSError
        If that is no time of the years 1000 to 9999.
    """
    at = datetime.fromtimestamp(seconds, timezone.utc)
    return f"{at:%d}/{_MONTHS[at.month - 1]}/{at:%Y:%H:%M:%S} +0000".encode()
