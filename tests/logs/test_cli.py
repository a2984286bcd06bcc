"""The command line: what is on stdout, what on stderr, and the exit status."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

import daskexec
from daskexec.cli import cli
from daskexec.logs import analyze
from daskexec.logs.demo import write_demo
from daskexec.logs.render import render
from daskexec.logs.words import human_bytes
from daskexec.select import SerialExecutor

ROOT = Path(__file__).parents[2]


def call(*arguments: object, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in arguments], env=env)


def logs(*arguments: object, env: dict[str, str] | None = None) -> Result:
    return call("logs", "-e", "serial", *arguments, env=env)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory):
    return write_demo(tmp_path_factory.mktemp("cli"), seed=5, lines=2_000)


def test_version() -> None:
    """``--version`` says the version of the package."""
    assert daskexec.__version__ in call("--version").stdout


def test_a_report_on_stdout_the_rest_on_stderr(made) -> None:
    """The report alone is on stdout; format, lines and speed are told on stderr."""
    result = logs(made.plain, made.gzip)
    assert result.exit_code == 0
    assert "Paths by hits" in result.stdout
    assert "4,000" in result.stdout
    assert "format combined: access.log, access.log.gz" in result.stderr
    assert "SerialExecutor" in result.stderr
    assert "format combined:" not in result.stdout


def test_json_is_alone_on_stdout(made) -> None:
    """With --json stdout is one JSON document, the library's own."""
    result = logs("--json", "--top", 3, made.plain)
    assert result.exit_code == 0
    with SerialExecutor() as executor:
        assert result.stdout == analyze([made.plain], executor, top=3).to_json()
    assert len(json.loads(result.stdout)["top"]["paths"]) == 3


def test_failed_files_are_named_and_the_others_reported(made, tmp_path: Path) -> None:
    """A missing file, one that is no log, a truncated one: each named, exit status 1, and
    the good one is reported."""
    text = tmp_path / "notes.txt"
    text.write_text("one\ntwo\n")
    cut = tmp_path / "cut.log.gz"
    cut.write_bytes(Path(made.gzip).read_bytes()[:-100])
    result = logs("--json", tmp_path / "gone.log", text, cut, made.plain)
    assert result.exit_code == 1
    assert f"Error: {tmp_path / 'gone.log'}: No such file or directory" in result.stderr
    assert f"Error: {text}: not a log" in result.stderr
    assert "line 1 is: one" in result.stderr
    assert f"Error: {cut}: truncated" in result.stderr
    said = json.loads(result.stdout)
    assert said["totals"]["lines"] == made.lines
    assert len(said["failed"]) == 3


def test_a_file_found_truncated_by_a_worker_is_named(tmp_path: Path) -> None:
    """A compressed file whose first lines are fine but whose end is missing is named too."""
    line = b'%d.1.1.1 - - [17/May/2015:10:05:03 +0000] "GET /%d HTTP/1.1" 200 9 "-" "-"\n'
    path = tmp_path / "late.gz"
    path.write_bytes(gzip.compress(b"".join(line % (n % 200, n) for n in range(30_000)))[:-9])
    result = logs(path)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert f"Error: {path}: truncated" in result.stderr


@pytest.fixture
def no_superuser() -> Iterator[None]:
    """Root may read every file: be somebody else meanwhile."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.usefixtures("no_superuser")
def test_an_unreadable_file_is_named() -> None:
    """A file without permission to read it is named, exit status 1."""
    tmp_path = Path(tempfile.mkdtemp())
    path = tmp_path / "secret"
    path.write_bytes(b"x\n")
    path.chmod(0)
    result = logs(path)
    assert result.exit_code == 1
    assert "Permission denied" in result.stderr
    path.unlink()
    tmp_path.rmdir()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "daskexec logs --demo"),
        (("--demo", "x.log"), "either"),
        (("-e", "thread", "x.log"), "Did you mean 'threads'"),
        (("-e", "tcp://nowhere", "x.log"), "no complete address"),
        (("-w", "0", "x.log"), "--workers"),
        (("--format", "xml", "x.log"), "--format"),
        (("--format", "%h %Z", "x.log"), "character 4"),
        (("--status", "40x", "x.log"), "5xx"),
        (("--since", "today", "x.log"), "2015-05-17"),
        (("--exclude-ip", "lan", "x.log"), "10.0.0.0/8"),
        (("--max-keys", "0", "x.log"), "--max-keys"),
        (("--part-size", "many", "x.log"), "64MiB"),
        (("--top", "0", "x.log"), "--top"),
    ],
)
def test_usage_errors(arguments: tuple[str, ...], said: str) -> None:
    """Wrong usage is told with what is wrong, exit status 2, nothing on stdout."""
    result = call("logs", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stdout == ""


def test_a_wrong_environment_is_a_usage_error() -> None:
    """A wrong DASKEXEC_EXECUTOR is told as such before anything starts."""
    result = call("logs", "x.log", env={"DASKEXEC_EXECUTOR": "nonsense"})
    assert result.exit_code == 2
    assert "DASKEXEC_EXECUTOR" in result.stderr


def test_the_environment_chooses_the_executor(made) -> None:
    """Without --executor, DASKEXEC_EXECUTOR decides."""
    result = call("logs", made.plain, env={"DASKEXEC_EXECUTOR": "threads"})
    assert result.exit_code == 0
    assert "ThreadPoolExecutor" in result.stderr


@pytest.mark.parametrize("size", ["1000", "1k", "1KiB", "1.5kB", "64MiB"])
def test_part_sizes(made, size: str) -> None:
    """Sizes with and without units are understood and do not change the report."""
    assert (
        logs("--json", "--part-size", size, made.plain).stdout == logs("--json", made.plain).stdout
    )


def test_the_demo_checks_itself() -> None:
    """--demo reports on a made-up log, checks it, and leaves nothing behind."""
    result = logs("--demo", "--json")
    assert result.exit_code == 0
    assert "checked" in result.stderr
    log = Path(result.stderr.split(" lines in ")[1].split(",")[0])
    assert log.name == "access.log"
    assert not log.parent.exists()


def test_the_demo_keeps_its_files_where_asked(tmp_path: Path) -> None:
    """--demo-dir keeps log, compressed log and expectation, and implies --demo."""
    result = logs("--demo-dir", tmp_path / "new")
    assert result.exit_code == 0
    names = {path.name for path in (tmp_path / "new").iterdir()}
    assert names == {"access.log", "access.log.gz", "expected.json"}


def run_with(patch: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, after the lines of `patch`."""
    code = (
        "import os, signal, sys\n"
        "import daskexec.cli, daskexec.logs.job as job\n"
        f"{patch}\n"
        "if __name__ == '__main__':\n"
        f"    sys.argv = {['daskexec', *arguments]!r}\n"
        "    daskexec.cli.main()\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=60
    )


