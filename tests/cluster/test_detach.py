"""Leaving an executor with its calls, and coming back to both from another process."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Future, wait
from pathlib import Path

import pytest
from daskexec_testing import calls
from daskexec_testing.gates import Gate, Gates, Journal, eventually
from daskexec_testing.kept import all_gone, family, state_folder
from daskexec_testing.processes import Program

from daskexec import (
    ClusterUnreachable,
    DaskExecutor,
    Detached,
    RemoteError,
    WorkerDied,
    _kept,
    _state,
)

pytestmark = pytest.mark.timeout(120)

LIMIT = 60

SCRIPT = """
import os, signal, sys, time
from daskexec import DaskExecutor
from daskexec_testing import calls
from daskexec_testing.gates import Gate, Journal
started, release, journal = Gate(sys.argv[1]), Gate(sys.argv[2]), Journal(sys.argv[3])
"""


@pytest.fixture(autouse=True)
def state(tmp_path: Path, gates: Gates) -> Iterator[Path]:
    with state_folder(tmp_path / "state") as folder:
        yield folder
        gates.open_all()


def start(workers: int = 2, **options: object) -> DaskExecutor:
    return DaskExecutor(workers, cluster="local", **options)  # type: ignore[arg-type]


def entry_of(name: str) -> _state.Entry:
    entry = _state.find(name)
    assert entry is not None
    return entry


def wait_until_idle(name: str) -> None:
    """Wait until all calls that were left are over."""
    eventually(lambda: _kept.tell(entry_of(name), "status")["pending"] == 0, "all is done")


def test_killed_after_it_has_left(tmp_path: Path, gates: Gates) -> None:
    """What a client has left goes on after its SIGKILL; each call runs once; all comes back."""
    started, release, journal = gates.gate(), gates.gate(), gates.journal()
    script = (
        SCRIPT
        + """
executor = DaskExecutor(2, cluster="local")
held = executor.submit(calls.hold_and_note, started, release, journal, "held")
started.wait()
quick = [executor.submit(calls.note, journal, i) for i in range(3000)]
slow = [executor.submit(calls.nap_and_note, 0.01, journal, f"slow{i}") for i in range(100)]
mapped = executor.map(calls.note, [journal] * 500, [f"map{i}" for i in range(500)])
quick[100].result()
executor.detach("night", futures={"held": held, "early": quick[0], "late": quick[-1]})
print(executor)
sys.stdout.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""
    )
    program = Program(script, tmp_path, started.path, release.path, journal.path)
    out, err = program.process.communicate(timeout=60)
    assert program.process.returncode == -signal.SIGKILL
    assert out == "<DaskExecutor max_workers=2 detached as 'night'>\n"
    assert err == ""
    assert _kept.tell(entry_of("night"), "status")["pending"] > 0
    release.open()
    with DaskExecutor.attach("night") as executor:
        futures = executor.futures
        assert list(futures)[:3] == ["held", "early", "late"]
        assert futures["held"].result(LIMIT) == "held"
        assert (futures["early"].result(LIMIT), futures["late"].result(LIMIT)) == (0, 2999)
        assert not wait(futures.values(), timeout=LIMIT).not_done
        for name, future in futures.items():
            if str(name).startswith("note["):
                assert future.result() == f"map{str(name)[5:-1]}"
        assert executor.submit(calls.add, 1, 2).result(LIMIT) == 3
    expected = {"held", *map(str, range(3000)), *(f"slow{i}" for i in range(100))}
    expected |= {f"map{i}" for i in range(500)}
    lines = Counter(journal.lines())
    assert {line: times for line, times in lines.items() if times > 1} == {}
    assert set(lines) == expected
    left = program.end(grace=20)
    assert not left.processes, left.processes_told
    assert left.files == []


@pytest.mark.parametrize("seed", range(4))
def test_left_at_any_moment(gates: Gates, seed: int) -> None:
    """Whenever it is left, every call runs once, and what it comes to is on one side."""
    chance = random.Random(seed)
    journal = gates.journal()
    executor = start(sharing=chance.choice(["auto", "always", "never"]))
    futures = {}
    for i in range(400):
        nap = chance.choice([0, 0, 0, 0.001, 0.02])
        futures[f"f{i}"] = executor.submit(calls.nap_and_note, nap, journal, i)
    time.sleep(chance.random() * 0.7)  # the moment is what is tried here
    executor.detach("night", futures=futures)
    with DaskExecutor.attach("night") as again:
        assert list(again.futures) == list(futures)
        assert [f.result(LIMIT) for f in again.futures.values()] == list(range(400))
    assert sorted(map(int, journal.lines())) == list(range(400))


