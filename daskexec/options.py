"""Options of calls, apart from the user's own arguments. Floor 0.

They never share a signature with the user's function: a view of the executor made by
``DaskExecutor.with_options`` carries them, and ``submit`` keeps the stdlib's signature.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["CallOptions"]


@dataclass(frozen=True, slots=True)
class CallOptions:
    """How calls are to be run.

    Parameters
    ----------
    name : str, optional
        What the dashboard shows for the calls, in place of the function's name.
    priority : int
        Calls with a higher one start first, before calls submitted earlier.
    retries : int
        How often a call is run again after it raised or its worker died.
    resources : mapping of str to float, optional
        What a worker must offer, per call: Dask's worker resources, such as ``{"GPU": 1}``.
    workers : tuple of str, optional
        Addresses, names or hosts of the only workers that may run the calls.
    capture_output : bool
        Bring what a call writes and logs to its future.

    Raises
    ------
    TypeError, ValueError
        A value is of the wrong type or out of range; says which.
    """

    name: str | None = None
    priority: int = 0
    retries: int = 0
    resources: Mapping[str, float] | None = None
    workers: tuple[str, ...] | None = None
    capture_output: bool = False

    @property
    def alone(self) -> bool:
        """Whether calls with these options share no task with others."""
        return bool(self.retries or self.resources or self.workers or self.capture_output)

    def __post_init__(self) -> None:
        if self.name is not None and not isinstance(self.name, str):
            raise TypeError(f"name must be a str, not {type(self.name).__name__}")
        for field in ("priority", "retries"):
            value = getattr(self, field)
            if not isinstance(value, int):
                raise TypeError(f"{field} must be an int, not {type(value).__name__}")
        captures: Any = self.capture_output
        if not isinstance(captures, bool):
            raise TypeError(f"capture_output must be True or False, not {captures!r}")
        if self.retries < 0:
            raise ValueError(f"retries must be 0 or more, not {self.retries}")
        if self.resources is not None:
            object.__setattr__(self, "resources", _checked_resources(self.resources))
        if self.workers is not None:
            workers: Any = self.workers
            names = (workers,) if isinstance(workers, str) else tuple(workers)
            if not names or not all(isinstance(name, str) for name in names):
                raise TypeError(f"workers must be worker addresses or names, not {workers!r}")
            object.__setattr__(self, "workers", names)


def _checked_resources(resources: Any) -> dict[str, float]:
    if not isinstance(resources, Mapping):
        raise TypeError(f"resources must map names to amounts, not {resources!r}")
    for name, amount in resources.items():
        if not isinstance(name, str) or not isinstance(amount, (int, float)) or amount <= 0:
            raise ValueError(f"resources must map names to positive amounts, not {resources!r}")
    return dict(resources)
