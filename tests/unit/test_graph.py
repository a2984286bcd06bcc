"""Graphs of properties: what is computed, when, how often, and what is said when it fails."""

from __future__ import annotations

import asyncio
import doctest
import functools
import graphlib
import os
import pickle
import random
import re
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import (
    FIRST_COMPLETED,
    CancelledError,
    Executor,
    Future,
    ThreadPoolExecutor,
    as_completed,
    wait,
)
from pathlib import Path
from typing import Any

import pytest
from daskexec_testing.gates import Gates
from daskexec_testing.graphs import TEXTS, TOTALS, Manual, parts, report, totals
from hypothesis import given, settings
from hypothesis import strategies as st

import daskexec.graph
from daskexec import Graph, GraphCycle, GraphError, GraphRun, SerialExecutor

LIMIT = 30
NOTES = hasattr(BaseException, "add_note")  # Python 3.11


def diamond() -> Graph:
    """``a`` from an input, ``b`` and ``c`` from it, ``d`` from both; ``e`` from nothing."""
    graph = Graph()

    @graph.property
    def a(x: int) -> int:
        return x + 1

    @graph.property
    def b(a: int) -> int:
        return a * 10

    @graph.property
    def c(a: int) -> int:
        return a * 100

    @graph.property
    def d(b: int, c: int) -> int:
        return b + c

    @graph.property
    def e() -> str:
        return "e"

    return graph


def each_graph() -> Graph:
    graph = Graph()

    @graph.property(each="items")
    def doubled(item: int) -> int:
        return item * 2

    @graph.property
    def total(doubled: list[int]) -> int:
        return sum(doubled)

    return graph


def long_chain(length: int) -> Graph:
    graph = Graph()
    source = "def p{0}(p{1}): return p{1} + 1"
    for i in range(length):
        made: dict[str, Any] = {}
        exec(source.format(i + 1, i), made)
        graph.property(made[f"p{i + 1}"])
    return graph


class Counting(ThreadPoolExecutor):
    """Counts what is submitted."""

    def __init__(self, max_workers: int) -> None:
        super().__init__(max_workers)
        self.counts: Counter[str] = Counter()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.counts[fn.__name__] += 1
        return super().submit(fn, *args, **kwargs)


@pytest.fixture
def manual() -> Manual:
    return Manual()


@pytest.fixture(params=["serial", "threads"])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    with SerialExecutor() if request.param == "serial" else ThreadPoolExecutor(1) as executor:
        yield executor


# -- values -----------------------------------------------------------------------------------


def test_values(executor: Executor, gates: Gates) -> None:
    """A property is what its function makes of the properties and inputs it names."""
    journal = gates.journal()
    run = report.on(executor, texts=TEXTS, journal=journal)
    assert run["totals"] == TOTALS
    assert run["longest"] == "brown"
    assert run["parts"] == [TEXTS[:2], TEXTS[2:]]
    assert run["texts"] is TEXTS
    assert sorted(journal.lines()) == ["longest", "parts", "tallies", "tallies", "totals"]


def test_several_at_once(executor: Executor) -> None:
    """A tuple of names gives a tuple of values."""
    assert diamond().on(executor, x=1)["d", "e"] == (220, "e")


def test_functions_stay_functions(gates: Gates) -> None:
    """A decorated function is the function itself: callable, and pickled by its name."""
    assert parts(["a", "b"], gates.journal(), 1) == [["a"], ["b"]]
    assert pickle.loads(pickle.dumps(totals)) is totals


def test_a_graph_pickles(gates: Gates) -> None:
    """A graph of functions of modules can be sent to where it is computed."""
    copy = pickle.loads(pickle.dumps(report))
    run = copy.on(SerialExecutor(), texts=TEXTS, journal=gates.journal())
    assert run["totals"] == TOTALS


def test_given_in_place_of_computed(manual: Manual) -> None:
    """A property that was given is not computed, nor is what only it needs."""
    run = diamond().on(manual, a=5)
    run.future("b")
    assert manual.calls == [("b", (5,), {})]
    assert run["a"] == 5


def test_defaults(executor: Executor) -> None:
    """A parameter with a default takes it only where there is nothing of its name."""
    graph = Graph()

    @graph.property
    def sizes(n: int = 1, *, unit: str = "B", more: int = 0) -> tuple[int, str, int]:
        return n, unit, more

    assert graph.on(executor)["sizes"] == (1, "B", 0)
    assert graph.on(executor, unit="kB", more=3)["sizes"] == (1, "kB", 3)
    assert graph.on(executor, n=2)["sizes"] == (2, "B", 0)


def test_any_callable(executor: Executor) -> None:
    """Partials, builtins with a signature and classes can be properties under a name."""
    graph = Graph()
    graph.property(functools.partial(lambda x, k: x * k, k=3), name="tripled")
    graph.property(len, name="length", each={"obj": "texts"})
    run = graph.on(executor, x=2, texts=["a", "bc"])
    assert run["tripled", "length"] == (6, [1, 2])


def test_skipped_default_before_a_given_one(manual: Manual) -> None:
    """Arguments go by position, up to the first that is left out."""
    graph = Graph()
    graph.property(lambda a, b=1, c=2: (a, b, c), name="p")
    graph.on(manual, a=0, c=5).future("p")
    graph.on(manual, a=0, b=4, c=5).future("p")
    assert [call[1:] for call in manual.calls] == [((0,), {"c": 5}), ((0, 4, 5), {})]