def test_futures_that_are_here(gates: Gates) -> None:
    """Here, what is done stays done; what is pending raises Detached and says how to get it."""
    executor = start()
    done = executor.submit(calls.identity, "done")
    assert done.result(LIMIT) == "done"
    release = gates.gate()
    pending = [executor.submit(calls.wait_for, release, i) for i in range(5)]
    results = executor.map(calls.wait_for, [release] * 3)
    called: list[Future[int]] = []
    pending[4].add_done_callback(called.append)
    executor.detach("night", futures=[done, *pending[:2]])
    assert done.result() == "done"
    with pytest.raises(Detached, match=r"attach\('night'\)\.futures\[1\]") as info:
        pending[0].result(LIMIT)
    assert (info.value.cluster, info.value.name) == ("night", 1)
    with pytest.raises(Detached, match=r"futures\['wait_for-5'\]"):
        pending[4].result(LIMIT)
    assert called == [pending[4]]
    with pytest.raises(Detached):
        next(results)
    with pytest.raises(Detached):
        executor.submit(calls.identity, 1)
    executor.shutdown()
    release.open()
    with DaskExecutor.attach("night") as again:
        names = [0, 1, 2, "wait_for-3", "wait_for-4", "wait_for-5"]
        assert list(again.futures) == [*names, *(f"wait_for[{i}]" for i in range(3))]
        assert [again.futures[name].result(LIMIT) for name in names] == ["done", 0, 1, 2, 3, 4]


def test_failures(gates: Gates) -> None:
    """Exceptions, and results and arguments that do not pickle, are what they are elsewhere."""
    executor = start()
    release = gates.gate()
    hold = [executor.submit(calls.wait_for, release) for _ in range(2)]
    futures = {
        "raises": executor.submit(calls.inverse, 0),
        "unpicklable result": executor.submit(calls.make_failing_to_pickle),
        "unloadable result": executor.submit(calls.make_failing_to_unpickle),
        "local error": executor.submit(calls.raise_many_arguments),
        "exits": executor.submit(calls.leave, 3),
        "cancelled": executor.submit(calls.identity, 1),
        "unpicklable": executor.submit(calls.identity, (i for i in "generator")),
    }
    assert futures["cancelled"].cancel()
    executor.detach("night", futures=futures)
    with pytest.raises(TypeError, match="generator"):
        futures["unpicklable"].result(LIMIT)
    release.open()
    with DaskExecutor.attach("night") as again:
        there = again.futures
        with pytest.raises(ZeroDivisionError) as info:
            there["raises"].result(LIMIT)
        assert "in inverse" in str(info.value.__cause__)
        for name in ("unpicklable result", "unloadable result", "local error"):
            assert there[name].exception(LIMIT) is not None, name
        with pytest.raises(SystemExit):
            there["exits"].result(LIMIT)
        with pytest.raises(TypeError, match="generator"):
            there["unpicklable"].result(LIMIT)
        with pytest.raises(CancelledError):
            there["cancelled"].result(LIMIT)
        assert len(there) == len(futures) + len(hold)


def test_functions_of_main(tmp_path: Path, gates: Gates) -> None:
    """Functions and classes of a script's ``__main__`` run, and come back to another script."""
    script = (
        SCRIPT
        + """
class Box:
    def __init__(self, value): self.value = value
    def double(self): return Box(2 * self.value)
executor = DaskExecutor(1, cluster="local")
held = executor.submit(lambda: (started.open(), release.wait()))
futures = {"box": executor.submit(Box(4).double), "lambda": executor.submit(lambda: 5)}
started.wait()
executor.detach("night", futures=futures)
"""
    )
    started, release = gates.gate(), gates.gate()
    program = Program(script, tmp_path, started.path, release.path, "")
    assert program.process.communicate(timeout=60) == ("", "")
    assert program.process.returncode == 0
    release.open()
    with DaskExecutor.attach("night") as executor:
        assert executor.futures["lambda"].result(LIMIT) == 5
        assert executor.futures["box"].result(LIMIT).value == 8


