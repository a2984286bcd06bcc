"""What a call writes and logs: kept apart from what others do, and bounded."""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from contextvars import copy_context

import pytest

from daskexec import _capture
from daskexec._capture import Capture, capturing
from daskexec._records import Record
from daskexec.info import CallOutput


@pytest.fixture
def outside(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """Returns what was written by anybody else."""
    return lambda: capsys.readouterr().out


def kept(capture: Capture) -> CallOutput:
    """What comes of it on the other side."""
    output = Record(None, output=capture.pack()).unpacked_output()
    assert output is not None
    return output


def test_text_and_bytes() -> None:
    """What is written as text, as bytes and in lines is there, in order."""
    with capturing() as capture:
        print("one", end="")
        sys.stdout.buffer.write("zw\xf6lf".encode())
        sys.stdout.writelines([" \udcff", "\n"])
        sys.stdout.flush()
    assert kept(capture).stdout == "onezw\xf6lf \\udcff\n"


def test_calls_at_once_do_not_mix(outside: Callable[[], str]) -> None:
    """Two captured calls and one that is not, in one process: each has its own."""
    barrier = threading.Barrier(3, timeout=20)

    def call(name: str) -> None:
        for step in range(3):
            barrier.wait()
            print(name, step)
            logging.getLogger("unit").warning("%s %s", name, step)
        barrier.wait()

    def captured(name: str) -> CallOutput:
        with capturing() as capture:
            call(name)
        return kept(capture)

    with ThreadPoolExecutor(3) as pool:
        outputs = [pool.submit(captured, "a"), pool.submit(captured, "b")]
        pool.submit(call, "c").result(20)
        for name, future in zip("ab", outputs, strict=True):
            lines = [f"{name} {step}" for step in range(3)]
            output = future.result(20)
            assert output.stdout.splitlines() == lines
            assert [record.getMessage() for record in output.records] == lines
    assert outside() == "c 0\nc 1\nc 2\n"


def test_all_is_as_it_was() -> None:
    """After the last captured call nothing of it stands in sys and logging."""
    before = sys.stdout, sys.stderr, logging.getLogRecordFactory()
    with capturing(), capturing():
        assert sys.stdout is not before[0]
    assert (sys.stdout, sys.stderr, logging.getLogRecordFactory()) == before


def test_threads_of_the_call(outside: Callable[[], str]) -> None:
    """A thread that the call starts is the call's; when two run, if it is in its context."""

    def write(text: str, *run: object) -> None:
        thread = threading.Thread(target=print, args=(text,))
        if run:
            thread = threading.Thread(target=copy_context().run, args=(print, text))
        thread.start()
        thread.join(20)

    with capturing() as capture:
        write("alone")
        with ThreadPoolExecutor(1) as pool:
            other = capturing()
            pool.submit(other.__enter__).result(20)
            write("whose?")
            write("mine", True)
            pool.submit(other.__exit__, None, None, None).result(20)
    write("after")
    assert kept(capture).stdout == "alone\nmine\n"
    assert outside() == "whose?\nafter\n"


def test_the_middle_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of very much output the start and the end are kept, and how much is not is said."""
    monkeypatch.setattr(_capture, "HALF", 100)
    monkeypatch.setattr(_capture, "RECORDS", 3)
    with capturing() as capture:
        for i in range(100):
            print(f"{i:04d}", end="")
            logging.getLogger("unit").warning("%d", i)
        print("x" * 1000, file=sys.stderr, end="")
    output = kept(capture)
    assert output.stdout.startswith("".join(f"{i:04d}" for i in range(25)) + "\n[")
    assert output.stdout.endswith("]\n" + "".join(f"{i:04d}" for i in range(75, 100)))
    assert "200 bytes" in output.stdout
    assert "800 bytes" in output.stderr
    assert [record.getMessage() for record in output.records] == ["0", "1", "2", "97", "98", "99"]
    assert output.dropped == 200 + 800 + 94


class Odd:
    def __repr__(self) -> str:
        raise ValueError("no repr")


def test_records_hold_plain_values() -> None:
    """Message and traceback are text, as they were; what a record holds loads anywhere."""
    values = [1]
    logger = logging.Logger("unit")  # apart: pytest's handler raises what it cannot format
    logger.addHandler(logging.NullHandler())
    with capturing() as capture:
        try:
            raise KeyError("k")
        except KeyError:
            logger.exception("have %s", values, extra={"n": 3, "odd": Odd(), "values": values})
        values.append(2)
        logger.warning("%d", "no number")
    first, second = kept(capture).records
    assert (first.getMessage(), first.levelno, first.exc_info) == ("have [1]", 40, None)
    assert (first.n, first.values) == (3, "[1, 2]")  # type: ignore[attr-defined]
    assert "no repr" in first.odd  # type: ignore[attr-defined]
    assert first.exc_text is not None
    assert "KeyError: 'k'" in first.exc_text
    assert "TypeError" in second.getMessage()


def test_user_code_may_redirect() -> None:
    """What a call redirects itself is not its output; its streams can be asked as others can."""
    with capturing() as capture:
        with redirect_stdout(io.StringIO()) as mine:
            print("mine")
        print("rest")
        assert not sys.stdout.isatty()
        assert sys.stdout.encoding == "utf-8"
        assert sys.stderr.fileno() >= 0  # a child process can be given it
        with pytest.raises(TypeError):
            sys.stdout.write(b"bytes")  # type: ignore[arg-type]
    assert (mine.getvalue(), kept(capture).stdout) == ("mine\n", "rest\n")


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_children_write_elsewhere(outside: Callable[[], str]) -> None:
    """In a forked child the call's buffers are copies that nobody reads: it writes as ever."""
    read, write = os.pipe()
    with capturing():
        pid = os.fork()
        if not pid:
            print("child")
            os.write(write, outside().encode())
            os._exit(0)
        os.waitpid(pid, 0)
    os.close(write)
    with os.fdopen(read) as pipe:
        assert pipe.read() == "child\n"
