"""How many distinct keys there were, in 64 KiB: a HyperLogLog.

Role: what a bounded tally keeps of keys that it no longer holds one by one. Floor 10, part
of the log job; pure. Flajolet, Fusy, Gandouet and Meunier (2007), with 64-bit hashes, so
that no correction for large numbers is needed, and linear counting for small ones.

A sketch is plain bytes, a register each. Merging is associative and commutative, and the
hash is the same in every process: neither the executor nor the way the files are cut can be
seen in the estimate.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from hashlib import blake2b

__all__ = ["EMPTY", "STANDARD_ERROR", "estimate", "merged", "with_keys"]

_BITS = 16
_REGISTERS = 1 << _BITS
_REST = 64 - _BITS

EMPTY = bytes(_REGISTERS)
"""The sketch of no key."""

STANDARD_ERROR = 1.04 / math.sqrt(_REGISTERS)
"""Relative standard error of the estimate: 0.41 %."""


def with_keys(sketch: bytes, keys: Iterable[bytes]) -> bytes:
    """Return the sketch with keys added; adding one again changes nothing."""
    registers = bytearray(sketch)
    for key in keys:
        number = int.from_bytes(blake2b(key, digest_size=8).digest(), "little")
        place = number & (_REGISTERS - 1)
        rank = _REST + 1 - (number >> _BITS).bit_length()
        if rank > registers[place]:
            registers[place] = rank
    return bytes(registers)


def merged(one: bytes, other: bytes) -> bytes:
    """Return the sketch of the keys of both."""
    return bytes(map(max, one, other))


def estimate(sketch: bytes) -> int:
    """About how many distinct keys were added."""
    total = sum(2.0**-rank * sketch.count(rank) for rank in range(_REST + 2))
    raw = 0.7213 / (1 + 1.079 / _REGISTERS) * _REGISTERS**2 / total
    empty = sketch.count(0)
    if raw <= 2.5 * _REGISTERS and empty:
        return round(_REGISTERS * math.log(_REGISTERS / empty))
    return round(raw)
