"""The best engine there is on odd lines, and merging. `test_agreement` compares engines."""

from __future__ import annotations

import gc
import pickle
import threading
from itertools import pairwise

import pytest
from daskexec_testing.tallies import tally_blocks
from hypothesis import given, settings
from hypothesis import strategies as st

from daskexec.logs.formats import FORMATS, NotALog, choose_format
from daskexec.logs.tally import Tally, merge

TIME = b"17/May/2015:10:05:03 +0000"


texts = st.one_of(
    st.sampled_from(
        [
            b"-", b"", b"GET / HTTP/1.1", b"GET /a b HTTP/1.1", b"GET /x", b'\\"', b"\\\\",
            b"\\x16\\x03", b"\x00\x0c\r", b"\xff\xe9", b"http://e.example/?q=1", b'"', b"\\",
            b" [" + TIME + b'] "', b"POST /a HTTP/2.0", b"M-SEARCH * HTTP/1.1",
        ]
    ),
    st.binary(max_size=12).map(lambda b: b.replace(b"\n", b"")),
)  # fmt: skip
times = st.one_of(
    st.sampled_from(
        [
            TIME, b"17/May/2015:10:05:03 -0730", b"01/Jan/1999:00:00:00 +1400",
            b"31/Feb/2015:23:59:60 +0000", b"32/May/2015:10:05:03 +0000",
            b"17/Foo/2015:10:05:03 +0000", b"17/May/2015:24:05:03 +0000", b"", b"-",
            b"17/May/0015:10:05:03 +0000", b"17/May/2015 10:05:03 +0000",
            b"17/May/2015:10:05:70 +0000",
        ]
    ),
    st.just(TIME),
)  # fmt: skip


@st.composite
def log_lines(draw: st.DrawFn) -> bytes:
    """A combined line, often with something wrong or odd in it."""
    client = draw(st.sampled_from([b"1.2.3.4", b"::1", b"host.example", b"\xff", b"", b"a b"]))
    user = draw(st.sampled_from([b"-", b"-", b"jane", b"jane doe", b"", b"a [b] c", b'"']))
    request, referrer, agent = draw(texts), draw(texts), draw(texts)
    status = draw(st.sampled_from([b"200", b"404", b"304", b"20", b"OK", b"2000"]))
    sent = draw(st.sampled_from([b"512", b"0", b"-", b"", b"1" * 20, b"1" * 21, b"5x"]))
    line = b'%b - %b [%b] "%b" %b %b "%b" "%b"' % (
        client, user, draw(times), request, status, sent, referrer, agent,
    )  # fmt: skip
    line += draw(st.sampled_from([b"", b"", b"\r", b' "more" 1', b"x", b"\r\r"]))
    if draw(st.integers(0, 3)) == 0 and line:
        at = draw(st.integers(0, len(line) - 1))
        line = line[:at] + draw(st.sampled_from([b"", b'"', b" ", b"\\", b"["])) + line[at + 1 :]
    return line


contents = st.builds(
    lambda lines, end: b"\n".join(lines) + end,
    st.lists(st.one_of(log_lines(), st.just(b"")), max_size=12),
    st.sampled_from([b"", b"\n"]),
)


@settings(deadline=None, max_examples=300)
@given(content=contents, cuts=st.lists(st.integers(0, 12), max_size=3), dice=st.randoms())
def test_merging_is_associative_and_commutative(content: bytes, cuts: list[int], dice) -> None:
    """However lines are dealt out to tallies and in whatever order these are merged, the
    sum is the same."""
    form = FORMATS["combined"]
    lines = content.split(b"\n")
    bounds = [0, *sorted(min(c, len(lines)) for c in cuts), len(lines)]
    tallies = []
    for ordinal, (a, b) in enumerate(pairwise(bounds)):
        blocks = [b"".join(line + b"\n" for line in lines[a:b])] if b > a else []
        tallies.append(pickle.dumps(tally_blocks(blocks, form, ordinal)))

    def total(order: list[bytes]) -> Tally:
        parts = [pickle.loads(t) for t in order]
        while len(parts) > 1:
            at = dice.randrange(len(parts) - 1)
            parts[at : at + 2] = [merge(parts[at], parts[at + 1])]
        return parts[0]

    wanted = total(tallies)
    dice.shuffle(tallies)
    assert total(tallies) == wanted


