"""Workers that are threads of this process, by Dask's LocalCluster."""

from __future__ import annotations

import threading
from typing import Any

from daskexec.config import ClusterConfig

__all__ = ["open_cluster"]


class _Threads:
    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster
        self._lock = threading.Lock()  # guards the close
        self.address: str = cluster.scheduler_address
        self.security = None

    def trouble(self) -> tuple[bool, str]:
        return False, ""

    def fate(self, worker: str) -> str:
        return ""

    def scale(self, workers: int) -> None:
        self._cluster.scale(workers)

    def close(self) -> None:
        with self._lock:
            self._cluster.close()


def open_cluster(config: ClusterConfig, workers: int | None) -> _Threads:
    """Start a scheduler and a worker in this process."""
    from distributed import LocalCluster

    options = {"n_workers": 1, "threads_per_worker": 4, **config.cluster_kwargs}
    if workers is not None:
        options["n_workers"] = -(-workers // int(options["threads_per_worker"]))
    cluster = LocalCluster(
        processes=False,
        **{"dashboard_address": "127.0.0.1:0", "silence_logs": 50, **options},
    )
    return _Threads(cluster)