# -- each -------------------------------------------------------------------------------------


def test_each_is_a_call_an_element(manual: Manual) -> None:
    """Calls may end in any order; the list of results is in the order of the elements."""
    run = each_graph().on(manual, items=[1, 2, 3])
    future = run.future("total")
    assert manual.calls == [("doubled", (i,), {}) for i in (1, 2, 3)]
    for index in (2, 0, 1):
        manual.futures[index].set_result(index)
    assert manual.calls[3:] == [("total", ([0, 1, 2],), {})]
    manual.futures[3].set_result("sum")
    assert future.result(0) == "sum"
    assert run["doubled"] == [0, 1, 2]


def test_each_of_nothing(executor: Executor) -> None:
    """An empty list gives an empty list."""
    run = each_graph().on(executor, items=[])
    assert run["doubled"] == []
    assert run["total"] == 0


def test_each_of_several_in_step(executor: Executor) -> None:
    """A mapping says which parameters take elements of what; others are taken whole."""
    graph = Graph()

    @graph.property(each={"part": "parts", "weight": "weights"})
    def shares(part: int, parts: list[int], weight: int, scale: int) -> tuple[int, int, int]:
        return part * weight, len(parts), scale

    run = graph.on(executor, parts=(1, 2), weights=range(3, 5), scale=9)
    assert run["shares"] == [(3, 2, 9), (8, 2, 9)]


def test_each_of_lists_of_other_lengths(manual: Manual) -> None:
    """Lists taken in step must be equally long; the error tells how long they are."""
    graph = Graph()
    graph.property(lambda a, b: a, name="p", each={"a": "xs", "b": "ys"})
    future = graph.on(manual, xs=[1, 2], ys=[3]).future("p")
    with pytest.raises(ValueError, match=r"'p' .*'xs' has 2, 'ys' has 1"):
        future.result(0)
    assert manual.calls == []


@pytest.mark.parametrize("value", [5, "text", b"bytes", {"a": 1}, {1, 2}, iter([1])])
def test_each_of_what_is_no_list(manual: Manual, value: Any) -> None:
    """What has no order or no length is refused, by name and type; so is a text."""
    future = each_graph().on(manual, items=value).future("total")
    told = rf"'doubled' .* each element of 'items', .* not {type(value).__name__}"
    with pytest.raises(TypeError, match=told):
        future.result(0)
    assert manual.calls == []


def test_a_failing_element_fails_the_property(manual: Manual) -> None:
    """The first to fail fails it at once; what has not begun is cancelled, not run in vain."""
    run = each_graph().on(manual, items=[1, 2, 3])
    total = run.future("total")
    manual.futures[0].set_running_or_notify_cancel()
    error = ValueError("second")
    manual.futures[1].set_exception(error)
    assert total.exception(0) is error
    assert run.future("doubled").exception(0) is error
    assert [future.cancelled() for future in manual.futures] == [False, False, True]
    if NOTES:
        assert error.__notes__[0] == (
            "raised by the property 'doubled' for items[1], needed by 'total'"
        )


def test_a_failing_element_stops_the_submitting() -> None:
    """Where calls run within submit, those behind the failing one are not begun."""
    seen = []
    graph = Graph()

    @graph.property(each="items")
    def halves(item: int) -> float:
        seen.append(item)
        return 1 / item

    with pytest.raises(ZeroDivisionError):
        graph.on(SerialExecutor(), items=[1, 0, 2])["halves"]
    assert seen == [1, 0]


# -- when and how often -----------------------------------------------------------------------


def test_only_what_is_needed_is_computed(manual: Manual) -> None:
    """Nothing is submitted before it is asked for, nor before what it needs is done."""
    run = diamond().on(manual, x=1)
    assert manual.calls == []
    future = run.future("d")
    assert manual.names == ["a"]
    manual["a"].set_result(2)
    assert sorted(manual.names) == ["a", "b", "c"]
    manual["b"].set_result(20)
    assert len(manual.calls) == 3
    assert not future.done()
    manual["c"].set_result(200)
    assert manual.calls[3] == ("d", (20, 200), {})
    manual["d"].set_result(220)
    assert future.result(0) == 220
    assert run.future("d") is future
    assert run["c"] == 200


def test_submitted_once_from_many_threads() -> None:
    """Eight threads that ask for the same properties get the same values, computed once."""
    with Counting(1) as pool:
        run = diamond().on(pool, x=1)
        start = threading.Barrier(8)

        def ask(number: int) -> tuple[Any, ...]:
            start.wait(LIMIT)
            return run["d", "b"] if number % 2 else run["b", "d"][::-1]

        with ThreadPoolExecutor(8) as threads:
            assert set(threads.map(ask, range(8))) == {(220, 20)}
        assert pool.counts == {"a": 1, "b": 1, "c": 1, "d": 1}


def test_runs_do_not_share(executor: Executor) -> None:
    """A run has its own inputs and values."""
    graph = diamond()
    assert [graph.on(executor, x=x)["a"] for x in (1, 2)] == [2, 3]


