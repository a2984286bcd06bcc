"""Both engines and a slow, obvious reader agree on every field of every line."""

from __future__ import annotations

import dataclasses
import random
from itertools import pairwise
from typing import Any

import pytest
from daskexec_testing.reference_log import (
    read_line,
    reference_counts,
    reference_tally,
    split_lines,
)
from daskexec_testing.tallies import tally_blocks
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daskexec.logs.formats import FORMATS
from daskexec.logs.selection import Selection, anonymize_address, select
from daskexec.logs.tally import Counting, arrow_installed

ENGINES = [
    "stdlib",
    pytest.param(
        "arrow",
        marks=pytest.mark.skipif(not arrow_installed(), reason="numpy or pyarrow is missing"),
    ),
]
LINES = ("common", "combined", "vhost_common", "vhost_combined")
TIME = b"17/May/2015:10:05:03 +0000"

TEXTS = [
    b"-", b"", b"GET / HTTP/1.1", b"GET /a b HTTP/1.1", b"GET /x", b'\\"', b"\\\\", b"\\x16\\x03",
    b"\x00\x0c\r", b"\xff\xe9", b"http://e.example/?q=1", b'"', b"\\", b" [" + TIME + b'] "',
    b"POST /a?x=1 HTTP/2.0", b"M-SEARCH * HTTP/1.1", b"GET  HTTP/1.1", b"GET /xHTTP/1.1", b"a\\",
    b"a \\", b"DELETE /a HTTP/1.0", b"OPTIONS * HTTP/1.1", b"GET GET / HTTP/1.1", b"GET HTTP/1.1",
    b'" "', b'" 200 5', b'x" 200 5 "', b"get / HTTP/1.1", b"GET /" + b"l" * 300 + b" HTTP/3.0",
    b"GET /x HTTP/1.9", b"GET /x HTTP/2", b"Mozilla/5.0 (X11)", b"GET /\\", b'a"b', b'a" b',
    b'a\\" "b', b'a\\"b', b'\\\\"', b'\\\\\\"b', b'a\\\\\\\\"', b'GET /\\"a HTTP/1.1',
    b'GET /a\\\\" HTTP/1.1', b'GET /a\\\\\\"b HTTP/1.1', b'GET /a HTTP/1.1\\" 200 5 "',
]  # fmt: skip
FIELDS: dict[str, list[bytes]] = {
    "host": [b"h.example:80 ", b"www.example:80 ", b"[::1]:443 ", b"a:123456 ", b"www.example ",
             b":80 ", b"a:b:1 ", b"h:x ", b"h: ", b"a b:1 ", b" h:1 "],
    "client": [b"1.2.3.4", b"10.0.0.7", b"::1", b"2001:db8::1", b"host.example", b"\xff", b"",
               b"a b",
               b"::ffff:1.2.3.4", b"x" * 47 + b".", b"x" * 48 + b".", b"1234567", b"1.345678",
               b'"', b'1.1\\"1.1', b'\\"',
               b" 1.1.1.1", b"1.1.1.1 -", b"x", b"localhost", b"x" * 30 + b" y",
               b"x" * 20 + b".y"],
    "user": [b"- -", b"- jane", b"- jane doe", b"- ", b"- a [b] c", b'- "', b"-", b"x -", b"-x -",
             b"- - [" + TIME + b"]", b'- a\\"b', b'- \\\\"', b"- [" + TIME + b'] \\"GET / '],
    "time": [TIME, b"17/May/2015:10:05:03 -0730", b"01/Jan/1999:00:00:00 +1400",
             b"31/Feb/2015:23:59:60 +0000", b"32/May/2015:10:05:03 +0000",
             b"17/Foo/2015:10:05:03 +0000",
             b"17/May/2015:24:05:03 +0000", b"", b"-", b"17/May/0015:10:05:03 +0000",
             b"17/May/2015 10:05:03 +0000", b"17/May/2015:10:05:70 +0000",
             b"17/May/2015:10:60:03 +0000",
             b"17/May/2015:10:05:69 +0001", b"17/May/2015:10:0\xba:03 +0000",
             b"17/May/2015:10:05:03  0000", b"17/May/2015:10:05:03 +00x0",
             b"17/May/2015:10:05:03+00000",
             b"17/May/2015:10.05:03 +0000", b"17/May/2015:1a:05:03 +0000",
             b"17/May/2015:10:05:0/ +0000"],
    "request": [b"GET /a?x=1 HTTP/1.1", *TEXTS],
    "status": [b"404", b"200", b"304", b"500", b"20", b"OK", b"2000", b"2\xba0", b"20/", b"-",
               b""],
    "sent": [b"512", b"0", b"-", b"12345678", b"1" * 12, b"1" * 13, b"9" * 16, b"007", b"1" * 20,
             b"1" * 21, b"", b"5x", b"--", b"\xb1", b"-5", b"12345678x", b"1 "],
    "referrer": [b"-", *TEXTS],
    "agent": [b"ua", *TEXTS],
    "end": [b"", b"\r", b' "more" 1', b"x", b"\r\r", b" \r", b'"', b"\rx", b" "],
}  # fmt: skip
"""Of each field a plain value, and odd ones."""


