"""Options of calls, apart from the user's own arguments. Floor 0.

They never share a signature with the user's function: a view of the executor made by
``DaskExecutor.with_options`` carries them, and ``submit`` keeps the stdlib's signature.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from typing import Any

from daskexec._after import After

__all__ = ["RERUNS", "CallOptions"]

#: Times that a call with ``rerun=True`` is sent again after its worker died.
RERUNS = 3


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
        Addresses, names or hosts (as in the addresses) of the only workers that may run the
        calls. While there is none of them the calls wait for one to join.
    capture_output : bool
        Bring what a call writes and logs to its future.
    timeout : float, optional
        Seconds that a call may take, from when a worker begins it.
    after : Future or iterable of Future, optional
        What must be done before a call starts; their values are not used.
    rerun : bool, optional
        Whether a call that was begun may be run again after its worker died: never, up to
        `RERUNS` times, or (None) where it was lost with others, which share its task.
    remote : bool
        Leave the value with the worker until somebody asks for it, unless it is small.

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
    timeout: float | None = None
    after: After | None = None
    rerun: bool | None = None
    remote: bool = False

    @property
    def alone(self) -> bool:
        """Whether calls with these options share no task with others."""
        return bool(
            self.retries or self.resources or self.workers or self.capture_output or self.singly
        )

    @property
    def singly(self) -> bool:
        """Whether the items of a map with these options are calls of their own."""
        return bool(self.retries or self.timeout or self.rerun is not None)

    def left(self) -> CallOptions:
        """Return these without `after`, as for a process that has no use for it any more."""
        return self if self.after is None else replace(self, after=None)

    def with_(self, options: Mapping[str, Any]) -> CallOptions:
        """Return these with some others in their place.

        Raises
        ------
        TypeError, ValueError
            As by the constructor; also where there is no option of a name.
        """
        known = [field.name for field in fields(self)]
        for name in options:
            if name not in known:
                near = get_close_matches(name, known, 1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise TypeError(f"unknown option {name!r}.{hint} There are: {', '.join(known)}")
        return replace(self, **options)

    def __post_init__(self) -> None:
        if self.name is not None and (not isinstance(self.name, str) or not self.name):
            raise TypeError(f"name must be a str that is not empty, not {self.name!r}")
        for field in ("priority", "retries"):
            value = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{field} must be an int, not {type(value).__name__}")
        for field in ("capture_output", "remote"):
            value = getattr(self, field)
            if not isinstance(value, bool):
                raise TypeError(f"{field} must be True or False, not {value!r}")
        if self.retries < 0:
            raise ValueError(f"retries must be 0 or more, not {self.retries}")
        if self.resources is not None:
            object.__setattr__(self, "resources", _checked_resources(self.resources))
        if self.workers is not None:
            object.__setattr__(self, "workers", _checked_workers(self.workers))
        if self.timeout is not None:
            _check_timeout(self.timeout)
        object.__setattr__(self, "after", _after(self.after))
        if self.rerun is not None and not isinstance(self.rerun, bool):
            raise TypeError(f"rerun must be True, False or None, not {self.rerun!r}")


def _after(futures: Any) -> After | None:
    if futures is None or isinstance(futures, After):
        return futures
    if not isinstance(futures, Future) and isinstance(futures, Iterable):
        futures = tuple(futures)
    return After(futures) if futures != () else None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_timeout(timeout: Any) -> None:
    if not _is_number(timeout):
        raise TypeError(f"timeout must be a number of seconds, not {type(timeout).__name__}")
    if not 0 < timeout < math.inf:  # NaN neither
        raise ValueError(
            f"timeout must be a number of seconds greater than 0, or None for no limit, "
            f"not {timeout}"
        )


def _checked_workers(workers: Any) -> tuple[str, ...]:
    if isinstance(workers, str):
        names: tuple[Any, ...] = (workers,)
    else:
        names = tuple(workers) if isinstance(workers, Iterable) else ()
    if not names or not all(isinstance(name, str) and name for name in names):
        raise TypeError(
            f"workers must be addresses, names or hosts of workers (str), not {workers!r}"
        )
    return names


def _checked_resources(resources: Any) -> dict[str, float]:
    if not isinstance(resources, Mapping):
        raise TypeError(f"resources must map names to amounts, not {resources!r}")
    for name, amount in resources.items():
        if not isinstance(name, str):
            raise TypeError(f"resources must map names (str) to amounts, not {name!r}")
        if not _is_number(amount):
            raise TypeError(f"resources[{name!r}] must be a number, not {amount!r}")
        if not 0 < amount < math.inf:
            raise ValueError(f"resources[{name!r}] must be a positive amount, not {amount}")
    return dict(resources)
