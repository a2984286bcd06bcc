"""Workers on this machine: processes, or threads of this process, by Dask's LocalCluster."""

from __future__ import annotations

import threading
from typing import Any

from daskexec.config import ClusterConfig

__all__ = ["open_cluster"]


class _Local:
    def __init__(self, cluster: Any, threads_per_worker: int) -> None:
        self._cluster, self._threads = cluster, threads_per_worker
        self._lock = threading.Lock()  # guards the close
        self.address: str = cluster.scheduler_address
        self.security = cluster.security if cluster.security.require_encryption else None

    def trouble(self) -> tuple[bool, str]:
        return False, ""

    def fate(self, worker: str) -> str:
        return ""

    def scale(self, workers: int) -> None:
        self._cluster.scale(workers)

    def close(self) -> None:
        with self._lock:
            self._cluster.close()


def open_cluster(config: ClusterConfig, workers: int | None) -> _Local:
    """Start a scheduler and workers that listen on loopback only."""
    from distributed import LocalCluster

    options = dict(config.cluster_kwargs)
    threads = config.kind == "threads"
    if threads:
        options.setdefault("n_workers", 1)
    per_worker = int(options.setdefault("threads_per_worker", 4 if threads else 1))
    if config.scale:
        options["n_workers"] = config.scale["workers"]
    if workers is not None:
        options["n_workers"] = -(-workers // per_worker)
    if not threads:
        options.setdefault("host", "127.0.0.1")
    cluster = LocalCluster(
        processes=not threads,
        **{"dashboard_address": "127.0.0.1:0", "silence_logs": 50, **options},
    )
    if config.adapt:
        cluster.adapt(**config.adapt)
    return _Local(cluster, per_worker)
