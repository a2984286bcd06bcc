"""A cluster in Kubernetes, by the Dask operator (``dask_kubernetes.operator.KubeCluster``).

This module was never run against a Kubernetes cluster: the tests check what is passed to
``KubeCluster`` with a stand-in for it, and the keys against the signature of the real class.

The config's ``cluster_kwargs`` are those of ``KubeCluster``: `KEYS` lists them. The cluster must
have the Dask operator installed, and the image must have the caller's versions of Python, Dask
and of what the calls import.
"""

from __future__ import annotations

import math
import os
import re
import threading
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from daskexec.config import ClusterConfig
from daskexec.errors import ClusterStartFailed, ClusterUnreachable
from daskexec.kinds import needs
from daskexec.kinds._workers_only import check, wrong

__all__ = ["KEYS", "open_cluster"]

#: What ``cluster_kwargs`` may hold.
KEYS = (
    "name", "namespace", "image", "resources", "env", "worker_command",
    "port_forward_cluster_ip", "create_mode", "shutdown_on_close", "idle_timeout",
    "resource_timeout", "scheduler_service_type", "custom_cluster_spec",
    "scheduler_forward_port",
)  # fmt: skip

#: Not ``dask-worker``, which is dask-kubernetes' default and no longer comes with distributed.
WORKER_COMMAND = ("dask", "worker")

#: Where a pod finds the keys to the cluster that it runs in.
_IN_A_POD = "/var/run/secrets/kubernetes.io/serviceaccount/token"


def open_cluster(config: ClusterConfig, workers: int | None) -> _KubeCluster:
    """Create the cluster's objects; return when its scheduler listens.

    Raises
    ------
    ClusterUnreachable
        No Kubernetes cluster is known here, or its API does not answer.
    ClusterStartFailed
        Kubernetes or the Dask operator refused it, or its scheduler does not start.
    ConfigError
        Something in the config cannot be right.
    """
    operator = needs("dask_kubernetes.operator", extra="kubernetes", kind="kubernetes")
    options = _checked(config)
    _check_kubeconfig()
    per_worker = _threads(options.get("resources"))
    count = None if workers is None else -(-workers // per_worker)
    adapt = dict(config.adapt)
    if adapt and count is not None:
        adapt["maximum"] = min(count, adapt.get("maximum") or count)
        adapt["minimum"] = min(adapt["maximum"], adapt.get("minimum") or 0)
    size = count or int(config.scale.get("workers", 1))
    try:
        cluster = operator.KubeCluster(
            n_workers=int(adapt.get("minimum") or 0) if adapt else size, quiet=True, **options
        )
    except Exception as exc:
        raise _failure(exc, options["name"]) from exc
    running = _KubeCluster(cluster, per_worker)
    try:
        running.size(adapt or size)
    except BaseException:
        running.close()
        raise
    return running


class _KubeCluster:
    security = None  # the operator's clusters speak plain TCP within the cluster's network

    def __init__(self, cluster: Any, threads_per_worker: int) -> None:
        self._cluster, self._threads_per_worker = cluster, threads_per_worker
        self._asked = ""
        self._lock = threading.Lock()  # guards the close
        self._closed = False
        self.address: str = cluster.scheduler_address

    def size(self, size: int | Mapping[str, Any]) -> None:
        """Set the number of workers, or the bounds within which it follows the load."""
        name = self._cluster.name
        try:
            if isinstance(size, int):
                self._cluster.scale(size)
            else:
                self._cluster.adapt(**size)
        except Exception as exc:
            raise _failure(exc, name) from exc
        self._asked = str(size) if isinstance(size, int) else "as many as the load needs of the"

    def trouble(self) -> tuple[bool, str]:
        name, namespace = self._cluster.name, self._cluster.namespace
        status = str(getattr(self._cluster.status, "name", self._cluster.status))
        if status in ("closing", "closed", "failed"):
            return True, f"the Kubernetes cluster {name} of Dask is {status}"
        return False, (
            f"{self._asked} workers asked for in Kubernetes; what keeps them: kubectl get pods "
            f"-n {namespace} -l dask.org/cluster-name={name}"
        )

    def fate(self, worker: str) -> str:
        final, known = self.trouble()
        return known if final else ""

    def scale(self, workers: int) -> None:
        self.size(-(-workers // self._threads_per_worker))

    def close(self) -> None:
        with self._lock:
            if not self._closed:
                self._closed = True
                self._cluster.close()


def _checked(config: ClusterConfig) -> dict[str, Any]:
    """Return the arguments for ``KubeCluster``, checked, with a name and a worker command."""
    check(config, KEYS, "Kubernetes", of="kind kubernetes")
    options = dict(config.cluster_kwargs)
    spec = options.get("custom_cluster_spec")
    if isinstance(spec, str):
        options["custom_cluster_spec"] = os.path.expanduser(spec)
    if spec is None:
        options.setdefault("worker_command", list(WORKER_COMMAND))
    options.setdefault("name", f"daskexec-{uuid.uuid4().hex[:10]}")
    if isinstance(options.get("create_mode"), str):
        options["create_mode"] = _create_mode(config, options["create_mode"])
    return options


def _create_mode(config: ClusterConfig, name: str) -> Any:
    from dask_kubernetes.operator.kubecluster.kubecluster import CreateMode

    try:
        return CreateMode[name.upper()]
    except KeyError:
        modes = ", ".join(mode.name for mode in CreateMode)
        raise wrong(config, f"create_mode must be one of {modes}, not {name!r}") from None


def _check_kubeconfig() -> None:
    named = os.environ.get("KUBECONFIG", "")
    places = [Path(part).expanduser() for part in (named or "~/.kube/config").split(os.pathsep)]
    if os.path.exists(_IN_A_POD) or any(path.is_file() for path in places if str(path)):
        return
    looked = " or ".join(map(str, places)) + (" (as KUBECONFIG says)" if named else "")
    raise ClusterUnreachable(
        f"no Kubernetes cluster is known here: there is no kubeconfig at {looked}, and this is "
        f"no pod. Get one from whoever runs the cluster, and try: kubectl get pods"
    )


def _threads(resources: Any) -> int:
    """Return how many threads a worker has: as Dask counts, the CPUs that its pod may use."""
    limit = ((resources or {}).get("limits") or {}).get("cpu", 1)
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(m?)", str(limit))
    if match is None:
        return 1
    return max(1, math.ceil(float(match[1]) / (1000 if match[2] else 1)))


def _failure(exc: Exception, name: str) -> Exception:
    """Put an error of dask-kubernetes, or of what it uses, into words."""
    said = next((line for line in str(exc).splitlines() if line.strip()), type(exc).__name__)
    kind = type(exc).__name__
    if kind in ("ConnectError", "ConnectTimeout", "APITimeoutError"):
        return ClusterUnreachable(
            f"the API of the Kubernetes cluster does not answer ({said}): try kubectl get pods"
        )
    if kind == "SchedulerStartupError":  # with the log of the scheduler's pod
        log = "\n".join(str(exc.args[-1]).splitlines()[-20:])
        return ClusterStartFailed(
            f"the scheduler of the Kubernetes cluster {name} does not start. Its log ends:\n{log}"
        )
    if "credentials" in said:
        return ClusterStartFailed(f"Kubernetes knows no login of yours: {said}")
    return ClusterStartFailed(
        f"the Kubernetes cluster {name} could not be started or changed: {kind}: {said}. Look "
        f"with kubectl describe daskcluster {name}; what is left of it goes with kubectl delete "
        f"daskcluster {name}"
    )
