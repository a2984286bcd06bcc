"""What is written besides the report: JSON by its schema, CSV, saved tallies, malformed lines."""

from __future__ import annotations

import copy
import csv
import io
import json
import pickle
import re
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import replace
from importlib.resources import files
from itertools import zip_longest
from pathlib import Path
from typing import Any

import jsonschema
import msgpack
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from daskexec.cli import cli
from daskexec.logs import Report, analyze
from daskexec.logs.charts import days_chart, hours_chart, week_grid
from daskexec.logs.demo import Demo, write_demo
from daskexec.logs.formats import FORMATS
from daskexec.logs.malformed import HEAD, explain, write_malformed
from daskexec.logs.saved import merge_saved, save
from daskexec.logs.series import evenly
from daskexec.logs.sheets import SHEETS, safe_cell, write_csv
from daskexec.logs.tally import Counting, Unreadable
from daskexec.select import SerialExecutor


def analyze_here(files: list[Any], **options: Any) -> Report:
    with SerialExecutor() as executor:
        return analyze(files, executor, **options)


def logs(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["logs", "-e", "serial", *map(str, arguments)])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Demo]:
    """Three logs of different formats."""
    return [
        write_demo(tmp_path_factory.mktemp("logs"), seed=seed, lines=1_200, format=form)
        for seed, form in enumerate(("combined", "vhost_combined", "common"), 1)
    ]


# -- JSON ----------------------------------------------------------------------------------------


def strict(schema: Any) -> Any:
    """The schema with nothing allowed that it does not name."""
    if isinstance(schema, dict):
        made = {key: strict(value) for key, value in schema.items()}
        return {**made, "additionalProperties": False} if "properties" in made else made
    return [strict(item) for item in schema] if isinstance(schema, list) else schema


@pytest.fixture(scope="module")
def schema() -> Any:
    return json.loads((files("daskexec.logs") / "assets" / "report.schema.json").read_text())


def test_the_json_is_what_its_schema_says(made: list[Demo], schema: Any, tmp_path: Path) -> None:
    """Every field of the JSON is in the shipped schema, and is as that says; an empty report's
    and one with failed files' too. The command shows the schema."""
    jsonschema.Draft202012Validator.check_schema(schema)
    check = jsonschema.Draft202012Validator(strict(schema)).validate
    report = analyze_here([*(demo.plain for demo in made), tmp_path / "gone\udcff"])
    for one in (report, analyze_here([])):
        check(json.loads(one.to_json()))
    assert json.loads(logs("--json-schema").stdout) == schema


def test_the_schema_refuses_what_is_wrong(made: list[Demo], schema: Any) -> None:
    """A report with a field missing, misspelt or of another type does not pass."""
    good = json.loads(analyze_here([made[0].plain]).to_json())
    check = jsonschema.Draft202012Validator(schema).is_valid
    assert check(good)
    for change in (
        lambda said: said.pop("version"),
        lambda said: said.update(version=2),
        lambda said: said["totals"].update(requests="many"),
        lambda said: said["hours"].update({"yesterday": 3}),
        lambda said: said["top"]["paths"][0].pop("hits"),
        lambda said: said["totals"].update(first="2026-03-02"),
    ):
        wrong = copy.deepcopy(good)
        change(wrong)
        assert not check(wrong)


# -- CSV -----------------------------------------------------------------------------------------


def sheet(report: Report, name: str) -> list[list[str]]:
    text = io.StringIO(newline="")
    write_csv(report, name, text)
    return list(csv.reader(io.StringIO(text.getvalue(), newline="")))


def test_csv_has_the_rows_of_the_report(made: list[Demo]) -> None:
    """Each table reads back as what the report says."""
    report = analyze_here([demo.plain for demo in made], top=5)
    said = report.to_dict()
    for name in SHEETS:
        head, *rows = sheet(report, name)
        if name in said["top"]:
            unit = "bytes" if name == "paths_by_bytes" else "hits"
            assert head == ["key", unit]
            assert [int(row[1]) for row in rows] == [row[unit] for row in said["top"][name]]
        elif name == "files":
            assert [row[1] for row in rows] == [file.format for file in report.files]
        else:
            assert dict(rows) == {key: str(value) for key, value in said[name].items()}
    with pytest.raises(ValueError, match="there are totals, files"):
        write_csv(report, "path", io.StringIO())


