"""Faults on a cluster that was given: scheduler and workers, with nannies, in other processes."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, wait
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest
from daskexec_testing import calls
from daskexec_testing.gates import Gate, Gates, Journal, eventually, said
from daskexec_testing.leaks import sharing
from daskexec_testing.processes import Cluster, running_cluster

from daskexec import DaskExecutor, WorkerDied
from daskexec._remote import withdraw

pytestmark = pytest.mark.timeout(60)

LIMIT = 30


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A scheduler and three workers of one thread; what dies is started again by its nanny."""
    with sharing():
        context = running_cluster(tmp_path_factory.mktemp("cluster"))
        running = context.__enter__()
        running.add_worker("small", 1, "--memory-limit", "400MiB", "--resources", "small=1")
        with DaskExecutor(cluster=running.address) as executor:
            executor.with_options(resources={"small": 1}).submit(abs, 1).result(LIMIT)
    yield running
    context.__exit__(None, None, None)


@pytest.fixture
def executor(cluster: Cluster, gates: Gates) -> Iterator[DaskExecutor]:
    with DaskExecutor(cluster=cluster.address, warn_after=1) as executor:
        yield executor
        gates.open_all()


def _exit(journal: Journal) -> None:
    journal.write("x")
    os._exit(3)


def _segfault(journal: Journal) -> None:
    import ctypes

    journal.write("x")
    ctypes.string_at(0)


def _kill(journal: Journal) -> None:
    journal.write("x")
    os.kill(os.getpid(), signal.SIGKILL)


def _die_later(journal: Journal) -> None:
    journal.write("x")
    time.sleep(0.2)  # long enough to be known to run
    os._exit(4)


@pytest.mark.parametrize(
    ("killer", "fate"),
    [
        (_exit, "exited with status 3"),
        (_segfault, "SIGSEGV"),
        (_kill, "SIGKILL"),
        (_die_later, "exited with status 4"),
    ],
)
def test_killer_runs_once(
    executor: DaskExecutor, gates: Gates, killer: Callable[..., None], fate: str
) -> None:
    """Where Dask would run it four times; its error says what ended it; others run once."""
    journal, other = gates.journal(), gates.journal("other")
    before = [executor.submit(calls.note, other, i) for i in range(20)]
    future = executor.submit(killer, journal)
    after = [executor.submit(calls.note, other, 20 + i) for i in range(20)]
    error = future.exception(LIMIT)
    assert isinstance(error, WorkerDied)
    assert error.attempts == 1
    assert fate in error.reason
    assert [f.result(LIMIT) for f in (*before, *after)] == list(range(40))
    assert journal.lines() == ["x"]


def _die_at_40(journal: Journal, number: int) -> int:
    journal.write(number)
    if number == 40:
        os._exit(4)
    return number


def test_killer_in_a_map(executor: DaskExecutor, gates: Gates) -> None:
    """Quick items share tasks: the killer fails, and no other; each has run once."""
    journal = gates.journal()
    found = list(executor.map(_die_at_40, [journal] * 80, range(80), errors="return"))
    assert [i for i, value in enumerate(found) if value != i] == [40]
    assert isinstance(found[40], WorkerDied)
    assert sorted(map(int, journal.lines())) == list(range(80))


def test_finished_calls_are_not_run_again(executor: DaskExecutor, gates: Gates) -> None:
    """What is here when all workers die has been let go of there."""
    journal = gates.journal()
    futures = [executor.submit(calls.note, journal, i) for i in range(20)]
    assert [future.result(LIMIT) for future in futures] == list(range(20))
    for killer in [executor.submit(calls.exit_hard) for _ in range(2)]:
        assert isinstance(killer.exception(LIMIT), WorkerDied)
    assert executor.submit(calls.identity, 1).result(LIMIT) == 1
    assert sorted(map(int, journal.lines())) == list(range(20))


def _pid_then(journal: Journal, release: Gate, value: object) -> object:
    journal.write(os.getpid())
    release.wait()
    return value


