"""Tallies whose tables can be looked at."""

from __future__ import annotations

from collections.abc import Iterable

from daskexec.logs import tally as tallying
from daskexec.logs.layouts import LogFormat
from daskexec.logs.tally import Counting, Tally, settle

__all__ = ["tally_blocks"]


def tally_blocks(
    blocks: Iterable[bytes], form: LogFormat, ordinal: int = 0, counting: Counting | None = None
) -> Tally:
    """Count some lines, with whatever engine, and have all of it in the tables."""
    return settle(tallying.tally_blocks(blocks, form, ordinal, counting))
