"""Functions and classes that the tests hand to executors."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, NoReturn

from daskexec_testing.gates import Gate, Journal

# Plain calls


def identity(value: Any) -> Any:
    return value


def add(x: Any, y: Any) -> Any:
    return x + y


def capture(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args, kwargs


def pid(*_: Any) -> int:
    return os.getpid()


def scratch(*_: Any) -> str:
    """The folder of the worker that runs this."""
    from distributed import get_worker

    return str(get_worker().local_directory)


def nap(seconds: float, value: Any = None) -> Any:
    time.sleep(seconds)
    return value


def length(value: Any) -> int:
    return len(value)


def filled(size: int, gate: Gate | None = None) -> bytes:
    """So many bytes, not before the gate is open."""
    if gate is not None:
        gate.wait()
    return b"x" * size


def note(journal: Journal, line: object) -> object:
    """Append ``line`` to ``journal`` and return it."""
    journal.write(line)
    return line


def note_then_fail(journal: Journal, line: object) -> NoReturn:
    journal.write(line)
    raise ValueError(line)


# Calls that wait


def hold(started: Gate, release: Gate, value: Any = None) -> Any:
    """Say that the call runs, wait for its release, return ``value``."""
    started.open()
    release.wait()
    return value


def wait_for(gate: Gate, value: Any = None) -> Any:
    gate.wait()
    return value


def wait_for_other(mine: Gate, other: Gate) -> bool:
    """Two of these, given each other's gates, end only when both run at once."""
    mine.open()
    other.wait()
    return True


def quick_or(value: Any, mine: Gate | None = None, other: Gate | None = None) -> Any:
    """Return ``value`` at once; or, given gates, end only when the other one is open."""
    if mine is not None and other is not None:
        return wait_for_other(mine, other)
    return value


def nap_or(seconds: float, mine: Gate | None = None, other: Gate | None = None) -> float:
    """Sleep; or, given gates, end only when the other one is open."""
    quick_or(seconds, mine, other)
    time.sleep(seconds)
    return seconds


def quick_or_of(args: tuple[Any, ...]) -> Any:
    return quick_or(*args)


def note_slowly_at_times(journal: Journal, line: str) -> str:
    """Write the line; one in fifty takes a while."""
    if line.endswith(("00", "50")):
        time.sleep(0.3)
    journal.write(line)
    return line


# Calls that fail


def fail(message: str = "wrong") -> NoReturn:
    raise ValueError(message)


def raise_(exception: BaseException) -> NoReturn:
    raise exception


def raise_type(kind: type[BaseException], *args: Any) -> NoReturn:
    raise kind(*args)


def leave(code: object = 3) -> NoReturn:
    sys.exit(code)  # type: ignore[arg-type]


def inverse(x: float) -> float:
    return 1 / x


def recurse(n: int = 0) -> int:
    return recurse(n + 1) + 1


class ManyArguments(Exception):
    """Its ``__init__`` takes more than what ``args`` keeps, so plain pickle cannot rebuild it."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{text} ({code})")
        self.code = code
        self.text = text


class HoldsLock(Exception):
    """Cannot be pickled."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


class WithAttributes(Exception):
    """Keeps its values in attributes."""


def raise_many_arguments() -> NoReturn:
    raise ManyArguments(7, "no such thing")


def raise_holding_lock() -> NoReturn:
    raise HoldsLock("holds a lock")


def raise_with_attributes() -> NoReturn:
    error = WithAttributes("see my attributes")
    error.position = (3, 14)  # type: ignore[attr-defined]
    raise error


def raise_chained() -> NoReturn:
    try:
        fail("the first")
    except ValueError as error:
        raise KeyError("the second") from error


def fail_twice(path: Path) -> int:
    """Raise until the file ``path`` says that it was called three times."""
    tries = 1 + int(path.read_text() if path.exists() else "0")
    path.write_text(str(tries))
    if tries < 3:
        raise ValueError(f"try {tries}")
    return tries


# Values that keep state