def _tell_when_stored(journal: Journal, release: Gate, size: int, _: bytes = b"") -> bytes:
    """Return so many bytes; write a line when the worker has stored them, and said so."""
    from distributed import get_worker

    worker = get_worker()
    key = worker.get_current_task()

    def look() -> None:
        eventually(lambda: worker.state.tasks[key].state == "memory")
        eventually(lambda: not worker.batched_stream.buffer)
        journal.write("stored")

    threading.Thread(target=look, daemon=True).start()
    _pid_then(journal, release, None)
    return b"x" * size


def _write_and_wait(journal: Journal, release: Gate, _: bytes) -> bytes:
    _pid_then(journal, release, None)
    return b"x" * 50_000  # too large to be told at once


def _store(journal: Journal) -> bytes:
    return _tell_when_stored(journal, Gate(journal.path), 50_000)


def _key(future: Any) -> str:
    """The key of the first attempt at a call."""
    return str(future.key[:-4] + "0001")


def _after(gate: Gate, size: int) -> bytes:
    gate.wait()
    return b"y" * size


@pytest.mark.parametrize("lost_too", ["nothing", "argument", "value"])
@pytest.mark.parametrize("barred", [False, True])
@pytest.mark.parametrize("size", [50_000, 4 << 20, 5_000_000])
def test_a_result_that_is_lost(
    executor: DaskExecutor, cluster: Cluster, gates: Gates, size: int, barred: bool, lost_too: str
) -> None:
    """A call that had ended on a worker that dies with the result is not run again.

    Up to 4 MiB the result outlives the worker; what is larger fails the call. So it is where the
    other workers had been told not to begin it (`barred`), and where a large argument of it, or
    the value of an earlier call, which is with the worker as well, is lost with that.
    """
    journal, release, first = gates.journal(), gates.gate(), gates.gate()
    argument: Any = os.urandom(2_000_000 if lost_too == "argument" else 0)
    if lost_too == "value":
        argument = executor.submit(_after, first, 2_000_000)
    future = executor.submit(_tell_when_stored, journal, release, size, argument)
    del argument  # nobody asks for the value here
    first.open()
    eventually(lambda: journal.lines() and future.running())
    (pid,) = map(int, journal.lines())
    if barred:
        keys = [key for key in executor._client.futures if key.startswith("_tell_when_stored-")]
        assert sorted(executor._client.run(withdraw, keys).values())[-1] == keys
    cluster.scheduler.send_signal(signal.SIGSTOP)  # or the result would be fetched at once
    try:
        release.open()
        eventually(lambda: len(journal.lines()) == 2, "the call has ended")
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: not os.path.exists(f"/proc/{pid}"), "the worker is gone")
    finally:
        cluster.scheduler.send_signal(signal.SIGCONT)
    if size <= 4 << 20:
        assert future.result(LIMIT) == b"x" * size
    else:
        error = future.exception(LIMIT)
        assert isinstance(error, WorkerDied)
        assert "its result was too large" in error.reason
    assert journal.lines() == [str(pid), "stored"]


def _with(executor: DaskExecutor, call: str) -> list[str]:
    """The keys of all that is with the worker that a call is with, as the scheduler has it."""
    there = executor._client.processing().values()
    return next((list(keys) for keys in there if any(key.startswith(call) for key in keys)), [])


