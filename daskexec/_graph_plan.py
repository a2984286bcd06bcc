"""What a graph of properties says, and what a property asked for needs. Floor 1.

Pure: no threads, no executor, no clock. `recipe_of` reads a function into a `Recipe`, `plan`
lists the properties that a run has to compute, dependencies first, or refuses what cannot be
computed before anything has been.
"""

from __future__ import annotations

import difflib
import graphlib
import inspect
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from daskexec.errors import GraphCycle, GraphError

__all__ = ["Each", "Parameter", "Recipe", "calls", "chain", "plan", "recipe_of"]

#: What a property is computed for each element of: a property, or properties by parameter.
Each = str | Mapping[str, str]

#: What a call is made with: by position, and by keyword.
Arguments = tuple[list[Any], dict[str, Any]]

_TEXTS = (str, bytes, bytearray, memoryview)  # sequences whose elements nobody means
_SHOWN = 8  # names of a chain in a message; a longer one is cut in the middle


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a property's function, and the property or input that it takes."""

    name: str
    source: str
    each: bool = False  # takes one element of the source
    optional: bool = False  # has a default, taken where nobody has the source
    keyword: bool = False  # cannot be passed by position


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one property is computed."""

    name: str
    function: Callable[..., Any]
    parameters: tuple[Parameter, ...]
    on: str | None = None  # name of the executor

    @property
    def each(self) -> tuple[str, ...]:
        """The sources that it is computed for each element of; empty for most properties."""
        return tuple(parameter.source for parameter in self.parameters if parameter.each)

    def needs(self, there: Collection[str]) -> tuple[str, ...]:
        """The sources that it takes, where those that are `there` can be had."""
        wanted = (p.source for p in self.parameters if not p.optional or p.source in there)
        return tuple(dict.fromkeys(wanted))

    def renamed(self, rename: Callable[[str], str]) -> Recipe:
        """The same computation under another name, of sources under other names."""
        parameters = tuple(replace(p, source=rename(p.source)) for p in self.parameters)
        return replace(self, name=rename(self.name), parameters=parameters)


def recipe_of(
    function: Callable[..., Any], name: str | None, each: Each | None, on: str | None
) -> Recipe:
    """Read a function into a recipe.

    Raises
    ------
    TypeError, GraphError
        It cannot be one; says why.
    """
    if not callable(function):
        raise TypeError(f"a property is a function, not {type(function).__name__}: {function!r}")
    found = name if name is not None else getattr(function, "__name__", None)
    if not isinstance(found, str) or not found.isidentifier():
        raise GraphError(
            f"{found if found is not None else function!r} is no name for a property: a "
            f"parameter must be able to have it. Give one: @graph.property(name='...')"
        )
    if on is not None and not isinstance(on, str):
        raise TypeError(
            f"on= is the name that the run gives an executor by, not {type(on).__name__}: "
            f"@graph.property(on='names'), and graph.on({{'names': pool, ...}})"
        )
    try:
        signature = inspect.signature(function)
    except ValueError:
        raise GraphError(
            f"the parameters of {function!r} cannot be read, so what the property {found!r} "
            f"depends on is not known: wrap it in a function of your own"
        ) from None
    parameters = []
    for parameter in signature.parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            stars = "*" if parameter.kind is parameter.VAR_POSITIONAL else "**"
            raise GraphError(
                f"the property {found!r} takes {stars}{parameter.name}: each parameter is a "
                f"property that it depends on, so each must have a name"
            )
        optional = parameter.default is not parameter.empty
        keyword = parameter.kind is parameter.KEYWORD_ONLY
        parameters.append(
            Parameter(parameter.name, parameter.name, optional=optional, keyword=keyword)
        )
    return Recipe(found, function, _with_each(found, parameters, each), on)


def _with_each(
    name: str, parameters: Sequence[Parameter], each: Each | None
) -> tuple[Parameter, ...]:
    """Mark the parameters that take one element at a time."""
    if each is None:
        return tuple(parameters)
    known = [parameter.name for parameter in parameters]
    if isinstance(each, str):
        if not known:
            raise GraphError(
                f"the property {name!r} has no parameter to take the elements of {each!r}"
            )
        if each in known[1:]:
            raise GraphError(
                f"the property {name!r} is for each of {each!r}: is it the parameter "
                f"{known[0]!r} or {each!r} that takes the element? Say so: "
                f"each={{{known[0]!r}: {each!r}}}, or each={{{each!r}: {each!r}}}"
            )
        each = {known[0]: each}
    elif not isinstance(each, Mapping):
        raise TypeError(
            f"each= is the name of a property, or names of properties by parameter, not "
            f"{type(each).__name__}: each='parts', or each={{'part': 'parts'}}"
        )
    if not each:
        raise GraphError(f"the property {name!r} is for each element of nothing: each={{}}")
    for parameter, source in each.items():
        if parameter not in known:
            raise GraphError(
                f"the property {name!r} has no parameter {parameter!r} to take the elements "
                f"of {source!r}; it has: {', '.join(known) or 'none'}"
            )
    return tuple(
        replace(p, source=each[p.name], each=True, optional=False) if p.name in each else p
        for p in parameters
    )


def plan(
    recipes: Mapping[str, Recipe],
    given: Collection[str],
    there: Collection[str],
    asked: str,
    had: Collection[str],
) -> dict[str, tuple[str, ...]]:
    """List what has to be had for a property, each with what it needs, dependencies first.

    Parameters
    ----------
    recipes
        The properties of the graph.
    given
        Names of the values that the run was given; they go before properties.
    there
        Names that were planned already: not listed again.
    asked
        The name asked for.
    had
        All names of `recipes` and `given`.

    Raises
    ------
    GraphCycle
        Properties depend on themselves.
    GraphError
        There is nothing by a name that is needed.
    """
    needs: dict[str, tuple[str, ...]] = {}
    needed_by: dict[str, str] = {}
    missing: list[str] = []
    stack = [asked]
    while stack:
        name = stack.pop()
        if name in there or name in needs:
            continue
        if name not in had:
            missing.append(name)
            continue
        needs[name] = () if name in given else recipes[name].needs(had)
        for source in reversed(needs[name]):
            needed_by.setdefault(source, name)
            stack.append(source)
    if missing:
        raise _missing(list(dict.fromkeys(missing)), asked, needed_by, had)
    try:
        order = list(graphlib.TopologicalSorter(needs).static_order())
    except graphlib.CycleError as error:
        path = list(error.args[1])
        told = ", which needs ".join(map(repr, reversed(path)))
        raise GraphCycle(
            f"properties need themselves: {told} (asked for: {asked!r})", path
        ) from None
    return {name: needs[name] for name in order if name in needs}


def _missing(
    names: list[str], asked: str, needed_by: Mapping[str, str], had: Iterable[str]
) -> GraphError:
    """The error for names that nobody has: all of them at once, each with its path."""
    first: list[str] = []
    lines = []
    for name in names:
        path = [name]
        while path[-1] in needed_by and path[-1] != asked:
            path.append(needed_by[path[-1]])
        first = first or path[::-1]
        close = difflib.get_close_matches(name, [one for one in had if one not in path], n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        lines.append(f"{name!r} is neither a property nor given{hint}: {chain(path)}")
    if names == [asked]:
        return GraphError(lines[0].rsplit(":", 1)[0] + f"; there are: {', '.join(sorted(had))}")
    gifts = ", ".join(f"{name}=..." for name in names)
    lines.append(f"give what is missing: graph.on(executor, {gifts})")
    return GraphError("\n".join(lines), tuple(first))


def chain(path: Sequence[str]) -> str:
    """Say in words who needed the first name of a path, up to the one asked for."""
    if len(path) == 1:
        return "asked for"
    names = [repr(name) for name in path[1:]]
    if len(names) > _SHOWN:
        cut = len(names) - _SHOWN
        names[_SHOWN // 2 : -(_SHOWN // 2)] = [f"{cut:,} more"]
    return "needed by " + ", needed by ".join(names)


def calls(recipe: Recipe, values: Mapping[str, Any]) -> list[Arguments]:
    """Arguments of the call of a property, or of its calls, one for each element.

    They go by position as far as possible, the rest by keyword: some executors take keywords
    such as ``key`` for themselves.

    Raises
    ------
    TypeError
        What it is computed for each element of is no list.
    ValueError
        The lists are not equally long.
    """
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    places: list[int | str] = []  # of the elements, in args or in kwargs
    skipped = False
    for parameter in recipe.parameters:
        if parameter.source not in values:
            skipped = True  # it has a default
            continue
        if parameter.each:
            places.append(parameter.name if parameter.keyword or skipped else len(args))
        if parameter.keyword or skipped:
            kwargs[parameter.name] = values[parameter.source]
        else:
            args.append(values[parameter.source])
    if not places:
        return [(args, kwargs)]
    made: list[Arguments] = []
    for items in _in_step(recipe, [values[source] for source in recipe.each]):
        args, kwargs = args.copy(), kwargs.copy()
        for place, item in zip(places, items, strict=True):
            if isinstance(place, int):
                args[place] = item
            else:
                kwargs[place] = item
        made.append((args, kwargs))
    return made


def _in_step(recipe: Recipe, values: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
    for source, value in zip(recipe.each, values, strict=True):
        if isinstance(value, _TEXTS) or not isinstance(value, Sequence):
            raise TypeError(
                f"the property {recipe.name!r} is computed for each element of {source!r}, "
                f"which must be a list or another sequence, not {type(value).__name__}"
            )
    if len({len(value) for value in values}) > 1:
        sizes = zip(recipe.each, map(len, values), strict=True)
        told = ", ".join(f"{source!r} has {size}" for source, size in sizes)
        raise ValueError(
            f"the property {recipe.name!r} takes lists in step, which must be equally long: {told}"
        )
    return zip(*values, strict=True)