def test_a_run_has_the_graph_of_its_beginning() -> None:
    """Properties added later are not in it."""
    graph = diamond()
    run = graph.on(SerialExecutor(), x=1)
    graph.property(lambda d: d, name="later")
    with pytest.raises(GraphError, match="'later' is neither a property nor given"):
        run["later"]
    assert graph.on(SerialExecutor(), x=1)["later"] == 220


@pytest.mark.parametrize("fails", [False, True])
def test_a_long_chain(executor: Executor, fails: bool) -> None:
    """Ten thousand properties in a row take no stack, whether they succeed or fail."""
    run = long_chain(10_000).on(executor, p0="text" if fails else 0)
    if fails:
        with pytest.raises(TypeError) as caught:
            run["p10000"]
        if NOTES:
            assert "needed by 9,991 more, needed by" in caught.value.__notes__[0]
    else:
        assert run["p10000"] == 10_000


# Random graphs: property i needs some of the properties before it, and the input.
_dags = st.lists(st.lists(st.integers(0, 30), max_size=4), min_size=1, max_size=14)


@settings(max_examples=60, deadline=None)
@given(
    dag=_dags, asked=st.lists(st.integers(0, 30), min_size=1, max_size=4), threads=st.booleans()
)
def test_random_graphs(dag: list[list[int]], asked: list[int], threads: bool) -> None:
    """Values are those of direct evaluation; what is needed is computed once, the rest never."""
    graph, values = Graph(), {"x": 1}
    needs: dict[str, list[str]] = {"x": []}
    ran: Counter[str] = Counter()

    def define(name: str, sources: list[str]) -> None:
        made: dict[str, Any] = {"ran": ran}
        body = f"ran[{name!r}] += 1; return 1 + {' + 2 * '.join(sources)}"
        exec(f"def {name}({', '.join(sources)}): {body}", made)
        graph.property(made[name])
        values[name] = made[name](**{source: values[source] for source in sources})
        needs[name] = sources

    for i, picks in enumerate(dag):
        define(f"p{i}", ["x", *dict.fromkeys(f"p{pick % i}" for pick in picks if i)])
    ran.clear()
    names = [f"p{number % len(dag)}" for number in asked]
    with ThreadPoolExecutor(2) if threads else SerialExecutor() as executor:
        run = graph.on(executor, x=1)
        futures = [run.future(name) for name in names]
        assert [future.result(LIMIT) for future in futures] == [values[name] for name in names]
        assert run.wait(LIMIT)
    needed, stack = set(), names
    while stack:
        needed.update(stack)
        stack = [source for name in stack for source in needs[name] if source not in needed]
    assert ran == dict.fromkeys(needed - {"x"}, 1)


# -- refused before anything is submitted -------------------------------------------------------


def test_missing_inputs(manual: Manual) -> None:
    """All that is missing is named at once, with the path from what was asked for."""
    graph = diamond()
    graph.property(lambda e, d, speed: 0, name="f")
    with pytest.raises(GraphError) as caught:
        graph.on(manual).future("f")
    assert str(caught.value).splitlines() == [
        "'x' is neither a property nor given: needed by 'a', needed by 'b', needed by 'd', "
        "needed by 'f'",
        "'speed' is neither a property nor given: needed by 'f'",
        "give what is missing: graph.on(executor, x=..., speed=...)",
    ]
    assert caught.value.path == ("f", "d", "b", "a", "x")
    assert manual.calls == []


def test_unknown_names(manual: Manual) -> None:
    """A name that nobody has is refused, with the closest one that there is."""
    run = report.on(manual, texts=[], journal=None)
    with pytest.raises(GraphError, match=r"'total' is neither .*did you mean 'totals'\?.*; there"):
        run["total"]
    with pytest.raises(GraphError, match=r"'text' was given.*did you mean 'texts'\?"):
        report.on(manual, text=[])
    with pytest.raises(TypeError, match="by its name, not int"):
        run[0]  # type: ignore[call-overload]
    assert manual.calls == []


def test_a_close_name_is_hinted_at(manual: Manual) -> None:
    """A parameter that misspells a property: the message says which may have been meant."""
    graph = Graph()
    graph.property(list, name="paths")
    graph.property(lambda path: path, name="first")
    with pytest.raises(GraphError, match=r"'path' is neither .* \(did you mean 'paths'\?\)"):
        graph.on(manual).future("first")


def test_cycles(manual: Manual) -> None:
    """Properties that need themselves are refused, with the way around; others are not."""
    graph = diamond()
    graph.property(lambda y, z: 0, name="w")
    graph.property(lambda w: 0, name="y")
    graph.property(lambda y, d: 0, name="z")
    run = graph.on(manual, x=1)
    with pytest.raises(graphlib.CycleError) as caught:
        run.future("z")
    assert isinstance(caught.value, GraphCycle)
    circle = caught.value.args[1]
    assert circle[0] == circle[-1]
    assert set(circle) in ({"w", "y"}, {"w", "y", "z"})
    around = ", which needs ".join(map(repr, reversed(circle)))
    assert str(caught.value) == f"properties need themselves: {around} (asked for: 'z')"
    assert manual.calls == []
    run.future("d")
    assert manual.names == ["a"]
    assert graph.on(SerialExecutor(), x=1, y=3)["z"] == 0  # given: no circle any more


