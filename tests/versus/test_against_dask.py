"""Each promise of the Executor interface that Dask's own facade breaks, kept by ours.

One test a promise, run over ``Client.get_executor()`` of distributed, which must fail it
(a strict xfail: the day it is mended there is noticed), and over ``DaskExecutor``, which
must pass it. The README's table of them is numbered as these tests are.
"""

from __future__ import annotations

import inspect
import itertools
import logging
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, TimeoutError, wait
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from daskexec_testing import calls
from daskexec_testing.gates import Gates, eventually
from daskexec_testing.leaks import sharing
from daskexec_testing.processes import Program, running_cluster

pytestmark = pytest.mark.timeout(120)

LIMIT = 5.0
"""Seconds after which a future that is still pending is taken to wait for ever."""


class Theirs:
    """``Client.get_executor()`` on a LocalCluster of processes."""

    rounds = 300  # of an attempt that breaks now and then; the first break ends it

    def __init__(self) -> None:
        self._clusters: dict[int, tuple[Any, Any]] = {}

    def executor(self, workers: int = 2, **options: Any) -> Any:
        return self.client(workers).get_executor(**options)

    def on(self, address: str, stack: ExitStack) -> Any:
        from distributed import Client

        client = stack.enter_context(Client(address, set_as_default=False))
        return client.get_executor()

    def client(self, workers: int = 2) -> Any:
        """A client of a cluster that still answers; a new one if a test has spoilt it."""
        if workers in self._clusters and not self._healthy(workers):
            self._close(workers)
        if workers not in self._clusters:
            from distributed import Client, LocalCluster

            with sharing():
                cluster = LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    processes=True,
                    dashboard_address="127.0.0.1:0",
                    host="127.0.0.1",
                    silence_logs=logging.CRITICAL,
                )
                client = Client(cluster, set_as_default=False)
                if workers:
                    client.wait_for_workers(workers, timeout=60)
            self._clusters[workers] = cluster, client
        return self._clusters[workers][1]

    def _healthy(self, workers: int) -> bool:
        client = self._clusters[workers][1]
        if not workers:
            return True
        futures = [client.submit(calls.pid, i, pure=False) for i in range(workers)]
        try:
            for future in futures:
                future.result(timeout=2)
            client.wait_for_workers(workers, timeout=2)
        except Exception:
            return False
        return True

    def _close(self, workers: int) -> None:
        cluster, client = self._clusters.pop(workers)
        with suppress(Exception):
            client.close(timeout=5)
        with suppress(Exception):
            cluster.close(timeout=10)

    def close(self) -> None:
        for workers in list(self._clusters):
            self._close(workers)

    script = """
from dask.distributed import Client, LocalCluster

def make():
    cluster = LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None)
    return Client(cluster).get_executor()
"""


class Ours(Theirs):
    """``DaskExecutor``, on workers of its own or, where a test says so, on a client's."""

    rounds = 25

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[int, Any] = {}
        self._fresh: list[Any] = []

    def executor(self, workers: int = 2, **options: Any) -> Any:
        from daskexec import DaskExecutor

        made = self._made.get(workers)
        if made is None:
            with sharing():
                if workers:
                    made = DaskExecutor(workers)
                    list(made.map(calls.nap, [0.2] * workers))
                else:
                    made = DaskExecutor(cluster=self.client(workers))
            self._made[workers] = made
        return made.with_options(**options) if options else made

    def fresh(self, workers: int = 2) -> Any:
        from daskexec import DaskExecutor

        self._fresh.append(DaskExecutor(workers))
        return self._fresh[-1]

    def on(self, address: str, stack: ExitStack) -> Any:
        from daskexec import DaskExecutor

        executor = DaskExecutor(cluster=address)
        stack.callback(executor.shutdown, wait=False, cancel_futures=True)
        return executor

    def close(self) -> None:
        for made in (*self._made.values(), *self._fresh):
            made.shutdown(wait=True, cancel_futures=True)
        super().close()

    script = """
from daskexec import DaskExecutor

def make():
    return DaskExecutor(1)
"""


Side = Theirs

