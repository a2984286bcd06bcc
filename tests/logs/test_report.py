"""The report: right on real and on made-up logs, and the same from every executor."""

from __future__ import annotations

import gzip
import json
import pickle
import tempfile
from collections import Counter
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskexec.logs import Report, analyze, decode_key
from daskexec.logs.demo import differences, write_demo
from daskexec.logs.job import plan, run
from daskexec.logs.keys import encode_key, show_key
from daskexec.select import SerialExecutor

LINE = b'%b - - [17/May/2015:%02d:05:03 +0000] "GET %b HTTP/1.1" %d %d "-" "ua"\n'


def analyze_here(files: list[Any], **options: Any) -> Report:
    with SerialExecutor() as executor:
        return analyze(files, executor, **options)


# -- real logs, counted a second time with nothing but split --------------------------------


def count_by_splitting(paths: list[Path], top: int = 10) -> dict[str, Any]:
    """Count well-behaved real logs at spaces and quotes, the way one would by hand."""
    lines = malformed = sent = 0
    tables = {
        name: Counter[str]()
        for name in ("paths", "paths_by_bytes", "not_found", "clients", "referrers", "agents")
    }
    statuses, hours, days = Counter[str](), Counter[str](), Counter[str]()
    visitors, moments = set(), []
    for path in paths:
        for line in path.read_bytes().decode("latin-1").split("\n")[:-1]:
            lines += 1
            if line.count('"') % 2:
                malformed += 1
                continue
            pieces = line.split('"')
            client = pieces[0].split(" ")[0]
            moment = datetime.strptime(
                pieces[0][pieces[0].index("[") + 1 : pieces[0].index("]")], "%d/%b/%Y:%H:%M:%S %z"
            )
            status, size = pieces[2].split()
            target = pieces[1].split(" ")[1]
            agent = pieces[5] if len(pieces) > 3 else ""
            tables["paths"][target] += 1
            tables["clients"][client] += 1
            if status == "404":
                tables["not_found"][target] += 1
            if len(pieces) > 3:
                tables["agents"][agent] += 1
                if pieces[3] != "-":
                    tables["referrers"][pieces[3]] += 1
            if size not in ("-", "0"):
                tables["paths_by_bytes"][target] += int(size)
                sent += int(size)
            statuses[status] += 1
            hours[moment.strftime("%Y-%m-%d %H")] += 1
            days[moment.strftime("%Y-%m-%d")] += 1
            visitors.add((client, agent, moment.date()))
            moments.append(moment)
    return {
        "totals": {
            "lines": lines,
            "requests": lines - malformed,
            "malformed": malformed,
            "bytes": sent,
            "clients": len(tables["clients"]),
            "visitors": len(visitors),
            "first": min(moments).isoformat(),
            "last": max(moments).isoformat(),
        },
        "statuses": dict(statuses),
        "hours": dict(hours),
        "days": dict(days),
        "top": {
            name: [
                (key.encode("latin-1"), n)
                for key, n in sorted(table.items(), key=lambda kv: (-kv[1], kv[0]))[:top]
            ]
            for name, table in tables.items()
        },
    }


@pytest.mark.parametrize("part_size", [64 << 20, 100_000, 7_001])
@pytest.mark.parametrize(
    "names",
    [
        ["elastic_apache_10k.log"],
        ["nasa_aug95_excerpt.log"],
        ["elastic_apache_10k.log", "nasa_aug95_excerpt.log"],
    ],
)
def test_real_logs_number_for_number(real_logs: Path, names: list[str], part_size: int) -> None:
    """On real logs every number is that of an independent count, however they are cut."""
    paths = [real_logs / name for name in names]
    said = analyze_here(paths, part_size=part_size, top=50).to_dict()
    wanted = count_by_splitting(paths, top=50)
    for section in ("totals", "statuses", "hours", "days"):
        assert said[section] == wanted[section]
    for name, rows in wanted["top"].items():
        found = [(decode_key(r["key"]), r.get("hits", r.get("bytes"))) for r in said["top"][name]]
        assert found == rows, name