def test_no_cell_is_a_formula(tmp_path: Path) -> None:
    """What a spreadsheet would run is written such that it does not; nothing breaks the rows."""
    agents = [b"=1+1", b"+cmd|' /C calc'!A0", b"-2+3", b"@SUM(A1)", b"\t=1", b"a,b", b"x\ry",
              b'\\"q\\"', b"-", b"ok=1", b"\x00\xff"]  # fmt: skip
    line = b'1.1.1.1 - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 9 "-" "%b"\n'
    path = tmp_path / "access.log"
    path.write_bytes(b"".join(line % agent for agent in agents))
    rows = sheet(analyze_here([path], top=20), "agents")[1:]
    cells = {row[0] for row in rows}
    assert cells == {
        "'=1+1", "'+cmd|' /C calc'!A0", "'-2+3", "'@SUM(A1)", "\\x09=1", "a,b", "x\\x0dy",
        '\\"q\\"', "-", "ok=1", "\\x00\\xff",
    }  # fmt: skip


@settings(deadline=None, max_examples=50)
@given(st.text())
def test_any_cell_is_safe(text: str) -> None:
    """No text begins as a formula does, and what does not is left as it is."""
    safe = safe_cell(text)
    assert safe == "-" or safe[:1] not in tuple("=+-@\t\r")
    assert safe.removeprefix("'") == text.removeprefix("'")