BREAKS = pytest.mark.xfail(strict=True, reason="Dask's facade breaks this promise")


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(Theirs, id="ClientExecutor", marks=BREAKS),
        pytest.param(Ours, id="DaskExecutor"),
    ],
)
def side(request: pytest.FixtureRequest) -> Iterator[Side]:
    made = request.param()
    yield made
    made.close()


@pytest.fixture
def once(side: Side) -> Callable[..., Any]:
    """Makes an executor that the test may shut down."""
    return getattr(side, "fresh", side.executor)


def _told(error: BaseException | None) -> str:
    assert error is not None
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))


def test_01_equal_calls_all_run(side: Side, gates: Gates) -> None:
    """Five equal calls with a side effect run five times; cancelling one spares the others."""
    journal = gates.journal()
    executor = side.executor()
    futures = [executor.submit(calls.note, journal, "x") for _ in range(5)]
    assert [future.result(LIMIT) for future in futures] == ["x"] * 5
    assert len(journal.lines()) == 5


def test_02_keywords_belong_to_the_function(side: Side) -> None:
    """submit(sorted, words, key=len) sorts by length; fn= and self= can be passed on."""
    executor = side.executor()
    assert executor.submit(sorted, ["bbb", "a"], key=len).result(LIMIT) == ["a", "bbb"]
    for name in ("workers", "retries", "priority", "resources", "pure", "actor", "fn", "self"):
        assert executor.submit(calls.capture, **{name: 1}).result(LIMIT) == ((), {name: 1})


def test_03_results_that_do_not_travel_fail(side: Side) -> None:
    """A result that does not pickle there, or unpickle here, fails its future: no hang."""
    executor = side.executor()
    with pytest.raises(ValueError, match="does not pickle"):
        executor.submit(calls.make_failing_to_pickle).result(LIMIT)
    with pytest.raises(ValueError, match="does not unpickle"):
        executor.submit(calls.make_failing_to_unpickle).result(LIMIT)


def test_04_cancel_racing_with_the_finish_ends(side: Side) -> None:
    """Futures cancelled while they finish wake wait() all the same."""
    executor = side.executor()
    for _ in range(side.rounds):  # each is a matter of chance
        futures = [executor.submit(calls.identity, object()) for _ in range(100)]
        for share in (0.2, 0.4, 0.6, 0.8):
            wait(futures[: int(100 * share)], timeout=0.05)
            for future in futures[int(100 * share) - 20 : int(100 * share)]:
                future.cancel()
        assert not wait(futures, timeout=LIMIT).not_done


def test_05_map_read_after_its_deadline_times_out(side: Side) -> None:
    """A map result read after the deadline raises TimeoutError."""
    results = side.executor(1).map(calls.nap, [0.3, 0.3], timeout=0.05)
    threading.Event().wait(0.1)  # time itself is what this waits for
    with pytest.raises(TimeoutError):
        next(results)


def test_06_sys_exit_is_delivered(side: Side) -> None:
    """sys.exit in a call sets SystemExit on its future, and kills no worker."""
    executor = side.executor()
    before = {executor.submit(calls.pid, i).result(LIMIT) for i in range(8)}
    with pytest.raises(SystemExit):
        executor.submit(calls.leave).result(15)
    after = {executor.submit(calls.pid, i).result(LIMIT) for i in range(8, 16)}
    assert after & before


def test_07_a_crash_runs_once_and_is_a_broken_executor(side: Side, gates: Gates) -> None:
    """A call that kills its worker runs once, and fails with BrokenExecutor."""
    journal = gates.journal()
    error = side.executor().submit(calls.exit_hard, journal).exception(30)
    assert len(journal.lines()) == 1
    assert isinstance(error, BrokenExecutor)


def test_08_exceptions_keep_type_message_and_traceback(side: Side) -> None:
    """Exceptions with several arguments, or a lock, keep type name, message, remote frames."""
    executor = side.executor()
    told = _told(executor.submit(calls.raise_many_arguments).exception(LIMIT))
    assert "ManyArguments: no such thing (7)" in told
    assert "in raise_many_arguments" in told
    error = executor.submit(calls.raise_holding_lock).exception(LIMIT)
    assert type(error) is not Exception  # bare: the type is lost, for except clauses too
    told = _told(error)
    assert "HoldsLock" in told
    assert "holds a lock" in told
    assert "in raise_holding_lock" in told


