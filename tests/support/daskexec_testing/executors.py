"""The executors that the contract is read to, and what each of them can do."""

from __future__ import annotations

import importlib
import multiprocessing
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from daskexec import DaskExecutor

CAPABILITIES: Mapping[str, str] = {
    "processes": "calls run in other processes than the caller's",
    "pickles": "functions, arguments and results are pickled, so calls work on copies",
    "by_value": "lambdas, closures and functions of __main__ can be submitted",
    "remote_traceback": "the text of the worker's traceback is in the exception's __cause__",
    "detects_crash": "a worker that dies fails its call with a BrokenExecutor",
    "isolates_crash": "a worker that dies fails the call that killed it and no other",
    "chunks": "map takes chunksize, and refuses a chunksize below 1",
    "buffersize": "map takes buffersize (the stdlib's executors: from Python 3.14 on)",
    "initializer": "the factory takes initializer= and initargs=",
    "logs_initializer": "a failing initializer is logged in the caller's process",
    "nests": "the executor may be handed to its own calls and used there",
    "refuses_after_fork": "submit in a forked child raises RuntimeError",
    "kills_workers": "terminate_workers and kill_workers exist",
}


@dataclass(frozen=True)
class Kind:
    """One executor under test.

    ``make(max_workers, **kwargs)`` returns a new executor; ``kwargs`` are ``initializer``
    and ``initargs`` only. ``importable`` is the ``module:attribute`` under which a script in
    a fresh interpreter finds the same factory.
    """

    name: str
    make: Callable[..., Executor]
    importable: str
    capabilities: frozenset[str] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        unknown = self.capabilities - set(CAPABILITIES)
        if unknown:
            known = ", ".join(CAPABILITIES)
            raise ValueError(f"unknown capabilities {sorted(unknown)}; known: {known}")

    def can(self, *capabilities: str) -> bool:
        return self.capabilities.issuperset(capabilities)

    def __str__(self) -> str:
        return self.name


def make_threads(max_workers: int | None = None, **kwargs: Any) -> Executor:
    return ThreadPoolExecutor(max_workers, **kwargs)


def make_processes(max_workers: int | None = None, **kwargs: Any) -> Executor:
    # Not fork: the test process runs threads of other executors.
    context = multiprocessing.get_context("forkserver")
    return ProcessPoolExecutor(max_workers, mp_context=context, **kwargs)


def make_dask(max_workers: int | None = None, **kwargs: Any) -> Executor:
    return DaskExecutor(max_workers, **kwargs)


class SharedDaskExecutor(DaskExecutor):
    """A DaskExecutor whose calls share tasks before anything is known of them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, sharing="always", **kwargs)


class AloneDaskExecutor(DaskExecutor):
    """A DaskExecutor each of whose calls has a task of its own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, sharing="never", **kwargs)


class KeptDaskExecutor(DaskExecutor):
    """A DaskExecutor whose cluster is in a process of its own, as those of a config are."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, cluster="local", **kwargs)


_NEW = {"buffersize"} if sys.version_info >= (3, 14) else set()

THREADS = Kind(
    "threads",
    make_threads,
    "daskexec_testing.executors:make_threads",
    frozenset({"by_value", "initializer", "logs_initializer", *_NEW}),
)
PROCESSES = Kind(
    "processes",
    make_processes,
    "daskexec_testing.executors:make_processes",
    frozenset(
        {
            "processes",
            "pickles",
            "remote_traceback",
            "detects_crash",
            "chunks",
            "initializer",
            *_NEW,
            *({"kills_workers"} if _NEW else ()),
        }
    ),
)
DASK = Kind("dask", make_dask, "daskexec_testing.executors:make_dask", frozenset(CAPABILITIES))

DASK_SHARED = Kind(
    "dask-shared",
    SharedDaskExecutor,
    "daskexec_testing.executors:SharedDaskExecutor",
    frozenset(CAPABILITIES),
)
DASK_ALONE = Kind(
    "dask-alone",
    AloneDaskExecutor,
    "daskexec_testing.executors:AloneDaskExecutor",
    frozenset(CAPABILITIES),
)

#: Not among those that are run by default: pytest tests/contract --executor dask-kept
DASK_KEPT = Kind(
    "dask-kept",
    KeptDaskExecutor,
    "daskexec_testing.executors:KeptDaskExecutor",
    frozenset(CAPABILITIES),
)

KINDS = (THREADS, PROCESSES, DASK, DASK_SHARED, DASK_ALONE)


def load(importable: str, capabilities: frozenset[str] | None = None) -> Kind:
    """A kind for somebody's own factory, given as ``package.module:attribute``.

    What it can do is said by ``capabilities``, or else by the factory's own attribute of
    that name; without either, only what every executor must do is asked of it.
    """
    module, _, attribute = importable.partition(":")
    if not attribute:
        raise ValueError(f"{importable!r} is not of the form package.module:attribute")
    make = getattr(importlib.import_module(module), attribute)
    if capabilities is None:
        capabilities = frozenset(getattr(make, "capabilities", ()))
    return Kind(attribute, make, importable, capabilities)
