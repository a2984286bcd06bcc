"""A graph of properties, and executors whose calls a test ends itself."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, NoReturn

from daskexec import Graph
from daskexec_testing.gates import Gate, Journal

report = Graph()
"""Words of texts, counted; each call notes in a journal that it ran."""


@report.property
def parts(texts: list[str], journal: Journal, size: int = 2) -> list[list[str]]:
    journal.write("parts")
    return [texts[i : i + size] for i in range(0, len(texts), size)]


@report.property(each="parts")
def tallies(part: list[str], journal: Journal) -> dict[str, int]:
    journal.write("tallies")
    words = " ".join(part).split()
    return {word: words.count(word) for word in words}


@report.property
def totals(tallies: list[dict[str, int]], journal: Journal) -> dict[str, int]:
    journal.write("totals")
    words = sorted({word for tally in tallies for word in tally})
    return {word: sum(tally.get(word, 0) for tally in tallies) for word in words}


@report.property
def longest(totals: dict[str, int], journal: Journal) -> str:
    journal.write("longest")
    return max(totals, key=len)


@report.property
def broken(totals: dict[str, int]) -> NoReturn:
    raise KeyError("broken", len(totals))


@report.property
def dead(totals: dict[str, int], texts: list[str]) -> NoReturn:
    os._exit(7)


@report.property(each="numbers")
def dying(number: int) -> NoReturn:
    os._exit(7)


@report.property(each="numbers")
def living(number: int) -> int:
    return number


@report.property
def held(totals: dict[str, int], started: Gate, release: Gate) -> int:
    started.open()
    release.wait()
    return len(totals)


@report.property
def needs_broken(longest: str, broken: object) -> str:
    return longest


@report.property
def needs_dead(longest: str, dead: object) -> str:
    return longest


@report.property
def needs_held(held: int) -> int:
    return held


@report.property(on="urgent")
def top(totals: dict[str, int], count: int = 3) -> list[str]:
    return sorted(totals, key=lambda word: (-totals[word], word))[:count]


@report.property(each="top", on="names")
def threads(word: str) -> tuple[str, str]:
    return word, threading.current_thread().name


TEXTS = ["the quick brown fox", "jumps over the lazy dog", "the end"]
TOTALS = dict.fromkeys(sorted({word for text in TEXTS for word in text.split()}), 1)
TOTALS["the"] = 3


class Manual(Executor):
    """Runs nothing: a test looks at what was submitted and ends it itself."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.futures: list[Future[Any]] = []
        self.refusal: BaseException | None = None

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if self.refusal is not None:
            raise self.refusal
        future: Future[Any] = Future()
        self.calls.append((fn.__name__, args, kwargs))
        self.futures.append(future)
        return future

    @property
    def names(self) -> list[str]:
        return [name for name, _, _ in self.calls]

    def __getitem__(self, name: str) -> Future[Any]:
        """The future of the only call of a function."""
        (found,) = [f for n, f in zip(self.names, self.futures, strict=True) if n == name]
        return found
