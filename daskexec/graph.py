"""Graph: computed properties that depend on other properties, on any Executor. Floor 1.

It knows the interface of ``concurrent.futures.Executor`` and nothing of Dask. `Graph` is what
a user writes down; `daskexec._graph_plan` reads it, `daskexec._graph_run` computes it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Executor
from typing import Any, TypeVar, overload

from daskexec import _graph_text
from daskexec._graph_node import PropertyFuture
from daskexec._graph_plan import Each, Recipe, recipe_of
from daskexec._graph_run import DEFAULT, GraphRun
from daskexec.errors import GraphError

__all__ = ["Graph", "GraphRun", "PropertyFuture"]

F = TypeVar("F", bound=Callable[..., Any])


class Graph:
    """Properties, each computed by a function from other properties and from inputs.

    The name of a function is the property that it computes, the names of its parameters are
    the properties and inputs that it depends on.

    Examples
    --------
    >>> from daskexec import Graph, SerialExecutor
    >>> graph = Graph()
    >>> @graph.property
    ... def words(text):
    ...     return text.split()
    >>> @graph.property(each="words")
    ... def lengths(word):
    ...     return len(word)
    >>> @graph.property
    ... def longest(lengths):
    ...     return max(lengths)
    >>> run = graph.on(SerialExecutor(), text="properties depend on properties")
    >>> run["longest"]
    10
    >>> graph.on(SerialExecutor(), lengths=[1, 2])["longest"]  # given, not computed
    2

    Notes
    -----
    A run has the properties that the graph had when the run was made. Making runs is safe
    from any thread, also while another one adds properties. A graph can be pickled if its
    functions can.

    On an executor that takes futures as arguments (its ``takes_futures`` is true, as that of
    `DaskExecutor`) properties are submitted at once, with the futures of what they need. There
    the values go from worker to worker; only those come here that are asked for, that a
    property on another executor needs, or of which each element becomes a call.
    """

    def __init__(self) -> None:
        self._recipes: dict[str, Recipe] = {}

    @overload
    def property(
        self,
        function: F,
        /,
        *,
        name: str | None = ...,
        each: Each | None = ...,
        on: str | None = ...,
    ) -> F: ...

    @overload
    def property(
        self,
        function: None = ...,
        /,
        *,
        name: str | None = ...,
        each: Each | None = ...,
        on: str | None = ...,
    ) -> Callable[[F], F]: ...

    def property(
        self,
        function: F | None = None,
        /,
        *,
        name: str | None = None,
        each: Each | None = None,
        on: str | None = None,
    ) -> F | Callable[[F], F]:
        """Have a function compute a property; for use as a decorator, with or without options.

        Parameters
        ----------
        function : callable
            It is returned as it is, and can be called and pickled as ever. A parameter with a
            default takes the property or input of its name where there is one.
        name : str, optional
            The property's name, the function's own when None.
        each : str or mapping of str to str, optional
            Call the function for each element of a property, which must be a list or another
            sequence: the first parameter takes the element. ``each={"part": "parts",
            "size": "sizes"}`` says which parameters take the elements of what; several
            sequences are taken in step and must be equally long. The property is the list of
            the results, in order; the first call to fail fails it, and those that have not
            begun are cancelled.
        on : str, optional
            Name of the executor that runs it, as in ``graph.on({"names": pool, ...})``;
            "default" when None.

        Raises
        ------
        GraphError
            The function cannot be a property, or there is another one of that name.

        Notes
        -----
        A function of the same module and name replaces the earlier one: a cell of a notebook
        may be run again.
        """
        if function is None:
            return lambda function: self.property(function, name=name, each=each, on=on)
        self._add(recipe_of(function, name, each, on))
        return function

    def include(self, other: Graph, /, *, prefix: str = "", shared: Collection[str] = ()) -> None:
        """Add the properties of another graph, as they are now.

        Parameters
        ----------
        other : Graph
            It stays as it is.
        prefix : str
            Put before the name of each property and input of `other`, so that it can be
            included several times: ``totals`` of ``paths`` becomes ``old_totals`` of
            ``old_paths``.
        shared : collection of str
            Names that get no prefix.

        Raises
        ------
        GraphError
            A property is in both; nothing was added.
        """
        if isinstance(shared, str):
            raise TypeError(f"shared= is a collection of names, not a name: [{shared!r}]")
        names = {*other._recipes, *other.inputs()}
        for name in shared:
            if name not in names:
                raise GraphError(f"no property or input is called {name!r}{_hint(name, names)}")
        if prefix and not f"{prefix}x".isidentifier():
            raise GraphError(f"{prefix!r} is no prefix of a name that a parameter can have")
        renamed = [
            recipe.renamed(lambda name: name if name in shared else prefix + name)
            for recipe in list(other._recipes.values())
        ]
        for recipe in renamed:
            self._check_new(recipe)
        for recipe in renamed:
            self._recipes[recipe.name] = recipe

    def on(self, executor: Executor | Mapping[str, Executor], /, **given: Any) -> GraphRun:
        """Return a run on an executor, from inputs; nothing is computed yet.

        Parameters
        ----------
        executor : Executor, or mapping of str to Executor
            Any ``concurrent.futures.Executor``. In a mapping, "default" runs the properties
            that name no executor; an executor alone runs all of them.
        **given
            Inputs by name: values, or futures of any executor, which are waited for and stand
            for their values. A property may be given too; it is then not computed.

        Raises
        ------
        GraphError
            A name is neither a property's nor a parameter's.
        TypeError
            `executor` is none.
        """
        executors = executor if isinstance(executor, Mapping) else {DEFAULT: executor}
        for name, one in executors.items():
            if isinstance(one, type) or not callable(getattr(one, "submit", None)):
                raise TypeError(
                    f"the executor {name!r} must be a concurrent.futures.Executor, such as "
                    f"daskexec.get_executor('threads'), not {one!r}"
                )
        recipes = dict(self._recipes)
        names = {*recipes, *_sources(recipes)}
        for name in given:
            if name not in names:
                raise GraphError(
                    f"{name!r} was given, and is neither a property nor what one depends on"
                    f"{_hint(name, names)}"
                )
        return GraphRun(recipes, executor, given)

    def inputs(self) -> tuple[str, ...]:
        """Return the names that properties depend on and that are no properties."""
        recipes = dict(self._recipes)
        return tuple(name for name in _sources(recipes) if name not in recipes)

    def to_dot(self) -> str:
        """Return the graph in the DOT language of Graphviz.

        Properties are boxes, inputs plain names. Arrows go from what is needed to what needs
        it: bold where it is computed for each element, dashed where a default stands in.
        """
        return _graph_text.dot(dict(self._recipes))

    def __contains__(self, name: object) -> bool:
        return name in self._recipes

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._recipes))

    def __len__(self) -> int:
        return len(self._recipes)

    def __repr__(self) -> str:
        return f"<Graph of {len(self)} properties, inputs: {', '.join(self.inputs()) or 'none'}>"

    def _repr_svg_(self) -> str | None:
        return _graph_text.svg(dict(self._recipes))

    def _repr_html_(self) -> str | None:
        # Notebooks prefer HTML where there are both.
        return None if self._repr_svg_() is not None else _graph_text.table(dict(self._recipes))

    def _add(self, recipe: Recipe) -> None:
        self._check_new(recipe)
        self._recipes[recipe.name] = recipe

    def _check_new(self, recipe: Recipe) -> None:
        known = self._recipes.get(recipe.name)
        if known is not None and _home(known) != _home(recipe):
            raise GraphError(
                f"there is a property {recipe.name!r} already, computed by {known.function!r}: "
                f"name this one otherwise, @graph.property(name='...'), or give it to a run "
                f"in the other's place, graph.on(executor, {recipe.name}=...)"
            )


def _home(recipe: Recipe) -> tuple[Any, Any]:
    function = recipe.function
    name = getattr(function, "__qualname__", function)
    return getattr(function, "__module__", None), name


def _sources(recipes: Mapping[str, Recipe]) -> dict[str, None]:
    """Names that properties depend on, in the order of the graph."""
    return dict.fromkeys(p.source for recipe in recipes.values() for p in recipe.parameters)


def _hint(name: str, names: Collection[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f": did you mean {close[0]!r}?"
    return f"; there are: {', '.join(sorted(names)) or 'none'}"