STARTS = ("fork", "forkserver", "spawn")
"""How pools start their processes: the default differs between versions of Python."""

INTERRUPT = """
from daskexec.logs.counting import PartCounter
settle, calls = PartCounter._settle, []
def interrupted(self, future):
    calls.append(settle(self, future))
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGINT)
PartCounter._settle = interrupted
"""


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize(
    ("spec", "start"),
    [("serial", ""), ("threads", ""), *(("processes", start) for start in STARTS)],
)
def test_ctrl_c(made, spec: str, start: str) -> None:
    """Ctrl-C reports on what was counted, marked as partial, and ends with one clear line and
    exit status 130, without a traceback."""
    code = f"import multiprocessing\nmultiprocessing.set_start_method({start!r})\n" * bool(start)
    result = run_with(
        code + INTERRUPT, "logs", "-e", spec, "--part-size", "2k", "--json", made.plain
    )
    assert result.returncode == 130
    said = json.loads(result.stdout)
    assert said["partial"] is True
    assert 0 < said["totals"]["lines"] < made.lines
    assert "report is of what had been counted" in result.stderr
    assert result.stderr.splitlines()[-1] == "Interrupted."
    assert "Traceback" not in result.stderr


def test_a_broken_executor_is_told(made) -> None:
    """When the executor breaks, that is said in one line, exit status 1."""
    patch = "from concurrent.futures import BrokenExecutor\n"
    patch += "def fail(*a, **k): raise BrokenExecutor('a process died')\n"
    patch += "job.tally_part = fail"
    result = run_with(patch, "logs", "-e", "threads", made.plain)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == "Error: the executor broke: a process died"


def test_python_dash_m() -> None:
    """``python -m daskexec`` is the command."""
    result = subprocess.run(
        [sys.executable, "-m", "daskexec", "logs"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=60,
    )
    assert result.returncode == 2
    assert "Usage: daskexec logs" in result.stderr


def test_importing_the_command_line_is_cheap() -> None:
    """Neither rich, nor distributed, nor multiprocessing is imported before it is needed."""
    code = (
        "import sys, daskexec.cli\n"
        "print([m for m in ('rich', 'distributed', 'multiprocessing', 'daskexec.logs')"
        " if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=60,
    )
    assert result.stdout == "[]\n", result.stderr


# -- the report as text ------------------------------------------------------------------------


def rendered(path: str, width: int = 80, encoding: str = "utf-8") -> str:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    with SerialExecutor() as executor:
        render(analyze([path], executor), Console(file=stream, width=width))
    stream.flush()
    return raw.getvalue().decode(encoding)


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_lines_fit_the_width(made, width: int) -> None:
    """No line of the text is wider than the terminal, nor than 120 columns."""
    assert max(map(len, rendered(made.plain, width).splitlines())) <= min(width, 120)


def test_ascii_where_nothing_else_can_be_written(made) -> None:
    """On an ASCII output bars and sparkline are ASCII, and no key breaks it."""
    assert "####" in rendered(made.plain, encoding="ascii")


def test_a_log_cannot_steer_the_terminal(tmp_path: Path) -> None:
    """Control characters and markup in a log are shown, not obeyed."""
    path = tmp_path / "[red]\x1b.log"
    line = b'1.1.1.1 - - [31/Feb/2015:10:05:03 +0000] "GET /[bold]\x1b[31m HTTP/1.1" 404 9 "-" "-"'
    path.write_bytes(line + b"\n\x1b[2J\n")
    text = rendered(str(path))
    assert "\x1b" not in text
    assert "/[bold]\\x1b[31m" in text
    assert "\x1b" not in logs(path, tmp_path / "\x1b[2J").stderr


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (999_999, "1.00 MB"), (12_345_678, "12.3 MB")],
)
def test_human_bytes(number: int, text: str) -> None:
    """Bytes are shown with about three digits, in powers of a thousand."""
    assert human_bytes(number) == text