def one(line: bytes, name: str = "combined") -> Tally:
    """The tally of a single line, which must fit."""
    tally = tally_blocks([line], FORMATS[name])
    assert tally.requests == 1, tally.samples
    return tally


def combined(
    client: bytes = b"1.2.3.4",
    user: bytes = b"-",
    request: bytes = b"GET / HTTP/1.1",
    status: bytes = b"200",
    sent: bytes = b"5",
    referrer: bytes = b"-",
    agent: bytes = b"ua",
) -> bytes:
    return b'%b - %b [%b] "%b" %b %b "%b" "%b"' % (
        client, user, TIME, request, status, sent, referrer, agent,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("request_line", "path"),
    [
        (b"GET /a?b=c HTTP/1.1", b"/a?b=c"),
        (b"GET /old", b"/old"),
        (b"GET http://e.example/ HTTP/V1.0", b"http://e.example/"),
        (b"-", b"-"),
        (b"", b""),
        (b"GET /a b HTTP/1.1", b"GET /a b HTTP/1.1"),
        (b"\\x16\\x03\\x01", b"\\x16\\x03\\x01"),
        (b"\x00\xff\r\x0c", b"\x00\xff\r\x0c"),
        (b'GET /\\"q\\" HTTP/1.1', b'/\\"q\\"'),
        (b"/ HTTP/1.1", b"/ HTTP/1.1"),
    ],
)
def test_the_path_of_a_request(request_line: bytes, path: bytes) -> None:
    """The path is the target; a request of another form counts under its whole text."""
    assert one(combined(request=request_line)).paths == {path: 1}


@pytest.mark.parametrize("client", [b"2001:db8::1", b"host.example", b"1.2.3.4", b"::1", b"-"])
def test_clients_of_any_kind(client: bytes) -> None:
    """Addresses of both kinds and host names are clients."""
    assert one(combined(client=client)).clients == {client: 1}


@pytest.mark.parametrize("user", [b"jane doe", b"", b"a [b] c", b'""', b"\xe9\x00"])
def test_user_names_of_any_kind(user: bytes) -> None:
    """A user name may hold spaces and brackets, be empty, and be no UTF-8."""
    assert one(combined(user=user)).clients == {b"1.2.3.4": 1}


def test_bytes_that_are_a_dash_count_as_zero() -> None:
    """``-`` for bytes is a hit of 0 bytes."""
    tally = one(combined(sent=b"-"))
    assert (tally.bytes_sent, tally.path_bytes, tally.requests) == (0, {}, 1)


def test_crlf_is_a_line_end() -> None:
    """A carriage return before the newline is no part of the last field."""
    assert tally_blocks([combined() + b"\r\n"], FORMATS["combined"]).agents == {b"ua": 1}


def test_more_fields_are_accepted() -> None:
    """Fields after the last one of the format are ignored."""
    assert one(combined() + b' "x.example" 0.004 -').agents == {b"ua": 1}


