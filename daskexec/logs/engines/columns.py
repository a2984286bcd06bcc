"""A block of log lines cut into columns, many lines at a time.

Role: find the fields of those lines that are plainly of their format, by numpy; tell which
lines are not, for the strict expression. Floor 10, part of the log job; pure.

All of it works with the positions of newlines and of quotes that no backslash shields, which
are found in one go. In a plain line the time ends at a fixed distance before the first quote,
the status is at a fixed distance after the second, and so on. Characters are compared eight at
a time, as one 64-bit number with the first character lowest: a word. What is accepted here is
accepted by the format's expression with the same fields (the tests hold them against each
other); what is not may still be.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Columns", "split"]

Ints = NDArray[np.int64]
Words = NDArray[np.uint64]
Bools = NDArray[np.bool_]
Span = tuple[Ints, Ints]

_MARGIN = 64
"""Lines that end so near to the block's end are odd: words are read beyond a field's end."""

_SMALL = 1 << 16
"""Blocks below this are copied to get such a margin."""

_MOST_CLIENT = 48
"""Longer clients are odd."""


def _word(text: bytes) -> Any:
    return np.uint64(int.from_bytes(text.ljust(8, b"\0"), "little"))


_ONES, _HIGHS = _word(b"\x01" * 8), _word(b"\x80" * 8)
_SPACES, _ZEROS = _word(b" " * 8), _word(b"0" * 8)
_LOW7 = np.uint64((1 << 56) - 1)
# Added to a character's distance from the pattern, it sets the highest bit of what is too
# great: 0x7F of all but 0, 0x76 of all above 9.
_NINE = _word(b"\x76" * 8)
_CLOCK, _CLOCK_LIMITS = _word(b":00:00 "), _word(b"\x7f\x7a\x76\x7f\x79\x76\x7f")
_STATUS, _STATUS_LIMITS = _word(b" 000 "), _word(b"\x7f\x76\x76\x76\x7f")
_METHODS = (b"GET ", b"POST ", b"HEAD ", b"PUT ", b"PATCH ", b"DELETE ", b"OPTIONS ")
_PROTOCOLS = (b"HTTP/1.1", b"HTTP/2.0", b"HTTP/1.0", b"HTTP/3.0")
_QUOTE, _NEWLINE, _SPACE, _RETURN, _BACKSLASH, _DASH = b'"\n \r\\-'


@dataclass
class Columns:
    """The plain lines of a block, in order.

    Attributes
    ----------
    starts, ends
        Of every line of the block, plain or not; a line ends before its newline.
    plain
        Which lines are.
    spans
        By field (``host``, ``client``, ``path``, ``referrer``, ``agent``), where it begins
        and ends in each plain line.
    hours
        Of each plain line, what the table of hours gave for day, hour and zone.
    clock
        Minutes and seconds: 100 x minute + second.
    status, sent
        As numbers; ``-`` is 0.
    """

    starts: Ints
    ends: Ints
    plain: Ints
    spans: dict[str, Span]
    hours: Ints
    clock: Ints
    status: Ints
    sent: Ints

    def keep(self, kept: Bools) -> None:
        """Leave only these plain lines plain."""
        if kept.all():
            return
        self.plain, self.hours, self.clock = self.plain[kept], self.hours[kept], self.clock[kept]
        self.status, self.sent = self.status[kept], self.sent[kept]
        self.spans = {name: (a[kept], b[kept]) for name, (a, b) in self.spans.items()}

    def odd(self) -> Ints:
        """The lines that are not plain."""
        other = np.ones(len(self.starts), np.bool_)
        other[self.plain] = False
        return np.flatnonzero(other)


class _Block:
    """A block's bytes, and its words: `words[i]` is bytes i to i + 7."""

    def __init__(self, block: bytes) -> None:
        padded = block + bytes(2 * _MARGIN) if len(block) < _SMALL else block
        self.size = len(padded)
        self.bytes = np.frombuffer(padded, np.uint8)
        self.words: Words = np.ndarray((self.size - 7,), "<u8", padded, 0, (1,))


