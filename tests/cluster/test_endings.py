"""Nasty endings: a program ends as it should, and leaves no process, no file and no word.

Each test runs a script in a process of its own with a hard limit, then looks at the exit
status, at stdout and stderr, for processes that descend from it, and into the folder of its
temporary files. Plain endings, over all clusters, are in ``test_exits.py``.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from daskexec_testing.gates import Gates
from daskexec_testing.processes import Ended, Program

pytestmark = pytest.mark.timeout(90)

HEAD = """\
import os, sys, time
from daskexec import DaskExecutor
from daskexec_testing import calls
from daskexec_testing.gates import Gate, Journal

journal = Journal({journal!r})
started = Gate({started!r})
release = Gate({release!r})

"""


class Stage:
    """Runs scripts that know a journal and two gates."""

    def __init__(self, folder: Path, gates: Gates) -> None:
        self._folder = folder
        self._programs: list[Program] = []
        self.journal = gates.journal()
        self.started = gates.gate()
        self.release = gates.gate()

    def begin(self, body: str) -> Program:
        head = HEAD.format(
            journal=self.journal.path, started=self.started.path, release=self.release.path
        )
        program = Program(head + body, self._folder)
        self._programs.append(program)
        return program

    def play(self, body: str, limit: float = 60) -> Ended:
        return self.begin(body).end(limit)

    def clear(self) -> None:
        for program in self._programs:
            program.kill()


@pytest.fixture
def stage(tmp_path: Path, gates: Gates) -> Iterator[Stage]:
    made = Stage(tmp_path, gates)
    yield made
    made.clear()


def _check(ended: Ended, code: int = 0, out: str | None = None, err: str = "") -> None:
    """Exit status, stdout and stderr as expected, and nothing left."""
    assert ended.err == err
    assert ended.code == code
    if out is not None:
        assert ended.out == out
    assert not ended.processes, ended.processes_told
    assert not ended.files


def test_ends_while_starting(stage: Stage) -> None:
    """A program that ends before its workers are up ends without a word."""
    _check(stage.play("DaskExecutor(2)\n"))


def test_interrupt_while_waiting(stage: Stage) -> None:
    """SIGINT in result() is a KeyboardInterrupt of the caller; the executor survives it."""
    program = stage.begin("""
if __name__ == "__main__":
    with DaskExecutor(1) as executor:
        future = executor.submit(calls.hold, started, release, "kept")
        try:
            future.result()
        except KeyboardInterrupt:
            print("interrupted")
        release.open()
        print(future.result(), executor.submit(pow, 2, 3).result())
""")
    stage.started.wait()
    program.signal(signal.SIGINT)
    _check(program.end(), out="interrupted\nkept 8\n")


def test_interrupt_of_the_whole_group(stage: Stage) -> None:
    """Ctrl-C in a terminal reaches the whole process group: the workers live on."""
    program = stage.begin("""
import signal
from collections.abc import Iterator
if __name__ == "__main__":
    with DaskExecutor(1) as executor:
        future = executor.submit(calls.hold, started, release, "kept")
        started.wait()
        try:
            os.killpg(0, signal.SIGINT)
            time.sleep(10)
        except KeyboardInterrupt:
            print("interrupted")
        release.open()
        print(future.result())
""")
    _check(program.end(), out="interrupted\nkept\n")


def test_collected_with_calls_pending(stage: Stage) -> None:
    """An executor that is collected while calls are pending finishes them, then goes."""
    ended = stage.play("""
import gc, threading
if __name__ == "__main__":
    executor = DaskExecutor(1)
    futures = [executor.submit(calls.nap_and_note, 0.02, journal, i) for i in range(5)]
    del executor
    gc.collect()
    print([future.result() for future in futures])
""")
    _check(ended, out="[0, 1, 2, 3, 4]\n")


def test_everything_deleted(stage: Stage) -> None:
    """With executor and futures deleted, the workers go before the program does."""
    ended = stage.play("""
import gc
import psutil
if __name__ == "__main__":
    executor = DaskExecutor(2)
    futures = list(executor.map(calls.identity, range(10)))
    future = executor.submit(calls.identity, 1)
    future.result()
    me = psutil.Process()
    print(len(me.children(recursive=True)) > 0)
    del executor, futures, future
    gc.collect()
    deadline = time.monotonic() + 15
    while me.children(recursive=True) and time.monotonic() < deadline:
        time.sleep(0.01)
    print([child.cmdline() for child in me.children(recursive=True)])
""")
    _check(ended, out="True\n[]\n")


def test_forked_child_exits(stage: Stage) -> None:
    """A forked child that ends normally ends at once and takes nothing from its parent."""
    ended = stage.play("""
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
if __name__ == "__main__":
    executor = DaskExecutor(1)
    executor.submit(pow, 2, 3).result()
    child = os.fork()
    if child == 0:
        sys.exit(4)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    print(executor.submit(pow, 2, 4).result())
