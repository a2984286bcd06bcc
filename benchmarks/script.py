"""A turn as users' programs are: a script, whose functions are in ``__main__``."""

from __future__ import annotations

import sys


def tiny(x: int) -> int:
    """As `benchmarks.functions.tiny`, in ``__main__``."""
    return x + 1


if __name__ == "__main__":
    from benchmarks import turn

    turn.main(sys.argv[1], functions=sys.modules["__main__"])