@pytest.mark.timeout(60)  # hours, if going back and forth
@pytest.mark.parametrize("filler", [b"a", b"\\x16", b'\\"', b" ", b"] "])
def test_long_lines(filler: bytes) -> None:
    """A line of 200 kB is read like any other, and refused as fast if it does not fit."""
    agent = filler * (200_000 // len(filler))
    assert one(combined(agent=agent)).agents == {agent: 1}
    tally = tally_blocks([combined(agent=agent)[:-1]], FORMATS["combined"])
    assert tally.requests == 0
    assert tally.samples[0][3] == len(combined(agent=agent)) - 1
    assert len(tally.samples[0][2]) == 400


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "piece", [b" [" + TIME + b'] "', b" [" + TIME + b'] "x', b'"\\', b" [", b'" 200 5 "']
)
def test_hostile_lines_take_linear_time(piece: bytes) -> None:
    """No line of 200 kB makes the matcher go back and forth over it for long."""
    line = b"a b" + piece * (200_000 // len(piece))
    assert tally_blocks([line], FORMATS["combined"]).requests == 0


def test_blank_lines_are_malformed() -> None:
    """A blank line is a line, and does not fit."""
    tally = tally_blocks([b"\n" + combined() + b"\n\r\n\n"], FORMATS["combined"])
    assert (tally.lines, tally.requests) == ({0: 4}, 1)
    assert [number for _, number, _, _ in tally.samples] == [1, 3, 4]


def test_first_and_last_go_by_the_moment() -> None:
    """Earliest and latest are told by the moment, not by the text, over all zones."""
    stamps = [
        b"01/Aug/1995:00:00:01 -0400",  # 04:00:01 UTC
        b"01/Aug/1995:05:00:00 +0100",  # 04:00:00 UTC, the first
        b"31/Jul/1995:23:00:00 -1200",  # 11:00:00 UTC, the last
        b"01/Aug/1995:10:59:59 +0000",
    ]
    lines = [combined().replace(TIME, stamp) + b"\n" for stamp in stamps]
    for blocks in ([b"".join(lines)], lines, lines[::-1]):
        tally = tally_blocks(blocks, FORMATS["combined"])
        assert tally.first is not None
        assert tally.last is not None
        assert (tally.first[1], tally.last[1]) == (stamps[1], stamps[2])


def test_a_leap_second_is_in_its_hour() -> None:
    """The second 60, or more, of a last minute may be the latest moment of all."""
    stamps = [b"31/Dec/2016:23:59:60 +0000", b"31/Dec/2016:23:59:59 +0000"]
    lines = [combined().replace(TIME, stamp) + b"\n" for stamp in stamps]
    tally = tally_blocks(lines, FORMATS["combined"])
    assert tally.last is not None
    assert tally.last[1] == stamps[0]


def test_the_collector_is_back_on_afterwards(tmp_path) -> None:
    """Parts in several threads leave the cyclic garbage collector as they found it."""
    from daskexec.logs.split import cut
    from daskexec.logs.tally import tally_part

    path = tmp_path / "a.log"
    path.write_bytes((combined() + b"\n") * 2000)
    (part,) = cut(str(path))
    threads = [threading.Thread(target=tally_part, args=(part, "combined")) for _ in range(8)]
    assert gc.isenabled()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert gc.isenabled()


VHOST = b"www.example:443 " + combined()
COMMON = b'1.2.3.4 - - [%b] "GET / HTTP/1.0" 200 5' % TIME


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (VHOST, "vhost_combined"),
        (combined(), "combined"),
        (COMMON, "common"),
        (combined(client=b"::1", user=b"jane doe"), "combined"),
        (COMMON + b" 0.02", "common"),
    ],
)
def test_the_format_is_told_from_the_lines(line: bytes, name: str) -> None:
    """The most telling format that fits is chosen, and its fields are right."""
    assert choose_format([b"", line]).name == name
    assert one(line, name).clients == {line.split(b" ")[name == "vhost_combined"]: 1}


def test_some_odd_first_lines_do_not_change_the_format() -> None:
    """A format need fit only half of the first lines; an empty file fits."""
    assert choose_format([b"x", combined(), combined(), COMMON]).name == "combined"
    assert choose_format([]).name == "combined"


@pytest.mark.parametrize("wanted", ["auto", "common"])
def test_what_is_no_log_is_refused(wanted: str) -> None:
    """The refusal shows the first line that does not fit, and its number."""
    with pytest.raises(NotALog, match=r"line 2 is: \[section\]"):
        choose_format([b"", b"[section]", b"key = value"], wanted)