def test_options_survive(tmp_path: Path, gates: Gates) -> None:
    """Priorities, retries, names and places of calls are kept."""
    executor = start(1)
    journal, started, release = gates.gate(), gates.gate(), gates.gate()
    journal = gates.journal()
    held = executor.submit(calls.hold, started, release)
    started.wait()
    low = [executor.submit(calls.note, journal, f"low{i}") for i in range(3)]
    high = executor.with_options(priority=5).submit(calls.note, journal, "high")
    again = executor.with_options(retries=2, name="twice").submit(calls.fail_twice, tmp_path / "n")
    nowhere = executor.with_options(resources={"MOON": 1}).submit(calls.note, journal, "moon")
    executor.detach("night", futures={"held": held, "again": again, "nowhere": nowhere})
    release.open()
    with DaskExecutor.attach("night") as back:
        futures = back.futures
        nowhere = futures.pop("nowhere")
        assert not wait(futures.values(), timeout=LIMIT).not_done
        assert futures["again"].exception() is None
        assert futures["again"].key.startswith("twice-")
        assert journal.lines() == ["high", "low0", "low1", "low2"]
        assert len(futures) == 2 + len(low) + bool(high)
        assert nowhere.cancel()


def test_retries_that_were_used_up(tmp_path: Path, gates: Gates) -> None:
    """A call that has begun is still tried again after it was left, and no more than asked."""
    executor = start(1)
    started, release, journal = gates.gate(), gates.gate(), gates.journal()
    view = executor.with_options(retries=2)
    future = view.submit(_fail, started, release, journal)
    started.wait()
    executor.detach("night", futures=[future])
    release.open()
    with DaskExecutor.attach("night") as back, pytest.raises(ValueError, match="again"):
        back.futures[0].result(LIMIT)
    assert journal.lines() == ["begun"] * 3


def _fail(started: Gate, release: Gate, journal: Journal) -> None:
    journal.write("begun")
    started.open()
    release.wait()
    raise ValueError("again")


def test_initializer(gates: Gates) -> None:
    """The initializer runs once in each worker, and calls that were left find its work done."""
    journal, started, release = gates.journal(), gates.gate(), gates.gate()
    executor = start(1, initializer=calls.initialize_and_note, initargs=(journal,))
    executor.submit(calls.hold, started, release)
    started.wait()
    left = [executor.submit(calls.pid) for _ in range(5)]
    executor.detach("night", futures=left)
    release.open()
    with DaskExecutor.attach("night") as back:
        assert len({back.futures[i].result(LIMIT) for i in range(5)}) == 1
    assert len(journal.lines()) == 1


def test_large_objects(gates: Gates) -> None:
    """Large arguments and results get through, of calls that had begun and of others."""
    np = pytest.importorskip("numpy")
    executor = start(2)
    started, release = gates.gate(), gates.gate()
    array = np.arange(1 << 18)
    data = bytes(3 << 20)
    held = executor.submit(_hold_array, started, release, array)
    started.wait()
    hold = executor.submit(calls.wait_for, release)
    sums = [executor.submit(_total, array, data) for _ in range(5)]
    executor.detach("night", futures={"held": held, **{f"s{i}": f for i, f in enumerate(sums)}})
    assert hold.exception(LIMIT) is not None
    release.open()
    with DaskExecutor.attach("night") as back:
        twice = back.futures["held"].result(LIMIT)
        assert (twice == 2 * array).all()
        twice[0] = 1  # it is the caller's own
        for i in range(5):
            assert back.futures[f"s{i}"].result(LIMIT) == array.sum() + len(data)


def test_values_that_are_with_the_workers(gates: Gates) -> None:
    """What calls need of others comes along, as does what nobody has asked for so far."""
    executor = start(2)
    started, release = [gates.gate(), gates.gate()], gates.gate()
    value = executor.submit(calls.filled, 2 << 20, release)
    step = executor.submit(calls.identity, [value])
    length = executor.submit(len, step)
    release.open()
    assert length.result(LIMIT) == 1
    release = gates.gate()
    running = [executor.submit(_hold_length, gate, release, step) for gate in started]
    for gate in started:
        gate.wait()
    queued = [executor.submit(_hold_length, started[0], release, step) for _ in range(3)]
    assert value.is_remote()
    futures = {f"f{i}": future for i, future in enumerate([*running, *queued])}
    executor.detach("night", futures={"value": value, **futures})
    assert isinstance(step.exception(LIMIT), Detached)
    release.open()
    with DaskExecutor.attach("night") as back:
        assert len(back.futures["value"].result(LIMIT)) == 2 << 20
        assert [back.futures[name].result(LIMIT) for name in futures] == [2 << 20] * 5
        assert len(back.futures[f"identity-{step._number}"].result(LIMIT)[0]) == 2 << 20


