"""Folders, patterns, URLs and stdin become files; a bad one is named, the rest counted."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from daskexec.cli import cli
from daskexec.logs import Report, analyze
from daskexec.logs.inputs import expand, look
from daskexec.logs.job import plan, run
from daskexec.select import SerialExecutor

HOME = socket.gethostname()
LINE = b'1.1.1.%d - - [17/May/2015:10:05:03 +0000] "GET /%d HTTP/1.1" 200 9 "-" "ua"\n'


def lines(number: int) -> bytes:
    return b"".join(LINE % (n % 9, n) for n in range(number))


def analyze_here(files: list[Any], **options: Any) -> Report:
    with SerialExecutor() as executor:
        return analyze(files, executor, **options)


def logs(*arguments: object, stdin: bytes | None = None) -> Result:
    words = ["logs", "-e", "serial", *map(str, arguments)]
    return CliRunner().invoke(cli, words, input=stdin)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory, with a folder of logs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "logs" / "old").mkdir(parents=True)
    (tmp_path / "logs" / "b.log").write_bytes(lines(2))
    (tmp_path / "logs" / "a.log").write_bytes(lines(1))
    (tmp_path / "logs" / "old" / "c.gz").write_bytes(gzip.compress(lines(4)))
    return tmp_path


# -- names ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("logs", ["logs/a.log", "logs/b.log", "logs/old/c.gz"]),
        ("logs/*.log", ["logs/a.log", "logs/b.log"]),
        ("logs/*", ["logs/a.log", "logs/b.log", "logs/old/c.gz"]),
        ("**/*.gz", ["logs/old/c.gz"]),
        ("logs/**", ["logs/a.log", "logs/b.log", "logs/old/c.gz"]),
        ("logs/[ab].log", ["logs/a.log", "logs/b.log"]),
        ("logs/a.log", ["logs/a.log"]),
        ("gone.log", ["gone.log"]),
        ("-", ["-"]),
    ],
)
def test_what_names_stand_for(folder: Path, name: str, found: list[str]) -> None:
    """Folders stand for all files below them, patterns for what matches: sorted, named as they
    were given, without a problem; a name stands for itself, whether it is there or not."""
    said = expand(name, str(folder), HOME)
    assert list(said.names) == found
    assert said.problems == ()


def test_a_file_that_is_called_like_a_pattern(folder: Path) -> None:
    """Where there is a file of the very name, it is meant."""
    (folder / "logs" / "[ab].log").write_bytes(lines(7))
    assert expand("logs/[ab].log", str(folder), HOME).names == ("logs/[ab].log",)


@pytest.mark.parametrize(("name", "why"), [("*.nothing", "no file matches"), ("d", "no file is")])
def test_names_for_nothing(folder: Path, name: str, why: str) -> None:
    """A pattern that nothing matches, and an empty folder, are problems."""
    (folder / "d").mkdir()
    ((problem, reason),) = expand(name, str(folder), HOME).problems
    assert problem == name
    assert reason.startswith(why)


@pytest.mark.parametrize("name", ["logs", "logs/*", "**/*"])
def test_links_in_a_circle(folder: Path, name: str) -> None:
    """A link to a folder that it lies in ends the way down, and each file is found once; below a
    folder that was named, it is told."""
    (folder / "logs" / "old" / "up").symlink_to("..")
    said = expand(name, str(folder), HOME)
    report = plan([name])
    assert sorted({os.path.realpath(one) for one in said.names}) == sorted(
        str(path) for path in folder.rglob("*.*") if path.is_file()
    )
    assert len(report.files) == 3
    if name == "logs":
        assert said.problems[0][0] == "logs/old/up"
        assert "in which it lies itself: not followed" in said.problems[0][1]


def test_the_same_file_twice_is_counted_once(folder: Path) -> None:
    """A file named twice, or by a link, is counted once, and that is said; a hard link is another
    name with a right of its own."""
    (folder / "link.log").symlink_to("logs/a.log")
    (folder / "hard.log").hardlink_to(folder / "logs" / "a.log")
    todo = plan(["logs", "logs/a.log", "link.log", "hard.log"])
    assert [file.name for file, _ in todo.files][-1] == "hard.log"
    assert len(todo.files) == 4
    assert todo.notes == (
        "logs/a.log was named twice: counted once",
        "link.log is the same file as logs/a.log: counted once",
    )
    result = logs("logs/a.log", "link.log")
    assert result.exit_code == 0
    assert "note: link.log is the same file as logs/a.log: counted once" in result.stderr


def test_several_servers_are_one_report(folder: Path) -> None:
    """Files of a folder, in any compression, make one report."""
    assert analyze_here(["logs"]).requests == 7


def test_errors_of_another_host_name_it(folder: Path) -> None:
    """What a worker on another host cannot see is told with that host and process."""
    place = f"(as host {HOME} sees it, process {os.getpid()})"
    looked = look("gone.log", "auto", 100, 1, "another-host", str(folder))
    assert looked.failure == f"No such file or directory {place}"
    assert expand("gone*", str(folder), "another-host").problems[0][1].endswith(place)


# -- what cannot be read ----------------------------------------------------------------------


def test_bad_files_among_good_ones(folder: Path) -> None:
    """Long lines and binary ones are counted, an empty file too; what cannot be read is named
    with its reason, the rest reported, and the exit status is 1."""
    long = LINE.replace(b'"ua"', b'"' + b"x" * 200_000 + b'"') % (1, 1)
    (folder / "logs" / "long.log").write_bytes(long * 3)
    (folder / "logs" / "binary.log").write_bytes(
        lines(9) + os.urandom(50).replace(b"\n", b"") + b"\n"
    )
    (folder / "logs" / "empty.log").touch()
    (folder / "logs" / "noise.bin").write_bytes(bytes(range(256)) * 40)
    (folder / "logs" / "cut.gz").write_bytes(gzip.compress(lines(20_000))[:-9])
    (folder / "logs" / "broken.log").symlink_to("nowhere")
    (folder / "logs" / "old" / "up").symlink_to("../../logs")
    os.mkfifo(folder / "logs" / "pipe")
    result = logs("--json", "--part-size", "50kB", "logs")
    assert result.exit_code == 1
    for name, reason in {
        "noise.bin": "not a log in the format",
        "cut.gz": "truncated",
        "broken.log": "No such file or directory: it is a link to nowhere",
        "old/up": "not followed",
        "pipe": "not a regular file",
    }.items():
        (said,) = (s for s in result.stderr.splitlines() if f"Error: logs/{name}: " in s)
        assert reason in said
    report = json.loads(result.stdout)
    assert report["totals"]["requests"] == 7 + 3 + 9
    assert report["totals"]["malformed"] == 1
    assert len(report["files"]) == 6
    assert len(report["failed"]) == 5


def test_a_file_that_shrinks_while_it_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file cut short between the plan and its last part is named, nothing of it is counted,
    and the others are."""
    from daskexec.logs import counting

    shrinking = folder / "logs" / "b.log"
    shrinking.write_bytes(lines(1_000))
    count = counting.count_part

    def shrink(tally: Any, home: str, part: Any, form: str) -> Any:
        if part.path == str(shrinking) and part.start > 30_000:
            os.truncate(shrinking, 20_000)
        return count(tally, home, part, form)

    monkeypatch.setattr(counting, "count_part", shrink)
    result = logs("--json", "--part-size", "10kB", "logs")
    assert result.exit_code == 1
    assert "Error: logs/b.log: the file became shorter while it was read" in result.stderr
    assert json.loads(result.stdout)["totals"]["requests"] == 5


