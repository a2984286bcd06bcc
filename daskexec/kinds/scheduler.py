"""A scheduler that runs already, of which the config knows the address."""

from __future__ import annotations

from typing import Any

from daskexec._security import refuse_plaintext, security_from
from daskexec.config import ClusterConfig

__all__ = ["open_cluster"]


class _Foreign:
    """Somebody else's cluster: nothing of it is ours to scale or to end."""

    def __init__(self, address: str, security: Any) -> None:
        self.address, self.security = address, security

    def trouble(self) -> tuple[bool, str]:
        return False, ""

    def fate(self, worker: str) -> str:
        return ""

    def scale(self, workers: int) -> None:
        pass

    def close(self) -> None:
        pass


def open_cluster(config: ClusterConfig, workers: int | None) -> _Foreign:
    """Name the scheduler; whether it is there shows when a client connects.

    ``cluster_kwargs`` has the ``address``, and for TLS ``security``: see
    `daskexec._security.security_from`.
    """
    address = str(config.cluster_kwargs["address"])
    address = address if "://" in address else f"tcp://{address}"
    refuse_plaintext(address, config.insecure)
    keys = config.cluster_kwargs.get("security")
    return _Foreign(address, security_from(keys, config.source or config.name))