def test_09_shutdown_finishes_or_cancels_as_asked(
    once: Callable[..., Executor], gates: Gates
) -> None:
    """shutdown(wait=False) lets the pending finish; cancel_futures exists; map is refused."""
    journal = gates.journal()
    executor = once(1)
    futures = [executor.submit(calls.nap_and_note, 0.02, journal, i) for i in range(8)]
    executor.shutdown(wait=False, cancel_futures=False)
    assert [future.result(LIMIT) for future in futures] == list(range(8))
    with pytest.raises(RuntimeError):
        executor.map(calls.identity, [1])


def test_10_a_with_body_runs_its_maps(once: Callable[..., Executor], gates: Gates) -> None:
    """The calls of a map that nobody has read have run at the end of the with-body."""
    journal = gates.journal()
    with once(1) as executor:
        results = executor.map(
            calls.nap_and_note, [0.02] * 30, itertools.repeat(journal, 30), range(30)
        )
    assert len(journal.lines()) == 30
    assert list(results) == list(range(30))


def test_11_map_takes_any_iterable(side: Side) -> None:
    """map takes generators and endless iterables, honours chunksize, has buffersize."""
    executor = side.executor()
    assert list(executor.map(calls.add, (i for i in range(3)), itertools.count())) == [0, 2, 4]
    with pytest.raises(ValueError, match="chunksize"):
        executor.map(calls.identity, [1], chunksize=0)
    results = executor.map(calls.identity, itertools.count(), buffersize=3)
    assert list(itertools.islice(results, 5)) == [0, 1, 2, 3, 4]
    results.close()


def test_12_futures_are_arguments(side: Side) -> None:
    """A future of the executor may be an argument, and stands for its result."""
    executor = side.executor()
    one = executor.submit(calls.identity, 1)
    assert executor.submit(calls.add, one, 1).result(LIMIT) == 2
    assert executor.submit(sum, [one, one]).result(LIMIT) == 2


def test_13_running_and_cancel_tell_the_truth(side: Side, gates: Gates) -> None:
    """A running call says running, and its cancel() returns False."""
    started, release = gates.gate(), gates.gate()
    future = side.executor().submit(calls.hold, started, release, 3)
    started.wait()
    eventually(future.running, "the future says running", LIMIT)
    assert future.cancel() is False
    release.open()
    assert future.result(LIMIT) == 3


def test_14_an_argument_that_does_not_pickle_fails_the_future(side: Side) -> None:
    """submit returns a future that fails, instead of raising."""
    future = side.executor().submit(calls.identity, calls.FailsToPickle())
    with pytest.raises(ValueError, match="this does not pickle"):
        future.result(LIMIT)


def test_15_the_parameters_of_an_executor(side: Side) -> None:
    """It takes the parameters of ProcessPoolExecutor and has its methods and _max_workers."""
    executor = side.executor()
    assert executor._max_workers == 2
    parameters = inspect.signature(type(executor)).parameters
    for name in ("max_workers", "mp_context", "initializer", "initargs", "max_tasks_per_child"):
        assert name in parameters
    assert callable(executor.terminate_workers)
    assert callable(executor.kill_workers)
    assert executor.with_options(priority=1).submit(calls.identity, 1).result(LIMIT) == 1


def test_16_a_lost_scheduler_breaks_every_future(side: Side, tmp_path: Path, gates: Gates) -> None:
    """When the scheduler dies, every pending future fails promptly with BrokenExecutor."""
    with running_cluster(tmp_path, workers=1) as cluster, ExitStack() as stack:
        executor = side.on(cluster.address, stack)
        started = gates.gate()
        futures = [executor.submit(calls.hold, started, gates.gate())]
        futures += [executor.submit(calls.identity, i) for i in range(5)]
        started.wait()
        cluster.scheduler.kill()
        not_done = wait(futures, timeout=15).not_done
        gates.open_all()
        assert not not_done
        for future in futures:
            assert not future.cancelled()
            assert isinstance(future.exception(), BrokenExecutor)