def split(block: bytes, layout: str, hour_code: Callable[[bytes, bytes], int]) -> Columns:
    """Cut a block of whole lines, each with its newline, into columns.

    Parameters
    ----------
    block
        Below 1 GiB.
    layout
        ``common``, ``combined``, ``vhost_common`` or ``vhost_combined``.
    hour_code
        Gives a number for day and hour (``17/May/2015:10``) and for what follows the
        seconds (`` +0000] ``), or -1 if they are none. Asked at each change only.
    """
    text = _Block(block)
    marks = text.bytes[: len(block)] == _QUOTE
    marks |= text.bytes[: len(block)] == _NEWLINE
    marks[_shielded(text, len(block))] = False
    tokens = np.flatnonzero(marks)
    newlines = np.flatnonzero(text.bytes[tokens] == _NEWLINE)
    ends = tokens[newlines]
    starts = np.concatenate(([0], ends[:-1] + 1))
    first = np.concatenate(([0], newlines[:-1] + 1))
    combined = layout.endswith("combined")
    enough = (newlines - first >= (6 if combined else 2)) & (ends < text.size - _MARGIN)
    plain = np.flatnonzero(enough)
    first, begin, end = first[plain], starts[plain], ends[plain]
    quotes = [tokens[first + k] for k in range(6 if combined else 2)]
    spans, good = _before_time(text, begin, quotes[0], layout.startswith("vhost"))
    clock, is_clock = _clock(text, quotes[0])
    spans["path"], is_request = _request(text, quotes[0], quotes[1])
    status, is_status = _status(text, quotes[1])
    sent, after, is_number = _number(text, quotes[1] + 6)
    good &= is_clock & is_request & is_status & is_number
    if combined:
        spans["referrer"] = quotes[2] + 1, quotes[3]
        spans["agent"] = quotes[4] + 1, quotes[5]
        good &= _quoted_pair(text, after, quotes)
        after = quotes[5] + 1
    good &= _at_end(text, after, end)
    columns = Columns(
        starts, ends, plain, spans, np.zeros(len(plain), np.int64), clock, status, sent
    )
    time = quotes[0] - 28
    columns.keep(good)
    time = time[good]
    columns.hours = _hours(text, time, hour_code)
    columns.keep(columns.hours >= 0)
    return columns


def _shielded(text: _Block, size: int) -> Ints:
    """The quotes that a backslash shields.

    After several backslashes a quote may be either: it is none of these, and ends no field of a
    plain line.
    """
    at = np.flatnonzero(text.bytes[:size] == _BACKSLASH)
    before_quote = (text.bytes[at + 1] == _QUOTE) & (text.bytes[at - 1] != _BACKSLASH)
    quotes: Ints = at[before_quote] + 1
    return quotes


def _first_flag(flags: Any) -> Ints:
    """The place, 0 to 7, of the first character whose highest bit is set; there is one."""
    lowest = flags & (~flags + np.uint64(1))
    counted: Words = ((lowest - np.uint64(1)) & _ONES) * _ONES
    place: Ints = (counted >> np.uint64(56)).astype(np.int64) - 1
    return place


def _space_after(text: _Block, at: Ints) -> Ints:
    """Where the first space is at or after `at`; -1 if it is not near."""
    found = np.full(len(at), -1, np.int64)
    todo: Any = slice(None)
    rest = at
    for step in range(0, _MOST_CLIENT, 8):
        word = text.words[rest + step] ^ _SPACES
        # Characters that are 0 now; those after the first may be wrong, and are not looked at.
        flags = (word - _ONES) & ~word & _HIGHS
        place = _first_flag(flags) + rest + step
        missing = flags == 0
        if not missing.any():
            found[todo] = place
            break
        place[missing] = -1
        found[todo] = place
        todo = np.flatnonzero(found < 0)
        rest = at[todo]
    return found


def _before_time(
    text: _Block, begin: Ints, quote: Ints, has_host: bool
) -> tuple[dict[str, Span], Bools]:
    """``HOST:PORT CLIENT - USER [``: the user may be anything up to the time."""
    spans: dict[str, Span] = {}
    good = np.ones(len(begin), np.bool_)
    if has_host:
        space = _space_after(text, begin)
        spans["host"] = begin, space
        good &= space > begin
        begin = np.where(good, space + 1, begin)
    space = _space_after(text, begin)
    spans["client"] = begin, space
    good &= space > begin
    good &= (text.bytes[space + 1] == _DASH) & (text.bytes[space + 2] == _SPACE)
    good &= space + 3 <= quote - 30
    good &= (text.words[quote - 34] >> np.uint64(32)) & np.uint64(0xFFFF) == _word(b" [")
    return spans, good


def _clock(text: _Block, quote: Ints) -> tuple[Ints, Bools]:
    """``:05:03 `` at its place before the request."""
    digits = (text.words[quote - 14] ^ _CLOCK) & _LOW7
    good = ((digits + _CLOCK_LIMITS) | digits) & _HIGHS == 0
    return _digit(digits, 1) * 1000 + _digit(digits, 2) * 100 + _digit(digits, 4) * 10 + _digit(
        digits, 5
    ), good


def _digit(word: Words, place: int) -> Ints:
    digit: Words = (word >> np.uint64(8 * place)) & np.uint64(0xF)
    return digit.astype(np.int64)