def test_the_command_writes_tables(made: list[Demo], tmp_path: Path) -> None:
    """--csv writes a table to a file, or all of them to a folder."""
    folder = tmp_path / "all"
    result = logs(
        "--csv", "paths", tmp_path / "p.csv", "--csv", "all", folder, "--html",
        tmp_path / "page.html", made[0].plain,
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "p.csv").read_bytes() == (folder / "paths.csv").read_bytes()
    assert {path.stem for path in folder.iterdir()} == set(SHEETS)
    assert (tmp_path / "page.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert f"wrote {folder}" in result.stderr


# -- saved tallies -------------------------------------------------------------------------------


def test_merged_is_all_at_once(made: list[Demo], tmp_path: Path) -> None:
    """The report of saved tallies is to the byte that of all logs at once, failed files and
    malformed lines included, whatever --top was when they were saved."""
    names: list[Any] = [*(demo.plain for demo in made), tmp_path / "gone"]
    for number, name in enumerate(names):
        save(analyze_here([name], top=1), tmp_path / f"{number}.tally")
    save(analyze_here(names[1:3]), tmp_path / "middle.tally")
    for top in (3, 10):
        wanted = analyze_here(names, top=top).to_json()
        for saved in (("0", "1", "2", "3"), ("0", "middle", "3")):
            found = merge_saved([tmp_path / f"{name}.tally" for name in saved], top)
            assert found.to_json() == wanted


def test_saved_again(made: list[Demo], tmp_path: Path) -> None:
    """A merged report can be saved and merged on, and so can one that came by pickle."""
    reports = [analyze_here([demo.plain]) for demo in made]
    for number, report in enumerate(reports):
        save(pickle.loads(pickle.dumps(report)), tmp_path / f"{number}")
    save(merge_saved([tmp_path / "0", tmp_path / "1"]), tmp_path / "01")
    merged = merge_saved([tmp_path / "01", tmp_path / "2"])
    assert merged.to_json() == analyze_here([demo.plain for demo in made]).to_json()
    assert not list(tmp_path.glob("*.part"))


def test_what_is_partial_stays_so(made: list[Demo], tmp_path: Path) -> None:
    """A report of an interrupted job makes all partial that it is merged with."""
    report = analyze_here([made[0].plain])
    save(replace(report, partial=True), tmp_path / "partial")
    save(report, tmp_path / "whole")
    assert merge_saved([tmp_path / "partial", tmp_path / "whole"]).partial
    assert not merge_saved([tmp_path / "whole"]).partial


def test_estimates_are_saved(made: list[Demo], tmp_path: Path) -> None:
    """What was bounded in memory is saved and merged with what that cost."""
    bounded = [
        analyze_here([demo.plain], counting=Counting(max_keys=10, engine="stdlib"))
        for demo in made
    ]
    for number, report in enumerate(bounded):
        save(report, tmp_path / f"{number}")
    merged = merge_saved([tmp_path / f"{number}" for number in range(3)])
    assert merged.inexact["paths"] >= max(report.inexact["paths"] for report in bounded)
    exact = analyze_here([demo.plain for demo in made])
    assert merged.clients == pytest.approx(exact.clients, rel=0.03)
    assert merged.requests == exact.requests


def test_numbers_beyond_64_bits(tmp_path: Path) -> None:
    """Sums that no machine word holds are saved all the same."""
    path = tmp_path / "access.log"
    line = '1.1.1.1 - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 99999999999999999999\n'
    path.write_text(line * 3)
    save(analyze_here([path]), tmp_path / "saved")
    assert merge_saved([tmp_path / "saved"]).bytes_sent == 3 * 99999999999999999999


def broken(good: bytes) -> Iterator[tuple[str, bytes]]:
    yield "no saved tally", b""
    yield "no saved tally", b"1.1.1.1 - - [17/May/2015"
    yield "version 2", good.replace(b"tally 1", b"tally 2")
    yield "damaged or cut off", good[:-30]
    yield "damaged or cut off", good[:40] + bytes(20) + good[60:]
    yield "damaged or cut off", good[:17]


def test_what_is_no_saved_tally_is_named(made: list[Demo], tmp_path: Path) -> None:
    """A file that is something else, newer, cut off or damaged is named with the reason, exit
    status 1; the others are reported."""
    good = tmp_path / "good"
    assert logs("--save", good, made[0].plain).exit_code == 0
    for number, (reason, content) in enumerate(broken(good.read_bytes())):
        bad = tmp_path / f"bad{number}"
        bad.write_bytes(content)
        result = logs("--merge", "--json", bad, good, tmp_path / "gone")
        assert result.exit_code == 1
        assert f"Error: {bad}: " in result.stderr
        assert reason in result.stderr
        assert f"{tmp_path / 'gone'}: No such file" in result.stderr
        assert json.loads(result.stdout)["totals"]["lines"] == made[0].lines


def test_nothing_in_a_saved_tally_is_run(made: list[Demo], tmp_path: Path) -> None:
    """A saved tally with a field missing, added, of a wrong type, or of an extension that is
    not known is refused."""
    import gzip

    path = tmp_path / "saved"
    save(analyze_here([made[0].plain]), path)
    head, packed = path.read_bytes().split(b"\n", 1)
    keep = lambda code, data: msgpack.ExtType(code, data)  # noqa: E731
    content = msgpack.unpackb(gzip.decompress(packed), ext_hook=keep, strict_map_key=False)

    def tally(**changes: Any) -> dict[str, Any]:
        return {**content, "tally": {**content["tally"], **changes}}

    for wrong in (
        [],
        {**content, "tally": {}},
        {**content, "files": 7},
        {**content, "samples": [["a"]]},
        tally(requests="many"),
        tally(paths={}),
        tally(more=1),
        tally(paths=msgpack.ExtType(99, b"")),
        tally(paths=msgpack.ExtType(1, b"\xc1")),
    ):
        path.write_bytes(head + b"\n" + gzip.compress(msgpack.packb(wrong)))
        report = merge_saved([path])
        assert [failed.name for failed in report.failed] == [str(path)]
        assert report.files == ()


# -- malformed lines -----------------------------------------------------------------------------


def listed(report: Report, executor: Executor, **options: Any) -> list[list[str]]:
    text = io.StringIO()
    number = write_malformed(report, executor, text, **options)
    assert text.getvalue().startswith(HEAD)
    rows = [line.split("\t") for line in text.getvalue().splitlines()[1:]]
    assert len(rows) == number
    return rows


@pytest.mark.parametrize("part_size", [64 << 20, 3_000, 150])
def test_all_malformed_lines_are_listed(made: list[Demo], part_size: int) -> None:
    """All of them, with the line numbers of their files, however those are cut."""
    with SerialExecutor() as executor:
        report = analyze([d.plain for d in made], executor)
        rows = listed(report, executor, part_size=part_size)
    wanted = [
        [demo.plain, str(number)]
        for demo, file in zip(made, report.files, strict=True)
        for number, line in enumerate(Path(demo.plain).read_bytes().split(b"\n"), 1)
        if not FORMATS[file.format].fits(line)
    ]
    assert [row[:2] for row in rows] == wanted
    assert len(rows) == report.malformed > 10
    assert all(len(row) == 4 for row in rows)


def test_malformed_lines_of_every_executor(any_executor: Executor, made: list[Demo]) -> None:
    """They are the same from every executor, compressed files included."""
    names = [made[0].plain, made[1].gzip, made[2].plain]
    with SerialExecutor() as executor:
        wanted = listed(analyze_here(names), executor)
    assert listed(analyze_here(names), any_executor, part_size=40_000) == wanted


def test_files_without_such_lines_are_not_read_again(tmp_path: Path) -> None:
    """A file in which every line fits may be gone by then; one with others is named."""
    good, bad = tmp_path / "good", tmp_path / "bad"
    line = '1.1.1.1 - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 9\n'
    good.write_text(line)
    bad.write_text(line + "what?\n")
    report = analyze_here([good, bad])
    good.unlink()
    with SerialExecutor() as executor:
        assert listed(report, executor) == [[str(bad), "2", "at byte 1: no client", "what?"]]
        bad.unlink()
        with pytest.raises(Unreadable, match=f"{re.escape(str(bad))}: No such file"):
            listed(report, executor)


@pytest.mark.parametrize(
    ("line", "form", "reason"),
    [
        ("", "common", "blank line"),
        ("  \r", "common", "blank line"),
        ("1.1.1.1 - -", "common", "no user and time in brackets"),
        ("1.1.1.1 - - [17/Foo/2015:10:05:03 +0000] ", "common", "at byte 13: no time such as"),
        ('[T] GET" 200 1', "common", "at byte 42: no request"),
        ('[T] "GET / 200 1', "common", "at byte 42: no request between quotes"),
        ('[T] "GET /"x 200 1', "common", "at byte 42: no request between quotes"),
        ('[T] "GET /" OK 1', "common", "at byte 49: no status of three digits"),
        ('[T] "GET /" 200', "common", "at byte 49: no status"),
        ('[T] "GET /" 200 1kB', "common", "at byte 53: no number of bytes, or -"),
        ('[T] "GET /" 200 1', "combined", "the line ends: no referrer"),
        ('[T] "GET /" 200 1 "-" "Mozi', "combined", "at byte 59: no user agent between quotes"),
        ('[T] "GET /" 200 1 "-" "-"', "vhost_combined", "at byte 1: no virtual host"),
        ('[T] "GET /" 200', '%h %l %u %t "%r" %>s %b %D', "does not fit the format %h"),
    ],
)
def test_reasons(line: str, form: str, reason: str) -> None:
    """The reason says what is missing, and where."""
    line = line.replace("[T]", "1.1.1.1 - - [17/May/2015:10:05:03 +0000]")
    assert reason in explain(line.encode(), form)


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=60), st.sampled_from([*FORMATS]))
def test_any_line_has_a_reason(line: bytes, form: str) -> None:
    """Whatever a line holds, there is a reason of one line, quickly."""
    assert explain(line, form).isprintable()


