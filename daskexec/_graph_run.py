"""One run of a graph: computes what is asked for, each property once. Floor 1.

No thread of its own and no waiting: what happens next is decided where something ended.

::

    caller's thread                       a thread of the executor
    run.future("totals")
      plan; make nodes          WAITING
      submit what needs nothing STARTED -> the call runs
                                           its future is done -> done-callback:
                                             note the value               DONE
                                             count down who waits for it
                                             submit those that wait no more
                                             set the property's own future

A failed or cancelled property takes along, at once, all that need it: none of them is
submitted, and a done-callback of a failed call submits nothing. (Pools fail their calls, and
cancel them at shutdown, with a lock held that `submit` takes.)

On an executor that takes futures as arguments nothing waits for values: a property is submitted
as soon as the calls of all that it needs were, and given their futures (`Node.early`). That these
have run is heard without their values (`_watch`); a value that is wanted here is brought then.

Each thread keeps a list of steps and works it off in a loop, so that executors which run or
finish a call within `submit` do not nest: a chain of properties of any length takes no stack.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import BrokenExecutor, Executor, Future
from concurrent.futures import wait as wait_for
from functools import partial
from time import monotonic
from typing import Any, overload

from daskexec import _graph_plan, _graph_text
from daskexec._graph_node import (
    CANCELLED,
    DONE,
    FAILED,
    STARTED,
    WAITING,
    Node,
    PropertyFuture,
    note,
)
from daskexec._graph_plan import Recipe
from daskexec.errors import GraphError, WorkerDied

__all__ = ["DEFAULT", "GraphRun"]

_LOG = logging.getLogger("concurrent.futures")  # where the stdlib's futures log this

DEFAULT = "default"
"""Name of the executor of properties that name none."""


class _Here(threading.local):
    """What one thread has to do next."""

    def __init__(self) -> None:
        self.steps: deque[Callable[[], object]] = deque()
        self.busy = False


class GraphRun:
    """A graph on an executor, with its inputs; made by ``Graph.on``.

    ``run["name"]`` is the value of a property: it is computed, with what it needs, if nobody
    has asked for it before, and waited for. ``run["one", "other"]`` has both computed at the
    same time. In a ``with`` statement the end of the block waits for all that was asked for.

    Raises
    ------
    GraphError
        From ``run[...]`` and `future`, before anything is submitted: an input is missing,
        there is no such property, properties need themselves (`GraphCycle`), or there is no
        executor of the name that a property is to run on.

    Notes
    -----
    Every method may be called from any thread. Each property is submitted at most once,
    whoever asks for it, and however often; so each is computed from the same values, and a
    value once computed stays as it is.

    Dependants are submitted where the last property that they need has ended: mostly on a
    thread of the executor, in a done-callback. Neither callbacks nor the properties' own
    functions may therefore wait for the run: on one worker they would wait for ever. The
    executor must take calls until all is done: see `wait`.

    Values are kept as long as the run is. A failure or a cancellation is kept too: a run does
    not try again.
    """

    def __init__(
        self,
        recipes: Mapping[str, Recipe],
        executors: Mapping[str, Executor] | Executor,
        given: Mapping[str, Any],
    ) -> None:
        self._recipes = recipes
        self._executors = executors
        self._given = given
        self._had = frozenset([*recipes, *given])
        # Guards _nodes and all in them. Not held while executors, futures or callbacks are
        # called.
        self._lock = threading.Lock()
        self._nodes: dict[str, Node] = {}
        self._here = _Here()

    # -- for users -------------------------------------------------------------------------

    @overload
    def __getitem__(self, name: str) -> Any: ...

    @overload
    def __getitem__(self, name: tuple[str, ...]) -> tuple[Any, ...]: ...

    def __getitem__(self, name: str | tuple[str, ...]) -> Any:
        if isinstance(name, tuple):
            return tuple(future.result() for future in [self.future(one) for one in name])
        return self.future(name).result()

    def future(self, name: str) -> PropertyFuture[Any]:
        """Have a property computed and return its future; returns at once.

        Parameters
        ----------
        name : str
            A property, or an input.

        Returns
        -------
        PropertyFuture
            The same one each time.
        """
        if not isinstance(name, str):
            raise TypeError(f"a property is asked for by its name, not {type(name).__name__}")
        with self._lock:
            node = self._nodes.get(name)
            if node is None:
                node = self._plan(name)
            node.asked = True
            self._want(node)
            if node.placeholder:
                node.future, node.placeholder = PropertyFuture(self, node), False
                if not node.remote:
                    self._here.steps.append(partial(self._settle, node))
        # Also where this thread is within a step, in a callback of the user's: the callback
        # may wait for what is still to do here.
        self._advance(nested=True)
        with self._lock:
            failed = node.state == FAILED
        if failed:  # before it was asked for, perhaps
            note(node)
        return node.future

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until all that was asked for so far is done, failed or cancelled.

        To be called before the executor is shut down: ``with ProcessPoolExecutor() as pool:``
        ends the pool at the end of its block, and a property whose turn comes later fails with
        the pool's ``RuntimeError``. ``with graph.on(pool, ...) as run:`` does it by itself.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait at most; None waits without limit.

        Returns
        -------
        bool
            Whether all is done.
        """
        with self._lock:
            futures = [node.future for node in self._nodes.values()]
        return not wait_for(futures, timeout).not_done

    def cancel(self) -> None:
        """Cancel all that was asked for and has not begun."""
        with self._lock:
            nodes = list(self._nodes.values())
        for node in reversed(nodes):  # dependants first
            node.future.cancel()

    def explain(self, name: str) -> str:
        """Tell what a property needs, and how far each of that is; computes nothing.

        Returns
        -------
        str
            A line for each property and input, dependencies first. Times are in seconds from
            the submit to the result, with what a call waited in the executor.

        Notes
        -----
        For people; what is in it may change between versions.
        """
        problem = ""
        try:
            _graph_plan.plan(self._recipes, self._given, (), name, self._had)
        except GraphError as error:
            if name not in self._had:
                raise
            problem = str(error)
        rows = _graph_text.rows_of(name, self._recipes, self._given, self._had)
        statuses = {row: self._status(row) for row in rows}
        return _graph_text.explain(name, rows, statuses, self._given, self._had, problem)

    def __enter__(self) -> GraphRun:
        return self

    def __exit__(self, *error: object) -> None:
        self.wait()

    def __repr__(self) -> str:
        with self._lock:
            states = [node.state for node in self._nodes.values() if node.recipe is not None]
        counts = [f"{states.count(state)} {state}" for state in dict.fromkeys(states)]
        return (
            f"<GraphRun of {len(self._recipes)} properties: {', '.join(counts) or 'none begun'}>"
        )

    # -- planning, under the lock -------------------------------------------------------------

    def _plan(self, asked: str) -> Node:
        """Make the nodes of a property asked for, and of all that it needs."""
        needs = _graph_plan.plan(self._recipes, self._given, self._nodes, asked, self._had)
        for name in needs:
            if name not in self._given:
                self._executor_of(self._recipes[name])
        lost: dict[str, str] = {}  # of them, those that need what has failed
        for name, sources in needs.items():
            for source in sources:
                known = self._nodes.get(source)
                if source in lost or (known is not None and known.state in (FAILED, CANCELLED)):
                    lost[name] = source
                    break
        for name, sources in needs.items():
            if asked in lost and name not in lost:
                continue  # nobody needs it then
            given = name in self._given
            node = self._nodes[name] = Node(self, name, None if given else self._recipes[name])
            node.needs = sources
            node.wanted = name == asked
            if not given:
                executor = self._executor_of(self._recipes[name])
                node.takes_futures = bool(getattr(executor, "takes_futures", False))
            if name in lost:
                self._lose(node, self._nodes[lost[name]])
            elif given:
                self._take(node, self._given[name])
            else:
                for needed in map(self._nodes.__getitem__, sources):
                    self._need(node, needed)
                if not node.waiting:
                    self._here.steps.append(partial(self._start, node))
        return self._nodes[asked]

    def _need(self, node: Node, needed: Node) -> None:
        """Have a node wait for another one, or take its futures."""
        takes = node.takes(needed)
        if not takes:
            self._want(needed)
        if needed.state == DONE and (takes or not needed.remote):
            return
        needed.dependants.append(node)
        if takes and needed.offered is not None:
            node.early.add(needed.name)
        else:
            node.waiting += 1

    def _want(self, node: Node) -> None:
        """Have the value of a node brought here, now or when it is there."""
        if not node.wanted:
            node.wanted = True
            if node.remote:
                self._here.steps.append(partial(self._bring, node))

    def _take(self, node: Node, given: Any) -> None:
        """Begin with a value or a future that was given."""
        if isinstance(given, Future):
            node.label = f"raised by the future that was given as {node.name!r}"
            node.total = node.left = 1
            node.offered = given
            self._here.steps.append(partial(self._watch, node, 0, given))
        else:
            node.state, node.value = DONE, given
            node.future.set_result(given)

    def _lose(self, node: Node, because: Node) -> None:
        """Have a node end as a property that it needs."""
        node.state, node.because = because.state, because
        node.error, node.traceback = because.error, because.traceback
        node.calls, node.results = [], []  # of one that was given futures: they fail as well
        self._here.steps.append(partial(self._settle, node))

    def _executor_of(self, recipe: Recipe) -> Executor:
        if not isinstance(self._executors, Mapping):
            return self._executors
        found = self._executors.get(recipe.on or DEFAULT)
        if found is None:
            raise GraphError(
                f"the property {recipe.name!r} runs on the executor {recipe.on or DEFAULT!r}, "
                f"and the run was given: {', '.join(map(repr, self._executors)) or 'none'}. "
                f"Give it: graph.on({{{recipe.on or DEFAULT!r}: executor, ...}})"
            )
        return found

    # -- steps, without the lock ----------------------------------------------------------------

    def _advance(self, nested: bool = False) -> None:
        """Work off what this thread has to do; within a step of it, only when `nested`."""
        here = self._here
        if here.busy and not nested:
            return
        before, here.busy = here.busy, True
        interrupt: KeyboardInterrupt | None = None
        try:
            while here.steps:
                step = here.steps.popleft()
                try:
                    step()
                except KeyboardInterrupt as error:
                    interrupt = error  # others wait for the other steps
                except BaseException:  # SystemExit of a callback: would end the pool's thread
                    _LOG.exception("exception calling a callback of a property's future")
        finally:
            here.busy = before
        if interrupt is not None:
            raise interrupt

    def _start(self, node: Node) -> None:
        """Submit the call of a property, or its calls."""
        recipe = node.recipe
        assert recipe is not None
        with self._lock:
            if node.state != WAITING:
                return  # cancelled meanwhile
            node.state, node.begun = STARTED, monotonic()
            stays = node.takes_futures and not node.wanted
            values = {}
            for needed in map(self._nodes.__getitem__, node.needs):
                done = needed.state == DONE
                values[needed.name] = needed.value if done else needed.offered
        try:
            executor = self._executor_of(recipe)
            if stays:  # said beforehand: a call may end before what needs it is submitted
                executor = _staying(executor)
            calls = _graph_plan.calls(recipe, values)
        except Exception as error:
            self._close(node, FAILED, error, f"raised for the property {node.name!r}")
            return
        with self._lock:
            node.results = [None] * len(calls)
            node.total = node.left = len(calls)
        if not calls:
            self._close(node, DONE)
        for index, (args, kwargs) in enumerate(calls):
            if node.state != STARTED:  # a call of it has failed within submit
                return
            try:
                call = executor.submit(recipe.function, *args, **kwargs)
                with self._lock:
                    wanted = node.state == STARTED
                    if wanted:
                        node.calls.append(call)
                if wanted:
                    self._watch(node, index, call)
                else:  # another call of it has failed, or it was cancelled
                    call.cancel()
            except BaseException as error:
                label = f"the executor did not take the property {node.name!r}"
                if isinstance(error, RuntimeError) and not isinstance(error, BrokenExecutor):
                    label += " (it must stay open until the run is done: see run.wait())"
                self._close(node, FAILED, error, label)
        self._offer(node)

    def _offer(self, node: Node) -> None:
        """Give the futures of what was submitted to those that take them."""
        with self._lock:
            if node.state != STARTED or len(node.calls) != node.total:
                return
            node.offer(node.calls)
            self._count_down(node)

    def _count_down(self, node: Node) -> None:
        """Begin what waits for nothing more, since a node is done or has futures to offer."""
        done = node.state == DONE
        for dependant in node.dependants:
            takes = dependant.takes(node)
            if node.name in dependant.early or not (takes if node.remote or not done else True):
                continue
            if not done:
                dependant.early.add(node.name)
            dependant.waiting -= 1
            if not dependant.waiting and dependant.state == WAITING:
                self._here.steps.append(partial(self._start, dependant))

    def _watch(self, node: Node, index: int, call: Future[Any]) -> None:
        """Hear of a call's end, without its value where that is not wanted here."""
        add_run_callback = getattr(call, "add_run_callback", None)
        if add_run_callback is None or node.wanted:
            call.add_done_callback(partial(self._call_done, node, index))
        else:
            # Of a call of our own it was said at its submit.
            add_run_callback(partial(self._call_ran, node, index), remote=node.recipe is None)

    def _call_ran(self, node: Node, index: int, call: Any) -> None:
        """Take note that a call has run; its value may be with the workers."""
        if not call.is_remote():
            self._call_done(node, index, call)
            return
        with self._lock:
            node.left -= 1
            node.remote, whole = True, not node.left
        if whole:
            self._close(node, DONE)
        self._advance()

    def _bring(self, node: Node) -> None:
        """Have values that are with the workers brought here."""
        futures = node.futures()
        with self._lock:
            node.left, node.results = len(futures), [None] * len(futures)
        for index, call in enumerate(futures):
            call.add_done_callback(partial(self._brought, node, index))

    def _brought(self, node: Node, index: int, call: Future[Any]) -> None:
        error: BaseException | None = None
        try:
            value = call.result()
        except BaseException as raised:
            error = raised
        with self._lock:
            if not node.remote:
                return  # another value of it could not be brought
            if error is not None:
                node.state, node.error, node.remote = FAILED, error, False
                node.label = f"raised when the value of the property {node.name!r} was read"
                node.traceback = error.__traceback__
                self._lose_dependants(node)
            else:
                node.results[index] = value
                node.left -= 1
                if node.left:
                    return
                each = isinstance(node.value, list) and node.value is node.offered
                node.value = node.results if each else node.results[0]
                node.results, node.remote = [], False
                waiting = [one for one in node.dependants if not one.takes(node)]
                node.dependants = waiting
                self._count_down(node)
                node.dependants = []
            if not node.placeholder:
                self._here.steps.append(partial(self._settle, node))
        self._advance()

    def _call_done(self, node: Node, index: int, call: Future[Any]) -> None:
        """Take what a call has come to; a done-callback, on any thread."""
        error: BaseException | None = None
        value: Any = None
        try:
            cancelled = call.cancelled()
            if not cancelled:
                error = call.exception()
                if error is None:
                    value = call.result()
        except BaseException as raised:  # no executor of the contract
            cancelled, error = False, raised
        if cancelled:
            self._close(node, CANCELLED)
        elif error is not None:
            each = node.recipe.each if node.recipe is not None else ()
            which = f" for {each[0]}[{index}]" if each else ""
            label = node.label or f"raised by the property {node.name!r}{which}"
            self._blame(node)
            self._close(node, FAILED, error, label)
        else:
            with self._lock:
                if node.results:
                    node.results[index] = value
                node.left -= 1
                whole = not node.left
            if whole:
                self._close(node, DONE, value=value)
        self._advance()

    def _blame(self, node: Node) -> None:
        """Fail first what a failed node was given as a future, if that has failed.

        It has, before; but its own callback may still be on its way, on another thread.
        """
        for name in node.early:
            source = self._nodes[name]
            for index, call in enumerate(source.futures()):
                pending = source.state in (WAITING, STARTED)
                if pending and call.done() and not call.cancelled() and call.exception():
                    self._call_done(source, index, call)

    def _close(
        self,
        node: Node,
        state: str,
        error: BaseException | None = None,
        label: str = "",
        value: Any = None,
    ) -> None:
        """End a property, once, and begin or end those that need it."""
        steps = self._here.steps
        with self._lock:
            if node.state not in (WAITING, STARTED):
                return
            node.state, node.label, node.ended = state, label, monotonic()
            if error is not None:
                node.error, node.traceback = error, error.__traceback__
            calls, node.calls = node.calls, []
            results, node.results = node.results, []
            if state == DONE:
                each = node.recipe is not None and node.recipe.each
                node.value = results if each else value
                if node.remote:
                    node.value = node.offer(calls)
                    if node.wanted:
                        steps.append(partial(self._bring, node))
                self._count_down(node)
                node.dependants = [
                    one for one in node.dependants if node.remote and not one.takes(node)
                ]
                steps.append(partial(self._settle, node))
                return
            steps.append(partial(self._settle, node))
            self._lose_dependants(node)
        # A pool that breaks fails its calls one by one, and before Python 3.12 its thread dies
        # of one that was cancelled meanwhile, and leaves the rest pending for ever.
        breaks = isinstance(error, BrokenExecutor) and not isinstance(error, WorkerDied)
        if calls and not breaks:
            steps.append(partial(_cancel_all, calls))

    def _lose_dependants(self, node: Node) -> None:
        """Have all that need a node end as it has ended; under the lock."""
        lost = deque((dependant, node) for dependant in node.dependants)
        node.dependants = []
        while lost:
            dependant, because = lost.popleft()
            given = dependant.state == STARTED and because.name in dependant.early
            if dependant.state == WAITING or given:
                self._lose(dependant, because)
                lost.extend((other, dependant) for other in dependant.dependants)
                dependant.dependants = []

    def _settle(self, node: Node) -> None:
        """Set the future of a property that has ended."""
        if node.state == DONE:
            with self._lock:
                if node.remote:
                    if node.asked:
                        return  # when its value is here
                    node.placeholder = True
                elif node.future.done():
                    return
                future, value = node.future, node.value
            future.set_result(value)
        elif node.error is None:
            node.future._cancel_now()
        else:
            if node.asked:
                note(node)
            node.future.set_exception(node.error)

    # -- for PropertyFuture ----------------------------------------------------------------

    def _cancel(self, node: Node) -> bool:
        with self._lock:
            begun, calls = node.state == STARTED, list(node.calls)
            pending = begun and len(calls) != node.total  # calls are still being submitted
        if begun:
            each = node.recipe is not None and node.recipe.each
            stopped = _cancel_all(calls)
            if not stopped and not (pending and each):
                return False
        self._close(node, CANCELLED)  # nothing where it is done
        self._advance(nested=True)
        if node.state != CANCELLED:
            return False
        node.future._cancel_now()  # another thread may be about to
        return True

    def _running(self, node: Node) -> bool:
        with self._lock:
            calls = list(node.calls)
            left, total = node.left, node.total
        return (total is not None and left < total) or any(map(_has_begun, calls))

    # -- for explain -----------------------------------------------------------------------

    def _status(self, name: str) -> _graph_text.Status | None:
        with self._lock:
            node = self._nodes.get(name)
            if node is None:
                return None
            seconds = (node.ended or monotonic()) - node.begun if node.begun else None
            pending = (
                [n for n in node.needs if self._nodes[n].state != DONE] if node.waiting else []
            )
            calls = list(node.calls)
            status = _graph_text.Status(
                node.state,
                seconds,
                pending,
                node.total,
                (node.total or 0) - node.left,
                node.error,
                node.because.name if node.because is not None else "",
            )
        if status.state == STARTED and (status.done or any(map(_has_begun, calls))):
            status = status._replace(state="running")
        return status


def _staying(executor: Executor) -> Executor:
    """Return an executor whose calls leave their values with its workers, where it knows how."""
    with_options: Callable[..., Executor] | None = getattr(executor, "with_options", None)
    return executor if with_options is None else with_options(remote=True)


def _has_begun(call: Future[Any]) -> bool:
    # To ask whether it is done would have its value brought here, where that can be left.
    return call.running() or (not hasattr(call, "is_remote") and call.done())


def _cancel_all(calls: list[Future[Any]]) -> bool:
    """Cancel what has not begun, the last first: the next would begin meanwhile."""
    stopped = [call.cancel() for call in reversed(calls)]
    return any(stopped)
