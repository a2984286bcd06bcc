"""The made-up log: what its generator expects is what a report on it says."""

from __future__ import annotations

import gzip
import importlib.util
import json
import sys
from collections import Counter
from pathlib import Path

import pytest

from daskexec.logs import analyze
from daskexec.logs.agents import identify
from daskexec.logs.demo import DemoLog, differences, lines_for, make_log, write_demo
from daskexec.select import SerialExecutor

FORMATS = ("common", "combined", "vhost_combined")


def zstd_is_there() -> bool:
    return sys.version_info >= (3, 14) or importlib.util.find_spec("zstandard") is not None


@pytest.mark.parametrize("seed", range(1, 6))
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("ending", ["", "gz", "zst"])
def test_every_number_is_the_generators(tmp_path: Path, seed: int, form: str, ending: str) -> None:
    """In each format, plain and compressed, cut into ranges down to a kilobyte, the report
    says to the last number what the generator decided."""
    if ending == "zst" and not zstd_is_there():
        pytest.skip("nothing is installed that writes and reads zstd")
    demo = write_demo(tmp_path, seed=seed, lines=600, top=15, format=form, compressions=[ending])
    with SerialExecutor() as executor:
        for part_size in (64 << 20, 10_000, 1_000):
            report = analyze([demo.paths[ending]], executor, part_size=part_size, top=15)
            assert report.failed == ()
            assert [file.format for file in report.files] == [form]
            assert differences(demo, report) == []
    assert json.loads(Path(demo.expected).read_text()) == demo.expectation


@pytest.mark.parametrize("form", FORMATS)
def test_logs_made_in_many_pieces(tmp_path: Path, form: str) -> None:
    """A busy hour is made in several pieces: nothing is lost between them, and the times go up."""
    log = DemoLog(9, 15_000, form)
    # As if the log were much larger.
    original = log._spans
    log._spans = lambda: (  # type: ignore[method-assign]
        piece
        for start, seconds, number in original()
        for piece in (
            (start, seconds // 2, number // 2),
            (start.replace(minute=30), seconds // 2, number - number // 2),
        )
        if piece[2]
    )
    content = b"".join(log)
    assert content.count(b"\n") == log.lines - 1
    assert len(content) == log.size
    path = tmp_path / "access.log"
    path.write_bytes(content)
    with SerialExecutor() as executor:
        said = analyze([path], executor).to_dict()
    wanted = log.expectation()
    assert said["totals"] == wanted["totals"]
    assert said["hours"] == wanted["hours"]


def test_a_difference_is_noticed(tmp_path: Path) -> None:
    """A report over something else does not pass for the made-up log's."""
    demo = write_demo(tmp_path, lines=300, format="vhost_combined")
    with SerialExecutor() as executor:
        found = {line.split(":")[0] for line in differences(demo, analyze([], executor))}
    sections = set(demo.expectation) - {"top"}
    assert found == sections | {f"top {name}" for name in demo.expectation["top"]}


def test_a_seed_gives_one_log(tmp_path: Path) -> None:
    """The same seed gives the same bytes, compressed too; another one others."""
    assert make_log(3, 200) == make_log(3, 200)
    assert make_log(3, 200)[0] != make_log(4, 200)[0]
    one, two = (write_demo(tmp_path / name, lines=200) for name in ("one", "two"))
    assert Path(one.gzip).read_bytes() == Path(two.gzip).read_bytes()
    assert gzip.decompress(Path(one.gzip).read_bytes()) == Path(one.plain).read_bytes()


def test_it_is_like_a_real_log() -> None:
    """Few paths have most of the hits, nights are quiet, there are crawlers and attackers, and
    all the oddities that real logs have."""
    content, wanted = make_log(1, 20_000, top=1_000)
    paths = [row["hits"] for row in wanted["top"]["paths"]]
    assert sum(paths[: len(paths) // 10]) > sum(paths) / 2
    by_hour = Counter[str]()
    for hour, number in wanted["hours"].items():
        by_hour[hour[-2:]] += number
    assert by_hour["12"] > 8 * by_hour["03"]
    assert 20 < wanted["totals"]["malformed"] < 200
    assert len(wanted["top"]["crawlers"]) == 4
    assert {"/wp-login.php", "/.env"} < {row["key"] for row in wanted["top"]["not_found"]}
    for oddity in (b"\r\n", b"\x00", b"\xff", b'\\"', b"\\x16", b"jane doe", b"2001:db8", b"\n\n"):
        assert oddity in content, oddity


@pytest.mark.parametrize("form", FORMATS)
def test_a_size_is_met(form: str) -> None:
    """A log of about the size that is asked for."""
    lines = lines_for(4_000_000, form, seed=2)
    size = len(make_log(2, lines, format=form)[0])
    assert size == pytest.approx(4_000_000, rel=0.03)


def test_lengths_at_the_edge() -> None:
    """No line, one line, and two."""
    assert make_log(1, 0)[0] == b""
    assert b"\n" not in make_log(1, 1)[0].removesuffix(b"\n")
    assert make_log(1, 2)[0].count(b"\n") == 1


@pytest.mark.parametrize(
    ("agent", "kind"),
    [
        (
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
            "Chrome/136.0.0.0 Safari/537.36 Edg/136.0.0.0",
            ("Edge", "Windows", None),
        ),
        (
            "Mozilla/5.0 (Linux; Android 14; SM-S921B) AppleWebKit/537.36 (KHTML, like Gecko) "
            "SamsungBrowser/25.0 Chrome/121.0.0.0 Mobile Safari/537.36",
            ("Samsung Internet", "Android", None),
        ),
        (
            "Mozilla/5.0 (iPad; CPU OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like "
            "Gecko) CriOS/125.0.6422.80 Mobile/15E148 Safari/604.1",
            ("Chrome", "iOS", None),
        ),
        (
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like "
            "Gecko) Version/17.4 Safari/605.1.15",
            ("Safari", "macOS", None),
        ),
        ("Mozilla/4.0 (compatible; MSIE 8.0; Windows NT)", ("Internet Explorer", "Windows", None)),
        ("Mozilla/5.0 (X11; CrOS x86_64 1) Chrome/120.0 Safari/537", ("Chrome", "ChromeOS", None)),
        ("Mozilla/5.0 (compatible; YandexBot/3.0; yandex.com/bots)", (None, None, "YandexBot")),
        ("msnbot/2.0b (+http://search.msn.com/msnbot.htm)", (None, None, "msnbot")),
        ("Mozilla/5.0 (compatible; SeznamBot/4.0)", (None, None, "SeznamBot")),
        ("Mozilla/5.0 (Windows; U; Windows NT 5.1) CubotPhone", ("other", "Windows", None)),
        ("UniversalFeedParser/4.2", ("other", "other", None)),
        ("-", ("(none given)", "(none given)", None)),
        ("", ("(none given)", "(none given)", None)),
    ],
)  # fmt: skip
def test_agents(agent: str, kind: tuple[str | None, ...]) -> None:
    """Real user agents are told apart by what they claim to be."""
    found = tuple(name and name.decode() for name in identify(agent.encode()))
    assert found == kind