def _hold_length(started: Gate, release: Gate, values: list[bytes]) -> int:
    started.open()
    release.wait()
    return len(values[0])


def _hold_array(started: Gate, release: Gate, array: object) -> object:
    started.open()
    release.wait()
    return array * 2  # type: ignore[operator]


def _total(array: object, data: bytes) -> int:
    return int(array.sum()) + len(data)  # type: ignore[attr-defined]


def test_crash_after_detaching(gates: Gates) -> None:
    """A call that kills its worker fails alone, with WorkerDied, whoever waits for it."""
    executor = start(2)
    started, release = gates.gate(), gates.gate()
    executor.submit(calls.hold, started, release)
    hold = executor.submit(calls.wait_for, release)
    started.wait()
    killer = executor.submit(calls.exit_hard)
    fine = [executor.submit(calls.nap, 0.01, i) for i in range(10)]
    executor.detach(
        "night", futures={"killer": killer, **{f"f{i}": f for i, f in enumerate(fine)}}
    )
    assert isinstance(hold.exception(LIMIT), Detached)
    release.open()
    with DaskExecutor.attach("night") as back:
        assert [back.futures[f"f{i}"].result(LIMIT) for i in range(10)] == list(range(10))
        assert isinstance(back.futures["killer"].exception(LIMIT), WorkerDied)


def test_futures_of_an_attached_executor(gates: Gates) -> None:
    """They behave as those of any executor: states, callbacks, wait, cancel."""
    executor = start(1)
    started, release = gates.gate(), gates.gate()
    running = executor.submit(calls.hold, started, release, "value")
    waiting = [executor.submit(calls.identity, i) for i in range(10)]
    started.wait()
    executor.detach("night", futures=[running, *waiting])
    with DaskExecutor.attach("night") as back:
        futures = back.futures
        eventually(futures[0].running, "it says that it runs")
        assert not futures[0].cancel()
        assert futures[3].cancel()
        assert futures[3].cancelled()
        with pytest.raises(CancelledError):
            futures[3].result(0)
        with pytest.raises(TimeoutError):
            futures[1].result(0)
        called = gates.gate()
        futures[1].add_done_callback(lambda done: futures[2].result(LIMIT) and called.open())
        # What is cancelled is counted out by the thread that settles calls.
        said = "<DaskExecutor max_workers=1 running, 10 calls pending>"
        eventually(lambda: repr(back) == said)
        release.open()
        assert not wait(futures.values(), timeout=LIMIT).not_done
        called.wait()
        assert futures[0].result() == "value"
        nested = back.submit(calls.add, futures[1], 5)
        assert nested.result(LIMIT) == 5
        assert back.futures is not futures
    assert back.futures == futures


def test_shutdown_of_an_attached_executor(gates: Gates, state: Path) -> None:
    """It waits for what was left, or cancels it if told to, and then ends all."""
    executor = start(1)
    started, release, journal = gates.gate(), gates.gate(), gates.journal()
    executor.submit(calls.hold, started, release)
    started.wait()
    left = [executor.submit(calls.note, journal, i) for i in range(20)]
    executor.detach("night", futures=left)
    processes = family(entry_of("night").pid)
    back = DaskExecutor.attach("night")
    futures = back.futures
    back.shutdown(wait=False, cancel_futures=True)
    eventually(lambda: all(futures[i].cancelled() for i in range(20)), "all are cancelled")
    release.open()
    back.shutdown()
    assert journal.lines() == []
    assert sum(future.cancelled() for future in futures.values()) == 20  # one was running
    all_gone(processes)
    assert os.listdir(state) == []


def test_leave_again(gates: Gates) -> None:
    """An attached executor can be left again, by another name, with more calls."""
    executor = start(1)
    started, release, journal = gates.gate(), gates.gate(), gates.journal()
    first = executor.submit(calls.hold, started, release, "first")
    old = executor.submit(calls.note, journal, "old")
    started.wait()
    executor.detach("monday", futures={"first": first, "old": old})
    back = DaskExecutor.attach("monday")
    new = back.submit(calls.note, journal, "new")
    with pytest.raises(ValueError, match="'first'"):
        back.detach("tuesday", futures={"first": new})
    with pytest.raises(ValueError, match="another executor"):
        back.detach("tuesday", futures={"mine": back.futures["old"]})
    back.detach("tuesday", futures={"new": new})
    with pytest.raises(Detached, match=r"attach\('tuesday'\)\.futures\['old'\]"):
        back.futures["old"].result(LIMIT)
    release.open()
    with pytest.raises(ValueError, match="tuesday"):
        DaskExecutor.attach("monday")
    with DaskExecutor.attach("tuesday") as third:
        assert {n: f.result(LIMIT) for n, f in third.futures.items()} == {
            "first": "first",
            "old": "old",
            "new": "new",
        }
    assert sorted(journal.lines()) == ["new", "old"]