def test_real_logs_malformed_line(real_logs: Path) -> None:
    """The one bad line of the real logs is named by file and line number."""
    report = analyze_here([real_logs / "elastic_apache_10k.log"], part_size=50_000)
    assert [sample.number for sample in report.samples] == [8899]
    assert report.samples[0].text.endswith(b"http://www.google.com/bot.html")


# -- every executor, every split ------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return write_demo(tmp_path_factory.mktemp("demo"), seed=11, lines=4_000)


@pytest.mark.parametrize("part_size", [64 << 20, 50_001])
def test_every_executor_gives_the_same_bytes(any_executor, made, part_size: int) -> None:
    """The JSON is the same to the byte from every executor and every split."""
    files = [made.plain, made.gzip]
    wanted = analyze_here(files).to_json()
    assert analyze(files, any_executor, part_size=part_size).to_json() == wanted


def test_real_logs_on_every_executor(any_executor: Executor, real_logs: Path) -> None:
    """The JSON over real logs is the same to the byte from every executor."""
    files = sorted(real_logs.glob("*.log"))
    assert (
        analyze(files, any_executor, part_size=99_991).to_json() == analyze_here(files).to_json()
    )


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32), lines=st.integers(0, 60), part_size=st.integers(30, 3_000))
def test_any_demo_any_split(seed: int, lines: int, part_size: int) -> None:
    """Small made-up logs of any seed and length are counted right in parts of any size."""
    with tempfile.TemporaryDirectory() as folder, SerialExecutor() as executor:
        demo = write_demo(folder, seed=seed, lines=lines)
        todo = plan([demo.plain], format="combined", part_size=part_size)
        if todo.failed:  # a log of nothing but malformed lines is refused
            assert demo.expectation["totals"]["requests"] == 0
        else:
            assert differences(demo, run(todo, executor)) == []


# -- files that cannot be counted -----------------------------------------------------------


def test_others_are_counted_when_a_file_fails(tmp_path: Path, any_executor: Executor) -> None:
    """Missing, foreign and truncated files are named with a reason, and nothing of them is
    counted; the others are."""
    good, text, cut = (tmp_path / name for name in ("good.log", "text", "cut.gz"))
    good.write_bytes(LINE % (b"1.1.1.1", 10, b"/", 200, 7) * 3)
    text.write_bytes(b"just\nsome text\n")
    # Enough that the first lines can be read, and the end is found missing by the worker.
    many = b"".join(LINE % (b"2.2.2.%d" % n, n % 24, b"/%d" % n, 200, n) for n in range(30_000))
    cut.write_bytes(gzip.compress(many)[:-20])
    report = analyze([tmp_path / "gone", good, text, cut], any_executor)
    assert [file.name for file in report.files] == [str(good)]
    assert report.requests == 3
    reasons = {Path(f.name).name: f.reason for f in report.failed}
    assert list(reasons) == ["gone", "text", "cut.gz"]
    assert "No such file" in reasons["gone"]
    assert "line 1 is: just" in reasons["text"]
    assert "truncated" in reasons["cut.gz"]


def test_a_file_that_goes_meanwhile_fails_alone(tmp_path: Path) -> None:
    """A file deleted between plan and run is named, and the others are counted."""
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(LINE % (b"1.1.1.1", 10, b"/", 200, 7) * 3)
    todo = plan([tmp_path / "a", tmp_path / "b"], part_size=20)
    (tmp_path / "a").unlink()
    with SerialExecutor() as executor:
        report = run(todo, executor)
    assert [Path(f.name).name for f in report.failed] == ["a"]
    assert report.requests == 3


def test_empty_files_are_counted_as_empty(tmp_path: Path) -> None:
    """An empty file is a log without lines; no files at all give an empty report."""
    (tmp_path / "empty").touch()
    report = analyze_here([tmp_path / "empty"])
    assert (report.lines, report.requests, report.first, report.failed) == (0, 0, None, ())
    assert analyze_here([]).lines == 0


@pytest.mark.parametrize("options", [{"format": "apache"}, {"part_size": 0}])
def test_impossible_options_are_refused(options: dict[str, Any]) -> None:
    """An unknown format and parts of no size are a ValueError, even without files."""
    with pytest.raises(ValueError, match=r"format|part_size"):
        analyze_here([], **options)


