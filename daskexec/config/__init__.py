"""Cluster configs: from a name or a YAML file to a checked `ClusterConfig`. Floor 1.

A config is data: it is loaded as plain YAML, its keys are known ones, what it can start comes
from a closed list of kinds, and nothing in it is run here. `daskexec.kinds` starts what it says.

::

    names      which file a name stands for
    document   the file as a tree of items that know their lines; ``${NAME}`` filled in
    keys       the table: which keys each kind takes, of what type and unit
    values     what each type of value is checked for
    loading    from the tree to a `ClusterConfig`, by the table
    derived    what a config for a queue leaves out and is better said
    schema     the table as a JSON Schema for editors, and as the tables of the README
"""

from __future__ import annotations

import os

from daskexec.config.model import QUEUES, ClusterConfig, Kind
from daskexec.config.names import Found, find_config, folders, list_configs, suggest

__all__ = [
    "QUEUES",
    "ClusterConfig",
    "Found",
    "Kind",
    "find_config",
    "folders",
    "list_configs",
    "load_config",
    "suggest",
]


def load_config(name: str | os.PathLike[str]) -> ClusterConfig:
    """Load and check the config of that name, or at that path.

    Parameters
    ----------
    name : str or path
        What `find_config` knows: the path of a file, or the name of one in the folders. A
        ``Path`` is always a path.

    Raises
    ------
    ConfigError
        There is none of that name (the closest names are told), or something in it cannot be
        right (each with its line, and what to do).

    Notes
    -----
    May be called from any thread. Nothing is started, made or written. Old names of keys are
    taken, with an `ExecutorWarning`.
    """
    # Imported here, so that an executor without a config does not wait for it.
    from daskexec.config.loading import load

    return load(name if isinstance(name, str) else os.path.abspath(name))
