"""Formats by name, by a server's format string, and as JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest
from daskexec_testing.reference_log import reference_tally
from daskexec_testing.tallies import tally_blocks

from daskexec.logs.formats import FORMATS, NotALog, choose_format, find_format
from daskexec.logs.tally import Counting, Tally

TIME = b"17/May/2015:10:05:03 +0000"
COMBINED = b'1.2.3.4 - jane [%b] "GET /a?b=c HTTP/1.1" 404 512 "http://r/" "ua"' % TIME

NGINX = (
    '$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent '
    '"$http_referer" "$http_user_agent"'
)


def one(line: bytes, spec: str) -> Tally:
    """The tally of a single line, which must fit."""
    form = find_format(spec)
    assert form.fits(line)
    tally = tally_blocks([line + b"\n"], form)
    assert tally.requests == 1, tally.samples
    return tally


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("combined", "combined"),
        ("COMBINED", "combined"),
        ("VCOMBINED", "vhost_combined"),
        ("VCOMMON", "vhost_common"),
        ("COMMON", "common"),
        ("CADDY", "json"),
        ('%h %l %u %t "%r" %>s %b "%{Referer}i" "%{User-Agent}i"', "combined"),
        ('%h %l %u %t \\"%r\\" %>s %b', "common"),
        ('LogFormat "%h %l %u %t \\"%r\\" %>s %b" common', "common"),
        (NGINX, "combined"),
        (f"log_format main '{NGINX[:60]}'\n    '{NGINX[60:]}';", "combined"),
    ],
)
def test_names_and_strings_of_known_formats(text: str, name: str) -> None:
    """A format is known by its name in any case, GoAccess' name, or its servers' strings."""
    assert find_format(text) is FORMATS[name]


CUSTOM = [
    (NGINX + ' "$http_x_forwarded_for"', COMBINED + b' "9.9.9.9"'),
    (
        "$http_host|$remote_addr|$time_iso8601|$request|$status|$bytes_sent|$http_user_agent|"
        "$http_referer|$request_time",
        b"h.example|1.2.3.4|2015-05-17T10:05:03+00:00|GET /a?b=c HTTP/1.1|404|512|ua|http://r/|0.1",
    ),
    (
        '%{%Y-%m-%dT%H:%M:%S%z}t %a %m %U%q %>s %B %D "%{User-agent}i" "%{referer}i" %{X-Id}i',
        b'2015-05-17T10:05:03+0000 1.2.3.4 GET /a?b=c 404 512 88 "ua" "http://r/" 7',
    ),
    (
        '%v %h %l %u %t "%!200r" %>s %O "%{Referer}i" "%{User-Agent}i" %%',
        b"h.example " + COMBINED + b" %",
    ),
    ("${remote_addr} $msec $request_uri $status", b"1.2.3.4 1431857103.250 /a?b=c 404"),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "line"), CUSTOM)
def test_format_strings(spec: str, line: bytes) -> None:
    """The fields are found wherever the string puts them, and mean the same."""
    tally = one(line, spec)
    assert tally.clients == {b"1.2.3.4": 1}
    assert tally.paths == tally.not_found == {b"/a?b=c": 1}
    assert tally.hours == {b"17/May/2015:10": 1}
    assert tally.first is not None
    assert tally.first[1] == TIME
    assert tally.statuses == {b"404": 1}
    if "bytes" in spec or "%" in spec:
        assert tally.bytes_sent == 512
        assert (tally.agents, tally.referrers) == ({b"ua": 1}, {b"http://r/": 1})
    if "host" in spec or "%v" in spec:
        assert tally.hosts == {b"h.example": 1}
    for cut in (
        line[:-20],
        b"",
        line.replace(b"404", b"4O4"),
        line.replace(b"2015", b"15").replace(b"1431", b"x"),
    ):
        assert not find_format(spec).fits(cut)
    # The name gives the same format on a worker.
    assert find_format(find_format(spec).name) == find_format(spec)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("%h %l %Z", r"character 7, at '%Z': %Z is no directive.*%>s"),
        ('%h%u %t "%r" %>s', "character 3.*nothing between %h and %u"),
        ('%h %{%c}t "%r" %>s', "%{%c}t.*%FT%T%z"),
        ('%h %t "%r"', r"lacks the status \(%>s, \$status\)"),
        ("$remote_addr $request $status", "lacks the time"),
        ("$remote_addr $time_local $ $status", "character 26.*no variable"),
        ("combind", "Did you mean combined"),
        ("", "no log format"),
    ],
)
def test_wrong_formats_are_told(text: str, said: str) -> None:
    """A wrong name or string is refused with the place and what may stand there."""
    with pytest.raises(ValueError, match=said):
        find_format(text)


@pytest.mark.timeout(60)  # hours, if going back and forth
@pytest.mark.parametrize(
    "spec", ['%h %l %u %t "%r" %>s %b %{Cookie}i', CUSTOM[1][0], CUSTOM[2][0]]
)
def test_hostile_lines_take_linear_time(spec: str) -> None:
    """No line of 200 kB makes the matcher of a format string go back and forth for long."""
    form = find_format(spec)
    for piece in (b"a ", b"a|", b" [" + TIME + b'] "', b'"\\', b'" 200 5 "'):
        assert not form.fits(b"a - " + piece * (200_000 // len(piece)) + b"\x00")


def caddy(**more: Any) -> dict[str, Any]:
    asked = {
        "remote_ip": "1.2.3.4", "proto": "HTTP/2.0", "method": "GET", "host": "h.example",
        "uri": "/a?b=c", "headers": {"User-Agent": ["ua"], "Referer": ["http://r/"]},
    }  # fmt: skip
    return {"ts": 1431857103.25, "request": asked, "status": 404, "size": 512, **more}


FLAT = {
    "remote_addr": "1.2.3.4", "time_local": TIME.decode(), "request": "GET /a?b=c HTTP/1.1",
    "status": "404", "body_bytes_sent": "512", "http_referer": "http://r/",
    "http_user_agent": "ua", "host": "h.example",
}  # fmt: skip


@pytest.mark.parametrize(
    "said", [caddy(), FLAT, {**FLAT, "time_local": "2015-05-17T10:05:03Z", "status": 404}]
)
def test_json_lines(said: dict[str, Any]) -> None:
    """Caddy's lines and nginx' are told from their names, and mean what a combined line does."""
    line = json.dumps(said).encode()
    assert choose_format([b"", line]).name == "json"
    found = one(line, "json")
    wanted = reference_tally(COMBINED)
    assert {name: getattr(found, name) for name in wanted} == wanted | {"hosts": {b"h.example": 1}}


@pytest.mark.parametrize(
    "line",
    [
        b"{}", b"[]", b'{"status": 200}', b"{" * 5000 + b"}", json.dumps(caddy(ts="now")).encode(),
        json.dumps(caddy(ts=1e300)).encode(), json.dumps(caddy(status="OK")).encode(),
        json.dumps(caddy(size=None)).encode(), json.dumps(caddy(request="GET /")).encode(),
        json.dumps({**FLAT, "remote_addr": ["1.2.3.4"]}).encode(),
        json.dumps(caddy()).encode()[:-1],
        json.dumps(caddy(ts=True)).encode(),
    ],
)  # fmt: skip
def test_other_json_is_malformed(line: bytes) -> None:
    """JSON that is no request, or not whole, is malformed: counted, never an error."""
    tally = tally_blocks([line + b"\n" + json.dumps(FLAT).encode()], FORMATS["json"])
    assert (tally.lines, tally.requests) == ({0: 2}, 1)
    assert [text for _, _, text, _ in tally.samples] == [line[:400]]


def test_the_first_lines_are_shown() -> None:
    """Where no format fits, the first three lines that do not are shown, and the way out."""
    with pytest.raises(NotALog, match=r"line 2 is: a; line 3 is: b; line 4 is: c; .*--format"):
        choose_format([b"", b"a", b"b", b"c", b"d"])


def test_a_format_that_is_asked_for_must_fit_a_line() -> None:
    """A format string that fits none of the first lines is refused, and named."""
    with pytest.raises(NotALog, match="not a log in the format %h %t"):
        choose_format([COMBINED], "%h %t %r %>s")


def test_no_such_engine() -> None:
    """An engine that there is not is a ValueError that names those that there are."""
    with pytest.raises(ValueError, match="auto, stdlib, arrow"):
        Counting(engine="gpu")
    with pytest.raises(ValueError, match="max_keys"):
        Counting(max_keys=-1)