def test_17_the_end_of_the_program_runs_what_is_pending(
    side: Side, tmp_path: Path, gates: Gates
) -> None:
    """A program that ends with calls pending runs them, and prints nothing about it."""
    journal = gates.journal()
    script = f"""{side.script}
from daskexec_testing import calls
from daskexec_testing.gates import Journal

if __name__ == "__main__":
    executor = make()
    for i in range(8):
        executor.submit(calls.nap_and_note, 0.1, Journal({journal.path!r}), i)
"""
    ended = Program(script, tmp_path).end(60)
    assert sorted(journal.lines()) == [str(i) for i in range(8)]
    assert (ended.code, ended.err) == (0, "")


def test_18_callbacks_may_block(side: Side) -> None:
    """A done-callback may wait for another call: it blocks no loop."""
    executor = side.executor()
    results: list[Any] = []
    ended = threading.Event()

    def wait_inside(_: Any) -> None:
        try:
            results.append(executor.submit(calls.identity, "inner").result(3))
        except BaseException as error:
            results.append(error)
        ended.set()

    executor.submit(calls.nap, 0.2).add_done_callback(wait_inside)
    assert ended.wait(15)
    assert results == ["inner"]


def test_19_results_are_not_kept_on_the_cluster(side: Side) -> None:
    """Once a result is here, the cluster holds it no more, though its future lives."""
    client = side.client(2)
    if isinstance(side, Ours):
        from daskexec import DaskExecutor

        executor = DaskExecutor(cluster=client)
    else:
        executor = client.get_executor()
    future = executor.submit(calls.filled, 5_000_000)
    assert len(future.result(LIMIT)) == 5_000_000

    def held(dask_scheduler: Any = None) -> int:
        return sum(len(worker.has_what) for worker in dask_scheduler.workers.values())

    try:
        eventually(lambda: client.run_on_scheduler(held) == 0, "the cluster lets go", LIMIT)
    finally:
        executor.shutdown()
    assert future.done()


def test_20_nested_use(side: Side) -> None:
    """An executor with one worker may be used by its own calls, at any depth."""
    executor = side.executor(1)
    assert executor.submit(calls.submit_inside, executor, 3).result(20) == 3


@pytest.mark.parametrize("missing", ["GPU", "worker"])
def test_21_a_wait_without_prospect_says_so(
    side: Side,
    missing: str,
    caplog: pytest.LogCaptureFixture,
    recwarn: pytest.WarningsRecorder,
) -> None:
    """Resources that no worker has, or no workers at all, are said to be missing in seconds."""
    if missing == "GPU":
        executor = side.executor(resources={"GPU": 1})
    else:
        executor = side.executor(workers=0)
    with caplog.at_level(logging.WARNING):
        future = executor.submit(calls.identity, 1)

        def said() -> bool:
            text = "".join(r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING)
            text += "".join(str(warning.message) for warning in recwarn)
            if future.done() and not future.cancelled():
                text += str(future.exception())
            return missing in text

        try:
            eventually(said, f"something says {missing}", 10)
        finally:
            future.cancel()


def test_22_tracebacks_do_not_grow(side: Side) -> None:
    """The traceback is as long at the tenth result() as at the first."""
    future = side.executor().submit(calls.fail)
    lengths = []
    for _ in range(10):
        with pytest.raises(ValueError, match="wrong") as caught:
            future.result(LIMIT)
        lengths.append(len(traceback.extract_tb(caught.value.__traceback__)))
    assert lengths[0] == lengths[-1]


def test_23_types_and_limits_are_told(side: Side) -> None:
    """submit and map are typed, and the docstring tells the limits."""
    kind = type(side.executor())
    for method in (kind.submit, kind.map, kind.shutdown):
        assert "return" in inspect.get_annotations(method), method.__name__
    assert "limit" in (inspect.getdoc(kind) or "").lower()