class Counting:
    """A function object that counts its calls."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> int:
        self.count += 1
        return self.count


def grow(box: list[int]) -> int:
    box.append(1)
    return len(box)


# Values that do not travel


class FailsToPickle:
    def __reduce__(self) -> NoReturn:
        raise ValueError("this does not pickle")


def _cannot_load() -> NoReturn:
    raise ValueError("this does not unpickle")


class FailsToUnpickle:
    def __reduce__(self) -> Any:
        return _cannot_load, ()


class KillsItsUnpickler:
    def __reduce__(self) -> Any:
        return os._exit, (9,)


class FailingCallable:
    """A function object that does not pickle."""

    def __call__(self) -> int:
        return 1

    def __reduce__(self) -> NoReturn:
        raise ValueError("this function does not pickle")


def make_failing_to_pickle() -> FailsToPickle:
    return FailsToPickle()


def make_failing_to_unpickle() -> FailsToUnpickle:
    return FailsToUnpickle()


def make_lambda() -> Callable[[], int]:
    return lambda: 42


# Calls that kill their worker


def exit_hard(journal: Journal | None = None, code: int = 1) -> NoReturn:
    if journal is not None:
        journal.write("exit_hard")
    os._exit(code)


def hold_then_exit(started: Gate, release: Gate, journal: Journal) -> NoReturn:
    hold(started, release)
    journal.write("going")
    os._exit(7)


def exit_elsewhere(here: int, journal: Journal, line: object) -> bool:
    """Kill the process, if it is another one than `here`."""
    journal.write(line)
    if os.getpid() != here:
        os._exit(5)
    time.sleep(0.1)
    return True


def submit_killers(executor: Executor, journal: Journal, count: int) -> list[str]:
    """Return what became of nested calls that kill the process where it is not this one."""
    futures = [executor.submit(exit_elsewhere, os.getpid(), journal, i) for i in range(count)]
    return [type(future.exception(30)).__name__ for future in futures]


def note_or_exit(journal: Journal, line: object, code: int | None = None) -> object:
    """Write the line, then return it, or kill the process."""
    journal.write(line)
    if code is not None:
        os._exit(code)
    return line


def kill_self(journal: Journal | None = None) -> None:
    if journal is not None:
        journal.write("kill_self")
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def segfault(journal: Journal | None = None) -> None:
    if journal is not None:
        journal.write("segfault")
    import faulthandler

    faulthandler.disable()
    os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(60)


# Initializers


_initialized: list[Any] = []


def initialize(*values: Any) -> None:
    _initialized.extend(values)


def initialized(_: object = None) -> list[Any]:
    return list(_initialized)


def initialize_and_note(journal: Journal) -> None:
    journal.write(f"{os.getpid()}-{threading.get_ident()}")


def failing_initializer() -> NoReturn:
    raise ValueError("error in initializer")


# State


def append_to(values: list[Any], value: Any) -> list[Any]:
    values.append(value)
    return values


class Counter:
    """A callable that remembers how often it was called."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> int:
        self.count += 1
        return self.count


# Nested use


def submit_inside(executor: Executor, depth: int) -> int:
    """Go ``depth`` calls deep, each waiting for the result of the next."""
    if depth == 0:
        return 0
    return executor.submit(submit_inside, executor, depth - 1).result() + 1


def map_inside(executor: Executor, values: list[Any]) -> list[Any]:
    return list(executor.map(identity, values))


# For map


def open_gate(gate: Gate) -> None:
    gate.open()


def hold_and_note(started: Gate, release: Gate, journal: Journal, value: Any) -> Any:
    started.open()
    release.wait()
    journal.write(value)
    return value


def add_after(value: Any, release: Gate, journal: Journal) -> Any:
    """Wait for the release, add 1 to ``value`` (a TypeError for text) and note it."""
    release.wait()
    value = value + 1
    time.sleep(0.01)
    journal.write(value)
    return value


def make_counter(_: object = None) -> Counter:
    return Counter()


def exit_if(code: int | None, journal: Journal | None = None) -> None:
    """Kill the worker if there is a code to exit with."""
    if code is not None:
        if journal is not None:
            journal.write("exit_if")
        os._exit(code)


def first_byte(value: bytes) -> int:
    return value[0]


def nap_and_note(seconds: float, journal: Journal, line: object) -> object:
    time.sleep(seconds)
    journal.write(line)
    return line


def note_and_nap(journal: Journal, line: object, seconds: float) -> object:
    journal.write(line)
    time.sleep(seconds)
    return line


