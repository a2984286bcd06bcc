"""What a cluster config can start: one module a kind of cluster. Floor 6.

`open_cluster` is the door. A kind's module turns a `ClusterConfig` into a `RunningCluster`: it
starts schedulers, submits jobs, watches them, and ends all of it. The libraries that it needs
(``dask_jobqueue``, ``asyncssh`` ...) are imported when it is opened, not before.
"""

from __future__ import annotations

import contextlib
import importlib
from types import ModuleType
from typing import Any, Protocol

from daskexec.config import ClusterConfig
from daskexec.errors import PackageMissing

__all__ = ["RunningCluster", "needs", "open_cluster"]


class RunningCluster(Protocol):
    """A cluster that was started from a config. Every method may be called from any thread.

    Attributes
    ----------
    address : str
        Of its scheduler, for clients.
    security : distributed.Security or None
        With which clients connect to it.

    Notes
    -----
    A cluster may have more to say than this: where it has a method ``last_words() -> str``, that
    is called once when the connection to its scheduler was lost, and says why; it may block for
    some seconds. One whose workers are processes of this machine, started as a plain
    ``DaskExecutor()`` starts them, has what `daskexec.kinds.local` says.
    """

    address: str
    security: Any

    def trouble(self) -> tuple[bool, str]:
        """Say what keeps workers from joining: whether that is final, and what is known.

        For a queue its own words, such as ``job 12: PENDING (Priority)``. Asked every second, so
        it does not block: it is what was last seen by whoever watches the queue.
        """

    def fate(self, worker: str) -> str:
        """Return what is known of why a worker, by address or name, has gone; else ""."""

    def scale(self, workers: int) -> None:
        """Ask for so many workers altogether; returns when they were asked for.

        ConfigError where the cluster is of a fixed size.
        """

    def close(self) -> None:
        """End all that was started and leave nothing behind; blocks. A second one returns."""


_HOMES = {
    "local": "local",
    "threads": "threads",
    "scheduler": "scheduler",
    "ssh": "ssh",
    "slurm": "queues",
    "pbs": "queues",
    "sge": "queues",
    "lsf": "queues",
    "oar": "queues",
    "htcondor": "queues",
    "moab": "queues",
    "kubernetes": "kubernetes",
    "gateway": "gateway",
}


def open_cluster(config: ClusterConfig, workers: int | None = None) -> RunningCluster:
    """Start what a config says; return when its scheduler listens and workers were asked for.

    Parameters
    ----------
    config : ClusterConfig
    workers : int, optional
        How many worker threads there should be, in place of the config's ``scale``.

    Raises
    ------
    ClusterStartFailed
        It could not be started; nothing is left of it.
    ClusterUnreachable
        There is no scheduler, gateway or host at the address in the config.
    PackageMissing
        A package that this kind needs is not installed. A ``ClusterStartFailed``.
    """
    module = importlib.import_module(f"daskexec.kinds.{_HOMES[config.kind]}")
    with contextlib.ExitStack() as settings:
        # Read by what is started here, and by its processes.
        settings.enter_context(config.in_force())
        opened: RunningCluster = module.open_cluster(config, workers)
        keep = getattr(opened, "keep", None)  # of a scheduler in this process, until its close
        if keep is not None:
            keep(settings.pop_all())
    return opened


def needs(package: str, *, extra: str, kind: str) -> ModuleType:
    """Import and return a package that a kind of cluster needs.

    Raises
    ------
    PackageMissing
        It is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as exc:
        missing = exc.name or package
        inner = "" if package.startswith(missing) else f" ({package} imports it)"
        raise PackageMissing(
            f"a cluster of kind {kind!r} needs the package {missing}{inner}, and it is not "
            f"installed here: pip install 'daskexec[{extra}]'",
            missing,
        ) from None