""")
    _check(ended, out="4\n16\n")


def test_forked_child_submits(stage: Stage) -> None:
    """A forked child that submits is told by a RuntimeError, and can still exit."""
    ended = stage.play("""
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
if __name__ == "__main__":
    executor = DaskExecutor(1)
    executor.submit(pow, 2, 3).result()
    child = os.fork()
    if child == 0:
        try:
            executor.submit(pow, 2, 4)
        except RuntimeError:
            sys.exit(6)
        sys.exit(1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    print(executor.submit(pow, 2, 4).result())
""")
    _check(ended, out="6\n16\n")


def test_no_main_guard(stage: Stage) -> None:
    """A script without a __main__ guard works."""
    ended = stage.play("""
def double(x):
    return 2 * x

with DaskExecutor(2) as executor:
    print(list(executor.map(double, range(4))))
""")
    _check(ended, out="[0, 2, 4, 6]\n")


def test_initializer_of_main_sets_a_global(stage: Stage) -> None:
    """A global set by an initializer of __main__ is seen by the calls of __main__."""
    ended = stage.play("""
STATE = "unset"

def prepare(value):
    global STATE
    STATE = value

def state(_):
    return STATE

if __name__ == "__main__":
    with DaskExecutor(2, initializer=prepare, initargs=("set",)) as executor:
        print(set(executor.map(state, range(10))), STATE)
""")
    _check(ended, out="{'set'} unset\n")


def test_globals_of_main_live_between_calls(stage: Stage) -> None:
    """A global of __main__ that a call changes is there for the next call of that worker."""
    ended = stage.play("""
count = 0

def step():
    global count
    count += 1
    return count

if __name__ == "__main__":
    with DaskExecutor(1) as executor:
        print([executor.submit(step).result() for _ in range(3)], count)
""")
    _check(ended, out="[1, 2, 3] 0\n")


def test_class_of_main(stage: Stage) -> None:
    """An object of a class of __main__ comes back as one of that very class."""
    ended = stage.play("""
class Point:
    def __init__(self, x):
        self.x = x

def moved(point):
    assert isinstance(point, Point)
    return Point(point.x + 1)

class Wrong(Exception):
    pass

def fail():
    raise Wrong("here")

if __name__ == "__main__":
    with DaskExecutor(1) as executor:
        point = executor.submit(moved, Point(1)).result()
        print(type(point) is Point, point.x)
        try:
            executor.submit(fail).result()
        except Wrong as error:
            print("caught", error)
""")
    _check(ended, out="True 2\ncaught here\n")


def test_daemon_thread_at_work(stage: Stage) -> None:
    """A daemon thread that submits while the program ends disturbs nothing."""
    ended = stage.play("""
import threading
if __name__ == "__main__":
    executor = DaskExecutor(1)
    executor.submit(pow, 2, 3).result()

    def work():
        while True:
            try:
                executor.submit(pow, 2, 3).result()
            except RuntimeError:
                return

    threading.Thread(target=work, daemon=True).start()
    time.sleep(0.2)
    print("end")
""")
    _check(ended, out="end\n")


def test_executor_of_a_thread(stage: Stage) -> None:
    """An executor made and used by a thread that has ended is closed at exit."""
    ended = stage.play("""
import threading
if __name__ == "__main__":
    kept = []

    def work():
        kept.append(DaskExecutor(1))
        kept[0].submit(calls.nap_and_note, 0.1, journal, "ran")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
""")
    _check(ended)
    assert stage.journal.lines() == ["ran"]


def test_two_executors(stage: Stage) -> None:
    """Two executors at once, one of them shut down early, end well."""
    ended = stage.play("""
if __name__ == "__main__":
    one, other = DaskExecutor(1), DaskExecutor(1)
    print(one.submit(os.getpid).result() != other.submit(os.getpid).result())
    one.shutdown()
    print(other.submit(pow, 2, 3).result())
""")
    _check(ended, out="True\n8\n")


def test_worker_crash_before_the_end(stage: Stage) -> None:
    """A worker that died leaves no word on stderr and no folder."""
    ended = stage.play("""
from daskexec import WorkerDied
if __name__ == "__main__":
    executor = DaskExecutor(2)
    print(type(executor.submit(os._exit, 1).exception()).__name__)
    print(executor.submit(pow, 2, 3).result())
""")
    _check(ended, out="WorkerDied\n8\n")


def test_output_of_calls(stage: Stage) -> None:
    """What calls print to stdout appears, flushed, on the program's stdout."""
    ended = stage.play("""
if __name__ == "__main__":
    with DaskExecutor(1) as executor:
        executor.submit(print, "from the worker").result()
""")
    _check(ended, out="from the worker\n")