@pytest.mark.parametrize("error", [GraphError("m", ("a", "b")), GraphCycle("m", ["a", "b", "a"])])
def test_errors_pickle(error: GraphError) -> None:
    """They come through a process boundary as they are."""
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.path) == (type(error), "m", error.path)
    assert copy.args == error.args


def test_no_property(manual: Manual) -> None:
    """Functions that cannot be properties are refused where they are written."""
    graph = diamond()
    wrong: list[tuple[Callable[[], object], str]] = [
        (lambda: graph.property(lambda *xs: xs, name="p"), r"'p' takes \*xs"),
        (lambda: graph.property(lambda **xs: xs, name="p"), r"'p' takes \*\*xs"),
        (lambda: graph.property(lambda x: x), r"'<lambda>' is no name .*name='...'"),
        (lambda: graph.property(functools.partial(len)), r"is no name for a property"),
        (lambda: graph.property(min, name="p"), "cannot be read"),
        (lambda: graph.property(lambda: 0, name="p", each="xs"), "no parameter to take the"),
        (lambda: graph.property(lambda x, xs: 0, name="p", each="xs"), "'x' or 'xs' that takes"),
        (lambda: graph.property(lambda x: 0, name="p", each={"y": "ys"}), "no parameter 'y'"),
        (lambda: graph.property(lambda x: 0, name="p", each={}), "each element of nothing"),
        (lambda: graph.property(lambda x: x, name="a"), "a property 'a' already, computed by"),
    ]
    for define, told in wrong:
        with pytest.raises(GraphError, match=told):
            define()
    for define, told in [
        (lambda: graph.property(3), "is a function, not int"),  # type: ignore[type-var]
        (lambda: graph.property(len, name="p", each=["xs"]), "not list"),  # type: ignore
        (lambda: graph.property(len, name="p", on=SerialExecutor()), "on= is the name"),  # type: ignore
        (lambda: graph.on("threads", x=1), "must be a concurrent.futures.Executor"),  # type: ignore
        (lambda: graph.on(ThreadPoolExecutor, x=1), "must be a concurrent.futures.Executor"),  # type: ignore
    ]:
        with pytest.raises(TypeError, match=told):
            define()
    assert list(graph) == ["a", "b", "c", "d", "e"]


def test_a_cell_can_be_run_again() -> None:
    """A function of the same name and module replaces the earlier one."""
    graph = diamond()
    scope: dict[str, Any] = {"__name__": "cell"}
    for answer in (1, 2):
        exec(f"def cell(a): return a * {answer}", scope)
        graph.property(scope["cell"])
    assert graph.on(SerialExecutor(), x=1)["cell"] == 4


# -- failures -----------------------------------------------------------------------------------


def test_a_failure_fails_dependants_at_once(manual: Manual) -> None:
    """They get the same exception while others still run; they are never submitted."""
    run = diamond().on(manual, x=1)
    d, e = run.future("d"), run.future("e")
    manual["a"].set_result(2)
    error = KeyError("b is wrong")
    manual["b"].set_exception(error)
    assert d.exception(0) is error
    manual["c"].set_result(200)
    manual["e"].set_result("e")
    assert e.result(0) == "e"
    assert run["c"] == 200
    assert "d" not in manual.names
    if NOTES:
        assert error.__notes__ == ["raised by the property 'b', needed by 'd'"]


def test_asked_for_after_the_failure(manual: Manual) -> None:
    """What needs a failed property fails at once, and nothing is computed for it."""
    graph = diamond()
    graph.property(lambda a, e: 0, name="f")
    run = graph.on(manual, x=1)
    run.future("a")
    error = ValueError("a")
    manual["a"].set_exception(error)
    assert run.future("f").exception(0) is error
    assert run.future("d").exception(0) is error
    assert manual.names == ["a"]
    if NOTES:
        assert error.__notes__ == [
            "raised by the property 'a'",
            "raised by the property 'a', needed by 'f'",
            "raised by the property 'a', needed by 'b', needed by 'd'",
        ]


def test_notes_and_tracebacks_do_not_pile_up() -> None:
    """An exception that many ask for, many times, stays small."""
    graph = Graph()
    graph.property(lambda: 1 / 0, name="source")
    for i in range(40):
        graph.property(lambda source: 0, name=f"p{i}")
    run = graph.on(SerialExecutor())
    depths = []
    for i in [*range(40)] * 2:
        with pytest.raises(ZeroDivisionError) as caught:
            run[f"p{i}"]
        depths.append(len(caught.traceback))
    assert depths[-1] == depths[0]
    assert caught.traceback[-1].name == "<lambda>"  # where it was raised
    assert len(getattr(caught.value, "__notes__", [])) <= 8


def test_an_exception_that_takes_no_note() -> None:
    """It is delivered without one."""

    class Bare(Exception):
        def add_note(self, note: str) -> None:
            raise AttributeError("no notes")

    def p() -> None:
        raise Bare

    graph = Graph()
    graph.property(p)
    with pytest.raises(Bare):
        graph.on(SerialExecutor())["p"]


