"""Cluster configs: from a name or a YAML file to a checked `ClusterConfig`. Floor 1.

A config is data: it is loaded as plain YAML, its keys are known ones, what it can start comes
from a closed list of kinds, and nothing in it is run here. `daskexec.kinds` starts what it says.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from daskexec.errors import ConfigError

__all__ = ["ClusterConfig", "Kind", "find_config", "load_config"]

Kind = Literal[
    "local", "threads", "scheduler", "ssh", "slurm", "pbs", "sge", "lsf", "oar", "htcondor",
    "moab", "kubernetes", "gateway",
]  # fmt: skip


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
        Path of the file.
    description : str
        One line for people.
    cluster_kwargs : dict
        For the cluster class; names with underscores, ``${VARIABLES}`` filled in.
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
    """

    name: str
    kind: Kind
    source: str = ""
    description: str = ""
    cluster_kwargs: Mapping[str, Any] = field(default_factory=dict)
    client_kwargs: Mapping[str, Any] = field(default_factory=dict)
    dask_config: Mapping[str, Any] = field(default_factory=dict)
    scale: Mapping[str, int] = field(default_factory=dict)
    adapt: Mapping[str, Any] = field(default_factory=dict)
    start_timeout: float = 900.0
    insecure: bool = False


def find_config(name: str) -> Path | None:
    """Return the file that a config's name stands for; None if there is none of that name.

    Looked for in order: a path; ``$DASKEXEC_CONFIG_DIR``; ``~/.config/daskexec``;
    ``/etc/daskexec``; those that come with daskexec.
    """
    if name.endswith((".yaml", ".yml")) or os.sep in name:
        path = Path(name).expanduser()
        return path if path.is_file() else None
    for folder in folders():
        for path in (folder / f"{name}.yaml", folder / f"{name}.yml"):
            if path.is_file():
                return path
    return None


def folders() -> list[Path]:
    """Return the folders in which configs are looked for, the first one first."""
    named = os.environ.get("DASKEXEC_CONFIG_DIR", "")
    home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return [
        *([Path(named).expanduser()] if named else []),
        Path(home, "daskexec").expanduser(),
        Path("/etc/daskexec"),
        shipped(),
    ]


def shipped() -> Path:
    """Return the folder of the configs that come with daskexec."""
    package = Path(__file__).parent
    inside = package / "cluster_configs"  # in an installed wheel; else a clone
    return inside if inside.is_dir() else package.parent / "cluster_configs"


def load_config(name: str | os.PathLike[str]) -> ClusterConfig:
    """Load and check the config of that name, or at that path.

    Raises
    ------
    ConfigError
        There is none of that name, or something in it cannot be right.
    """
    import yaml

    path = find_config(os.fspath(name))
    if path is None:
        raise ConfigError(f"no cluster config is called {os.fspath(name)!r}")
    data = yaml.safe_load(path.read_text())
    if data.get("kind") not in get_args(Kind):
        raise ConfigError(f"{path}: kind must be one of {get_args(Kind)}", str(path))
    return ClusterConfig(
        name=path.stem,
        source=str(path),
        **{("adapt" if key == "adapt_kwargs" else key): value for key, value in data.items()},
    )
