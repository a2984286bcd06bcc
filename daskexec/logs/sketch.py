"""How many distinct keys there were, in 64 KiB: a HyperLogLog.

Role: what a bounded tally keeps of keys that it no longer holds one by one. Floor 10, part
of the log job; pure. Flajolet, Fusy, Gandouet and Meunier (2007), with 64-bit hashes, so
that no correction for large numbers is needed, and linear counting for small ones.

Merging is associative and commutative, and the hash is the same in every process: neither
the executor nor the way the files are cut can be seen in the estimate.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from hashlib import blake2b

__all__ = ["STANDARD_ERROR", "Distinct"]

_BITS = 16
_REGISTERS = 1 << _BITS
_REST = 64 - _BITS

STANDARD_ERROR = 1.04 / math.sqrt(_REGISTERS)
"""Relative standard error of the estimate: 0.41 %."""


class Distinct:
    """The distinct keys among those that were added, as a number."""

    __slots__ = ("_registers",)

    def __init__(self, registers: bytes = bytes(_REGISTERS)) -> None:
        self._registers = bytearray(registers)

    def add(self, keys: Iterable[bytes]) -> None:
        """Add keys; adding one again changes nothing."""
        registers = self._registers
        for key in keys:
            number = int.from_bytes(blake2b(key, digest_size=8).digest(), "little")
            place = number & (_REGISTERS - 1)
            rank = _REST + 1 - (number >> _BITS).bit_length()
            if rank > registers[place]:
                registers[place] = rank

    def merge(self, other: Distinct) -> None:
        """Add all keys of `other`."""
        self._registers = bytearray(map(max, self._registers, other._registers))

    def estimate(self) -> int:
        """About how many distinct keys were added."""
        registers = self._registers
        total = sum(2.0**-rank * registers.count(rank) for rank in range(_REST + 2))
        raw = 0.7213 / (1 + 1.079 / _REGISTERS) * _REGISTERS**2 / total
        empty = registers.count(0)
        if raw <= 2.5 * _REGISTERS and empty:
            return round(_REGISTERS * math.log(_REGISTERS / empty))
        return round(raw)

    def __bytes__(self) -> bytes:
        return bytes(self._registers)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Distinct) and self._registers == other._registers

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[type[Distinct], tuple[bytes]]:
        return Distinct, (bytes(self._registers),)