def test_an_executor_that_refuses(manual: Manual) -> None:
    """What submit raises is the property's failure; nobody waits for ever."""
    run = diamond().on(manual, x=1)
    d = run.future("d")
    manual.refusal = RuntimeError("closed")
    manual["a"].set_result(2)
    assert d.exception(0) is manual.refusal
    assert run["a"] == 2
    if NOTES:
        assert "the executor did not take the property 'b'" in manual.refusal.__notes__[0]


def test_an_executor_that_refuses_amid_elements() -> None:
    """The calls that it had taken are cancelled."""

    class TwoOnly(Manual):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            if len(self.calls) == 2:
                raise RuntimeError("no more")
            return super().submit(fn, *args, **kwargs)

    executor = TwoOnly()
    future = each_graph().on(executor, items=[1, 2, 3]).future("total")
    with pytest.raises(RuntimeError, match="no more"):
        future.result(0)
    assert all(call.cancelled() for call in executor.futures)


def test_what_submit_returns_is_no_future(manual: Manual) -> None:
    """An executor that breaks the contract fails the property, with what it raised."""

    class Odd(Executor):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            return fn(*args, **kwargs)

    with pytest.raises(AttributeError, match="add_done_callback"):
        diamond().on(Odd(), x=1).future("a").result(LIMIT)


def test_the_end_of_the_pools_block() -> None:
    """A pool that is shut down too early: an error that says so, not a wait without end."""
    release = threading.Event()
    graph = Graph()
    graph.property(lambda: release.wait(LIMIT), name="first")
    graph.property(lambda first: first, name="second")
    with ThreadPoolExecutor(1) as pool:
        second = graph.on(pool).future("second")
        pool.shutdown(wait=False)
        release.set()
    with pytest.raises(RuntimeError, match="after shutdown") as caught:
        second.result(LIMIT)
    if NOTES:
        assert "run.wait()" in caught.value.__notes__[0]


def test_waiting_for_the_run() -> None:
    """The end of a run's block waits for all that was asked for."""
    release = threading.Event()
    graph = diamond()
    graph.property(lambda d: release.wait(LIMIT) and d, name="slow")
    with ThreadPoolExecutor(1) as pool:
        with graph.on(pool, x=1) as run:
            future = run.future("slow")
            assert not run.wait(0)
            release.set()
        assert future.done()
        assert run.wait(0)
    assert future.result(0) == 220


# -- futures as inputs ----------------------------------------------------------------------------


def test_a_future_as_input(manual: Manual) -> None:
    """A future stands for its value; what needs it starts when it is done."""
    x: Future[int] = Future()
    run = diamond().on(manual, x=x)
    run.future("b")
    assert manual.calls == []
    assert not run.future("x").done()
    x.set_result(4)
    assert manual.calls == [("a", (4,), {})]
    assert run["x"] == 4


def test_a_property_of_another_run(executor: Executor) -> None:
    """The future of one run is the input of another."""
    first = diamond().on(executor, x=1)
    assert diamond().on(executor, x=first.future("a"))["a"] == 3


def test_a_failed_future_as_input(manual: Manual) -> None:
    """What it raised fails what needs it, and says by which name it was given."""
    x: Future[int] = Future()
    future = diamond().on(manual, x=x).future("a")
    x.set_exception(OSError("disk"))
    with pytest.raises(OSError, match="disk") as caught:
        future.result(0)
    if NOTES:
        assert caught.value.__notes__ == [
            "raised by the future that was given as 'x', needed by 'a'"
        ]
    assert manual.calls == []


def test_a_cancelled_future_as_input(manual: Manual) -> None:
    """It cancels what needs it; cancelling the input in a run leaves the future alone."""
    x: Future[int] = Future()
    run, other = diamond().on(manual, x=x), diamond().on(manual, x=x)
    a, b = run.future("a"), other.future("a")
    assert other.future("x").cancel()
    assert b.cancelled()
    assert not x.cancelled()
    assert x.cancel()
    assert a.cancelled()
    assert manual.calls == []


# -- cancelling ----------------------------------------------------------------------------------


def test_cancel_before_its_turn(manual: Manual) -> None:
    """A property that waits is cancelled with all that need it; the others go on."""
    run = diamond().on(manual, x=1)
    a, b, c, d = (run.future(name) for name in "abcd")
    assert b.cancel()
    assert b.cancel()  # still true
    assert b.cancelled()
    assert d.cancelled()
    assert wait([b, d], 0).done == {b, d}
    assert set(as_completed([b, d], 0)) == {b, d}
    manual["a"].set_result(2)
    manual["c"].set_result(200)
    assert manual.names == ["a", "c"]
    assert (a.result(0), c.result(0)) == (2, 200)
    assert not a.cancel()
    with pytest.raises(CancelledError):
        run["d"]


def test_cancel_what_was_submitted(manual: Manual) -> None:
    """It cancels the call, if that has not begun; then all that need it are cancelled."""
    run = diamond().on(manual, x=1)
    a, d = run.future("a"), run.future("d")
    assert not a.running()
    assert a.cancel()
    assert manual["a"].cancelled()
    assert a.cancelled()
    assert d.cancelled()


def test_no_cancel_of_what_runs(manual: Manual) -> None:
    """As of any executor, it is False then, and the property is computed."""
    a = diamond().on(manual, x=1).future("a")
    manual["a"].set_running_or_notify_cancel()
    assert a.running()
    assert not a.cancel()
    manual["a"].set_result(2)
    assert a.result(0) == 2
    assert not a.running()