@pytest.mark.parametrize("how", ["withdraw", "relieve"])
def test_a_result_that_is_lost_is_not_taken_back(tmp_path: Path, gates: Gates, how: str) -> None:
    """A call that had ended on a lost worker has begun, though no worker that is there says so.

    Dask has put it behind a call of another worker, which has not begun it: asked to stop it, or
    relieved of it, that one does not run it, but nor may it be run anew. What it came to is had
    from what the lost worker has left, without waiting for the call that it is behind.
    """
    journal = gates.journal()
    begun, release = [gates.gate(), gates.gate()], [gates.gate(), gates.gate()]
    with ExitStack() as stack:
        cluster = stack.enter_context(running_cluster(tmp_path))
        executor = stack.enter_context(DaskExecutor(cluster=cluster.address))
        stack.callback(gates.open_all)
        holds = [executor.submit(calls.hold, *each) for each in zip(begun, release, strict=True)]
        for gate in begun:
            gate.wait()
        executor._dispatcher._settler.relieving = False  # it is done by hand below
        future = executor.submit(_store, journal)
        eventually(lambda: _with(executor, "_store-"), "a worker has the call")
        ahead = next(i for i, hold in enumerate(holds) if _key(hold) in _with(executor, "_store-"))
        pids = executor._client.run(os.getpid)
        cluster.scheduler.send_signal(signal.SIGSTOP)  # or the result would be fetched at once
        try:
            release[ahead].open()
            eventually(lambda: len(journal.lines()) == 2, "the call has ended")
            (pid,) = {int(line) for line in journal.lines() if line != "stored"}
            (other,) = (address for address, there in pids.items() if there != pid)
            for process in (psutil.Process(pid).parent(), psutil.Process(pid)):
                assert process is not None
                process.kill()  # the nanny first: the worker is not started again
            eventually(lambda: not os.path.exists(f"/proc/{pid}"), "the worker is gone")
        finally:
            cluster.scheduler.send_signal(signal.SIGCONT)
        eventually(lambda: len(_with(executor, _key(holds[1 - ahead]))) > 1, "it is queued again")
        backend = executor._dispatcher.line().backend
        (key,) = (key for key in executor._client.futures if key.startswith("_store-"))
        if how == "withdraw":
            assert backend.withdraw([key]).result(LIMIT) == set()
        else:
            answer = backend.relieve(_key(holds[1 - ahead]), other, [key]).result(LIMIT)
            assert answer["barred"] == []
        assert future.result(LIMIT) == b"x" * 50_000
    assert len(journal.lines()) == 2


def _hold_and_look_on(started: Gate, release: Gate, journal: Journal) -> None:
    """Write a line when the worker has said that it does not run the call behind this one."""
    from distributed import get_worker

    worker = get_worker()

    def refused() -> bool:
        tasks = [task for key, task in worker.state.tasks.items() if key.startswith("note-")]
        return any(task.state == "memory" for task in tasks) and not worker.batched_stream.buffer

    def look() -> None:
        eventually(refused)
        journal.write("refused")

    threading.Thread(target=look, daemon=True).start()
    calls.hold(started, release)


def test_a_refusal_that_is_lost(tmp_path: Path, gates: Gates) -> None:
    """A call that a worker was told not to begin has not begun, though it is through with that.

    It dies before its word of that has come here. To Dask that was a result, which is lost.
    """
    journal, told = gates.journal(), gates.journal("told")
    begun, release = [gates.gate(), gates.gate()], [gates.gate(), gates.gate()]
    with ExitStack() as stack:
        cluster = stack.enter_context(running_cluster(tmp_path))
        executor = stack.enter_context(DaskExecutor(cluster=cluster.address))
        stack.callback(gates.open_all)
        holds = [
            executor.submit(_hold_and_look_on, *each, told)
            for each in zip(begun, release, strict=True)
        ]
        for gate in begun:
            gate.wait()
        executor._dispatcher._settler.relieving = False
        future = executor.submit(calls.note, journal, 1)
        eventually(lambda: _with(executor, "note-"), "a worker has the call")
        ahead = next(i for i, hold in enumerate(holds) if _key(hold) in _with(executor, "note-"))
        client = executor._client
        (at,) = (at for at, keys in client.processing().items() if _key(future) in keys)
        (pid,) = client.run(os.getpid, workers=[at]).values()
        client.run(withdraw, [_key(future)], workers=[at])
        cluster.scheduler.send_signal(signal.SIGSTOP)
        try:
            release[ahead].open()
            eventually(told.lines, "the worker refuses it")
            for process in (psutil.Process(pid).parent(), psutil.Process(pid)):
                assert process is not None
                process.kill()
            eventually(lambda: not os.path.exists(f"/proc/{pid}"), "the worker is gone")
        finally:
            cluster.scheduler.send_signal(signal.SIGCONT)
        release[1 - ahead].open()
        assert future.result(LIMIT) == 1
    assert journal.lines() == ["1"]


