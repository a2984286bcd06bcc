"""Faults that an executor does not survive, and what it says; and a backlog that it does."""

from __future__ import annotations

import ctypes
import os
import signal
from concurrent.futures import BrokenExecutor, wait
from pathlib import Path

import psutil
import pytest
from daskexec_testing import calls
from daskexec_testing.gates import Gate, Gates, Journal, eventually, said
from daskexec_testing.processes import Program, running_cluster

from daskexec import DaskExecutor, SchedulerLost, WorkerDied

pytestmark = pytest.mark.timeout(90)

LIMIT = 30


def _note_pid_and_wait(journal: Journal, release: Gate) -> None:
    journal.write(os.getpid())
    release.wait()


def test_scheduler_is_restarted(tmp_path: Path, gates: Gates) -> None:
    """Another scheduler on the same port knows of nothing: all futures fail, and so do submits."""
    with running_cluster(tmp_path, 1) as cluster:
        executor = DaskExecutor(cluster=cluster.address)
        started = gates.gate()
        futures = [executor.submit(calls.hold, started, gates.gate())]
        futures += [executor.submit(calls.identity, i) for i in range(20)]
        started.wait()
        cluster.scheduler.kill()
        cluster.scheduler.wait()
        cluster.scheduler = cluster._start(
            "scheduler", "--host", "127.0.0.1", "--port", str(cluster.port), "--no-dashboard"
        )
        assert not wait(futures, LIMIT).not_done
        for future in futures:
            assert isinstance(future.exception(), SchedulerLost)
            assert cluster.address in str(future.exception())
        with pytest.raises(BrokenExecutor):
            executor.submit(calls.identity, 1).result(LIMIT)
        gates.open_all()
        executor.shutdown()


def test_all_workers_are_gone(
    tmp_path: Path, gates: Gates, recwarn: pytest.WarningsRecorder
) -> None:
    """A warning comes within seconds; after ``worker_timeout`` calls fail with the reason."""
    with running_cluster(tmp_path, 1) as cluster:
        executor = DaskExecutor(cluster=cluster.address, warn_after=0.5, worker_timeout=3)
        assert executor.submit(calls.identity, 1).result(LIMIT) == 1
        (nanny,) = cluster.workers
        worker = psutil.Process(nanny.pid).children(recursive=True)
        for process in [psutil.Process(nanny.pid), *worker]:
            os.kill(process.pid, signal.SIGKILL)
        futures = [executor.submit(calls.identity, i) for i in range(20)]
        eventually(lambda: said("no worker on the cluster", recwarn), "a warning comes")
        assert not wait(futures, LIMIT).not_done
        for future in futures:
            assert isinstance(future.exception(), BrokenExecutor)
        executor.shutdown()


def test_cluster_is_closed(gates: Gates) -> None:
    """When the cluster object is closed under us, pending futures fail with BrokenExecutor."""
    from distributed import LocalCluster

    cluster = LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0"
    )
    executor = DaskExecutor(cluster=cluster)
    started, release = gates.gate(), gates.gate()
    futures = [executor.submit(calls.hold, started, release)]
    futures += [executor.submit(calls.identity, i) for i in range(20)]
    started.wait()
    release.open()  # a thread of this process: it must end
    cluster.close()
    assert not wait(futures, LIMIT).not_done
    errors = [future.exception() for future in futures if future.exception()]
    assert all(isinstance(error, BrokenExecutor) for error in errors)
    with pytest.raises(BrokenExecutor):
        executor.submit(calls.identity, 1).result(LIMIT)
    executor.shutdown()


@pytest.mark.parametrize("nanny", [True, False])
def test_a_worker_is_removed_for_its_silence(
    tmp_path: Path, gates: Gates, monkeypatch: pytest.MonkeyPatch, nanny: bool
) -> None:
    """The error says that it was, and, without a nanny, that the call may still be running."""
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL", "5s")  # Dask takes no less
    journal, release = gates.journal(), gates.gate()
    with running_cluster(tmp_path, 0) as cluster:
        for name in ("first", "second"):
            cluster.add_worker(name, 1, *(() if nanny else ("--no-nanny",)))
        with DaskExecutor(cluster=cluster.address) as executor:
            future = executor.submit(_note_pid_and_wait, journal, release)
            eventually(lambda: journal.lines() and future.running())
            pid = int(journal.lines()[0])
            os.kill(pid, signal.SIGSTOP)
            try:
                error = future.exception(LIMIT)
            finally:
                if psutil.pid_exists(pid):
                    os.kill(pid, signal.SIGCONT)
            assert isinstance(error, WorkerDied)
            assert "removed it, as it had given no sign for 5 s" in error.reason
            assert ("may still be running there" in error.reason) is not nanny
            assert ("had its nanny end its process" in error.reason) is nanny
            assert error.attempts == 1
            release.open()
            assert executor.submit(calls.identity, 1).result(LIMIT) == 1
    assert len(journal.lines()) == 1