def written(f: dict[str, bytes], form: str) -> bytes:
    """A line of these values."""
    line = b'%b %b [%b] "%b" %b %b' % (
        f["client"], f["user"], f["time"], f["request"], f["status"], f["sent"],
    )  # fmt: skip
    if form.endswith("combined"):
        line += b' "%b" "%b"' % (f["referrer"], f["agent"])
    return f["host"] * form.startswith("vhost") + line + f["end"]


@st.composite
def log_lines(draw: st.DrawFn) -> bytes:
    """A line with a few odd fields, of any format, perhaps damaged or cut off."""
    odd = draw(st.lists(st.sampled_from([*FIELDS]), max_size=2, unique=True))
    values = {name: choice[0] for name, choice in FIELDS.items()}
    for name in odd:
        any_text = st.binary(max_size=12).map(lambda b: b.replace(b"\n", b""))
        values[name] = draw(st.one_of(st.sampled_from(FIELDS[name]), any_text))
    line = written(values, draw(st.sampled_from(LINES)))
    if draw(st.booleans()):
        at = draw(st.integers(0, min(len(line) - 1, 400)))
        damage = draw(st.sampled_from([b"", b'"', b" ", b"\\", b"[", b"\xbb"]))
        line = line[:at] + damage + line[at + 1 :]
    return line[: draw(st.integers(0, 300))] if draw(st.integers(0, 9)) == 0 else line


contents = st.builds(
    lambda lines, end: b"\n".join(lines) + end,
    st.lists(st.one_of(log_lines(), st.just(b"")), max_size=12),
    st.sampled_from([b"", b"\n"]),
)


def said(content: bytes, form: str, counting: Counting) -> dict[str, Any]:
    """What the tally of some lines says, but for what is not counted from lines."""
    tally = tally_blocks([content] if content else [], FORMATS[form], 0, counting)
    fields = {f.name: getattr(tally, f.name) for f in dataclasses.fields(tally)}
    assert not fields.pop("lost")
    assert not fields.pop("sketches")
    assert not fields.pop("max_keys")
    assert fields.pop("arrays") is None
    return fields


def agrees(content: bytes, form: str, engine: str) -> None:
    wanted = {**reference_tally(content, form), "excluded": 0}
    assert said(content, form, Counting(engine=engine)) == wanted


@pytest.mark.parametrize("form", LINES)
@pytest.mark.parametrize("engine", ENGINES)
def test_every_odd_value_of_every_field(form: str, engine: str) -> None:
    """Each line with one odd field is read alike, and so is each with two beside each other."""
    plain = {name: choice[0] for name, choice in FIELDS.items()}
    lines = []
    for (one, ones), (two, twos) in pairwise(FIELDS.items()):
        # The request with the status, and so on: all pairs of a value with one of the next.
        lines += [
            written({**plain, one: a, two: b}, form) for a in ones for b in (twos[0], *twos[::3])
        ]
    lines += [written({**plain, name: b}, form) for name, choice in FIELDS.items() for b in choice]
    content = b""
    around = written(plain, form) + b"\n"
    for n, line in enumerate(dict.fromkeys(lines)):
        content += line + b"\n" + around
        if n % 500 == 499:
            agrees(content, form, engine)
            content = b""
    agrees(content[:-1], form, engine)