def test_attached_client_dies(tmp_path: Path, gates: Gates) -> None:
    """When the process that has attached dies, the cluster and its calls are as before."""
    executor = start(1)
    started, release = gates.gate(), gates.gate()
    future = executor.submit(calls.hold, started, release, "value")
    started.wait()
    executor.detach("night", futures=[future])
    script = (
        SCRIPT
        + """
executor = DaskExecutor.attach("night")
executor.submit(calls.identity, 1)
started.open()
executor.futures[0].result()
"""
    )
    attached = gates.gate()
    program = Program(script, tmp_path, attached.path, "", "")
    attached.wait()
    with pytest.raises(RuntimeError, match=f"in use by process {program.process.pid}"):
        DaskExecutor.attach("night")
    program.signal(signal.SIGKILL)
    program.process.communicate(timeout=30)
    eventually(lambda: entry_of("night").client == 0, "the keeper knows")
    release.open()
    with DaskExecutor.attach("night") as back:
        assert back.futures[0].result(LIMIT) == "value"
        assert back.submit(calls.add, 1, 2).result(LIMIT) == 3


def test_names(gates: Gates) -> None:
    """A wrong name is told from the right ones; a name in use, or no name at all, is refused."""
    with pytest.raises(ValueError, match="None is there"):
        DaskExecutor.attach("night")
    executor = start(1)
    assert executor.submit(calls.identity, 1).result(LIMIT) == 1
    with pytest.raises(ValueError, match="a name has up to 64 letters"):
        executor.detach("../night")
    executor.detach("night")
    with pytest.raises(ValueError, match=r"'nigth'.*Did you mean 'night'\? There are: night\."):
        DaskExecutor.attach("nigth")
    with start(1) as other:
        with pytest.raises(ValueError, match="'night' already"):
            other.detach("night")
        (name,) = {e.name for e in _state.entries() if not e.left}
        with pytest.raises(ValueError, match="no cluster was left as"):
            DaskExecutor.attach(name)
        assert other.submit(calls.identity, 2).result(LIMIT) == 2
    with DaskExecutor.attach("night") as back:
        assert back.futures == {}
        assert back.submit(calls.identity, 3).result(LIMIT) == 3


def test_what_cannot_be_left(gates: Gates) -> None:
    """Executors that would take their cluster along say what to do; they go on."""
    with DaskExecutor(1) as executor:
        with pytest.raises(RuntimeError, match="cluster='local'"):
            executor.detach("night")
        assert executor.submit(calls.identity, 1).result(LIMIT) == 1
        release = gates.gate()
        foreign = executor.submit(calls.wait_for, release, 1)
        with start(2) as kept:
            with pytest.raises(ValueError, match="another executor"):
                kept.detach("night", futures=[foreign])
            with pytest.raises(TypeError, match="no future but int"):
                kept.detach("night", futures=[3])  # type: ignore[list-item]
            with pytest.raises(ValueError, match="greater than 0"):
                kept.detach("night", idle_timeout="0s")
            first = kept.submit(calls.wait_for, release, 1)
            after = kept.submit(calls.add, first, 1)
            with pytest.raises(RuntimeError, match="1 call cannot be left: futures"):
                kept.detach("night")
            assert [e.left for e in _state.entries()] == [False]
            assert "night" not in os.listdir(_state.clusters())
            release.open()
            assert after.result(LIMIT) == 2
            assert kept.submit(calls.identity, 5).result(LIMIT) == 5


def test_ends_when_idle(gates: Gates) -> None:
    """Without work and client it ends after the idle timeout; the results are kept."""
    executor = start(1)
    started, release = gates.gate(), gates.gate()
    future = executor.submit(calls.hold, started, release, "value")
    bad = executor.submit(calls.inverse, 0)
    started.wait()
    executor.detach("night", futures={"good": future, "bad": bad}, idle_timeout=0.2)
    entry = entry_of("night")
    processes = family(entry.pid)
    release.open()
    all_gone(processes)
    assert not Path(entry.socket).parent.exists()
    with pytest.raises(ValueError, match="results of one are kept"), start(1) as other:
        other.detach("night")
    for _ in range(2):  # they can be had as often as one likes
        with DaskExecutor.attach("night") as back:
            assert back.futures["good"].result(0) == "value"
            assert isinstance(back.futures["bad"].exception(0), ZeroDivisionError)
            with pytest.raises(BrokenExecutor, match=r"ended at .*no client for 0.2 s"):
                back.submit(calls.identity, 1)


