"""Futures as arguments: their values go from worker to worker, and nobody can tell otherwise."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, as_completed, wait
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from daskexec_testing import calls, promised
from daskexec_testing.gates import Gates, eventually
from daskexec_testing.leaks import sharing
from daskexec_testing.processes import Cluster, running_cluster
from daskexec_testing.promised import Box, Guarded

from daskexec import DaskExecutor, NotFetched, WorkerDied

LIMIT = 60
CLIENT = os.getpid()
MIB = 1 << 20
BIG, SMALL = 20_000, 100  # bytes: left with the worker, and told with the end of the call


@pytest.fixture(scope="module", params=["own", "remote"])
def executor(request: pytest.FixtureRequest) -> Iterator[DaskExecutor]:
    """Two workers: of its own, and reached by address."""
    with contextlib.ExitStack() as stack:
        with sharing():
            if request.param == "own":
                made = DaskExecutor(2)
            else:
                made = DaskExecutor(cluster=request.getfixturevalue("cluster").address)
            made.submit(abs, -1).dask_future.client.wait_for_workers(2, LIMIT)
        stack.enter_context(made)
        yield made


def notes_of(error: BaseException | None) -> str:
    return "\n".join(getattr(error, "__notes__", ()))


def is_there(future: Any) -> bool:
    return bool(future.is_remote())


# --- values -------------------------------------------------------------------------------------


def test_values_do_not_visit_the_client(executor: DaskExecutor, gates: Gates) -> None:
    """1 GB flows through a chain of five calls; the client reads less than 100 kB of it."""
    size, release = 200_000_000, gates.gate()
    with promised.counted_reads() as reads:
        chain = [executor.submit(promised.wait_and_guard, release, size, CLIENT)]
        for _ in range(4):
            chain.append(executor.submit(promised.on, chain[-1]))
        told = executor.submit(promised.told, chain[-1])
        release.open()
        stages, last = told.result(LIMIT)
        read = reads.count
    assert stages * last == 1_000_000_000
    assert 0 < read < 100_000
    assert all(map(is_there, chain))


@pytest.mark.parametrize("size", [BIG, SMALL])
@pytest.mark.parametrize(
    "wrapped",
    [
        lambda value: [[value]],
        lambda value: (1, (value,)),
        lambda value: {"a": {"b": value}},
        lambda value: {value: "key"},
        lambda value: {value, 2},
        lambda value: Box([Box(value)]),
    ],
    ids=["list", "tuple", "dict", "key", "set", "dataclass"],
)
def test_at_any_depth(
    executor: DaskExecutor, wrapped: Callable[[Any], Any], size: int, gates: Gates
) -> None:
    """A future within containers stands for its value, by position and by keyword."""
    release = gates.gate()
    value = executor.submit(promised.wait_and_guard, release, size, CLIENT)
    results = [
        executor.submit(promised.sizes, wrapped(value)),
        executor.submit(promised.sizes, k=wrapped(value)),
        executor.submit(partial(promised.sizes, wrapped(value)), value),
        executor.submit(lambda given: promised.sizes(given), wrapped(value)),
    ]
    release.open()
    assert [result.result(LIMIT) for result in results] == [size, size, 2 * size, size]
    assert is_there(value)


def test_left_where_it_is(executor: DaskExecutor) -> None:
    """With remote=True so does the value that nothing needs yet, until somebody asks for it."""
    keeping = executor.with_options(remote=True)
    ran: Future[Any] = Future()
    value = keeping.submit(Guarded, BIG, CLIENT)
    value.add_run_callback(ran.set_result)
    assert ran.result(LIMIT) is value
    assert is_there(value)
    assert value.info().worker.startswith("tcp://")
    assert executor.submit(promised.told, value).result(LIMIT) == (1, BIG)
    assert "unpickled by the client" in str(value.exception(LIMIT))
    plain = keeping.submit(calls.filled, BIG)
    failing = keeping.submit(calls.fail, "at once")
    small = keeping.submit(calls.add, 1, 2)
    assert [len(plain.result(LIMIT)), small.result(LIMIT)] == [BIG, 3]
    assert "at once" in str(failing.exception(LIMIT))
    assert list(keeping.map(calls.filled, [1, BIG], timeout=LIMIT)) == [b"x", b"x" * BIG]


def test_used_before_its_turn(executor: DaskExecutor, gates: Gates) -> None:
    """It counts when a call is submitted, not when its turn comes: the value stays."""
    started, release = [gates.gate(), gates.gate()], gates.gate()
    running = [executor.submit(calls.hold, gate, release) for gate in started]
    for gate in started:
        gate.wait()
    value = executor.submit(Guarded, BIG, CLIENT)
    between = [executor.submit(calls.nap, 0.001, i) for i in range(300)]
    needs = executor.submit(promised.sizes, Box([value]))
    release.open()
    assert needs.result(LIMIT) == BIG
    assert is_there(value)
    assert not wait([*running, *between], LIMIT).not_done


def test_items_of_a_map(executor: DaskExecutor, gates: Gates) -> None:
    """So it is for the items of a map."""
    release = gates.gate()
    values = [executor.submit(promised.wait_and_guard, release, BIG, CLIENT) for _ in range(3)]
    items = executor.map(promised.sizes, [*values, Box(1)], timeout=LIMIT)
    pairs = executor.map(promised.sizes, values, values, timeout=LIMIT)
    release.open()
    assert list(items) == [BIG] * 3 + [0]
    assert list(pairs) == [2 * BIG] * 3
    assert all(map(is_there, values))


def test_one_object_in_a_call_and_another_in_each(executor: DaskExecutor) -> None:
    """A future that is given twice is one object; what one call changes, no other sees."""
    for size in (10, 10_000):
        value = executor.submit(promised.numbers, size)
        assert executor.submit(promised.are_same, value, [value, value]).result(LIMIT)
        longer = [executor.submit(promised.append, value, i) for i in range(4)]
        assert [len(one.result(LIMIT)) for one in longer] == [size + 1] * 4
        assert value.result(LIMIT) == list(range(size))


@pytest.mark.parametrize("size", [BIG, SMALL])
def test_whoever_looks_gets_the_value(executor: DaskExecutor, size: int) -> None:
    """Each way to look at a future brings its value here; nobody waits in vain."""

    async def awaited(future: Any) -> int:
        return len(await future)

    async def wrapped(future: Any) -> int:
        return len(await asyncio.wrap_future(future))

    def polled(future: Any) -> int:
        eventually(future.done, "it is done", LIMIT)
        return len(future.result(0))

    def called_back(future: Any) -> int:
        found: Future[int] = Future()
        future.add_done_callback(lambda done: found.set_result(len(done.result(0))))
        return found.result(LIMIT)

    ways: list[Callable[[Any], int]] = [
        lambda future: len(future.result(LIMIT)),
        lambda future: future.exception(LIMIT) or len(future.result(0)),
        lambda future: len(wait([future], LIMIT).done.pop().result(0)),
        lambda future: len(next(as_completed([future], LIMIT)).result(0)),
        lambda future: asyncio.run(awaited(future)),
        lambda future: asyncio.run(wrapped(future)),
        lambda future: len(future.dask_future.result(LIMIT)),
        polled,
        called_back,
    ]
    for early in (False, True):
        values = [executor.submit(calls.filled, size) for _ in ways]
        needs = [executor.submit(len, value) for value in values]
        if early:  # before it is known that the value is with the workers
            assert [way(value) for way, value in zip(ways, values, strict=True)] == [size] * 9
        assert [need.result(LIMIT) for need in needs] == [size] * 9
        assert [way(value) for way, value in zip(ways, values, strict=True)] == [size] * 9


def test_needed_after_it_was_read(executor: DaskExecutor, gates: Gates) -> None:
    """A value that the client could not read is there for calls that needed it before."""
    release = gates.gate()
    value = executor.submit(promised.wait_and_guard, release, BIG, CLIENT)
    needs = executor.submit(promised.told, value)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(value.exception, LIMIT)
        release.open()
        assert "unpickled by the client" in str(reading.result(LIMIT))
    assert needs.result(LIMIT) == (1, BIG)


def test_futures_of_others(executor: DaskExecutor, gates: Gates) -> None:
    """Futures of another executor are waited for by no thread, and stand for their values."""
    gate, release = threading.Event(), gates.gate()
    with ThreadPoolExecutor(1) as pool:
        pending, failing = pool.submit(gate.wait, LIMIT), pool.submit(calls.fail, "elsewhere")
        value = executor.submit(promised.wait_and_guard, release, BIG, CLIENT)
        needs = executor.submit(promised.sizes, [value, pending])
        fails = executor.submit(promised.sizes, [value, failing])
        release.open()
        assert not needs.done()
        gate.set()
        assert needs.result(LIMIT) == BIG
        with pytest.raises(ValueError, match="elsewhere"):
            fails.result(LIMIT)


def test_options_and_views(executor: DaskExecutor, gates: Gates) -> None:
    """Calls of a view, with retries or another priority, take futures of the executor."""
    for options in ({"retries": 1}, {"priority": 5}, {"name": "other"}):
        release, view = gates.gate(), executor.with_options(**options)
        value = executor.submit(promised.wait_and_guard, release, BIG, CLIENT)
        step = view.submit(promised.on, value)
        told = executor.submit(promised.told, step)
        release.open()
        assert told.result(LIMIT) == (2, BIG)
        assert list(view.map(promised.sizes, [step], timeout=LIMIT)) == [BIG]


def test_in_a_call(cluster: Cluster) -> None:
    """So it is for calls that a call submits."""
    with DaskExecutor(cluster=cluster.address) as executor:
        expected = 2 * sum(range(10_000)) + 1
        assert executor.submit(promised.within, cluster.address, 10_000).result(LIMIT) == expected


# --- trees and chains ---------------------------------------------------------------------------


def tree(executor: DaskExecutor, leaves: list[Any]) -> list[list[Any]]:
    """A level of sums over four each, nested in lists, and so on up to the root."""
    levels = [leaves]
    while len(levels[-1]) > 1:
        below = levels[-1]
        groups = [below[i : i + 4] for i in range(0, len(below), 4)]
        levels.append(
            [executor.submit(promised.total, [[a], [b, [c, d]]]) for a, b, c, d in groups]
        )
    return levels


def test_a_tree(executor: DaskExecutor) -> None:
    """Over 1,024 leaves, some done before, some shared by several: the sum is right."""
    leaves: list[Any] = [executor.submit(calls.identity, i) for i in range(1024)]
    assert not wait(leaves[:100], LIMIT).not_done
    leaves[200:300] = [leaves[200]] * 100
    expected = promised.total([leaf.result(LIMIT) for leaf in leaves[:300]])
    assert tree(executor, leaves)[-1][0].result(LIMIT) == expected + sum(range(300, 1024))
    assert executor.submit(promised.total, leaves).result(LIMIT) > 0


def test_a_tree_with_failures(executor: DaskExecutor, gates: Gates) -> None:
    """What needs a failed leaf fails, what needs a cancelled one is cancelled, and no other."""
    release = gates.gate()
    leaves: list[Any] = [executor.submit(calls.wait_for, release, i) for i in range(64)]
    leaves[21] = executor.submit(calls.fail, "leaf 21")
    assert leaves[42].cancel()
    levels = tree(executor, leaves)
    assert wait([levels[1][10]], LIMIT).done.pop().cancelled()
    release.open()
    assert not wait(levels[1], LIMIT).not_done
    for index, future in enumerate(levels[1]):
        if index == 5:
            assert "leaf 21" in str(future.exception())
        elif index == 10:
            assert future.cancelled()
        else:
            assert future.result() == sum(range(4 * index, 4 * index + 4))
    assert not wait(levels[2] + levels[3], LIMIT).not_done
    assert levels[2][1].exception() is not None
    assert levels[2][2].cancelled()
    assert levels[2][0].result() == sum(range(16))
    assert levels[3][0].cancelled() or "leaf 21" in str(levels[3][0].exception())


def test_a_chain(executor: DaskExecutor) -> None:
    """A long chain ends, and takes no stack."""
    future = executor.submit(calls.identity, 0)
    for _ in range(100):
        future = executor.submit(calls.add, future, 1)
    assert future.result(LIMIT) == 100


# --- failures -----------------------------------------------------------------------------------


def test_a_failure_says_who_raised_and_who_needed_it(executor: DaskExecutor, gates: Gates) -> None:
    """At once, though other arguments are pending: the same exception, and who needed what."""
    release = gates.gate()
    pending = executor.submit(calls.wait_for, release)
    load = executor.submit(calls.raise_many_arguments)
    parse = executor.submit(calls.capture, load, pending)
    render = executor.submit(calls.identity, [parse])
    error = render.exception(LIMIT)
    assert not pending.done()
    release.open()
    first = load.exception(LIMIT)
    assert type(error) is type(first)
    assert error is not first
    assert error is not parse.exception()
    assert vars(error).keys() - {"__notes__"} == vars(first).keys()
    assert "raise_many_arguments" in "".join(traceback.format_exception(error))
    assert notes_of(first) == ""
    assert notes_of(error) == (
        f"daskexec: raised by raise_many_arguments [{load.key}]; needed by capture "
        f"[{parse.key}], needed by identity [{render.key}]"
    )
    late = executor.submit(calls.identity, load).exception(LIMIT)
    assert f"raised by raise_many_arguments [{load.key}]; needed by identity" in notes_of(late)


def test_a_long_chain_of_failures(executor: DaskExecutor, gates: Gates) -> None:
    """10,000 calls that need each other fail one after the other, with a note that is short."""
    release = gates.gate()
    chain = [executor.submit(calls.wait_for, release)]
    first = executor.submit(promised.total, [chain[0], "x"])
    chain.append(first)
    for _ in range(10_000):
        chain.append(executor.submit(calls.identity, chain[-1]))
    release.open()
    error = chain[-1].exception(LIMIT)
    assert isinstance(error, TypeError)
    assert f"raised by total [{first.key}]" in notes_of(error)
    assert "9,994 more" in notes_of(error)
    assert f"needed by identity [{chain[-1].key}]" in notes_of(error)
    assert len(notes_of(error)) < 1000


def test_cancelled(executor: DaskExecutor, gates: Gates) -> None:
    """Who waits for a call that needs a cancelled one is woken."""
    started, release = [gates.gate(), gates.gate()], gates.gate()
    running = [executor.submit(calls.hold, gate, release) for gate in started]
    for gate in started:
        gate.wait()
    queued = executor.submit(calls.identity, 1)
    needs = executor.submit(calls.identity, [queued])
    more = executor.submit(calls.identity, [needs, running[0]])
    seen: Future[bool] = Future()
    more.add_done_callback(lambda done: seen.set_result(done.cancelled()))
    assert queued.cancel()
    assert {future.cancelled() for future in as_completed([needs, more], LIMIT)} == {True}
    assert seen.result(LIMIT)
    with pytest.raises(CancelledError):
        more.result(LIMIT)
    release.open()
    assert not wait(running, LIMIT).not_done


# --- what is kept, and what is lost -------------------------------------------------------------


def test_what_nobody_needs_is_let_go(executor: DaskExecutor, gates: Gates) -> None:
    """A value goes when its future has been dropped and the last call that needs it is over."""
    client = executor.submit(abs, -1).dask_future.client
    eventually(lambda: promised.kept(client) < MIB, "earlier values go", LIMIT)
    release = gates.gate()
    value = executor.submit(calls.filled, 20 * MIB, release)
    step = executor.submit(calls.nap, 0.2, value)
    length = executor.submit(len, step)
    release.open()
    assert length.result(LIMIT) == 20 * MIB
    assert promised.kept(client) >= 40 * MIB
    del step
    eventually(lambda: promised.kept(client) < 30 * MIB, "one goes", LIMIT)
    assert executor.submit(len, value).result(LIMIT) == 20 * MIB
    needs = executor.submit(len, [value, value])
    del value
    assert needs.result(LIMIT) == 2
    eventually(lambda: promised.kept(client) < MIB, "both go", LIMIT)


@pytest.mark.parametrize("kind", ["own", "remote"])
def test_lost_with_its_worker(kind: str, gates: Gates, tmp_path: Path) -> None:
    """A value that was lost is made again, with what it was made from, whoever needs it."""
    with contextlib.ExitStack() as stack:
        address = None
        if kind == "remote":
            address = stack.enter_context(running_cluster(tmp_path)).address
        executor = stack.enter_context(DaskExecutor(None if address else 2, cluster=address))
        journal, release = gates.journal(), gates.gate()
        value = executor.submit(promised.filled, 2 * MIB, release, journal)
        step = executor.submit(calls.identity, value)
        place = executor.submit(promised.place, step)
        release.open()
        pid = place.result(LIMIT)
        assert len(journal.lines()) == 1
        promised.kill(pid)
        needs = [executor.submit(promised.place, one) for one in (step, value, step)]
        assert pid not in {need.result(LIMIT) for need in needs}
        assert len(journal.lines()) == 2
        promised.kill(needs[1].result())
        assert len(value.result(LIMIT)[1]) == 2 * MIB  # a user asks for it
        assert len(step.result(LIMIT)[1]) == 2 * MIB
        assert executor.submit(len, [value, step]).result(LIMIT) == 2


def test_lost_and_not_to_be_run_again(gates: Gates) -> None:
    """With rerun=False a value that was lost stays lost, and what needs it fails."""
    with DaskExecutor(1) as executor:
        journal, release, once = gates.journal(), gates.gate(), executor.with_options(rerun=False)
        value = once.submit(promised.filled, 2 * MIB, release, journal)
        place = executor.submit(promised.place, value)
        release.open()
        promised.kill(place.result(LIMIT))
        error = executor.submit(promised.place, value).exception(LIMIT)
        assert isinstance(error, WorkerDied)
        assert "rerun=False" in str(error)
        assert len(journal.lines()) == 1


def test_order_without_values(executor: DaskExecutor, gates: Gates) -> None:
    """What runs after a call does not ask for its value, which stays where it is."""
    release = gates.gate()
    value = executor.submit(promised.wait_and_guard, release, BIG, CLIENT)
    needs = executor.submit(promised.sizes, value)
    then = executor.with_options(after=[value, needs]).submit(calls.add, 1, 2)
    late = executor.with_options(after=value).submit(calls.add, then, 2)
    release.open()
    assert late.result(LIMIT) == 5
    assert needs.result(LIMIT) == BIG
    assert is_there(value)


def test_workers_that_are_replaced(gates: Gates) -> None:
    """Where each call has a process of its own, values outlive that."""
    release = gates.gate()
    with DaskExecutor(1, max_tasks_per_child=1) as executor:
        value = executor.submit(promised.wait_and_guard, release, BIG, CLIENT)
        step = executor.submit(promised.on, value)
        told = executor.submit(promised.told, step)
        release.open()
        assert told.result(LIMIT) == (2, BIG)


def test_lost_once_too_often(gates: Gates) -> None:
    """What loses its value again and again fails, and so does what needs it."""
    with DaskExecutor(1) as executor:
        release = gates.gate()
        value = executor.submit(promised.filled, 2 * MIB, release)
        needs = executor.submit(promised.place, value)
        release.open()
        for _ in range(4):
            promised.kill(needs.result(LIMIT))
            needs = executor.submit(promised.place, value)
            if needs.exception(LIMIT) is not None:
                break
        assert isinstance(needs.exception(), WorkerDied)
        assert "its value was lost" in str(needs.exception())
        assert isinstance(value.exception(LIMIT), WorkerDied)
        assert executor.submit(calls.add, 1, 2).result(LIMIT) == 3


def test_shutdown(executor: DaskExecutor, cluster: Cluster, gates: Gates) -> None:
    """At the end what is small comes along; what is large, and was not asked for, says so."""
    release = gates.gate()
    with DaskExecutor(cluster=cluster.address) as ending:
        sizes = [BIG, 2 * MIB, 2 * MIB]
        small, big, asked = (ending.submit(calls.filled, size, release) for size in sizes)
        needs = ending.submit(calls.capture, small, big, asked)
        release.open()
        wait([needs], LIMIT)
        assert is_there(big)
        assert not asked.done()
    assert len(small.result(0)) == BIG
    assert len(asked.result(0)) == 2 * MIB
    with pytest.raises(NotFetched, match=r"2\.0 MiB.*result\(\)") as caught:
        big.result(0)
    assert (caught.value.key, big.done()) == (big.key, True)


@pytest.mark.parametrize("seed", range(2))
def test_many_at_random(executor: DaskExecutor, seed: int) -> None:
    """Whatever becomes of futures meanwhile, each call ends, and as its arguments say."""
    chance = random.Random(seed)
    futures: list[Any] = []
    expected: list[int] = []
    needs: list[set[int]] = []
    cancelled: set[int] = set()
    for number in range(400):
        picked = [
            chance.randrange(len(futures)) for _ in range(chance.randrange(4) if futures else 0)
        ]
        pad = chance.choice([0, 0, 6_000])
        call = partial(_sum_of, pad, number, [futures[i] for i in picked])
        futures.append(executor.submit(call))
        expected.append(number + sum(expected[i] for i in picked))
        needs.append(set(picked))
        action = chance.randrange(8)
        victim = chance.randrange(len(futures))
        if action == 0 and futures[victim].cancel():
            cancelled.add(victim)
        elif action == 1:
            futures[victim].done()
        elif action == 2:
            futures[victim].add_done_callback(lambda done: None)
    lost: set[int] = set()
    for number, future in enumerate(futures):
        try:
            value = future.result(LIMIT)[0]
        except CancelledError:
            lost.add(number)
            continue
        assert not needs[number] & lost
        assert value == expected[number]
    assert all(number in cancelled or needs[number] & lost for number in lost)


def _sum_of(pad: int, number: int, parts: list[tuple[int, bytes]]) -> tuple[int, bytes]:
    return number + sum(value for value, _ in parts), bytes(pad)