def _note_and_nap(journal: Journal, number: int, seconds: float) -> int:
    journal.write(number)
    # Without letting go of the GIL: when it goes on the worker hears of nothing before this ends.
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))
    return number


def test_one_that_was_removed_goes_on(
    tmp_path: Path, gates: Gates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has queued was run elsewhere meanwhile, and is not run there again."""
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL", "5s")
    journal = gates.journal()
    with running_cluster(tmp_path, 0) as cluster:
        for name in ("first", "second", "third"):
            cluster.add_worker(name, 1, "--no-nanny")
        with DaskExecutor(cluster=cluster.address) as executor:
            executor._client.wait_for_workers(3, timeout=LIMIT)
            for i in range(60):  # it is known how long they take
                executor.submit(_note_and_nap, gates.journal("other"), i, 0.01).result(LIMIT)
            pids = executor._client.run(os.getpid)
            futures = [executor.submit(_note_and_nap, journal, i, 1.0) for i in range(3)]
            futures += [executor.submit(_note_and_nap, journal, i, 0.01) for i in range(3, 100)]
            eventually(lambda: len(journal.lines()) >= 3, "all workers have begun one")
            stopped = dict(sorted(pids.items())[:2])
            for pid in stopped.values():
                os.kill(pid, signal.SIGSTOP)
            try:
                there = executor._client.nthreads
                eventually(lambda: there().keys().isdisjoint(stopped), "they are removed", LIMIT)
            finally:
                for pid in stopped.values():
                    os.kill(pid, signal.SIGCONT)
            wait(futures, LIMIT)
            processes = [process for process in cluster.workers if process.pid in stopped.values()]
            eventually(lambda: None not in [process.poll() for process in processes], "they end")
            died = [future for future in futures if future.exception(0)]
            assert all(isinstance(future.exception(0), WorkerDied) for future in died)
            assert len(died) <= 2  # what ran there when it was stopped
    lines = sorted(map(int, journal.lines()))
    assert lines == sorted(set(lines))


BACKLOG = """
import gc, sys, time
import psutil
from daskexec import DaskExecutor
from daskexec_testing import calls
from daskexec_testing.gates import Gate

COUNT = 100_000
me, scheduler = psutil.Process(), psutil.Process(int(sys.argv[2]))

def rss(process):
    gc.collect()
    return process.memory_info().rss

if __name__ == "__main__":
    with DaskExecutor(cluster=sys.argv[1]) as executor:
        for _ in range(3):
            executor.submit(calls.identity, 0).result(30)
        after = []
        for turn in "ab":
            gate, started = Gate(sys.argv[3] + turn), Gate(sys.argv[3] + turn + "-started")
            held = executor.submit(calls.hold, started, gate)
            started.wait()
            mine, theirs, blocks = rss(me), rss(scheduler), sys.getallocatedblocks()
            futures = [executor.submit(calls.identity, i) for i in range(COUNT)]
            pending = (rss(me) - mine) / COUNT
            grown = (rss(scheduler) - theirs) / 1e6
            gate.open()
            assert [future.result(60) for future in futures] == list(range(COUNT))
            del futures, held
            after.append(rss(me))
            left = sys.getallocatedblocks() / blocks
            print(f"{pending:.0f} bytes a pending call; the scheduler grew by {grown:.1f} MB; "
                  f"{left:.2f} times the objects before are left")
            assert pending <= 2200 and grown < 20 and left <= 1.2, "too much"
    assert after[1] < 1.2 * after[0], after
"""


def test_many_pending_calls(tmp_path: Path) -> None:
    """100,000 take at most 2.2 kB each here, and nothing at the scheduler; nothing of it stays.

    What a process has given back its allocator may keep, for the next time.
    """
    with running_cluster(tmp_path, 1) as cluster:
        scheduler = str(cluster.scheduler.pid)
        program = Program(BACKLOG, tmp_path, cluster.address, scheduler, str(tmp_path / "gate"))
        ended = program.end(60, grace=0)  # Dask's own scratch folder stays
    print(ended.out)
    assert ended.code == 0, ended.out + ended.err