def _tell_news_at_once(dask_scheduler: Any) -> None:
    """Have the next client that registers hear of what another one cancels, at that moment."""
    handle = dask_scheduler.handle_stream

    async def with_news(comm: Any, extra: Any = None) -> None:
        if extra and "client" in extra:
            dask_scheduler.handle_stream = handle
            dask_scheduler.report({"op": "cancelled-keys", "keys": ["another's"]})
        await handle(comm, extra=extra)

    dask_scheduler.handle_stream = with_news


def _nested(executor: DaskExecutor) -> int:
    return executor.submit(calls.identity, 1).result(LIMIT)


@pytest.mark.parametrize("where", ["here", "on a worker"])
def test_another_client_cancels_while_one_registers(tmp_path: Path, where: str) -> None:
    """Dask's client takes that for a part of the scheduler's answer, which it does not expect."""
    with ExitStack() as stack:
        cluster = stack.enter_context(running_cluster(tmp_path, workers=1))
        executor = stack.enter_context(DaskExecutor(cluster=cluster.address))
        executor._client.run_on_scheduler(_tell_news_at_once)
        if where == "here":
            executor = stack.enter_context(DaskExecutor(cluster=cluster.address))
            assert executor.submit(calls.identity, 1).result(LIMIT) == 1
        else:
            assert executor.submit(_nested, executor).result(LIMIT) == 1


def _hear_of_no_copies(dask_scheduler: Any) -> None:
    """As long as that takes, where a worker has just fetched what a call of its needs."""
    dask_scheduler.stream_handlers["add-keys"] = lambda **_: None


@pytest.mark.parametrize("runner", ["lives", "dies"])
def test_a_large_argument_is_lost_under_a_call(tmp_path: Path, gates: Gates, runner: str) -> None:
    """Dask forgets a call if it knows of no worker with the argument; it may run all the same.

    The worker that runs it has fetched the argument, and has told so. The word is on its way when
    the other one dies. The call is not sent again, and what it comes to is not lost.
    """
    journal, release, large = gates.journal(), gates.gate(), os.urandom(2_000_000)
    with ExitStack() as stack:
        cluster = stack.enter_context(running_cluster(tmp_path))
        executor = stack.enter_context(DaskExecutor(cluster=cluster.address))
        stack.callback(gates.open_all)
        assert executor.submit(calls.length, large).result(LIMIT) == len(large)
        client = executor._client
        client.run_on_scheduler(_hear_of_no_copies)
        pids = client.run(os.getpid)
        ((holder,),) = (at for key, at in client.who_has().items() if key.startswith("large-"))
        (other,) = (address for address in pids if address != holder)
        there = executor.with_options(workers=other)
        future = there.submit(_write_and_wait, journal, release, large)
        eventually(lambda: journal.lines() and future.running())
        (state,) = (state for key, state in client.futures.items() if key.startswith("_write_"))
        os.kill(pids[holder], signal.SIGKILL)
        eventually(lambda: state.status == "cancelled", "Dask forgets the call")
        if runner == "dies":
            os.kill(pids[other], signal.SIGKILL)
            assert isinstance(future.exception(LIMIT), WorkerDied)
        else:
            release.open()
            assert future.result(LIMIT) == b"x" * 50_000
        assert executor.submit(calls.length, large).result(LIMIT) == len(large)
    assert journal.lines() == [str(pids[other])]


@pytest.mark.parametrize("used", [False, True])
def test_scheduler_is_stopped(
    executor: DaskExecutor, cluster: Cluster, recwarn: pytest.WarningsRecorder, used: bool
) -> None:
    """A warning says so while it lasts, and all calls end; also where they are the first."""
    if used:
        assert executor.submit(calls.identity, 1).result(LIMIT) == 1
    futures = [executor.submit(calls.nap, 0.01, i) for i in range(100)]
    cluster.scheduler.send_signal(signal.SIGSTOP)
    try:
        more = [executor.submit(calls.nap, 0.01, i) for i in range(100)]
        words = f"the scheduler at {cluster.address} has not answered"
        eventually(lambda: said(words, recwarn), "a warning comes")
    finally:
        cluster.scheduler.send_signal(signal.SIGCONT)
    assert [future.result(LIMIT) for future in (*futures, *more)] == [*range(100)] * 2