@pytest.mark.parametrize("form", LINES)
@pytest.mark.parametrize("engine", ENGINES)
@settings(deadline=None, max_examples=80, suppress_health_check=list(HealthCheck))
@given(content=contents)
def test_every_field_of_every_line(form: str, engine: str, content: bytes) -> None:
    """On any lines each table of either engine is that of the slow reader."""
    plain = written({name: choice[0] for name, choice in FIELDS.items()}, form) + b"\n"
    # So many plain lines that the block is not given to the strict expression as a whole.
    agrees(plain * 13 + content, form, engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_long_lines_and_large_numbers(engine: str) -> None:
    """Lines longer than a block's parts are read, and sums beyond 2**53 are exact."""
    line = b'1.2.3.4 - - [%b] "GET /%d HTTP/1.1" 200 %d "-" "%b"\n'
    content = b"".join(
        line % (TIME, n % 3, 999_999_999_999 - n, b"a" * (n % 1_000 * 200 * (n < 1_000)))
        for n in range(990, 11_000)
    )
    agrees(content, "combined", engine)


@pytest.mark.skipif(not arrow_installed(), reason="numpy or pyarrow is missing")
def test_random_damage_to_a_long_log() -> None:
    """On a log of many blocks, a hundredth of whose bytes is replaced by others, both
    engines say the same, line for line."""
    dice = random.Random(7)
    lines = [
        b'%d.0.%d.1 - - [17/May/2015:%02d:%02d:03 +0000] "GET /%d HTTP/1.1" %d %d "r/%d" "a%d"\n'
        % (
            n % 7,
            n % 251,
            n // 999 % 24,
            n % 60,
            n % 97,
            200 + n % 5,
            n * 37 % 10**8,
            n % 9,
            n % 5,
        )
        for n in range(20_000)
    ]
    content = bytearray(b"".join(lines))
    for _ in range(len(content) // 100):
        content[dice.randrange(len(content))] = dice.choice(b'\x00 "\\[]:\n\r-5a\xff')
    text = bytes(content)
    cut = [text.rfind(b"\n", 0, k) + 1 for k in range(0, len(text), 150_000)] + [len(text)]
    blocks = [text[a:b] for a, b in pairwise(cut) if b > a]
    for form in ("common", "combined"):
        tallies = [
            tally_blocks(blocks, FORMATS[form], 3, Counting(engine=engine, samples=100))
            for engine in ("stdlib", "arrow")
        ]
        assert tallies[0] == tallies[1]
        assert 0 < tallies[0].requests < sum(tallies[0].lines.values())


SELECTIONS = [
    select(status="404,5xx"),
    select(since="2015-05-17T10:05:03", until="2015-05-17"),
    select(since="2015-05-17T17:35:03Z"),
    select(until="2015-05-18T11:30+00:00"),
    select(path=["/a*", "/"]),
    select(path="/a", no_query=True),
    select(exclude_ip=["10.0.0.0/8", "2001:db8::/32", "1.2.3.4"]),
    select(no_crawlers=True),
    select(anonymize_ip=True, no_query=True, exclude_ip="10.0.0.7"),
]


def counts(selection: Selection, line: Any) -> bool:
    """Whether a line counts, by the words of the options."""
    options = SELECTIONS.index(selection)
    path = line.path.split(b"?")[0] if selection.no_query else line.path
    local = line.time[:20]
    if options == 0:
        return line.status == b"404" or line.status[:1] == b"5"
    if options == 1:
        return local[:11] == b"17/May/2015" and local[12:] >= b"10:05:03"
    if options == 2:
        return line.moment.isoformat() >= "2015-05-17T17:35:03"
    if options == 3:
        return line.moment.isoformat() < "2015-05-18T11:31:00"
    if options == 4:
        return path[:2] == b"/a" or path == b"/"
    if options == 5:
        return path == b"/a"
    if options == 6:
        excluded = line.client.startswith((b"10.", b"2001:db8:")), line.client.endswith(b"1.2.3.4")
        return not any(excluded)
    if options == 7:
        return b"bot" not in line.agent and b"http://" not in line.agent
    return line.client != b"10.0.0.7"


@pytest.mark.parametrize("selection", SELECTIONS, ids=range(len(SELECTIONS)))
@pytest.mark.parametrize("engine", ENGINES)
def test_selections(engine: str, selection: Selection) -> None:
    """Filters, hidden queries and addresses, on lines of every kind: only what counts is
    counted, the rest is told as excluded, and a filter makes no line malformed."""
    times_ = [TIME, b"17/May/2015:10:05:02 +0000", b"17/May/2015:10:05:03 -0730",
              b"18/May/2015:11:30:59 +0000", b"18/May/2015:13:31:00 +0200"]  # fmt: skip
    lines = [
        b'%b - - [%b] "%b" %b 5 "-" "%b"' % (client, time, request, status, agent)
        for client in (
            b"1.2.3.4",
            b"10.0.0.7",
            b"2001:db8:1::9:3",
            b"::ffff:1.2.3.4",
            b"h.example",
        )
        for time in times_
        for request in (b"GET / HTTP/1.1", b"GET /a?x=1 HTTP/1.1", b"HEAD /a b HTTP/1.0", b"-")
        for status, agent in (
            (b"200", b"x"),
            (b"404", b"Googlebot/2.1"),
            (b"503", b"(+http://c/)"),
        )
    ]
    lines[5] += b"\r"
    content = b"\n".join([*lines, b"bad from 1.2.3.4", b"bad from h.x"])
    good = [line for text in split_lines(content) if (line := read_line(text))]
    chosen = [line for line in good if counts(selection, line)]
    assert 0 < len(chosen) < len(good)
    if selection.no_query:
        for line in chosen:
            line.request = line.request.replace(b"?x=1", b"")
    if selection.anonymize:
        for line in chosen:
            line.client = {
                b"1.2.3.4": b"1.2.3.0", b"::ffff:1.2.3.4": b"1.2.3.0",
                b"2001:db8:1::9:3": b"2001:db8:1::",
            }.get(line.client, line.client)  # fmt: skip
    found = said(content, "combined", Counting(selection, engine))
    samples = [text for _, _, text, _ in found.pop("samples")]
    hidden = b"1.2.3.0" if selection.anonymize else b"1.2.3.4"
    assert samples == [b"bad from " + hidden, b"bad from h.x"]
    wanted = reference_counts(chosen)
    wanted |= {"lines": {0: len(good) + 2}, "misfits": {0: 2}, "excluded": len(good) - len(chosen)}
    assert found == wanted


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        (b"192.0.2.77", b"192.0.2.0"),
        (b"2001:db8:1:2:3:4:5:6", b"2001:db8:1::"),
        (b"::1", b"::"),
        (b"host.example", b"host.example"),
        (b"-", b"-"),
        (b"1.2.3.4.5", b"1.2.3.4.5"),
        (b"\xff", b"\xff"),
    ],
)
def test_anonymous_addresses(address: bytes, shown: bytes) -> None:
    """IPv4 loses its last byte, IPv6 its last 80 bits, all else stays."""
    assert anonymize_address(address) == shown


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"since": "yesterday"}, "since"),
        ({"until": "2015-02-31"}, "until"),
        ({"since": "2015-05-18", "until": "2015-05-17"}, "later"),
        ({"status": "4x"}, "status"),
        ({"status": "OK"}, "5xx"),
        ({"exclude_ip": "10.0.0.0/33"}, "exclude-ip"),
        ({"exclude_ip": "host.example"}, "10.0.0.0/8"),
    ],
)
def test_wrong_options_are_told(options: dict[str, str], word: str) -> None:
    """An option that cannot be understood is named, with what it may be."""
    with pytest.raises(ValueError, match=word):
        select(**options)  # type: ignore[arg-type]