def test_ends_when_kept_no_longer(gates: Gates, state: Path) -> None:
    """When `keep` is over it ends whatever it does, and nothing is left."""
    executor = start(1)
    started = gates.gate()
    executor.submit(calls.hold, started, gates.gate())
    started.wait()
    executor.detach("night", keep=1)
    processes = family(entry_of("night").pid)
    all_gone(processes)
    eventually(lambda: not _state.entries(), "it is forgotten")
    assert os.listdir(state) == []


def test_ends_when_nobody_can_come_back(gates: Gates) -> None:
    """When the folder of a cluster that was left is removed, the cluster ends."""
    executor = start(1)
    started = gates.gate()
    held = executor.submit(calls.hold, started, gates.gate())
    started.wait()
    executor.detach("night", futures=[held])
    entry = entry_of("night")
    processes = family(entry.pid)
    shutil.rmtree(entry.folder)
    gates.open_all()
    all_gone(processes)
    assert not Path(entry.socket).parent.exists()


def test_keeper_killed(gates: Gates) -> None:
    """Of a keeper that was killed, results that were written are there, and the rest says so."""
    executor = start(1)
    started = gates.gate()
    quick = executor.submit(calls.identity, "quick")
    held = executor.submit(calls.hold, started, gates.gate())
    started.wait()
    executor.detach("night", futures={"quick": quick, "held": held})
    back = DaskExecutor.attach("night")
    assert back.futures["quick"].result(LIMIT) == "quick"
    entry = entry_of("night")
    processes = family(entry.pid)
    os.kill(entry.pid, signal.SIGKILL)
    with pytest.raises(BrokenExecutor, match=f"process {entry.pid} that keeps .* has ended"):
        back.futures["held"].result(LIMIT)
    back.shutdown()
    gates.open_all()
    all_gone(processes)
    with DaskExecutor.attach("night") as again:
        assert again.futures["quick"].result(0) == "quick"
        with pytest.raises(BrokenExecutor, match="ended without a word"):
            again.futures["held"].result(0)


def test_stopped(gates: Gates) -> None:
    """What is stopped by its name says so to those who come for the results."""
    executor = start(1)
    started = gates.gate()
    held = executor.submit(calls.hold, started, gates.gate())
    started.wait()
    executor.detach("night", futures=[held])
    processes = family(entry_of("night").pid)
    status = _kept.tell(entry_of("night"), "status")
    assert (status["pending"], status["done"]) == (1, 0)
    assert status["ends"] > time.time() + 6 * 86400
    _kept.tell(entry_of("night"), "stop")
    gates.open_all()
    all_gone(processes)
    with DaskExecutor.attach("night") as back, pytest.raises(BrokenExecutor, match="was told to"):
        back.futures[0].result(0)


def test_another_host(gates: Gates) -> None:
    """What was left on another host is to be attached there."""
    executor = start(1)
    executor.detach("night")
    entry = entry_of("night")
    entry.host = "login7.example"
    entry.save()
    with pytest.raises(ClusterUnreachable, match=r"left on the host login7\.example"):
        DaskExecutor.attach("night")
    entry.host = os.uname().nodename
    entry.save()


def test_modules_that_are_not_here(gates: Gates, tmp_path: Path) -> None:
    """An exception of a type that this process cannot import comes as RemoteError."""
    (tmp_path / "theirs.py").write_text(
        "class Theirs(Exception): pass\n"
        "def raise_it(gate):\n    gate.wait()\n    raise Theirs('x')\n"
    )
    script = (
        SCRIPT
        + """
import theirs
executor = DaskExecutor(1, cluster="local")
future = executor.submit(theirs.raise_it, release)
executor.detach("night", futures=[future])
"""
    )
    release = gates.gate()
    program = Program(script, tmp_path, "", release.path, "")
    assert program.process.communicate(timeout=60) == ("", "")
    release.open()
    with DaskExecutor.attach("night") as back, pytest.raises(RemoteError, match=r"theirs\.Theirs"):
        back.futures[0].result(LIMIT)
