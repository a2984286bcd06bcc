"""Events made of files, so that a test and a call see them in whichever process they run."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

PATIENCE = 30.0
"""Seconds after which a wait for something that should happen is given up."""

_STEP = 0.002


def eventually(
    condition: Callable[[], object], what: str = "", patience: float = PATIENCE
) -> None:
    """Return once ``condition()`` holds; fail after ``patience`` seconds.

    For states that have no event to wait for, such as ``Future.running()``.
    """
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {patience:g} s: {what or condition}")
        time.sleep(_STEP)


def said(words: str, warned: Iterable[warnings.WarningMessage]) -> bool:
    """Tell whether one of these warnings has the words: pytest's ``recwarn``, say."""
    return any(words in str(warning.message) for warning in warned)


@dataclass(frozen=True)
class Gate:
    """An event: open once its file exists. Pickles to the same gate."""

    path: str

    def open(self) -> None:
        Path(self.path).touch()

    def is_open(self) -> bool:
        return os.path.exists(self.path)

    def wait(self, patience: float = PATIENCE) -> None:
        eventually(self.is_open, f"gate {self.path} opens", patience)


@dataclass(frozen=True)
class Journal:
    """Lines that calls append to one file, whichever process they run in."""

    path: str

    def write(self, line: object) -> None:
        with open(self.path, "a") as file:  # one short write in append mode: never torn
            file.write(f"{line}\n")

    def lines(self) -> list[str]:
        try:
            return Path(self.path).read_text().splitlines()
        except FileNotFoundError:
            return []


class Gates:
    """Makes gates and journals in one folder; opens every gate at the end of the test."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: list[Gate] = []

    def gate(self) -> Gate:
        gate = Gate(str(self._folder / f"gate-{len(self._made)}"))
        self._made.append(gate)
        return gate

    def journal(self, name: str = "journal") -> Journal:
        return Journal(str(self._folder / name))

    def open_all(self) -> None:
        for gate in self._made:
            gate.open()