def test_worker_is_stopped(
    executor: DaskExecutor, gates: Gates, recwarn: pytest.WarningsRecorder
) -> None:
    """A warning names it while it lasts; then its call ends, which has run once."""
    journal, release = gates.journal(), gates.gate()
    future = executor.submit(_pid_then, journal, release, 1)
    eventually(lambda: journal.lines() and future.running())
    (pid,) = map(int, journal.lines())
    (address,) = (at for at, there in executor._client.run(os.getpid).items() if there == pid)
    os.kill(pid, signal.SIGSTOP)
    try:
        others = [executor.submit(calls.nap, 0.01, i) for i in range(40)]
        wait(others, LIMIT, FIRST_COMPLETED)
        eventually(lambda: said(f"({address}", recwarn), "a warning names it")
        assert said("given no sign", recwarn)
    finally:
        os.kill(pid, signal.SIGCONT)
    release.open()
    assert future.result(LIMIT) == 1
    assert [other.result(LIMIT) for other in others] == list(range(40))
    assert len(journal.lines()) == 1


def _hold_the_gil(journal: Journal) -> str:
    from distributed import get_worker

    journal.write(get_worker().address)
    time.sleep(0.03)  # others are sent meanwhile; less than makes a call slow
    ctypes.PyDLL(None).sleep(10)  # it does not let go of the GIL, as CDLL would
    return "over"


def _note_slowly(journal: Journal, number: int) -> int:
    journal.write(number)
    time.sleep(0.01)
    return number


def test_a_call_holds_the_gil(
    executor: DaskExecutor, gates: Gates, recwarn: pytest.WarningsRecorder
) -> None:
    """A warning names its worker; what others run ends meanwhile; all have run once."""
    journal, other = gates.journal(), gates.journal("other")
    for i in range(40):  # it is known how long they take, so they share tasks
        executor.submit(_note_slowly, gates.journal("before"), i).result(LIMIT)
    future = executor.submit(_hold_the_gil, journal)
    futures = [executor.submit(_note_slowly, other, i) for i in range(400)]
    eventually(lambda: said("holds the GIL", recwarn), "a warning comes")
    assert said(f"({journal.lines()[0]})", recwarn)
    assert not future.done()
    assert sum(one.done() for one in futures) >= 100
    assert future.result(LIMIT) == "over"
    assert [one.result(LIMIT) for one in futures] == list(range(400))
    assert sorted(map(int, other.lines())) == list(range(400))
    assert len(journal.lines()) == 1


def _pause(paused: bool, dask_worker: Any = None) -> None:
    from distributed import Status

    dask_worker.memory_manager.memory_pause_fraction = False  # or it would go on by itself
    dask_worker.status = Status.paused if paused else Status.running


def test_paused_workers(executor: DaskExecutor, recwarn: pytest.WarningsRecorder) -> None:
    """If all are, a warning says so; when they go on, so do the calls."""
    executor._client.run(_pause, True)
    try:
        future = executor.submit(calls.identity, 5)
        eventually(lambda: said("paused", recwarn), "a warning comes")
        assert not future.done()
    finally:
        executor._client.run(_pause, False)
    assert future.result(LIMIT) == 5


def _eat(megabytes: int) -> int:
    eaten = []
    for _ in range(megabytes // 20):
        eaten.append(b"x" * (20 << 20))
        time.sleep(0.01)
    return len(eaten)


def test_memory_limit(executor: DaskExecutor) -> None:
    """A call whose worker its nanny ends for its memory says so, and has run once."""
    small = executor.with_options(workers="small")
    assert small.submit(calls.identity, 1).result(LIMIT) == 1
    error = small.submit(_eat, 2000).exception(LIMIT)
    assert isinstance(error, WorkerDied)
    assert "memory" in error.reason
    assert "400 MiB" in error.reason
    assert error.attempts == 1
