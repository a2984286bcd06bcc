"""Graphs and runs as text and pictures, for people. Floor 1."""

from __future__ import annotations

import html
import importlib
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

from daskexec._graph_plan import Recipe

__all__ = ["Status", "dot", "explain", "rows_of", "svg", "table"]

_DRAWN = 200  # properties that dot lays out in a second or so


class Status(NamedTuple):
    """How far a property is in a run."""

    state: str
    seconds: float | None  # since it was submitted; None where it was not
    pending: Sequence[str]  # what it waits for
    total: int | None  # its calls
    done: int
    error: BaseException | None
    because: str  # the property that failed and that it needs

    def __str__(self) -> str:
        took = "" if self.seconds is None else f"{self.seconds:.3f} s"
        calls = "" if self.total in (None, 1) else f"{self.done:,} of {self.total:,} calls"
        state = {"started": "submitted", "waiting": "waits"}.get(self.state, self.state)
        if self.state == "waiting" and self.pending:
            shown = ", ".join(self.pending[:3])
            more = len(self.pending) - 3
            state = f"waits for {shown}" + (f" and {more:,} more" if more > 0 else "")
        elif self.because:
            state += f" with {self.because}"
        elif self.error is not None:
            state += f": {type(self.error).__name__}: {self.error}".splitlines()[0][:80]
        return ", ".join(filter(None, [state, calls, took]))


def rows_of(
    asked: str, recipes: Mapping[str, Recipe], given: Mapping[str, Any], had: Collection[str]
) -> dict[str, tuple[str, ...]]:
    """A property and all that it needs, each with what it needs itself; the deepest first."""
    rows: dict[str, tuple[str, ...]] = {}
    seen = {asked}
    stack: list[tuple[str, tuple[str, ...], Iterator[str]]] = []

    def enter(name: str) -> None:
        computed = name in recipes and name not in given
        needs = recipes[name].needs(had) if computed else ()
        stack.append((name, needs, iter(needs)))

    enter(asked)
    while stack:
        name, needs, rest = stack[-1]
        following = next((source for source in rest if source not in seen), None)
        if following is None:
            rows[name] = needs
            stack.pop()
        else:
            seen.add(following)
            enter(following)
    return rows


def explain(
    asked: str,
    rows: Mapping[str, tuple[str, ...]],
    statuses: Mapping[str, Status | None],
    given: Mapping[str, Any],
    had: Collection[str],
    problem: str,
) -> str:
    """A line for each property and input that a property needs: how far it is, what it needs."""
    told = {}
    for name in rows:
        status = statuses[name]
        if name in given and (status is None or status.state == "done"):
            told[name] = "given as a future" if isinstance(given[name], Future) else "given"
        elif status is not None:
            told[name] = str(status)
        else:
            told[name] = "not asked for" if name in had else "missing"
    wide = max(map(len, rows))
    wider = max(map(len, told.values()))
    lines = [f"{asked}:"]
    for name, needs in rows.items():
        line = f"  {name:<{wide}}  {told[name]:<{wider}}"
        lines.append((line + (f"  from {', '.join(needs)}" if needs else "")).rstrip())
    return "\n".join(lines + ([problem] if problem else []))


def dot(recipes: Mapping[str, Recipe]) -> str:
    """A graph in the DOT language: properties as boxes, inputs as plain names.

    Edges go from what is needed to what needs it: bold where a property is computed for each
    element, dashed where a parameter has a default.
    """
    sources = {p.source: p for recipe in recipes.values() for p in recipe.parameters}
    lines = ["digraph {", "  rankdir=LR;", "  node [shape=box];"]
    lines += [f"  {_quoted(name)} [shape=plaintext];" for name in sources if name not in recipes]
    for recipe in recipes.values():
        label = recipe.name if recipe.on is None else f"{recipe.name}\non {recipe.on}"
        lines.append(f"  {_quoted(recipe.name)} [label={_quoted(label)}];")
        for p in recipe.parameters:
            look = ' [style=bold, label="each"]' if p.each else " [style=dashed]" * p.optional
            lines.append(f"  {_quoted(p.source)} -> {_quoted(recipe.name)}{look};")
    return "\n".join([*lines, "}"]) + "\n"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def svg(recipes: Mapping[str, Recipe]) -> str | None:
    """A picture of a graph; None where graphviz is not installed or the graph is too large."""
    if len(recipes) > _DRAWN or shutil.which("dot") is None:
        return None
    try:
        graphviz = importlib.import_module("graphviz")
    except ImportError:
        return None
    try:
        picture: str = graphviz.Source(dot(recipes)).pipe(format="svg", encoding="utf-8")
    except Exception:  # of dot: a notebook is to show the table then
        return None
    return picture


def table(recipes: Mapping[str, Recipe]) -> str:
    """A graph as an HTML table."""
    rows = []
    for recipe in recipes.values():
        needs = ", ".join(f"each of {p.source}" if p.each else p.source for p in recipe.parameters)
        cells = (recipe.name, needs, recipe.on or "")
        rows.append("".join(f"<td>{html.escape(cell)}</td>" for cell in cells))
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    heads = "<th>property</th><th>needs</th><th>runs on</th>"
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"
