"""What a log line looks like, and which format a file is in.

Role: the three formats as one strict regular expression each, and the choice between them
from a file's first lines. Floor 10, part of the log job; pure, runs anywhere.

A line either fits its format wholly or is malformed; nothing is guessed. The fields may
hold any byte but a newline (NUL, carriage return, form feed, what is no UTF-8), so lines
end at ``\\n`` only. Inside quotes a backslash shields the next byte, as Apache writes it.
More fields after the last one, and a carriage return before the newline, are accepted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["FORMATS", "LogFormat", "NotALog", "choose_format"]

SAMPLE_LINES = 100
"""How many first lines decide the format."""

# Each piece excludes the newline and leaves the matcher no choice about where a field ends
# (but for a user name with spaces, which ends at the first time stamp): a line that does
# not fit is given up in linear time, however long it is.
_WORD = rb"[^ \n]+"
_TEXT = rb'[^"\\\n]*(?:\\[^\n][^"\\\n]*)*'
_USER = rb"(?:-|[^\n]*?)"
_TIME = (
    rb"\[((?:0[1-9]|[12][0-9]|3[01])/(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
    rb"/[1-9][0-9]{3}:(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-6][0-9] [+-][0-9]{4})\]"
)
_COMMON = (
    rb"(" + _WORD + rb") " + _WORD + rb" " + _USER + rb" " + _TIME
    # Request, status and bytes are one group: as one key they are counted once a line and
    # taken apart once a distinct key.
    + rb' "(' + _TEXT + rb'" [0-9]{3} (?:[0-9]{1,20}|-))'
)  # fmt: skip
_COMBINED = _COMMON + rb' "(' + _TEXT + rb')" "(' + _TEXT + rb')"'
# The address must hold a dot or a colon: without that, a user name with a space after an
# IPv6 client ('::1 - jane doe [') would pass for a virtual host, its port and a client.
_VHOST = rb"[^ \n]+:[0-9]{1,5} (?=[^ \n]*[.:])" + _COMBINED
_END = rb"(?: [^\n]*)?\r?$"


class NotALog(ValueError):
    """The file's first lines fit no known format; the message shows the first such line."""


@dataclass(frozen=True)
class LogFormat:
    """One format.

    Attributes
    ----------
    name
        What ``--format`` calls it.
    layout
        The same as Apache writes it, for people.
    pattern
        Multiline; its groups are client, time, the request with status and bytes, and,
        where `has_agent`, referrer and user agent.
    has_agent
        Whether referrer and user agent are there.
    """

    name: str
    layout: str
    pattern: re.Pattern[bytes]
    has_agent: bool

    def fits(self, line: bytes) -> bool:
        """Whether `line`, without its newline, is of this format."""
        return self.pattern.match(line) is not None


def _define(name: str, layout: str, source: bytes, has_agent: bool) -> LogFormat:
    return LogFormat(name, layout, re.compile(rb"^" + source + _END, re.MULTILINE), has_agent)


# The most telling first: a combined line is also a common line with more fields.
FORMATS: dict[str, LogFormat] = {
    f.name: f
    for f in (
        _define(
            "vhost_combined",
            '%v:%p %h %l %u %t "%r" %>s %O "%{Referer}i" "%{User-Agent}i"',
            _VHOST,
            True,
        ),
        _define(
            "combined", '%h %l %u %t "%r" %>s %b "%{Referer}i" "%{User-Agent}i"', _COMBINED, True
        ),
        _define("common", '%h %l %u %t "%r" %>s %b', _COMMON, False),
    )
}
"""The known formats by name."""


def choose_format(lines: Sequence[bytes], wanted: str = "auto") -> LogFormat:
    """Choose the format of a file from its first lines.

    Parameters
    ----------
    lines
        The first lines, without their newlines; blank ones do not count. None at all
        (an empty file) fits every format.
    wanted
        ``"auto"``: the most telling format that fits at least half of `lines`. Or a name
        in `FORMATS`, which must fit one line at least.

    Raises
    ------
    NotALog
        If there is no such format.
    """
    told = [line for line in lines if line.strip()]
    if wanted != "auto":
        chosen = FORMATS[wanted]
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
    """Say which line was the first to fit none of `formats`."""
    names = ", ".join(f.name for f in formats)
    for number, line in enumerate(lines, 1):
        if line.strip() and not any(f.fits(line) for f in formats):
            shown = ascii(line[:120].decode("utf-8", "backslashreplace"))[1:-1]
            more = f" … ({len(line)} bytes)" if len(line) > 120 else ""
            return f"not a log in the format {names}; line {number} is: {shown}{more}"
    return f"not a log in the format {names}: its first lines are blank"