def _hours(text: _Block, time: Ints, hour_code: Callable[[bytes, bytes], int]) -> Ints:
    """The code of each line's day, hour and zone; lines in order of time change it rarely."""
    if not len(time):
        return time
    words = [text.words[time], text.words[time + 6], text.words[time + 20]]
    change = np.zeros(len(time), np.bool_)
    change[0] = True
    for word in words:
        change[1:] |= word[1:] != word[:-1]
    at = np.flatnonzero(change)
    raw = [word[at].astype("<u8").tobytes() for word in words]
    codes = np.array(
        [
            hour_code(raw[0][i : i + 8] + raw[1][i + 2 : i + 8], raw[2][i : i + 8])
            for i in range(0, 8 * len(at), 8)
        ],
        np.int64,
    )
    return np.repeat(codes, np.diff(np.append(at, len(time))))


def _request(text: _Block, quote: Ints, closing: Ints) -> tuple[Span, Bools]:
    """``METHOD PATH HTTP/x.y`` of the usual methods and versions, else all after a usual method,
    or all: that is what it counts for, unless there are spaces in it, as a path may hold them.
    """
    word = text.words[quote + 1]
    begin = np.zeros(len(quote), np.int64)
    for method in _METHODS:
        mask = np.uint64((1 << 8 * len(method)) - 1)
        begin += (word & mask == _word(method)) * len(method)
        if begin.all():
            break
    usual = begin > 0
    begin += quote + 1
    protocol = text.words[closing - 8]
    known = protocol == _word(_PROTOCOLS[0])
    for other in _PROTOCOLS[1:]:
        if known.all():
            break
        known |= protocol == _word(other)
    before = closing - 9
    known &= usual & (text.bytes[before] == _SPACE) & (before > begin)
    end = np.where(known, before, closing)
    good = known | ((text.bytes[closing - 1] != _BACKSLASH) & ((end > begin) | ~usual))
    return (begin, end), good


def _status(text: _Block, quote: Ints) -> tuple[Ints, Bools]:
    """`` 200 `` after the request's closing quote."""
    digits = (text.words[quote + 1] ^ _STATUS) & np.uint64((1 << 40) - 1)
    good = ((digits + _STATUS_LIMITS) | digits) & _HIGHS == 0
    return _digit(digits, 1) * 100 + _digit(digits, 2) * 10 + _digit(digits, 3), good


def _number(text: _Block, at: Ints) -> tuple[Ints, Ints, Bools]:
    """A number of up to 12 digits, or ``-``: its value, where it ends, whether it is one."""
    value, length = _digits(text, at)
    long = np.flatnonzero(length == 8)
    good = length > 0
    if len(long):
        near = at[long] + 8 < len(text.words)
        more, further = _digits(text, np.where(near, at[long] + 8, 0))
        value[long] = value[long] * 10**further + more
        length[long] += further
        # Longer ones are odd: a sum over a batch of lines must stay below 2**63.
        good[long] = near & (further < 5)
    dash = (length == 0) & (text.bytes[at] == _DASH)
    length += dash
    return value, at + length, good | dash


def _digits(text: _Block, at: Ints) -> tuple[Ints, Ints]:
    """The number that the digits from `at` on are, and how many they are: 8 at most."""
    word = text.words[at] ^ _ZEROS
    flags = ((word + _NINE) | word) & _HIGHS
    length = np.where(flags == 0, 8, _first_flag(flags))
    # The digits become the last of eight, after zeros; then pairs are joined, thrice.
    word <<= (64 - 8 * np.maximum(length, 1)).astype(np.uint64)
    word = (word & _word(b"\x0f" * 8)) * np.uint64(2561) >> np.uint64(8)
    word = (word & np.uint64(0x00FF00FF00FF00FF)) * np.uint64(6553601) >> np.uint64(16)
    word = (word & np.uint64(0x0000FFFF0000FFFF)) * np.uint64(42949672960001) >> np.uint64(32)
    return np.where(length == 0, 0, word.astype(np.int64)), length


def _quoted_pair(text: _Block, after: Ints, quotes: list[Ints]) -> Bools:
    """`` "REFERRER" "AGENT"`` follows, and no closing quote is shielded by a backslash."""
    _, _, open1, close1, open2, close2 = quotes
    good: Bools = (open1 == after + 1) & (text.bytes[after] == _SPACE)
    good &= (open2 == close1 + 2) & (text.bytes[close1 + 1] == _SPACE)
    good &= (text.bytes[close1 - 1] != _BACKSLASH) & (text.bytes[close2 - 1] != _BACKSLASH)
    return good


def _at_end(text: _Block, after: Ints, end: Ints) -> Bools:
    """The line ends here, or goes on after a space."""
    last = text.bytes[after]
    good: Bools = (last == _SPACE) | (after == end) | ((last == _RETURN) & (after + 1 == end))
    return good
