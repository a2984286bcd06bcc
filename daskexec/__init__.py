"""A ``concurrent.futures.Executor`` whose workers are a Dask cluster.

The public names, each loaded when it is first used: ``import daskexec`` alone
imports neither ``distributed`` nor ``multiprocessing``, so that a program which only
*may* use the executor pays nothing for it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from daskexec.config import ClusterConfig as ClusterConfig
    from daskexec.config import load_config as load_config
    from daskexec.errors import CallTimedOut as CallTimedOut
    from daskexec.errors import ClusterStartFailed as ClusterStartFailed
    from daskexec.errors import ClusterUnreachable as ClusterUnreachable
    from daskexec.errors import ConfigError as ConfigError
    from daskexec.errors import Detached as Detached
    from daskexec.errors import ExecutorWarning as ExecutorWarning
    from daskexec.errors import GraphCycle as GraphCycle
    from daskexec.errors import GraphError as GraphError
    from daskexec.errors import InitializerFailed as InitializerFailed
    from daskexec.errors import InsecureConnection as InsecureConnection
    from daskexec.errors import NotFetched as NotFetched
    from daskexec.errors import PackageMissing as PackageMissing
    from daskexec.errors import RemoteError as RemoteError
    from daskexec.errors import RemoteTraceback as RemoteTraceback
    from daskexec.errors import SchedulerLost as SchedulerLost
    from daskexec.errors import WorkerDied as WorkerDied
    from daskexec.executor import DaskExecutor as DaskExecutor
    from daskexec.futures import DaskFuture as DaskFuture
    from daskexec.graph import Graph as Graph
    from daskexec.graph import GraphRun as GraphRun
    from daskexec.info import CallInfo as CallInfo
    from daskexec.info import CallOutput as CallOutput
    from daskexec.select import SerialExecutor as SerialExecutor
    from daskexec.select import get_executor as get_executor

__version__ = "0.1.0"

_HOMES = {
    "CallInfo": "daskexec.info",
    "CallOutput": "daskexec.info",
    "CallTimedOut": "daskexec.errors",
    "ClusterConfig": "daskexec.config",
    "ClusterStartFailed": "daskexec.errors",
    "ClusterUnreachable": "daskexec.errors",
    "ConfigError": "daskexec.errors",
    "Detached": "daskexec.errors",
    "ExecutorWarning": "daskexec.errors",
    "DaskExecutor": "daskexec.executor",
    "DaskFuture": "daskexec.futures",
    "Graph": "daskexec.graph",
    "GraphCycle": "daskexec.errors",
    "GraphError": "daskexec.errors",
    "GraphRun": "daskexec.graph",
    "InitializerFailed": "daskexec.errors",
    "InsecureConnection": "daskexec.errors",
    "NotFetched": "daskexec.errors",
    "PackageMissing": "daskexec.errors",
    "RemoteError": "daskexec.errors",
    "RemoteTraceback": "daskexec.errors",
    "SchedulerLost": "daskexec.errors",
    "SerialExecutor": "daskexec.select",
    "WorkerDied": "daskexec.errors",
    "get_executor": "daskexec.select",
    "load_config": "daskexec.config",
}

__all__ = [*_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'daskexec' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
