"""Large arguments cross the wire once for each worker, and nobody can tell but by the speed."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import signal
import struct
import time
import warnings
from array import array
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from daskexec_testing import large
from daskexec_testing.gates import Gates
from daskexec_testing.large import MIB, Table

from daskexec import DaskExecutor, WorkerDied

LIMIT = 60
SIZE = 4 * MIB
CALLS = 60


@pytest.fixture(scope="module")
def executor() -> Iterator[DaskExecutor]:
    with DaskExecutor(2) as executor:
        client_of(executor).wait_for_workers(2, LIMIT)
        yield executor


def client_of(executor: DaskExecutor) -> Any:
    return executor._dispatcher.line().backend.client  # type: ignore[attr-defined]


@contextlib.contextmanager
def at_most(executor: DaskExecutor, size: float) -> Iterator[None]:
    """Check that not much more crosses the wire: written here, or sent by the workers.

    Half as much again may: a worker that starts a call with an object while the object is being
    copied to it fetches it a second time (Dask's ``replicate`` does not see fetches).
    """
    client = client_of(executor)
    before = large.sent_by_workers(client)
    with large.counted() as wire:
        yield
        written = wire.written
    sent = large.sent_by_workers(client) - before
    assert size / 4 < written + sent <= 1.7 * size, (written / MIB, sent / MIB)


def eventually(holds: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


_fresh = itertools.count(1)


def zeros() -> bytearray:
    """Zeros, and an end that no other test's object has: equal ones would be there already."""
    data = bytearray(SIZE)
    data[-8:] = struct.pack("d", next(_fresh))
    return data


MAKERS: list[Callable[[], Any]] = [
    lambda: bytes(zeros()),
    zeros,
    lambda: array("d", zeros()),
    lambda: array("d", zeros()).tolist(),
]


@pytest.mark.parametrize("make", MAKERS, ids=["bytes", "bytearray", "array", "list"])
def test_submit(executor: DaskExecutor, make: Callable[[], Any]) -> None:
    """Many calls with one object: it goes to each of two workers once."""
    data = make()
    with at_most(executor, 2 * SIZE):
        futures = [executor.submit(large.first, data, i) for i in range(CALLS)]
        assert [f.result(LIMIT) for f in futures] == [(data[0], i) for i in range(CALLS)]


def test_one_after_the_other(executor: DaskExecutor) -> None:
    """So it is when each call waits for the one before."""
    data = zeros()
    with at_most(executor, 2 * SIZE):
        for i in range(20):
            assert executor.submit(large.first, data, i).result(LIMIT) == (0, i)


@pytest.mark.parametrize("make", MAKERS, ids=["bytes", "bytearray", "array", "list"])
def test_map(executor: DaskExecutor, make: Callable[[], Any]) -> None:
    """An object that is repeated in the input of a map goes once, too."""
    data = make()
    with at_most(executor, 2 * SIZE):
        results = executor.map(large.first, [data] * CALLS, range(CALLS), timeout=LIMIT)
        assert list(results) == [(data[0], i) for i in range(CALLS)]
    with at_most(executor, 2 * SIZE):  # a map that reads its input bit by bit
        other = make()
        results = executor.map(
            large.first, [other] * CALLS, range(CALLS), timeout=LIMIT, buffersize=5
        )
        assert list(results) == [(other[0], i) for i in range(CALLS)]


def test_keywords(executor: DaskExecutor) -> None:
    """As keyword arguments."""
    data = bytearray(b"k" * SIZE)
    with at_most(executor, 2 * SIZE):
        futures = [executor.submit(large.first, None, i, also=data) for i in range(CALLS)]
        assert [f.result(LIMIT) for f in futures] == [(ord("k"), i) for i in range(CALLS)]


def test_partials(executor: DaskExecutor) -> None:
    """In partials, as positional and as keyword arguments, nested, by submit and by map."""
    data = bytearray(b"p" * SIZE)
    one = functools.partial(large.first, data)
    two = functools.partial(functools.partial(large.first, None), also=data)
    with at_most(executor, 2 * SIZE):
        for fn in (one, two):
            futures = [executor.submit(fn, i) for i in range(CALLS)]
            assert [f.result(LIMIT) for f in futures] == [(ord("p"), i) for i in range(CALLS)]
            results = executor.map(fn, range(CALLS), timeout=LIMIT)
            assert list(results) == [(ord("p"), i) for i in range(CALLS)]


def test_bound_methods(executor: DaskExecutor) -> None:
    """As the object of a method, Python's or a built-in type's."""
    table = Table(SIZE // 16)
    table.columns["x"][0] = 5.0
    data = b"m" * SIZE
    with at_most(executor, 2 * 2 * SIZE):
        futures = [executor.submit(table.total, i) for i in range(CALLS)]
        assert [f.result(LIMIT) for f in futures] == [5.0 + i for i in range(CALLS)]
        futures = [executor.submit(data.startswith, b"m", i) for i in range(CALLS)]
        assert all(f.result(LIMIT) for f in futures)


def test_own_objects(executor: DaskExecutor) -> None:
    """Objects that do not tell their size; and in containers made for each call."""
    table, data = Table(SIZE // 16), array("d", zeros())
    with at_most(executor, 2 * 2 * SIZE):
        futures = [executor.submit(Table.total, table, i) for i in range(CALLS)]
        assert [f.result(LIMIT) for f in futures] == [float(i) for i in range(CALLS)]
        futures = [executor.submit(large.inner_length, [data, i]) for i in range(CALLS)]
        assert {f.result(LIMIT) for f in futures} == {SIZE // 8}


def test_equal_objects(executor: DaskExecutor) -> None:
    """Equal objects share what the workers have."""
    with at_most(executor, 2 * SIZE):
        futures = [executor.submit(large.first, b"e" * SIZE, i) for i in range(10)]
        assert [f.result(LIMIT) for f in futures] == [(ord("e"), i) for i in range(10)]


def test_what_arrives(executor: DaskExecutor) -> None:
    """A call is given what it would be given otherwise: the same type and content."""
    for data in (b"b" * SIZE, bytearray(b"a" * SIZE), array("b", b"x" * SIZE)):
        for index in range(2):
            expected = large.described(data, index)
            assert executor.submit(large.described, data, index).result(LIMIT) == expected
    text = "ä\ud800" * SIZE
    assert executor.submit(str.__eq__, text, text).result(LIMIT) is True


def test_identity(executor: DaskExecutor) -> None:
    """What is the same object within a call is the same object there."""
    data, table = bytearray(SIZE), Table(SIZE // 16)
    assert executor.submit(large.same, data, data).result(LIMIT) is True
    assert executor.submit(large.same, table, table).result(LIMIT) is True
    assert executor.submit(large.holds, data, [data]).result(LIMIT) is True
    assert executor.submit(large.holds, table, [table]).result(LIMIT) is True
    inner = {"some": "thing"}
    assert executor.submit(large.holds, inner, [inner, data]).result(LIMIT) is True
    assert executor.submit(large.holds, inner, [inner, *range(10**6)]).result(LIMIT) is True


# -- changes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("make", MAKERS[1:], ids=["bytearray", "array", "list"])
def test_changes_between_submits(executor: DaskExecutor, make: Callable[[], Any]) -> None:
    """A call that is submitted after a change in place is given the changed object."""
    data = make()
    for value in range(1, 6):
        data[0] = value
        futures = [executor.submit(large.first, data, i) for i in range(3)]
        assert {f.result(LIMIT)[0] for f in futures} == {value}
        assert {v for v, _ in executor.map(large.first, [data] * 3, timeout=LIMIT)} == {value}
    data[0] = 9
    assert executor.submit(large.first, data).result(LIMIT)[0] == 9


def test_changes_while_others_wait(executor: DaskExecutor, gates: Gates) -> None:
    """That holds also when earlier calls with the object are still queued."""
    data = zeros()
    held = [(gates.gate(), gates.gate()) for _ in range(2)]
    futures = [executor.submit(large.hold, *pair, data) for pair in held]
    for started, _ in held:
        started.wait()
    early = [executor.submit(large.first, data) for _ in range(50)]
    time.sleep(0.3)  # some are with the scheduler, and some are not
    data[0] = 7
    late = [executor.submit(large.first, data) for _ in range(5)]
    for _, release in held:
        release.open()
    assert {f.result(LIMIT)[0] for f in late} == {7}
    assert {f.result(LIMIT)[0] for f in early} <= {0, 7}
    assert [f.result(LIMIT) for f in futures] == [SIZE, SIZE]


@pytest.mark.parametrize("make", MAKERS[1:], ids=["bytearray", "array", "list"])
def test_changes_within_calls(executor: DaskExecutor, make: Callable[[], Any]) -> None:
    """What a call changes in its argument no other call sees, nor the client."""
    data = make()
    futures = [executor.submit(large.change, data, i) for i in range(CALLS)]
    assert {f.result(LIMIT) for f in futures} == {0}
    assert set(executor.map(large.change, [data] * CALLS, range(CALLS), timeout=LIMIT)) == {0}
    assert data[0] == 0


def test_numpy(executor: DaskExecutor) -> None:
    """The same of arrays: once on the wire, writable, and of the call alone."""
    np = pytest.importorskip("numpy")
    data = np.frombuffer(zeros()).copy()
    with at_most(executor, 2 * SIZE):
        futures = [executor.submit(large.change, data, i) for i in range(CALLS)]
        assert {f.result(LIMIT) for f in futures} == {0}
        futures = [executor.submit(large.change, data.T[::1], i) for i in range(5)]
        assert {f.result(LIMIT) for f in futures} == {0}
    data[0] = 3
    assert executor.submit(large.change, data, 1).result(LIMIT) == 3


def test_large_results(executor: DaskExecutor) -> None:
    """A large array that a call returns arrives writable, and is nobody else's."""
    np = pytest.importorskip("numpy")
    futures = [executor.submit(np.full, SIZE // 8, float(i)) for i in range(6)]
    futures += [executor.submit(large.kept_array, SIZE // 8) for _ in range(4)]
    arrays = [f.result(LIMIT) for f in futures]
    arrays += executor.map(np.full, [SIZE // 8] * 4, [6.0, 7.0, 8.0, 9.0], timeout=LIMIT)
    for index, data in enumerate(arrays):
        assert data[-1] == data[0]
        data[:] = index
    assert [data[0] for data in arrays] == list(range(14))
    assert executor.submit(large.kept_array, SIZE // 8).result(LIMIT)[0] > 0
    frozen = executor.submit(large.frozen_array, SIZE // 8).result(LIMIT)
    assert not frozen.flags.writeable


# -- faults -----------------------------------------------------------------------------------


def test_an_object_that_cannot_be_unpickled(executor: DaskExecutor) -> None:
    """It fails the calls that are given it, with its own error, and no others."""
    bad = executor.submit(large.first, large.Unreadable())
    good = executor.submit(large.first, bytes(SIZE))
    with pytest.raises(ValueError, match="cannot be unpickled"):
        bad.result(LIMIT)
    assert good.result(LIMIT) == (0, 0)


def test_an_object_that_cannot_be_pickled(executor: DaskExecutor) -> None:
    """It fails its call with the pickling error."""
    future = executor.submit(large.first, [bytes(SIZE), (i for i in "")])
    with pytest.raises(TypeError, match="pickle"):
        future.result(LIMIT)


def test_the_only_holder_dies(gates: Gates) -> None:
    """Calls that wait for an object run though the only worker that had it has died."""
    with DaskExecutor(1) as executor:
        data = bytearray(b"d" * SIZE)
        started, release = gates.gate(), gates.gate()
        held = executor.submit(large.hold, started, release, data)
        futures = [executor.submit(large.first, data, i) for i in range(20)]
        started.wait()
        (pid,) = executor._dispatcher.line().backend.client.run(os.getpid).values()  # type: ignore[attr-defined]
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(WorkerDied):  # it had begun
            held.result(LIMIT)
        assert [f.result(LIMIT) for f in futures] == [(ord("d"), i) for i in range(20)]
        # And when nothing waited for it, so that the client knows of the loss from Dask alone.
        (pid,) = client_of(executor).run(os.getpid).values()
        os.kill(pid, signal.SIGKILL)
        assert executor.submit(large.first, data, 1).result(LIMIT) == (ord("d"), 1)


def test_a_killer_with_a_large_argument() -> None:
    """It dies alone, and runs once."""
    with DaskExecutor(2) as executor:
        data = zeros()
        futures = [executor.submit(large.first, data, i) for i in range(10)]
        killer = executor.submit(large.end_process, data)
        futures += [executor.submit(large.first, data, i) for i in range(10)]
        with pytest.raises(WorkerDied):
            killer.result(LIMIT)
        assert [f.result(LIMIT)[1] for f in futures] == [*range(10)] * 2


def test_cancel(executor: DaskExecutor) -> None:
    """Calls whose large argument is still on its way can be cancelled."""
    data = os.urandom(16 * MIB)
    futures = [executor.submit(large.pid_of, data, i, 0.2) for i in range(6)]
    assert futures[-1].cancel()
    assert all(f.result(LIMIT) for f in futures[:-1])


# -- where they run, and what is left -----------------------------------------------------------


def test_all_workers_run_them(executor: DaskExecutor) -> None:
    """Calls do not queue for the one worker that has the object already."""
    data = bytearray(16 * MIB)
    futures = [executor.submit(large.pid_of, data, i, 0.3) for i in range(6)]
    assert len({f.result(LIMIT) for f in futures}) == 2


def test_memory_is_given_back() -> None:
    """When the object is gone the workers do not hold it any longer, nor does the client."""
    with DaskExecutor(2) as executor:
        client = client_of(executor)
        cache = executor._dispatcher._packer.large
        for make in (lambda: bytearray(SIZE), lambda: bytes(SIZE), lambda: Table(SIZE // 16)):
            data: Any = make()
            futures = [executor.submit(large.pid_of, data, i) for i in range(10)]
            assert all(f.result(LIMIT) for f in futures)
            assert large.kept_by_workers(client) >= SIZE
            del data
            eventually(lambda: large.kept_by_workers(client) == 0)
            eventually(lambda: not cache._known and not cache._copies)


def test_objects_for_one_call_each() -> None:
    """They do not pile up on the workers, though the client keeps them."""
    with DaskExecutor(2) as executor:
        client = client_of(executor)
        data = [bytearray(b"%d" % i * 2 * MIB) for i in range(10)]
        list(executor.map(large.pid_of, data, timeout=LIMIT))
        eventually(lambda: large.kept_by_workers(client) == 0)
        assert data[3][0] == ord("3")


def test_a_thousand_calls(executor: DaskExecutor) -> None:
    """With 20 MB each: 40 MB cross the wire."""
    data = bytes(20 * MIB)
    with at_most(executor, 2 * len(data)):
        futures = [executor.submit(large.first, data, i) for i in range(1000)]
        assert [f.result(LIMIT) for f in futures] == [(0, i) for i in range(1000)]


def test_foreign_cluster(capfd: pytest.CaptureFixture[str]) -> None:
    """The same on a cluster that was given; Dask has nothing to say to it."""
    from distributed import LocalCluster

    data = zeros()
    with (
        warnings.catch_warnings(),
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, processes=True
        ) as cluster,
        DaskExecutor(cluster=cluster) as executor,
    ):
        warnings.simplefilter("error")
        with at_most(executor, 2 * SIZE):
            futures = [executor.submit(large.first, data, i) for i in range(CALLS)]
            assert [f.result(LIMIT) for f in futures] == [(0, i) for i in range(CALLS)]
        client = client_of(executor)
        for pid in client.run(os.getpid).values():
            os.kill(pid, signal.SIGKILL)
        futures = [executor.submit(large.first, data, i) for i in range(CALLS)]
        assert [f.result(LIMIT) for f in futures] == [(0, i) for i in range(CALLS)]
        capfd.readouterr()  # its nannies tell of the deaths
        data[0] = 1
        assert executor.submit(large.first, data).result(LIMIT) == (1, 0)
    assert "Large" not in capfd.readouterr().err