def test_an_executor_that_cancels(manual: Manual) -> None:
    """A call cancelled by others, such as a pool that is shut down, cancels its property."""
    run = diamond().on(manual, x=1)
    d = run.future("d")
    assert manual["a"].cancel()
    assert d.cancelled()
    assert run.future("a").cancelled()
    assert run.future("b").cancelled()


def test_cancel_of_each(manual: Manual) -> None:
    """It keeps the calls that have not begun from running; False when all have."""
    run = each_graph().on(manual, items=[1, 2])
    doubled, total = run.future("doubled"), run.future("total")
    for future in manual.futures:
        future.set_running_or_notify_cancel()
    assert not doubled.cancel()
    run = each_graph().on(manual, items=[1, 2])
    doubled, total = run.future("doubled"), run.future("total")
    manual.futures[2].set_result(1)
    assert doubled.running()
    assert doubled.cancel()
    assert total.cancelled()
    assert manual.futures[3].cancelled()


def test_cancel_of_a_run(manual: Manual) -> None:
    """Nothing more is submitted."""
    run = diamond().on(manual, x=1)
    run.future("d")
    manual["a"].set_running_or_notify_cancel()
    run.cancel()
    manual["a"].set_result(2)
    assert manual.names == ["a"]
    assert run["a"] == 2
    assert run.wait(0)


def test_a_pool_that_cancels_its_futures() -> None:
    """shutdown(cancel_futures=True) amid a run ends every property, and blocks nobody."""
    started, release = threading.Event(), threading.Event()
    graph = diamond()

    @graph.property
    def first() -> bool:
        started.set()
        return release.wait(LIMIT)

    graph.property(lambda d: d, name="last")
    with ThreadPoolExecutor(1) as pool:
        run = graph.on(pool, x=1)
        run.future("first")
        last = run.future("last")
        assert started.wait(LIMIT)
        pool.shutdown(wait=False, cancel_futures=True)
        assert last.cancelled()
        release.set()
        assert run["first"]


# -- callbacks -----------------------------------------------------------------------------------


def test_callbacks_may_ask_and_wait() -> None:
    """A callback on a thread that has more to do for the run may wait for the run."""
    seen = []
    run = diamond().on(SerialExecutor(), x=Future())
    a = run.future("a")
    a.add_done_callback(lambda _: seen.append(run["d"]))
    run._given["x"].set_result(1)
    assert seen == [220]