# -- URLs -------------------------------------------------------------------------------------


@pytest.fixture
def remote() -> Iterator[Any]:
    """A file system of fsspec that is in this process."""
    fsspec = pytest.importorskip("fsspec")
    system = fsspec.filesystem("memory")
    system.pipe("/logs/a.log", lines(1_000))
    system.pipe("/logs/b.gz", gzip.compress(lines(500)))
    yield system
    system.rm("/logs", recursive=True)


@pytest.mark.parametrize("names", [["memory://logs/*"], ["memory:///logs/"]])
def test_urls(remote: Any, names: list[str]) -> None:
    """URLs are read by fsspec, in ranges too; patterns and folders stand for what is there."""
    report = analyze_here(names, part_size=10_000)
    assert report.requests == 1_500
    assert [file.name for file in report.files] == ["memory:///logs/a.log", "memory:///logs/b.gz"]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("memory://nothing/here.log", "No such file"),
        ("memory://nothing/*", "nothing is there"),
        ("nonsense://x/y.log", "nonsense"),
    ],
)
def test_bad_urls_are_named(remote: Any, url: str, reason: str) -> None:
    """A URL that leads nowhere, or that fsspec does not know, fails alone."""
    report = analyze_here([url, "memory://logs/a.log"])
    assert report.requests == 1_000
    assert report.failed[0].name == url
    assert reason in report.failed[0].reason


