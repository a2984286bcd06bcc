"""A plan for people: what would be read, by how many calls, and what would cross the wire.

Role: `outline` writes the text of ``--dry-run``. Floor 10, part of the log job; it reads the
first mebibyte of one file, and no more of any.
"""

from __future__ import annotations

import math
import os
import pickle
from collections.abc import Iterator

from daskexec.logs.counting import FAN_IN, TallyPart
from daskexec.logs.job import Plan
from daskexec.logs.keys import show_key
from daskexec.logs.split import Part, first_bytes
from daskexec.logs.tally import PIECES, Unreadable, tally_part
from daskexec.logs.words import human_bytes

__all__ = ["merge_levels", "outline"]

_SHOWN = 20  # files
_SAMPLE = 1 << 20
_CALL = 300  # bytes of a call's message beside its part


def outline(todo: Plan, *, remote: bool, tally: TallyPart = tally_part) -> str:
    """Describe a plan.

    Parameters
    ----------
    todo
        The plan.
    remote
        Whether the executor takes futures as arguments, so that tallies are merged there.
    tally
        As for ``daskexec.logs.job.run``.

    Returns
    -------
    str
        Lines. Sizes of tallies are estimates, from a tally of the first mebibyte of a file and
        how it grew on the way.
    """
    parts = [part for _, its in todo.files for part in its]
    files = f"{len(todo.files):,} file{'' if len(todo.files) == 1 else 's'}"
    lines = [f"{files}, {_size(todo)} as they lie on disk: {len(parts):,} parts, a call each"]
    for file, its in todo.files[:_SHOWN]:
        size = human_bytes(sum(part.size for part in its))
        kind = f", {its[0].compression}" if its and its[0].compression else ""
        name = show_key(os.fsencode(file.name))
        cut = f"{len(its):,} part{'' if len(its) == 1 else 's'}"
        if file.name == "-" and todo.stdin is not None:
            size, cut = "size not known", "parts as it comes"
        lines.append(f"  {name}: {file.format}{kind}, {size}, {cut}")
    if len(todo.files) > _SHOWN:
        lines.append(f"  and {len(todo.files) - _SHOWN:,} more")
    if not parts:
        return "\n".join(lines)
    return "\n".join([*lines, *_merging(todo, parts, remote, tally)])


def _size(todo: Plan) -> str:
    return human_bytes(todo.size) + ("" if todo.known else " and what is not known")


def _merging(todo: Plan, parts: list[Part], remote: bool, tally: TallyPart) -> Iterator[str]:
    levels = merge_levels(len(parts))
    calls = human_bytes(sum(_CALL + len(pickle.dumps(part)) for part in parts))
    if remote:
        tree = " -> ".join(f"{number:,}" for number in levels)
        yield f"tallies merged on the workers, {FAN_IN} at a time: {tree}"
    else:
        yield f"tallies merged here, as they come: {levels[0]:,} -> 1"
    growth = _growth(todo, tally)
    if growth is None:
        yield f"over the wire: {calls} of calls, and tallies, whose size could not be estimated"
        return
    name, sample, size, exponent = growth

    def estimate(number: int) -> float:
        return float(size * max(1.0, todo.size / number / sample) ** exponent)

    yield (
        f"over the wire, estimated from the first {human_bytes(sample)} of "
        f"{show_key(os.fsencode(name))} (a tally of {human_bytes(size)}):"
    )
    yield f"  to the workers: {calls}"
    if remote:
        between = sum(
            number * estimate(number) for number in [*levels[:1] * PIECES, *levels[1:-1]]
        )
        yield f"  between workers, at most: {human_bytes(between)}"
        yield f"  back to here: the report; with --save {human_bytes(estimate(1))}, one tally"
    else:
        back = levels[0] * estimate(levels[0])
        yield f"  back to here: {human_bytes(back)}, {levels[0]:,} tallies (threads share them)"


def merge_levels(number: int) -> list[int]:
    """How many tallies there are on each level of the tree, the leaves first.

    >>> merge_levels(640)
    [640, 40, 3, 1]
    """
    levels = [number]
    while levels[-1] > 1:
        levels.append(-(-levels[-1] // FAN_IN))
    return levels


def _growth(todo: Plan, tally: TallyPart) -> tuple[str, int, int, float] | None:
    """Of the first file with lines: name, bytes read, size of their tally, and its growth.

    The number of distinct keys grows as a power of the lines, below 1 in most logs.
    """
    for file, its in todo.files:
        try:
            head = first_bytes(its[0], _SAMPLE) if its else b""
            head = head[: head.rfind(b"\n") + 1]
            if not head:
                continue
            few = head[: head.rfind(b"\n", 0, max(1, len(head) // 8)) + 1]
            sizes = [
                len(pickle.dumps(tally(Part(file.name, 0, 0, 0, content=some), file.format)))
                for some in (few, head)
            ]
        except (OSError, EOFError, Unreadable):
            continue
        exponent = 1.0
        if few and sizes[1] > sizes[0] > 0:
            exponent = math.log(sizes[1] / sizes[0]) / math.log(len(head) / len(few))
        return file.name, len(head), sizes[1], min(1.0, max(0.0, exponent))
    return None
