"""`daskexec.select`: which word gives which executor, and the executor that is no pool."""

from __future__ import annotations

import threading
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import pytest

from daskexec.select import SerialExecutor, get_executor, resolve_executor


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("serial", SerialExecutor),
        ("threads", ThreadPoolExecutor),
        ("processes", ProcessPoolExecutor),
    ],
)
def test_a_word_gives_its_executor(word: str, kind: type[Executor]) -> None:
    """Each word builds its executor, and that works."""
    # Not fork: other tests may have left threads in this process.
    options = {"mp_context": get_context("spawn")} if word == "processes" else {}
    with get_executor(word, max_workers=1, **options) as executor:
        assert type(executor) is kind
        assert executor.submit(pow, 2, 10).result() == 1024


def test_the_environment_names_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a word, DASKEXEC_EXECUTOR decides."""
    monkeypatch.setenv("DASKEXEC_EXECUTOR", "serial")
    assert type(get_executor()) is SerialExecutor


def test_a_word_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A word given is not overruled by DASKEXEC_EXECUTOR, even a wrong one."""
    monkeypatch.setenv("DASKEXEC_EXECUTOR", "nonsense")
    assert type(get_executor("serial")) is SerialExecutor


def test_a_wrong_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error over a wrong DASKEXEC_EXECUTOR says where the word came from."""
    monkeypatch.setenv("DASKEXEC_EXECUTOR", "nonsense")
    with pytest.raises(ValueError, match=r"'nonsense' \(from .* DASKEXEC_EXECUTOR\)"):
        get_executor()


@pytest.mark.parametrize("value", [None, "", "  "])
def test_dask_is_the_default(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    """Without a word and with DASKEXEC_EXECUTOR unset or blank, it is Dask."""
    if value is None:
        monkeypatch.delenv("DASKEXEC_EXECUTOR", raising=False)
    else:
        monkeypatch.setenv("DASKEXEC_EXECUTOR", value)
    assert resolve_executor().func.__name__ == "DaskExecutor"


@pytest.mark.parametrize(
    ("spec", "address"),
    [
        ("tcp://10.0.0.1:8786", "tcp://10.0.0.1:8786"),
        ("tls://scheduler.example:8786", "tls://scheduler.example:8786"),
        ("scheduler:8786", "tcp://scheduler:8786"),
        ("127.0.0.1:8786", "tcp://127.0.0.1:8786"),
        ("[::1]:8786", "tcp://[::1]:8786"),
        ("tcp://[fe80::1]:8786", "tcp://[fe80::1]:8786"),
        ("inproc://10.0.0.1/123/1", "inproc://10.0.0.1/123/1"),
    ],
)
def test_an_address_is_dask_there(spec: str, address: str) -> None:
    """An address, bare or with its scheme, is a DaskExecutor on that scheduler."""
    factory = resolve_executor(spec, 3)
    assert factory.func.__name__ == "DaskExecutor"
    assert factory.keywords == {"max_workers": 3, "cluster": address}


def test_an_address_leaves_no_second_cluster() -> None:
    """The option `cluster` beside an address is refused."""
    with pytest.raises(TypeError, match="'cluster' is already given"):
        resolve_executor("tcp://h:1", cluster="tcp://h:2")


@pytest.mark.parametrize("spec", ["thread", "Threads", "process", "serail", "x", "", "a b:1"])
def test_an_unknown_word_says_what_there_is(spec: str) -> None:
    """An unknown word is a ValueError that lists every word."""
    with pytest.raises(ValueError, match="'serial', 'threads', 'processes', 'dask'"):
        resolve_executor(spec)


@pytest.mark.parametrize(
    ("spec", "close"), [("thread", "threads"), ("Processes", "processes"), ("daks", "dask")]
)
def test_an_unknown_word_suggests_the_closest(spec: str, close: str) -> None:
    """A word with a slip in it is answered with the word that was probably meant."""
    with pytest.raises(ValueError, match=f"Did you mean '{close}'"):
        resolve_executor(spec)


@pytest.mark.parametrize("spec", ["http://h:8786", "ftp://x"])
def test_an_unknown_scheme_is_refused(spec: str) -> None:
    """A URL that Dask cannot connect to is refused, with an example of one it can."""
    with pytest.raises(ValueError, match="tcp://host:8786"):
        resolve_executor(spec)


@pytest.mark.parametrize("spec", ["tcp://host", "tcp://:1", "tls://h:port", "h:70000", "tcp://"])
def test_an_incomplete_address_is_refused(spec: str) -> None:
    """An address without host or without a possible port is refused."""
    with pytest.raises(ValueError, match="no complete address"):
        resolve_executor(spec)


def test_a_spec_is_a_string() -> None:
    """Something else than a string is a TypeError."""
    with pytest.raises(TypeError, match="int"):
        resolve_executor(8)  # type: ignore[arg-type]


@pytest.mark.parametrize("spec", ["serial", "threads", "processes"])
@pytest.mark.parametrize("number", [0, -1])
def test_max_workers_is_positive(spec: str, number: int) -> None:
    """No worker, or fewer, is a ValueError in the stdlib's words."""
    with pytest.raises(ValueError, match="max_workers must be greater than 0"):
        resolve_executor(spec, number)


