"""Workers that a call names: which of those that are there it may run on. Floor 1.

Dask looks a name up once, when a task comes, and then means the address that it had; a name that
nobody has at that time it takes for a host, and then for that of the worker which joins under the
name. So a call for a worker that has died and been replaced under its name, or whose name is a
number, would wait for ever, and one for a worker that joins later run on any worker of its host.
Here names are looked up by the client, and again whenever workers have come or gone.

Pure: no threads, nothing is asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from daskexec._lifetimes import Where

__all__ = ["Names", "is_meant"]


def is_meant(wanted: Sequence[str], address: str, name: str) -> bool:
    """Tell whether a worker is among those wanted, by its address, its name or its host."""
    return any(
        one in (address, name) or f"//{one}:" in address or address.endswith(f"://{one}")
        for one in wanted
    )


class Names:
    """The workers there are, as far as known, by address.

    For one thread at a time: the ledger of the executor guards it with its lock.
    """

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def learn(self, names: Mapping[str, str]) -> None:
        """Take note of all workers that there are now."""
        self._names = dict(names)

    def where(self, wanted: Sequence[str]) -> Where:
        """Say where a task is to be run that names workers; nowhere while none is there."""
        return Where(
            tuple(a for a, name in self._names.items() if is_meant(wanted, a, name)), strict=True
        )
