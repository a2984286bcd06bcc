"""What a log line looks like, and which format a file is in.

Role: the known formats as one strict regular expression each, a format by its name or its
format string, and the choice between them from a file's first lines. Floor 10, part of the
log job; pure, runs anywhere. `layouts` reads format strings, `jsonlines` JSON.

A line either fits its format wholly or is malformed; nothing is guessed. The fields may
hold any byte but a newline (NUL, carriage return, form feed, what is no UTF-8), so lines
end at ``\\n`` only. Inside quotes a backslash shields the next byte, as Apache writes it.
More fields after the last one, and a carriage return before the newline, are accepted.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from functools import lru_cache

from daskexec.logs.jsonlines import JSON_LINES
from daskexec.logs.layouts import LINE_END, TEXT, TIME, WORD, LogFormat, compile_format

__all__ = ["FORMATS", "LogFormat", "NotALog", "choose_format", "find_format"]

SAMPLE_LINES = 100
"""How many first lines decide the format."""

# Each piece excludes the newline and leaves the matcher no choice about where a field ends
# (but for a user name with spaces, which ends at the first time stamp): a line that does
# not fit is given up in linear time, however long it is.
_USER = rb"(?:-|[^\n]*?)"
_COMMON = (
    rb"(" + WORD + rb") " + WORD + rb" " + _USER + rb" \[(" + TIME + rb")\]"
    # Request, status and bytes are one group: as one key they are counted once a line and
    # taken apart once a distinct key.
    + rb' "(' + TEXT + rb'" [0-9]{3} (?:[0-9]{1,20}|-))'
)  # fmt: skip
_COMBINED = _COMMON + rb' "(' + TEXT + rb')" "(' + TEXT + rb')"'
# The address must hold a dot or a colon: without that, a user name with a space after an
# IPv6 client ('::1 - jane doe [') would pass for a virtual host, its port and a client.
_VHOST = rb"([^ \n]+):[0-9]{1,5} (?=[^ \n]*[.:])"


class NotALog(ValueError):
    """The file's first lines fit no known format; the message shows the first such lines."""


def _define(name: str, layout: str, source: bytes, fields: str) -> LogFormat:
    pattern = re.compile(rb"^" + source + LINE_END, re.MULTILINE)
    return LogFormat(name, layout, pattern, tuple(fields.split()), columns=name)


_C, _V = '%h %l %u %t "%r" %>s %b', "%v:%p "
_R = ' "%{Referer}i" "%{User-Agent}i"'
# The most telling first: a combined line is also a common line with more fields.
FORMATS: dict[str, LogFormat] = {
    f.name: f
    for f in (
        _define(
            "vhost_combined",
            _V + _C + _R,
            _VHOST + _COMBINED,
            "host client time key referrer agent",
        ),
        _define("combined", _C + _R, _COMBINED, "client time key referrer agent"),
        _define("vhost_common", _V + _C, _VHOST + _COMMON, "host client time key"),
        _define("common", _C, _COMMON, "client time key"),
        JSON_LINES,
    )
}
"""The known formats by name."""

_ALIASES = {
    "vcombined": "vhost_combined",
    "vcommon": "vhost_common",
    "caddy": "json",
}
"""Other names, those of GoAccess that make sense here; in lower case."""

_NGINX_COMMON = '$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent'
_NGINX = {
    "common": _NGINX_COMMON,
    "combined": _NGINX_COMMON + ' "$http_referer" "$http_user_agent"',
}
"""How nginx writes known formats."""


@lru_cache(maxsize=64)
def find_format(text: str) -> LogFormat:
    """Return a format by its name, or make it of a server's format string.

    Parameters
    ----------
    text
        A name in `FORMATS`, in any case; GoAccess' ``COMBINED``, ``VCOMBINED``,
        ``COMMON``, ``VCOMMON`` or ``CADDY``; or the string of Apache's LogFormat or nginx'
        log_format, also as the whole line of the server's configuration. The format's
        ``name`` gives the same format again, in any process.

    Raises
    ------
    ValueError
        Says where a format string goes wrong, or what names there are.
    """
    name = text.strip().lower()
    name = _ALIASES.get(name, name)
    if name in FORMATS:
        return FORMATS[name]
    if "%" in text or "$" in text:
        made = compile_format(text)
        # A string that is a known format's own: that one is counted faster.
        same = (f for f in FORMATS.values() if made.layout in (f.layout, _NGINX.get(f.name)))
        return next(same, made)
    near = difflib.get_close_matches(name, [*FORMATS, *_ALIASES], 1)
    hint = f"Did you mean {near[0]}? There" if near else "There"
    raise ValueError(
        f"no log format is called {text!r}. {hint} are auto, {', '.join(FORMATS)}, and format "
        "strings such as Apache's '%h %l %u %t \"%r\" %>s %b' or nginx' '$remote_addr ...'"
    )


def choose_format(lines: Sequence[bytes], wanted: str = "auto") -> LogFormat:
    """Choose the format of a file from its first lines.

    Parameters
    ----------
    lines
        The first lines, without their newlines; blank ones do not count. None at all
        (an empty file) fits every format.
    wanted
        ``"auto"``: the most telling format that fits at least half of `lines`. Or what
        `find_format` knows, which must fit one line at least.

    Raises
    ------
    NotALog
        If there is no such format.
    ValueError
        If `wanted` is no format.
    """
    told = [line for line in lines if line.strip()]
    if wanted != "auto":
        chosen = find_format(wanted)
        if told and not any(chosen.fits(line) for line in told):
            raise NotALog(_refusal(lines, [chosen]))
        return chosen
    for candidate in FORMATS.values():
        if told and 2 * sum(candidate.fits(line) for line in told) >= len(told):
            return candidate
    if not told and not any(lines):
        return FORMATS["combined"]
    raise NotALog(_refusal(lines, list(FORMATS.values())))


def _refusal(lines: Sequence[bytes], formats: Sequence[LogFormat]) -> str:
    """Show the first lines that fit none of `formats`."""
    names = ", ".join(f.name for f in formats)
    odd = [
        f"line {number} is: {_shown(line)}"
        for number, line in enumerate(lines, 1)
        if line.strip() and not any(f.fits(line) for f in formats)
    ]
    if not odd:
        return f"not a log in the format {names}: its first lines are blank"
    way_out = "; for another format give its LogFormat string with --format"
    return f"not a log in the format {names}; {'; '.join(odd[:3])}" + way_out * (len(formats) > 1)


def _shown(line: bytes) -> str:
    shown = ascii(line[:120].decode("utf-8", "backslashreplace"))[1:-1]
    return shown + (f" … ({len(line)} bytes)" if len(line) > 120 else "")
