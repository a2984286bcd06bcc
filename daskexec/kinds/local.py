"""Worker processes on this machine: the cluster of a plain ``DaskExecutor()``, from a config."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from daskexec._link import SpawnerLink
from daskexec.config import ClusterConfig
from daskexec.errors import ClusterStartFailed, InsecureConnection

__all__ = ["open_cluster"]


class _Local:
    """A running cluster that knows, beyond what others do, how its workers end.

    Attributes
    ----------
    boards : str
        Folder in which executors have their boards (`daskexec._board`).
    """

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster
        self._lock = threading.Lock()  # guards the close
        self.address: str = cluster.scheduler_address
        self.security = cluster.security if cluster.security.require_encryption else None
        self.boards: str = cluster.boards
        self.death_of, self.recycle = cluster.death_of, cluster.recycle
        self.kill = cluster.kill
        self.signal_workers = cluster.signal_workers

    def trouble(self) -> tuple[bool, str]:
        told: tuple[bool, str] = self._cluster.trouble()
        return told

    def fate(self, worker: str) -> str:
        return ""

    def answer_at_once(self, client: str) -> None:
        """Have the scheduler send each message to a client at once; Dask's waits for 2 ms."""
        cluster = self._cluster
        cluster.loop.add_callback(cluster.answer_at_once, client)

    def scale(self, workers: int) -> None:
        self._cluster.scale(workers)

    def close(self) -> None:
        with self._lock:
            self._cluster.close()


def open_cluster(config: ClusterConfig, workers: int | None) -> _Local:
    """Start a scheduler in this process, and workers that are forked; on loopback only.

    Raises
    ------
    InsecureConnection
        It would listen, without TLS, where other machines can connect.
    ClusterStartFailed
        There is no place for its files.
    """
    from daskexec._local import LOOPBACK, ForkCluster

    given = dict(config.cluster_kwargs)
    host = given.get("host", LOOPBACK)
    secure = _secure(config, host)
    threads = int(given.get("threads_per_worker", 1))
    count = int(given.get("n_workers") or max(1, _cores() // threads))
    if config.scale:
        count = config.scale["workers"]
    if workers is not None:
        count = -(-workers // threads)
    dashboard = given.get("dashboard_address", False)
    if isinstance(dashboard, str) and dashboard.startswith(":"):
        dashboard = f"{host}{dashboard}"
    cluster = ForkCluster(
        _link(given.get("local_directory"), config),
        count,
        threads_per_worker=threads,
        memory_limit=given.get("memory_limit", "auto"),  # its share, by its threads
        dashboard=dashboard,
        resources=given.get("resources"),
        secure=secure,
        host=host,
        port=int(given.get("scheduler_port", 0)),
        logs=given.get("silence_logs"),
        name=given.get("name", "daskexec"),
        settings=config.dask_config,
    )
    if config.adapt:
        cluster.adapt(**config.adapt)
    return _Local(cluster)


def _secure(config: ClusterConfig, host: str) -> bool:
    """Tell whether it is to speak TLS; refuse plaintext where others could connect."""
    from daskexec._security import is_loopback, warn_insecure

    given = config.cluster_kwargs
    if given.get("security") or given.get("protocol") == "tls://":
        return True
    if is_loopback(host):
        return False
    if config.insecure:
        warn_insecure(f"tcp://{host}:0")
        return False
    raise InsecureConnection(
        f"{config.source or config.name}: with host: {host} other machines could connect, without "
        f"encryption, and run code as you. Write security: true in cluster_kwargs, leave host "
        f"out, or, on a network that you trust, say so with insecure: true at the top of the file"
    )


def _link(folder: str | None, config: ClusterConfig) -> SpawnerLink:
    try:
        if folder is not None:
            Path(folder).mkdir(parents=True, exist_ok=True)
        return SpawnerLink(folder)
    except OSError as exc:
        raise ClusterStartFailed(
            f"{config.source or config.name}: no folder could be made in "
            f"{folder or 'the folder for temporary files'} ({type(exc).__name__}: {exc}): name "
            f"another one as local_directory"
        ) from None


def _cores() -> int:
    from dask.system import CPU_COUNT

    return int(CPU_COUNT)
