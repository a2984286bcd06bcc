"""What a cluster config file says, once it is checked: `ClusterConfig`. Floor 1."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["QUEUES", "ClusterConfig", "Kind"]

Kind = Literal[
    "local", "threads", "scheduler", "ssh", "slurm", "pbs", "sge", "lsf", "oar", "htcondor",
    "moab", "kubernetes", "gateway",
]  # fmt: skip

#: The kinds that submit jobs to a queue, by dask-jobqueue.
QUEUES: tuple[Kind, ...] = ("slurm", "pbs", "sge", "lsf", "oar", "htcondor", "moab")


@dataclass(frozen=True)
class ClusterConfig:
    """What a cluster config file says, checked and filled in.

    Attributes
    ----------
    name : str
        The name that it was found by: ``slurm``, or the stem of the file.
    kind : str
        What is started: one of `Kind`.
    source : str
        Path of the file. Two configs that differ by it alone are equal.
    description : str
        One line for people.
    cluster_kwargs : dict
        For the cluster class; names with underscores, ``${VARIABLES}`` filled in. What the file
        leaves out, or says to be null or empty, is not in it.
    client_kwargs, dask_config : dict
        For the ``distributed.Client``; and Dask's configuration, dotted names to values.
    scale : dict
        ``{"jobs": n}`` (queues) or ``{"workers": n}``: how large the cluster is. Empty: as
        `adapt`, or one.
    adapt : dict
        ``minimum_jobs``, ``maximum_jobs`` (or ``minimum``, ``maximum`` workers), ``interval``,
        ``wait_count``, ``target_duration``. Empty: of fixed size.
    start_timeout : float
        Seconds to wait for the first worker before giving up with a diagnosis.
    insecure : bool
        No TLS where it would be the default.
    walltime : float or None
        Seconds that a job of it may run; None where there is no limit, or none is known.
    """

    name: str
    kind: Kind
    source: str = field(default="", compare=False)
    description: str = ""
    cluster_kwargs: Mapping[str, Any] = field(default_factory=dict, repr=False)  # has passwords
    client_kwargs: Mapping[str, Any] = field(default_factory=dict)
    dask_config: Mapping[str, Any] = field(default_factory=dict)
    scale: Mapping[str, int] = field(default_factory=dict)
    adapt: Mapping[str, Any] = field(default_factory=dict)
    start_timeout: float = 900.0
    insecure: bool = False
    walltime: float | None = None

    @contextlib.contextmanager
    def in_force(self) -> Iterator[None]:
        """Have `dask_config` in force, in this process, while the body of a ``with`` runs."""
        if not self.dask_config:
            yield
            return
        import dask
        import distributed  # its defaults would go with the settings, if they came in between

        assert distributed
        with dask.config.set(dict(self.dask_config)):
            yield