@pytest.mark.parametrize("name", ["a.log", "b.gz"])
def test_a_server_that_tells_no_size(
    remote: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """What a server sends without saying how long it is, is read from its start, in one call; the
    progress says that the whole is not known."""
    from fsspec.implementations.memory import MemoryFileSystem

    class OneWay(io.RawIOBase):
        size = None

        def __init__(self, content: bytes) -> None:
            self._rest = io.BytesIO(content)

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            return self._rest.readinto(buffer)

        def seekable(self) -> bool:
            return True  # as fsspec's streams of HTTP say

        def seek(self, where: int, whence: int = 0) -> int:
            raise ValueError("cannot seek")

    monkeypatch.setattr(
        MemoryFileSystem, "open", lambda self, path, mode: OneWay(self.cat_file(path))
    )
    todo = plan([f"memory://logs/{name}"], part_size=1_000)
    told: list[tuple[int, int]] = []
    with SerialExecutor() as executor:
        report = run(todo, executor, progress=lambda *how: told.append(how))
    assert len(todo.files[0][1]) == 1
    assert report.requests == {"a.log": 1_000, "b.gz": 500}[name]
    assert {total for _, total in told} == {0}


def test_what_a_library_raises_is_a_reason(remote: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that only the library behind a URL knows fails that file alone."""
    from fsspec.implementations.memory import MemoryFile

    class ServerSaysNo(Exception):
        pass

    todo = plan(["memory://logs/a.log"])

    def read(self: Any, size: int = -1) -> bytes:
        raise ServerSaysNo("503")

    monkeypatch.setattr(MemoryFile, "read", read)
    with SerialExecutor() as executor:
        report = run(todo, executor)
    assert [failed.reason for failed in report.failed] == ["ServerSaysNo: 503"]


# -- stdin ------------------------------------------------------------------------------------


def compressors() -> dict[str, Callable[[bytes], bytes]]:
    return {"plain": bytes, "gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress}


@pytest.mark.parametrize("how", sorted(compressors()))
def test_stdin(folder: Path, how: str) -> None:
    """`-` is stdin, plain or compressed, cut into parts as it comes, beside files."""
    sent = compressors()[how](lines(8_000))
    result = logs("--json", "--part-size", "100kB", "-", "logs", stdin=sent)
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["totals"]["requests"] == 8_007
    found = {"name": "-", "format": "combined", "lines": 8_000, "malformed": 0}
    assert report["files"][0] == found


def test_stdin_is_counted_as_a_file_is(folder: Path) -> None:
    """Malformed lines of stdin have the numbers that they have in a file."""
    content = lines(3_000) + b"bad\n" + lines(9_000) + b"worse"
    (folder / "file").write_bytes(content)
    piped = json.loads(logs("--json", "--part-size", "64kB", "-", stdin=content).stdout)
    read = json.loads(logs("--json", "file").stdout)
    for report in (piped, read):
        del report["files"]
        for sample in report["malformed_samples"]:
            del sample["file"]
    assert piped == read
    assert [s["line"] for s in read["malformed_samples"]] == [3_001, 12_002]


@pytest.mark.parametrize(
    ("sent", "said"),
    [(gzip.compress(lines(50_000))[:-9], "Error: -: truncated"), (b"no\n", "Error: -: not a log")],
)
def test_bad_stdin(folder: Path, sent: bytes, said: str) -> None:
    """stdin that is no log, or ends too early, is named; files are reported all the same."""
    result = logs("--json", "--part-size", "100kB", "-", "logs/b.log", stdin=sent)
    assert result.exit_code == 1
    assert said in result.stderr
    assert json.loads(result.stdout)["totals"]["requests"] == 2


def test_stdin_is_read_no_faster_than_it_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more of stdin is held in calls than was said, however much comes."""
    from daskexec.logs import counting

    content = lines(20_000)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    monkeypatch.setattr(counting, "_HELD", 200_000)
    held: list[int] = []

    class Watching(counting.PartCounter):
        def _submit(self, *args: Any) -> None:
            held.append(self._held)
            super()._submit(*args)

    monkeypatch.setattr("daskexec.logs.job.PartCounter", Watching)
    from concurrent.futures import ThreadPoolExecutor

    todo = plan(["-"], part_size=50_000)
    with ThreadPoolExecutor(1) as executor:
        report = run(todo, executor)
    assert report.requests == 20_000
    assert len(held) > 8
    assert max(held) <= 200_000 + 100_000