@pytest.mark.parametrize("raised", [ValueError, SystemExit])
def test_callbacks_that_raise(
    raised: type[BaseException], executor: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    """What a callback raises is logged; the run goes on."""

    def callback(_: object) -> None:
        raise raised

    x: Future[int] = Future()
    run = diamond().on(executor, x=x)
    run.future("a").add_done_callback(callback)
    d = run.future("d")
    x.set_result(1)
    assert d.result(LIMIT) == 220
    assert raised.__name__ in caplog.text


def test_interrupted_in_a_callback() -> None:
    """Ctrl-C in a callback is raised where it was pressed, after what others wait for."""

    def callback(_: object) -> None:
        raise KeyboardInterrupt

    x: Future[int] = Future()
    run = diamond().on(SerialExecutor(), x=x)
    run.future("a").add_done_callback(callback)
    d = run.future("d")
    with pytest.raises(KeyboardInterrupt):
        x.set_result(1)
    assert d.result(0) == 220


def test_dependants_go_before_callbacks(manual: Manual) -> None:
    """What needs a property is submitted before its callbacks are called."""
    run = diamond().on(manual, x=1)
    seen: list[list[str]] = []
    run.future("a").add_done_callback(lambda _: seen.append(manual.names))
    run.future("b")
    manual["a"].set_result(2)
    assert seen == [["a", "b"]]


def test_asyncio() -> None:
    """A property's future can be awaited, and cancelled from there."""

    async def main(run: GraphRun, manual: Manual) -> None:
        assert await run.future("d") == 220
        assert await asyncio.wrap_future(run.future("a")) == 2
        pending = diamond().on(manual, x=1)
        wrapped = asyncio.wrap_future(pending.future("d"))
        wrapped.cancel()
        with pytest.raises(asyncio.CancelledError):
            await wrapped
        await asyncio.sleep(0)  # asyncio passes it on in the loop's next turn
        assert pending.future("d").cancelled()

    with ThreadPoolExecutor(1) as pool:
        asyncio.run(asyncio.wait_for(main(diamond().on(pool, x=1), Manual()), LIMIT))


def test_waiting_with_others_futures(manual: Manual) -> None:
    """concurrent.futures.wait takes futures of properties and others together."""
    future = diamond().on(manual, x=1).future("a")
    other: Future[int] = Future()
    other.set_result(1)
    assert wait([future, other], LIMIT, FIRST_COMPLETED).done == {other}


def test_cancelling_races_with_computing() -> None:
    """Whatever comes first, every future ends, and wait sees it."""
    graph = long_chain(20)
    for round_ in range(100):
        with ThreadPoolExecutor(2) as pool, graph.on(pool, p0=0) as run:
            futures = [run.future(f"p{i}") for i in range(1, 21)]
            victim = futures[round_ % 20]
            cancelled = victim.cancel()
            assert not wait(futures, LIMIT).not_done
        assert cancelled == victim.cancelled()
        index = futures.index(victim) if cancelled else 20
        assert [f.cancelled() for f in futures] == [i >= index for i in range(20)]


@pytest.mark.parametrize("seed", range(40))
def test_everything_ends(seed: int) -> None:
    """Users that ask, cancel and explain at once, failures, a pool that ends: none waits on."""
    rng = random.Random(seed)
    graph, count = Graph(), rng.randint(5, 20)

    def define(i: int, needs: list[str], fails: bool, each: bool) -> None:
        def work(*values: object) -> list[int]:
            if fails:
                raise ValueError(i)
            return [i] * 3

        made: dict[str, Any] = {"work": work}
        exec(f"def p{i}({', '.join(needs)}): return work({', '.join(needs)})", made)
        graph.property(made[f"p{i}"], each={needs[0]: needs[0]} if each and needs else None)

    for i in range(count):
        needs = rng.sample([f"p{j}" for j in range(i)], min(i, rng.randint(0, 3)))
        define(i, needs, rng.random() < 0.08, rng.random() < 0.3)

    def use(number: int) -> list[Future[Any]]:
        mine = random.Random(seed * 10 + number)
        futures = []
        for _ in range(6):
            name, chance = f"p{mine.randrange(count)}", mine.random()
            futures.append(run.future(name))
            if chance < 0.15:
                assert not futures[-1].cancel() or futures[-1].cancelled()
            elif chance < 0.3:
                assert name in run.explain(name)
            elif chance < 0.33:
                pool.shutdown(wait=False, cancel_futures=mine.random() < 0.5)
        return futures

    with ThreadPoolExecutor(rng.choice([1, 2, 4])) as pool, ThreadPoolExecutor(4) as users:
        run = graph.on(pool)
        futures = [future for mine in users.map(use, range(4)) for future in mine]
        assert not wait(futures, LIMIT).not_done
        assert run.wait(LIMIT)
    for future in futures:
        if not future.cancelled() and future.exception() is not None:
            assert isinstance(future.exception(), (ValueError, RuntimeError))


# -- several executors ----------------------------------------------------------------------------


def two_executors() -> Graph:
    graph = diamond()

    @graph.property(on="names", each="d_items")
    def hosts(item: int) -> str:
        return threading.current_thread().name

    graph.property(lambda d: [d], name="d_items")
    return graph


def test_two_executors(manual: Manual) -> None:
    """A property runs where it says; the others on the default one."""
    with ThreadPoolExecutor(1, thread_name_prefix="names") as names:
        run = two_executors().on({"default": SerialExecutor(), "names": names}, x=1)
        assert run["hosts"] == ["names_0"]
    alone = two_executors().on(SerialExecutor(), x=1)
    assert alone["hosts"] == [threading.current_thread().name]


def test_an_executor_that_is_missing(manual: Manual) -> None:
    """Asking for what would run there is refused, and nothing submitted."""
    run = two_executors().on({"default": manual, "nmaes": manual}, x=1)
    told = r"'hosts' runs on the executor 'names', and the run was given: 'default', 'nmaes'"
    with pytest.raises(GraphError, match=told):
        run.future("hosts")
    assert manual.calls == []
    run.future("d")
    with pytest.raises(GraphError, match="runs on the executor 'default'"):
        diamond().on({}, x=1).future("a")


# -- graphs of graphs -----------------------------------------------------------------------------


def test_include() -> None:
    """The properties of another graph become properties of this one."""
    graph = Graph()
    graph.property(lambda d, e: f"{d}{e}", name="both")
    graph.include(diamond())
    assert graph.on(SerialExecutor(), x=1)["both"] == "220e"
    assert graph.inputs() == ("x",)


def test_include_twice() -> None:
    """Under prefixes the same graph is there several times, with inputs of its own."""
    graph = Graph()
    graph.include(each_graph(), prefix="old_")
    graph.include(each_graph(), prefix="new_", shared=["doubled"])
    graph.property(lambda old_total, new_total: new_total - old_total, name="change")
    assert graph.inputs() == ("old_items", "new_items")
    run = graph.on(SerialExecutor(), old_items=[1, 2], new_items=[5])
    assert run["old_total", "new_total", "change"] == (6, 10, 4)


def test_include_what_is_there() -> None:
    """Two properties of one name are refused, and nothing is added."""
    graph = Graph()
    graph.property(lambda: 0, name="d")
    with pytest.raises(GraphError, match="a property 'd' already"):
        graph.include(diamond())
    assert list(graph) == ["d"]
    with pytest.raises(GraphError, match="is no prefix"):
        graph.include(diamond(), prefix="old-")
    with pytest.raises(GraphError, match=r"called 'y'; there are: a, b, c, d, e, x"):
        graph.include(diamond(), prefix="old_", shared=["y"])
    with pytest.raises(TypeError, match=r"not a name: \['x'\]"):
        graph.include(diamond(), prefix="old_", shared="x")


# -- what is told ---------------------------------------------------------------------------------


def _lines(text: str) -> dict[str, str]:
    """Lines of an explanation by name, without the times."""
    rows = [line.split(None, 1) for line in text.splitlines()[1:]]
    return {row[0]: " ".join(row[1].split()) for row in rows if len(row) > 1}


def test_explain(manual: Manual) -> None:
    """It tells how far each property is that is needed, and computes nothing."""
    graph = diamond()
    graph.property(lambda d, e: [d], name="ds")
    graph.property(lambda d: d, name="eachd", each="ds")
    run = graph.on(manual, x=1)
    assert set(_lines(run.explain("ds")).values()) >= {"given", "not asked for from x"}
    assert manual.calls == []
    run.future("ds")
    told = _lines(run.explain("ds"))
    assert told["a"].startswith("submitted, 0.")
    assert told["b"] == "waits for a from a"
    assert "eachd" not in told
    manual["e"].set_running_or_notify_cancel()
    assert _lines(run.explain("e"))["e"].startswith("running, 0.")
    manual["a"].set_result(2)
    manual["b"].set_exception(ValueError("wrong"))
    manual["c"].cancel()
    manual["e"].set_result("e")
    told = _lines(run.explain("ds"))
    assert told["a"].startswith("done, 0.")
    assert told["b"].startswith("failed: ValueError: wrong, 0.")
    assert told["c"].startswith("cancelled, 0.")
    assert told["d"] == "failed with b from b, c"
    assert repr(run).startswith("<GraphRun of 7 properties: ")
    for count in ("2 done", "3 failed", "1 cancelled"):
        assert count in repr(run)


def test_explain_each_and_futures(manual: Manual) -> None:
    """Of an each property it tells how many calls are done."""
    run = each_graph().on(manual, items=[1, 2, 3])
    run.future("total")
    manual.futures[1].set_result(2)
    told = _lines(run.explain("total"))
    assert told["doubled"].startswith("running, 1 of 3 calls, 0.")
    assert told["doubled"].endswith("from items")
    assert told["total"] == "waits for doubled from doubled"
    assert "given as a future" in each_graph().on(manual, items=Future()).explain("total")


def test_explain_what_cannot_be_computed(manual: Manual) -> None:
    """Missing inputs and circles are told, not raised; a name that is not there is."""
    told = diamond().on(manual).explain("b")
    assert _lines(told)["x"] == "missing"
    assert "give what is missing: graph.on(executor, x=...)" in told
    graph = Graph()
    graph.property(lambda b: b, name="a")
    graph.property(lambda a: a, name="b")
    assert "properties need themselves" in graph.on(manual).explain("a")
    with pytest.raises(GraphError, match="'c' is neither"):
        graph.on(manual).explain("c")


def test_dot() -> None:
    """Boxes, inputs, and arrows that show each and defaults."""
    text = report.to_dot()
    assert text.startswith("digraph {")
    assert '"texts" [shape=plaintext];' in text
    assert '"parts" -> "tallies" [style=bold, label="each"];' in text
    assert '"size" -> "parts" [style=dashed];' in text
    assert '"tallies" -> "totals";' in text
    assert r'"hosts" [label="hosts\non names"];' in two_executors().to_dot()


def test_picture_without_graphviz(monkeypatch: pytest.MonkeyPatch) -> None:
    """A notebook shows a table where there is no graphviz."""
    monkeypatch.setattr(shutil, "which", lambda _: None)
    graph = two_executors()
    assert graph._repr_svg_() is None
    table = graph._repr_html_()
    assert table is not None
    assert "<td>hosts</td><td>each of d_items</td><td>names</td>" in table


@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz's dot is not installed")
def test_picture_with_graphviz() -> None:
    """Where graphviz is there a notebook shows the graph, and no table beside it."""
    pytest.importorskip("graphviz")
    picture = report._repr_svg_()
    assert picture is not None
    assert "<svg" in picture
    assert "tallies" in picture
    assert report._repr_html_() is None


def test_a_failing_dot(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A dot that fails costs the picture, not the cell."""

    class Broken:
        @staticmethod
        def Source(_: str) -> Any:
            raise OSError("dot: no fonts")

    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/dot")
    monkeypatch.setitem(sys.modules, "graphviz", Broken)
    assert report._repr_svg_() is None
    assert "<table>" in (report._repr_html_() or "")


def test_reprs() -> None:
    """They tell what there is."""
    assert repr(diamond()) == "<Graph of 5 properties, inputs: x>"
    assert len(diamond()) == 5
    assert "d" in diamond()
    run = diamond().on(SerialExecutor(), x=1)
    assert repr(run) == "<GraphRun of 5 properties: none begun>"
    run["b"]
    assert repr(run) == "<GraphRun of 5 properties: 2 done>"


def test_examples() -> None:
    """The docstring's example and the README's do what they say."""
    assert doctest.testmod(daskexec.graph).failed == 0
    text = (Path(__file__).parents[2] / "README.md").read_text()
    section = text.split("## Computed properties")[1].split("\n## ")[0]
    example = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert example is not None
    ended = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}\n" + example[1]],
        env=os.environ | {"DASKEXEC_EXECUTOR": "serial"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.stderr == ""
    assert ended.stdout.splitlines() == re.findall(r"print\(.*\)  # (.*)", example[1])
