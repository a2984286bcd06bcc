"""Random programs on a DaskExecutor and on a ThreadPoolExecutor come to the same.

Sequences of submit, map, cancel, wait, as_completed, result, shutdown, with_options, nested calls
and crashes are run on both, step by step, and all that can be seen but time is compared: values,
exceptions, states once they have settled, what cancel() and wait() return, how often callbacks
run. A crash is, on threads, a call that raises what it should come to; a nested call its value.

A few sequences by default, always the same. For more, and others each time::

    DASKEXEC_FUZZ=1000 python -m pytest tests/cluster/test_fuzz.py
"""

from __future__ import annotations

import concurrent.futures
import gc
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from daskexec_testing import calls
from daskexec_testing.gates import Gate, eventually
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from daskexec import DaskExecutor

LIMIT = 60.0
WORKERS = 2
#: In one sequence; a worker takes a while to come back.
CRASHES = 3

SEQUENCES = int(os.environ.get("DASKEXEC_FUZZ", "0"))
SETTINGS = settings(
    max_examples=SEQUENCES or 15,
    stateful_step_count=30 if SEQUENCES else 20,
    derandomize=not SEQUENCES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

Fn = Callable[..., Any]
#: By name: hypothesis writes down what it draws, and 2 MiB are 8 MiB then.
QUICK: dict[str, tuple[Fn, tuple[Any, ...], dict[str, Any]]] = {
    "identity": (calls.identity, (1,), {}),
    "add": (calls.add, ([1], [2]), {}),
    "capture": (calls.capture, (1,), {"key": 2, "workers": 3, "fn": 4}),
    "fail": (calls.fail, ("on purpose",), {}),
    "divide by zero": (calls.inverse, (0,), {}),
    "leave": (calls.leave, (3,), {}),
    "interrupt": (calls.raise_type, (KeyboardInterrupt,), {}),
    "stop": (calls.raise_type, (StopIteration, "x"), {}),
    "many arguments": (calls.raise_type, (calls.ManyArguments, 3, "x"), {}),
    "large result": (calls.filled, (1 << 20,), {}),
    "large argument": (len, (bytes(2 << 20),), {}),
    "nap": (calls.nap, (0.02, "late"), {}),
}
OPTIONS: list[dict[str, Any]] = [
    {},
    {"name": "named"},
    {"priority": 3},
    {"priority": -3, "name": "later"},
    {"retries": 1},
]
MAPPED = [calls.identity, calls.inverse, calls.filled]

quick = st.sampled_from(list(QUICK))
options = st.sampled_from(OPTIONS)
items = st.lists(st.integers(0, 3), max_size=40)


def crash() -> None:
    """On threads: what a call that kills its worker comes to."""
    raise BrokenExecutor


def nested(executor: Executor, value: int) -> int:
    """A call that submits one, and waits for it."""
    return executor.submit(calls.add, value, 1).result()


@dataclass(eq=False)
class Pair:
    """One call, on both."""

    dask: Future[Any]
    threads: Future[Any]
    gate: Gate | None = None  # it runs until that is open
    mortal: bool = False  # it may share its process with a call that kills that
    called_back: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.dask.add_done_callback(lambda _: self.called_back.append("dask"))
        self.threads.add_done_callback(lambda _: self.called_back.append("threads"))

    @property
    def held(self) -> bool:
        return self.gate is not None and not self.gate.is_open() and not self.threads.cancelled()


def outcome(get: Callable[[], Any]) -> tuple[str, Any]:
    """What a call of ``get`` comes to, so that it can be compared."""
    try:
        value = get()
    except (CancelledError, concurrent.futures.TimeoutError) as exc:
        return type(exc).__name__, None
    except BrokenExecutor:
        return "BrokenExecutor", None
    except BaseException as exc:
        return type(exc).__name__, exc.args
    return "value", value


class Programs(RuleBasedStateMachine):
    """The same steps on both executors."""

    make: Callable[[str], DaskExecutor]
    folder: Path

    @initialize(sharing=st.sampled_from(["auto", "always", "never"]))
    def begin(self, sharing: str) -> None:
        self.dask: DaskExecutor = self.make(sharing)
        self.threads = ThreadPoolExecutor(WORKERS)
        self.pairs: list[Pair] = []
        self.maps: list[tuple[Iterator[Any], Iterator[Any], bool]] = []
        self.ending: list[Future[Any]] = []  # which are to come to whatever they come to
        self.shut = False
        self.crashes = 0
        self.gates = tempfile.mkdtemp(dir=self.folder)

    # -- tools -------------------------------------------------------------------------------

    def held(self) -> list[Pair]:
        return [pair for pair in self.pairs if pair.held]

    def blocked(self) -> bool:
        """Whether no worker is free, so that what is submitted waits."""
        return len(self.held()) >= WORKERS

    def free(self) -> bool:
        return not self.blocked()

    def open(self) -> bool:
        return not self.shut

    def was_killed(self, pair: Pair) -> bool:
        """Whether a call has ended with its process for another one, as those may that nest."""
        died = pair.dask.done() and outcome(pair.dask.result)[0] == "BrokenExecutor"
        return died and pair.mortal and self.crashes > 0

    def settle(self) -> None:
        """Wait until both are where they stay without another step."""
        for pair in self.held():
            for future in (pair.dask, pair.threads):
                eventually(future.running, f"{future} runs; {self.dask.stats()}")
        if self.free():
            quick = [pair for pair in self.pairs if not pair.held]
            both = [future for pair in quick for future in (pair.dask, pair.threads)]
            assert not concurrent.futures.wait(both, LIMIT).not_done, self.dask.stats()

    def both(self, options: dict[str, Any], fn: Fn, /, *args: Any, **kwargs: Any) -> None:
        view = self.dask.with_options(**options)
        if self.shut:
            for executor in (view, self.threads):
                with pytest.raises(RuntimeError):
                    executor.submit(fn, *args, **kwargs)
            return
        self.pairs.append(
            Pair(view.submit(fn, *args, **kwargs), self.threads.submit(fn, *args, **kwargs))
        )

    # -- steps -------------------------------------------------------------------------------

    @rule(call=quick, options=options)
    def submit(self, call: str, options: dict[str, Any]) -> None:
        fn, args, kwargs = QUICK[call]
        self.both(options, fn, *args, **kwargs)

    @rule(count=st.integers(2, 50))
    def submit_many(self, count: int) -> None:
        for i in range(count):
            self.both({}, calls.identity, i)

    @precondition(free)
    @precondition(open)
    @rule(value=st.integers())
    def hold(self, value: int) -> None:
        """Keep a worker busy until further notice."""
        self.settle()
        gates = [Gate(os.path.join(self.gates, f"{len(self.pairs)}-{i}")) for i in range(3)]
        release = gates[2]
        pair = Pair(
            self.dask.submit(calls.hold, gates[0], release, value),
            self.threads.submit(calls.hold, gates[1], release, value),
            release,
        )
        self.pairs.append(pair)
        gates[0].wait()
        gates[1].wait()
        self.settle()

    @precondition(held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        pair = data.draw(st.sampled_from(self.held()))
        assert pair.gate is not None
        pair.gate.open()
        assert pair.dask.result(LIMIT) == pair.threads.result(LIMIT)

    @precondition(lambda self: self.open() and self.crashes < CRASHES)
    @rule()
    def crash(self) -> None:
        """A call that kills its worker."""
        self.crashes += 1
        self.pairs.append(Pair(self.dask.submit(calls.exit_hard), self.threads.submit(crash)))

    @precondition(open)
    @rule(value=st.integers(0, 9))
    def nest(self, value: int) -> None:
        """A call that submits another one to the executor that it is given."""
        self.pairs.append(
            Pair(
                self.dask.submit(nested, self.dask, value),
                self.threads.submit(calls.add, value, 1),
                mortal=True,  # it gives its thread back while it waits
            )
        )

    @precondition(lambda self: self.open() and self.pairs and self.free())
    @rule(data=st.data())
    def future_as_argument(self, data: st.DataObject) -> None:
        """A call that is given the future of another one, for its value.

        With a worker free: where that future has failed, so does the call, and needs none.
        """
        pair = data.draw(st.sampled_from(self.pairs))
        if pair.held:
            return  # threads would wait for it in a worker
        self.pairs.append(
            Pair(
                self.dask.submit(calls.identity, pair.dask),
                self.threads.submit(lambda: pair.threads.result()),
                mortal=pair.mortal,
            )
        )

    @precondition(lambda self: self.pairs)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        pair = data.draw(st.sampled_from(self.pairs))
        self.settle()
        assert pair.dask.cancel() == pair.threads.cancel()
        assert pair.dask.cancelled() == pair.threads.cancelled()

    @precondition(lambda self: self.pairs)
    @rule(data=st.data())
    def look(self, data: st.DataObject) -> None:
        """States, and what result() and exception() give without waiting."""
        pair = data.draw(st.sampled_from(self.pairs))
        self.settle()
        for state in ("done", "running", "cancelled"):
            assert getattr(pair.dask, state)() == getattr(pair.threads, state)(), state
        if self.was_killed(pair):
            return
        assert outcome(lambda: pair.dask.result(0)) == outcome(lambda: pair.threads.result(0))
        raised = [outcome(lambda f=f: f.exception(0)) for f in (pair.dask, pair.threads)]
        assert [kind for kind, _ in raised] == [raised[0][0]] * 2
        assert (raised[0][1] is None) == (raised[1][1] is None)

    @precondition(lambda self: self.pairs)
    @rule(
        data=st.data(),
        when=st.sampled_from(["ALL_COMPLETED", "FIRST_COMPLETED", "FIRST_EXCEPTION"]),
    )
    def wait(self, data: st.DataObject, when: str) -> None:
        chosen = data.draw(st.lists(st.sampled_from(self.pairs), unique_by=id))
        self.settle()
        found = {}
        for which in ("dask", "threads"):
            futures = {getattr(pair, which) for pair in chosen}
            found[which] = concurrent.futures.wait(futures, 0, when).done
            assert found[which] <= futures
        for pair in chosen:  # of a cancelled one ``wait`` hears on threads when one is free
            expected = pair.threads in found["threads"] or pair.threads.cancelled()
            assert (pair.dask in found["dask"]) == expected

    @precondition(lambda self: self.pairs and self.free())
    @rule(data=st.data())
    def as_completed(self, data: st.DataObject) -> None:
        chosen = data.draw(st.lists(st.sampled_from(self.pairs), unique_by=id))
        chosen = [pair for pair in chosen if not pair.held]
        mixed = [future for pair in chosen for future in (pair.dask, pair.threads)]
        assert set(concurrent.futures.as_completed(mixed, LIMIT)) == set(mixed)

    @precondition(open)
    @rule(
        fn=st.sampled_from(MAPPED),
        items=items,
        chunksize=st.sampled_from([None, 1, 3]),
        buffersize=st.sampled_from([None, 1, 5]),
    )
    def map(self, fn: Fn, items: list[int], chunksize: int | None, buffersize: int | None) -> None:
        mapped = self.dask.map(fn, items, chunksize=chunksize, buffersize=buffersize)
        self.maps.append((mapped, self.threads.map(fn, items), buffersize is not None))

    @precondition(lambda self: self.maps and self.free())
    @rule(data=st.data(), count=st.integers(0, 50))
    def read_map(self, data: st.DataObject, count: int) -> None:
        """Read some of what a map yields; both end, or raise, at the same place."""
        number = data.draw(st.integers(0, len(self.maps) - 1))
        for _ in range(count):
            got = [outcome(lambda it=it: next(it)) for it in self.maps[number][:2]]
            assert got[0] == got[1]
            if got[0][0] != "value":
                break

    @precondition(lambda self: self.maps)
    @rule(data=st.data())
    def drop_map(self, data: st.DataObject) -> None:
        del self.maps[data.draw(st.integers(0, len(self.maps) - 1))]

    @rule(wait=st.booleans(), cancel=st.booleans(), chance=st.integers(0, 3))
    def shutdown(self, wait: bool, cancel: bool, chance: int) -> None:
        """Not too often: nothing much can be done after."""
        if chance:
            return
        self.settle()
        waiting = self.waiting() if cancel else []
        if wait:
            self.release_all()
        for executor in (self.dask, self.threads):
            executor.shutdown(wait=wait, cancel_futures=cancel)
        self.forget(waiting)
        self.shut = True
        if wait:
            assert all(future.done() for future in self.ending)
            assert all(pair.dask.done() for pair in self.pairs)
        # What of them was cancelled is a matter of time; what is taken on demand is refused now.
        self.maps = [] if cancel else [each for each in self.maps if not each[2]]

    def waiting(self) -> list[Pair]:
        """Return what waits for a worker, on one or the other, be it cancelled already."""
        return [
            pair
            for pair in self.pairs
            if not pair.held
            and (pair.threads.cancelled() or not (pair.dask.done() and pair.threads.done()))
        ]

    def forget(self, waiting: list[Pair]) -> None:
        """Have no more to do with what a shutdown may cancel, but that it ends.

        What is with the workers finishes, as what is in a process pool's call queue does; on
        threads all is cancelled that has not begun, and ``wait`` never hears of it. And where
        workers were released, one executor goes on while the other is shut down.
        """
        self.ending += [pair.dask for pair in waiting]
        self.pairs = [pair for pair in self.pairs if pair not in waiting]

    # -- the end -----------------------------------------------------------------------------

    def release_all(self) -> None:
        for pair in self.held():
            assert pair.gate is not None
            pair.gate.open()

    def teardown(self) -> None:
        if not hasattr(self, "dask"):
            return
        try:
            self.release_all()
            both = [future for pair in self.pairs for future in (pair.dask, pair.threads)]
            assert not concurrent.futures.wait([*both, *self.ending], LIMIT).not_done
            for pair in self.pairs:
                if not self.was_killed(pair):
                    assert outcome(pair.dask.result) == outcome(pair.threads.result)
            for mapped, expected, _ in self.maps:
                assert outcome(lambda m=mapped: list(m)) == outcome(lambda e=expected: list(e))
            for executor in (self.dask, self.threads):
                executor.shutdown()
            for pair in self.pairs:
                assert sorted(pair.called_back) == ["dask", "threads"]
        finally:
            self.release_all()
            self.dask.shutdown(wait=False, cancel_futures=True)
            self.threads.shutdown(wait=False, cancel_futures=True)
            self.pairs, self.maps, self.ending = [], [], []
            gc.collect()  # what was drawn is in cycles of hypothesis, with megabytes of results


@pytest.fixture(scope="module")
def cluster() -> Iterator[DaskExecutor]:
    """An executor that lends its cluster to others: one start for all sequences."""
    with DaskExecutor(WORKERS) as executor:
        executor.submit(abs, 1).dask_future.client.wait_for_workers(WORKERS, timeout=LIMIT)
        yield executor


@pytest.mark.timeout(SEQUENCES * 10 + 180)
def test_lent_cluster(cluster: DaskExecutor, tmp_path: Path) -> None:
    """Executors on a cluster that another one has started."""
    client = cluster.submit(abs, 1).dask_future.client

    class Lent(Programs):
        folder = tmp_path

        def make(self, sharing: str) -> DaskExecutor:
            return DaskExecutor(cluster=client, sharing=sharing)

    run_state_machine_as_test(Lent, settings=SETTINGS)


@pytest.mark.timeout(SEQUENCES * 10 + 180)
def test_own_clusters(tmp_path: Path) -> None:
    """Executors that start, and end, each its own."""

    class Own(Programs):
        folder = tmp_path

        def make(self, sharing: str) -> DaskExecutor:
            return DaskExecutor(WORKERS, sharing=sharing)

    few = settings(SETTINGS, max_examples=max(5, SEQUENCES // 4))
    run_state_machine_as_test(Own, settings=few)
