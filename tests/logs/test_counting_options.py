"""The options that say what is counted and how, from the command line to the report."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from daskexec_testing.reference_log import read_line, split_lines

from daskexec.cli import cli
from daskexec.logs import analyze, tally
from daskexec.logs.selection import select
from daskexec.logs.tally import Counting, arrow_installed
from daskexec.select import SerialExecutor

LINE = b'%b - - [%d/May/2015:10:05:03 +0000] "GET %b HTTP/1.1" %d 7 "-" "%b"\n'


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lines of several days, clients, paths, answers and agents; two are malformed."""
    path = tmp_path_factory.mktemp("options") / "access.log"
    lines = [
        LINE % (client, day, target, status, agent)
        for client in (b"1.2.3.4", b"1.2.3.5", b"10.9.8.7")
        for day in (16, 17, 18)
        for target in (b"/a?x=1", b"/a?x=2", b"/b/c.html")
        for status in (200, 404, 503)
        for agent in (b"ua", b"somebot/1.0")
    ]
    path.write_bytes(b"".join([*lines, b"bad\n", b"1.2.3.4 bad\n"]))
    return path


def report(log: Path, *options: str) -> dict[str, Any]:
    result = CliRunner().invoke(cli, ["logs", "-e", "serial", "--json", *options, str(log)])
    assert result.exit_code == 0, result.stderr
    said: dict[str, Any] = json.loads(result.stdout)
    return said


def test_what_is_filtered_is_told_apart(log: Path) -> None:
    """The filters together leave what fits them all; the rest is excluded, not malformed."""
    found = report(
        log, "--since", "2015-05-17", "--until", "2015-05-17", "--status", "4xx,503",
        "--path", "/a*", "--exclude-ip", "10.0.0.0/8", "--no-crawlers", "--no-query",
    )  # fmt: skip
    lines = [line for text in split_lines(log.read_bytes()) if (line := read_line(text))]
    wanted = [
        line
        for line in lines
        if line.time[:2] == b"17" and line.status in (b"404", b"503") and line.path[:2] == b"/a"
        and line.client[:2] == b"1." and line.agent == b"ua"
    ]  # fmt: skip
    totals = found["totals"]
    assert (totals["lines"], totals["malformed"]) == (len(lines) + 2, 2)
    assert totals["requests"] == len(wanted) == 8
    assert found["excluded"] == len(lines) - 8
    assert found["top"]["paths"] == [{"key": "/a", "hits": 8}]


def test_addresses_are_hidden_everywhere(log: Path) -> None:
    """With --anonymize-ip no whole address is in the report, and neighbours are one client."""
    found = report(log, "--anonymize-ip")
    assert found["totals"]["clients"] == 2
    assert "1.2.3.4" not in json.dumps(found)
    assert found["malformed_samples"][1]["text"] == "1.2.3.0 bad"


@pytest.mark.skipif(not arrow_installed(), reason="numpy or pyarrow is missing")
def test_engines_say_the_same(log: Path) -> None:
    """The report of either engine is the same, and a bound that is not reached changes none."""
    wanted = report(log, "--engine", "stdlib")
    assert report(log, "--engine", "arrow") == report(log, "--max-keys", "1000") == wanted


@pytest.mark.skipif(not arrow_installed(), reason="numpy or pyarrow is missing")
def test_engines_say_the_same_of_real_logs(real_logs: Path) -> None:
    """On real logs the report of either engine is the same to the byte."""
    names = [
        str(real_logs / name) for name in ("elastic_apache_10k.log", "nasa_aug95_excerpt.log")
    ]
    with SerialExecutor() as executor:
        reports = [
            analyze(names, executor, part_size=300_000, counting=Counting(engine=engine)).to_json()
            for engine in ("stdlib", "arrow")
        ]
    assert reports[0] == reports[1]


@pytest.mark.parametrize(
    ("pattern", "path", "counts"),
    [
        ("/a*", b"/a/b/c", True),
        ("/a", b"/a/b", False),
        ("/caf\u00e9?", "/caf\u00e9s".encode(), True),
        ("/[ab].html", b"/b.html", True),
        ("*", b"\xff\r\x00", True),
        ("/A", b"/a", False),
    ],
)
def test_patterns_of_paths(pattern: str, path: bytes, counts: bool) -> None:
    """A pattern must fit the whole path, in its bytes; a star crosses slashes."""
    told = select(path=pattern).path_filter()
    assert told is not None
    assert told(path) is counts


def test_a_format_string_from_the_command_line(log: Path) -> None:
    """--format takes a server's format string; the report names it."""
    spec = '%h %l %u %t "%r" %>s %b "%{Referer}i" "%{User-Agent}i" '
    found = report(log, "--format", spec.rstrip())
    assert found["files"][0]["format"] == "combined"
    found = report(log, "--format", '%h %l %u %t "%m %U%q %H" %>s')
    assert found["files"][0]["format"] == '%h %l %u %t "%m %U%q %H" %>s'
    assert found["totals"]["requests"] == 162


def test_without_numpy_and_pyarrow(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the fast engine's packages are missing, auto takes the other, and asking for the
    fast one is a usage error that says what to install."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setattr(tally, "arrow_installed", lambda: False)
    assert report(log)["totals"]["requests"] == 162
    result = CliRunner().invoke(cli, ["logs", "-e", "serial", "--engine", "arrow", str(log)])
    assert result.exit_code == 2
    assert "pip install 'daskexec[logs]'" in result.stderr