def test_long_lines_have_their_reason_at_once() -> None:
    """A line of 200 kB that nearly fits takes no longer than its length."""
    for piece in (b"[", b'"', b"\\", b" ", b"[17/May/2015:10:05:03 +0000] ", b'\\"'):
        for form in ("common", "vhost_combined"):
            assert explain(piece * (200_000 // len(piece)), form)


# -- the command ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--csv", "pages", "x.csv", "x.log"), "no table is called 'pages'; there are all,"),
        (("--html", "/no/where/x.html", "x.log"), "--html: there is no folder /no/where"),
        (("--merge", "--save", "x", "y"), "--save does not go with --merge"),
        (("--merge", "--malformed", "x", "y"), "--malformed does not go with --merge"),
        (("--malformed", "x", "-"), "stdin can be read once only"),
        (("--demo", "--status", "404"), "goes with no filter"),
        (("--demo-size", "much"), "is not a size"),
        (("--merge",), "no log file given"),
    ],
)
def test_usage_errors(arguments: tuple[str, ...], said: str) -> None:
    """What cannot be written is refused before anything is counted, exit status 2."""
    result = logs(*arguments)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())


def test_what_cannot_be_written_is_told(made: list[Demo], tmp_path: Path) -> None:
    """The report is shown, the file named with the reason, exit status 1; nothing is left."""
    for option in ("--html", "--save", "--malformed"):
        name = tmp_path / ("n" * 300)
        result = logs(option, name, made[0].plain)
        assert result.exit_code == 1
        assert "Paths by hits" in result.stdout
        assert f"Error: cannot write {name}: File name too long" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_demo_in_other_sizes_and_formats(tmp_path: Path) -> None:
    """The made-up log comes in the size, the format and the compressions asked for."""
    result = logs(
        "--demo-dir", tmp_path, "--demo-size", "300kB", "--demo-format", "vhost_combined",
        "--demo-seed", 7, "--demo-compression", "xz", "--demo-compression", "plain",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert "in xz and plain" in result.stderr
    assert {path.name for path in tmp_path.iterdir()} == {
        "access.log", "access.log.xz", "expected.json",
    }  # fmt: skip
    assert (tmp_path / "access.log").stat().st_size == pytest.approx(300_000, rel=0.05)


# -- charts --------------------------------------------------------------------------------------


@given(
    st.dictionaries(
        st.datetimes().map(lambda at: f"{max(at.year, 1000)}-{at:%m-%d %H}"),
        st.integers(1, 10**12),
        min_size=1,
        max_size=20,
    ),
    st.integers(1, 400),
)
@settings(deadline=None)
def test_a_series_loses_nothing(hours: dict[str, int], most: int) -> None:
    """However few counts there may be, they sum up to all hits of days that exist."""
    series = evenly(hours, most)
    # The 29th of February of a year that was raised to 1000 may be gone.
    real = {h: n for h, n in hours.items() if evenly({h: n}, 1)}
    assert (series is None) == (not real)
    if series:
        assert sum(series.counts) == sum(real.values())
        assert len(series.counts) <= most
        assert series.counts[0] > 0


def test_charts_keep_to_their_drawing() -> None:
    """Bars, cells, ticks and labels lie inside; the highest bar is below the highest tick."""
    for days in (1, 2, 9, 40, 800):
        hours = {
            f"{2015 + d // 300}-{d % 300 // 28 + 1:02}-{d % 28 + 1:02} {h:02}": (d * 7 + h) % 97
            + 1
            for d in range(days)
            for h in range(24)
        }
        by_day = {h[:10]: n for h, n in hours.items()}
        grid = week_grid(hours)
        assert grid is not None
        assert sum(cell.value for cell in grid.cells) == sum(hours.values())
        for chart in (hours_chart(hours), days_chart(by_day)):
            assert chart is not None
            assert 0 < len(chart.bars) <= 336
            for bar, following in zip_longest(chart.bars, chart.bars[1:]):
                assert bar.x >= chart.left
                assert bar.y >= 0
                assert bar.y + bar.height == pytest.approx(chart.floor, abs=0.02)
                right = following.x if following else chart.width
                assert bar.width > 0
                assert bar.x + bar.width <= right + 0.02
            assert chart.ticks[0][1] == "0"
            assert 2 <= len(chart.ticks) <= 6
            assert all(chart.left <= x <= chart.width for x, _ in chart.marks)
            assert 1 <= len(chart.marks) <= 13
    assert hours_chart({"2015-02-31 10": 5}) is None
    assert days_chart({}) is None
    assert week_grid({}) is None