@pytest.mark.parametrize("number", ["2", 1.5])
def test_max_workers_is_an_int(number: object) -> None:
    """A number of workers of another type is a TypeError."""
    with pytest.raises(TypeError, match="max_workers"):
        resolve_executor("serial", number)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("serial", "SerialExecutor"),
        ("threads", "ThreadPoolExecutor"),
        ("processes", "ProcessPoolExecutor"),
    ],
)
def test_an_unknown_option_is_named(spec: str, name: str) -> None:
    """An option the executor does not know is a TypeError naming both."""
    with pytest.raises(TypeError, match=rf"{name} .*'colour'"):
        resolve_executor(spec, colour="red")


def test_options_reach_the_constructor() -> None:
    """Known options are handed to the executor."""
    with get_executor("threads", 1, thread_name_prefix="mine") as executor:
        name = executor.submit(lambda: threading.current_thread().name).result()
    assert name.startswith("mine")


# -- SerialExecutor -------------------------------------------------------------------------


def test_serial_runs_in_the_callers_thread() -> None:
    """A call runs at submit, in the thread that submits it."""
    with SerialExecutor() as executor:
        future = executor.submit(threading.get_ident)
        assert future.done()
        assert future.result() == threading.get_ident()


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), SystemExit(3)])
def test_serial_keeps_exceptions_on_the_future(error: BaseException) -> None:
    """Whatever a call raises, SystemExit too, is on its future and nowhere else."""

    def fail() -> None:
        raise error

    with SerialExecutor() as executor:
        future = executor.submit(fail)
    assert future.exception() is error
    with pytest.raises(type(error)):
        future.result()


def test_serial_refuses_after_shutdown() -> None:
    """After shutdown both submit and map raise RuntimeError; shutdown may be repeated."""
    executor = SerialExecutor()
    executor.shutdown(wait=False, cancel_futures=True)
    executor.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(pow, 2, 3)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.map(abs, [1])


def test_serial_passes_any_keyword() -> None:
    """Keywords called fn or self belong to the call."""
    with SerialExecutor() as executor:
        assert executor.submit(dict, fn=1, self=2).result() == {"fn": 1, "self": 2}


def test_serial_calls_callbacks() -> None:
    """A callback added to a finished future is called at once, with the future."""
    seen: list[Future[int]] = []
    with SerialExecutor() as executor:
        future = executor.submit(pow, 2, 3)
        future.add_done_callback(seen.append)
    assert seen == [future]


def test_serial_calls_may_submit() -> None:
    """A call may submit a call to the executor that runs it."""
    with SerialExecutor() as executor:
        assert executor.submit(lambda: executor.submit(pow, 2, 3).result()).result() == 8


def test_serial_map_is_eager_and_ordered() -> None:
    """All of map's calls have run when map returns; the shortest iterable ends it."""
    ran: list[int] = []

    def note(a: int, b: int) -> int:
        ran.append(a)
        return a * b

    with SerialExecutor() as executor:
        results = executor.map(note, range(10), [1, 2, 3])
        assert ran == [0, 1, 2]
        assert list(results) == [0, 2, 6]


def test_serial_map_raises_where_the_stdlib_does() -> None:
    """Results before a failing item come out; its exception is raised in its place."""
    with SerialExecutor() as executor:
        results = executor.map(lambda x: 1 // x, [1, 0, 1])
        assert next(results) == 1
        with pytest.raises(ZeroDivisionError):
            next(results)
        with pytest.raises(StopIteration):
            next(results)


def test_serial_map_with_buffersize_runs_only_so_far_ahead() -> None:
    """With buffersize=2 an endless iterable is read two calls ahead of the results."""
    ran: list[int] = []

    def note(a: int) -> int:
        ran.append(a)
        return a

    def endless() -> object:
        number = 0
        while True:
            yield number
            number += 1

    with SerialExecutor() as executor:
        results = executor.map(note, endless(), buffersize=2)  # type: ignore[arg-type]
        assert ran == [0, 1]
        assert next(results) == 0
        assert ran == [0, 1, 2]
        assert next(results) == 1


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"chunksize": 0}, ValueError),
        ({"chunksize": -3}, ValueError),
        ({"buffersize": 0}, ValueError),
        ({"buffersize": "2"}, TypeError),
    ],
)
def test_serial_map_checks_its_arguments(arguments: dict[str, int], error: type) -> None:
    """Impossible chunk and buffer sizes are refused before anything runs."""
    ran: list[int] = []
    with SerialExecutor() as executor, pytest.raises(error):
        executor.map(ran.append, [1], **arguments)
    assert ran == []