def note_and_fill(journal: Journal, line: object, seconds: float, size: int) -> bytes:
    note_and_nap(journal, line, seconds)
    return filled(size)


def begin_and_end(journal: Journal, seconds: float) -> None:
    journal.write("begin")
    time.sleep(seconds)
    journal.write("end")


def submit_and_wait(executor: Executor, value: Any) -> Any:
    """Have ``value`` come back through a call of this call's own."""
    return executor.submit(identity, value).result()


# What a call knows of itself


def talk(text: str, path: Path | None = None) -> tuple[int, str, str, str]:
    """Write, log, and return where: process, worker's address and name, host.

    With a path it fails until it was called three times, after it has written.
    """
    import logging
    import platform

    from distributed import get_worker

    print("out", text)
    print("err", text, file=sys.stderr)
    logging.getLogger("talk").warning("log %s", text, extra={"place": Path(text)})
    if path is not None:
        fail_twice(path)
    worker = get_worker()
    return os.getpid(), worker.address, str(worker.name), platform.node()


# With DaskExecutor.current()


def current() -> Any:
    from daskexec import DaskExecutor

    return DaskExecutor.current()


def quicksort(values: list[float], depth: int) -> list[float]:
    """Sort, the halves as calls of their own down to a depth."""
    if depth == 0 or len(values) < 2:
        return sorted(values)
    executor, pivot = current(), values[len(values) // 2]
    halves = [
        executor.submit(quicksort, [value for value in values if value < pivot], depth - 1),
        executor.submit(quicksort, [value for value in values if value > pivot], depth - 1),
    ]
    middle = [value for value in values if value == pivot]
    return [*halves[0].result(), *middle, *halves[1].result()]


def current_ids(executor: Executor | None = None) -> tuple[int, int]:
    """Identify this process, and what current() returns, or what an argument has become."""
    return os.getpid(), id(executor or current())


def initialized_inside() -> list[Any]:
    """What the initializer has left, as a call of this call sees it."""
    seen: list[Any] = current().submit(initialized).result()
    return seen


def shut_down_inside() -> int:
    """End the current executor; return what the next one says."""
    current().submit(identity, 1).result()
    current().shutdown()
    return int(current().submit(identity, 2).result())


def leave_pending(journal: Journal, gate: Gate) -> None:
    """Return before a call of this call has begun, or ended."""
    current().submit(wait_and_note, gate, journal)


def wait_and_note(gate: Gate, journal: Journal) -> None:
    gate.wait()
    journal.write("finished")


def wait_in_all_ways(executor: Executor) -> list[Any]:
    """Wait for calls of this call in every way that there is."""
    import asyncio
    from concurrent.futures import as_completed, wait

    async def awaited() -> Any:
        return await asyncio.wrap_future(executor.submit(identity, 5))

    first, second, third = (executor.submit(identity, value) for value in (1, 2, 3))
    wait([first])
    got = [first.result(), *(future.result() for future in as_completed([second]))]
    while not third.done():
        time.sleep(0.001)
    return [*got, third.result(), *executor.map(identity, [4]), asyncio.run(awaited())]


def nest_or_open(gate: Gate | None = None, *, nests: bool = False) -> None:
    """Have a call run, then wait for somebody else; or be that one; or nothing."""
    if nests and gate is not None:
        current().submit(identity, 1).result()
        gate.wait()
    elif gate is not None:
        gate.open()


def inside_a_view(view: Any) -> tuple[str, str]:
    """Return the name and the output of a call of a view."""
    future = view.submit(talk, "nested")
    future.result()
    return future.info().name, future.output.stdout


# Calls that stand still


def hold_gil(seconds: int) -> None:
    """Sleep in C code without letting go of the GIL: nothing of this process goes on."""
    ctypes.PyDLL(None).sleep(seconds)


def say_and_sleep(started: Gate, seconds: float) -> None:
    """Say that the call runs, then sleep."""
    started.open()
    time.sleep(seconds)


def note_and_hold(journal: Journal, line: object, started: Gate, release: Gate) -> int:
    """Write the line, wait for the release, return the process id."""
    journal.write(line)
    started.open()
    release.wait()
    return os.getpid()


def note_then_sleep(journal: Journal, seconds: float) -> None:
    """Write the process id, then sleep."""
    journal.write(os.getpid())
    time.sleep(seconds)
