"""What a cluster config can start: one module a kind of cluster. Floor 6.

`open_cluster` is the door. A kind's module turns a `ClusterConfig` into a `RunningCluster`: it
starts schedulers, submits jobs, watches them, and ends all of it. The libraries that it needs
(``dask_jobqueue``, ``asyncssh`` ...) are imported when it is opened, not before.
"""

from __future__ import annotations

import importlib
from typing import Any, Protocol

from daskexec.config import ClusterConfig

__all__ = ["RunningCluster", "open_cluster"]


class RunningCluster(Protocol):
    """A cluster that was started from a config. Every method may be called from any thread.

    Attributes
    ----------
    address : str
        Of its scheduler, for clients.
    security : distributed.Security or None
        With which clients connect to it.
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
    "threads": "local",
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
    """
    module = importlib.import_module(f"daskexec.kinds.{_HOMES[config.kind]}")
    opened: RunningCluster = module.open_cluster(config, workers)
    return opened
