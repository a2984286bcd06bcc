"""Leaving an executor's cluster and calls to a keeper: the checks, and the steps. Floor 7.

What happens to the calls is in `daskexec._parting`; what the keeper does is in
`daskexec.keeper`; coming back is in `daskexec._left`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from typing import Any

from daskexec import _state
from daskexec._dispatcher import Dispatcher
from daskexec._kept import KeptCluster
from daskexec._parcel import Name, Parcel
from daskexec._parting import Parting
from daskexec.futures import DaskFuture

__all__ = ["leave"]


def leave(
    dispatcher: Dispatcher,
    kept: KeptCluster | None,
    name: str,
    futures: Mapping[str, DaskFuture[Any]] | Iterable[DaskFuture[Any]],
    idle_timeout: float | str,
    keep: float | str,
) -> None:
    """Do what `DaskExecutor.detach` says, whose arguments and errors these are."""
    _state.check_name(name)
    wanted = _by_name(futures, dispatcher)
    times = {"idle_timeout": _seconds(idle_timeout), "keep": _seconds(keep)}
    dispatcher.check_open()
    if kept is None:
        raise RuntimeError(
            "this executor cannot be detached: its cluster ends with this process, or was not "
            "started by it. Clusters of a config can be left, such as "
            "DaskExecutor(cluster='local') for processes on this machine"
        )
    before = {one for one, _, _ in kept.names}
    for one in wanted:
        if one in before:
            raise ValueError(f"a call that was left before is called {one!r} already")
    old, first = kept.name, kept.reserve(name)

    def deliver(parcel: Parcel) -> None:
        path = _state.clusters() / name / "parcel"
        try:
            parcel.dump(path)
            kept.keep(**times)
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    try:
        dispatcher.part(Parting(wanted, first, before, deliver), name)
    except BaseException:
        if not kept.left:
            with contextlib.suppress(Exception):
                kept.reserve(old)
        raise


def _by_name(
    futures: Mapping[str, DaskFuture[Any]] | Iterable[DaskFuture[Any]], dispatcher: Dispatcher
) -> dict[Name, DaskFuture[Any]]:
    pairs = futures.items() if isinstance(futures, Mapping) else enumerate(futures)
    named: dict[Name, DaskFuture[Any]] = dict(pairs)
    for name, future in named.items():
        if not isinstance(name, (str, int)):
            raise TypeError(f"a future's name must be a str or an int, not {name!r}")
        if not isinstance(future, Future):
            raise TypeError(f"futures[{name!r}] is no future but {type(future).__name__}")
        if getattr(future, "_canceller", None) is not dispatcher:
            raise ValueError(
                f"futures[{name!r}] is of another executor; one that `attach` gave out keeps "
                f"its name and need not be named"
            )
    if len(set(map(id, named.values()))) < len(named):
        raise ValueError("a future is in futures= twice")
    return named


def _seconds(duration: float | str) -> float:
    from dask.utils import parse_timedelta

    seconds = float(parse_timedelta(duration))
    if seconds <= 0:
        raise ValueError(f"a duration must be greater than 0, not {duration!r}")
    return seconds