# -- how the job uses an executor -----------------------------------------------------------


class Watched(ThreadPoolExecutor):
    """Notes how many calls were pending at most."""

    pending = most = 0

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future = super().submit(fn, *args, **kwargs)
        self.pending += 1
        self.most = max(self.most, self.pending)
        return future


def test_only_so_many_calls_are_pending(made) -> None:
    """No more calls are handed over at a time than the window holds."""
    todo = plan([made.plain], part_size=5_000)
    with Watched(2) as executor:

        def progress(done: int, size: int) -> None:
            if done:
                executor.pending -= 1

        report = run(todo, executor, window=4, progress=progress)
    assert executor.most <= 4
    assert report.lines == made.lines


def test_an_interrupted_call_ends_the_job(made, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Ctrl-C that hits a call in the caller's own thread is raised before the next call."""
    calls: list[Any] = []

    def interrupted(part: Any, *_: Any) -> None:
        calls.append(part)
        raise KeyboardInterrupt

    monkeypatch.setattr("daskexec.logs.job.tally_part", interrupted)
    with pytest.raises(KeyboardInterrupt):
        analyze_here([made.plain], part_size=1_000)
    assert len(calls) == 1


def test_progress_ends_at_the_whole(made) -> None:
    """Progress starts at 0, never goes back, and ends at the size of all files."""
    seen: list[tuple[int, int]] = []
    analyze_here([made.plain, made.gzip], part_size=9_999, progress=lambda *a: seen.append(a))
    size = sum(Path(p).stat().st_size for p in (made.plain, made.gzip))
    assert seen[0] == (0, size)
    assert seen[-1] == (size, size)
    assert seen == sorted(seen)


# -- ties, samples, keys --------------------------------------------------------------------


def test_ties_are_broken_by_the_key(tmp_path: Path) -> None:
    """Equal counts come in the order of their bytes, whatever the order in the file."""
    path = tmp_path / "a.log"
    for order in ([b"/b", b"/a", b"/\xff", b"/B"], [b"/\xff", b"/B", b"/a", b"/b"]):
        path.write_bytes(b"".join(LINE % (b"1.1.1.1", 1, p, 404, 9) for p in order))
        report = analyze_here([path], top=3)
        assert report.top["paths"] == [(b"/B", 1), (b"/a", 1), (b"/b", 1)]
        assert report.top["not_found"] == report.top["paths"]
        assert [key for key, _ in report.top["paths_by_bytes"]] == [b"/B", b"/a", b"/b"]


def test_samples_have_the_line_numbers_of_the_file(tmp_path: Path) -> None:
    """However a file is cut, malformed lines are numbered from its beginning; the first ten
    over all files are kept."""
    path = tmp_path / "a.log"
    lines = [
        LINE % (b"1.1.1.1", 1, b"/", 200, 1) if n % 7 else b"bad %d\n" % n for n in range(100)
    ]
    path.write_bytes(b"".join(lines))
    (tmp_path / "b.log").hardlink_to(path)  # another name, another log
    wanted = [n + 1 for n in range(0, 100, 7)]
    for part_size in (1, 64, 1_000, 1 << 20):
        report = analyze_here([path, tmp_path / "b.log"], part_size=part_size)
        assert report.malformed == 2 * len(wanted)
        assert [sample.number for sample in report.samples] == wanted[:10]


@given(st.binary())
def test_keys_come_back(key: bytes) -> None:
    """What JSON says of a key gives back its bytes, and needs no lone surrogates."""
    text = encode_key(key)
    assert decode_key(json.loads(json.dumps(text))) == key
    text.encode("utf-8")


@given(st.binary())
def test_shown_keys_cannot_steer_a_terminal(key: bytes) -> None:
    """What people see of a key is printable throughout."""
    assert show_key(key).isprintable()


def test_reports_pickle(made) -> None:
    """A report can itself be the result of a call in another process."""
    report = analyze_here([made.plain])
    assert pickle.loads(pickle.dumps(report)).to_json() == report.to_json()
